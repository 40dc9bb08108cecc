"""The LSTM layers of a window, forward and backward: Keras's own, or on a CPU a faster equal of theirs.

L layers, H units, B rows (streams), T characters, I the width of a layer's input, F = 4H. The weights are the Keras
layers' own: kernel (I, F), recurrent_kernel (H, F), bias (F,), gates in the order i, f, g, o.

How the CPU's is fast, measured on 2 cores with AVX-512 and AMX (Xeon of the Emerald Rapids kind) unless told otherwise:

* A layer's time is a while loop compiled by XLA, which launches nothing at a step: one product, the recurrent one, and
  a dozen small kernels. What does not depend on the recurrence is multiplied for the whole window.
* XLA calls oneDNN for a product, by the custom call ``__onednn$matmul``, if it is asked to (``onednn``): in bfloat16,
  which XLA itself multiplies in float32 or, of 48 columns and more, in YNNPACK, [16, 384] x [384, 1536] takes 50 µs on
  one thread, where XLA takes 240 and an operation of TensorFlow's 50 to 90 and its launch.
* oneDNN puts a kernel in an order of its own before it multiplies, which takes as long as the product: so it is given
  in that order, once for a window (`_pack`; 47 instead of 87 µs). The order is tried out first (`packs`).
* In float32 XLA's own products in the loop are as fast as oneDNN's, but for large kernels and many rows
  (`_times_kernel`); the window's are not (95 and 143 GFLOP/s of [2048, 512] x [512, 2048] on one thread). Without
  AVX-512 XLA multiplies all (``loop``): on a Zen 3 its products make 70 to 90 GFLOP/s, oneDNN's 37 to 66; so does a
  higher layer's input go in the loop there.
* The way there keeps the slopes that the way back multiplies by, as those take no more room than the gates: a step back
  of 512 units, 32 rows took 435 µs with gates, and 215 so.
* Time first, then rows, [T, B, features], from the characters to the logits: characters are rows of a table, and a
  window's products are of two matrices as they lie.
* The first layer's input products are looked up: there are only as many as the vocabulary has characters. 1 x 384, 16
  rows 1.3 times as fast (best of three on a Zen 3).

Whoever trains computes the rows in shards, groups that run beside each other from the embedding to the gradients, each
on one thread (`shard_rows`): 1.06 to 1.24 times as fast as one group whose products are split over two threads, and
more since both shards' ways there run at once (`_forward`). They share what is made of the kernels (`prepare`). To part
the units instead, so that each thread reads half of a kernel, was not faster in bfloat16: [64, 512] x [512, 2048] so
took 97 µs with its hand-overs, two shards' [32, 512] 98.

Peak memory of a training step over that of TensorFlow itself, in bytes, with P parameters:

    27·P + B·T·H·k      k = 36·L + 24 in float32, 17·L + 38 in bfloat16

27·P are weights, moments, gradients and the kernels that are made ready, some 3·P in bfloat16. A layer keeps six slopes
and h for each unit and character, 28 bytes in float32 and 14 in bfloat16; one layer at a time needs dz on top. k was
measured at L = 1, 2, 3, with 256 units and 64 rows.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla  # for what keras.ops has not, or, as updates in place, not on tensors

from chargen.config import Execution, TrainConfig
from chargen.machine import cores, multiplies_bfloat16, processor_features
from chargen.store.modelfile import LayerState

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt, in glibc's malloc.h; 32 MB are its most
# The first layer's input products are read from a table, embedding times kernel, of so many characters for each of the
# embedding's numbers at the most. One thread of a Zen 3, embedding 64, way there and back in ms, products and table: 65
# characters 53 and 39 (256 units, 32 rows), 30 and 23 (384, 8); 128 characters 50 and 42; 192 50 and 51; 256 49 and 51.
LARGEST_TABLE = 3
# Kernels of so many bytes in float32 are on the left on the way there too, and oneDNN multiplies them if a shard has so
# many rows: see `_times_kernel`. 2 x 512 was trained 1.11 times as fast by oneDNN with 32 rows a shard, and 0.98 times
# with 16 (medians of 11 and 10 pairs).
LARGE_KERNEL, MANY_ROWS = 4 << 20, 32

# The fewest rows of a shard where there are more than two shards. A step of 1 x 384 takes 11.5 ms with 1 row, 11.6 with
# 4, 14.5 with 8 and 20.3 with 16 (one thread, AMX): with fewer rows, more threads gain little.
FEWEST_ROWS = 8

compiled = tf.function(jit_compile=True, autograph=False)

State = tuple[LayerState, ...]  # of L layers, the one nearest the input first; h and c are (B, H) float32
Masks = Sequence[tf.Tensor | None] | None


class Prepared(NamedTuple):
    """A layer's kernels, stored: as integers in bfloat16, as Keras makes float32 of all other arguments of a model."""

    entry: tf.Tensor  # the input's, (I, F); of a layer that reads rows of a table it isn't used
    there: tf.Tensor  # the recurrent one as `_times_kernel` takes it on the way there
    back: tf.Tensor  # and on the way back


