"""Text on a terminal: escaped, wrapped at words, in whole clusters, shaded by its surprisal if wanted.

A pipe or a file gets text as it is.
"""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import Sequence
from itertools import accumulate
from typing import TextIO

from chargen.bits import bits

JOINER = "\u200d"  # makes one emoji of two
LONGEST = 32  # characters of a cluster; Unicode's stream-safe format has 30 marks on a letter (UAX #15)
# Backgrounds of the 256-colour palette, each from so many bits on: what was expected stays plain.
SHADES = ((1.0, 230), (2.0, 229), (3.0, 222), (4.5, 215), (6.0, 209), (8.0, 203), (11.0, 197))
# Control characters but for tab and newline, what turns the direction of writing, and bytes that are no character.
COMMANDING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: str, stream: TextIO) -> str:
    """Return text as it may go to a stream: `escaped` for a terminal."""
    return escaped(text) if is_terminal(stream) else text


def escaped(text: str) -> str:
    """Return text with an escape, which JSON reads too, for each character that commands a terminal or is none."""
    return COMMANDING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a stream, which is missing in a program without a console, is a terminal."""
    return stream is not None and stream.isatty()


def width(stream: TextIO) -> int:
    """Return the columns of a terminal; 0 where the stream is none."""
    return shutil.get_terminal_size().columns if is_terminal(stream) else 0


def fitted(text: str, stream: TextIO, indent: int | None = 2) -> str:
    """Return lines as they may go to a stream: for a terminal, escaped, and wrapped at words to its width.

    What is wrapped goes on after ``indent`` columns; None leaves lines whole, as commands are that will be copied.
    """
    room = width(stream)
    if not room or indent is None:
        return shown(text, stream)
    return "\n".join(part for line in shown(text, stream).split("\n") for part in wrapped(line, room, indent))


def wrapped(line: str, room: int, indent: int) -> list[str]:
    """Return a line in lines of at most ``room`` columns, where its words allow it; all but the first are indented."""
    lines = [""]
    for word in re.findall(r" *[^ ]+", line):
        if len(lines[-1]) > indent and columns(lines[-1] + word) > room:
            lines.append(" " * indent + word.lstrip())
        else:
            lines[-1] += word
    return lines


def cut(line: str, stream: TextIO) -> str:
    """Return a line as it may go to a stream: for a terminal, escaped, and cut to its width."""
    if not (room := width(stream)):
        return line
    line = shown(line, stream)
    ends = accumulate(columns(character) for character in line)
    return line[: sum(end <= room for end in ends)]


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes: two for a wide character, none for a mark."""
    if text.isascii():
        return len(text)
    marks = sum(unicodedata.category(c) in ("Mn", "Me", "Cf") for c in text)
    return len(text) - marks + sum(unicodedata.east_asian_width(c) in "WF" for c in text)


class Clusters:
    """Characters that a terminal draws as one: a letter with its combining marks, an emoji with its modifiers.

    A cluster is given only when the next one begins, as a mark that comes late would be drawn beside its letter.
    """

    def __init__(self) -> None:
        self._text, self._nats = "", list[float]()

    def add(self, text: str, nats: Sequence[float]) -> list[tuple[str, float]]:
        """Take characters and what each cost; give the clusters that are whole now, each with its nats."""
        whole = []
        for character, cost in zip(text, nats, strict=True):
            if self._text and not _extends(self._text, character):
                whole += self.release()
            self._text += character
            self._nats.append(cost)
        return whole

    def release(self) -> list[tuple[str, float]]:
        """Give what is left."""
        left = [(self._text, sum(self._nats))] if self._text else []
        self._text, self._nats = "", []
        return left


def _extends(before: str, character: str) -> bool:
    if len(before) == LONGEST:
        return False
    mark = unicodedata.category(character) in ("Mn", "Me", "Mc") or "\U0001f3fb" <= character <= "\U0001f3ff"
    flag = all("\U0001f1e6" <= c <= "\U0001f1ff" for c in (*before, character)) and len(before) == 1
    return mark or flag or character == JOINER or before[-1] == JOINER


def shade(text: str, nats: float) -> str:
    """Return ``text`` on a background that tells how many bits it cost: the redder, the less it was expected."""
    colours = [colour for least, colour in SHADES if bits(nats) >= least]
    if not colours or text == "\n":
        return text
    return f"\x1b[38;5;16;48;5;{colours[-1]}m{text}\x1b[0m"
