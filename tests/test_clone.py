import numpy as np
import pytest

from chargen.clone import WINDOW, Clone
from chargen.config import ModelConfig
from chargen.model import CharLM
from chargen.run import find_model, open_model
from chargen.vocabulary import Vocabulary

LETTERS = Vocabulary("abcdefghijk")


@pytest.fixture(scope="module", params=[1, 2, 3])
def model(request):
    return CharLM(len(LETTERS), ModelConfig(layers=request.param, units=9, embedding=4), random_seed=request.param)


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(4).integers(0, len(LETTERS), 2 * WINDOW + 7)


def test_the_clone_gives_the_logits_of_the_model(model, ids):
    expected, state = model(ids[None].astype(np.int32), model.zero_state(1))
    clone = Clone(model.arrays(), LETTERS)
    np.testing.assert_allclose(clone.read(ids), expected[0], atol=1e-5)
    for ours, theirs in zip(clone.state, state, strict=True):
        np.testing.assert_allclose(ours.h, theirs.h[0], atol=1e-5)
        np.testing.assert_allclose(ours.c, theirs.c[0], atol=1e-5)


def test_feeding_at_once_and_one_by_one_are_the_same(model, ids):
    clone, other = (Clone(model.arrays(), LETTERS) for _ in range(2))
    for i in ids:
        logits = other.feed([i])
    np.testing.assert_allclose(clone.feed(ids), logits, atol=1e-5)
    np.testing.assert_allclose(clone.read(ids[:3])[-1], other.feed(ids[:3]), atol=1e-5)


def test_a_state_can_be_put_back_and_is_not_changed_by_reading(model, ids):
    clone = Clone(model.arrays(), LETTERS)
    clone.feed(ids[:5])
    kept = clone.state
    first = clone.feed(ids[5:9])
    clone.state = kept
    np.testing.assert_array_equal(clone.feed(ids[5:9]), first)
    clone.reset_states()
    assert not any(part.any() for layer in clone.state for part in layer)


def test_a_trained_run_opens_as_a_clone_and_agrees_with_the_model(trained, text):
    file = open_model(trained)
    clone = Clone.open(trained)
    ids = file.vocabulary.encode(text[-500:])
    expected, _ = CharLM.of(file)(ids[None].astype(np.int32), (model := CharLM.of(file)).zero_state(1))
    np.testing.assert_allclose(clone.read(ids), expected[0], atol=1e-4)
    assert (Clone.open(find_model(trained)).feed(ids) == Clone.open(str(trained)).feed(ids)).all()
    assert model.config.layers == 2
