"""The sections of the page, in its order: one file each, whose class fits `Section`.

In: the `Subject`, a run. Out: `Content`, for the template and the script of the section's name in
``assets``. Read first: `failures`, the smallest.
"""

from ..contract import Section
from .copies import Copies
from .differences import Differences
from .diversity import Diversity
from .duplicates import NearDuplicates
from .extremes import Extremes
from .failures import Failures
from .figures import RunFigures
from .histogram import Histogram
from .map import Map
from .matrix import Matrix
from .nearest import Nearest
from .partners import Partners

SECTIONS: tuple[Section, ...] = (
    RunFigures(),
    Histogram(),
    Diversity(),
    Differences(),
    Copies(),
    Extremes(),
    NearDuplicates(),
    Matrix(),
    Nearest(),
    Map(),
    Partners(),
    Failures(),
)
