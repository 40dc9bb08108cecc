"""The schedule's pure functions."""

import itertools

import pytest

from chargen.training.schedule import learning_rate


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
