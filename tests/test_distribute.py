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
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from chargen import ChargenError
from chargen.commands.launch import places
from chargen.config import ModelConfig, TrainConfig
from chargen.corpus import read
from chargen.distribute import Place, place, share, share_of, spread, total
from chargen.modelfile import Checkpoint
from chargen.plan import plan
from chargen.run import Run
from chargen.streams import Streams
from tests.conftest import chargen, command

SIZES = ["--units", "12", "--embedding", "6", "--batch-size", "6", "--seq-length", "8", "--precision", "float32"]
MASKED = ["--layers", "2", "--dropout", "0.3", "--weight-drop", "0.2", "--validation", "0.3"]


def arrays(run):
    checkpoint = Checkpoint.read(run / "checkpoint.safetensors")
    return {**checkpoint.weights, **checkpoint.extra}


def step(run):
    return Checkpoint.read(run / "checkpoint.safetensors").summary["step"]


def near(a, b):
    assert a.keys() == b.keys()
    for name, array in a.items():
        np.testing.assert_allclose(array, b[name], rtol=0, atol=2e-4, err_msg=name)


def launched(workers, *words, cwd):
    return chargen("launch", "--workers", str(workers), "--", "train", *words, cwd=cwd)


@contextmanager
def by_hand(workers, *words, cwd, others=None):
    """Start workers as a person or another launcher would; all but the first in the folder ``others``, if given."""
    with ExitStack() as stack:
        started = []
        for number, where in enumerate(places(workers)):
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


def until(condition, processes, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, text):
    """Fifty steps of one process, and its folder."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "book.txt").write_text(text, "utf-8")
    done = chargen("train", "book.txt", *SIZES, *MASKED, "--steps", "50", "--run", "one", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


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
def test_a_run_of_one_process_goes_on_with_two_and_the_other_way_round(alone):
    words = ["book.txt", *SIZES, *MASKED, "--steps", "25"]
    assert chargen("train", *words, "--run", "mixed", cwd=alone).returncode == 0
    done = launched(2, "--resume", "mixed", "--steps", "25", cwd=alone)
    assert done.returncode == 0, done.stderr
    assert chargen("train", "--resume", "mixed", "--steps", "25", cwd=alone).returncode == 0
    same = ["train", "--resume", "whole", "--steps", "25"]
    assert chargen("train", *words, "--run", "whole", cwd=alone).returncode == 0
    assert chargen(*same, cwd=alone).returncode == chargen(*same, cwd=alone).returncode == 0
    near(arrays(alone / "mixed"), arrays(alone / "whole"))


def test_killing_one_of_three_ends_all_with_how_to_go_on_and_loses_only_the_steps_since(here):
    words, moments, reached = ["book.txt", *SIZES, "--validation", "0.05", "--steps", "800"], random.Random(5), 0
    whole = launched(3, *words, "--run", "whole", cwd=here)
    assert whole.returncode == 0, whole.stderr
    killed, words = here / "killed", [*words, "--run", "killed"]
    for _ in range(2):
        with by_hand(3, *words, cwd=here) as workers:
            until(lambda: (killed / "checkpoint.safetensors").exists() and step(killed) > reached, workers)  # noqa: B023
            time.sleep(moments.uniform(0, 1))
            workers.pop(moments.randrange(3)).kill()
            moment = time.monotonic()
            for worker in workers:
                _, err = worker.communicate(timeout=60)
                assert worker.returncode == 1
                assert err.count(b"\n") == 1
                assert b"a worker is gone" in err
                assert err.endswith(b"start all workers again with chargen train --resume killed\n")
            assert time.monotonic() - moment < 60
        assert step(killed) > reached
        reached, words = step(killed), ["--resume", "killed"]
    assert reached < 800
    done = launched(3, "--resume", "killed", cwd=here)
    assert done.returncode == 0, done.stderr
    ended, never = arrays(killed), arrays(here / "whole")
    assert all((array == never[name]).all() for name, array in ended.items())
    assert [r["validation_bpc"] for r in Run(killed).metrics()] == [
        r["validation_bpc"] for r in Run(here / "whole").metrics()
    ]


def test_ctrl_c_stops_all_workers_together_with_a_checkpoint_that_any_number_goes_on_from(here):
    words = ["launch", "--workers", "2", "--logs", "logs", "--", "train", "book.txt", *SIZES, "--minutes", "10"]
    launcher = subprocess.Popen(command(*words), cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: list((here / "runs").glob("book/metrics.jsonl")), [launcher])
    time.sleep(0.5)
    launcher.send_signal(signal.SIGINT)
    out, err = launcher.communicate(timeout=60)
    assert launcher.returncode == 130, err
    assert err == b""
    assert out.decode().endswith("stopped; go on with: chargen train --resume runs/book\n")
    (other,) = (here / "logs").iterdir()
    assert other.read_text().endswith("stopped; go on with: chargen train --resume runs/book\n")
    assert step(here / "runs" / "book") > 0


def test_the_minutes_become_the_chiefs_number_of_steps_for_all(here):
    done = launched(2, "book.txt", *SIZES, "--minutes", "0.08", "--run", "run", cwd=here)
    assert done.returncode == 0, done.stderr
    (logs,) = re.findall(r"say is in (\S+)", done.stdout)
    told = [
        re.findall(r"time .*: ([\d,]+) steps", text) for text in (done.stdout, Path(logs, "worker-1.log").read_text())
    ]
    assert told[0] == told[1] != []
    assert Run(here / "run").config.stop == step(here / "run") == int(told[0][0].replace(",", ""))


def test_workers_read_standard_input_by_way_of_the_chief(here, text):
    words = ["launch", "--workers", "2", "--", "train", "-", *SIZES, "--steps", "12", "--run", "piped"]
    done = chargen(*words, cwd=here, stdin=text.encode())
    assert done.returncode == 0, done.stderr
    assert step(here / "piped") == 12


def test_a_worker_with_another_text_says_so_in_a_line(here):
    (here / "elsewhere").mkdir()
    (here / "elsewhere" / "book.txt").write_text("another text, which is long enough to be trained on")
    with by_hand(2, "book.txt", *SIZES, "--steps", "12", cwd=here, others=here / "elsewhere") as workers:
        _, err = workers[1].communicate(timeout=60)
        assert workers[1].returncode == 1
        assert err.decode().startswith("Error: this worker hasn't got the chief's text: ")
        assert err.count(b"\n") == 1
        _, err = workers[0].communicate(timeout=60)
        assert workers[0].returncode == 1
        assert b"a worker is gone" in err


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


MIRRORED = """
import sys
import tensorflow as tf
from contextlib import closing
from pathlib import Path
from chargen.corpus import read
from chargen.model import CharLM
from chargen.run import Run
from chargen.streams import Streams
from chargen.train import train

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
run, corpus = Run(Path(sys.argv[1])), read(["book.txt"])
config = run.config.train
ids, validation = corpus.split(config.validation)
with strategy.scope():
    model = CharLM(len(corpus.vocabulary), run.config.model, config.random_seed, run.config.execution)
    streams = Streams(ids, config.batch_size, config.seq_length)
    for record in train(model, corpus.vocabulary, streams, validation, run):
        pass
