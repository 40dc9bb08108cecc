"""One output at the end, or one per character? The old Keras example against a target at every character."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np

from chargen.bits import bits
from chargen.lab import Answer, Conclusion, Picture, Setting, Table, plotted
from chargen.text.vocabulary import Vocabulary

EXPECT = """The old example cuts the text into overlapping windows and learns one character from each, the one after
it: the LSTM reads a whole window for a single target. With a target at every character, the same reading has as many
targets as the window has characters, so it should learn much more in the same time."""

LENGTH, BATCH = 40, 64


def network(characters: int, units: int, random_seed: int, *, every: bool) -> Any:
    """Return a stock Keras model: ids (B, T) -> logits (B, T, V) or, without ``every``, (B, V) of the last."""
    keras.utils.set_random_seed(random_seed)
    layers = [
        keras.Input((LENGTH,), dtype="int32"),
        keras.layers.Embedding(characters, 32),
        keras.layers.LSTM(units, return_sequences=every),
        keras.layers.Dense(characters),
    ]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def answer(setting: Setting) -> Answer:
    """Train both for the same time; score both on the same characters with the same context."""
    vocabulary = Vocabulary.of(setting.text)
    ids = vocabulary.encode(setting.text).astype(np.int32)
    held_out = len(ids) // 10
    training, validation = ids[:-held_out], ids[-held_out:]
    random = np.random.default_rng(setting.random_seed)
    places = random.integers(0, len(validation) - LENGTH, setting.pick(4000, 500))
    held = validation[places[:, None] + np.arange(LENGTH + 1)]
    seconds, laps = setting.pick(40.0, 2.0), setting.pick(8, 3)
    curves: dict[str, list[tuple[float, float]]] = {}
    learnt: dict[str, int] = {}
    ways = {"one at the end": False, "one per character": True}
    for way, every in ways.items():
        model = network(len(vocabulary), setting.pick(128, 48), setting.random_seed, every=every)

        def batch() -> tuple[Any, Any]:
            starts = random.integers(0, len(training) - LENGTH, BATCH)
            windows = training[starts[:, None] + np.arange(LENGTH + 1)]
            return windows[:, :-1], windows[:, 1:] if every else windows[:, -1]  # noqa: B023

        model.train_on_batch(*batch())  # compiles the step
        score(model, held, every=every)
        spent, steps = 0.0, 0
        for lap in range(1, laps + 1):
            while spent < seconds * lap / laps:
                began = time.perf_counter()
                model.train_on_batch(*batch())
                spent, steps = spent + time.perf_counter() - began, steps + 1
            curves.setdefault(way, []).append((spent, score(model, held, every=every)))
        learnt[way] = round(steps * BATCH * (LENGTH if every else 1) / spent)
    last, each = (curves[way][-1][1] for way in ways)
    better = each < last
    return Answer(
        [
            Conclusion(
                f"After {seconds:.0f} seconds, a target at every character reached {each:.3f} bits per character, one "
                f"at the end {last:.3f}: {'every character is better' if better else 'it is not better'}.",
                better,
            )
        ],
        [
            Table(
                ("targets", "targets learnt a second", "bits per character"),
                [(way, learnt[way], curves[way][-1][1]) for way in ways],
            )
        ],
        [Picture("Held-out text, by training time.", plotted(curves, "seconds of training", "bits per character"))],
    )


def score(model: Any, held: Any, *, every: bool) -> float:
    """Return the bits per character on the last characters of held-out windows (n, T + 1)."""
    logits = np.asarray(model.predict_on_batch(held[:, :-1]), np.float64)
    logits = logits[:, -1] if every else logits
    logits -= logits.max(-1, keepdims=True)
    return bits(float((np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(held)), held[:, -1]]).mean()))
