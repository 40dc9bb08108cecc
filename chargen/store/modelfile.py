"""One self-describing file: weights, vocabulary, configuration and training summary.

It is a file of `arrays`, whose header has ``vocabulary``, ``unknown`` (the character that stands for others, if there
is one), ``model`` (the ModelConfig) and ``summary``. The weights are float32 in Keras's shapes and gate order (i, f, g,
o)::

    embedding               (V, E)
    lstm_<n>/kernel         (E or H, 4H)     n = 0 .. L-1, the layer nearest the input first
    lstm_<n>/recurrent_kernel   (H, 4H)
    lstm_<n>/bias           (4H,)
    dense/kernel            (H, V)
    dense/bias              (V,)

Where the ModelConfig has an ``output_rank`` R, the last kernel is a product, and kept as its factors (format 2)::

    dense/factor            (H, R)
    dense/kernel            (R, V)

A checkpoint has for each weight also Adam's two moments, and for each layer the state of its B rows; or neither, where
a run begins with another's weights::

    optimizer/m/<weight>, optimizer/v/<weight>
    state/lstm_<n>/h, state/lstm_<n>/c          (B, H)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypedDict

import numpy as np
from msgspec import Meta, to_builtins

from chargen.config import ModelConfig
from chargen.files.arrays import UNSEALED, Arrays, Header, Shapes, read_arrays, seal
from chargen.files.disk import write_beside
from chargen.files.reading import Amount, Count, DamagedError, Sha256, converted, damage, shown
from chargen.text.vocabulary import Vocabulary

FORMATS = (1, 2)  # that are read; a file is written in the first that has what it needs, for older chargens
ADVICE = "use a copy of it from before, or train again"


class LayerState(NamedTuple):
    """What one LSTM layer carries between characters: arrays or tensors (rows, H) float32."""

    h: Any  # the output
    c: Any  # the cell


def weight_shapes(characters: int, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every weight of a model with a vocabulary of so many characters."""
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
    """How far a run has come: what a checkpoint keeps beside its arrays. Everything but the times is exact."""

    step: Count = 0  # updates made; also the position in the streams
    nats: Amount = 0.0  # summed since the last validation ..
    characters: Count = 0  # .. over so many characters ..
    clock: Amount = 0.0  # .. in so many seconds
    seconds: Amount = 0.0  # since the run began, without the time between a stop and its resumption
    best: Amount | None = None  # nats per character of the best validation
    worse: Count = 0  # validations since the best
    factor: Annotated[float, Meta(gt=0, le=1)] = 1.0  # of the learning rate: halved by each recovery
    recoveries: Count = 0
    finished: bool = False

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Return the progress of a checkpoint."""
        return converted(checkpoint.summary["progress"], cls)

    def elapsed(self, seconds: float) -> Self:
        """Return the progress after so many seconds more."""
        return replace(self, clock=self.clock + seconds, seconds=self.seconds + seconds)

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
        return replace(self, finished=False, worse=0)


class Summary(TypedDict, total=False):
    """What a model was trained on, and how far."""

    text: str  # its name
    characters: Count
    sha256: Sha256
    normalize: Literal["none"]  # that its characters are as they were; else they are in NFC
    chargen: str  # the version that trained it
    step: Count
    validation_bpc: Amount
    temperature: Annotated[float, Meta(ge=0.01, le=100)]  # by which the logits are divided already
    progress: Progress  # of a checkpoint


@dataclass(frozen=True)
class ModelHeader(Header):
    """What a model says of itself."""

    vocabulary: str
    model: ModelConfig
    summary: Summary
    unknown: str | None = None

    KIND: ClassVar[str] = "model"
    FORMATS: ClassVar[tuple[int, ...]] = FORMATS

    def check(self, shapes: Shapes) -> None:
        """Raise DamagedError if these aren't the arrays of such a model, however large it says it is."""
        further = dict(shapes)
        for name, shape in _weight_shapes(len(self.vocabulary), self.model):
            if further.pop(name, None) != shape:
                raise DamagedError(f"array {name}: it is missing, or has another shape than the header says")
        self.check_further(further)

    def check_further(self, shapes: Shapes) -> None:
        """Raise DamagedError if these may not be there beside the weights."""
        for name in shapes:
            raise DamagedError(f"array {shown(name)}: a model has none of that name")


@dataclass(frozen=True)
class CheckpointHeader(ModelHeader):
    """What a checkpoint says of itself."""

    KIND: ClassVar[str] = "checkpoint"

    def check_further(self, shapes: Shapes) -> None:
        """Raise DamagedError if these are neither all that goes on after a stop nor none."""
        for name in ("progress", "sha256"):
            if name not in self.summary:
                raise DamagedError(f"summary.{name}: it is missing")
        rows = next(iter(shapes.get("state/lstm_0/h", ())), 0)
        wanted = _further_shapes(len(self.vocabulary), self.model, rows) if shapes else {}
        for name in sorted(shapes.keys() | wanted.keys()):
            if shapes.get(name) != wanted.get(name):
                raise DamagedError(f"array {shown(name)}: it is not there for a checkpoint, or of another shape")


