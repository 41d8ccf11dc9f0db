"""A file appears whole or not at all, and only temporary files of our own are ever removed."""

import os
import signal
import subprocess
import sys

import pytest

from lpipstore.pipeline.common.atomic import check_writable, is_temporary, replacing


def test_a_file_is_replaced_when_it_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path, durable=True) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
        (temporary,) = [other for other in tmp_path.iterdir() if other != path]
        assert is_temporary(temporary)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_was_there_stays_when_writing_fails(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error), replacing(path) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_renamed_leaves_nothing(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="directory"), replacing(tmp_path / "file") as file:
        file.write(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_names_of_any_length_and_two_writers_at_once(tmp_path):
    path = tmp_path / ("n" * 255)
    with replacing(path) as one, replacing(path) as two:
        one.write(b"one")
        two.write(b"two")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_a_file_that_is_recognised(tmp_path):
    program = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from lpipstore.pipeline.common.atomic import replacing\n"
        "with replacing(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "file")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert is_temporary(left)


@pytest.mark.parametrize(
    "name",
    [
        "thesis.partial",
        ".file.partial",
        ".lpipstore-mine.partial",
        ".lpipstore-0123456789abcdef.partial.txt",
        "x.lpipstore-0123456789abcdef.partial",
        ".lpipstore-0123456789ABCDEF.partial",
    ],
)
def test_names_that_somebody_chose_are_not_taken_for_ours(tmp_path, name):
    assert not is_temporary(tmp_path / name)


def test_a_folder_is_tried_without_leaving_anything(tmp_path):
    check_writable(tmp_path)
    check_writable(tmp_path / "new" / "newer")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        check_writable(tmp_path / "file" / "new")
    with pytest.raises(OSError):
        check_writable(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]
