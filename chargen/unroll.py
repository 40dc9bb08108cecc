"""The LSTM layers of a window, forward and backward: Keras's own, or on a CPU a faster equal of theirs.

L layers, H units, B rows (streams), T characters, I the width of a layer's input, F = 4H. The weights are the Keras
layers' own: kernel (I, F), recurrent_kernel (H, F), bias (F,), gates in the order i, f, g, o.

How the CPU's is fast, measured on 2 cores of AMD Zen 4 with AVX-512 and its bfloat16, without AMX:

* Feature-major, [T, features, B]: the weights are the left operand ([2048, 1024] x [1024, 32] in float32 runs at 218
  GFLOP/s instead of 162). With T first, as row strides of a power of two halve the speed.
* Four of a layer's six products do not depend on the recurrence. They are made once for a window, at the speed of
  large products (220 GFLOP/s in float32, 430 in bfloat16).
* Two of these four are none in the first layer: there are only as many different ones as the vocabulary has characters.
  1 x 256, 64 rows 1.1 times as fast, 1 x 384, 16 rows 1.3 times, 2 x 256, 32 rows not (best of three on a Zen 3).
* In float32 the input product of a higher layer is not made for the window either, but in the loop, with the recurrent
  one: XLA's products there run at 90 GFLOP/s a thread of a Zen 3, TensorFlow's of a window at 37 to 54. 2 x 512, 32
  rows 1.16 and 1.28 times as fast, 2 x 256, 32 rows 1.05, 1.50, 3 x 512, 64 rows 1.01, 1.05 (two pairs of runs each).
* The two that do are a loop over time, in one of two ways:
  ``loop``, a while loop compiled by XLA with products in float32, which launches nothing (207 GFLOP/s);
  ``steps``, TensorFlow's bfloat16 products with one compiled block after each, for 16 rows and more (2 x 512, 32 rows
  and twice: 17.4k characters per second where ``loop`` makes 13.0k; with 8 rows 37.7k against 43.4k at 1 x 384).

Whoever trains computes the rows in chains, groups that run beside each other from the embedding to the gradients, each
on one thread (`row_groups`): 1.06 to 1.24 times as fast as one group whose products are split over two threads.

Peak memory of a training step over that of TensorFlow itself, in bytes, with P parameters:

    24·P + B·T·H·k      k = 24·L + 48 for ``loop`` in float32, 20·L + 18 in bfloat16, 33·L + 30 for ``steps``

24·P are weights, moments and gradients. A layer keeps its gates and h in the compute type and c in float32, which is
24 (or 14) bytes for each unit and character; one layer at a time needs dz and its transpose. In float32 k follows from
the shapes, and was measured within a quarter; in bfloat16 it was measured at L = 1, 2, 3, as copies between the types
come on top. On a processor with AVX2 alone it was 1.4 to 2.3 times as much.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import json
import platform
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla  # for what keras.ops has not, or, as updates in place, not on tensors

from chargen.config import Execution, ModelConfig, TrainConfig, cores, multiplies_bfloat16, processor_features
from chargen.modelfile import LayerState

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt, in glibc's malloc.h; 32 MB are its most
# The first layer's input products are read from a table, embedding times kernel, of so many characters for each of the
# embedding's numbers at the most. One thread of a Zen 3, embedding 64, way there and back in ms, products and table: 65
# characters 53 and 39 (256 units, 32 rows), 30 and 23 (384, 8); 128 characters 50 and 42; 192 50 and 51; 256 49 and 51.
LARGEST_TABLE = 3

compiled = tf.function(jit_compile=True, autograph=False)

State = tuple[LayerState, ...]  # of L layers, the one nearest the input first; h and c are (B, H) float32
Masks = Sequence[tf.Tensor | None] | None


# ---- which unroll, in which precision, on how many threads ------------------------------------------------------


def choose(model: ModelConfig, train: TrainConfig, replicas: int = 1) -> tuple[Execution, str]:
    """Return how a model is to be computed on this machine, and why, in a few words.

    A rule over device, processor features, shape, replicas and threads, without a measurement: the same machine chooses
    the same. It is chosen once for a run and kept with it.
    """
    fast_bfloat16 = multiplies_bfloat16()
    threads = train.threads or cores()
    if tf.config.list_physical_devices("GPU"):
        return Execution(threads=threads), "a GPU computes Keras's layers by cuDNN"
    precision, reason = train.precision, "as asked"
    if precision == "auto":
        precision = "bfloat16" if fast_bfloat16 else "float32"
        reason = f"the processor has {'' if fast_bfloat16 else 'no '}bfloat16 products"
    rows = train.batch_size // replicas
    chains = max(1, min(threads, rows))
    onednn = fast_bfloat16 if precision == "bfloat16" else "avx512f" in processor_features()
    return Execution("onednn" if onednn else "loop", precision, chains, threads), reason


def own_process(execution: Execution) -> None:
    """Give TensorFlow a thread for each chain, and each chain's operations what is left; keep freed memory.

    For a program that owns its process, before TensorFlow has computed anything: the command does it, a library does
    not. Keras's layers are left with TensorFlow's own two pools.

    glibc gives each large array back to the system when it is freed, and a step asks for some 40 MB of new pages. With
    one arena that keeps them 1 x 256 is trained 1.08 times as fast (median of three pairs, Zen 3), 1 x 640 1.05 times,
    in as much memory, both in float32.
    """
    if execution.unroll == "keras":
        intra = inter = execution.threads
    else:
        intra, inter = max(1, execution.threads // execution.chains), execution.chains
    tf.config.threading.set_intra_op_parallelism_threads(intra)
    tf.config.threading.set_inter_op_parallelism_threads(inter)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter, value in ((M_MMAP_THRESHOLD, 32 << 20), (M_TRIM_THRESHOLD, 2**31 - 1)):
            libc.mallopt(parameter, value)


def row_groups(batch_size: int, chains: int) -> list[slice]:
    """Return the rows of each chain: all rows in order, in groups as equal as they can be."""
    chains = min(chains, batch_size)
    cuts = [batch_size * k // chains for k in range(chains + 1)]
    return [slice(begin, end) for begin, end in itertools.pairwise(cuts)]


# ---- all layers -------------------------------------------------------------------------------------------------


def unroll(
    x: tf.Tensor,
    state: State,
    layers: Sequence[Any],
    execution: Execution,
    masks: Masks = None,
    recurrent: Masks = None,
    restart: tf.Tensor | None = None,
    recurrent_kernels: Sequence[tf.Tensor] | None = None,
    embedding: tf.Tensor | None = None,
) -> tuple[tf.Tensor, State]:
    """Compute all layers over a window from a state; return the outputs (B, T, H) float32 and the state after it.

    x: (B, T, I) float32; or with an embedding (V, I) float32 the numbers of its rows that are read, (B, T) int32.
    layers: L keras.layers.LSTM that return sequences and states. masks: L that broadcast to (B, T, H), by which the
    layers' outputs are multiplied. recurrent: L masks (B, H), by which h is multiplied in the recurrent product,
    constant over the window. restart: (B, T) bool, true where a row's state is zero before the character is read.
    recurrent_kernels: L tensors (H, F) in place of the layers' own. No gradient goes to the state or the masks. Shapes
    are static, but for ``keras``, which takes any and has the first kind of mask only; with the other two it is
    ``loop`` that computes.
    """
    kernels = [(layer.cell.kernel.value, layer.cell.recurrent_kernel.value, layer.cell.bias.value) for layer in layers]
    if recurrent_kernels is not None:
        kernels = [(own[0], other, own[2]) for own, other in zip(kernels, recurrent_kernels, strict=True)]
    masks = list(masks or [None] * len(layers))
    masked = restart is not None or any(mask is not None for mask in recurrent or ())
    by_keras = execution.unroll == "keras" and not masked
    if embedding is not None and (by_keras or embedding.shape[0] > LARGEST_TABLE * embedding.shape[1]):
        x = tf.gather(embedding, x)
    elif embedding is not None:
        kernels[0] = (tf.matmul(embedding, kernels[0][0]), *kernels[0][1:])
    if by_keras:
        return _keras(x, state, layers, kernels, masks)
    return _fast(x, state, kernels, masks, list(recurrent or [None] * len(layers)), restart, execution)


def _keras(
    x: tf.Tensor, state: State, layers: Sequence[Any], kernels: list[tuple[Any, ...]], masks: list[Any]
) -> tuple[tf.Tensor, State]:
    states = []
    for layer, own, carried, mask in zip(layers, kernels, state, masks, strict=True):
        frozen = layer.non_trainable_variables
        (x, h, c), _ = layer.stateless_call(own, frozen, x, initial_state=[carried.h, carried.c])
        states.append(LayerState(h, c))
        x = x if mask is None else x * mask
    return x, tuple(states)


class _Saved(NamedTuple):
    """What a layer keeps for the way back, stored as `_narrow` does it."""

    read: tf.Tensor  # [T, B, I], or [T, B] of rows of a table
    hs: tf.Tensor  # [T + 1, B, H] its outputs, the one before the window first
    slopes: tf.Tensor  # [T, B, 4, H] of c by z; for the gate o, of h by z
    slope_h: tf.Tensor  # [T, B, H] of h by c
    slope_c: tf.Tensor  # [T, B, H] of c by the c before


def _fast(
    x: tf.Tensor,
    state: State,
    layer_weights: list[tuple[Any, Any, Any]],
    masks: list[Any],
    recurrent: list[Any],
    restart: tf.Tensor | None,
    execution: Execution,
) -> tuple[tf.Tensor, State]:
    last = len(layer_weights) - 1
    stored = tf.uint16 if execution.precision == "bfloat16" else tf.float32
    onednn = execution.unroll == "onednn" and has_onednn(execution.precision)
    # Constants to a tape, which would look into the loops in eager mode otherwise.
    state = tuple(LayerState(_still(h), _still(c)) for h, c in state)
    masks = [None if mask is None else _still(mask) for mask in masks]
    recurrent = [None if mask is None else _still(mask) for mask in recurrent]
    keep = None if restart is None else 1 - tf.transpose(tf.cast(restart, tf.float32))  # [T, B]
    packed = [onednn and stored == tf.uint16 and _packs(x.shape[0], *w[1].shape) for w in layer_weights]

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(x: tf.Tensor, *flat: tf.Tensor) -> tuple[Any, Callable[..., Any]]:
        weights = [_still(a) for a in flat]
        layers = [weights[3 * n : 3 * n + 3] for n in range(last + 1)]
        ids = x.dtype.is_integer
        read = _entered(_still(x), None, stored)
        saved, states, kernels = [], [], []
        for n, (kernel, recurrent_kernel, bias) in enumerate(layers):
            table = ids and n == 0
            kernels.append(kernel if table else _computed(_stored_as(kernel, stored)))
            multiplier = _computed(_prepared(recurrent_kernel, stored, packed[n]))
            z = (read, kernel) if table else (_stored(_input(_computed(read), kernels[n], onednn)), None)
            *kept, h, c = _forward(*z, multiplier, bias, *state[n], recurrent[n], keep, stored, onednn)
            saved.append(_Saved(read, *kept))
            states += [h, c]
            read = saved[n].hs[1:] if masks[n] is None or n == last else _times(saved[n].hs[1:], masks[n])

        def gradient(d: tf.Tensor, *_: Any) -> list[tf.Tensor | None]:
            d = _entered(_still(d), masks[last], stored)
            gradients: list[tf.Tensor | None] = []
            for n in reversed(range(last + 1)):
                read, hs, *slopes = saved[n]
                multiplier = _computed(_prepared_back(layers[n][1], stored, packed[n]))
                dz = _backward(_stored(d), *slopes, multiplier, recurrent[n], keep, onednn)
                h = hs[:-1]
                for mask in (None if keep is None else tf.transpose(keep)[:, :, None], recurrent[n]):
                    h = h if mask is None else _times(h, mask if mask is not recurrent[n] else mask[:, None])
                d, *own = _window_gradients(kernels[n], _computed(read), _computed(h), _computed(dz), onednn)
                if n and masks[n - 1] is not None:
                    d = _times(_stored(d), masks[n - 1])
                gradients = own + gradients
            return [None if ids else _left(_stored(d), None), *gradients]

        return (_left(saved[last].hs[1:], masks[last]), *states), gradient

    outputs, *after = run(x, *[weight for layer in layer_weights for weight in layer])
    after = [_still(a) for a in after]
    return outputs, tuple(LayerState(h, c) for h, c in zip(after[::2], after[1::2], strict=True))


def _still(a: tf.Tensor) -> tf.Tensor:
    return tf.stop_gradient(tf.convert_to_tensor(a))


@compiled  # type: ignore[untyped-decorator]
def _entered(a: tf.Tensor, mask: Any, stored: tf.DType) -> tf.Tensor:
    """Return (B, T, H) float32, multiplied by a mask, as it is stored, [T, B, H]; or numbers (B, T) as [T, B]."""
    if a.dtype.is_integer:
        return tf.transpose(tf.cast(a, tf.int32))
    return _narrow(tf.transpose(a if mask is None else a * mask, [1, 0, 2]), stored)


@compiled  # type: ignore[untyped-decorator]
def _left(a: tf.Tensor, mask: Any) -> tf.Tensor:
    """Return what is stored, [T, B, H], as (B, T, H) float32, multiplied by a mask."""
    a = tf.transpose(_widen(a), [1, 0, 2])
    return a if mask is None else a * mask


@compiled  # type: ignore[untyped-decorator]
def _times(a: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return what is stored, [T, B, H], multiplied by a mask that broadcasts to (B, T, H)."""
    return _narrow(_widen(a) * tf.transpose(mask, [1, 0, 2]), a.dtype)


