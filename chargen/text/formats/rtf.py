"""The text of a Rich Text Format file (RTF 1.9.1), with its notes at the end, in one pass.

Headers, footers, pictures, embedded objects, comments, deleted and hidden text are left out.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO

from chargen.text.formats.limits import BLOCK_BYTES, UnreadableError
from chargen.text.formats.lines import LINE, PARAGRAPH, Lines
from chargen.text.formats.options import CONTENTS, HEADS, HIDDEN, Options, names

DEEPEST = 10_000  # groups inside each other
LONGEST_TOKEN = 64  # characters of a control word with its number
LEFT_OUT = names(
    "fonttbl colortbl stylesheet info pict nonshppict objdata header headerl headerr headerf footer footerl footerr "
    "footerf fldinst listtext pntext annotation atnid atnauthor bkmkstart bkmkend filetbl revtbl listtable "
    "listoverridetable rsidtbl generator xmlnstbl themedata colorschememapping datastore latentstyles tc xe rxe "
    "private template txe falt panose ftnsep ftnsepc ftncn aftnsep aftnsepc aftncn do"
)
CHARACTERS = {
    **{"emdash": "—", "endash": "–", "lquote": "‘", "rquote": "’", "ldblquote": "“", "rdblquote": "”"},
    **{"bullet": "•", "emspace": "\u2003", "enspace": "\u2002", "qmspace": "\u2005", "zwj": "\u200d", "zwnj": "\u200c"},
}
GAPS = {"par": PARAGRAPH, "sect": PARAGRAPH, "page": PARAGRAPH, "column": PARAGRAPH, "row": LINE, "nestrow": LINE}
SYMBOLS = {"~": "\u00a0", "_": "-", "\\": "\\", "{": "{", "}": "}"}
# Code pages by \\fcharset; and by the words for the whole file.
CHARSETS = {
    **{77: "mac_roman", 128: "cp932", 129: "cp949", 130: "johab", 134: "cp936", 136: "cp950", 161: "cp1253"},
    **{162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251", 222: "cp874"},
    **{238: "cp1250", 254: "cp437", 255: "cp850"},
}
FILE_CHARSETS = {"ansi": "cp1252", "mac": "mac_roman", "pc": "cp437", "pca": "cp850"}
DOUBLE_BYTE = {"cp932", "cp936", "cp949", "cp950", "johab"}

_TOKEN = re.compile(
    r"\\(?:([a-zA-Z]{1,32})(-?\d{1,10})? ?|'([0-9a-fA-F]{2})|([^a-zA-Z]))|([{}])|([^\\{}\r\n]+)|[\r\n]+", re.DOTALL
)


@dataclass
class _Group:
    """What holds between a brace and the one that closes it."""

    skipped: str = ""  # the word with which it began to be left out
    hidden: bool = False
    note: bool = False
    contents: bool = False  # a field with a table of contents
    instruction: bool = False  # of a field
    fallbacks: int = 1  # characters after each \\u for old programs
    font: int = -1


class _Reader:
    """A file that is being read."""

    def __init__(self, left_out: Counter[str]) -> None:
        self.left_out = left_out
        self.body, self.notes = Lines(), Lines()
        self.groups = [_Group()]
        self.codepage = "cp1252"
        self.fonts: dict[int, str] = {}
        self.bytes = bytearray()  # of characters that may be incomplete
        self.surrogate = 0
        self.drop = 0  # characters that stand for the last \\u
        self.binary = 0  # bytes that follow
        self.starred = False  # the next word names a destination that is optional

    def token(self, match: re.Match[str]) -> None:
        """Read one token."""
        word, number, code, symbol, brace, text = match.groups()
        if code:
            self.characters(chr(int(code, 16)), coded=True)
        elif text:
            self.characters(text)
        else:
            self.flush()
            if brace:
                self.brace(brace)
            elif word:
                self.word(word, int(number) if number else None)
            elif symbol == "*":
                self.starred = True
            elif symbol in ("\n", "\r"):
                self.lines.gap(PARAGRAPH)
            elif symbol in SYMBOLS:
                self.write(SYMBOLS[symbol])

    @property
    def lines(self) -> Lines:
        """The lines that are written to."""
        return self.notes if self.groups[-1].note else self.body

    def brace(self, brace: str) -> None:
        """Begin or end a group."""
        self.drop, self.starred = 0, False
        if brace == "{":
            if len(self.groups) > DEEPEST:
                raise UnreadableError("refused, because its groups are nested too deeply")
            self.groups.append(replace(self.groups[-1]))
        elif len(self.groups) > 1:
            left = self.groups.pop()
            if left.instruction and left.contents:
                self.groups[-1].contents = True

    def word(self, word: str, number: int | None) -> None:
        """Read a control word."""
        group, starred, self.starred = self.groups[-1], self.starred, False
        if self.drop and word != "u":
            self.drop -= 1
        if word == "bin":
            self.binary = max(0, number or 0)
        elif word == "u" and number is not None:
            self.unicode(number % 0x10000)
            self.drop = group.fallbacks
        elif word == "fldinst":
            group.skipped, group.instruction = word, True
        elif word in LEFT_OUT or (starred and word != "shppict") or (word == "fldrslt" and group.contents):
            group.skipped = group.skipped or word
        elif word == "footnote":
            group.note = True
            self.notes.gap(PARAGRAPH)
        elif word in CHARACTERS:
            self.write(CHARACTERS[word])
        elif not group.skipped and word in GAPS:
            self.lines.gap(GAPS[word])
        elif not group.skipped and word in ("tab", "cell", "nestcell"):
            self.lines.tab()
        elif not group.skipped and word in ("line", "lbr"):
            self.lines.line_break()
        else:
            self.setting(word, number)

    def setting(self, word: str, number: int | None) -> None:
        """Read a control word that writes nothing."""
        group = self.groups[-1]
        if word in ("v", "deleted"):
            group.hidden = number != 0
        elif word == "plain":
            group.hidden = False
        elif word == "uc":
            group.fallbacks = min(max(number or 0, 0), 100)
        elif word == "f":
            group.font = number or 0
        elif word == "fcharset":
            self.fonts[group.font] = CHARSETS.get(number or 0, "")
        elif word == "ansicpg":
            self.codepage = _known(f"cp{number}") or self.codepage
        elif word in FILE_CHARSETS:
            self.codepage = FILE_CHARSETS[word]

    def characters(self, text: str, *, coded: bool = False) -> None:
        """Read characters of the code page; one is ``coded`` as hexadecimal digits."""
        self.starred = False
        dropped = min(self.drop, len(text))
        self.drop, text = self.drop - dropped, text[dropped:]
        group = self.groups[-1]
        if group.instruction and text.lstrip()[:4].upper() == "TOC ":
            group.contents = True
        if group.skipped or group.hidden or not text:
            if why := _why(group.skipped) if group.skipped else HIDDEN:
                self.left_out[why] += len(text)
            return
        codepage = self.fonts.get(group.font) or self.codepage
        if coded:
            self.bytes += text.encode("latin-1")
        elif self.bytes and codepage in DOUBLE_BYTE and _incomplete(self.bytes, codepage):
            self.bytes += text[:1].encode("latin-1")
            self.flush()
            self.write(text[1:])
        else:
            self.flush()
            self.write(text if text.isascii() else text.encode("latin-1").decode(codepage, "replace"))

    def flush(self) -> None:
        """Write the coded characters."""
        if self.bytes:
            codepage = self.fonts.get(self.groups[-1].font) or self.codepage
            text = self.bytes.decode(codepage, "replace")
            self.bytes.clear()
            self.write(text)

    def unicode(self, unit: int) -> None:
        """Write a character in UTF-16, of which rare ones have two units."""
        if 0xD800 <= unit < 0xDC00:
            self.surrogate = unit
        elif 0xDC00 <= unit < 0xE000:
            if self.surrogate:
                self.write(chr(0x10000 + ((self.surrogate - 0xD800) << 10) + unit - 0xDC00))
            self.surrogate = 0
        elif unit:
            self.write(chr(unit))

    def write(self, text: str) -> None:
        """Write a text, unless it is left out."""
        group = self.groups[-1]
        if not group.skipped and not group.hidden:
            self.lines.write(text.replace("\0", ""))


def read(file: IO[bytes], options: Options) -> Iterator[str]:
    """Yield the text. Raises UnreadableError for a file that ends before its last brace."""
    reader, held, begun = _Reader(options.left_out), "", False
    while data := file.read(BLOCK_BYTES):
        held += data.decode("latin-1")
        place, safe = 0, len(held) - LONGEST_TOKEN if len(data) == BLOCK_BYTES else len(held)
        while place < safe:
            if reader.binary:
                skipped = min(reader.binary, len(held) - place)
                reader.binary, place = reader.binary - skipped, place + skipped
                continue
            match = _TOKEN.match(held, place)
            if match is None:  # a backslash at the end
                break
            reader.token(match)
            place = match.end()
            begun = begun or len(reader.groups) > 1
            if begun and len(reader.groups) == 1:  # what follows the last brace is no text
                yield from _rest(reader)
                return
        held = held[place:]
        yield reader.body.take()
    raise UnreadableError("damaged: its end is missing")


def _why(word: str) -> str:
    """Return what a group that is left out holds; empty if it is no text."""
    if word.startswith(("header", "footer")):
        return HEADS
    return CONTENTS if word == "fldrslt" else HIDDEN if word == "annotation" else ""


def _rest(reader: _Reader) -> Iterator[str]:
    reader.flush()
    reader.body.gap(PARAGRAPH)
    reader.body.write(reader.notes.take())
    yield reader.body.end()


def _incomplete(data: bytearray, codepage: str) -> bool:
    try:
        data.decode(codepage)
    except UnicodeDecodeError as error:
        return error.end == len(data)
    return False


def _known(codepage: str) -> str:
    """Return a code page's name if Python knows it."""
    try:
        codecs.lookup(codepage)
    except LookupError:
        return ""
    return codepage
