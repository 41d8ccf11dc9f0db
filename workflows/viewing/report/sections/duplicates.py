"""Near-duplicates of a collection, as strips of pictures."""

from ..allpairs import GROUPS, MEMBERS
from ..contract import Content, Subject


class NearDuplicates:
    """Groups of near-duplicates, the image to keep first."""

    name = "duplicates"
    title = "Near-duplicates"
    kinds = ("pairs", "below")

    def content(self, subject: Subject) -> Content | None:
        """Return the groups at the threshold, suggested or asked for; None without any pair."""
        if subject.kind == "pairs" and subject.empty:
            return None
        found = subject.seen.duplicates
        reason, clear = found.reason, True
        if subject.kind == "pairs":
            reason, clear = subject.pairs.suggestion.reason, subject.pairs.suggestion.clear
        records = {record.path: record for record in subject.usable}
        strips = []
        for group in found.groups[:GROUPS]:
            members = [records[path] for path in group.paths[:MEMBERS]]
            numbers = subject.cast.numbers(members, large=True)
            strip = [
                {
                    "image": number,
                    "name": subject.name(record),
                    "distance": distance,
                    "size": f"{record.width} × {record.height}",
                }
                for number, record, distance in zip(
                    numbers, members, group.distances[:MEMBERS], strict=True
                )
            ]
            strips.append({"members": strip, "more": len(group.paths) - len(strip)})
        return Content(
            "Images closer than the threshold form a group; the first of each strip, the largest, "
            "is the one to keep. Nothing is deleted.",
            {
                "strips": strips,
                "groups": len(found.groups),
                "spare": found.spare,
                "below": found.below,
                "reason": reason,
                "clear": clear,
                "shown": len(strips),
            },
        )
