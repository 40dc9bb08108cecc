import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from chargen.training.optimizer import Adam
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


def test_adam_is_clipped_and_steps_ahead_of_its_momentum():
    values = np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)
    ours, theirs = keras.Variable(values), values.astype(np.float64)
    adam = Adam({"w": ours}, clip_norm=1.0)
    m = v = np.zeros_like(theirs)
    for update in range(1, 6):
        gradient = values / update
        norm = float(np.linalg.norm(gradient))
        adam.apply({"w": tf.constant(gradient)}, tf.constant(norm), tf.constant(0.01), tf.constant(update))
        clipped = gradient * min(1, 1 / norm)
        m, v = 0.8 * m + 0.2 * clipped, 0.99 * v + 0.01 * clipped**2
        ahead = (0.8 * m + 0.2 * clipped) / (1 - 0.8**update)
        theirs = theirs - 0.01 * ahead / (np.sqrt(v / (1 - 0.99**update)) + 1e-8)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert not np.allclose(ours, values, atol=1e-3)
