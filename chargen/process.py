"""What is set for the whole process: thread pools, the allocator, the environment, where standard error goes.

Only the program that owns its process sets it: the ``chargen`` command, and each side of a benchmark. A command that
runs inside another program leaves that program's process as it is.
"""

from __future__ import annotations

import os

_owned = False


def own() -> None:
    """Declare that the process is chargen's, and set its environment; before TensorFlow or Keras is imported."""
    global _owned
    _owned = True
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"


def owned() -> bool:
    """Tell whether the process is chargen's own."""
    return _owned
