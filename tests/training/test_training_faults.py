"""What went wrong in training, and in what stands around it, with the values that are right."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from chargen import ChargenError
from chargen.bench.sample import first_character_seconds
from chargen.bench.sides import Side
from chargen.config import ModelConfig
from chargen.plot import curves
from chargen.store.modelfile import ModelFile, weight_shapes
from chargen.text.vocabulary import Vocabulary
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
            with pytest.raises(ChargenError, match="one failed in the benchmark: no more memory"):
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


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        ("sys.exit(0)", 0, ""),
        ("sys.exit(3)", 3, ""),  # what it has to say it says here itself
        ("os.kill(os.getpid(), signal.SIGKILL)", 1, "Error: worker 0 was stopped by SIGKILL\n"),
    ],
)
def test_a_worker_alone_speaks_for_itself(here, monkeypatch, program, code, said):
    @contextmanager
    def worker(command, number, place, folder):
        assert command[4:6] == ["--distribute", "workers"]
        with subprocess.Popen([sys.executable, "-c", f"import os, signal, sys; {program}"]) as process:
            yield process

    monkeypatch.setattr("chargen.commands.launch.worker", worker)
    done = invoke("launch", "--workers", 1, "--", "train", "book.txt")
    assert (done.exit_code, done.stderr) == (code, said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", 1, "--logs", "logs", "--", "train"], "--logs is for the output of all workers but the first"),
        (["--workers", 2, "--", "train", "--distribute", "none"], "--distribute none trains without other workers"),
    ],
)
def test_a_launch_that_would_not_do_what_it_says_is_refused(here, arguments, message):
    done = invoke("launch", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not Path("logs").exists()


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


def scored(*arguments):
    done = invoke("eval", *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


FIGURES = ("nats_per_character", "bpc", "perplexity", "characters", "unknown_characters")


@pytest.fixture
def counted(monkeypatch):
    """Protocols for which each character costs as many nats as it is characters away from its document's start."""

    def protocol(model):
        def evaluate(ids, starts=()):
            return np.array([n - max(start for start in (0, *starts) if start < n) for n in range(1, len(ids))])

        return evaluate

    monkeypatch.setattr("chargen.training.evaluate.PROTOCOLS", {"stream": protocol, "nanogpt": protocol})
    monkeypatch.setattr("chargen.training.evaluate.dynamic", protocol)


def check_each_file(trained, texts, *arguments):
    """Check that each file is scored as if it were alone, and that the figure of all is the mean over characters."""
    for name, text in texts.items():
        Path(name).write_text(text, "utf-8")
    alone = [scored(name, "--model", trained, *arguments) for name in texts]
    figures = scored(*texts, "--model", trained, *arguments)
    assert [file["file"] for file in figures["files"]] == [*texts]
    for name, own, file in zip(texts, alone, figures["files"], strict=True):
        assert [file[key] for key in FIGURES] == pytest.approx([own[key] for key in FIGURES], rel=1e-4)
        assert file["characters"] == len(texts[name]) - 1  # all but the first: no line's end is added
    assert figures["characters"] == sum(own["characters"] for own in alone)
    assert figures["unknown_characters"] == sum(own["unknown_characters"] for own in alone)
    nats = sum(own["nats_per_character"] * own["characters"] for own in alone)
    assert figures["nats_per_character"] == pytest.approx(nats / figures["characters"], rel=1e-4)


def test_each_file_is_scored_as_if_it_were_alone_and_all_as_their_mean(trained, here, counted):
    check_each_file(trained, {"a.txt": "the cat", "b.txt": "thé", "c.txt": "it\n", "d.txt": "ßß on"})
    assert scored("a.txt", "--model", trained)["nats_per_character"] == 3.5  # of 1 to 6
    figures = scored("a.txt", "c.txt", "--model", trained, "--dynamic")
    assert figures["nats_per_character"] == figures["dynamic"]["nats_per_character"] == (21 + 3) / 8
    assert [file["dynamic"]["nats_per_character"] for file in figures["files"]] == [3.5, 1.5]


@pytest.mark.long
@pytest.mark.parametrize("protocol", ["stream", "nanogpt"])
def test_each_file_is_scored_by_a_model_as_if_it_were_alone(trained, here, text, protocol):
    texts = {"a.txt": text[:700], "b.txt": "the old hé", "c.txt": text[900:1300] + "\nß"}
    check_each_file(trained, texts, "--protocol", protocol)


def test_several_files_are_shown_each_in_a_line_with_all_that_was_asked_for(trained, here, counted):
    (here / "texts").mkdir()
    for name in ("a", "b", "c", "d"):
        (here / "texts" / f"{name}.txt").write_text(f"the cat sat on a mat {name}", "utf-8")
    (here / "texts" / "picture.jpg").write_bytes(b"\0")
    (here / "texts" / "short.txt").write_text("té", "utf-8")
    arguments = ("eval", "texts", "--model", trained, "--dynamic", "--baseline", "xz", "--html", "page.html")
    done = invoke(*arguments, "--surprisal")
    assert done.exit_code == 0, done.stderr
    assert "picture.jpg is binary: left out" in done.stderr
    assert "short.txt has fewer than two characters that the model knows: left out" in done.stderr
    assert "4 files: 84 characters predicted" in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[-2:] for line in lines if line and line[-1].endswith(".txt")] == [
        ["21", str(Path("texts", f"{name}.txt"))] for name in ("a", "b", "c", "d")
    ]
    assert all(any(line[:1] == [row] for line in lines) for row in ("in", "dynamic", "xz"))
    shown = re.sub(r"\x1b\[[\d;]*m", "", done.stdout).splitlines()[-1]
    assert shown == "".join(f"the cat sat on a mat {name}" for name in ("a", "b", "c", "d"))
    assert "4 files" in (here / "page.html").read_text("utf-8")


@pytest.fixture
def dna(here):
    """An untrained model of four letters, none of which is an a."""
    vocabulary, config, random = Vocabulary("CGTU"), ModelConfig(units=4, embedding=2), np.random.default_rng(1)
    shapes = weight_shapes(len(vocabulary), config)
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    ModelFile(weights, vocabulary, config, {}, {}).write(here / "dna.safetensors")
    return here / "dna.safetensors"
