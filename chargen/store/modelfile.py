"""Model files and checkpoints: weights, vocabulary, configuration and training summary in one file.

The file has the layout of `files.arrays`. Its header adds ``vocabulary``, ``unknown`` (the character that stands for
rare ones, if there is one), ``end`` (the character that ends a document, if the model has learnt it), ``model`` (the
ModelConfig), ``summary``, and in a model file ``words`` (those of the text, as `text.words.packed` writes them).
``base_words`` are those of the models that it began from, if any, in the same form; checkpoints have them too. The
weights are float32, in Keras's shapes and gate order (i, f, g, o)::

    embedding               (V, E)
    lstm_<n>/kernel         (E or H, 4H)     n = 0 .. L-1; layer 0 reads the embedding
    lstm_<n>/recurrent_kernel   (H, 4H)
    lstm_<n>/bias           (4H,)
    dense/kernel            (H, V)
    dense/bias              (V,)

With an ``output_rank`` R in the ModelConfig, the last kernel is stored as its two factors::

    dense/factor            (H, R)
    dense/kernel            (R, V)

`chargen export --format chargen` writes them as float16, or matrices as int8. A row of an int8 matrix is multiplied by
its float32 scale::

    scale/<weight>          (rows, 1)

A checkpoint also has Adam's two moments of each weight and the LSTM state of its B streams. It has neither where a run
starts from another model's weights::

    optimizer/m/<weight>, optimizer/v/<weight>
    state/lstm_<n>/h, state/lstm_<n>/c          (B, H)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypedDict

import numpy as np
import numpy.typing as npt
from msgspec import Meta, to_builtins

from chargen.config import ModelConfig
from chargen.files.arrays import Arrays, Header, Shapes, read_arrays, write_arrays
from chargen.files.reading import Amount, Count, DamagedError, Sha256, converted, errors_of, shown
from chargen.text.vocabulary import Vocabulary
from chargen.text.words import united

ADVICE = "restore a copy, or train again"


class LayerState(NamedTuple):
    """The state of one LSTM layer between characters: two arrays or tensors (rows, H) float32."""

    h: Any  # the output
    c: Any  # the cell


def state_shapes(rows: int, layers: int, units: int) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every array of an LSTM state: ``lstm_<n>/h`` and ``lstm_<n>/c``, each (rows, H)."""
    return {f"lstm_{n}/{field}": (rows, units) for n in range(layers) for field in LayerState._fields}


def state_arrays(state: Iterable[LayerState]) -> Arrays:
    """Return copies of an LSTM state's arrays or tensors by the names of `state_shapes`."""
    return {f"lstm_{n}/{field}": np.array(a) for n, s in enumerate(state) for field, a in s._asdict().items()}


