"""Real processes: killed, stopped, installed from a wheel."""

import random
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from chargen.store.modelfile import Checkpoint
from chargen.store.run import Run
from tests.conftest import HANG, PROMPT, SMALL, Terminal, chargen, command, invoke, once

KILLS = 5
STEPS = "2000"
ROOT = Path(__file__).parents[1]


def arrays(run):
    checkpoint = Checkpoint.read(run / "checkpoint.safetensors")
    return {name: array.tobytes() for name, array in {**checkpoint.weights, **checkpoint.extra}.items()}


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory, text):
    def build(folder):
        (folder / "book.txt").write_text(text, "utf-8")
        words = ["train", "book.txt", *SMALL, "--validation", "0.01", "--steps", STEPS]
        assert chargen(*words, cwd=folder).returncode == 0

    return arrays(once(tmp_path_factory, "uninterrupted", build) / "runs" / "book")


@pytest.mark.long
def test_a_run_killed_at_random_moments_ends_as_if_it_had_not_been(here, uninterrupted):
    moments = random.Random(3)
    arguments = ["train", "book.txt", *SMALL, "--validation", "0.01", "--steps", STEPS]
    checkpoint = here / "runs" / "book" / "checkpoint.safetensors"
    steps: list[int] = []
    for kill in range(KILLS):
        if steps and steps[-1] == int(STEPS):
            break
        process = subprocess.Popen(command(*arguments), cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(1 + kill % 2 if kill else 0):  # let it come to training, or as far as to a validation
            written = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
            while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == written:
                assert process.poll() is None
                time.sleep(0.005)
        time.sleep(moments.uniform(0, 4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (here / "runs" / "book").exists():
            arguments = ["train", "--resume", "runs/book"]
        steps.append(Checkpoint.read(checkpoint).summary["step"] if checkpoint.exists() else 0)
    assert any(0 < step < int(STEPS) for step in steps), steps
    if steps[-1] < int(STEPS):
        done = chargen(*arguments, cwd=here)
        assert done.returncode == 0, done.stderr
    assert arrays(here / "runs" / "book") == uninterrupted
    assert [f.name for f in (here / "runs").iterdir()] == ["book"]


def test_a_run_is_trained_by_one_process_at_a_time(copied):
    with Run(copied).lock():
        second = invoke("train", "--resume", "runs/book", "--steps", 5)
    assert second.exit_code == 1
    assert "is being trained by another process" in second.stderr


@pytest.mark.long
def test_a_signal_ends_training_after_the_step_and_the_command_it_prints_goes_on(here, uninterrupted):
    words = ["train", "book.txt", *SMALL, "--validation", "0.01", "--steps", STEPS]
    metrics = here / "runs" / "book" / "metrics.jsonl"
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = subprocess.Popen(command(*words), cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        written = metrics.stat().st_mtime_ns if metrics.exists() else 0
        while not metrics.exists() or metrics.stat().st_mtime_ns == written:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=HANG)
        assert process.returncode == code, err
        assert err == b""
        (printed,) = re.findall(r"go on with: chargen (.*)", out.decode())
        words = printed.split()
    done = chargen(*words, cwd=here)
    assert done.returncode == 0, done.stderr
    assert arrays(here / "runs" / "book") == uninterrupted


def test_training_into_a_pipe_is_plain_lines_without_noise(trained):
    said, errors = (trained.parents[1] / name for name in ("stdout", "stderr"))
    assert errors.read_text() == ""
    assert "\r" not in said.read_text()
    lines = said.read_text().splitlines()
    assert [line.split()[0] for line in lines[:6]] == ["text", "model", "training", "recipe", "computing", "run"]
    assert lines[-1].startswith("done; write with: chargen sample")


def test_a_closed_pipe_ends_sampling_quietly(trained):
    reader = f"{sys.executable} -m chargen sample --model {trained} --length 100000 --random-seed 1 | head -c 50"
    done = subprocess.run(["sh", "-c", reader], capture_output=True, timeout=HANG, check=False)
    assert len(done.stdout) == 50
    assert done.stderr == b""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_sampling_with_what_was_drawn_written(trained, here, number, code):
    words = ["sample", "--model", str(trained), "--seed", "the ", "--length", "100000000", "--output", "text"]
    process = subprocess.Popen(command(*words, "--save-state", "state"), cwd=here, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"random seed")  # which is told just before it draws
    time.sleep(1)
    process.send_signal(number)
    _, err = process.communicate(timeout=HANG)
    assert process.returncode == code, err
    assert (here / "text").read_text().startswith("the ")
    assert chargen("sample", "--model", str(trained), "--load-state", "state", cwd=here).returncode == 0


@pytest.mark.long
def test_interactive_on_a_terminal_edits_lines_stops_writing_and_goes_on(trained, here):
    with Terminal("sample", "--model", str(trained), "--interactive", "--length", "50000000", cwd=here) as terminal:
        terminal.until(PROMPT)
        terminal.type(b"zthe \x01\x04\n")  # to the line's beginning, and the z, which the model never saw, is deleted
        assert b"never seen" not in terminal.until(b"that")
        terminal.process.send_signal(signal.SIGINT)  # ends the turn, not the program
        terminal.until(PROMPT)
        terminal.type(b"/length 5\n")
        terminal.until(b"length 5")
        terminal.type(b"/quit\n")
        assert terminal.ended() == 0


def test_a_folder_that_cannot_be_written_is_one_line(here):
    (here / "runs").write_text("a file, where the folder of runs would be")
    done = invoke("train", "book.txt", *SMALL, "--steps", "5")
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "can't be made" in done.stderr


def test_the_wheel_holds_the_package_and_the_book(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    source = tmp_path / "source"
    # A copy, as a build leaves its traces beside the sources.
    for file in subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split():
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).write_bytes((ROOT / file).read_bytes())
    subprocess.run([*build, "--wheel-dir", tmp_path, source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(Path("chargen") / m.relative_to(ROOT / "chargen")) for m in (ROOT / "chargen").rglob("*.py")}
    assert modules <= names
    assert {"chargen/corpora/book.txt", "chargen/py.typed"} <= names
    assert not any(name.startswith("tests") for name in names)
