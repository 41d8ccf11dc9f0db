# For type checkers: they do not run the finder of lpipstore/__init__.py
from lpipstore.workflows.adapters.sklearn import LPIPSEmbedding as LPIPSEmbedding
