"""Documents become one text of ids, kept in a cache and mapped into memory, parted into training and validation.

A corpus in the cache is a folder that is named by what made it, the hash of the files' bytes and the options:
``ids.npy`` (N,), ``starts.npy`` where documents begin, ``corpus.json`` the rest. It appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from chargen import ChargenError
from chargen.config import TrainConfig
from chargen.documents import BUNDLED, STANDARD_INPUT, NoTextError, Source, decode, sources, text
from chargen.lock import locked
from chargen.modelfile import write_beside
from chargen.vocabulary import CODE_POINTS, UNKNOWN, Ids, Vocabulary, code_points

VOICES = ("log", "letters", "manual")  # texts of three authors, beside the book
FILES = IDS, STARTS, TOLD = "ids.npy", "starts.npy", "corpus.json"  # of a cached corpus
COUNTED = 10_000  # characters of a block of those that are counted
FORMAT = 1  # of a cached corpus: raised when the same files would give other ids

Starts = npt.NDArray[np.int64]
Advance = Callable[[int], object]  # told how many more characters have been read


class Part(NamedTuple):
    """A stretch of a corpus."""

    ids: Ids  # (N,), a view
    starts: Starts  # where in it documents begin, in order; not its own beginning

    def log_shares(self, characters: int) -> npt.NDArray[np.float32]:
        """Return the logarithm of the share that each of so many characters has in the part: (characters,).

        A long part is counted in some thousand blocks, evenly spread; each character once more, so that none has none.
        """
        counts = np.ones(characters, np.int64)
        for place in range(0, len(self.ids), max(COUNTED, len(self.ids) // 1000)):
            counts += np.bincount(self.ids[place : place + COUNTED], minlength=characters)
        return np.asarray(np.log(counts / counts.sum()), np.float32)


@dataclass(frozen=True, eq=False)
class Corpus:
    """A whole text as ids, with what is needed to find and to recognise it again."""

    ids: Ids  # (N,) uint8, uint16 or uint32
    starts: Starts  # where in it documents begin, in order: the first at 0
    vocabulary: Vocabulary
    files: tuple[str, ...]  # as given, made absolute; none is the bundled book
    name: str  # what a run on this text is called
    sha256: str  # by which a changed text is recognised: of characters, ids and starts, not of the files' bytes
    notes: tuple[str, ...] = ()  # what was done to the files that their owner would want to know

    def write(self, folder: Path) -> None:
        """Write the corpus into an empty folder, for `opened`."""
        np.save(folder / IDS, self.ids)
        np.save(folder / STARTS, self.starts)
        _describe(folder, self.vocabulary, self.sha256, self.notes)

    def split(self, validation: float, most: int | None = None) -> tuple[Part, Part]:
        """Return the part for training and, the text's last ``validation`` share, that for validation: two views.

        Each holds two characters at least: one to read and one to predict; validation holds no more than ``most``.
        Raises ChargenError where they can't.
        """
        border = len(self.ids) - held_out(len(self.ids), validation, most)
        if border < 2:
            raise ChargenError(
                f"{self.name} is too short, {len(self.ids):,} characters, which leaves fewer than 2 for training: "
                "give a longer text, or a smaller --validation"
            )
        first, later = np.searchsorted(self.starts, [border, border + 1])
        return (
            Part(self.ids[:border], self.starts[1:first]),
            Part(self.ids[border:], self.starts[max(1, later) :] - border),
        )


def read(
    paths: Sequence[str],
    settings: TrainConfig | None = None,
    known: Vocabulary | None = None,
    cache: Path | None = None,
    advance: Advance = lambda characters: None,
) -> Corpus:
    """Read files, folders and patterns (``-``: standard input; none: the bundled book) as one corpus.

    Of ``settings`` it is the options of reading that count: encoding, joining, boilerplate, rare characters. A text
    that does not end its last line gets a line's end if another follows. The vocabulary is every character that
    occurs, and those of ``known``. Memory holds a block at a time, and in the end the ids: mapped from a folder in
    ``cache``, where they are found the next time, or as an array where there is no cache. ``advance`` is told of the
    characters that have been read, as they are.

    Raises ChargenError for a file that is missing, empty, unreadable, binary or not in the encoding, and if the cache
    can't be written.
    """
    settings = settings or TrainConfig()
    files = tuple(p if p == STANDARD_INPUT else str(Path(p).resolve()) for p in paths)
    with sources(paths) as found:
        try:
            if cache is None:
                with tempfile.TemporaryDirectory(prefix="chargen-") as temporary:
                    _build(Path(temporary), found, settings, known, advance)
                    return opened(Path(temporary), files, _name(paths), mapped=False)
            before = [source.stamp() for source in found]
            folder = cache / _key(found, settings, known)
            if folder.exists():
                return opened(folder, files, _name(paths), mapped=True)
            cache.mkdir(parents=True, exist_ok=True)
            lock = folder.with_suffix(".lock")
            lock.touch()
            with locked(lock, wait=True):  # whoever else builds this one is waited for: the result is then ours
                if not folder.exists():
                    building = folder.with_suffix(".new")
                    shutil.rmtree(building, ignore_errors=True)  # which a kill left
                    building.mkdir()
                    try:
                        _build(building, found, settings, known, advance)
                        for source, stamp in zip(found, before, strict=True):
                            if source.stamp() != stamp:
                                raise ChargenError(f"{source.name} has changed while it was read: try again")
                        building.replace(folder)
                    finally:
                        shutil.rmtree(building, ignore_errors=True)
        except OSError as error:
            where, why = cache or Path(tempfile.gettempdir()), error.strerror or error
            if error.filename and not Path(error.filename).is_relative_to(where):
                raise  # it is of a text
            raise ChargenError(
                f"the text can't be kept in {where}: {why}; make room, or name another folder with --cache"
            ) from None
    return opened(folder, files, _name(paths), mapped=True)


def documents(paths: Sequence[str], encoding: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the name and the whole text of each file that paths name, and notes on those that are no text.

    Nothing is added to a text, and no boilerplate left out. Raises ChargenError as `read` does.
    """
    found, notes = list[tuple[str, str]](), list[str]()
    with sources(paths) as files:
        for source in files:
            try:
                found.append((source.name, "".join(text(source, encoding, None))))
            except NoTextError as reason:
                if not source.found:
                    raise
                notes.append(f"{source.name} is {reason.what}: left out")
    if not found:
        raise ChargenError(f"{paths[0]} holds no text files: name a folder with text in it, or the files themselves")
    return found, notes


