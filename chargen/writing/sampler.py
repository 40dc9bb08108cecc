"""From logits to a character's id: the filters, in a fixed order, then the draw.

The order is **allow**, **words**, **no_repeat**, **temperature**, **top_k**, **top_p**, **min_p**, draw. What may be
written at all comes first, so that each later filter chooses among such characters. Words comes before no_repeat: a
word can always go on, and no_repeat looks ahead to the word's end, so that it rarely leaves no character. Temperature
comes before top_p and min_p, so that they see the probabilities that it makes. Each filter works on what the previous
one kept, and each keeps at least one character. All filters work on the last axis of logits (..., V); a character that
a filter removes gets the logit -inf.

Words and no_repeat depend on the text so far, which they follow row by row: they are each a `Follower`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from chargen import ChargenError
from chargen.config import SampleConfig
from chargen.text.vocabulary import Vocabulary
from chargen.writing.repeats import NoRepeat
from chargen.writing.words import ANY, Tree, Words, known_words

Logits = npt.NDArray[np.float64]
Filter = Callable[[Logits], Logits]


@runtime_checkable
class Follower(Protocol):
    """A filter that depends on the text so far. `started` returns it ready for a model's rows."""

    @property
    def stuck(self) -> npt.NDArray[np.bool_] | None:
        """The rows (rows,) in which the last call left no character, so that the text ends; None if there are none."""

    def start(self, text: Sequence[int]) -> Self:
        """Return the filter of one row that goes on from a text, ids (N,)."""

    def repeat(self, rows: int, generators: Sequence[np.random.Generator] | None) -> Self:
        """Return the filter of so many rows, each in the state of this one's only row."""

    def __call__(self, logits: Logits) -> Logits:
        """Filter the logits (rows, V)."""

    def wrote(self, ids: npt.NDArray[np.integer]) -> None:
        """Follow the character that each row has written, ids (rows,)."""

    def keep(self, rows: npt.NDArray[np.intp]) -> None:
        """Drop all rows but these (n,), which may be repeated."""

    def join(self, other: Self) -> None:
        """Add the rows of a filter that was made from the same one after these."""


def allow(logits: Logits, allowed: npt.NDArray[np.bool_]) -> Logits:
    """Keep the characters for which ``allowed`` (V,) is true."""
    return np.asarray(np.where(allowed, logits, -np.inf))


def temperature(logits: Logits, degree: float) -> Logits:
    """Divide by ``degree``, which is above 0; below 1 it sharpens the distribution (Ackley, Hinton and Sejnowski 1985).

    The largest logit of each row becomes 0.
    """
    # The maximum is subtracted before the division: with a tiny degree it would overflow to infinity otherwise.
    with np.errstate(over="ignore"):
        return np.asarray((logits - logits.max(-1, keepdims=True)) / degree)


def top_k(logits: Logits, k: int) -> Logits:
    """Keep the k most likely characters (Fan, Lewis and Dauphin 2018); between equals, those with the lower ids."""
    if k >= logits.shape[-1]:
        return logits
    return _keep_likeliest(logits, np.arange(logits.shape[-1]) < k)


def top_p(logits: Logits, p: float) -> Logits:
    """Keep the smallest set of most likely characters whose probabilities add up to p or more (Holtzman et al. 2020).

    p is between 0 and 1. The most likely character is always kept.
    """
    descending = -np.sort(-probabilities(logits))
    before = np.cumsum(descending, -1) - descending  # sum of the more likely ones
    keep = before < p
    keep[..., 0] = True
    return _keep_likeliest(logits, keep)


def min_p(logits: Logits, p: float) -> Logits:
    """Keep characters at least p times as probable as the most likely one, p from 0 to 1 (Nguyen et al. 2024)."""
    if not p:
        return logits
    lowest = logits.max(-1, keepdims=True) + np.log(p) - 1e-12  # so that rounding does not remove a tie at p
    return np.where(logits >= lowest, logits, -np.inf)


def _keep_likeliest(logits: Logits, keep: npt.NDArray[np.bool_]) -> Logits:
    """Keep the characters at whose rank ``keep`` is true. Rank 0 is the most likely one; equals are ranked by id."""
    order = np.argsort(-logits, -1, kind="stable")
    kept = np.empty(logits.shape, bool)
    np.put_along_axis(kept, order, np.broadcast_to(keep, logits.shape), -1)
    return np.where(kept, logits, -np.inf)


