"""Models, runs and changes of their files that the tests of damaged files share."""

import json
from dataclasses import asdict

import numpy as np

from chargen.config import ModelConfig, TrainConfig
from chargen.files.arrays import with_checksum
from chargen.store.modelfile import Checkpoint, ModelFile, Progress, weight_shapes
from chargen.store.run import Run
from chargen.text.corpus import read
from chargen.training.plan import Machine, Request, plan

SHAPE = ModelConfig(layers=2, units=3, embedding=2)
NESTED = "[" * 100_000 + "]" * 100_000
SPARSE = 30 * 2**30


def weights(characters):
    generator = np.random.default_rng(0)
    return {n: generator.normal(size=s).astype(np.float32) for n, s in weight_shapes(characters, SHAPE).items()}


def half_way(here, steps=100):
    """Return a run in ``here`` that has made 20 steps of so many; no step was made for it."""
    settings = TrainConfig(steps=steps, batch_size=4, seq_length=8, cache=str(here / "cache"))
    corpus = read(["book.txt"], settings, cache=here / "cache")
    config = plan(Request(asdict(SHAPE), settings, {"steps", "batch_size", "seq_length"}), corpus, Machine(1e11))
    run = Run.create(here / "run", config, corpus)
    learnt = weights(len(corpus.vocabulary))
    extra = {f"optimizer/{moment}/{name}": np.square(array) for name, array in learnt.items() for moment in "mv"}
    extra |= {f"state/lstm_{n}/{part}": np.full((4, 3), 0.5, np.float32) for n in range(2) for part in "hc"}
    told = {"text": "book", "characters": len(corpus.ids), "sha256": corpus.sha256, "chargen": "0.1.0", "step": 20}
    progress = Progress(step=20, seconds=3.5, best=1.5)
    ModelFile(learnt, corpus.vocabulary, SHAPE, {**told, "validation_bpc": 2.0}, {}).write(run.model_path)
    checkpoint = Checkpoint(learnt, corpus.vocabulary, SHAPE, {**told, "progress": asdict(progress)}, extra)
    checkpoint.write(run.checkpoint_path)
    line = {"epoch": 0.1, "seconds": 1.5, "training_bpc": 3.0, "validation_bpc": 2.5, "temperature": 1.0}
    line |= {"learning_rate": 0.01, "characters_per_second": 1000}
    run.write_metrics({"step": n, "characters": 32 * n, **line} for n in (10, 20))
    return run


def parts(data):
    """Return the two objects of a file's header, that of the arrays and that of chargen's, and the arrays' bytes."""
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    return table, json.loads(table.pop("__metadata__")["chargen"]), data[8 + length :]


def whole(table, told, arrays):
    """Return a file of these parts, and a checksum that is right: what nobody but an enemy writes."""
    told = told if isinstance(told, str) else json.dumps(told)
    head = json.dumps({"__metadata__": {"chargen": told}, **table}).encode()
    return with_checksum(len(head).to_bytes(8, "little") + head + arrays)


def changed(path, change):
    table, told, arrays = parts(path.read_bytes())
    arrays = bytearray(arrays)
    told = change(table, told, arrays) or told
    path.write_bytes(whole(table, told, bytes(arrays)))


def retyped(name, kind):
    """Return a change of an array's type in the table."""
    return lambda table, told, arrays: table[name].update(dtype=kind)


def numbered(name, value):
    """Return a change of an array's first number."""

    def change(table, told, arrays):
        at = table[name]["data_offsets"][0]
        arrays[at : at + 4] = np.float32(value).tobytes()

    return change


def valued(*names, value):
    """Return a change of a value in the header, by the names of the way to it."""

    def change(table, told, arrays):
        place = told
        for name in names[:-1]:
            place = place[name]
        place[names[-1]] = value

    return change


def refused(result, *words):
    """Check that a command has ended with one line of an error that has these words in it."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert len(line) < 450
    assert all(word in line for word in words), line
