"""Text on a terminal: escaped, wrapped at words, in whole grapheme clusters. A pipe or a file gets text as it is."""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import Sequence
from itertools import accumulate
from typing import TextIO

JOINER = "\u200d"  # joins the emoji before and after it
LONGEST_CLUSTER = 32  # characters; Unicode's stream-safe format has at most 30 marks on a letter (UAX #15)
# Control characters except tab and newline, bidirectional overrides and isolates, and surrogates.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: str, stream: TextIO) -> str:
    """Return text as it is written to a stream: `escaped` if the stream is a terminal."""
    return escaped(text) if is_terminal(stream) else text


def escaped(text: str) -> str:
    """Return text in which characters that would control a terminal, and surrogates, are escaped as in JSON."""
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal. In a program without a console it is None."""
    return stream is not None and stream.isatty()


def width(stream: TextIO) -> int:
    """Return the columns of a terminal; 0 if the stream is not a terminal."""
    return shutil.get_terminal_size().columns if is_terminal(stream) else 0


def fitted(text: str, stream: TextIO, indent: int | None = 2) -> str:
    """Return lines as they are written to a stream: for a terminal, escaped, and wrapped at words to its width.

    Continuation lines are indented by ``indent`` columns. None leaves lines unwrapped, for commands to be copied.
    """
    room = width(stream)
    if not room or indent is None:
        return shown(text, stream)
    return "\n".join(part for line in shown(text, stream).split("\n") for part in wrapped(line, room, indent))


def wrapped(line: str, room: int, indent: int) -> list[str]:
    """Return a line as lines of at most ``room`` columns, or of one longer word; all but the first are indented."""
    lines = [""]
    for word in re.findall(r" *[^ ]+", line):
        if len(lines[-1]) > indent and columns(lines[-1] + word) > room:
            lines.append(" " * indent + word.lstrip())
        else:
            lines[-1] += word
    return lines


def cut(line: str, stream: TextIO) -> str:
    """Return a line as it is written to a stream: for a terminal, escaped, and cut to its width."""
    if not (room := width(stream)):
        return line
    line = shown(line, stream)
    ends = accumulate(columns(character) for character in line)
    return line[: sum(end <= room for end in ends)]


def columns(text: str) -> int:
    """Return the columns that a text takes on a terminal: two for a wide character, none for a combining mark."""
    if text.isascii():
        return len(text)
    marks = sum(unicodedata.category(c) in ("Mn", "Me", "Cf") for c in text)
    return len(text) - marks + sum(unicodedata.east_asian_width(c) in "WF" for c in text)


class Clusters:
    """Grapheme clusters of a text that comes in parts: a letter with its marks, an emoji with its modifiers.

    A cluster is returned once the next one has begun: a mark that is written later than its letter would be drawn
    beside it. The clusters are those of UAX #29, except that Hangul jamo, Indic conjuncts, prepended marks and tag
    sequences are not joined.
    """

    def __init__(self) -> None:
        self._text, self._nats = "", list[float]()

    def add(self, text: str, nats: Sequence[float]) -> list[tuple[str, float]]:
        """Add characters and the nats of each; return the clusters that are complete, each with the sum of its nats."""
        whole = []
        for character, cost in zip(text, nats, strict=True):
            if self._text and not _extends(self._text, character):
                whole += self.release()
            self._text += character
            self._nats.append(cost)
        return whole

    def release(self) -> list[tuple[str, float]]:
        """Return the last cluster, if there is one."""
        left = [(self._text, sum(self._nats))] if self._text else []
        self._text, self._nats = "", []
        return left


def _extends(before: str, character: str) -> bool:
    if len(before) == LONGEST_CLUSTER:
        return False
    mark = unicodedata.category(character) in ("Mn", "Me", "Mc") or "\U0001f3fb" <= character <= "\U0001f3ff"
    flag = all("\U0001f1e6" <= c <= "\U0001f1ff" for c in (*before, character)) and len(before) == 1
    return mark or flag or character == JOINER or before[-1] == JOINER
