"""The same weights as an ordinary stateful keras.Model."""

from __future__ import annotations

import keras

from chargen.store.modelfile import ModelFile, weight_shapes


def stateful_clone(file: ModelFile, batch_size: int = 1) -> keras.Model:
    """Return a stock Keras model with ``stateful=True`` and copies of the weights that `open_model` returns.

    It maps ids (batch_size, any length) to logits (batch_size, the same length, V) and keeps its state from call to
    call, until ``reset_state()`` of its LSTM layers (its ``layers[1:-1]``).
    """
    config, characters = file.config, len(file.vocabulary)
    clone = keras.Sequential(
        [
            keras.Input(batch_shape=(batch_size, None), dtype="int32"),
            keras.layers.Embedding(characters, config.embedding),
            *(keras.layers.LSTM(config.units, return_sequences=True, stateful=True) for _ in range(config.layers)),
            keras.layers.Dense(characters),
        ]
    )
    clone.set_weights([file.weights[name] for name in weight_shapes(characters, config)])
    return clone
