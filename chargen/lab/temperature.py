"""What does temperature do? Entropy, words that are not in the book, and copied passages, by temperature."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from chargen.bits import bits
from chargen.config import ModelConfig, TrainConfig
from chargen.lab import Answer, Conclusion, Picture, Setting, Table
from chargen.lab.learning import Learner, in_order
from chargen.text.vocabulary import Vocabulary
from chargen.writing.clone import Clone
from chargen.writing.sampler import probabilities

EXPECT = """Logits are divided by the temperature before they become probabilities. Below 1, likely characters become
more likely: lower entropy, fewer misspelt words, more phrases copied from the book. Above 1 the opposite happens."""

TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5)


def answer(setting: Setting) -> Answer:
    """Train a model; let it write at several temperatures; measure the texts."""
    text = setting.text
    vocabulary = Vocabulary.of(text)
    ids = vocabulary.encode(text)
    train = TrainConfig(batch_size=32, seq_length=64, dropout=0.1, random_seed=setting.random_seed)
    learner = Learner(len(vocabulary), ModelConfig(units=setting.pick(256, 48)), train)
    learner.learn(in_order(ids, train), setting.pick(1200, 200))
    length = setting.pick(16, 8)  # characters; a passage of this length from the book counts as copied
    words = set(re.findall(r"\w+", text.lower()))
    passages = {text[i : i + length] for i in range(len(text) - length + 1)}
    rows = []
    for temperature in TEMPERATURES:
        clone = Clone(learner.model.arrays(), vocabulary)
        drawn = "".join(
            clone.generate(setting.pick(5000, 1500), temperature=temperature, random_seed=setting.random_seed)
        )
        clone.reset_states()
        chances = probabilities(clone.read(vocabulary.encode(drawn)).astype(float) / temperature)
        entropy = bits(float(-(chances * np.log(np.maximum(chances, 1e-300))).sum(-1).mean()))
        found = re.findall(r"\w+", drawn.lower())[1:-1]
        misspelt = sum(word not in words for word in found) / max(1, len(found))
        places = len(drawn) - length + 1
        copied = sum(drawn[i : i + length] in passages for i in range(places)) / places
        rows.append((temperature, entropy, misspelt, copied))
    entropies, strange, repeated = (np.array(column) for column in list(zip(*rows, strict=True))[1:])
    return Answer(
        [
            Conclusion(
                f"The entropy of a character is {entropies[0]:.2f} bits at temperature {TEMPERATURES[0]} and "
                f"{entropies[-1]:.2f} at {TEMPERATURES[-1]}: it "
                f"{'grows' if (np.diff(entropies) > 0).all() else 'does not always grow'} with the temperature.",
                bool((np.diff(entropies) > 0).all()),
            ),
            Conclusion(
                f"Words that are not in the book: {strange[0]:.0%} at {TEMPERATURES[0]}, "
                f"{strange[TEMPERATURES.index(1.0)]:.0%} at 1, {strange[-1]:.0%} at {TEMPERATURES[-1]}.",
                bool(strange[0] < strange[-1]),
            ),
            Conclusion(
                f"Passages of {length} characters copied from the book: {repeated[0]:.0%} at {TEMPERATURES[0]}, "
                f"{repeated[-1]:.0%} at {TEMPERATURES[-1]}.",
                bool(repeated[0] > repeated[-1]),
            ),
        ],
        [Table(("temperature", "bits of entropy per character", "misspelt words", "copied passages"), rows)],
        [Picture("Entropy, misspelt words and copied passages, by temperature.", lambda figure: draw(figure, rows))],
    )


def draw(figure: Any, rows: list[tuple[float, float, float, float]]) -> None:
    """Draw the three measures, each against the temperature."""
    xs, *columns = zip(*rows, strict=True)
    titles = ("bits of entropy per character", "misspelt words", "copied passages")
    for axes, values, title in zip(figure.subplots(1, 3), columns, titles, strict=True):
        axes.plot(xs, values, marker="o")
        axes.set_title(title)
        axes.set_xlabel("temperature")
