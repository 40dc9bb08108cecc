"""Characters and their ids, and what is done about a character that has none."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cached_property
from math import lgamma, log

import numpy as np
import numpy.typing as npt

from chargen import ChargenError
from chargen.files.reading import DamagedError

Ids = npt.NDArray[np.unsignedinteger]

CODE_POINTS = 0x110000
UNKNOWN = "\ufffd"  # Unicode's replacement character: what characters become that are too rare to be learnt
STAND_INS = (UNKNOWN, *map(chr, range(0xFDD0, 0xFDF0)))  # for a text that has the first: characters that are none

# Characters that people and programs write for one another. An unknown one is replaced by the first known one of
# its row, so that typed straight quotes find a book's curly ones as well as the other way round.
LOOKALIKES = ("'‘’‚‛′`", '"“”„‟″«»', "-–—‐‑‒―−", " \u00a0\u2009\u202f\u3000\t\n")


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """Return the text's code points as an array (N,); a text of N characters costs 4·N bytes."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


class Vocabulary:
    """The characters that a model knows, in code-point order; a character's id is its place among them.

    ``unknown`` is the one that stands for characters that are too rare to be learnt, if there is one: it is read, and
    never written (see `modelfile.ready`).

    Raises DamagedError if there are none, or if they are not distinct and in order.
    """

    def __init__(self, characters: str, unknown: str | None = None) -> None:
        self.characters, self.unknown = characters, unknown
        points = code_points(characters)
        if not len(points) or (points[1:] <= points[:-1]).any():
            raise DamagedError("vocabulary: it is not at least one character, each once, in code-point order")
        self.dtype = np.min_scalar_type(len(points) - 1)  # uint8, uint16 or uint32
        self._points = points
        self._ids = {character: i for i, character in enumerate(characters)}
        if unknown is not None and unknown not in self._ids:
            raise DamagedError("unknown: it is not one of the vocabulary's characters")

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """Return the vocabulary of every character in ``text``."""
        seen = np.zeros(CODE_POINTS, bool)
        seen[code_points(text)] = True
        return cls("".join(map(chr, np.flatnonzero(seen))))

    def __len__(self) -> int:
        return len(self.characters)

    def __contains__(self, character: str) -> bool:
        return character in self._ids

    def __eq__(self, other: object) -> bool:
        ours, theirs = ((v.characters, v.unknown) if isinstance(v, Vocabulary) else None for v in (self, other))
        return ours == theirs

    def __hash__(self) -> int:
        return hash((self.characters, self.unknown))

    def __repr__(self) -> str:
        return f"Vocabulary({self.characters!r})"

    def id_of(self, character: str) -> int:
        """Return a character's id, or that of the unknown one. Raises KeyError if there is neither."""
        return self._ids[character] if character in self._ids else self._ids[self.unknown or ""]

    def encode(self, text: str) -> Ids:
        """Return the ids (N,) of ``text`` in the smallest unsigned type that holds them all.

        Characters that are not in the vocabulary become the unknown one. Raises ChargenError that names them if there
        is none; `repair` replaces or removes them.
        """
        ids, known = self.encode_known(text)
        if self.unknown is None and not known.all():
            unknown = Vocabulary.of(text)
            raise ChargenError(f"not in the vocabulary: {name(c for c in unknown.characters if c not in self)}")
        return ids

    def encode_known(self, text: str) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """Return the ids of ``text``, and which of its N characters are known (N,).

        The ids are those of the known characters (n,); of all (N,) where there is an unknown one to stand for the rest.
        """
        ids = self._table.take(code_points(text), mode="clip")
        if self.unknown is None:
            known = ids < len(self)
            return ids[known].astype(self.dtype), known
        stand_in = self._ids[self.unknown]
        ids[ids == len(self)] = stand_in
        return ids.astype(self.dtype), ids != stand_in

    @cached_property
    def _table(self) -> npt.NDArray[np.uint32]:
        """The id of each code point up to the last of the vocabulary; that of all others, at the end, is V."""
        table = np.full(int(self._points[-1]) + 2, len(self), np.uint32)
        table[self._points] = np.arange(len(self))
        return table

    def escape_nats(self, unknown: int, characters: int) -> float:
        """Return what it costs to tell which of so many characters are unknown, and what they are.

        Each character says first whether it is known, at the price of Laplace's rule of succession: a whole of
        (n + 1) · C(n, u), in whatever order. An unknown one is then any of the Unicode characters that the vocabulary
        does not have, all alike. Where none is unknown nothing has to be told, and it costs nothing.
        """
        if not unknown:
            return 0.0
        ways = lgamma(characters + 1) - lgamma(unknown + 1) - lgamma(characters - unknown + 1)
        return log(characters + 1) + ways + unknown * log(CODE_POINTS - len(self))

    def decode(self, ids: npt.ArrayLike) -> str:
        """Return the text whose ids (N,) these are. Raises IndexError for an id that no character has."""
        return self._points.take(np.asarray(ids)).astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")

    def repair(self, text: str) -> tuple[str, str]:
        """Return ``text`` in characters of this vocabulary, and the characters that had to be left out.

        Canonical composition (NFC) is tried first, then a look-alike (straight or curly quotes, dashes, spaces),
        then the other letter case. A character that is known is never changed.
        """
        repaired, skipped = [], []
        for character in self._composed(text):
            known = next((c for c in _candidates(character) if all(part in self for part in c)), None)
            if known is None:
                skipped.append(character)
            else:
                repaired.append(known)
        return "".join(repaired), "".join(dict.fromkeys(skipped))

    def _composed(self, text: str) -> str:
        if all(c in self for c in text):
            return text
        return unicodedata.normalize("NFC", text)


def _candidates(character: str) -> Iterator[str]:
    yield character
    for row in LOOKALIKES:
        if character in row:
            yield from row
    yield character.swapcase()
    yield unicodedata.normalize("NFD", character)  # for a vocabulary of a text that was not composed


def name(characters: Iterator[str] | str) -> str:
    """Return characters as a person can read them: visible, quoted, with the code point."""
    return ", ".join(f"{c if c.isprintable() else repr(c)[1:-1]!s} (U+{ord(c):04X})" for c in characters)
