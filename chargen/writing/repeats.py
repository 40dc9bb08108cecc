"""Never write the same N characters twice: an index of each row's text that grows with it."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from chargen.writing.words import BEGINNING, Tree

# The last N - 1 characters are looked up by a hash of 61 bits (Karp and Rabin 1987). Two different sequences of equal
# hash, a chance of one in a million for a text of a million characters, only forbid one character too many.
MODULUS, BASE = 2**61 - 1, 1_114_129  # the base is above every code point
FEW = 8  # choices: where there are as many, one of them is taken to be possible


class _Row:
    """The text of one row: its last N - 1 characters, and what has followed each sequence of that length."""

    __slots__ = ("_power", "before", "hash", "own", "place", "repeats", "size", "tail")

    def __init__(self, length: int) -> None:
        self.tail, self.hash, self._power = deque[int](maxlen=length - 1), 0, pow(BASE, length - 1, MODULUS)
        self.size = length - 1
        self.before: dict[int, str] = {}  # what the row has in common with others: not changed
        self.own: dict[int, str] = {}  # by a sequence's hash: the ids that have followed it, as characters
        self.repeats = ""  # the ids, as characters, that have followed the last N - 1 characters
        self.place = 0  # in the tree of words, if there is one

    def copy(self) -> Self:
        """Return a row that goes on from the same text."""
        other = copy.copy(self)
        other.tail, other.own = self.tail.copy(), dict(self.own)
        return other

    def seen(self, hash: int, tail: Sequence[int]) -> str:
        """Return the ids, as characters, that have followed N - 1 characters, given with their hash."""
        return self.before.get(hash, "") + self.own.get(hash, "") if len(tail) == self.size else ""

    def add(self, id: int) -> None:
        """Add a character."""
        # This is `after` and `seen` written out: it runs once a character, and the calls took a third of its time.
        tail, hash, own, size = self.tail, self.hash, self.own, self.size
        if len(tail) == size:
            own[hash] = own.get(hash, "") + chr(id)
            oldest = tail[0] if size else id
            hash = (hash * BASE + id + 1 - (oldest + 1) * self._power) % MODULUS
        else:
            hash = (hash * BASE + id + 1) % MODULUS
        self.hash = hash
        tail.append(id)
        self.repeats = self.before.get(hash, "") + own.get(hash, "") if len(tail) == size else ""

    def after(self, hash: int, tail: Sequence[int], id: int) -> int:
        """Return the hash after one more character, given the at most N - 1 characters before it and their hash."""
        oldest = 0 if len(tail) < self.size else (tail[0] if tail else id) + 1
        return (hash * BASE + id + 1 - oldest * self._power) % MODULUS


class _Ahead:
    """Where a tree of words leaves only a FEW characters: a look to the end of a word tells if one may be repeated."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._ways = dict[int, list[tuple[int, int]] | None]()
        self._narrow = dict[int, list[tuple[int, int]]]()

    def dead(self, row: _Row) -> list[int]:
        """Return the characters after which the word that a row writes can't be finished without a repetition."""
        found = self._narrow.get(row.place)
        if found is None:
            narrow = ((id, place) for id, place in self._steps(row.place) if self._few(place) is not None)
            found = self._narrow[row.place] = list(narrow)
        return [id for id, place in found if not self._goes_on(row, (row.hash, row.tail), id, place)]

    def _goes_on(self, row: _Row, before: tuple[int, Sequence[int]], id: int, place: int) -> bool:
        """Return whether a word can be finished after one more character, which leads to a place.

        ``before`` is the hash of the last N - 1 characters, and they.
        """
        ways = self._few(place)
        if ways is None:
            return True
        hash, tail = before
        hash, tail = row.after(hash, tail, id), [*tail, id]
        tail = tail[max(0, len(tail) - row.size) :]
        seen = row.seen(hash, tail)
        return any(chr(way) not in seen and self._goes_on(row, (hash, tail), way, next) for way, next in ways)

    def _few(self, place: int) -> list[tuple[int, int]] | None:
        """Return the characters that may come next in a word, if they are FEW, each with the place after it."""
        if place not in self._ways:
            steps = self._steps(place) if self.tree.places[place].prefix else []
            self._ways[place] = steps if 0 < len(steps) < FEW else None
        return self._ways[place]

    def _steps(self, place: int) -> list[tuple[int, int]]:
        ids = np.flatnonzero(self.tree.penalties[place] == 0).tolist()
        return [(id, self.tree.next(place, id)) for id in ids]


class NoRepeat:
    """The filter that removes what would complete a sequence of N characters that the row's text already has.

    If that leaves a row no character, its text has to end: it is then ``stuck``. With a tree of words, it also removes
    the characters after which a word could not be finished without a repetition, unless no others are left.
    """

    def __init__(self, length: int, never: Sequence[int] = (), tree: Tree | None = None) -> None:
        """Take N, at least 1, the ids of characters that are never drawn, and the tree of `words.Words`, if any."""
        self._length, self._never, self._ahead = length, list(never), None if tree is None else _Ahead(tree)
        self._rows = [_Row(length)]
        self._place(self._rows[0], None)
        self.stuck: npt.NDArray[np.bool_] | None = None  # (rows,), after a call; None: no row is

    def start(self, text: Sequence[int]) -> Self:
        """Return the filter of one row that goes on from a text, ids (N,)."""
        other = copy.copy(self)
        other._rows = [row] = [_Row(self._length)]
        self._place(row, None)
        for id in text:
            row.add(int(id))
            self._place(row, int(id))
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
        filtered, stuck = logits, np.zeros(len(self._rows), bool)
        for number, row in enumerate(self._rows):
            dead = () if self._ahead is None else self._ahead.dead(row)
            if not row.repeats and not dead:
                continue
            kept = logits[number].copy()
            kept[[*map(ord, row.repeats), *self._never]] = -np.inf
            stuck[number] = not np.isfinite(kept).any()
            if stuck[number]:
                continue
            open_ = kept.copy()
            open_[dead] = -np.inf
            filtered = logits.copy() if filtered is logits else filtered
            filtered[number] = open_ if np.isfinite(open_).any() else kept
        self.stuck = stuck if stuck.any() else None
        return filtered

    def wrote(self, ids: npt.NDArray[np.integer]) -> None:
        """Add the character that each row has written, ids (rows,)."""
        for row, id in zip(self._rows, ids.tolist(), strict=True):
            row.add(id)
            if self._ahead is not None:
                self._place(row, id)

    def _place(self, row: _Row, id: int | None) -> None:
        """Move a row in the tree of words to the place after a character, or to the beginning of a text."""
        if self._ahead is not None:
            tree = self._ahead.tree
            row.place = tree.number(BEGINNING) if id is None else tree.next(row.place, id)

    def keep(self, rows: npt.NDArray[np.intp]) -> None:
        """Drop all rows but these (n,), which may be repeated."""
        kept = [self._rows[row] for row in rows]
        self._rows = [row.copy() if row in kept[:place] else row for place, row in enumerate(kept)]
