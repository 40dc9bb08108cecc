"""What runs and commands leave on disk when something goes wrong: at any write, by a signal, or at the same time."""

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from chargen import ChargenError
from chargen.files.disk import PREFIX, sweep, write_beside
from chargen.store.modelfile import Checkpoint
from chargen.store.run import Run, newest
from chargen.text.corpus import read
from tests.conftest import HANG, SMALL, command, contents, invoke
from tests.files.conftest import AT_ONCE, at_once, config_of, failing, left, mode, names

# ---- runs --------------------------------------------------------------------------------------------------------


def test_trainings_that_begin_at_once_get_a_name_each(corpus, here):
    config = config_of(corpus)
    for round in range(1, 6):
        paths = [run.path.name for run in at_once(lambda: Run.create(None, config, corpus))]
        last = round * AT_ONCE
        numbers = range(last - AT_ONCE + 1, last + 1)
        assert sorted(paths) == sorted("book" if n == 1 else f"book-{n}" for n in numbers)
    assert len(names("runs")) == last
    assert all(Run(path).config == config for path in Path("runs").iterdir())


@pytest.mark.parametrize("there", [True, False])
def test_of_trainings_that_begin_at_once_in_one_folder_one_begins(corpus, here, there):
    config = config_of(corpus)
    if there:
        (here / "mine").mkdir()
    results = at_once(lambda: Run.create(here / "mine", config, replace(corpus, files=("-",))))
    made_it = [result for result in results if isinstance(result, Run)]
    refused = [str(result) for result in results if not isinstance(result, Run)]
    assert len(made_it) == 1 or there  # all may have seen the others' work in the folder, and be refused
    assert len(made_it) <= 1
    assert all("exists and is left as it is" in line for line in refused)
    if made_it:
        assert names(here / "mine") == ["config.json", "corpus"]
        assert made_it[0].corpus().sha256 == corpus.sha256


@pytest.mark.long
def test_processes_that_begin_at_once_get_a_name_each(corpus, here):
    program = (
        "import os, sys, time; from chargen.store.run import Run; from chargen.text.corpus import read\n"
        "from tests.files.conftest import AT_ONCE, config_of\n"
        "corpus = read(['book.txt']); config = config_of(corpus); print('ready', flush=True); sys.stdin.readline()\n"
        "for _ in range(20): Run.create(None, config, corpus)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=here
        )
        for _ in range(AT_ONCE)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=HANG)
        assert process.returncode == 0
    assert len(names("runs")) == 20 * AT_ONCE
    assert all(Run(path).config.name == "book" for path in Path("runs").iterdir())


def test_a_name_that_a_file_or_a_broken_link_has_is_passed_over(corpus, here):
    (here / "runs").mkdir()
    (here / "runs" / "book").write_text("a book")
    (here / "runs" / "book-2").symlink_to("nowhere")
    assert Run.create(None, config_of(corpus), corpus).path.name == "book-3"


