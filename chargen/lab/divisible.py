"""Why must the samples divide by the batch size? Stock Keras programs that fail, and what makes them work."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from chargen.lab import Answer, Conclusion, Picture, Setting, Table
from chargen.text.streams import Streams, fit
from chargen.text.vocabulary import Vocabulary

EXPECT = """A stateful layer keeps one state for each row of the batch, so all batches must have as many rows as the
first: the last, smaller one of a text that does not divide fails, and so does a single text given to a model of 32
rows. Cut the text to fit, and for writing copy the weights into a model of batch size 1. Another thing that is
asked, a loss that rises while training, has nothing to do with either."""

ROWS, LENGTH = 32, 20
SLOWER = "a fiftieth of the rate"


def network(characters: int, rows: int) -> Any:
    """Return a stock stateful Keras model: ids (rows, 20) -> logits (rows, 20, V)."""
    return keras.Sequential(
        [
            keras.Input(batch_shape=(rows, LENGTH), dtype="int32"),
            keras.layers.Embedding(characters, 16),
            keras.layers.LSTM(32, return_sequences=True, stateful=True),
            keras.layers.Dense(characters),
        ]
    )


def compiled(model: Any, rate: float = 0.01, clip: float | None = None) -> Any:
    """Compile a model and return it."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate, clipnorm=clip), loss)
    return model


def answer(setting: Setting) -> Answer:
    """Run the programs as people write them, then as they work; then train with a loss that rises."""
    keras.utils.set_random_seed(setting.random_seed)
    vocabulary = Vocabulary.of(setting.text)
    ids = vocabulary.encode(setting.text[: setting.pick(40_000, 10_000)])
    characters = len(vocabulary)
    samples = (len(ids) - 1) // LENGTH
    if samples % ROWS == 0:
        samples -= 1  # a text that happens to divide
    x = ids[: samples * LENGTH].reshape(samples, LENGTH).astype(np.int32)
    y = ids[1 : samples * LENGTH + 1].reshape(samples, LENGTH).astype(np.int32)
    model = compiled(network(characters, ROWS))
    whole = samples // ROWS * ROWS
    programs: dict[str, Callable[[], Any]] = {
        f"fit, {samples:,} samples in batches of {ROWS}": lambda: model.fit(x, y, batch_size=ROWS, verbose=0),
        f"predict, 1 text by a model of {ROWS} rows": lambda: compiled(network(characters, ROWS))(x[:1]),
        f"fit, cut to {whole:,} samples": lambda: compiled(network(characters, ROWS)).fit(
            x[:whole], y[:whole], batch_size=ROWS, verbose=0
        ),
        "predict, 1 text by a copy of 1 row": lambda: copy(model)(x[:1]),
    }
    errors = {name: failure(program) for name, program in programs.items()}
    shown = list(errors.values())
    fitting, _ = fit(len(ids), ROWS, LENGTH)
    windows = Streams(ids, fitting, LENGTH).windows
    curves = rising(vocabulary, setting)
    base, *changed = curves
    lowest = min(curves[base])
    rise = max(curves[base][curves[base].index(lowest) :]) - lowest
    cures = [name for name in changed if curves[name][-1] < lowest - 0.2]
    return Answer(
        [
            Conclusion(
                f"Samples that don't divide by the batch size {'fail' if shown[0] else 'work'}, cut to fit they "
                f"{'fail' if shown[2] else 'work'}. Laid out as {fitting} streams, this text makes {windows} such "
                f"batches.",
                bool(shown[0]) and not shown[2],
            ),
            Conclusion(
                f"One text {'fails' if shown[1] else 'works'} in a model of {ROWS} rows, and "
                f"{'fails' if shown[3] else 'works'} in a copy of its weights for 1.",
                "Expected batch size: 32" in shown[1] and not shown[3],
            ),
            Conclusion(
                f"The loss that rises, by {rise:.2f} nats, is cured by {', '.join(cures) or 'none of the changes'}: "
                f"{'steps that are too long are its cause' if cures == [SLOWER] else 'its cause is not clear'}.",
                rise > 0.02 and cures == [SLOWER],
            ),
        ],
        [
            Table(("program", "what Keras says"), [(name, error or "works") for name, error in errors.items()]),
            Table(
                ("training", "lowest loss", "last loss"),
                [(name, min(losses), losses[-1]) for name, losses in curves.items()],
            ),
        ],
        [Picture("The loss that rises, and the same training with one thing changed.", lambda f: draw(f, curves))],
    )


def copy(model: Any) -> Any:
    """Return a model of one row with the same weights."""
    alone = network(model.output_shape[-1], 1)
    alone.set_weights(model.get_weights())
    return alone


def failure(program: Callable[[], Any]) -> str:
    """Run a program; return the lines of its error that tell what is wrong, or nothing."""
    try:
        program()
    except Exception as error:  # whatever Keras and TensorFlow raise is what is to be shown
        lines = [re.sub(r"\x1b\[\d*m", "", line).strip() for line in str(error).splitlines()]
        telling = [line for line in lines if re.search(r"batch size|assertion failed|[Ss]hape|Incompatible", line)]
        return f"{type(error).__name__}: {' '.join(telling[:3])}"[:400]
    return ""


def rising(vocabulary: Vocabulary, setting: Setting) -> dict[str, list[float]]:
    """Train at a rate so high that the loss rises, then again with one thing changed each time; the losses by epoch."""
    ids = vocabulary.encode(setting.text[: setting.pick(20_000, 10_000)])
    streams = Streams(ids, 16, LENGTH)
    windows = [streams.read(position) for position in range(streams.windows)]
    x, y = (np.concatenate([getattr(window, part) for window in windows]) for part in ("x", "y"))
    curves = {}
    for name, rate, clip, ordered in (
        ("rate 0.5", 0.5, None, False),
        ("the state reset at each epoch, the order kept", 0.5, None, True),
        ("gradients clipped", 0.5, 1.0, False),
        (SLOWER, 0.01, None, False),
    ):
        keras.utils.set_random_seed(setting.random_seed)
        model = compiled(network(len(vocabulary), 16), rate, clip)
        losses = []
        for _ in range(setting.pick(12, 6)):
            if ordered:
                model.layers[1].reset_state()
            losses += model.fit(x, y, batch_size=16, shuffle=not ordered, verbose=0).history["loss"]
        curves[name] = losses
    return curves


def draw(figure: Any, curves: dict[str, list[float]]) -> None:
    """Draw the losses by epoch."""
    axes = figure.subplots()
    for name, losses in curves.items():
        axes.plot(range(1, len(losses) + 1), losses, marker="o", label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss, nats")
    axes.legend()
