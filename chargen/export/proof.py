"""The proof that an export says what the model says: both read the same text, and both go on with it greedily."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from chargen import ChargenError
from chargen.bits import bits
from chargen.clone import Clone
from chargen.sampler import surprisal

Floats = npt.NDArray[np.float32]
Read = Callable[[npt.NDArray[np.integer]], Floats]  # ids (n,) -> logits (n, V), from where the last call has ended

LARGEST = 1e-3  # difference of a logit, where weights are float32
GREEDY = 200  # characters of the greedy continuation
CHARACTERS = 5000  # of the text that both read; where only logits are compared a fifth of it serves
WORST = {"float16": 0.005, "int8": 0.02}  # by which the bits per character may grow


@dataclass(frozen=True)
class Evidence:
    """What an export is compared on."""

    clone: Clone  # of one row, fresh
    ids: npt.NDArray[np.integer]  # (n,), at least 2: a text that the model was not trained on
    source: str  # what text that is, for people
    quantize: str


def compare(start: Callable[[], Read], evidence: Evidence, runtime: str) -> list[str]:
    """Return, as lines for people, how a loaded artefact compares; ``start()`` begins a text anew.

    Float32 weights: every logit within 1e-3, and the same greedy continuation of 200 characters, up to the first
    place where the clone's two likeliest are closer than that. Others: bits per character, at most 0.5 % (float16) or
    2 % (int8) more. Raises ChargenError otherwise.
    """
    exact = evidence.quantize == "none"
    ids = evidence.ids[: CHARACTERS // 5 if exact else CHARACTERS + 1]
    read, clone = start(), evidence.clone
    clone.reset_states()
    ours, theirs = clone.read(ids), read(ids)
    if theirs.shape != ours.shape or not np.isfinite(theirs).all():
        raise ChargenError(f"the export failed its proof in {runtime}: what it gives are no logits; it was removed")
    equal, speed = greedy(clone, read, ours[-1], theirs[-1], tied=LARGEST if exact else np.inf)
    if exact:
        difference = float(np.abs(ours - theirs).max())
        if difference > LARGEST or not equal:
            raise ChargenError(
                f"the export failed its proof in {runtime}: a logit differs by {difference:.1e}, {LARGEST:g} allowed, "
                f"and the greedy texts are {'equal' if equal else 'not equal'}; it was removed"
            )
        told = (
            f"logits of {len(ids):,} characters of {evidence.source} within {difference:.1e} of the clone's "
            f"({LARGEST:g} allowed), the next {GREEDY} greedy characters equal"
        )
    else:
        before, after = (bits(float(surprisal(logits[:-1], ids[1:]).mean())) for logits in (ours, theirs))
        change, worst = after / before - 1, WORST[evidence.quantize]
        told = (
            f"{before:.4f} -> {after:.4f} bits per character ({change:+.2%}, {worst:+.1%} allowed) on {len(ids) - 1:,} "
        )
        told += f"characters of {evidence.source}"
        if change > worst:
            raise ChargenError(f"the export failed its proof in {runtime}: {told}; it was removed")
    return [f"{speed:,.0f} characters a second in {runtime}", told]


def stepwise(step: Callable[[int, Any], tuple[Any, Any]], zero_state: Any) -> Callable[[], Read]:
    """Return what begins a text with a function of one character: id, state -> logits (V,), state."""

    def start() -> Read:
        state = zero_state

        def read(ids: npt.NDArray[np.integer]) -> Floats:
            nonlocal state
            logits = []
            for id in ids:
                one, state = step(int(id), state)
                logits.append(np.asarray(one, np.float32).reshape(-1))
            return np.array(logits)

        return read

    return start


def greedy(clone: Clone, read: Read, ours: Floats, theirs: Floats, tied: float) -> tuple[bool, float]:
    """Go on greedily with both, from the logits (V,) of both; return whether they agree, and characters a second.

    They agree if they are equal up to the first place where the clone's two likeliest are closer than ``tied``.
    """
    seconds, agree, tie = 0.0, True, False
    for _ in range(GREEDY):
        second, first = np.sort(ours)[-2:] if len(ours) > 1 else (-np.inf, ours[0])
        tie = tie or bool(first - second < tied)
        id = int(np.argmax(theirs))
        agree = agree and (tie or id == int(np.argmax(ours)))
        ours = clone.step(np.array([id]))[0]
        began = time.perf_counter()
        theirs = read(np.array([id]))[-1]
        seconds += time.perf_counter() - began
    return agree, GREEDY / seconds


def drawn(clone: Clone) -> npt.NDArray[np.integer]:
    """Return the ids of a text that the clone draws, for a model whose own text is not at hand."""
    text = "".join(clone.generate(CHARACTERS + 1, temperature=1.0, random_seed=0))
    clone.reset_states()
    return clone.vocabulary.encode(text)
