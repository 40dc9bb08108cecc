"""One process at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Keep a file or folder that exists to this process while it is entered; it ends with the process, however that.

    Raises BlockingIOError if another process has it and ``wait`` is false.
    """
    try:
        import fcntl
    except ImportError:  # Windows, which has no locks on folders
        yield
        return
    opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # NFS locks only what can be written
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(opened)  # which unlocks it
