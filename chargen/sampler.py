"""From logits to a character's id."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def draw(logits: npt.NDArray[np.floating], temperature: float, generator: np.random.Generator) -> int:
    """Draw an id from logits (V,).

    The probabilities are softmax(logits / temperature); temperature 0 takes the likeliest, the first of equals, and
    leaves the generator alone. Otherwise one number is taken from the generator.
    """
    if temperature == 0:
        return int(np.argmax(logits))
    scaled = logits.astype(np.float64)
    scaled -= scaled.max()  # before the division, which could overflow at a tiny temperature
    cumulated = np.cumsum(np.exp(scaled / temperature))
    place = np.searchsorted(cumulated, generator.random() * cumulated[-1], side="right")
    return min(int(place), len(logits) - 1)  # the product can round up to the whole sum
