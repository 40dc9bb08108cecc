"""Samples as they are shown: one after the other, as text, as shaded text, or as JSON; on a screen or into a file."""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import sys
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from chargen import ChargenError
from chargen.bits import bits
from chargen.files import disk
from chargen.terminal import Clusters, shade, shown
from chargen.writing.generate import Piece

if TYPE_CHECKING:
    from chargen.writing.originality import Originality

BLOCK = 4096  # characters that are shown at once, where many are to be


class Waiting:
    """What a sample has drawn before it is its turn: some 10 bytes a character, where a piece takes 160."""

    def __init__(self) -> None:
        self._text, self._nats = io.StringIO(), array("d")
        self.stopped_by: str | None = None

    def add(self, piece: Piece) -> None:
        """Take the sample's next piece."""
        self._text.write(piece.text)
        self._nats.extend(piece.nats)
        self.stopped_by = piece.stopped_by

    def pieces(self, sample: int) -> Iterator[Piece]:
        """Give all that was taken, in pieces."""
        self._text.seek(0)
        for start in range(0, len(self._nats), BLOCK):
            yield Piece(sample, self._text.read(BLOCK), self._nats[start : start + BLOCK])
        yield Piece(sample, "", (), self.stopped_by)


def in_turn(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Give the pieces of sample 0, then those of sample 1, and so on; each piece as soon as it is its sample's turn."""
    current, waiting = 0, dict[int, Waiting]()
    for piece in pieces:
        if piece.sample != current:
            waiting.setdefault(piece.sample, Waiting()).add(piece)
            continue
        yield piece
        ended = piece.stopped_by is not None
        while ended:
            current += 1
            earlier = waiting.pop(current, None)
            ended = earlier is not None and earlier.stopped_by is not None
            if earlier is not None:
                yield from earlier.pieces(current)


class Plain:
    """The text, in whole clusters; several samples under a heading each. It keeps the last cluster."""

    def __init__(self, out: TextIO, seed: str, count: int) -> None:
        self._out, self._seed, self._count = out, seed, count
        self._live = out is sys.stdout  # somebody may be reading along
        self._clusters = Clusters()

    def begin(self, sample: int) -> None:
        """Write the heading and the seed."""
        if self._count > 1:
            self._out.write(f"--- {sample + 1} of {self._count} ---\n")
        self.write(Piece(sample, self._seed, [0.0] * len(self._seed)))

    def write(self, piece: Piece) -> None:
        """Write the clusters that are whole now."""
        for cluster, nats in self._clusters.add(piece.text, piece.nats):
            self._out.write(self._dressed(shown(cluster, self._out), nats))
        if self._live:
            self._out.flush()

    def end(self, stopped_by: str) -> None:
        """Write the last cluster; a line's end where something may follow."""
        for cluster, nats in self._clusters.release():
            self._out.write(self._dressed(shown(cluster, self._out), nats))
        if self._count > 1 or self._out.isatty():
            self._out.write("\n")

    def _dressed(self, cluster: str, nats: float) -> str:
        return cluster


class Shaded(Plain):
    """The text, each cluster on a background that tells its surprisal."""

    def _dressed(self, cluster: str, nats: float) -> str:
        return shade(cluster, nats)


class JsonLines:
    """A JSON object for each sample, a line each. It keeps the sample's text and costs.

    The logarithms are natural, the probabilities the model's own, unfiltered.
    """

    def __init__(
        self, out: TextIO, seed: str, settings: dict[str, Any], compare: Callable[[str], Originality] | None = None
    ) -> None:
        """Take what all objects share: the seed; ``settings``; with ``compare``, an entry ``originality`` is added."""
        self._out, self._seed, self._settings, self._compare = out, seed, settings, compare
        utf8 = (out.encoding or "").lower().replace("-", "") == "utf8"
        self._json = json.JSONEncoder(ensure_ascii=not utf8)
        self._sample, self._text, self._nats = 0, io.StringIO(), array("d")

    def begin(self, sample: int) -> None:
        """Forget the sample before."""
        self._sample, self._text, self._nats = sample, io.StringIO(), array("d")

    def write(self, piece: Piece) -> None:
        """Keep the piece's text and costs."""
        self._text.write(piece.text)
        self._nats.extend(piece.nats)

    def end(self, stopped_by: str) -> None:
        """Write the object, its long entries block by block."""
        text, nats = self._text.getvalue(), self._nats
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


class Reported:
    """What another writer shows, and a report on each sample's text after it. It keeps the sample's text."""

    def __init__(self, writer: Plain, report: Callable[[str, str], None], count: int) -> None:
        self._writer, self._report, self._count = writer, report, count
        self._label, self._text = "", io.StringIO()

    def begin(self, sample: int) -> None:
        """Forget the sample before."""
        self._label, self._text = f"{sample + 1} of {self._count}: " if self._count > 1 else "", io.StringIO()
        self._writer.begin(sample)

    def write(self, piece: Piece) -> None:
        """Show the piece, and keep its text."""
        self._text.write(piece.text)
        self._writer.write(piece)

    def end(self, stopped_by: str) -> None:
        """Show the rest, then the report."""
        self._writer.end(stopped_by)
        self._report(self._label, self._text.getvalue())


def show(pieces: Iterator[Piece], writer: Plain | JsonLines | Reported) -> None:
    """Show pieces, those of several samples mixed, sample by sample."""
    current = -1
    for piece in in_turn(pieces):
        if piece.sample != current:
            current = piece.sample
            writer.begin(current)
        writer.write(piece)
        if piece.stopped_by is not None:
            writer.end(piece.stopped_by)


@contextmanager
def kept(path: Path) -> Iterator[TextIO]:
    """Open a text file that is named ``path`` when it is closed; until then it is a temporary one beside it.

    Whatever ends the writing, what was written until then is kept. Where the disk is full a ChargenError says so.
    Nothing that has come to be at ``path`` meanwhile is replaced.
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
            if error.errno == errno.EPIPE:  # that of a report, not the file's
                raise
            problem = error
        finally:
            problem = _close(file) or problem
            if problem is not None:
                _end_with_a_character(beside)
            _name(beside, path)
    if problem is not None:
        raise ChargenError(
            f"{path} is cut short: {problem.strerror}; it holds the first {path.stat().st_size:,} bytes of what was "
            "drawn"
        )


def _close(file: TextIO) -> OSError | None:
    """Bring a file to the disk and close it; return what prevented that."""
    problem = None
    try:
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        problem = error
    with suppress(OSError):  # of what could not be brought to the disk just now
        file.close()
    return problem


def _end_with_a_character(path: Path) -> None:
    """Cut what a file's end has of a character of UTF-8 that is not whole."""
    size = path.stat().st_size
    with path.open("rb+") as file:
        file.seek(max(0, size - 4))
        decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        decoder.decode(file.read())
        file.truncate(size - len(decoder.getstate()[0]))


def _name(beside: Path, path: Path) -> None:
    """Give a file its name, if nothing has it."""
    try:
        disk.move(beside, path, new=True)
    except OSError as error:
        disk.keep(beside.parent)
        raise ChargenError(f"{path} can't be written: {error.strerror}; what was drawn is in {beside}") from None
