"""What lessons share: a model that is trained on any windows, and its loss on each character of a text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count, islice
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from chargen.config import ModelConfig, TrainConfig
from chargen.network.execution import choose
from chargen.network.model import CharLM
from chargen.text.streams import Streams, Window
from chargen.text.vocabulary import Ids
from chargen.training.optimizer import Adam
from chargen.training.schedule import learning_rate
from chargen.training.step import Controls, compile_step

Floats = npt.NDArray[np.float32]
LEARNING_RATE = 0.014  # of the lessons that do not give their own


class Learner:
    """A model and its training step, which can start over with another random seed without compiling again."""

    def __init__(self, characters: int, shape: ModelConfig, settings: TrainConfig) -> None:
        """Make a model for a vocabulary of ``characters`` characters, to be trained without weight drop."""
        execution, _ = choose(settings)
        self.model = CharLM(characters, shape, settings.random_seed, execution)
        self.settings = settings
        self._adam = Adam(self.model.named_weights(), settings.clip_norm)
        self._update = compile_step(self.model, self._adam, replace(settings, weight_drop=0.0))
        # Keras's layers read windows of any shape without compiling for each.
        self._reader = CharLM(characters, shape)
        self._costs = tf.function(self._read, reduce_retracing=True)

    def begin(self, random_seed: int) -> None:
        """Start over with the initial weights of a random seed."""
        first = CharLM(self.model.characters, self.model.config, random_seed)
        self.model.assign(first.arrays())
        for moment in self._adam.moments.values():
            moment.assign(tf.zeros(moment.shape))

    def learn(self, windows: Iterable[Window], steps: int) -> None:
        """Make a number of updates, with the state carried from window to window except in rows that begin."""
        state = self.model.zero_state(self.settings.batch_size)
        for step, window in enumerate(islice(windows, steps)):
            rate = learning_rate(step, 0, steps, self.settings.learning_rate or LEARNING_RATE)
            state, *_ = self._update(window, state, Controls(tf.constant(step, tf.int64), tf.constant(rate)))

    def costs(self, ids: npt.NDArray[Any]) -> Floats:
        """Return the nats of each character but the first of texts (n, N), read from a zero state: (n, N - 1)."""
        self._reader.assign(self.model.arrays())
        x, y = tf.constant(ids[:, :-1], tf.int32), tf.constant(ids[:, 1:], tf.int32)
        return np.array(self._costs(x, y, self.model.zero_state(len(ids))))

    def _read(self, x: tf.Tensor, y: tf.Tensor, state: Any) -> tf.Tensor:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(y, self._reader(x, state)[0])


def in_order(ids: Ids, settings: TrainConfig) -> Iterator[Window]:
    """Yield the windows of B contiguous streams without end."""
    streams = Streams(ids, settings.batch_size, settings.seq_length)
    return map(streams.read, count())


def beginning(windows: Iterable[Window]) -> Iterator[Window]:
    """Yield the same windows, with all rows of each beginning from a zero state."""
    return (window._replace(begins=np.ones_like(window.begins)) for window in windows)


def shuffled(ids: Ids, settings: TrainConfig, random_seed: int) -> Iterator[Window]:
    """Yield windows from random places of the text without end, with all rows beginning from a zero state."""
    random = np.random.default_rng(random_seed)
    begins = np.ones(settings.batch_size, bool)
    while True:
        starts = random.integers(0, len(ids) - settings.seq_length, settings.batch_size)
        both = ids[starts[:, None] + np.arange(settings.seq_length + 1)].astype(np.int32)
        yield Window(both[:, :-1], both[:, 1:], begins)
