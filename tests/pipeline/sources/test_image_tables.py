"""Tables with a column of images: Parquet and Arrow, whole and damaged."""

import io
import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from PIL import Image

from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.sources.kinds.image_tables import ImageTable
from lpipstore.pipeline.sources.source import ImageError, SourceOptions
from lpipstore.pipeline.sources.sources import Sources

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(number, side=8) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


IMAGES = [png(number, 8 + number % 5) for number in range(20)]


def write_stream(table, path, rows=6, **options):
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_stream(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer,
    ):
        writer.write_table(table, rows)


def write_file(table, path, rows=6, **options):
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_file(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer,
    ):
        writer.write_table(table, rows)


WRITERS = {
    "a.parquet": lambda table, path: pa.parquet.write_table(table, path, row_group_size=6),
    "one-group.parquet": pa.parquet.write_table,
    "stream.arrow": write_stream,
    "file.arrow": write_file,
    "packed-stream.arrow": lambda table, path: write_stream(table, path, compression="lz4"),
    "packed-file.arrow": lambda table, path: write_file(table, path, compression="zstd"),
    "plain.feather": lambda table, path: pa.feather.write_feather(
        table, path, compression="uncompressed", chunksize=7
    ),
    "packed.feather": lambda table, path: pa.feather.write_feather(table, path, chunksize=7),
}


def as_column(kind):
    if kind == "struct":
        return pa.array([{"bytes": data, "path": "x.png"} for data in IMAGES], STRUCT)
    return pa.array(IMAGES, kind)


KINDS = [pa.binary(), pa.large_binary(), "struct"]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_and_column_gives_the_bytes_in_any_order(tmp_path, name, kind):
    names = pa.array([f"{n % 3}" for n in range(20)]).dictionary_encode()
    WRITERS[name](pa.table({"n": names, "picture": as_column(kind)}), tmp_path / name)
    source = ImageTable(str(tmp_path / name))
    listing = source.list()
    assert listing.members == [str(n) for n in range(20)]
    assert listing.unreadable == []
    assert source.sequential == (name.endswith("parquet") or name.startswith("packed"))
    assert [source.read(member) for member in listing.members] == IMAGES
    order = np.random.default_rng(0).permutation(20).tolist()
    assert [source.read(str(n)) for n in order] == [IMAGES[n] for n in order]
    source.close()
    assert source.read("19") == IMAGES[19]
    for wrong in ("20", "-1", "x", "1.0", "²", ""):
        with pytest.raises(ImageError, match="no such row: the table has 20, numbered from 0"):
            source.read(wrong)


def test_reading_in_order_opens_each_row_group_once_in_small_pieces(tmp_path, monkeypatch):
    from lpipstore.pipeline.sources.formats import table_rows

    monkeypatch.setattr(table_rows, "_PIECE_BYTES", 1500)
    pa.parquet.write_table(pa.table({"x": IMAGES}), tmp_path / "a.parquet", row_group_size=10)
    opened = []
    rows = pa.parquet.ParquetFile.iter_batches
    monkeypatch.setattr(
        pa.parquet.ParquetFile,
        "iter_batches",
        lambda self, size, **kw: opened.append((size, kw["row_groups"])) or rows(self, size, **kw),
    )
    source = ImageTable(str(tmp_path / "a.parquet"))
    assert [source.read(str(n)) for n in range(20)] == IMAGES
    sizes, groups = zip(*opened, strict=True)
    assert groups == ([0], [1])
    assert all(1 < size < 10 for size in sizes)
    assert [source.read(str(n)) for n in (3, 1)] == [IMAGES[3], IMAGES[1]]


# ---- which column


def choose(tmp_path, table, wanted=None):
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    return ImageTable(str(tmp_path / "a.parquet"), SourceOptions(image_column=wanted))


