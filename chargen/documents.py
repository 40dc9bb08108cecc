"""Files, compressed or not, become documents: decoded, cleaned and normalised text, a block at a time."""

from __future__ import annotations

import bz2
import codecs
import glob
import gzip
import hashlib
import io
import lzma
import os
import re
import sys
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

from chargen import ChargenError
from chargen.disk import temporary
from chargen.reading import read_regular

STANDARD_INPUT = "-"
BUNDLED = "book.txt"
# Bytes that are read at a time. What becomes of them stays in the processor's cache: 1 << 20 takes 2.5 times as long.
BLOCK = 1 << 14
MARKS = (  # the longer first, as one begins with the other
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
ADVICE = "name its encoding with --encoding, such as --encoding cp1252"

# What stands around a book of Project Gutenberg: the lines of today, and those of the etexts before 2004.
GUTENBERG = ("GUTENBERG", "Gutenberg")
HEADER = 50_000  # characters within which a header ends
LICENCE = 60_000  # characters of a licence, and of the header that may follow it, at the most
LINES = 1_000  # characters that are held back, as a block may end within such lines
_BOOK_STARTS = re.compile(
    r"^(?:\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG(?:[^*\n]*\n){0,3}?[^*\n]*\*\*\*|\*END[* ]*THE SMALL PRINT!)"
    r"[^\n]*\n*",
    re.MULTILINE,
)
_BOOK_ENDS = re.compile(
    r"^(?:\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG"
    r"|End of (?:[Tt]h(?:e|is) )?Project Gutenberg(?:'s| E[Tt]ext| EBook))",
    re.MULTILINE,
)


class NoTextError(ChargenError):
    """A file is ``what``: empty or binary. In a folder it is passed over."""

    def __init__(self, what: str, message: str) -> None:
        super().__init__(message)
        self.what = what


@dataclass(frozen=True)
class Source:
    """A file to read."""

    name: str  # for messages
    path: Any  # a Path, or what importlib.resources has in its place
    found: bool = False  # in a folder, and not named: passed over where it is no text

    def stamp(self) -> tuple[int, ...]:
        """Return what changes with the file: size, time, place."""
        if not isinstance(self.path, Path):  # inside an installed package
            return ()
        with _readable(self):
            told = self.path.stat()
            return told.st_size, told.st_mtime_ns, told.st_ino

    def sha256(self) -> str:
        """Return the hash of the file's bytes: 1 GB takes 0.6 s on a processor with instructions for it."""
        with _readable(self), self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def sources(paths: Sequence[str]) -> Iterator[list[Source]]:
    """Yield the files that paths name: files, folders, patterns (``books/*.txt``), ``-`` for standard input.

    A folder stands for the files in it and below it in the order of their names, without hidden ones and those of
    runs; no path is the bundled book. What standard input held is there until the context is left.

    Raises ChargenError for a path that is missing, or holds nothing.
    """
    with temporary() as folder:
        found: list[Source] = []
        for path in paths:
            if path == STANDARD_INPUT:
                if sys.stdin is None:
                    raise ChargenError("standard input is closed: name a file")
                found.append(_kept("standard input", sys.stdin.buffer, folder / "stdin"))
                continue
            for one in expanded(path):
                if one.is_dir() or one.is_file() or not one.exists():
                    found += _files(one)
                else:  # a pipe, which can be read only once
                    with one.open("rb") as pipe:
                        found.append(_kept(str(one), pipe, folder / f"pipe-{len(found)}"))
        yield found if paths else [Source(BUNDLED, resources.files("chargen.corpora").joinpath(BUNDLED))]


def _kept(name: str, opened: IO[bytes], path: Path) -> Source:
    """Copy what can be read only once."""
    source = Source(name, path)
    with path.open("wb") as file:
        while True:
            with _readable(source):
                block = opened.read(BLOCK)
            if not block:
                return source
            file.write(block)


def expanded(path: str) -> list[Path]:
    """Return what a path or a pattern stands for, in order; the path itself if nothing has it."""
    if not glob.has_magic(path) or os.path.exists(path):  # noqa: PTH110  # Path's raises for a very long name
        return [Path(path)]
    found = sorted(map(Path, glob.glob(path, recursive=True)))  # noqa: PTH207  # it may be absolute
    if "**" in path:  # which finds folders, and what is in them
        found = [one for one in found if not one.is_dir()]
    return found or [Path(path)]


def _files(path: Path) -> Iterator[Source]:
    if not path.is_dir():
        yield Source(str(path), path)
        return
    files = sorted(f for f in path.rglob("*") if f.is_file())
    # A folder of texts is often where runs are made; what they hold is no text, and changes.
    runs = {file.parent for file in files if file.name == "config.json" and _of_a_run(file)}
    seen = [
        file
        for file in files
        if not any(part.startswith(".") for part in file.relative_to(path).parts) and not runs & {*file.parents}
    ]
    if not seen:
        raise ChargenError(f"{path} holds no text files: name a folder with text in it, or the files themselves")
    yield from (Source(str(file), file, found=True) for file in seen)


def _of_a_run(config: Path) -> bool:
    try:
        return b'"sha256"' in read_regular(config)
    except (OSError, ChargenError):
        return False


def decode(data: bytes, source: str, encoding: str = "utf-8", advice: str = ADVICE) -> str:
    """Return the normalised text of a file's bytes: no byte-order mark, LF for CRLF and CR, composed (NFC).

    Raises ChargenError that names ``source`` where there is none; ``advice`` is what to do about another encoding.
    """
    return "".join(_composed(_decoded([data], source, encoding, advice)))


def text(source: Source, encoding: str, left_out: list[int] | None) -> Iterator[str]:
    """Yield a document's text in blocks, normalised as `decode` does.

    Project Gutenberg's header and licence are left out, and how many characters that were is appended to ``left_out``;
    None keeps them. Raises ChargenError for a file that can't be read, or is not in ``encoding``, NoTextError for one
    without text.
    """
    if Path(source.name).suffix.lower() == ".zst":
        _zstd(source.name)
    with _readable(source), _opened(source) as file:
        blocks = iter(lambda: file.read(BLOCK), b"")
        decoded = _decoded(blocks, source.name, encoding, ADVICE)
        empty = True
        for part in filter(None, _composed(decoded if left_out is None else _books(decoded, left_out))):
            empty = False
            yield part
        if empty:
            raise NoTextError(
                "nothing but Project Gutenberg's own words",
                f"{source.name} is nothing but Project Gutenberg's header and licence: --keep-boilerplate keeps them",
            )


@contextmanager
def _readable(source: Source) -> Iterator[None]:
    zstd = sys.modules.get("backports.zstd")
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
        from backports import zstd  # what Python 3.14 has as compression.zstd
    except ImportError:
        raise ChargenError(f"{name} can't be read: pip install 'chargen[zst]', or decompress it") from None
    return zstd


def _decoded(blocks: Iterable[bytes], source: str, encoding: str, advice: str) -> Iterator[str]:
    wide = len("\0".encode(encoding)) > 1
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise ChargenError(f"{encoding} can't be read piece by piece: convert {source} to utf-8") from None
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    read, begun = 0, False
    for data in chain(blocks, [b""]):
        if not read and not wide:
            for mark, other in MARKS:
                if data.startswith(mark):
                    raise ChargenError(f"{source} begins like {other} text: read it with --encoding {other}")
        if not wide and (nul := data.find(b"\0")) >= 0:
            raise NoTextError(
                "binary", f"{source} is a binary file (a NUL byte at offset {read + nul}): give a text file"
            )
        read += len(data)
        try:
            characters = decoder.decode(data, not data)
            if encoding != "utf-8":
                characters.encode("utf-8")  # which lone surrogates, that some encodings let through, can't be
        except UnicodeError as error:
            if not wide and any(b"\0" in more for more in blocks):
                raise NoTextError("binary", f"{source} is a binary file: give a text file") from None
            where = "it"
            if isinstance(error, UnicodeDecodeError):  # of what was left of the block before, and this one
                where = f"byte 0x{error.object[error.start]:02x} at offset {read - len(error.object) + error.start}"
            raise ChargenError(f"{source} is not {encoding}: {where} is out of place; {advice}") from None
        if "\0" in characters:
            raise NoTextError("binary", f"{source} is a binary file (it has NUL characters): give a text file")
        characters = newlines.decode(characters, not data)
        if not begun:
            characters = characters.removeprefix("\ufeff")
        if characters:
            begun = True
            yield characters
    if not begun:
        raise NoTextError("empty", f"{source} is empty: give a file with text in it")


def _composed(texts: Iterable[str]) -> Iterator[str]:
    """Compose the text (NFC), cutting it only before a character that nothing before it composes with."""
    held = ""
    for part in texts:
        held += part
        cut = len(held) - 1
        while cut > 0 and not _stands_alone(held[cut]):
            cut -= 1
        if cut > 0:
            yield _nfc(held[:cut])
            held = held[cut:]
    yield _nfc(held)


def _nfc(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _stands_alone(character: str) -> bool:
    """Tell whether a character composes with none before it: all that do are marks, and Korean vowels and finals."""
    return character < "\u0300" or not (
        unicodedata.category(character).startswith("M") or "\u1160" <= character <= "\u11ff"
    )


def _books(texts: Iterable[str], left_out: list[int]) -> Iterator[str]:
    """Leave out what stands before, between and after the books of Project Gutenberg in a text."""
    held, inside, begun, dropped = "", True, False, 0
    for part in chain(texts, [""]):
        last = not part
        held += part
        if len(held) < HEADER and not last:
            continue
        named = any(word in held for word in GUTENBERG)  # which is found at 5 GB/s, an expression at 0.1
        while True:
            starts = named and not (inside and begun) and _BOOK_STARTS.search(held, 0, HEADER if inside else len(held))
            if starts:
                dropped, held, inside = dropped + starts.end(), held[starts.end() :], True
            begun = True
            ends = named and inside and _BOOK_ENDS.search(held)
            if ends:
                book = held[: ends.start()].rstrip() + "\n"
                yield book
                dropped, held, inside = dropped + ends.start() - len(book), held[ends.start() :], False
            if not starts and not ends:
                break
        ready = len(held) if last else len(held) - LINES
        if inside and ready:
            yield held[:ready]
        elif last:
            dropped += ready
        elif not inside:
            if len(held) < LICENCE:  # what follows a book is its licence, or another book's header
                continue
            inside = True  # but not at such length: it is somebody's text
            yield held[:ready]
        held = held[ready:]
    if dropped:
        left_out.append(dropped)
