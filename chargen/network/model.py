"""The character model: ``logits, state = model(ids, state)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from chargen import ChargenError
from chargen.config import Execution, ModelConfig
from chargen.files.arrays import Arrays
from chargen.network.unroll import Prepared, State, project, unroll
from chargen.store import modelfile
from chargen.store.modelfile import LayerState, ModelFile
from chargen.store.modelfile import state_arrays as state_arrays


class CharLM(keras.Model):  # type: ignore[misc]
    """Embedding, L LSTM layers and a dense layer of logits, for any batch size and window.

    With an ``output_rank`` R in its configuration, the last layer's kernel is a product of (H, R) and (R, V) (Sainath
    et al. 2013), which large vocabularies are trained faster with; a model file is read as one with the whole kernel.
    """

    def __init__(
        self,
        characters: int,
        config: ModelConfig,
        random_seed: int = 0,
        execution: Execution | None = None,
        log_shares: npt.NDArray[np.floating] | None = None,
    ) -> None:
        """Make a model for a vocabulary of so many characters, computed by Keras's layers unless told otherwise.

        The first weights come from ``random_seed``: embedding uniform in -1 .. 1, kernels uniform (Glorot and Bengio
        2010), recurrent kernels orthogonal (Saxe et al. 2014), forget gates' biases 1 (Jozefowicz et al. 2015). The
        logits' bias is ``log_shares``, (V,) the logarithm of each character's share of the text, or 0: whoever begins
        with 0 spends the first steps on learning that.
        """
        super().__init__(name="char_lm")
        self.characters, self.config, self.execution = characters, config, execution or Execution()
        seeds = iter(np.random.SeedSequence(random_seed).generate_state(2 * config.layers + 3).tolist())
        # 20 times Keras's range: 2.84 against 3.18 validation bpc after 300 steps of 1x256 on a 600 KB book.
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
            self.embedding.build(None)
            for layer, lstm in enumerate(self.lstm):
                lstm.build((None, None, config.units if layer else config.embedding))
            if self.factor is not None:
                self.factor.build((None, None, config.units))
            self.dense.build((None, None, config.output_rank or config.units))
        except (tf.errors.ResourceExhaustedError, MemoryError):
            raise ChargenError(
                f"there is not enough memory for a model of {config.layers} x {config.units} units: make it smaller"
            ) from None
        self.built = True

    def call(
        self,
        ids: tf.Tensor,
        state: State,
        masks: Sequence[tf.Tensor] | None = None,
        recurrent_kernels: Sequence[tf.Tensor] | None = None,
        restarts: tf.Tensor | None = None,
        prepared: Sequence[Prepared] | None = None,
    ) -> tuple[tf.Tensor, State]:
        """Read a window from a state. Any B and T will do.

        ids: (B, T) int32. masks: for dropout, L tensors that broadcast to (B, T, H), by which the layers' outputs are
        multiplied. recurrent_kernels: L tensors (H, 4H) in place of the layers' own. restarts: (B, T) bool, the
        characters before which a row's state restarts from zero. prepared: what `unroll.prepare` makes of the kernels,
        for several calls to share. Returns the logits (B, T, V) float32 of the character after each one read, and the
        state after the last. The state given is not changed.
        """
        outputs, state = unroll(
            ids,
            state,
            self.lstm,
            self.execution,
            masks,
            restart=restarts,
            recurrent_kernels=recurrent_kernels,
            embedding=self.embedding.embeddings.value,
            prepared=prepared,
        )
        # The smaller of the two is put in the order of rows.
        if self.characters > self.config.units:
            return self.logits(tf.transpose(outputs, [1, 0, 2])), state
        return tf.transpose(self.logits(outputs), [1, 0, 2]), state

    def logits(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return the logits (..., V) of the highest layer's outputs (..., H)."""
        for layer in (self.factor, self.dense):
            if layer is not None:
                outputs = project(outputs, layer.kernel.value, self.execution)
        return outputs + self.dense.bias.value

    def step(self, ids: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        """Read one character: ids (B, 1) -> logits (B, 1, V), state. It is `call` in Keras's cells, without a loop."""
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


def state_of(arrays: Arrays) -> State:
    """Return the state, as tensors, whose `state_arrays` are these."""
    return tuple(LayerState(*map(tf.constant, layer)) for layer in modelfile.state_of(arrays))


def dropout_mask(
    rate: float | tf.Tensor,
    rows: int,
    shape: tuple[int, int],
    random_seed: int,
    layer: int,
    step: tf.Tensor,
    first_row: Any = 0,
) -> tf.Tensor:
    """Return a mask (rows, T, H) of zeros, with probability ``rate``, and 1 / (1 - rate); ``shape`` is (T, H).

    It is a pure function of random seed, layer, step (int64 scalar) and row: Philox (Salmon et al. 2011) counts from
    each row's own start, so whoever computes rows ``first_row`` (an int, or an int32 scalar) and on of a batch gets
    just those rows of its mask. The rate is taken to the nearest 256th, as a number is made of 8 bits: 1.4 ms for a
    mask of half a million where 32 bits take 3.7. A rate of 0 draws no random numbers.
    """
    numbers, zeros = int(np.prod(shape)), tf.round(256 * tf.convert_to_tensor(rate, tf.float32))
    blocks = -(-numbers // 16)  # Philox makes 16 bytes at a count

    def drawn() -> tf.Tensor:
        words = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=(rows, 4 * blocks),
            key=tf.constant([random_seed], tf.uint64),
            counter=tf.stack([tf.cast(first_row, tf.uint64) * blocks, tf.cast(256 * step + layer, tf.uint64)]),
            alg=1,
            dtype=tf.uint32,
        )
        uniform = tf.reshape(tf.bitcast(words, tf.uint8), (rows, -1))[:, :numbers]
        kept = tf.cast(uniform >= tf.cast(zeros, tf.uint8), tf.float32) * (256 / (256 - zeros))
        return tf.reshape(kept, (rows, *shape))

    return tf.cond(zeros > 0, drawn, lambda: tf.ones((rows, *shape)))
