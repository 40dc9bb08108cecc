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
from chargen.text.vocabulary import Ids, Vocabulary

EXPECT = """No. Each row of a batch has a state of its own, and rows never mix. If row b of each batch continues where
row b of the previous batch ended, B texts are read side by side. Each is read as a batch of one would read it, and all
together much faster."""

ROWS, LENGTH = 32, 32


def answer(setting: Setting) -> Answer:
    """Lay out the alphabet; read a text as 32 streams and as 32 runs of one row; time the training of both."""
    vocabulary = Vocabulary.of(setting.text)
    ids = vocabulary.encode(setting.text)[: setting.pick(64, 8) * ROWS * LENGTH + 1]
    shape = ModelConfig(units=setting.pick(128, 32))
    learners = {
        rows: Learner(len(vocabulary), shape, TrainConfig(batch_size=rows, seq_length=LENGTH, dropout=0.0))
        for rows in (1, ROWS)
    }
    many = learners[ROWS]
    many.learn(in_order(ids, many.settings), setting.pick(200, 20))
    read, largest = difference(many, ids)
    speeds = {rows: speed(learner, ids, setting.pick(100, 20)) for rows, learner in learners.items()}
    faster = speeds[ROWS] / speeds[1]
    return Answer(
        [
            Conclusion(
                f"A batch of {ROWS} carries {ROWS} states as {ROWS} runs of one row do: after {read:,} characters they "
                f"differ by {largest:.1e} at most.",
                largest < 1e-4,
            ),
            Conclusion(f"It trains on {faster:.1f} times as many characters a second.", faster > 1),
        ],
        [
            Table(
                ("batch size", "characters a second in training"),
                [(rows, round(each)) for rows, each in speeds.items()],
            )
        ],
        [
            Picture(
                "The alphabet as 2 streams of 12 letters, read in windows of 4: each row continues to the right.",
                draw,
                2,
            )
        ],
    )


def difference(learner: Learner, ids: Ids) -> tuple[int, float]:
    """Read two epochs as 32 streams, and each stream alone.

    Returns the number of characters of a stream, and the largest difference of a number in the two states. In the
    second epoch, each row reads the segment that the next row has read in the first. The last row begins anew, at the
    start of the text, and is left out.
    """
    streams = Streams(ids, ROWS, LENGTH)
    state = learner.model.zero_state(ROWS)
    for position in range(2 * streams.windows):
        _, state = learner.model(streams.read(position).x, state)
    segment = streams.windows * streams.seq_length
    differences = []
    for row in range(ROWS - 1):
        alone = learner.model.zero_state(1)
        _, alone = learner.model(ids[None, row * segment : (row + 2) * segment].astype(np.int32), alone)
        pairs = [(a, b[row]) for one, rows in zip(alone, state, strict=True) for a, b in zip(one, rows, strict=True)]
        differences += [float(np.abs(a - b).max()) for a, b in pairs]
    return 2 * segment, max(differences)


def speed(learner: Learner, ids: Ids, steps: int) -> float:
    """Return how many characters a second a number of training steps read."""
    windows = in_order(ids, learner.settings)
    learner.learn(windows, 3)  # compiles the step
    began = time.perf_counter()
    learner.learn(windows, steps)
    return steps * learner.settings.batch_size * LENGTH / (time.perf_counter() - began)


def draw(figure: Any) -> None:
    """Draw the alphabet as it is read by two rows."""
    alphabet = Vocabulary(string.ascii_uppercase)
    streams = Streams(alphabet.encode(string.ascii_uppercase), 2, 4)
    axes = figure.subplots()
    for position in range(streams.windows):
        for row, letters in enumerate(streams.read(position).x):
            for t, id in enumerate(letters):
                x = position * (streams.seq_length + 0.6) + t
                axes.add_patch(square(x, -row, f"C{row}"))
                axes.text(x + 0.45, 0.4 - row, alphabet.characters[id], ha="center", va="center", fontsize=14)
        axes.text(position * (streams.seq_length + 0.6) + 1.9, 1.15, f"window {position + 1}", ha="center")
    for row in range(2):
        axes.text(-0.3, 0.4 - row, f"row {row}", ha="right", va="center")
    axes.set_xlim(-2, streams.windows * (streams.seq_length + 0.6))
    axes.set_ylim(-1.4, 1.6)
    axes.set_aspect("equal")
    axes.axis("off")


def square(x: float, y: float, colour: str) -> Any:
    """Return a matplotlib patch that is the background of a letter."""
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 0.9, 0.8, facecolor=colour, alpha=0.25)
