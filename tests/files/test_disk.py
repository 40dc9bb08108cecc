"""What is on the disk when something goes wrong: at any write, by a signal, by another process at the same time."""

import errno
import fcntl
import itertools
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from chargen import ChargenError
from chargen.config import ModelConfig, TrainConfig
from chargen.files import disk
from chargen.files.disk import PREFIX, keep, made, move, sweep, temporary, write_beside
from chargen.store.modelfile import Checkpoint
from chargen.store.run import Run, newest
from chargen.text.corpus import read
from chargen.training.plan import Machine, Request, plan
from tests.conftest import HANG, SMALL, command, contents, invoke

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
    return plan(Request(ModelConfig(), TrainConfig(steps=100), {"steps"}), corpus, Machine(1e11))


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


# ---- files -------------------------------------------------------------------------------------------------------


def test_files_of_the_users_and_links_are_left_whatever_their_names(tmp_path):
    (tmp_path / "poem").write_text("roses")
    (tmp_path / ".a.txt.new").write_text("mine")
    (tmp_path / ".b.txt.new").symlink_to("poem")
    for name in ("a.txt", "b.txt", "lock", "file", "work"):
        write_beside(tmp_path / name, b"drawn")
        assert (tmp_path / name).read_bytes() == b"drawn"
    assert (tmp_path / "poem").read_text() == "roses"
    assert (tmp_path / ".a.txt.new").read_text() == "mine"
    assert names(tmp_path) == [".a.txt.new", ".b.txt.new", "a.txt", "b.txt", "file", "lock", "poem", "work"]


def test_a_name_as_long_as_names_can_be_is_written(tmp_path):
    write_beside(tmp_path / ("n" * 255), b"drawn")
    assert names(tmp_path) == ["n" * 255]


@pytest.mark.usefixtures("umask")
def test_a_new_file_has_ordinary_permissions_and_one_that_replaces_another_has_that_ones(tmp_path):
    write_beside(tmp_path / "a", b"1")
    assert mode(tmp_path / "a") == 0o640
    for permissions in (0o600, 0o664, 0o444):
        (tmp_path / "a").chmod(permissions)
        write_beside(tmp_path / "a", b"2")
        assert mode(tmp_path / "a") == permissions


def test_what_becomes_a_file_is_nobody_elses_to_read_before(tmp_path):
    with temporary(tmp_path) as folder:
        assert mode(folder) == 0o700


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_replaces_nothing_not_even_what_came_meanwhile(tmp_path, monkeypatch, links):
    if not links:

        def link(*_):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr("os.link", link)
    write_beside(tmp_path / "new", b"drawn", new=True)
    assert (tmp_path / "new").read_bytes() == b"drawn"
    (tmp_path / "file").write_text("mine")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    for name in ("file", "broken", "folder"):
        with pytest.raises(ChargenError, match=f"{name} exists and is left as it is"):
            write_beside(tmp_path / name, b"drawn", new=True)
    assert (tmp_path / "file").read_text() == "mine"
    assert names(tmp_path) == ["broken", "file", "folder", "new"]


