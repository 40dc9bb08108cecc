import keras
import numpy as np
import pytest
import tensorflow as tf

from chargen.bits import bits
from chargen.config import ModelConfig
from chargen.evaluate import ROWS, RUN_IN, evaluator
from chargen.model import CharLM
from chargen.run import open_model


@pytest.fixture(scope="module")
def model():
    return CharLM(5, ModelConfig(layers=2, units=8, embedding=4), random_seed=1)


def alone(model, ids):
    """The plain way: one row, from the first character to the last."""
    logits, _ = tf.function(model)(ids[None, :-1].astype(np.int32), model.zero_state(1))
    return float(np.sum(keras.losses.sparse_categorical_crossentropy(ids[None, 1:], logits, from_logits=True)))


@pytest.mark.parametrize("characters", [2, 3, 64, 65, 100, 1030, 2049, 5000])
def test_every_character_but_the_first_counts_once(model, characters):
    ids = np.random.default_rng(characters).integers(0, 5, characters).astype(np.uint8)
    score = evaluator(model)(ids)
    assert score.characters == characters - 1
    # A new model forgets fast, so the run-in leaves no trace: side by side is the same sum as alone.
    assert score.nats == pytest.approx(alone(model, ids), rel=1e-5)


def test_a_trained_model_scores_the_same_side_by_side_as_alone(trained, text):
    file = open_model(trained)
    model, ids = CharLM.of(file), file.vocabulary.encode(text)
    score = evaluator(model)(ids)
    assert len(ids) > 4 * 4 * RUN_IN  # so that several rows read it
    assert bits(score.nats / score.characters) == pytest.approx(bits(alone(model, ids) / (len(ids) - 1)), abs=0.002)


def test_a_short_text_is_read_by_one_row_and_a_long_one_by_many(model):
    rows = []
    zero_state = model.zero_state

    def noted(batch_size):
        rows.append(batch_size)
        return zero_state(batch_size)

    model.zero_state = noted
    try:
        evaluator(model)(np.zeros(4 * RUN_IN, np.uint8))
        evaluator(model)(np.zeros(4 * RUN_IN * ROWS + 1, np.uint8))
    finally:
        del model.zero_state
    assert rows == [1, ROWS]
