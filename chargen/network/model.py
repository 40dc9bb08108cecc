"""The character model: ``logits, state = model(ids, state)``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from chargen import ChargenError
from chargen.config import Execution, ModelConfig
from chargen.files.arrays import Arrays
from chargen.network.products import project
from chargen.network.unroll import Characters, Layer, Masks, State, prepare_layers, unroll
from chargen.store.modelfile import LayerState, ModelFile


class CharLM(keras.Model):  # type: ignore[misc]
    """Embedding, L LSTM layers and a dense layer of logits, for any batch size and window.

    With an ``output_rank`` R in its configuration, the last layer's kernel is a product of (H, R) and (R, V) (Sainath
    et al. 2013), which large vocabularies are trained faster with; `ModelFile.for_inference` makes it whole.
    """

    def __init__(
        self,
        characters: int,
        config: ModelConfig,
        random_seed: int = 0,
        execution: Execution | None = None,
        log_shares: npt.NDArray[np.floating] | None = None,
    ) -> None:
        """Make a model for a vocabulary of V characters, computed by Keras's layers unless told otherwise.

        ``random_seed`` decides the first weights: embedding uniform in -1 .. 1, kernels uniform (Glorot and Bengio
        2010), recurrent kernels orthogonal (Saxe et al. 2014), forget gates' biases 1 (Jozefowicz et al. 2015). The
        logits' bias is ``log_shares``, (V,), the logarithm of each character's share of the text, or 0: with 0, the
        first training steps would only learn these. Raises ChargenError if there is not enough memory.
        """
        super().__init__(name="char_lm")
        self.characters, self.config, self.execution = characters, config, execution or Execution()
        seeds = iter(np.random.SeedSequence(random_seed).generate_state(2 * config.layers + 3).tolist())
        # 20 times the range that is Keras's default: 0.34 bpc better after 300 steps.
        uniform = keras.initializers.RandomUniform(-1, 1, seed=next(seeds))
        self.embedding = keras.layers.Embedding(characters, config.embedding, uniform, name="embedding")
        self.lstm = [
            keras.layers.LSTM(
                config.units,
                return_sequences=True,
                return_state=True,
                kernel_initializer=keras.initializers.GlorotUniform(next(seeds)),
                recurrent_initializer=keras.initializers.Orthogonal(seed=next(seeds)),
                name=f"lstm_{layer}",
            )
            for layer in range(config.layers)
        ]
        glorot = keras.initializers.GlorotUniform(next(seeds))
        shares = "zeros" if log_shares is None else keras.initializers.Constant(log_shares)
        self.dense = keras.layers.Dense(characters, kernel_initializer=glorot, bias_initializer=shares, name="dense")
        self.factor = None
        if config.output_rank:
            glorot = keras.initializers.GlorotUniform(next(seeds))
            self.factor = keras.layers.Dense(config.output_rank, use_bias=False, kernel_initializer=glorot)
        try:
            self._make_weights()
        except (tf.errors.ResourceExhaustedError, MemoryError):
            raise ChargenError(
                f"there is not enough memory for a model of {config.layers} x {config.units} units: make it smaller"
            ) from None
        self.built = True

    def _make_weights(self) -> None:
        config = self.config
        self.embedding.build(None)
        for layer, lstm in enumerate(self.lstm):
            lstm.build((None, None, config.units if layer else config.embedding))
        if self.factor is not None:
            self.factor.build((None, None, config.units))
        self.dense.build((None, None, config.output_rank or config.units))

    def call(self, ids: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        """Read a window from a state, as `read` does. Keras passes tensors only, so masks and layers are for `read`."""
        return self.read(ids, state)

    def read(
        self, ids: tf.Tensor, state: State, masks: Masks | None = None, layers: Sequence[Layer] | None = None
    ) -> tuple[tf.Tensor, State]:
        """Read a window from a state. Any B and T will do.

        ids: (B, T) int32. masks: of dropout and restarts. layers: what `prepared` returns for B rows, if several calls
        share it. Returns the logits (B, T, V) float32 of the character after each one read, and the state after the
        last. The state given is not changed.
        """
        layers = layers or self.prepared([ids.shape[0]])
        characters = Characters(ids, self.embedding.embeddings.value)
        outputs, state = unroll(characters, state, layers, masks or Masks(), self.execution)
        # Rows become the first axis of whichever is smaller, the logits or the outputs.
        if self.characters > self.config.units:
            return self.logits(tf.transpose(outputs, [1, 0, 2])), state
        return tf.transpose(self.logits(outputs), [1, 0, 2]), state

    def prepared(self, rows: Collection[int], weight_masks: Sequence[tf.Tensor] | None = None) -> list[Layer]:
        """Return the LSTM layers for calls with so many rows; see `prepare_layers`.

        weight_masks: for weight drop, L tensors (H, 4H) by which the recurrent kernels are multiplied.
        """
        return prepare_layers(self.lstm, self.execution, rows, weight_masks)

    def logits(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return the logits (..., V) of the highest layer's outputs (..., H)."""
        for layer in (self.factor, self.dense):
            if layer is not None:
                outputs = project(outputs, layer.kernel.value, self.execution)
        return outputs + self.dense.bias.value

    def step(self, ids: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        """Read one character, by Keras's cells and without a loop: ids (B, 1) -> logits (B, 1, V), state."""
        outputs, after = self.embedding(ids[:, 0]), []
        for lstm, (h, c) in zip(self.lstm, state, strict=True):
            outputs, (h, c) = lstm.cell(outputs, (h, c))
            after.append(LayerState(h, c))
        return self.logits(outputs)[:, None], tuple(after)

    def zero_state(self, batch_size: int) -> State:
        """Return the state of B rows that have read nothing."""
        return tuple(
            LayerState(*(tf.zeros((batch_size, self.config.units)) for _ in LayerState._fields)) for _ in self.lstm
        )

    def named_weights(self) -> dict[str, Any]:
        """Return the weights (keras.Variable) by their names in a model file."""
        weights = {"embedding": self.embedding.embeddings}
        for lstm in self.lstm:
            for weight in ("kernel", "recurrent_kernel", "bias"):
                weights[f"{lstm.name}/{weight}"] = getattr(lstm.cell, weight)
        if self.factor is not None:
            weights["dense/factor"] = self.factor.kernel
        weights["dense/kernel"], weights["dense/bias"] = self.dense.kernel, self.dense.bias
        return weights

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return copies of the weights by their names in a model file."""
        return {name: np.array(weight.value.numpy()) for name, weight in self.named_weights().items()}

    def assign(self, arrays: Arrays) -> None:
        """Set the weights from arrays with their names in a model file."""
        for name, weight in self.named_weights().items():
            weight.assign(arrays[name])

    @classmethod
    def of(cls, file: ModelFile, execution: Execution | None = None) -> CharLM:
        """Return the model that a model file holds, computed by Keras's layers unless told otherwise."""
        model = cls(len(file.vocabulary), file.config, execution=execution)
        model.assign(file.weights)
        return model


def reset_rows(state: State, rows: tf.Tensor) -> State:
    """Return ``state`` with zeros in the rows where ``rows`` (B,) bool is true."""
    keep = tf.cast(~rows, tf.float32)[:, None]
    return tuple(LayerState(h * keep, c * keep) for h, c in state)


class Draw(NamedTuple):
    """What decides a dropout mask, besides its rate and shape."""

    random_seed: int
    layer: int
    step: tf.Tensor  # int64 scalar
    first_row: Any = 0  # the first row's number in the batch: an int, or an int32 scalar


def dropout_mask(rate: float | tf.Tensor, shape: tuple[int, int, int], draw: Draw) -> tf.Tensor:
    """Return a mask (B, T, H) float32 of zeros, with probability ``rate``, and 1 / (1 - rate).

    It is a pure function of the draw. Each row has its own range of the counter of Philox (Salmon et al. 2011), so
    whoever computes some rows of a batch gets exactly those rows of its mask. The rate is rounded to a 256th, as each
    number is made of 8 random bits, which takes less than half the time of 32. A rate of 0 draws no random numbers.
    """
    rows, *own = shape
    numbers, zeros = int(np.prod(own)), tf.round(256 * tf.convert_to_tensor(rate, tf.float32))
    blocks = -(-numbers // 16)  # Philox makes 16 bytes at a count

    def drawn() -> tf.Tensor:
        place = tf.cast(256 * draw.step + draw.layer, tf.uint64)
        words = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=(rows, 4 * blocks),
            key=tf.constant([draw.random_seed], tf.uint64),
            counter=tf.stack([tf.cast(draw.first_row, tf.uint64) * blocks, place]),
            alg=1,
            dtype=tf.uint32,
        )
        uniform = tf.reshape(tf.bitcast(words, tf.uint8), (rows, -1))[:, :numbers]
        kept = tf.cast(uniform >= tf.cast(zeros, tf.uint8), tf.float32) * (256 / (256 - zeros))
        return tf.reshape(kept, shape)

    return tf.cond(zeros > 0, drawn, lambda: tf.ones(shape))
