from dataclasses import replace

import pytest

from chargen import ChargenError
from chargen.config import ModelConfig, TrainConfig
from chargen.corpus import read
from chargen.modelfile import Checkpoint
from chargen.plan import plan, resume
from chargen.run import Run


@pytest.fixture
def corpus(here):
    return read(["book.txt"])


def planned(corpus, *, asked=(), **settings):
    return plan(corpus, ModelConfig(), TrainConfig(**settings), set(asked) | set(settings))


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
    asked = planned(small, batch_size=20).train
    assert (asked.batch_size, asked.seq_length) == (20, 8)
    assert planned(small, seq_length=30).train.seq_length == 30
    both = planned(small, batch_size=300, seq_length=300).train
    assert (both.batch_size, both.seq_length) == (300, 300)


def checkpointed(corpus, **progress):
    run = Run.create(None, planned(corpus, steps=10), corpus)
    file = Checkpoint({}, corpus.vocabulary, run.config.model, {"progress": progress}, {})
    run.checkpoint = lambda: file  # type: ignore[method-assign]
    return run


def test_a_finished_run_gets_a_new_schedule_from_where_it_is(corpus):
    run = checkpointed(corpus, step=10, finished=True)
    config = resume(run, corpus, TrainConfig(steps=5, patience=3), {"steps", "patience"})
    assert (config.start, config.stop, config.train.steps, config.train.patience) == (10, 15, 5, 3)
    with pytest.raises(ChargenError, match=r"finished, at step 10.*--epochs"):
        resume(run, corpus, TrainConfig(), set())


def test_the_schedule_of_an_unfinished_run_stays(corpus):
    run = checkpointed(corpus, step=4)
    assert resume(run, corpus, TrainConfig(steps=99), set()) == run.config
    with pytest.raises(ChargenError, match=r"--steps would change the schedule.*chargen train --resume runs/book"):
        resume(run, corpus, TrainConfig(steps=5), {"steps"})
