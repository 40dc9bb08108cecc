"""Is a number per character enough? The same LSTM on a scaled integer, one-hot vectors and an embedding."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from chargen.bits import bits
from chargen.lab import Answer, Conclusion, Picture, Setting, Table
from chargen.text.vocabulary import Vocabulary

EXPECT = """A number between 0 and 1 says that m is between l and n, which helps nothing, and that two letters are
almost the same, which is wrong: the net first has to take them apart again. One-hot vectors keep them apart, at the
price of a wide input; an embedding does that in fewer numbers, and learns which characters are alike."""

LENGTH, BATCH, EMBEDDING = 40, 64, 32

Encode = Callable[[Any], Any]


def answer(setting: Setting) -> Answer:
    """Train a stock Keras LSTM by the same steps on each of the three inputs."""
    vocabulary = Vocabulary.of(setting.text)
    ids = vocabulary.encode(setting.text).astype(np.int32)
    characters = len(vocabulary)
    held_out = len(ids) // 10
    steps, units = setting.pick(1200, 150), setting.pick(128, 48)
    one_hot = np.eye(characters, dtype=np.float32)
    ways: dict[str, tuple[Any, list[Any], Encode]] = {
        "a number from 0 to 1": ((LENGTH, 1), [], lambda x: x[..., None].astype(np.float32) / (characters - 1)),
        "one-hot": ((LENGTH, characters), [], lambda x: one_hot[x]),
        "embedding": ((LENGTH,), [keras.layers.Embedding(characters, EMBEDDING)], lambda x: x),
    }
    rows: list[tuple[str, float, int]] = []
    curves: dict[str, list[tuple[float, float]]] = {}
    for way, (shape, first, encode) in ways.items():
        keras.utils.set_random_seed(setting.random_seed)
        random = np.random.default_rng(setting.random_seed)
        model = keras.Sequential(
            [
                keras.Input(shape),
                *first,
                keras.layers.LSTM(units, return_sequences=True),
                keras.layers.Dense(characters),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(3e-3), loss)
        windows = cut(ids[-held_out:], np.arange(0, held_out - LENGTH - 1, LENGTH))
        curve: list[tuple[float, float]] = []
        seconds = 0.0
        for step in range(steps + 1):
            if step % (steps // 6) == 0:
                x, y = encode(windows[:, :-1]), windows[:, 1:]
                curve.append((step, bits(float(loss(y, model.predict_on_batch(x))))))
            both = cut(ids[:-held_out], random.integers(0, len(ids) - held_out - LENGTH - 1, BATCH))
            began = time.perf_counter()
            model.train_on_batch(encode(both[:, :-1]), both[:, 1:])
            seconds += time.perf_counter() - began if step else 0.0  # the first compiles
        rows.append((way, curve[-1][1], round(steps * BATCH * LENGTH / seconds)))
        curves[way] = curve
    number, hot, embedded = (row[1] for row in rows)
    worse = number > max(hot, embedded)
    return Answer(
        [
            Conclusion(
                f"After {steps} steps, a number per character reached {number:.3f} bits per character, one-hot vectors "
                f"{hot:.3f}, an embedding {embedded:.3f}: a number is {'not enough' if worse else 'enough'}.",
                worse,
            )
        ],
        [Table(("input", "bits per character", "characters a second"), rows)],
        [Picture("Held-out text, by steps.", lambda figure: draw(figure, curves))],
    )


def cut(ids: Any, starts: Any) -> Any:
    """Return windows (n, T + 1) of a text from those places."""
    return ids[starts[:, None] + np.arange(LENGTH + 1)]


def draw(figure: Any, curves: dict[str, list[tuple[float, float]]]) -> None:
    """Draw bits per character against steps."""
    axes = figure.subplots()
    for way, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), marker="o", label=way)
    axes.set_xlabel("steps")
    axes.set_ylabel("bits per character")
    axes.legend()