# ---- the loops over time ----------------------------------------------------------------------------------------


@compiled  # type: ignore[untyped-decorator]
def _forward(
    z: tf.Tensor,
    table: Any,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    h: tf.Tensor,
    c: tf.Tensor,
    mask: Any,
    keep: Any,
    stored: tf.DType,
    onednn: bool,
) -> tuple[tf.Tensor, ...]:
    """Return what a layer keeps but what it read, and the last h and c, (B, H) float32.

    z [T, B, F] are the input products, stored, or the numbers [T, B] of their rows in a table (V, F) float32; kernel is
    what `_prepared` makes of the recurrent one; bias (F,), h, c, mask (B, H), keep [T, B].
    """
    (steps, rows), units, features = z.shape[:2], h.shape[1], bias.shape[0]
    scale = _half_sigmoids(units)
    if table is not None:
        table, bias = _narrow((table + bias) * scale, stored), None

    def step(t: Any, h: Any, c: Any, hs: Any, slopes: Any, slope_h: Any, slope_c: Any) -> tuple[Any, ...]:
        go_on = None if keep is None else keep[t][:, None]
        for factor in (go_on, mask):
            h = h if factor is None else _narrow(_widen(h) * factor, stored)
        before = c if go_on is None else c * go_on
        z_t = _widen(z[t]) * scale + bias * scale if table is None else _widen(tf.gather(table, z[t]))
        a = tf.tanh(_times_kernel(h, kernel, features, onednn) + z_t)
        i, f, g, o = (a[:, k * units : (k + 1) * units] for k in range(4))
        i_slope, f_slope, o_slope = (0.25 - 0.25 * gate * gate for gate in (i, f, o))
        i, f, o = (0.5 * gate + 0.5 for gate in (i, f, o))
        c = f * before + i * g
        tanh_c = tf.tanh(c)
        h = _narrow(o * tanh_c, stored)
        for k, slope in enumerate((g * i_slope, before * f_slope, i * (1 - g * g), tanh_c * o_slope)):
            slopes = _put(slopes, _narrow(slope, stored)[:, None], t, 0, k)
        slope_h = _put(slope_h, _narrow(o * (1 - tanh_c * tanh_c), stored), t)
        slope_c = _put(slope_c, _narrow(f if go_on is None else f * go_on, stored), t)
        return t + 1, h, c, _put(hs, h, t + 1), slopes, slope_h, slope_c

    h = _narrow(h, stored)
    hs = _put(tf.zeros([steps + 1, rows, units], stored), h, 0)
    slopes = tf.zeros([steps, rows, 4, units], stored)
    slope_h, slope_c = tf.zeros([steps, rows, units], stored), tf.zeros([steps, rows, units], stored)
    start = 0, h, c, hs, slopes, slope_h, slope_c
    _, h, c, *kept = tf.while_loop(lambda t, *_: t < steps, step, start)
    return *kept, _widen(h), c


