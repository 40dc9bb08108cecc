"""Show samples one after the other: as text, as shaded text, or as JSON lines; on a screen or in a file."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from chargen import ChargenError
from chargen.bits import bits
from chargen.files import disk
from chargen.terminal import Clusters, shown
from chargen.writing.generate import Piece
from chargen.writing.shading import shade

if TYPE_CHECKING:
    from chargen.writing.originality import Originality

BLOCK = 4096  # characters of a long text that are written at once


class Collected:
    """The text of a sample and the nats of its characters: some 12 bytes a character, where a piece takes 160."""

    def __init__(self) -> None:
        self._text, self.nats = io.StringIO(), array("d")
        self.stopped_by: str | None = None

    def add(self, piece: Piece) -> None:
        """Add the sample's next piece."""
        self._text.write(piece.text)
        self.nats.extend(piece.nats)
        self.stopped_by = piece.stopped_by

    @property
    def text(self) -> str:
        """The text of all pieces."""
        return self._text.getvalue()

    def pieces(self, sample: int) -> Iterator[Piece]:
        """Yield what was added, in pieces of BLOCK characters and a last one without text."""
        self._text.seek(0)
        for start in range(0, len(self.nats), BLOCK):
            yield Piece(sample, self._text.read(BLOCK), self.nats[start : start + BLOCK])
        yield Piece(sample, "", (), self.stopped_by)


