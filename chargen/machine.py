"""What the processor has: its cores, its features, and the threads for NumPy's products."""

import os
from pathlib import Path


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def blas_threads(count: int) -> None:
    """Set the number of BLAS threads for a batch of ``count`` rows. It must be called before NumPy is imported.

    The products of a few rows are limited by memory bandwidth, which one core uses up: a second thread only costs.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(threads_for(count)))


def threads_for(count: int) -> int:
    """Return the number of BLAS threads that suits a batch of ``count`` rows."""
    return 1 if count < 8 else cores()


def processor_features() -> frozenset[str]:
    """Return the processor's features by their Linux names; none on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii", "replace").splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), ":")
    features = frozenset(flags.split(":")[1].split())
    # oneDNN can be told not to use some features, which is how to try an older processor.
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    if limit in ("ALL", "DEFAULT") or any(name in limit for name in ("BF16", "FP16", "AMX", "AVX10")):
        return features
    return features - {"amx_bf16", "avx512_bf16"} - (set() if "AVX512" in limit else {"avx512f"})


def multiplies_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 numbers in hardware."""
    return bool({"amx_bf16", "avx512_bf16"} & processor_features())
