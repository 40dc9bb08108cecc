"""A folder with a model file and a script that reads it, which needs Python and NumPy but not chargen."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from chargen.export import Export
from chargen.export.verify import Read, Reference, compare, stepwise

NOTE = """
# to write text, in a shell: python $name/sample.py $seed
import sys

sys.path.insert(0, "$name")
from sample import characters, step, zero_state

text, state = $seed, zero_state
for at in range(len(text) + 99):
    logits, state = step(characters.index(text[at]), state)
    if at >= len(text) - 1:
        text += characters[logits.argmax()]
print(text)
"""


def write(export: Export, path: Path) -> None:
    """Write the folder: ``model.safetensors`` and ``sample.py``."""
    path.mkdir()
    replace(export.model, extra={}).write(path / "model.safetensors")
    (path / "sample.py").write_bytes(files("chargen.export").joinpath("sample.py").read_bytes())


def load(path: Path) -> Callable[[], Read]:
    """Run the script as a module; return the ``start`` for `compare`, which reads by its ``step``."""
    script = runpy.run_path(str(path / "sample.py"))
    return stepwise(script["step"], script["zero_state"])


def verify(path: Path, reference: Reference) -> list[str]:
    """Compare the script with the clone."""
    return compare(load(path), reference, "NumPy")
