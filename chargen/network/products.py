"""Matrix products on a CPU, in float32 or bfloat16, by XLA or by oneDNN.

The shapes are those of an LSTM layer: B rows, H units, I inputs, F = 4H features (the four gates). `project`, `prepare`
and `convert` may be called anywhere; the other functions of tensors are for code that XLA compiles. The measurements
behind the choices are in the manual.

**Who multiplies.** XLA calls oneDNN if it is asked to by the custom call ``__onednn$matmul``. In bfloat16 that is five
times as fast as XLA's own product. In float32 it is faster for the products of a whole window, but in a loop over time
only for large kernels and many rows (`times_kernel`). Without AVX-512, XLA multiplies everything.

**The order of a kernel.** oneDNN copies a bfloat16 kernel into an order of its own before it multiplies, which takes as
long as the product. So a recurrent kernel is put in that order once for a window (`prepare`), if a trial shows that
oneDNN reads it correctly (`packs`).

**How bfloat16 is stored.** XLA converts a bfloat16 array inside a loop to float32 and back, the whole array at every
step. So arrays are stored as the bits of bfloat16 numbers, in uint16, and rounded by integer arithmetic. ``stored`` is
the type in which arrays are stored: float32 or uint16. The conversion to bfloat16 for a product copies nothing.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla  # custom calls, which keras.ops does not have

from chargen.config import Execution
from chargen.machine import multiplies_bfloat16

# Bytes of a float32 kernel from which it is multiplied from the left in the forward pass too, and the rows from which
# oneDNN multiplies such a kernel. See `times_kernel`.
LARGE_KERNEL, MANY_ROWS = 4 << 20, 32

compiled = tf.function(jit_compile=True, autograph=False)


# ---- numbers ----------------------------------------------------------------------------------------------------


def stored_type(execution: Execution) -> tf.DType:
    """Return the type in which an execution stores arrays: float32, or uint16 for the bits of bfloat16."""
    return tf.uint16 if execution.precision == "bfloat16" else tf.float32


def narrow(x: tf.Tensor, stored: tf.DType) -> tf.Tensor:
    """Store float32: as it is, or as the bits of the nearest bfloat16 (ties away from zero)."""
    if stored == tf.float32:
        return x
    return tf.cast(tf.bitwise.right_shift(_rounded(x), tf.constant(16, tf.uint32)), tf.uint16)


def _rounded(x: tf.Tensor) -> tf.Tensor:
    """Return the bits (uint32) whose higher half is the nearest bfloat16. Ties to even would cost up to 7 %."""
    return tf.bitcast(x, tf.uint32) + 0x8000


def widen(x: tf.Tensor) -> tf.Tensor:
    """Return what is stored, float32 or uint16, as float32."""
    if x.dtype == tf.float32:
        return x
    return tf.bitcast(tf.bitwise.left_shift(tf.cast(x, tf.uint32), tf.constant(16, tf.uint32)), tf.float32)


def to_bits(x: tf.Tensor) -> tf.Tensor:
    """Return bfloat16 as its bits in uint16, and anything else as it is."""
    return tf.bitcast(x, tf.uint16) if x.dtype == tf.bfloat16 else x


def from_bits(x: tf.Tensor) -> tf.Tensor:
    """Return uint16 as bfloat16, a packed kernel (uint32, see `_pack`) as a flat bfloat16, and others as they are."""
    if x.dtype == tf.uint32:
        return tf.reshape(tf.bitcast(x, tf.bfloat16), [-1])
    return tf.bitcast(x, tf.bfloat16) if x.dtype == tf.uint16 else x


def convert(a: tf.Tensor, dtype: tf.DType, factor: tf.Tensor | None = None) -> tf.Tensor:
    """Return what is stored or float32, multiplied by a factor that broadcasts to it, stored as ``dtype`` or float32.

    Outside of compiled code it is compiled on its own.
    """
    return a if factor is None and a.dtype == dtype else _converted(a, dtype, factor)


@compiled  # type: ignore[untyped-decorator]
def _converted(a: tf.Tensor, dtype: tf.DType, factor: Any) -> tf.Tensor:
    a = widen(a)
    return narrow(a if factor is None else a * factor, dtype)


def detached(a: tf.Tensor) -> tf.Tensor:
    """Return a tensor through which no gradient flows."""
    return tf.stop_gradient(tf.convert_to_tensor(a))


# ---- products ---------------------------------------------------------------------------------------------------


def uses_onednn(execution: Execution) -> bool:
    """Return whether oneDNN multiplies: whether the execution asks for it and it works here."""
    return execution.unroll == "onednn" and has_onednn(execution.precision)


def product(
    a: tf.Tensor,
    b: tf.Tensor,
    onednn: bool,
    result: tf.DType = tf.float32,
    transposed: Literal["neither", "a", "b"] = "neither",
) -> tf.Tensor:
    """Return the product of two matrices, float32 or bfloat16, one of them transposed if told so.

    The sums are float32; ``result`` is the type to which they are rounded, that of the matrices or float32.
    """
    transpose = {"transpose_a": transposed == "a", "transpose_b": transposed == "b"}
    if onednn:
        shape = [a.shape[int(transposed == "a")], b.shape[int(transposed != "b")]]
        return _call_onednn(a, b, shape, result, **transpose)
    return tf.cast(tf.matmul(tf.cast(a, tf.float32), tf.cast(b, tf.float32), **transpose), result)


def _call_onednn(a: tf.Tensor, b: tf.Tensor, shape: list[int], result: tf.DType, **options: Any) -> tf.Tensor:
    """Return oneDNN's product, of a shape and type. The options are fields of XLA's OneDnnMatMulConfig."""
    matrix = {"dims": "2", "tensor": {"dimensions": ["1", "2"]}}
    config = json.dumps({"onednn_matmul_config": {"lhs": matrix, "rhs": matrix, "result": matrix, **options}})
    return xla.custom_call([a, b], "__onednn$matmul", config, result, shape)


def times_kernel(a: tf.Tensor, kernel: tf.Tensor, outer: int, left: bool, onednn: bool) -> tf.Tensor:
    """Return the product (B, outer) float32 of a (B, inner), stored or not, and a prepared kernel.

    In bfloat16 oneDNN takes the kernel as (inner, outer), packed or not. Otherwise the kernel may be on the ``left``,
    as (outer, inner), and the product is read transposed. In the forward pass that is faster for large kernels alone.
    In the backward pass it is always faster, as the result is smaller and the kernel needs no transposition.
    """
    if onednn and kernel.dtype != tf.float32:
        packed = {"optimization_config": {"weights_prepacked": True}} if kernel.shape.rank == 1 else {}
        return _call_onednn(from_bits(a), kernel, [a.shape[0], outer], tf.float32, **packed)
    a, kernel = widen(to_bits(a)), widen(to_bits(kernel))
    if not left:
        return tf.matmul(a, kernel)
    if onednn and is_large(kernel) and a.shape[0] >= MANY_ROWS:
        return _transposed(_call_onednn(kernel, _transposed(a), [outer, a.shape[0]], tf.float32))
    return _transposed(tf.matmul(kernel, a, transpose_b=True))


def _transposed(a: tf.Tensor) -> tf.Tensor:
    """Return a matrix transposed. The reshapes keep XLA from changing the product's layout, which would be slower."""
    rows, columns = a.shape
    return tf.reshape(tf.transpose(tf.reshape(a, [rows, 1, columns]), [2, 1, 0]), [columns, rows])


