"""Files, compressed or not, become documents: decoded, cleaned and normalised text, a block at a time.

Characters are composed to Unicode's Normalization Form C (NFC), Standard Annex 15.
"""

from __future__ import annotations

import bz2
import fnmatch
import functools
import glob
import gzip
import hashlib
import lzma
import os
import re
import sys
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module, resources
from pathlib import Path
from typing import IO, Any, cast

from chargen import ChargenError
from chargen.files.disk import temporary
from chargen.files.reading import read_regular
from chargen.text.encodings import NoTextError, decoded
from chargen.text.gutenberg import books

STANDARD_INPUT = "-"
BUNDLED_BOOK = "book.txt"
ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
# Bytes that are read at a time. A block's text and ids fit into the processor's cache: 1 << 20 takes 2.5 times as long.
BLOCK_BYTES = 1 << 14
MOST_COMBINING = 30  # marks on a character, in the Stream-Safe Text Format of Unicode's Standard Annex 15
MARKS_HELD = 1 << 16  # consecutive combining marks that are composed together


@dataclass(frozen=True)
class Source:
    """A file to read."""

    name: str  # for messages
    path: Any  # a Path, or a resource of an installed package
    found: bool = False  # found in a folder rather than named: left out if it is not a text
    problem: str = ""  # why it cannot be read, if that is already known

    def stamp(self) -> tuple[int, ...]:
        """Return the file's size, modification time and inode, of which at least one changes when it is written."""
        if not isinstance(self.path, Path):  # inside an installed package, or not readable
            return ()
        with _readable(self):
            status = self.path.stat()
            return status.st_size, status.st_mtime_ns, status.st_ino

    def sha256(self) -> str:
        """Return the SHA-256 of the file's bytes; for a file that cannot be read, its problem."""
        if self.problem:
            return self.problem
        with _readable(self), self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def sources(paths: Sequence[str]) -> Iterator[list[Source]]:
    """Yield the files that ``paths`` name: files, folders, patterns (``books/*.txt``), ``-`` for standard input.

    A folder stands for all files in it and in its subfolders, in the order of their names, without hidden files and
    runs. No path means the bundled book. Standard input and pipes are copied to files that exist until the context
    ends.

    Raises ChargenError for a folder without files, and if standard input is closed.
    """
    with temporary() as folder:
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
        yield found if paths else [Source(BUNDLED_BOOK, resources.files("chargen.corpora").joinpath(BUNDLED_BOOK))]


def _copied(name: str, opened: IO[bytes], path: Path) -> Source:
    """Copy a stream, which can be read only once, to ``path``."""
    source = Source(name, path)
    with path.open("wb") as file:
        while True:
            with _readable(source):
                block = opened.read(BLOCK_BYTES)
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


@dataclass
class Reading:
    """How documents are read, and what was changed in them."""

    encoding: str = "utf-8"
    keep_boilerplate: bool = False
    normalize: str = "nfc"  # or "none"
    left_out: list[int] = field(default_factory=list)  # characters of header and licence, for each text that had any
    composed: bool = False  # whether a text was not in NFC


def decode(data: bytes, source: str, encoding: str = "utf-8", option: str | None = "--encoding") -> str:
    """Return the normalised text of a file's bytes: no byte-order mark, LF for CRLF and CR, composed (NFC).

    The arguments and errors are those of `encodings.decoded`.
    """
    return "".join(_composed(decoded([data], source, encoding, option), Reading()))


def text(source: Source, reading: Reading) -> Iterator[str]:
    """Yield a document's text in blocks, and record in ``reading`` what was changed.

    The text is normalised as by `decode`, and Project Gutenberg's header and licence are left out; ``reading`` can turn
    off both. Raises ChargenError for a file that cannot be read, and NoTextError for one that is not a text, or not in
    the encoding.
    """
    if source.problem:
        raise NoTextError(source.problem, f"{source.name} is {source.problem}")
    if Path(source.name).suffix.lower() == ".zst":
        _zstd(source.name)  # imports the module whose errors `_readable` knows
    with _readable(source), _opened(source) as file:
        blocks = iter(lambda: file.read(BLOCK_BYTES), b"")
        parts = decoded(blocks, source.name, reading.encoding, "--encoding")
        parts = parts if reading.keep_boilerplate else books(parts, reading.left_out)
        parts = parts if reading.normalize == "none" else _composed(parts, reading)
        empty = True
        for part in filter(None, parts):
            empty = False
            yield part
        if empty:
            raise NoTextError(
                "nothing but Project Gutenberg's header and licence",
                f"{source.name} is nothing but Project Gutenberg's header and licence: --keep-boilerplate keeps them",
            )


@contextmanager
def _readable(source: Source) -> Iterator[None]:
    zstd = sys.modules.get(ZSTD)
    damage = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, *([zstd.ZstdError] if zstd else []))
    try:
        yield
    except damage as error:
        raise ChargenError(f"{source.name} is damaged, or not compressed as its name says: {error}") from None
    except OSError as error:
        raise ChargenError(f"{source.name} can't be read: {error.strerror or error}") from None


def _opened(source: Source) -> IO[bytes]:
    match Path(source.name).suffix.lower():
        case ".gz":
            return cast(IO[bytes], gzip.open(source.path))
        case ".bz2":
            return bz2.open(source.path)
        case ".xz":
            return lzma.open(source.path)
        case ".zst":
            return _zstd(source.name).open(source.path)  # type: ignore[no-any-return]
    return source.path.open("rb")  # type: ignore[no-any-return]


def _zstd(name: str) -> Any:
    try:
        return import_module(ZSTD)
    except ImportError:
        raise ChargenError(f"{name} can't be read: pip install 'chargen[zst]', or decompress it") from None


def _composed(texts: Iterable[str], reading: Reading) -> Iterator[str]:
    """Compose a text, given in blocks, and cut it only before characters that compose with none before them."""
    held = ""
    for part in texts:
        held += part
        cut = len(held) - 1
        while cut > 0 and not _stands_alone(held[cut]):
            cut -= 1
        if cut == 0 and len(held) > MARKS_HELD:
            cut = len(held)
        if cut > 0:
            part, held = held[:cut], held[cut:]
            yield (composed := _nfc(part))
            reading.composed |= composed != part
    yield (composed := _nfc(held))
    reading.composed |= composed != held


def _nfc(text: str) -> str:
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    return unicodedata.normalize("NFC", _many_marks().sub(_ordered, text))


@functools.cache
def _many_marks() -> re.Pattern[str]:
    """Return an expression for more combining marks in a row than any language writes."""
    marks = "".join(c for c in map(chr, range(0x300, 0x20000)) if unicodedata.combining(c))
    return re.compile(f"[{marks}]{{{MOST_COMBINING + 1},}}")


def _ordered(marks: re.Match[str]) -> str:
    """Return marks in their canonical order, which `unicodedata.normalize` finds in quadratic time."""
    return "".join(sorted("".join(unicodedata.normalize("NFD", c) for c in marks[0]), key=unicodedata.combining))


def _stands_alone(character: str) -> bool:
    """Return whether a character composes with none before it; only marks and Korean vowels and finals do."""
    return character < "\u0300" or not (
        unicodedata.category(character).startswith("M") or "\u1160" <= character <= "\u11ff"
    )
