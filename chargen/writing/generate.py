"""Draw a character, read it, draw the next: an iterator of pieces of text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple, Protocol, Self
from unicodedata import category

import numpy as np
import numpy.typing as npt

from chargen.text.vocabulary import END, UNKNOWN, Vocabulary
from chargen.writing.sampler import Filter, Follower, draw, nats_of, repeated, started

# `Piece.stopped_by`, where it is not a stop text
LENGTH, SIGNAL, STUCK, WHOLE = "length", "signal", "no-repeat", "end"
BATCH_ROWS = 256  # at most: larger batches are hardly faster
BATCH_CHARACTERS = 2**22  # at most: the text of all rows but the first is kept until the rows before are shown
BATCH_LOGITS = 2**22  # at most: the filters take some 50 bytes for each
ADVISED_SEED = 12  # characters at most


class CharacterModel(Protocol):
    """What drawing needs of a model that carries its own state; `Clone` is one."""

    vocabulary: Vocabulary
    rows: int  # texts that it reads side by side

    @property
    def logits(self) -> npt.NDArray[np.float32]:
        """The prediction of each row's next character, (rows, V)."""

    @property
    def is_fresh(self) -> bool:
        """Whether nothing has been read."""

    @property
    def recalled(self) -> Sequence[int]:
        """The ids of the last characters that have been read in one row."""

    def feed(self, text: str) -> object:
        """Read a text in the only row."""

    def read(self, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Read ids (n,) in the only row; return the logits after each, (n, V)."""

    def step(self, ids: npt.NDArray[np.integer]) -> object:
        """Read one character in each row, ids (rows,)."""

    def keep(self, rows: npt.NDArray[np.intp]) -> None:
        """Drop all rows but these."""

    def repeat(self, rows: int) -> Self:
        """Return a model of ``rows`` rows, each in the state of this one's only row."""


class Piece(NamedTuple):
    """A part of one sample's text. The pieces of a sample come in order; those of several samples are interleaved."""

    sample: int  # the sample's number, from 0
    text: str
    nats: Sequence[float]  # of each character: its negative log-probability under the model, before any filter
    stopped_by: str | None = None  # on the last piece: one of the words above, or the stop text before which it ends


Drawing = Callable[[int, int], Sequence[np.random.Generator]]  # (count, first) -> generators, as `sampler.generators`


class Until(NamedTuple):
    """Where a text ends: after ``length`` characters, just before a stop text, or when ``stopping`` returns true.

    ``end`` is `Vocabulary.end`, before which a text ends too; functions that take a model set it.
    """

    length: int
    stops: tuple[str, ...] = ()
    stopping: Callable[[], int | bool] = bool  # called after each character
    end: str | None = None


def generate(
    model: CharacterModel,
    until: Until,
    filters: Sequence[Filter] = (),
    generators: Sequence[np.random.Generator] | None = None,
) -> Iterator[Piece]:
    """Continue the text of each of the model's rows; yield pieces whose sample is the row's number.

    ``generators`` has a generator for each row; None takes the most likely character each time. Characters are held
    back while they may be the beginning of a stop text. Every character drawn has been read, those of a stop text
    included. A row whose sample has ended is dropped from the model. When ``until.stopping`` returns true, all samples
    end. A sample also ends, with WHOLE, where the model writes the end of a document.

    Filters that follow the text begin with what the model has read in one row (`Clone.recalled`). A sample for which
    they leave no character ends before it, with STUCK.
    """
    length, stops, stopping, _ = until
    if length and model.is_fresh:
        model.feed(opening(model.vocabulary))
    running = list(range(model.rows))
    held = [Held(stops, model.vocabulary.end) for _ in running]
    if not length:
        yield from (Piece(sample, "", (), LENGTH) for sample in running)
        return
    filters, following = repeated(started(filters, model.recalled), model.rows, generators)
    for drawn in range(1, length + 1):
        ids = draw(model.logits, filters, None if generators is None else [generators[i] for i in running])
        if (stuck := stuck_rows(following)) is not None:
            yield from (held[running[row]].release(Piece(running[row], "", ()), STUCK) for row in np.flatnonzero(stuck))
            if stuck.all():
                return
            running, ids = drop(model, following, running, stuck), ids[~stuck]
        nats = nats_of(model.logits, ids)
        model.step(ids)
        for one in following:
            one.wrote(ids)
        last = LENGTH if drawn == length else SIGNAL if stopping() else None
        ended = np.zeros(len(running), bool)
        for row, sample in enumerate(running):
            piece = held[sample].add(sample, model.vocabulary.characters[ids[row]], float(nats[row]))
            if piece.stopped_by is None and last is not None:
                piece = held[sample].release(piece, last)
            ended[row] = piece.stopped_by is not None
            if piece.text or ended[row]:
                yield piece
        if ended.all():
            return
        if ended.any():
            running = drop(model, following, running, ended)


def stuck_rows(following: Sequence[Follower]) -> npt.NDArray[np.bool_] | None:
    """Return the rows (rows,) for which the last draw had no character; None if there are none."""
    return next((one.stuck for one in following if one.stuck is not None and one.stuck.any()), None)


def drop(
    model: CharacterModel, following: Sequence[Follower], running: list[int], ended: npt.NDArray[np.bool_]
) -> list[int]:
    """Drop the rows that have ended, some but not all; return the samples of the others."""
    rows = np.flatnonzero(~ended)
    model.keep(rows)
    for one in following:
        one.keep(rows)
    return [sample for sample, done in zip(running, ended, strict=True) if not done]


def samples(
    model: CharacterModel, count: int, until: Until, filters: Sequence[Filter], drawing: Drawing | None
) -> Iterator[Piece]:
    """Draw ``count`` samples, each of which continues what the model, of one row, has read.

    They are drawn in batches, so that memory does not grow with their number. ``drawing`` None takes the most likely
    character each time. A single sample is drawn by the model itself, whose state is then that after the sample;
    several are drawn by copies.
    """
    rows = batch_rows(count, until.length, len(model.vocabulary))
    for first in range(0, count, rows):
        batch = model if count == 1 else model.repeat(min(rows, count - first))
        for piece in generate(batch, until, filters, drawing and drawing(batch.rows, first)):
            yield piece._replace(sample=first + piece.sample) if first else piece
        if until.stopping():
            return


def batch_rows(count: int, length: int, characters: int) -> int:
    """Return the rows of a batch, 1 to BATCH_ROWS, for samples of ``length`` and a vocabulary of ``characters``."""
    return max(1, min(count, BATCH_ROWS, BATCH_CHARACTERS // max(1, length), BATCH_LOGITS // characters))


class Held:
    """The last characters of a sample's text, as long as they may be the beginning of a stop text.

    The sample also ends before ``end``, the character that ends a document.
    """

    def __init__(self, stops: tuple[str, ...], end: str | None = None) -> None:
        self._stops, self._end = stops, end
        self._text, self._nats = "", list[float]()

    def add(self, sample: int, character: str, nats: float) -> Piece:
        """Add a character; return a piece of those that can no longer be part of a stop text."""
        if character == self._end:
            return self.release(Piece(sample, "", ()), WHOLE)
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

    def add_all(self, text: Piece) -> tuple[Piece, int]:
        """Add a text up to the end of the first stop text; return the piece as `add` does, and how much was added."""
        piece = Piece(text.sample, "", ())
        for place, (character, nats) in enumerate(zip(text.text, text.nats, strict=True), 1):
            more = self.add(text.sample, character, nats)
            piece = Piece(text.sample, piece.text + more.text, (*piece.nats, *more.nats), more.stopped_by)
            if piece.stopped_by is not None:
                return piece, place
        return piece, len(text.text)

    def release(self, piece: Piece, stopped_by: str) -> Piece:
        """Return the sample's last piece: ``piece`` and the characters that were held back."""
        return Piece(piece.sample, piece.text + self._text, (*piece.nats, *self._nats), stopped_by)

    def _begins(self, text: str) -> bool:
        return any(stop.startswith(text) for stop in self._stops)


def beginning(model: CharacterModel) -> str:
    """Return what a model reads before a text that is given to it: END, if it is to be the beginning of a document."""
    return model.vocabulary.end or "" if model.is_fresh else ""


def opening(vocabulary: Vocabulary) -> str:
    """Return the text that a model reads before it starts a text of its own.

    It is END, if the model has read it before documents; else a blank line, as before a new paragraph. If the
    vocabulary has no newline it is a space, if it has no space either its first character.
    """
    if END in vocabulary:
        return END
    return next((text for text in ("\n\n", " ") if text[0] in vocabulary), vocabulary.characters[0])


def seed_of(text: str) -> str:
    """Return a short seed whose characters the model of a text knows, for an example command.

    It is "The" if the text contains this word, else the beginning of the text's first word, else of its first visible
    characters; "" if there are none.
    """
    if re.search(r"\bThe\b", text):
        return "The"
    for begins, belongs in ((str.isalpha, _in_word), (_visible, _visible)):
        first = next((place for place, character in enumerate(text) if begins(character)), None)
        if first is not None:
            return "".join(takewhile(belongs, text[first : first + ADVISED_SEED]))
    return ""


def _in_word(character: str) -> bool:
    return character.isalnum() or category(character).startswith(
        "M"
    )  # combining marks, such as Hebrew points, are not alphanumeric


def _visible(character: str) -> bool:
    return character.isprintable() and not character.isspace() and character != UNKNOWN
