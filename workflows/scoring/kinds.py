"""The kinds of runs, by the names that `lpipstore.pipeline.runs.reopen.reopen_kind` gives them."""

from .all_pairs import AllPairs
from .close_across import CloseAcross
from .close_pairs import ClosePairs
from .compare import CrossPairs, Namesakes
from .groups import WithinFolders
from .job import Job
from .table import TableOfPairs

KINDS: dict[str, type[Job]] = {
    "pairs": AllPairs,
    "groups": WithinFolders,
    "close": ClosePairs,
    "compare": CrossPairs,
    "across": CloseAcross,
    "paired": Namesakes,
    "score": TableOfPairs,
}
