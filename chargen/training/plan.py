"""Sizes and steps, from the text and what was asked."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from math import prod
from shlex import quote
from typing import Any

import numpy as np

from chargen import ChargenError
from chargen.config import Execution, ModelConfig, TrainConfig
from chargen.machine import cores, multiplies_bfloat16
from chargen.store.modelfile import weight_shapes
from chargen.store.run import Progress, Run, RunConfig
from chargen.text.corpus import Corpus, held_out
from chargen.text.streams import fit, windows_per_epoch

MINUTES = 10.0  # where no length is asked for

# What the sizes follow, found by hand with searches on texts of 0.2 to 1.1 million characters, 1 to 10 minutes long
# (README has the table). One wide layer, as a second one costs more time than it gains in these budgets: of 3 minutes
# 2 x 384 made 1.449 nats, 1 x 512 made 1.442; 64 streams, as they are read twice as fast as 16. Smaller layers lose on
# a slow machine too: at 0.6 of the speed 256 units made 1.509 in a minute, 384 made 1.487; 640 1.449 in ten, 768 1.437.
# Since the rates follow the width, in a minute of a Zen 3, random seeds 0, 1, 2: 256 units 1.482 1.493 1.483 of 2.3 to
# 3.1 million characters, 320 1.474 1.488 1.475 of 1.9 to 2.1, 384 1.490 1.501 of 1.5; in three 384 1.432, 448 1.436.
# In slower hours 256 made 1.504 1.504 1.486 of 2.0 to 2.4 million, 320 1.483 to 1.511 (nine runs, mean 1.496) of 1.5 to
# 2.0: nothing to be told.
UNITS = (64, 96, 128, 192, 256, 320, 384, 512, 640, 768, 1024, 1280)
# The best rate falls with the width, about as its square root. 450 steps of 64 x 64 on a 1 MB play, nats: 128 units at
# 0.014 1.633, 0.02 1.609, 0.028 1.586, 0.042 1.592, 0.06 1.629; 256 (another random seed) 0.014 1.530, 0.021 1.517,
# 0.026 1.512, 0.035 1.529; 384 (600 steps, without Nesterov's momentum) 0.01 1.471, 0.015 1.454, 0.022 1.467; 512 (500
# steps) 0.009 1.461, 0.014 1.447.
RATE, HIGHEST_RATE = 0.34, 0.03  # of one unit; of all layers, as narrower ones than 128 were not tried
# What is blanked, each figure at the temperature that suits its model. A 1 MB play, nats: 450 steps, 256 units, 1.8
# passes, random seeds 0, 1: dropout 0 1.490 1.496, 0.07 1.500 1.501. 1,000 steps, 384 units, 4.1 passes: 0 1.430, 0.08
# 1.428, 0.16 1.433, 0.25 1.433. 640 units, 5.6 passes: 0.27 1.417, 0.38 1.398; one thread 0.37 1.411, 0.3 with weight
# drop 0.1 1.415.
# A book of 220,000 characters, 384 units, random seed 0, bpc by dropout and weight drop. 11 passes: 0.2, 0.3, 0.4 and
# 0.22 1.714 1.719 1.723; 0.3 and 0.12 1.724; 0.2 and 0.3 1.729; 0.35 and none 1.761. 23 passes: 0.4 and 0.15, 0.2 1.689
# 1.692; 0.3 and 0.22, 0.3 1.694 1.704; 0.3, 0.5 and 0.4 1.725 1.751.
# For each pass after so many, times the units, divided by the root of the text's characters; and at the most. So the
# book's 11 passes get 0.4, for the sake of the play's 5.6 and the book's 23.
DROPOUT, FREE_OF_DROPOUT, HIGHEST_DROPOUT = 0.19, 2.5, 0.4
WEIGHT_DROP, FREE_OF_WEIGHT_DROP, HIGHEST_WEIGHT_DROP = 0.065, 8, 0.2  # for each pass after so many; and at the most
# From so many distinct characters on, the last layer's rank is a sixth of the units. 1 x 384 on Chinese poems made in 2
# minutes, with rank 64 and whole: 7.25 and 7.40 bpc of 2,874 distinct characters, 7.77 and 8.00 of 4,935, 8.29 and 8.54
# of 14,288; of these in 5 minutes 7.58 and 8.02. Rank 128 made 8.30 in 2 minutes.
LARGE, RANK_SHARE = 2000, 6
# What training gets of the speed at which NumPy multiplies float32 matrices on all cores, counting 6 operations for
# each character and weight, and each unit as many weights: that makes 206 to 238 GFLOP/s from 2 x 128 to 2 x 512 in
# float32 on a Zen 4, where the weights alone made 130 to 197. A Zen 3 gets 0.93 of the median float32 product so, a Zen
# 4 should get 1.12; bfloat16's is the share measured before, 1.56, made larger alike. Of the best product, which is
# what counts, it is a tenth less (reckoned): one moment's median made a run of 10 minutes guess half of what it read.
# All of this is of the unroll before. With AMX, one minute of 1 x 384: 3.7M characters guessed, 3.9M read.
SHARES = {"bfloat16": 1.6, "float32": 0.9}
WEIGHTS_FOR_UNIT = 700
MEASURED_SECONDS = 0.2


def plan(
    corpus: Corpus, model: ModelConfig, train: TrainConfig, asked: Collection[str], speed: float, replicas: int = 1
) -> RunConfig:
    """Return the configuration of a new run on a corpus, whose batches are divided among so many replicas.

    ``speed`` is what `machine` measures, of all of them together.

    Its execution is still to be chosen, by `execution.choose`; if minutes were given, the step where it ends and what
    follows from that are still to be `fixed`. What is in ``asked`` is left as it is. The rest follows `sizes`; then
    batch size and window are made smaller where the text is too short for them (see `streams.fit`). Raises ChargenError
    if the batch size that is asked for can't be divided among the replicas.
    """
    characters = len(corpus.split(train.validation, train.held_out)[0].ids)
    if train.minutes is train.epochs is train.steps is None:
        train = replace(train, minutes=MINUTES)
    units = model.units if "units" in asked else None
    chosen = sizes(characters, len(corpus.vocabulary), train, speed, units)
    model = replace(model, **{n: v for n, v in chosen.items() if hasattr(model, n) and n not in asked})
    train = replace(train, **{n: v for n, v in chosen.items() if hasattr(train, n) and n not in asked})
    batch_size, seq_length = train.batch_size, train.seq_length
    if "batch_size" not in asked:
        at_most, shorten = max(batch_size, replicas), "seq_length" not in asked
        batch_size, seq_length = fit(characters, at_most, seq_length, shorten=shorten, multiple=replicas)
    elif "seq_length" not in asked:
        seq_length = max(1, min(seq_length, (characters - 1) // batch_size))
    train = replace(train, batch_size=batch_size, seq_length=seq_length)
    if batch_size % replicas:
        less = batch_size // replicas * replicas
        would = f"{less} or {less + replicas}" if less else f"{replicas}"
        raise ChargenError(f"--batch-size {batch_size} can't be divided among {replicas} workers: {would} would")
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
    )
    steps = _steps(train, characters)
    return config if steps is None else fixed(config, steps, characters)


def fixed(config: RunConfig, stop: int, characters: int) -> RunConfig:
    """Return the configuration of a run that is known to end at a step, on a training text of so many characters.

    How much is blanked is chosen with that, unless it was asked for.
    """
    train, chosen = config.train, _blanked(config, stop, characters)
    train = replace(train, **{name: share for name, share in chosen.items() if getattr(train, name) is None})
    return replace(config, stop=stop, train=train)


def _blanked(config: RunConfig, stop: int, characters: int) -> dict[str, Any]:
    read = stop * config.train.batch_size * config.train.seq_length
    return blanked(config.model.units, characters, read / characters)


def blanked(units: int, characters: int, passes: float) -> dict[str, Any]:
    """Return the shares that are blanked at random, by the names of their options.

    The oftener a text of so many characters is read, and the larger the layer is for it, the more of it is blanked.
    """
    dropout = DROPOUT * (passes - FREE_OF_DROPOUT) * units / characters**0.5
    weight_drop = WEIGHT_DROP * (passes - FREE_OF_WEIGHT_DROP)
    return {
        "dropout": round(min(HIGHEST_DROPOUT, max(0.0, dropout)), 2),
        "weight_drop": round(min(HIGHEST_WEIGHT_DROP, max(0.0, weight_drop)), 2),
    }


def machine(train: TrainConfig) -> float:
    """Return about how many operations a second training gets here, from a fifth of a second of NumPy's products."""
    precision = train.precision
    if precision == "auto":
        precision = "bfloat16" if multiplies_bfloat16() else "float32"
    a, b = np.ones((1024, 1024), np.float32), np.ones((1024, 512), np.float32)
    laps: list[float] = []
    while not laps or sum(laps) < MEASURED_SECONDS:
        began = time.perf_counter()
        np.matmul(a, b)
        laps.append(time.perf_counter() - began)
    product = 2 * a.shape[0] * a.shape[1] * b.shape[1] / min(laps)  # what else runs can only make it slower
    return SHARES[precision] * product * (train.threads or cores()) / cores()