def state_of(arrays: Arrays) -> tuple[LayerState, ...]:
    """Return the LSTM state, by layer, whose `state_arrays` are these."""
    layers = range(len(arrays) // len(LayerState._fields))
    return tuple(LayerState(*(arrays[f"lstm_{n}/{field}"] for field in LayerState._fields)) for n in layers)


def weight_shapes(characters: int, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every weight of a model with a vocabulary of ``characters``."""
    return dict(_weight_shapes(characters, config))


def _weight_shapes(characters: int, config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "embedding", (characters, config.embedding)
    for layer in range(config.layers):
        below = config.units if layer else config.embedding
        yield f"lstm_{layer}/kernel", (below, 4 * config.units)
        yield f"lstm_{layer}/recurrent_kernel", (config.units, 4 * config.units)
        yield f"lstm_{layer}/bias", (4 * config.units,)
    if config.output_rank:
        yield "dense/factor", (config.units, config.output_rank)
    yield "dense/kernel", (config.output_rank or config.units, characters)
    yield "dense/bias", (characters,)


@dataclass(frozen=True)
class Progress:
    """How far a run has come, as its checkpoint records it. A resumed run repeats all of it exactly but the times."""

    step: Count = 0  # updates made; also the position in the streams
    nats: Amount = 0.0  # training loss, summed since the last validation
    characters: Count = 0  # that ``nats`` is summed over
    clock: Amount = 0.0  # seconds since the last validation
    seconds: Amount = 0.0  # since the run began, without the time between a stop and its resumption
    used: Amount = 0.0  # seconds since the schedule began, as ``seconds``, but with each start-up and all previews
    best: Amount | None = None  # nats per character of the best validation
    worse: Count = 0  # validations since the best
    factor: Annotated[float, Meta(gt=0, le=1)] = 1.0  # of the learning rate: halved by each recovery
    recoveries: Count = 0
    finished: bool = False

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Return the progress that a checkpoint records."""
        return converted(checkpoint.summary["progress"], cls)

    def elapsed(self, seconds: float, used: float) -> Self:
        """Return the progress after so many seconds more, ``used`` seconds after the schedule began."""
        return replace(self, clock=self.clock + seconds, seconds=self.seconds + seconds, used=used)

    def stepped(self) -> Self:
        """Return the progress after one more step."""
        return replace(self, step=self.step + 1)

    def counted(self, nats: float, characters: int) -> Self:
        """Return the progress after a window of so many characters, which cost ``nats`` in all, was read."""
        return replace(self, nats=self.nats + nats, characters=self.characters + characters)

    def validated(self, nats: float, stop: int | None, patience: int | None) -> Self:
        """Return the progress after a validation of ``nats`` per character, in a schedule that ends at ``stop``."""
        best = self.best is None or nats < self.best
        worse = 0 if best else self.worse + 1
        finished = self.step == stop or (patience is not None and worse >= patience)
        improved = nats if best else self.best
        return replace(self, best=improved, worse=worse, finished=finished, nats=0.0, characters=0, clock=0.0)

    def recovered(self) -> Self:
        """Return the progress after training went back to it because of a divergence: at half the rate."""
        return replace(self, factor=self.factor / 2, recoveries=self.recoveries + 1)

    def reopened(self) -> Self:
        """Return the progress of a finished run that gets a new schedule."""
        return replace(self, finished=False, worse=0, used=0.0)


class Summary(TypedDict, total=False):
    """The text that a model was trained on, and the result."""

    text: str  # its name
    characters: Count
    sha256: Sha256
    normalize: Literal["none"]  # the text was not normalised; without this field it is in NFC
    document: Literal["paragraph", "line"]  # what of a file is a document; without this field the whole file
    column: str  # the column whose rows are documents
    chargen: str  # the version that trained the model
    step: Count
    validation_bpc: Amount
    temperature: Annotated[float, Meta(ge=0.01, le=100)]  # the stored weights give logits divided by it
    progress: Progress  # only in a checkpoint


@dataclass(frozen=True)
class ModelHeader(Header):
    """The header of a model file."""

    vocabulary: str
    model: ModelConfig
    summary: Summary
    unknown: str | None = None
    end: str | None = None
    words: str | None = None
    base_words: str | None = None

    KIND: ClassVar[str] = "model"
    DTYPES: ClassVar[tuple[str, ...]] = ("F32", "F16", "I8")

    def check(self, shapes: Shapes) -> None:
        """Raise DamagedError unless the arrays are those of the model that the header describes."""
        further = dict(shapes)
        # One weight at a time: a damaged header may claim any number of layers.
        for name, shape in _weight_shapes(len(self.vocabulary), self.model):
            if further.pop(name, None) != shape:
                raise DamagedError(f"array {name}: it is missing, or its shape is not the one in the header")
        self.check_further(further)

    def check_further(self, shapes: Shapes) -> None:
        """Raise DamagedError if there are arrays beside the weights and their scales."""
        weights = weight_shapes(len(self.vocabulary), self.model)
        scales = {f"scale/{name}": (shape[0], 1) for name, shape in weights.items() if len(shape) == 2}
        for name, shape in shapes.items():
            if scales.get(name) != shape:
                raise DamagedError(f"array {shown(name)}: a model has none of that name and shape")


@dataclass(frozen=True)
class CheckpointHeader(ModelHeader):
    """The header of a checkpoint."""

    KIND: ClassVar[str] = "checkpoint"
    DTYPES: ClassVar[tuple[str, ...]] = ("F32",)

    def check_further(self, shapes: Shapes) -> None:
        """Raise DamagedError unless the arrays beside the weights are all that a checkpoint has, or none."""
        for name in ("progress", "sha256"):
            if name not in self.summary:
                raise DamagedError(f"summary.{name}: it is missing")
        rows = next((shape[0] for name, shape in shapes.items() if name.startswith("state/") and shape), 0)
        wanted = _further_shapes(len(self.vocabulary), self.model, rows) if shapes else {}
        for name in sorted(shapes.keys() | wanted.keys()):
            if shapes.get(name) != wanted.get(name):
                raise DamagedError(f"array {shown(name)}: it is missing, unexpected or of the wrong shape")


def _further_shapes(characters: int, config: ModelConfig, rows: int) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every array that a checkpoint has beside the weights, for a state of ``rows``."""
    weights = weight_shapes(characters, config)
    moments = {f"optimizer/{moment}/{name}": shape for moment in "mv" for name, shape in weights.items()}
    state = state_shapes(rows, config.layers, config.units)
    return {**moments, **{f"state/{name}": shape for name, shape in state.items()}}


@dataclass(frozen=True, eq=False)
class ModelFile:
    """The contents of a model file, or of a checkpoint."""

    weights: Arrays
    vocabulary: Vocabulary
    config: ModelConfig
    summary: Mapping[str, Any]  # the fields of `Summary`
    extra: Arrays  # "optimizer/..." and "state/..." of a checkpoint; empty for a model
    words: str | None = None  # of the text, packed by `text.words`; checkpoints and older files have none
    base_words: str | None = None  # of the models that it began from, in the same form

    HEADER: ClassVar[type[ModelHeader]] = ModelHeader

    def write(self, path: Path) -> None:
        """Write the file, replacing any at ``path`` in one step. Raises ChargenError if that fails."""
        fields = {
            "vocabulary": self.vocabulary.characters,
            **({} if self.vocabulary.unknown is None else {"unknown": self.vocabulary.unknown}),
            **({} if self.vocabulary.end is None else {"end": self.vocabulary.end}),
            **({} if self.words is None else {"words": self.words}),
            **({} if self.base_words is None else {"base_words": self.base_words}),
            "model": self.config.to_json(),
            "summary": dict(self.summary),
        }
        write_arrays(path, {**self.weights, **self.extra}, self.HEADER, fields)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a model file or a checkpoint, its weights as float32; ``Checkpoint.read`` reads only checkpoints.

        Raises ChargenError if the file is missing, cut short, damaged, of another format or of another kind.
        """
        header, arrays = read_arrays(path, cls.HEADER, CheckpointHeader, advice=ADVICE)
        with errors_of(path, ADVICE):
            vocabulary = Vocabulary(header.vocabulary, header.unknown, header.end)
            names = weight_shapes(len(vocabulary), header.model)
            weights = {name: _in_float32(name, arrays) for name in names}
        lists = (header.words, header.base_words)
        return cls(weights, vocabulary, header.model, to_builtins(header.summary), arrays, *lists)

    def for_inference(self) -> ModelFile:
        """Return the model as sampling, evaluation and every export use it, without optimizer and state.

        The last kernel is whole, (H, V), whatever its rank. The unknown character has a logit of -60,000, which float16
        can hold, so that it is not drawn at any temperature up to 100. The probabilities of the others become those
        under the condition that the character is a known one.
        """
        weights = {name: array for name, array in self.weights.items() if name != "dense/factor"}
        if "dense/factor" in self.weights:
            weights["dense/kernel"] = self.weights["dense/factor"] @ self.weights["dense/kernel"]
        if self.vocabulary.unknown is not None:
            unknown = self.vocabulary.id_of(self.vocabulary.unknown)
            for name, value in (("dense/kernel", 0), ("dense/bias", -60_000)):
                weights[name] = weights[name].copy()
                weights[name][..., unknown] = value
        return replace(self, weights=weights, config=replace(self.config, output_rank=0), extra={})

    def for_training(self) -> ModelFile:
        """Return the model as training left it, at temperature 1, without optimizer and state.

        Its words are those of a base now. Raises DamagedError if a list of words is damaged.
        """
        summary = {name: value for name, value in self.summary.items() if name != "temperature"}
        weights = with_temperature(self.weights, 1 / self.summary.get("temperature", 1))
        words = united(self.words, self.base_words)
        return ModelFile(weights, self.vocabulary, self.config, summary, {}, None, words)


def quantized(matrix: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return a matrix (rows, columns) as int8, and the scale of each row (rows, 1), by which to multiply it."""
    scales = np.maximum(np.abs(matrix).max(1, keepdims=True), np.finfo(np.float32).tiny) / np.float32(127)
    return np.rint(matrix / scales).clip(-127, 127).astype(np.int8), scales


def in_int8(weights: Arrays) -> Arrays:
    """Return weights with `quantized` matrices and their scales, as `ModelFile.read` reads them."""
    matrices = {name: quantized(array) for name, array in weights.items() if array.ndim == 2}
    scales = {f"scale/{name}": scale for name, (_, scale) in matrices.items()}
    return {**weights, **{name: numbers for name, (numbers, _) in matrices.items()}, **scales}


def _in_float32(name: str, arrays: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    """Take a weight and its scale from a file's arrays. Raises DamagedError if only int8 or only a scale is there."""
    array, scale = arrays.pop(name), arrays.pop(f"scale/{name}", None)
    if (array.dtype == np.int8) != (scale is not None):
        raise DamagedError(f"array {name}: int8 has a scale, and other numbers have none")
    weight = array.astype(np.float32, copy=False)
    return weight if scale is None else weight * scale.astype(np.float32, copy=False)


def with_temperature(weights: Arrays, temperature: float) -> Arrays:
    """Return the weights of a model whose logits are those of ``weights`` divided by ``temperature``."""
    last = {name: weights[name] / np.float32(temperature) for name in ("dense/kernel", "dense/bias")}
    return {**weights, **last}


def extend_vocabulary(old: ModelFile, vocabulary: Vocabulary, random_seed: int) -> Arrays:
    """Return the weights of ``old`` for a larger vocabulary, which contains all of the old characters.

    The old characters keep their weights. A new character's embedding is drawn uniformly from -1 .. 1 by a generator
    seeded with ``random_seed``; its column of the last layer is the mean of the old columns. The unknown character is
    treated as new.
    """
    characters = [c for c in old.vocabulary.characters if c != old.vocabulary.unknown]
    here, there = ([v.id_of(c) for c in characters] for v in (vocabulary, old.vocabulary))
    shapes, weights = weight_shapes(len(vocabulary), old.config), dict(old.weights)
    generator = np.random.default_rng(random_seed)
    weights["embedding"] = generator.uniform(-1, 1, shapes["embedding"]).astype(np.float32)
    weights["embedding"][here] = old.weights["embedding"][there]
    for name in ("dense/kernel", "dense/bias"):
        known = old.weights[name][..., there]
        weights[name] = np.broadcast_to(known.mean(-1, keepdims=True), shapes[name]).copy()
        weights[name][..., here] = known
    return weights


class Checkpoint(ModelFile):
    """What a run needs to resume: the last weights, the optimizer, the LSTM state and the progress."""

    HEADER: ClassVar[type[ModelHeader]] = CheckpointHeader

    @property
    def rows(self) -> int | None:
        """B, the rows of the LSTM state; None if there is no state."""
        return next((len(array) for name, array in self.extra.items() if name.startswith("state/")), None)
