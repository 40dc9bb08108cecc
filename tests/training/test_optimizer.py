import keras
import numpy as np
import tensorflow as tf

from chargen.training.optimizer import Adam


def test_adam_is_clipped_and_steps_ahead_of_its_momentum():
    values = np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)
    ours, theirs = keras.Variable(values), values.astype(np.float64)
    adam = Adam({"w": ours}, clip_norm=1.0)
    m = v = np.zeros_like(theirs)
    for update in range(1, 6):
        gradient = values / update
        norm = float(np.linalg.norm(gradient))
        adam.apply({"w": tf.constant(gradient)}, tf.constant(norm), tf.constant(0.01), tf.constant(update))
        clipped = gradient * min(1, 1 / norm)
        m, v = 0.8 * m + 0.2 * clipped, 0.99 * v + 0.01 * clipped**2
        ahead = (0.8 * m + 0.2 * clipped) / (1 - 0.8**update)
        theirs = theirs - 0.01 * ahead / (np.sqrt(v / (1 - 0.99**update)) + 1e-8)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert not np.allclose(ours, values, atol=1e-3)
