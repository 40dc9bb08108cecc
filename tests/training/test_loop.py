import itertools
import json
import os
import shutil
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from chargen import ChargenError
from chargen.bits import bits
from chargen.config import ModelConfig, TrainConfig
from chargen.network.model import CharLM
from chargen.store.modelfile import Checkpoint, ModelFile
from chargen.store.run import Progress, Run
from chargen.text.corpus import read
from chargen.text.streams import Streams
from chargen.training.evaluate import in_order, score
from chargen.training.jobs import Job
from chargen.training.loop import (
    MOST_RECOVERIES,
    TEMPERATURES,
    Recovery,
    Session,
    Step,
    Validation,
    train,
)
from chargen.training.optimizer import Adam
from chargen.training.plan import Machine, Request, plan, resume
from chargen.training.schedule import (
    READ_BETWEEN,
    Planned,
    Seconds,
    TextSizes,
    learning_rate,
    steps_in,
    validation_interval,
)
from chargen.training.step import Controls, compile_step

SHAPE = ModelConfig(layers=2, units=8, embedding=4)
ASKED = {"batch_size", "seq_length"}  # of the plan, so that it leaves them alone
CLOCK = ("seconds", "characters_per_second")


@pytest.fixture
def corpus(here):
    return read(["book.txt"])


@pytest.fixture
def often(monkeypatch):
    """Validate as often as a run may, however long the validation text is."""
    monkeypatch.setattr("chargen.training.schedule.READ_BETWEEN", 0)


def begin(corpus, name, shape=SHAPE, **settings):
    settings = {"batch_size": 4, "seq_length": 8, "dropout": 0.2, "weight_drop": 0.0, "learning_rate": 0.01, **settings}
    settings |= {} if {"minutes", "steps"} & set(settings) else {"steps": 40}
    config = plan(Request(shape.to_json(), TrainConfig(**settings), set(settings)), corpus, Machine(1e11))
    return Run.create(Path("runs") / name, config, corpus)


def training(run, corpus, model=None):
    model = model or CharLM(len(corpus.vocabulary), run.config.model, run.config.train.random_seed)
    return closing(train(Session(Job.of(run, corpus), model)))


def finish(run, corpus, stop_at=None):
    """Train to the end, or until an update is made or a validation done at the step given; return the records."""
    seen = []
    with training(run, corpus) as records:
        for record in records:
            seen.append(record)
            step = record.record["step"] if isinstance(record, Validation) else getattr(record, "step", 0)
            if stop_at is not None and step >= stop_at:
                break
    return seen


def told(run):
    """What a run leaves, without its clocks."""
    metrics = [{k: v for k, v in record.items() if k not in CLOCK} for record in run.metrics()]
    checkpoint = Checkpoint.read(run.checkpoint_path)
    progress = {k: v for k, v in checkpoint.summary["progress"].items() if k not in ("clock", "seconds", "used")}
    arrays = {name: array.tobytes() for name, array in {**checkpoint.weights, **checkpoint.extra}.items()}
    return metrics, progress, arrays, run.model_path.read_bytes()


class Killed(BaseException):
    """In place of a signal that ends the process."""


def killed_at(monkeypatch, rename, when):
    """Let the process end before or after the rename of that number."""
    replace_file, count = os.replace, itertools.count()

    def replacing(*arguments):
        number = next(count)
        if number == rename and when == "before":
            raise Killed
        replace_file(*arguments)
        if number == rename:
            raise Killed

    monkeypatch.setattr("os.replace", replacing)
    return count


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_killed_at_any_write_goes_on_to_the_same_bytes(corpus, fake, often, monkeypatch, when):
    def trained(name):
        path = Path("runs") / name
        run = Run(path) if path.exists() else begin(corpus, name, steps=20)
        checkpoint = run.checkpoint()
        if checkpoint is None or not run.finished(Progress.of(checkpoint)):
            finish(run, corpus)
        return told(run)

    with monkeypatch.context() as patch:
        count = killed_at(patch, None, when)
        whole = trained("whole")
        writes = next(count)
    assert writes >= 8  # the folder, metrics and checkpoint at the start and at both validations, the best model
    for rename in range(writes):
        with monkeypatch.context() as patch:
            killed_at(patch, rename, when)
            with pytest.raises(Killed):
                trained(f"run-{rename}")
        assert trained(f"run-{rename}") == whole, rename


