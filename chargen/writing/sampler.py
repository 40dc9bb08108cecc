"""From logits to a character's id: filters in one stated order, then the draw.

The order is: **allow**, **temperature**, **top_k**, **top_p**, **min_p**, draw. So the filters see the probabilities
that the temperature has made, each what the one before it has left, and none of them can empty the choice. All work on
the last axis of logits (..., V); what a filter removes becomes -inf.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from chargen import ChargenError
from chargen.config import SampleConfig
from chargen.text.vocabulary import Vocabulary

Logits = npt.NDArray[np.float64]
Filter = Callable[[Logits], Logits]


def allow(logits: Logits, allowed: npt.NDArray[np.bool_]) -> Logits:
    """Keep the characters for which ``allowed`` (V,) is true."""
    return np.asarray(np.where(allowed, logits, -np.inf))


def temperature(logits: Logits, degree: float) -> Logits:
    """Divide by ``degree``, above 0: below 1 the likely becomes likelier (Ackley, Hinton and Sejnowski 1985)."""
    # The largest becomes 0 first: a tiny degree would make an infinity of it otherwise.
    with np.errstate(over="ignore"):
        return np.asarray((logits - logits.max(-1, keepdims=True)) / degree)


def top_k(logits: Logits, k: int) -> Logits:
    """Keep the k likeliest (Fan, Lewis and Dauphin 2018); of equals those with the lower ids."""
    if k >= logits.shape[-1]:
        return logits
    return _keep_likeliest(logits, np.arange(logits.shape[-1]) < k)


def top_p(logits: Logits, p: float) -> Logits:
    """Keep the likeliest whose probabilities together reach p, as few as do (Holtzman et al. 2020)."""
    descending = -np.sort(-probabilities(logits))
    before = np.cumsum(descending, -1) - descending  # what the likelier ones have together
    keep = before < p
    keep[..., 0] = True
    return _keep_likeliest(logits, keep)


def min_p(logits: Logits, p: float) -> Logits:
    """Keep those at least p times as probable as the likeliest (Nguyen et al. 2024)."""
    return np.where(logits >= logits.max(-1, keepdims=True) + np.log(p) - 1e-12, logits, -np.inf) if p else logits


def _keep_likeliest(logits: Logits, keep: npt.NDArray[np.bool_]) -> Logits:
    """Keep those at whose rank, from the likeliest down, ``keep`` is true; equals rank by id."""
    order = np.argsort(-logits, -1, kind="stable")
    kept = np.empty(logits.shape, bool)
    np.put_along_axis(kept, order, np.broadcast_to(keep, logits.shape), -1)
    return np.where(kept, logits, -np.inf)


def probabilities(logits: Logits) -> Logits:
    """Return the softmax over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def filters(config: SampleConfig, vocabulary: Vocabulary) -> list[Filter]:
    """Return the filters that a configuration asks for, in their order; temperature 0 has none but ``allow``.

    Raises ChargenError if no character of the vocabulary may be drawn, or for a wrong expression.
    """
    chosen: list[Filter] = []
    if config.allow is not None or config.forbid is not None:
        allowed = np.array([c != vocabulary.unknown for c in vocabulary.characters])
        for option, pattern, wanted in (("--allow", config.allow, True), ("--forbid", config.forbid, False)):
            if pattern is not None:
                matches = expression(option, pattern).fullmatch
                allowed &= [(matches(c) is not None) == wanted for c in vocabulary.characters]
        if not allowed.any():
            raise ChargenError("no character that the model knows may be drawn: ease --allow or --forbid")
        chosen.append(partial(allow, allowed=allowed))
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


# What matches a single character: an escape, a class, or a character as it is.
ONE = r"""
    \\ (?: x[0-9a-fA-F]{2} | u[0-9a-fA-F]{4} | U[0-9a-fA-F]{8} | N\{[^}]*\} | [0-7]{1,3} | . )
    | \[ \^?+ \]?+ (?: \\. | [^\]\\] )*+ \]
    | [^\\\[()|^$*+?]
"""
# Alternatives of such, in groups or not, repeated or not; but no sequence.
EXPRESSION = rf"""(?xs) (?P<flags> \(\? [aimsu]+ \) )?+
    (?: \( (?:\?:)?+ | [|^] | (?: {ONE} | \) ) [*+?]{{0,2}}+ \$?+ (?= [|)] | \Z ) )*+"""
PARTS = rf"(?xs) \( (?:\?:)?+ | (?P<one> {ONE} ) | ."
LONGEST = 10_000  # characters of an expression


def expression(option: str, pattern: str) -> re.Pattern[str]:
    """Return what decides whether an option's regular expression matches a single character.

    Raises ChargenError for one that is wrong, and for one of sequences, which no single character matches, though it
    may take for ever to find that out.
    """
    if len(pattern) > LONGEST:
        raise ChargenError(f"{option} is longer than {LONGEST:,} characters: give ranges, such as [a-z]")
    found = re.fullmatch(EXPRESSION, pattern)
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of what may be read otherwise once
            re.compile(pattern)
            if found:
                # Groups and repetitions make no difference to a single character.
                flags = found["flags"] or ""
                ones = (part["one"] for part in re.finditer(PARTS, pattern[len(flags) :]))
                return re.compile(flags + "|".join(filter(None, ones)), re.DOTALL)
    except re.error as error:
        raise ChargenError(f"{option} is not a regular expression: {error}") from None
    except (OverflowError, RecursionError):  # of repetitions, of groups
        pass
    raise ChargenError(
        f"{option} is for one character at a time: give characters, classes such as [a-z ], or alternatives such as a|b"
    )


def draw(
    logits: npt.NDArray[np.floating], chosen: Sequence[Filter], generators: Sequence[np.random.Generator] | None
) -> npt.NDArray[np.int64]:
    """Draw an id for each row of logits (n, V): (n,).

    A row's draw takes one number from its own generator; None takes the likeliest of each row, the first of equals.
    """
    filtered = logits.astype(np.float64)
    for one in chosen:
        filtered = one(filtered)
    if generators is None:
        return np.asarray(np.argmax(filtered, -1))
    cumulated = np.cumsum(np.exp(filtered - filtered.max(-1, keepdims=True)), -1)
    whole = cumulated[:, -1:]
    points = np.array([generator.random() for generator in generators])[:, None] * whole
    # The first whose cumulated weight lies beyond the point, which rounding must not raise to the whole.
    return np.asarray((cumulated <= np.minimum(points, np.nextafter(whole, 0))).sum(-1))


def surprisal(logits: npt.NDArray[np.floating], ids: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Return the nats that the ids (n,) cost under the model itself, unfiltered: logits (n, V) -> (n,)."""
    exact = logits.astype(np.float64)
    exact -= exact.max(-1, keepdims=True)
    return np.asarray(np.log(np.exp(exact).sum(-1)) - exact[np.arange(len(ids)), ids])


def generators(random_seed: int, count: int, first: int = 0) -> list[np.random.Generator]:
    """Return the generators of ``count`` samples from ``first`` on: sample k's comes from (random seed, k) alone."""
    seeds = (np.random.SeedSequence(random_seed, spawn_key=(k,)) for k in range(first, first + count))
    return [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