def test_the_metadata_of_hugging_face_says_which_column_holds_images(tmp_path):
    features = {"label": {"_type": "Value"}, "mask": {"_type": "Value"}, "img": {"_type": "Image"}}
    told = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    table = pa.table({"mask": IMAGES[::-1], "img": as_column("struct")}).replace_schema_metadata(
        told
    )
    assert choose(tmp_path, table).read("3") == IMAGES[3]
    assert choose(tmp_path, table, "mask").read("3") == IMAGES[16]


@pytest.mark.parametrize("told", [b"", b"{", b"[]", b'{"info": {"features": {"x": 1}}}', b"\xff"])
def test_other_metadata_is_ignored(tmp_path, told):
    table = pa.table({"x": IMAGES}).replace_schema_metadata({b"huggingface": told})
    assert choose(tmp_path, table).read("3") == IMAGES[3]


def test_several_columns_of_images_ask_for_a_choice(tmp_path):
    table = pa.table({"a": IMAGES, "n": range(20), "b": IMAGES[::-1]})
    with pytest.raises(UsageError, match="can hold images: a, b; image_column=NAME chooses"):
        choose(tmp_path, table).list()
    assert choose(tmp_path, table, "b").read("0") == IMAGES[19]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (None, r"no column can hold images.*: there is n \(int64\), words \(string\)"),
        ("x", r"has no column x, but n \(int64\), words \(string\)"),
        ("words", r"the column words has the type string: images are binary"),
    ],
)
def test_a_table_without_images_says_what_it_has(tmp_path, wanted, said):
    source = choose(tmp_path, pa.table({"n": [1, 2], "words": ["a", "b"]}), wanted)
    with pytest.raises(ImageError, match=said):
        source.list()


# ---- entries without bytes


def test_entries_without_bytes_name_files_beside_the_table(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").write_bytes(IMAGES[0])
    paths = ["sub/a.png", str(tmp_path / "sub" / "a.png"), "gone.png", "https://x.org/a.png", None]
    cells = [{"bytes": None, "path": path} for path in paths] + [None]
    cells.append({"bytes": IMAGES[1], "path": "gone.png"})
    source = choose(tmp_path, pa.table({"x": pa.array(cells, STRUCT)}))
    assert [source.read(n) for n in "016"] == [IMAGES[0], IMAGES[0], IMAGES[1]]
    for n, said in ("2", "no such file"), ("3", "is not opened"), ("4", "null"), ("5", "null"):
        with pytest.raises(ImageError, match=said):
            source.read(n)
    assert source.version("0") is None  # the file may change while the table stays


@pytest.mark.parametrize("name", ["a.parquet", "stream.arrow", "packed-file.arrow"])
def test_versions_tell_rows_columns_and_changes_of_the_table_apart(tmp_path, name):
    place = str(tmp_path / name)
    WRITERS[name](pa.table({"a": IMAGES, "b": as_column("struct")}), tmp_path / name)
    options = [SourceOptions(image_column=column) for column in "ab"]
    first, second = (ImageTable(place, chosen) for chosen in options)
    known = {first.version("0"), first.version("1"), second.version("0")}
    assert len(known) == 3
    assert ImageTable(place, options[0]).version("1") in known
    WRITERS[name](pa.table({"a": IMAGES[1:], "b": as_column("struct")[1:]}), tmp_path / name)
    first.close()
    assert first.version("0") not in known


def test_a_table_that_is_not_there_has_no_version(tmp_path):
    with pytest.raises(FileNotFoundError):
        ImageTable(str(tmp_path / "gone.parquet")).version("0")


def test_null_entries_fail_by_name_and_the_others_are_read(tmp_path):
    source = choose(tmp_path, pa.table({"x": [IMAGES[0], None, b"", IMAGES[2]]}))
    assert source.list().members == ["0", "1", "2", "3"]
    assert (source.read("0"), source.read("2"), source.read("3")) == (IMAGES[0], b"", IMAGES[2])
    with pytest.raises(ImageError, match="the entry is null"):
        source.read("1")


# ---- damaged files


def outcome(source, member):
    try:
        return source.read(member)
    except ImageError as error:
        return str(error)


@pytest.mark.parametrize("order", [range(20), range(19, -1, -1)], ids=["forwards", "backwards"])
def test_a_damaged_row_group_is_named_and_the_others_are_read(tmp_path, order):
    path = tmp_path / "a.parquet"
    options = {"row_group_size": 5, "compression": "zstd", "use_dictionary": False}
    pa.parquet.write_table(pa.table({"x": IMAGES}), path, **options)
    footer = pa.parquet.read_metadata(path)
    place = footer.row_group(2).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[place : place + 400] = b"\xff" * 400
    path.write_bytes(content)
    source = ImageTable(str(path))
    read = {n: outcome(source, str(n)) for n in order}
    assert all(read[n] == IMAGES[n] for n in range(20) if not 10 <= n < 15)
    assert all("the rows from 10 on cannot be read" in read[n] for n in range(10, 15))


@pytest.mark.parametrize(
    ("name", "keep"),
    [("a.parquet", keep) for keep in (0, 3, 100, -1, -9)]
    + [("stream.arrow", keep) for keep in (0, 3, 100)],
)
def test_a_file_without_its_end_or_beginning_is_refused_in_one_line(tmp_path, name, keep):
    WRITERS[name](pa.table({"x": IMAGES}), tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:keep])
    found = Sources().find([tmp_path / name])
    assert found.names == []
    [(place, reason)] = found.unreadable
    assert place == str(tmp_path / name)
    assert "cut short" in reason
    assert "\n" not in reason


