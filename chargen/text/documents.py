"""Files, compressed or not, become documents: decoded, cleaned and normalised text, a block at a time."""

from __future__ import annotations

import bz2
import codecs
import fnmatch
import functools
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

from chargen import ChargenError
from chargen.files.disk import temporary
from chargen.files.reading import read_regular

STANDARD_INPUT = "-"
BUNDLED = "book.txt"
# Bytes that are read at a time. What becomes of them stays in the processor's cache: 1 << 20 takes 2.5 times as long.
BLOCK = 1 << 14
MARKS = (  # the longer first, as one begins with the other
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8"),
)
MARK = "\ufeff"  # what a mark is as a character; where files were joined, it stands inside a text
USUAL = ("utf-8", "cp1252", "latin-1")  # encodings that are advised, where they read the bytes

# What stands around a book of Project Gutenberg: the lines of today, and those of the etexts before 2004.
GUTENBERG = ("GUTENBERG", "Gutenberg")
TITLE = 500  # characters at the beginning of a text in which a header names Project Gutenberg
HEADER = 50_000  # characters within which a header ends
LICENCE = 60_000  # characters of a licence, and of the header that may follow it, at the most
LICENCE_GAP = 12  # lines of a licence in a row that say nothing by which it is known, at the most
MOST_MARKS = 30  # on a character, in the Stream-Safe Text Format of Unicode's Standard Annex 15
MARKS_HELD = 1 << 16  # marks in a row that are held back to be composed as one
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

_SMALL_PRINT = re.compile(r"^\*+ ?START\*+ ?THE SMALL PRINT", re.MULTILINE)
_HEADER_SAYS = re.compile(
    r"[Tt]his e(?:Book|text) is for the use of|^(?:Title|Author|Release [Dd]ate|Language|Character set encoding):"
    r"|information in this header|Copyright laws are changing",
    re.MULTILINE,
)
_LICENCE_BEGINS = re.compile(r"General Terms of Use|Updated editions will replace|This file should be named")
_LICENCE_SAYS = re.compile(
    r"gutenberg|foundation|electronic work|terms of use|trademark|donat|e(?:book|text)|licen[cs]e|copyright|newsletter",
    re.IGNORECASE,
)


class NoTextError(ChargenError):
    """A file is ``what``: empty, binary, or in another encoding. In a folder it is left out, and named."""

    def __init__(self, what: str, message: str) -> None:
        super().__init__(message)
        self.what = what


