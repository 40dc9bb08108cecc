"""Never write the same N characters twice: an index of each row's text that grows with it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from chargen.writing.words import BEGINNING, Tree

# The last N - 1 characters are looked up by Python's hash of them, of 64 bits. Two different sequences of equal hash, a
# chance of one in 30 million for a text of a million characters, only forbid one character too many. A hash that is
# carried along, as by Karp and Rabin (1987), costs the same at any N, but was slower at N = 20.
FEW = 8  # choices: where there are as many, one of them is taken to be possible


class _Row:
    """The text of one row: its last N - 1 characters, and what has followed each sequence of that length.

    A text is ids as characters: id 65 is "A".
    """

    __slots__ = ("before", "own", "place", "repeats", "size", "tail")

    def __init__(self, length: int) -> None:
        self.tail, self.size = "", length - 1
        self.before: dict[int, str] = {}  # what the row has in common with others: not changed
        self.own: dict[int, str] = {}  # by the hash of a sequence of N - 1 characters: what has followed it
        self.repeats = ""  # what has followed the last N - 1 characters
        self.place = 0  # in the tree of words, if there is one

    def copy(self) -> Self:
        """Return a row that goes on from the same text."""
        other = copy.copy(self)
        other.own = dict(self.own)
        return other

    def seen(self, tail: str) -> str:
        """Return what has followed N - 1 characters; nothing has followed fewer."""
        if len(tail) < self.size:
            return ""
        key = hash(tail)
        return self.before.get(key, "") + self.own.get(key, "")

    def add(self, id: int) -> None:
        """Add a character."""
        tail, own, character = self.tail, self.own, chr(id)
        if len(tail) == self.size:
            key = hash(tail)
            own[key] = own.get(key, "") + character
        self.tail = tail = self.after(tail, character)
        self.repeats = self.seen(tail)

    def after(self, tail: str, character: str) -> str:
        """Return the at most N - 1 last characters after one more."""
        tail += character
        return tail[1:] if len(tail) > self.size else tail


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
        return [id for id, place in found if not self._goes_on(row, row.tail, id, place)]

    def _goes_on(self, row: _Row, tail: str, id: int, place: int) -> bool:
        """Return whether a word can be finished after one more character, which leads to a place.

        ``tail`` are the last N - 1 characters before it.
        """
        ways = self._few(place)
        if ways is None:
            return True
        tail = row.after(tail, chr(id))
        seen = row.seen(tail)
        return any(chr(way) not in seen and self._goes_on(row, tail, way, next) for way, next in ways)

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

    def join(self, other: Self) -> None:
        """Add the rows of a filter that was made from the same one after these."""
        self._rows = self._rows + other._rows
