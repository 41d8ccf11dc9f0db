"""Build the page of a run: ask the sections, make pictures, render; written whole or not at all."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ....cache.errors import LpipstoreError, UsageError, setting
from ....pipeline.common.atomic import replacing
from ....pipeline.common.text import printable
from ....pipeline.runs.run import FinishedRun
from ....pipeline.sources.source import GivenSource
from ...session.screen import Lines, Screen
from .contract import KINDS, Content, Section, Subject
from .sections import SECTIONS
from .thumbnails import LARGE, Sheets, make_sheets, side_of

REPORT = "report.html"
ASSETS = Path(__file__).parent / "assets"
_MARK = b"<!doctype html>\n<!-- report of lpipstore -->\n"


@dataclass(frozen=True)
class Built:
    """A page that was written.

    Attributes
    ----------
    path
        The file.
    bytes
        Its size.
    sections
        The names of its sections.
    pictures
        Number of images on it.
    missing
        Number of those whose picture could not be made.
    failed
        Number of images of the run that have no distances.
    """

    title: ClassVar[str] = "Report"
    path: Path
    bytes: int
    sections: list[str]
    pictures: int
    missing: int
    failed: int

    def entries(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {**vars(self), "path": printable(str(self.path))}

    def lines(self) -> Lines:
        """Return the outcome as lines for people."""
        lost = f", {self.missing:,} of them missing" if self.missing else ""
        return [
            ("pictures", f"{self.pictures:,}{lost}"),
            ("sections", ", ".join(self.sections)),
            ("page", f"{printable(str(self.path))} ({self.bytes / 1e6:.1f} MB)"),
        ]


def build_report(
    run: FinishedRun, out: Path | None, screen: Screen, given: Sequence[GivenSource] = ()
) -> Built:
    """Write the page of a finished run.

    Parameters
    ----------
    run
        A run of any kind; sections that have nothing to say of it are left out.
    out
        The file; None is ``report.html`` in the folder of the run. An earlier report is replaced.
    screen
        Takes progress and warnings.
    given
        Images in memory that the run was made of.

    Raises
    ------
    UsageError
        There is another file at `out`, or there is no report on runs of this kind.
    LpipstoreError
        The run is damaged, or the page cannot be written.
    """
    path = run.path / REPORT if out is None else out
    _check_target(path)
    subject = Subject(run, screen, given)
    _check_kind(subject)
    asked = [section for section in SECTIONS if not section.kinds or subject.kind in section.kinds]
    contents = [(section, section.content(subject)) for section in asked]
    parts = [(section, content) for section, content in contents if content is not None]
    sheets, large = _pictures(subject)
    page = render(subject, parts, sheets, large).encode()
    try:
        with replacing(path) as file:
            file.write(_MARK)
            file.write(page)
    except OSError as error:
        raise LpipstoreError(f"cannot write the report: {printable(str(error))}") from error
    return Built(
        path,
        len(_MARK) + len(page),
        [section.name for section, _ in parts],
        len(subject.cast.records),
        len(sheets.reasons),
        sum(record.error is not None for record in subject.records),
    )


def render(
    subject: Subject,
    parts: list[tuple[Section, Content]],
    sheets: Sheets,
    large: Sheets,
) -> str:
    """Return the page without its first lines."""
    names = [subject.name(record) for record in subject.cast.records]
    missing = {
        number: printable(reason).replace("changed during the run; run again", "changed since")
        for number, reason in sheets.reasons.items()
    }
    sections = [
        {
            "name": section.name,
            "title": section.title,
            "hint": content.hint,
            "html": Markup(_template(section.name, content.context)),  # noqa: S704 - autoescaped
            "payload": content.payload,
        }
        for section, content in parts
    ]
    style = _joined("css", [section.name for section, _ in parts])
    script = _joined("js", [section.name for section, _ in parts])
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            title=_title(subject),
            kind=subject.kind,
            sections=sections,
            pictures={
                "names": names,
                "missing": missing,
                "small": sheets.payload(),
                "large": large.payload(),
            },
            sheets=[*sheets.uris, *large.uris],
            style=Markup(style),  # noqa: S704 - our own files
            script=Markup(script),  # noqa: S704
            style_hash=_hash(style),
            script_hash=_hash(script),
        )
    )


def _title(subject: Subject) -> str:
    """Return the heading: the folders compared or that of all images; else that of the run."""
    if subject.kind in ("compare", "across", "paired"):
        return f"LPIPS report: {' and '.join(subject.side_names)}"
    folder = subject.names[0].rstrip("/").rpartition("/")[2]
    own = printable(subject.run.path.resolve().name)
    return f"LPIPS training: {own}" if subject.kind == "train" else f"LPIPS report: {folder or own}"


def _pictures(subject: Subject) -> tuple[Sheets, Sheets]:
    """Return the pictures of all images on the page, and larger ones of those that need them."""
    icc = "convert" if subject.run.manifest.get("colours") else "ignore"
    cast, side = subject.cast, side_of(len(subject.cast.records))
    place = {record.path: n for n, record in enumerate(subject.records)}
    order = sorted(  # as in the collection: archives and videos are read quickly only in order
        range(len(cast.records)), key=lambda n: place.get(cast.records[n].path, len(place))
    )
    featured = [n for n in order if n in cast.featured and side < LARGE]
    with closing(subject.open_sources()) as sources:
        return (
            make_sheets(cast.records, order, side, sources, icc, subject.screen),
            make_sheets(cast.records, featured, LARGE, sources, icc, subject.screen),
        )


def _check_kind(subject: Subject) -> None:
    """Raise `UsageError` unless there is a report on runs of this kind."""
    if subject.kind not in KINDS:
        raise UsageError(
            f"{printable(str(subject.run.path))} is a run of lpipstore {printable(subject.kind)}, "
            f"which has no report: give a run of {', '.join(KINDS)}"
        )


def _check_target(path: Path) -> None:
    """Raise `UsageError` unless nothing but an earlier report is at `path`."""
    shown = printable(str(path))
    try:
        with path.open("rb") as file:
            if file.read(len(_MARK)) != _MARK:
                raise UsageError(f"{setting('out', shown)} exists and is no report: choose another")
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise UsageError(f"{setting('out', shown)}: there is no such folder") from None
    except OSError as error:
        raise UsageError(f"{setting('out', shown)} cannot be written: {error.strerror}") from error


@cache
def environment() -> Environment:
    """Return what renders the templates: it escapes everything, and knows no undefined names."""
    return Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _template(name: str, context: Mapping[str, Any]) -> str:
    return environment().get_template(f"{name}.html.j2").render(context)


def _joined(kind: str, names: list[str]) -> str:
    """Return the style or the script of the page: the common part, then those of the sections."""
    files = [ASSETS / f"{name}.{kind}" for name in ("page", *names)]
    return "\n".join(file.read_text("utf-8") for file in files if file.exists())


def _hash(text: str) -> str:
    """Return the hash by which a content security policy allows an inline block."""
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode()