@compiled  # type: ignore[untyped-decorator]
def _backward(
    d: tf.Tensor,
    slopes: tf.Tensor,
    slope_h: tf.Tensor,
    slope_c: tf.Tensor,
    kernel: tf.Tensor,
    mask: Any,
    keep: Any,
    onednn: bool,
) -> tf.Tensor:
    """Return the gradient of z, stored, [T, B, F], from that of the outputs, d [T, B, H], stored.

    kernel is what `_prepared_back` makes of the recurrent one; the others are as in `_forward`.
    """
    (steps, rows, units), stored = d.shape, d.dtype

    def step(t: Any, dh: Any, dc: Any, dz: Any) -> tuple[Any, ...]:
        dh += _widen(d[t])
        dc += dh * _widen(slope_h[t])
        for k, by in enumerate((dc, dc, dc, dh)):
            dz = _put(dz, _narrow(_widen(slopes[t, :, k]) * by, stored)[:, None], t, 0, k)
        dh = _times_kernel(tf.reshape(dz[t], [rows, 4 * units]), kernel, units, onednn)
        for factor in (mask, None if keep is None else keep[t][:, None]):
            dh = dh if factor is None else dh * factor
        return t - 1, dh, dc * _widen(slope_c[t]), dz

    zero = tf.zeros([rows, units])
    start = steps - 1, zero, zero, tf.zeros([steps, rows, 4, units], stored)
    dz = tf.while_loop(lambda t, *_: t >= 0, step, start)[3]
    return tf.reshape(dz, [steps, rows, 4 * units])


