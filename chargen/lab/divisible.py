"""Why must the samples divide by the batch size? Stock Keras programs that fail, and changes that make them work."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from chargen.lab import Answer, Conclusion, Picture, Setting, Table, plotted
from chargen.text.streams import Streams, fit
from chargen.text.vocabulary import Ids, Vocabulary

EXPECT = """A stateful layer keeps one state for each row of the batch, so all batches must have as many rows as the
first. The last, smaller batch of a text that does not divide fails, and so does a single text given to a model of 32
rows. Cut the text to fit, and copy the weights into a model of batch size 1 to generate text. A loss that rises during
training, which people often ask about too, has another cause."""

ROWS, LENGTH = 32, 20
LOW_RATE = "a fiftieth of the rate"


def answer(setting: Setting) -> Answer:
    """Run the programs as people write them, then as they work; then train with a loss that rises."""
    vocabulary = Vocabulary.of(setting.text)
    ids = vocabulary.encode(setting.text[: setting.pick(40_000, 10_000)])
    errors = {name: failure(program) for name, program in programs(ids, len(vocabulary), setting.random_seed).items()}
    curves = rising(vocabulary, setting)
    points = {name: list(enumerate(losses, 1)) for name, losses in curves.items()}
    return Answer(
        [*shapes(list(errors.values()), ids), cause(curves)],
        [
            Table(("program", "Keras's error"), [(name, error or "works") for name, error in errors.items()]),
            Table(
                ("training", "lowest loss", "last loss"),
                [(name, min(losses), losses[-1]) for name, losses in curves.items()],
            ),
        ],
        [
            Picture(
                "The loss that rises, and the same training with one change.",
                plotted(points, "epoch", "training loss, nats"),
            )
        ],
    )


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


def programs(ids: Ids, characters: int, random_seed: int) -> dict[str, Callable[[], Any]]:
    """Return the four programs, by a description of each: two that fail, and the same two with a change."""
    keras.utils.set_random_seed(random_seed)
    samples = (len(ids) - 1) // LENGTH
    samples -= samples % ROWS == 0  # a text that happens to divide
    x = ids[: samples * LENGTH].reshape(samples, LENGTH).astype(np.int32)
    y = ids[1 : samples * LENGTH + 1].reshape(samples, LENGTH).astype(np.int32)
    model = compiled(network(characters, ROWS))
    whole = samples // ROWS * ROWS
    return {
        f"fit, {samples:,} samples in batches of {ROWS}": lambda: model.fit(x, y, batch_size=ROWS, verbose=0),
        f"predict, 1 text by a model of {ROWS} rows": lambda: compiled(network(characters, ROWS))(x[:1]),
        f"fit, cut to {whole:,} samples": lambda: compiled(network(characters, ROWS)).fit(
            x[:whole], y[:whole], batch_size=ROWS, verbose=0
        ),
        "predict, 1 text by a copy of 1 row": lambda: copy(model)(x[:1]),
    }


def copy(model: Any) -> Any:
    """Return a model of one row with the same weights."""
    alone = network(model.output_shape[-1], 1)
    alone.set_weights(model.get_weights())
    return alone


def failure(program: Callable[[], Any]) -> str:
    """Run a program; return the lines of its error that say what is wrong, or nothing."""
    try:
        program()
    except Exception as error:  # all that Keras and TensorFlow raise is to be shown
        lines = [re.sub(r"\x1b\[\d*m", "", line).strip() for line in str(error).splitlines()]
        telling = [line for line in lines if re.search(r"batch size|assertion failed|[Ss]hape|Incompatible", line)]
        return f"{type(error).__name__}: {' '.join(telling[:3])}"[:400]
    return ""


def shapes(errors: list[str], ids: Ids) -> list[Conclusion]:
    """Conclude from the errors of the programs, in their order."""
    fails = ["fails" if error else "works" for error in errors]
    rows, _ = fit(len(ids), ROWS, LENGTH)
    windows = Streams(ids, rows, LENGTH).windows
    return [
        Conclusion(
            f"Training on samples that do not divide by the batch size {fails[0]}; cut to fit, it {fails[2]}. Laid out "
            f"as {rows} streams, this text makes {windows} full batches.",
            bool(errors[0]) and not errors[2],
        ),
        Conclusion(
            f"One text {fails[1]} in a model of {ROWS} rows, and {fails[3]} in a copy of its weights for 1.",
            "Expected batch size: 32" in errors[1] and not errors[3],
        ),
    ]


def rising(vocabulary: Vocabulary, setting: Setting) -> dict[str, list[float]]:
    """Train at a rate so high that the loss rises, then again with one change each time; return the losses by epoch."""
    ids = vocabulary.encode(setting.text[: setting.pick(20_000, 10_000)])
    streams = Streams(ids, 16, LENGTH)
    windows = [streams.read(position) for position in range(streams.windows)]
    x, y = (np.concatenate([getattr(window, part) for window in windows]) for part in ("x", "y"))
    curves = {}
    for name, rate, clip, ordered in (
        ("rate 0.5", 0.5, None, False),
        ("the state reset at each epoch, the order kept", 0.5, None, True),
        ("gradients clipped", 0.5, 1.0, False),
        (LOW_RATE, 0.01, None, False),
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


def cause(curves: Mapping[str, list[float]]) -> Conclusion:
    """Conclude from the losses which change, of those after the first training, stops the rise."""
    base, *changed = curves
    lowest = min(curves[base])
    rise = max(curves[base][curves[base].index(lowest) :]) - lowest
    cures = [name for name in changed if curves[name][-1] < lowest - 0.2]
    return Conclusion(
        f"The loss rises by {rise:.2f} nats. It is cured by {', '.join(cures) or 'none of the changes'}: "
        f"{'the cause is a learning rate that is too high' if cures == [LOW_RATE] else 'the cause is not clear'}.",
        rise > 0.02 and cures == [LOW_RATE],
    )
