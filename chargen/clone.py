"""The batch-1 stateful clone: a trained model's weights with a state of one row, in NumPy alone.

Gates, with z the sum of the products and the bias, and `*` by element::

    i, f, g, o = σ(z_i), σ(z_f), tanh(z_g), σ(z_o)        c = f * c + i * g        h = o * tanh(c)

(Hochreiter and Schmidhuber 1997; the forget gate is Gers, Schmidhuber and Cummins 2000.)
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from chargen.modelfile import Arrays
from chargen.run import open_model
from chargen.vocabulary import Vocabulary

Floats = npt.NDArray[np.float32]

WINDOW = 256  # characters of a long seed whose input products are made at once


class LayerState(NamedTuple):
    """What one LSTM layer carries between characters."""

    h: Floats  # (H,) the output
    c: Floats  # (H,) the cell


class _Layer(NamedTuple):
    """One layer's weights, transposed so that a row of them makes one number of z.

    Rows of the gates i, f and o are halved, as σ(z) = ½ tanh(½ z) + ½: one tanh then serves all four gates.
    """

    inputs: Floats  # (4H, I); the lowest layer's are multiplied out into a table and stay empty
    recurrent: Floats  # (4H, H)
    bias: Floats  # (4H,)


class Clone:
    """``logits = clone.feed(ids)``: the state is carried from call to call until `reset_states`."""

    def __init__(self, weights: Arrays, vocabulary: Vocabulary) -> None:
        """Take weights named as in `modelfile`, and the vocabulary they were trained with."""
        self.vocabulary = vocabulary
        self._layers: list[_Layer] = []
        while f"lstm_{len(self._layers)}/kernel" in weights:
            name = f"lstm_{len(self._layers)}"
            self._layers.append(_layer(*(weights[f"{name}/{w}"] for w in ("kernel", "recurrent_kernel", "bias"))))
        lowest = self._layers[0]
        # The lowest layer's input product is one of V vectors: a row of this table (V, 4H).
        self._table = weights["embedding"].astype(np.float32) @ lowest.inputs.T + lowest.bias
        self._dense = np.ascontiguousarray(weights["dense/kernel"].T, np.float32)  # (V, H)
        self._dense_bias = np.asarray(weights["dense/bias"], np.float32)
        self.reset_states()

    @classmethod
    def open(cls, path: str | Path | None = None) -> Self:
        """Open a model file or the best model of a run; None is the newest run's.

        Raises ChargenError if there is no model there.
        """
        file = open_model(None if path is None else Path(path))
        return cls(file.weights, file.vocabulary)

    def reset_states(self) -> None:
        """Forget everything read: the state becomes zero."""
        units = self._layers[0].recurrent.shape[1]
        self.state = tuple(LayerState(np.zeros(units, np.float32), np.zeros(units, np.float32)) for _ in self._layers)

    def read(self, ids: npt.ArrayLike) -> Floats:
        """Read the ids (n,), carry the state over them, and return the logits after each: (n, V)."""
        hidden = self._hidden(np.asarray(ids, np.int64))
        return hidden @ self._dense.T + self._dense_bias

    def feed(self, ids: npt.ArrayLike) -> Floats:
        """Read the ids (n,), n at least 1, and return the logits after the last of them: (V,).

        Logits are what the next character is drawn from: the logarithm of its probability, up to a constant.
        """
        ids = np.asarray(ids, np.int64)
        hidden = np.empty(0, np.float32)
        for start in range(0, len(ids), WINDOW):
            hidden = self._hidden(ids[start : start + WINDOW])[-1]
        return self._dense @ hidden + self._dense_bias

    def _hidden(self, ids: npt.NDArray[np.int64]) -> Floats:
        """Carry the state over ids (n,); return the top layer's outputs (n, H)."""
        outputs = np.empty((len(ids), 0), np.float32)
        state = []
        for number, (layer, (h, c)) in enumerate(zip(self._layers, self.state, strict=True)):
            z = outputs @ layer.inputs.T + layer.bias if number else self._table[ids]  # (n, 4H)
            outputs = np.empty((len(ids), len(h)), np.float32)
            c = c.copy()
            for t in range(len(ids)):
                gates = np.tanh(z[t] + layer.recurrent @ h).reshape(4, -1)
                g = gates[2].copy()
                gates *= 0.5
                gates += 0.5
                c *= gates[1]
                c += gates[0] * g
                h = np.multiply(gates[3], np.tanh(c), out=outputs[t])
            state.append(LayerState(h.copy(), c))
        self.state = tuple(state)
        return outputs


def _layer(kernel: Floats, recurrent_kernel: Floats, bias: Floats) -> _Layer:
    scale = np.repeat(np.array([0.5, 0.5, 1, 0.5], np.float32), len(bias) // 4)
    return _Layer(
        np.ascontiguousarray((kernel * scale).T, np.float32),
        np.ascontiguousarray((recurrent_kernel * scale).T, np.float32),
        (bias * scale).astype(np.float32),
    )
