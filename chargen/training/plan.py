"""Sizes, rates and steps of a run: a rule that follows the text, the time and the machine. Without TensorFlow.

`chargen help choices` has the trials behind each number, and ``tests/trials.csv`` has those that a test checks.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from chargen import ChargenError
from chargen.config import BASE, SCRATCH, Execution, ModelConfig, TrainConfig
from chargen.machine import cores, multiplies_bfloat16
from chargen.store.modelfile import weight_shapes
from chargen.store.run import Progress, Run, RunConfig
from chargen.text.corpus import Corpus
from chargen.text.streams import fit, windows_per_epoch
from chargen.training.base import Reading

DEFAULT_MINUTES = 10.0
LENGTHS = ("minutes", "epochs", "steps")  # the options that say how long a run is

# The units of the one layer that the rule chooses from. In budgets of 1 to 10 minutes a second layer costs more time
# than it gains: of 3 minutes 2 x 384 made 1.449 nats and 1 x 512 made 1.442.
UNITS = (64, 96, 128, 192, 256, 320, 384, 512, 640, 768, 1024, 1280)
# A layer of 384 units is worth its time if it reads this many characters; other widths need them in proportion to the
# width to the power of 1.5.
WORTHWHILE_CHARACTERS, WORTHWHILE_UNITS, WORTHWHILE_POWER = 2.2e6, 384, 1.5
# The best learning rate is about inversely proportional to the root of the width. Rates above 0.03 were not better.
UNIT_LEARNING_RATE, HIGHEST_LEARNING_RATE = 0.34, 0.03
# Dropout for each pass over the text after the first 2.5, times the units over the root of the text's characters.
DROPOUT_PER_PASS, PASSES_WITHOUT_DROPOUT, HIGHEST_DROPOUT = 0.19, 2.5, 0.4
# Weight drop for each pass after the first 8.
WEIGHT_DROP_PER_PASS, PASSES_WITHOUT_WEIGHT_DROP, HIGHEST_WEIGHT_DROP = 0.065, 8, 0.2
# With so many distinct characters, a last layer of low rank is faster and better: on Chinese poems of 4,935 distinct
# characters 7.77 bpc after 2 minutes, and 8.00 with a whole one.
LOW_RANK_VOCABULARY, UNITS_PER_RANK = 2000, 6
# The share of NumPy's speed of float32 products that training reaches, at 6 operations per weight and character. The
# work that does not multiply counts as this many weights per unit.
TRAINING_SPEED = {"bfloat16": 1.7, "float32": 0.75}
WEIGHTS_PER_UNIT = 700
MEASURED_SECONDS = 0.2

# The base model helps with a text that it reads with few bits per character, or whose words it knows: chats cost it 4.1
# bits as a French book does, but it knows 88 % of their words, and a minute from it makes 2.14 bpc, from nothing 2.60.
# It no longer helps if a run of its size would read so many characters.
MOST_BASE_BITS, FEWEST_KNOWN_WORDS, MOST_BASE_CHARACTERS, BASE_UNITS = 3.0, 0.85, 1e8, 1024
# A run that begins from another model knows most of what it needs: a lower rate forgets less of it. Dropout for each
# pass over the text: after 6 passes over a book of 220 KB, 0.2 made 1.477 bpc and 0.4 made 1.481.
FINE_TUNING_RATE, FINE_TUNING_DROPOUT, HIGHEST_FINE_TUNING_DROPOUT = 0.002, 0.035, 0.5


@dataclass(frozen=True)
class Request:
    """What a training is asked for. The rule chooses the rest of the network, and the options that are None."""

    model: Mapping[str, Any]  # fields of the ModelConfig, by name
    train: TrainConfig
    explicit: Collection[str] = frozenset()  # names of the options that were given
    files: tuple[str, ...] = ()
    parent: Path | None = None  # a run or model file to begin from
    base: Path | None = None  # a model file to begin from if that helps; see `base_helps`
    resume: Path | None = None  # a run to go on with


@dataclass(frozen=True)
class Machine:
    """What computes a run: the operations per second that training reaches, and the replicas that share each batch."""

    speed: float
    replicas: int = 1


def plan(request: Request, corpus: Corpus, machine: Machine) -> RunConfig:
    """Return the configuration of a new run on a corpus.

    Explicit options stay as they are. The rest follows `sizes`, and batch size and window shrink to fit a short text
    (see `streams.fit`). The execution is not chosen yet; for a run of some minutes, neither is the number of steps (see
    `fixed`). Raises ChargenError if an explicit batch size cannot be divided among the replicas.
    """
    explicit, train, replicas = request.explicit, request.train, machine.replicas
    characters = len(corpus.split(train)[0].ids)
    if train.minutes is train.epochs is train.steps is None:
        train = replace(train, minutes=DEFAULT_MINUTES)
    chosen = sizes(characters, len(corpus.vocabulary), train, machine.speed, request.model.get("units"))
    rate = chosen.pop("learning_rate")
    model = ModelConfig(**{**chosen, **request.model})
    if request.parent is not None:
        rate = FINE_TUNING_RATE
    batch_size, seq_length = train.batch_size, train.seq_length
    if "batch_size" not in explicit:
        at_most, shorten = max(batch_size, replicas), "seq_length" not in explicit
        batch_size, seq_length = fit(characters, at_most, seq_length, shorten=shorten, multiple=replicas)
    elif "seq_length" not in explicit:
        seq_length = max(1, min(seq_length, (characters - 1) // batch_size))
    train = replace(train, batch_size=batch_size, seq_length=seq_length, learning_rate=train.learning_rate or rate)
    if batch_size % replicas:
        less = batch_size // replicas * replicas
        would = f"{less} or {less + replicas}" if less else f"{replicas}"
        raise ChargenError(f"--batch-size {batch_size} cannot be divided among {replicas} workers; use {would}")
    config = RunConfig(
        model=model,
        train=train,
        execution=Execution(),
        start=0,
        stop=None,
        files=corpus.files,
        name=corpus.name,
        characters=len(corpus.ids),
        sha256=corpus.sha256,
        parent=None if request.parent is None else str(request.parent.resolve()),
    )
    steps = _steps(train, characters)
    return config if steps is None else fixed(config, steps, characters)


def fixed(config: RunConfig, stop: int, characters: int) -> RunConfig:
    """Return the configuration of a run that ends at step ``stop``, on a training text of so many characters.

    Dropout and weight drop are chosen with it, unless they are explicit.
    """
    train, chosen = config.train, _dropout_of(config, stop, characters)
    train = replace(train, **{name: rate for name, rate in chosen.items() if getattr(train, name) is None})
    return replace(config, stop=stop, train=train)


def _dropout_of(config: RunConfig, stop: int, characters: int) -> dict[str, Any]:
    read = stop * config.train.batch_size * config.train.seq_length
    if config.parent is not None:
        return fine_tuning_dropout(read / characters)
    return dropout_rates(config.model.units, characters, read / characters)


def dropout_rates(units: int, characters: int, passes: float) -> dict[str, float]:
    """Return ``dropout`` and ``weight_drop`` for a layer that reads a text of so many characters so many times.

    Both grow with the passes, and dropout also with the size of the layer for its text.
    """
    dropout = DROPOUT_PER_PASS * (passes - PASSES_WITHOUT_DROPOUT) * units / characters**0.5
    weight_drop = WEIGHT_DROP_PER_PASS * (passes - PASSES_WITHOUT_WEIGHT_DROP)
    return {
        "dropout": round(min(HIGHEST_DROPOUT, max(0.0, dropout)), 2),
        "weight_drop": round(min(HIGHEST_WEIGHT_DROP, max(0.0, weight_drop)), 2),
    }


def fine_tuning_dropout(passes: float) -> dict[str, float]:
    """Return ``dropout`` and ``weight_drop`` for a run that begins from another model; see `dropout_rates`."""
    return {"dropout": round(min(HIGHEST_FINE_TUNING_DROPOUT, FINE_TUNING_DROPOUT * passes), 2), "weight_drop": 0.0}


def training_speed(train: TrainConfig) -> float:
    """Return about how many operations per second training reaches here, from 0.2 s of NumPy's matrix products."""
    precision = train.precision
    if precision == "auto":
        precision = "bfloat16" if multiplies_bfloat16() else "float32"
    a, b = np.ones((1024, 1024), np.float32), np.ones((1024, 512), np.float32)
    laps: list[float] = []
    while not laps or sum(laps) < MEASURED_SECONDS:
        began = time.perf_counter()
        np.matmul(a, b)
        laps.append(time.perf_counter() - began)
    product = 2 * a.shape[0] * a.shape[1] * b.shape[1] / min(laps)  # other processes can only make it slower
    return TRAINING_SPEED[precision] * product * (train.threads or cores()) / cores()