def test_a_run_of_lines_as_documents_goes_on_to_the_same_bytes(here, fake, often):
    corpus = read(["book.txt"], TrainConfig(document="line"))
    assert len(corpus.starts) > 50
    whole, parts = (begin(corpus, name, document="line") for name in ("whole", "parts"))
    finish(whole, corpus)
    for stop in (1, 20, 23, None):
        finish(parts, corpus, stop)
        parts = Run(parts.path)
    assert told(whole) == told(parts)


@pytest.mark.long
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


@pytest.mark.long
def test_a_last_layer_of_low_rank_is_trained_stopped_and_gone_on_with(corpus):
    shape = replace(SHAPE, output_rank=3)
    whole, parts = (begin(corpus, name, shape, steps=120, learning_rate=0.03) for name in ("whole", "parts"))
    finish(whole, corpus)
    finish(parts, corpus, 50)
    assert Checkpoint.read(parts.checkpoint_path).weights["dense/factor"].shape == (8, 3)
    finish(Run(parts.path), corpus)
    assert told(whole)[0] == told(parts)[0]
    assert told(whole)[2] == told(parts)[2]
    metrics = whole.metrics()
    assert metrics[-1]["validation_bpc"] < metrics[0]["training_bpc"] - 0.3
    file = ModelFile.read(whole.model_path)
    nats = score(
        corpus.vocabulary.decode(corpus.split(whole.config.train)[1].ids), file.vocabulary, in_order(CharLM.of(file))
    )
    assert bits(nats.nats_per_character) == pytest.approx(metrics[-1]["validation_bpc"], abs=5e-3)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.long), 3])
def test_the_best_model_has_the_temperature_at_which_the_validation_text_costs_least(here, rank):
    """Letters at random can be learnt by heart, but not foretold."""
    (here / "noise.txt").write_text("".join(np.random.default_rng(1).choice(list("abcdef"), 3000)))
    corpus = read(["noise.txt"])
    shape = ModelConfig(units=16, embedding=4, output_rank=rank)
    run = begin(corpus, "run", shape, steps=80, learning_rate=0.03, dropout=0.0)
    finish(run, corpus)
    (last,) = run.metrics()
    raw = CharLM(len(corpus.vocabulary), shape)
    raw.assign(Checkpoint.read(run.checkpoint_path).weights)
    ids = corpus.split(run.config.train)[1].ids
    nats = {round(t, 4): in_order(raw, temperatures=[t])(ids).mean(dtype="float64") for t in TEMPERATURES}
    best = min(nats, key=nats.__getitem__)
    assert last["temperature"] == best > 1
    assert last["validation_bpc"] == pytest.approx(bits(nats[best]), abs=1e-5)
    assert last["validation_bpc"] < bits(nats[1.0]) - 0.001
    file, trained = ModelFile.read(run.model_path), ModelFile.read(run.model_path).for_training()
    assert file.summary["step"] == last["step"]
    x, state = ids[None].astype(np.int32), raw.zero_state(1)
    np.testing.assert_allclose(CharLM.of(file)(x, state)[0], raw(x, state)[0] / best, rtol=1e-3, atol=1e-4)
    for name, array in trained.weights.items():  # from which another run may begin
        np.testing.assert_allclose(array, raw.arrays()[name], rtol=1e-5)


