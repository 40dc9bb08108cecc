"""Files become documents: text of any format, decoded, cleaned and normalised, a block at a time.

Characters are composed to Unicode's Normalization Form C (NFC), Standard Annex 15.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import IO, NamedTuple

from chargen.config import TrainConfig
from chargen.text import formats
from chargen.text.encodings import NoTextError, decoded
from chargen.text.formats.archives import DEEPEST
from chargen.text.formats.limits import UnreadableError
from chargen.text.formats.options import Options
from chargen.text.gutenberg import books
from chargen.text.sources import Source, opened, readable, seekable
from chargen.text.unwrap import unwrapped

# Bytes that are read at a time. A block's text and ids fit into the processor's cache: 1 << 20 takes 2.5 times as long.
BLOCK_BYTES = 1 << 14
GUTENBERG = "Project Gutenberg's header and licence"
NAMED_GUESSES = 3  # files whose encoding was guessed that a note names
MOST_COMBINING = 30  # marks on a character, in the Stream-Safe Text Format of Unicode's Standard Annex 15
MARKS_HELD = 1 << 16  # consecutive combining marks that are composed together


class LeftOut(NamedTuple):
    """What was left out of a file."""

    file: str
    what: str
    characters: int


@dataclass
class Reading:
    """How documents are read, and what was changed in them."""

    encoding: str | None = None  # None: UTF-8, or a guess
    keep_boilerplate: bool = False
    keep_markup: bool = False
    normalize: str = "nfc"  # or "none"
    unwrap: bool = False
    document: str = "file"  # or "paragraph" or "line"
    column: str | None = None
    left_out: list[LeftOut] = field(default_factory=list)
    guessed: list[tuple[str, str]] = field(default_factory=list)  # file and encoding
    composed: bool = False  # whether a text was not in NFC

    @classmethod
    def of(cls, settings: TrainConfig) -> Reading:
        """Return how the texts of a training are read."""
        s = settings
        return cls(s.encoding, s.keep_boilerplate, s.keep_markup, s.normalize, s.unwrap, s.document, s.column)

    @property
    def itemized(self) -> bool:
        """Whether a file holds several documents."""
        return self.document != "file" or self.column is not None

    def forget(self, file: str) -> None:
        """Remove what was recorded of a file, which is left out."""
        self.left_out = [one for one in self.left_out if one.file != file]
        self.guessed = [one for one in self.guessed if one[0] != file]

    def notes(self) -> list[str]:
        """Return what the owner of the texts would want to know, a line each."""
        notes = [guesses(self.guessed)] if self.guessed else []
        if characters := [one.characters for one in self.left_out if one.what == GUTENBERG]:
            notes.append(
                f"{GUTENBERG} are left out of {len(characters):,} text{'s' * (len(characters) > 1)}, "
                f"{sum(characters):,} characters: --keep-boilerplate keeps them"
            )
        if self.composed:
            notes.append("some characters were composed or put in order (NFC): --normalize none keeps them as they are")
        return notes


def guesses(found: Sequence[tuple[str, str]]) -> str:
    """Return, in a line, the files whose encoding was guessed, at most three by their names."""
    encodings = dict.fromkeys(encoding for _, encoding in found)
    if len(found) > NAMED_GUESSES:
        counts = ", ".join(f"{sum(one == e for _, one in found):,} as {e}" for e in encodings)
        return f"{len(found):,} files are not UTF-8, and read by a guess: {counts}; if it is wrong, give --encoding"
    named = ", ".join(f"{file} as {encoding}" for file, encoding in found)
    return f"not UTF-8, and read by a guess: {named}; if the guess is wrong, give --encoding"


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
    with readable(source), opened(source) as file:
        dropped = list[int]()
        head = file.read(formats.HEAD_BYTES)
        kind = formats.recognised(head, source.plain_name, keep_markup=reading.keep_markup)
        parts = _plain(source, file, head, reading) if kind == formats.PLAIN else _read(source, file, head, reading)
        parts = parts if reading.keep_boilerplate else books(parts, dropped)
        parts = unwrapped(parts) if reading.unwrap and kind == formats.PLAIN else parts
        parts = parts if reading.normalize == "none" else _composed(parts, reading)
        empty = True
        for part in filter(None, parts):
            empty = False
            yield part
        if empty:
            raise NoTextError(
                f"nothing but {GUTENBERG}",
                f"{source.name} is nothing but {GUTENBERG}: --keep-boilerplate keeps them",
            )
        reading.left_out += [LeftOut(source.name, GUTENBERG, characters) for characters in dropped]


def _plain(source: Source, file: IO[bytes], head: bytes, reading: Reading) -> Iterator[str]:
    """Yield the text of an open plain text that begins with ``head``."""
    first = (head[n : n + BLOCK_BYTES] for n in range(0, len(head), BLOCK_BYTES))
    blocks = chain(first, iter(lambda: file.read(BLOCK_BYTES), b""))
    options = _options(source, reading)
    return decoded(blocks, source.name, options.encoding, "--encoding", options.guessed)


def _options(source: Source, reading: Reading) -> Options:
    guessed = None if reading.encoding else lambda encoding: reading.guessed.append((source.name, encoding))
    return Options(source.name, reading.encoding or "utf-8", reading.keep_boilerplate, reading.unwrap, guessed)


def _read(source: Source, file: IO[bytes], head: bytes, reading: Reading) -> Iterator[str]:
    """Yield the text of an open file that is no plain text."""
    kind = formats.recognised(head, source.plain_name, keep_markup=reading.keep_markup)
    with seekable(source, file, head) as whole:
        kind = formats.zip_kind(whole, source.plain_name) if kind == "zip" else kind
        if kind not in formats.KINDS:
            raise UnreadableError(f"an archive in more than {DEEPEST} archives")
        whole.seek(0)
        options = _options(source, reading)
        yield from _blocks(formats.read(kind, whole, options))
        reading.left_out += [LeftOut(source.name, what, n) for what, n in options.left_out.items() if n]


def _blocks(pieces: Iterable[str]) -> Iterator[str]:
    """Join short pieces and cut long ones, to blocks. Raises UnreadableError if all of them are blank."""
    held, size, blank = [], 0, True
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        blank = blank and not piece.strip()
        if size >= BLOCK_BYTES:
            joined = "".join(held)
            yield from (joined[n : n + BLOCK_BYTES] for n in range(0, size, BLOCK_BYTES))
            held, size = [], 0
    if blank:
        raise UnreadableError("without text")
    yield "".join(held)


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
