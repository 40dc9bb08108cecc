"""What went wrong in training, and in what stands around it, with the values that are right."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from chargen import ChargenError
from chargen.bench import Side, first_character_seconds
from chargen.config import ModelConfig
from chargen.modelfile import ModelFile, weight_shapes
from chargen.plot import curves
from chargen.vocabulary import Vocabulary
from tests.conftest import SMALL, invoke

RECORDS = [{"characters": 1000, "seconds": 2.0, "training_bpc": 2.4, "validation_bpc": 2.5, "step": 1}]
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


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_a_picture_names_every_run_as_it_is_called(kind):
    names = ["_x", r"$\foo$", "a$b$", "r\udcff", "e\x1b[0m", "_", "$$"]
    drawn = curves([(name, RECORDS) for name in names], kind)
    if kind == "svg":
        told = re.findall(r"<!-- (.*): 2\.500 at best -->", drawn.decode())
        assert told == ["_x", r"$\foo$", "a$b$", r"r\udcff", r"e\u001b[0m", "_", "$$"]


def test_a_name_that_is_not_utf_8_is_written_into_no_artefact(trained, here):
    run = Path(shutil.copytree(trained, Path(os.fsdecode(b"r\xff"))))
    done = invoke("export", "--model", run, "--format", "numpy")
    assert done.exit_code == 1
    assert "is not UTF-8" in done.stderr
    assert not (run / "exports").exists()
    done = invoke("export", "--model", run, "--format", "numpy", "--output", "out")
    assert done.exit_code == 0, done.stderr
    (note,) = Path("out").glob("*.md")
    assert r"A character model of r\udcff:" in note.read_text("utf-8")
    done = invoke("plot", run, "--output", "curves.svg")
    assert done.exit_code == 0, done.stderr


def test_a_text_whose_name_is_not_utf_8_is_trained_on_and_scored(here, fake):
    (here / "book.txt").rename(os.fsdecode(b"b\xff.txt"))
    done = invoke("train", os.fsdecode(b"b\xff.txt"), *SMALL, "--steps", 20)
    assert done.exit_code == 0, done.stderr
    assert r"chargen sample --model 'runs/b\udcff'" in done.stdout
    done = invoke("sample", "--model", os.fsdecode(b"runs/b\xff"), "--json", "--length", 5)
    assert done.exit_code == 0, done.stderr
    assert len(json.loads(done.stdout)["text"]) == 5


@pytest.fixture
def dna(here):
    """An untrained model of four letters, none of which is an a."""
    vocabulary, config, random = Vocabulary("CGTU"), ModelConfig(1, 4, 2), np.random.default_rng(1)
    shapes = weight_shapes(len(vocabulary), config)
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    ModelFile(weights, vocabulary, config, {}, {}).write(here / "dna.safetensors")
    return here / "dna.safetensors"
