"""What the processor has: its cores, its features, and the threads that multiply."""

import os
from pathlib import Path


def cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def blas_threads(count: int) -> None:
    """Let a batch of so many rows be computed by as many threads as pay; has to come before NumPy is imported.

    One row's products are bound by the memory, which one core exhausts: a second one costs more than it brings.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1" if count < 8 else str(cores()))


def processor_features() -> frozenset[str]:
    """Return the names by which Linux tells what the processor can do; none elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii", "replace").splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), ":")
    features = frozenset(flags.split(":")[1].split())
    # oneDNN can be told to leave features unused, which is how a lesser processor is tried out.
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    if limit in ("ALL", "DEFAULT") or any(name in limit for name in ("BF16", "FP16", "AMX", "AVX10")):
        return features
    return features - {"amx_bf16", "avx512_bf16"} - (set() if "AVX512" in limit else {"avx512f"})


def multiplies_bfloat16() -> bool:
    """Return whether the processor has products of bfloat16 numbers."""
    return bool({"amx_bf16", "avx512_bf16"} & processor_features())
