"""Draw from what a clone has read, and read what was drawn: an iterator of pieces of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from chargen.sampler import Filter, draw, surprisal
from chargen.vocabulary import Vocabulary

if TYPE_CHECKING:
    from chargen.clone import Clone

LENGTH = "length"  # what a text is stopped by that is not stopped by a stop text


class Piece(NamedTuple):
    """Some more of one sample's text; its pieces come in order, those of different samples in turn."""

    sample: int  # its number: the clone's row
    text: str
    nats: tuple[float, ...]  # for each of its characters: what it cost under the model itself, unfiltered
    stopped_by: str | None = None  # on the sample's last piece: LENGTH, or the stop text before which it ends


def generate(
    clone: Clone,
    length: int,
    filters: Sequence[Filter] = (),
    generators: Sequence[np.random.Generator] | None = None,
    stops: Sequence[str] = (),
) -> Iterator[Piece]:
    """Go on with the text of each of the clone's rows for ``length`` characters, or until just before a stop text.

    ``generators`` has one for each row; None takes the likeliest each time. A character is held back while it may be
    the beginning of a stop text. What was drawn was read too: the clone's state is that after the last character
    drawn, stop texts included, and rows whose sample has ended are dropped.
    """
    if length and clone.is_fresh:
        clone.feed(opening(clone.vocabulary))
    running = list(range(clone.rows))
    held = [Held(tuple(stops)) for _ in running]
    if not length:
        yield from (Piece(sample, "", (), LENGTH) for sample in running)
        return
    for drawn in range(1, length + 1):
        ids = draw(clone.logits, filters, None if generators is None else [generators[i] for i in running])
        nats = surprisal(clone.logits, ids)
        clone.step(ids)
        ended = np.zeros(len(running), bool)
        for row, sample in enumerate(running):
            piece = held[sample].add(sample, clone.vocabulary.characters[ids[row]], float(nats[row]))
            if piece.stopped_by is None and drawn == length:
                piece = held[sample].release(piece)
            ended[row] = piece.stopped_by is not None
            if piece.text or ended[row]:
                yield piece
        if ended.all():
            return
        if ended.any():
            clone.keep(np.flatnonzero(~ended))
            running = [sample for sample, done in zip(running, ended, strict=True) if not done]


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

    def release(self, piece: Piece) -> Piece:
        """Give ``piece`` with all that was held back behind it, as the sample's last."""
        return Piece(piece.sample, piece.text + self._text, piece.nats + tuple(self._nats), LENGTH)

    def _begins(self, text: str) -> bool:
        return any(stop.startswith(text) for stop in self._stops)


def opening(vocabulary: Vocabulary) -> str:
    """Return what a text starts after: a blank line, which ends a paragraph, else a space, else any character."""
    return next((text for text in ("\n\n", " ") if text[0] in vocabulary), vocabulary.characters[0])
