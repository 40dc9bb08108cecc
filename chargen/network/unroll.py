"""The LSTM layers over a window, forward and backward: by Keras, or on a CPU by faster loops with equal results.

L layers, H units, B rows (streams), T characters, I the width of a layer's input, F = 4H. The weights are those of the
Keras layers: kernel (I, F), recurrent_kernel (H, F), bias (F,), gates in the order i, f, g, o. The plain version of
the equations is ``plain`` in tests/network/equations.py. Every unroll must equal it, in value and gradient.

Why the loops are fast (the measurements are in the manual):

* XLA compiles a layer's time steps into one loop. A step launches nothing: it is one product, the recurrent one, and a
  dozen small kernels. Everything that does not depend on the recurrence is multiplied for the whole window at once.
* `products` chooses who multiplies, in which number format and order. Where XLA multiplies, a higher layer's input
  products are in the loop too.
* The forward pass keeps the derivatives by which the backward pass multiplies. They take no more memory than the gates,
  and halve the time of a backward step.
* Arrays are [T, B, features], time first, from the characters to the logits: so a window's products are products of two
  matrices without a transposition.
* With a small vocabulary, the first layer's input products are rows of a table, which is computed once (`Characters`).

Training and evaluation compute the rows in shards, side by side and each on one thread from the embedding to the
gradients (`execution.shard_rows`). That is up to 1.24 times as fast as one group whose products use two threads. Shards
share the prepared kernels (`prepare_layers`).

Peak memory of a training step above TensorFlow's own, in bytes, with P parameters:

    27·P + B·T·H·k      k = 36·L + 24 in float32, 17·L + 38 in bfloat16

27·P are weights, moments, gradients and the prepared kernels (in bfloat16 some 3·P). Of each unit and character a layer
keeps six derivatives and h, 28 bytes in float32 and 14 in bfloat16; one layer at a time also needs dz. k was measured
with 1, 2 and 3 layers of 256 units and 64 rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla  # updates in place of tensors, which keras.ops does not have

from chargen.config import Execution
from chargen.network.products import (
    Prepared,
    compiled,
    convert,
    detached,
    from_bits,
    is_large,
    narrow,
    prepare,
    product,
    stored_type,
    times_kernel,
    to_bits,
    uses_onednn,
    widen,
)
from chargen.store.modelfile import LayerState

# The first layer's input products are looked up if the vocabulary is at most so many times as large as the embedding.
LARGEST_TABLE = 3

State = tuple[LayerState, ...]  # of L layers, the one nearest the input first; h and c are (B, H) float32
Weights = list[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]  # of L layers: kernel, recurrent kernel and bias


class Characters(NamedTuple):
    """Characters as input: each is a row of the embedding."""

    ids: tf.Tensor  # (B, T) int32
    embedding: tf.Tensor  # (V, I) float32


class Masks(NamedTuple):
    """What a window is masked with."""

    outputs: Sequence[tf.Tensor] | None = None  # of L layers, (B, T, H) or broadcast to it: factors of their outputs
    restarts: tf.Tensor | None = None  # (B, T) bool: the characters before which the state is set to zero


class Layer(NamedTuple):
    """An LSTM layer as `prepare_layers` returns it."""

    lstm: Any  # a keras.layers.LSTM that returns sequences and states
    weight_mask: tf.Tensor | None = None  # (H, F), a factor of the recurrent kernel: weight drop
    prepared: Prepared | None = None  # the kernels as products take them; None for ``keras``

    def weights(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return kernel (I, F), recurrent kernel (H, F), after weight drop, and bias (F,)."""
        cell = self.lstm.cell
        recurrent_kernel = cell.recurrent_kernel.value
        if self.weight_mask is not None:
            recurrent_kernel = recurrent_kernel * self.weight_mask
        return cell.kernel.value, recurrent_kernel, cell.bias.value


