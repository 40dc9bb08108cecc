"""What ``chargen bench`` measures: chargen beside what people would use instead, in one interleaved run.

A side is a process of its own (``python -m chargen.bench.sides SIDE SETTINGS``), with its own best threads. It gets
ready, says so, and then measures one round for each line it is given: so the rounds of the sides alternate on a machine
whose speed drifts, and an idle side waits for its turn without using the processor.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from chargen import ChargenError
from chargen.config import ModelConfig
from chargen.files.disk import temporary
from chargen.machine import multiplies_bfloat16
from chargen.process import own
from chargen.store.modelfile import weight_shapes

ROUND_SECONDS = 0.5  # the shorter, the likelier that all sides meet a shared machine in its best state

SILENT = "it gave no reason"
LAST_WORDS = 10_000  # bytes of what a process wrote, at the most, in which its last line is looked for

Settings = dict[str, Any]
Step = Callable[[], Any]


def interleaved(sides: Mapping[str, tuple[str, Settings]], rounds: int) -> dict[str, dict[str, Any]]:
    """Measure the sides, name -> (function of this module, its settings); return for each the best of its rounds.

    A side's figures are what its function says when it is ready (``seconds`` of start-up among them) and the best
    round's; ``peak_memory`` is the process's, in bytes. Of a side that can't start there is only why it ``failed``.
    Raises ChargenError if that is the first.
    """
    figures: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        ready: dict[str, Side] = {}
        for name, (function, settings) in sides.items():
            command = [sys.executable, "-m", "chargen.bench.sides", function, json.dumps(settings)]
            side = stack.enter_context(Side(name, command))
            try:
                figures[name] = side.answer()
            except ChargenError as error:
                if not ready:  # the first, which the others are compared with
                    raise
                figures[name] = {"failed": str(error)}
                continue
            ready[name] = side
        for _ in range(rounds):
            for name, side in ready.items():
                round_ = side.round()
                if round_["per_second"] > figures[name].get("per_second", 0):
                    figures[name] |= round_
    return figures


class Side:
    """A side's process while entered, what it writes to standard error kept in a file: a full pipe would stop it."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name, self._command = name, command

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=self._log, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with suppress(BrokenPipeError):  # of a line that it never read
            self._process.__exit__(None, None, None)
        self._log.close()

    def answer(self) -> dict[str, Any]:
        """Return what the process says next. Raises ChargenError, with its last words, if it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChargenError(f"the benchmark's {self.name} ended by itself: {last_words(self._log)}")
        return dict(json.loads(line))

    def round(self) -> dict[str, Any]:
        """Let the process measure a round, and return what it says."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, which the answer tells
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return self.answer()


def last_words(log: IO[bytes]) -> str:
    """Return the last line that a process has written to a file."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_WORDS))
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else SILENT


def serve(step: Step, work: float, figures: Settings) -> None:
    """Be a side: call ``step``, which does ``work`` units of work, for a round whenever a line comes in."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    step()
    started = time.perf_counter()
    step()
    steps = max(1, round(ROUND_SECONDS / (time.perf_counter() - started)))

    def say(values: Settings) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    say(figures)
    for _ in sys.stdin:
        started = time.perf_counter()
        for _ in range(steps):
            step()
        seconds = time.perf_counter() - started
        say({"per_second": steps * work / seconds, "peak_memory": peak_memory()})


def peak_memory() -> int:
    """Return the most memory that this process has had, in bytes."""
    with suppress(OSError):
        # Linux gives a new process the peak of the one that started it, except in this place.
        lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS, where it is in bytes


def windows(settings: Settings) -> Iterator[Any]:
    """Yield the windows of a benchmark's text for ever."""
    from chargen.text.corpus import read
    from chargen.text.streams import Streams

    corpus = read(settings["files"])
    streams = Streams(corpus.ids, settings["batch_size"], settings["seq_length"])
    yield len(corpus.vocabulary)
    position = 0
    while True:
        yield streams.read(position)
        position += 1


