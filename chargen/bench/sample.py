"""``chargen bench sample``: the clone at several counts, the usual loops with stock Keras, and the floor."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chargen import ChargenError
from chargen.bench.sides import Settings, last_line, serve
from chargen.config import ModelConfig

CHARACTERS = 20  # that the clone draws in a step


def sides(model: str) -> dict[str, tuple[str, Settings]]:
    """Return the sides, by name, for the model file at a path."""
    found: dict[str, tuple[str, Settings]] = {
        f"chargen, count {count}": ("sample.clone", {"model": model, "count": count}) for count in (1, 8, 64)
    }
    found["Keras in a tf.function"] = ("sample.keras_function", {"model": model})
    found["Keras model.predict"] = ("sample.keras_predict", {"model": model})
    found["reading the weights"] = ("sample.read_weights", {"model": model})
    return found


def untrained(path: Path) -> Path:
    """Write a 2 x 512 model with the bundled book's vocabulary and random weights; return its path."""
    import numpy as np

    from chargen.store.modelfile import ModelFile, weight_shapes
    from chargen.text.corpus import read

    vocabulary, config, generator = read([]).vocabulary, ModelConfig(layers=2, units=512), np.random.default_rng(1)
    shapes = weight_shapes(len(vocabulary), config)
    weights = {name: generator.normal(0, 0.04, shape).astype(np.float32) for name, shape in shapes.items()}
    ModelFile(weights, vocabulary, config, {}, {}).write(path)
    return path


def first_character_seconds(model: str, times: int = 5) -> float:
    """Return the least time, of several, from the start of ``chargen sample`` to its first character.

    Raises ChargenError with the last line of the command's error output if it writes nothing.
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
                raise ChargenError(f"chargen sample wrote nothing: {last_line(log)}")
    return min(seconds)


def clone(settings: Settings) -> None:
    """Measure chargen: a batch of ``count`` samples, with all that ``chargen sample`` does for each character."""
    from chargen.machine import blas_threads

    blas_threads(settings["count"])  # before NumPy is imported
    from chargen.config import SampleConfig
    from chargen.writing.clone import Clone
    from chargen.writing.generate import Until, generate
    from chargen.writing.sampler import filters, generators

    one = Clone.open(settings["model"])
    one.feed(one.vocabulary.characters[:1])
    rows = one.repeat(settings["count"])

    def step() -> None:
        chosen = filters(SampleConfig(), rows.vocabulary)
        for _ in generate(rows, Until(CHARACTERS), chosen, generators(1, settings["count"])):
            pass

    serve(step, CHARACTERS * settings["count"], {})


def keras_predict(settings: Settings) -> None:
    """Measure the loop of most programs: ``model.predict`` of a stateful stock Keras model for each character."""
    model = stock_model(settings)
    serve_draws(lambda ids: model.predict(ids, verbose=0))


def keras_function(settings: Settings) -> None:
    """Measure a faster loop: the same stateful stock Keras model, called in a ``tf.function``."""
    import tensorflow as tf

    call = tf.function(stock_model(settings))
    serve_draws(lambda ids: call(tf.constant(ids)).numpy())


def stock_model(settings: Settings) -> Any:
    """Return the model as a stateful Keras model of batch size 1."""
    from chargen.network.stock import stateful_clone
    from chargen.store.run import open_model

    return stateful_clone(open_model(settings["model"]))


def serve_draws(read: Callable[[Any], Any]) -> None:
    """Measure a model, ids (1, 1) -> logits (1, 1, V), and a draw by NumPy at temperature 0.7 for each character."""
    import numpy as np

    generator, ids = np.random.default_rng(1), np.zeros((1, 1), np.int32)

    def step() -> None:
        logits = read(ids)[0, 0].astype(np.float64) / 0.7
        weights = np.exp(logits - logits.max())
        ids[0, 0] = generator.choice(len(weights), p=weights / weights.sum())

    serve(step, 1, {})


def read_weights(settings: Settings) -> None:
    """Measure the floor: NumPy's fastest reader, a dot product, on as many bytes as a character's step must read."""
    import numpy as np

    from chargen.store.run import open_model

    file = open_model(settings["model"])
    # A step reads one row of a table that holds the embedding times the lowest layer's kernel, and neither of the two.
    read = [w.size for name, w in file.weights.items() if name not in ("embedding", "lstm_0/kernel")]
    half = np.ones(sum(read) // 2, np.float32)
    other = half.copy()
    serve(lambda: np.dot(half, other), 1, {"bytes": 4 * sum(read)})
