"""Several real workers, on the loopback, and what each of them is to do."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from chargen import ChargenError
from chargen.cli import main
from chargen.commands.launch import tf_configs
from chargen.commands.train import request_of
from chargen.commands.train import train as train_command
from chargen.config import TrainConfig
from chargen.network.execution import choose
from chargen.store.modelfile import Checkpoint
from chargen.store.run import Run
from chargen.text.corpus import read
from chargen.text.streams import Streams
from chargen.training.distribute import Worker, all_reduce, broadcast, rows_of, this_worker, to_replicas
from chargen.training.jobs import Job
from chargen.training.loop import Session, train
from chargen.training.plan import Machine, Request, plan
from tests.conftest import HANG, chargen, command

SIZES = [
    "--units",
    "12",
    "--embedding",
    "6",
    "--batch-size",
    "6",
    "--seq-length",
    "8",
    "--learning-rate",
    "0.014",
    "--precision",
    "float32",
    "--threads",
    "1",
]
MASKED = ["--layers", "2", "--dropout", "0.3", "--weight-drop", "0.2", "--validation", "0.3"]


def arrays(run):
    checkpoint = Checkpoint.read(run / "checkpoint.safetensors")
    return {**checkpoint.weights, **checkpoint.extra}


def step(run):
    return Checkpoint.read(run / "checkpoint.safetensors").summary["step"]


def near(a, b, tolerance=2e-4):
    assert a.keys() == b.keys()
    for name, array in a.items():
        np.testing.assert_allclose(array, b[name], rtol=0, atol=tolerance, err_msg=name)


def launched(workers, *words, cwd):
    return chargen("launch", "--workers", str(workers), "--", "train", *words, cwd=cwd)


@contextmanager
def by_hand(workers, *words, cwd, others=None):
    """Start workers as a person or another launcher would; all but the first in the folder ``others``, if given."""
    with ExitStack() as stack:
        started = []
        for number, where in enumerate(tf_configs(workers)):
            process = subprocess.Popen(
                command("train", *words, "--distribute", "workers"),
                cwd=others if others and number else cwd,
                env={**os.environ, "TF_CONFIG": where},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            started.append(stack.enter_context(process))
            stack.callback(process.kill)
        yield started


def config_of(corpus, words):
    """What the command would make of these options."""
    with train_command.make_context("train", list(words)) as context:
        values = context.params
    asked = {name for name, value in values.items() if value is not None}
    config = plan(request_of(asked, (), None, None, values), corpus, Machine(1e11))
    return replace(config, execution=choose(config.train)[0])


def again(folder, name):
    """A new run with the configuration of the run named one."""
    return Run.create(folder / name, Run(folder / "one").config, read([str(folder / "book.txt")]))


def some_steps(run, last=None):
    """Train in this process until a step is made, or to the end; a checkpoint is left."""
    job = Job.of(run, run.corpus())
    with closing(train(Session(job, job.model()))) as records:
        for record in records:
            if getattr(record, "step", 0) == last:
                break


def until(condition, processes):
    deadline = time.monotonic() + HANG
    while not condition():
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, text):
    """A folder with fifty steps of one process in it."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "book.txt").write_text(text, "utf-8")
    corpus = read([str(folder / "book.txt")])
    some_steps(Run.create(folder / "one", config_of(corpus, [*SIZES, *MASKED, "--steps", "50"]), corpus))
    return folder


@pytest.mark.long
@pytest.mark.xdist_group("alone")
def test_three_workers_equal_one_within_tolerance_and_each_other_to_the_bit(alone):
    for name in ("three", "again"):
        done = launched(3, "book.txt", *SIZES, *MASKED, "--steps", "50", "--run", name, cwd=alone)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    one, three, again = (arrays(alone / name) for name in ("one", "three", "again"))
    near(three, one)
    assert all((array == again[name]).all() for name, array in three.items())
    bpc = [Run(alone / name).metrics()[-1]["validation_bpc"] for name in ("one", "three", "again")]
    assert bpc[1] == pytest.approx(bpc[0], abs=1e-4)
    assert bpc[1] == bpc[2]
    assert sorted(file.name for file in (alone / "three").iterdir()) == sorted(
        file.name for file in (alone / "one").iterdir()
    )


@pytest.mark.xdist_group("alone")
@pytest.mark.long
def test_a_run_of_one_process_goes_on_with_two(alone):
    run = again(alone, "mixed")
    some_steps(run, 20)
    done = launched(2, "--resume", "mixed", cwd=alone)
    assert done.returncode == 0, done.stderr
    assert step(run.path) == 50
    near(arrays(run.path), arrays(alone / "one"))