def sizes(
    characters: int, vocabulary: int, train: TrainConfig, speed: float, units: int | None = None
) -> dict[str, Any]:
    """Return the settings that suit a training text and the length of a run, by the names of their options.

    characters, vocabulary: how many the training text has, and how many distinct ones. If ``units`` aren't
    given: a larger layer is worth it when it will read enough.
    """
    if units is None:
        units = max((u for u in UNITS if _read(u, characters, vocabulary, train, speed) >= worth(u)), default=UNITS[0])
    return {
        "layers": 1,
        "units": units,
        "output_rank": output_rank(units, vocabulary),
        "batch_size": 64,
        "seq_length": 64,
        "learning_rate": min(HIGHEST_RATE, round(RATE / units**0.5, 4)),
        **dict.fromkeys(blanked(units, characters, 0)),  # to be `fixed` with the number of steps
    }


def reason(config: RunConfig, vocabulary: int, speed: float) -> str:
    """Return, in a line, what the sizes of a run follow from; what was asked for is as it was asked."""
    characters = config.characters - held_out(config.characters, config.train.validation, config.train.held_out)
    read = _read(config.model.units, characters, vocabulary, config.train, speed)
    return (
        f"some {read:,.0f} characters will be read, the text {read / characters:.1f} times; "
        f"{config.model.units} units are worth it from {worth(config.model.units):,.0f} on"
    )


