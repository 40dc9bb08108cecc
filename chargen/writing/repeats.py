"""Never write the same N characters twice: an index of each row's text that grows with it."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

# The last N - 1 characters are looked up by a hash of 61 bits (Karp and Rabin 1987). Two different sequences of equal
# hash, a chance of one in a million for a text of a million characters, only forbid one character too many.
MODULUS, BASE = 2**61 - 1, 1_114_129  # the base is above every code point


class _Row:
    """The text of one row: its last N - 1 characters, and what has followed each sequence of that length."""

    def __init__(self, size: int) -> None:
        self.tail, self.hash = deque[int](maxlen=size), 0
        self.before: dict[int, str] = {}  # what the row has in common with others: not changed
        self.own: dict[int, str] = {}  # by a sequence's hash: the ids that have followed it, as characters

    def copy(self) -> Self:
        """Return a row that goes on from the same text."""
        other = copy.copy(self)
        other.tail, other.own = self.tail.copy(), dict(self.own)
        return other

    def seen(self) -> str:
        """Return the ids, as characters, that would repeat a sequence."""
        if len(self.tail) < (self.tail.maxlen or 0):
            return ""
        return self.before.get(self.hash, "") + self.own.get(self.hash, "")

    def add(self, id: int, power: int) -> None:
        """Add a character; ``power`` is BASE ** (N - 1)."""
        size = self.tail.maxlen or 0
        oldest = 0
        if len(self.tail) == size:
            self.own[self.hash] = self.own.get(self.hash, "") + chr(id)
            oldest = self.tail[0] + 1 if size else id + 1
        self.hash = (self.hash * BASE + id + 1 - oldest * power) % MODULUS
        self.tail.append(id)


class NoRepeat:
    """The filter that removes what would complete a sequence of N characters that the row's text already has.

    If that leaves a row no character, its text has to end: it is then ``stuck``.
    """

    def __init__(self, length: int, never: Sequence[int] = ()) -> None:
        """Take N, at least 1, and the ids of characters that are never drawn."""
        self._length, self._never, self._power = length, list(never), pow(BASE, length - 1, MODULUS)
        self._rows = [_Row(length - 1)]
        self.stuck: npt.NDArray[np.bool_] | None = None  # (rows,), after a call; None: no row is

    def start(self, text: Sequence[int]) -> Self:
        """Return the filter of one row that goes on from a text, ids (N,)."""
        other = copy.copy(self)
        other._rows = [_Row(self._length - 1)]
        for id in text:
            other._rows[0].add(int(id), self._power)
        return other

    def repeat(self, rows: int, generators: object) -> Self:
        """Return the filter of so many rows, each with the text of this one's only row.

        They share its index, so this one must not go on before they are done.
        """
        other, (only,) = copy.copy(self), self._rows
        shared = copy.copy(only)
        shared.before, shared.own = only.own, {}
        other._rows = [shared.copy() for _ in range(rows)]
        return other

    def __call__(self, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Remove the characters of each row (rows, V) that would repeat a sequence; a stuck row stays as it is."""
        self.stuck = None
        for number, row in enumerate(self._rows):
            if seen := row.seen():
                if self.stuck is None:
                    logits, self.stuck = logits.copy(), np.zeros(len(self._rows), bool)
                kept = logits[number].copy()
                kept[[*map(ord, seen), *self._never]] = -np.inf
                if np.isfinite(kept).any():
                    logits[number] = kept
                else:
                    self.stuck[number] = True
        return logits

    def wrote(self, ids: npt.NDArray[np.integer]) -> None:
        """Add the character that each row has written, ids (rows,)."""
        for row, id in zip(self._rows, ids.tolist(), strict=True):
            row.add(id, self._power)

    def keep(self, rows: npt.NDArray[np.intp]) -> None:
        """Drop all rows but these (n,), which may be repeated."""
        kept = [self._rows[row] for row in rows]
        self._rows = [row.copy() if row in kept[:place] else row for place, row in enumerate(kept)]
