"""How well a model predicts a text: the nats that each of its characters costs. Divide their sum by their count.

An evaluation is a function from ids (N,), N at least 2, and the places where documents start in them, in order, to
what all but the first of them cost a model, (N - 1,) float32, each given what was read of its document before it; or
(K, N - 1) at K temperatures, where it is made for them. Each protocol makes one of a model.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from math import exp
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from chargen import ChargenError
from chargen.bits import bits
from chargen.network.execution import shard_rows
from chargen.network.model import CharLM, reset_rows
from chargen.network.unroll import Masks, State
from chargen.text.corpus import Starts
from chargen.text.vocabulary import Ids, Vocabulary
from chargen.training.distribute import ALONE, Place, share_of

RUN_IN = 256  # characters a row reads before the first that counts
ROWS, WINDOW = 64, 64
WORTH_A_ROW = 4 * RUN_IN  # characters
CONTEXT = 256  # of nanoGPT's small configurations
RATE, DECAY, EPSILON = (
    1e-3,
    0.999,
    1e-5,
)  # of a dynamic evaluation's steps: 0.070 nats gained on 30 KB of a play; 3e-4 0.053
STEP = 32  # characters between two updates: 16 gains no more in half as much time again, 64 less

Costs = npt.NDArray[np.float32]
NO_STARTS: Starts = np.zeros(0, np.int64)


class Evaluation(Protocol):
    """What the head of this file calls an evaluation."""

    def __call__(self, ids: Ids, starts: Starts = NO_STARTS) -> Costs:
        """Return the costs (N - 1,) of ids (N,), or (K, N - 1)."""


class Score(NamedTuple):
    """What a text cost a model, or several texts after each other."""

    costs: npt.NDArray[np.float64]  # (N,) nats; of a text's first known character, which nothing has to predict, 0
    unknown: str  # the characters that the model has no id for, each once; they are among the costs
    unknown_characters: int  # how many of the text's characters they are
    unknown_nats: float  # what they cost together
    texts: int = 1

    @property
    def characters(self) -> int:
        """How many characters were predicted: all but the first of each text."""
        return len(self.costs) - self.texts

    @property
    def nats_per_character(self) -> float:
        """The mean cost."""
        return float(self.costs.sum()) / self.characters

    def to_json(self) -> dict[str, float]:
        """Return the figures, without the single costs."""
        nats = self.nats_per_character
        return {
            "nats_per_character": nats,
            "bpc": bits(nats),
            "perplexity": exp(nats),
            "characters": self.characters,
            "unknown_characters": self.unknown_characters,
        }


def score(text: str, vocabulary: Vocabulary, evaluate: Evaluation, starts: Starts = NO_STARTS) -> Score:
    """Return what a text costs, unknown characters included (`Vocabulary.escape_nats`).

    The model reads its own unknown character in their place, if it has one, and else doesn't read them. ``starts`` are
    the places in the text where documents start. Raises ChargenError if fewer than two of its characters are known.
    """
    ids, known = vocabulary.encode_known(text)
    if len(ids) < 2:
        raise ChargenError("the text is too short: it has fewer than two characters that the model knows")
    read = known | (vocabulary.unknown is not None)
    places: Starts = (np.cumsum(read) - read)[starts]
    return _score(text, vocabulary, known, np.concatenate([[0], evaluate(ids, places[places < len(ids)])]))


def score_each(texts: Sequence[str], vocabulary: Vocabulary, evaluate: Evaluation) -> list[Score]:
    """Return what each of several texts costs, as `score` does: they are documents of one evaluation, in their order.

    Each has two characters at least that are known.
    """
    encoded = [vocabulary.encode_known(text) for text in texts]
    starts = np.cumsum([len(ids) for ids, _ in encoded])[:-1]
    costs = np.concatenate([[0], evaluate(np.concatenate([ids for ids, _ in encoded]), starts)])
    costs[starts] = 0
    parts = zip(texts, encoded, np.split(costs, starts), strict=True)
    return [_score(text, vocabulary, known, own) for text, (_, known), own in parts]


def together(scores: Sequence[Score]) -> Score:
    """Return the scores of several texts as one."""
    return Score(
        np.concatenate([score.costs for score in scores]),
        "".join(dict.fromkeys("".join(score.unknown for score in scores))),
        sum(score.unknown_characters for score in scores),
        sum(score.unknown_nats for score in scores),
        sum(score.texts for score in scores),
    )


def _score(text: str, vocabulary: Vocabulary, known: npt.NDArray[np.bool_], read: npt.NDArray[Any]) -> Score:
    """Return the score of a text whose characters are ``known`` or not, of which those that are read cost ``read``."""
    costs = np.zeros(len(text))
    costs[known | (vocabulary.unknown is not None)] = read
    count = int((~known).sum())
    escape = vocabulary.escape_nats(count, len(text))
    costs[~known] = escape / max(count, 1)
    unknown = "".join(dict.fromkeys(c for c, has_id in zip(text, known, strict=True) if not has_id))
    return Score(costs, unknown, count, escape)


def in_order(model: CharLM, which: Place = ALONE, temperatures: Sequence[float] | None = None) -> Evaluation:
    """Return the evaluation of a text that is read in order, the state carried from its first character to its last.

    The text is read by up to 64 rows side by side. The first starts from a zero state; each other row first reads the
    256 characters before its part, uncounted, and so comes to its part with the state that a single row would bring,
    or near it: within 0.002 bits per character. The state is the evaluation's own. It restarts where documents start.

    Of several workers, each reads its share of the rows only; what the other rows' characters cost is 0 to it. With K
    ``temperatures`` the costs are (K, N - 1): what the characters cost if the logits are divided by each.
    """
    window, degrees = _window(model, temperatures), () if temperatures is None else (len(temperatures),)

    def evaluate(ids: Ids, starts: Starts = NO_STARTS) -> Costs:
        characters = len(ids) - 1
        rows, run_in, part = _rows(characters)
        starting, width = _marked(len(ids), starts), min(WINDOW, part)
        own, costs = np.arange(rows)[share_of(rows, which)], np.zeros((*degrees, rows * part), np.float32)
        state = model.zero_state(len(own))
        for start in range(-run_in, part, width) if len(own) else ():
            at = own[:, None] * part + np.arange(start, start + width)  # (rows, width)
            inside = np.where((at >= 0) & (at < characters), at, 0)
            begins = (own == 0) & (start == 0)
            restarts = starting[inside] if starting[inside].any() else None
            x, y = ids[inside].astype(np.int32), ids[inside + 1].astype(np.int32)
            nats, state = window(x, y, begins, state, restarts)
            if start >= 0:
                costs[..., at] = nats
        return costs[..., :characters]

    return evaluate


def reading_time(evaluate: Evaluation, ids: Ids, starts: Starts = NO_STARTS) -> float:
    """Return the seconds that an `in_order` evaluation of ids (N,) takes, without its compiling.

    It is measured on a text's beginning, long enough that its windows are as large as the whole text's.
    """
    few, began = ids[: ROWS * WORTH_A_ROW + 1], 0.0
    inside = starts[starts < len(few)]
    if len(starts) and not len(inside):
        inside = np.array([len(few) // 2])  # as windows with a start are compiled apart from those without
    for _ in range(2):  # the first of which compiles
        began = time.monotonic()
        evaluate(few, inside)
    (_, first, short), (_, _, whole) = _rows(len(few) - 1), _rows(len(ids) - 1)
    return (time.monotonic() - began) * (first + whole) / (first + short)


def _rows(characters: int) -> tuple[int, int, int]:
    """Return how many rows read so many characters, what each reads before its part, and its part."""
    rows = max(1, min(ROWS, characters // WORTH_A_ROW))
    # Row r counts the characters predicted from positions r·part .. (r+1)·part - 1, after its run-in.
    part = -(-characters // rows)
    return rows, RUN_IN if rows > 1 else 0, part + (-part % WINDOW if part > WINDOW else 0)


def in_windows(model: CharLM) -> Evaluation:
    """Return the evaluation that knows at most 256 characters, as nanoGPT's does: every window from a zero state.

    Each document begins with a window of its own.
    """
    window = _window(model)

    def evaluate(ids: Ids, starts: Starts = NO_STARTS) -> Costs:
        characters = len(ids) - 1
        borders = itertools.pairwise([0, *starts[starts < characters].tolist(), characters])
        first = np.concatenate([np.arange(start, end, CONTEXT) for start, end in borders])  # of each window
        end = np.minimum(first + CONTEXT, [*first[1:], characters])
        rows, costs = min(ROWS, len(first)), np.zeros(characters, np.float32)
        for number in range(0, len(first), rows):
            # The last windows are read more than once, so that there are as many in each turn.
            own = np.minimum(np.arange(number, number + rows), len(first) - 1)
            at = first[own, None] + np.arange(CONTEXT)
            inside = np.minimum(at, characters - 1)
            x, y = ids[inside].astype(np.int32), ids[inside + 1].astype(np.int32)
            nats, _ = window(x, y, np.ones(rows, bool), model.zero_state(rows))
            counted = at < end[own, None]
            costs[at[counted]] = np.asarray(nats)[counted]
        return costs

    return evaluate


def _window(model: CharLM, temperatures: Sequence[float] | None = None) -> Callable[..., tuple[Costs, State]]:
    """Return the compiled reading of a window.

    It takes x, y (B, T) int32, begins (B,) bool, a state, and restarts (B, T) bool or None; it returns nats (B, T), or
    (K, B, T) with K temperatures, and the state.
    """

    def cost(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        if temperatures is None:
            return tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        # Less their maximum once, for all: 8 temperatures of 65 logits take as long as TensorFlow's one operation
        # (1.7 ms for 4,096 characters), of 10,000 logits 2.4 times as long. One after the other, as each takes as much
        # memory as the logits.
        logits -= tf.reduce_max(logits, -1, keepdims=True)
        own = tf.gather(logits, y, batch_dims=2)
        return tf.map_fn(
            lambda t: tf.math.log(tf.reduce_sum(tf.exp(logits / t), -1)) - own / t,
            tf.constant(temperatures, tf.float32),
            parallel_iterations=1,
        )

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def window(
        x: tf.Tensor, y: tf.Tensor, begins: tf.Tensor, state: State, restarts: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, State]:
        read, groups = [], shard_rows(x.shape[0], model.execution.shards)
        layers = model.prepared([rows.stop - rows.start for rows in groups])
        for rows in groups:
            part, carried = tf.nest.map_structure(lambda a: a[rows], (x, reset_rows(state, begins)))  # noqa: B023
            within = None if restarts is None else restarts[rows]
            logits, after = model.read(part, carried, Masks(restarts=within), layers)
            read.append((cost(logits, y[rows]), after))
        nats, states = zip(*read, strict=True)
        return tf.concat(nats, -2), tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *states)

    return window  # type: ignore[no-any-return]


def dynamic(model: CharLM) -> Evaluation:
    """Return the evaluation of a model that goes on learning from what it has scored (Krause et al. 2018).

    One row reads the text in order; after each stretch the weights take a step along its gradient, so every character
    is predicted by weights that have seen only what stands before it. The model's weights are as before afterwards.
    """
    weights = [weight.value for weight in model.named_weights().values()]
    squares = [tf.Variable(tf.zeros(weight.shape), trainable=False) for weight in weights]

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def learn(x: tf.Tensor, y: tf.Tensor, state: State, restarts: Any, count: tf.Tensor) -> tuple[tf.Tensor, State]:
        with tf.GradientTape() as tape:
            logits, state = model.read(x, tf.nest.map_structure(tf.stop_gradient, state), Masks(restarts=restarts))
            nats = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
            loss = tf.reduce_mean(nats)
        for weight, square, gradient in zip(weights, squares, tape.gradient(loss, weights), strict=True):
            gradient = tf.convert_to_tensor(gradient)
            square.assign(DECAY * square + (1 - DECAY) * gradient * gradient)
            weight.assign_sub(RATE * gradient / (tf.sqrt(square / (1 - tf.pow(DECAY, count))) + EPSILON))
        return nats, state

    def evaluate(ids: Ids, starts: Starts = NO_STARTS) -> Costs:
        kept, read, starting = model.arrays(), _window(model), _marked(len(ids), starts)
        costs, state = np.zeros(len(ids) - 1, np.float32), model.zero_state(1)
        for square in squares:
            square.assign(tf.zeros(square.shape))
        try:
            for number, start in enumerate(range(0, len(costs), STEP)):
                x, y = (ids[None, start + k : start + k + STEP].astype(np.int32) for k in (0, 1))
                x = x[:, : y.shape[1]]
                within = starting[None, start : start + x.shape[1]]
                restarts = within if within.any() else None
                if y.shape[1] == STEP:
                    nats, state = learn(x, y, state, restarts, tf.constant(number + 1.0))
                else:
                    nats, state = read(x, y, np.zeros(1, bool), state, restarts)
                costs[start : start + STEP] = nats[0]
        finally:
            model.assign(kept)
        return costs

    return evaluate


def _marked(characters: int, starts: Starts) -> npt.NDArray[np.bool_]:
    marked = np.zeros(characters, bool)
    marked[starts] = True
    return marked


PROTOCOLS = {"stream": in_order, "nanogpt": in_windows}