def _half_sigmoids(units: int) -> tf.Tensor:
    """Return what z is multiplied by, (F,), so that one tanh serves all gates: σ(x) = ½ tanh(½ x) + ½. It is exact."""
    return tf.repeat(tf.constant([0.5, 0.5, 1.0, 0.5]), units)


def _put(array: tf.Tensor, value: tf.Tensor, *place: Any) -> tf.Tensor:
    """Return the array with a value at a place along its first axes; in a compiled loop, in place."""
    start = [*place, *[0] * (array.shape.rank - len(place))]
    value = tf.reshape(value, [1] * (array.shape.rank - value.shape.rank) + value.shape)
    return xla.dynamic_update_slice(array, value, tf.stack(start))


# ---- products ---------------------------------------------------------------------------------------------------


def _product(
    a: tf.Tensor, b: tf.Tensor, onednn: bool, out: tf.DType, transpose_a: bool = False, transpose_b: bool = False
) -> tf.Tensor:
    """Return the product of two matrices of the compute type, in that or in float32."""
    if onednn:
        shape = [a.shape[int(transpose_a)], b.shape[1 - int(transpose_b)]]
        return _onednn(a, b, shape, out, transpose_a=transpose_a, transpose_b=transpose_b)
    a, b = tf.cast(a, tf.float32), tf.cast(b, tf.float32)
    return tf.cast(tf.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b), out)