def prepare_layers(
    lstms: Sequence[Any],
    execution: Execution,
    rows: Collection[int],
    weight_masks: Sequence[tf.Tensor] | None = None,
) -> list[Layer]:
    """Return layers for `unroll`, whose kernels are prepared once for several calls.

    lstms: L keras.layers.LSTM that return sequences and states. rows: the numbers of rows that the calls have.
    weight_masks: L tensors (H, F), by which the recurrent kernels are multiplied. Gradients flow to the LSTMs' weights
    from a call of `unroll`, and not from here.
    """
    layers = [Layer(lstm, mask) for lstm, mask in zip(lstms, weight_masks or [None] * len(lstms), strict=True)]
    return layers if execution.unroll == "keras" else _prepared(layers, execution, rows)


def _prepared(layers: Sequence[Layer], execution: Execution, rows: Collection[int]) -> list[Layer]:
    return [layer._replace(prepared=prepare(*layer.weights()[:2], rows, execution)) for layer in layers]


def unroll(
    x: tf.Tensor | Characters, state: State, layers: Sequence[Layer], masks: Masks, execution: Execution
) -> tuple[tf.Tensor, State]:
    """Compute all layers over a window from a state; return the outputs [T, B, H] float32 and the state after it.

    x: (B, T, I) float32, or characters. layers: L, prepared for the same execution and for B rows. Shapes are static,
    but for ``keras``, which takes any. Keras's layers cannot restart within a window: with restarts, ``loop`` computes
    in place of ``keras``. No gradient flows to the state and the masks.
    """
    by_keras = execution.unroll == "keras" and masks.restarts is None
    weights = [layer.weights() for layer in layers]
    if isinstance(x, Characters):
        (x, embedding), (kernel, *others) = x, weights[0]
        if by_keras or embedding.shape[0] > LARGEST_TABLE * embedding.shape[1]:
            x = tf.gather(embedding, x)
        else:
            weights[0] = tf.matmul(embedding, kernel), *others
    factors = masks.outputs or [None] * len(layers)
    if by_keras:
        return _by_keras(x, state, layers, weights, factors)
    if execution.unroll == "keras":
        execution = replace(execution, unroll="loop")
        layers = _prepared(layers, execution, [x.shape[0]])
    # State and masks are constants: else a tape in eager mode would record the loops.
    window = _Window(
        tuple(LayerState(detached(h), detached(c)) for h, c in state),
        [layer.prepared for layer in layers],
        [None if factor is None else tf.transpose(detached(factor), [1, 0, 2]) for factor in factors],
        None if masks.restarts is None else 1 - tf.transpose(tf.cast(masks.restarts, tf.float32)),
        stored_type(execution),
        uses_onednn(execution),
    )
    return _by_loops(x, weights, window)


def _by_keras(
    x: tf.Tensor, state: State, layers: Sequence[Layer], weights: Weights, factors: Sequence[tf.Tensor | None]
) -> tuple[tf.Tensor, State]:
    states = []
    for layer, own, before, factor in zip(layers, weights, state, factors, strict=True):
        frozen = layer.lstm.non_trainable_variables
        (x, h, c), _ = layer.lstm.stateless_call(own, frozen, x, initial_state=[before.h, before.c])
        states.append(LayerState(h, c))
        x = x if factor is None else x * factor
    return tf.transpose(x, [1, 0, 2]), tuple(states)


# ---- all layers by loops ----------------------------------------------------------------------------------------


class _Window(NamedTuple):
    """What a window is computed with, but its input and the weights that have a gradient."""

    state: State
    kernels: list[Any]  # L `Prepared`
    factors: list[tf.Tensor | None]  # of the layers' outputs, float32, that broadcast to [T, B, H]
    carry: tf.Tensor | None  # [T, B] float32: 0 before the characters where the state restarts, else 1
    stored: tf.DType
    onednn: bool


