"""What is read: files, folders, patterns, standard input, and archives, compressed or not."""

from __future__ import annotations

import bz2
import fnmatch
import functools
import glob
import gzip
import hashlib
import lzma
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module, resources
from pathlib import Path
from typing import IO, Any, cast

from chargen import ChargenError
from chargen.files.disk import temporary
from chargen.files.reading import read_regular
from chargen.text import formats
from chargen.text.encodings import NoTextError
from chargen.text.formats.archives import DEEPEST, Archive, Archives, Entry, entries
from chargen.text.formats.limits import DAMAGE, Budget, Unpacked, UnreadableError, copied

STANDARD_INPUT = "-"
BUNDLED_BOOK = "book.txt"
COPY_BYTES = 1 << 16
COMPRESSED = {".gz", ".bz2", ".xz", ".zst"}
COMPRESSED_TARS = {".tgz": ".gz", ".tbz": ".bz2", ".tbz2": ".bz2", ".txz": ".xz", ".tzst": ".zst"}
ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"


@dataclass(frozen=True)
class Source:
    """A file to read."""

    name: str  # for messages
    path: Any  # a Path, a resource of an installed package, or an entry of an archive
    found: bool = False  # found in a folder or archive rather than named: left out if it is not a text
    problem: str = ""  # why it cannot be read, if that is already known
    kind: str = ""  # as `formats.recognised` calls it
    archive: Source | None = None  # that holds it, perhaps inside other archives
    entry: tuple[int, ...] = ()  # its place in the archive, and in those inside it

    def stamp(self) -> tuple[int, ...]:
        """Return the file's size, modification time and inode, of which at least one changes when it is written."""
        if self.archive:
            return self.archive.stamp()
        if not isinstance(self.path, Path):  # inside an installed package, or not readable
            return ()
        with readable(self):
            status = self.path.stat()
            return status.st_size, status.st_mtime_ns, status.st_ino

    def size(self) -> int:
        """Return the size of the file in bytes."""
        return int(self.path.stat().st_size) if isinstance(self.path, Path) else int(getattr(self.path, "size", 0))

    def sha256(self) -> str:
        """Return the SHA-256 of the file's bytes; for a file that cannot be read, its problem.

        For a file in an archive, return the archive's, with the file's place in it.
        """
        if self.problem:
            return self.problem
        if self.archive:
            return f"{self.archive.digest}{self.entry}"
        return self.digest

    @functools.cached_property
    def digest(self) -> str:
        """The SHA-256 of the file's bytes, computed once."""
        with readable(self), self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def plain_name(self) -> str:
        """The file's name without the suffix of its compression."""
        path = Path(self.name)
        suffix = path.suffix.lower()
        return f"{path.stem}.tar" if suffix in COMPRESSED_TARS else path.stem if suffix in COMPRESSED else path.name

    @property
    def compression(self) -> str:
        """The suffix of the file's compression, such as ".gz"; empty if it has none."""
        suffix = Path(self.name).suffix.lower()
        return COMPRESSED_TARS.get(suffix, suffix if suffix in COMPRESSED else "")


@contextmanager
def sources(paths: Sequence[str]) -> Iterator[list[Source]]:
    """Yield the files that ``paths`` name: files, folders, patterns (``books/*.txt``), ``-`` for standard input.

    A folder stands for all files in it and in its subfolders, in the order of their names, without hidden files and
    runs; so does an archive. No path means the bundled book. Standard input, pipes and compressed archives are copied
    to files that exist until the context ends.

    Raises ChargenError for a folder without files, and if standard input is closed.
    """
    with temporary() as folder, Archives() as archives:
        found: list[Source] = []
        for path in paths:
            if path == STANDARD_INPUT:
                if sys.stdin is None:
                    raise ChargenError("standard input is closed: name a file")
                found.append(_copied("standard input", sys.stdin.buffer, folder / "stdin"))
                continue
            for one in expanded(path):
                if one.is_dir() or one.is_file() or not one.exists():
                    found += _files(one)
                else:  # a pipe
                    with one.open("rb") as pipe:
                        found.append(_copied(str(one), pipe, folder / f"pipe-{len(found)}"))
        if not paths:
            found = [Source(BUNDLED_BOOK, resources.files("chargen.corpora").joinpath(BUNDLED_BOOK))]
        yield [one for source in found for one in _unpacked(source, archives)]


def _unpacked(source: Source, archives: Archives, budget: Budget | None = None) -> Iterator[Source]:
    """Yield the files of an archive, and of those in it; the source itself if it is not an archive.

    ``budget`` is what the archive around it may still unpack to.
    """
    if source.problem or (isinstance(source.path, Path) and not source.path.is_file()):
        yield source
        return
    try:
        with readable(source), opened(source) as file:
            head = file.read(formats.HEAD_BYTES)
            kind = formats.recognised(head, source.plain_name)
            recognised, found = kind, list[Entry]()
            if kind in ("zip", "tar"):
                with ExitStack() as opening:
                    whole = opening.enter_context(seekable(source, file, head))
                    recognised = formats.zip_kind(whole, source.plain_name) if kind == "zip" else kind
                    if recognised in (formats.ARCHIVE, "tar") and len(source.entry) < DEEPEST:
                        opening.pop_all()  # what was opened belongs to the archives
                        with formats.damage_of("a ZIP file" if kind == "zip" else "a TAR file"):
                            budget = budget or Budget(source.size())
                            found = entries(Archive(kind, partial(_reopened, source)), whole, budget, archives)
        if recognised not in (formats.ARCHIVE, "tar") or len(source.entry) == DEEPEST:
            yield replace(source, kind=recognised)
            return
        if not found:
            raise UnreadableError("an archive without files")
    except (UnreadableError, NoTextError) as error:
        yield replace(source, problem=error.what)
        return
    except ChargenError:  # it is raised again when the source is read
        yield source
        return
    top = source.archive or source
    for entry in found:
        place = (*source.entry, entry.index)
        inner = Source(f"{source.name}/{entry.name}", entry, found=True, archive=top, entry=place)
        yield from _unpacked(inner, archives, budget)


