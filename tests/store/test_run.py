import json
import os
import re
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest

from chargen import ChargenError
from chargen.config import TrainConfig
from chargen.store.modelfile import Checkpoint, weight_shapes
from chargen.store.run import Progress, Run, find_model, newest
from chargen.store.runconfig import Knot
from chargen.text.corpus import read
from chargen.training.plan import Machine, Request, plan


@pytest.fixture
def corpus(here):
    return read(["book.txt"])


def made(corpus, path=None):
    return Run.create(path, plan(Request({}, TrainConfig(steps=100), {"steps"}), corpus, Machine(1e11)), corpus)


def test_a_run_is_named_after_its_text_and_never_replaces_another(corpus):
    assert [str(made(corpus).path) for _ in range(3)] == ["runs/book", "runs/book-2", "runs/book-3"]


def test_the_configuration_comes_back_as_it_was(corpus):
    run = made(corpus)
    assert Run(run.path).config == run.config


def test_a_folder_with_something_in_it_is_left_alone(corpus, here):
    (here / "mine").mkdir()
    (here / "mine" / "poem").write_text("roses")
    with pytest.raises(ChargenError, match="mine exists and is left as it is"):
        made(corpus, here / "mine")
    assert [f.name for f in here.iterdir() if f.name != "book.txt"] == ["mine"]
    assert [f.name for f in (here / "mine").iterdir()] == ["poem"]
    (here / "empty").mkdir()
    assert made(corpus, here / "empty").config_path.exists()


def test_a_folder_that_cannot_be_made_is_refused(corpus, here):
    with pytest.raises(ChargenError, match="can't be made: Not a directory"):
        made(corpus, here / "book.txt" / "run")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "model": 3}'])
def test_a_damaged_configuration_is_refused(corpus, content):
    run = made(corpus)
    run.config_path.write_text(content)
    with pytest.raises(ChargenError, match=r"config\.json"):
        Run(run.path)


def test_a_configuration_of_another_format_is_refused_with_both_numbers(corpus):
    run = made(corpus)
    run.config_path.write_text(json.dumps({"format": 9}))
    with pytest.raises(ChargenError, match="format: it is 9, and this chargen reads 1"):
        Run(run.path)


def test_a_changed_text_is_refused_and_a_moved_one_is_asked_for(corpus, here, text):
    run = made(corpus)
    assert (run.corpus().ids == corpus.ids).all()
    (here / "book.txt").write_text(text + "!")
    with pytest.raises(ChargenError, match="the text has changed"):
        run.corpus()
    (here / "book.txt").unlink()
    with pytest.raises(ChargenError, match=r"book\.txt, is gone.*chargen train TEXT --resume runs/book"):
        run.corpus()
    (here / "moved.txt").write_text(text)
    assert (run.corpus(("moved.txt",)).ids == corpus.ids).all()


def test_the_newest_run_is_the_one_written_to_last(corpus, here):
    with pytest.raises(ChargenError, match="chargen train FILE"):
        newest()
    runs = [made(corpus) for _ in range(3)]
    for age, run in zip([30, 10, 20], runs, strict=True):
        when = run.config_path.stat().st_mtime - age
        os.utime(run.config_path, (when, when))
    assert newest() == runs[1].path


def test_a_run_without_a_model_says_how_to_get_one(corpus):
    run = made(corpus)
    with pytest.raises(ChargenError, match="chargen train --resume runs/book"):
        find_model(run.path)
    run.checkpoint_path.touch()
    assert find_model(run.path) == run.checkpoint_path
    run.model_path.touch()
    assert find_model(None) == run.model_path


def test_metrics_are_a_line_each(corpus):
    run = made(corpus)
    window = run.config.train.batch_size * run.config.train.seq_length
    rest = dict.fromkeys(
        ("epoch", "seconds", "training_bpc", "temperature", "learning_rate", "characters_per_second"), 1
    )
    records = [{"step": n, "validation_bpc": 3 - n / 2, "characters": n * window, **rest} for n in (1, 2)]
    assert run.metrics() == []
    run.write_metrics(records)
    assert run.metrics() == records
    assert (run.path / "metrics.jsonl").read_text().count("\n") == 2


def test_a_finished_run_stays_finished_until_a_new_schedule_starts_there(corpus):
    run = made(corpus)
    assert not run.finished(Progress(step=run.config.stop - 1))
    assert run.finished(Progress(step=run.config.stop, finished=True))


def test_a_text_from_standard_input_is_kept_in_the_run(corpus):
    run = made(replace(corpus, files=("-",)))
    assert (run.corpus().ids == corpus.ids).all()
    shutil.rmtree(run.path / "corpus")
    with pytest.raises(ChargenError, match="restore it, or start a new run"):
        run.corpus()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"knot": [1]}, "knot: "),
        ({"knot": {"step": 50, "progress": 0.5}}, "knot.first_stop: it is missing"),
        ({"knot": {"step": 50, "progress": 0.5, "first_stop": 90, "rate": 1}}, "'knot.rate': there is no such field"),
        ({"knot": {"step": -1, "progress": 0.5, "first_stop": 90}}, "knot.step: "),
        ({"knot": {"step": 0, "progress": 0.5, "first_stop": 90}}, "knot.step: it is not between the start and"),
        ({"knot": {"step": 100, "progress": 0.5, "first_stop": 90}}, "knot.step: it is not between the start and"),
        ({"knot": {"step": 50, "progress": 1, "first_stop": 90}}, "knot.progress: "),
        ({"knot": {"step": 50, "progress": -0.1, "first_stop": 90}}, "knot.progress: "),
        ({"knot": {"step": 50, "progress": float("nan"), "first_stop": 90}}, "knot.progress: "),
        ({"knot": {"step": 50, "progress": 0.5, "first_stop": 0}}, "knot.first_stop: it is not after the start"),
        ({"stop": None}, "knot: it is given, but no stop is"),
        ({"train": {"minutes": None, "steps": 100}}, "knot: it is given, but no minutes are"),
    ],
)
def test_an_impossible_knot_is_refused_by_its_field(corpus, changes, message):
    run = made(corpus)
    values = replace(run.config, knot=Knot(50, 0.5, 90)).to_json()
    values["train"] |= {"minutes": 2.0, "steps": None}
    run.config_path.write_text(json.dumps(values))
    assert Run(run.path).config.knot == Knot(50, 0.5, 90)
    changes = {**changes, "train": {**values["train"], **changes.get("train", {})}}
    run.config_path.write_text(json.dumps({**values, **changes}))
    with pytest.raises(ChargenError, match=f"config.json is damaged: {re.escape(message)}") as refused:
        Run(run.path)
    assert "\n" not in str(refused.value)


def test_a_checkpoint_before_the_knot_is_refused(corpus):
    run = made(corpus)
    config = replace(run.config, train=replace(run.config.train, minutes=2.0, steps=None), knot=Knot(50, 0.5, 90))
    run.reconfigure(config)
    weights = {n: np.zeros(s, np.float32) for n, s in weight_shapes(len(corpus.vocabulary), config.model).items()}
    for step in (49, 50):
        summary = {"sha256": corpus.sha256, "progress": asdict(Progress(step=step))}
        Checkpoint(weights, corpus.vocabulary, config.model, summary, {}).write(run.checkpoint_path)
        if step < 50:
            with pytest.raises(ChargenError, match=r"knot\.step: the checkpoint is at step 49, which is before it"):
                run.checkpoint()
    assert run.checkpoint() is not None