def keras_fit(settings: Settings) -> None:
    """Be stock Keras: a stateful Sequential model, compiled and fitted as its documentation does it."""
    import keras

    source = windows(settings)
    characters, rank = next(source), settings["output_rank"]
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(settings["batch_size"], None), dtype="int32"),
            keras.layers.Embedding(characters, settings["embedding"]),
            *(
                keras.layers.LSTM(settings["units"], return_sequences=True, stateful=True)
                for _ in range(settings["layers"])
            ),
            *([keras.layers.Dense(rank, use_bias=False)] if rank else []),
            keras.layers.Dense(characters),
        ]
    )
    model.compile(
        keras.optimizers.Adam(2e-3, global_clipnorm=5.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    several = [next(source) for _ in range(4)]
    x, y = (np.concatenate([w[part] for w in several]) for part in (0, 1))
    started = time.perf_counter()
    model.fit(x[: settings["batch_size"]], y[: settings["batch_size"]], settings["batch_size"], verbose=0)
    figures = {"first_step_seconds": time.perf_counter() - started}
    serve(
        lambda: model.fit(x, y, settings["batch_size"], shuffle=False, verbose=0),
        len(several) * settings["batch_size"] * settings["seq_length"],
        figures,
    )


def torch_train(settings: Settings) -> None:
    """Be PyTorch: the same network, step and carried state, in its own words."""
    import torch

    source = windows(settings)
    characters, units, rank = next(source), settings["units"], settings["output_rank"]
    embedding = torch.nn.Embedding(characters, settings["embedding"])
    lstm = torch.nn.LSTM(settings["embedding"], units, settings["layers"], batch_first=True)
    factor = [torch.nn.Linear(units, rank, bias=False)] if rank else []
    dense = torch.nn.Sequential(*factor, torch.nn.Linear(rank or units, characters))
    parameters = [p for module in (embedding, lstm, dense) for p in module.parameters()]
    optimizer = torch.optim.Adam(parameters, 2e-3)
    state = None

    def step() -> None:
        nonlocal state
        window = next(source)
        x, y = torch.from_numpy(window.x).long(), torch.from_numpy(window.y).long()
        with torch.autocast("cpu", torch.bfloat16, enabled=settings["precision"] == "bfloat16"):
            outputs, state = lstm(embedding(x), state)
            logits = dense(outputs)
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        state = tuple(s.detach() for s in state)

    started = time.perf_counter()
    step()
    figures = {"first_step_seconds": time.perf_counter() - started}
    serve(step, settings["batch_size"] * settings["seq_length"], figures)


def chargen_train(settings: Settings) -> None:
    """Be chargen: the step that ``chargen train`` makes, as it would be chosen for these sizes."""
    import tensorflow as tf

    from chargen.config import TrainConfig
    from chargen.network.execution import choose, own_process
    from chargen.network.model import CharLM
    from chargen.training.optimizer import Adam
    from chargen.training.step import Controls, compile_step

    source = windows(settings)
    characters = next(source)
    config, train = ModelConfig.from_json(settings), TrainConfig.from_json({"dropout": 0.0, **settings})
    execution, _ = choose(train)
    own_process(execution)
    model = CharLM(characters, config, execution=execution)
    update = compile_step(model, Adam(model.named_weights(), 5.0), train)
    state = model.zero_state(train.batch_size)
    position = 0

    def step() -> None:
        nonlocal state, position
        state, nats, *_ = update(next(source), state, Controls(tf.constant(position, tf.int64), tf.constant(2e-3)))
        float(nats)
        position += 1

    started = time.perf_counter()
    step()
    figures = {"first_step_seconds": time.perf_counter() - started, **execution.to_json()}
    serve(step, train.batch_size * train.seq_length, figures)


def product_ceiling(settings: Settings) -> None:
    """Be the ceiling: one large product of matrices in the precision that chargen chose, in operations a second."""
    import tensorflow as tf

    a, b = (tf.cast(tf.random.stateless_normal((2048, 2048), (1, n)), settings["precision"]) for n in (1, 2))
    product = tf.function(lambda: tf.matmul(a, b))
    serve(lambda: product().numpy(), 2 * 2048**3, {})


def train_sides(settings: Settings, *, torch: bool) -> dict[str, tuple[str, Settings]]:
    """Return the sides of ``chargen bench train``; PyTorch's two only if they are wanted.

    Where chargen computes in bfloat16, it is measured in float32 too, so that all can be compared in one precision.
    Raises ChargenError if PyTorch is wanted and not installed.
    """
    sides: dict[str, tuple[str, Settings]] = {"chargen": ("chargen_train", settings)}
    if settings["precision"] != "float32" and multiplies_bfloat16():
        sides["chargen, float32"] = ("chargen_train", {**settings, "precision": "float32"})
    sides["Keras fit, float32"] = ("keras_fit", settings)
    if torch:
        if find_spec("torch") is None:
            raise ChargenError("--torch measures PyTorch too, which is not installed: pip install torch")
        for precision in ("float32", "bfloat16"):
            sides[f"PyTorch, {precision}"] = ("torch_train", {**settings, "precision": precision})
    ceiling = {**settings, "precision": "float32"}
    sides["large product, float32"] = ("product_ceiling", ceiling)
    sides["large product, bfloat16"] = ("product_ceiling", {**ceiling, "precision": "bfloat16"})
    return sides


def operations_per_character(characters: int, config: ModelConfig) -> int:
    """Return the floating-point operations of a training step for each character: 6 for each weight of a product."""
    shapes = weight_shapes(characters, config)
    return 6 * sum(prod(shape) for name, shape in shapes.items() if len(shape) == 2 and name != "embedding")


def scale(settings: Settings, workers: int, steps: int) -> dict[str, float]:
    """Train for so many steps by ``chargen launch`` with so many workers here, and return figures.

    ``characters_per_second`` is the training's own, after its first validation, which leaves the start out. Of the
    bytes that each worker sends in a step, ``ring_bytes`` is what a ring needs to sum all gradients (Patarasuk and Yuan
    2009), ``loopback_bytes`` what Linux has counted, whoever else used the loopback; elsewhere it is missing.
    Raises ChargenError, with what the launcher said last, if it fails.
    """
    from chargen.text.corpus import read

    values = {**settings, "steps": steps, "validation": 0.02, "run": "run"}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if name != "files" and value]
    command = [sys.executable, "-m", "chargen", "launch", "--workers", str(workers), "--", "train"]
    config = ModelConfig.from_json(settings)
    parameters = sum(prod(s) for s in weight_shapes(len(read(settings["files"]).vocabulary), config).values())
    with ExitStack() as stack:
        folder = stack.enter_context(temporary())
        files = [str(Path(file).resolve()) for file in settings["files"]]
        log = stack.enter_context(tempfile.TemporaryFile())  # a full pipe would stop it
        process = subprocess.Popen([*command, *words, *files], cwd=folder, stdout=subprocess.DEVNULL, stderr=log)
        stack.enter_context(process)
        stack.callback(process.terminate)
        seen: list[tuple[int, float | None]] = []  # the step of each validation, and the counter when it was done
        records: list[dict[str, Any]] = []
        while process.poll() is None:
            with suppress(OSError):
                records = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
            if len(records) > len(seen):
                seen.append((records[-1]["step"], loopback()))
            time.sleep(0.01)
        if process.returncode:
            raise ChargenError(last_words(log))
    later = records[1:] or records
    figures = {
        "workers": workers,
        "characters_per_second": float(np.median([record["characters_per_second"] for record in later])),
        "ring_bytes": 2 * (workers - 1) / workers * 4 * parameters,
    }
    if len(seen) > 1 and seen[0][1] is not None and seen[-1][1] is not None:
        figures["loopback_bytes"] = (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0]) / workers
    return figures


