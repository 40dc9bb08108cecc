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
import itertools
import platform
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.compiler.tf2xla.python.xla import dynamic_update_slice  # in place inside a loop; keras.ops uses it too

from chargen.config import Execution, ModelConfig, TrainConfig, cores, multiplies_bfloat16
from chargen.modelfile import LayerState

STEPS_IN_A_CHUNK = 16  # 8 and 32 are as fast; unrolled whole, 2 x 512 with T = 64 starts after 4.0 s instead of 2.5
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of mallopt, in glibc's malloc.h; 32 MB are its most
# The first layer's input products are read from a table, embedding times kernel, of so many characters for each of the
# embedding's numbers at the most. One thread of a Zen 3, embedding 64, way there and back in ms, products and table: 65
# characters 53 and 39 (256 units, 32 rows), 30 and 23 (384, 8); 128 characters 50 and 42; 192 50 and 51; 256 49 and 51.
LARGEST_TABLE = 3
FEWEST_ROWS = 16  # of a chain for ``steps``: oneDNN takes as long for 8 columns as for 16

compiled = tf.function(jit_compile=True, autograph=False)
chunk = tf.function(autograph=False, experimental_attributes={"_noinline": True})  # traced once, called T / 16 times


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
    steps = precision == "bfloat16" and fast_bfloat16 and rows // chains >= FEWEST_ROWS
    return Execution("steps" if steps else "loop", precision, chains, threads), reason


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
        for parameter, value in ((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, 32 << 20), (M_TRIM_THRESHOLD, 2**31 - 1)):
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
    return _feature_major(
        x,
        state,
        kernels,
        masks,
        list(recurrent or [None] * len(layers)),
        restart,
        tf.as_dtype(execution.precision),
        by_steps=execution.unroll == "steps" and execution.precision == "bfloat16" and not masked,
    )


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
    """What a layer keeps for the way back."""

    x: tf.Tensor  # [T, I, B], or [T, B] of rows of a table: what it read
    hs: tf.Tensor  # [T + 1, H, B] its outputs, the one before the window first
    gates: Any  # [T, F, B], or T of [F, B]
    cs: Any  # [T + 1, H, B], or T + 1 of [H, B], float32


def _feature_major(
    x: tf.Tensor,
    state: State,
    layer_weights: list[tuple[Any, Any, Any]],
    masks: list[Any],
    recurrent: list[Any],
    restart: tf.Tensor | None,
    dtype: tf.DType,
    *,
    by_steps: bool,
) -> tuple[tf.Tensor, State]:
    count = len(layer_weights)
    stored = tf.uint16 if dtype == tf.bfloat16 else dtype
    # Constants to a tape, which would look into the loops in eager mode otherwise.
    state = tuple(LayerState(_still(tf.transpose(h)), _still(tf.transpose(c))) for h, c in state)
    last = None if masks[-1] is None else _still(masks[-1])
    between = [None if mask is None else tf.cast(_still(tf.transpose(mask, [1, 2, 0])), dtype) for mask in masks[:-1]]
    recurrent = [None if mask is None else _still(tf.transpose(mask)) for mask in recurrent]
    keep = None if restart is None else 1 - tf.transpose(tf.cast(restart, tf.float32))  # [T, B]

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(x: tf.Tensor, *flat: tf.Tensor) -> tuple[Any, Callable[..., Any]]:
        x, weights = _still(x), [_still(a) for a in flat]
        layers = [weights[3 * n : 3 * n + 3] for n in range(count)]
        kernels = [[_computed(a) for a in _prepare(kernel, stored)] for kernel, _, _ in layers]
        prepared = [_prepare(kernel, stored) if by_steps else (kernel, kernel) for _, kernel, _ in layers]
        saved, states = [], []
        ids = None
        if x.dtype.is_integer:
            x = ids = tf.transpose(x)
        else:
            x = _computed(_entered(x, None, stored))
        for n, (_, _, bias) in enumerate(layers):
            rows = ids if x is ids else None
            reads = kernels[n][0] if dtype == tf.float32 and rows is None else None
            z = x if reads is not None else _stored(kernels[n][0] if x is ids else tf.matmul(kernels[n][0], x))
            if by_steps:
                z = _looked_up(z, ids) if x is ids else z
                hs, gates, cs, h, c = _forward_steps(z, prepared[n][0], bias, *state[n])
            else:
                kernel = prepared[n][0]
                hs, gates, cs, h, c = _forward_loop(z, rows, reads, kernel, bias, *state[n], recurrent[n], keep)
            saved.append(_Saved(x, _computed(hs), gates, cs))
            states.append((tf.transpose(h), tf.transpose(c)))
            x = saved[n].hs[1:]
            if n < count - 1 and between[n] is not None:
                x *= between[n]

        def gradient(d: tf.Tensor, *_: Any) -> list[tf.Tensor | None]:
            d = _computed(_entered(_still(d), last, stored))
            gradients: list[tf.Tensor | None] = []
            for n in reversed(range(count)):
                x, hs, gates, cs = saved[n]
                if by_steps:
                    dz = _backward_steps(_stored(d), gates, cs, prepared[n][1])
                else:
                    dz = _backward_loop(_stored(d), gates, cs, prepared[n][1], recurrent[n], keep)
                h = hs[:-1]
                for mask in (None if keep is None else keep[:, None, :], recurrent[n]):
                    h = h if mask is None else h * tf.cast(mask, dtype)
                through = _window_gradients if dtype == tf.bfloat16 else _compiled_window_gradients
                d, own = through(kernels[n][1], x, h, _computed(dz))
                if n and between[n - 1] is not None:
                    d *= between[n - 1]
                gradients = own + gradients
            return [None if d is None else _left(_stored(d), None), *gradients]

        return (_left(_stored(x), last), *[a for pair in states for a in pair]), gradient

    outputs, *after = run(x, *[weight for layer in layer_weights for weight in layer])
    after = [_still(a) for a in after]
    return outputs, tuple(LayerState(h, c) for h, c in zip(after[::2], after[1::2], strict=True))