class _Saved(NamedTuple):
    """What a layer keeps for the backward pass."""

    x: tf.Tensor  # [T, B, I] stored, or [T, B] int32, the rows of a table
    kernel: tf.Tensor  # (I, F) float32 or bfloat16, or the table (V, F) float32
    hs: tf.Tensor  # [T + 1, B, H] stored: the outputs, the one before the window first
    derivatives: _Derivatives


class _Derivatives(NamedTuple):
    """The derivatives at each step of a layer, stored; z are the sums that go into the four gates."""

    gates: tf.Tensor  # [T, B, 4, H] of c by z; for the gate o, of h by z
    cells: tf.Tensor  # [T, 2, B, H] of h by c, and of c by the c before


def _by_loops(x: tf.Tensor, weights: Weights, window: _Window) -> tuple[tf.Tensor, State]:
    """Return outputs and state as `unroll` does. x: (B, T, I) float32, or (B, T) integers, rows of the first kernel."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(x: tf.Tensor, *flat: tf.Tensor) -> tuple[Any, Callable[..., Any]]:
        layers = [tuple(map(detached, flat[n : n + 3])) for n in range(0, len(flat), 3)]
        outputs, states, saved = _forward_layers(detached(x), layers, window)

        def gradient(d: tf.Tensor, *_: Any) -> list[tf.Tensor | None]:
            return _backward_layers(detached(d), saved, window)

        return (outputs, *tf.nest.flatten(states)), gradient

    outputs, *after = run(x, *[weight for layer in weights for weight in layer])
    after = [detached(a) for a in after]
    return outputs, tuple(LayerState(h, c) for h, c in zip(after[::2], after[1::2], strict=True))


def _forward_layers(
    x: tf.Tensor, weights: Sequence[Any], window: _Window
) -> tuple[tf.Tensor, list[LayerState], list[_Saved]]:
    """Return outputs [T, B, H] float32, the layers' states after the window, and what the layers keep.

    The recurrent kernels among the weights are only there for their gradients; the prepared ones are multiplied.
    """
    table = x.dtype.is_integer
    x = tf.transpose(tf.cast(x, tf.int32)) if table else convert(tf.transpose(x, [1, 0, 2]), window.stored)
    saved, states = [], []
    for n, ((kernel, _, bias), prepared) in enumerate(zip(weights, window.kernels, strict=True)):
        kernel = kernel if table and n == 0 else from_bits(prepared.input)
        kernels = _Kernels(kernel, from_bits(prepared.forward), bias)
        hs, derivatives, after = _forward(from_bits(x), kernels, window.state[n], window.carry, window.onednn)
        saved.append(_Saved(x, kernel, hs, derivatives))
        states.append(after)
        x = convert(hs[1:], tf.float32 if n == len(weights) - 1 else window.stored, window.factors[n])
    return x, states, saved


def _backward_layers(d: tf.Tensor, saved: list[_Saved], window: _Window) -> list[tf.Tensor | None]:
    """Return the gradients of the input, None for rows of a table, and of all weights, from that of the outputs."""
    gradients: list[tf.Tensor | None] = []
    carry = window.carry
    for n in reversed(range(len(saved))):
        x, kernel, hs, derivatives = saved[n]
        d = convert(to_bits(d), window.stored, window.factors[n])
        dz = _backward(d, derivatives, from_bits(window.kernels[n].backward), carry, window.onednn)
        h = convert(hs[:-1], window.stored, None if carry is None else carry[:, :, None])
        d, *own = _window_gradients(kernel, from_bits(x), from_bits(h), from_bits(dz), window.onednn)
        gradients = own + gradients
    return [None if d is None else tf.transpose(convert(to_bits(d), tf.float32), [1, 0, 2]), *gradients]


# ---- one layer --------------------------------------------------------------------------------------------------


class _Kernels(NamedTuple):
    """A layer's weights in the forward pass."""

    input: tf.Tensor  # (I, F) float32 or bfloat16, or a table of products (V, F) float32
    recurrent: tf.Tensor  # `Prepared.forward`
    bias: tf.Tensor  # (F,) float32


