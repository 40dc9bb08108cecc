import random

import pytest

from chargen.training.compressor import COMPRESSORS, bits_per_character


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_what_was_in_the_training_text_costs_less(compressor):
    generator = random.Random(1)
    training = "".join(generator.choice("abcdefgh") for _ in range(20_000))
    new = "".join(generator.choice("abcdefgh") for _ in range(10_000))
    unlearnt = bits_per_character(compressor, training, new)
    assert unlearnt == pytest.approx(3, abs=0.6)  # log2(8), and what it wastes
    assert bits_per_character(compressor, training, training[5_000:15_000]) < 0.8 * unlearnt