def loopback() -> float | None:
    """Return how many bytes have gone over the loopback since the machine started, where Linux tells it."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/net/dev").read_text("ascii").splitlines()
        return float(next(line for line in lines if line.strip().startswith("lo:")).split(":")[1].split()[0])
    return None


def sample_sides(model: str, predict: bool = True) -> dict[str, tuple[str, Settings]]:
    """Return the sides of ``chargen bench sample``: the clone at several counts, stock Keras twice, the memory."""
    sides: dict[str, tuple[str, Settings]] = {
        f"chargen, count {count}": ("clone", {"model": model, "count": count}) for count in (1, 8, 64)
    }
    sides["Keras in a tf.function"] = ("keras_function", {"model": model})
    if predict:
        sides["Keras model.predict"] = ("keras_predict", {"model": model})
    sides["reading the weights"] = ("memory", {"model": model})
    return sides


def untrained(path: Path) -> Path:
    """Write a model of 2 x 512 for the bundled book's characters, with random weights, and return its path."""
    from chargen.store.modelfile import ModelFile
    from chargen.text.corpus import read

    vocabulary, config, generator = read([]).vocabulary, ModelConfig(2, 512), np.random.default_rng(1)
    shapes = weight_shapes(len(vocabulary), config)
    weights = {name: generator.normal(0, 0.04, shape).astype(np.float32) for name, shape in shapes.items()}
    ModelFile(weights, vocabulary, config, {}, {}).write(path)
    return path