@pytest.mark.parametrize(
    "name", ["stream.arrow", "file.arrow", "packed-stream.arrow", "packed-file.arrow"]
)
def test_of_an_arrow_file_that_is_cut_short_the_rows_before_the_cut_are_read(tmp_path, name):
    WRITERS[name](pa.table({"x": IMAGES}), tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) * 3 // 4])
    source = ImageTable(str(tmp_path / name))
    listing = source.list()
    assert len(listing.members) in (12, 18)
    [(place, reason)] = listing.unreadable
    assert place == str(tmp_path / name)
    assert reason.startswith(f"damaged or cut short after {len(listing.members)} rows: ")
    assert [source.read(m) for m in listing.members] == IMAGES[: len(listing.members)]


def test_offsets_that_point_anywhere_are_refused(tmp_path):
    write_stream(pa.table({"x": IMAGES}), tmp_path / "a.arrow")
    content = (tmp_path / "a.arrow").read_bytes()
    good = np.cumsum([0, *map(len, IMAGES[6:12])]).astype(np.int32)
    bad = good.copy()
    bad[3] = 2**31 - 1
    assert content.count(good.tobytes()) == 1
    (tmp_path / "a.arrow").write_bytes(content.replace(good.tobytes(), bad.tobytes()))
    listing = ImageTable(str(tmp_path / "a.arrow")).list()
    assert listing.members == [str(n) for n in range(6)]
    assert len(listing.unreadable) == 1


def test_what_is_no_table_is_named_beside_what_is(tmp_path):
    pa.parquet.write_table(pa.table({"x": IMAGES}), tmp_path / "good.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    (tmp_path / "bad.arrow").write_bytes(b"no table")
    sources = Sources()
    found = sources.find([tmp_path / name for name in ("bad.arrow", "good.parquet", "bad.parquet")])
    assert found.names == [f"{tmp_path}/good.parquet#{n}" for n in range(20)]
    assert found.within == [str(n) for n in range(20)]
    assert [place for place, _ in found.unreadable] == [
        str(tmp_path / "bad.arrow"),
        str(tmp_path / "bad.parquet"),
    ]
    copy = pickle.loads(pickle.dumps(sources))
    assert copy.read(found.names[5]) == IMAGES[5]
    assert copy.sequential(found.names[5])
    sources.close()
    assert sources.read(found.names[6]) == IMAGES[6]


def test_folders_that_end_like_tables_are_folders(tmp_path):
    (tmp_path / "set.parquet").mkdir()
    (tmp_path / "set.parquet" / "a.png").write_bytes(IMAGES[0])
    assert Sources().find([tmp_path / "set.parquet"]).within == ["a.png"]
