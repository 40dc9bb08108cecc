import csv
import itertools
import re
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen import ChargenError
from chargen.config import ModelConfig, TrainConfig
from chargen.store.modelfile import Checkpoint, weight_shapes
from chargen.store.run import Run
from chargen.store.runconfig import Knot
from chargen.text.corpus import read
from chargen.text.vocabulary import Vocabulary
from chargen.training.plan import (
    WEIGHTS_PER_UNIT,
    Machine,
    Request,
    dropout_rates,
    fixed,
    plan,
    reason,
    resume,
    sizes,
    training_speed,
)

SPEED = 3e11  # operations a second


@pytest.fixture
def corpus(here):
    return read(["book.txt"])


def planned(corpus, **settings):
    return plan(Request({}, TrainConfig(**settings), set(settings)), corpus, Machine(SPEED))


def test_epochs_are_turned_into_steps_of_the_training_part(corpus):
    config = planned(corpus, epochs=2.5, batch_size=4, seq_length=10)
    characters = len(corpus.ids) - round(len(corpus.ids) * 0.1)
    assert config.stop == round(2.5 * ((characters - 1) // 40))
    assert planned(corpus, steps=7).stop == 7
    assert planned(corpus, epochs=1e-9).stop == 1


def test_sizes_that_were_not_asked_for_shrink_to_a_small_text(corpus):
    small = replace(corpus, ids=corpus.ids[:200])
    default = planned(small).train
    assert default.batch_size * default.seq_length <= 180
    assert default.batch_size < TrainConfig().batch_size
    assert default.minutes == 10
    asked = planned(small, batch_size=20).train
    assert (asked.batch_size, asked.seq_length) == (20, 8)
    assert planned(small, seq_length=30).train.seq_length == 30
    both = planned(small, batch_size=300, seq_length=300).train
    assert (both.batch_size, both.seq_length) == (300, 300)


def checkpointed(corpus, asked=None, **progress):
    run = Run.create(None, planned(corpus, steps=10, **(asked or {})), corpus)
    file = Checkpoint({}, corpus.vocabulary, run.config.model, {"progress": progress}, {})
    run.checkpoint = lambda: file  # type: ignore[method-assign]
    return run


def test_a_finished_run_gets_a_new_schedule_from_where_it_is(corpus):
    run = checkpointed(corpus, step=10, finished=True)
    config = resume(run, corpus, Request({}, TrainConfig(steps=5, patience=3), {"steps", "patience"}))
    assert (config.start, config.stop, config.train.steps, config.train.patience) == (10, 15, 5, 3)
    assert resume(run, corpus, Request({}, TrainConfig(minutes=2.0), {"minutes"})).stop is None
    assert resume(run, corpus, Request({}, TrainConfig(), set())) == run.config  # without one it stays finished


def test_dropout_is_chosen_again_for_a_new_schedule_unless_it_was_asked_for(corpus):
    """By all that will have been read, from the first step on."""
    for asked in ({}, {"dropout": 0.3, "weight_drop": 0.2}):
        run = checkpointed(corpus, {"batch_size": 4, "seq_length": 10, **asked}, step=10, finished=True)
        assert {"dropout": 0, "weight_drop": 0, **asked}.items() <= run.config.train.to_json().items()
        config = resume(run, corpus, Request({}, TrainConfig(epochs=20), {"epochs"}))
        characters = len(corpus.split(run.config.train)[0].ids)
        own = asked or dropout_rates(config.model.units, characters, (config.stop or 0) * 40 / characters)
        assert own["weight_drop"] > 0
        assert own.items() <= config.train.to_json().items()
        replanned = replace(run.config, stop=1000, knot=Knot(9, 0.5, first_stop=10))  # which does not choose dropout
        for config in (run.config, replanned):
            run.config = config
            later = resume(run, corpus, Request({}, TrainConfig(minutes=3.0), {"minutes"}))
            assert (asked or dict.fromkeys(own)).items() <= later.train.to_json().items()
            assert later.knot is None


def test_the_schedule_of_an_unfinished_run_stays(corpus):
    run = checkpointed(corpus, step=4)
    assert resume(run, corpus, Request({}, TrainConfig(steps=99), set())) == run.config
    with pytest.raises(ChargenError, match=r"--steps would change the schedule.*chargen train --resume runs/book"):
        resume(run, corpus, Request({}, TrainConfig(steps=5), {"steps"}))


@pytest.mark.parametrize("characters", [150_000, 1_000_000, 5_000_000])
def test_more_time_takes_a_larger_layer(characters):
    units = [sizes(characters, 80, TrainConfig(minutes=m), SPEED)["units"] for m in (1, 10, 60)]
    assert units[0] < units[1] < units[2]


@given(st.integers(1, 2000), st.integers(100, 10**9), st.floats(0, 1000), st.floats(1, 10))
def test_dropout_grows_with_passes_and_units_and_shrinks_with_the_text(units, characters, passes, more):
    least = dropout_rates(units, characters, passes)
    assert all(0 <= share <= 0.4 for share in least.values())
    for other in (
        dropout_rates(units, characters, passes * more),
        dropout_rates(round(units * more), characters, passes),
        dropout_rates(units, max(1, round(characters / more)), passes),
    ):
        assert least["dropout"] <= other["dropout"]
        assert least["weight_drop"] <= other["weight_drop"]


def test_a_text_that_is_read_once_or_twice_gets_no_dropout():
    assert dropout_rates(1280, 200_000, 2) == {"dropout": 0, "weight_drop": 0}


def test_dropout_is_chosen_when_the_steps_are_known_unless_it_is_explicit(corpus):
    def shares(config):
        return config.train.to_json()["dropout"], config.train.to_json()["weight_drop"]

    config = planned(corpus, minutes=1, batch_size=4, seq_length=10)
    assert (config.stop, *shares(config)) == (None, None, None)
    few, many = (fixed(config, steps, 100_000) for steps in (8_000, 50_000))
    assert (few.stop, many.stop) == (8_000, 50_000)
    assert shares(few) == tuple(dropout_rates(few.model.units, 100_000, 3.2).values())
    assert 0 < shares(few)[0] < shares(many)[0]
    assert 0 == shares(few)[1] < shares(many)[1]
    own = fixed(planned(corpus, minutes=1, dropout=0.9, weight_drop=0.1), 50, 100_000)
    assert shares(own) == (0.9, 0.1)


def test_epochs_choose_by_what_is_read_and_minutes_by_what_would_be(corpus):
    few, many = (sizes(1_000_000, 80, TrainConfig(epochs=e), SPEED) for e in (1, 50))
    assert few["units"] < many["units"]
    once, often = (plan(Request({"units": 8}, TrainConfig(epochs=e)), corpus, Machine(SPEED)) for e in (1, 50))
    assert (once.train.dropout or 0) < (often.train.dropout or 0)
    assert sizes(1_000_000, 80, TrainConfig(steps=1000), 1) == sizes(1_000_000, 80, TrainConfig(epochs=4.096), 9)
    own = plan(Request({"units": 7}, TrainConfig(dropout=0.9), {"dropout"}), corpus, Machine(SPEED))
    assert (own.model.units, own.train.dropout) == (7, 0.9)


def test_a_wider_layer_learns_at_a_lower_rate_whoever_chose_its_width(corpus):
    rates = [sizes(1_000_000, 80, TrainConfig(epochs=1), SPEED, units)["learning_rate"] for units in (9, 64, 256, 1024)]
    assert rates == [0.03, 0.03, 0.0213, 0.0106]
    assert planned(corpus, epochs=1, learning_rate=0.5).train.learning_rate == 0.5


def test_the_guess_counts_what_a_unit_costs_beside_its_weights(corpus):
    def read_in_a_minute(units):
        config = plan(Request({"units": units}, TrainConfig(minutes=1)), corpus, Machine(SPEED))
        (read,) = re.findall(r"read about ([\d,]+) characters", reason(config, corpus, SPEED))
        return int(read.replace(",", ""))

    half, whole = read_in_a_minute(128), read_in_a_minute(256)
    assert 2 < half / whole < 3  # the weights alone make it more than 3


def test_a_large_vocabulary_takes_a_last_layer_of_low_rank_unless_it_is_asked_to_be_whole(corpus):
    train = TrainConfig(steps=5)
    few, many = (sizes(1_000_000, distinct, train, SPEED, 384)["output_rank"] for distinct in (1999, 2000))
    assert (few, many) == (0, 64)
    assert sizes(1_000_000, 5000, train, SPEED, 3)["output_rank"] == 1
    large = replace(corpus, vocabulary=Vocabulary("".join(map(chr, range(0x4E00, 0x4E00 + 3000)))))
    assert plan(Request({"units": 60}, train), large, Machine(SPEED)).model.output_rank == 10
    assert plan(Request({"units": 60, "output_rank": 0}, train), large, Machine(SPEED)).model.output_rank == 0


def test_a_slower_machine_takes_a_smaller_layer(corpus):
    fast, slow = (sizes(1_000_000, 80, TrainConfig(minutes=10), speed)["units"] for speed in (SPEED, SPEED / 4))
    assert slow < fast
    assert 1e9 < training_speed(TrainConfig(precision="float32")) < 1e14


def test_the_same_products_make_a_machine_faster_that_computes_in_bfloat16(monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: next(clock) / 10)
    assert training_speed(TrainConfig(precision="bfloat16")) > 1.5 * training_speed(TrainConfig(precision="float32"))


# ---- the rule against the trials ----------------------------------------------------------------------------------

TRIALS = list(csv.DictReader((Path(__file__).parents[1] / "trials.csv").read_text("utf-8").splitlines()))
TRAINING_CHARACTERS = {"play": 1_003_854, "book": 197_625}
NEAR = 0.01  # nats


def trials(what, *group):
    """The trials of a choice, in groups that differ in nothing else: the mean nats by setting."""
    groups: dict[tuple[str, ...], dict[tuple[str, ...], list[float]]] = {}
    choice = {"dropout": ("dropout", "weight drop"), "learning rate": ("learning rate",), "units": ("units",)}[what]
    for trial in (trial for trial in TRIALS if trial["what"] == what):
        same = groups.setdefault(tuple(trial[name] for name in group), {})
        same.setdefault(tuple(trial[name] for name in choice), []).append(float(trial["nats"]))
    return [
        (key, {tuple(map(float, setting)): sum(nats) / len(nats) for setting, nats in found.items()})
        for key, found in groups.items()
    ]


def check_near_the_best(chosen, tried):
    """The setting that was tried nearest to the chosen one."""
    nearest = min(tried, key=lambda setting: sum((a - b) ** 2 for a, b in zip(setting, chosen, strict=True)))
    assert tried[nearest] <= min(tried.values()) + NEAR, (chosen, nearest, tried)


@pytest.mark.parametrize(("key", "tried"), trials("dropout", "text", "units", "passes"))
def test_the_rules_dropout_is_near_the_best_that_was_tried(key, tried):
    text, units, passes = key
    rates = dropout_rates(int(units), TRAINING_CHARACTERS[text], float(passes))
    check_near_the_best(tuple(rates.values()), tried)


@pytest.mark.parametrize(("key", "tried"), trials("learning rate", "units", "steps"))
def test_the_rules_learning_rate_is_near_the_best_that_was_tried(key, tried):
    units, steps = map(int, key)
    chosen = sizes(TRAINING_CHARACTERS["play"], 65, TrainConfig(steps=steps), SPEED, units)["learning_rate"]
    check_near_the_best((chosen,), tried)


@pytest.mark.parametrize(("key", "tried"), trials("units", "text"))
def test_the_rules_units_are_near_the_best_that_were_tried(key, tried):
    # A machine whose minute reads 2 million characters with 320 units, as that of the trials did.
    model = sum(map(prod, weight_shapes(65, ModelConfig(units=320)).values())) + WEIGHTS_PER_UNIT * 320
    speed = 2.0e6 * 6 * model / 60
    chosen = sizes(TRAINING_CHARACTERS[key[0]], 65, TrainConfig(minutes=1.0), speed)["units"]
    check_near_the_best((chosen,), tried)
