"""``chargen bench train``: a training step of chargen, of stock Keras and of PyTorch, and the product they all need."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from chargen import ChargenError
from chargen.bench.sides import Settings, serve
from chargen.config import ModelConfig, TrainConfig
from chargen.machine import multiplies_bfloat16
from chargen.store.modelfile import weight_shapes

if TYPE_CHECKING:
    from chargen.text.streams import Window


def sides(settings: Settings, *, torch: bool) -> dict[str, tuple[str, Settings]]:
    """Return the sides, by name; those of PyTorch only if ``torch`` is true.

    Where chargen computes in bfloat16, it is measured in float32 too, so that every other side can be compared with it
    in the same precision. Raises ChargenError if PyTorch is wanted and not installed.
    """
    found: dict[str, tuple[str, Settings]] = {"chargen": ("train.chargen_step", settings)}
    if settings["precision"] != "float32" and multiplies_bfloat16():
        found["chargen, float32"] = ("train.chargen_step", {**settings, "precision": "float32"})
    found["Keras fit, float32"] = ("train.keras_fit", settings)
    if torch:
        if find_spec("torch") is None:
            raise ChargenError("--torch measures PyTorch too, which is not installed: pip install torch")
        for precision in ("float32", "bfloat16"):
            found[f"PyTorch, {precision}"] = ("train.torch_step", {**settings, "precision": precision})
    for precision in ("float32", "bfloat16"):
        found[f"large product, {precision}"] = ("train.large_product", {"precision": precision})
    return found


def operations_per_character(characters: int, config: ModelConfig) -> int:
    """Return the floating-point operations of a training step per character: 6 for each weight of a product."""
    shapes = weight_shapes(characters, config)
    return 6 * sum(prod(shape) for name, shape in shapes.items() if len(shape) == 2 and name != "embedding")


def windows(settings: Settings) -> tuple[int, Iterator[Window]]:
    """Return the size of the vocabulary of a benchmark's text, and the windows of its streams without end."""
    from chargen.text.corpus import read
    from chargen.text.streams import Streams

    corpus = read(settings["files"])
    streams = Streams(corpus.ids, settings["batch_size"], settings["seq_length"])
    return len(corpus.vocabulary), map(streams.read, count())


def compiled(characters: int, config: ModelConfig, train: TrainConfig) -> tuple[Any, Any, dict[str, Any]]:
    """Return the training step that ``chargen train`` makes, a zero state, and how the step is computed, as JSON."""
    from chargen.network.execution import choose, own_process
    from chargen.network.model import CharLM
    from chargen.training.optimizer import Adam
    from chargen.training.step import compile_step

    execution, _ = choose(train)
    own_process(execution)
    model = CharLM(characters, config, execution=execution)
    update = compile_step(model, Adam(model.named_weights(), train.clip_norm), train)
    return update, model.zero_state(train.batch_size), execution.to_json()


def chargen_step(settings: Settings) -> None:
    """Measure chargen: the step of ``chargen train``, computed as it is chosen for these sizes."""
    import tensorflow as tf

    from chargen.training.step import Controls

    characters, source = windows(settings)
    train = TrainConfig.from_json({"dropout": 0.0, "weight_drop": 0.0, **settings})
    update, state, execution = compiled(characters, ModelConfig.from_json(settings), train)
    position = 0

    def step() -> None:
        nonlocal state, position
        state, nats, *_ = update(next(source), state, Controls(tf.constant(position, tf.int64), tf.constant(2e-3)))
        float(nats)
        position += 1

    started = time.perf_counter()
    step()
    figures = {"first_step_seconds": time.perf_counter() - started, **execution}
    serve(step, train.batch_size * train.seq_length, figures)


def keras_fit(settings: Settings) -> None:
    """Measure stock Keras: a stateful Sequential model, compiled and fitted as in Keras's documentation."""
    import keras

    (characters, source), rank, rows = windows(settings), settings["output_rank"], settings["batch_size"]
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(rows, None), dtype="int32"),
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
    x, y = (np.concatenate([window[part] for window in several]) for part in (0, 1))
    started = time.perf_counter()
    model.fit(x[:rows], y[:rows], rows, verbose=0)
    figures = {"first_step_seconds": time.perf_counter() - started}
    serve(lambda: model.fit(x, y, rows, shuffle=False, verbose=0), x.size, figures)


def torch_step(settings: Settings) -> None:
    """Measure PyTorch: the same network and step, with the state carried."""
    import torch

    (characters, source), units, rank = windows(settings), settings["units"], settings["output_rank"]
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


def large_product(settings: Settings) -> None:
    """Measure the ceiling: one large matrix product in a precision, in floating-point operations per second."""
    import tensorflow as tf

    a, b = (tf.cast(tf.random.stateless_normal((2048, 2048), (1, n)), settings["precision"]) for n in (1, 2))
    product = tf.function(lambda: tf.matmul(a, b))
    serve(lambda: product().numpy(), 2 * 2048**3, {})
