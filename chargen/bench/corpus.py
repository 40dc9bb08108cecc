"""``chargen bench corpus``: reading a text larger than memory, training on it, and how long the steps wait for text."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from chargen import ChargenError
from chargen.bench.sides import Settings, Side, command, peak_memory
from chargen.bench.train import compiled
from chargen.config import ModelConfig, TrainConfig
from chargen.files.disk import temporary

STEPS = 200  # training steps that are timed
WARM_UP = 5  # training steps before them


def figures(megabytes: float, files: int) -> dict[str, Any]:
    """Measure a corpus of ``megabytes`` million bytes in ``files`` files.

    Returns the speed of reading it on one core, the peak memory of reading and of training in bytes, and the seconds
    of a training step, of which ``waiting_seconds`` are spent waiting for text.
    """
    with temporary() as folder:
        for part, size, count in (("large", megabytes, files), ("small", 1.0, 1)):
            (folder / part).mkdir()
            write_texts(folder / part, size, count)
        settings = {"folder": str(folder / "large"), "cache": str(folder / "cache")}
        read = measured("reading", settings)
        step = measured("steps", settings)
        shutil.rmtree(folder / "cache")
        peaks = {part: training_memory(folder, part) for part in ("small", "large")}
    return {
        "megabytes": megabytes,
        "files": files,
        "characters": read["characters"],
        "megabytes_per_second": megabytes / read["seconds"],
        "reading_again_seconds": read["again_seconds"],
        "reading_memory": read["peak_memory"],
        "training_memory": peaks["large"],
        "training_memory_of_1_megabyte": peaks["small"],
        "step_seconds": step["step_seconds"],
        "waiting_seconds": step["waiting_seconds"],
    }


def write_texts(folder: Path, megabytes: float, files: int) -> None:
    """Write a text of ``megabytes`` million bytes of UTF-8, random parts of the bundled book, into ``files`` files."""
    from chargen.text.corpus import read

    corpus = read([])
    book, random = corpus.vocabulary.decode(corpus.ids), np.random.default_rng(1)
    size = round(megabytes * 1e6 / files)
    for number in range(files):
        with (folder / f"{number:06}.txt").open("wb") as file:
            while (left := size - file.tell()) > 0:
                start = int(random.integers(len(book)))
                file.write(book[start : start + 50_000].encode()[:left].decode("utf-8", "ignore").encode() or b"\n")


def measured(function: str, settings: Settings) -> dict[str, Any]:
    """Run a side of this module, which has no rounds; return its answer."""
    with Side(f"corpus {function}", command(f"corpus.{function}", settings)) as side:
        return side.answer()


def training_memory(folder: Path, part: str) -> int | None:
    """Return the peak memory of a training that reads a text for the first time, as `peak_memory` does."""
    words = ["chargen", "train", str(folder / part), "--run", str(folder / f"run-{part}")]
    words += ["--cache", str(folder / f"cache-{part}"), "--units", "128", "--steps", "20", "--batch-size", "64"]
    with subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ChargenError(f"training on the benchmark's {part} text failed")
    return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reading(settings: Settings) -> None:
    """Read a corpus on one core, then again from the cache; answer with the seconds of both."""
    from chargen.text.corpus import read

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        corpus = read([settings["folder"]], cache=Path(settings["cache"]))
        seconds.append(time.perf_counter() - started)
    found = {"seconds": seconds[0], "again_seconds": seconds[1], "characters": len(corpus.ids)}
    print(json.dumps({**found, "peak_memory": peak_memory()}))


def steps(settings: Settings) -> None:
    """Train on a corpus in the cache; answer with the seconds of a step, and those of waiting for text."""
    import tensorflow as tf

    from chargen.text.corpus import read
    from chargen.text.streams import Streams
    from chargen.training.step import Controls

    corpus = read([settings["folder"]], cache=Path(settings["cache"]))
    train = TrainConfig(dropout=0.1, weight_drop=0.0)
    part = corpus.split(train)[0]
    update, state, _ = compiled(len(corpus.vocabulary), ModelConfig(units=128), train)
    windows = Streams(part.ids, train.batch_size, train.seq_length, part.starts).read_ahead(0)
    waiting = 0.0
    for position in range(-WARM_UP, STEPS):
        if position == 0:
            started, waiting = time.perf_counter(), 0.0
        began = time.perf_counter()
        window = next(windows)
        waiting += time.perf_counter() - began
        state, nats, *_ = update(window, state, Controls(tf.constant(max(position, 0), tf.int64), tf.constant(2e-3)))
        float(nats)
    windows.close()
    print(json.dumps({"step_seconds": (time.perf_counter() - started) / STEPS, "waiting_seconds": waiting / STEPS}))
