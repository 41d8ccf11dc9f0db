"""The sections of the page, in its order: one file each, whose class fits `Section`.

In: the `Subject`, a run. Out: `Content`, for the template and the script of the section's name in
``assets``. Read first: `failures`, the smallest.
"""

from ..contract import Section
from .duplicates import NearDuplicates
from .extremes import Extremes
from .failures import Failures
from .figures import RunFigures
from .histogram import Histogram
from .map import Map
from .matrix import Matrix
from .nearest import Nearest

SECTIONS: tuple[Section, ...] = (
    RunFigures(),
    Histogram(),
    Extremes(),
    NearDuplicates(),
    Matrix(),
    Nearest(),
    Map(),
    Failures(),
)
