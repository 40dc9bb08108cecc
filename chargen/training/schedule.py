"""The schedule of a run as pure functions: learning rate, validations, and the steps that fit into a time.

Without TensorFlow. A run's schedule goes from the step ``start`` of its configuration to the step ``stop``.
"""

from __future__ import annotations

import math
import time
from math import ceil
from typing import NamedTuple

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


class TextSizes(NamedTuple):
    """The sizes on which the number of validations depends, in characters."""

    window: int  # characters of a window of all streams: B * T
    validation: int  # characters of the validation text


def learning_rate(step: int, start: int, stop: int | None, highest: float) -> float:
    """Return the rate of the update from ``step`` to ``step + 1``, with start <= step < stop.

    Linear warm-up, then cosine decay (Loshchilov and Hutter 2017, without restarts). While ``stop`` is None, the rate
    is warmed up to the highest and stays there.
    """
    done = step - start
    if stop is None:
        return highest * min(1, (done + 1) / UNPLANNED_WARM_UP_STEPS)
    warm_up = min(MOST_WARM_UP_STEPS, ceil((stop - start) * WARM_UP_SHARE))
    if done < warm_up:
        return highest * (done + 1) / warm_up
    progress = (done - warm_up + 1) / (stop - start - warm_up)
    return highest * (LAST_RATE_SHARE + (1 - LAST_RATE_SHARE) * (1 + math.cos(math.pi * progress)) / 2)


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


class Stopwatch:
    """Measures the seconds per step, without the first steps, which compile."""

    def __init__(self) -> None:
        self._steps = -UNMEASURED_STEPS
        self._first = self._last = time.monotonic()

    def lap(self) -> None:
        """Note that a step has ended."""
        self._steps, self._last = self._steps + 1, time.monotonic()
        if self._steps == 0:
            self._first = self._last

    def has_measured(self, minutes: float) -> bool:
        """Return whether the measurement is long enough to plan a run of so many minutes."""
        least = min(MOST_MEASURED_SECONDS, MEASURED_SHARE * 60 * minutes)
        return self._steps >= 1 and self._last - self._first >= least

    @property
    def step_seconds(self) -> float:
        """The mean seconds per step."""
        return (self._last - self._first) / self._steps
