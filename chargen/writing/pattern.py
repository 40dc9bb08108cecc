"""Fill a pattern: of each slot one alternative, drawn by its probability under the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from chargen import ChargenError
from chargen.text.vocabulary import Vocabulary, name
from chargen.writing.generate import BATCH_ROWS, SIGNAL, CharacterModel, Drawing, Piece, opening
from chargen.writing.sampler import nats_of

PATTERN = "pattern"  # `Piece.stopped_by` of a text that fills a pattern

Slots = list[list[str]]


class Pattern(NamedTuple):
    """Slots, each of several alternatives, and how one of each is drawn."""

    slots: Slots
    separator: str  # the text between two slots
    temperature: float = 1.0  # 0 takes the most probable alternative

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise ChargenError for characters that are not in the vocabulary."""
        texts = [alternative for slot in self.slots for alternative in slot] + [self.separator]
        if unknown := dict.fromkeys(c for text in texts for c in text if c not in vocabulary):
            raise ChargenError(f"the model has never seen {name(iter(unknown))}: take it out of the pattern")


def parse(text: str, source: str) -> Slots:
    """Return the slots of a pattern: one a line, its alternatives separated by tabs; empty lines are ignored.

    Raises ChargenError, which names ``source``, for an empty alternative, or if there are no slots.
    """
    slots = [(number, line.split("\t")) for number, line in enumerate(text.split("\n"), 1) if line]
    for number, alternatives in slots:
        if "" in alternatives:
            raise ChargenError(f"{source}, line {number}: an alternative is empty: put one tab between two of them")
    if not slots:
        raise ChargenError(f"{source} holds no alternatives: give a line for each slot, with tabs between them")
    return [alternatives for _, alternatives in slots]


def fill(model: CharacterModel, pattern: Pattern, generator: np.random.Generator, sample: int = 0) -> Iterator[Piece]:
    """Continue the model's text with one alternative of each slot, in order; yield a piece for each slot.

    An alternative's score is its exact probability under the model together with that of the separator after it:
    without the separator an alternative that is a prefix of another would be favoured. The draw is among the scores to
    the power 1 / temperature, normalised. The model, of one row, has then read the text that was yielded.

    Raises ChargenError for characters that are not in the vocabulary.
    """
    pattern.check(model.vocabulary)
    if model.is_fresh:
        model.feed(opening(model.vocabulary))
    slots, separator, temperature = pattern
    for number, slot in enumerate(slots):
        nats = scores(model, [alternative + separator for alternative in slot])
        if temperature:
            weights = np.exp((nats.min() - nats) / temperature)
            chosen = int(np.searchsorted(np.cumsum(weights), generator.random() * weights.sum(), side="right"))
            chosen = min(chosen, len(slot) - 1)
        else:
            chosen = int(np.argmin(nats))
        last = number == len(slots) - 1
        text = slot[chosen] + ("" if last else separator)
        ids = model.vocabulary.encode(text)
        before = model.logits.copy()
        after = model.read(ids)
        costs = nats_of(np.concatenate([before, after[:-1]]), ids)
        yield Piece(sample, text, tuple(costs.tolist()), PATTERN if last else None)


def fill_all(
    model: CharacterModel, count: int, pattern: Pattern, drawing: Drawing, stopping: Callable[[], int]
) -> Iterator[Piece]:
    """Fill a pattern ``count`` times; each sample continues what the model has read.

    ``drawing`` returns generators as for `generate.samples`. A single sample is read by the model itself.
    """
    for sample in range(count):
        (generator,) = drawing(1, sample)
        for piece in fill(model if count == 1 else model.repeat(1), pattern, generator, sample):
            yield piece
            if stopping():
                if piece.stopped_by is None:
                    yield Piece(sample, "", (), SIGNAL)
                return


def scores(model: CharacterModel, texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the negative log-probability of each text as the model's next, in nats: (n,). The model is unchanged."""
    nats = np.zeros(len(texts))
    for first in range(0, len(texts), BATCH_ROWS):
        batch = slice(first, first + BATCH_ROWS)
        ids = [model.vocabulary.encode(text) for text in texts[batch]]
        rows = model.repeat(len(ids))
        for position in range(max(map(len, ids))):
            reading = np.array([position < len(i) for i in ids])
            column = np.array([i[position] if position < len(i) else 0 for i in ids], np.int64)
            nats[batch] += np.where(reading, nats_of(rows.logits, column), 0)
            rows.step(column)
    return nats
