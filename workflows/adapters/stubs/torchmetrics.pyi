# For type checkers: they do not run the finder of lpipstore/__init__.py
from lpipstore.workflows.adapters.torchmetrics import Diversity as Diversity
from lpipstore.workflows.adapters.torchmetrics import (
    LearnedPerceptualImagePatchSimilarity as LearnedPerceptualImagePatchSimilarity,
)
