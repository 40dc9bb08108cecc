"""ZIP and TAR archives are folders: their files are read one by one, in the order of their names.

No name from an archive is ever a path on the disk. Archives in archives are copied to temporary files without names.
Only a few archives are open at a time, in an `Archives`.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import IO, cast

from chargen.text.formats.limits import Budget, Careful, UnreadableError
from chargen.text.formats.package import Package, printable

MOST_FILES = 100_000
MOST_OPEN = 8  # archives
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


@dataclass(frozen=True, eq=False)
class Archive:
    """An archive whose files are read."""

    kind: str  # "zip" or "tar"
    reopen: Callable[[], IO[bytes]]


class Archives:
    """Archives that are open, at most MOST_OPEN: for another one, that which was not used for longest is closed.

    A file of an archive must be read before so many other archives are used.
    """

    def __init__(self) -> None:
        self._open: dict[Archive, tuple[Package | IO[bytes], ExitStack]] = {}

    def __enter__(self) -> Archives:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._close_oldest()

    def use(self, archive: Archive, file: IO[bytes] | None = None) -> Package | IO[bytes]:
        """Return an archive that is open, a Package if it is a ZIP; ``file`` is the open file if it is known."""
        if archive in self._open:
            self._open[archive] = self._open.pop(archive)  # the newest stands last
            return self._open[archive][0]
        while len(self._open) >= MOST_OPEN:
            self._close_oldest()
        with ExitStack() as opening:
            opened: Package | IO[bytes] = opening.enter_context(file or archive.reopen())
            if archive.kind == "zip":
                opened = Package(cast(IO[bytes], opened))
                opening.callback(opened.zip.close)
            self._open[archive] = opened, opening.pop_all()
        return opened

    def _close_oldest(self) -> None:
        _, stack = self._open.pop(next(iter(self._open)))
        stack.close()


def entries(archive: Archive, file: IO[bytes], budget: Budget, archives: Archives) -> list[Entry]:
    """Return the files in an archive, in the order of their names, without hidden ones.

    ``file`` is the open archive, which ``archives`` closes. What the files unpack to is counted on ``budget``. Raises
    UnreadableError, or what `limits.DAMAGE` lists.
    """
    opened = archives.use(archive, file)
    found = _zip(opened, budget) if isinstance(opened, Package) else _tar(opened, budget)
    return sorted(
        (Entry(name, index, size, partial(_opened, archive, archives, place)) for name, index, size, place in found),
        key=lambda entry: (entry.name.split("/"), entry.index),
    )


def _opened(archive: Archive, archives: Archives, place: tuple[int, int]) -> IO[bytes]:
    """Open a file of an archive, by its number in a ZIP, or its offset and size in a TAR."""
    opened = archives.use(archive)
    if isinstance(opened, Package):
        return opened.open_info(opened.zip.infolist()[place[0]])
    return cast(IO[bytes], _Slice(opened, *place))


def _zip(package: Package, budget: Budget) -> Iterator[tuple[str, int, int, tuple[int, int]]]:
    budget.spend(package.unpacked)
    infos = package.zip.infolist()
    if len(infos) > MOST_FILES:
        raise UnreadableError(f"refused, because it holds more than {MOST_FILES:,} files")
    for index, info in enumerate(infos):
        if not info.is_dir() and not _hidden(info.filename):
            yield printable(info.filename), index, info.file_size, (index, 0)


def _tar(file: IO[bytes], budget: Budget) -> Iterator[tuple[str, int, int, tuple[int, int]]]:
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
                yield printable(info.name), index, info.size, (info.offset_data, info.size)
    file.seek(min(end, size))
    if end > size or file.read(TAR_BLOCK) != bytes(TAR_BLOCK):  # an archive ends with empty blocks
        raise UnreadableError("damaged: its end is missing")


def _hidden(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return _MACOS_FOLDER in parts or any(part.startswith(".") and part not in (".", "..") for part in parts)
