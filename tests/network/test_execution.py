"""The choice of unroll, precision, shards and threads, and what it does to the process."""

import platform
import subprocess
import sys

import pytest

from chargen.config import TrainConfig
from chargen.machine import processor_features
from chargen.network.execution import choose, shard_rows


@pytest.mark.parametrize(("rows", "shards"), [(16, 2), (7, 2), (1, 2), (5, 5), (3, 8), (64, 1)])
def test_shards_are_all_rows_in_order_and_of_about_the_same_size(rows, shards):
    groups = shard_rows(rows, shards)
    sizes = [group.stop - group.start for group in groups]
    assert [r for group in groups for r in range(rows)[group]] == list(range(rows))
    assert len(groups) == min(rows, shards)
    assert max(sizes) - min(sizes) <= 1


def chosen(monkeypatch, features, **train):
    for module in ("machine", "network.execution"):
        monkeypatch.setattr(f"chargen.{module}.processor_features", lambda: frozenset(features))
    execution, _ = choose(TrainConfig(**{"threads": 2, **train}))
    return execution.unroll, execution.precision, execution.shards, execution.threads


def test_the_choice_is_a_function_of_processor_rows_and_threads(monkeypatch):
    assert chosen(monkeypatch, {"avx512f", "avx512_bf16"}, batch_size=64) == ("onednn", "bfloat16", 2, 2)
    assert chosen(monkeypatch, {"avx512f", "amx_bf16"}, batch_size=16) == ("onednn", "bfloat16", 2, 2)
    assert chosen(monkeypatch, {"avx2"}, batch_size=64) == ("loop", "float32", 2, 2)
    assert chosen(monkeypatch, {"avx512f", "amx_bf16"}, precision="float32") == ("onednn", "float32", 2, 2)
    assert chosen(monkeypatch, {"avx512f"}, batch_size=64) == ("onednn", "float32", 2, 2)
    assert chosen(monkeypatch, set(), batch_size=64, precision="bfloat16") == ("loop", "bfloat16", 2, 2)
    assert chosen(monkeypatch, set(), batch_size=1, threads=4) == ("loop", "float32", 1, 4)


@pytest.mark.parametrize(
    ("threads", "rows", "shards"),
    [(2, 64, 2), (2, 3, 2), (1, 64, 1), (8, 64, 8), (64, 64, 8), (64, 200, 25), (64, 1024, 64), (64, 12, 2)],
)
def test_a_shard_has_rows_enough_to_be_worth_a_thread(monkeypatch, threads, rows, shards):
    assert chosen(monkeypatch, {"avx512f"}, batch_size=rows, threads=threads)[2:] == (shards, threads)


def test_a_gpu_says_that_it_does_not_compute_in_bfloat16(monkeypatch):
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: [kind])
    assert choose(TrainConfig(precision="bfloat16"))[1].endswith("in float32: bfloat16 is for processors")
    assert choose(TrainConfig(precision="auto"))[1].endswith("cuDNN")


FAULTS = """
import ctypes, resource, sys
from chargen.network.execution import Execution, own_process

if sys.argv[1] == "own":
    own_process(Execution("loop"))
libc, size = ctypes.CDLL(None), 20 << 20
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
pages = []
for _ in range(9):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [libc.malloc(size) for _ in range(4)]
    for array in arrays:
        libc.memset(array, 1, size)
    for array in arrays:
        libc.free(array)
    pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(*pages[1:])
"""


@pytest.mark.long
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told to keep memory")
@pytest.mark.parametrize(("whose", "kept"), [("own", True), ("library", False)])
def test_a_process_of_the_commands_own_uses_freed_memory_again(whose, kept):
    result = subprocess.run([sys.executable, "-c", FAULTS, whose], capture_output=True, text=True, check=True)
    assert [pages < 100 for pages in map(int, result.stdout.split())] == [kept] * 8


def test_a_lesser_processor_can_be_tried_out(monkeypatch):
    whole = processor_features()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert processor_features() == whole - {"avx512_bf16", "amx_bf16", "avx512f"}
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    assert processor_features() == whole - {"avx512_bf16", "amx_bf16"}
