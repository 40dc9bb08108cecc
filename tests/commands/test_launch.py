"""What the launcher refuses, and how it divides the machine; test_distribute has tests of its workers."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from chargen.cli import main
from chargen.commands.common import Stop
from chargen.commands.launch import failure, some_cores, tf_configs, watch
from tests.conftest import invoke


def launch(*arguments):
    return CliRunner().invoke(main, ["launch", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", 0, "--", "train"], "--workers 0: give a whole number from 1 to 1000"),
        (["--", "train"], "Missing option '--workers'"),
        (["--workers", 2], "Missing argument"),
        (["--workers", 2, "--", "sample"], "only train can be launched, not sample"),
        (["--workers", 2, "--", "train", "--batch-sze", 3], "No such option"),
        (["--workers", 2, "--", "train", "none.txt"], "'none.txt' does not exist"),
        (["--workers", 2, "--", "train", "--distribute", "mirrored"], "train without launch"),
        (["--workers", 2, "--logs", "here", "--", "train"], "here exists and is left as it is"),
        (["--workers", 2, "--logs", "file/here", "--", "train"], "can't be made"),
    ],
)
def test_a_launch_that_is_not_possible_is_refused_before_anything_starts(here, arguments, message):
    (here / "here").mkdir()
    (here / "file").touch()
    result = launch(*arguments)
    assert result.exit_code in (1, 2)
    assert re.search(message, result.output), result.output


def test_each_worker_has_its_own_index_and_port():
    configs = [json.loads(config) for config in tf_configs(3)]
    assert [config["task"] for config in configs] == [{"type": "worker", "index": n} for n in range(3)]
    assert len(set(configs[0]["cluster"]["worker"])) == 3
    assert all(config["cluster"] == configs[0]["cluster"] for config in configs)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="there is no affinity")
def test_the_workers_divide_the_cores_and_share_them_if_there_are_too_few():
    before, parts = os.sched_getaffinity(0), []
    for number in range(len(before) + 1):
        with some_cores(number, len(before) + 1):
            parts.append(os.sched_getaffinity(0))
        assert os.sched_getaffinity(0) == before
    assert set.union(*parts) == before
    assert all(parts)


def process(program):
    return subprocess.Popen([sys.executable, "-c", f"import signal, sys, time\n{program}"])


def test_if_one_fails_the_others_are_stopped_even_one_that_ignores_signals(monkeypatch, tmp_path):
    monkeypatch.setattr("chargen.commands.launch.STOP_SECONDS", 1)
    monkeypatch.chdir(tmp_path)
    deaf = process("signal.signal(signal.SIGTERM, lambda *_: None)\nopen('deaf', 'x')\nwhile True: time.sleep(1)")
    fails = "import os\nwhile not os.path.exists('deaf'): time.sleep(0.01)\nsys.exit(3)"
    workers = [deaf, process("while True: time.sleep(1)"), process(fails)]
    assert watch(workers, Stop()) == 2
    assert [worker.returncode for worker in workers] == [-signal.SIGKILL, -signal.SIGTERM, 3]


def test_the_error_has_the_last_line_of_the_failed_workers_log(tmp_path):
    (tmp_path / "worker-2.log").write_text("much\nError: this is wrong\n")
    assert failure(2, 1, tmp_path).endswith("last line of its log: Error: this is wrong")
    assert "worker 2 was stopped by SIGKILL" in failure(2, -9, tmp_path)
    assert failure(0, 1, tmp_path).endswith(f"the others were stopped, and their output is in {tmp_path}")
    (tmp_path / "worker-2.log").unlink()
    assert failure(0, 1, tmp_path) == "worker 0 failed with exit code 1"  # the only one


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
