"""Four nets and a wave. What a plain net, a stateless LSTM, a stateful one and a stacked stateful one make of it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from chargen.lab import Answer, Conclusion, Picture, Setting, Table

EXPECT = """One value of a cosine does not tell whether the wave is rising or falling. A net that sees a single
value can only answer in between; so can an LSTM whose state is reset at each value. One that carries its state
knows the direction, and follows the wave, one step ahead and, fed with its own predictions, for some time by
itself."""

PERIOD, ROWS, UNITS = 40, 16, 24
ALONE = 3 * PERIOD  # steps on which a net is fed with its own predictions


def network(kind: str, rows: int) -> Any:
    """Return a stock Keras model: values (rows, T, 1) -> the value after each, (rows, T, 1)."""
    stateful = "stateful" in kind
    hidden = [keras.layers.Dense(UNITS, activation="tanh")]
    if "LSTM" in kind:
        hidden = [
            keras.layers.LSTM(UNITS, return_sequences=True, stateful=stateful) for _ in range(2 if "two" in kind else 1)
        ]
    return keras.Sequential([keras.Input(batch_shape=(rows, None, 1)), *hidden, keras.layers.Dense(1)])


KINDS = ("plain net", "LSTM, reset at each value", "stateful LSTM", "two stateful LSTMs")


def answer(setting: Setting) -> Answer:
    """Train the four on the same cosine; draw their predictions, one step ahead and running freely."""
    steps, window = setting.pick(1500, 250), 10
    # Rows begin at different phases; each goes on from window to window.
    phase = np.arange(ROWS)[:, None] / ROWS * PERIOD
    time = np.arange(steps * window + 1)
    waves = np.cos(2 * np.pi * (time + phase) / PERIOD)[..., None].astype(np.float32)
    before, truth = 2 * PERIOD, np.cos(2 * np.pi * np.arange(2 * PERIOD + ALONE + 1) / PERIOD)
    rows: list[tuple[str, float, float]] = []
    drawn = []
    for kind in KINDS:
        keras.utils.set_random_seed(setting.random_seed)
        model = network(kind, ROWS)
        model.compile(keras.optimizers.Adam(5e-3), "mse")
        for step in range(steps):
            part = waves[:, step * window : (step + 1) * window + 1]
            if "reset" in kind:  # a window of one value, as the state lasts for a window
                part = part[:, step % window :][:, :2]
            model.train_on_batch(part[:, :-1], part[:, 1:])
        alone = network(kind, 1)
        alone.set_weights(model.get_weights())
        ahead = predict(alone, truth, len(truth), carried="stateful" in kind)
        freely = predict(alone, truth, before, carried="stateful" in kind)
        wrong = [float(np.sqrt(np.mean((p[before:] - truth[before:]) ** 2))) for p in (ahead, freely)]
        rows.append((kind, wrong[0], wrong[1]))
        drawn.append((kind, ahead, freely))
    errors = {kind: one for kind, one, _ in rows}
    carried = max(errors[kind] for kind in KINDS[2:])
    single = min(errors[kind] for kind in KINDS[:2])
    better = carried < single / 3
    free = {kind: free for kind, _, free in rows}
    longest = min(KINDS, key=lambda kind: free[kind])
    return Answer(
        [
            Conclusion(
                f"One step ahead, the nets that see a single value are wrong by {single:.3f} and more, those that "
                f"carry a state by {carried:.4f} and less: carrying {'pays' if better else 'does not pay'}.",
                better,
            ),
            Conclusion(
                f"Running freely for {ALONE} steps, the {longest} is best, wrong by {free[longest]:.4f} (a straight "
                f"line at 0 by {2**-0.5:.2f}).",
                "stateful" in longest,
            ),
        ],
        [Table(("net", "error one step ahead", "error running freely"), rows)],
        [
            Picture(
                "The wave (grey), predictions one step ahead (blue) and running freely (red, from the dotted line).",
                lambda figure: draw(figure, truth, drawn, before),
            )
        ],
    )


def predict(model: Any, truth: Any, given: int, *, carried: bool) -> Any:
    """Return a net's predictions of each value from those before it; from ``given`` on it is fed with its own."""
    for layer in model.layers:
        if carried and hasattr(layer, "reset_state"):
            layer.reset_state()
    predictions = [truth[0]]
    for t in range(len(truth) - 1):
        value = truth[t] if t < given else predictions[t]
        predictions.append(float(model.predict_on_batch(np.full((1, 1, 1), value, np.float32))[0, 0, 0]))
    return np.array(predictions)


def draw(figure: Any, truth: Any, drawn: list[tuple[str, Any, Any]], before: int) -> None:
    """Draw the four nets' predictions over the wave."""
    for axes, (kind, ahead, freely) in zip(figure.subplots(2, 2, sharex=True, sharey=True).flat, drawn, strict=True):
        axes.plot(truth, color="lightgrey", linewidth=4)
        axes.plot(ahead, color="C0", linewidth=1)
        axes.plot(range(before, len(truth)), freely[before:], color="C3", linewidth=1)
        axes.axvline(before, color="grey", linestyle=":")
        axes.set_title(kind, fontsize=10)
        axes.set_ylim(-1.6, 1.6)
