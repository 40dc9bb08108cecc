"""Four nets and a wave. What a plain net, a stateless LSTM, a stateful one and a stacked stateful one make of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from chargen.lab import Answer, Conclusion, Picture, Setting, Table

EXPECT = """One value of a cosine does not tell whether the wave is rising or falling. A net that sees a single
value can only answer in between; so can an LSTM whose state is reset at each value. One that carries its state
knows the direction. It follows the wave one step ahead, and for some time also from its own predictions."""

PERIOD, ROWS, UNITS, WINDOW = 40, 16, 24, 10
BEFORE = 2 * PERIOD  # steps of the wave that a net reads before it is measured
ALONE = 3 * PERIOD  # steps on which it is measured
TRUTH = np.cos(2 * np.pi * np.arange(BEFORE + ALONE + 1) / PERIOD)
KINDS = ("plain net", "LSTM, reset at each value", "stateful LSTM", "two stateful LSTMs")


class Prediction(NamedTuple):
    """A net's predictions of `TRUTH`: of each value from the true ones before it, and from its own."""

    kind: str
    ahead: Any  # (N,)
    freely: Any  # (N,), fed with its own predictions after the first `BEFORE` values


def answer(setting: Setting) -> Answer:
    """Train the four on the same cosine; draw their predictions, one step ahead and running freely."""
    predictions = [predicted(kind, setting) for kind in KINDS]
    rows = [(one.kind, error(one.ahead), error(one.freely)) for one in predictions]
    return Answer(
        conclusions(rows),
        [Table(("net", "error one step ahead", "error running freely"), rows)],
        [
            Picture(
                "The wave (grey), predictions one step ahead (blue) and running freely (red, from the dotted line).",
                lambda figure: draw(figure, predictions),
            )
        ],
    )


def predicted(kind: str, setting: Setting) -> Prediction:
    """Train a net on windows of the wave, whose rows begin at different phases; return its predictions."""
    keras.utils.set_random_seed(setting.random_seed)
    steps = setting.pick(1500, 250)
    phase = np.arange(ROWS)[:, None] / ROWS * PERIOD
    time = np.arange(steps * WINDOW + 1)
    waves = np.cos(2 * np.pi * (time + phase) / PERIOD)[..., None].astype(np.float32)
    model = network(kind, ROWS)
    model.compile(keras.optimizers.Adam(5e-3), "mse")
    for step in range(steps):
        part = waves[:, step * WINDOW : (step + 1) * WINDOW + 1]
        if "reset" in kind:  # a window of one value, because the state lasts for a window
            part = part[:, step % WINDOW :][:, :2]
        model.train_on_batch(part[:, :-1], part[:, 1:])
    alone = network(kind, 1)
    alone.set_weights(model.get_weights())
    carried = "stateful" in kind
    return Prediction(kind, predict(alone, len(TRUTH), carried=carried), predict(alone, BEFORE, carried=carried))


def network(kind: str, rows: int) -> Any:
    """Return a stock Keras model: values (rows, T, 1) -> the value after each, (rows, T, 1)."""
    stateful = "stateful" in kind
    hidden = [keras.layers.Dense(UNITS, activation="tanh")]
    if "LSTM" in kind:
        hidden = [
            keras.layers.LSTM(UNITS, return_sequences=True, stateful=stateful) for _ in range(2 if "two" in kind else 1)
        ]
    return keras.Sequential([keras.Input(batch_shape=(rows, None, 1)), *hidden, keras.layers.Dense(1)])


def predict(model: Any, given: int, *, carried: bool) -> Any:
    """Return a net's prediction of each value from the previous one: the true one up to ``given``, then its own."""
    for layer in model.layers:
        if carried and hasattr(layer, "reset_state"):
            layer.reset_state()
    predictions = [TRUTH[0]]
    for t in range(len(TRUTH) - 1):
        value = TRUTH[t] if t < given else predictions[t]
        predictions.append(float(model.predict_on_batch(np.full((1, 1, 1), value, np.float32))[0, 0, 0]))
    return np.array(predictions)


def error(predictions: Any) -> float:
    """Return the root mean square error of predictions (N,) after the first `BEFORE` values."""
    return float(np.sqrt(np.mean((predictions[BEFORE:] - TRUTH[BEFORE:]) ** 2)))


def conclusions(rows: Sequence[tuple[str, float, float]]) -> list[Conclusion]:
    """Conclude from the errors of each net: (kind, one step ahead, running freely)."""
    ahead = {kind: error for kind, error, _ in rows}
    freely = {kind: error for kind, _, error in rows}
    carried = max(ahead[kind] for kind in KINDS[2:])
    single = min(ahead[kind] for kind in KINDS[:2])
    better = carried < single / 3
    best = min(KINDS, key=lambda kind: freely[kind])
    return [
        Conclusion(
            f"One step ahead, the error of the nets that see a single value is at least {single:.3f}, that of the nets "
            f"that carry a state at most {carried:.4f}: carrying {'helps' if better else 'does not help'}.",
            better,
        ),
        Conclusion(
            f"Running freely for {ALONE} steps, the {best} is best, with an error of {freely[best]:.4f} (a straight "
            f"line at 0: {2**-0.5:.2f}).",
            "stateful" in best,
        ),
    ]


def draw(figure: Any, predictions: Sequence[Prediction]) -> None:
    """Draw the four nets' predictions over the wave."""
    panels = figure.subplots(2, 2, sharex=True, sharey=True).flat
    for axes, (kind, ahead, freely) in zip(panels, predictions, strict=True):
        axes.plot(TRUTH, color="lightgrey", linewidth=4)
        axes.plot(ahead, color="C0", linewidth=1)
        axes.plot(range(BEFORE, len(TRUTH)), freely[BEFORE:], color="C3", linewidth=1)
        axes.axvline(BEFORE, color="grey", linestyle=":")
        axes.set_title(kind, fontsize=10)
        axes.set_ylim(-1.6, 1.6)
