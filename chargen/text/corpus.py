"""Documents become one text of ids, kept in a cache and mapped into memory, parted into training and validation.

A corpus in the cache is a folder that is named by what made it, the hash of the files' bytes and the options:
``ids.npy`` (N,), ``starts.npy`` where documents begin, ``corpus.json`` the rest. It appears whole or not at all, and is
checked whenever it is opened, 1 GB in half a second; one that is damaged is made again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import IO, Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from chargen import ChargenError
from chargen.config import TrainConfig
from chargen.files.arrays import UNSEALED, seal, sealed
from chargen.files.disk import locked, move, sweep, temporary, write_beside
from chargen.files.reading import Count, DamagedError, Sha256, converted, damage, open_regular, parsed, read_regular
from chargen.text.documents import BUNDLED, STANDARD_INPUT, NoTextError, Reading, Source, decode, sources, text
from chargen.text.vocabulary import CODE_POINTS, STAND_INS, Ids, Vocabulary, code_points

VOICES = ("log", "letters", "manual")  # texts of three authors, beside the book
FILES = IDS, STARTS, TOLD = "ids.npy", "starts.npy", "corpus.json"  # of a cached corpus
COUNTED = 10_000  # characters of a block of those that are counted
FORMAT = 2  # of a cached corpus: raised when the same files would give other ids

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


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What ``corpus.json`` tells of a corpus."""

    checksum: str = UNSEALED["checksum"]  # of all of it; it has to come first
    format: int = FORMAT
    vocabulary: str
    unknown: str | None
    sha256: Sha256
    notes: tuple[str, ...]
    characters: Annotated[int, Meta(ge=1, le=2**53)]
    documents: Annotated[int, Meta(ge=1, le=2**53)]
    ids: Count  # the CRC-32 of their bytes
    starts: Count


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
        rest = {"sha256": self.sha256, "characters": len(self.ids), "ids": zlib.crc32(self.ids.data)}
        _describe(folder, self.starts, self.vocabulary, self.notes, **rest)

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
    settings, damaged = settings or TrainConfig(), list[str]()
    files = tuple(p if p == STANDARD_INPUT else str(Path(p).resolve()) for p in paths)
    with sources(paths) as found:
        try:
            if cache is None:
                with temporary() as made:
                    _build(made, found, settings, known, advance)
                    return opened(made, files, _name(paths), mapped=False)
            before = [source.stamp() for source in found]
            folder = cache / _key(found, settings, known)
            sweep(cache)
            if (corpus := _kept(folder, files, _name(paths))) is not None:
                return corpus
            cache.mkdir(parents=True, exist_ok=True)
            lock = folder.with_suffix(".lock")
            lock.touch()
            with locked(lock, wait=True):  # whoever else builds this one is waited for: the result is then ours
                if _kept(folder, files, _name(paths)) is None:
                    with temporary(cache) as work:
                        building = work / "corpus"
                        building.mkdir()
                        _build(building, found, settings, known, advance)
                        for source, stamp in zip(found, before, strict=True):
                            if source.stamp() != stamp:
                                raise ChargenError(f"{source.name} has changed while it was read: try again")
                        if os.path.lexists(folder):  # a dangling link too
                            damaged = [f"{folder} was damaged: it was made again"]
                            _remove(folder)
                        move(building, folder)
        except OSError as error:
            where, why = cache or Path(tempfile.gettempdir()), error.strerror or error
            if error.filename and not Path(error.filename).is_relative_to(where):
                raise  # it is of a text
            raise ChargenError(
                f"the text can't be kept in {where}: {why}; make room, or name another folder with --cache"
            ) from None
    corpus = opened(folder, files, _name(paths), mapped=True)
    return replace(corpus, notes=(*corpus.notes, *damaged))


def _kept(folder: Path, files: tuple[str, ...], name: str) -> Corpus | None:
    try:
        return opened(folder, files, name, mapped=True)
    except ChargenError:  # it is not there, or damaged
        return None