def first_character_seconds(model: str, times: int = 5) -> float:
    """Return how long the command takes from its start to its first character, in the best of some times.

    Raises ChargenError, with what the command said last, if it writes none.
    """
    command = [sys.executable, "-m", "chargen", "sample", "--model", model, "--length", "100000"]
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        with (
            tempfile.TemporaryFile() as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process,
        ):
            assert process.stdout is not None
            written = process.stdout.read(1)
            seconds.append(time.perf_counter() - started)
            process.kill()
            if not written:
                process.wait()
                raise ChargenError(f"chargen sample wrote nothing: {last_words(log)}")
    return min(seconds)


def clone(settings: Settings) -> None:
    """Be the clone, drawing so many samples as a batch, with what ``chargen sample`` does for each character."""
    from chargen.machine import blas_threads

    blas_threads(settings["count"])
    from chargen.config import SampleConfig
    from chargen.writing.clone import Clone
    from chargen.writing.generate import Until, generate
    from chargen.writing.sampler import filters, generators

    one = Clone.open(settings["model"])
    one.feed(one.vocabulary.characters[:1])
    rows = one.repeat(settings["count"])
    characters = 20

    def step() -> None:
        chosen = filters(SampleConfig(), rows.vocabulary)
        for _ in generate(rows, Until(characters), chosen, generators(1, settings["count"])):
            pass

    serve(step, characters * settings["count"], {})


def _stock(settings: Settings) -> tuple[Any, int]:
    from chargen.network.model import CharLM
    from chargen.network.stock import stateful_clone
    from chargen.store.run import open_model

    file = open_model(Path(settings["model"]))
    return stateful_clone(CharLM.of(file)), len(file.vocabulary)


def keras_predict(settings: Settings) -> None:
    """Be the loop of most programs: a stateful stock Keras model, ``model.predict`` for each character."""
    model, characters = _stock(settings)
    generator, ids = np.random.default_rng(1), np.zeros((1, 1), np.int32)

    def step() -> None:
        logits = model.predict(ids, verbose=0)[0, 0].astype(np.float64) / 0.7
        weights = np.exp(logits - logits.max())
        ids[0, 0] = generator.choice(characters, p=weights / weights.sum())

    serve(step, 1, {})


def keras_function(settings: Settings) -> None:
    """Be the better loop: the same stateful stock Keras model, called through a ``tf.function``."""
    import tensorflow as tf

    model, characters = _stock(settings)
    call = tf.function(model)
    generator, ids = np.random.default_rng(1), np.zeros((1, 1), np.int32)

    def step() -> None:
        logits = call(tf.constant(ids)).numpy()[0, 0].astype(np.float64) / 0.7
        weights = np.exp(logits - logits.max())
        ids[0, 0] = generator.choice(characters, p=weights / weights.sum())

    serve(step, 1, {})