@compiled  # type: ignore[untyped-decorator]
def _forward(
    x: tf.Tensor, kernels: _Kernels, state: LayerState, carry: tf.Tensor | None, onednn: bool
) -> tuple[tf.Tensor, _Derivatives, LayerState]:
    """Return ``hs`` and ``derivatives`` of `_Saved`, and the state after the window.

    x: [T, B, I] float32 or bfloat16, or [T, B] int32, rows of a table. carry: as in `_Window`.

    There must be few parts outside of the loop. XLA runs a function of at most eight parts (thunks; the limit is
    ``execute_sequential_num_thunks_threshold`` of its ThunkExecutor) on the calling thread, and a longer one in a pool,
    whose single thread would compute the loops of all shards in turn: eight are up to 1.25 times as fast as nine.
    """
    (steps, rows), units, features = x.shape[:2], state.h.shape[1], kernels.bias.shape[0]
    kernel, recurrent_kernel, bias = kernels
    stored = tf.float32 if recurrent_kernel.dtype == tf.float32 else tf.uint16
    # One tanh serves all gates, as σ(x) = ½ tanh(½ x) + ½; halving is exact.
    halves = tf.repeat(tf.constant([0.5, 0.5, 1.0, 0.5]), units)
    in_the_loop = not onednn and x.dtype != tf.int32
    products = _input_products(x, kernel, stored, in_the_loop)
    if in_the_loop:
        x, kernel = to_bits(x), to_bits(kernel)
        kernel = tf.transpose(kernel) if is_large(kernel) else kernel

    def step(t: Any, h: Any, c: Any, hs: Any, derivatives: Any) -> tuple[Any, ...]:
        gates, cells = derivatives
        carried = None if carry is None else carry[t][:, None]
        if carried is not None:
            h, c = narrow(widen(h) * carried, stored), c * carried
        if in_the_loop:
            z = times_kernel(x[t], kernel, features, is_large(kernel), onednn=False)
        else:
            z = widen(tf.reshape(gates[t], [rows, features]))
        z = times_kernel(h, recurrent_kernel, features, is_large(recurrent_kernel), onednn) + z + bias
        h, c, by_z, (h_by_c, c_by_c) = _cell(tf.tanh(z * halves), c)
        h = narrow(h, stored)
        for k, derivative in enumerate(by_z):
            gates = _put(gates, narrow(derivative, stored)[:, None], t, 0, k)
        cells = _put(cells, narrow(h_by_c, stored), t, 0)
        cells = _put(cells, narrow(c_by_c if carried is None else c_by_c * carried, stored), t, 1)
        return t + 1, h, c, _put(hs, h, t + 1), _Derivatives(gates, cells)

    h = narrow(state.h, stored)
    hs = _put(tf.zeros([steps + 1, rows, units], stored), h, 0)
    # A step reads its input products and then puts its derivatives in their place.
    gates, cells = tf.reshape(products, [steps, rows, 4, units]), tf.zeros([steps, 2, rows, units], stored)
    start = 0, h, state.c, hs, _Derivatives(gates, cells)
    _, h, c, hs, derivatives = tf.while_loop(lambda t, *_: t < steps, step, start)
    return hs, derivatives, LayerState(widen(h), c)


def _input_products(x: tf.Tensor, kernel: tf.Tensor, stored: tf.DType, in_the_loop: bool) -> tf.Tensor:
    """Return a window's input products, stored, [T, B, F]; zeros if they are multiplied in the loop."""
    (steps, rows), features = x.shape[:2], kernel.shape[1]
    if in_the_loop:
        return tf.zeros([steps, rows, features], stored)
    if x.dtype == tf.int32:
        return tf.gather(narrow(kernel, stored), x)
    return to_bits(product(tf.reshape(x, [steps * rows, -1]), kernel, True, kernel.dtype))


