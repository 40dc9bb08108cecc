"""The base model that ships with chargen, and how well a model reads a new text. Without TensorFlow."""

from __future__ import annotations

from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from chargen.bits import bits
from chargen.config import BASE
from chargen.store.modelfile import ModelFile
from chargen.text.corpus import Corpus
from chargen.text.vocabulary import Vocabulary
from chargen.text.words import unpacked, word_pattern
from chargen.writing.clone import Clone
from chargen.writing.sampler import nats_of

# A model reads this many excerpts at once. The first characters of each are not counted, as they lack context.
EXCERPTS, RUN_IN_CHARACTERS, COUNTED_CHARACTERS = 32, 32, 96


def base_path() -> Path:
    """Return the path of the base model's file."""
    return Path(str(resources.files("chargen.corpora").joinpath(f"{BASE}.safetensors")))


class Reading(NamedTuple):
    """How well a model reads a text that it has not seen, from 32 evenly spaced excerpts of 128 characters."""

    bits: float  # per character
    known_words: float  # share of the text's words that are in the model's list of words; 0 without a list


def reading(model: ModelFile, corpus: Corpus) -> Reading:
    """Return how well a model reads a text."""
    length = RUN_IN_CHARACTERS + COUNTED_CHARACTERS
    starts = np.linspace(0, max(0, len(corpus.ids) - length), EXCERPTS).astype(np.int64)
    excerpts = [corpus.vocabulary.decode(corpus.ids[start : start + length]) for start in starts]
    whole = "\n".join(excerpt[excerpt.find(" ") + 1 : excerpt.rfind(" ")] for excerpt in excerpts)  # without cut words
    return Reading(_bits("".join(excerpts), model), _known_words(whole, model.words or model.base_words))


def _known_words(text: str, packed: str | None) -> float:
    """Return the share of the words of a text that are in a list, in any capitalisation. Raises DamagedError."""
    found = word_pattern(Vocabulary.of(text)).findall(text) if text else []
    known = set(unpacked(packed)) if packed else set[str]()
    return sum(word in known or word.lower() in known for word in found) / max(1, len(found))


def _bits(sample: str, model: ModelFile) -> float:
    """Return about how many bits per character a text costs a model.

    Characters that the model does not know cost what `Vocabulary.escape_nats` says. The result is infinite if the model
    knows fewer than 64 characters of the text.
    """
    ids, known = model.vocabulary.encode_known(sample)
    rows = ids[: len(ids) // EXCERPTS * EXCERPTS].reshape(EXCERPTS, -1).astype(np.int64)
    if rows.shape[1] < 2:
        return float("inf")
    clone = Clone(model.weights, model.vocabulary).repeat(EXCERPTS)
    run_in = min(RUN_IN_CHARACTERS, (rows.shape[1] - 1) // 2)
    nats = [nats_of(clone.step(now), following) for now, following in pairwise(rows.T)][run_in:]
    escape = model.vocabulary.escape_nats(int((~known).sum()), len(sample)) / len(sample)
    return bits(float(np.mean(nats)) * float(known.mean()) + escape)