def _reopened(source: Source) -> IO[bytes]:
    """Open an archive again, which is in another one or compressed, or a file."""
    with opened(source) as file:
        return seekable(source, file, b"")


def seekable(source: Source, file: IO[bytes], head: bytes) -> IO[bytes]:
    """Return a file with all of a source, of which ``file`` has read ``head``, in which a reader can move around."""
    if isinstance(source.path, Path) and not source.compression:
        return source.path.open("rb")
    return copied(file, head)


def _copied(name: str, opened: IO[bytes], path: Path) -> Source:
    """Copy a stream, which can be read only once, to ``path``."""
    source = Source(name, path)
    with path.open("wb") as file:
        while True:
            with readable(source):
                block = opened.read(COPY_BYTES)
            if not block:
                return source
            file.write(block)


def expanded(path: str) -> list[Path]:
    """Return the paths that a path or a pattern stands for, sorted, each file once; itself if nothing matches."""
    if not glob.has_magic(path) or os.path.exists(path):  # noqa: PTH110  # Path's raises for a very long name
        return [Path(path)]
    parts = Path(path).parts
    if "**" not in parts:
        return _distinct(sorted(map(Path, glob.glob(path)))) or [Path(path)]  # noqa: PTH207  # it may be absolute
    fixed = next(n for n, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    found = [one for one in _walk(root, []) if _matches(one.parts[len(root.parts) :], parts[fixed:])]
    return found or [Path(path)]


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the names in a path match the parts of a pattern; ``**`` matches any number of folders."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return (len(pattern) == 1 and bool(names)) or any(_matches(names[n:], pattern[1:]) for n in range(len(names)))
    return bool(names) and fnmatch.fnmatch(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _walk(folder: Path, problems: list[OSError]) -> list[Path]:
    """Return the files in a folder and its subfolders, sorted, each once, without hidden files and runs.

    Links are followed, but no folder is entered twice. Errors of reading folders are added to ``problems``.
    """
    found, entered = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=problems.append):
        here = Path(parent)
        identity = _identity(here)
        # Runs are often made beside the texts. Their files are not texts, and change.
        if identity in entered or ("config.json" in names and _is_run(here / "config.json")):
            folders.clear()
            continue
        entered.add(identity)
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [here / name for name in names if not name.startswith(".")]
    return _distinct(sorted(one for one in found if one.is_file()))


def _distinct(paths: Iterable[Path]) -> list[Path]:
    """Return the paths without those that lead to the same file or folder as an earlier one."""
    first: dict[object, Path] = {}
    for path in paths:
        first.setdefault(_identity(path), path)
    return list(first.values())


def _identity(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:  # a dangling link
        return path
    return status.st_dev, status.st_ino


def _files(path: Path) -> Iterator[Source]:
    if not path.is_dir():
        yield Source(str(path), path)
        return
    problems: list[OSError] = []
    files = _walk(path, problems)
    if not files:
        raise ChargenError(f"{path} holds no text files: name a folder with text in it, or the files themselves")
    yield from (Source(str(file), file, found=True) for file in files)
    for problem in problems:
        yield Source(str(problem.filename), None, found=True, problem=f"not readable ({problem.strerror})")


def _is_run(config: Path) -> bool:
    try:
        return b'"sha256"' in read_regular(config)
    except (OSError, ChargenError):
        return False


@contextmanager
def readable(source: Source) -> Iterator[None]:
    """While entered, errors of reading a source become NoTextError if it is damaged, and else ChargenError."""
    zstd = sys.modules.get(ZSTD)
    damage = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, *([zstd.ZstdError] if zstd else []))
    damage = DAMAGE if source.archive else damage
    try:
        yield
    except UnreadableError as error:
        raise NoTextError(error.what, f"{source.name} is {error.what}") from None
    except damage as error:
        what = "damaged, or not compressed as its name says"
        raise NoTextError(what, f"{source.name} is {what}: {error}") from None
    except OSError as error:
        raise ChargenError(f"{source.name} can't be read: {error.strerror or error}") from None


def opened(source: Source) -> IO[bytes]:
    """Open a source, and decompress it as its name says. Reading too much raises UnreadableError."""
    suffix = source.compression
    if not suffix:
        return source.path.open("rb")  # type: ignore[no-any-return]
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    opener = openers.get(suffix) or _zstd(source.name).open
    packed = source.path if isinstance(source.path, Path) else source.path.open("rb")
    return cast(IO[bytes], Unpacked(opener(packed), source.size()))


def _zstd(name: str) -> Any:
    try:
        return import_module(ZSTD)
    except ImportError:
        raise ChargenError(f"{name} can't be read: pip install 'chargen[zst]', or decompress it") from None
