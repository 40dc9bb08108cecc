"""A run may begin from the base model that ships with chargen: these tests use a small one of their own."""

from dataclasses import replace

import numpy as np
import pytest

from chargen import ChargenError
from chargen.config import Execution, TrainConfig
from chargen.store.modelfile import ModelFile, in_int8, quantized
from chargen.store.run import Run, open_model
from chargen.text.corpus import read
from chargen.text.words import unpacked
from chargen.training import jobs
from chargen.training.base import base_path, reading
from chargen.training.plan import Request
from tests.conftest import chargen, invoke
from tests.training.test_loop import finish, told

SIZES = ["--batch-size", "4", "--seq-length", "8"]


@pytest.fixture
def base(here, trained, monkeypatch):
    """A base model with int8 weights, which knows the words of book.txt."""
    path = here / "english.safetensors"
    export(trained, "int8", here).rename(path)
    monkeypatch.setattr("chargen.training.base.base_path", lambda: path)
    return path


def train(*arguments, stdin=None):
    result = invoke("train", *SIZES, *arguments, stdin=stdin)
    assert result.exit_code == 0, result.stderr
    return result.output


def export(run, quantize, folder):
    options = ["--format", "chargen", "--quantize", quantize, "--output", folder]
    assert invoke("export", "--model", run, *options).exit_code == 0
    return folder / f"book{'.int8' if quantize == 'int8' else ''}.safetensors"


def test_half_precision_weights_take_half_the_bytes_and_are_read_as_float32(here, trained):
    path = export(trained, "float16", here)
    whole, half = ModelFile.read(trained / "model.safetensors"), ModelFile.read(path)
    assert path.stat().st_size < 0.6 * (trained / "model.safetensors").stat().st_size
    for name, array in half.weights.items():
        assert array.dtype == np.float32
        assert (array == whole.weights[name].astype(np.float16)).all()


def test_int8_weights_are_within_half_a_step_of_each_rows_scale(here, trained):
    path = export(trained, "int8", here)
    whole, rounded = ModelFile.read(trained / "model.safetensors"), ModelFile.read(path)
    assert path.stat().st_size < 0.4 * (trained / "model.safetensors").stat().st_size
    for name, array in whole.weights.items():
        assert rounded.weights[name].dtype == np.float32
        step = np.abs(array).max(-1, keepdims=True) / 127 if array.ndim == 2 else 0
        assert (np.abs(rounded.weights[name] - array) <= step * 0.501).all()


def test_a_row_of_int8_numbers_times_its_scale_is_the_row():
    matrix = np.array([[254, -127, 1.4], [0, 0, 0], [-1.27, 0.01, 0]], np.float32)
    numbers, scales = quantized(matrix)
    assert numbers.tolist() == [[127, -64, 1], [0, 0, 0], [-127, 1, 0]]
    assert scales[[0, 2], 0] == pytest.approx([2, 0.01])


@pytest.mark.parametrize("lost", ["scale/dense/kernel", "scale/embedding"])
def test_int8_weights_without_their_scale_are_refused(here, trained, lost):
    model = ModelFile.read(trained / "model.safetensors")
    weights = {name: array for name, array in in_int8(model.weights).items() if name != lost}
    replace(model, weights=weights).write(here / "model.safetensors")
    with pytest.raises(ChargenError, match=f"array {lost[6:]}: int8 has a scale"):
        ModelFile.read(here / "model.safetensors")


def test_a_text_that_the_base_model_reads_well_begins_from_it_and_may_add_characters(fake, here, base, text):
    (here / "new.txt").write_text(text.replace("the", "thé"), "utf-8")
    output = train("new.txt", "--steps", "3")
    assert "begins    from english, which reads this text at" in output
    run = Run(here / "runs" / "new")
    parent = ModelFile.read(base)
    assert run.config.parent == str(base.resolve())
    assert run.config.model == parent.config
    vocabulary = ModelFile.read(run.model_path).vocabulary
    assert set(vocabulary.characters) == {*parent.vocabulary.characters, "é"}
    assert "old text" not in output


@pytest.mark.parametrize("words", ["xylq jvkz wqxz ", "天地玄黄宇宙洪荒 "])
def test_a_text_that_the_base_model_reads_badly_begins_from_nothing(fake, here, base, words):
    (here / "new.txt").write_text("".join(words[k * k % len(words)] for k in range(2000)), "utf-8")
    output = train("new.txt", "--steps", "3")
    assert "begins    from nothing: english reads this text at" in output
    assert Run(here / "runs" / "new").config.parent is None


