"""What is in the state, when does it reset, what do cells remember? Cells that follow something in the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from chargen.config import ModelConfig, TrainConfig
from chargen.lab import Answer, Conclusion, Passage, Picture, Setting, Table
from chargen.lab.learning import Learner, in_order
from chargen.text.vocabulary import Ids, Vocabulary
from chargen.writing.clone import Clone

EXPECT = """The state is two vectors of H numbers for each layer, and nothing else. A copy of it is a copy of all that
the model remembers. It changes only when a character is read or when it is set. Some cells follow something that has a
name, as Karpathy, Johnson and Fei-Fei (2015) found: whether a quotation is open, or how long the line is."""


PASSAGE_LENGTH = 400  # characters of the coloured passages
PICTURE_LENGTH = 120  # characters of the picture
LEAST_CORRELATION = 0.3  # of a cell that is said to follow something


class Follower(NamedTuple):
    """The cell that follows a feature of the text best."""

    feature: str
    cell: int
    correlation: float  # in the first half of the text, where the cell was searched for
    again: float  # in the second half
    median: float  # of all cells' absolute correlations in the first half

    @property
    def follows(self) -> bool:
        """Whether the second half of the text confirms what was found in the first."""
        return abs(self.again) > LEAST_CORRELATION and self.again * self.correlation > 0


def answer(setting: Setting) -> Answer:
    """Train a model; search for cells that follow something; copy, reset and restore its state."""
    clone, validation = trained(setting)
    cells = np.tanh([step(clone, id) for id in validation])  # (N, H): the cells as the output gate receives them
    text = clone.vocabulary.decode(validation)
    half = len(text) // 2
    found = [follower(cells, name, values) for name, values in features(text).items()]
    return Answer(
        [followed(found, setting.pick(2, 1)), copied(clone, text)],
        [
            Table(
                ("what it may follow", "cell", "correlation where it was found", "on other text", "a cell's median"),
                found,
            )
        ],
        [
            Picture(
                "The three cells over a part of the held-out text: blue is -1, red is 1.",
                lambda figure: draw(figure, cells[half:], found, text[half:]),
            )
        ],
        [passage(one, cells[half:], text[half:]) for one in found],
    )


def trained(setting: Setting) -> tuple[Clone, Ids]:
    """Train a model; return its clone and the ids of the held-out text."""
    vocabulary = Vocabulary.of(setting.text)
    ids = vocabulary.encode(setting.text)
    held_out = min(len(ids) // 5, 40_000)
    train = TrainConfig(batch_size=32, seq_length=128, dropout=0.1, random_seed=setting.random_seed)
    learner = Learner(len(vocabulary), ModelConfig(units=setting.pick(256, 48)), train)
    learner.learn(in_order(ids[:-held_out], train), setting.pick(1500, 150))
    return Clone(learner.model.arrays(), vocabulary), ids[-held_out:]


def features(text: str) -> dict[str, Any]:
    """Return what a cell might follow: name -> a value for each character of the text, after it was read, (N,)."""
    quoted, line, word = np.zeros(len(text)), np.zeros(len(text)), np.zeros(len(text))
    inside = False
    for t, character in enumerate(text):
        inside = not inside if character == '"' else inside or character == "\u201c"
        inside = inside and character != "\u201d" and text[max(0, t - 1) : t + 1] != "\n\n"  # a paragraph ends it
        quoted[t] = inside
        line[t] = 0 if character == "\n" else line[t - 1] + 1
        word[t] = word[t - 1] + 1 if character.isalpha() else 0
    return {"a quotation is open": quoted, "characters in the line": line, "letters in the word": word}


def step(clone: Clone, id: int) -> Any:
    """Read a character; return the cells c of the highest layer: (H,)."""
    clone.step(np.array([id]))
    return clone.state[-1].c[0]


def follower(cells: Any, feature: str, values: Any) -> Follower:
    """Search the first half of a text for the cell (of cells (N, H)) that follows values (N,); check on the second."""
    half = len(values) // 2
    correlations = correlate(cells[:half], values[:half])
    cell = int(np.argmax(np.abs(correlations)))
    again = float(correlate(cells[half:, [cell]], values[half:])[0])
    return Follower(feature, cell, float(correlations[cell]), again, float(np.median(np.abs(correlations))))


def correlate(cells: Any, values: Any) -> Any:
    """Return the correlation of each cell, cells (N, n), with values (N,): (n,); that of constants is 0."""
    cells, values = cells - cells.mean(0), values - values.mean()
    norms = np.sqrt((cells**2).sum(0) * (values**2).sum())
    return (cells * values[:, None]).sum(0) / np.maximum(norms, 1e-12)


def followed(found: Sequence[Follower], least: int) -> Conclusion:
    """Conclude whether at least so many cells follow something."""
    names = [(one.follows, f"{one.feature} (cell {one.cell}, {one.again:+.2f})") for one in found]
    hits, misses = ([name for follows, name in names if follows is which] for which in (True, False))
    return Conclusion(
        f"On text in which they were not searched for, cells follow {' and '.join(hits) or 'nothing'}"
        + (f", not {' nor '.join(misses)}." if misses else "."),
        len(hits) >= least,
    )


def copied(clone: Clone, text: str) -> Conclusion:
    """Conclude whether a state that is copied, reset and restored is all that a model remembers."""
    clone.reset_states()
    clone.feed(text[:500])
    kept = clone.state
    expected = clone.feed(text[500:505])
    clone.reset_states()
    fresh = clone.feed(text[500:505])
    clone.state = kept
    again = clone.feed(text[500:505])
    restored, reset = float(np.abs(again - expected).max()), float(np.abs(fresh - expected).max())
    return Conclusion(
        f"A restored state gives {'exactly the same' if restored == 0 else 'other'} logits. After a reset they differ "
        f"by up to {reset:.2f}, even 5 characters later.",
        restored == 0 < reset,
    )


def passage(found: Follower, cells: Any, text: str) -> Passage:
    """Return a text coloured by the cell that was found for a feature."""
    return Passage(
        f"Cell {found.cell}, which was found for \u201c{found.feature}\u201d",
        text[:PASSAGE_LENGTH],
        (np.sign(found.again) * cells[:PASSAGE_LENGTH, found.cell]).tolist(),
    )


def draw(figure: Any, cells: Any, found: Sequence[Follower], text: str) -> None:
    """Draw the cells that were found over the text."""
    axes = figure.subplots()
    shown = cells[:PICTURE_LENGTH, [one.cell for one in found]].T
    axes.imshow(shown, aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_yticks(range(len(found)), [f"cell {one.cell}: {one.feature}" for one in found])
    characters = [c if c != "\n" else "\u21b5" for c in text[:PICTURE_LENGTH]]
    axes.set_xticks(range(PICTURE_LENGTH), characters, fontsize=6)