def opened(
    folder: Path, files: tuple[str, ...], name: str, advice: str = "delete it, and it is made again", *, mapped: bool
) -> Corpus:
    """Open a corpus that was built in a folder. Raises ChargenError if it is damaged; ``advice`` says what to do."""
    try:
        told = json.loads((folder / TOLD).read_text("utf-8"))
        return Corpus(
            ids=np.load(folder / IDS, mmap_mode="r" if mapped else None),
            starts=np.load(folder / STARTS),
            vocabulary=Vocabulary(told["vocabulary"], told["unknown"]),
            files=files,
            name=name,
            sha256=str(told["sha256"]),
            notes=tuple(map(str, told["notes"])),
        )
    except (OSError, ValueError, LookupError, TypeError, EOFError):
        raise ChargenError(f"{folder} is damaged: {advice}") from None


def held_out(characters: int, validation: float, most: int | None) -> int:
    """Return how many of a text's characters are for validation, of which this share is asked for, and no more."""
    return max(2, min(most or characters, round(characters * validation)))


def cache_folder(settings: TrainConfig) -> Path | None:
    """Return the folder for the texts of runs: the one that is asked for, or the platform's, shared by all runs.

    None where the platform's can't be written: texts are in memory then.
    """
    from platformdirs import user_cache_path

    if settings.cache:
        return Path(settings.cache)
    folder = user_cache_path("chargen", appauthor=False)
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder if os.access(folder, os.W_OK) else None


def voices() -> dict[str, str]:
    """Return the three short texts that ship beside the book, by name: a log, letters, and a manual."""
    folder = resources.files("chargen.corpora")
    return {name: decode(folder.joinpath(f"{name}.txt").read_bytes(), name) for name in VOICES}


def _name(paths: Sequence[str]) -> str:
    if not paths:
        return Path(BUNDLED).stem
    if paths[0] == STANDARD_INPUT:
        return "stdin"
    path = Path(paths[0]).resolve()
    while not path.exists() and any(c in path.name for c in "*?["):  # a pattern is called by its folder
        path = path.parent
    return (path.name if path.is_dir() else path.stem).lstrip(".") or "text"


def _key(found: Sequence[Source], settings: TrainConfig, known: Vocabulary | None) -> str:
    # Whether a file was named or found in a folder decides what is done about one that is no text.
    made_from = [(source.sha256(), Path(source.name).suffix.lower(), source.found) for source in found]
    options = [
        settings.encoding,
        settings.join,
        settings.keep_boilerplate,
        settings.min_count,
        known and [known.characters, known.unknown],
    ]
    told = json.dumps([FORMAT, unicodedata.unidata_version, options, made_from])
    return hashlib.sha256(told.encode()).hexdigest()[:32]


