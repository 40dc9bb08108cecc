"""The training step: one window, forward and backward, and the update, compiled as one function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from chargen.config import TrainConfig
from chargen.network.model import CharLM, dropout_mask, reset_rows
from chargen.network.unroll import Prepared, State, prepare, shard_rows
from chargen.training.optimizer import Adam


def compile_step(
    model: CharLM, adam: Adam, settings: TrainConfig
) -> Callable[..., tuple[State, tf.Tensor, tf.Tensor, tf.Tensor]]:
    """Return the training step as one compiled function, for the strategy in scope.

    It takes a window, x, y (B, T) int32, begins (B,) bool, restarts (B, T) bool or None, for which it is another
    function, and the state, of each replica its own rows (see `to_replicas`); the step int64, the rate float32,
    wishes, some float32 numbers, and drops (2,) float32, the dropout and weight drop: those of ``settings`` if they
    aren't given, and nothing where those are 0. It updates the weights, and returns the state after the window, the sum
    of nats over all rows, whether the update was made (not if the loss or the gradient is not finite), and the sums of
    all replicas' wishes.
    """
    strategy = tf.distribute.get_strategy()
    count = settings.batch_size // strategy.num_replicas_in_sync
    groups = shard_rows(count, model.execution.shards)

    def shard(
        rows: slice,
        first: tf.Tensor,
        x: tf.Tensor,
        y: tf.Tensor,
        begins: tf.Tensor,
        restarts: Any,
        state: State,
        step: tf.Tensor,
        dropout: Any,
        kept: Any,
        prepared: list[Prepared],
    ) -> Any:
        """Compute the sum of nats over some rows, their state after the window, and the gradient of the mean loss.

        The mean is over the rows of all replicas. ``first`` is this replica's first row in the batch.
        """
        x, y, begins, state = tf.nest.map_structure(lambda a: a[rows], (x, y, begins, state))
        restarts = None if restarts is None else restarts[rows]
        count, length = x.shape
        masks = None
        if dropout is not None:
            shape, layers = (length, model.config.units), range(model.config.layers)
            seed = settings.random_seed
            masks = [dropout_mask(dropout, count, shape, seed, n, step, first + rows.start) for n in layers]
        variables = [weight.value for weight in model.named_weights().values()]
        with tf.GradientTape() as tape:
            carried = tf.nest.map_structure(tf.stop_gradient, reset_rows(state, begins))
            logits, state = model(x, carried, masks, dropped(kept), restarts, prepared)
            nats = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
            loss = nats / (settings.batch_size * length)
        return nats, state, [tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)]

    def dropped(kept: list[tf.Tensor] | None) -> list[tf.Tensor] | None:
        return kept and [lstm.cell.recurrent_kernel * mask for lstm, mask in zip(model.lstm, kept, strict=True)]

    def weight_mask(drop: tf.Tensor, layer: int, step: tf.Tensor) -> tf.Tensor:
        """Return what a layer's recurrent kernel is multiplied by (Merity, Keskar and Socher 2018: DropConnect)."""
        shape, place = (model.config.units, 4 * model.config.units), model.config.layers + layer
        return dropout_mask(drop, 1, shape, settings.random_seed, place, step)[0]

    def replica(
        x: tf.Tensor,
        y: tf.Tensor,
        begins: tf.Tensor,
        restarts: Any,
        state: State,
        step: Any,
        rate: tf.Tensor,
        wishes: tf.Tensor,
        drops: tf.Tensor,
    ) -> tuple[State, tf.Tensor, tf.Tensor]:
        context = tf.distribute.get_replica_context()
        first = context.replica_id_in_sync_group * count
        dropout, weight_drop = tf.unstack(drops)
        dropout = None if settings.dropout == 0 else dropout
        layers = range(0 if settings.weight_drop == 0 else model.config.layers)
        kept = [weight_mask(weight_drop, n, step) for n in layers] or None
        prepared = prepare(model.lstm, model.execution, [rows.stop - rows.start for rows in groups], dropped(kept))
        parts = [shard(rows, first, x, y, begins, restarts, state, step, dropout, kept, prepared) for rows in groups]
        nats = tf.add_n([nats for nats, _, _ in parts])
        state = tf.nest.map_structure(lambda *rows: tf.concat(rows, 0), *[after for _, after, _ in parts])
        gradients = [tf.add_n(sums) for sums in zip(*[own for _, _, own in parts], strict=True)]
        # One collective for all, so that there is one order in which the workers wait for each other.
        told, *gradients = context.all_reduce("SUM", [tf.concat([nats[None], wishes], 0), *gradients])
        norm = tf.linalg.global_norm(gradients)
        made = tf.math.is_finite(told[0]) & tf.math.is_finite(norm)

        def apply() -> bool:
            adam.apply(dict(zip(model.named_weights(), gradients, strict=True)), norm, rate, step + 1)
            return True

        return state, told, tf.cond(made, apply, lambda: False)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def update(
        x: Any,
        y: Any,
        begins: Any,
        restarts: Any,
        state: Any,
        step: tf.Tensor,
        rate: tf.Tensor,
        wishes: Any = (0.0,),
        drops: Any = (settings.dropout or 0.0, settings.weight_drop or 0.0),
    ) -> tuple[Any, tf.Tensor, tf.Tensor, tf.Tensor]:
        state, *same = strategy.run(replica, (x, y, begins, restarts, state, step, rate, wishes, drops))
        told, made = (strategy.experimental_local_results(value)[0] for value in same)
        return state, told[0], made, told[1:]

    return update  # type: ignore[no-any-return]
