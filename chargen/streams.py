"""One text becomes B contiguous streams that are read side by side, a window of T characters at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from chargen import ChargenError
from chargen.vocabulary import Ids


class Window(NamedTuple):
    """What one step reads: T consecutive characters of all B streams."""

    x: npt.NDArray[np.int32]  # (B, T) ids
    y: npt.NDArray[np.int32]  # (B, T) the id that follows each of them in the text
    begins: npt.NDArray[np.bool_]  # (B,) the rows whose state is zero here, as nothing was read before


class Streams:
    """B contiguous streams of k·T characters each, cut from one text; the tail that does not fill them is dropped.

    In epoch e row b reads segment (b + e) mod B of the text, so from one epoch to the next each row goes on with the
    text that follows what it has just read, and its state stays true; the one row that wraps round to the start of
    the text begins anew. In the first epoch all rows begin.

    A window is a pure function of its position, the count of windows read before it: whoever keeps that number can
    go on where it stopped.

    Raises ChargenError, with sizes that would fit, if the text holds fewer than B·T + 1 characters.
    """

    def __init__(self, ids: Ids, batch_size: int, seq_length: int) -> None:
        self.batch_size, self.seq_length = batch_size, seq_length
        self.windows = windows_per_epoch(len(ids), batch_size, seq_length)
        if not self.windows:
            fitting_batch, fitting_length = fit(len(ids), batch_size, seq_length)
            raise ChargenError(
                f"the training text has {len(ids):,} characters, too few for {batch_size} streams of {seq_length}: "
                f"--batch-size {fitting_batch} --seq-length {fitting_length} would fit"
            )
        used = batch_size * self.windows * seq_length
        self.dropped = len(ids) - 1 - used  # fewer than B·T characters that are never read
        self._x = ids[:used].reshape(batch_size, -1)  # (B, k·T), a view
        self._y = ids[1 : used + 1].reshape(batch_size, -1)

    def read(self, position: int, rows: slice = slice(None)) -> Window:
        """Return the window at ``position``: 0 for the first of the first epoch, and on without end.

        Of the other rows than ``rows``, nothing is read.
        """
        epoch, window = divmod(position, self.windows)
        segments = (np.arange(self.batch_size)[rows] + epoch) % self.batch_size
        span = slice(window * self.seq_length, (window + 1) * self.seq_length)
        begins = np.full(len(segments), window == 0) & ((segments == 0) | (epoch == 0))
        return Window(self._x[segments, span].astype(np.int32), self._y[segments, span].astype(np.int32), begins)


def windows_per_epoch(characters: int, batch_size: int, seq_length: int) -> int:
    """Return k: how many windows of T each of the B streams of a text of so many characters has."""
    return max(0, characters - 1) // (batch_size * seq_length)


def fit(
    characters: int, batch_size: int, seq_length: int, *, shorten: bool = True, multiple: int = 1
) -> tuple[int, int]:
    """Return the largest batch size, up to the given one, that drops at most a twentieth of the text, and the window.

    The batch size is a multiple of ``multiple``, which it is at the least. The window is shortened, to half the text at
    the most, if it may be and a text is as short as that. ``characters`` is the length N of the text, 2 at the least.
    """
    if shorten:
        seq_length = min(seq_length, max(1, (characters - 1) // 2))

    def dropped(batch: int) -> int:
        return (characters - 1) % (batch * seq_length)

    fitting = (
        batch
        for batch in range(min(batch_size, (characters - 1) // seq_length), 0, -1)
        if batch % multiple == 0 and dropped(batch) * 20 <= characters
    )
    return next(fitting, multiple), seq_length