def _still(a: tf.Tensor) -> tf.Tensor:
    return tf.stop_gradient(tf.convert_to_tensor(a))


@compiled  # type: ignore[untyped-decorator]
def _entered(a: tf.Tensor, mask: Any, stored: tf.DType) -> tf.Tensor:
    """Return (B, T, H) float32, multiplied by a mask, as it is stored, [T, H, B]."""
    return _narrow(tf.transpose(a if mask is None else a * mask, [1, 2, 0]), stored)


@compiled  # type: ignore[untyped-decorator]
def _left(a: tf.Tensor, mask: Any) -> tf.Tensor:
    """Return what is stored, [T, H, B], as (B, T, H) float32, multiplied by a mask."""
    a = tf.transpose(_widen(a), [2, 0, 1])
    return a if mask is None else a * mask


# ---- the products of a whole window -----------------------------------------------------------------------------


@compiled  # type: ignore[untyped-decorator]
def _prepare(kernel: tf.Tensor, stored: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a kernel (I, F) transposed and as it is, in the type in which it is stored.

    Compiled, as grappler would fold the transposition into the product otherwise, which then takes 30 % longer.
    """
    return _narrow(tf.transpose(kernel), stored), _narrow(kernel, stored)


@compiled  # type: ignore[untyped-decorator]
def _looked_up(table: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    """Return the input products [T, F, B] of the rows ids [T, B] of a table (V, F), which is given as [F, V]."""
    return tf.transpose(tf.gather(table, ids, axis=1), [1, 0, 2])


def _window_gradients(
    kernel: tf.Tensor, x: tf.Tensor, h: tf.Tensor, dz: tf.Tensor
) -> tuple[tf.Tensor | None, list[tf.Tensor]]:
    """Return the gradients of a layer's input and of its three weights.

    kernel (I, F), x [T, I, B], h [T, H, B] before each step, dz [T, F, B]. Returns dx [T, I, B] and a list. Where x is
    the numbers [T, B] of the kernel's rows that were read, dx is None.
    """

    def flat(a: tf.Tensor) -> tf.Tensor:  # [T, n, B] -> [n, T·B]
        return tf.reshape(tf.transpose(a, [1, 0, 2]), [a.shape[1], -1])

    (steps, _, rows), (width, _) = dz.shape, kernel.shape
    dz, dx = flat(dz), None
    if x.dtype.is_integer:
        x = tf.one_hot(x, width, axis=1, dtype=dz.dtype)
    else:
        dx = tf.transpose(tf.reshape(tf.matmul(kernel, dz), [width, steps, rows]), [1, 0, 2])
    read = tf.concat([x, h, tf.ones([steps, 1, rows], dz.dtype)], 1)
    gradients = tf.cast(tf.matmul(flat(read), dz, transpose_b=True), tf.float32)
    return dx, [gradients[:width], gradients[width:-1], gradients[-1]]


# In float32, by XLA: on a Zen 3 with AVX2, one thread, 70 to 86 GFLOP/s where TensorFlow's own products make 35 to 66.
_compiled_window_gradients = compiled(_window_gradients)


# ---- one step, in numbers ---------------------------------------------------------------------------------------


def _gates(a: tf.Tensor) -> tf.Tensor:
    """[F, B] -> [4, H, B]; one tanh for all, as σ(x) = ½ tanh(½ x) + ½: 734 µs a window instead of 807."""
    scale = tf.constant([0.5, 0.5, 1.0, 0.5])[:, None, None]
    return scale * tf.tanh(scale * tf.reshape(a, [4, a.shape[0] // 4, a.shape[1]])) + (1 - scale)


def _output(gates: tf.Tensor, c: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    c = gates[1] * c + gates[0] * gates[2]
    return gates[3] * tf.tanh(c), c


def _through(
    dh: tf.Tensor, dc: tf.Tensor, gates: tf.Tensor, c: tf.Tensor, before: tf.Tensor
) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
    """Return the gradient of z, gate by gate, and that of the c before, from those of h and c. before: that c."""
    i, f, g, o = gates[0], gates[1], gates[2], gates[3]
    tanh_c = tf.tanh(c)
    dc += dh * o * (1 - tanh_c * tanh_c)
    return (dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g * g), dh * tanh_c * o * (1 - o)), dc * f


def _put(array: tf.Tensor, value: tf.Tensor, *place: Any) -> tf.Tensor:
    """Return the array with a value at a place along its first axes; in a compiled loop, in place."""
    start = [*place, *[0] * (array.shape.rank - len(place))]
    value = tf.reshape(value, [1] * (array.shape.rank - value.shape.rank) + value.shape)
    return dynamic_update_slice(array, value, tf.stack(start))


def _put_gates(dz: tf.Tensor, parts: Sequence[tf.Tensor], *place: Any) -> tf.Tensor:
    """Write dz gate by gate, as XLA computes a concatenation element by element: 152 µs a step, and 78 so."""
    for k, part in enumerate(parts):
        dz = _put(dz, _narrow(part, dz.dtype), *place, k * part.shape[0])
    return dz


# ---- loop: a while loop compiled by XLA -------------------------------------------------------------------------


@compiled  # type: ignore[untyped-decorator]
def _forward_loop(
    z: tf.Tensor,
    ids: Any,
    reads: Any,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    h: tf.Tensor,
    c: tf.Tensor,
    mask: Any,
    keep: Any,
) -> tuple[tf.Tensor, ...]:
    """Return hs [T + 1, H, B], gates [T, F, B], cs [T + 1, H, B] and the last h, c.

    z [T, F, B] are the input products, or a table [F, V] of them, and ids [T, B] what is read from it, or the input
    itself, [T, I, B], and reads the kernel [F, I] that it is multiplied by; kernel (H, F), bias (F,), h, c, mask
    [H, B], keep [T, B].
    """
    steps, features, rows = (z if ids is None else ids).shape[0], kernel.shape[1], h.shape[1]
    kernel, bias = tf.transpose(kernel), tf.reshape(bias, [features, 1])
    both = None if reads is None else tf.concat([kernel, reads], 1)

    def step(t: Any, h: Any, c: Any, hs: Any, gates: Any, cs: Any) -> tuple[Any, ...]:
        if keep is not None:
            h, c = h * keep[t], c * keep[t]
        read = z[t] if ids is None else tf.gather(z, ids[t], axis=1)
        carried = h if mask is None else h * mask
        if both is None:
            product = tf.matmul(kernel, carried) + _widen(read)
        else:
            product = tf.matmul(both, tf.concat([carried, read], 0))
        gate = _gates(product + bias)
        h, c = _output(gate, c)
        gates = _put(gates, _narrow(tf.reshape(gate, [features, rows]), z.dtype), t)
        return t + 1, h, c, _put(hs, _narrow(h, z.dtype), t + 1), gates, _put(cs, c, t + 1)

    hs = _put(tf.zeros([steps + 1, features // 4, rows], z.dtype), _narrow(h, z.dtype), 0)
    cs = _put(tf.zeros([steps + 1, features // 4, rows]), c, 0)
    start = 0, h, c, hs, tf.zeros([steps, features, rows], z.dtype), cs
    _, h, c, hs, gates, cs = tf.while_loop(lambda t, *_: t < steps, step, start)
    return hs, gates, cs, h, c


@compiled  # type: ignore[untyped-decorator]
def _backward_loop(dhs: tf.Tensor, gates: tf.Tensor, cs: tf.Tensor, kernel: tf.Tensor, mask: Any, keep: Any) -> Any:
    """Return dz [T, F, B] from the gradient of every h from above, dhs [T, H, B].

    dz is a buffer of its own: in place of the gates it would be copied whole at every step.
    """
    steps, units, rows = dhs.shape

    def step(t: Any, dh: Any, dc: Any, dz: Any) -> tuple[Any, ...]:
        gate = tf.reshape(_widen(gates[t]), [4, units, rows])
        before = cs[t] if keep is None else cs[t] * keep[t]
        parts, dc = _through(dh + _widen(dhs[t]), dc, gate, cs[t + 1], before)
        dz = _put_gates(dz, parts, t)
        dh = tf.matmul(kernel, _widen(dz[t]))
        if mask is not None:
            dh *= mask
        if keep is not None:
            dh, dc = dh * keep[t], dc * keep[t]
        return t - 1, dh, dc, dz

    zero = tf.zeros([units, rows])
    start = steps - 1, zero, zero, tf.zeros([steps, 4 * units, rows], gates.dtype)
    return tf.while_loop(lambda t, *_: t >= 0, step, start)[3]


# ---- steps: TensorFlow's own products, a compiled block after each ----------------------------------------------


def _forward_steps(z: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, h: tf.Tensor, c: tf.Tensor) -> tuple[Any, ...]:
    """As `_forward_loop`, with the kernel transposed, [F, H]; gates and cs stay lists."""
    hs, gates, cs = [_narrowed(h, z.dtype)], list[tf.Tensor](), [c]
    for part in _chunks(z):
        for done, more in zip(
            (hs, gates, cs), _forward_chunk(part, _computed(kernel), bias, hs[-1], cs[-1]), strict=True
        ):
            done.extend(more)
    return tf.stack(hs), gates, cs, tf.cast(_computed(hs[-1]), tf.float32), cs[-1]


def _backward_steps(dhs: tf.Tensor, gates: list[tf.Tensor], cs: list[tf.Tensor], kernel: tf.Tensor) -> tf.Tensor:
    kernel = _computed(_pieces(kernel))
    dzs: list[tf.Tensor] = []
    end = len(gates)
    dh, dc = tf.zeros([kernel.shape[0], *dhs.shape[1:]], dhs.dtype), tf.zeros_like(cs[0])
    for part in reversed(_chunks(dhs)):
        begin = end - part.shape[0]
        more, dh, dc = _backward_chunk(part, dh, dc, gates[begin:end], cs[begin : end + 1], kernel)
        dzs, end = [*more, *dzs], begin
    return tf.stack(dzs)


def _chunks(a: tf.Tensor) -> list[tf.Tensor]:
    whole, rest = divmod(a.shape[0], STEPS_IN_A_CHUNK)
    return list(tf.split(a, [STEPS_IN_A_CHUNK] * whole + [rest] * (rest > 0)))


@chunk  # type: ignore[untyped-decorator]
def _forward_chunk(z: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, h: tf.Tensor, c: tf.Tensor) -> tuple[Any, ...]:
    hs, gates, cs = [], [], []
    for z_t in tf.unstack(z):
        h, c, gate = _cell(_stored(tf.matmul(kernel, _computed(h))), z_t, bias, c)
        hs.append(h)
        gates.append(gate)
        cs.append(c)
    return hs, gates, cs


@chunk  # type: ignore[untyped-decorator]
def _backward_chunk(
    dhs: tf.Tensor, dh: tf.Tensor, dc: tf.Tensor, gates: list[tf.Tensor], cs: list[tf.Tensor], kernel: tf.Tensor
) -> tuple[Any, ...]:
    dzs: list[tf.Tensor] = []
    above = tf.unstack(dhs)
    pieces, _, width = kernel.shape
    for t in reversed(range(len(gates))):
        dz, dc = _cell_back(dh, above[t], dc, gates[t], cs[t + 1], cs[t])
        dh = _stored(tf.matmul(kernel, tf.reshape(_computed(dz), [pieces, width, -1])))
        dzs.insert(0, dz)
    return dzs, dh, dc


@compiled  # type: ignore[untyped-decorator]
def _cell(a: tf.Tensor, z: tf.Tensor, bias: tf.Tensor, c: tf.Tensor) -> tuple[tf.Tensor, ...]:
    gate = _gates(_widen(a) + _widen(z) + tf.reshape(bias, [-1, 1]))
    h, c = _output(gate, c)
    return _narrow(h, z.dtype), c, _narrow(tf.reshape(gate, z.shape), z.dtype)


@compiled  # type: ignore[untyped-decorator]
def _cell_back(
    dh: tf.Tensor, above: tf.Tensor, dc: tf.Tensor, gates: tf.Tensor, c: tf.Tensor, before: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """Dh [k, H, B] is the recurrent product in k pieces, see `_pieces`.

    They are added one by one: a reduction goes to XLA's YNNPACK, which is built in the first execution, and in one of
    some sixty runs crashed there (TensorFlow 2.21), as two chains begin with it at the same time.
    """
    gate = tf.reshape(_widen(gates), [4, *c.shape])
    parts, dc = _through(tf.add_n([*tf.unstack(_widen(dh)), _widen(above)]), dc, gate, c, before)
    return _put_gates(tf.zeros(gates.shape, gates.dtype), parts), dc


@compiled  # type: ignore[untyped-decorator]
def _pieces(kernel: tf.Tensor) -> tf.Tensor:
    """(H, F) -> [k, H, F/k]: the inner dimension in pieces of 512.

    oneDNN halves its speed at 1024 and 2048 with fewer than 32 columns: [512, 2048] x [2048, 16] takes 369 µs at once
    and 175 in four pieces.
    """
    units, features = kernel.shape
    pieces = features // 512 if features % 512 == 0 else 1
    return tf.transpose(tf.reshape(kernel, [units, pieces, features // pieces]), [1, 0, 2])


# ---- what is stored in bfloat16 ---------------------------------------------------------------------------------
# XLA turns a bfloat16 array inside a loop into float32 and back, whole, at every step (850 µs instead of 60). So the
# compiled code sees uint16 and rounds with integers; the bitcast at the border copies nothing.


def _narrow(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Float32 to itself, or to the bits of the nearest bfloat16 (ties to even) as uint16."""
    if dtype == tf.float32:
        return x
    shift, sixteen, one = tf.bitwise.right_shift, tf.constant(16, tf.uint32), tf.constant(1, tf.uint32)
    bits = tf.bitcast(x, tf.uint32)
    bits += 0x7FFF + tf.bitwise.bitwise_and(shift(bits, sixteen), one)
    return tf.cast(shift(bits, sixteen), tf.uint16)


_narrowed = compiled(_narrow)


def _widen(x: tf.Tensor) -> tf.Tensor:
    if x.dtype == tf.float32:
        return x
    return tf.bitcast(tf.bitwise.left_shift(tf.cast(x, tf.uint32), tf.constant(16, tf.uint32)), tf.float32)


def _stored(x: tf.Tensor) -> tf.Tensor:
    return tf.bitcast(x, tf.uint16) if x.dtype == tf.bfloat16 else x


def _computed(x: tf.Tensor) -> tf.Tensor:
    return tf.bitcast(x, tf.bfloat16) if x.dtype == tf.uint16 else x
