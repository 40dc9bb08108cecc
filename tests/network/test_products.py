"""Matrix products in bfloat16 and float32, and the trials of oneDNN."""

import numpy as np
import pytest
import tensorflow as tf

from chargen.config import Execution
from chargen.machine import processor_features
from chargen.network.products import has_onednn, packs, project
from tests.network.equations import apart, normal

LOOP, ONEDNN16 = Execution("loop"), Execution("onednn", "bfloat16")
pytestmark = pytest.mark.xdist_group("unroll")  # the same products are compiled once


@pytest.fixture
def unknown_order():
    packs.cache_clear()
    yield
    packs.cache_clear()


def test_a_kernel_in_an_order_that_onednn_does_not_read_is_detected(monkeypatch, unknown_order):
    if "amx_bf16" in processor_features() and has_onednn("bfloat16"):
        assert packs(8, 128, 512)
        packs.cache_clear()
    monkeypatch.setattr(
        "chargen.network.products._pack", lambda kernel: tf.bitcast(tf.reshape(kernel, [-1])[::2], tf.uint32)
    )
    assert not packs(8, 128, 512)


def test_bfloat16_is_rounded_to_the_nearest():
    between = tf.constant([[1 + 0.4 / 128], [1 + 0.6 / 128], [-1 - 0.6 / 128]])  # 1 and 1 + 1 / 128 are its neighbours
    expected = [1, 1 + 1 / 128, -1 - 1 / 128] if has_onednn("bfloat16") else between[:, 0]
    np.testing.assert_array_equal(project(between, tf.ones((1, 1)), ONEDNN16)[:, 0], expected)


@pytest.mark.parametrize("shape", [(3, 4, 7), (5, 64), (2, 9, 96)])
def test_the_last_layer_multiplies_in_bfloat16_as_in_float32(shape):
    generator = np.random.default_rng(4)
    kernel, above = normal(generator, shape[-1], 11), normal(generator, *shape[:-1], 11)
    found = []
    for execution in (ONEDNN16, LOOP):
        x = normal(np.random.default_rng(5), *shape)
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = project(x, kernel, execution)
            loss = tf.reduce_sum(y * above)
        found.append([y, *tape.gradient(loss, [x, kernel])])
    assert apart(*found) < 1e-2
