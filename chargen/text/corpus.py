"""Documents become one text of ids, kept in a cache, mapped into memory, and split into training and validation.

A corpus in the cache is a folder, named by a hash of the files' bytes and the options: ``ids.npy`` (N,), ``starts.npy``
where documents begin, ``corpus.json`` the rest. It appears whole or not at all, and is checked whenever it is opened; a
damaged one is made again.
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
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from chargen import ChargenError
from chargen.config import TrainConfig
from chargen.files.arrays import NO_CHECKSUM, checksum_matches, with_checksum
from chargen.files.disk import locked, move, sweep, temporary, write_beside
from chargen.files.reading import Count, DamagedError, Sha256, converted, errors_of, open_regular, parsed, read_regular
from chargen.text import formats
from chargen.text.documents import Reading, decode
from chargen.text.sources import BUNDLED_BOOK, STANDARD_INPUT, Source, sources
from chargen.text.spool import Advance as Advance
from chargen.text.spool import Spool, spool_documents
from chargen.text.spool import Starts as Starts
from chargen.text.vocabulary import END, STAND_INS, Ids, Vocabulary
from chargen.text.words import packed, words_of

VOICES = ("log", "letters", "manual")  # the bundled texts beside the book, by three authors
FILES = IDS, STARTS, DESCRIPTION = "ids.npy", "starts.npy", "corpus.json"  # of a cached corpus
COUNTED_CHARACTERS = 10_000  # of a block that `Part.log_shares` counts
FORMAT = 2  # of a cached corpus: raised when the same files would give other ids


class Part(NamedTuple):
    """A stretch of a corpus."""

    ids: Ids  # (N,), a view
    starts: Starts  # the places where documents begin, in order, without 0

    def log_shares(self, characters: int) -> npt.NDArray[np.float32]:
        """Return the logarithm of each character's share of the part, for a vocabulary of ``characters``: (V,) float32.

        Only about a thousand evenly spaced blocks of a long part are counted. Each count has 1 added (Laplace).
        """
        counts = np.ones(characters, np.int64)
        for place in range(0, len(self.ids), max(COUNTED_CHARACTERS, len(self.ids) // 1000)):
            counts += np.bincount(self.ids[place : place + COUNTED_CHARACTERS], minlength=characters)
        return np.asarray(np.log(counts / counts.sum()), np.float32)


@dataclass(frozen=True, kw_only=True)
class _Description:
    """The contents of ``corpus.json``."""

    checksum: str = NO_CHECKSUM  # of the file; it has to come first
    format: int = FORMAT
    vocabulary: str
    unknown: str | None
    sha256: Sha256
    notes: tuple[str, ...]
    characters: Annotated[int, Meta(ge=1, le=2**53)]
    documents: Annotated[int, Meta(ge=1, le=2**53)]
    ids: Count  # CRC-32 of their bytes
    starts: Count  # likewise
    end: str | None = None  # `Vocabulary.end`


@dataclass(frozen=True, eq=False)
class Corpus:
    """A whole text as ids, with what is needed to find it and to recognise it again."""

    ids: Ids  # (N,) uint8, uint16 or uint32
    starts: Starts  # the places where documents begin, in order; the first is 0
    vocabulary: Vocabulary
    files: tuple[str, ...]  # absolute paths, as given; none for the bundled book
    name: str  # of the text, and of runs on it
    sha256: str  # of characters, ids and starts, not of the files' bytes
    notes: tuple[str, ...] = ()  # changes to the texts that their owner would want to know

    @property
    def itemized(self) -> bool:
        """Whether each document has END before it, where it starts, and after it."""
        return self.vocabulary.end is not None and bool(self.ids[0] == self.vocabulary.id_of(self.vocabulary.end))

    @cached_property
    def words(self) -> str:
        """The words of the text, as `words.packed` writes them."""
        return packed(words_of(self.ids, self.vocabulary))

    def write(self, folder: Path) -> None:
        """Write the corpus into an empty folder, from which `opened` reads it."""
        np.save(folder / IDS, self.ids)
        rest = {"sha256": self.sha256, "characters": len(self.ids), "ids": zlib.crc32(self.ids.data)}
        _describe(folder, self.starts, self.vocabulary, self.notes, **rest)

    def split(self, settings: TrainConfig) -> tuple[Part, Part]:
        """Return the parts for training and validation, as views.

        Validation is the end of the text: the share ``settings.validation`` of its characters, at most
        ``settings.held_out``; if documents end with END, it is whole documents, as near to that as can be. Each part
        has at least two characters, one to read and one to predict. Raises ChargenError if the text is too short.
        """
        characters = len(self.ids)
        validation = max(2, min(settings.held_out or characters, round(characters * settings.validation)))
        border = characters - validation
        if border < 2:
            raise ChargenError(
                f"{self.name} is too short, {characters:,} characters, which leaves fewer than 2 for training: "
                "give a longer text, or a smaller --validation"
            )
        if self.itemized:
            if len(self.starts) == 1:
                raise ChargenError(f"{self.name} is a single document, which leaves none for validation: give more")
            border = int(self.starts[1:][np.abs(self.starts[1:] - border).argmin()])
        first, later = np.searchsorted(self.starts, [border, border + 1])
        return (
            Part(self.ids[: border + self.itemized], self.starts[1:first]),
            Part(self.ids[border:], self.starts[max(1, later) :] - border),
        )


Known = Callable[[Corpus], Vocabulary | None]


def read(
    paths: Sequence[str],
    settings: TrainConfig | None = None,
    known: Vocabulary | Known | None = None,
    cache: Path | None = None,
    advance: Advance = lambda characters: None,
) -> Corpus:
    """Read files, folders and patterns (``-``: standard input; none: the bundled book) as one corpus.

    ``settings`` decide the encoding, normalisation, joining, boilerplate and rare characters. A text that does not end
    with a line feed gets one if another text follows. The vocabulary has every character that occurs, and those of
    ``known``; a function is called with the corpus in its own vocabulary, and returns what is known. Only a block of
    text is in memory at a time. The ids are mapped from a folder in ``cache``, where the next reading finds them, or
    are an array if there is no cache. ``advance`` is called with the number of characters in each block.

    Raises ChargenError for a file that is missing, empty, unreadable, binary or not in the encoding, and if the cache
    cannot be written.
    """
    options, name = settings or TrainConfig(), _name(paths)
    files = tuple(p if p == STANDARD_INPUT else str(Path(p).resolve()) for p in paths)
    with sources(paths) as found, _storage_errors(cache or Path(tempfile.gettempdir())):

        def in_vocabulary_of(vocabulary: Vocabulary | None) -> Corpus:
            def build(work: Path) -> None:
                _build(work, found, options, vocabulary, advance)

            if cache is None:
                with temporary() as work:
                    build(work)
                    return opened(work, files, name, mapped=False)
            folder = cache / _key(found, options, vocabulary)
            return _cached(folder, found, build, lambda: opened(folder, files, name, mapped=True))

        if not callable(known):
            return in_vocabulary_of(known)
        corpus = in_vocabulary_of(None)
        chosen = known(corpus)
        return corpus if chosen is None else in_vocabulary_of(chosen)


def _cached(
    folder: Path, found: Sequence[Source], build: Callable[[Path], None], reopened: Callable[[], Corpus]
) -> Corpus:
    """Return the corpus in a folder of the cache, which ``reopened`` opens. It is built if it is missing or damaged."""
    cache, stamps = folder.parent, [source.stamp() for source in found]
    sweep(cache)
    with suppress(ChargenError):
        return reopened()
    cache.mkdir(parents=True, exist_ok=True)
    lock = folder.with_suffix(".lock")
    lock.touch()
    with locked(lock, wait=True):  # another process may be building the same corpus, which then serves here too
        with suppress(ChargenError):
            return reopened()
        notes = _make(folder, found, stamps, build)
    corpus = reopened()
    return replace(corpus, notes=(*corpus.notes, *notes))


def _make(
    folder: Path, found: Sequence[Source], stamps: Sequence[tuple[int, ...]], build: Callable[[Path], None]
) -> list[str]:
    """Build a corpus in the cache, at ``folder``; return the notes about it.

    Raises ChargenError if a source no longer has the stamp from before it was read.
    """
    with temporary(folder.parent) as work:
        building = work / "corpus"
        building.mkdir()
        build(building)
        for source, stamp in zip(found, stamps, strict=True):
            if source.stamp() != stamp:
                raise ChargenError(f"{source.name} has changed while it was read: try again")
        damaged = os.path.lexists(folder)  # a dangling link too
        if damaged:
            _remove(folder)
        move(building, folder)
    return [f"{folder} was damaged: it was made again"] * damaged


@contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    """While entered, an OSError of writing into ``folder`` becomes a ChargenError; that of reading a text does not."""
    try:
        yield
    except OSError as error:
        if error.filename and not Path(error.filename).is_relative_to(folder):
            raise
        raise ChargenError(
            f"the text can't be kept in {folder}: {error.strerror or error}; make room, or name another folder with "
            "--cache"
        ) from None


def _remove(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink()


def opened(
    folder: Path, files: tuple[str, ...], name: str, advice: str = "delete it, and it is made again", *, mapped: bool
) -> Corpus:
    """Open a corpus that was built in a folder, and check all of it.

    ``files`` and ``name`` are those of the corpus. ``mapped`` ids are read from the disk when they are used; else they
    are in memory. Raises ChargenError, which ends with ``advice``, if the corpus is damaged.
    """
    with errors_of(folder, advice):
        for file in FILES:
            if not (folder / file).exists():
                raise DamagedError(f"{file}: it is missing")
        data = read_regular(folder / DESCRIPTION)
        described = converted(parsed(data), _Description)
        if not checksum_matches(data):
            raise DamagedError(f"{DESCRIPTION}: its checksum is not that of its contents")
        vocabulary = Vocabulary(described.vocabulary, described.unknown, described.end)
        ids = _array(folder / IDS, vocabulary.dtype, described.characters, mapped=mapped)
        starts = _array(folder / STARTS, np.dtype(np.int64), described.documents, mapped=False)
        if (zlib.crc32(ids.data), zlib.crc32(starts.data)) != (described.ids, described.starts):
            raise DamagedError(f"{IDS}, {STARTS}: their checksums are not those of their contents")
        if int(ids.max()) >= len(vocabulary):
            raise DamagedError(f"{IDS}: it has ids beyond the vocabulary")
        if starts[0] != 0 or starts[-1] >= len(ids) or (starts[1:] <= starts[:-1]).any():
            raise DamagedError(f"{STARTS}: its places are not in order")
    return Corpus(ids, starts, vocabulary, files, name, described.sha256, described.notes)


def _array(path: Path, dtype: np.dtype[Any], length: int, *, mapped: bool) -> npt.NDArray[Any]:
    """Return the array (length,) of a NumPy file. Raises DamagedError if the file has another dtype or length."""
    header = _npy_header(dtype, length)
    size = len(header) + length * dtype.itemsize
    with open_regular(path, size) as file:
        if os.fstat(file.fileno()).st_size != size or file.read(len(header)) != header:
            raise DamagedError(f"{path.name}: its dtype or length is not what {DESCRIPTION} says")
        if mapped:
            return np.memmap(file, dtype, "r", len(header), (length,))
        return np.fromfile(file, dtype, length)


def _npy_header(dtype: np.dtype[Any], length: int) -> bytes:
    """Return the header of a NumPy file with an array (length,)."""
    header = io.BytesIO()
    described = {"descr": dtype.str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue()


def cache_folder(settings: TrainConfig) -> Path | None:
    """Return the folder that caches the texts of all runs: that of ``settings``, or the platform's.

    Return None if the platform's cannot be written; texts are then kept in memory.
    """
    from platformdirs import user_cache_path

    if settings.cache:
        return Path(settings.cache)
    folder = user_cache_path("chargen", appauthor=False)
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder if os.access(folder, os.W_OK) else None


def voices() -> dict[str, str]:
    """Return the three short bundled texts by name: a log, letters, and a manual."""
    folder = resources.files("chargen.corpora")
    return {name: decode(folder.joinpath(f"{name}.txt").read_bytes(), name) for name in VOICES}


def _name(paths: Sequence[str]) -> str:
    if not paths:
        return Path(BUNDLED_BOOK).stem
    if paths[0] == STANDARD_INPUT:
        return "stdin"
    path = Path(paths[0]).resolve()
    while not path.exists() and any(c in path.name for c in "*?["):  # a pattern has the name of its folder
        path = path.parent
    return (path.name if path.is_dir() else path.stem).lstrip(".") or "text"


def _key(found: Sequence[Source], settings: TrainConfig, known: Vocabulary | None) -> str:
    # A file that is not a text is left out if it was found in a folder, and an error if it was named.
    made_from = [(source.sha256(), Path(source.name).suffix.lower(), source.found) for source in found]
    reading = Reading.of(settings)
    options: list[Any] = [
        settings.encoding,
        settings.join,
        settings.keep_boilerplate,
        settings.keep_markup,
        settings.min_count,
        settings.normalize,
        settings.unwrap,
        known and known.identity,
    ]
    options += [[settings.document, settings.column]] if reading.itemized else []
    versions = formats.versions({source.kind for source in found}, guessing=settings.encoding is None)
    key = json.dumps([FORMAT, versions, unicodedata.unidata_version, options, made_from])
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _build(
    folder: Path, found: Sequence[Source], settings: TrainConfig, known: Vocabulary | None, advance: Advance
) -> None:
    """Write a corpus into an empty folder: first the documents into a spool, then the spool in the vocabulary's ids."""
    with tempfile.TemporaryFile(dir=folder) as file:
        spool = Spool(file)
        reading = Reading.of(settings)
        starts, notes = spool_documents(spool, found, reading, advance)
        starts = starts[:1] if settings.join else starts
        before = set(known.characters if known else "")
        rare = {c: n for c, n in spool.rare(settings.min_count).items() if c not in before}
        rare.pop(END if reading.itemized else "", None)
        unknown = known.unknown if known else None
        if rare and unknown is None:
            unknown = next(c for c in STAND_INS if ord(c) not in spool.points)
        characters = before | {*map(chr, spool.points)} - rare.keys() | {*(unknown or "")}
        if characters <= {unknown, *END * reading.itemized}:
            raise ChargenError(f"no character occurs {settings.min_count:,} times: give a smaller --min-count")
        end = END if reading.itemized else known.end if known else None
        vocabulary = Vocabulary("".join(sorted(characters)), unknown, end)
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
        counts = f"{len(rare):,} characters, {sum(rare.values()):,} times in all"
        notes.append(f"{counts}, are rarer than --min-count: they become one unknown character")
    _describe(folder, starts, vocabulary, notes, sha256=digest.hexdigest(), characters=spool.characters, ids=crc)


def _describe(folder: Path, starts: Starts, vocabulary: Vocabulary, notes: Sequence[str], **rest: Any) -> None:
    """Write the files of a corpus beside its ids; ``rest`` are further fields of `_Description`."""
    np.save(folder / STARTS, starts)
    description = _Description(
        vocabulary=vocabulary.characters,
        unknown=vocabulary.unknown,
        end=vocabulary.end,
        notes=tuple(notes),
        documents=len(starts),
        starts=zlib.crc32(starts.data),
        **rest,
    )
    fields = {name: value for name, value in asdict(description).items() if name != "end" or value is not None}
    write_beside(folder / DESCRIPTION, with_checksum(json.dumps(fields).encode()))
