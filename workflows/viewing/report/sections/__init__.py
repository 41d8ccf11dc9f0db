"""The sections of the page, in its order: one file each, whose class fits `Section`.

In: the `Subject`, a run. Out: `Content`, for the template and the script of the section's name in
``assets``. Read first: `failures`, the smallest.
"""

from ..contract import Section
from .copies import Copies
from .curves import Curves
from .differences import Differences
from .diversity import Diversity
from .duplicates import NearDuplicates
from .extremes import Extremes
from .failures import Failures
from .figures import RunFigures
from .histogram import Histogram
from .hubs import Hubs
from .map import Map
from .matrix import Matrix
from .mistakes import Mistakes
from .nearest import Nearest
from .partners import Partners
from .taps import Taps
from .worst import Worst

SECTIONS: tuple[Section, ...] = (
    RunFigures(),
    Curves(),
    Mistakes(),
    Taps(),
    Histogram(),
    Diversity(),
    Differences(),
    Copies(),
    Extremes(),
    Worst(),
    NearDuplicates(),
    Matrix(),
    Nearest(),
    Hubs(),
    Map(),
    Partners(),
    Failures(),
)
