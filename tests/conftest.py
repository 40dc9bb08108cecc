"""What several tests share: a small text, finished runs, and the command, in this process or as one of its own."""

import atexit
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"
# Texts are kept where the platform keeps caches, which is not for tests to fill.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="chargen-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
# A shell starts background jobs with Ctrl-C ignored, nohup ignores SIGHUP, and commands under test would inherit that.
for ignored, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(ignored) == signal.SIG_IGN:
        signal.signal(ignored, handler)
# A test process for each core: each does with one.
for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# A busy machine takes longer for a case than Hypothesis allows.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

from chargen.cli import main  # noqa: E402  - after the environment
from chargen.files.disk import locked  # noqa: E402


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run a test process for each core, unless -n asks for another number or pytest-xdist is left out."""
    if getattr(config.option, "numprocesses", 0) is None and "PYTEST_XDIST_WORKER" not in os.environ:
        config.option.numprocesses, config.option.dist = "auto", "loadgroup"


SMALL = ["--units", "12", "--embedding", "6", "--batch-size", "4", "--seq-length", "8"]
HANG = 600  # seconds after which a process hangs; it is ten times what a slow day needs
WORDS = [
    *("the", "cat", "sat", "on", "a", "mat", "and", "saw", "what"),
    *("it", "was", "that", "the", "old", "hat", "had", "in", "it\n"),
]


@pytest.fixture(scope="session")
def text() -> str:
    """Some 6,000 characters that a small model can learn something of, without being periodic."""
    return " ".join(WORDS[(i * i + i // 7) % len(WORDS)] for i in range(1700))


@pytest.fixture
def here(tmp_path, monkeypatch, text) -> Path:
    """An empty working directory with book.txt in it."""
    (tmp_path / "book.txt").write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """Return a folder that the first of all test processes fills with ``build`` and that the others read."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    place = base / f"shared-{name}"
    place.mkdir(exist_ok=True)
    with locked(place, wait=True):
        if not (place / "whole").exists():
            shutil.rmtree(place / "folder", ignore_errors=True)
            (place / "folder").mkdir()
            build(place / "folder")
            (place / "whole").touch()
    return place / "folder"


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file in a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="session")
def trained(tmp_path_factory, text) -> Iterator[Path]:
    """A finished run of a small 2-layer model that has learnt something, made by the real command. It is only read."""

    def build(folder: Path) -> None:
        (folder / "book.txt").write_text(text, "utf-8")
        sizes = ["--layers", "2", "--units", "24", "--steps", "200", "--learning-rate", "0.014"]
        done = chargen("train", "book.txt", *SMALL, *sizes, cwd=folder)
        assert done.returncode == 0, done.stderr
        for name in ("stdout", "stderr"):
            (folder / name).write_text(getattr(done, name), "utf-8")

    run = once(tmp_path_factory, "trained", build) / "runs" / "book"
    before = contents(run)
    yield run
    assert contents(run) == before, "a test has changed the run that all tests share"


@pytest.fixture
def copied(here, trained) -> Path:
    """A copy of the finished run and its text, in the working directory, which a test may change."""
    run = Path(shutil.copytree(trained, here / "runs" / "book"))
    config = json.loads((run / "config.json").read_text("utf-8"))
    (run / "config.json").write_text(json.dumps({**config, "files": [str(here / "book.txt")]}), "utf-8")
    return run


@pytest.fixture
def fake(monkeypatch):
    """A training whose step and whose validation are a few sums. Every input of a step enters what it leaves."""
    import numpy as np
    import tensorflow as tf

    from chargen.training.step import StepResult

    def compiled(model, adam, settings):
        weights, moments = model.named_weights()["dense/bias"], adam.moments["m/dense/bias"]

        def update(window, state, controls):
            (x, _, begins, _), (step, rate, requests, _) = window, controls
            read = tf.constant(float((np.asarray(x) * np.arange(1, x.shape[1] + 1)).sum() % 97) / 97)
            kept = 1 - tf.cast(begins, tf.float32)[:, None]
            state = tf.nest.map_structure(lambda s: tf.sin(s * kept + read + tf.cast(step, tf.float32)), state)
            moments.assign_add(tf.fill(moments.shape, tf.reduce_mean(state[0].h)))
            weights.assign_add(tf.cast(rate, tf.float32) * moments)
            return StepResult(state, tf.constant(2.0 * np.size(x)), tf.constant(True), tf.constant(requests))

        return update

    def evaluation(model, here, temperatures):
        def evaluate(ids, starts):
            cost = 2 + float(tf.sin(tf.reduce_sum(model.named_weights()["dense/bias"].value)))
            return np.full((len(temperatures), len(ids) - 1), cost)

        return evaluate

    monkeypatch.setattr("chargen.training.loop.compile_step", compiled)
    monkeypatch.setattr("chargen.training.loop.in_order", evaluation)


def invoke(*arguments: object, stdin: str | bytes | None = None, color: bool = False) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, [*map(str, arguments)], input=stdin, color=color)


def commands_of(group: click.Group) -> dict[str, click.Command]:
    """Return the commands of a group by name."""
    context = click.Context(group)
    names = group.list_commands(context)
    return {name: found for name in names if (found := group.get_command(context, name)) is not None}


def command(*arguments: str) -> list[str]:
    """Return the words that run the command as a process of its own."""
    return [sys.executable, "-m", "chargen", *arguments]


def chargen(*arguments: str, cwd: Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own."""
    done = subprocess.run(command(*arguments), cwd=cwd, input=stdin, capture_output=True, timeout=HANG, check=False)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


PROMPT = b"\x1b[?2004h"  # prompt_toolkit reads a line


class Terminal:
    """The command in a pseudo-terminal, in which a person types."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        pty = pytest.importorskip("pty", reason="there are no pseudo-terminals on Windows")
        self._ours, theirs = pty.openpty()
        environment = {**os.environ, "PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm"}
        words = command(*arguments)
        self.process = subprocess.Popen(words, cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._ours, keys)

    def until(self, text: bytes) -> bytes:
        """Return what the terminal shows up to and with ``text``. What comes after it is read by the next call."""
        deadline = time.monotonic() + HANG
        while text not in self._unread:
            left = max(0, deadline - time.monotonic())
            assert select.select([self._ours], [], [], left)[0], f"{text!r} is not in {self._unread[-200:]!r}"
            self._unread += os.read(self._ours, 4096)
        shown, _, self._unread = self._unread.partition(text)
        return shown + text

    def ended(self) -> int:
        """Wait for the command's end and return its exit code."""
        return self.process.wait(timeout=HANG)
