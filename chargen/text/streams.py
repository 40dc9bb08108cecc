"""One text becomes B contiguous streams that are read side by side, a window of T characters at a time."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from chargen import ChargenError
from chargen.text.vocabulary import Ids

ALL = slice(None)


class Window(NamedTuple):
    """What one step reads: T consecutive characters of all B streams."""

    x: npt.NDArray[np.int32]  # (B, T) ids
    y: npt.NDArray[np.int32]  # (B, T) the id that follows each of them in the text
    begins: npt.NDArray[np.bool_]  # (B,) the rows whose state is zero here, as a text or a document begins
    # (B, T) the characters inside the window before which a document begins; most windows have none.
    restarts: npt.NDArray[np.bool_] | None = None


class Streams:
    """B contiguous streams of k·T characters each, cut from one text; the tail that does not fill them is dropped.

    In epoch e row b reads segment (b + e) mod B of the text, so from one epoch to the next each row goes on with the
    text that follows what it has just read, and its state stays true; the one row that wraps round to the start of
    the text begins anew. In the first epoch all rows begin.

    Where a document begins, at one of ``starts`` (in order, of the text's places), a row's state restarts.

    A window is a pure function of its position, the count of windows read before it: whoever keeps that number can
    go on where it stopped.

    Raises ChargenError, with sizes that would fit, if the text holds fewer than B·T + 1 characters.
    """

    def __init__(self, ids: Ids, batch_size: int, seq_length: int, starts: npt.NDArray[np.int64] | None = None) -> None:
        self.batch_size, self.seq_length = batch_size, seq_length
        self.characters = len(ids)  # of the whole text, its tail too
        self._starts = np.zeros(0, np.int64) if starts is None else starts
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

    def read(self, position: int, rows: slice = ALL) -> Window:
        """Return the window at ``position``: 0 for the first of the first epoch, and on without end.

        Of the other rows than ``rows`` nothing is read. But whether the window has ``restarts`` is a matter of all
        rows, as all workers have to compute the same function.
        """
        epoch, window = divmod(position, self.windows)
        segments = (np.arange(self.batch_size) + epoch) % self.batch_size
        span = slice(window * self.seq_length, (window + 1) * self.seq_length)
        begins = np.full(self.batch_size, window == 0) & ((segments == 0) | (epoch == 0))
        restarts = self._restarts(segments * self._x.shape[1] + span.start)
        if restarts is not None:
            begins |= restarts[:, 0]
            restarts[:, 0] = False
            restarts = restarts[rows] if restarts.any() else None
        segments = segments[rows]
        x, y = (ids[segments, span].astype(np.int32) for ids in (self._x, self._y))
        return Window(x, y, begins[rows], restarts)

    def read_ahead(self, position: int, rows: slice = ALL) -> Generator[Window]:
        """Yield the windows from ``position`` on, each read by another thread while its caller has the one before."""
        with ThreadPoolExecutor(1, "chargen-read") as reader:
            ahead = reader.submit(self.read, position, rows)
            while True:
                window, position = ahead.result(), position + 1
                ahead = reader.submit(self.read, position, rows)
                yield window

    def _restarts(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_] | None:
        """Return where in the windows from places (B,) on documents begin, (B, T); None if none does."""
        first, later = (np.searchsorted(self._starts, p) for p in (places, places + self.seq_length))
        if (first == later).all():
            return None
        restarts = np.zeros((len(places), self.seq_length), bool)
        for row, place, low, high in zip(restarts, places, first, later, strict=True):
            row[self._starts[low:high] - place] = True
        return restarts


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
