"""Files become documents: text of any format, decoded, cleaned and normalised, a block at a time.

Characters are composed to Unicode's Normalization Form C (NFC), Standard Annex 15.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import IO

from chargen.text import formats
from chargen.text.encodings import NoTextError, decoded
from chargen.text.formats.archives import DEEPEST
from chargen.text.formats.limits import UnreadableError
from chargen.text.formats.options import Options
from chargen.text.gutenberg import books
from chargen.text.sources import Source, opened, readable, seekable

# Bytes that are read at a time. A block's text and ids fit into the processor's cache: 1 << 20 takes 2.5 times as long.
BLOCK_BYTES = 1 << 14
MOST_COMBINING = 30  # marks on a character, in the Stream-Safe Text Format of Unicode's Standard Annex 15
MARKS_HELD = 1 << 16  # consecutive combining marks that are composed together


@dataclass
class Reading:
    """How documents are read, and what was changed in them."""

    encoding: str = "utf-8"
    keep_boilerplate: bool = False
    keep_markup: bool = False
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
    with readable(source), opened(source) as file:
        parts = _read(source, file, reading)
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


def _read(source: Source, file: IO[bytes], reading: Reading) -> Iterator[str]:
    """Yield the text of an open file, of whatever format."""
    head = file.read(formats.HEAD_BYTES)
    kind = formats.recognised(head, source.plain_name, keep_markup=reading.keep_markup)
    if kind == formats.PLAIN:
        first = (head[n : n + BLOCK_BYTES] for n in range(0, len(head), BLOCK_BYTES))
        blocks = chain(first, iter(lambda: file.read(BLOCK_BYTES), b""))
        yield from decoded(blocks, source.name, reading.encoding, "--encoding")
        return
    with seekable(source, file, head) as whole:
        kind = formats.zip_kind(whole, source.plain_name) if kind == "zip" else kind
        if kind not in formats.KINDS:
            raise UnreadableError(f"an archive in more than {DEEPEST} archives")
        whole.seek(0)
        options = Options(source.name, reading.encoding, reading.keep_boilerplate)
        yield from _blocks(formats.read(kind, whole, options))


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