"""


@pytest.mark.xdist_group("alone")
def test_two_devices_of_one_process_equal_one(alone):
    """Processors in place of the GPUs that --distribute mirrored is for."""
    run = Run.create(alone / "mirrored", Run(alone / "one").config, read([str(alone / "book.txt")]))
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED, str(run.path)], cwd=alone, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    near(arrays(run.path), arrays(alone / "one"))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, "needs the variable TF_CONFIG.*chargen launch"),
        ("", "needs the variable TF_CONFIG"),
        ("{", "doesn't name the workers"),
        ("[]", "doesn't name the workers"),
        ('{"cluster": {}}', "doesn't name the workers"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "doesn't name the workers"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}', "doesn't name the workers"),
        ('{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}', "a:1 is not an address"),
        ('{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}', "a is not an address"),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}', "this process a ps"),
    ],
)
def test_a_tf_config_that_is_none_is_refused_with_one_that_is(config, words, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ChargenError, match=words):
        place("workers")


@pytest.mark.parametrize(("kind", "index", "number"), [("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)])
def test_the_chief_is_the_first_of_the_workers(kind, index, number, monkeypatch):
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"], "ps": ["d:1"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}))
    assert place("workers") == Place(number, 3)
    assert place("none") == place("mirrored") == Place(0, 1)


def test_the_workers_share_all_rows():
    assert [share_of(7, Place(n, 3)) for n in range(3)] == [slice(0, 2), slice(2, 4), slice(4, 7)]


@pytest.mark.parametrize(
    ("batch_size", "replicas", "would"), [(64, 3, "63 or 66 would"), (2, 3, "3 would"), (10, 4, "8 or 12 would")]
)
def test_a_batch_size_that_cannot_be_divided_is_refused_with_the_nearest_that_can(here, batch_size, replicas, would):
    settings = TrainConfig(batch_size=batch_size, steps=1)
    with pytest.raises(ChargenError, match=f"{batch_size} can't be divided among {replicas} workers: {would}"):
        plan(read(["book.txt"]), ModelConfig(), settings, {"batch_size"}, 1e11, replicas)


@pytest.mark.parametrize(("replicas", "batch_size"), [(3, 63), (4, 64), (70, 70)])
def test_a_planned_batch_size_can_be_divided(replicas, batch_size):
    config = plan(read([]), ModelConfig(), TrainConfig(steps=1), {"seq_length"}, 1e11, replicas)
    assert config.train.batch_size == batch_size


def test_one_process_shares_and_sums_with_itself():
    assert share(b"whatever\0it is") == b"whatever\0it is"
    assert share(b"") == b""
    assert total(np.float64(0.1)) == 0.1
    assert spread((np.arange(3), None))[0].numpy().tolist() == [0, 1, 2]


def test_a_worker_reads_its_rows_of_each_window():
    streams = Streams(np.arange(100, dtype=np.uint8), 6, 5)
    for position in range(3 * streams.windows):
        whole = streams.read(position)
        parts = [streams.read(position, share_of(6, Place(n, 3))) for n in range(3)]
        for all_rows, *own in zip(whole, *parts, strict=True):
            assert (all_rows == np.concatenate(own)).all()
