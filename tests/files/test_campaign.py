"""A thousand damaged files, and what our readers and commands make of each.

Some are damaged as disks, transfers and people do it: what was changed is never taken for what was written. Some are
made so that their checksums are right again, or have none: what is read of them has its declared types. None makes a
traceback, a hang, or gigabytes.
"""

import json
import math
import os
import random
import resource
import shutil
import signal
import time
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest

from chargen import ChargenError
from chargen.commands.common import Stop
from chargen.config import Execution, ModelConfig, TrainConfig
from chargen.files.arrays import with_checksum
from chargen.files.reading import DamagedError
from chargen.store.modelfile import Checkpoint, ModelFile, Progress
from chargen.store.run import Run
from chargen.text.corpus import read
from chargen.writing.clone import Clone
from chargen.writing.originality import index
from tests.conftest import contents, invoke
from tests.files.damage import NESTED, SPARSE, half_way, parts

SEED, MUTATIONS = 22, 1000
SECONDS, KILOBYTES = 10, 2**20  # of the processor for each of them, and of memory for all together
TRAINED, SCORED = 8, 60  # every so manieth is also trained further, or scored
SAFETENSORS = ["run/model.safetensors", "run/checkpoint.safetensors", "state", "run/originality.safetensors"]
CACHED = ["ids.npy", "starts.npy", "corpus.json"]
PLAIN = ["run/config.json", "run/metrics.jsonl"]
HOSTILE: list[object] = [
    *(None, True, False, 0, 1, -1, 3, 7.5, -0.5, 10**9, 10**18, 10**30, 10**400, 1e300, "", "a", "1", "x" * 100_000),
    *(math.nan, math.inf, -math.inf, [], {}, [1], ["a"], {"a": 1}, [[]], "\0", "\ud800", "\u2028", "F16", "I32"),
    *("BOOL", "model", "checkpoint", "state", [2**60, 2**60], [0, 16], [-1, 4], "nested"),
]


@pytest.mark.long
def test_a_thousand_damaged_files_are_read_unchanged_or_refused_in_one_line(here, fake):
    campaign = Campaign(here)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(MUTATIONS):
        campaign.meet(number)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"\n{dict(sorted(campaign.met.items()))}\n{campaign.slowest:.2f} s of the processor, {grown:,} KB at most")
    assert grown < KILOBYTES
    refused = {kind for kind, _, outcome in campaign.met if outcome == "refused"}
    assert refused == {"bytes", "other", "header", "json"}


@contextmanager
def hurried():
    """While entered, what takes a minute is ended, as a pipe would that nobody writes into."""

    def ended(number, frame):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, ended)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Stopped(Stop):
    """A process that is told to stop when it begins."""

    def __enter__(self):
        super().__enter__()
        self.signal = signal.SIGTERM
        return self


