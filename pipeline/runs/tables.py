"""Write the table of images of a run."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..common.atomic import replacing
from ..common.text import printable
from ..images.survey import ImageRecord
from .files import IMAGES


def write_images(
    folder: Path, records: Sequence[ImageRecord], sides: Sequence[str] | None = None
) -> None:
    """Write the table of a collection; images that were scored are numbered as in the matrix.

    `sides` gives the side of the matrix that each image belongs to; each side is numbered
    separately.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    scored: Counter[str] = Counter()
    index = []
    for record, side in zip(records, sides or [""] * len(records), strict=True):
        index.append(None if record.error else scored[side])
        scored[side] += not record.error
    table = pa.table(
        {
            "index": pa.array(index, pa.int64()),
            **({} if sides is None else {"side": list(sides)}),
            "path": [printable(record.path) for record in records],
            "status": ["failed" if record.error else "ok" for record in records],
            "error": pa.array([record.error for record in records], pa.string()),
            "content_hash": pa.array(
                [record.content.hex() if record.content else None for record in records],
                pa.string(),
            ),
            "width": pa.array([record.width for record in records], pa.int32()),
            "height": pa.array([record.height for record in records], pa.int32()),
            "bytes": pa.array([record.bytes for record in records], pa.int64()),
        }
    )
    with replacing(folder / IMAGES) as file:  # an open file: Arrow rejects some file names
        pq.write_table(table, file)
