from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from chargen.config import ModelConfig
from chargen.network.model import CharLM, Draw, dropout_mask, reset_rows
from chargen.store.modelfile import ModelFile, state_arrays, state_of, weight_shapes
from chargen.text.corpus import Part
from chargen.text.vocabulary import Vocabulary

SHAPE = ModelConfig(layers=2, units=7, embedding=5)


@pytest.fixture(scope="module")
def model():
    return CharLM(11, SHAPE, random_seed=3)


def ids(*shape, random_seed=0):
    return tf.constant(np.random.default_rng(random_seed).integers(0, 11, shape), tf.int32)


def test_logits_and_state_have_their_shapes_for_any_batch_and_window(model):
    for rows, length in [(1, 1), (3, 4), (5, 2)]:
        logits, state = model(ids(rows, length), model.zero_state(rows))
        assert logits.shape == (rows, length, 11)
        assert logits.dtype == tf.float32
        assert [(s.h.shape, s.c.shape) for s in state] == [((rows, 7), (rows, 7))] * 2


def test_a_window_split_in_two_is_the_whole_window(model):
    x = ids(3, 9)
    whole, end = model(x, model.zero_state(3))
    first, state = model(x[:, :4], model.zero_state(3))
    second, state = model(x[:, 4:], state)
    np.testing.assert_allclose(whole, tf.concat([first, second], 1), atol=1e-6)
    np.testing.assert_allclose(end[1].c, state[1].c, atol=1e-6)


def test_rows_do_not_see_each_other(model):
    x = ids(3, 6)
    changed = tf.concat([x[:1], (x[1:] + 1) % 11], 0)
    np.testing.assert_array_equal(model(x, model.zero_state(3))[0][0], model(changed, model.zero_state(3))[0][0])


def test_a_state_given_is_not_changed(model):
    state = model.zero_state(2)
    model(ids(2, 3), state)
    assert not any(array.any() for array in state_arrays(state).values())


def test_forget_biases_are_one_and_recurrent_kernels_orthogonal(model):
    arrays = model.arrays()
    np.testing.assert_array_equal(arrays["lstm_1/bias"], np.repeat([0, 1, 0, 0], 7))
    kernel = arrays["lstm_1/recurrent_kernel"]
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(7), atol=1e-5)


def test_weights_have_the_names_and_shapes_of_the_model_file(model):
    assert {name: array.shape for name, array in model.arrays().items()} == weight_shapes(11, SHAPE)


def test_the_last_layer_may_be_two_thin_matrices_which_are_one_in_a_model_file(tmp_path):
    shape, vocabulary = replace(SHAPE, output_rank=3), Vocabulary("abcdefghijk")
    thin = CharLM(11, shape, random_seed=3)
    arrays = thin.arrays()
    assert {name: array.shape for name, array in arrays.items()} == weight_shapes(11, shape)
    assert (arrays["dense/factor"].shape, arrays["dense/kernel"].shape) == ((7, 3), (3, 11))
    ModelFile(arrays, vocabulary, shape, {}, {}).write(tmp_path / "m")
    file = ModelFile.read(tmp_path / "m").for_inference()
    assert (file.config, file.weights["dense/kernel"].shape) == (SHAPE, (7, 11))
    x = ids(2, 5)
    np.testing.assert_allclose(thin(x, thin.zero_state(2))[0], CharLM.of(file)(x, thin.zero_state(2))[0], atol=1e-5)
    one = thin.step(x[:, :1], thin.zero_state(2))[0]
    np.testing.assert_allclose(one, thin(x[:, :1], thin.zero_state(2))[0], atol=1e-5)
    kept = ModelFile.read(tmp_path / "m")
    assert kept.config == shape
    assert all((kept.weights[name] == array).all() for name, array in arrays.items())


def test_an_untrained_model_expects_characters_as_often_as_they_are():
    ids = np.repeat(np.arange(4), [1, 2, 4, 8]).astype(np.uint8)
    shares = Part(ids, np.zeros(0, np.int64)).log_shares(5)
    np.testing.assert_allclose(shares, np.log(np.array([2, 3, 5, 9, 1]) / 20), rtol=1e-6)
    assert (CharLM(5, SHAPE, log_shares=shares).arrays()["dense/bias"] == shares).all()


def test_shares_of_a_long_text_are_counted_all_over_it():
    ids = np.repeat(np.arange(3), 30_000_000 // 3).astype(np.uint8)
    np.testing.assert_allclose(Part(ids, np.zeros(0, np.int64)).log_shares(3), np.log([1 / 3] * 3), atol=1e-2)


def test_the_random_seed_decides_the_first_weights():
    a, b, c = (CharLM(11, SHAPE, random_seed=n).arrays() for n in (1, 1, 2))
    assert all((a[name] == b[name]).all() for name in a)
    assert not (a["embedding"] == c["embedding"]).all()
    assert not (a["lstm_0/kernel"][:5, :5] == a["lstm_1/kernel"][:5, :5]).all()


def test_a_state_is_named_arrays_and_back_and_is_reset_by_row(model):
    _, state = model(ids(3, 2), model.zero_state(3))
    arrays = state_arrays(state)
    assert set(arrays) == {"lstm_0/h", "lstm_0/c", "lstm_1/h", "lstm_1/c"}
    assert all((a == b).all() for a, b in zip(arrays.values(), state_arrays(state_of(arrays)).values(), strict=True))
    reset = state_arrays(reset_rows(state, tf.constant([False, True, False])))
    for name, array in reset.items():
        assert not array[1].any()
        assert (array[[0, 2]] == arrays[name][[0, 2]]).all()
        assert array[[0, 2]].any()


@pytest.mark.parametrize("shape", [(3, 5), (2, 8)])
def test_a_dropout_mask_is_a_function_of_seed_step_layer_and_row(shape):
    def mask(rows, seed=5, layer=0, step=9, first_row=0):
        return dropout_mask(0.5, (rows, *shape), Draw(seed, layer, tf.constant(step, tf.int64), first_row)).numpy()

    whole = mask(6)
    assert (whole == np.concatenate([mask(2), mask(4, first_row=2)])).all()
    for other in (mask(6, seed=6), mask(6, layer=1), mask(6, step=10)):
        assert (whole != other).any()
    assert len(np.unique(whole.reshape(6, -1), axis=0)) == 6


def test_a_rate_may_be_a_tensor_and_a_rate_of_0_drops_nothing():
    draw = Draw(1, 0, tf.constant(3, tf.int64))
    by_tensor = tf.function(lambda rate: dropout_mask(rate, (4, 3, 5), draw))
    assert (by_tensor(tf.constant(0.25)).numpy() == dropout_mask(0.25, (4, 3, 5), draw).numpy()).all()
    assert (by_tensor(tf.constant(0.0)).numpy() == np.ones((4, 3, 5))).all()


def test_a_dropout_mask_has_its_rate_and_a_mean_of_1():
    mask = dropout_mask(0.25, (50, 20, 40), Draw(1, 0, tf.constant(0, tf.int64))).numpy()
    assert set(np.unique(mask)) == {0, np.float32(1 / 0.75)}
    assert (mask == 0).mean() == pytest.approx(0.25, abs=0.01)
