"""Zip files as sources of images, read without unpacking."""

import bz2
import stat
import zlib

from ..formats.open_file import OpenFile
from ..formats.zip_directory import ZipEntry, read_directory, stored_bytes
from ..source import ImageError
from .archive import Archive, ArchiveContents, is_archive, is_wanted, plain_name

_STORED, _DEFLATED, _BZIP2 = 0, 8, 12


class ZipArchive(Archive[ZipEntry]):
    """The images in a zip file, in order of storage; threads read any of them at any time.

    Without the directory at the end (a download that stopped), the members that follow each other
    from the beginning are read.
    """

    @staticmethod
    def takes(place: str) -> bool:
        """Return whether a path ends in ``.zip``."""
        return is_archive(place, (".zip",))

    def _index(self, file: OpenFile) -> ArchiveContents[ZipEntry]:
        directory = read_directory(file)
        contents: ArchiveContents[ZipEntry] = ArchiveContents()
        locked = 0
        for path, entry in directory.entries:
            name = plain_name(path)
            if not is_wanted(name):
                continue
            if entry.encrypted:
                locked += 1
                contents.unreadable.append((name, "encrypted: unpack it with its password first"))
            elif stat.S_ISLNK(entry.mode):
                contents.unreadable.append((name, "a symbolic link, which is not followed"))
            else:
                contents.add(name, entry)
        if locked and not contents.members:
            raise ImageError(
                f"its {locked:,} images are encrypted: unpack it with its password first"
            )
        if directory.lost:
            contents.unreadable.append(("", directory.lost))
        return contents

    def _extract(self, file: OpenFile, entry: ZipEntry) -> bytes:
        if entry.stored > entry.size + entry.size // 50 + 4096:  # no method needs so many
            raise ImageError("damaged archive: the sizes of the image contradict each other")
        image = _decompressed(stored_bytes(file, entry), entry)
        if len(image) > entry.size:
            raise ImageError(
                f"refused as a decompression bomb: it is longer than the {entry.size:,} bytes that "
                "the archive declares"
            )
        if len(image) < entry.size or zlib.crc32(image) != entry.crc:
            raise ImageError("damaged archive: the checksum of the image is wrong")
        return image


def _decompressed(data: bytes, entry: ZipEntry) -> bytes:
    """Return at most one byte more than the archive declares."""
    most = entry.size + 1
    try:
        if entry.method == _STORED:
            return data
        if entry.method == _DEFLATED:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, most)
        if entry.method == _BZIP2:
            return bz2.BZ2Decompressor().decompress(data, most)
    except (zlib.error, OSError) as error:
        raise ImageError(f"damaged archive: {error}") from error
    raise ImageError(f"compressed by method {entry.method}, which cannot be read: unpack it")
