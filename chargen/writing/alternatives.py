"""Different continuations of a text, with their probabilities, drawn as one batch.

They are drawn without replacement by a stochastic beam search (Kool, van Hoof and Welling 2019): each row carries the
logarithm of its probability, perturbed by Gumbel noise, and after each character the rows with the highest perturbed
values are kept. Without the noise, at temperature 0, this is an ordinary beam search for the most probable ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from chargen import ChargenError
from chargen.text.vocabulary import Vocabulary
from chargen.text.words import JOINERS, is_letter
from chargen.writing.best import LONGEST_SENTENCE
from chargen.writing.generate import opening, stuck_rows
from chargen.writing.sampler import Filter, repeated, started

if TYPE_CHECKING:
    from chargen.writing.clone import Clone

LONGEST_WORD = 40  # characters after which a word counts as ended
WORD, SENTENCE = "word", "sentence"
UNSPACED_SENTENCE = re.compile(r"[.!?…][\"'”’»›)\]]*\Z")

Values = npt.NDArray[np.float64]


class Alternative(NamedTuple):
    """A continuation, and its probability under the model before any filter: that of a word includes its end."""

    text: str
    probability: float


class Ends:
    """Where a continuation ends: before a character that is not of the word or the sentence, or after N characters."""

    def __init__(self, until: str | int, vocabulary: Vocabulary) -> None:
        """Take "word", "sentence" or N. Raises ChargenError for any other value."""
        self.longest = {WORD: LONGEST_WORD, SENTENCE: LONGEST_SENTENCE}.get(str(until), 0)
        if isinstance(until, int):
            self.longest = until
        if self.longest < 1:
            raise ChargenError(f'until: give "word", "sentence" or a number of characters, not {until!r}')
        self._until = until
        characters = vocabulary.characters
        self._inner = {c for c in characters if c.isalnum() or is_letter(c)}
        self._outer = np.array([c not in self._inner and c not in JOINERS for c in characters])
        self._joiners = np.array([c in JOINERS for c in characters])
        self._end = np.array([c == vocabulary.end for c in characters])
        self._spaces = np.array([c.isspace() for c in characters]) | self._end
        self._none = np.zeros(len(characters), bool)

    def before(self, text: str) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return the characters (V,) before which a continuation ends, and those that may not come next."""
        none = self._none
        if self._until == SENTENCE:
            return (self._spaces if UNSPACED_SENTENCE.search(text[-12:]) else self._end), none
        if self._until == WORD and self._inner & {*text}:
            joined = text[-1] in JOINERS
            return (none, self._outer | self._joiners) if joined else (self._outer, none)
        return self._end, none


class _Done(NamedTuple):
    """A whole continuation."""

    value: float  # the perturbed logarithm of its probability, by which it is kept
    text: str
    log: float  # the logarithm of its probability before any filter


