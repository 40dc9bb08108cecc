"""How a machine computes a model: which unroll, in which precision, on how many shards and threads."""

from __future__ import annotations

import ctypes
import itertools
import platform

import tensorflow as tf

from chargen.config import Execution, TrainConfig
from chargen.machine import cores, multiplies_bfloat16, processor_features

# The fewest rows of a shard where there are more than two shards: a step with 4 rows takes as long as one with 1.
FEWEST_SHARD_ROWS = 8
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from glibc's malloc.h
LARGEST_MMAP_THRESHOLD, LARGEST_TRIM_THRESHOLD = 32 << 20, 2**31 - 1  # bytes, the largest that glibc accepts


def choose(train: TrainConfig, replicas: int = 1) -> tuple[Execution, str]:
    """Return how this machine computes a model, and in a few words why in this precision.

    The choice follows from precision, device, processor features, batch size, replicas and threads, without a
    measurement: equal machines choose equally. A run chooses once and keeps the choice. The measurements behind it are
    in the manual's page of choices.
    """
    fast_bfloat16 = multiplies_bfloat16()
    threads = train.threads or cores()
    if tf.config.list_physical_devices("GPU"):
        ignored = ", in float32: bfloat16 is for processors" if train.precision == "bfloat16" else ""
        return Execution(threads=threads), f"a GPU computes Keras's layers by cuDNN{ignored}"
    precision, reason = train.precision, f"{train.precision} as asked"
    if precision == "auto":
        precision = "bfloat16" if fast_bfloat16 else "float32"
        reason = f"{precision} because the processor has {'' if fast_bfloat16 else 'no '}bfloat16 products"
    rows = train.batch_size // replicas
    shards = max(1, min(threads, max(2, rows // FEWEST_SHARD_ROWS), rows))
    onednn = fast_bfloat16 if precision == "bfloat16" else "avx512f" in processor_features()
    return Execution("onednn" if onednn else "loop", precision, shards, threads), reason


def own_process(execution: Execution) -> None:
    """Set TensorFlow's threads to one for each shard, divide the rest among the shards, and keep freed memory.

    Only a program that owns its process may call this, before TensorFlow computes anything: the command does, the
    library does not. Keras's layers get all threads in both of TensorFlow's pools.

    A step allocates some 40 MB, which glibc would return to the system and ask for again at every step; keeping it
    makes training 1.08 times as fast. The number of malloc's arenas stays at its default: with a single arena the
    shards wait for each other.
    """
    if execution.unroll == "keras":
        intra = inter = execution.threads
    else:
        intra, inter = max(1, execution.threads // execution.shards), execution.shards
    tf.config.threading.set_intra_op_parallelism_threads(intra)
    tf.config.threading.set_inter_op_parallelism_threads(inter)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        libc.mallopt(M_TRIM_THRESHOLD, LARGEST_TRIM_THRESHOLD)


def shard_rows(batch_size: int, shards: int) -> list[slice]:
    """Return each shard's rows: all rows in order, in at most ``shards`` slices whose sizes differ by at most one."""
    shards = min(shards, batch_size)
    cuts = [batch_size * k // shards for k in range(shards + 1)]
    return [slice(begin, end) for begin, end in itertools.pairwise(cuts)]
