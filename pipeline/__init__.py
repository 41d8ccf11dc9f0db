"""The stages of a run, one room each, in the order of the data.

`common` → `sources` → `images`, `backbones` → `features` → `distances` → `runs` → `matrix` →
`pairlists` → `search` → `analysis` → `judgements` → `training`. A room imports from `cache` and
from the rooms before it.
"""
