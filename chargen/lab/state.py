"""What is in the state, when does it reset, what do cells remember? Cells that follow something in the text."""

from __future__ import annotations

from typing import Any

import numpy as np

from chargen.config import ModelConfig, TrainConfig
from chargen.lab import Answer, Conclusion, Passage, Picture, Setting, Table
from chargen.lab.learning import Learner, in_order
from chargen.text.vocabulary import Vocabulary
from chargen.writing.clone import Clone

EXPECT = """The state is two vectors of H numbers for each layer, and nothing else: who copies it has copied all
that the model remembers, and it changes only when a character is read, or when it is set. Some cells follow
something that can be named, as Karpathy, Johnson and Fei-Fei (2015) found: whether a quotation is open, how long
the line is."""


SHOWN = 400  # characters of the coloured passages
LEAST = 0.3  # correlation of a cell that is said to follow something


def features(text: str) -> dict[str, Any]:
    """Return, for each character of a text, what a cell might follow when it has read it."""
    quoted, line, word = np.zeros(len(text)), np.zeros(len(text)), np.zeros(len(text))
    inside = False
    for t, character in enumerate(text):
        inside = not inside if character == '"' else inside or character == "\u201c"
        inside = inside and character != "\u201d" and text[max(0, t - 1) : t + 1] != "\n\n"  # a paragraph ends it
        quoted[t] = inside
        line[t] = 0 if character == "\n" else line[t - 1] + 1
        word[t] = word[t - 1] + 1 if character.isalpha() else 0
    return {"a quotation is open": quoted, "characters in the line": line, "letters in the word": word}


def answer(setting: Setting) -> Answer:
    """Train a model; look for cells that follow something; copy, reset and restore its state."""
    vocabulary = Vocabulary.of(setting.text)
    ids = vocabulary.encode(setting.text)
    held_out = min(len(ids) // 5, 40_000)
    training, validation = ids[:-held_out], ids[-held_out:]
    train = TrainConfig(batch_size=32, seq_length=128, dropout=0.1, random_seed=setting.random_seed)
    learner = Learner(len(vocabulary), ModelConfig(units=setting.pick(256, 48)), train)
    learner.learn(in_order(training, train), setting.pick(1500, 150))
    clone = Clone(learner.model.arrays(), vocabulary)
    cells = np.tanh([step(clone, id) for id in validation])  # (N, H): the cells, as the gates let them out
    text = vocabulary.decode(validation)
    half = held_out // 2
    rows, follow, passages = [], {}, []
    for name, values in features(text).items():
        # Found in the first half of a text that was not trained on, and believed only if the second half agrees.
        correlations = correlate(cells[:half], values[:half])
        cell = int(np.argmax(np.abs(correlations)))
        again = float(correlate(cells[half:, [cell]], values[half:])[0])
        rows.append((name, cell, float(correlations[cell]), again, float(np.median(np.abs(correlations)))))
        follow[f"{name} (cell {cell}, {again:+.2f})"] = bool(abs(again) > LEAST and again * correlations[cell] > 0)
        passages.append(
            Passage(
                f"Cell {cell}, which was found for \u201c{name}\u201d",
                text[half : half + SHOWN],
                (np.sign(again) * cells[half : half + SHOWN, cell]).tolist(),
            )
        )
    found, missed = ([name for name, does in follow.items() if does is which] for which in (True, False))
    conclusions = [
        Conclusion(
            f"On a text in which they were not looked for, cells follow {' and '.join(found) or 'nothing'}"
            + (f", not {' nor '.join(missed)}." if missed else "."),
            len(found) >= setting.pick(2, 1),
        ),
        copied(clone, text),
    ]

    def draw(figure: Any) -> None:
        shown = cells[half : half + 120, [row[1] for row in rows]].T
        axes = figure.subplots()
        axes.imshow(shown, aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set_yticks(range(len(rows)), [f"cell {row[1]}: {row[0]}" for row in rows])
        axes.set_xticks(range(120), [c if c != "\n" else "\u21b5" for c in text[half : half + 120]], fontsize=6)

    return Answer(
        conclusions,
        [
            Table(
                ("what it may follow", "cell", "correlation where it was found", "on other text", "a cell's median"),
                rows,
            )
        ],
        [Picture("The three cells over a stretch of held-out text: blue is -1, red is 1.", draw)],
        passages,
    )


def step(clone: Clone, id: int) -> Any:
    """Read a character; return the cells c of the highest layer: (H,)."""
    clone.step(np.array([id]))
    return clone.state[-1].c[0]


def copied(clone: Clone, text: str) -> Conclusion:
    """Conclude whether a state that is kept, reset and put back is all that a model remembers."""
    clone.reset_states()
    clone.feed(text[:500])
    kept = clone.state
    expected = clone.feed(text[500:505])
    clone.reset_states()
    fresh = clone.feed(text[500:505])
    clone.state = kept
    again = clone.feed(text[500:505])
    restored, reset = float(np.abs(again - expected).max()), float(np.abs(fresh - expected).max())
    right = restored == 0 < reset
    return Conclusion(
        f"Put back, a state gives {'the very same' if restored == 0 else 'other'} logits; after a reset they differ by "
        f"{reset:.2f}, 5 characters later still.",
        right,
    )


def correlate(cells: Any, values: Any) -> Any:
    """Return the correlation of each cell, cells (N, n), with values (N,): (n,); of constants it is 0."""
    cells, values = cells - cells.mean(0), values - values.mean()
    norms = np.sqrt((cells**2).sum(0) * (values**2).sum())
    return (cells * values[:, None]).sum(0) / np.maximum(norms, 1e-12)
