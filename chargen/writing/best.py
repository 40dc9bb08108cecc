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
from chargen.writing.sampler import Filter, Follower, draw, nats_of, repeated, started

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
    layers: tuple[LayerState, ...] = ()  # the state after it
    stuck: bool = False  # it ends because no character was left

    def distance(self, bpc: float) -> tuple[bool, float]:
        """Return how far it is from so many bits per character; a branch that is stuck comes after all others."""
        return self.stuck, abs(bits(sum(self.nats) / max(1, len(self.nats))) - bpc)


def ends_sentence(text: str) -> bool:
    """Return whether a text ends just after a sentence: after . ! ? or …, closing quotes, and one space."""
    return SENTENCE_END.search(text[-12:]) is not None


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
    generator, choice = drawing
    held, written, last = Held(until.stops, model.vocabulary.end), 0, None
    if not until.length:
        yield Piece(0, "", (), LENGTH)
        return
    if model.is_fresh:
        model.feed(opening(model.vocabulary))
    filters = started(filters, model.recalled)
    while last is None:
        left = until._replace(length=min(LONGEST_SENTENCE, until.length - written))
        seeds = generator.integers(2**63, size=choice.branches)
        generators = [np.random.Generator(np.random.PCG64(int(seed))) for seed in seeds]
        best = min(branches(model, left, filters, generators), key=lambda one: one.distance(choice.bpc))
        text, written = model.vocabulary.decode(np.array(best.ids, np.int64)), written + len(best.ids)
        piece, added = held.add_all(Piece(0, text, best.nats))
        if added < len(text):
            model.feed(text[:added])
        else:
            model.take(best.layers, best.ids)
        for one in (one for one in filters if isinstance(one, Follower)):
            for id in best.ids:
                one.wrote(np.array([id]))
        last = STUCK if best.stuck else LENGTH if written == until.length else SIGNAL if until.stopping() else None
        if piece.stopped_by is None and last is not None:
            piece = held.release(piece, last)
        last = piece.stopped_by
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
    texts = [""] * len(found)
    for drawn in range(1, until.length + 1):
        ids = draw(rows.logits, filters, [generators[k] for k in running])
        if (stuck := stuck_rows(following)) is not None:
            for row in np.flatnonzero(stuck).tolist():
                found[running[row]].stuck = True
                found[running[row]].layers = _layers(rows, row)
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
            found[k].ids.append(int(ids[row]))
            found[k].nats.append(float(nats[row]))
            texts[k] += character
            ended[row] |= character == model.vocabulary.end
            ended[row] |= character.isspace() and ends_sentence(texts[k])
            if ended[row]:
                found[k].layers = _layers(rows, row)
        if ended.all():
            break
        if ended.any():
            running = drop(rows, following, running, ended)
    return found


def _layers(rows: Clone, row: int) -> tuple[LayerState, ...]:
    """Return the state of one row."""
    return tuple(LayerState(layer.h[row : row + 1], layer.c[row : row + 1]) for layer in rows.state)