def test_training_learns_and_keeps_the_best_model(corpus, often):
    run = begin(corpus, "run", steps=150, learning_rate=0.03, dropout=0.0)
    finish(run, corpus)
    metrics = run.metrics()
    assert metrics[-1]["step"] == 150
    assert metrics[-1]["validation_bpc"] < metrics[0]["validation_bpc"] - 0.3
    best = min(metrics, key=lambda m: m["validation_bpc"])
    assert ModelFile.read(run.model_path).summary["validation_bpc"] == best["validation_bpc"]
    assert ModelFile.read(run.model_path).summary["step"] == best["step"]
    assert set(metrics[0]) == {
        "step", "epoch", "characters", "seconds", "training_bpc", "validation_bpc", "temperature",
        "learning_rate", "characters_per_second",
    }  # fmt: skip
    assert [m["step"] for m in metrics] == sorted({m["step"] for m in metrics})
    assert all(json.loads(json.dumps(m)) == m for m in metrics)


def test_a_checkpoint_is_there_before_the_first_step(corpus, fake):
    run = begin(corpus, "run")
    with training(run, corpus) as records:
        next(records)
        assert Checkpoint.read(run.checkpoint_path).summary["progress"]["step"] == 0


@pytest.mark.long
def test_validation_leaves_the_training_alone(corpus, monkeypatch):
    often, seldom = begin(corpus, "often"), begin(corpus, "seldom")
    monkeypatch.setattr("chargen.training.schedule.FEWEST_STEPS", 3)
    monkeypatch.setattr("chargen.training.schedule.MOST_VALIDATIONS", 100)
    monkeypatch.setattr("chargen.training.schedule.READ_BETWEEN", 0)
    finish(often, corpus)
    monkeypatch.setattr("chargen.training.schedule.FEWEST_STEPS", 1000)
    finish(seldom, corpus)
    assert [record["step"] for record in often.metrics()] == [*range(4, 41, 4)]
    assert len(seldom.metrics()) == 1
    assert told(often)[2] == told(seldom)[2]


def test_patience_ends_a_run_that_no_longer_gains(corpus, fake, often, monkeypatch):
    worse = itertools.count(2)  # each validation costs more than the one before
    monkeypatch.setattr(
        "chargen.training.loop.in_order", lambda *_: lambda ids, _: np.full((1, len(ids) - 1), next(worse))
    )
    run = begin(corpus, "run", patience=2, steps=2000)
    records = finish(run, corpus)
    validations = [r for r in records if isinstance(r, Validation)]
    assert [v.best for v in validations[-2:]] == [False, False]
    assert run.metrics()[-1]["step"] < 2000
    before = told(run)
    assert finish(run, corpus) == []  # nothing is left to do, which is success
    assert told(run) == before


def test_a_finished_run_is_trained_further_with_a_new_schedule(corpus, fake, often):
    run = begin(corpus, "run")
    finish(run, corpus)
    before = run.metrics()
    run.reconfigure(resume(run, corpus, Request({}, TrainConfig(steps=30), {"steps"})))
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
    keep = window._replace(begins=window.begins & False)
    _, nats, made, _ = update(keep, state, Controls(tf.constant(0, tf.int64), tf.constant(0.01)))
    assert not made
    assert np.isnan(nats)
    assert all((array == before[name]).all() for name, array in model.arrays().items())
    _, _, made, _ = update(keep, model.zero_state(4), Controls(tf.constant(0, tf.int64), tf.constant(0.01)))
    assert made
    assert not (model.arrays()["embedding"] == before["embedding"]).all()


def poisoned(monkeypatch, steps):
    """Let the updates that make the steps given be refused for a loss that is not a number, as often as named."""
    left, compiled = list(steps), sys.modules["chargen.training.loop"].compile_step

    def compiling(*arguments):
        update = compiled(*arguments)

        def poisoning(window, state, controls):
            result = update(window, state, controls)
            if left and int(controls.step) + 1 == left[0]:
                left.pop(0)
                return result._replace(nats=result.nats * np.nan, made=tf.constant(False))
            return result

        return poisoning

    monkeypatch.setattr("chargen.training.loop.compile_step", compiling)


