"""Bytes are decoded block by block; an error names the byte and an encoding that can read the file."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain

from chargen import ChargenError

BYTE_ORDER_MARKS = (  # UTF-32 before UTF-16, because the mark of one begins with the mark of the other
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8"),
)
BYTE_ORDER_MARK = "\ufeff"  # a decoded mark; joined files have them inside the text too
SUGGESTED_ENCODINGS = ("utf-8", "cp1252", "latin-1")  # the first that can decode the bytes is suggested
# What is read from the first byte that is not ASCII on, to see whether it is UTF-8, and the lines of it that are looked
# at for a guess.
AHEAD_BYTES, SAMPLE_BYTES = 1 << 18, 1 << 14


class NoTextError(ChargenError):
    """A file that is not a text. ``what`` says what it is: empty, binary, or in another encoding.

    In a folder, such a file is left out and named in a note.
    """

    def __init__(self, what: str, message: str) -> None:
        super().__init__(message)
        self.what = what


def decoded(
    blocks: Iterable[bytes],
    source: str,
    encoding: str,
    option: str | None,
    guessed: Callable[[str], object] | None = None,
) -> Iterator[str]:
    """Decode blocks of bytes; yield their text without byte-order marks, and with LF for CRLF and CR.

    A byte-order mark at the beginning decides the encoding. ``source`` names the file in messages; ``option`` is the
    command-line option for the encoding, if there is one. With ``guessed``, bytes that are not UTF-8 although that is
    ``encoding`` are read in another encoding if a guess is sure, and ``guessed`` is called with it. Raises NoTextError
    if the bytes are empty, binary or not in the encoding, and ChargenError for an encoding that has no incremental
    decoder.
    """
    blocks = iter(blocks)
    first = b""
    while len(first) < 4 and (more := next(blocks, b"")):  # the longest mark has 4 bytes
        first += more
    marked = next((marked for mark, marked in BYTE_ORDER_MARKS if first.startswith(mark)), None)
    guessing = guessed is not None and marked is None and encoding == "utf-8"
    encoding = marked or encoding
    wide = len("\0".encode(encoding)) > 1
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise ChargenError(f"{encoding} can't be decoded in blocks: convert {source} to utf-8") from None
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    read, empty = 0, True
    for data in chain([first] * bool(first), blocks, [b""]):
        if guessing and not data.isascii():
            guessing, data = False, _ahead(data, blocks)
            if guessed is not None and (other := _guess(data)):
                encoding, decoder = other, codecs.getincrementaldecoder(other)()
                guessed(other)
        if not wide and (nul := data.find(b"\0")) >= 0:
            raise NoTextError("binary", _binary(source, first, read + nul, option))
        read += len(data)
        try:
            text = decoder.decode(data, not data)
            if not encoding.startswith("utf-8"):
                text.encode("utf-8")  # fails for lone surrogates, which some decoders accept
        except UnicodeError as error:
            if not wide and any(b"\0" in more for more in blocks):
                raise NoTextError("binary", f"{source} is a binary file: give a text file") from None
            message = (
                f"{source} is not {encoding}: {_place(error, read)} is invalid; {_advice(error, encoding, option)}"
            )
            raise NoTextError(f"not {encoding}", message) from None
        if "\0" in text:
            raise NoTextError("binary", f"{source} is a binary file (it has NUL characters): give a text file")
        text = newlines.decode(text, not data)
        if BYTE_ORDER_MARK in text:  # this test is 30 times as fast as a replacement that finds nothing
            text = text.replace(BYTE_ORDER_MARK, "")
        if text:
            empty = False
            yield text
    if empty:
        raise NoTextError("empty", f"{source} is empty: give a file with text in it")


def _ahead(data: bytes, blocks: Iterator[bytes]) -> bytes:
    """Return ``data`` and what follows, AHEAD_BYTES if there are so many."""
    parts, size = [data], len(data)
    while size < AHEAD_BYTES and (more := next(blocks, b"")):
        parts.append(more)
        size += len(more)
    return b"".join(parts)


def _guess(data: bytes) -> str:
    """Return the encoding of bytes that are not UTF-8; empty if they are UTF-8 or binary, or if a guess is not sure."""
    with suppress(UnicodeError):
        codecs.getincrementaldecoder("utf-8")().decode(data)
        return ""
    if b"\0" in data:
        return ""
    from chargen.text.guess import guess

    lines, size = [], 0
    for line in data.splitlines(keepends=True):
        if not line.isascii() and size < SAMPLE_BYTES:
            lines.append(line[:SAMPLE_BYTES])
            size += len(line)
    return guess(b"".join(lines))


def _binary(source: str, data: bytes, nul: int, option: str | None) -> str:
    """Return the message for a NUL byte at offset ``nul``: a binary file, or UTF-16 text without a byte-order mark.

    ASCII characters in UTF-16 have NUL as their second byte (little-endian) or their first (big-endian).
    """
    for encoding, place in (("utf-16-le", 1), ("utf-16-be", 0)):
        if not len(data) % 2 and 2 * data[place::2].count(0) > len(data) // 2 > data[1 - place :: 2].count(0) == 0:
            return f"{source} seems to be {encoding}: {_suggestion(encoding, option)}"
    return f"{source} is a binary file (a NUL byte at offset {nul}): give a text file"


def _place(error: UnicodeError, read: int) -> str:
    """Return where the decoding of the first ``read`` bytes failed."""
    if not isinstance(error, UnicodeDecodeError):
        return "a character"
    # The decoder's input is the last block, after what remained of the one before.
    return f"byte 0x{error.object[error.start]:02x} at offset {read - len(error.object) + error.start}"


def _advice(error: UnicodeError, encoding: str, option: str | None) -> str:
    """Suggest another encoding that can decode the bytes from the invalid one on."""
    wrong = error.object[error.start :] if isinstance(error, UnicodeDecodeError) else b""
    for other in SUGGESTED_ENCODINGS:
        with suppress(UnicodeError):
            wrong.decode(other)
            if codecs.lookup(other) != codecs.lookup(encoding):
                return _suggestion(other, option)
    return _suggestion("latin-1", option)


def _suggestion(encoding: str, option: str | None) -> str:
    return f"{option} {encoding} would read it" if option else f"save it as UTF-8 (it may be {encoding})"
