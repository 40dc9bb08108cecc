"""The schedule's pure functions."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from chargen.config import Execution, ModelConfig, TrainConfig
from chargen.store.runconfig import Knot, RunConfig
from chargen.training.schedule import Seconds, TextSizes, changed, cosine_progress, fitting, learning_rate, replanned


def test_the_rate_warms_up_peaks_and_falls_to_a_hundredth():
    rates = [learning_rate(step, 0, 1000, 1.0) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 50)
    assert max(rates) == rates[49] == 1
    assert rates[-1] == pytest.approx(0.01)
    assert all(a > b for a, b in itertools.pairwise(rates[49:]))


@pytest.mark.parametrize("steps", [1, 2, 3, 20, 21])
def test_even_the_shortest_schedule_has_a_rate_above_nothing(steps):
    assert all(0 < learning_rate(step, 0, steps, 0.5) <= 0.5 for step in range(steps))


def test_while_the_end_is_not_known_the_rate_warms_up_and_stays():
    rates = [learning_rate(step, 0, None, 1.0) for step in range(300)]
    assert rates[:25] == [learning_rate(step, 0, 500, 1.0) for step in range(25)]
    assert set(rates[24:]) == {1.0}


def test_a_later_schedule_is_the_same_one_later():
    assert [learning_rate(s, 0, 90, 1.0) for s in range(90)] == [learning_rate(s, 70, 160, 1.0) for s in range(70, 160)]


PLANNED = RunConfig(
    ModelConfig(units=8), TrainConfig(minutes=1.0), Execution(), start=100, stop=1100, files=(), name="", characters=1,
    sha256="0" * 64,
)  # fmt: skip


@pytest.mark.parametrize("more", [1, 30, 599, 601, 10_000])
def test_a_schedule_planned_again_goes_on_with_the_progress_that_it_had(more):
    again, stop = replanned(PLANNED, 500, more), 500 + more
    assert again == replace(PLANNED, stop=stop, knot=Knot(500, cosine_progress(500, 100, 1100), 1100))
    progress = [cosine_progress(500 + step, 100, stop, again.knot) for step in range(more + 1)]
    assert progress[0] == cosine_progress(500, 100, 1100)
    assert progress[-1] == 1
    assert np.allclose(np.diff(progress), (1 - progress[0]) / more)
    rates = [learning_rate(500 + step, 100, stop, 1.0, again.knot) for step in range(more)]
    assert rates[-1] == pytest.approx(0.01)
    assert all(after < before for before, after in itertools.pairwise([learning_rate(499, 100, 1100, 1.0), *rates]))


def test_a_schedule_planned_again_as_it_was_has_the_same_rates():
    again = replanned(PLANNED, 500, 600)
    for step in range(500, 1100):
        rate = learning_rate(step, 100, 1100, 1.0)
        assert learning_rate(step, 100, again.stop, 1.0, again.knot) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("step", "more", "needed"),
    [
        (500, 600, False),
        (500, 600 + 48, False),  # 8 % of what is left
        (500, 600 + 49, True),
        (500, 600 - 49, True),
        (1000, 100 - 30, False),  # 3 % of the schedule
        (1000, 100 - 31, True),
        (149, 1, False),  # in the warm-up
        (150, 1, True),
    ],
)
def test_small_changes_of_the_speed_and_those_in_the_warm_up_are_not_followed(step, more, needed):
    assert changed(PLANNED, step, more) == needed


def test_a_few_steps_are_kept_when_the_time_is_over():
    each, sizes = Seconds(1.0, 1.0), TextSizes(10, 10, 900)
    assert fitting(PLANNED, 500, -100, each, sizes) == 10
    assert fitting(PLANNED, 1097, -100, each, sizes) == 3
    assert fitting(replace(PLANNED, stop=None), 500, -100, each, sizes) == 1


def test_a_wide_model_that_began_from_another_ends_after_six_passes_though_minutes_are_left():
    each, sizes = Seconds(1.0, 0.0), TextSizes(10, 10, 900)  # 90 steps a pass
    begun = replace(PLANNED, start=0, stop=None, parent="/model", model=ModelConfig(units=1024))
    assert fitting(begun, 20, 10_000, each, sizes) == 540 - 20
    assert fitting(begun, 20, 100, each, sizes) == 100
    assert fitting(replace(begun, parent=None), 20, 10_000, each, sizes) == 10_000
    assert fitting(replace(begun, model=ModelConfig(units=64)), 20, 9_000, each, sizes) == 8640 - 20
    assert fitting(replace(begun, start=1000), 1020, 10_000, each, sizes) == 540 - 20  # trained further