def probabilities(logits: Logits) -> Logits:
    """Return the softmax over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def filters(
    config: SampleConfig, vocabulary: Vocabulary, words: str | None = None, base_words: str | None = None
) -> list[Filter]:
    """Return the filters of a configuration, in their order. At temperature 0 only those before it are among them.

    ``words`` and ``base_words`` are the packed lists in the model file. Raises ChargenError for an invalid expression,
    for words that can't be had, or if no character of the vocabulary is allowed.
    """
    chosen: list[Filter] = []
    drawn = np.array([c != vocabulary.unknown for c in vocabulary.characters])
    allowed = drawn.copy()
    if config.allow is not None or config.forbid is not None:
        for option, pattern, wanted in (("--allow", config.allow, True), ("--forbid", config.forbid, False)):
            if pattern is not None:
                matches = expression(option, pattern).fullmatch
                allowed &= [(matches(c) is not None) == wanted for c in vocabulary.characters]
        if not allowed.any():
            raise ChargenError("no character of the model's vocabulary may be drawn: relax --allow or --forbid")
        chosen.append(partial(allow, allowed=allowed))
    if config.new_words and (config.words == ANY or not config.temperature):
        raise ChargenError("--new-words is a probability of --words: give --words, and a --temperature above 0")
    tree = None
    if config.words != ANY:
        tree = Tree(known_words(config.words, words, vocabulary, base_words), vocabulary, allowed)
        chosen.append(Words(tree, config.new_words))
    if config.no_repeat is not None:
        chosen.append(NoRepeat(config.no_repeat, np.flatnonzero(~drawn).tolist(), tree))
    if config.temperature:
        if config.temperature != 1:
            chosen.append(partial(temperature, degree=config.temperature))
        if config.top_k is not None:
            chosen.append(partial(top_k, k=config.top_k))
        if config.top_p is not None:
            chosen.append(partial(top_p, p=config.top_p))
        if config.min_p is not None:
            chosen.append(partial(min_p, p=config.min_p))
    return chosen


def started(chosen: Sequence[Filter], text: Sequence[int]) -> list[Filter]:
    """Return the filters of one row that goes on from a text, ids (N,)."""
    return [one.start(text) if isinstance(one, Follower) else one for one in chosen]


def repeated(
    chosen: Sequence[Filter], rows: int, generators: Sequence[np.random.Generator] | None
) -> tuple[list[Filter], list[Follower]]:
    """Return the `started` filters for so many rows in the same state, and the followers among them.

    ``generators`` are those of the draws, as in `draw`.
    """
    filters = [one.repeat(rows, generators) if isinstance(one, Follower) else one for one in chosen]
    return filters, [one for one in filters if isinstance(one, Follower)]


def follow(chosen: Sequence[Filter], ids: Sequence[int]) -> None:
    """Let the filters of one row follow a text, ids (n,)."""
    for one in chosen:
        if isinstance(one, Follower):
            for id in ids:
                one.wrote(np.array([id]))


# A part of an expression that matches a single character: an escape, a class, or a literal character.
ONE = r"""
    \\ (?: x[0-9a-fA-F]{2} | u[0-9a-fA-F]{4} | U[0-9a-fA-F]{8} | N\{[^}]*\} | [0-7]{1,3} | . )
    | \[ \^?+ \]?+ (?: \\. | [^\]\\] )*+ \]
    | [^\\\[()|^$*+?]
"""
# Alternatives of such parts, in groups or not, repeated or not. A sequence of two parts does not match.
EXPRESSION = rf"""(?xs) (?P<flags> \(\? [aimsu]+ \) )?+
    (?: \( (?:\?:)?+ | [|^] | (?: {ONE} | \) ) [*+?]{{0,2}}+ \$?+ (?= [|)] | \Z ) )*+"""
PARTS = rf"(?xs) \( (?:\?:)?+ | (?P<one> {ONE} ) | ."
LONGEST_EXPRESSION = 10_000  # characters


def expression(option: str, pattern: str) -> re.Pattern[str]:
    """Return a compiled expression that matches the same single characters as ``pattern``, in linear time.

    ``option`` is named in the messages. Raises ChargenError if ``pattern`` is invalid, or too long, or contains a
    sequence: no single character matches a sequence, but the search could take exponential time to find out.
    """
    if len(pattern) > LONGEST_EXPRESSION:
        raise ChargenError(f"{option} is longer than {LONGEST_EXPRESSION:,} characters: give ranges, such as [a-z]")
    found = re.fullmatch(EXPRESSION, pattern)
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # "possible nested set"
            re.compile(pattern)
            if found:
                # Groups and repetitions make no difference for a single character.
                flags = found["flags"] or ""
                ones = (part["one"] for part in re.finditer(PARTS, pattern[len(flags) :]))
                return re.compile(flags + "|".join(filter(None, ones)), re.DOTALL)
    except re.error as error:
        raise ChargenError(f"{option} is not a regular expression: {error}") from None
    except (OverflowError, RecursionError):  # too large a repetition; too many nested groups
        pass
    raise ChargenError(
        f"{option} matches one character at a time: give characters, classes such as [a-z ] or alternatives such as a|b"
    )


def draw(
    logits: npt.NDArray[np.floating], chosen: Sequence[Filter], generators: Sequence[np.random.Generator] | None
) -> npt.NDArray[np.int64]:
    """Draw an id for each row of logits (n, V); return the ids (n,), int64.

    ``generators`` has a generator for each row, of which one number is taken. If it is None, the most likely character
    of each row is taken; between equals, the one with the lowest id.
    """
    filtered = logits.astype(np.float64)
    for keep in chosen:
        filtered = keep(filtered)
    if generators is None:
        return np.asarray(np.argmax(filtered, -1))
    cumulative = np.cumsum(np.exp(filtered - filtered.max(-1, keepdims=True)), -1)
    total = cumulative[:, -1:]
    points = np.array([generator.random() for generator in generators])[:, None] * total
    # The first id whose cumulative weight exceeds the point. Rounding must not raise the point to the total.
    return np.asarray((cumulative <= np.minimum(points, np.nextafter(total, 0))).sum(-1))


def nats_of(logits: npt.NDArray[np.floating], ids: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Return the negative log-probability of each id (n,) under unfiltered logits (n, V): nats (n,)."""
    exact = logits.astype(np.float64)
    exact -= exact.max(-1, keepdims=True)
    return np.asarray(np.log(np.exp(exact).sum(-1)) - exact[np.arange(len(ids)), ids])


def generators(random_seed: int, count: int, first: int = 0) -> list[np.random.Generator]:
    """Return the generators of samples ``first`` to ``first + count - 1``.

    The generator of sample k depends on the random seed and k only, not on the batch in which it is drawn.
    """
    seeds = (np.random.SeedSequence(random_seed, spawn_key=(k,)) for k in range(first, first + count))
    return [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
