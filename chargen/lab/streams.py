"""Do I need batch size 1 to pass the state on? One text as many streams, each row against a run of its own."""

from __future__ import annotations

import string
import time
from typing import Any

import numpy as np

from chargen.config import ModelConfig, TrainConfig
from chargen.lab import Answer, Conclusion, Picture, Setting, Table
from chargen.lab.learning import Learner, in_order
from chargen.text.streams import Streams
from chargen.text.vocabulary import Vocabulary

EXPECT = """No. Each row of a batch has a state of its own, and rows never mix. If row b of each batch goes on where
row b of the batch before has ended, B texts are read side by side, each as a batch of one would read it, and much
faster."""

ROWS = 32


def answer(setting: Setting) -> Answer:
    """Lay out the alphabet; read a text as 32 streams and as 32 runs of one row; time the training of both."""
    vocabulary = Vocabulary.of(setting.text)
    ids = vocabulary.encode(setting.text)[: setting.pick(64, 8) * ROWS * 32 + 1]
    shape = ModelConfig(units=setting.pick(128, 32))
    settings = {rows: TrainConfig(batch_size=rows, seq_length=32, dropout=0.0) for rows in (1, ROWS)}
    learners = {rows: Learner(len(vocabulary), shape, config) for rows, config in settings.items()}
    many = learners[ROWS]
    many.learn(in_order(ids, settings[ROWS]), setting.pick(200, 20))
    # Two epochs, as in the second each row goes on with the segment that its neighbour has read in the first.
    streams = Streams(ids, ROWS, 32)
    state = many.model.zero_state(ROWS)
    for position in range(2 * streams.windows):
        _, state = many.model(streams.read(position).x, state)
    segment = streams.windows * streams.seq_length
    differences = []
    for row in range(ROWS - 1):  # the last one has come to the text's end, and begun anew
        alone = many.model.zero_state(1)
        _, alone = many.model(ids[None, row * segment : (row + 2) * segment].astype(np.int32), alone)
        pairs = [(a, b[row]) for one, rows in zip(alone, state, strict=True) for a, b in zip(one, rows, strict=True)]
        differences += [float(np.abs(a - b).max()) for a, b in pairs]
    speeds = {}
    for rows, learner in learners.items():
        steps = setting.pick(100, 20)
        windows = in_order(ids, settings[rows])
        learner.learn(windows, 3)  # which compiles
        began = time.perf_counter()
        learner.learn(windows, steps)
        speeds[rows] = steps * rows * 32 / (time.perf_counter() - began)
    largest, faster = max(differences), speeds[ROWS] / speeds[1]
    return Answer(
        [
            Conclusion(
                f"A batch of {ROWS} carries {ROWS} states as {ROWS} runs of one row do: after {2 * segment:,} "
                f"characters they differ by {largest:.1e} at the most.",
                largest < 1e-4,
            ),
            Conclusion(f"It trains on {faster:.1f} times as many characters a second.", faster > 1),
        ],
        [
            Table(
                ("batch size", "characters a second in training"),
                [(rows, round(speed)) for rows, speed in speeds.items()],
            )
        ],
        [
            Picture(
                "The alphabet as 2 streams of 12 letters, read in windows of 4: each row goes on to the right.", draw, 2
            )
        ],
    )


def draw(figure: Any) -> None:
    """Draw the alphabet, twice over for its tail, as it is read by two rows."""
    alphabet = Vocabulary(string.ascii_uppercase)
    streams = Streams(alphabet.encode(string.ascii_uppercase), 2, 4)
    axes = figure.subplots()
    for position in range(streams.windows):
        for row, letters in enumerate(streams.read(position).x):
            for t, id in enumerate(letters):
                x = position * (streams.seq_length + 0.6) + t
                axes.add_patch(figure_square(x, -row, f"C{row}"))
                axes.text(x + 0.45, 0.4 - row, alphabet.characters[id], ha="center", va="center", fontsize=14)
        axes.text(position * (streams.seq_length + 0.6) + 1.9, 1.15, f"window {position + 1}", ha="center")
    for row in range(2):
        axes.text(-0.3, 0.4 - row, f"row {row}", ha="right", va="center")
    axes.set_xlim(-2, streams.windows * (streams.seq_length + 0.6))
    axes.set_ylim(-1.4, 1.6)
    axes.set_aspect("equal")
    axes.axis("off")


def figure_square(x: float, y: float, colour: str) -> Any:
    """Return a square for a letter."""
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 0.9, 0.8, facecolor=colour, alpha=0.25)