# ---- which unroll, in which precision, on how many threads ------------------------------------------------------


def choose(train: TrainConfig, replicas: int = 1) -> tuple[Execution, str]:
    """Return how a model is to be computed on this machine, and why, in a few words.

    A rule over device, processor features, rows, replicas and threads, without a measurement: the same machine chooses
    the same. It is chosen once for a run and kept with it.
    """
    fast_bfloat16 = multiplies_bfloat16()
    threads = train.threads or cores()
    if tf.config.list_physical_devices("GPU"):
        ignored = ", in float32: bfloat16 is for processors" if train.precision == "bfloat16" else ""
        return Execution(threads=threads), f"a GPU computes Keras's layers by cuDNN{ignored}"
    precision, reason = train.precision, "as asked"
    if precision == "auto":
        precision = "bfloat16" if fast_bfloat16 else "float32"
        reason = f"the processor has {'' if fast_bfloat16 else 'no '}bfloat16 products"
    rows = train.batch_size // replicas
    shards = max(1, min(threads, max(2, rows // FEWEST_ROWS), rows))
    onednn = fast_bfloat16 if precision == "bfloat16" else "avx512f" in processor_features()
    return Execution("onednn" if onednn else "loop", precision, shards, threads), reason


def own_process(execution: Execution) -> None:
    """Give TensorFlow a thread for each shard, and each shard's operations what is left; keep freed memory.

    For a program that owns its process, before TensorFlow has computed anything: the command does it, a library does
    not. Keras's layers are left with TensorFlow's own two pools.

    glibc gives each large array back to the system when it is freed, and a step asks for some 40 MB of new pages. Kept,
    1 x 256 was trained 1.08 times as fast (median of three pairs, Zen 3, float32, the unroll before, in one arena).
    They are kept in as many arenas as glibc likes: with one, 1 x 384, 16 rows in bfloat16 took 19 to 20 ms instead of
    13 to 14, as oneDNN asks for some memory at each product, and shards wait for each other there.
    """
    if execution.unroll == "keras":
        intra = inter = execution.threads
    else:
        intra, inter = max(1, execution.threads // execution.shards), execution.shards
    tf.config.threading.set_intra_op_parallelism_threads(intra)
    tf.config.threading.set_inter_op_parallelism_threads(inter)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter, value in ((M_MMAP_THRESHOLD, 32 << 20), (M_TRIM_THRESHOLD, 2**31 - 1)):
            libc.mallopt(parameter, value)


def shard_rows(batch_size: int, shards: int) -> list[slice]:
    """Return the rows of each shard: all rows in order, in groups as equal as they can be."""
    shards = min(shards, batch_size)
    cuts = [batch_size * k // shards for k in range(shards + 1)]
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
    prepared: Sequence[Prepared] | None = None,
) -> tuple[tf.Tensor, State]:
    """Compute all layers over a window from a state; return the outputs [T, B, H] float32 and the state after it.

    x: (B, T, I) float32; or with an embedding (V, I) float32 the numbers of its rows that are read, (B, T) int32.
    layers: L keras.layers.LSTM that return sequences and states. masks: L of three axes that broadcast to (B, T, H), by
    which the layers' outputs are multiplied. recurrent: L masks (B, H), by which h is multiplied in the recurrent
    product, constant over the window. restart: (B, T) bool, true where the state is zero before a character is read.
    recurrent_kernels: L tensors (H, F) in place of the layers' own. prepared: what `prepare` makes of the same
    kernels for the same execution and B among its rows, if several shards share it. No gradient goes to the state or
    the masks. Shapes are static, but for ``keras``, which takes any and has the first kind of mask only; with the other
    two it is the ``loop`` that computes.
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
    execution = replace(execution, unroll="loop") if execution.unroll == "keras" else execution
    prepared = prepared or prepare(layers, execution, [x.shape[0]], recurrent_kernels)
    return _fast(x, state, kernels, prepared, masks, list(recurrent or [None] * len(layers)), restart, execution)


def prepare(
    layers: Sequence[Any],
    execution: Execution,
    rows: Sequence[int],
    recurrent_kernels: Sequence[tf.Tensor] | None = None,
) -> list[Prepared]:
    """Return the layers' kernels as `unroll` takes them, for shards of so many rows each to share; of ``keras`` none.

    recurrent_kernels: L tensors (H, F) in place of the layers' own. Where two shards prepared their own, a step took
    1.02 to 1.05 times as long.
    """
    if execution.unroll == "keras":
        return []
    stored, onednn = _products(execution)
    prepared = []
    for n, layer in enumerate(layers):
        kernel = _still(layer.cell.kernel.value)
        other = _still(recurrent_kernels[n] if recurrent_kernels else layer.cell.recurrent_kernel.value)
        right = onednn and stored == tf.uint16
        packed = right and all(packs(count, *other.shape) for count in set(rows))
        there = _prepared(other, stored, transposed=not right and _large(other), packed=packed)
        back = _prepared(other, stored, transposed=right, packed=packed)
        prepared.append(Prepared(_as(kernel, stored), there, back))
    return prepared


def _products(execution: Execution) -> tuple[tf.DType, bool]:
    """Return the type in which arrays are stored, and whether oneDNN multiplies."""
    onednn = execution.unroll == "onednn" and has_onednn(execution.precision)
    return tf.uint16 if execution.precision == "bfloat16" else tf.float32, onednn


def _keras(
    x: tf.Tensor, state: State, layers: Sequence[Any], kernels: list[tuple[Any, ...]], masks: list[Any]
) -> tuple[tf.Tensor, State]:
    states = []
    for layer, own, carried, mask in zip(layers, kernels, state, masks, strict=True):
        frozen = layer.non_trainable_variables
        (x, h, c), _ = layer.stateless_call(own, frozen, x, initial_state=[carried.h, carried.c])
        states.append(LayerState(h, c))
        x = x if mask is None else x * mask
    return tf.transpose(x, [1, 0, 2]), tuple(states)


class _Saved(NamedTuple):
    """What a layer keeps for the way back, stored as `_narrow` does it."""

    read: tf.Tensor  # [T, B, I], or [T, B] of rows of a table
    hs: tf.Tensor  # [T + 1, B, H] its outputs, the one before the window first
    slopes: tf.Tensor  # [T, B, 4, H] of c by z; for the gate o, of h by z
    by_c: tf.Tensor  # [T, 2, B, H]: slopes of h by c, of c by the c before


def _fast(
    x: tf.Tensor,
    state: State,
    layer_weights: list[tuple[Any, Any, Any]],
    prepared: Sequence[Prepared],
    masks: list[Any],
    recurrent: list[Any],
    restart: tf.Tensor | None,
    execution: Execution,
) -> tuple[tf.Tensor, State]:
    last = len(layer_weights) - 1
    stored, onednn = _products(execution)
    # Constants to a tape, which would look into the loops in eager mode otherwise.
    state = tuple(LayerState(_still(h), _still(c)) for h, c in state)
    masks = [None if mask is None else tf.transpose(_still(mask), [1, 0, 2]) for mask in masks]
    recurrent = [None if mask is None else _still(mask) for mask in recurrent]
    keep = None if restart is None else 1 - tf.transpose(tf.cast(restart, tf.float32))  # [T, B]

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(x: tf.Tensor, *flat: tf.Tensor) -> tuple[Any, Callable[..., Any]]:
        weights = [_still(a) for a in flat]
        layers = [weights[3 * n : 3 * n + 3] for n in range(last + 1)]
        ids = x.dtype.is_integer
        read = _still(x)
        read = tf.transpose(tf.cast(read, tf.int32)) if ids else _as(tf.transpose(read, [1, 0, 2]), stored)
        saved, states, entries = [], [], []
        for n, (kernel, _, bias) in enumerate(layers):  # the recurrent kernel is there for its gradient; see `prepare`
            table = ids and n == 0
            entries.append(kernel if table else _computed(prepared[n].entry))
            there = _computed(prepared[n].there)
            *kept, h, c = _forward(_computed(read), entries[n], there, bias, *state[n], recurrent[n], keep, onednn)
            saved.append(_Saved(read, *kept))
            states += [h, c]
            read = _as(saved[n].hs[1:], tf.float32 if n == last else stored, masks[n])
        outputs = read

        def gradient(d: tf.Tensor, *_: Any) -> list[tf.Tensor | None]:
            d = _still(d)
            gradients: list[tf.Tensor | None] = []
            for n in reversed(range(last + 1)):
                read, hs, *slopes = saved[n]
                d = _as(_stored(d), stored, masks[n])
                dz = _backward(d, *slopes, _computed(prepared[n].back), recurrent[n], keep, onednn)
                h = _as(hs[:-1], stored, None if keep is None else keep[:, :, None])
                h = _as(h, stored, recurrent[n])
                d, *own = _window_gradients(entries[n], _computed(read), _computed(h), _computed(dz), onednn)
                gradients = own + gradients
            return [None if ids else tf.transpose(_as(_stored(d), tf.float32), [1, 0, 2]), *gradients]

        return (outputs, *states), gradient

    outputs, *after = run(x, *[weight for layer in layer_weights for weight in layer])
    after = [_still(a) for a in after]
    return outputs, tuple(LayerState(h, c) for h, c in zip(after[::2], after[1::2], strict=True))


def _still(a: tf.Tensor) -> tf.Tensor:
    return tf.stop_gradient(tf.convert_to_tensor(a))


def _as(a: tf.Tensor, dtype: tf.DType, mask: tf.Tensor | None = None) -> tf.Tensor:
    """Return what is stored or float32, multiplied by a mask that broadcasts to it, as what is stored or float32."""
    return a if mask is None and a.dtype == dtype else _multiplied(a, dtype, mask)


@compiled  # type: ignore[untyped-decorator]
def _multiplied(a: tf.Tensor, dtype: tf.DType, mask: Any) -> tf.Tensor:
    a = _widen(a)
    return _narrow(a if mask is None else a * mask, dtype)


# ---- the loops over time ----------------------------------------------------------------------------------------


@compiled  # type: ignore[untyped-decorator]
def _forward(
    x: tf.Tensor,
    entry: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    h: tf.Tensor,
    c: tf.Tensor,
    mask: Any,
    keep: Any,
    onednn: bool,
) -> tuple[tf.Tensor, ...]:
    """Return what a layer keeps but what it read, and the last h and c, (B, H) float32.

    x [T, B, I] is read and entry is the input's kernel (I, F), both in the compute type; or x [T, B] int32 are rows of
    a table of products, entry (V, F) float32. kernel is what `_prepared` makes of the recurrent one; bias (F,), h, c,
    mask (B, H), keep [T, B].

    The window's input products are in the array that takes a step's slopes when it has read its products.

    There are few parts outside of the loop: XLA gives a function of more than eight (thunks, by
    ``execute_sequential_num_thunks_threshold`` of its ThunkExecutor) to its pool, whose one thread would compute all
    shards' loops, one after the other. With eight 2 x 512, 64 rows was trained 1.25 times as fast as with nine in
    float32, and 1.08 in bfloat16 (medians of 8 and 19 pairs).
    """
    (steps, rows), units, features = x.shape[:2], h.shape[1], bias.shape[0]
    stored = tf.float32 if kernel.dtype == tf.float32 else tf.uint16
    # So one tanh serves all gates: σ(x) = ½ tanh(½ x) + ½, and the halves are exact.
    halves = tf.repeat(tf.constant([0.5, 0.5, 1.0, 0.5]), units)
    in_the_loop = not onednn and x.dtype != tf.int32
    if in_the_loop:
        products = tf.zeros([steps, rows, features], stored)
        x, entry = _stored(x), _stored(entry)
        entry = tf.transpose(entry) if _large(entry) else entry
    elif x.dtype == tf.int32:
        products = tf.gather(_narrow(entry, stored), x)
    else:
        products = _stored(_product(tf.reshape(x, [steps * rows, -1]), entry, True, entry.dtype))

    def step(t: Any, h: Any, c: Any, hs: Any, slopes: Any, by_c: Any) -> tuple[Any, ...]:
        go_on = None if keep is None else keep[t][:, None]
        for factor in (go_on, mask):
            h = h if factor is None else _narrow(_widen(h) * factor, stored)
        before = c if go_on is None else c * go_on
        if in_the_loop:
            z = _times_kernel(x[t], entry, features, _large(entry), onednn=False)
        else:
            z = _widen(tf.reshape(slopes[t], [rows, features]))
        a = tf.tanh((_times_kernel(h, kernel, features, _large(kernel), onednn) + z + bias) * halves)
        i, f, g, o = (a[:, k * units : (k + 1) * units] for k in range(4))
        i_slope, f_slope, o_slope = (0.25 - 0.25 * gate * gate for gate in (i, f, o))
        i, f, o = (0.5 * gate + 0.5 for gate in (i, f, o))
        c = f * before + i * g
        tanh_c = tf.tanh(c)
        h = _narrow(o * tanh_c, stored)
        for k, slope in enumerate((g * i_slope, before * f_slope, i * (1 - g * g), tanh_c * o_slope)):
            slopes = _put(slopes, _narrow(slope, stored)[:, None], t, 0, k)
        by_c = _put(by_c, _narrow(o * (1 - tanh_c * tanh_c), stored), t, 0)
        by_c = _put(by_c, _narrow(f if go_on is None else f * go_on, stored), t, 1)
        return t + 1, h, c, _put(hs, h, t + 1), slopes, by_c

    h = _narrow(h, stored)
    hs = _put(tf.zeros([steps + 1, rows, units], stored), h, 0)
    slopes, by_c = tf.reshape(products, [steps, rows, 4, units]), tf.zeros([steps, 2, rows, units], stored)
    start = 0, h, c, hs, slopes, by_c
    _, h, c, *kept = tf.while_loop(lambda t, *_: t < steps, step, start)
    return *kept, _widen(h), c


@compiled  # type: ignore[untyped-decorator]
def _backward(
    d: tf.Tensor,
    slopes: tf.Tensor,
    by_c: tf.Tensor,
    kernel: tf.Tensor,
    mask: Any,
    keep: Any,
    onednn: bool,
) -> tf.Tensor:
    """Return the gradient of z, stored, [T, B, F], from that of the outputs, d [T, B, H], stored.

    kernel is what `_prepared` makes of the recurrent one; the others are as in `_forward`.
    """
    (steps, rows, units), stored = d.shape, d.dtype

    def step(t: Any, dh: Any, dc: Any, dz: Any) -> tuple[Any, ...]:
        dh += _widen(d[t])
        dc += dh * _widen(by_c[t, 0])
        for k, by in enumerate((dc, dc, dc, dh)):
            dz = _put(dz, _narrow(_widen(slopes[t, :, k]) * by, stored)[:, None], t, 0, k)
        dh = _times_kernel(tf.reshape(dz[t], [rows, 4 * units]), kernel, units, True, onednn)
        for factor in (mask, None if keep is None else keep[t][:, None]):
            dh = dh if factor is None else dh * factor
        return t - 1, dh, dc * _widen(by_c[t, 1]), dz

    zero = tf.zeros([rows, units])
    start = steps - 1, zero, zero, tf.zeros([steps, rows, 4, units], stored)
    dz = tf.while_loop(lambda t, *_: t >= 0, step, start)[3]
    return tf.reshape(dz, [steps, rows, 4 * units])


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


def _times_kernel(a: tf.Tensor, kernel: tf.Tensor, outer: int, left: bool, onednn: bool) -> tf.Tensor:
    """Return the product (B, outer) float32 of a (B, inner), stored or not, and a prepared kernel.

    In bfloat16 oneDNN takes (inner, outer), packed or not. Else the kernel may be on the left, (outer, inner), and the
    product is read transposed. One thread, 512 units, in µs, right and left: there 16 rows 379 and 280, 32 rows 622
    and 505 (oneDNN's 484), back 16 rows 351 and 261. Smaller kernels are as fast on the right on the way there, and
    what they make is read as it lies: 2 x 128 is trained 1.06 times as fast so. On the way back it is less that is read
    transposed, and the kernel is taken as it is: 1 x 384 1.10.
    """
    if onednn and kernel.dtype != tf.float32:
        return _onednn(_computed(a), kernel, [a.shape[0], outer], tf.float32, packed=kernel.shape.rank == 1)
    a, kernel = _widen(_stored(a)), _widen(_stored(kernel))
    if not left:
        return tf.matmul(a, kernel)
    if onednn and _large(kernel) and a.shape[0] >= MANY_ROWS:
        return _transposed(_onednn(kernel, _transposed(a), [outer, a.shape[0]], tf.float32))
    return _transposed(tf.matmul(kernel, a, transpose_b=True))


def _transposed(a: tf.Tensor) -> tf.Tensor:
    """Return a matrix transposed. The reshapes keep XLA from making a product's order another, and are faster."""
    rows, columns = a.shape
    return tf.reshape(tf.transpose(tf.reshape(a, [rows, 1, columns]), [2, 1, 0]), [columns, rows])


def _large(kernel: tf.Tensor) -> bool:
    """Return whether a kernel is multiplied faster on the left on the way there too; see `_times_kernel`."""
    return bool(4 * kernel.shape.num_elements() >= LARGE_KERNEL)


def project(x: tf.Tensor, kernel: tf.Tensor, execution: Execution) -> tf.Tensor:
    """Return x (..., n) times kernel (n, m), all float32; as a run multiplies in bfloat16, with sums in float32.

    With a last layer in float32 2 x 128, 64 rows is trained at 0.89, 0.79, 0.77 of the speed (three pairs of runs).
    """
    bfloat16 = execution.unroll == "onednn" and execution.precision == "bfloat16" and has_onednn("bfloat16")
    if not bfloat16 or not x.shape.is_fully_defined():
        return tf.tensordot(x, kernel, 1)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        x, kernel = _still(x), _still(kernel)

        def gradient(d: tf.Tensor) -> list[tf.Tensor]:
            return list(_project_back(x, kernel, _still(d)))

        return _project(x, kernel), gradient

    return run(x, kernel)


@compiled  # type: ignore[untyped-decorator]
def _project(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    flat, rounded = _flat_bfloat16(x), _flat_bfloat16(kernel)
    return tf.reshape(_product(flat, rounded, True, tf.float32), [*x.shape[:-1], kernel.shape[1]])


@compiled  # type: ignore[untyped-decorator]
def _project_back(x: tf.Tensor, kernel: tf.Tensor, d: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    flat = _flat_bfloat16(d)
    d_x = _product(flat, _flat_bfloat16(kernel), True, tf.float32, transpose_b=True)
    return tf.reshape(d_x, x.shape), _product(_flat_bfloat16(x), flat, True, tf.float32, transpose_a=True)


def _flat_bfloat16(a: tf.Tensor) -> tf.Tensor:
    return _computed(_narrow(tf.reshape(a, [-1, a.shape[-1]]), tf.uint16))


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


def _prepared(kernel: tf.Tensor, stored: tf.DType, transposed: bool, packed: bool) -> tf.Tensor:
    """Return a recurrent kernel (H, F) as `_times_kernel` takes it."""
    return _arranged(kernel, stored, transposed, packed) if transposed or packed else _as(kernel, stored)


@compiled  # type: ignore[untyped-decorator]
def _arranged(kernel: tf.Tensor, stored: tf.DType, transposed: bool, packed: bool) -> tf.Tensor:
    kernel = tf.transpose(kernel) if transposed else kernel
    return _pack(kernel) if packed else _narrow(kernel, stored)


def _pack(kernel: tf.Tensor) -> tf.Tensor:
    """Return (n, m) float32 in bfloat16 as oneDNN orders it: by 64 columns, two rows of a column a uint32.

    [m / 64, n / 2, 64] as it is, which XLA makes in half the time that it takes to make it flat.
    """
    inner, outer = kernel.shape
    shift, sixteen = tf.bitwise.right_shift, tf.constant(16, tf.uint32)
    bits = tf.reshape(_rounded(kernel), [inner // 2, 2, outer])
    pairs = shift(bits[:, 0], sixteen) | tf.bitwise.left_shift(shift(bits[:, 1], sixteen), sixteen)
    return tf.transpose(tf.reshape(pairs, [inner // 2, outer // 64, 64]), [1, 0, 2])


@functools.cache
def packs(rows: int, units: int, features: int) -> bool:
    """Return whether oneDNN reads a recurrent kernel in bfloat16 as `_pack` orders it, both ways, by trying it out.

    Which order it takes is its own affair: it depends on the processor and the shape.
    """
    if units % 64 or not has_onednn("bfloat16"):
        return False

    @compiled  # type: ignore[untyped-decorator]
    def both(a: tf.Tensor, kernel: tf.Tensor) -> list[tf.Tensor]:
        kernels = _computed(_narrow(kernel, tf.uint16)), _computed(_pack(kernel))
        return [_times_kernel(_narrow(a, tf.uint16), k, kernel.shape[1], False, onednn=True) for k in kernels]

    def agree(inner: int, outer: int) -> bool:
        case = [tf.random.stateless_normal(shape, (1, 2)) for shape in ((rows, inner), (inner, outer))]
        plain, packed = both.get_concrete_function(*case)(*case)  # called as it is, it is warned of many shapes
        return bool(np.allclose(plain, packed, rtol=1e-4, atol=1e-3))

    with tf.init_scope():
        try:
            return agree(units, features) and agree(features, units)
        except tf.errors.OpError:
            return False


@functools.cache
def has_onednn(precision: str) -> bool:
    """Return whether XLA calls oneDNN's products here, in a precision, and computes with them what it should.

    A run may come from another machine. Where the processor lacks what oneDNN needs for bfloat16, it would end the
    process, so that isn't tried out.
    """
    if precision == "bfloat16" and not multiplies_bfloat16():
        return False
    stored = tf.uint16 if precision == "bfloat16" else tf.float32

    @compiled  # type: ignore[untyped-decorator]
    def both(a: tf.Tensor, b: tf.Tensor) -> list[list[tf.Tensor]]:
        a, b = _computed(_narrow(a, stored)), _computed(_narrow(b, stored))
        return [
            [
                _product(a, b, onednn, tf.float32),
                _product(tf.transpose(a), b, onednn, tf.float32, transpose_a=True),
                tf.cast(_product(a, tf.transpose(b), onednn, a.dtype, transpose_b=True), tf.float32),
            ]
            for onednn in (True, False)
        ]

    with tf.init_scope():
        try:
            ours, plain = both(*(tf.random.stateless_normal(shape, (1, 2)) for shape in ((8, 32), (32, 64))))
        except tf.errors.OpError:
            return False
        return all(np.allclose(a, b, rtol=2e-2, atol=2e-2) for a, b in zip(ours, plain, strict=True))


# ---- what is stored in bfloat16 ---------------------------------------------------------------------------------
# XLA turns a bfloat16 array inside a loop into float32 and back, whole, at every step (850 µs instead of 60). So the
# compiled code sees uint16 and rounds with integers; the bitcast at the border copies nothing.


def _narrow(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Float32 to itself, or to the bits of the nearest bfloat16 (ties away from zero) as uint16."""
    if dtype == tf.float32:
        return x
    return tf.cast(tf.bitwise.right_shift(_rounded(x), tf.constant(16, tf.uint32)), tf.uint16)


def _rounded(x: tf.Tensor) -> tf.Tensor:
    """Float32 to bits whose higher half is the nearest bfloat16. Ties to even cost a step 1 to 7 %."""
    return tf.bitcast(x, tf.uint32) + 0x8000


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
