"""Does carrying the state help? The same model and steps, with the state carried, reset, and windows shuffled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from chargen.bits import bits
from chargen.config import ModelConfig, TrainConfig
from chargen.lab import Answer, Conclusion, Picture, Setting, Table
from chargen.lab.learning import Learner, beginning, in_order, shuffled
from chargen.text.streams import Window
from chargen.text.vocabulary import Vocabulary

EXPECT = """A character is easier to predict the more was read before it. A state that is reset at every window
makes the window's first characters expensive, and the shorter the windows, the more of all characters are among the
first."""


def answer(setting: Setting) -> Answer:
    """Train three ways, for two lengths of windows and several random seeds; compare bits per character."""
    vocabulary = Vocabulary.of(setting.text)
    ids = vocabulary.encode(setting.text)
    held_out = len(ids) // 10
    training, validation = ids[:-held_out], ids[-setting.pick(held_out, 5000) :]
    seeds = range(setting.random_seed, setting.random_seed + setting.pick(3, 2))
    steps, units = setting.pick(400, 60), setting.pick(128, 48)
    ways = ("carried", "reset at every window", "windows shuffled")
    found: dict[tuple[str, int], list[Any]] = {}  # (way, T) -> for each random seed the nats by position, (T,)
    for length in (16, 64):
        train = TrainConfig(batch_size=32, seq_length=length, learning_rate=0.01, dropout=0.0)
        learner = Learner(len(vocabulary), ModelConfig(units=units), train)
        for seed in seeds:
            streams = partial(in_order, training, train)
            windows: dict[str, Callable[[], Iterator[Window]]] = {
                ways[0]: streams,
                ways[1]: lambda streams=streams: beginning(streams()),  # type: ignore[misc]
                ways[2]: partial(shuffled, training, train, seed),
            }
            for way in ways:
                learner.begin(seed)
                learner.learn(windows[way](), steps)
                found.setdefault((way, length), []).append(by_position(learner, validation, length, way == ways[0]))
    means = {key: [bits(float(one.mean())) for one in runs] for key, runs in found.items()}
    rows = [
        (way, length, float(np.mean(means[way, length])), float(np.ptp(means[way, length]))) for way, length in means
    ]
    conclusions = [compare(means, length, ways) for length in (16, 64)]
    gains = [np.mean(means[ways[1], t]) - np.mean(means[ways[0], t]) for t in (16, 64)]
    shorter = gains[0] > gains[1]
    conclusions.append(
        Conclusion(
            f"A reset costs {'more' if shorter else 'no more'} where windows are shorter: {gains[0]:.3f} bits per "
            f"character at 16, {gains[1]:.3f} at 64.",
            bool(shorter),
        )
    )

    def draw(figure: Any) -> None:
        for axes, length in zip(figure.subplots(1, 2, sharey=True), (16, 64), strict=True):
            for way in ways:
                curves = [[bits(float(nats)) for nats in one] for one in found[way, length]]
                axes.plot(range(1, length + 1), np.mean(curves, 0), label=way)
            axes.set_xlabel(f"position in a window of {length}")
        figure.axes[0].set_ylabel("bits per character")
        figure.axes[0].legend()

    return Answer(
        conclusions,
        [Table(("training", "window", "bits per character", "between the best and the worst seed"), rows)],
        [Picture("What a character costs by its position in the window, on text that was not trained on.", draw)],
    )


def by_position(learner: Learner, ids: Any, length: int, carried: bool) -> Any:
    """Return the mean nats of a held-out text's characters by their position in windows of T: (T,).

    A model that was trained with its state carried reads on through the windows; others begin at each.
    """
    windows = (len(ids) - 1) // length
    if carried:
        costs = learner.costs(ids[None, : windows * length + 1])
    else:
        costs = learner.costs(ids[np.arange(windows)[:, None] * length + np.arange(length + 1)])
    return costs.reshape(windows, length).mean(0)


def compare(means: dict[tuple[str, int], list[float]], length: int, ways: tuple[str, ...]) -> Conclusion:
    """Conclude whether carrying wins at a window length in every random seed."""
    carried, *others = (means[way, length] for way in ways)
    better = all(c < min(rest) for c, *rest in zip(carried, *others, strict=True))
    best = min(float(np.mean(other)) for other in others)
    return Conclusion(
        f"With windows of {length}, carrying the state is {'better' if better else 'not always better'}: "
        f"{np.mean(carried):.3f} bits per character against {best:.3f}.",
        better,
    )