@pytest.mark.parametrize(("name", "number"), [("_sync", 1), ("_sync", 2), ("_replace", 1), ("_replace", 2)])
@pytest.mark.parametrize("path", [None, "mine", "empty"])
def test_a_run_that_cannot_be_written_leaves_nothing_and_names_itself(corpus, here, monkeypatch, name, number, path):
    if path == "empty":
        (here / "empty").mkdir()
    before = names(here)
    failing(monkeypatch, name, number, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(ChargenError, match=f"^{path or 'runs/book'} can't be made: No space left on device"):
        Run.create(path and Path(path), config_of(corpus), replace(corpus, files=("-",)))
    assert names(here) == before
    assert path != "empty" or names(here / "empty") == []


def test_an_empty_folder_in_which_a_start_was_killed_is_still_an_empty_folder(corpus, here):
    (here / "mine").mkdir()
    left(here / "mine")
    assert names(Run.create(Path("mine"), config_of(corpus), corpus).path) == ["config.json"]


def finished(run):
    checkpoint = Checkpoint.read(run / "checkpoint.safetensors")
    arrays = {key: array.tobytes() for key, array in {**checkpoint.weights, **checkpoint.extra}.items()}
    return arrays, checkpoint.summary["step"], (run / "model.safetensors").read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("name", ["_sync", "_replace"])
def test_a_disk_that_is_full_at_any_write_leaves_a_run_that_goes_on_to_the_same_bytes(here, fake, monkeypatch, name):
    def train(run):
        words = ["--resume", run] if run.exists() else ["book.txt", "--run", run, *SMALL, "--steps", 12]
        return invoke("train", *words)

    monkeypatch.setattr("chargen.training.schedule.READ_BETWEEN", 0)
    assert train(here / "first").exit_code == 0  # which leaves the text in the cache
    with monkeypatch.context() as patch:
        calls = failing(patch, name, 0, None)
        assert train(here / "whole").exit_code == 0
    if name == "_replace":  # every file of a run comes so
        targets = {target.name for _, target in calls}
        assert targets >= {*names(here / "whole"), "whole"}
    whole, writes = finished(here / "whole"), len(calls)
    assert writes > 5
    for number in range(1, writes + 1):
        run = here / f"run-{number}"
        with monkeypatch.context() as patch:
            failing(patch, name, number, OSError(errno.ENOSPC, "No space left on device"))
            stopped = train(run)
        assert stopped.exit_code == 1
        assert "No space left on device" in stopped.stderr
        assert stopped.stderr.count("\n") == 1
        assert train(run).exit_code == 0
        assert finished(run) == whole, number
    assert not list(here.rglob(f"{PREFIX}*"))


def test_a_run_that_was_killed_after_its_last_save_has_nothing_left_to_do(here, fake, monkeypatch):
    class Killed(BaseException):
        """In place of a signal that ends the process."""

    def last(path, data, **settings):
        write_beside(path, data, **settings)
        if path.name == "checkpoint.safetensors" and Checkpoint.read(path).summary["progress"]["finished"]:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("chargen.files.arrays.write_beside", last)
        with pytest.raises(Killed):
            invoke("train", "book.txt", *SMALL, "--steps", 12)
    before = contents(here / "runs")
    (here / "book.txt").unlink()  # which would be missed, were there anything to do
    for words in (["--resume"], ["--resume", "runs/book"], ["--resume", "--patience", 3]):
        result = invoke("train", *words)
        assert result.exit_code == 0
        assert "runs/book is finished, at step 12: there is nothing left to do" in result.stdout
        assert "chargen train --resume runs/book --epochs 5" in result.stdout
        assert result.stderr == ""
    assert contents(here / "runs") == before


@pytest.mark.parametrize("words", [[], ["--run", "mine"], ["--run", "deep/mine"], ["--run", "empty"], ["-"]])
def test_a_start_that_fails_leaves_no_run_that_would_be_the_newest(corpus, here, monkeypatch, words):
    def gone(*_):
        raise ChargenError("this worker can't join the others")

    (here / "empty").mkdir()
    Run.create(Path("runs/older"), config_of(corpus), corpus)
    before = names(here)
    for function in ("strategy", "broadcast_run"):
        with monkeypatch.context() as patch:
            patch.setattr(f"chargen.training.distribute.{function}", gone)
            result = invoke(
                "train", *(words if "-" in words else ["book.txt", *words]), *SMALL, stdin="some text\n" * 99
            )
        assert result.exit_code == 1
        assert "can't join the others" in result.stderr
        assert names(here) == before
        assert names("runs") == ["older"]
        assert names("empty") == []
    assert str(newest()) == "runs/older"


def test_a_folder_that_is_taken_is_refused_before_the_text_is_read(here):
    (here / "mine").mkdir()
    (here / "mine" / "poem").write_text("roses")
    (here / "book.txt").write_bytes(b"a\0b")
    assert "mine exists and is left as it is" in invoke("train", "book.txt", "--run", "mine").stderr


# ---- temporary files of commands ---------------------------------------------------------------------------------


def reading(here):
    """A process that reads a text from standard input, which does not end, after it has kept some of it."""
    process = subprocess.Popen(
        command("train", "-"), cwd=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(b"some text\n" * 100_000)
    process.stdin.flush()
    return process


def wait_for(condition):
    deadline = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_while_standard_input_is_read_leaves_nothing_of_it(here, temporaries, number):
    process = reading(here)
    wait_for(lambda: any(path.stat().st_size > 500_000 for path in temporaries.rglob("stdin")))
    process.send_signal(number)
    _, err = process.communicate(timeout=HANG)
    assert process.returncode == 128 + number
    assert b"Traceback" not in err
    assert names(temporaries) == []
    assert not (here / "runs").exists()


def test_what_a_kill_leaves_of_standard_input_the_next_start_removes(here, temporaries):
    process = reading(here)
    wait_for(lambda: any(path.stat().st_size > 500_000 for path in temporaries.rglob("stdin")))
    process.kill()
    process.communicate(timeout=HANG)
    assert len(names(temporaries)) == 1
    invoke("eval", "book.txt", "--model", here)  # of any command that reads a text
    read(["book.txt"])
    assert names(temporaries) == []


def test_what_a_kill_leaves_in_the_cache_is_removed_though_the_text_is_there(here):
    read(["book.txt"], cache=here / "cache")
    left(here / "cache")
    read(["book.txt"], cache=here / "cache")
    assert not list((here / "cache").glob(f"{PREFIX}*"))


@pytest.fixture
def worker(monkeypatch):
    """Let what is launched be a few lines of Python instead of a training."""

    def run(program):
        started = subprocess.Popen

        def popen(command, **settings):
            return started([sys.executable, "-c", f"import json, os, sys\n{program}"], **settings)

        monkeypatch.setattr("chargen.commands.launch.subprocess.Popen", popen)
        return invoke("launch", "--workers", 2, "--", "train", "book.txt")

    return run


def test_the_logs_of_workers_that_did_well_are_removed(here, temporaries, worker):
    result = worker("print('all well')")
    assert result.exit_code == 0
    assert f"is in {temporaries}" in result.stdout
    assert names(temporaries) == []


@pytest.mark.parametrize("failing_one", [0, 1])
def test_the_logs_are_kept_and_named_where_a_worker_failed(here, temporaries, worker, failing_one):
    program = (
        "import time\nnumber = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"
        "print('my last words', flush=True)\nopen(f'said-{number}', 'x')\n"
        "while not os.path.exists('said-1'): time.sleep(0.01)\n"
    )
    result = worker(f"{program}sys.exit(3 if number == {failing_one} else 0)")
    assert result.exit_code == 1
    (folder,) = temporaries.iterdir()
    assert str(folder) in result.stderr
    assert (folder / "worker-1.log").read_text() == "my last words\n"
    sweep(temporaries)  # of the next start
    assert names(folder) == ["worker-1.log"]


# ---- what commands write -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["sample", "--length", 20, "--output"], "a.txt"),
        (["sample", "--length", 20, "--save-state"], "one.state"),
        (["plot", "runs/book", "--output"], "curves.svg"),
    ],
)
@pytest.mark.usefixtures("copied")
def test_what_a_command_writes_has_ordinary_permissions_and_spares_the_users_hidden_files(here, umask, words, name):
    (here / f".{name}.new").write_text("mine")
    before = names(here)
    assert invoke(*words, name).exit_code == 0
    assert mode(here / name) == 0o640
    assert (here / f".{name}.new").read_text() == "mine"
    assert names(here) == sorted([*before, name])


