"""The continuous batch: texts that are read and written side by side, one character of each in a step.

A text joins and leaves between any two steps. Rows whose jobs have the same filters are drawn together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from chargen.serving.texts import Drawn, Job, Read, Reading, Row, Score, State
from chargen.store.modelfile import LayerState
from chargen.writing.clone import Clone
from chargen.writing.generate import BATCH_LOGITS, BATCH_ROWS, stuck_rows
from chargen.writing.sampler import Filter, Follower, draw, repeated

Ids = npt.NDArray[np.int64]


class Batch:
    """The rows of one model."""

    def __init__(self, clone: Clone) -> None:
        """Take a clone of one row that has read nothing."""
        self._characters = clone.vocabulary.characters
        self.most_rows = max(1, min(BATCH_ROWS, BATCH_LOGITS // len(self._characters)))
        self._zero = clone.state
        self._clone = clone.repeat(0)
        self._rows: list[Row] = []
        self._groups: dict[int, Group] = {}  # by the identity of their jobs' list of filters
        self._waiting = deque[Job]()
        self._entering: list[tuple[Sequence[Row], State]] = []
        self._taken = 0  # rows that the jobs which have been let in take at most

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._rows or self._waiting or self._entering)

    @property
    def rows(self) -> int:
        """The rows of the last step."""
        return len(self._rows)

    @property
    def jobs(self) -> set[Job]:
        """The jobs that have not ended."""
        return {*self._waiting, *self._present()}

    def _present(self) -> set[Job]:
        return {row.job for row in self._rows} | {rows[0].job for rows, _ in self._entering}

    def add(self, job: Job) -> None:
        """Let a job in as soon as there is room for it, which has at most ``most_rows`` rows."""
        self._waiting.append(job)

    def step(self) -> None:
        """Read one character in each row."""
        self._drop_cancelled()
        self._let_in()
        if not self._rows:
            return
        ids = np.zeros(len(self._rows), np.int64)
        for row in self._rows:
            if isinstance(row, Reading):
                ids[row.place] = row.next
        for group in self._groups.values():
            ids[group.places] = group.draw(self._clone.logits)
        scores = self._scores(ids)
        self._clone.step(ids)
        for group in self._groups.values():
            group.wrote(ids)
        self._follow(ids.tolist(), scores)

    def _follow(self, ids: list[int], scores: dict[int, Score]) -> None:
        """Let each row follow the character that it has read."""
        after: list[tuple[int, Row]] = []
        changed = False
        for row, id in zip(self._rows, ids, strict=True):
            at = row.place
            found = row.follow(Read(id, self._characters[id], scores.get(at), lambda at=at: self._clone.layers(at)))  # type: ignore[misc]
            changed = changed or found is not None
            after += [(at, one) for one in ([row] if found is None else found)]
        if changed:
            self._replace(after)

    def _drop_cancelled(self) -> None:
        self._waiting = deque(job for job in self._waiting if not job.cancelled)
        if any(job.cancelled for job in self._present()):
            self._entering = [(rows, state) for rows, state in self._entering if not rows[0].job.cancelled]
            self._replace([(row.place, row) for row in self._rows if not row.job.cancelled])

    def _let_in(self) -> None:
        """Add the rows of waiting jobs, as far as there is room, and those of sentences that begin."""
        while self._waiting and self._taken + self._waiting[0].rows <= self.most_rows:
            job = self._waiting.popleft()
            self._taken += job.rows
            self._enter([Reading(job=job, enter=self._enter)], self._zero)
        if not self._entering:
            return
        after = [(row.place, row) for row in self._rows]
        for place, (rows, _) in enumerate(self._entering, len(after)):
            after += [(place, row) for row in rows]
        layers = zip(*(state for _, state in self._entering), strict=True)
        self._clone.join(tuple(LayerState(*map(np.concatenate, zip(*layer, strict=True))) for layer in layers))
        self._entering = []
        self._replace(after)

    def _enter(self, rows: Sequence[Row], state: State) -> None:
        self._entering.append((rows, state))

    def _replace(self, after: list[tuple[int, Row]]) -> None:
        """Replace all rows: each new one is in the state of an old one, given by its place."""
        places = [place for place, _ in after]
        if places != list(range(self._clone.rows)):
            self._clone.keep(np.array(places, np.intp))
        before, self._rows = set(self._rows), [row for _, row in after]
        for place, row in enumerate(self._rows):
            row.place = place
        for group in self._groups.values():
            group.keep(set(self._rows))
        new: dict[Job, list[Drawn]] = {}
        for row in self._rows:
            if isinstance(row, Drawn) and row not in before:
                new.setdefault(row.job, []).append(row)
        for job, rows in new.items():
            self._groups.setdefault(id(job.filters), Group(job)).add(rows)
        self._groups = {key: group for key, group in self._groups.items() if group.rows}
        for group in self._groups.values():
            group.find()
        self._taken = sum(job.rows for job in self._present())

    def _scores(self, ids: Ids) -> dict[int, Score]:
        """Return the scores of the characters that are about to be read, by the places of the rows that want them."""
        wanted = [(row.place, count) for row in self._rows if (count := row.likeliest) is not None]
        if not wanted:
            return {}
        logits = self._clone.logits[[place for place, _ in wanted]].astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        nats = np.log(np.exp(logits).sum(-1, keepdims=True)) - logits
        found = {}
        for of_row, (place, count) in zip(nats, wanted, strict=True):
            best = np.argsort(of_row, kind="stable")[:count].tolist() if count else []
            likeliest = tuple((self._characters[id], float(of_row[id])) for id in best)
            found[place] = Score(float(of_row[ids[place]]), likeliest)
        return found


class Group:
    """The rows that are drawn with the same filters."""

    def __init__(self, job: Job) -> None:
        self.rows: list[Drawn] = []
        self.places = np.zeros(0, np.intp)
        self._greedy, self._chosen = job.greedy, job.filters  # kept, so that no other list gets its identity
        self._filters: Sequence[Filter] = ()
        self._following: list[Follower] = []

    def add(self, rows: list[Drawn]) -> None:
        """Add rows of one job that begin to write, all after the same text."""
        generators = None if self._greedy else [row.generator for row in rows]
        filters, following = repeated(rows[0].filters, len(rows), generators)
        if self.rows:
            for ours, theirs in zip(self._following, following, strict=True):
                ours.join(theirs)
        else:
            self._filters, self._following = filters, following
        self.rows += rows

    def keep(self, rows: set[Row]) -> None:
        """Drop all rows but these."""
        kept = [number for number, row in enumerate(self.rows) if row in rows]
        if 0 < len(kept) < len(self.rows):
            for one in self._following:
                one.keep(np.array(kept, np.intp))
        self.rows = [self.rows[number] for number in kept]

    def find(self) -> None:
        """Note the rows' places in the batch."""
        self.places = np.array([row.place for row in self.rows], np.intp)

    def draw(self, logits: npt.NDArray[np.float32]) -> Ids:
        """Return the ids of the rows' next characters, given the logits of the whole batch (rows, V)."""
        ids = draw(logits[self.places], self._filters, None if self._greedy else [row.generator for row in self.rows])
        if (stuck := stuck_rows(self._following)) is not None:
            for number in np.flatnonzero(stuck):
                self.rows[number].stuck = True
        return ids

    def wrote(self, ids: Ids) -> None:
        """Follow the characters that the whole batch has read."""
        for one in self._following:
            one.wrote(ids[self.places])
