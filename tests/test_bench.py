import json

import pytest
from click.testing import CliRunner

from chargen import ChargenError
from chargen.bench import interleaved
from chargen.cli import main


def test_the_sampling_benchmark_measures_every_side(trained):
    result = CliRunner().invoke(main, ["bench", "sample", "--model", str(trained), "--rounds", "1", "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    speeds = figures["characters_per_second"]
    assert set(speeds) == {
        "chargen, count 1",
        "chargen, count 8",
        "chargen, count 64",
        "Keras in a tf.function",
        "Keras model.predict",
        "reading the weights",
    }
    assert min(speeds.values()) > 0
    assert speeds["chargen, count 1"] > speeds["Keras model.predict"]
    assert 0 < figures["first_character_seconds"] < 30


def test_a_side_that_fails_is_named_with_its_reason():
    with pytest.raises(ChargenError, match=r"the benchmark's one ended by itself: .*none"):
        interleaved({"one": ("clone", {"model": "none", "count": 1})}, 1)
