"""The proof that an export says what the model says: both read the same text, and both go on with it greedily."""

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
Read = Callable[[Ids], Floats]  # ids (n,) -> logits (n, V), from where the last call has ended

LARGEST = 1e-3  # difference of a logit, where weights are float32
GREEDY = 200  # characters of the greedy continuation
CHARACTERS = 5000  # of the text that both read; where only logits are compared a fifth of it serves
PART = 400  # characters that are read at once: of 20,000 logits each they take 32 MB
WORST = {"float16": 0.005, "int8": 0.02}  # share by which the bits per character may grow ..
LEAST_BITS = 0.05  # .. of as many at least: a model that is all but certain can't lose a share of nothing


@dataclass(frozen=True)
class Evidence:
    """What an export is compared on."""

    clone: Clone  # of one row
    ids: Ids  # (n,), at least 2: a text that the model was not trained on
    source: str  # what text that is, for people
    quantize: str


def compare(start: Callable[[], Read], evidence: Evidence, runtime: str) -> list[str]:
    """Return, as lines for people, how a loaded artefact compares; ``start()`` begins a text anew.

    Float32 weights: every logit within 1e-3, on the text and on the clone's greedy continuation of it by 200
    characters, in which the artefact takes the same ones, but where the clone's two likeliest are closer than that.
    Others: bits per character, at most 0.5 % (float16) or 2 % (int8) more. The text's last 200 characters are read one
    at a time, as the continuation is. Raises ChargenError otherwise.
    """
    exact = evidence.quantize == "none"
    ids = evidence.ids[: CHARACTERS // 5 if exact else CHARACTERS + 1]
    read, clone = start(), evidence.clone
    clone.reset_states()
    largest, before, after = 0.0, 0.0, 0.0
    for part, following in parts(ids):
        ours, theirs = clone.read(part), checked(read(part), len(part), clone, runtime)
        largest = max(largest, float(np.abs(ours - theirs).max()))
        before += float(nats_of(ours[: len(following)], following).sum())
        after += float(nats_of(theirs[: len(following)], following).sum())
    seconds, equal, here, there = 0.0, True, ours[-1], theirs[-1]
    for _ in range(GREEDY):
        equal = equal and same(here, there)
        id = np.array([np.argmax(here)])
        here = clone.step(id)[0]
        began = time.perf_counter()
        there = read(id)
        seconds += time.perf_counter() - began
        there = checked(there, 1, clone, runtime)[0]
        largest = max(largest, float(np.abs(here - there).max()))
    speed = f"{GREEDY / seconds:,.0f} characters a second in {runtime}"
    if exact:
        told = (
            f"logits of {len(ids):,} characters of {evidence.source}, and of the next {GREEDY} greedy ones, within "
            f"{largest:.1e} of the clone's ({LARGEST:g} allowed); the greedy characters are "
            f"{'equal' if equal else 'not equal'}"
        )
        proved = largest <= LARGEST and equal
    else:
        old, new = (bits(nats / (len(ids) - 1)) for nats in (before, after))
        worst = WORST[evidence.quantize]
        change = (new - old) / max(old, LEAST_BITS)
        told = f"{old:.4f} -> {new:.4f} bits per character ({change:+.2%}, {worst:+.1%} allowed) on {len(ids) - 1:,} "
        told += f"characters of {evidence.source}"
        proved = change <= worst
    if not proved:
        raise ChargenError(f"the export failed its proof in {runtime}, and was removed: {told}")
    return [speed, told]


def parts(ids: Ids) -> Iterator[tuple[Ids, Ids]]:
    """Yield the parts of a text, and the ids that follow those of each part: its last 200 characters one by one."""
    start = 0
    while start < len(ids):
        size = min(PART, len(ids) - GREEDY - start) if start < len(ids) - GREEDY else 1
        yield ids[start : start + size], ids[start + 1 : start + size + 1]
        start += size


def checked(logits: Floats, count: int, clone: Clone, runtime: str) -> Floats:
    """Return what a runtime gave, if it is logits of so many characters; raise ChargenError otherwise."""
    if logits.shape != (count, len(clone.vocabulary)) or not np.isfinite(logits).all():
        raise ChargenError(f"the export failed its proof in {runtime}, and was removed: what it gives are no logits")
    return logits


def same(ours: Floats, theirs: Floats) -> bool:
    """Tell whether the likeliest character of both (V,) is the same, or one as likely within 1e-3."""
    return bool(ours.max() - ours[np.argmax(theirs)] < LARGEST)


def stepwise(step: Callable[[int, Any], tuple[Any, Any]], zero_state: Any) -> Callable[[], Read]:
    """Return what begins a text with a function of one character: id, state -> logits (V,), state."""

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
    """Return the ids of a text that the clone draws, for a model whose own text is not at hand."""
    text = "".join(clone.generate(CHARACTERS + 1, temperature=1.0, random_seed=0))
    clone.reset_states()
    return clone.vocabulary.encode(text)