def test_a_text_of_words_that_the_base_model_knows_begins_from_it_however_it_is_written(fake, here, base, text):
    (here / "new.txt").write_text("\n\n- ".join(text.upper().split()), "utf-8")
    output = train("new.txt", "--steps", "3")
    assert "bits per character and knows 100% of its words" in " ".join(output.split())
    assert Run(here / "runs" / "new").config.parent == str(base.resolve())


@pytest.mark.parametrize("options", [["--from", "scratch"], ["--units", "8"], ["--layers", "2"], ["--embedding", "9"]])
def test_a_run_from_scratch_or_of_sizes_that_were_given_begins_from_nothing(fake, here, base, options):
    output = train("book.txt", "--steps", "3", *options)
    assert "begins" not in output
    assert Run(here / "runs" / "book").config.parent is None


def test_the_base_model_can_be_asked_for_whatever_the_text(fake, here, base):
    (here / "new.txt").write_text("天地玄黄宇宙洪荒" * 99, "utf-8")
    train("new.txt", "--steps", "3", "--from", "english")
    assert Run(here / "runs" / "new").config.parent == str(base.resolve())


def test_a_text_from_standard_input_begins_from_the_base_model_and_is_gone_on_with(fake, here, base, text):
    assert "from english" in train("-", "--steps", "3", stdin=text)
    assert invoke("train", "--resume", "runs/stdin", "--steps", "3").exit_code == 0


def test_what_rare_characters_become_does_not_depend_on_how_often_a_run_is_resumed(fake, here, base, text):
    (here / "new.txt").write_text(text + "Q", "utf-8")
    train("new.txt", "--steps", "3", "--min-count", "2")
    assert invoke("train", "--resume", "runs/new", "--steps", "3").exit_code == 0


def test_a_run_from_the_base_model_resumes_to_the_same_bytes_and_is_exported(here, base):
    settings = TrainConfig(batch_size=4, seq_length=8, steps=6)
    left = []
    for name, stop_at in (("whole", None), ("parts", 3)):
        decision = jobs.new(Request({}, settings, {"batch_size", "seq_length"}, ("book.txt",), base=base), 1)
        with decision.begin(here / name, Execution()) as run:
            finish(run, decision.corpus, stop_at)
        finish(Run(run.path), decision.corpus)
        left.append(told(run))
        assert ModelFile.read(run.model_path).config == ModelFile.read(base).config
    assert left[0] == left[1]
    assert invoke("export", "--model", here / "parts", "--format", "numpy").exit_code == 0


def test_the_bits_of_excerpts_are_close_to_the_bits_of_the_text(here, trained, text):
    model = open_model(trained)
    found = reading(model, read(["book.txt"]))
    assert found.known_words == 1
    assert found.bits == pytest.approx(model.summary["validation_bpc"], abs=0.3)


@pytest.mark.parametrize("words", ["at", "hat", "the cat"])
def test_the_bits_of_a_text_of_a_few_characters_are_finite(here, trained, words):
    (here / "new.txt").write_text(words, "utf-8")
    assert 0 < reading(open_model(trained), read(["new.txt"])).bits < float("inf")


def test_a_text_without_known_characters_costs_more_bits_than_any_model_could_save(here, trained):
    (here / "new.txt").write_text("天地玄黄" * 99, "utf-8")
    assert reading(open_model(trained), read(["new.txt"])).bits == float("inf")


@pytest.mark.long
def test_sixty_steps_from_the_real_base_model_learn_the_bundled_book(here):
    done = chargen("train", "--steps", "60", cwd=here)
    assert done.returncode == 0, done.stderr
    run = Run(here / "runs" / "book")
    assert run.config.parent == str(base_path().resolve())
    assert run.metrics()[-1]["validation_bpc"] < 1.6


def test_the_words_of_the_base_stay_with_a_run_that_begins_from_it_is_resumed_and_exported(fake, here, base):
    (here / "new.txt").write_text("a zebra crossed the river\n" * 60, "utf-8")
    train("new.txt", "--from", str(base), "--steps", "3")
    assert invoke("train", "--resume", "runs/new", "--steps", "5").exit_code == 0
    assert invoke("export", "--model", here / "runs" / "new", "--format", "chargen", "--output", here).exit_code == 0
    (here / "runs" / "new").rename(here / "moved")
    for path in (here / "moved" / "model.safetensors", here / "new.safetensors"):
        file = ModelFile.read(path)
        assert unpacked(file.words) == ("a", "crossed", "river", "the", "zebra")
        assert file.base_words == ModelFile.read(base).words
    written = invoke("sample", "--model", here / "new.safetensors", "--words", "base", "--length", "200")
    assert written.exit_code == 0, written.stderr
    refused = invoke("sample", "--model", base, "--words", "base")
    assert refused.exit_code == 1
    assert "use --words book" in refused.stderr
