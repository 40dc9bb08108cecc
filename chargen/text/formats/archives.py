"""ZIP and TAR archives are folders: their files are read one by one, in the order of their names.

No name from an archive is ever a path on the disk. Archives in archives are copied to temporary files without names.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, cast

from chargen.text.formats.limits import Budget, Careful, UnreadableError
from chargen.text.formats.package import Package, printable

MOST_FILES = 100_000
DEEPEST = 3  # archives inside each other
TAR_BLOCK = 512  # bytes
_MACOS_FOLDER = "__MACOSX"  # holds what macOS knows about the other files


@dataclass(frozen=True)
class Entry:
    """A file in an archive."""

    name: str  # printable, for messages and for the kind
    index: int  # in the archive, which may have a name twice
    size: int  # bytes
    opener: Callable[[], IO[bytes]]

    def open(self, mode: str) -> IO[bytes]:
        """Open the file to read its bytes, as `Path.open` does with the mode "rb"."""
        return self.opener()


class _Slice(io.RawIOBase):
    """A part of a file. Several may be open at a time."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._place, self._end = file, start, start + size

    def read(self, size: int = -1) -> bytes:
        """Read at most ``size`` bytes. Raises UnreadableError if the file is cut off."""
        left = self._end - self._place
        size = left if size < 0 else min(size, left)
        self._file.seek(self._place)
        data = self._file.read(size)
        if len(data) < size:
            raise UnreadableError("damaged: its end is missing")
        self._place += size
        return data


def entries(kind: str, file: IO[bytes], budget: Budget, stack: ExitStack) -> list[Entry]:
    """Return the files in an archive, "zip" or "tar", in the order of their names, without hidden ones.

    ``file`` and what is opened on ``stack`` must stay open while they are read. What they unpack to is
    counted on ``budget``. Raises UnreadableError, or what `limits.DAMAGE` lists.
    """
    found = list(_zip(file, budget, stack) if kind == "zip" else _tar(file, budget))
    return sorted(found, key=lambda entry: (entry.name.split("/"), entry.index))


def _zip(file: IO[bytes], budget: Budget, stack: ExitStack) -> Iterator[Entry]:
    package = Package(file)
    stack.callback(package.zip.close)
    budget.spend(package.unpacked)
    infos = package.zip.infolist()
    if len(infos) > MOST_FILES:
        raise UnreadableError(f"refused, because it holds more than {MOST_FILES:,} files")
    for index, info in enumerate(infos):
        if not info.is_dir() and not _hidden(info.filename):
            # info is bound here, because the function is called later
            yield Entry(printable(info.filename), index, info.file_size, lambda info=info: package.open_info(info))  # type: ignore[misc]


def _tar(file: IO[bytes], budget: Budget) -> Iterator[Entry]:
    size = file.seek(0, io.SEEK_END)
    end = index = 0
    with tarfile.open(fileobj=cast(IO[bytes], Careful(file)), mode="r:") as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # else it keeps them all
            index += 1
            if index > MOST_FILES:
                raise UnreadableError(f"refused, because it holds more than {MOST_FILES:,} files")
            end = info.offset_data + -(-info.size // TAR_BLOCK) * TAR_BLOCK if info.isreg() else info.offset_data
            budget.spend(info.size)
            if info.isreg() and not info.issparse() and not _hidden(info.name):
                start, length = info.offset_data, info.size
                opened = cast(Callable[[], IO[bytes]], lambda s=start, n=length: _Slice(file, s, n))
                yield Entry(printable(info.name), index, length, opened)
    file.seek(min(end, size))
    if end > size or file.read(TAR_BLOCK) != bytes(TAR_BLOCK):  # an archive ends with empty blocks
        raise UnreadableError("damaged: its end is missing")


def _hidden(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return _MACOS_FOLDER in parts or any(part.startswith(".") and part not in (".", "..") for part in parts)