@pytest.mark.parametrize("failing", [1, 2, 9, 10, 11, 25, 39, 40])  # validations are after steps 10, 20, 30 and 40
def test_divergence_goes_back_to_the_last_checkpoint_at_half_the_rate(corpus, fake, often, monkeypatch, failing):
    poisoned(monkeypatch, [failing])
    run = begin(corpus, "run")
    records = finish(run, corpus)
    assert [r for r in records if isinstance(r, Recovery)] == [Recovery(failing, (failing - 1) // 10 * 10, 0.5)]
    assert [m["step"] for m in run.metrics()] == [10, 20, 30, 40]
    progress = Progress.of(Checkpoint.read(run.checkpoint_path))
    assert (progress.step, progress.factor, progress.recoveries) == (40, 0.5, 1)
    # Nothing of the failed step is left: it is a run that took half the rate from the checkpoint on.
    rates = [m["learning_rate"] for m in run.metrics()]
    halved = [learning_rate(m["step"] - 1, 0, 40, 0.01) / (2 if m["step"] >= failing else 1) for m in run.metrics()]
    assert rates == pytest.approx(halved)


def test_each_divergence_halves_the_rate_again(corpus, fake, monkeypatch):
    poisoned(monkeypatch, [25, 33])
    recoveries = [r for r in finish(begin(corpus, "run"), corpus) if isinstance(r, Recovery)]
    assert recoveries == [Recovery(25, 0, 0.5), Recovery(33, 0, 0.25)]


def test_a_step_that_fails_just_before_the_planning_is_not_planned_from(corpus, fake, monkeypatch):
    """The planning saves a checkpoint, to which the next recovery goes back."""
    monkeypatch.setattr("chargen.training.loop.reading_time", lambda *_: 0.0)
    monkeypatch.setattr(
        "chargen.training.schedule.Stopwatch.has_measured", lambda self, _, again: not again and self._steps >= 3
    )
    poisoned(monkeypatch, [8])
    run = begin(corpus, "run", minutes=0.001)
    records = finish(run, corpus)
    recovery, planned = (r for r in records if not isinstance(r, Step | Validation))
    assert recovery == Recovery(8, 0, 0.5)  # step 7 wishes to plan, which is agreed to with step 8, whose update fails
    assert isinstance(planned, Planned)
    for name, array in Checkpoint.read(run.checkpoint_path).extra.items():
        assert np.isfinite(array).all(), name


def test_a_step_that_fails_as_training_is_stopped_is_not_kept(corpus, fake, monkeypatch):
    poisoned(monkeypatch, [13])
    run = begin(corpus, "run")
    finish(run, corpus, 13)
    assert Progress.of(Checkpoint.read(run.checkpoint_path)).step == 0


def test_training_gives_up_after_three_divergences_with_the_best_model_intact(corpus, fake, often, monkeypatch):
    poisoned(monkeypatch, [31] * (MOST_RECOVERIES + 1))
    run = begin(corpus, "run")
    with pytest.raises(ChargenError, match=r"diverged.*at step 31.*--learning-rate"):
        finish(run, corpus)
    assert ModelFile.read(run.model_path).summary["step"] in (10, 20, 30)


def test_a_full_disk_ends_training_with_the_earlier_files_intact(corpus, fake, monkeypatch):
    run = begin(corpus, "run")
    finish(run, corpus, 20)
    before = {file.name: file.read_bytes() for file in run.path.iterdir()}

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ChargenError, match="No space left on device"):
        finish(run, corpus)
    assert {file.name: file.read_bytes() for file in run.path.iterdir()} == before


def test_minutes_become_a_number_of_steps_when_the_speed_is_known(corpus, fake, often):
    run = begin(corpus, "run", minutes=0.02)
    assert run.config.stop is None
    seen = []
    with training(run, corpus) as records:
        for record in records:
            seen.append(record)
            if isinstance(record, Planned):
                break
    assert all(isinstance(record, Step) for record in seen[:-1])
    opened = Run(run.path)
    assert opened.config.stop == seen[-1].stop > Progress.of(Checkpoint.read(run.checkpoint_path)).step
    later = finish(opened, corpus)
    assert not any(isinstance(record, Planned) for record in later)
    assert opened.metrics()[-1]["step"] == opened.config.stop
    assert opened.metrics()[-1]["learning_rate"] < 0.01 / 10


def test_what_follows_from_the_number_of_steps_is_fixed_with_it_for_a_resumed_run_too(corpus, fake, monkeypatch):
    monkeypatch.setattr("chargen.training.schedule.CHANGED_SHARE", 1e9)  # whatever the clock says
    for free in ("DROPOUT", "WEIGHT_DROP"):  # as there is no time for many passes
        monkeypatch.setattr(f"chargen.training.plan.PASSES_WITHOUT_{free}", -1e6)
    config = plan(
        Request(SHAPE.to_json(), TrainConfig(minutes=0.02, batch_size=4, seq_length=8), {*ASKED, "minutes"}),
        corpus,
        Machine(1e11),
    )
    assert config.train.dropout is None
    run = Run.create(Path("runs/run"), config, corpus)
    with training(run, corpus) as records:
        for record in records:
            if isinstance(record, Planned):
                shutil.copytree(run.path, "runs/copied")
    copied = Run(Path("runs/copied"))
    assert (copied.config.train.dropout, copied.config.train.weight_drop) == (0.4, 0.2)
    assert Run(run.path).config == copied.config
    finish(copied, corpus)
    assert told(run)[:3] == told(copied)[:3]


def test_a_run_stopped_before_it_was_measured_is_measured_when_it_goes_on(corpus, fake):
    run = begin(corpus, "run", minutes=0.02)
    finish(run, corpus, 2)
    assert Run(run.path).config.stop is None
    finish(Run(run.path), corpus)
    assert run.metrics()[-1]["step"] == Run(run.path).config.stop


@given(
    steps=st.integers(1, 10**6), window=st.integers(1, 10**5), held_out=st.integers(1, 10**6),
    step=st.floats(1e-4, 10), validation=st.floats(0, 100), seconds=st.floats(-10, 10**5),
)  # fmt: skip
def test_the_steps_and_validations_of_a_budget_take_its_time(steps, window, held_out, step, validation, seconds):
    sizes = TextSizes(window, held_out, 1)
    every = validation_interval(steps, sizes)
    assert every == steps or every * window >= READ_BETWEEN * held_out
    parts = -(-steps // every)
    assert parts <= 30
    assert steps - (parts - 1) * every > every - parts  # the last part is about as long as the others
    count = steps_in(seconds, Seconds(step, validation), sizes)
    assert count >= 1
    if count > 1:
        taken = count * step + -(-count // validation_interval(count, sizes)) * validation
        assert taken <= seconds


def test_a_dropped_weight_gets_no_gradient_and_the_masks_are_of_the_step(corpus):
    """Adam moves every weight that has a gradient by about the rate, and none that has not."""
    settings = begin(corpus, "run", weight_drop=0.5).config.train
    window, moved = Streams(corpus.ids, 4, 8).read(0), []
    for step in (0, 0, 1):
        model = CharLM(len(corpus.vocabulary), SHAPE)
        before = model.arrays()
        update = compile_step(model, Adam(model.named_weights(), 1e6), settings)
        state = tf.nest.map_structure(lambda s: s + 0.1, model.zero_state(4))
        controls = Controls(tf.constant(step, tf.int64), tf.constant(0.01))
        update(window._replace(begins=window.begins & False), state, controls)
        moved.append({n: array != before[n] for n, array in model.arrays().items() if "recurrent" in n})
    for name, where in moved[0].items():
        assert 0.3 < where.mean() < 0.7, name
        assert (where == moved[1][name]).all()
        assert (where != moved[2][name]).any()
    assert (moved[0]["lstm_0/recurrent_kernel"] != moved[0]["lstm_1/recurrent_kernel"]).any()
