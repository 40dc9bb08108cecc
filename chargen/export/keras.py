"""A ``.keras`` file of stock layers, stateful and with batch size 1, which Keras loads without chargen."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from chargen.export import Export
from chargen.export.verify import Ids, Read, Reference, compare
from chargen.network.stock import stateful_clone
from chargen.writing.clone import Floats

METADATA_NAME = "chargen.json"  # in the archive, beside Keras's own entries

NOTE = """
import json, zipfile
import keras, numpy as np

with zipfile.ZipFile("$name") as archive:
    characters = json.loads(archive.read("chargen.json"))["vocabulary"]
# The LSTM layers keep their state until reset_state() is called.
model = keras.saving.load_model("$name")
text = $seed
ids = [[characters.index(character) for character in text]]
logits = model(np.array(ids))
for _ in range(100):
    text += characters[int(np.argmax(logits[0, -1]))]
    logits = model(np.array([[characters.index(text[-1])]]))
print(text)
"""


def write(export: Export, path: Path) -> None:
    """Write the file, with the metadata in its archive as ``chargen.json``."""
    stateful_clone(export.model).save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(METADATA_NAME, export.json)


def load(path: Path) -> Callable[[], Read]:
    """Load the file with Keras alone; return the ``start`` for `compare`."""
    model = keras.saving.load_model(path)
    compiled = tf.function(model, reduce_retracing=True)  # 20 times as fast as calling the model

    def read(ids: Ids) -> Floats:
        return np.array(compiled(ids.astype(np.int32)[None])[0])

    def start() -> Read:
        for layer in model.layers[1:-1]:
            layer.reset_state()
        return read

    return start


def verify(path: Path, reference: Reference) -> list[str]:
    """Compare the file, loaded by Keras, with the clone."""
    return compare(load(path), reference, "Keras")