@pytest.mark.long
def test_killing_one_of_three_ends_all_with_how_to_go_on_and_loses_only_the_steps_since(here):
    words, run = [*SIZES, "--validation", "0.05", "--steps", "400"], here / "killed"
    with by_hand(3, "book.txt", *words, "--run", "killed", cwd=here) as workers:
        until(lambda: (run / "checkpoint.safetensors").exists() and step(run) > 0, workers)
        time.sleep(random.uniform(0, 1))
        workers.pop(random.randrange(3)).kill()
        for worker in workers:
            _, err = worker.communicate(timeout=HANG)
            assert worker.returncode == 1
            assert err.count(b"\n") == 1
            assert b"a worker stopped" in err
            assert err.endswith(b"start all workers again with chargen train --resume killed\n")
    assert 0 < step(run) < 400
    some_steps(Run(run))
    corpus = read(["book.txt"])
    never = Run.create(here / "never", config_of(corpus, words), corpus)
    some_steps(never)
    near(arrays(run), arrays(never.path), 5e-3)
    assert [record["step"] for record in Run(run).metrics()] == [record["step"] for record in never.metrics()]


@pytest.mark.long
def test_ctrl_c_stops_all_workers_together_and_what_the_chief_read_and_planned_is_everybodys(here, text):
    words = ["launch", "--workers", "2", "--logs", "logs", "--", "train", "-", *SIZES, "--minutes", "2", "--run", "r"]
    with subprocess.Popen(
        command(*words), cwd=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as launcher:
        assert launcher.stdin is not None
        launcher.stdin.write(text.encode())
        launcher.stdin.close()
        launcher.stdin = None
        until(lambda: (here / "r" / "config.json").exists() and Run(here / "r").config.stop, [launcher])
        launcher.send_signal(signal.SIGINT)
        out, err = launcher.communicate(timeout=HANG)
        assert launcher.returncode == 130, err
    assert err == b""
    said = [out.decode(), (here / "logs" / "worker-1.log").read_text()]
    assert [words.splitlines()[-1] for words in said] == ["stopped; go on with: chargen train --resume r"] * 2
    planned = [re.findall(r"time .*: ([\d,]+) steps", words) for words in said]
    assert planned[0] == planned[1] == [f"{Run(here / 'r').config.stop:,}"]
    stopped_at = step(here / "r")
    assert stopped_at > 0
    some_steps(Run(here / "r"), stopped_at + 5)
    assert step(here / "r") == stopped_at + 5


BY_ANOTHER_CLOCK = """
import sys

import chargen.commands.train
from chargen.cli import main
from chargen.training import loop, schedule


class Clock:
    now, dispatch, chief = 0.0, loop.Session.dispatch, sys.argv.pop(1) == "0"

    @classmethod
    def monotonic(cls):
        return cls.now


def dispatch(session, requests):
    Clock.now += (1.0 if Clock.now > 60 else 0.5) if Clock.chief else 0.01
    return Clock.dispatch(session, requests)


loop.Session.dispatch = dispatch
for module in (chargen.commands.train, loop, schedule):
    module.time = Clock
main()
"""


@pytest.mark.long
def test_when_the_chief_becomes_slow_all_workers_plan_again_at_the_same_step(here):
    words = ["train", "book.txt", *SIZES, "--minutes", "2", "--run", "r", "--distribute", "workers"]
    with ExitStack() as stack:
        workers = []
        for number, where in enumerate(tf_configs(2)):
            process = subprocess.Popen(
                [sys.executable, "-c", BY_ANOTHER_CLOCK, str(number), *words],
                cwd=here,
                env={**os.environ, "TF_CONFIG": where},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            workers.append(stack.enter_context(process))
            stack.callback(process.kill)
        said = [worker.communicate(timeout=HANG) for worker in workers]
        assert [worker.returncode for worker in workers] == [0, 0], said
    again = [re.findall(r"slower than planned: (\d+) steps", out.decode()) for out, _ in said]
    assert again[0] == again[1] != []
    config = Run(here / "r").config
    assert config.knot is not None
    assert step(here / "r") == config.stop == int(again[0][-1]) == pytest.approx(180, rel=0.05)


@pytest.mark.long
def test_a_worker_with_another_text_says_so_in_a_line(here):
    (here / "elsewhere").mkdir()
    (here / "elsewhere" / "book.txt").write_text("another text, which is long enough to be trained on")
    with by_hand(2, "book.txt", *SIZES, "--steps", "12", cwd=here, others=here / "elsewhere") as workers:
        _, err = workers[1].communicate(timeout=HANG)
        assert workers[1].returncode == 1
        assert err.decode().startswith("Error: this worker does not have the chief's text: ")
        assert err.count(b"\n") == 1
        _, err = workers[0].communicate(timeout=HANG)
        assert workers[0].returncode == 1
        assert b"a worker stopped" in err
    assert not (here / "runs").exists()  # where there would be a run that never began, and the newest


def test_a_worker_that_resumes_leaves_the_newest_run_to_the_chief(here, monkeypatch):
    """Its machine may have no run at all."""

    def joining(name):
        raise ChargenError("it joins the others")

    cluster = {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 1}}))
    monkeypatch.setattr("chargen.training.distribute.strategy", joining)
    result = CliRunner().invoke(main, ["train", "--resume", "--distribute", "workers"])
    assert result.output == "Error: it joins the others\n"


