"""The base model that ships with chargen, and how well a model reads a new text. Without TensorFlow."""

from __future__ import annotations

from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np

from chargen.bits import bits
from chargen.config import BASE
from chargen.store.modelfile import ModelFile
from chargen.text.corpus import Corpus
from chargen.writing.clone import Clone
from chargen.writing.sampler import nats_of

# A model reads this many excerpts at once. The first characters of each are not counted, as they lack context.
EXCERPTS, RUN_IN_CHARACTERS, COUNTED_CHARACTERS = 32, 32, 96


def base_path() -> Path:
    """Return the path of the base model's file."""
    return Path(str(resources.files("chargen.corpora").joinpath(f"{BASE}.safetensors")))


def reading_bits(model: ModelFile, corpus: Corpus) -> float:
    """Return about how many bits per character a text costs a model, from 32 evenly spaced excerpts of 128 characters.

    Characters that the model does not know cost what `Vocabulary.escape_nats` says. The result is infinite if the model
    knows fewer than 64 characters of the excerpts.
    """
    length = RUN_IN_CHARACTERS + COUNTED_CHARACTERS
    starts = np.linspace(0, max(0, len(corpus.ids) - length), EXCERPTS).astype(np.int64)
    sample = "".join(corpus.vocabulary.decode(corpus.ids[start : start + length]) for start in starts)
    ids, known = model.vocabulary.encode_known(sample)
    rows = ids[: len(ids) // EXCERPTS * EXCERPTS].reshape(EXCERPTS, -1).astype(np.int64)
    if rows.shape[1] < 2:
        return float("inf")
    clone = Clone(model.weights, model.vocabulary).repeat(EXCERPTS)
    run_in = min(RUN_IN_CHARACTERS, rows.shape[1] // 2)
    nats = [nats_of(clone.step(now), following) for now, following in pairwise(rows.T)][run_in:]
    escape = model.vocabulary.escape_nats(int((~known).sum()), len(sample)) / len(sample)
    return bits(float(np.mean(nats)) * float(known.mean()) + escape)
