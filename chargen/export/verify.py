"""Verification that an export computes what the model computes: both read a text, and both continue it greedily."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from chargen import ChargenError
from chargen.bits import bits
from chargen.writing.clone import Clone, Floats
from chargen.writing.sampler import nats_of

Ids = npt.NDArray[np.integer]
Read = Callable[[Ids], Floats]  # ids (n,) -> logits (n, V); continues where the last call ended

TOLERANCE = 1e-3  # difference of a logit, with float32 weights
GREEDY_CHARACTERS = 200  # of the greedy continuation
TEXT_CHARACTERS = 5000  # of the text that both read; a fifth of it where only logits are compared
PART_CHARACTERS = 400  # that are read in one call: with 20,000 characters in the vocabulary, 32 MB of logits
LARGEST_GROWTH = {"float16": 0.005, "int8": 0.02}  # of the bits per character, relative to them ..
LEAST_BITS = 0.05  # .. or to this, if they are fewer: a model that is almost certain has hardly any bits


@dataclass(frozen=True)
class Reference:
    """What an export is compared with."""

    clone: Clone  # batch size 1
    ids: Ids  # (n,), n >= 2: a text that the model was not trained on
    source: str  # a description of that text, for people
    quantize: str  # how the weights of the export are written


def compare(start: Callable[[], Read], reference: Reference, runtime: str) -> list[str]:
    """Compare a loaded artefact with the clone; return the results as lines for people.

    ``start()`` resets the state of the artefact and returns the function that reads with it. With float32 weights,
    every logit of the text and of its greedy continuation must be within 1e-3 of the clone's, and the most likely
    characters must be the same, unless two are within 1e-3 of each other. With other weights, the bits per character
    may grow by 0.5 % (float16) or 2 % (int8), unknown characters left out. The last 200 characters of the text are read
    one at a time, as the continuation is. Raises ChargenError if the two do not agree.
    """
    exact = reference.quantize == "none"
    ids = reference.ids[: TEXT_CHARACTERS // 5 if exact else TEXT_CHARACTERS + 1]
    read, clone, known = start(), reference.clone, known_ids(reference.clone)
    clone.reset_states()
    largest, before, after, counted = 0.0, 0.0, 0.0, 0
    for part, following in parts(ids):
        ours, theirs = clone.read(part), checked(read(part), len(part), clone, runtime)
        largest = max(largest, float(np.abs(ours - theirs).max()))
        at = np.flatnonzero(known[following])
        counted += len(at)
        before += float(nats_of(ours[at], following[at]).sum())
        after += float(nats_of(theirs[at], following[at]).sum())
    seconds, equal, here, there = 0.0, True, ours[-1], theirs[-1]
    for _ in range(GREEDY_CHARACTERS):
        equal = equal and same(here, there)
        id = np.array([np.argmax(here)])
        here = clone.step(id)[0]
        began = time.perf_counter()
        there = read(id)
        seconds += time.perf_counter() - began
        there = checked(there, 1, clone, runtime)[0]
        largest = max(largest, float(np.abs(here - there).max()))
    if exact:
        agrees = largest <= TOLERANCE and equal
        found = (
            f"logits within {largest:.1e} of the clone's ({TOLERANCE:g} allowed) on {len(ids):,} characters of "
            f"{reference.source} and on the next {GREEDY_CHARACTERS} greedy ones; the greedy characters are "
            f"{'equal' if equal else 'not equal'}"
        )
    else:
        old, new = (bits(nats / max(1, counted)) for nats in (before, after))
        allowed = LARGEST_GROWTH[reference.quantize]
        growth = (new - old) / max(old, LEAST_BITS)
        agrees = growth <= allowed
        found = (
            f"{old:.4f} -> {new:.4f} bits per character ({growth:+.2%}, {allowed:+.1%} allowed) on {counted:,} "
            f"characters of {reference.source}"
        )
    if not agrees:
        raise disagreement(runtime, found)
    return [f"{GREEDY_CHARACTERS / seconds:,.0f} characters a second in {runtime}", found]


def known_ids(clone: Clone) -> npt.NDArray[np.bool_]:
    """Return which ids (V,) stand for a character of their own.

    The unknown character is read, but not predicted: its logit of -60,000 would outweigh all others' differences.
    """
    return np.array([character != clone.vocabulary.unknown for character in clone.vocabulary.characters])


def disagreement(runtime: str, reason: str) -> ChargenError:
    """Return the error for an export that does not compute what the model computes."""
    return ChargenError(f"the exported model does not agree with the model in {runtime}, and was removed: {reason}")


def parts(ids: Ids) -> Iterator[tuple[Ids, Ids]]:
    """Yield the parts of a text, each with the ids that follow its own; the last 200 characters are parts of one."""
    start = 0
    while start < len(ids):
        single = start >= len(ids) - GREEDY_CHARACTERS
        size = 1 if single else min(PART_CHARACTERS, len(ids) - GREEDY_CHARACTERS - start)
        yield ids[start : start + size], ids[start + 1 : start + size + 1]
        start += size


def checked(logits: Floats, count: int, clone: Clone, runtime: str) -> Floats:
    """Return a runtime's output if it is finite and has the shape (count, V); raise ChargenError otherwise."""
    if logits.shape != (count, len(clone.vocabulary)) or not np.isfinite(logits).all():
        raise disagreement(runtime, f"its output is not {len(clone.vocabulary)} finite logits for each character")
    return logits


def same(ours: Floats, theirs: Floats) -> bool:
    """Return whether the most likely character of ``theirs`` (V,) is that of ``ours`` (V,), or within 1e-3 of it."""
    return bool(ours.max() - ours[np.argmax(theirs)] < TOLERANCE)


def stepwise(step: Callable[[int, Any], tuple[Any, Any]], zero_state: Any) -> Callable[[], Read]:
    """Return a ``start`` for `compare` from a function of one character: id, state -> logits (V,), state."""

    def start() -> Read:
        state = zero_state

        def read(ids: Ids) -> Floats:
            nonlocal state
            logits = []
            for id in ids:
                one, state = step(int(id), state)
                logits.append(np.asarray(one, np.float32).reshape(-1))
            return np.array(logits)

        return read

    return start


def drawn(clone: Clone) -> Ids:
    """Return the ids of a text that the clone draws, for a model whose validation text is not available."""
    text = "".join(clone.generate(TEXT_CHARACTERS + 1, temperature=1.0, random_seed=0))
    clone.reset_states()
    return clone.vocabulary.encode(text)
