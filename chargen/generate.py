"""Seed the clone, then draw: an iterator of characters."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from chargen.clone import Clone
from chargen.sampler import draw
from chargen.vocabulary import Vocabulary


def generate(clone: Clone, seed: str, length: int, temperature: float, random_seed: int) -> Iterator[str]:
    """Read the seed, then yield ``length`` characters drawn one after the other.

    The clone's state is carried: it goes on from what the clone has read before, and ends after the last character
    drawn but one. The seed's characters must be in the vocabulary (see `Vocabulary.repair`). With an empty seed the
    text starts as a paragraph does: `opening` is read in its place.
    """
    generator = np.random.Generator(np.random.PCG64(random_seed))
    ids = clone.vocabulary.encode(seed or opening(clone.vocabulary))
    for _ in range(length):
        drawn = draw(clone.feed(ids), temperature, generator)
        ids = np.array([drawn])
        yield clone.vocabulary.characters[drawn]


def opening(vocabulary: Vocabulary) -> str:
    """Return what a text starts after: a blank line, which ends a paragraph, else a space, else any character."""
    return next((c * 2 for c in "\n " if c in vocabulary), vocabulary.characters[0])
