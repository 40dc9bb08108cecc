"""A text of one alternative per slot, drawn by what the model thinks of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from chargen import ChargenError
from chargen.text.vocabulary import Vocabulary, name
from chargen.writing.clone import Clone
from chargen.writing.generate import ROWS, SIGNAL, Drawing, Piece, opening
from chargen.writing.sampler import surprisal

PATTERN = "pattern"  # what a text that a pattern has made is stopped by

Slots = list[list[str]]


def parse(text: str, source: str) -> Slots:
    """Return the slots of a pattern: a line each, its alternatives separated by tabs; empty lines are passed over.

    Raises ChargenError for an empty alternative, or if there are no slots.
    """
    slots = [(number, line.split("\t")) for number, line in enumerate(text.split("\n"), 1) if line]
    for number, alternatives in slots:
        if "" in alternatives:
            raise ChargenError(f"{source}, line {number}: an alternative is empty: put one tab between two of them")
    if not slots:
        raise ChargenError(f"{source} holds no alternatives: give a line for each slot, with tabs between them")
    return [alternatives for _, alternatives in slots]


def fill(
    clone: Clone, slots: Slots, separator: str, temperature: float, generator: np.random.Generator, sample: int = 0
) -> Iterator[Piece]:
    """Go on with one alternative of each slot, in order, with the separator between them.

    An alternative's score is its exact probability under the model together with the separator after it, so that one
    that is the beginning of another is not favoured. The draw is among the scores, normalised; temperature sharpens
    them as it does a character's probabilities, and 0 takes the likeliest. The clone, of one row, has then read the
    text that was yielded.

    Raises ChargenError for characters that are not in the vocabulary.
    """
    refuse_unknown(clone.vocabulary, slots, separator)
    if clone.is_fresh:
        clone.feed(opening(clone.vocabulary))
    for number, slot in enumerate(slots):
        nats = scores(clone, [alternative + separator for alternative in slot])
        if temperature:
            weights = np.exp((nats.min() - nats) / temperature)
            chosen = int(np.searchsorted(np.cumsum(weights), generator.random() * weights.sum(), side="right"))
            chosen = min(chosen, len(slot) - 1)
        else:
            chosen = int(np.argmin(nats))
        last = number == len(slots) - 1
        text = slot[chosen] + ("" if last else separator)
        ids = clone.vocabulary.encode(text)
        before = clone.logits.copy()
        after = clone.read(ids)
        cost = surprisal(np.concatenate([before, after[:-1]]), ids)
        yield Piece(sample, text, tuple(cost.tolist()), PATTERN if last else None)


def fill_all(
    clone: Clone, count: int, fill_one: Callable[..., Iterator[Piece]], drawing: Drawing, stopping: Callable[[], int]
) -> Iterator[Piece]:
    """Fill the slots so many times, as ``fill_one`` does it; each goes on from what the clone has read.

    ``drawing`` gives generators as for `generate.samples`. The clone itself is used for a single sample.
    """
    for sample in range(count):
        (generator,) = drawing(1, sample)
        for piece in fill_one(clone if count == 1 else clone.repeat(1), generator=generator, sample=sample):
            yield piece
            if stopping():
                if piece.stopped_by is None:
                    yield Piece(sample, "", (), SIGNAL)
                return


def refuse_unknown(vocabulary: Vocabulary, slots: Slots, separator: str) -> None:
    """Raise ChargenError for characters that are not in the vocabulary."""
    unknown = dict.fromkeys(c for slot in [*slots, [separator]] for a in slot for c in a if c not in vocabulary)
    if unknown:
        raise ChargenError(f"the model has never seen {name(iter(unknown))}: take it out of the pattern")


def scores(clone: Clone, texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return what each text would cost if it came next, in nats: (n,). The clone is left as it is."""
    nats = np.zeros(len(texts))
    for first in range(0, len(texts), ROWS):
        batch = slice(first, first + ROWS)
        ids = [clone.vocabulary.encode(text) for text in texts[batch]]
        rows = clone.repeat(len(ids))
        for position in range(max(map(len, ids))):
            reading = np.array([position < len(i) for i in ids])
            column = np.array([i[position] if position < len(i) else 0 for i in ids], np.int64)
            nats[batch] += np.where(reading, surprisal(rows.logits, column), 0)
            rows.step(column)
    return nats
