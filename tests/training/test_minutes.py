"""Runs that were given minutes, by a simulated clock: when they end, and when they are planned again."""

import itertools
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from chargen.network.model import CharLM
from chargen.store.modelfile import Checkpoint
from chargen.store.run import Progress, Run
from chargen.text.corpus import read
from chargen.training.jobs import Job
from chargen.training.loop import Recovery, Session, Validation, train
from chargen.training.schedule import Planned, Replanned
from tests.training.test_loop import Killed, begin, killed_at, poisoned, told

MINUTES = 3.0
STEP, SCORING, PREVIEW, WRITING = 0.5, 0.15, 0.1, 0.05  # seconds at the first speed


class Clock:
    """A clock that only work moves on, by its seconds times ``slowness`` of the time."""

    def __init__(self):
        self.now = 0.0
        self.slowness = lambda now: 1.0
        self.rates = {}  # of the learning, by step

    def monotonic(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds * self.slowness(self.now)

    def spending(self, seconds, function):
        def spent(*arguments):
            self.spend(seconds)
            return function(*arguments)

        return spent


@pytest.fixture
def clock(fake, monkeypatch):
    loop, clock, write = sys.modules["chargen.training.loop"], Clock(), Checkpoint.write
    compiled, evaluation = loop.compile_step, loop.in_order

    def noting(update):
        def updating(window, state, controls):
            clock.rates[int(controls.step)] = float(controls.rate)
            return update(window, state, controls)

        return updating

    monkeypatch.setattr(loop, "compile_step", lambda *a: clock.spending(STEP, noting(compiled(*a))))
    monkeypatch.setattr(loop, "in_order", lambda *a: clock.spending(SCORING, evaluation(*a)))
    monkeypatch.setattr(loop, "reading_time", lambda *_: SCORING * clock.slowness(clock.now))
    monkeypatch.setattr(Checkpoint, "write", clock.spending(WRITING, write))
    for module in ("loop", "schedule"):
        monkeypatch.setattr(f"chargen.training.{module}.time", clock)
    return clock


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr("chargen.training.schedule.READ_BETWEEN", 0)


@pytest.fixture
def seldom(monkeypatch):
    """Validate only at the end, as with a long validation text."""
    monkeypatch.setattr("chargen.training.schedule.READ_BETWEEN", 1e6)


@pytest.fixture
def corpus(here):
    return read(["book.txt"])


def finish(run, corpus, clock, until=lambda record: False, start_up=0.0):
    """Train, and take a preview's time at each validation, until a record for which ``until`` is true."""
    seen, began = [], clock.now
    clock.now += start_up
    model = CharLM(len(corpus.vocabulary), run.config.model, run.config.train.random_seed)
    records = train(Session(Job.of(run, corpus), model), began=began)
    for record in records:
        seen.append(record)
        if isinstance(record, Validation):
            clock.spend(PREVIEW)
        if until(record):
            break
    records.close()
    return seen


def progress(run):
    return Progress.of(Checkpoint.read(run.checkpoint_path))


def changes(records):
    return [record for record in records if isinstance(record, Replanned)]


def from_half_time(slowness):
    return lambda now: slowness if now > 90 else 1.0


def test_a_run_given_minutes_ends_when_they_are_over(corpus, clock):
    run = begin(corpus, "run", minutes=MINUTES)
    records = finish(run, corpus, clock)
    (planned,) = (record for record in records if isinstance(record, Planned))
    assert planned.characters_per_second == pytest.approx(4 * 8 / STEP)
    assert not changes(records)
    assert clock.now == pytest.approx(180, abs=2)


@pytest.mark.parametrize("slowness", [0.5, 2.0])
@pytest.mark.parametrize("validations", ["often", pytest.param("seldom", marks=pytest.mark.long)])
def test_a_run_ends_in_its_minutes_though_the_speed_changes_at_half_time(corpus, clock, request, slowness, validations):
    request.getfixturevalue(validations)
    clock.slowness = from_half_time(slowness)
    run = begin(corpus, "run", minutes=MINUTES)
    records = finish(run, corpus, clock)
    (planned,) = (record for record in records if isinstance(record, Planned))
    again = changes(records)
    assert 1 <= len(again) <= 3
    assert clock.now == pytest.approx(180, rel=0.05)
    assert [planned.stop, *(r.stop for r in again)][:-1] == [r.before for r in again]
    assert (again[0].stop < again[0].before) == (slowness > 1)
    steps = [metric["step"] for metric in run.metrics()]
    assert steps[-1] == Run(run.path).config.stop == again[-1].stop
    if validations == "often":
        gaps = [after - before for before, after in itertools.pairwise(steps)]
        assert 20 <= len(steps) <= 32
        assert max(gaps) <= 2 * gaps[0]
    assert Run(run.path).config == run.config


@pytest.mark.parametrize("slowness", [0.5, 2.0])
def test_the_learning_rate_goes_on_from_where_it_is(corpus, clock, often, slowness):
    clock.slowness = from_half_time(slowness)
    run = begin(corpus, "run", minutes=MINUTES)
    records = finish(run, corpus, clock)
    (planned,) = (record for record in records if isinstance(record, Planned))
    rates = [rate for _, rate in sorted(clock.rates.items())][30:]  # after the warm-up
    falls = [before - after for before, after in itertools.pairwise(rates)]
    assert min(falls) >= 0
    assert max(falls) < 2.5 * run.config.train.learning_rate * 3.15 / 2 / planned.stop  # the steepest of a cosine
    assert rates[-1] == pytest.approx(run.config.train.learning_rate / 100)
    assert run.config.knot.first_stop == planned.stop


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_a_steady_speed_with_noise_is_planned_once(corpus, clock, often, seed):
    noise = random.Random(seed)
    clock.slowness = lambda now: noise.uniform(0.95, 1.05)
    run = begin(corpus, "run", minutes=MINUTES)
    assert not changes(finish(run, corpus, clock))
    assert run.config.knot is None
    assert clock.now == pytest.approx(180, rel=0.05)


def test_the_time_of_previews_and_checkpoints_counts(corpus, clock, often, monkeypatch):
    """A preview is first seen at the first validation, after the first plan."""
    monkeypatch.setattr(f"{__name__}.PREVIEW", 2.0)
    run = begin(corpus, "run", minutes=MINUTES)
    records = finish(run, corpus, clock)
    assert clock.now == pytest.approx(180, rel=0.05)
    assert changes(records)


def test_a_run_that_was_given_steps_is_not_planned_again(corpus, clock, often):
    clock.slowness = from_half_time(4.0)
    run = begin(corpus, "run", steps=500)
    records = finish(run, corpus, clock)
    assert not any(isinstance(record, Planned | Replanned) for record in records)
    assert run.metrics()[-1]["step"] == 500


def test_a_run_whose_minutes_are_over_anneals_in_a_few_steps(corpus, clock, often):
    clock.slowness = lambda now: 1000.0 if 90 < now < 100 else 1.0
    run = begin(corpus, "run", minutes=MINUTES)
    last = changes(finish(run, corpus, clock))[-1]
    assert last.stop == run.config.knot.step + 10
    assert run.metrics()[-1]["learning_rate"] == pytest.approx(run.config.train.learning_rate / 100)


def test_a_resumed_run_goes_on_with_the_rest_of_its_minutes(corpus, clock, often):
    run = begin(corpus, "run", minutes=MINUTES)
    finish(run, corpus, clock, lambda _: clock.now > 60)
    used = clock.now
    assert progress(run).used == pytest.approx(used, abs=1)
    clock.now += 5000
    records = finish(Run(run.path), corpus, clock, start_up=20)
    assert changes(records)  # as the start-up was not foreseen
    assert clock.now - 5000 == pytest.approx(180, rel=0.05)
    assert progress(run).used == pytest.approx(180, rel=0.05)


def test_a_run_stopped_before_its_plan_has_the_rest_of_its_minutes(corpus, clock):
    run = begin(corpus, "run", minutes=MINUTES)
    finish(run, corpus, clock, lambda _: clock.now > 5)
    assert Run(run.path).config.stop is None
    finish(Run(run.path), corpus, clock)
    assert clock.now == pytest.approx(180, rel=0.05)


def test_a_run_trained_further_has_all_of_its_new_minutes(corpus, clock):
    from chargen.config import TrainConfig
    from chargen.training.plan import Request, resume

    clock.slowness = from_half_time(2.0)
    run = begin(corpus, "run", minutes=MINUTES)
    finish(run, corpus, clock)
    run.reconfigure(resume(run, corpus, Request({}, TrainConfig(minutes=1.0), {"minutes"})))
    assert run.config.knot is None
    before = clock.now
    finish(Run(run.path), corpus, clock)
    assert clock.now - before == pytest.approx(60, rel=0.05)


@pytest.mark.long
def test_a_run_resumed_after_it_was_planned_again_ends_with_the_same_bytes(corpus, clock, often):
    clock.slowness = from_half_time(2.0)
    run = begin(corpus, "run", minutes=MINUTES)
    copies = (Path("runs") / f"copy-{number}" for number in itertools.count())

    def copying(record):
        if isinstance(record, Replanned):
            shutil.copytree(run.path, next(copies))

    finish(run, corpus, clock, copying)
    *_, last = sorted(Path("runs").glob("copy-*"))
    clock.now, clock.slowness = 1e6, lambda now: 2.0
    assert not changes(finish(Run(last), corpus, clock))
    assert Run(last).config == run.config
    assert told(Run(last)) == told(run)


@pytest.mark.parametrize(("write", "when"), [(0, "before"), (0, "after"), (1, "before"), (1, "after")])
@pytest.mark.long
def test_a_run_killed_while_it_is_planned_again_goes_on(corpus, clock, seldom, monkeypatch, write, when):
    """The checkpoint is written first, and the configuration then."""
    monkeypatch.setattr("chargen.training.loop.CHECKPOINT_SECONDS", 1000)
    clock.slowness = from_half_time(2.0)
    run = begin(corpus, "run", minutes=MINUTES)
    armed: list[object] = []

    def arming(_):
        if clock.now > 90 and not armed:
            armed.append(killed_at(patch, write, when))

    with monkeypatch.context() as patch, pytest.raises(Killed):
        finish(run, corpus, clock, arming)
    run = Run(run.path)
    assert (run.config.knot is not None) == ((write, when) == (1, "after"))
    step = progress(run).step
    assert step > 100 if (write, when) != (0, "before") else step < 40
    finish(run, corpus, clock)
    assert run.config.knot is not None
    assert run.config.knot.step >= step
    assert run.metrics()[-1]["step"] == Run(run.path).config.stop
    assert progress(run).used == pytest.approx(180, rel=0.05)


def test_a_divergence_after_the_run_was_planned_again_goes_back_to_that(corpus, clock, seldom, monkeypatch):
    clock.slowness = from_half_time(2.0)
    first = begin(corpus, "first", minutes=MINUTES)
    finish(first, corpus, clock)
    failing = first.config.knot.step + 5
    poisoned(monkeypatch, [failing])
    clock.now, run = 0.0, begin(corpus, "run", minutes=MINUTES)
    (recovery,) = (r for r in finish(run, corpus, clock) if isinstance(r, Recovery))
    assert recovery == Recovery(failing, first.config.knot.step, 0.5)
    assert clock.now == pytest.approx(180, rel=0.05)


def test_what_dropout_follows_from_stays_the_first_plan(corpus, clock, monkeypatch):
    run = begin(corpus, "run", minutes=MINUTES)
    clock.slowness = from_half_time(2.0)
    finish(run, corpus, clock)
    assert run.config.train == replace(run.config.train, dropout=0.2)
    assert run.config.first_stop > run.config.stop
