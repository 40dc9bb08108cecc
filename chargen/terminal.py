"""Text on a terminal: characters leave in whole clusters, shaded by their surprisal if wanted."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from chargen.bits import bits

JOINER = "\u200d"  # makes one emoji of two
LONGEST = 32  # characters of a cluster; Unicode's stream-safe format has 30 marks on a letter (UAX #15)
# Backgrounds of the 256-colour palette, each from so many bits on: what was expected stays plain.
SHADES = ((1.0, 230), (2.0, 229), (3.0, 222), (4.5, 215), (6.0, 209), (8.0, 203), (11.0, 197))


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
