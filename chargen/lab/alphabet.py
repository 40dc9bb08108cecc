"""Did it learn the letters, or only their positions? The tutorial that learns the alphabet one letter at a time."""

from __future__ import annotations

import string
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from chargen.lab import Answer, Conclusion, Picture, Setting, Table

EXPECT = """A stateful LSTM that always sees A, B, C, ... from A on, with its state reset at each A, can be right by
counting alone. Asked from M on, it answers as if it had been asked from A: B, then C. If it sees the alphabet from
every letter on, counting does not help, and it has to look at the letter. A net without a state cannot count."""

ALPHABET = string.ascii_uppercase
LETTERS = len(ALPHABET)


def answer(setting: Setting) -> Answer:
    """Train the tutorial's net, the same on rotations, and a feed-forward net on pairs; ask each from every letter."""
    counting = trained([0], setting.pick(300, 80), setting)
    rotated = trained(range(LETTERS), setting.pick(600, 300), setting)
    plain = feed_forward(setting)
    nets: dict[str, Callable[[str], list[str]]] = {
        "stateful, always from A": partial(recite, counting),
        "stateful, from every letter": partial(recite, rotated),
        "feed-forward, on pairs": lambda letters: named(plain.predict_on_batch(numbers(letters))),
    }
    # After a reset, eight letters from each letter on are asked one after the other.
    answers = {way: [ask(follow(first, 8)) for first in ALPHABET] for way, ask in nets.items()}
    shares = {way: right(found) for way, found in answers.items()}
    tutorial = recite(counting, "ME")
    positions = np.mean([[a == ALPHABET[n + 1] for n, a in enumerate(found)] for found in answers[next(iter(nets))]])
    rows = [(way, shares[way], "".join(answers[way][ALPHABET.index("M")])) for way in nets]
    first, second, third = nets
    wrong = tutorial == list("BC")
    return Answer(
        [
            Conclusion(
                f"Trained always from A, the net answers {tutorial[0]} to M and then {tutorial[1]} to E: "
                f"{positions:.0%} of its answers are the letter at that place from A on; {shares[first]:.0%} are "
                f"right.",
                wrong and bool(positions > 0.9),
            ),
            Conclusion(
                f"Trained from every letter, it answers {shares[second]:.0%} right.",
                shares[second] > setting.pick(0.95, 0.8),
            ),
            Conclusion(f"A net without a state answers {shares[third]:.0%} right.", shares[third] > 0.95),
        ],
        [Table(("training", "right answers, from every letter", "answers to M N O P Q R S T"), rows)],
        [
            Picture(
                "Answers to eight letters from each letter on: green is right.",
                lambda figure: draw(figure, answers),
            )
        ],
    )


def follow(first: str, count: int) -> str:
    """Return ``count`` letters of the alphabet from ``first`` on; A follows Z."""
    return "".join(ALPHABET[(ALPHABET.index(first) + k) % LETTERS] for k in range(count))


def right(answers: list[list[str]]) -> float:
    """Return the share of right answers: the letter after the one that was asked."""
    return float(
        np.mean(
            [
                answer == follow(first, len(found) + 1)[n + 1]
                for first, found in zip(ALPHABET, answers, strict=True)
                for n, answer in enumerate(found)
            ]
        )
    )


def scaled(letters: str) -> Any:
    """Return letters as numbers from 0 to 1, (n, 1, 1), as in the tutorial."""
    return (numbers(letters) / LETTERS).astype(np.float32)[:, None, None]


def numbers(letters: str) -> Any:
    """Return the indices of letters in the alphabet, from 0: (n,)."""
    return np.array([ALPHABET.index(letter) for letter in letters])


def network(rows: int) -> Any:
    """Return the tutorial's stateful net: a number for each row, (rows, 1, 1) -> probabilities (rows, 26)."""
    return keras.Sequential(
        [
            keras.Input(batch_shape=(rows, 1, 1)),
            keras.layers.LSTM(50, stateful=True),
            keras.layers.Dense(LETTERS, activation="softmax"),
        ]
    )


def trained(starts: Any, epochs: int, setting: Setting) -> Any:
    """Train a net on the alphabet from each of the starts, a row for each; return it with batch size 1."""
    keras.utils.set_random_seed(setting.random_seed)
    order = np.array([[(start + k) % LETTERS for start in starts] for k in range(LETTERS + 1)])
    model = network(len(starts))
    model.compile(keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy")
    steps = LETTERS if len(starts) > 1 else LETTERS - 1  # from A on the alphabet ends at Z
    x, y = tf.constant(order / LETTERS, tf.float32)[..., None, None], tf.constant(order)

    @tf.function  # type: ignore[untyped-decorator]
    def epoch() -> None:
        for k in tf.range(steps):
            model.train_step((x[k], y[k + 1]))

    for _ in range(epochs):
        model.layers[0].reset_state()
        epoch()
    alone = network(1)
    alone.set_weights(model.get_weights())
    return alone


def recite(model: Any, letters: str) -> list[str]:
    """Return a net's answers to letters, one after the other, after a reset."""
    model.layers[0].reset_state()
    return [named(model.predict_on_batch(value[None]))[0] for value in scaled(letters)]


def named(chances: Any) -> list[str]:
    """Return the most likely letters of (n, 26) probabilities."""
    return [ALPHABET[k] for k in np.asarray(chances).argmax(-1)]


def feed_forward(setting: Setting) -> Any:
    """Train a net without a state on pairs of a letter and the next one."""
    keras.utils.set_random_seed(setting.random_seed)
    model = keras.Sequential(
        [
            keras.Input((), dtype="int32"),
            keras.layers.Embedding(LETTERS, 16),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(LETTERS, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    ids = np.arange(LETTERS)
    for _ in range(200):
        model.train_on_batch(ids, (ids + 1) % LETTERS)
    return model


def draw(figure: Any, answers: dict[str, list[list[str]]]) -> None:
    """Draw each net's answers as a table of letters, a row for each first letter."""
    for axes, (way, found) in zip(figure.subplots(1, len(answers)), answers.items(), strict=True):
        for row, (first, letters) in enumerate(zip(ALPHABET, found, strict=True)):
            axes.text(-1.2, row, first, ha="center", va="center", fontsize=7, fontweight="bold")
            for n, letter in enumerate(letters):
                good = letter == follow(first, n + 2)[-1]
                axes.text(n, row, letter, ha="center", va="center", fontsize=7, color="green" if good else "red")
        axes.set_title(way, fontsize=9)
        axes.set_xlim(-2, 8)
        axes.set_ylim(LETTERS, -1)
        axes.axis("off")