def _onednn(a: tf.Tensor, b: tf.Tensor, shape: list[int], out: tf.DType, packed: bool = False, **flags: bool) -> Any:
    plain = {"dims": "2", "tensor": {"dimensions": ["1", "2"]}}
    config = {"lhs": plain, "rhs": plain, "result": plain, **flags}
    if packed:
        config["optimization_config"] = {"weights_prepacked": True}
    return xla.custom_call([a, b], "__onednn$matmul", json.dumps({"onednn_matmul_config": config}), out, shape)


def _times_kernel(a: tf.Tensor, kernel: tf.Tensor, outer: int, onednn: bool) -> tf.Tensor:
    """Return the product (B, outer) float32 of a (B, inner), stored or not, and a prepared kernel."""
    if onednn and kernel.dtype == tf.bfloat16:
        return _onednn(_computed(a), kernel, [a.shape[0], outer], tf.float32, packed=kernel.shape.rank == 1)
    return tf.matmul(_widen(_stored(a)), _widen(_stored(kernel)))


@compiled  # type: ignore[untyped-decorator]
def _input(x: tf.Tensor, kernel: tf.Tensor, onednn: bool) -> tf.Tensor:
    """Return the input products [T, B, F], in the compute type, of x [T, B, I] and a kernel (I, F)."""
    steps, rows, width = x.shape
    z = _product(tf.reshape(x, [steps * rows, width]), kernel, onednn, x.dtype)
    return tf.reshape(z, [steps, rows, -1])


