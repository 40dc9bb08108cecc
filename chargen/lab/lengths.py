"""Texts of different lengths? Padded rows with a mask against one joined stream whose state restarts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from chargen.bits import bits
from chargen.config import Execution, ModelConfig, TrainConfig
from chargen.lab import Answer, Conclusion, Picture, Setting, Table
from chargen.lab.learning import Learner, in_order
from chargen.network.model import CharLM
from chargen.network.unroll import Masks
from chargen.text.vocabulary import Ids, Vocabulary

EXPECT = """Two layouts lead to the same losses. Either each text is a row of its own, padded to the longest, and a mask
keeps the padding out of the loss; or all texts are joined to one stream, and the state is set to zero where a text
begins. If they are joined without that, the first characters of a text are read with the state of another text, and
their losses differ."""


def answer(setting: Setting) -> Answer:
    """Score the same paragraphs padded, joined with restarts, and joined without."""
    learner, texts = prepared(setting)
    padded, apart = read_padded(learner, texts)
    joined, restarted, run_on = read_joined(learner, texts)
    change = np.abs(apart - run_on)
    position = np.concatenate([np.arange(1, len(text)) for text in texts])
    return Answer(
        conclusions(float(np.abs(apart - restarted).max()), change, position),
        [
            Table(
                ("layout", "characters read", "bits per character"),
                [
                    ("padded, with a mask", padded, bits(float(apart.mean()))),
                    ("joined, with restarts", joined, bits(float(restarted.mean()))),
                    ("joined, without", joined, bits(float(run_on.mean()))),
                ],
            )
        ],
        [
            Picture(
                "The change by joining without restarts, by position in a text.",
                lambda figure: draw(figure, position, change),
            )
        ],
    )


def prepared(setting: Setting) -> tuple[Learner, list[Any]]:
    """Train a model; return it and the ids (n,) of random paragraphs of different lengths."""
    vocabulary = Vocabulary.of(setting.text)
    train = TrainConfig(batch_size=16, seq_length=64, dropout=0.1, random_seed=setting.random_seed)
    learner = Learner(len(vocabulary), ModelConfig(units=setting.pick(192, 48)), train)
    learner.learn(in_order(vocabulary.encode(setting.text), train), setting.pick(800, 80))
    paragraphs = [p + "\n" for p in setting.text.split("\n\n") if 20 <= len(p) <= 600]
    random = np.random.default_rng(setting.random_seed)
    count = min(len(paragraphs), setting.pick(128, 24))
    chosen = random.permutation(len(paragraphs))[:count]
    return learner, [vocabulary.encode(paragraphs[k]).astype(np.int32) for k in chosen]


def read_padded(learner: Learner, texts: Sequence[Ids]) -> tuple[int, Any]:
    """Read each text in a row of its own; return the number of ids read, and the nats of each character."""
    lengths = np.array([len(text) for text in texts])
    padded = np.zeros((len(texts), lengths.max()), np.int32)
    mask = np.arange(lengths.max() - 1) < lengths[:, None] - 1  # False where the target is padding
    for row, text in zip(padded, texts, strict=True):
        row[: len(text)] = text
    return int(padded.size), learner.costs(padded)[mask]


def read_joined(learner: Learner, texts: Sequence[Ids]) -> tuple[int, Any, Any]:
    """Read all texts as one stream, with and without restarts.

    Returns the number of ids read, and the nats of each character with restarts and without. The first character of a
    text is a target only in this layout, and is not counted.
    """
    # In bfloat16, rounding would make the joined stream differ.
    model = CharLM(learner.model.characters, learner.model.config, execution=Execution("loop"))
    model.assign(learner.model.arrays())
    joined = np.concatenate(texts)
    begins = np.zeros(len(joined), bool)
    begins[np.cumsum([0, *map(len, texts[:-1])])] = True

    def read(restarts: Any) -> Any:
        logits, _ = model.read(joined[None, :-1], model.zero_state(1), Masks(restarts=restarts))
        costs = tf.nn.sparse_softmax_cross_entropy_with_logits(joined[None, 1:], logits)
        return costs.numpy()[0][~begins[1:]]

    return len(joined), read(tf.constant(begins[None, :-1])), read(None)


def conclusions(largest: float, change: Any, position: Any) -> list[Conclusion]:
    """Conclude from the largest difference with restarts, and from each character's change (n,) without them."""
    early, late = (float(change[which].mean()) for which in (position <= 10, position > 100))
    most, equal = float(change.max()), largest < 1e-3  # both are float32, summed in a different order
    return [
        Conclusion(
            f"Padded with a mask and joined with restarts cost {'the same' if equal else 'not the same'}: no character "
            f"differs by more than {largest:.1e} nats.",
            equal,
        ),
        Conclusion(
            f"Joined without restarts, single characters differ by up to {most:.1f} nats: the first 10 "
            f"characters of a text by {early:.3f} on average, those after 100 by {late:.3f}.",
            most > 10 * largest and early > late,
        ),
    ]


def draw(figure: Any, position: Any, change: Any) -> None:
    """Draw the mean change of a character's cost against its position in its text."""
    places = range(1, 201)
    means = [change[position == place].mean() if (position == place).any() else np.nan for place in places]
    axes = figure.subplots()
    axes.plot(places, means)
    axes.set_xlabel("position in the text")
    axes.set_ylabel("difference in nats")
