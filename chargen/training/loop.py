"""The training loop: truncated back-propagation through time, as an iterator of records.

The state crosses a window's border, the gradient does not (Williams and Peng 1990).

It runs under the tf.distribute strategy in whose scope it is iterated: each replica computes some of the rows, and what
they sum is summed over all of them. A worker, which is a process, reads its own rows only. Everything that decides how
the training goes on is the same in all workers: it follows from the step, from what was summed, or from the chief.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import asdict, replace
from math import ceil, isfinite
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from chargen import ChargenError, __version__
from chargen.bits import bits
from chargen.network.model import CharLM, state_arrays, state_of
from chargen.store.modelfile import Checkpoint, ModelFile, with_temperature
from chargen.store.run import Progress, Run
from chargen.text.corpus import Part
from chargen.text.streams import Streams
from chargen.text.vocabulary import Vocabulary
from chargen.training.distribute import gatherer, share, share_of, spread, total, whereabouts
from chargen.training.evaluate import in_order, reading_time
from chargen.training.optimizer import Adam, learning_rate
from chargen.training.plan import LARGE, fixed
from chargen.training.step import Controls, compile_step

MOST_VALIDATIONS = 30  # of a run
FEWEST_STEPS = 10  # between validations, where a run is short
# Between validations, as a multiple of the validation text: a validation then takes 3 to 5 % of the time.
READ_BETWEEN = 8
# A model is too sure of itself, the more so the oftener it has read its text. So its logits are divided by that one of
# these temperatures at which the validation text costs the least (Guo et al. 2017). A 1 MB play: in 1 minute it is 1.08
# and gains 0.0035 nats, in 3 minutes 1.12 and 0.011, in 10 minutes 1.17 and 0.015. One number, chosen by 100,000
# characters, flatters what they cost by some 0.000005 nats. What lies between them would gain 0.0003 nats at the most.
# A large vocabulary, whose validation would take twice as long with all of them, has four, 0.001 from the best.
TEMPERATURES = tuple(1.04**k for k in range(-2, 12))
FEW_TEMPERATURES = TEMPERATURES[2:9:2]
MEASURED_SHARE, MEASURED_SECONDS, UNMEASURED_STEPS = 0.05, 8, 3  # the first steps compile, and are left out
CHECKPOINT_SECONDS = 60
MOST_RECOVERIES = 3


class Planned(NamedTuple):
    """The machine's speed is known, and with it how many steps fit into the minutes that were given.

    They are in the run's configuration, with what follows from them.
    """

    stop: int
    epochs: float
    characters_per_second: float


class Step(NamedTuple):
    """An update was made."""

    step: int
    epoch: float
    bpc: float  # of the training characters since the last validation


class Validation(NamedTuple):
    """The validation text was scored; the record is the new line of ``metrics.jsonl``."""

    record: dict[str, Any]
    best: bool


class Recovery(NamedTuple):
    """A loss or a gradient was not finite: training went back to a checkpoint, at a lower rate."""

    failed: int  # the step that could not be made, or whose validation was not finite
    step: int  # the checkpoint's
    factor: float


class Wishes(NamedTuple):
    """What a worker would have all do by its own clock or signals.

    They travel with a step and are looked at with its loss, so that all workers do it at the same step. Those that
    can't be granted at once are uttered again with the next step.
    """

    stop: bool = False
    save: bool = False  # as the last checkpoint is old
    plan: bool = False  # as the speed is known


class Diverged(Exception):  # noqa: N818  - it ends nothing: training recovers from it
    """The update that makes step ``step`` had a loss or a gradient that is not finite; or its validation had."""

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


class Stopwatch:
    """How long a step takes, without the first ones, which compile."""

    def __init__(self) -> None:
        self._steps = -UNMEASURED_STEPS
        self._first = self._last = time.monotonic()

    def lap(self) -> None:
        """Note that a step has ended."""
        self._steps, self._last = self._steps + 1, time.monotonic()
        if self._steps == 0:
            self._first = self._last

    def enough(self, minutes: float) -> bool:
        """Return whether it has run for long enough to plan so many minutes."""
        least = min(MEASURED_SECONDS, MEASURED_SHARE * 60 * minutes)
        return self._steps >= 1 and self._last - self._first >= least

    @property
    def step_seconds(self) -> float:
        """The mean seconds of a step."""
        return (self._last - self._first) / self._steps


def train(
    model: CharLM,
    vocabulary: Vocabulary,
    streams: Streams,
    validation: Part,
    run: Run,
    began: float | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Generator[Planned | Step | Validation | Recovery]:
    """Train ``model`` as ``run.config`` says, from the run's checkpoint if it has one; yield what happens.

    A run that was given minutes is measured first: after some 5 % of them the number of steps is fixed, and with it how
    much is blanked, and written to the run's configuration; all that follows is a function of the step. The minutes
    count from ``began``, a `time.monotonic`; from now, if it isn't given.

    Files are written before the record that tells of them is yielded. Once ``stopping`` returns true, in any worker,
    training ends after a step or two with a checkpoint of the last one. Whoever stops iterating and closes the iterator
    (``close()``, which leaving a ``for`` loop does too in CPython) finds such a checkpoint too, but not with several
    workers: one alone doesn't have all rows' state.

    Nothing is left to do of a finished run. Raises ChargenError if training diverges for the fourth time, or if a file
    can't be written.
    """
    config, settings = run.config, run.config.train
    began = time.monotonic() if began is None else began
    adam = Adam(model.named_weights(), settings.clip_norm)
    update = compile_step(model, adam, settings)
    here = whereabouts()
    chief, rows = here.number == 0, share_of(settings.batch_size, here)
    temperatures = TEMPERATURES if len(vocabulary) < LARGE else FEW_TEMPERATURES
    evaluate, gather = in_order(model, here, temperatures), gatherer()
    summary = {"text": config.name, "characters": config.characters, "sha256": config.sha256, "chargen": __version__}
    summary |= {"normalize": "none"} if settings.normalize == "none" else {}
    window_size = streams.batch_size * streams.seq_length

    state, progress = spread(model.zero_state(rows.stop - rows.start)), Progress()
    # The last update's step, sum of nats, whether it was made, and its wishes: looked at one step late, so that the
    # host never waits for the step that is running.
    pending: tuple[int, tf.Tensor, tf.Tensor, tf.Tensor] | None = None
    lap = saved = time.monotonic()
    metrics: list[dict[str, Any]] = []

    def tick() -> None:
        nonlocal lap, progress
        passed, lap = time.monotonic() - lap, time.monotonic()
        progress = replace(progress, clock=progress.clock + passed, seconds=progress.seconds + passed)

    def settle() -> Wishes:
        """Account for the pending update; return what was wished with it. Raises Diverged if it was not made."""
        nonlocal pending, progress
        if pending is None:
            return Wishes()
        (step, nats, made, wishes), pending = pending, None
        if not made:
            raise Diverged(step)
        characters = progress.characters + window_size
        progress = replace(progress, nats=progress.nats + float(nats), characters=characters)
        return Wishes(*(wishes.numpy() > 0).tolist())

    def restore(checkpoint: Checkpoint) -> None:
        nonlocal state, progress
        progress = Progress.of(checkpoint)
        model.assign(checkpoint.weights)
        if not checkpoint.extra:  # of a run that begins with another's weights
            return
        for name, moment in adam.moments.items():
            moment.assign(checkpoint.extra[f"optimizer/{name}"])
        carried = {n.removeprefix("state/"): a for n, a in checkpoint.extra.items() if n.startswith("state/")}
        state = spread(state_of({n: a[rows] for n, a in carried.items()}))

    def save() -> None:
        nonlocal saved
        tick()
        extra = {f"optimizer/{name}": moment.numpy() for name, moment in adam.moments.items()}
        extra |= {f"state/{name}": array for name, array in state_arrays(gather(state)).items()}
        told = {**summary, "step": progress.step, "progress": asdict(progress)}
        Checkpoint(model.arrays(), vocabulary, model.config, told, extra).write(run.checkpoint_path)
        saved = time.monotonic()

    def score() -> tuple[float, float]:
        """Return the nats per character of the validation text at the best temperature, and that."""
        nats = total(evaluate(*validation).sum(-1, dtype="float64")) / (len(validation.ids) - 1)
        best = int(nats.argmin())  # NumPy gives the place of the first NaN, if there is one
        return float(nats[best]), temperatures[best]

    def validate() -> Validation:
        """Score the validation text and write all files. Raises Diverged if the score is not finite."""
        nonlocal progress, metrics
        tick()
        nats, temperature = score()
        if not isfinite(nats):
            raise Diverged(progress.step)
        best = progress.best is None or nats < progress.best
        record = {
            "step": progress.step,
            "epoch": round(progress.step / streams.windows, 4),
            "characters": progress.step * window_size,
            "seconds": round(progress.seconds, 2),
            "training_bpc": bits(progress.nats / progress.characters),
            "validation_bpc": bits(nats),
            "temperature": round(temperature, 4),
            "learning_rate": rate,
            "characters_per_second": round(progress.characters / progress.clock),
        }
        tick()
        worse = 0 if best else progress.worse + 1
        progress = replace(
            progress,
            best=nats if best else progress.best,
            worse=worse,
            nats=0.0,
            characters=0,
            clock=0.0,
            finished=progress.step == config.stop or (settings.patience is not None and worse >= settings.patience),
        )
        # In this order: whatever file a kill keeps from being written, the older checkpoint makes it again.
        if best:
            told = {**summary, "step": progress.step, "validation_bpc": bits(nats), "temperature": temperature}
            weights = with_temperature(model.arrays(), temperature)
            ModelFile(weights, vocabulary, model.config, told, {}).write(run.model_path)
        metrics = [*metrics, record]
        run.write_metrics(metrics)
        save()
        return Validation(record, best)

    if (checkpoint := run.checkpoint()) is not None:
        restore(checkpoint)
        if run.finished(progress):
            return
        if progress.finished:  # the schedule before this one was
            progress = replace(progress, finished=False, worse=0)
    metrics = [record for record in run.metrics() if record["step"] <= progress.step]
    run.write_metrics(metrics)
    save()

    stopwatch, rate = Stopwatch(), 0.0
    windows = streams.read_ahead(progress.step, rows)

    def plan() -> Planned:
        """Fix how many steps fit into the minutes that are left, by the speed so far."""
        nonlocal config, lap
        settle()
        own = reading_time(evaluate, *validation)
        validated_in = float(total(own * np.eye(here.workers)[here.number]).max())
        before = time.monotonic()
        save()
        validated_in += time.monotonic() - before
        left, seconds = 60 * (settings.minutes or 0) - (time.monotonic() - began), stopwatch.step_seconds
        done = progress.step - config.start
        more = steps_in(left, seconds, validated_in, window_size, len(validation.ids), done)
        more, seconds = json.loads(share(json.dumps([more, seconds]).encode()))
        config = fixed(config, progress.step + more, streams.characters)
        run.reconfigure(config)
        lap = time.monotonic()
        return Planned(progress.step + more, (progress.step + more) / streams.windows, window_size / seconds)

    def advance() -> Wishes:
        """Dispatch an update; return what was wished with the one before. Raises Diverged if that was not made."""
        nonlocal state, pending, progress, rate
        rate = progress.factor * learning_rate(progress.step, config.start, config.stop, settings.learning_rate)
        wishes = Wishes(
            stop=stopping(),
            save=chief and time.monotonic() - saved > CHECKPOINT_SECONDS,
            plan=chief and config.stop is None and stopwatch.enough(settings.minutes or 0),
        )
        counters = tf.constant(progress.step, tf.int64), tf.constant(rate), tf.constant(wishes, tf.float32)
        drops = tf.constant([config.train.dropout or 0, config.train.weight_drop or 0], tf.float32)
        state, *result = update(spread(next(windows)), state, Controls(*counters, drops))
        agreed = settle()
        progress = replace(progress, step=progress.step + 1)
        pending = (progress.step, result[0], result[1], result[2])
        stopwatch.lap()
        return agreed

    def recover(failed: int) -> Recovery:
        """Go back to the last checkpoint at half the rate."""
        nonlocal pending, progress, windows
        pending = None
        if progress.recoveries == MOST_RECOVERIES:
            raise ChargenError(
                f"training diverged for the {MOST_RECOVERIES + 1}th time, at step {failed:,}: the best model "
                "so far is intact; train again with a lower --learning-rate or --clip-norm"
            )
        restore(Checkpoint.read(run.checkpoint_path))
        windows.close()
        windows = streams.read_ahead(progress.step, rows)
        progress = replace(progress, factor=progress.factor / 2, recoveries=progress.recoveries + 1)
        save()
        return Recovery(failed, progress.step, progress.factor)

    def due() -> bool:
        """Return whether the validation text is to be scored after this step."""
        if config.stop is None:
            return False
        every = interval(config.stop - config.start, window_size, len(validation.ids))
        return progress.step == config.stop or (progress.step - config.start) % every == 0

    agreed = Wishes()
    try:
        while not (progress.finished or agreed.stop):
            try:
                if config.stop is None and agreed.plan:
                    yield plan()
                agreed = advance()
                if due():
                    settle()
                    yield validate()
                    lap = time.monotonic()  # what the caller does with a validation is not training
                    continue
                if agreed.save:
                    settle()
                    save()
                if progress.characters:
                    average = bits(progress.nats / progress.characters)
                    yield Step(progress.step, progress.step / streams.windows, average)
            except Diverged as diverged:
                agreed = Wishes()
                yield recover(diverged.step)
        if not progress.finished:
            with suppress(Diverged):  # then the checkpoint before is the last that is whole
                settle()
                save()
    except GeneratorExit:
        if here.workers == 1:
            with suppress(Diverged):
                settle()
                save()
        raise
    except tf.errors.ResourceExhaustedError:
        raise ChargenError(
            "there is not enough memory for a step of this size: train with a smaller --batch-size, --seq-length or "
            f"--units; {run.path} is as it was at its last checkpoint"
        ) from None
    finally:
        windows.close()


def interval(steps: int, window: int, held_out: int) -> int:
    """Return how many steps there are from one validation to the next, in a schedule of so many steps.

    They part it about evenly, so that the last validation doesn't come soon after the one before. ``window`` is the
    characters of a step, ``held_out`` those of the validation text.
    """
    least = max(FEWEST_STEPS, ceil(steps / MOST_VALIDATIONS), ceil(READ_BETWEEN * held_out / window))
    return ceil(steps / max(1, steps // least))


def steps_in(seconds: float, step: float, validation: float, window: int, held_out: int, done: int = 0) -> int:
    """Return how many steps fit into so many seconds, with the validations among them; one at the least.

    ``step`` and ``validation`` are the seconds that each takes, ``done`` the steps already made of the schedule.
    """
    fitting, too_many = 1, max(2, int(seconds / step) + 1)
    while too_many - fitting > 1:  # the validations depend on the steps, and the other way round
        steps = (fitting + too_many) // 2
        if steps * step + ceil(steps / interval(steps + done, window, held_out)) * validation <= seconds:
            fitting = steps
        else:
            too_many = steps
    return fitting
