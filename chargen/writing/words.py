"""Write only words of a list: a mask over the characters that follows each row's text.

The sorted list is the prefix tree: the words that begin with a prefix are neighbours in it. What may follow a prefix is
looked up at the first time that the prefix is written, and kept.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from chargen import ChargenError
from chargen.files.reading import DamagedError
from chargen.text.vocabulary import Vocabulary
from chargen.text.words import JOINERS, LONGEST_WORD, is_letter, united, unpacked, word_list

ANY, BOOK, BASE = "any", "book", "base"  # values of --words that are no files
SENTENCE_ENDS = ".!?…"
QUOTES = "\"'“”‘’„‚«»‹›"
LAST = chr(0x10FFFF)  # no word contains it
RECENT = 2 * LONGEST_WORD  # characters of the text so far that decide what may follow


def known_words(which: str, packed: str | None, vocabulary: Vocabulary, base: str | None = None) -> tuple[str, ...]:
    """Return the words for a value of --words, in code-point order: those of a model file's lists or of a text file.

    ``packed`` is the list of the book, ``base`` that of the base model that training began from. Raises
    ChargenError if a list is missing or damaged, or for a file that can't be read or has no words that the vocabulary
    can write.
    """
    if which == BASE and base is None:
        raise ChargenError("the model has no words of a base: use --words book, or train it with --from english")
    if which in (BOOK, BASE):
        if packed is None:
            raise ChargenError("the model file has no list of words: name the book, --words FILE, or train again")
        try:
            return unpacked(packed if which == BOOK else united(packed, base) or packed)
        except DamagedError as error:
            raise ChargenError(f"the model file is damaged: {error}; train again") from None
    from chargen.text.documents import Reading  # imported here, because most samples need no file
    from chargen.text.items import documents

    texts, _ = documents([which], Reading("utf-8", keep_boilerplate=True))
    if not (found := word_list("\n".join(text for _, text in texts), vocabulary)):
        raise ChargenError(f"{which} has no words in the characters of the model: name another file")
    return found


class Place(NamedTuple):
    """What decides which characters may come next."""

    prefix: str | None  # of the word that is being written; "" between words; None in a word that is not in the list
    first: bool = False  # in a word, it may stand for a lower-case word; between words, a capital may come next
    line: bool = False  # the last character was a line feed
    joined: bool = False  # the last character was an apostrophe or a hyphen after a letter
    new: bool = False  # between words: the next one may be any


BEGINNING = Place("", first=True, line=True)  # of a text


class Tree:
    """The places of a list of words, numbered in the order in which they are first reached."""

    def __init__(self, words: Sequence[str], vocabulary: Vocabulary, allowed: npt.NDArray[np.bool_]) -> None:
        """Take words in code-point order, and the characters (V,) that may be written at all.

        Raises ChargenError if no character may be written between two words.
        """
        writable = {c for c, may in zip(vocabulary.characters, allowed, strict=True) if may}
        self._words = [word for word in words if writable.issuperset(word)]
        self._characters = vocabulary.characters
        self._letters = np.array([is_letter(c) for c in vocabulary.characters])
        self._joiners = np.array([c in JOINERS for c in vocabulary.characters])
        self._ids = {character: id for id, character in enumerate(vocabulary.characters)}
        self._allowed = allowed
        if not (allowed & ~self._letters & ~self._joiners).any():
            raise ChargenError("--words needs a character between words, such as a space: relax --allow or --forbid")
        self._numbers = dict[Place, int]()
        self.places = list[Place]()
        self.after = list[dict[int, int]]()  # of each place: the numbers of the next ones, by the character's id
        # Of each place: what to add to the logits, 0 for the characters that may come next and -inf for the others.
        self.penalties = np.empty((64, len(allowed)), np.float32)

    def number(self, place: Place) -> int:
        """Return the number of a place."""
        found = self._numbers.get(place)
        if found is None:
            found = self._numbers[place] = len(self.places)
            self.places.append(place)
            self.after.append({})
            if found == len(self.penalties):
                self.penalties = np.concatenate([self.penalties, np.empty_like(self.penalties)])
            self.penalties[found] = np.where(self._mask(place), 0, -np.inf)
        return found

    def next(self, number: int, id: int) -> int:
        """Return the number of the place after a character, whether the mask allows it or not."""
        found = self.after[number].get(id)
        if found is None:
            found = self.after[number][id] = self.number(self._next(self.places[number], id))
        return found

    def _mask(self, place: Place) -> npt.NDArray[np.bool_]:
        if place.prefix is None or place.new:
            return self._allowed
        followers, whole = self._followers(place.prefix, either=place.first)
        mask = np.full(len(self._allowed), whole)
        mask[self._letters] = False
        mask[[id for c in followers if (id := self._ids.get(c)) is not None]] = True
        return mask & self._allowed

    def _followers(self, prefix: str, *, either: bool) -> tuple[set[str], bool]:
        """Return what may follow a prefix within a word, and whether the word may end there.

        With ``either`` a word may be capitalised, and between words any may begin.
        """
        if not prefix:
            found, _ = self._children("")
            return found | {c.upper() for c in found if either and c.upper().lower() == c}, True
        found, whole = self._children(prefix)
        if prefix[-1] in JOINERS:
            _, whole = self._children(prefix[:-1])
        if either:
            others, also = self._followers(prefix[0].lower() + prefix[1:], either=False)
            return found | others, whole or also
        return found, whole

    def _children(self, prefix: str) -> tuple[set[str], bool]:
        """Return the characters that follow a prefix in the list, and whether the prefix is itself a word."""
        words, found, size = self._words, set[str](), len(prefix)
        place = bisect_left(words, prefix)
        whole = place < len(words) and words[place] == prefix
        place += whole
        while place < len(words) and words[place].startswith(prefix):
            found.add(words[place][size])
            place = bisect_left(words, prefix + words[place][size] + LAST, place)
        return found, whole

    def _next(self, place: Place, id: int) -> Place:
        character, prefix = self._characters[id], place.prefix
        if self._letters[id]:
            if prefix is None or place.new or self.penalties[self.number(place), id]:
                return Place(None)
            lowered = character.lower()
            first = place.first if prefix else place.first and len(lowered) == 1 and lowered != character
            return Place(prefix + character, first)
        if character in JOINERS and prefix != "" and not place.joined:
            return Place(None if prefix is None else prefix + character, place.first, joined=True)
        first = place.first and prefix == ""
        line = character == "\n"
        first = first or character in SENTENCE_ENDS + QUOTES or (line and place.line)
        return Place("", first, line, new=place.new)


class Words:
    """The filter that lets each row write only words of a list; it leaves alone what is no letter.

    A word is in a capitalisation that is in the list. At the beginning of a sentence, after a quotation mark and after
    a blank line it may also have a capital first letter. A word that the text so far has begun as no word of the list
    begins may be continued in any way.
    """

    stuck = None  # what a word needs can always be written

    def __init__(self, tree: Tree, new: float = 0.0) -> None:
        """Take the places, and the probability, 0 to 1, that a word may be any."""
        self._tree, self._new = tree, new
        self._numbers = [tree.number(BEGINNING)]
        self._generators: list[np.random.Generator] = []

    def start(self, text: Sequence[int]) -> Self:
        """Return the filter of one row that goes on from a text, ids (N,)."""
        other = copy.copy(self)
        if len(text) > RECENT:
            other._numbers = [self._tree.number(Place(""))]
        for id in text[-RECENT:]:
            other.wrote(np.array([id]))
        return other

    def repeat(self, rows: int, generators: Sequence[np.random.Generator] | None) -> Self:
        """Return the filter of so many rows, each in the state of this one's only row.

        ``generators`` has a generator for each row, of which one number is taken before each word if words may be new.
        """
        other = copy.copy(self)
        other._numbers = self._numbers * rows
        if self._new and generators is not None:
            other._generators = list(generators)
            if self._tree.places[self._numbers[0]].prefix == "":
                other._numbers = [other._chosen(row, number) for row, number in enumerate(other._numbers)]
        return other

    def __call__(self, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Keep the characters of each row (rows, V) that may come next; at least one may."""
        if len(self._numbers) == 1:
            return np.asarray(logits + self._tree.penalties[self._numbers[0]])
        return np.asarray(logits + self._tree.penalties.take(self._numbers, 0))

    def wrote(self, ids: npt.NDArray[np.integer]) -> None:
        """Follow the character that each row has written, ids (rows,)."""
        before, after = self._numbers, self._tree.after
        numbers = list[int]()
        for number, id in zip(before, ids.tolist(), strict=True):
            found = after[number].get(id)
            numbers.append(self._tree.next(number, id) if found is None else found)
        self._numbers = numbers
        if self._generators:
            places = self._tree.places
            for row, (old, new) in enumerate(zip(before, self._numbers, strict=True)):
                if places[new].prefix == "" != places[old].prefix:
                    self._numbers[row] = self._chosen(row, new)

    def _chosen(self, row: int, number: int) -> int:
        """Return the number of a place between words after the decision whether a row's next word may be any."""
        if self._generators[row].random() >= self._new:
            return number
        return self._tree.number(self._tree.places[number]._replace(new=True))

    def keep(self, rows: npt.NDArray[np.intp]) -> None:
        """Drop all rows but these (n,), which may be repeated."""
        self._numbers = [self._numbers[row] for row in rows]
        self._generators = [self._generators[row] for row in rows] if self._generators else []

    def join(self, other: Self) -> None:
        """Add the rows of a filter that was made from the same one after these."""
        self._numbers = self._numbers + other._numbers
        self._generators = self._generators + other._generators