def output_rank(units: int, vocabulary: int) -> int:
    """Return the rank that suits the last layer: 0, which is a whole one, unless the vocabulary is large."""
    return max(1, units // RANK_SHARE) if vocabulary >= LARGE else 0


def worth(units: int) -> float:
    """Return how many characters a layer of so many units has to read to become better than a smaller one."""
    return float(2.2e6 * (units / 384) ** 1.5)


def _read(units: int, characters: int, vocabulary: int, train: TrainConfig, speed: float) -> float:
    """Return how many characters will be read, by a guess if it is minutes that were given."""
    if train.steps is not None:
        return train.steps * train.batch_size * train.seq_length
    if train.epochs is not None:
        return train.epochs * characters
    model = ModelConfig(units=units, output_rank=output_rank(units, vocabulary))
    shapes = weight_shapes(vocabulary, model).values()
    seconds = 60 * (train.minutes or MINUTES)
    return seconds * speed / (6 * (sum(map(prod, shapes)) + WEIGHTS_FOR_UNIT * units))


def resume(run: Run, corpus: Corpus, train: TrainConfig, asked: Collection[str], replicas: int = 1) -> RunConfig:
    """Return the configuration with which a run goes on; of ``train`` only what is in ``asked`` counts, and distribute.

    A finished run gets a new schedule, of the minutes, epochs or steps that are asked for, from the step where it is;
    without one it stays finished. What is blanked is chosen again if it is what the rule chose, asked for or not.
    Raises ChargenError if a schedule is asked for and the run is not finished, or if the run's batch size can't be
    divided among so many replicas.
    """
    config, checkpoint = run.config, run.checkpoint()
    if config.train.batch_size % replicas:
        numbers = [n for n in range(1, config.train.batch_size + 1) if config.train.batch_size % n == 0]
        raise ChargenError(
            f"the {config.train.batch_size} streams of {run.path} can't be divided among {replicas} workers: "
            f"go on with {' or '.join(map(str, numbers))}"
        )
    config = replace(config, train=replace(config.train, distribute=train.distribute))
    progress = Progress() if checkpoint is None else Progress.of(checkpoint)
    length = [name for name in ("minutes", "epochs", "steps") if name in asked]
    if "patience" in asked:
        config = replace(config, train=replace(config.train, patience=train.patience))
    if not run.finished(progress):
        if length:
            raise ChargenError(
                f"--{length[0]} would change the schedule of a run that is not finished: finish it with "
                f"`chargen train --resume {quote(str(run.path))}`, then train it further"
            )
        return config
    if not length:
        return config
    characters = len(corpus.split(config.train.validation, config.train.held_out)[0].ids)
    chosen = {} if config.stop is None else _blanked(config, config.stop, characters)
    again: dict[str, Any] = {name: None for name, share in chosen.items() if getattr(config.train, name) == share}
    settings = replace(config.train, minutes=train.minutes, epochs=train.epochs, steps=train.steps, **again)
    config, steps = replace(config, train=settings, start=progress.step, stop=None), _steps(settings, characters)
    return config if steps is None else fixed(config, progress.step + steps, characters)


def _steps(config: TrainConfig, characters: int) -> int | None:
    """Return how many steps are asked for on a training text of so many characters, if not minutes; one at least."""
    if config.steps is not None or config.epochs is None:
        return config.steps
    return max(1, round(config.epochs * windows_per_epoch(characters, config.batch_size, config.seq_length)))