class Campaign:
    """A folder with each of our files, of which one at a time is damaged, read and put back."""

    def __init__(self, here):
        self.here, self.met, self.slowest = here, Counter[tuple[str, str, str]](), 0.0
        self.settings = half_way(here, steps=22).config.train
        clone = Clone.open(here / "run")
        clone.feed("the ")
        clone.save_state(here / "state", np.random.default_rng(1))
        (here / "scored.txt").write_text("the cat sat on the mat\n" * 8)
        [self.cache] = (f"cache/{f.name}" for f in (here / "cache").iterdir() if f.is_dir())
        self.names = [*SAFETENSORS, *(f"{self.cache}/{name}" for name in CACHED), *PLAIN]
        self.commands: dict[str, list[object]] = {
            "sample": ["sample", "--model", "run", "--length", 9, "--random-seed", 1, "--originality"],
            "state": ["sample", "--model", "run", "--length", 9, "--load-state", "state"],
            "plot": ["plot", "run", "--output", "curves.svg"],
            "train": ["train", "--resume", "run"],
            "eval": ["eval", "scored.txt", "--model", "run", "--json"],
        }
        self.read_all()  # which makes the index
        self.files = contents(here)
        self.values = self.read_all()
        self.outputs = {name: self.output(name) for name in self.commands}
        assert all(self.outputs.values()), self.outputs
        self.put_back()

    def meet(self, number):
        """Damage a file, by the generator of this number; read it, and run the commands that read it."""
        chance = random.Random(SEED * MUTATIONS + number)
        name, data, kind = chance.choice(self.names), None, ""
        while data in (None, self.files[name]):
            kind, data = self.damage(name, chance)
        began = time.process_time()
        with hurried():
            (self.here / name).unlink()
            if callable(data):
                data(self.here / name)
            else:
                (self.here / name).write_bytes(data)
            outcome = self.read(name, exact=kind in ("bytes", "other") and name not in PLAIN)
            names = [{"state": "state", "run/metrics.jsonl": "plot"}.get(name, "sample")]
            names += ["train"] * (number % TRAINED == 0) + ["eval"] * (number % SCORED == 0)
            for command in dict.fromkeys(names):
                said = self.output(command, stopped=outcome == "read")
                assert outcome == "read" or said in (None, self.outputs[command]), (number, name, command)
        assert outcome != "read" or kind in ("header", "json") or name in PLAIN, (number, name)
        seconds = time.process_time() - began
        assert seconds < SECONDS, (number, name)
        self.slowest = max(self.slowest, seconds)
        self.met[kind, name.rpartition("/")[2], outcome] += 1
        self.put_back()

    def damage(self, name, chance):
        """Return a kind of damage, and the bytes that are there then, or what puts something else there."""
        if chance.random() < 0.1:
            return "other", chance.choice(OTHERS)
        data = self.files[name]
        if name in PLAIN and chance.random() < 0.7:
            lines = data.splitlines(keepends=True) if name.endswith("l") else [data]
            at = chance.randrange(len(lines))
            lines[at] = hostile(json.loads(lines[at]), chance) + b"\n"
            return "json", b"".join(lines)
        if name.endswith(("safetensors", "state")) and chance.random() < 0.4:
            table, told, arrays = parts(data)
            if chance.random() < 0.5:
                table = json.loads(hostile(table, chance).replace(NESTED.encode(), b'"nested"'))
            else:
                told = hostile(told, chance).decode()
            head = json.dumps({"__metadata__": {"chargen": told}, **table}).encode()
            return "header", resealed(len(head).to_bytes(8, "little") + head + arrays)
        if name.endswith("corpus.json") and chance.random() < 0.5:
            return "header", resealed(hostile(json.loads(data), chance))
        return "bytes", damaged(data, chance)

    def read(self, name, *, exact):
        """Read the damaged file by its reader; return what became of it."""
        told = ""
        try:
            value = self.readers()[name]()
        except ChargenError as error:
            told = str(error)
        if told:
            assert "\n" not in told
            # A configuration may well be one, and not suit the text.
            assert name.rpartition("/")[2].partition(".")[0] in told or name == PLAIN[0], told
            return "refused"
        if exact:
            assert value == self.values[name], name
            return "made again"
        check(name, value, self.values[name])
        return "read"

    def readers(self):
        """Return for each file a function that reads it and returns what is in it."""

        def arrays(file):
            return {name: (array.dtype.str, array.tolist()) for name, array in {**file.weights, **file.extra}.items()}

        def model(file):
            return arrays(file), file.vocabulary, file.config, dict(file.summary)

        def checkpoint():
            file = Run(self.here / "run").checkpoint()
            assert file is not None
            return *model(file), Progress.of(file)

        def state():
            clone = Clone.open(self.here / "run")
            generator = clone.load_state(self.here / "state")
            return [layer.h.tolist() + layer.c.tolist() for layer in clone.state], repr(
                generator and generator.bit_generator.state
            )

        def corpus():
            text = read(["book.txt"], self.settings, cache=self.here / "cache")
            return text.ids.tolist(), text.starts.tolist(), text.vocabulary, text.sha256

        def places():
            text = read(["book.txt"], self.settings, cache=self.here / "cache")
            return index(text, self.here / "run/originality.safetensors").tolist()

        def config():
            run = Run(self.here / "run")
            run.corpus()
            run.checkpoint()
            return run.config.to_json()

        readers = [lambda: model(ModelFile.read(self.here / "run/model.safetensors")), checkpoint, state, places]
        readers += [corpus, corpus, corpus, config, lambda: Run(self.here / "run").metrics()]
        return dict(zip(self.names, readers, strict=True))

    def read_all(self):
        return {name: reader() for name, reader in self.readers().items()}

    def output(self, command, *, stopped=False):
        """Run a command; return what it says and leaves, None if it ends with one line of an error.

        A training is ``stopped`` after a step whose file may well ask for a million of them.
        """
        with pytest.MonkeyPatch.context() as patch:
            if stopped:
                patch.setattr("chargen.commands.train.Stop", Stopped)
            result = invoke(*self.commands[command])
        if stopped and result.exit_code == 128 + signal.SIGTERM:
            return "stopped"
        if result.exit_code:
            assert isinstance(result.exception, SystemExit), (command, repr(result.exception))
            assert result.exit_code in (1, 2), result.stderr  # 2, as click knows that there is no file
            assert result.stdout == ""
            line = result.stderr if result.exit_code == 1 else result.stderr.splitlines(keepends=True)[-1]
            assert line.startswith("Error: "), result.stderr
            assert line.count("\n") == 1, result.stderr
            return None
        left = Checkpoint.read(self.here / "run/checkpoint.safetensors") if command == "train" else None
        return result.stdout if left is None else [array.tobytes() for array in left.weights.values()]

    def put_back(self):
        """Make the folder what it was."""
        for path in self.here.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        for name, data in self.files.items():
            (self.here / name).parent.mkdir(parents=True, exist_ok=True)
            (self.here / name).write_bytes(data)


