import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from chargen import ChargenError
from chargen.config import ModelConfig, TrainConfig
from chargen.corpus import read
from chargen.model import CharLM
from chargen.modelfile import Checkpoint, ModelFile
from chargen.optimizer import Adam
from chargen.plan import plan, resume
from chargen.run import Progress, Run
from chargen.streams import Streams
from chargen.train import MOST_RECOVERIES, Recovery, Step, Validation, compile_step, train

SHAPE = ModelConfig(layers=2, units=8, embedding=4)
CLOCK = ("seconds", "characters_per_second")


@pytest.fixture
def corpus(here):
    return read(["book.txt"])


def begin(corpus, name, **settings):
    settings = {"batch_size": 4, "seq_length": 8, "steps": 40, "dropout": 0.2, "learning_rate": 0.01, **settings}
    config = plan(corpus, SHAPE, TrainConfig(**settings), set(settings))
    return Run.create(Path("runs") / name, config, corpus)


def training(run, corpus, model=None):
    settings = run.config.train
    ids, validation = corpus.split(settings.validation)
    model = model or CharLM(len(corpus.vocabulary), run.config.model, settings.random_seed)
    streams = Streams(ids, settings.batch_size, settings.seq_length)
    return closing(train(model, corpus.vocabulary, streams, validation, run))


def finish(run, corpus, stop_at=None):
    """Train to the end, or until an update is made or a validation done at the step given; return the records."""
    seen = []
    with training(run, corpus) as records:
        for record in records:
            seen.append(record)
            step = record.record["step"] if isinstance(record, Validation) else record.step
            if stop_at is not None and step >= stop_at:
                break
    return seen


def told(run):
    """What a run leaves, without its clocks."""
    metrics = [{k: v for k, v in record.items() if k not in CLOCK} for record in run.metrics()]
    checkpoint = Checkpoint.read(run.checkpoint_path)
    progress = {k: v for k, v in checkpoint.summary["progress"].items() if k not in ("clock", "seconds")}
    arrays = {name: array.tobytes() for name, array in {**checkpoint.weights, **checkpoint.extra}.items()}
    return metrics, progress, arrays, run.model_path.read_bytes()


def test_forty_steps_at_once_and_interrupted_are_the_same_bytes(corpus):
    whole = begin(corpus, "whole")
    finish(whole, corpus)
    parts = begin(corpus, "parts")
    for stop in (1, 20, 23, None):
        finish(parts, corpus, stop)
        parts = Run(parts.path)
    a, b = told(whole), told(parts)
    assert a[0] == b[0]
    assert a[1] == b[1]
    assert a[2] == b[2]
    # the name of the text is that of the run's own text, so the best models are equal files
    assert a[3] == b[3]


def test_training_learns_and_keeps_the_best_model(corpus):
    run = begin(corpus, "run", steps=150, learning_rate=0.03, dropout=0.0)
    finish(run, corpus)
    metrics = run.metrics()
    assert metrics[-1]["step"] == 150
    assert metrics[-1]["validation_bpc"] < metrics[0]["validation_bpc"] - 0.3
    best = min(metrics, key=lambda m: m["validation_bpc"])
    assert ModelFile.read(run.model_path).summary["validation_bpc"] == best["validation_bpc"]
    assert ModelFile.read(run.model_path).summary["step"] == best["step"]
    assert set(metrics[0]) == {
        "step", "epoch", "characters", "seconds", "training_bpc", "validation_bpc", "learning_rate",
        "characters_per_second",
    }  # fmt: skip
    assert [m["step"] for m in metrics] == sorted({m["step"] for m in metrics})
    assert all(json.loads(json.dumps(m)) == m for m in metrics)


def test_a_checkpoint_is_there_before_the_first_step(corpus):
    run = begin(corpus, "run")
    with training(run, corpus) as records:
        next(records)
        assert Checkpoint.read(run.checkpoint_path).summary["progress"]["step"] == 0


def test_validation_leaves_the_training_alone(corpus, monkeypatch):
    often, seldom = begin(corpus, "often"), begin(corpus, "seldom")
    monkeypatch.setattr("chargen.train.FEWEST_STEPS", 3)
    monkeypatch.setattr("chargen.train.VALIDATIONS_PER_EPOCH", 100)
    finish(often, corpus)
    monkeypatch.setattr("chargen.train.FEWEST_STEPS", 1000)
    finish(seldom, corpus)
    assert len(often.metrics()) == 14
    assert len(seldom.metrics()) == 1
    assert told(often)[2] == told(seldom)[2]