@compiled  # type: ignore[untyped-decorator]
def _window_gradients(
    kernel: tf.Tensor, x: tf.Tensor, h: tf.Tensor, dz: tf.Tensor, onednn: bool
) -> tuple[tf.Tensor | None, ...]:
    """Return the gradients of a layer's input [T, B, I], in the compute type, and of its three weights.

    kernel (I, F), x [T, B, I], h [T, B, H] before each step, dz [T, B, F]. Where x is the numbers [T, B] of the rows of
    a table that were read, the kernel is that table (V, F), and there is no gradient of the input.
    """
    (steps, rows, features), dtype = dz.shape, dz.dtype
    dz, h = tf.reshape(dz, [steps * rows, features]), tf.reshape(h, [steps * rows, -1])

    def by(a: tf.Tensor) -> tf.Tensor:
        return _product(a, dz, onednn, tf.float32, transpose_a=True)

    if x.dtype == tf.int32:
        d_table = by(tf.one_hot(tf.reshape(x, [-1]), kernel.shape[0], dtype=dtype))
        return None, d_table, by(h), (tf.ones([1, kernel.shape[0]]) @ d_table)[0]
    d_bias = _product(tf.ones([1, steps * rows], dtype), dz, onednn, tf.float32)[0]
    d_x = tf.reshape(_product(dz, kernel, onednn, dtype, transpose_b=True), x.shape)
    return d_x, by(tf.reshape(x, [steps * rows, -1])), by(h), d_bias


@compiled  # type: ignore[untyped-decorator]
def _stored_as(kernel: tf.Tensor, stored: tf.DType) -> tf.Tensor:
    return _narrow(kernel, stored)


@compiled  # type: ignore[untyped-decorator]
def _prepared(kernel: tf.Tensor, stored: tf.DType, packed: bool) -> tf.Tensor:
    """Return a recurrent kernel (H, F) as `_times_kernel` takes it on the way there."""
    kernel *= _half_sigmoids(kernel.shape[0])
    return _pack(kernel) if packed else _narrow(kernel, stored)


@compiled  # type: ignore[untyped-decorator]
def _prepared_back(kernel: tf.Tensor, stored: tf.DType, packed: bool) -> tf.Tensor:
    """Return a recurrent kernel (H, F), transposed, as `_times_kernel` takes it on the way back."""
    return _pack(tf.transpose(kernel)) if packed else _narrow(tf.transpose(kernel), stored)


