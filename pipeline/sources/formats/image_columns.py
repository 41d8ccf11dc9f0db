"""Columns that hold images: which one of a table, and what one cell of it holds."""

import json
import os
from collections.abc import Iterable

import pyarrow as pa

from ....cache.errors import UsageError, setting
from ...common.text import printable
from ..names import is_url
from ..source import ImageError
from .open_file import read_file

_CHOOSES = f"{setting('image_column', 'NAME')} chooses"


def choose_column(schema: pa.Schema, wanted: str | None) -> str:
    """Return the name of the column that holds images.

    Images are binary columns, of encoded files, and structs with a binary field ``bytes``, as the
    Image feature of Hugging Face's datasets has. If the schema's metadata says which columns are
    images, only those are.

    Parameters
    ----------
    wanted
        The column that somebody chose; None takes the only one that can hold images.

    Raises
    ------
    ImageError
        The column is not there or of another type, or no column can hold images.
    UsageError
        Several can; somebody has to choose.
    """
    able: list[str] = [field.name for field in schema if _holds_images(field.type)]
    columns = _listed(f"{field.name} ({_short(field.type)})" for field in schema)
    if wanted is not None:
        if wanted not in schema.names:
            raise ImageError(f"has no column {printable(wanted)}, but {columns}")
        if wanted not in able:
            kind = _short(schema.field(schema.names.index(wanted)).type)
            raise ImageError(
                f"the column {printable(wanted)} has the type {kind}: images are binary (encoded "
                "files) or a struct {bytes, path}"
            )
        found = [name for name in able if name == wanted]
    else:
        found = [name for name in _declared(schema) if name in able] or able
    if not found:
        raise ImageError(
            f"no column can hold images, which are binary (encoded files) or a struct "
            f"{{bytes, path}}: there is {columns}"
        )
    if len(found) > 1:
        raise UsageError(f"several columns can hold images: {_listed(found)}; {_CHOOSES} one")
    return found[0]


def read_cell(cell: pa.Scalar, folder: str) -> bytes:
    """Return the bytes of an encoded image.

    Parameters
    ----------
    cell
        Of a column as `choose_column` takes them.
    folder
        What a path relates to, if a cell has one in place of bytes.

    Raises
    ------
    ImageError
        The cell is null, or its file cannot be read.
    """
    path = None
    if pa.types.is_struct(cell.type) and cell.is_valid:
        path = cell["path"].as_py() if "path" in cell.type.names else None
        cell = cell["bytes"]
    if cell.is_valid:
        data: bytes = cell.as_py()
        return data
    if not path or not isinstance(path, str):
        raise ImageError("the entry is null")
    if is_url(path) or "::" in path:
        raise ImageError(f"has no bytes but the address {printable(path)}, which is not opened")
    file = os.path.join(folder, path)
    if not os.path.isfile(file):  # reading a pipe would never end
        raise ImageError(f"has no bytes but the path {printable(path)}: there is no such file")
    return read_file(file)


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return "bytes" in kind.names and _is_binary(kind.field("bytes").type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _declared(schema: pa.Schema) -> list[str]:
    """Return the columns that Hugging Face's metadata calls images."""
    text = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(text)["info"]["features"]
        return [name for name, kind in features.items() if kind.get("_type") == "Image"]
    except (ValueError, KeyError, TypeError, AttributeError):  # written by something else
        return []


def _listed(names: Iterable[str]) -> str:
    return ", ".join(printable(name) for name in names) or "none at all"


def _short(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 60 else f"{text[:57]}..."
