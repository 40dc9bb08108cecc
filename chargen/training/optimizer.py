"""The learning rate as a pure function of the step, and Adam with clipped gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

# Warm-up takes a twentieth of the steps, 100 at the most; the cosine then falls to a hundredth of the highest rate.
# While the steps are not known it takes 25, as a minute may have no more than 350 of them. What that gains was not told
# from chance.
WARM_UP_SHARE, WARM_UP_STEPS, FIRST_WARM_UP, LAST = 0.05, 100, 25, 0.01
# On a 1 MB play, in nats. First moment: 1 x 256, 450 steps, three random seeds: 0.9 1.513 1.510 1.514, 0.8 1.503 1.509
# 1.507 (two of them with 0.85: 1.509 1.500; one with 0.7: 1.507); 1 x 384, 700 steps: 0.9 1.442, 0.8 1.439; runs of 10
# minutes were not compared. Second: 0.99 instead of 0.999 made 1.484 instead of 1.490 of 2.5M characters, 1 x 384, when
# the first was 0.9.
BETA_1, BETA_2, EPSILON = 0.8, 0.99, 1e-8


def learning_rate(step: int, start: int, stop: int | None, highest: float) -> float:
    """Return the rate of the update that makes step ``step`` + 1: a warm-up from 0, then a cosine decay.

    The schedule goes from step ``start`` to step ``stop``: start <= step < stop (Loshchilov and Hutter 2017,
    without restarts). While the stop is not known yet, it is warmed up to the highest rate, and stays there.
    """
    done = step - start
    if stop is None:
        return highest * min(1, (done + 1) / FIRST_WARM_UP)
    warm_up = min(WARM_UP_STEPS, math.ceil((stop - start) * WARM_UP_SHARE))
    if done < warm_up:
        return highest * (done + 1) / warm_up
    progress = (done - warm_up + 1) / (stop - start - warm_up)
    return highest * (LAST + (1 - LAST) * (1 + math.cos(math.pi * progress)) / 2)


class Adam:
    """Adam (Kingma and Ba 2015) with Nesterov's momentum (Dozat 2016, the momentum constant); its moments have names.

    It is TensorFlow's fused kernel, one call per weight. 1 x 384, 600 steps of 64 x 64 on a 1 MB play, random seeds 0
    and 1: 1.466 and 1.477 nats, where plain momentum makes 1.471 and 1.486; 0.012 and 0.014 ahead after 218 steps.

    Keras's own Adam takes a dozen operations per weight, and names its moments by the order in which a process happened
    to build them, which is no name to find them by in a checkpoint.
    """

    def __init__(self, weights: Mapping[str, Any], clip_norm: float) -> None:
        """Take the weights by name (keras.Variable) and the longest gradient, in the Euclidean norm over all."""
        self._weights, self._clip_norm = weights, clip_norm
        self.moments = {
            f"{moment}/{name}": tf.Variable(tf.zeros(weight.shape), trainable=False)
            for moment in ("m", "v")
            for name, weight in weights.items()
        }

    def apply(self, gradients: Mapping[str, tf.Tensor], norm: tf.Tensor, rate: tf.Tensor, update: tf.Tensor) -> None:
        """Update the weights. ``norm`` is the gradients' global norm, ``update`` the count of this update, from 1."""
        scale = tf.minimum(1.0, self._clip_norm / norm)
        count = tf.cast(update, tf.float32)
        for name, weight in self._weights.items():
            tf.raw_ops.ResourceApplyAdam(
                var=weight.value.handle,
                m=self.moments[f"m/{name}"].handle,
                v=self.moments[f"v/{name}"].handle,
                beta1_power=tf.pow(BETA_1, count),
                beta2_power=tf.pow(BETA_2, count),
                lr=rate,
                beta1=BETA_1,
                beta2=BETA_2,
                epsilon=EPSILON,
                grad=gradients[name] * scale,
                use_nesterov=True,
            )
