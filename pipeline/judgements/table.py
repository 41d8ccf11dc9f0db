"""Human judgements: which of two images looks more like a third, and whether two look the same.

Both kinds come from BAPPS (Zhang et al., CVPR 2018): two-alternative forced choice (2AFC) and just
noticeable difference (JND).
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...cache.errors import UsageError, setting
from ..common.text import printable
from ..pairlists.table import as_names, number_names, read_table, resolve_names
from ..sources.names import is_url, split_name

CHOICES, SAMENESS = "2afc", "jnd"
ROLES = {CHOICES: ("ref", "p0", "p1"), SAMENESS: ("p0", "p1")}
"""The images that a judgement of each kind is about."""
ANSWER = {CHOICES: "judge", SAMENESS: "same"}
"""Name of the answer of each kind: the share of votes for p1, or for «the same»."""


@dataclass(frozen=True)
class Judgements:
    """Judgements of one kind, from one set or several.

    Attributes
    ----------
    kind : str
        "2afc" or "jnd".
    paths : list of str
        Each image file once.
    images : ndarray
        int64 [judgements, 3] (ref, p0, p1) or [judgements, 2] (p0, p1): indices into `paths`.
    answers : ndarray
        float64 [judgements] in [0, 1]: the share of votes for p1, or for «the same».
    votes : ndarray
        float64 [judgements], above 0: the number of votes; 1 where it is unknown.
    sets : tuple of str
        Names of the sets.
    set_of : ndarray
        int64 [judgements]: the set of each judgement, as an index into `sets`.
    """

    kind: str
    paths: list[str]
    images: NDArray[np.int64]
    answers: NDArray[np.float64]
    votes: NDArray[np.float64]
    sets: tuple[str, ...]
    set_of: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.answers)

    def only(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> "Judgements":
        """Return some of the judgements; `paths` and `sets` stay as they are."""
        return replace(
            self,
            images=self.images[which],
            answers=self.answers[which],
            votes=self.votes[which],
            set_of=self.set_of[which],
        )


def read_judgements(
    sources: Sequence[Path],
    *,
    images: Path | None = None,
    split: str = "train",
    chosen_by: str | None = "split",
) -> dict[str, Judgements]:
    """Read tables and folders of judgements.

    Parameters
    ----------
    sources
        Tables (.csv, .tsv, .parquet) with columns ``ref, p0, p1, judge`` or ``p0, p1, same``, and
        optionally ``votes``; or folders laid out as BAPPS. There a set is a folder
        ``2afc/SPLIT/SET`` or ``jnd/SPLIT/SET`` with subfolders named like the columns, which hold
        the images and one ``.npy`` file per judgement. A folder stands for all sets below it.
    images
        The folder that paths in tables are relative to; None means each table's own folder.
    split
        The split to read from a folder that contains splits.
    chosen_by
        The setting that chooses `split`, for messages; None if it is not for a person to choose.

    Returns
    -------
    dict
        Judgements by kind; kinds that no source has are left out.

    Raises
    ------
    UsageError
        A source is missing, is neither a table nor a folder of judgements, is empty, lacks `split`,
        names missing images, has an answer outside [0, 1] or a number of votes that is not above 0.
        The message names the place.
    """
    found: dict[str, list[Judgements]] = {}
    for source in sources:
        shown = printable(str(source))
        if source.is_dir():
            sets = [
                _read_folder(folder, kind) for folder, kind in _find_sets(source, split, chosen_by)
            ]
        elif source.exists():
            sets = [_read_table(source, images)]
        else:
            raise UsageError(f"no judgements at {shown}: no such file or folder")
        for judgements in sets:
            found.setdefault(judgements.kind, []).append(judgements)
    return {kind: join(parts) for kind, parts in found.items()}


def join(parts: Sequence[Judgements]) -> Judgements:
    """Join sets of one kind; a file that several sets name is listed once.

    If several sets have the same name, the second becomes "name (2)", and so on.
    """
    numbers: dict[str, int] = {}
    images, set_of, names = [], [], list[str]()
    for part in parts:
        places = [numbers.setdefault(path, len(numbers)) for path in part.paths]
        images.append(np.array(places, np.int64)[part.images])
        set_of.append(part.set_of + len(names))
        names += part.sets
    repeats = Counter[str]()
    for place, name in enumerate(names):
        repeats[name] += 1
        if repeats[name] > 1:  # such as tables of the same name in two folders
            names[place] = f"{name} ({repeats[name]})"
    return Judgements(
        parts[0].kind,
        list(numbers),
        np.concatenate(images),
        np.concatenate([part.answers for part in parts]),
        np.concatenate([part.votes for part in parts]),
        tuple(names),
        np.concatenate(set_of),
    )


# -- tables -------------------------------------------------------------------------------------


def _read_table(table: Path, images: Path | None) -> Judgements:
    shown = printable(str(table))
    content, places = read_table(table, _chooser(shown))
    kind = CHOICES if len(places) == len(ROLES[CHOICES]) else SAMENESS
    if not len(content):
        raise UsageError(f"{shown} has no judgements: column names and nothing under them")
    given, numbers = number_names([as_names(content.column(place), shown) for place in places])
    paths, same = resolve_names(given, str(table.parent if images is None else images))
    which = same[numbers].T
    _need_names(paths, which, shown)
    answers = _numbers(content, ANSWER[kind], shown)
    _need_shares(answers, ANSWER[kind], lambda line: f"line {line + 2} of {shown}")
    if "votes" in content.column_names:
        votes = _numbers(content, "votes", shown)
        for line in np.flatnonzero(~(np.isfinite(votes) & (votes > 0)))[:1]:
            raise UsageError(f"line {line + 2} of {shown} has {votes[line]:g} votes: more than 0")
    else:
        votes = np.ones(len(answers))
    _need_files(paths, f"{shown} with its paths starting from {printable(str(images or '.'))}")
    return Judgements(kind, paths, which, answers, votes, (table.stem,), np.zeros(len(which), int))


def _chooser(shown: str) -> Callable[[Sequence[str]], list[int]]:
    def choose(names: Sequence[str]) -> list[int]:
        for kind, roles in ROLES.items():
            if all(names.count(name) == 1 for name in (*roles, ANSWER[kind])):
                return [names.index(role) for role in roles]
        raise UsageError(
            f"{shown} has the columns {', '.join(map(printable, names))}; judgements need "
            "ref, p0, p1, judge (and perhaps votes), or p0, p1, same"
        )

    return choose


def _numbers(content: pa.Table, name: str, shown: str) -> NDArray[np.float64]:
    """Return a column as float64, NaN where it is empty."""
    try:
        column = content.column(name).cast(pa.float64())
    except pa.ArrowException as error:
        raise UsageError(f"the column {name} of {shown} holds what is not a number") from error
    return np.asarray(column.fill_null(float("nan")).to_numpy(), np.float64)


def _need_names(paths: Sequence[str], which: NDArray[np.int64], shown: str) -> None:
    empty = np.array([not path or "\0" in path for path in paths])
    for line in np.flatnonzero(empty[which].any(axis=1))[:1]:
        raise UsageError(f"line {line + 2} of {shown} lacks the path of an image")


def _need_shares(answers: NDArray[np.float64], name: str, place: Callable[[int], str]) -> None:
    """Raise `UsageError` for the first answer outside [0, 1]; NaN counts as outside."""
    for number in np.flatnonzero(~((answers >= 0) & (answers <= 1)))[:1].tolist():
        raise UsageError(
            f"{place(number)}: {name} is {answers[number]:g}, and a share of votes lies in [0, 1]"
        )


def _need_files(paths: Iterable[str], shown: str) -> None:
    missing = [path for path in paths if not _may_be_read(path)]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise UsageError(f"images are missing: {printable(missing[0])}{more}, named by {shown}")


def _may_be_read(path: str) -> bool:
    """Return whether a file is there, or what the image lies in; URLs are tried when read."""
    return is_url(path) or os.path.exists(path) or split_name(path)[1] is not None


# -- folders ------------------------------------------------------------------------------------


def _find_sets(source: Path, split: str, chosen_by: str | None) -> list[tuple[Path, str]]:
    """Return the sets at or below a folder, with their kinds; if it has splits, only `split`."""
    sets = []
    for folder in sorted([source, *(path for path in source.rglob("*") if path.is_dir())]):
        for kind, roles in ROLES.items():
            if all((folder / name).is_dir() for name in (*roles, ANSWER[kind])):
                sets.append((folder, kind))
                break
    shown = printable(str(source))
    if not sets:
        raise UsageError(
            f"no judgements in {shown}: looked for folders with ref, p0, p1 and judge, or p0, p1 "
            "and same, in it"
        )
    # At or below a split's own folder there is nothing to choose
    splits = {
        folder.parent.name: folder.parent
        for folder, _ in sets
        if len(folder.relative_to(source).parts) > 1
    }
    if not splits:
        return sets
    chosen = [(folder, kind) for folder, kind in sets if folder.parent.name == split]
    if not chosen:
        raise UsageError(f"{shown} has no split {split!r}, {_other_splits(splits, chosen_by)}")
    return chosen


def _other_splits(splits: Mapping[str, Path], chosen_by: str | None) -> str:
    """Say which splits there are and how to take one: none is taken unasked.

    Nobody should train on the validation split unasked, or evaluate on the training split.
    """
    names = sorted(splits)
    only = names[0] if len(names) == 1 else None
    choose = "" if chosen_by is None else f"choose with {setting(chosen_by, only)}, or "
    folder = printable(str(splits[names[0]]))
    return f"but {', '.join(names)}: {choose}name a split's own folder, such as {folder}"


def _read_folder(folder: Path, kind: str) -> Judgements:
    shown = printable(str(folder))
    answer_files = sorted((folder / ANSWER[kind]).glob("*.npy"))
    if not answer_files:
        raise UsageError(f"{shown} is an empty set: no .npy files in {ANSWER[kind]}")
    stems = [file.stem for file in answer_files]
    roles = []
    for role in ROLES[kind]:
        images = {path.stem: str(path) for path in (folder / role).iterdir()}
        missing = [stem for stem in stems if stem not in images]
        if missing:
            raise UsageError(
                f"images are missing: {shown}/{role} has none for the judgement {missing[0]}"
                + (f" and {len(missing) - 1:,} more" if len(missing) > 1 else "")
            )
        roles.append([images[stem] for stem in stems])
    answers = np.array([_read_answer(file) for file in answer_files])
    _need_shares(answers, ANSWER[kind], lambda number: printable(str(answer_files[number])))
    paths = [path for role in roles for path in role]
    numbers = np.arange(len(paths)).reshape(len(roles), -1).T
    name = f"{folder.parent.name}/{folder.name}"
    count = len(stems)
    return Judgements(
        kind, paths, numbers, answers, np.ones(count), (name,), np.zeros(count, np.int64)
    )


def _read_answer(file: Path) -> float:
    try:
        value = np.load(file, allow_pickle=False)
        return float(np.asarray(value, np.float64).reshape(()))
    except OSError as error:
        raise UsageError(f"{printable(str(file))} cannot be read: {error.strerror}") from error
    except (ValueError, EOFError) as error:  # NumPy's own message suggests allowing pickles
        raise UsageError(f"{printable(str(file))} does not hold one number as .npy") from error