@dataclass(frozen=True)
class Source:
    """A file to read."""

    name: str  # for messages
    path: Any  # a Path, or what importlib.resources has in its place
    found: bool = False  # in a folder, and not named: left out where it is no text
    problem: str = ""  # that keeps it from being read, where that is known

    def stamp(self) -> tuple[int, ...]:
        """Return what changes with the file: size, time, place."""
        if not isinstance(self.path, Path):  # inside an installed package, or not readable
            return ()
        with _readable(self):
            told = self.path.stat()
            return told.st_size, told.st_mtime_ns, told.st_ino

    def sha256(self) -> str:
        """Return the hash of the file's bytes: 1 GB takes 0.6 s on a processor with instructions for it."""
        if self.problem:
            return self.problem
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
    """Return what a path or a pattern stands for, in order, each once; the path itself if nothing has it."""
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
    """Tell whether the names of a path match the parts of a pattern, of which ``**`` is any number of folders."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return (len(pattern) == 1 and bool(names)) or any(_matches(names[n:], pattern[1:]) for n in range(len(names)))
    return bool(names) and fnmatch.fnmatch(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _walk(folder: Path, problems: list[OSError]) -> list[Path]:
    """Return the files in a folder and below it, in order, each once, without hidden ones and those of runs.

    Links are followed, but into no folder twice. What can't be read is added to ``problems``.
    """
    found, entered = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=problems.append):
        here = Path(parent)
        identity = _identity(here)
        # A folder of texts is often where runs are made; what they hold is no text, and changes.
        if identity in entered or ("config.json" in names and _of_a_run(here / "config.json")):
            folders.clear()
            continue
        entered.add(identity)
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [here / name for name in names if not name.startswith(".")]
    return _distinct(sorted(one for one in found if one.is_file()))


def _distinct(paths: Iterable[Path]) -> list[Path]:
    """Return paths without those of a file or folder that stands among them already, by another name or a link."""
    first: dict[object, Path] = {}
    for path in paths:
        first.setdefault(_identity(path), path)
    return list(first.values())


def _identity(path: Path) -> object:
    try:
        told = path.stat()
    except OSError:  # a link that leads nowhere
        return path
    return told.st_dev, told.st_ino


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


def _of_a_run(config: Path) -> bool:
    try:
        return b'"sha256"' in read_regular(config)
    except (OSError, ChargenError):
        return False


@dataclass
class Reading:
    """How documents are read, and what was found about them meanwhile."""

    encoding: str = "utf-8"
    keep_boilerplate: bool = False
    normalize: str = "nfc"  # or none
    left_out: list[int] = field(default_factory=list)  # characters of headers and licences, of each text with any
    composed: bool = False  # some characters were not in NFC


def decode(data: bytes, source: str, encoding: str = "utf-8", option: str | None = "--encoding") -> str:
    """Return the normalised text of a file's bytes: no byte-order mark, LF for CRLF and CR, composed (NFC).

    A file that begins with a mark is in the encoding of its mark. Raises ChargenError that names ``source`` where there
    is no text; ``option`` is what the running command has to name an encoding, if it has one.
    """
    return "".join(_composed(_decoded([data], source, encoding, option), Reading()))


def text(source: Source, reading: Reading) -> Iterator[str]:
    """Yield a document's text in blocks, normalised as `decode` does, if ``reading`` says so.

    Project Gutenberg's header and licence are left out, unless they are to be kept. Raises ChargenError for a file that
    can't be read, NoTextError for one that is no text, or in another encoding.
    """
    if source.problem:
        raise NoTextError(source.problem, f"{source.name} is {source.problem}")
    if Path(source.name).suffix.lower() == ".zst":
        _zstd(source.name)
    with _readable(source), _opened(source) as file:
        blocks = iter(lambda: file.read(BLOCK), b"")
        parts = _decoded(blocks, source.name, reading.encoding, "--encoding")
        parts = parts if reading.keep_boilerplate else _books(parts, reading.left_out)
        parts = parts if reading.normalize == "none" else _composed(parts, reading)
        empty = True
        for part in filter(None, parts):
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


def _decoded(blocks: Iterable[bytes], source: str, encoding: str, option: str | None) -> Iterator[str]:
    blocks = iter(blocks)
    first = b""
    while len(first) < 4 and (more := next(blocks, b"")):  # a mark has 4 bytes at the most
        first += more
    encoding = next((marked for mark, marked in MARKS if first.startswith(mark)), encoding)
    wide = len("\0".encode(encoding)) > 1
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise ChargenError(f"{encoding} can't be read piece by piece: convert {source} to utf-8") from None
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    read, begun = 0, False
    for data in chain([first] * bool(first), blocks, [b""]):
        if not wide and (nul := data.find(b"\0")) >= 0:
            raise NoTextError("binary", _binary(source, first, read + nul, option))
        read += len(data)
        try:
            characters = decoder.decode(data, not data)
            if not encoding.startswith("utf-8"):
                characters.encode("utf-8")  # which lone surrogates, that some encodings let through, can't be
        except UnicodeError as error:
            if not wide and any(b"\0" in more for more in blocks):
                raise NoTextError("binary", f"{source} is a binary file: give a text file") from None
            where, wrong = "it", b""
            if isinstance(error, UnicodeDecodeError):  # of what was left of the block before, and this one
                wrong = error.object[error.start :]
                where = f"byte 0x{wrong[0]:02x} at offset {read - len(error.object) + error.start}"
            message = f"{source} is not {encoding}: {where} is out of place; {_advice(wrong, encoding, option)}"
            raise NoTextError(f"not {encoding}", message) from None
        if "\0" in characters:
            raise NoTextError("binary", f"{source} is a binary file (it has NUL characters): give a text file")
        characters = newlines.decode(characters, not data)
        if MARK in characters:  # which is asked 30 times as fast as a replacement that finds nothing
            characters = characters.replace(MARK, "")
        if characters:
            begun = True
            yield characters
    if not begun:
        raise NoTextError("empty", f"{source} is empty: give a file with text in it")


def _binary(source: str, data: bytes, nul: int, option: str | None) -> str:
    """Say that a file has a NUL byte, and what to do if it is UTF-16 without a mark: every second byte is NUL then."""
    for encoding, place in (("utf-16-le", 1), ("utf-16-be", 0)):
        if not len(data) % 2 and 2 * data[place::2].count(0) > len(data) // 2 > data[1 - place :: 2].count(0) == 0:
            return f"{source} seems to be {encoding}: {_advised(encoding, option)}"
    return f"{source} is a binary file (a NUL byte at offset {nul}): give a text file"


def _advice(wrong: bytes, encoding: str, option: str | None) -> str:
    """Say which other encoding reads the bytes from a wrong one on."""
    for other in USUAL:
        with suppress(UnicodeError):
            wrong.decode(other)
            if codecs.lookup(other) != codecs.lookup(encoding):
                return _advised(other, option)
    return _advised("latin-1", option)


def _advised(encoding: str, option: str | None) -> str:
    return f"{option} {encoding} would read it" if option else f"save it as UTF-8 (it may be {encoding})"


def _composed(texts: Iterable[str], reading: Reading) -> Iterator[str]:
    """Compose the text (NFC), cutting it only before a character that nothing before it composes with."""
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
    """Return what matches more marks in a row than any language writes."""
    marks = "".join(c for c in map(chr, range(0x300, 0x20000)) if unicodedata.combining(c))
    return re.compile(f"[{marks}]{{{MOST_MARKS + 1},}}")


def _ordered(marks: re.Match[str]) -> str:
    """Return marks in their canonical order, as `unicodedata.normalize` does in quadratic time."""
    return "".join(sorted("".join(unicodedata.normalize("NFD", c) for c in marks[0]), key=unicodedata.combining))


def _stands_alone(character: str) -> bool:
    """Tell whether a character composes with none before it: all that do are marks, and Korean vowels and finals."""
    return character < "\u0300" or not (
        unicodedata.category(character).startswith("M") or "\u1160" <= character <= "\u11ff"
    )


def _books(texts: Iterable[str], left_out: list[int]) -> Iterator[str]:
    """Leave out what stands before, between and after the books of Project Gutenberg in a text.

    Where it is in doubt whether that is a header or a licence, it stays.
    """
    held, inside, begun, named, dropped = "", True, False, False, 0
    for part in chain(texts, [""]):
        last = not part
        held += part
        if len(held) < HEADER and not last:
            continue
        told = any(word in held for word in GUTENBERG)  # which is found at 5 GB/s, an expression at 0.1
        while told:
            starts = _start(held, first=not begun) if not (inside and begun) else None
            named = named or starts is not None or (not begun and _names_gutenberg(held))
            begun = True
            if starts is not None:
                dropped, held, inside = dropped + starts, held[starts:], True
            ends = _BOOK_ENDS.search(held) if inside else None
            if ends and (named or _LICENCE_BEGINS.search(held, ends.end(), ends.end() + LINES)):
                book = held[: ends.start()].rstrip() + "\n"
                yield book
                dropped, held, inside = dropped + ends.start() - len(book), held[ends.start() :], False
            elif starts is None:
                break
        begun = True
        if not inside:
            if len(held) < LICENCE and not last:  # what follows a book is its licence, or another book's header
                continue
            licence = _licence(held)
            dropped, held, inside = dropped + licence, held[licence:], True
        ready = len(held) if last else len(held) - LINES
        if ready > 0:
            yield held[:ready]
            held = held[ready:]
    if dropped:
        left_out.append(dropped)


def _names_gutenberg(text: str) -> bool:
    return "project gutenberg" in text[:TITLE].lower()


def _start(held: str, *, first: bool) -> int | None:
    """Return where the book after a header begins; None if there is no header.

    The ``first`` header of a text stands at its beginning. It names Project Gutenberg in its first lines, and is short
    or says what headers say: somebody may quote its last line. That of an etext ends with the small print, if it does
    not stand behind the text.
    """
    ends = _BOOK_STARTS.search(held, 0, HEADER if first else len(held))
    if ends is None:
        return None
    header = held[: ends.start()]
    if not first:
        return ends.end()
    small = _SMALL_PRINT.search(header)
    if "SMALL PRINT" in ends[0]:
        if small is None or len(held) - ends.end() < small.start():
            return None
        header = header[: small.start()]
    short = len(header.strip()) < TITLE
    return ends.end() if _names_gutenberg(held) and (short or _HEADER_SAYS.search(header)) else None


def _licence(text: str) -> int:
    """Return how many characters of a text, which begins where a book ends, are the end and the licence.

    Those are the lines that say what a licence says, and what stands between two that are near each other.
    """
    end = place = others = 0
    for line in text.splitlines(keepends=True):
        place += len(line)
        if _LICENCE_SAYS.search(line):
            end, others = place, 0
        elif (others := others + 1) > LICENCE_GAP:
            break
    return end
