"""What a hostile file may not do: unpack without end, make a reader hold it all, or break out of it.

A reader of a format raises `UnreadableError`; so do the files here when a limit is passed.
"""

from __future__ import annotations

import io
import lzma
import struct
import tarfile
import tempfile
import zipfile
import zlib
from contextlib import ExitStack
from typing import IO, Any
from xml.parsers.expat import ExpatError

BLOCK_BYTES = 1 << 16
MOST_TIMES = 1000  # an archive unpacks to at most so many times its size; text is rarely compressed to a tenth
MOST_UNPACKED = 20 * 10**9  # bytes
UNPACKED_FREELY = 1 << 20  # bytes to which any archive may unpack
MOST_AT_ONCE = 1 << 24  # bytes of an archive's directory or header
# What the standard library raises for files that are damaged. An OSError is damage if it has no number (bz2).
DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, ExpatError, lzma.LZMAError, zlib.error, struct.error),
    *(EOFError, ValueError, OverflowError, IndexError, NotImplementedError, RuntimeError),
)


class UnreadableError(Exception):
    """A file that is not read. ``what`` says what it is, as in "book.epub is a damaged EPUB"."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def most_unpacked(packed: int) -> int:
    """Return the bytes to which a file of ``packed`` bytes may unpack."""
    return min(MOST_UNPACKED, max(MOST_TIMES * packed, UNPACKED_FREELY))


def too_large(unpacked: int, packed: int) -> UnreadableError:
    """Return the error for a file of ``packed`` bytes that unpacks to more than its limit."""
    if unpacked > MOST_UNPACKED:
        return UnreadableError(f"refused, because it unpacks to more than {MOST_UNPACKED / 1e9:,.0f} GB")
    return UnreadableError(f"refused, because it unpacks to more than {MOST_TIMES:,} times its size")


class Budget:
    """The bytes to which an archive of ``packed`` bytes may unpack, together with those in it."""

    def __init__(self, packed: int) -> None:
        self._packed, self._unpacked = packed, 0

    def spend(self, unpacked: int) -> None:
        """Count bytes that were unpacked. Raises UnreadableError if they are too many."""
        self._unpacked += unpacked
        if self._unpacked > most_unpacked(self._packed):
            raise too_large(self._unpacked, self._packed)


class Unpacked(io.RawIOBase):
    """A stream that raises `UnreadableError` when it has unpacked a file of ``packed`` bytes to more than its limit."""

    def __init__(self, stream: IO[bytes], packed: int) -> None:
        self._stream, self._packed, self._read = stream, packed, 0

    def read(self, size: int = -1) -> bytes:
        """Read at most ``size`` bytes."""
        data = self._stream.read(size)
        self._read += len(data)
        if self._read > most_unpacked(self._packed):
            raise too_large(self._read, self._packed)
        return data

    def close(self) -> None:
        """Close the stream too."""
        self._stream.close()
        super().close()


class Careful(io.RawIOBase):
    """A file for zipfile and tarfile, which read a header or directory of any length that a file claims at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = file.seek(0, io.SEEK_END)
        file.seek(0)

    def read(self, size: int | None = -1) -> bytes:
        """Read at most ``size`` bytes. Raises UnreadableError for too many at once."""
        left = self._size - self._file.tell()
        if min(left, left if size is None or size < 0 else size) > MOST_AT_ONCE:
            raise UnreadableError("refused, because its list of files is too long")
        return self._file.read(-1 if size is None else size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset. Raises OSError without a number, which is damage, for one before the file's beginning."""
        if offset + (0, self._file.tell(), self._size)[whence] < 0:
            raise OSError("it refers to a place before its beginning")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the offset."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readable(self) -> bool:
        """Return True."""
        return True


def copied(stream: IO[bytes], head: bytes = b"") -> IO[bytes]:
    """Return a temporary file with ``head`` and the rest of a stream; it has no name and goes when it is closed."""
    with ExitStack() as undo:
        file: Any = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
        undo.callback(file.close)
        file.write(head)
        while data := stream.read(BLOCK_BYTES):
            file.write(data)
        file.seek(0)
        undo.pop_all()
        return file  # type: ignore[no-any-return]