def _cell(a: tf.Tensor, before: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Sequence[tf.Tensor], Sequence[tf.Tensor]]:
    """Return a step's h and c, and the derivatives by z and by c, in the order of `_Derivatives`.

    a: (B, F), the tanh of all gates, of ½ z for i, f and o. before: (B, H), the c before.
    """
    i, f, g, o = tf.split(a, 4, 1)
    by_i, by_f, by_o = (0.25 - 0.25 * gate * gate for gate in (i, f, o))
    i, f, o = (0.5 * gate + 0.5 for gate in (i, f, o))
    c = f * before + i * g
    tanh_c = tf.tanh(c)
    by_z = g * by_i, before * by_f, i * (1 - g * g), tanh_c * by_o
    return o * tanh_c, c, by_z, (o * (1 - tanh_c * tanh_c), f)


@compiled  # type: ignore[untyped-decorator]
def _backward(
    d: tf.Tensor, derivatives: _Derivatives, kernel: tf.Tensor, carry: tf.Tensor | None, onednn: bool
) -> tf.Tensor:
    """Return the gradient of z, stored, [T, B, F], from that of the outputs, d [T, B, H], stored.

    kernel: `Prepared.backward`. carry: as in `_Window`.
    """
    (steps, rows, units), stored = d.shape, d.dtype
    gates, cells = derivatives

    def step(t: Any, dh: Any, dc: Any, dz: Any) -> tuple[Any, ...]:
        dh += widen(d[t])
        dc += dh * widen(cells[t, 0])
        for k, by in enumerate((dc, dc, dc, dh)):
            dz = _put(dz, narrow(widen(gates[t, :, k]) * by, stored)[:, None], t, 0, k)
        dh = times_kernel(tf.reshape(dz[t], [rows, 4 * units]), kernel, units, True, onednn)
        dh = dh if carry is None else dh * carry[t][:, None]
        return t - 1, dh, dc * widen(cells[t, 1]), dz

    zero = tf.zeros([rows, units])
    start = steps - 1, zero, zero, tf.zeros([steps, rows, 4, units], stored)
    dz = tf.while_loop(lambda t, *_: t >= 0, step, start)[3]
    return tf.reshape(dz, [steps, rows, 4 * units])


def _put(array: tf.Tensor, value: tf.Tensor, *place: Any) -> tf.Tensor:
    """Return the array with a value at a place along its first axes; in a compiled loop, in place."""
    start = [*place, *[0] * (array.shape.rank - len(place))]
    value = tf.reshape(value, [1] * (array.shape.rank - value.shape.rank) + value.shape)
    return xla.dynamic_update_slice(array, value, tf.stack(start))


@compiled  # type: ignore[untyped-decorator]
def _window_gradients(
    kernel: tf.Tensor, x: tf.Tensor, h: tf.Tensor, dz: tf.Tensor, onednn: bool
) -> tuple[tf.Tensor | None, ...]:
    """Return the gradients of a layer's input [T, B, I], float32 or bfloat16 as dz, and of its three weights.

    kernel: (I, F); x: [T, B, I]; h: [T, B, H], before each step; dz: [T, B, F]. If x is [T, B] int32, rows of a table
    of products, kernel is that table (V, F), and the input has no gradient.
    """
    (steps, rows, features), dtype = dz.shape, dz.dtype
    dz, h = tf.reshape(dz, [steps * rows, features]), tf.reshape(h, [steps * rows, -1])

    def gradient(a: tf.Tensor) -> tf.Tensor:
        return product(a, dz, onednn, transposed="a")

    if x.dtype == tf.int32:
        d_table = gradient(tf.one_hot(tf.reshape(x, [-1]), kernel.shape[0], dtype=dtype))
        return None, d_table, gradient(h), (tf.ones([1, kernel.shape[0]]) @ d_table)[0]
    d_bias = product(tf.ones([1, steps * rows], dtype), dz, onednn)[0]
    d_x = tf.reshape(product(dz, kernel, onednn, dtype, transposed="b"), x.shape)
    return d_x, gradient(tf.reshape(x, [steps * rows, -1])), gradient(h), d_bias
