import json
import sys
from importlib import import_module

import numpy as np
import pytest
from click.testing import CliRunner

from chargen import ChargenError
from chargen.bench import train
from chargen.bench.sample import first_character_seconds
from chargen.bench.scale import scale
from chargen.bench.sides import Side, interleaved, peak_memory
from chargen.cli import main
from chargen.commands.bench import megabytes
from chargen.config import ModelConfig
from chargen.machine import multiplies_bfloat16
from chargen.store.modelfile import ModelFile, weight_shapes
from chargen.text.vocabulary import Vocabulary


@pytest.mark.long
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


def test_the_error_of_a_failed_side_has_its_name_and_reason():
    with pytest.raises(ChargenError, match=r"one failed in the benchmark: .*none"):
        interleaved({"one": ("sample.clone", {"model": "none", "count": 1})}, 1)


def test_a_side_that_cannot_start_does_not_stop_the_others(trained):
    model = str(trained / "model.safetensors")
    sides = {"one": ("sample.read_weights", {"model": model}), "two": ("sample.read_weights", {"model": "none"})}
    figures = interleaved(sides, 1)
    assert figures["one"]["per_second"] > 0
    assert "none" in figures["two"]["failed"]


def test_without_the_module_resource_and_proc_the_peak_memory_is_unknown(monkeypatch):
    def unreadable(*_):
        raise FileNotFoundError

    assert megabytes(peak_memory()).endswith(" MB")
    monkeypatch.setattr("pathlib.Path.read_text", unreadable)
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.delitem(sys.modules, "chargen.bench.sides")
    assert megabytes(import_module("chargen.bench.sides").peak_memory()) == "unknown"


@pytest.mark.long
def test_the_training_benchmark_reports_speed_share_of_ceiling_start_and_memory(here):
    sizes = ["--layers", "1", "--units", "8", "--embedding", "4", "--batch-size", "4", "--seq-length", "8"]
    result = CliRunner().invoke(main, ["bench", "train", "book.txt", *sizes, "--rounds", "1", "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    both = {"chargen, float32"} if multiplies_bfloat16() else set()
    assert set(figures["others"]) == {"chargen", "Keras fit, float32"} | both
    assert figures["characters_per_second"] == figures["others"]["chargen"] > 0
    assert 0 < figures["share_of_ceiling"] < 1
    assert figures["peak_memory"] > 1e8
    assert figures["first_step_seconds"] > 0


def test_the_error_without_pytorch_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("chargen.bench.train.find_spec", lambda name: None)
    with pytest.raises(ChargenError, match="pip install torch"):
        train.sides({"precision": "auto"}, torch=True)


@pytest.mark.long
def test_the_scaling_benchmark_counts_the_bytes_of_the_gradients(here):
    sizes = {"layers": 1, "units": 256, "embedding": 8, "batch_size": 4, "seq_length": 4, "precision": "float32"}
    figures = scale({**sizes, "files": ["book.txt"]}, 2, 30)
    assert figures["characters_per_second"] > 0
    assert figures["ring_bytes"] > 1e6
    if "loopback_bytes" in figures:  # other tests may use the loopback at the same time
        assert figures["loopback_bytes"] > 0.9 * figures["ring_bytes"]


@pytest.mark.long
def test_an_error_of_the_scaled_training_is_reported(here):
    sizes = {"layers": 1, "units": 8, "embedding": 4, "batch_size": 3, "seq_length": 4, "precision": "float32"}
    with pytest.raises(ChargenError, match="worker 0 failed"):
        scale({**sizes, "files": ["book.txt"]}, 2, 30)


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
            with pytest.raises(ChargenError, match="one failed in the benchmark: no more memory"):
                one.round()


@pytest.fixture
def dna(here):
    """An untrained model of four letters, none of which is an a."""
    vocabulary, config, random = Vocabulary("CGTU"), ModelConfig(units=4, embedding=2), np.random.default_rng(1)
    shapes = weight_shapes(len(vocabulary), config)
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    ModelFile(weights, vocabulary, config, {}, {}).write(here / "dna.safetensors")
    return here / "dna.safetensors"


def test_the_latency_of_a_model_is_that_of_its_first_character_not_of_an_error(dna):
    assert first_character_seconds(str(dna), times=1) > 0
    with pytest.raises(ChargenError, match=r"chargen sample wrote nothing: .*none"):
        first_character_seconds("none", times=1)
