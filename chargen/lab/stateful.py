"""Does carrying the state help? The same model and steps, with the state carried, reset, and windows shuffled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from chargen.bits import bits
from chargen.config import ModelConfig, TrainConfig
from chargen.lab import Answer, Conclusion, Picture, Setting, Table
from chargen.lab.learning import Learner, beginning, in_order, shuffled
from chargen.text.streams import Window
from chargen.text.vocabulary import Ids, Vocabulary

EXPECT = """A character is easier to predict if more was read before it. If the state is reset at every window, the
first characters of each window are expensive. The shorter the windows, the larger the share of these characters."""

WAYS = ("carried", "reset at every window", "windows shuffled")
LENGTHS = (16, 64)  # of a window

Costs = dict[tuple[str, int], list[Any]]  # (way, T) -> for each random seed, the nats by position, (T,)


def answer(setting: Setting) -> Answer:
    """Train three ways, with two window lengths and several random seeds; compare bits per character."""
    costs = measured(setting)
    means = {key: [bits(float(one.mean())) for one in runs] for key, runs in costs.items()}
    rows = [
        (way, length, float(np.mean(means[way, length])), float(np.ptp(means[way, length]))) for way, length in means
    ]
    return Answer(
        [*(compare(means, length, WAYS) for length in LENGTHS), compare_lengths(means)],
        [Table(("training", "window", "bits per character", "between the best and the worst seed"), rows)],
        [
            Picture(
                "Bits per character by position in the window, on text that was not trained on.",
                lambda figure: draw(figure, costs),
            )
        ],
    )


def measured(setting: Setting) -> Costs:
    """Train each way with each window length and random seed; score each model on held-out text."""
    vocabulary = Vocabulary.of(setting.text)
    ids = vocabulary.encode(setting.text)
    held_out = len(ids) // 10
    training, validation = ids[:-held_out], ids[-setting.pick(held_out, 5000) :]
    found: Costs = {}
    for length in LENGTHS:
        train = TrainConfig(batch_size=32, seq_length=length, learning_rate=0.01, dropout=0.0)
        learner = Learner(len(vocabulary), ModelConfig(units=setting.pick(128, 48)), train)
        for seed in range(setting.random_seed, setting.random_seed + setting.pick(3, 2)):
            for way in WAYS:
                learner.begin(seed)
                learner.learn(windows(way, training, train, seed), setting.pick(400, 60))
                found.setdefault((way, length), []).append(by_position(learner, validation, length, way == WAYS[0]))
    return found


def windows(way: str, ids: Ids, train: TrainConfig, seed: int) -> Iterator[Window]:
    """Return the windows on which a model is trained in one of the ways."""
    if way == WAYS[2]:
        return shuffled(ids, train, seed)
    return in_order(ids, train) if way == WAYS[0] else beginning(in_order(ids, train))


def by_position(learner: Learner, ids: Any, length: int, carried: bool) -> Any:
    """Return the mean nats of a held-out text's characters by their position in windows of T: (T,).

    If ``carried``, the state is carried from window to window, as in training; otherwise each begins at a zero state.
    """
    windows = (len(ids) - 1) // length
    if carried:
        costs = learner.costs(ids[None, : windows * length + 1])
    else:
        costs = learner.costs(ids[np.arange(windows)[:, None] * length + np.arange(length + 1)])
    return costs.reshape(windows, length).mean(0)


def compare(means: dict[tuple[str, int], list[float]], length: int, ways: tuple[str, ...]) -> Conclusion:
    """Conclude whether carrying the state is better with every random seed, at a window length."""
    carried, *others = (means[way, length] for way in ways)
    better = all(c < min(rest) for c, *rest in zip(carried, *others, strict=True))
    best = min(float(np.mean(other)) for other in others)
    return Conclusion(
        f"With windows of {length}, carrying the state is {'better' if better else 'not always better'}: "
        f"{np.mean(carried):.3f} bits per character against {best:.3f}.",
        better,
    )


def compare_lengths(means: dict[tuple[str, int], list[float]]) -> Conclusion:
    """Conclude whether a reset costs more with shorter windows."""
    short, long = (np.mean(means[WAYS[1], length]) - np.mean(means[WAYS[0], length]) for length in LENGTHS)
    return Conclusion(
        f"A reset costs {'more' if short > long else 'no more'} where windows are shorter: {short:.3f} bits per "
        f"character at 16, {long:.3f} at 64.",
        bool(short > long),
    )


def draw(figure: Any, costs: Costs) -> None:
    """Draw bits per character against the position in the window, for each window length and way."""
    for axes, length in zip(figure.subplots(1, 2, sharey=True), LENGTHS, strict=True):
        for way in WAYS:
            curves = [[bits(float(nats)) for nats in one] for one in costs[way, length]]
            axes.plot(range(1, length + 1), np.mean(curves, 0), label=way)
        axes.set_xlabel(f"position in a window of {length}")
    figure.axes[0].set_ylabel("bits per character")
    figure.axes[0].legend()
