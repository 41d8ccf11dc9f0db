"""Images that have no distances, and why."""

from ..contract import Content, Subject

_MOST = 500


class Failures:
    """What failed and why."""

    name = "failures"
    title = "What failed"
    kinds = ()

    def content(self, subject: Subject) -> Content | None:
        """Return the images that failed; None if all could be used."""
        failed = [record for record in subject.records if record.error]
        if not failed:
            return None
        lines = [(subject.name(record), record.error) for record in failed[:_MOST]]
        return Content(
            "These images could not be used; no figure on this page includes them.",
            {"failed": lines, "more": len(failed) - len(lines)},
        )
