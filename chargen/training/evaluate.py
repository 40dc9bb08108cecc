"""How well a model predicts a text: the nats that each character costs.

An evaluation is a function from ids (N,), with N at least 2, and the sorted positions where documents start, to the
costs of all characters but the first: (N - 1,) float32, each given the characters of its document before it. An
evaluation at K temperatures returns (K, N - 1). Each protocol makes an evaluation of a model.
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
from chargen.training.distribute import ONE_WORKER, Worker, rows_of

RUN_IN = 256  # characters that a row reads before the first that counts
ROWS, WINDOW = 64, 64
FEWEST_ROW_CHARACTERS = 4 * RUN_IN
NANOGPT_CONTEXT = 256  # characters, as in nanoGPT's small configurations
# Dynamic evaluation: the learning rate and decay of its RMSProp, which gains 0.070 nats on 30 KB of a play.
DYNAMIC_RATE, DYNAMIC_DECAY, DYNAMIC_EPSILON = 1e-3, 0.999, 1e-5
DYNAMIC_STEP = 32  # characters between two updates

Costs = npt.NDArray[np.float32]
NO_STARTS: Starts = np.zeros(0, np.int64)


class Evaluation(Protocol):
    """An evaluation, as the head of this file defines it."""

    def __call__(self, ids: Ids, starts: Starts = NO_STARTS) -> Costs:
        """Return the costs (N - 1,) of ids (N,), or (K, N - 1)."""


class Score(NamedTuple):
    """What a text, or several texts, cost a model."""

    costs: npt.NDArray[np.float64]  # (N,) nats; 0 for a text's first known character, which is not predicted
    unknown: str  # the distinct characters that the model has no id for
    unknown_characters: int  # their number in the text
    unknown_nats: float  # their cost, which is included in ``costs``
    texts: int = 1

    @property
    def characters(self) -> int:
        """The number of predicted characters: all but the first of each text."""
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
    """Return what a text costs, including unknown characters (`Vocabulary.escape_nats`).

    The model reads its unknown character in their place, if it has one, and skips them otherwise. ``starts`` are the
    positions in the text where documents start. Raises ChargenError if fewer than two characters are known.
    """
    ids, known = vocabulary.encode_known(text)
    if len(ids) < 2:
        raise ChargenError("the text is too short: it has fewer than two characters that the model knows")
    places = _places(known | (vocabulary.unknown is not None), starts)
    return _score(text, vocabulary, known, np.concatenate([[0], evaluate(ids, places[places < len(ids)])]))


def score_each(
    texts: Sequence[str], vocabulary: Vocabulary, evaluate: Evaluation, starts: Sequence[Starts] = ()
) -> list[Score]:
    """Return the `score` of each of several texts, evaluated together as documents.

    ``starts`` are the positions in each text where further documents start. Each text must have at least two known
    characters.
    """
    encoded = [vocabulary.encode_known(text) for text in texts]
    first = np.cumsum([0, *(len(ids) for ids, _ in encoded)])
    read = [known | (vocabulary.unknown is not None) for _, known in encoded]
    own = [_places(mask, within) + place for mask, within, place in zip(read, starts, first, strict=False)]
    places = np.unique(np.concatenate([*own, first[1:-1]]))
    costs = np.concatenate([[0], evaluate(np.concatenate([ids for ids, _ in encoded]), places[places < first[-1]])])
    costs[first[:-1]] = 0  # those of END in a text stay
    parts = zip(texts, encoded, np.split(costs, first[1:-1]), strict=True)
    return [_score(text, vocabulary, known, own) for text, (_, known), own in parts]


def _places(read: npt.NDArray[np.bool_], starts: Starts) -> Starts:
    """Return the places, among the characters that are read, of those at ``starts`` in a text."""
    return np.asarray((np.cumsum(read) - read)[starts], np.int64)


def together(scores: Sequence[Score]) -> Score:
    """Return one score of several texts."""
    return Score(
        np.concatenate([score.costs for score in scores]),
        "".join(dict.fromkeys("".join(score.unknown for score in scores))),
        sum(score.unknown_characters for score in scores),
        sum(score.unknown_nats for score in scores),
        sum(score.texts for score in scores),
    )


def _score(text: str, vocabulary: Vocabulary, known: npt.NDArray[np.bool_], read: npt.NDArray[Any]) -> Score:
    """Return the score of a text. ``known`` (N,) marks its known characters, ``read`` is the cost of those read."""
    costs = np.zeros(len(text))
    costs[known | (vocabulary.unknown is not None)] = read
    count = int((~known).sum())
    escape = vocabulary.escape_nats(count, len(text))
    costs[~known] = escape / max(count, 1)
    unknown = "".join(dict.fromkeys(c for c, has_id in zip(text, known, strict=True) if not has_id))
    return Score(costs, unknown, count, escape)


def in_order(model: CharLM, worker: Worker = ONE_WORKER, temperatures: Sequence[float] | None = None) -> Evaluation:
    """Return the evaluation that reads a text in order, with the state carried from the first character to the last.

    Up to 64 rows read parts of the text in parallel. The first row starts from a zero state. Every other row first
    reads the 256 characters before its part without counting them, so that its state is close to that of a single row:
    the result is within 0.002 bits per character. The state is reset where documents start.

    A worker of several reads its own rows only, and reports 0 for the other rows' characters. With K ``temperatures``
    the costs are (K, N - 1), one row for logits divided by each temperature.
    """
    window, degrees = _window(model, temperatures), () if temperatures is None else (len(temperatures),)

    def evaluate(ids: Ids, starts: Starts = NO_STARTS) -> Costs:
        characters = len(ids) - 1
        rows, run_in, part = _rows(characters)
        starting, width = _marked(len(ids), starts), min(WINDOW, part)
        own, costs = np.arange(rows)[rows_of(rows, worker)], np.zeros((*degrees, rows * part), np.float32)
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
    """Return the seconds that an `in_order` evaluation of ids (N,) takes, without compilation.

    It is measured on the beginning of the text, with windows as large as those of the whole text.
    """
    few, began = ids[: ROWS * FEWEST_ROW_CHARACTERS + 1], 0.0
    inside = starts[starts < len(few)]
    if len(starts) and not len(inside):
        inside = np.array([len(few) // 2])  # windows with and without a start are compiled separately
    for _ in range(2):  # the first one compiles
        began = time.monotonic()
        evaluate(few, inside)
    (_, first, short), (_, _, whole) = _rows(len(few) - 1), _rows(len(ids) - 1)
    return (time.monotonic() - began) * (first + whole) / (first + short)


def _rows(characters: int) -> tuple[int, int, int]:
    """Return the number of rows for so many characters, the run-in of each row, and the length of its part."""
    rows = max(1, min(ROWS, characters // FEWEST_ROW_CHARACTERS))
    # Row r counts the characters that are predicted from positions r·part .. (r+1)·part - 1.
    part = -(-characters // rows)
    return rows, RUN_IN if rows > 1 else 0, part + (-part % WINDOW if part > WINDOW else 0)


def in_windows(model: CharLM) -> Evaluation:
    """Return the evaluation that nanoGPT uses: windows of 256 characters, each from a zero state.

    A document starts a new window.
    """
    window = _window(model)

    def evaluate(ids: Ids, starts: Starts = NO_STARTS) -> Costs:
        characters = len(ids) - 1
        borders = itertools.pairwise([0, *starts[starts < characters].tolist(), characters])
        first = np.concatenate([np.arange(start, end, NANOGPT_CONTEXT) for start, end in borders])  # of each window
        end = np.minimum(first + NANOGPT_CONTEXT, [*first[1:], characters])
        rows, costs = min(ROWS, len(first)), np.zeros(characters, np.float32)
        for number in range(0, len(first), rows):
            # The last window is read repeatedly, so that every batch has the same number of rows.
            own = np.minimum(np.arange(number, number + rows), len(first) - 1)
            at = first[own, None] + np.arange(NANOGPT_CONTEXT)
            inside = np.minimum(at, characters - 1)
            x, y = ids[inside].astype(np.int32), ids[inside + 1].astype(np.int32)
            nats, _ = window(x, y, np.ones(rows, bool), model.zero_state(rows))
            counted = at < end[own, None]
            costs[at[counted]] = np.asarray(nats)[counted]
        return costs

    return evaluate


def _window(model: CharLM, temperatures: Sequence[float] | None = None) -> Callable[..., tuple[Costs, State]]:
    """Return a compiled function that evaluates a window.

    Arguments: x, y (B, T) int32, begins (B,) bool, the state, and restarts (B, T) bool or None. Returns nats (B, T), or
    (K, B, T) with K temperatures, and the state after the window.
    """

    def cost(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        if temperatures is None:
            return tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        # The maximum is subtracted once for all temperatures. They are computed one after the other, as each takes as
        # much memory as the logits.
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
    """Return the dynamic evaluation of a model, which learns from what it has scored (Krause et al. 2018).

    One row reads the text in order. After every 32 characters the weights take a gradient step, so each character is
    predicted by weights that have seen only earlier characters. The model's weights are restored afterwards.
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
            square.assign(DYNAMIC_DECAY * square + (1 - DYNAMIC_DECAY) * gradient * gradient)
            unbiased = square / (1 - tf.pow(DYNAMIC_DECAY, count))
            weight.assign_sub(DYNAMIC_RATE * gradient / (tf.sqrt(unbiased) + DYNAMIC_EPSILON))
        return nats, state

    def evaluate(ids: Ids, starts: Starts = NO_STARTS) -> Costs:
        kept, read, starting = model.arrays(), _window(model), _marked(len(ids), starts)
        costs, state = np.zeros(len(ids) - 1, np.float32), model.zero_state(1)
        for square in squares:
            square.assign(tf.zeros(square.shape))
        try:
            for number, start in enumerate(range(0, len(costs), DYNAMIC_STEP)):
                x, y = (ids[None, start + k : start + k + DYNAMIC_STEP].astype(np.int32) for k in (0, 1))
                x = x[:, : y.shape[1]]
                within = starting[None, start : start + x.shape[1]]
                restarts = within if within.any() else None
                if y.shape[1] == DYNAMIC_STEP:
                    nats, state = learn(x, y, state, restarts, tf.constant(number + 1.0))
                else:
                    nats, state = read(x, y, np.zeros(1, bool), state, restarts)
                costs[start : start + DYNAMIC_STEP] = nats[0]
        finally:
            model.assign(kept)
        return costs

    return evaluate


def _marked(characters: int, starts: Starts) -> npt.NDArray[np.bool_]:
    marked = np.zeros(characters, bool)
    marked[starts] = True
    return marked


PROTOCOLS = {"stream": in_order, "nanogpt": in_windows}