def in_turn(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Put interleaved pieces of several samples in order: those of sample 0, then those of sample 1, and so on.

    Pieces of the current sample are yielded at once; those of later samples are collected until it is their turn.
    """
    waiting = dict[int, Collected]()
    for sample in count():
        collected = waiting.pop(sample, None)
        if collected is not None:
            yield from collected.pieces(sample)
            if collected.stopped_by is not None:
                continue
        for piece in pieces:
            if piece.sample != sample:
                waiting.setdefault(piece.sample, Collected()).add(piece)
                continue
            yield piece
            if piece.stopped_by is not None:
                break
        else:
            return


class Plain:
    """Writes the text; a heading before each of several samples. It keeps the last grapheme cluster only.

    With a ``separator``, that follows each sample, and there are no headings.
    """

    def __init__(self, out: TextIO, seed: str, count: int, separator: str = "") -> None:
        self._out, self._seed, self._count, self._separator = out, seed, count, separator
        self._live = out is sys.stdout  # somebody may be reading along
        self._clusters = Clusters()

    def begin(self, sample: int) -> None:
        """Write the heading and the seed."""
        if self._count > 1 and not self._separator:
            self._out.write(f"--- {sample + 1} of {self._count} ---\n")
        self.write(Piece(sample, self._seed, [0.0] * len(self._seed)))

    def write(self, piece: Piece) -> None:
        """Write the clusters that are complete."""
        self._write(self._clusters.add(piece.text, piece.nats))
        if self._live:
            self._out.flush()

    def end(self, stopped_by: str) -> None:
        """Write the last cluster, and a newline if something may follow."""
        self._write(self._clusters.release())
        if self._separator:
            self._out.write(self._separator)
        elif self._count > 1 or self._out.isatty():
            self._out.write("\n")

    def _write(self, clusters: list[tuple[str, float]]) -> None:
        for cluster, nats in clusters:
            self._out.write(self._styled(shown(cluster, self._out), nats))

    def _styled(self, cluster: str, nats: float) -> str:
        return cluster


class Shaded(Plain):
    """Writes the text, each cluster on a background for its surprisal."""

    def _styled(self, cluster: str, nats: float) -> str:
        return shade(cluster, nats)


class JsonLines:
    """Writes a JSON object for each sample, one a line. It keeps the sample's text and nats.

    The log-probabilities are natural logarithms under the model, before any filter.
    """

    def __init__(
        self, out: TextIO, seed: str, settings: dict[str, Any], compare: Callable[[str], Originality] | None = None
    ) -> None:
        """Take what all objects share: the seed and the settings. With ``compare`` they have an entry "originality"."""
        self._out, self._seed, self._settings, self._compare = out, seed, settings, compare
        utf8 = (out.encoding or "").lower().replace("-", "") == "utf8"
        self._json = json.JSONEncoder(ensure_ascii=not utf8)

    def begin(self, sample: int) -> None:
        """Begin to collect a sample."""
        self._sample, self._collected = sample, Collected()

    def write(self, piece: Piece) -> None:
        """Collect the piece."""
        self._collected.add(piece)

    def end(self, stopped_by: str) -> None:
        """Write the object, its long entries block by block."""
        text, nats = self._collected.text, self._collected.nats
        self._out.write(f'{{"seed": {self._encode(self._seed)}, "text": "')
        for start in range(0, len(text), BLOCK):
            self._out.write(self._encode(text[start : start + BLOCK])[1:-1])
        self._out.write('", "log_probabilities": [')
        for start in range(0, len(nats), BLOCK):
            rounded = [round(-cost, 6) for cost in nats[start : start + BLOCK]]
            self._out.write(", " * (start > 0) + self._encode(rounded)[1:-1])
        rest = {
            "bits_per_character": bits(sum(nats) / len(nats)) if nats else None,
            "random_seed": self._settings["random_seed"],
            "index": self._sample,
            "stopped_by": stopped_by,
            "settings": self._settings,
            **({} if self._compare is None else {"originality": self._compare(text)._asdict()}),
        }
        self._out.write(f"], {self._encode(rest)[1:]}\n")
        self._out.flush()

    def _encode(self, value: Any) -> str:
        return shown(self._json.encode(value), self._out)


def show(pieces: Iterator[Piece], writer: Plain | JsonLines, report: Callable[[int, str], None] | None = None) -> None:
    """Write interleaved pieces sample by sample; call ``report(sample, text)``, if it is given, after each sample."""
    current, text = -1, io.StringIO()
    for piece in in_turn(pieces):
        if piece.sample != current:
            current, text = piece.sample, io.StringIO()
            writer.begin(current)
        writer.write(piece)
        if report is not None:
            text.write(piece.text)
        if piece.stopped_by is not None:
            writer.end(piece.stopped_by)
            if report is not None:
                report(current, text.getvalue())


@contextmanager
def kept(path: Path) -> Iterator[TextIO]:
    """Open a new text file for writing, which appears at ``path`` when it is closed.

    However the writing ends, what was written so far is kept; if the disk is full, without an incomplete character at
    the end. Raises ChargenError if the file can't be made, or the disk is full, or something else has appeared at
    ``path`` meanwhile; the last is left as it is, and the text in the temporary folder beside it.
    """
    with ExitStack() as stack:
        try:
            beside = stack.enter_context(disk.temporary(path.parent)) / "text"
            file = beside.open("x", encoding="utf-8", errors="replace", newline="\n")
        except OSError as error:
            raise ChargenError(f"{path} can't be written: {error.strerror}; name a file in another folder") from None
        problem: OSError | None = None
        try:
            yield file
        except OSError as error:
            problem = error
        finally:
            try:
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                problem = error
            with suppress(OSError):  # closing flushes again
                file.close()
            if problem is not None:
                _cut_to_whole_characters(beside)
            _name(beside, path)
    if problem is not None:
        size = path.stat().st_size
        raise ChargenError(f"{path} is cut short: {problem.strerror}; it holds the first {size:,} bytes of the text")


def _cut_to_whole_characters(path: Path) -> None:
    """Remove an incomplete UTF-8 character at the end of a file."""
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 4))
        decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        decoder.decode(file.read())
        file.truncate(size - len(decoder.getstate()[0]))


def _name(beside: Path, path: Path) -> None:
    """Rename a temporary file to ``path``, unless something is there."""
    try:
        disk.move(beside, path, new=True)
    except OSError as error:
        disk.keep(beside.parent)
        raise ChargenError(f"{path} can't be written: {error.strerror}; the text is in {beside}") from None
