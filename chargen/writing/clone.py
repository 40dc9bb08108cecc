"""The stateful clone: a trained model's weights with a state of one row or a few, in NumPy.

The gates, where z is the sum of the matrix products and the bias, and `*` is element-wise::

    i, f, g, o = σ(z_i), σ(z_f), tanh(z_g), σ(z_o)        c = f * c + i * g        h = o * tanh(c)

(Hochreiter and Schmidhuber 1997; the forget gate is Gers, Schmidhuber and Cummins 2000.)
"""

from __future__ import annotations

import copy
import hashlib
import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypedDict

import numpy as np
import numpy.typing as npt

from chargen import ChargenError
from chargen.config import SampleConfig
from chargen.files.arrays import Arrays, Header, Shapes, read_arrays, write_arrays
from chargen.files.reading import Count, DamagedError, Sha256, errors_of
from chargen.store.modelfile import LayerState, state_arrays, state_of, state_shapes
from chargen.store.run import open_model
from chargen.text.vocabulary import Vocabulary
from chargen.writing.alternatives import Alternative, alternatives
from chargen.writing.best import best_of, choice_of
from chargen.writing.generate import Piece, Until, generate
from chargen.writing.sampler import filters, generators

Floats = npt.NDArray[np.float32]

WINDOW = 256  # characters of a text whose input products are one matrix product
STATE_BYTES = 2**28  # of a state file, at most
RECALLED = 2**16  # characters that a clone has read last, for filters that depend on the text
SAVED_TEXT = 256  # characters in a state file: enough to go on with a word and a sentence
ADVICE = "feed the text again, and save its state again"


class _Numbers(TypedDict):
    state: int
    inc: int


class _Generator(TypedDict):
    """The state of a random generator, as NumPy gives it."""

    bit_generator: Literal["PCG64"]
    state: _Numbers
    has_uint32: Count
    uinteger: Count


