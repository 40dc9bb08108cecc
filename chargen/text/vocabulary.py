"""Characters and their ids, and the treatment of characters that have none."""

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
UNKNOWN = "\ufffd"  # Unicode's replacement character: stands for the characters that are too rare to learn
# If the text itself contains U+FFFD, one of Unicode's noncharacters stands for them.
STAND_INS = (UNKNOWN, *map(chr, range(0xFDD0, 0xFDF0)))

# What comes before and after each document of a text of lines, paragraphs or rows: one of Unicode's noncharacters,
# which no text is meant to contain.
END = "\uffff"

# Characters that are often written for one another. An unknown one is replaced by the first known one of its row, so
# that straight quotes match a book's curly ones, and the other way round.
LOOKALIKES = ("'‘’‚‛′`", '"“”„‟″«»', "-–—‐‑‒―−", " \u00a0\u2009\u202f\u3000\t\n")


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """Return the code points of a text: (N,) uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


class Vocabulary:
    """The characters that a model knows, in code-point order; a character's id is its index.

    ``unknown`` is the character that stands for those that are too rare to learn, if there is one. A model reads it,
    but never writes it (see `ModelFile.for_inference`). ``end`` is END if the model has learnt where a document ends. A
    model reads it, from a zero state, before a document, and predicts it after the document.

    Raises DamagedError if there are no characters, if they are not distinct and in order, or if ``unknown`` or ``end``
    is not one of them.
    """

    def __init__(self, characters: str, unknown: str | None = None, end: str | None = None) -> None:
        self.characters, self.unknown, self.end = characters, unknown, end
        points = code_points(characters)
        if not len(points) or (points[1:] <= points[:-1]).any():
            raise DamagedError("vocabulary: it is not at least one character, each once, in code-point order")
        self.dtype = np.min_scalar_type(len(points) - 1)  # uint8, uint16 or uint32
        self._points = points
        self._ids = {character: i for i, character in enumerate(characters)}
        if unknown is not None and unknown not in self._ids:
            raise DamagedError("unknown: it is not one of the vocabulary's characters")
        if end is not None and (end != END or end not in self._ids):
            raise DamagedError("end: it is not U+FFFF, or not one of the vocabulary's characters")

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
        return isinstance(other, Vocabulary) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(tuple(self.identity))

    def __repr__(self) -> str:
        return f"Vocabulary({self.characters!r})"

    @property
    def identity(self) -> list[str | None]:
        """What the vocabulary is made from, as a JSON array: the arguments, without ``end`` if there is none."""
        return [self.characters, self.unknown, *([] if self.end is None else [self.end])]

    @property
    def separator(self) -> str:
        """What to show between documents: a line feed, or a blank line if documents have line feeds in them."""
        return "\n\n" if "\n" in self else "\n"

    def check_end(self) -> None:
        """Raise ChargenError if the model has not learnt where a document ends."""
        if self.end is None:
            raise ChargenError(
                "the model has not learnt where an item ends: train it with --document line or paragraph, or --column"
            )

    def id_of(self, character: str) -> int:
        """Return a character's id, or that of the unknown character. Raises KeyError if there is neither."""
        return self._ids[character] if character in self._ids else self._ids[self.unknown or ""]

    def encode(self, text: str) -> Ids:
        """Return the ids of ``text``: (N,) uint8, uint16 or uint32, the smallest that fits the vocabulary.

        Characters outside the vocabulary become the unknown character. If there is none, raises ChargenError that names
        them; `repair` replaces or removes them.
        """
        ids, known = self.encode_known(text)
        if self.unknown is None and not known.all():
            unknown = Vocabulary.of(text)
            raise ChargenError(f"not in the vocabulary: {name(c for c in unknown.characters if c not in self)}")
        return ids

    def encode_known(self, text: str) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """Return the ids of ``text``, and which of its N characters are known: (N,) bool.

        The ids are (N,) if the vocabulary has an unknown character, else only those of the n known characters: (n,).
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
        """The id of each code point up to the vocabulary's highest; V for the others, and once more at the end.

        A lookup is at least 6 times as fast as a binary search among the vocabulary's code points.
        """
        table = np.full(int(self._points[-1]) + 2, len(self), np.uint32)
        table[self._points] = np.arange(len(self))
        return table

    def escape_nats(self, unknown: int, characters: int) -> float:
        """Return the cost, in nats, of encoding which of a text's ``characters`` are unknown, and what they are.

        Laplace's rule of succession predicts for each of n characters whether it is known: if u are unknown, this costs
        log((n + 1) · C(n, u)), in any order. Each unknown one is then one of the Unicode characters outside the
        vocabulary, with equal probability. A text without unknown characters costs nothing.
        """
        if not unknown:
            return 0.0
        ways = lgamma(characters + 1) - lgamma(unknown + 1) - lgamma(characters - unknown + 1)
        return log(characters + 1) + ways + unknown * log(CODE_POINTS - len(self))

    def decode(self, ids: npt.ArrayLike) -> str:
        """Return the text that has the ids (N,). Raises IndexError for an id outside the vocabulary."""
        return self._points.take(np.asarray(ids)).astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")

    def repair(self, text: str) -> tuple[str, str]:
        """Return ``text`` in characters of this vocabulary, and the characters that were left out, each once.

        A text with unknown characters is composed (NFC). What is still unknown is replaced by a look-alike (straight or
        curly quotes, dashes, spaces), by its other letter case, or by its canonical decomposition (NFD). If none is
        known, it is left out.
        """
        repaired, skipped = [], []
        known_text = all(character in self for character in text)
        for character in text if known_text else unicodedata.normalize("NFC", text):
            known = next((c for c in _candidates(character) if all(part in self for part in c)), None)
            if known is None:
                skipped.append(character)
            else:
                repaired.append(known)
        return "".join(repaired), "".join(dict.fromkeys(skipped))


def _candidates(character: str) -> Iterator[str]:
    """Yield the character and what may replace it, best first."""
    yield character
    for row in LOOKALIKES:
        if character in row:
            yield from row
    yield character.swapcase()
    yield unicodedata.normalize("NFD", character)  # for the vocabulary of a text that is not in NFC


def name(characters: Iterator[str] | str) -> str:
    """Return a list of characters that a person can read: each visible or escaped, with its code point."""
    return ", ".join(f"{c if c.isprintable() else repr(c)[1:-1]!s} (U+{ord(c):04X})" for c in characters)
