"""What the tests of files share."""

import os
import stat
import threading
from pathlib import Path

import pytest

from chargen.config import TrainConfig
from chargen.files import disk
from chargen.files.disk import PREFIX
from chargen.store.modelfile import ModelFile
from chargen.text.corpus import read
from chargen.text.vocabulary import Vocabulary
from chargen.training.plan import Machine, Request, plan
from tests.files.damage import SHAPE, half_way, weights

AT_ONCE = 8


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.fixture
def corpus(here):
    return read(["book.txt"])


@pytest.fixture
def temporaries(tmp_path, monkeypatch):
    """The folder of temporary files, for this test alone."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture
def model(tmp_path):
    """A model of four characters that nothing was trained for."""
    path = tmp_path / "model.safetensors"
    summary = {"step": 7, "validation_bpc": 2.5, "temperature": 1.1}
    ModelFile(weights(4), Vocabulary("\nabc"), SHAPE, summary, {}).write(path)
    return path


@pytest.fixture
def run(here):
    """A run at step 20 of 100, with a model, a checkpoint of 4 streams and two lines of metrics; its text is cached."""
    return half_way(here)


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def left(parent, number=0):
    """A temporary folder as a kill leaves it: with its lock, which nobody holds."""
    folder = parent / f"{PREFIX}{number:016x}"
    (folder / "deep").mkdir(parents=True)
    (folder / "lock").touch()
    (folder / "deep" / "half").write_text("writ")
    return folder


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def at_once(function):
    """What a function returns or raises that several threads call at the same time."""
    together, results = threading.Barrier(AT_ONCE), []

    def call():
        together.wait()
        try:
            results.append(function())
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=call) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def config_of(corpus):
    return plan(Request({}, TrainConfig(steps=100), {"steps"}), corpus, Machine(1e11))


def failing(monkeypatch, name, number, error):
    """Let the call of that number of one of disk's own functions fail."""
    real, calls = getattr(disk, name), []

    def function(*arguments):
        calls.append(arguments)
        if len(calls) == number:
            raise error
        return real(*arguments)

    monkeypatch.setattr(disk, name, function)
    return calls