def sizes(
    characters: int, vocabulary: int, train: TrainConfig, speed: float, units: int | None = None
) -> dict[str, Any]:
    """Return the settings that suit a training text and the length of a run, by the names of their options.

    characters, vocabulary: the number of characters of the training text, and of distinct ones. Unless ``units`` are
    given, they are the most that read enough characters to be worth their time.
    """
    if units is None:
        worth = (u for u in UNITS if _read(u, characters, vocabulary, train, speed) >= worthwhile_characters(u))
        units = max(worth, default=UNITS[0])
    return {
        "units": units,
        "output_rank": output_rank(units, vocabulary),
        "learning_rate": min(HIGHEST_LEARNING_RATE, round(UNIT_LEARNING_RATE / units**0.5, 4)),
    }


def reason(config: RunConfig, corpus: Corpus, speed: float) -> str:
    """Return, in a line, why a run has its number of units."""
    characters = len(corpus.split(config.train)[0].ids)
    read = _read(config.model.units, characters, len(corpus.vocabulary), config.train, speed)
    return (
        f"training will read about {read:,.0f} characters, {read / characters:.1f} times the text; "
        f"{config.model.units} units pay off from {worthwhile_characters(config.model.units):,.0f} on"
    )


def base_helps(reading: Reading, request: Request, corpus: Corpus, speed: float) -> tuple[bool, str]:
    """Return whether a run should begin from the base model, and a line that says so.

    ``reading`` tells how well the base model, as it is, reads the text.
    """
    characters = len(corpus.split(request.train)[0].ids)
    read = _read(BASE_UNITS, characters, len(corpus.vocabulary), request.train, speed)
    reads = f"reads this text at {reading.bits:.1f} bits per character"
    if reading.bits > MOST_BASE_BITS:
        reads += f" and knows {reading.known_words:.0%} of its words"
        if reading.known_words < FEWEST_KNOWN_WORDS:
            return False, (
                f"from nothing: {BASE} {reads}; it helps up to {MOST_BASE_BITS:g} bits, or if it knows "
                f"{FEWEST_KNOWN_WORDS:.0%} of the words"
            )
    if read > MOST_BASE_CHARACTERS:
        return False, f"from nothing: training reads more characters than {BASE} has read"
    return True, f"from {BASE}, which {reads}; --from {SCRATCH} begins from nothing"


