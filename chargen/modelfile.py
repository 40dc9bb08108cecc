"""One self-describing file: weights, vocabulary, configuration and training summary; safetensors, so no pickle.

The layout is safetensors': an 8-byte length, a JSON header, then the arrays' bytes. The header's metadata has one
entry, ``chargen``: JSON with ``kind``, ``format``, ``vocabulary``, ``unknown`` (the character that stands for others,
if there is one), ``model`` (the ModelConfig) and ``summary``. The weights are float32 in Keras's shapes and gate order
(i, f, g, o)::

    embedding               (V, E)
    lstm_<n>/kernel         (E or H, 4H)     n = 0 .. L-1, the layer nearest the input first
    lstm_<n>/recurrent_kernel   (H, 4H)
    lstm_<n>/bias           (4H,)
    dense/kernel            (H, V)
    dense/bias              (V,)

Where the ModelConfig has an ``output_rank`` R, the last kernel is a product, and kept as its factors (format 2)::

    dense/factor            (H, R)
    dense/kernel            (R, V)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from chargen import ChargenError
from chargen.config import ModelConfig
from chargen.disk import write_beside
from chargen.vocabulary import Vocabulary

FORMATS = (1, 2)  # that are read; a file is written in the first that has what it needs, for older chargens

Arrays = Mapping[str, npt.NDArray[Any]]


class LayerState(NamedTuple):
    """What one LSTM layer carries between characters: arrays or tensors (rows, H) float32."""

    h: Any  # the output
    c: Any  # the cell


def weight_shapes(characters: int, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every weight of a model with a vocabulary of so many characters."""
    shapes: dict[str, tuple[int, ...]] = {"embedding": (characters, config.embedding)}
    for layer in range(config.layers):
        below = config.units if layer else config.embedding
        shapes[f"lstm_{layer}/kernel"] = (below, 4 * config.units)
        shapes[f"lstm_{layer}/recurrent_kernel"] = (config.units, 4 * config.units)
        shapes[f"lstm_{layer}/bias"] = (4 * config.units,)
    if config.output_rank:
        shapes["dense/factor"] = (config.units, config.output_rank)
    shapes["dense/kernel"] = (config.output_rank or config.units, characters)
    shapes["dense/bias"] = (characters,)
    return shapes


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
        arrays, header = read_arrays(path)
        if header.get("format") not in FORMATS:
            raise ChargenError(
                f"{path} has format {header.get('format')}, this chargen reads formats up to {FORMATS[-1]}: "
                "install the chargen that wrote it, or a later one"
            )
        types = {"kind": str, "vocabulary": str, "model": dict, "summary": dict}
        wrong = [key for key, kind in types.items() if not isinstance(header.get(key), kind)]
        if wrong:
            raise ChargenError(f"{path} is damaged: its header has no {wrong[0]}")
        if header["kind"] not in (cls.KIND, Checkpoint.KIND):
            raise ChargenError(f"{path} is not a {cls.KIND}, but a {header['kind']}")
        config = ModelConfig.from_json(header["model"])
        vocabulary = Vocabulary(header["vocabulary"], header.get("unknown"))
        shapes = weight_shapes(len(vocabulary), config)
        wrong = [n for n, s in shapes.items() if n not in arrays or arrays[n].shape != s]
        if wrong:
            raise ChargenError(
                f"{path} is damaged: its {wrong[0]} is missing or has another shape than its header says"
            )
        weights: Arrays = {name: arrays.pop(name) for name in shapes}
        if as_trained:
            weights = tempered(weights, 1 / header["summary"].get("temperature", 1))
        elif cls is not Checkpoint:
            weights, config = ready(weights, vocabulary), replace(config, output_rank=0)
        return cls(weights=weights, vocabulary=vocabulary, config=config, summary=header["summary"], extra=arrays)


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


def tempered(weights: Arrays, temperature: float) -> Arrays:
    """Return the weights of the model whose logits are these weights' divided by a temperature."""
    last = {name: weights[name] / np.float32(temperature) for name in ("dense/kernel", "dense/bias")}
    return {**weights, **last}


def grown(old: ModelFile, vocabulary: Vocabulary, random_seed: int) -> Arrays:
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
    """Write arrays and a JSON object as one safetensors file, by way of `write_beside`."""
    # One entry of sorted JSON, as safetensors keeps entries in no fixed order: equal contents are equal files.
    metadata = {"chargen": json.dumps(header, sort_keys=True)}
    write_beside(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata))


def read_arrays(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Read what `write_arrays` wrote. Raises ChargenError if the file is missing, cut short, or not ours."""
    try:
        data = path.read_bytes()
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["chargen"]
        return load(data), dict(json.loads(metadata))
    except OSError as error:
        raise ChargenError(f"{path} can't be read: {error.strerror}") from None
    except (SafetensorError, ValueError, LookupError, TypeError):
        raise ChargenError(f"{path} is cut short, or not a file of chargen's: nothing was read from it") from None
