"""A text is cut into B contiguous streams, which are read side by side in windows of T characters."""

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
    """The input of one step: T consecutive characters of all B streams."""

    x: npt.NDArray[np.int32]  # (B, T) ids
    y: npt.NDArray[np.int32]  # (B, T) the id that follows each of them in the text
    begins: npt.NDArray[np.bool_]  # (B,) rows whose state starts from zero, because the text or a document begins
    # (B, T) characters after the first that begin a document; None if there are none, as in most windows
    restarts: npt.NDArray[np.bool_] | None = None


class Streams:
    """B contiguous streams of k·T characters each, cut from one text; the rest at its end is dropped.

    In epoch e, row b reads segment (b + e) mod B of the text. So each row continues in the next epoch with the text
    that follows, and its state stays valid; only the row that returns to the start of the text begins from zero. In the
    first epoch all rows do. A row's state also restarts where a document begins: at ``starts``, places in the text in
    order.

    A window is a pure function of its position, the number of windows before it; so training resumes from that number.

    Raises ChargenError, with sizes that would fit, if the text has fewer than B·T + 1 characters.
    """

    def __init__(self, ids: Ids, batch_size: int, seq_length: int, starts: npt.NDArray[np.int64] | None = None) -> None:
        self.batch_size, self.seq_length = batch_size, seq_length
        self.characters = len(ids)  # of the whole text
        self._starts = np.zeros(0, np.int64) if starts is None else starts
        self.windows = windows_per_epoch(len(ids), batch_size, seq_length)
        if not self.windows:
            fitting_batch, fitting_length = fit(len(ids), batch_size, seq_length)
            raise ChargenError(
                f"the training text has {len(ids):,} characters, too few for {batch_size} streams of {seq_length}: "
                f"--batch-size {fitting_batch} --seq-length {fitting_length} would fit"
            )
        used = batch_size * self.windows * seq_length
        self.dropped = len(ids) - 1 - used  # characters that are never read: fewer than B·T
        self._x = ids[:used].reshape(batch_size, -1)  # (B, k·T), a view
        self._y = ids[1 : used + 1].reshape(batch_size, -1)

    def read(self, position: int, rows: slice = ALL) -> Window:
        """Return the ``rows`` of the window at ``position``, which counts from 0 through all epochs.

        ``restarts`` is None only if no row of the whole batch has any, because all workers must compute the same
        function.
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
        """Yield the windows from ``position`` on; another thread reads the next one while the caller uses this one."""
        with ThreadPoolExecutor(1, "chargen-read") as reader:
            ahead = reader.submit(self.read, position, rows)
            while True:
                window, position = ahead.result(), position + 1
                ahead = reader.submit(self.read, position, rows)
                yield window

    def _restarts(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_] | None:
        """Return where documents begin in the windows at places (B,) of the text: (B, T), or None if none does."""
        first, later = (np.searchsorted(self._starts, p) for p in (places, places + self.seq_length))
        if (first == later).all():
            return None
        restarts = np.zeros((len(places), self.seq_length), bool)
        for row, place, low, high in zip(restarts, places, first, later, strict=True):
            row[self._starts[low:high] - place] = True
        return restarts


def windows_per_epoch(characters: int, batch_size: int, seq_length: int) -> int:
    """Return k, the number of windows in each of the B streams of a text with ``characters``."""
    return max(0, characters - 1) // (batch_size * seq_length)


def fit(
    characters: int, batch_size: int, seq_length: int, *, shorten: bool = True, multiple: int = 1
) -> tuple[int, int]:
    """Return the largest batch size, up to the given one, that drops at most 5 % of the text, and the window length.

    The batch size is a multiple of ``multiple``, and at least that. With ``shorten``, a window is at most half the
    text. ``characters`` is the length N of the text, at least 2.
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
