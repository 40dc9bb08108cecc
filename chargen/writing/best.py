"""Of several continuations of each sentence, keep the one that is as predictable as the book.

The most probable continuation is dull: people write less predictably than a model's most likely text (Zhang et al.
2020, "Trading Off Diversity and Quality in Natural Language Generation"). So the one is kept whose bits per character
are nearest to those of the book's own validation text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from chargen import ChargenError
from chargen.bits import bits
from chargen.config import SampleConfig
from chargen.store.modelfile import LayerState
from chargen.writing.generate import LENGTH, SIGNAL, STUCK, Drawing, Held, Piece, Until, drop, opening, stuck_rows
from chargen.writing.sampler import Filter, draw, follow, nats_of, repeated, started

if TYPE_CHECKING:
    from chargen.writing.clone import Clone

LONGEST_SENTENCE = 400  # characters after which a sentence counts as ended
SENTENCE_END = re.compile(r"[.!?…][\"'”’»›)\]]*\s\Z")


class Choice(NamedTuple):
    """How many continuations are drawn of each sentence, and the bits per character that the one kept is nearest to."""

    branches: int
    bpc: float


@dataclass
class Branch:
    """One continuation of a sentence."""

    ids: list[int] = field(default_factory=list)
    nats: list[float] = field(default_factory=list)
    text: str = ""
    layers: tuple[LayerState, ...] = ()  # the state after it
    stuck: bool = False  # it ends because no character was left

    def add(self, id: int, character: str, nats: float) -> bool:
        """Add a character; return whether the sentence ends with it."""
        self.ids.append(id)
        self.nats.append(nats)
        self.text += character
        return character.isspace() and ends_sentence(self.text)

    def distance(self, bpc: float) -> tuple[bool, float]:
        """Return how far it is from so many bits per character; a branch that is stuck comes after all others."""
        return self.stuck, abs(bits(sum(self.nats) / max(1, len(self.nats))) - bpc)


def ends_sentence(text: str) -> bool:
    """Return whether a text ends just after a sentence: after . ! ? or …, closing quotes, and one space."""
    return SENTENCE_END.search(text[-12:]) is not None


class Sentences:
    """A text that is written sentence by sentence, each the best of several branches."""

    def __init__(self, until: Until, generator: np.random.Generator, choice: Choice) -> None:
        """Take where the text ends, and the generator from which those of the branches are drawn."""
        self._until, self._generator, self._choice = until, generator, choice
        self._held, self._written = Held(until.stops, until.end), 0

    def begin(self) -> tuple[int, list[np.random.Generator]]:
        """Return the length of the next sentence, at most, and the generator of each branch."""
        seeds = self._generator.integers(2**63, size=self._choice.branches)
        generators = [np.random.Generator(np.random.PCG64(int(seed))) for seed in seeds]
        return min(LONGEST_SENTENCE, self._until.length - self._written), generators

    def choose(self, found: Sequence[Branch]) -> tuple[Branch, Piece, int]:
        """Return the best branch, the piece of text that it adds, and how much of it came before a stop text ended."""
        best = min(found, key=lambda one: one.distance(self._choice.bpc))
        self._written += len(best.ids)
        piece, added = self._held.add_all(Piece(0, best.text, best.nats))
        last = LENGTH if self._written == self._until.length else SIGNAL if self._until.stopping() else None
        last = STUCK if best.stuck else last
        if piece.stopped_by is None and last is not None:
            piece = self._held.release(piece, last)
        return best, piece, added


def choice_of(model: Clone, config: SampleConfig) -> Choice:
    """Return the choice for ``--best-of``. Raises ChargenError at temperature 0, or without the model's own bits."""
    if not config.temperature:
        raise ChargenError("--best-of chooses among draws: give a --temperature above 0")
    if model.validation_bpc is None:
        raise ChargenError("the model file does not tell its bits per character, which --best-of needs: train again")
    return Choice(config.best_of, model.validation_bpc)


def best_samples(
    model: Clone, count: int, until: Until, filters: Sequence[Filter], drawing: tuple[Drawing, Choice]
) -> Iterator[Piece]:
    """Draw ``count`` samples one after the other, each as by `best_of`; the rest is as for `generate.samples`."""
    generators, choice = drawing
    for sample in range(count):
        (generator,) = generators(1, sample)
        for piece in best_of(model if count == 1 else model.repeat(1), until, filters, (generator, choice)):
            yield piece._replace(sample=sample)
        if until.stopping():
            return


def best_of(
    model: Clone, until: Until, filters: Sequence[Filter], drawing: tuple[np.random.Generator, Choice]
) -> Iterator[Piece]:
    """Continue the text of a model of one row; yield a piece for each sentence, but for what a stop text may hold back.

    A stop text in a sentence cuts it after it was chosen.

    The continuations of a sentence are drawn as one batch, each with a generator of its own, whose seed is drawn from
    the given generator. The model has then read what was drawn, a stop text included.
    """
    sentences = Sentences(until._replace(end=model.vocabulary.end), *drawing)
    if not until.length:
        yield Piece(0, "", (), LENGTH)
        return
    if model.is_fresh:
        model.feed(opening(model.vocabulary))
    filters = started(filters, model.recalled)
    piece = Piece(0, "", ())
    while piece.stopped_by is None:
        length, generators = sentences.begin()
        best, piece, added = sentences.choose(branches(model, until._replace(length=length), filters, generators))
        if added < len(best.text):
            model.feed(best.text[:added])
        else:
            model.take(best.layers, best.ids)
        follow(filters, best.ids)
        yield piece


def branches(
    model: Clone, until: Until, filters: Sequence[Filter], generators: Sequence[np.random.Generator]
) -> list[Branch]:
    """Return a continuation for each generator, to the end of the sentence; stop texts don't count.

    ``filters`` are `started`. The model is unchanged.
    """
    found = [Branch() for _ in generators]
    rows, running = model.repeat(len(found)), list(range(len(found)))
    filters, following = repeated(filters, len(found), generators)
    for drawn in range(1, until.length + 1):
        ids = draw(rows.logits, filters, [generators[k] for k in running])
        if (stuck := stuck_rows(following)) is not None:
            for row in np.flatnonzero(stuck).tolist():
                found[running[row]].stuck = True
                found[running[row]].layers = rows.layers(row)
            if stuck.all():
                break
            running, ids = drop(rows, following, running, stuck), ids[~stuck]
        nats = nats_of(rows.logits, ids)
        rows.step(ids)
        for one in following:
            one.wrote(ids)
        stop = drawn == until.length or until.stopping()
        ended = np.full(len(running), bool(stop))
        for row, k in enumerate(running):
            character = model.vocabulary.characters[ids[row]]
            ended[row] |= found[k].add(int(ids[row]), character, float(nats[row]))
            ended[row] |= character == model.vocabulary.end
            if ended[row]:
                found[k].layers = rows.layers(row)
        if ended.all():
            break
        if ended.any():
            running = drop(rows, following, running, ended)
    return found