def is_large(kernel: tf.Tensor) -> bool:
    """Return whether a kernel is multiplied from the left in the forward pass too; see `times_kernel`."""
    return bool(4 * kernel.shape.num_elements() >= LARGE_KERNEL)


def project(x: tf.Tensor, kernel: tf.Tensor, execution: Execution) -> tf.Tensor:
    """Return x (..., n) times kernel (n, m), all float32.

    A bfloat16 execution with oneDNN rounds both to bfloat16 and sums in float32: with float32 products of the last
    layer, 2 x 128 would be trained at 0.79 of the speed.
    """
    rounds = execution.precision == "bfloat16" and uses_onednn(execution)
    if not rounds or not x.shape.is_fully_defined():
        return tf.tensordot(x, kernel, 1)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        x, kernel = detached(x), detached(kernel)

        def gradient(d: tf.Tensor) -> list[tf.Tensor]:
            return list(_project_backward(x, kernel, detached(d)))

        return _project(x, kernel), gradient

    return run(x, kernel)


@compiled  # type: ignore[untyped-decorator]
def _project(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.reshape(product(_bfloat16_matrix(x), _bfloat16_matrix(kernel), True), [*x.shape[:-1], kernel.shape[1]])


@compiled  # type: ignore[untyped-decorator]
def _project_backward(x: tf.Tensor, kernel: tf.Tensor, d: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    d = _bfloat16_matrix(d)
    d_x = product(d, _bfloat16_matrix(kernel), True, transposed="b")
    return tf.reshape(d_x, x.shape), product(_bfloat16_matrix(x), d, True, transposed="a")


def _bfloat16_matrix(a: tf.Tensor) -> tf.Tensor:
    return from_bits(narrow(tf.reshape(a, [-1, a.shape[-1]]), tf.uint16))


# ---- kernels ----------------------------------------------------------------------------------------------------


class Prepared(NamedTuple):
    """A layer's kernels, stored, in the order in which they are multiplied."""

    input: tf.Tensor  # (I, F); not used where the first layer's products are looked up
    forward: tf.Tensor  # the recurrent kernel as `times_kernel` takes it in the forward pass
    backward: tf.Tensor  # and in the backward pass


def prepare(kernel: tf.Tensor, recurrent_kernel: tf.Tensor, rows: Collection[int], execution: Execution) -> Prepared:
    """Return kernel (I, F) and recurrent_kernel (H, F), float32, as products with ``rows`` rows take them.

    rows: the numbers of rows of the shards that share the result. If two shards prepared their own, a step would take
    up to 1.05 times as long.
    """
    kernel, recurrent_kernel = detached(kernel), detached(recurrent_kernel)
    stored = stored_type(execution)
    right = stored == tf.uint16 and uses_onednn(execution)
    packed = right and all(packs(count, *recurrent_kernel.shape) for count in set(rows))
    forward = _arrange(recurrent_kernel, stored, not right and is_large(recurrent_kernel), packed)
    backward = _arrange(recurrent_kernel, stored, right, packed)
    return Prepared(convert(kernel, stored), forward, backward)


def _arrange(kernel: tf.Tensor, stored: tf.DType, transposed: bool, packed: bool) -> tf.Tensor:
    """Return a recurrent kernel (H, F) float32 stored, transposed and packed as told."""
    return _arranged(kernel, stored, transposed, packed) if transposed or packed else convert(kernel, stored)


@compiled  # type: ignore[untyped-decorator]
def _arranged(kernel: tf.Tensor, stored: tf.DType, transposed: bool, packed: bool) -> tf.Tensor:
    kernel = tf.transpose(kernel) if transposed else kernel
    return _pack(kernel) if packed else narrow(kernel, stored)


def _pack(kernel: tf.Tensor) -> tf.Tensor:
    """Return (n, m) float32 rounded to bfloat16 in oneDNN's order, as [m / 64, n / 2, 64] uint32.

    oneDNN reads 64 columns at a time, and of each column two rows at a time, which are one uint32. XLA makes the result
    in this shape in half the time that it takes to make it flat.
    """
    inner, outer = kernel.shape
    shift, sixteen = tf.bitwise.right_shift, tf.constant(16, tf.uint32)
    bits = tf.reshape(_rounded(kernel), [inner // 2, 2, outer])
    pairs = shift(bits[:, 0], sixteen) | tf.bitwise.left_shift(shift(bits[:, 1], sixteen), sixteen)
    return tf.transpose(tf.reshape(pairs, [inner // 2, outer // 64, 64]), [1, 0, 2])


# ---- trials -----------------------------------------------------------------------------------------------------


@functools.cache
def packs(rows: int, units: int, features: int) -> bool:
    """Return whether oneDNN reads a bfloat16 recurrent kernel in the order of `_pack`, in both passes, by a trial.

    oneDNN documents no order: the one that it reads depends on the processor and the shape.
    """
    if units % 64 or not has_onednn("bfloat16"):
        return False

    @compiled  # type: ignore[untyped-decorator]
    def both(a: tf.Tensor, kernel: tf.Tensor) -> list[tf.Tensor]:
        kernels = from_bits(narrow(kernel, tf.uint16)), from_bits(_pack(kernel))
        return [times_kernel(narrow(a, tf.uint16), k, kernel.shape[1], False, onednn=True) for k in kernels]

    def agree(inner: int, outer: int) -> bool:
        case = [tf.random.stateless_normal(shape, (1, 2)) for shape in ((rows, inner), (inner, outer))]
        plain, packed = both.get_concrete_function(*case)(*case)  # a plain call would warn of retracing
        return bool(np.allclose(plain, packed, rtol=1e-4, atol=1e-3))

    with tf.init_scope():
        try:
            return agree(units, features) and agree(features, units)
        except tf.errors.OpError:
            return False


@functools.cache
def has_onednn(precision: str) -> bool:
    """Return whether XLA calls oneDNN here, in a precision, and gets correct products, by a trial.

    A run may come from another machine. Without bfloat16 instructions there is no trial, as oneDNN would end the
    process.
    """
    if precision == "bfloat16" and not multiplies_bfloat16():
        return False
    stored = tf.uint16 if precision == "bfloat16" else tf.float32

    @compiled  # type: ignore[untyped-decorator]
    def both(a: tf.Tensor, b: tf.Tensor) -> list[list[tf.Tensor]]:
        a, b = from_bits(narrow(a, stored)), from_bits(narrow(b, stored))
        return [
            [
                product(a, b, onednn),
                product(tf.transpose(a), b, onednn, transposed="a"),
                tf.cast(product(a, tf.transpose(b), onednn, a.dtype, transposed="b"), tf.float32),
            ]
            for onednn in (True, False)
        ]

    with tf.init_scope():
        try:
            ours, plain = both(*(tf.random.stateless_normal(shape, (1, 2)) for shape in ((8, 32), (32, 64))))
        except tf.errors.OpError:
            return False
        return all(np.allclose(a, b, rtol=2e-2, atol=2e-2) for a, b in zip(ours, plain, strict=True))