@pytest.mark.long
def test_a_port_that_is_taken_is_told_in_a_line(here, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        cluster = {"cluster": {"worker": [address]}, "task": {"type": "worker", "index": 0}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
        done = chargen("train", "book.txt", *SIZES, "--steps", "12", "--distribute", "workers", cwd=here)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert address in done.stderr
    assert [file.name for file in here.iterdir()] == ["book.txt"]  # no run that would be the newest


MIRRORED = """
import sys
from pathlib import Path

import tensorflow as tf

from chargen.store.run import Run
from chargen.text.corpus import read
from chargen.training.jobs import Job
from chargen.training.loop import Session, train

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
job = Job.of(Run(Path(sys.argv[1])), read(["book.txt"]))
with strategy.scope():
    for record in train(Session(job, job.model())):
        pass
"""


@pytest.mark.long
@pytest.mark.xdist_group("alone")
def test_two_devices_of_one_process_equal_one(alone):
    """Processors in place of the GPUs that --distribute mirrored is for."""
    run = again(alone, "mirrored")
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED, str(run.path)], cwd=alone, capture_output=True, timeout=HANG, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    near(arrays(run.path), arrays(alone / "one"))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, "needs the environment variable TF_CONFIG.*chargen launch"),
        ("", "needs the environment variable TF_CONFIG"),
        ("{", "does not name the workers"),
        ("[]", "does not name the workers"),
        ('{"cluster": {}}', "does not name the workers"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "does not name the workers"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}', "does not name the workers"),
        ('{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}', "a:1 is not the address"),
        ('{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}', "a is not the address"),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}', "this process a ps"),
    ],
)
def test_a_tf_config_that_is_none_is_refused_with_one_that_is(config, words, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ChargenError, match=words):
        this_worker("workers")


@pytest.mark.parametrize(("kind", "index", "number"), [("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)])
def test_the_chief_is_the_first_of_the_workers(kind, index, number, monkeypatch):
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"], "ps": ["d:1"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}))
    assert this_worker("workers") == Worker(number, 3)
    assert this_worker("none") == this_worker("mirrored") == Worker(0, 1)


def test_the_workers_share_all_rows():
    assert [rows_of(7, Worker(n, 3)) for n in range(3)] == [slice(0, 2), slice(2, 4), slice(4, 7)]


@pytest.mark.parametrize(("batch_size", "replicas", "w"), [(64, 3, "63 or 66"), (2, 3, "3"), (10, 4, "8 or 12")])
def test_a_batch_size_that_cannot_be_divided_is_refused_with_the_nearest_that_can(here, batch_size, replicas, w):
    settings = TrainConfig(batch_size=batch_size, steps=1)
    with pytest.raises(ChargenError, match=f"{batch_size} cannot be divided among {replicas} workers; use {w}"):
        plan(Request({}, settings, {"batch_size"}), read(["book.txt"]), Machine(1e11, replicas))


@pytest.mark.parametrize(("replicas", "batch_size"), [(3, 63), (4, 64), (70, 70)])
def test_a_planned_batch_size_can_be_divided(replicas, batch_size):
    config = plan(Request({}, TrainConfig(steps=1), {"seq_length"}), read([]), Machine(1e11, replicas))
    assert config.train.batch_size == batch_size


def test_one_process_shares_and_sums_with_itself():
    assert broadcast(b"whatever\0it is") == b"whatever\0it is"
    assert broadcast(b"") == b""
    assert all_reduce(np.float64(0.1)) == 0.1
    assert to_replicas((np.arange(3), None))[0].numpy().tolist() == [0, 1, 2]


def test_a_worker_reads_its_rows_of_each_window():
    streams = Streams(np.arange(100, dtype=np.uint8), 6, 5, np.array([7, 40, 42, 90]))
    for position in range(3 * streams.windows):
        whole = streams.read(position)
        parts = [streams.read(position, rows_of(6, Worker(n, 3))) for n in range(3)]
        for all_rows, *own in zip(whole, *parts, strict=True):
            if all_rows is None:
                assert own == [None] * 3  # as it is for all workers or none that a window restarts
            else:
                assert (all_rows == np.concatenate(own)).all()