def _remove(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink()


def documents(paths: Sequence[str], encoding: str, normalize: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the name and the whole text of each file that paths name, and notes on those that are no text.

    Nothing is added to a text, and no boilerplate left out. Raises ChargenError as `read` does.
    """
    found, notes = list[tuple[str, str]](), list[str]()
    reading = Reading(encoding, keep_boilerplate=True, normalize=normalize)
    with sources(paths) as files:
        for source in files:
            try:
                found.append((source.name, "".join(text(source, reading))))
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
    """Open a corpus that was built in a folder, and check all of it.

    Raises ChargenError if it is damaged; ``advice`` says what to do.
    """
    with damage(folder, advice):
        for file in FILES:
            if not (folder / file).exists():
                raise DamagedError(f"{file}: it is missing")
        data = read_regular(folder / TOLD)
        told = converted(parsed(data), _Told)
        if not sealed(data):
            raise DamagedError(f"{TOLD}: its checksum is not that of its contents")
        vocabulary = Vocabulary(told.vocabulary, told.unknown)
        ids = _array(folder / IDS, vocabulary.dtype, told.characters, mapped=mapped)
        starts = _array(folder / STARTS, np.dtype(np.int64), told.documents, mapped=False)
        if (zlib.crc32(ids.data), zlib.crc32(starts.data)) != (told.ids, told.starts):
            raise DamagedError(f"{IDS}, {STARTS}: their checksums are not those of their contents")
        if int(ids.max()) >= len(vocabulary):
            raise DamagedError(f"{IDS}: it has ids that no character has")
        if starts[0] != 0 or starts[-1] >= len(ids) or (starts[1:] <= starts[:-1]).any():
            raise DamagedError(f"{STARTS}: its places are not in order")
    return Corpus(ids, starts, vocabulary, files, name, told.sha256, told.notes)


def _array(path: Path, dtype: np.dtype[Any], length: int, *, mapped: bool) -> npt.NDArray[Any]:
    """Return an array (length,) from a file that holds just that."""
    header = _npy_header(dtype, length)
    size = len(header) + length * dtype.itemsize
    with open_regular(path, size) as file:
        if os.fstat(file.fileno()).st_size != size or file.read(len(header)) != header:
            raise DamagedError(f"{path.name}: its type or its length is not what {TOLD} says")
        if mapped:
            return np.memmap(file, dtype, "r", len(header), (length,))
        return np.fromfile(file, dtype, length)


def _npy_header(dtype: np.dtype[Any], length: int) -> bytes:
    """Return what a file of NumPy's begins with that holds an array (length,)."""
    header = io.BytesIO()
    told = {"descr": dtype.str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(header, told)
    return header.getvalue()


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
        settings.normalize,
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
        unknown = known.unknown if known else None
        if rare and unknown is None:
            unknown = next(c for c in STAND_INS if ord(c) not in spool.points)
        characters = before | {*map(chr, spool.points)} - rare.keys() | {*(unknown or "")}
        if characters == {unknown}:
            raise ChargenError(f"no character occurs {settings.min_count:,} times: ask for a smaller --min-count")
        vocabulary = Vocabulary("".join(sorted(characters)), unknown)
        table = np.array([vocabulary.id_of(chr(point)) for point in spool.points], vocabulary.dtype)
        digest, crc = hashlib.sha256(vocabulary.characters.encode("utf-8")), 0
        with (folder / IDS).open("wb") as ids:
            ids.write(_npy_header(vocabulary.dtype, spool.characters))
            for block in spool.read():
                data = table.take(block, mode="clip").data
                ids.write(data)
                digest.update(data)
                crc = zlib.crc32(data, crc)
            os.fsync(ids.fileno())
    if len(starts) > 1:
        digest.update(starts.tobytes())
    if rare:
        times = f"{len(rare):,} characters, {sum(rare.values()):,} times in all"
        notes.append(f"rarer than --min-count are {times}: they are one unknown character")
    _describe(folder, starts, vocabulary, notes, sha256=digest.hexdigest(), characters=spool.characters, ids=crc)


def _describe(folder: Path, starts: Starts, vocabulary: Vocabulary, notes: Sequence[str], **rest: Any) -> None:
    """Write into a folder what is in it beside the ids; ``rest`` is of `_Told`."""
    np.save(folder / STARTS, starts)
    told = _Told(
        vocabulary=vocabulary.characters,
        unknown=vocabulary.unknown,
        notes=tuple(notes),
        documents=len(starts),
        starts=zlib.crc32(starts.data),
        **rest,
    )
    write_beside(folder / TOLD, seal(json.dumps(asdict(told)).encode()))


def _spool_documents(
    spool: _Spool, found: Sequence[Source], settings: TrainConfig, advance: Advance
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Add all documents to the spool; return where they start, and the notes."""
    starts: list[int] = []
    notes: list[str] = []
    reading = Reading(settings.encoding, settings.keep_boilerplate, settings.normalize)
    line_ended = True
    for source in found:
        mark, before, ended = spool.mark(), len(starts), line_ended
        try:
            for part in text(source, reading):
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
    if left_out := reading.left_out:
        notes.append(
            f"Project Gutenberg's header and licence are left out of {len(left_out):,} "
            f"text{'s' * (len(left_out) > 1)}, {sum(left_out):,} characters: --keep-boilerplate keeps them"
        )
    if reading.composed:
        notes.append("some characters were composed or put in order (NFC): --normalize none keeps them as they are")
    return np.array(starts[:1] if settings.join else starts, np.int64), notes
