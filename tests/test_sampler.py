import numpy as np
import pytest

from chargen.sampler import draw

LOGITS = np.log(np.array([0.1, 0.2, 0.3, 0.4], np.float32))


def test_temperature_0_takes_the_likeliest_and_the_first_of_equals():
    generator = np.random.default_rng(0)
    before = generator.bit_generator.state
    assert draw(LOGITS, 0, generator) == 3
    assert draw(np.zeros(4), 0, generator) == 0
    assert generator.bit_generator.state == before


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_have_the_probabilities_of_the_softmax(temperature):
    generator = np.random.default_rng(1)
    draws = 40_000
    counts = np.bincount([draw(LOGITS, temperature, generator) for _ in range(draws)], minlength=4)
    expected = np.array([0.1, 0.2, 0.3, 0.4]) ** (1 / temperature)
    expected *= draws / expected.sum()
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 16.27  # 3 degrees of freedom, one in a thousand; the generator is fixed


def test_what_has_no_probability_is_never_drawn():
    generator = np.random.default_rng(2)
    logits = np.array([0, -np.inf, 0, -np.inf])
    assert {draw(logits, 1.0, generator) for _ in range(500)} == {0, 2}


def test_extreme_logits_and_temperatures_do_not_overflow():
    generator = np.random.default_rng(3)
    assert draw(np.array([1e4, -1e4, 0], np.float32), 1e-6, generator) == 0
    assert draw(np.array([-3e38, 3e38], np.float32), 1.0, generator) == 1