def test_patience_ends_a_run_that_no_longer_gains(corpus):
    run = begin(corpus, "run", patience=2, steps=2000, learning_rate=1e-12, clip_norm=1e-3)
    records = finish(run, corpus)
    validations = [r for r in records if isinstance(r, Validation)]
    assert [v.best for v in validations[-2:]] == [False, False]
    assert run.metrics()[-1]["step"] < 2000
    with pytest.raises(ChargenError, match="is finished"):
        finish(run, corpus)


def test_a_finished_run_is_trained_further_with_a_new_schedule(corpus):
    run = begin(corpus, "run")
    finish(run, corpus)
    before = run.metrics()
    run.reconfigure(resume(run, corpus, TrainConfig(steps=30), {"steps"}))
    again = Run(run.path)
    finish(again, corpus, 50)
    finish(Run(run.path), corpus)
    metrics = again.metrics()
    assert metrics[: len(before)] == before
    assert metrics[-1]["step"] == 70
    assert max(m["learning_rate"] for m in metrics[len(before) :]) > 10 * before[-1]["learning_rate"]


def test_a_step_that_is_not_finite_is_not_applied(corpus):
    run = begin(corpus, "run")
    model = CharLM(len(corpus.vocabulary), SHAPE)
    update = compile_step(model, Adam(model.named_weights(), 1.0), run.config.train)
    window = Streams(corpus.ids, 4, 8).read(0)
    before = model.arrays()
    state = tf.nest.map_structure(lambda s: s * np.nan, model.zero_state(4))
    keep = (window.x, window.y, window.begins & False)
    _, nats, made = update(*keep, state, tf.constant(0, tf.int64), tf.constant(0.01))
    assert not made
    assert np.isnan(nats)
    assert all((array == before[name]).all() for name, array in model.arrays().items())
    _, _, made = update(*keep, model.zero_state(4), tf.constant(0, tf.int64), tf.constant(0.01))
    assert made
    assert not (model.arrays()["embedding"] == before["embedding"]).all()


def poisoned(monkeypatch, steps):
    """Make the steps given give a loss that is not a number, as often as they are named."""
    left = list(steps)

    def compiled(*arguments):
        update = compile_step(*arguments)

        def poisoning(x, y, begins, state, step, rate):
            after, nats, made = update(x, y, begins, state, step, rate)
            if left and int(step) == left[0]:
                left.pop(0)
                return after, nats * np.nan, tf.constant(False)
            return after, nats, made

        return poisoning

    monkeypatch.setattr("chargen.train.compile_step", compiled)


def test_divergence_goes_back_to_the_last_checkpoint_at_half_the_rate(corpus, monkeypatch):
    poisoned(monkeypatch, [25, 33])
    run = begin(corpus, "run")
    records = finish(run, corpus)
    recoveries = [r for r in records if isinstance(r, Recovery)]
    assert [r.factor for r in recoveries] == [0.5, 0.25]
    assert all(r.step <= failed for r, failed in zip(recoveries, (25, 33), strict=True))
    assert run.metrics()[-1]["step"] == 40
    assert [m["step"] for m in run.metrics()] == sorted({m["step"] for m in run.metrics()})
    progress = Progress.of(Checkpoint.read(run.checkpoint_path))
    assert (progress.factor, progress.recoveries) == (0.25, 2)
    assert all(isinstance(r, Step | Validation | Recovery) for r in records)


def test_training_gives_up_after_three_divergences_with_the_best_model_intact(corpus, monkeypatch):
    poisoned(monkeypatch, [30] * (MOST_RECOVERIES + 1))
    monkeypatch.setattr("chargen.train.VALIDATIONS_PER_EPOCH", 20)
    run = begin(corpus, "run")
    with pytest.raises(ChargenError, match=r"diverged.*--learning-rate"):
        finish(run, corpus)
    assert ModelFile.read(run.model_path).summary["step"] <= 30


def test_a_full_disk_ends_training_with_the_earlier_files_intact(corpus, monkeypatch):
    run = begin(corpus, "run")
    finish(run, corpus, 20)
    before = {file.name: file.read_bytes() for file in run.path.iterdir()}

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ChargenError, match="No space left on device"):
        finish(run, corpus)
    assert {file.name: file.read_bytes() for file in run.path.iterdir()} == before