@pytest.mark.usefixtures("copied")
def test_a_file_that_comes_while_a_picture_is_drawn_is_left(here, monkeypatch):
    def curves(*_):
        (here / "curves.svg").write_text("mine")
        return b"drawn"

    monkeypatch.setattr("chargen.plot.curves", curves)
    result = invoke("plot", "runs/book", "--output", "curves.svg")
    assert result.exit_code == 1
    assert "curves.svg exists and is left as it is" in result.stderr
    assert (here / "curves.svg").read_text() == "mine"


def disagreement(*_):
    raise ChargenError("the exported model does not agree with the model")


def test_an_export_that_fails_leaves_no_folder_and_one_that_does_leaves_no_other(here, copied, monkeypatch):
    words = ["export", "--format", "numpy"]
    for output, folder in (([], copied / "exports"), (["--output", "deep/site"], here / "deep")):
        with monkeypatch.context() as patch:
            patch.setattr("chargen.export.numpy.verify", disagreement)
            assert invoke(*words, *output).exit_code == 1
        assert not folder.exists()
    left_there = copied / "exports"
    left_there.mkdir()
    left(left_there)
    (left_there / ".book.numpy.new").write_text("mine")
    assert invoke(*words).exit_code == 0
    assert names(left_there) == [".book.numpy.new", "book.numpy", "book.numpy.md"]


def test_an_export_replaces_nothing_that_came_meanwhile_unless_it_is_forced(here, copied, monkeypatch):
    def slow(*_):
        (copied / "exports" / "book.numpy").mkdir()
        (copied / "exports" / "book.numpy" / "poem").write_text("roses")
        return []

    with monkeypatch.context() as patch:
        patch.setattr("chargen.export.numpy.verify", slow)
        result = invoke("export", "--format", "numpy")
    assert result.exit_code == 1
    assert "book.numpy exists and is left as it is" in result.stderr
    assert contents(copied / "exports") == {"book.numpy/poem": b"roses"}
    assert invoke("export", "--format", "numpy", "--force").exit_code == 0
    assert names(copied / "exports" / "book.numpy") == ["model.safetensors", "sample.py"]


def test_a_lesson_that_ends_early_leaves_no_folder(here, monkeypatch):
    monkeypatch.setattr("chargen.commands.lab.read_setting", disagreement)
    assert invoke("lab", "streams", "--output", "deep/lessons").exit_code == 1
    assert names(here) == ["book.txt"]