def output_rank(units: int, vocabulary: int) -> int:
    """Return the rank that suits the last layer; 0, which is a whole layer, unless the vocabulary is large."""
    return max(1, units // UNITS_PER_RANK) if vocabulary >= LOW_RANK_VOCABULARY else 0


def worthwhile_characters(units: int) -> float:
    """Return how many characters a layer has to read to become better than a narrower one."""
    return WORTHWHILE_CHARACTERS * float((units / WORTHWHILE_UNITS) ** WORTHWHILE_POWER)


def _read(units: int, characters: int, vocabulary: int, train: TrainConfig, speed: float) -> float:
    """Return how many characters will be read: an estimate, if the run is given minutes."""
    if train.steps is not None:
        return train.steps * train.batch_size * train.seq_length
    if train.epochs is not None:
        return train.epochs * characters
    model = ModelConfig(units=units, output_rank=output_rank(units, vocabulary))
    weights = sum(map(prod, weight_shapes(vocabulary, model).values())) + WEIGHTS_PER_UNIT * units
    return 60 * (train.minutes or DEFAULT_MINUTES) * speed / (6 * weights)


def passes(characters: int, vocabulary: int, train: TrainConfig, speed: float) -> float:
    """Return about how many times a run would read a text of so many characters, for training."""
    units = sizes(characters, vocabulary, train, speed)["units"]
    return _read(units, characters, vocabulary, train, speed) / max(1.0, characters * (1 - train.validation))


def resume(run: Run, corpus: Corpus, request: Request, replicas: int = 1) -> RunConfig:
    """Return the configuration with which a run goes on. Of the request, explicit options and ``distribute`` count.

    A finished run gets a new schedule from its last step on, of the explicit minutes, epochs or steps; without one it
    stays finished. Dropout that the rule chose is chosen again. Raises ChargenError if a schedule is explicit and the
    run is not finished, or if the run's batch size cannot be divided among the replicas.
    """
    config, checkpoint = run.config, run.checkpoint()
    if config.train.batch_size % replicas:
        numbers = [n for n in range(1, config.train.batch_size + 1) if config.train.batch_size % n == 0]
        raise ChargenError(
            f"the {config.train.batch_size} streams of {run.path} cannot be divided among {replicas} workers; "
            f"go on with {' or '.join(map(str, numbers))}"
        )
    config = replace(config, train=replace(config.train, distribute=request.train.distribute))
    progress = Progress() if checkpoint is None else Progress.of(checkpoint)
    length = [name for name in LENGTHS if name in request.explicit]
    if "patience" in request.explicit:
        config = replace(config, train=replace(config.train, patience=request.train.patience))
    if not run.finished(progress):
        if length:
            raise ChargenError(
                f"--{length[0]} would change the schedule of a run that is not finished: finish it with "
                f"`chargen train --resume {quote(str(run.path))}`, then train it further"
            )
        return config
    return _further(config, progress.step, corpus, request) if length else config


def _further(config: RunConfig, step: int, corpus: Corpus, request: Request) -> RunConfig:
    """Return the configuration of a finished run with a new schedule, from its last step on."""
    characters = len(corpus.split(config.train)[0].ids)
    chosen = {} if config.first_stop is None else _dropout_of(config, config.first_stop, characters)
    again: dict[str, Any] = {name: None for name, rate in chosen.items() if getattr(config.train, name) == rate}
    train = replace(config.train, **{name: getattr(request.train, name) for name in LENGTHS}, **again)
    config, steps = replace(config, train=train, start=step, stop=None, knot=None), _steps(train, characters)
    return config if steps is None else fixed(config, step + steps, characters)


def _steps(train: TrainConfig, characters: int) -> int | None:
    """Return the number of steps, at least 1, of a run that is not given minutes."""
    if train.steps is not None or train.epochs is None:
        return train.steps
    return max(1, round(train.epochs * windows_per_epoch(characters, train.batch_size, train.seq_length)))
