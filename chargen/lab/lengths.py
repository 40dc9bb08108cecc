"""Texts of different lengths? Padded rows with a mask against one joined stream whose state restarts."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from chargen.bits import bits
from chargen.config import Execution, ModelConfig, TrainConfig
from chargen.lab import Answer, Conclusion, Picture, Setting, Table
from chargen.lab.learning import Learner, in_order
from chargen.network.model import CharLM
from chargen.network.unroll import Masks
from chargen.text.vocabulary import Vocabulary

EXPECT = """Two ways lead to the same losses. Either each text is a row of its own, filled up to the longest, and a
mask keeps the filling out of the loss; or all texts are joined to one stream and the state is set to zero where a
text begins. Joined without that, a text's first characters are read with the state of another text, and cost
something else."""


def answer(setting: Setting) -> Answer:
    """Score the same paragraphs padded, joined with restarts, and joined without."""
    vocabulary = Vocabulary.of(setting.text)
    ids = vocabulary.encode(setting.text)
    train = TrainConfig(batch_size=16, seq_length=64, random_seed=setting.random_seed)
    learner = Learner(len(vocabulary), ModelConfig(units=setting.pick(192, 48)), train)
    learner.learn(in_order(ids, train), setting.pick(800, 80))
    # In bfloat16 the joined stream would differ by what is rounded.
    model = CharLM(len(vocabulary), learner.model.config, execution=Execution("loop"))
    model.assign(learner.model.arrays())
    paragraphs = [p + "\n" for p in setting.text.split("\n\n") if 20 <= len(p) <= 600]
    random = np.random.default_rng(setting.random_seed)
    count = min(len(paragraphs), setting.pick(128, 24))
    texts = [vocabulary.encode(paragraphs[k]).astype(np.int32) for k in random.permutation(len(paragraphs))[:count]]
    lengths = np.array([len(text) for text in texts])

    # Padded: (n, longest); the mask keeps what belongs to no text out of the loss.
    padded = np.zeros((count, lengths.max()), np.int32)
    mask = np.arange(lengths.max() - 1) < lengths[:, None] - 1
    for row, text in zip(padded, texts, strict=True):
        row[: len(text)] = text
    apart = learner.costs(padded)[mask]

    # Joined: (1, all); what follows a text's last character is another text's first, and is not counted either.
    joined = np.concatenate(texts)
    begins = np.zeros(len(joined), bool)
    begins[np.cumsum(lengths)[:-1]] = True
    begins[0] = True
    counted = ~begins[1:]

    def read(restart: Any) -> Any:
        logits, _ = model.read(joined[None, :-1], model.zero_state(1), Masks(restarts=restart))
        costs = tf.nn.sparse_softmax_cross_entropy_with_logits(joined[None, 1:], logits)
        return costs.numpy()[0][counted]

    restarted, run_on = read(tf.constant(begins[None, :-1])), read(None)
    largest, change = float(np.abs(apart - restarted).max()), float(np.abs(apart - run_on).max())
    position = np.concatenate([np.arange(1, n) for n in lengths])
    early, late = (float(np.abs(apart - run_on)[which].mean()) for which in (position <= 10, position > 100))
    equal = largest < 1e-3  # both are float32, in another order
    return Answer(
        [
            Conclusion(
                f"Padded with a mask and joined with restarts cost {'the same' if equal else 'not the same'}: no "
                f"character differs by more than {largest:.1e} nats.",
                equal,
            ),
            Conclusion(
                f"Joined without restarts, single characters differ by up to {change:.1f} nats; within a text's first "
                f"10 characters by {early:.3f} on average, after 100 by {late:.3f}.",
                change > 10 * largest and early > late,
            ),
        ],
        [
            Table(
                ("layout", "characters read", "bits per character"),
                [
                    ("padded, with a mask", int(padded.size), bits(float(apart.mean()))),
                    ("joined, with restarts", len(joined), bits(float(restarted.mean()))),
                    ("joined, without", len(joined), bits(float(run_on.mean()))),
                ],
            )
        ],
        [
            Picture(
                "What joining without restarts changes, by the position in a text.",
                lambda figure: draw(figure, position, np.abs(apart - run_on)),
            )
        ],
    )


def draw(figure: Any, position: Any, change: Any) -> None:
    """Draw the mean change of a character's cost against its position in its text."""
    places = range(1, 201)
    means = [change[position == place].mean() if (position == place).any() else np.nan for place in places]
    axes = figure.subplots()
    axes.plot(places, means)
    axes.set_xlabel("position in the text")
    axes.set_ylabel("nats of difference")
