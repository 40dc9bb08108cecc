"""Is a number per character enough? The same LSTM on a scaled integer, one-hot vectors and an embedding."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from chargen.bits import bits
from chargen.lab import Answer, Conclusion, Picture, Setting, Table, plotted
from chargen.text.vocabulary import Vocabulary

EXPECT = """A number between 0 and 1 says that m is between l and n, which does not help, and that neighbouring letters
are almost the same, which is wrong: the net first has to separate them again. One-hot vectors keep them apart, at the
price of a wide input. An embedding does that with fewer numbers, and learns which characters are alike."""

LENGTH, BATCH, EMBEDDING = 40, 64, 32

Curve = list[tuple[float, float]]  # (steps, bits per character of held-out text)


class Encoding(NamedTuple):
    """A way to give characters to an LSTM."""

    shape: tuple[int, ...]  # of a window
    layers: list[Any]  # before the LSTM
    encode: Callable[[Any], Any]  # ids (B, T) -> (B, *shape)


def answer(setting: Setting) -> Answer:
    """Train a stock Keras LSTM with the same steps on each of the three inputs."""
    vocabulary = Vocabulary.of(setting.text)
    ids = vocabulary.encode(setting.text).astype(np.int32)
    characters = len(vocabulary)
    one_hot = np.eye(characters, dtype=np.float32)
    ways = {
        "a number from 0 to 1": Encoding((LENGTH, 1), [], lambda x: x[..., None].astype(np.float32) / (characters - 1)),
        "one-hot": Encoding((LENGTH, characters), [], lambda x: one_hot[x]),
        "embedding": Encoding((LENGTH,), [keras.layers.Embedding(characters, EMBEDDING)], lambda x: x),
    }
    curves: dict[str, Curve] = {}
    rows: list[tuple[str, float, int]] = []
    for way, encoding in ways.items():
        curves[way], speed = learn(encoding, ids, characters, setting)
        rows.append((way, curves[way][-1][1], round(speed)))
    number, hot, embedded = (row[1] for row in rows)
    worse = number > max(hot, embedded)
    return Answer(
        [
            Conclusion(
                f"After {curves['one-hot'][-1][0]} steps, a number per character reached {number:.3f} bits per "
                f"character, one-hot vectors {hot:.3f}, an embedding {embedded:.3f}: a number is "
                f"{'not enough' if worse else 'enough'}.",
                worse,
            )
        ],
        [Table(("input", "bits per character", "characters a second"), rows)],
        [Picture("Held-out text, by steps.", plotted(curves, "steps", "bits per character"))],
    )


def learn(encoding: Encoding, ids: Any, characters: int, setting: Setting) -> tuple[Curve, float]:
    """Train on random windows of a text, all but its last tenth; return the curve on that, and characters a second."""
    keras.utils.set_random_seed(setting.random_seed)
    random = np.random.default_rng(setting.random_seed)
    held_out, steps = len(ids) // 10, setting.pick(1200, 90)
    model = keras.Sequential(
        [
            keras.Input(encoding.shape),
            *encoding.layers,
            keras.layers.LSTM(setting.pick(128, 48), return_sequences=True),
            keras.layers.Dense(characters),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    windows = cut(ids[-held_out:], np.arange(0, held_out - LENGTH - 1, LENGTH))
    curve: Curve = []
    seconds = 0.0
    for step in range(steps + 1):
        if step % (steps // 6) == 0:
            x, y = encoding.encode(windows[:, :-1]), windows[:, 1:]
            curve.append((step, bits(float(loss(y, model.predict_on_batch(x))))))
        both = cut(ids[:-held_out], random.integers(0, len(ids) - held_out - LENGTH - 1, BATCH))
        began = time.perf_counter()
        model.train_on_batch(encoding.encode(both[:, :-1]), both[:, 1:])
        seconds += time.perf_counter() - began if step else 0.0  # the first step compiles
    return curve, steps * BATCH * LENGTH / seconds


def cut(ids: Any, starts: Any) -> Any:
    """Return windows (n, T + 1) of a text (N,) from the places (n,)."""
    return ids[starts[:, None] + np.arange(LENGTH + 1)]