def _further_shapes(characters: int, config: ModelConfig, rows: int) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every array that a checkpoint has beside the weights, with so many rows of state."""
    weights = weight_shapes(characters, config)
    moments = {f"optimizer/{moment}/{name}": shape for moment in "mv" for name, shape in weights.items()}
    state = {f"state/lstm_{n}/{field}": (rows, config.units) for n in range(config.layers) for field in "hc"}
    return {**moments, **state}


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A model as it lies on disk; a checkpoint is the same with further arrays and a record of its progress."""

    weights: Arrays
    vocabulary: Vocabulary
    config: ModelConfig
    summary: Mapping[str, Any]  # what was trained on and how far: for people, and for exports
    extra: Arrays  # a checkpoint's further arrays, "optimizer/..." and "state/..."; a model's are none

    KIND = "model"

    def write(self, path: Path) -> None:
        """Write the file beside ``path`` and rename it into place. Raises ChargenError if that can't be done."""
        header = {
            "kind": self.KIND,
            "format": FORMATS[self.config.output_rank > 0],
            "vocabulary": self.vocabulary.characters,
            **({} if self.vocabulary.unknown is None else {"unknown": self.vocabulary.unknown}),
            "model": self.config.to_json(),
            "summary": dict(self.summary),
        }
        write_arrays(path, {**self.weights, **self.extra}, header)

    @classmethod
    def read(cls, path: Path, *, as_trained: bool = False) -> Self:
        """Read a model, or a checkpoint as the model that it holds, in the form that `ready` gives it.

        With ``as_trained`` the weights are as training left them, at no temperature and in no other form, as those of a
        checkpoint are that is read as one. Raises ChargenError if the file is missing, cut short, of a later format, or
        not ours.
        """
        kinds = (CheckpointHeader,) if cls is Checkpoint else (ModelHeader, CheckpointHeader)
        header, arrays = read_arrays(path, *kinds, advice=ADVICE)
        config, summary = header.model, to_builtins(header.summary)
        with damage(path, ADVICE):
            vocabulary = Vocabulary(header.vocabulary, header.unknown)
        weights: Arrays = {name: arrays.pop(name) for name in weight_shapes(len(vocabulary), config)}
        if as_trained:
            weights = with_temperature(weights, 1 / header.summary.get("temperature", 1))
        elif cls is not Checkpoint:
            weights, config = ready(weights, vocabulary), replace(config, output_rank=0)
        return cls(weights=weights, vocabulary=vocabulary, config=config, summary=summary, extra=arrays)


def ready(weights: Arrays, vocabulary: Vocabulary) -> Arrays:
    """Return the weights of a model as whoever samples, scores or exports takes them: of one form, for every runtime.

    The last kernel is whole, (H, V), whatever its rank. The unknown character has a logit of -60,000: it is drawn at no
    temperature up to 100 then, and the others' probabilities are those that it is not the unknown one. float16 has that
    number.
    """
    rest = {name: array for name, array in weights.items() if name != "dense/factor"}
    if "dense/factor" in weights:
        rest["dense/kernel"] = weights["dense/factor"] @ weights["dense/kernel"]
    if vocabulary.unknown is None:
        return rest
    kernel, bias = rest["dense/kernel"].copy(), rest["dense/bias"].copy()
    kernel[:, vocabulary.id_of(vocabulary.unknown)], bias[vocabulary.id_of(vocabulary.unknown)] = 0, -60_000
    return {**rest, "dense/kernel": kernel, "dense/bias": bias}


def with_temperature(weights: Arrays, temperature: float) -> Arrays:
    """Return the weights of the model whose logits are these weights' divided by a temperature."""
    last = {name: weights[name] / np.float32(temperature) for name in ("dense/kernel", "dense/bias")}
    return {**weights, **last}


def extend_vocabulary(old: ModelFile, vocabulary: Vocabulary, random_seed: int) -> Arrays:
    """Return the weights of a model for a larger vocabulary, which holds the old one's characters and new ones.

    What the old model knew of a character is kept. A new one is read by numbers in -1 .. 1, uniform, of a generator
    from ``random_seed``, and written like the mean of the old ones; so is the unknown one.
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
    """All that goes on after a stop: a model's last weights, the optimizer, the LSTM state, and the progress."""

    KIND = "checkpoint"


def write_arrays(path: Path, arrays: Arrays, header: Mapping[str, Any]) -> None:
    """Write arrays and a JSON object as one file for `read_arrays`, by way of `write_beside`."""
    from safetensors.numpy import save  # which only those wait for who write

    # One entry of sorted JSON, as safetensors keeps entries in no fixed order: equal contents are equal files.
    metadata = {"chargen": json.dumps({**UNSEALED, **header}, sort_keys=True)}
    write_beside(path, seal(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata)))