@dataclass(frozen=True)
class StateHeader(Header):
    """The header of a state file."""

    model: Sha256  # `Clone.fingerprint` of its model
    generator: _Generator | None
    text: str = ""  # the last SAVED_TEXT characters that were read

    KIND: ClassVar[str] = "state"

    def check(self, shapes: Shapes) -> None:
        """Raise DamagedError if the arrays aren't the state of one row."""
        units = next(iter(shapes.values()), ())[-1:]
        if not units or shapes != state_shapes(1, len(shapes) // 2, *units):
            raise DamagedError("arrays: not the h and c of one row")


class _Layer(NamedTuple):
    """One layer's weights, arranged for `Clone.step`: each row computes one element of z.

    The gates are in the order i, f, o, g. The rows of i, f and o are halved: as σ(z) = ½ tanh(½ z) + ½, a single tanh
    serves all four gates, followed by a multiplication and an addition for three of them.
    """

    kernel: Floats  # (4H, I + H): input kernel, recurrent kernel; the lowest layer has the recurrent one only, I = 0
    bias: Floats  # (4H,)


class State(tuple[LayerState, ...]):
    """The state of a clone: for each layer ``h`` and ``c``, both (rows, H); and `Clone.recalled`."""

    recalled: Sequence[int]

    def __new__(cls, layers: Iterable[LayerState], recalled: Sequence[int] = ()) -> Self:
        """Take the layers' states and the ids of the text that was read last."""
        state = super().__new__(cls, tuple(layers))
        state.recalled = recalled
        return state


class Clone:
    """A model that reads characters and predicts the next; it carries its state until `reset_states`.

    ``clone.feed("The ")`` reads a text, ``clone.logits`` is the prediction, ``clone.generate(200)`` continues the text.
    """

    def __init__(
        self,
        weights: Arrays,
        vocabulary: Vocabulary,
        words: tuple[str | None, str | None] = (None, None),
        validation_bpc: float | None = None,
    ) -> None:
        """Take weights, named as in `modelfile`, and the vocabulary of their training.

        ``words`` are the packed lists of the text's words and of the base model's, ``validation_bpc`` is the bits per
        character of the text's validation part; each is None if it is not known.
        """
        self.vocabulary, self.validation_bpc = vocabulary, validation_bpc
        self.words, self.base_words = words
        self._recalled = deque[int](maxlen=RECALLED)
        self._end = None if vocabulary.end is None else vocabulary.id_of(vocabulary.end)  # the state restarts there
        self._weights = weights
        layers = sum(name.startswith("lstm_") and name.endswith("/bias") for name in weights)
        self._layers = [_layer(weights, number) for number in range(layers)]
        # The lowest layer's input product has only V values: the rows of this table (V, 4H), which includes the bias.
        lowest = _gates(np.concatenate([weights["lstm_0/kernel"], weights["lstm_0/bias"][None]]))
        self._table = np.concatenate([weights["embedding"], np.ones((len(vocabulary), 1), np.float32)], 1) @ lowest
        self._dense = np.ascontiguousarray(weights["dense/kernel"].T, np.float32)  # (V, H)
        self._dense_bias = np.asarray(weights["dense/bias"], np.float32)
        self._units = self._dense.shape[1]
        self._set_rows(1)

    @classmethod
    def open(cls, path: str | Path | None = None) -> Self:
        """Open a model file, or the best model of a run; None is the newest run.

        Raises ChargenError if there is no model at ``path``.
        """
        file = open_model(path)
        return cls(file.weights, file.vocabulary, (file.words, file.base_words), file.summary.get("validation_bpc"))

    def _set_rows(self, rows: int) -> None:
        """Allocate a zero state and the buffers of a step for ``rows`` rows; a step then allocates nothing."""
        units, layers = self._units, len(self._layers)
        self.rows = rows
        # Feature-major: a row of the batch is a column here, which OpenBLAS multiplies up to twice as fast. The layers
        # are stacked, so that a layer's input and its own h are one slice.
        self._h = np.zeros((layers * units, rows), np.float32)
        self._c = np.zeros((layers * units, rows), np.float32)
        self._z = np.empty((4 * units, rows), np.float32)
        self._row = np.empty((rows, 4 * units), np.float32)
        self._tanh = np.empty((units, rows), np.float32)
        self._logits = np.empty((len(self.vocabulary), rows), np.float32)
        self._make_logits()

    def _make_logits(self) -> None:
        np.matmul(self._dense, self._h[-self._units :], out=self._logits)
        self._logits += self._dense_bias[:, None]

    @property
    def logits(self) -> Floats:
        """The prediction of each row's next character, (rows, V); valid until more is read."""
        return self._logits.T

    @property
    def is_fresh(self) -> bool:
        """Whether nothing has been read since the start or the last reset."""
        return not self._h.any()

    @property
    def recalled(self) -> Sequence[int]:
        """The ids of the last characters, at most RECALLED, that have been read in one row; several rows share them."""
        return list(self._recalled)

    @property
    def state(self) -> State:
        """A copy of the state: for each layer ``h`` and ``c``, both (rows, H). Assigning it restores it."""
        layers = (LayerState(self._h[s].T.copy(), self._c[s].T.copy()) for s in self._slices())
        return State(layers, self.recalled)

    @state.setter
    def state(self, state: tuple[LayerState, ...]) -> None:
        self._recalled = deque(state.recalled if isinstance(state, State) else (), RECALLED)
        if len(state[0].h) != self.rows:
            self._set_rows(len(state[0].h))
        for s, layer in zip(self._slices(), state, strict=True):
            self._h[s], self._c[s] = layer.h.T, layer.c.T
        self._make_logits()

    def _slices(self) -> list[slice]:
        return [slice(n * self._units, (n + 1) * self._units) for n in range(len(self._layers))]

    def take(self, layers: tuple[LayerState, ...], ids: Sequence[int]) -> None:
        """Take the state of a branch of this clone, which has read ids (n,) more."""
        self.state = State(layers, (*self._recalled, *ids))

    def reset_states(self) -> None:
        """Set the state to zero."""
        self._recalled.clear()
        self._set_rows(self.rows)

    def repeat(self, rows: int) -> Self:
        """Return a clone of ``rows`` rows, each in the state of this clone's only row. The weights are shared."""
        other = copy.copy(self)
        other._recalled = self._recalled.copy()
        other._set_rows(rows)
        other._h[:], other._c[:] = self._h, self._c
        other._make_logits()
        return other

    def keep(self, rows: npt.NDArray[np.intp]) -> None:
        """Drop all rows but these (n,), which stay in this order."""
        h, c = self._h[:, rows], self._c[:, rows]
        self._set_rows(len(rows))
        self._h[:], self._c[:] = h, c
        self._make_logits()

    def join(self, layers: tuple[LayerState, ...]) -> None:
        """Add rows, in a state whose ``h`` and ``c`` are (n, H), after those that are there."""
        h, c = self._h, self._c
        joined = len(layers[0].h)
        self._set_rows(self.rows + joined)
        self._h[:, :-joined], self._c[:, :-joined] = h, c
        for s, layer in zip(self._slices(), layers, strict=True):
            self._h[s, -joined:], self._c[s, -joined:] = layer.h.T, layer.c.T
        self._make_logits()

    def layers(self, row: int) -> tuple[LayerState, ...]:
        """Return a copy of the state of one row: for each layer ``h`` and ``c``, both (1, H)."""
        one = slice(row, row + 1)
        return tuple(LayerState(self._h[s, one].T.copy(), self._c[s, one].T.copy()) for s in self._slices())

    def step(self, ids: npt.NDArray[np.integer]) -> Floats:
        """Read one character in each row, ids (rows,); return `logits` (rows, V), valid until the next step."""
        if self.rows == 1:
            self._recalled.append(int(ids[0]))
        if self._end is not None and (begins := np.equal(ids, self._end)).any():
            self._h[:, begins] = self._c[:, begins] = 0
        units, z = self._units, self._z
        gates, i, f, o, g = z[: 3 * units], *(z[k * units : (k + 1) * units] for k in range(4))
        for number, layer in enumerate(self._layers):
            h = self._h[number * units : (number + 1) * units]
            c = self._c[number * units : (number + 1) * units]
            if number:
                np.matmul(layer.kernel, self._h[(number - 1) * units : (number + 1) * units], out=z)
                z += layer.bias[:, None]
            else:
                np.matmul(layer.kernel, h, out=z)
                np.take(self._table, ids, 0, out=self._row, mode="clip")
                z += self._row.T
            np.tanh(z, out=z)
            gates *= 0.5
            gates += 0.5
            c *= f
            i *= g
            c += i
            np.tanh(c, out=self._tanh)
            np.multiply(o, self._tanh, out=h)
        self._make_logits()
        return self.logits

    def read(self, ids: npt.ArrayLike) -> Floats:
        """Read ids (n,) in the only row; return the logits after each of them: (n, V)."""
        return np.asarray(self._window(np.asarray(ids, np.int64)) @ self._dense.T + self._dense_bias)

    def feed(self, text: str | npt.ArrayLike) -> Floats:
        """Read a text, or its ids (n,), in the only row; return the logits after it: (V,).

        Logits are log-probabilities of the next character up to a constant. Raises ChargenError for a character that
        is not in the vocabulary (`Vocabulary.repair` removes those).
        """
        ids = self.vocabulary.encode(text) if isinstance(text, str) else np.asarray(text, np.int64)
        for start in range(0, len(ids), WINDOW):
            self._window(ids[start : start + WINDOW])
        return np.array(self.logits[0])

    def _window(self, ids: npt.NDArray[Any]) -> Floats:
        """Read ids (n,) layer by layer, with one input product a layer; return the outputs of the top layer (n, H)."""
        if self.rows != 1:
            raise ValueError("only a clone of one row reads a text: read it first, then repeat the clone")
        self._recalled.extend(ids.tolist())
        begins = ids == (-1 if self._end is None else self._end)
        outputs = np.empty((len(ids), 0), np.float32)
        for layer, s in zip(self._layers, self._slices(), strict=True):
            below = outputs.shape[1]
            z = outputs @ layer.kernel[:, :below].T + layer.bias if below else self._table[ids]  # (n, 4H)
            recurrent = layer.kernel[:, below:]
            outputs = np.empty((len(ids), self._units), np.float32)
            h, c = self._h[s, 0], self._c[s, 0]
            for t in range(len(ids)):
                if begins[t]:
                    h[:] = c[:] = 0
                i, f, o, g = gates = np.tanh(z[t] + recurrent @ h).reshape(4, -1)
                gates[:3] *= 0.5
                gates[:3] += 0.5
                c *= f
                c += i * g
                h[:] = outputs[t] = o * np.tanh(c)
        self._make_logits()
        return outputs

    def generate(
        self, length: int, *, temperature: float = 0.7, random_seed: int | None = None, **settings: Any
    ) -> Iterator[str]:
        """Continue the text by ``length`` characters; yield them one by one, with ``best_of`` sentence by sentence.

        ``settings`` are fields of `SampleConfig`: ``top_k``, ``top_p``, ``min_p``, ``allow``, ``forbid``, ``words``,
        ``new_words``, ``no_repeat``, ``best_of``. Without a random seed each call draws a different text. Raises
        ChargenError for a setting that is out of range.
        """
        config = SampleConfig(length=length, temperature=temperature, **settings)
        config = SampleConfig.from_json(config.to_json())  # checks the ranges
        seed = secrets.randbits(32) if random_seed is None else random_seed
        for piece in self.write(config, Until(length), generators(seed, self.rows)):
            yield from piece.text

    def write(self, config: SampleConfig, until: Until, generators: Sequence[np.random.Generator]) -> Iterator[Piece]:
        """Continue the text of each row, with a generator for each; yield pieces as `generate.generate` does."""
        chosen = filters(config, self.vocabulary, self.words, self.base_words)
        if config.best_of > 1:
            return best_of(self, until, chosen, (generators[0], choice_of(self, config)))
        return generate(self, until, chosen, generators if config.temperature else None)

    def alternatives(
        self,
        count: int = 5,
        until: str | int = "word",
        *,
        temperature: float = 0.7,
        random_seed: int | None = None,
        **settings: Any,
    ) -> list[Alternative]:
        """Return at most ``count`` different continuations, the most probable first; the state is unchanged.

        ``until`` is "word", "sentence" or a number of characters, as for `alternatives.alternatives`. At temperature 0
        they are the most probable ones; else they are drawn, without a random seed other ones each time. ``settings``
        are those of `generate`.
        """
        config = SampleConfig.from_json(SampleConfig(temperature=temperature, **settings).to_json())
        seed = secrets.randbits(32) if random_seed is None else random_seed
        (generator,) = generators(seed, 1)
        chosen = filters(config, self.vocabulary, self.words, self.base_words)
        return alternatives(self, count, until, chosen, generator if temperature else None)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the vocabulary and the weights, which ties a saved state to its model."""
        digest = hashlib.sha256(self.vocabulary.characters.encode("utf-8", "surrogatepass"))
        digest.update(b"" if self.vocabulary.end is None else b"end")
        for name in sorted(self._weights):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self._weights[name], np.float32).data)
        return digest.hexdigest()

    def save_state(self, path: Path, generator: np.random.Generator | None = None) -> None:
        """Write the state, and that of a random generator, from which `load_state` continues exactly.

        A saved state at ``path`` is replaced. Raises ChargenError, with the file intact, if it is any other file.
        """
        check_state_path(path)
        text = self.vocabulary.decode(np.array(self.recalled[-SAVED_TEXT:], np.int64))
        numbers = generator.bit_generator.state if generator else None
        fields = {"model": self.fingerprint, "generator": numbers, "text": text}
        write_arrays(path, state_arrays(self.state), StateHeader, fields)

    def load_state(self, path: Path) -> np.random.Generator | None:
        """Restore a saved state; return the generator that was saved with it.

        Raises ChargenError, with the state unchanged, if the file can't be read or is the state of another model.
        """
        header, arrays = read_arrays(path, StateHeader, advice=ADVICE, most=STATE_BYTES)
        if header.model != self.fingerprint:
            raise ChargenError(f"{path} is a state of another model: load it with the model it was saved with")
        generator = None
        with errors_of(path, ADVICE):
            if {name: a.shape for name, a in arrays.items()} != state_shapes(self.rows, len(self._layers), self._units):
                raise DamagedError("arrays: not of this model's size")
            if header.generator is not None:
                generator = np.random.Generator(np.random.PCG64())
                try:
                    generator.bit_generator.state = header.generator
                except (ValueError, OverflowError):
                    raise DamagedError("generator: its numbers are too large") from None
        self.state = State(state_of(arrays), self.vocabulary.encode_known(header.text)[0].tolist())
        return generator


def check_state_path(path: Path) -> None:
    """Raise ChargenError if a state can't be saved at ``path``: another file is there, or its folder is missing."""
    if path.exists():
        try:
            read_arrays(path, StateHeader, advice=ADVICE, most=STATE_BYTES)
        except ChargenError:
            raise ChargenError(f"{path} exists and is no saved state: name another file") from None
    if not path.absolute().parent.is_dir():
        raise ChargenError(f"{path} can't be written: there is no folder {path.parent}")


def _layer(weights: Arrays, number: int) -> _Layer:
    kernels = ["kernel", "recurrent_kernel"] if number else ["recurrent_kernel"]
    kernel = np.concatenate([weights[f"lstm_{number}/{name}"] for name in kernels])
    return _Layer(np.ascontiguousarray(_gates(kernel).T), _gates(weights[f"lstm_{number}/bias"]))


def _gates(weights: Floats) -> Floats:
    """Reorder the last axis from Keras's i, f, g, o to i, f, o, g, and halve all gates but g."""
    i, f, g, o = np.split(np.asarray(weights, np.float32), 4, -1)
    return np.concatenate([i * 0.5, f * 0.5, o * 0.5, g], -1, dtype=np.float32)