def _pack(kernel: tf.Tensor) -> tf.Tensor:
    """Return (n, m) float32 in bfloat16 as oneDNN orders it: 64 columns, in each of which two rows are a uint32."""
    inner, outer = kernel.shape
    shift, sixteen = tf.bitwise.right_shift, tf.constant(16, tf.uint32)
    bits = tf.reshape(_rounded(kernel), [inner // 2, 2, outer])
    pairs = shift(bits[:, 0], sixteen) | tf.bitwise.left_shift(shift(bits[:, 1], sixteen), sixteen)
    return tf.reshape(tf.transpose(tf.reshape(pairs, [inner // 2, outer // 64, 64]), [1, 0, 2]), [-1])


@functools.cache
def _packs(rows: int, units: int, features: int) -> bool:
    """Return whether oneDNN reads a recurrent kernel as `_pack` orders it, both ways, by trying it out."""
    if units % 64:
        return False
    with tf.init_scope():
        kernel = tf.random.stateless_normal((units, features), (1, 2))
        for weights, width in ((kernel, units), (tf.transpose(kernel), features)):
            a = _computed(_stored_as(tf.random.stateless_normal((rows, width), (1, 3)), tf.uint16))
            plain, packed = _computed(_stored_as(weights, tf.uint16)), _computed(_packed_kernel(weights))
            if not np.allclose(*_both_ways(a, plain, packed), rtol=1e-4, atol=1e-3):
                return False
    return True


_packed_kernel = compiled(_pack)


@compiled  # type: ignore[untyped-decorator]
def _both_ways(a: tf.Tensor, plain: tf.Tensor, packed: tf.Tensor) -> list[tf.Tensor]:
    return [_times_kernel(a, kernel, plain.shape[1], onednn=True) for kernel in (plain, packed)]


@functools.cache
def has_onednn(precision: str) -> bool:
    """Return whether XLA calls oneDNN's products here, in a precision, and computes with them what it should.

    A run may come from another machine. Where the processor lacks what oneDNN needs for bfloat16, it would end the
    process, so that isn't tried out.
    """
    if precision == "bfloat16" and not multiplies_bfloat16():
        return False
    stored = tf.uint16 if precision == "bfloat16" else tf.float32
    with tf.init_scope():
        a, b = (_stored_as(tf.random.stateless_normal(s, (1, 2)), stored) for s in ((8, 32), (32, 64)))
        try:
            product = _tried(_computed(a), _computed(b))
        except tf.errors.OpError:
            return False
        return bool(np.allclose(product, tf.matmul(_widen(a), _widen(b)), rtol=1e-4, atol=1e-3))


@compiled  # type: ignore[untyped-decorator]
def _tried(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return _product(a, b, True, tf.float32)


# ---- what is stored in bfloat16 ---------------------------------------------------------------------------------
# XLA turns a bfloat16 array inside a loop into float32 and back, whole, at every step (850 µs instead of 60). So the
# compiled code sees uint16 and rounds with integers; the bitcast at the border copies nothing.


def _narrow(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Float32 to itself, or to the bits of the nearest bfloat16 (ties to even) as uint16."""
    if dtype == tf.float32:
        return x
    return tf.cast(tf.bitwise.right_shift(_rounded(x), tf.constant(16, tf.uint32)), tf.uint16)


def _rounded(x: tf.Tensor) -> tf.Tensor:
    """Float32 to bits whose higher half is the nearest bfloat16."""
    bits = tf.bitcast(x, tf.uint32)
    last = tf.bitwise.right_shift(bits, tf.constant(16, tf.uint32)) & tf.constant(1, tf.uint32)
    return bits + 0x7FFF + last


def _widen(x: tf.Tensor) -> tf.Tensor:
    if x.dtype == tf.float32:
        return x
    return tf.bitcast(tf.bitwise.left_shift(tf.cast(x, tf.uint32), tf.constant(16, tf.uint32)), tf.float32)


def _stored(x: tf.Tensor) -> tf.Tensor:
    return tf.bitcast(x, tf.uint16) if x.dtype == tf.bfloat16 else x


def _computed(x: tf.Tensor) -> tf.Tensor:
    if x.dtype == tf.uint32:  # of `_pack`
        return tf.reshape(tf.bitcast(x, tf.bfloat16), [-1])
    return tf.bitcast(x, tf.bfloat16) if x.dtype == tf.uint16 else x
