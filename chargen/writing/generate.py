"""Draw from what a clone has read, and read what was drawn: an iterator of pieces of text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple
from unicodedata import category

import numpy as np

from chargen.text.vocabulary import UNKNOWN, Vocabulary
from chargen.writing.sampler import Filter, draw, surprisal

if TYPE_CHECKING:
    from chargen.writing.clone import Clone

LENGTH, SIGNAL = "length", "signal"  # what a text is stopped by that is not stopped by a stop text
ROWS = 256  # of a batch at the most: more are hardly faster
WAITING = 2**22  # characters of a batch at the most: all rows but one wait to be shown
LOGITS = 2**22  # of a batch at the most: filters take some 50 bytes for each
SEED = 12  # characters of a seed that is advised, at the most


class Piece(NamedTuple):
    """Some more of one sample's text; its pieces come in order, those of different samples in turn."""

    sample: int  # its number: the clone's row
    text: str
    nats: Sequence[float]  # for each of its characters: what it cost under the model itself, unfiltered
    stopped_by: str | None = None  # on the sample's last piece: LENGTH, SIGNAL, or the stop text before which it ends


Drawing = Callable[[int, int], Sequence[np.random.Generator]]


class Until(NamedTuple):
    """Where texts end: after ``length`` characters, just before a stop text, or when told to stop."""

    length: int
    stops: tuple[str, ...] = ()
    stopping: Callable[[], int | bool] = bool  # asked after each character


def generate(
    clone: Clone,
    until: Until,
    filters: Sequence[Filter] = (),
    generators: Sequence[np.random.Generator] | None = None,
) -> Iterator[Piece]:
    """Go on with the text of each of the clone's rows.

    ``generators`` has one for each row; None takes the likeliest each time. A character is held back while it may be
    the beginning of a stop text. What was drawn was read too: the clone's state is that after the last character
    drawn, stop texts included, and rows whose sample has ended are dropped. All samples end when told to stop.
    """
    length, stops, stopping = until
    if length and clone.is_fresh:
        clone.feed(opening(clone.vocabulary))
    running = list(range(clone.rows))
    held = [Held(stops) for _ in running]
    if not length:
        yield from (Piece(sample, "", (), LENGTH) for sample in running)
        return
    for drawn in range(1, length + 1):
        ids = draw(clone.logits, filters, None if generators is None else [generators[i] for i in running])
        nats = surprisal(clone.logits, ids)
        clone.step(ids)
        last = LENGTH if drawn == length else SIGNAL if stopping() else None
        ended = np.zeros(len(running), bool)
        for row, sample in enumerate(running):
            piece = held[sample].add(sample, clone.vocabulary.characters[ids[row]], float(nats[row]))
            if piece.stopped_by is None and last is not None:
                piece = held[sample].release(piece, last)
            ended[row] = piece.stopped_by is not None
            if piece.text or ended[row]:
                yield piece
        if ended.all():
            return
        if ended.any():
            clone.keep(np.flatnonzero(~ended))
            running = [sample for sample, done in zip(running, ended, strict=True) if not done]


def samples(
    clone: Clone, count: int, until: Until, filters: Sequence[Filter], drawing: Drawing | None
) -> Iterator[Piece]:
    """Draw so many samples, each of which goes on from what the clone, of one row, has read.

    They are drawn in batches, so that memory does not grow with their number. ``drawing`` gives the generators of so
    many samples from a first one on; None takes the likeliest each time. The clone itself draws a single sample.
    """
    rows = batch_rows(count, until.length, len(clone.vocabulary))
    for first in range(0, count, rows):
        batch = clone if count == 1 else clone.repeat(min(rows, count - first))
        for piece in generate(batch, until, filters, drawing and drawing(batch.rows, first)):
            yield piece._replace(sample=first + piece.sample) if first else piece
        if until.stopping():
            return


def batch_rows(count: int, length: int, characters: int) -> int:
    """Return how many samples of a length are drawn side by side by a model of so many characters."""
    return max(1, min(count, ROWS, WAITING // max(1, length), LOGITS // characters))


class Held:
    """The end of a sample's text that may be the beginning of a stop text."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._text, self._nats = "", list[float]()

    def add(self, sample: int, character: str, nats: float) -> Piece:
        """Take a character; give those that no stop text can begin with any more."""
        self._text += character
        self._nats.append(nats)
        found = [stop for stop in self._stops if self._text.endswith(stop)]
        if found:
            stop = max(found, key=len)
            free = len(self._text) - len(stop)
            return Piece(sample, self._text[:free], tuple(self._nats[:free]), stop)
        free = next((i for i in range(len(self._text)) if self._begins(self._text[i:])), len(self._text))
        piece = Piece(sample, self._text[:free], tuple(self._nats[:free]))
        self._text, self._nats = self._text[free:], self._nats[free:]
        return piece

    def release(self, piece: Piece, stopped_by: str) -> Piece:
        """Give ``piece`` with all that was held back behind it, as the sample's last."""
        return Piece(piece.sample, piece.text + self._text, (*piece.nats, *self._nats), stopped_by)

    def _begins(self, text: str) -> bool:
        return any(stop.startswith(text) for stop in self._stops)


def opening(vocabulary: Vocabulary) -> str:
    """Return what a text starts after: a blank line, which ends a paragraph, else a space, else any character."""
    return next((text for text in ("\n\n", " ") if text[0] in vocabulary), vocabulary.characters[0])


def seed_of(text: str) -> str:
    """Return a short seed from a text, for advice that works on its model: "The", if that is a word of it.

    Else it is the beginning of the text's first word, or of what it has in place of words; "" if nothing is visible.
    """
    if re.search(r"\bThe\b", text):
        return "The"
    for begins, belongs in ((str.isalpha, _in_word), (_visible, _visible)):
        first = next((place for place, character in enumerate(text) if begins(character)), None)
        if first is not None:
            return "".join(takewhile(belongs, text[first : first + SEED]))
    return ""


def _in_word(character: str) -> bool:
    return character.isalnum() or category(character).startswith("M")  # marks, such as Hebrew's points, are no letters


def _visible(character: str) -> bool:
    return character.isprintable() and not character.isspace() and character != UNKNOWN
