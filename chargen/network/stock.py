"""The same weights as an ordinary stateful keras.Model."""

from __future__ import annotations

import keras

from chargen.network.model import CharLM


def stateful_clone(model: CharLM, batch_size: int = 1) -> keras.Model:
    """Return a stock Keras model with ``stateful=True`` and copies of the weights of ``model``.

    It maps ids (batch_size, any length) to logits (batch_size, the same length, V) and keeps its state from call to
    call, until ``reset_state()`` of its LSTM layers (its ``layers[1:-1]``).
    """
    config = model.config
    clone = keras.Sequential(
        [
            keras.Input(batch_shape=(batch_size, None), dtype="int32"),
            keras.layers.Embedding(model.characters, config.embedding),
            *(keras.layers.LSTM(config.units, return_sequences=True, stateful=True) for _ in range(config.layers)),
            keras.layers.Dense(model.characters),
        ]
    )
    for ours, theirs in zip([model.embedding, *model.lstm, model.dense], clone.layers, strict=True):
        theirs.set_weights(ours.get_weights())
    return clone
