"""Bits per character of file compressors, as a baseline for a model's bits per character."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "xz": lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
    "bz2": lambda data: bz2.compress(data, 9),
}


def bits_per_character(compressor: str, training: str, text: str) -> float:
    """Return the bits that compressing ``training + text`` takes beyond ``training``, per character of ``text``.

    So the compressor, like a model, has learnt from the training text before it reads the other one.
    """
    compress = COMPRESSORS[compressor]
    known, both = (len(compress(part.encode("utf-8"))) for part in (training, training + text))
    return 8 * (both - known) / len(text)
