"""A smaller model file, in float16 or int8, for `chargen sample --model` and `chargen train --from` elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from chargen.export import Export
from chargen.export.verify import Read, Reference, compare
from chargen.store.modelfile import in_int8
from chargen.writing.clone import Clone

NOTE = """
chargen reads $name in place of a run: `chargen sample --model $name` writes text, and `chargen train text.txt --from
$name` trains it further on another text.
"""


def write(export: Export, path: Path) -> None:
    """Write the model file, with weights in float16, int8 or float32."""
    weights = export.model.weights
    if export.quantize == "float16":
        weights = {name: array.astype(np.float16) for name, array in weights.items()}
    elif export.quantize == "int8":
        weights = in_int8(weights)
    replace(export.model, weights=weights, extra={}).write(path)


def verify(path: Path, reference: Reference) -> list[str]:
    """Compare the file, as the clone reads it, with the clone of the model."""
    clone = Clone.open(path)

    def start() -> Read:
        clone.reset_states()
        return clone.read

    return compare(start, reference, "chargen")
