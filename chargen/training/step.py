"""The training step: one window, forward and backward, and the update, compiled as one function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from chargen.config import TrainConfig
from chargen.network.execution import shard_rows
from chargen.network.model import CharLM, Draw, dropout_mask, reset_rows
from chargen.network.unroll import Layer, Masks, State
from chargen.text.streams import Window
from chargen.training.optimizer import Adam


class Controls(NamedTuple):
    """The inputs of a step besides its window and state."""

    step: tf.Tensor  # int64
    rate: tf.Tensor  # float32, the learning rate
    requests: Any = (0.0,)  # some float32 numbers, which are summed over all replicas
    drops: Any = None  # (2,) float32, the rates of dropout and weight drop; if not given, those of the settings


class StepResult(NamedTuple):
    """What a step returns."""

    state: State  # after the window, of each replica its own rows
    nats: tf.Tensor  # float32, the sum over all characters of all replicas' rows
    made: tf.Tensor  # bool: whether the update was made
    requests: tf.Tensor  # the sums of all replicas' requests


class _Rows(NamedTuple):
    """What a replica's shards have in common: its rows, and how they are computed."""

    window: Window
    state: State
    dropout: tf.Tensor | None  # the rate
    draw: Draw  # of the dropout mask of the first layer, with the replica's first row
    layers: list[Layer]


def compile_step(model: CharLM, adam: Adam, settings: TrainConfig) -> Callable[[Window, State, Controls], StepResult]:
    """Return the training step as one compiled function, for the strategy in scope.

    Each replica gets its own rows of window and state (see `distribute.to_replicas`). Windows with and without restarts
    are compiled as two functions. A dropout or weight drop of 0 in ``settings`` is compiled into the step, and its rate
    in the controls then has no effect. The step updates the weights, unless the loss or the gradient is not finite.
    """
    strategy = tf.distribute.get_strategy()

    def replica(window: Window, state: State, controls: Controls) -> tuple[State, tf.Tensor, tf.Tensor]:
        context = tf.distribute.get_replica_context()
        shards = _shards(model, settings, window, state, controls)
        nats = tf.add_n([nats for nats, _, _ in shards])
        state = tf.nest.map_structure(lambda *rows: tf.concat(rows, 0), *[after for _, after, _ in shards])
        gradients = [tf.add_n(parts) for parts in zip(*[own for _, _, own in shards], strict=True)]
        # One collective for all, so that there is one order in which the workers wait for each other.
        sums, *gradients = context.all_reduce("SUM", [tf.concat([nats[None], controls.requests], 0), *gradients])
        norm = tf.linalg.global_norm(gradients)
        made = tf.math.is_finite(sums[0]) & tf.math.is_finite(norm)

        def apply() -> bool:
            named = dict(zip(model.named_weights(), gradients, strict=True))
            adam.apply(named, norm, controls.rate, controls.step + 1)
            return True

        return state, sums, tf.cond(made, apply, lambda: False)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def update(window: Window, state: State, controls: Controls) -> StepResult:
        if controls.drops is None:
            controls = controls._replace(drops=(settings.dropout or 0.0, settings.weight_drop or 0.0))
        state, *same = strategy.run(replica, (window, state, controls))
        sums, made = (strategy.experimental_local_results(value)[0] for value in same)
        return StepResult(state, sums[0], made, sums[1:])

    return update  # type: ignore[no-any-return]


def _shards(
    model: CharLM, settings: TrainConfig, window: Window, state: State, controls: Controls
) -> list[tuple[tf.Tensor, State, list[tf.Tensor]]]:
    """Compute this replica's rows in shards, which share the prepared kernels; return each `_shard`'s result."""
    count, _ = window.x.shape
    first_row = tf.distribute.get_replica_context().replica_id_in_sync_group * count
    draw = Draw(settings.random_seed, 0, controls.step, first_row)
    dropout, weight_drop = tf.unstack(controls.drops)
    units, n_layers = model.config.units, model.config.layers
    weight_masks = None
    if settings.weight_drop != 0:  # DropConnect (Merity, Keskar and Socher 2018)
        shape = 1, units, 4 * units
        draws = [draw._replace(layer=n_layers + n, first_row=0) for n in range(n_layers)]
        weight_masks = [dropout_mask(weight_drop, shape, own)[0] for own in draws]
    shards = shard_rows(count, model.execution.shards)
    layers = model.prepared([rows.stop - rows.start for rows in shards], weight_masks)
    common = _Rows(window, state, None if settings.dropout == 0 else dropout, draw, layers)
    return [_shard(model, common, rows, settings.batch_size) for rows in shards]


def _shard(model: CharLM, common: _Rows, rows: slice, batch_size: int) -> tuple[tf.Tensor, State, list[tf.Tensor]]:
    """Return the sum of nats over some rows, their state after the window, and the gradient of the mean loss.

    The mean is over the ``batch_size`` rows of all replicas.
    """
    window, state = tf.nest.map_structure(lambda a: None if a is None else a[rows], (common.window, common.state))
    count, length = window.x.shape
    outputs = None
    if common.dropout is not None:
        shape, first_row = (count, length, model.config.units), common.draw.first_row + rows.start
        draws = [common.draw._replace(layer=n, first_row=first_row) for n in range(model.config.layers)]
        outputs = [dropout_mask(common.dropout, shape, draw) for draw in draws]
    masks = Masks(outputs, window.restarts)
    variables = [weight.value for weight in model.named_weights().values()]
    with tf.GradientTape() as tape:
        before = tf.nest.map_structure(tf.stop_gradient, reset_rows(state, window.begins))
        logits, state = model.read(window.x, before, masks, common.layers)
        nats = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(window.y, logits))
        loss = nats / (batch_size * length)
    return nats, state, [tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)]
