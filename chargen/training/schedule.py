"""The schedule of a run as pure functions: learning rate, validations, and the steps that fit into a time.

Without TensorFlow. A run's schedule goes from the step ``start`` of its configuration to the step ``stop``.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from math import ceil
from typing import NamedTuple

from chargen.store.runconfig import Knot, RunConfig

# Warm-up takes a twentieth of the steps, at most 100. The cosine then falls to a hundredth of the highest rate. Until
# the number of steps is known, warm-up takes 25 steps, because a run of one minute may have no more than 350.
WARM_UP_SHARE, MOST_WARM_UP_STEPS, UNPLANNED_WARM_UP_STEPS, LAST_RATE_SHARE = 0.05, 100, 25, 0.01
MOST_VALIDATIONS = 30  # in a run
FEWEST_STEPS = 10  # between two validations of a short run
# Training characters between two validations, as a multiple of the validation text: a validation then takes 3 to 5 % of
# the time.
READ_BETWEEN = 8
# A run that was given minutes is measured for 5 % of them, at most 8 seconds. The first steps compile and do not count.
MEASURED_SHARE, MOST_MEASURED_SECONDS, UNMEASURED_STEPS = 0.05, 8, 3
# The speed is then compared with the plan after each 5 % of the minutes. The schedule is planned again if the steps
# that fit differ from those that are left by more than 8 %, because noise changes the mean of a measurement by less,
# and by more than 3 % of the schedule, because a run may end within 5 % of its minutes. See `chargen help choices`.
CHANGED_SHARE, CHANGED_SCHEDULE_SHARE = 0.08, 0.03
# A run that begins from another model ends after some passes over its text even if minutes are left: with 1024 units on
# a book of 220 KB, 5.5 passes made 1.424 bpc and 12 passes 1.433. A narrower model learns a text by heart more slowly.
MOST_FINE_TUNING_PASSES, FINE_TUNED_UNITS = 6, 1024


class Planned(NamedTuple):
    """The speed is measured, and with it the number of steps that fit into the given minutes is fixed.

    The run's configuration has them, and what follows from them.
    """

    stop: int
    epochs: float
    characters_per_second: float


class Replanned(NamedTuple):
    """The speed has changed, and with it the number of steps that fit into the given minutes."""

    stop: int
    before: int  # the stop until now


class TextSizes(NamedTuple):
    """The sizes on which the number of validations depends, in characters."""

    window: int  # characters of a window of all streams: B * T
    validation: int  # characters of the validation text
    training: int  # characters of the training text


def learning_rate(step: int, start: int, stop: int | None, highest: float, knot: Knot | None = None) -> float:
    """Return the rate of the update from ``step`` to ``step + 1``, with start <= step < stop.

    Linear warm-up, then cosine decay (Loshchilov and Hutter 2017, without restarts). While ``stop`` is None, the rate
    is warmed up to the highest and stays there. With a ``knot``, ``step`` is not before it.
    """
    done = step - start
    if stop is None:
        return highest * min(1, (done + 1) / UNPLANNED_WARM_UP_STEPS)
    warm_up = warm_up_steps(stop - start)
    if knot is None and done < warm_up:
        return highest * (done + 1) / warm_up
    progress = cosine_progress(step + 1, start, stop, knot)
    return highest * (LAST_RATE_SHARE + (1 - LAST_RATE_SHARE) * (1 + math.cos(math.pi * progress)) / 2)


def warm_up_steps(steps: int) -> int:
    """Return how many steps the warm-up of a schedule of ``steps`` steps takes."""
    return min(MOST_WARM_UP_STEPS, ceil(steps * WARM_UP_SHARE))


def cosine_progress(step: int, start: int, stop: int, knot: Knot | None = None) -> float:
    """Return how much of the cosine has passed at ``step``: 0 after the warm-up, 1 at ``stop``, and linear between.

    A ``knot`` takes the place of the end of the warm-up: what was left of the cosine there ends at ``stop``.
    """
    begin, reached = (start + warm_up_steps(stop - start), 0.0) if knot is None else (knot.step, knot.progress)
    return reached + (1 - reached) * (step - begin) / (stop - begin)


def validation_interval(steps: int, sizes: TextSizes) -> int:
    """Return the number of steps between two validations of a schedule of ``steps`` steps.

    The validations divide the schedule about evenly, so the last one does not closely follow the one before.
    """
    least = max(FEWEST_STEPS, ceil(steps / MOST_VALIDATIONS), ceil(READ_BETWEEN * sizes.validation / sizes.window))
    return ceil(steps / max(1, steps // least))


class Seconds(NamedTuple):
    """How long a step and a validation take."""

    step: float
    validation: float


def steps_in(seconds: float, each: Seconds, sizes: TextSizes, done: int = 0) -> int:
    """Return the number of steps, at least 1, that fit into ``seconds`` together with their validations.

    ``done`` steps of the schedule were already made.
    """
    fitting, too_many = 1, max(2, int(seconds / each.step) + 1)
    while too_many - fitting > 1:  # the validations depend on the steps, and the steps on the validations
        steps = (fitting + too_many) // 2
        validations = ceil(steps / validation_interval(steps + done, sizes))
        if steps * each.step + validations * each.validation <= seconds:
            fitting = steps
        else:
            too_many = steps
    return fitting


def fitting(config: RunConfig, step: int, seconds: float, each: Seconds, sizes: TextSizes) -> int:
    """Return the number of steps of a run, at least 1, that fit into ``seconds`` after ``step``.

    When a schedule is planned again, some steps are kept to anneal the learning rate even if the time is over. A run
    that begins from another model makes at most `most_passes` over its text.
    """
    fewest = 1 if config.stop is None else min(FEWEST_STEPS, config.stop - step)
    steps = steps_in(seconds, each, sizes, step - config.start)
    if config.parent is not None:
        steps = min(steps, config.start + ceil(most_passes(config) * sizes.training / sizes.window) - step)
    return max(fewest, steps)


def most_passes(config: RunConfig) -> float:
    """Return how many passes over its text help a run that begins from another model and is given minutes."""
    return MOST_FINE_TUNING_PASSES * FINE_TUNED_UNITS / config.model.units


def changed(config: RunConfig, step: int, more: int) -> bool:
    """Return whether the steps left at ``step`` are to be replaced by ``more``, the number that fits into the time.

    This is not done during the warm-up.
    """
    assert config.stop is not None
    left, steps = config.stop - step, config.stop - config.start
    if config.knot is None and step < config.start + warm_up_steps(steps):
        return False
    return abs(more - left) > max(CHANGED_SHARE * left, CHANGED_SCHEDULE_SHARE * steps)


def replanned(config: RunConfig, step: int, more: int) -> RunConfig:
    """Return the configuration of a run that makes ``more`` steps after ``step``; the learning rate goes on smoothly.

    Everything else stays as first planned, dropout too.
    """
    assert config.stop is not None
    assert config.first_stop is not None
    progress = cosine_progress(step, config.start, config.stop, config.knot)
    return replace(config, stop=step + more, knot=Knot(step, progress, config.first_stop))


class Stopwatch:
    """Measures what a step and a validation of a run take, and tells when the run is to be planned."""

    def __init__(self) -> None:
        self._steps, self._seconds = -UNMEASURED_STEPS, 0.0  # of the measurement; the first steps compile
        self._began = self._last = time.monotonic()
        self.validation_seconds, self._changed = 0.0, False  # of the last validation, with all that it entails

    def begin(self, began: float) -> None:
        """Count the run's minutes from ``began``, a `time.monotonic`."""
        self._began = began

    def used(self) -> float:
        """Return the seconds since the run's minutes began."""
        return time.monotonic() - self._began

    def left(self, minutes: float) -> float:
        """Return the seconds that are left of so many minutes; less than 0 if they are over."""
        return 60 * minutes - self.used()

    def lap(self) -> None:
        """Note that a step has ended."""
        before, self._last = self._last, time.monotonic()
        self._steps += 1
        if self._steps > 0:
            self._seconds += self._last - before

    def validated(self) -> None:
        """Note that since the last step only the validation text was scored and the result written and shown."""
        before, self._last = self._last, time.monotonic()
        self.validation_seconds = self._last - before

    def skip(self) -> None:
        """Leave the time since the last step out of the measurement."""
        self._last = time.monotonic()

    def restart(self, validation: float) -> None:
        """Measure the steps from now on; a validation takes so many seconds."""
        self._steps, self._seconds, self.validation_seconds, self._changed = 0, 0.0, validation, False
        self.skip()

    def has_measured(self, minutes: float, *, again: bool = False) -> bool:
        """Return whether the measurement is long enough to plan a run of so many minutes, for the first time or again.

        When it is planned again, the checkpoint that is written every minute has to be a small part of a measurement.
        """
        share = MEASURED_SHARE * 60 * minutes
        if again:
            return self._steps >= FEWEST_STEPS and self._seconds >= share
        return self._steps >= 1 and self._seconds >= min(MOST_MEASURED_SECONDS, share)

    def is_due(self, config: RunConfig, step: int, sizes: TextSizes) -> bool:
        """Return whether the run is to be planned: its speed has just become known, or no longer fits its plan."""
        minutes, again = config.train.minutes, config.stop is not None
        if minutes is None or not self.has_measured(minutes, again=again):
            return False
        if again and not self._changed:
            each = Seconds(self.step_seconds, self.validation_seconds)
            self._changed = changed(config, step, fitting(config, step, self.left(minutes), each, sizes))
            if not self._changed:
                self._steps, self._seconds = 0, 0.0
        return not again or self._changed

    @property
    def step_seconds(self) -> float:
        """The mean seconds per step."""
        return self._seconds / self._steps
