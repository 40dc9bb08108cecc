"""The equations of the LSTM in their plain form, which every unroll must equal, and what its tests share."""

import keras
import numpy as np
import tensorflow as tf

from chargen.network.unroll import Masks
from chargen.store.modelfile import LayerState


def normal(generator, *shape, scale=1.0):
    return tf.constant(generator.normal(0, scale, shape), tf.float32)


def case(layers, units, rows, steps, width):
    """An input, a state and Keras layers with weights of about the size that they begin with."""
    generator = np.random.default_rng(layers * units)
    made = []
    for n in range(layers):
        layer = keras.layers.LSTM(units, return_sequences=True, return_state=True)
        layer.build((rows, steps, units if n else width))
        for weight in layer.weights:
            weight.assign(normal(generator, *weight.shape, scale=0.7 / units**0.5))
        made.append(layer)
    state = tuple(LayerState(*(normal(generator, rows, units, scale=0.5) for _ in "hc")) for _ in made)
    return normal(generator, rows, steps, width), state, made


def plain(x, state, layers, masks=None):
    """Outputs (B, T, H) and the state after the window, for Keras layers."""
    factors, restarts = masks or Masks()
    after = []
    for n, (layer, (h, c)) in enumerate(zip(layers, state, strict=True)):
        kernel, recurrent_kernel, bias = (weight.value for weight in layer.weights)
        outputs = []
        for t in range(x.shape[1]):
            if restarts is not None:
                carry = 1 - tf.cast(restarts[:, t, None], tf.float32)
                h, c = h * carry, c * carry
            i, f, g, o = tf.split(x[:, t] @ kernel + h @ recurrent_kernel + bias, 4, 1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
            outputs.append(h)
        x = tf.stack(outputs, 1)
        after.append(LayerState(h, c))
        if factors is not None:
            x *= factors[n]
    return x, tuple(after)


def value_and_gradients(compute, x, state, layers):
    """The outputs and the state; the gradients of a random sum of the outputs by the input and all weights."""
    variables = [weight.value for layer in layers for weight in layer.weights]
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs, after = compute(x)
        loss = tf.reduce_sum(outputs * normal(np.random.default_rng(1), *outputs.shape))
    gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, [x, *variables])]
    return [outputs, *tf.nest.flatten(after)], gradients


def traced(compute, x, state, layers):
    """The same, computed in a graph, as training computes it."""
    return tf.function(lambda x: value_and_gradients(compute, x, state, layers), autograph=False)(x)


def far(ours, theirs):
    """The greatest difference in a tensor, relative to its greatest value."""
    return max(
        float(tf.reduce_max(tf.abs(a - b)) / tf.reduce_max(tf.abs(b))) for a, b in zip(ours, theirs, strict=True)
    )


def apart(ours, theirs):
    """The difference of all tensors as one vector, relative to its length."""
    ours, theirs = (tf.concat([tf.reshape(a, [-1]) for a in tensors], 0) for tensors in (ours, theirs))
    return float(tf.norm(ours - theirs) / tf.norm(theirs))
