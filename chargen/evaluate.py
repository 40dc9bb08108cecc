"""How well a model predicts a text: a sum of nats over a count of characters, read in order with the state carried."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from chargen.model import CharLM, reset_rows
from chargen.unroll import row_groups
from chargen.vocabulary import Ids

RUN_IN = 256  # characters a row reads before the first that counts
ROWS, WINDOW = 64, 64


class Score(NamedTuple):
    """What a text cost: divide the sum of nats by the count of characters."""

    nats: float
    characters: int


def evaluator(model: CharLM) -> Callable[[Ids], Score]:
    """Return a function that scores ids (N,), N at least 2, as one text: N - 1 characters, each predicted once.

    The text is read by up to 64 rows side by side. The first starts from a zero state; each other row first reads the
    256 characters before its part, uncounted, and so comes to its part with the state that a single row would bring,
    or near it: within 0.002 bits per character. The state is the evaluation's own.
    """

    @tf.function  # type: ignore[untyped-decorator]
    def window(x: tf.Tensor, y: tf.Tensor, counts: tf.Tensor, begins: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        read = []
        for rows in row_groups(x.shape[0], model.execution.chains):
            part, carried = tf.nest.map_structure(lambda a: a[rows], (x, reset_rows(state, begins)))  # noqa: B023
            logits, after = model(part, carried)
            nats = tf.nn.sparse_softmax_cross_entropy_with_logits(y[rows], logits)
            read.append((tf.reduce_sum(tf.where(counts[rows], nats, 0)), after))
        sums, states = zip(*read, strict=True)
        return tf.add_n(sums), tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *states)

    def evaluate(ids: Ids) -> Score:
        characters = len(ids) - 1
        rows = max(1, min(ROWS, characters // (4 * RUN_IN)))
        part = -(-characters // rows)
        part += -part % WINDOW if part > WINDOW else 0
        width = min(WINDOW, part)
        # Row r counts the characters predicted from positions r·part .. (r+1)·part - 1, after its run-in.
        run_in = RUN_IN if rows > 1 else 0
        state, sums = model.zero_state(rows), []
        for start in range(-run_in, part, width):
            at = np.arange(rows)[:, None] * part + np.arange(start, start + width)  # (rows, width)
            inside = (at >= 0) & (at < characters)
            at = np.where(inside, at, 0)
            begins = (np.arange(rows) == 0) & (start == 0)
            nats, state = window(
                ids[at].astype(np.int32), ids[at + 1].astype(np.int32), inside & (start >= 0), begins, state
            )
            sums.append(nats)
        return Score(float(np.sum([float(s) for s in sums])), characters)

    return evaluate
