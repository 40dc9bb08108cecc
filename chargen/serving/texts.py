"""The texts of a batch: what each row reads, what becomes of its characters, and which rows follow it.

A job begins as one row that reads the prompt. After the last character of the prompt, that row becomes as many rows as
continuations are drawn. With the best of several branches, it becomes the branches of a sentence. When they have ended,
the state of the best one enters the batch again, as the branches of the next sentence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from chargen.store.modelfile import LayerState
from chargen.writing.best import Branch, Choice, Sentences
from chargen.writing.clone import RECALLED
from chargen.writing.generate import LENGTH, STUCK, Held, Piece, Until
from chargen.writing.sampler import Filter, follow, started

State = tuple[LayerState, ...]
Likeliest = tuple[tuple[str, float], ...]  # characters and the nats of each, the most likely first


class Score(NamedTuple):
    """How likely a character was, by the model before any filter."""

    nats: float | None  # its negative log-probability; None for the first of a text, which nothing predicts
    likeliest: Likeliest


class Part(NamedTuple):
    """What has become known of one continuation: a piece of its text, or a character of the prompt."""

    piece: Piece
    scores: Sequence[Score] = ()  # of the piece's characters, if the job asks for them
    read: bool = False  # whether the piece is of the prompt


@dataclass(eq=False)
class Job:
    """A prompt and how it is continued."""

    prompt: Sequence[int]  # ids (n,), at least one
    until: Until
    filters: Sequence[Filter]  # jobs with the same list are drawn together
    generators: Sequence[np.random.Generator]  # one for each continuation
    put: Callable[[Part], object]  # takes the results, in the thread that steps the batch
    greedy: bool = False  # the most likely characters are taken, and the generators are not used
    choice: Choice | None = None  # the best of several branches of each sentence; there is one continuation then
    likeliest: int | None = None  # how many characters are scored beside each one of the text; None: none are
    scores_prompt: bool = False
    cancelled: bool = False  # may be set in any thread: its rows leave before the next step

    @property
    def rows(self) -> int:
        """The rows that it takes at most."""
        return len(self.generators) if self.choice is None else self.choice.branches


class Read(NamedTuple):
    """A character that a row has read."""

    id: int
    character: str
    score: Score | None  # for a row that asks for it
    state: Callable[[], State]  # returns the row's state after the character


@dataclass(eq=False, kw_only=True)
class Row(ABC):
    """A text of the batch."""

    job: Job
    place: int = 0  # in the batch

    @property
    def likeliest(self) -> int | None:
        """How many characters are scored beside the next one; None: none are, nor is the next one."""
        return self.job.likeliest

    @abstractmethod
    def follow(self, read: Read) -> Sequence[Row] | None:
        """Follow a character; return the rows that take this one's place, None if it stays."""


Enter = Callable[[Sequence[Row], State], None]  # lets rows into the batch, all of them in one state


@dataclass(eq=False, kw_only=True)
class Reading(Row):
    """A prompt that is being read."""

    enter: Enter
    at: int = 0

    @property
    def next(self) -> int:
        """The id of the character to read."""
        return self.job.prompt[self.at]

    @property
    def likeliest(self) -> int | None:
        """Only a job that asks for it has the prompt's characters scored."""
        return self.job.likeliest if self.job.scores_prompt else None

    def follow(self, read: Read) -> Sequence[Row] | None:
        """Go on to the next character, and after the last one to the continuations."""
        if read.score is not None and read.character != self.job.until.end:
            score = read.score if self.at else Score(None, ())
            self.job.put(Part(Piece(0, read.character, ()), (score,), read=True))
        self.at += 1
        if self.at < len(self.job.prompt):
            return None
        job = self.job
        if not job.until.length:
            for number in range(len(job.generators)):
                job.put(Part(Piece(number, "", (), LENGTH)))
            return []
        filters = started(job.filters, job.prompt[-RECALLED:])
        if job.choice is not None:
            return SentenceBySentence(job, job.choice, filters, self.enter).begin()
        return [Writing(job=job, filters=filters, generator=one, number=k) for k, one in enumerate(job.generators)]


@dataclass(eq=False, kw_only=True)
class Drawn(Row):
    """A row whose characters are drawn."""

    generator: np.random.Generator
    filters: Sequence[Filter]  # `started`, for one row
    stuck: bool = False  # the filters have left no character: the one that is read doesn't count


@dataclass(eq=False, kw_only=True)
class Writing(Drawn):
    """A continuation that is being written."""

    number: int
    scores: deque[Score] = field(default_factory=deque)

    def __post_init__(self) -> None:
        until = self.job.until
        self._held, self._left = Held(until.stops, until.end), until.length

    def follow(self, read: Read) -> Sequence[Row] | None:
        """Hand on the text, except for what may be the beginning of a stop text."""
        if self.stuck:
            piece = self._held.release(Piece(self.number, "", ()), STUCK)
        else:
            if read.score is not None:
                self.scores.append(read.score)
            self._left -= 1
            piece = self._held.add(self.number, read.character, 0.0)
            if piece.stopped_by is None and not self._left:
                piece = self._held.release(piece, LENGTH)
        if piece.text or piece.stopped_by is not None:
            self.job.put(part(piece, self.scores))
        return None if piece.stopped_by is None else []


class SentenceBySentence:
    """A continuation of which each sentence is the best of several branches."""

    def __init__(self, job: Job, choice: Choice, filters: Sequence[Filter], enter: Enter) -> None:
        self._job, self._filters, self._enter = job, filters, enter
        self._sentences = Sentences(job.until, job.generators[0], choice)
        self._branches: list[Branching] = []
        self._scores = deque[Score]()

    def begin(self) -> Sequence[Row]:
        """Return the branches of the next sentence."""
        length, generators = self._sentences.begin()
        common = {"job": self._job, "filters": self._filters, "left": length, "ended": self._ended}
        self._branches = [Branching(generator=one, **common) for one in generators]  # type: ignore[arg-type]
        self._running = len(self._branches)
        return self._branches

    def _ended(self) -> None:
        """Go on with the best branch when all of them have ended."""
        self._running -= 1
        if self._running:
            return
        best, piece, _ = self._sentences.choose([one.branch for one in self._branches])
        if self._job.likeliest is not None:
            self._scores += next(one.scores for one in self._branches if one.branch is best)
        self._job.put(part(piece, self._scores))
        if piece.stopped_by is None:
            follow(self._filters, best.ids)
            self._enter(self.begin(), best.layers)


@dataclass(eq=False, kw_only=True)
class Branching(Drawn):
    """A branch of a sentence."""

    left: int
    ended: Callable[[], None]
    branch: Branch = field(default_factory=Branch)
    scores: list[Score] = field(default_factory=list)

    @property
    def likeliest(self) -> int | None:
        """The characters of a branch are always scored, because branches are compared by their scores."""
        return self.job.likeliest or 0

    def follow(self, read: Read) -> Sequence[Row] | None:
        """Add the character to the branch; leave at the end of the sentence."""
        branch, score = self.branch, read.score
        if self.stuck:
            branch.stuck = True
        else:
            assert score is not None
            assert score.nats is not None
            self.scores.append(score)
            self.left -= 1
            whole = branch.add(read.id, read.character, score.nats) or read.character == self.job.until.end
            if not whole and self.left:
                return None
            branch.layers = read.state()
        self.ended()
        return []


def part(piece: Piece, scores: deque[Score]) -> Part:
    """Return a piece with the scores of its characters, which are taken from ``scores`` unless that is empty."""
    return Part(piece, [scores.popleft() for _ in piece.text] if scores else ())
