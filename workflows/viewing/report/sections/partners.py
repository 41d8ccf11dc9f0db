"""Images of two collections that have no namesake in the other."""

from ....scoring.compare import reopen_couples
from ..contract import Content, Subject

_MOST = 500


class Partners:
    """The images without a partner, of either side."""

    name = "partners"
    title = "Without a partner"
    kinds = ("paired",)

    def content(self, subject: Subject) -> Content | None:
        """Return their names; None if all have one."""
        folder = str(subject.run.manifest["folder"])
        _, alone = reopen_couples(subject.run, subject.records, folder)
        if not any(alone):
            return None
        sides = zip(subject.side_names, alone, strict=True)
        lines = [(where, name) for where, side in sides for name, _ in side]
        return Content(
            "These images have no image of the same name in the other collection; no figure on "
            "this page includes them.",
            {"lines": lines[:_MOST], "more": max(0, len(lines) - _MOST)},
        )