def sparse(path):
    path.touch()
    os.truncate(path, SPARSE)


OTHERS = [
    os.mkfifo,
    lambda path: path.mkdir(),
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.symlink_to("/dev/full"),
    lambda path: path.symlink_to(path.name),
    lambda path: path.symlink_to("nowhere"),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_text(NESTED),
    lambda path: path.write_bytes(b"\xff" * 1000),
    sparse,
]


def damaged(data, chance):
    """Return bytes that have suffered."""
    at = chance.randrange(min(len(data), 1500) if chance.random() < 0.5 else len(data))
    to = at + min(chance.choice([1, 2, 8, 64, 1000]), len(data) - at)
    other = chance.randrange(len(data))
    digit = bytes([chance.choice(b"0123456789")])
    return chance.choice(
        [
            data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :],
            data[:at] + chance.randbytes(to - at) + data[to:],
            data[:at] + bytes(to - at) + data[to:],
            data[:at] + digit + data[at + 1 :],
            data[:at],
            data[:at] + data[to:],
            data[:at] + chance.randbytes(to - at) + data[at:],
            data[:to] + data[at:],
            data[:at] + data[other : other + to - at] + data[to:],
            data + bytes(to - at),
            data + data,
            chance.randbytes(len(data)),
        ]
    )


def hostile(value, chance):
    """Return a JSON text that differs from a value in one place."""
    place, keys = value, [*value] if isinstance(value, dict) else [*range(len(value))]
    while True:
        key = chance.choice(keys)
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or chance.random() < 0.3:
            break
        place, keys = inner, [*inner] if isinstance(inner, dict) else [*range(len(inner))]
    deed = chance.random()
    if deed < 0.7:
        place[key] = chance.choice(HOSTILE)
    elif deed < 0.8:
        del place[key]
    elif deed < 0.9 and isinstance(place, dict):
        place[chance.choice(["a", "", "\ud800", "x" * 1000, key.upper() if key else "b"])] = place.pop(key)
    elif isinstance(inner, int | float):
        place[key] = inner * chance.choice([-1, 2, 1000, 0.5])
    else:
        place[key] = [inner]
    return json.dumps(value).replace('"nested"', NESTED).encode()


def resealed(data):
    """Return a file with the checksum that it should have, if it has a place for it."""
    try:
        return with_checksum(data)
    except DamagedError:
        return data


def check(name, value, before):
    """Check that what was read of a file that somebody made has the types that are declared, and what has to agree."""
    if name.endswith("config.json"):
        assert value.keys() == before.keys()
        assert all(value[same] == before[same] for same in ("format", "model", "sha256", "characters"))
        assert value["train"]["batch_size"] == before["train"]["batch_size"]
        for part, config in (("model", ModelConfig(units=1)), ("train", TrainConfig()), ("execution", Execution())):
            for field, (kind, optional) in config.types().items():
                found = value[part][field]
                assert type(found) is kind or (optional and found is None), (field, found)
                assert not isinstance(found, float) or math.isfinite(found)
        assert value["start"] <= 20 <= value["stop"]
    elif name.endswith("metrics.jsonl"):
        for record in value:
            assert before[0].keys() <= record.keys()
            assert all(math.isfinite(record[key]) and record[key] >= 0 for key in before[0])
            assert record["characters"] == record["step"] * 32
    elif name.endswith("originality.safetensors"):
        assert value == before
    elif name.endswith("corpus.json"):
        assert value[:2] == before[:2]
    elif name.endswith("model.safetensors"):
        assert all(kind == "<f4" and np.isfinite(array).all() for kind, array in value[0].values())
