"""Documents are encoded in one pass, before all characters are known: a temporary file keeps provisional ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from chargen import ChargenError
from chargen.text.documents import Reading, text
from chargen.text.encodings import NoTextError
from chargen.text.items import blocks
from chargen.text.sources import Source
from chargen.text.vocabulary import CODE_POINTS, END, Ids, code_points

Starts = npt.NDArray[np.int64]
Advance = Callable[[int], object]  # called with the number of characters that were read since the last call


class Spool:
    """A text in a file, as provisional ids: numbers in the order in which the characters first occur."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._ids = np.full(CODE_POINTS, CODE_POINTS, np.uint32)  # by code point
        self.points: list[int] = []  # code points, by id
        self.blocks: list[tuple[np.dtype[Any], int]] = []  # the dtype and length of each block
        self.characters = 0

    def add(self, part: str) -> None:
        """Append a text as one block."""
        points = code_points(part)
        ids = self._ids.take(points)  # twice as fast as an index
        if ids.max() == CODE_POINTS:
            new = np.unique(points[ids == CODE_POINTS])
            self._ids[new] = np.arange(len(self.points), len(self.points) + len(new))
            self.points += new.tolist()
            ids = self._ids.take(points)
        block = ids.astype(np.min_scalar_type(len(self.points) - 1))
        self._file.write(block.data)
        self.blocks.append((block.dtype, len(block)))
        self.characters += len(block)

    def mark(self) -> tuple[int, int, int, int]:
        """Return the current end, for `rewind`."""
        return self._file.tell(), len(self.points), len(self.blocks), self.characters

    def rewind(self, mark: tuple[int, int, int, int]) -> None:
        """Remove everything that was added since a mark."""
        position, points, blocks, self.characters = mark
        self._file.seek(position)
        self._file.truncate()
        self._ids[self.points[points:]] = CODE_POINTS
        del self.points[points:], self.blocks[blocks:]

    def read(self) -> Iterator[Ids]:
        """Yield the blocks of provisional ids."""
        self._file.seek(0)
        for dtype, length in self.blocks:
            yield np.frombuffer(self._file.read(length * dtype.itemsize), dtype)

    def rare(self, min_count: int) -> dict[str, int]:
        """Return the characters that occur fewer than ``min_count`` times, with their counts."""
        if min_count == 1:
            return {}
        sums = sum(np.bincount(block, minlength=len(self.points)) for block in self.read())
        counts = zip(self.points, np.asarray(sums).tolist(), strict=True)
        return {chr(point): count for point, count in counts if count < min_count}


def spool_documents(
    spool: Spool, found: Sequence[Source], reading: Reading, advance: Advance
) -> tuple[Starts, list[str]]:
    """Add all documents to the spool; return the places where they start, and notes on what was changed or left out.

    A document starts on a new line, or with END if files hold several of them; END then follows the last one too.

    Raises ChargenError if no source is a text, or a named one is not.
    """
    starts: list[int] = []
    notes: list[str] = []
    line_ended = True
    for source in found:
        mark, before, ended = spool.mark(), len(starts), line_ended
        try:
            parts = blocks(source, reading) if reading.itemized else _whole(text(source, reading))
            for part, places in parts:
                if not (line_ended or reading.itemized) and len(starts) == before:
                    spool.add("\n")
                starts += [spool.characters + place for place in places]
                spool.add(part)
                advance(len(part))
                line_ended = part.endswith("\n")
        except NoTextError as reason:
            if not source.found:
                raise
            spool.rewind(mark)
            reading.forget(source.name)
            del starts[before:]
            line_ended = ended
            notes.append(f"{source.name} is {reason.what}: left out")
    if not spool.characters:
        folder = Path(found[0].name).parent
        why = f" ({notes[0].removesuffix(': left out')})" if notes else ""
        raise ChargenError(f"{folder} holds no text files{why}: name a folder with text in it, or the files themselves")
    if reading.itemized:
        spool.add(END)
    return np.array(starts, np.int64), notes + reading.notes()


def _whole(parts: Iterator[str]) -> Iterator[tuple[str, list[int]]]:
    """Yield the parts of a document as `items.blocks` does: it starts in the first one."""
    for number, part in enumerate(parts):
        yield part, [] if number else [0]
