"""A LiteRT file (``.tflite``) with one signature, ``step``, which reads one character."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from chargen.export import Export
from chargen.export.savedmodel import METADATA_NAME, save, step_function
from chargen.export.verify import Read, Reference, compare, stepwise
from chargen.network.model import CharLM
from chargen.writing.clone import Floats

NOTE = """
import json, zipfile
import numpy as np
from ai_edge_litert.interpreter import Interpreter

with zipfile.ZipFile("$name") as archive:
    characters = json.loads(archive.read("chargen.json"))["vocabulary"]
step = Interpreter("$name").get_signature_runner("step")
shapes = {name: i["shape"] for name, i in step.get_input_details().items()}
del shapes["ids"]
state = {name: np.zeros(shapes[name], np.float32) for name in shapes}
text = $seed
for at in range(len(text) + 99):
    ids = np.array([[characters.index(text[at])]], np.int32)
    state = step(ids=ids, **state)
    logits = state.pop("logits")
    if at >= len(text) - 1:
        text += characters[logits[0, 0].argmax()]
print(text)
"""


def write(export: Export, path: Path) -> None:
    """Write the file, with the metadata in a zip archive at its end, as LiteRT packs associated files."""
    folder = path.with_name("step")
    save(CharLM.of(export.model), folder, {"step": step_function})
    with warnings.catch_warnings(action="ignore"):
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=["step"])
    if export.quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]  # int8 weights; sums and state stay float32
    if export.quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    path.write_bytes(converter.convert())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(METADATA_NAME, export.json)


def load(path: Path) -> Callable[[], Read]:
    """Load the file with LiteRT; return the ``start`` for `compare`, which reads by the signature ``step``."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    runner = interpreter.get_signature_runner("step")

    def step(id: int, state: dict[str, Floats]) -> tuple[Floats, dict[str, Any]]:
        after = runner(ids=np.array([[id]], np.int32), **state)
        return after.pop("logits"), after

    inputs = runner.get_input_details()
    return stepwise(step, {n: np.zeros(i["shape"], np.float32) for n, i in inputs.items() if n != "ids"})


def verify(path: Path, reference: Reference) -> list[str]:
    """Compare the file, loaded by LiteRT, with the clone."""
    return compare(load(path), reference, "LiteRT")
