"""Whose text is it? A model of each author against a classifier, on held-out passages."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from chargen import ChargenError
from chargen.config import ModelConfig, TrainConfig
from chargen.lab import Answer, Conclusion, Picture, Setting, Table
from chargen.lab.learning import Learner, in_order
from chargen.text.streams import fit
from chargen.text.vocabulary import Vocabulary

EXPECT = """A model of an author's text needs fewer bits for that author's other texts than for those of others. So the
model with the fewest bits names the author of a passage. A classifier, trained only to tell the authors apart, should
do as well or better. Both should become better as passages get longer."""

LENGTHS = (10, 20, 40, 80, 160, 320)


def answer(setting: Setting) -> Answer:
    """Train a model of each author and a classifier; let them name the authors of passages of several lengths."""
    names = list(setting.voices)
    if len(names) < 2:
        raise ChargenError("the lesson author needs two or more texts: give them with --texts")
    vocabulary = Vocabulary.of("".join(setting.voices.values()))
    texts = [vocabulary.encode(text) for text in setting.voices.values()]
    if min(map(len, texts)) < 10 * LENGTHS[-1]:
        raise ChargenError(f"the lesson author needs texts of {10 * LENGTHS[-1]:,} characters or more")
    known = [text[: len(text) * 4 // 5] for text in texts]
    unseen = [text[len(text) * 4 // 5 :] for text in texts]
    rows, length = fit(min(map(len, known)), 16, 64)
    train = TrainConfig(batch_size=rows, seq_length=length, dropout=0.3, random_seed=setting.random_seed)
    learners = []
    for text in known:
        learner = Learner(len(vocabulary), ModelConfig(units=setting.pick(128, 32)), train)
        learner.learn(in_order(text, train), setting.pick(500, 60))
        learners.append(learner)
    classify = classifier(known, len(vocabulary), setting)
    random = np.random.default_rng(setting.random_seed)
    table = []
    for count in LENGTHS:
        passages, authors = drawn(unseen, count, setting.pick(300, 60), random)
        costs = np.stack([learner.costs(passages).sum(1) for learner in learners])
        right = (costs.argmin(0) == authors).mean(), (classify(passages) == authors).mean()
        table.append((count, float(right[0]), float(right[1])))
    shortest, longest = table[0], table[-1]
    better = longest[1] >= longest[2]
    return Answer(
        [
            Conclusion(
                f"Models name the author of {longest[1]:.0%} of the passages of {longest[0]} characters, and of "
                f"{shortest[1]:.0%} of those of {shortest[0]}; guessing names {1 / len(names):.0%}.",
                longest[1] > shortest[1] > 1 / len(names) and longest[1] > setting.pick(0.95, 0.6),
            ),
            Conclusion(
                f"The classifier names {longest[2]:.0%} and {shortest[2]:.0%}: at {longest[0]} characters the models "
                f"are {'as good or better' if better else 'not as good'}.",
                longest[2] > 1 / len(names),
            ),
        ],
        [Table(("characters in the passage", "right by the models", "right by the classifier"), table)],
        [Picture("Passages whose author was named correctly.", lambda figure: draw(figure, table, len(names)))],
    )


def drawn(texts: list[Any], length: int, count: int, random: np.random.Generator) -> tuple[Any, Any]:
    """Return passages (n, length) from random places of random texts, and the index of each one's text: (n,)."""
    authors = random.integers(0, len(texts), count)
    starts = [random.integers(0, len(texts[author]) - length + 1) for author in authors]
    passages = [texts[a][start : start + length] for a, start in zip(authors, starts, strict=True)]
    return np.array(passages, np.int32), authors


def classifier(known: list[Any], characters: int, setting: Setting) -> Any:
    """Train a stock Keras classifier, a softmax on an LSTM's final state; return its function passages -> authors."""
    keras.utils.set_random_seed(setting.random_seed)
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(characters, 32),
            keras.layers.LSTM(setting.pick(128, 32)),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(len(known)),
        ]
    )
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    random = np.random.default_rng(setting.random_seed)
    lengths = LENGTHS[1::2]
    for step in range(setting.pick(600, 90)):
        model.train_on_batch(*drawn(known, lengths[step % len(lengths)], 48, random))
    return lambda passages: np.asarray(model.predict_on_batch(passages)).argmax(-1)


def draw(figure: Any, table: list[tuple[int, float, float]], authors: int) -> None:
    """Draw accuracy against the length of the passages."""
    xs, models, classified = zip(*table, strict=True)
    axes = figure.subplots()
    axes.plot(xs, models, marker="o", label="a model of each author")
    axes.plot(xs, classified, marker="o", label="a classifier")
    axes.axhline(1 / authors, color="grey", linestyle=":", label="guessing")
    axes.set_xscale("log")
    axes.set_xticks(xs, map(str, xs))
    axes.set_xlabel("characters in the passage")
    axes.set_ylabel("named correctly")
    axes.legend()
