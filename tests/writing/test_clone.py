import numpy as np
import pytest
import tensorflow as tf

import chargen
from chargen import ChargenError
from chargen.config import ModelConfig
from chargen.network.model import CharLM
from chargen.store.run import find_model, open_model
from chargen.text.vocabulary import Vocabulary
from chargen.writing.clone import WINDOW, Clone
from chargen.writing.generate import Until, generate
from chargen.writing.sampler import generators

LETTERS = Vocabulary("abcdefghijk")


@pytest.fixture(scope="module", params=[1, 2, 3])
def model(request):
    return CharLM(len(LETTERS), ModelConfig(layers=request.param, units=9, embedding=4), random_seed=request.param)


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(4).integers(0, len(LETTERS), 2 * WINDOW + 7)


def test_the_clone_gives_the_logits_of_the_model(model, ids):
    expected, state = tf.function(model, autograph=False)(ids[None].astype(np.int32), model.zero_state(1))
    clone = Clone(model.arrays(), LETTERS)
    np.testing.assert_allclose(clone.read(ids), expected[0], atol=1e-5)
    for ours, theirs in zip(clone.state, state, strict=True):
        np.testing.assert_allclose(ours.h, theirs.h, atol=1e-5)
        np.testing.assert_allclose(ours.c, theirs.c, atol=1e-5)


def test_feeding_at_once_and_one_by_one_are_the_same(model, ids):
    clone, other = (Clone(model.arrays(), LETTERS) for _ in range(2))
    for i in ids:
        logits = other.feed([i])
    np.testing.assert_allclose(clone.feed(ids), logits, atol=1e-5)
    np.testing.assert_allclose(clone.read(ids[:3])[-1], other.feed(ids[:3]), atol=1e-5)


def test_a_state_can_be_restored_and_is_not_changed_by_reading(model, ids):
    clone = Clone(model.arrays(), LETTERS)
    clone.feed(ids[:5])
    kept = clone.state
    first = clone.feed(ids[5:9])
    clone.state = kept
    np.testing.assert_array_equal(clone.feed(ids[5:9]), first)
    clone.reset_states()
    assert not any(part.any() for layer in clone.state for part in layer)


def test_a_step_of_many_rows_is_the_step_of_each(model, ids):
    alone = Clone(model.arrays(), LETTERS)
    alone.feed(ids[:4])
    rows = alone.repeat(5)
    kept = alone.state
    columns = np.random.default_rng(5).integers(0, len(LETTERS), (5, 6))
    together = [rows.step(column).copy() for column in columns.T]
    for row in range(5):
        alone.state = kept
        for t in range(6):
            np.testing.assert_allclose(alone.step(columns[row, t : t + 1])[0], together[t][row], atol=1e-5)
    rows.keep(np.array([1, 4]))
    assert rows.rows == 2
    np.testing.assert_allclose(rows.logits, together[-1][[1, 4]], atol=1e-5)


def test_only_a_clone_of_one_row_reads_a_text(model):
    with pytest.raises(ValueError, match="one row"):
        Clone(model.arrays(), LETTERS).repeat(2).feed("ab")


def test_a_clone_opened_from_python_reads_and_generates(trained):
    clone = chargen.Clone.open(str(trained))
    logits = clone.feed("the ")
    assert logits.shape == (len(clone.vocabulary),)
    text = "".join(clone.generate(50, temperature=0.7, random_seed=3))
    clone.reset_states()
    clone.feed("the ")
    assert "".join(clone.generate(50, temperature=0.7, random_seed=3)) == text
    assert len(text) == 50
    assert not clone.is_fresh


def test_a_saved_state_continues_exactly(trained, tmp_path):
    whole = Clone.open(trained)
    whole.feed("the ")
    expected = "".join(piece.text for piece in generate(whole, Until(60), (), generators(4, 1)))
    clone = Clone.open(trained)
    clone.feed("the ")
    text = ""
    drawing = generators(4, 1)
    for length in (25, 1, 34):
        text += "".join(piece.text for piece in generate(clone, Until(length), (), drawing))
        clone.save_state(tmp_path / "state", drawing[0])
        clone = Clone.open(trained)
        loaded = clone.load_state(tmp_path / "state")
        assert loaded is not None
        drawing = [loaded]
    assert text == expected


def test_a_state_of_another_model_is_refused_and_another_file_is_not_replaced(trained, tmp_path, model):
    clone, other = Clone.open(trained), Clone(model.arrays(), LETTERS)
    other.feed("ab")
    other.save_state(tmp_path / "state")
    clone.feed("the ")
    before = clone.feed("c")
    with pytest.raises(ChargenError, match="another model"):
        clone.load_state(tmp_path / "state")
    assert (clone.logits[0] == before).all()
    assert other.load_state(tmp_path / "state") is None
    (tmp_path / "poem").write_text("roses")
    for path in (tmp_path / "poem", find_model(trained)):
        with pytest.raises(ChargenError, match="exists and is no saved state"):
            other.save_state(path)


def test_a_trained_run_opens_as_a_clone_and_agrees_with_the_model(trained, text):
    file = open_model(trained)
    clone = Clone.open(trained)
    ids = file.vocabulary.encode(text[-500:])
    model = CharLM.of(file)
    expected, _ = tf.function(model, autograph=False)(ids[None].astype(np.int32), model.zero_state(1))
    np.testing.assert_allclose(clone.read(ids), expected[0], atol=1e-4)
    assert (Clone.open(find_model(trained)).feed(ids) == Clone.open(str(trained)).feed(ids)).all()
    assert model.config.layers == 2