def memory(settings: Settings) -> None:
    """Be the floor: as many bytes read as a character's step has to, by the fastest reader NumPy has, a dot product."""
    from chargen.store.run import open_model

    file = open_model(Path(settings["model"]))
    # The lowest layer's input product is a row of a table, and of the embedding nothing is read.
    read = [w.size for name, w in file.weights.items() if name not in ("embedding", "lstm_0/kernel")]
    half = np.ones(sum(read) // 2, np.float32)
    other = half.copy()
    serve(lambda: np.dot(half, other), 1, {"bytes": 4 * sum(read)})


# ---- a corpus beyond memory --------------------------------------------------------------------------------------


def write_texts(folder: Path, megabytes: float, files: int) -> None:
    """Write a text of so many million bytes of UTF-8 in so many files: stretches of the bundled book, at random."""
    from chargen.text.corpus import read

    corpus = read([])
    book, random = corpus.vocabulary.decode(corpus.ids), np.random.default_rng(1)
    each = round(megabytes * 1e6 / files)
    for number in range(files):
        with (folder / f"{number:06}.txt").open("wb") as file:
            while (left := each - file.tell()) > 0:
                start = int(random.integers(len(book)))
                file.write(book[start : start + 50_000].encode()[:left].decode("utf-8", "ignore").encode() or b"\n")


def corpus_figures(megabytes: float, files: int) -> dict[str, Any]:
    """Measure a corpus of so many million bytes: reading it on one core, training's memory, the steps' waiting."""
    with temporary() as folder:
        for part, size, count in (("large", megabytes, files), ("small", 1.0, 1)):
            (folder / part).mkdir()
            write_texts(folder / part, size, count)
        settings = {"folder": str(folder / "large"), "cache": str(folder / "kept")}
        reading = _side("corpus_reading", settings)
        steps = _side("corpus_steps", settings)
        shutil.rmtree(folder / "kept")
        peaks = {part: _training_memory(folder, part) for part in ("small", "large")}
    return {
        "megabytes": megabytes,
        "files": files,
        "characters": reading["characters"],
        "megabytes_per_second": megabytes / reading["seconds"],
        "reading_again_seconds": reading["again_seconds"],
        "reading_memory": reading["peak_memory"],
        "training_memory": peaks["large"],
        "training_memory_of_1_megabyte": peaks["small"],
        "step_seconds": steps["step_seconds"],
        "waiting_seconds": steps["waiting_seconds"],
    }


def _side(side: str, settings: Settings) -> dict[str, Any]:
    command = [sys.executable, "-m", "chargen.bench.sides", side, json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChargenError(f"the benchmark's {side} failed: {(done.stderr.strip().splitlines() or [SILENT])[-1]}")
    return dict(json.loads(done.stdout))


def _training_memory(folder: Path, part: str) -> int:
    """Return the peak memory, in bytes, of a training that reads a text for the first time."""
    command = [sys.executable, "-m", "chargen", "train", str(folder / part), "--run", str(folder / f"run-{part}")]
    command += ["--cache", str(folder / f"cache-{part}"), "--units", "128", "--steps", "20", "--batch-size", "64"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ChargenError(f"training on the benchmark's {part} text failed")
    return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def corpus_reading(settings: Settings) -> None:
    """Read a corpus on one core, then again from the cache; say how long it took."""
    from chargen.text.corpus import read

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        corpus = read([settings["folder"]], cache=Path(settings["cache"]))
        seconds.append(time.perf_counter() - started)
    figures = {"seconds": seconds[0], "again_seconds": seconds[1], "characters": len(corpus.ids)}
    print(json.dumps({**figures, "peak_memory": peak_memory()}))


def corpus_steps(settings: Settings) -> None:
    """Train on a corpus that lies in the cache; say how long a step took, and how long of that it waited for text."""
    import tensorflow as tf

    from chargen.config import TrainConfig
    from chargen.network.execution import choose, own_process
    from chargen.network.model import CharLM
    from chargen.text.corpus import read
    from chargen.text.streams import Streams
    from chargen.training.optimizer import Adam
    from chargen.training.step import Controls, compile_step

    corpus = read([settings["folder"]], cache=Path(settings["cache"]))
    config, train = ModelConfig(units=128), TrainConfig()
    part = corpus.split(train.validation, train.held_out)[0]
    execution, _ = choose(train)
    own_process(execution)
    model = CharLM(len(corpus.vocabulary), config, execution=execution)
    update = compile_step(model, Adam(model.named_weights(), 1.0), train)
    windows = Streams(part.ids, train.batch_size, train.seq_length, part.starts).read_ahead(0)
    state, waiting, steps = model.zero_state(train.batch_size), 0.0, 200
    for position in range(-5, steps):
        if position == 0:
            started, waiting = time.perf_counter(), 0.0
        began = time.perf_counter()
        window = next(windows)
        waiting += time.perf_counter() - began
        state, nats, *_ = update(window, state, Controls(tf.constant(max(position, 0), tf.int64), tf.constant(2e-3)))
        float(nats)
    windows.close()
    print(json.dumps({"step_seconds": (time.perf_counter() - started) / steps, "waiting_seconds": waiting / steps}))


if __name__ == "__main__":
    own()
    globals()[sys.argv[1]](json.loads(sys.argv[2]))
