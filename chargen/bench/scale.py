"""``chargen bench scale``: training by several workers on this machine, and the bytes that they exchange."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from chargen import ChargenError
from chargen.bench.sides import Settings, last_line
from chargen.config import ModelConfig
from chargen.files.disk import temporary
from chargen.store.modelfile import weight_shapes


def scale(settings: Settings, workers: int, steps: int) -> dict[str, float]:
    """Train a number of steps by ``chargen launch`` with a number of workers on this machine; return the figures.

    ``characters_per_second`` is the median of what the training itself measures after its first validation, so the
    start does not count. ``ring_bytes`` is what each worker sends in a step if the gradients are summed in a ring
    (Patarasuk and Yuan 2009). ``loopback_bytes`` is what Linux counted on the loopback per worker and step, the traffic
    of other programs included; elsewhere it is missing. Raises ChargenError with the launcher's last line if it fails.
    """
    from chargen.text.corpus import read

    config = ModelConfig.from_json(settings)
    parameters = sum(prod(s) for s in weight_shapes(len(read(settings["files"]).vocabulary), config).values())
    records, counts = launched(settings, workers, steps)
    later = records[1:] or records
    figures = {
        "workers": workers,
        "characters_per_second": float(np.median([record["characters_per_second"] for record in later])),
        "ring_bytes": 2 * (workers - 1) / workers * 4 * parameters,
    }
    if len(counts) > 1 and counts[0][1] is not None and counts[-1][1] is not None:
        figures["loopback_bytes"] = (counts[-1][1] - counts[0][1]) / (counts[-1][0] - counts[0][0]) / workers
    return figures


def launched(
    settings: Settings, workers: int, steps: int
) -> tuple[list[dict[str, Any]], list[tuple[int, float | None]]]:
    """Run the launcher; return the records of the validations, and the step and the loopback's count at each."""
    values = {**settings, "steps": steps, "validation": 0.02, "run": "run"}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if name != "files" and value]
    command = [sys.executable, "-m", "chargen", "launch", "--workers", str(workers), "--", "train"]
    files = [str(Path(file).resolve()) for file in settings["files"]]
    counts: list[tuple[int, float | None]] = []
    records: list[dict[str, Any]] = []
    with ExitStack() as stack:
        folder = stack.enter_context(temporary())
        log = stack.enter_context(tempfile.TemporaryFile())  # a full pipe would block the process
        process = subprocess.Popen([*command, *words, *files], cwd=folder, stdout=subprocess.DEVNULL, stderr=log)
        stack.enter_context(process)
        stack.callback(process.terminate)
        while process.poll() is None:
            with suppress(OSError):
                records = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
            if len(records) > len(counts):
                counts.append((records[-1]["step"], loopback_bytes()))
            time.sleep(0.01)
        if process.returncode:
            raise ChargenError(last_line(log))
    return records, counts


def loopback_bytes() -> float | None:
    """Return the bytes received on the loopback since the machine started, or None where it is not Linux."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/net/dev").read_text("ascii").splitlines()
        return float(next(line for line in lines if line.strip().startswith("lo:")).split(":")[1].split()[0])
    return None
