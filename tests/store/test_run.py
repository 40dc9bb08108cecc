import json
import os
import shutil
from dataclasses import replace

import pytest

from chargen import ChargenError
from chargen.config import TrainConfig
from chargen.store.run import Progress, Run, find_model, newest
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