def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "poem").write_text("roses")
    (tmp_path / "a").symlink_to("poem")
    write_beside(tmp_path / "a", b"drawn")
    assert (tmp_path / "poem").read_text() == "roses"
    assert not (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("name", ["_sync", "_replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, name):
    write_beside(tmp_path / "f", b"old")
    failing(monkeypatch, name, 1, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(ChargenError, match="f can't be written: No space left on device; what was there before"):
        write_beside(tmp_path / "f", b"new")
    assert contents(tmp_path) == {"f": b"old"}


def test_files_are_brought_to_the_disk_before_they_have_their_names(tmp_path, monkeypatch):
    order: list[str] = []
    monkeypatch.setattr("os.fsync", lambda file: order.append("sync"))
    monkeypatch.setattr("os.replace", lambda *names: order.append("rename"))
    write_beside(tmp_path / "a", b"1")
    assert order == ["sync", "rename"]


# ---- temporary folders -------------------------------------------------------------------------------------------


def test_a_temporary_folder_goes_in_the_end_with_all_that_is_in_it_unless_it_is_kept(tmp_path):
    for one, stays in ((False, []), (True, ["log"])):
        with temporary(tmp_path) as folder:
            (folder / "deep" / "deeper").mkdir(parents=True)
            (folder / "deep" / "link").symlink_to(tmp_path)
            (folder / "link").symlink_to(tmp_path)
            (folder / "log").write_text("words")
            if one:
                keep(folder)
        assert [path for path in stays if not (folder / path).exists()] == []
        assert folder.exists() == one
    sweep(tmp_path)
    assert (folder / "log").read_text() == "words"


def test_what_a_kill_has_left_is_removed_and_only_that(tmp_path):
    left(tmp_path)
    (tmp_path / f"{PREFIX}{1:016x}").mkdir()  # a kill between two operations
    others = {f"{PREFIX}poems", "chargen-0123456789abcdef", ".chargen", f"{PREFIX}{2:016x}.txt", f"{PREFIX}{'F' * 16}"}
    for name in others:
        (tmp_path / name).mkdir()
        (tmp_path / name / "lock").touch()
    (tmp_path / f"{PREFIX}{3:016x}").write_text("a file")
    (tmp_path / f"{PREFIX}{4:016x}").symlink_to(tmp_path / ".chargen")
    (tmp_path / f"{PREFIX}{5:016x}").mkdir()
    (tmp_path / f"{PREFIX}{5:016x}" / "poem").write_text("one without a lock is none of ours, or kept")
    before = set(names(tmp_path))
    with temporary(tmp_path):
        pass
    assert before - set(names(tmp_path)) == {f"{PREFIX}{0:016x}", f"{PREFIX}{1:016x}"}
    assert (tmp_path / ".chargen" / "lock").exists()


def test_the_folder_of_a_process_that_lives_stays(tmp_path):
    program = (
        "import sys; from pathlib import Path; from chargen.files.disk import temporary\n"
        "with temporary(Path(sys.argv[1])) as folder: print(folder, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    sweep(tmp_path)
    assert folder.exists()
    process.kill()
    process.communicate()
    sweep(tmp_path)
    assert names(tmp_path) == []


def test_of_another_users_folders_none_is_touched(tmp_path, monkeypatch):
    folder = left(tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: folder.stat().st_uid + 1)
    sweep(tmp_path)
    assert folder.exists()


def test_where_there_are_no_locks_files_are_written_and_nothing_is_swept(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    folder = left(tmp_path)
    monkeypatch.setattr(fcntl, "flock", none)
    write_beside(tmp_path / "a", b"1")
    assert names(tmp_path) == [folder.name, "a"]


def test_a_folder_that_another_process_sweeps_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    touch = Path.touch
    swept: list[Path] = []

    def touching(path, **settings):
        touch(path, **settings)
        if len(swept) < 2:
            swept.append(path)
            sweep(tmp_path)

    monkeypatch.setattr(Path, "touch", touching)
    write_beside(tmp_path / "a", b"1")
    assert contents(tmp_path) == {"a": b"1"}
    assert len(swept) == 2


def test_processes_that_write_and_sweep_at_once_disturb_nobody(tmp_path):
    numbers = itertools.count()

    def work():
        number = next(numbers)
        for count in range(40):
            write_beside(tmp_path / f"{number}", b"%d" % count)

    assert at_once(work) == [None] * AT_ONCE
    assert contents(tmp_path) == {str(number): b"39" for number in range(AT_ONCE)}


def test_folders_that_were_made_for_nothing_are_removed_again(tmp_path):
    (tmp_path / "before").mkdir()
    for name in ("a/b/c", "before", "before/d"):
        with made(tmp_path / name):
            assert (tmp_path / name).is_dir()
    assert names(tmp_path) == ["before"]
    assert names(tmp_path / "before") == []
    with made(tmp_path / "a" / "b"):
        (tmp_path / "a" / "poem").write_text("roses")
    assert contents(tmp_path) == {"a/poem": b"roses"}
    assert not (tmp_path / "a" / "b").exists()
    with pytest.raises(NotADirectoryError), made(tmp_path / "a" / "poem"):
        pass


def test_a_folder_takes_a_name_only_if_nothing_but_an_empty_folder_has_it(tmp_path):
    for name in ("one", "two", "full"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "poem").write_text("roses")
    move(tmp_path / "one", tmp_path / "empty", new=True)
    for name in ("full", "poem"):
        with pytest.raises(FileExistsError):
            move(tmp_path / "two", tmp_path / name, new=True)
    assert (tmp_path / "poem").read_text() == "roses"


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
        "from tests.files.test_disk import config_of\n"
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
