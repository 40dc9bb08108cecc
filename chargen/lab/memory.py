"""How far back does it remember? The loss on a character by the number of characters read before it."""

from __future__ import annotations

from typing import Any

import numpy as np

from chargen.bits import bits
from chargen.config import ModelConfig, TrainConfig
from chargen.lab import Answer, Conclusion, Picture, Setting, Table
from chargen.lab.learning import Learner, in_order
from chargen.text.vocabulary import Vocabulary

EXPECT = """The nearest characters of context help most: a letter says much about the next one. The gain falls fast. But
words, the sentence and the subject lie further back, so a little is gained for long, even beyond the 64 characters
through which the gradient flows, because the state is carried in training."""


def answer(setting: Setting) -> Answer:
    """Train one model with its state carried; score the same characters with contexts of 1 to 1,000 characters."""
    vocabulary = Vocabulary.of(setting.text)
    ids = vocabulary.encode(setting.text)
    held_out = len(ids) // 10
    training, validation = ids[:-held_out], ids[-held_out:]
    train = TrainConfig(batch_size=32, seq_length=64, dropout=0.1, random_seed=setting.random_seed)
    learner = Learner(len(vocabulary), ModelConfig(units=setting.pick(256, 48)), train)
    learner.learn(in_order(training, train), setting.pick(1500, 400))
    contexts = [1, 2, 4, 8, 16, 32, 64, 128, 256, *setting.pick([512, 1000], [])]
    places = np.linspace(contexts[-1], len(validation) - 1, setting.pick(2000, 400)).astype(int)  # of the targets
    costs = []
    for context in contexts:
        read = validation[places[:, None] + np.arange(-context, 1)]
        parts = [learner.costs(part)[:, -1] for part in np.array_split(read, max(1, len(places) * context // 50_000))]
        costs.append(np.concatenate(parts))
    means = [bits(float(cost.mean())) for cost in costs]
    # The standard error of the mean difference, at the same characters.
    errors = [bits(float((cost - costs[-1]).std() / len(places) ** 0.5)) for cost in costs]
    used = next(c for c, mean, error in zip(contexts, means, errors, strict=True) if mean - means[-1] <= 2 * error)
    short = means[0] - means[contexts.index(16)]
    far = means[contexts.index(16)] - means[-1]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.errorbar(contexts, means, errors, marker="o", capsize=3)
        axes.set_xscale("log")
        axes.set_xlabel("characters read before")
        axes.set_ylabel("bits per character")

    return Answer(
        [
            Conclusion(
                f"The first 16 characters of context gain {short:.2f} bits per character, all further ones {far:.2f}.",
                short > far > 0,
            ),
            Conclusion(
                f"This model, trained in windows of {train.seq_length}, uses {used} characters: the gain from more of "
                f"them is not significant.",
                used >= setting.pick(16, 4),
            ),
        ],
        [
            Table(
                ("characters read before", "bits per character", "standard error of the difference to the most"),
                list(zip(contexts, means, errors, strict=True)),
            )
        ],
        [Picture("Bits per character, by the number of characters read before it.", draw)],
    )