class _Search:
    """The rows of a search: each has a text, the perturbed logarithm of its probability, and the exact one.

    The probability is that after the filters; the one before them is kept beside it.
    """

    def __init__(self, ends: Ends, characters: str, width: int, generator: np.random.Generator | None) -> None:
        self._ends, self._characters, self._width, self._generator = ends, characters, width, generator
        self.texts, self.done = [""], list[_Done]()
        self._values, self._filtered, self._logs = np.zeros((3, 1))

    def widen(self, logits: Values, filtered: Values) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Take the next character of each row, given the logits (n, V) of the rows before and after the filters.

        Return the rows that go on, by the numbers that they had, and their characters' ids.
        """
        masks = [self._ends.before(text) for text in self.texts]
        ends, never = (np.stack(mask) for mask in zip(*masks, strict=True))
        children = []
        for before, one in ((self._filtered, filtered), (self._logs, logits)):
            logs = _log_softmax(one)
            going_on = np.where(ends | never, -np.inf, logs)
            children.append(before[:, None] + np.column_stack([going_on, _log_sum(np.where(ends, logs, -np.inf))]))
        exact, unfiltered = children
        values = exact if self._generator is None else _perturbed(exact, self._values, self._generator)
        old = [one.value for one in self.done]
        best = np.argsort(-np.concatenate([old, values.ravel()]), kind="stable")[: self._width]
        done = [self.done[place] for place in best if place < len(old)]
        rows, ids = np.divmod(best[best >= len(old)] - len(old), values.shape[1])
        possible = np.isfinite(values[rows, ids])
        whole = possible & (ids == len(self._characters))
        done += [_Done(float(values[k, -1]), self.texts[k], float(unfiltered[k, -1])) for k in rows[whole].tolist()]
        rows, ids = rows[possible & ~whole], ids[possible & ~whole]
        self.done, self.texts = (
            done,
            [self.texts[row] + self._characters[id] for row, id in zip(rows, ids, strict=True)],
        )
        self._values, self._filtered, self._logs = values[rows, ids], exact[rows, ids], unfiltered[rows, ids]
        return rows, ids

    def finish(self) -> None:
        """End the rows that are left where they are."""
        self.done += map(_Done, self._values.tolist(), self.texts, self._logs.tolist())
        self.texts = []


def alternatives(
    model: Clone, count: int, until: str | int, filters: Sequence[Filter], generator: np.random.Generator | None
) -> list[Alternative]:
    """Return at most ``count`` different continuations, the most probable first. The model, of one row, is unchanged.

    They end with the word ("word": before the character after it; what comes before the word is included), with the
    sentence, or after so many characters. Words that differ only in the spaces and line feeds before them count as the
    same. Without a generator, the most probable ones that the search finds are returned.
    """
    ends, rows = Ends(until, model.vocabulary), model.repeat(1)
    if model.is_fresh:
        rows.feed(opening(model.vocabulary))
    filters, following = repeated(started(filters, rows.recalled), 1, None)
    width = count + count // 2 + 1 if until == WORD else count  # some words differ only in the spaces before them
    search = _Search(ends, model.vocabulary.characters, width, generator)
    for _ in range(ends.longest):
        logits = filtered = rows.logits.astype(np.float64)
        for keep in filters:
            filtered = keep(filtered)
        if (stuck := stuck_rows(following)) is not None:
            filtered[stuck] = -np.inf
        parents, ids = search.widen(logits, filtered)
        if not search.texts:
            break
        rows.keep(parents)
        rows.step(ids)
        for one in following:
            one.keep(parents)
            one.wrote(ids)
    search.finish()
    best = dict[str, _Done]()
    for done in sorted(search.done, reverse=True):
        best.setdefault(" ".join(done.text.split()) if until == WORD else done.text, done)
    best.pop("", None)
    kept = [Alternative(done.text, float(np.exp(done.log))) for done in list(best.values())[:count]]
    return sorted(kept, key=lambda one: -one.probability)


def _log_sum(logs: Values) -> Values:
    """Return the logarithm of the sum of the exponentials over the last axis; -inf if all are -inf."""
    highest = np.maximum(logs.max(-1), -1e300)
    with np.errstate(divide="ignore"):
        return np.asarray(highest + np.log(np.exp(logs - highest[..., None]).sum(-1)))


def _log_softmax(logits: Values) -> Values:
    """Return the logarithms of the probabilities over the last axis; -inf where no character has one."""
    return np.asarray(logits - np.maximum(_log_sum(logits), -1e300)[..., None])


def _perturbed(logs: Values, values: Values, generator: np.random.Generator) -> Values:
    """Return perturbed logarithms (n, V + 1) of the children, the highest of which is each row's own value (n,).

    This is the appendix B of Kool et al.: Gumbel noise under the condition of its maximum.
    """
    noisy = logs + generator.gumbel(size=logs.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        below = noisy - noisy.max(-1, keepdims=True)
        over = values[:, None] - noisy + np.log1p(-np.exp(below))
        value = values[:, None] - np.maximum(over, 0) - np.log1p(np.exp(-np.abs(over)))
    return np.where(np.isfinite(logs), value, -np.inf)