class _Spool:
    """Ids by the order in which characters were first seen, on disk, until all characters are known."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._ids = np.full(CODE_POINTS, CODE_POINTS, np.uint32)  # by code point
        self.points: list[int] = []  # by id
        self.blocks: list[tuple[np.dtype[Any], int]] = []  # the type and length of each block
        self.characters = 0

    def add(self, part: str) -> None:
        """Append a text. `take` is twice as fast as an index."""
        points = code_points(part)
        ids = self._ids.take(points)
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
        """Return what `back` needs to forget all that will be added from now on."""
        return self._file.tell(), len(self.points), len(self.blocks), self.characters

    def back(self, mark: tuple[int, int, int, int]) -> None:
        """Go back to a mark."""
        position, points, blocks, self.characters = mark
        self._file.seek(position)
        self._file.truncate()
        self._ids[self.points[points:]] = CODE_POINTS
        del self.points[points:], self.blocks[blocks:]

    def read(self) -> Iterator[npt.NDArray[np.unsignedinteger]]:
        """Yield the blocks."""
        self._file.seek(0)
        for dtype, length in self.blocks:
            yield np.frombuffer(self._file.read(length * dtype.itemsize), dtype)

    def rarer(self, least: int) -> dict[str, int]:
        """Return how often those characters occur that do so less often than that."""
        if least == 1:
            return {}
        counts = sum(np.bincount(block, minlength=len(self.points)) for block in self.read())
        return {chr(point): n for point, n in zip(self.points, np.asarray(counts).tolist(), strict=True) if n < least}


def _build(
    folder: Path, found: Sequence[Source], settings: TrainConfig, known: Vocabulary | None, advance: Advance
) -> None:
    """Write a corpus into an empty folder: the documents to a spool, then the spool in the vocabulary's ids."""
    with tempfile.TemporaryFile(dir=folder) as file:
        spool = _Spool(file)
        starts, notes = _spool_documents(spool, found, settings, advance)
        before = set(known.characters if known else "")
        rare = {c: n for c, n in spool.rarer(settings.min_count).items() if c not in before}
        unknown = UNKNOWN if rare or (known and known.unknown) else None
        characters = before | {*map(chr, spool.points)} - rare.keys() | {*(unknown or "")}
        if characters == {unknown}:
            raise ChargenError(f"no character occurs {settings.min_count:,} times: ask for a smaller --min-count")
        vocabulary = Vocabulary("".join(sorted(characters)), unknown)
        table = np.array([vocabulary.id_of(chr(point)) for point in spool.points], vocabulary.dtype)
        digest = hashlib.sha256(vocabulary.characters.encode("utf-8"))
        with (folder / IDS).open("wb") as ids:
            header = {"descr": vocabulary.dtype.str, "fortran_order": False, "shape": (spool.characters,)}
            np.lib.format.write_array_header_1_0(ids, header)
            for block in spool.read():
                data = table.take(block, mode="clip").data
                ids.write(data)
                digest.update(data)
            os.fsync(ids.fileno())
    if len(starts) > 1:
        digest.update(starts.tobytes())
    if rare:
        times = f"{len(rare):,} characters, {sum(rare.values()):,} times in all"
        notes.append(f"rarer than --min-count are {times}: they are one unknown character")
    np.save(folder / STARTS, starts)
    _describe(folder, vocabulary, digest.hexdigest(), notes)


def _describe(folder: Path, vocabulary: Vocabulary, sha256: str, notes: Sequence[str]) -> None:
    told = {"vocabulary": vocabulary.characters, "unknown": vocabulary.unknown, "sha256": sha256, "notes": notes}
    write_beside(folder / TOLD, json.dumps({"format": FORMAT, **told}).encode())


def _spool_documents(
    spool: _Spool, found: Sequence[Source], settings: TrainConfig, advance: Advance
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Add all documents to the spool; return where they start, and the notes."""
    starts: list[int] = []
    notes: list[str] = []
    left_out: list[int] = []
    line_ended = True
    for source in found:
        mark, before, ended = spool.mark(), len(starts), line_ended
        try:
            for part in text(source, settings.encoding, None if settings.keep_boilerplate else left_out):
                if len(starts) == before:
                    if not line_ended:
                        spool.add("\n")
                    starts.append(spool.characters)
                spool.add(part)
                advance(len(part))
                line_ended = part.endswith("\n")
        except NoTextError as reason:
            if not source.found:
                raise
            spool.back(mark)
            del starts[before:]
            line_ended = ended
            notes.append(f"{source.name} is {reason.what}: left out")
    if not spool.characters:
        folder = Path(found[0].name).parent
        raise ChargenError(f"{folder} holds no text files: name a folder with text in it, or the files themselves")
    if left_out:
        notes.append(
            f"Project Gutenberg's header and licence are left out of {len(left_out):,} "
            f"text{'s' * (len(left_out) > 1)}, {sum(left_out):,} characters: --keep-boilerplate keeps them"
        )
    return np.array(starts[:1] if settings.join else starts, np.int64), notes
