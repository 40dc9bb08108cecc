"""What went wrong in training, and in what stands around it, with the values that are right."""

import sys

import numpy as np
import pytest

from chargen import ChargenError
from chargen.bench import Side, first_character_seconds
from chargen.config import ModelConfig
from chargen.modelfile import ModelFile, weight_shapes
from chargen.vocabulary import Vocabulary
from tests.conftest import invoke

TALKATIVE = "import sys; sys.stderr.write('a warning\\n' * 100_000); sys.stderr.flush(); print({}, flush=True); input()"


def side(program):
    return Side("one", [sys.executable, "-c", program])


def test_a_side_that_writes_many_warnings_is_measured_all_the_same():
    with side(TALKATIVE.format("""'{"ready": 1}'""")) as one:
        assert one.answer() == {"ready": 1}


def test_a_side_that_ends_between_two_rounds_is_named_with_its_last_words():
    with side("import sys; print('{}', flush=True); input(); sys.exit('no more memory')") as one:
        assert one.answer() == {}
        for _ in range(2):  # the second time there is nobody to read the line
            with pytest.raises(ChargenError, match="the benchmark's one ended by itself: no more memory"):
                one.round()


def test_the_latency_of_a_model_is_that_of_its_first_character_not_of_an_error(dna):
    assert first_character_seconds(str(dna), times=1) > 0
    with pytest.raises(ChargenError, match=r"chargen sample wrote nothing: .*none"):
        first_character_seconds("none", times=1)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["train", "--from", "book.txt", "--output-rank", "3", "--layers", "2"], "--layers, --output-rank"),
        (["train", "--resume", "run", "--keep-boilerplate", "--from", "book.txt"], "--from, --keep-boilerplate"),
        (["train", "--minutes", "3", "--steps", "3"], "--minutes, --steps"),
        (["sample", "--pattern", "book.txt", "--stop", "a", "--top-k", "3"], "--stop, --top-k"),
        (["sample", "--seed-from-book", "--seed", "a"], "--seed-from-book"),
    ],
)
def test_options_are_named_as_they_are_typed(here, arguments, options):
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert f" {options}" in done.stderr.splitlines()[-1]
    assert "_" not in done.stderr


@pytest.fixture
def dna(here):
    """An untrained model of four letters, none of which is an a."""
    vocabulary, config, random = Vocabulary("CGTU"), ModelConfig(1, 4, 2), np.random.default_rng(1)
    shapes = weight_shapes(len(vocabulary), config)
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    ModelFile(weights, vocabulary, config, {}, {}).write(here / "dna.safetensors")
    return here / "dna.safetensors"
