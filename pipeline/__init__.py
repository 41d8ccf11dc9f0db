"""The stages of a run, one room each, in the order of the data.

`common` → `sources` → `images`, `backbones` → `features` → `distances` → `runs` → `matrix` →
`pairlists` → `search` → `analysis` → `judgements` → `training`. A room imports from `cache` and
from the rooms before it.

What takes time is done in steps: functions at module level, of plain data that can be pickled, so
that any process can run them. They are `decode_batch` (`images.loader`), `extract_rows`
(`features.extractor`), `begin_all` and `score_statistics` (`distances.scoring`), `begin_part`
(`pairlists.parts`), `close_in_part` (`search.close`) and `nearest_in_step` (`search.nearest`).
"""
