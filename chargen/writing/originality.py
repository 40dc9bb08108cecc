"""How much of a text is copied from the book: the longest copied passage, and the share of short sequences.

The index is a suffix array (Manber and Myers 1993) of the corpus, built by prefix doubling and sorted by the first 32
characters of each suffix only. A binary search in it finds every occurrence of a sequence of up to 32 characters.
Longer passages are then compared character by character at those places.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from chargen import ChargenError
from chargen.files.arrays import Header, Shapes, read_arrays, write_arrays
from chargen.files.reading import JSON_BYTES, DamagedError, Sha256
from chargen.store.run import Run
from chargen.text.corpus import Corpus
from chargen.text.vocabulary import Ids

DEPTH = 32
LENGTHS = (8, 16, 32)  # of the sequences whose share is reported
BLOCK = 2**14  # places of a text that are searched at once: 30 MB of memory
LONGEST_CORPUS = 200_000_000  # characters; an index of it takes 11 GB of memory to build

Places = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class IndexHeader(Header):
    """The header of an index file."""

    sha256: Sha256  # of the corpus

    KIND: ClassVar[str] = "originality"
    DTYPES: ClassVar[tuple[str, ...]] = ("U32",)

    def check(self, shapes: Shapes) -> None:
        """Raise DamagedError if the file holds anything but one array of places."""
        if shapes.keys() != {"places"} or len(shapes["places"]) != 1:
            raise DamagedError("arrays: not those of an index")


class Match(NamedTuple):
    """A passage of a text that is in the corpus too."""

    length: int
    start: int  # its place in the text
    place: int  # its first place in the corpus


class Originality(NamedTuple):
    """How much of a text is in the corpus too."""

    longest: int  # characters of the longest passage; the next two are its places, as in `Match`
    start: int
    place: int
    shares: dict[int, float | None]  # for each of LENGTHS: the share of the text's sequences that are in the corpus


class Book:
    """The text of a run and its index, each opened once for all samples."""

    def __init__(self, run: Run) -> None:
        self.corpus = run.corpus()
        self._cache = run.path / "originality.safetensors"

    def index(self) -> None:
        """Open or make the index, before `compare`. Raises ChargenError if the book is too long."""
        self._places = index(self.corpus, self._cache)

    def passage(self, length: int, random_seed: int) -> str:
        """Return a passage of ``length`` characters from a random place."""
        place = random_place(len(self.corpus.ids), length, random_seed)
        return self.corpus.vocabulary.decode(self.corpus.ids[place : place + length])

    def compare(self, text: str) -> Originality:
        """Return how much of a text is copied from the book."""
        encode = self.corpus.vocabulary.encode
        ids = [encode(text[start : start + BLOCK]) for start in range(0, max(1, len(text)), BLOCK)]
        return compare(np.concatenate(ids), self.corpus.ids, self._places)

    def report(self, text: str) -> str:
        """Return two lines that say how much of a text is copied from the book."""
        found = self.compare(text)
        copied = text[found.start : found.start + found.longest]
        shares = ", ".join(f"{n}: {'-' if share is None else f'{share:.1%}'}" for n, share in found.shares.items())
        return (
            f"longest passage copied from the book: {found.longest} characters, at character {found.place:,} of "
            f"{len(self.corpus.ids):,}: {copied[:60]!r}{'...' if len(copied) > 60 else ''}\n"
            f"sequences copied from the book, by length: {shares}"
        )


def build(ids: Ids) -> Places:
    """Return the places (N,) of the corpus's ids (N,), sorted by the DEPTH characters from each; the end sorts first.

    Prefix doubling: the first sort packs as many characters as fit into 64 bits, the following sorts two ranks each.
    """
    size = len(ids)
    ranks = ids.astype(np.uint64) + 1
    depth = 1
    order = np.arange(size)
    while depth < DEPTH:
        bits = int(ranks.max()).bit_length()
        packed = ranks
        while bits * 2 <= 64 and depth < DEPTH:
            packed = (packed << np.uint64(bits)) | _later(packed, depth)
            depth, bits = depth * 2, bits * 2
        order = np.argsort(packed, kind="stable")
        ordered = packed[order]
        ranks = np.empty(size, np.uint64)
        ranks[order] = np.cumsum(np.concatenate([[1], ordered[1:] != ordered[:-1]]), dtype=np.uint64)
    return order.astype(np.uint32)


def _later(packed: npt.NDArray[np.uint64], by: int) -> npt.NDArray[np.uint64]:
    return np.concatenate([packed[by:], np.zeros(min(by, len(packed)), np.uint64)])


def index(corpus: Corpus, cache: Path) -> Places:
    """Return the corpus's index, from the file ``cache`` if that is an index of this corpus, else build and save it."""
    with suppress(ChargenError):  # a cache that is missing or damaged is made again
        most = JSON_BYTES + 4 * len(corpus.ids)
        header, arrays = read_arrays(cache, IndexHeader, advice="delete it", most=most)
        places = arrays["places"]
        if header.sha256 == corpus.sha256 and len(places) == len(corpus.ids) and int(places.max()) < len(places):
            return places
    if len(corpus.ids) > LONGEST_CORPUS:
        raise ChargenError(
            f"the book is too long for --originality: {len(corpus.ids):,} characters, of which each takes 53 bytes of "
            f"memory; at most {LONGEST_CORPUS:,} are searched"
        )
    places = build(corpus.ids)
    with suppress(ChargenError):  # where it can't be saved, it is built again the next time
        write_arrays(cache, {"places": places}, IndexHeader, {"sha256": corpus.sha256})
    return places


def compare(text: npt.NDArray[np.integer], corpus: Ids, places: Places) -> Originality:
    """Compare a text's ids (n,) with a corpus's ids (N,) and index (N,), a block of the text's places at a time."""
    found = dict.fromkeys(range(1, DEPTH + 1), 0)  # for each length: the text's sequences that are in the corpus
    longest = Match(0, 0, 0)
    for block in range(0, len(text), BLOCK):
        starts = np.arange(block, min(block + BLOCK, len(text)))
        for length in found:
            starts = starts[starts + length <= len(text)]
            low, high = _range(text, starts, length, corpus, places)
            matches = high > low
            if not matches.any():
                break
            starts, low, high = starts[matches], low[matches], high[matches]
            found[length] += len(starts)
            if length > longest.length:
                longest = Match(length, int(starts[0]), int(places[int(low[0]) : int(high[0])].min()))
        else:
            for start, first, last in zip(starts.tolist(), low.tolist(), high.tolist(), strict=True):
                longest = _longer(text, start, corpus, np.sort(places[first:last].astype(np.int64)), longest)
    shares = {n: found[n] / (len(text) - n + 1) if n <= len(text) else None for n in LENGTHS}
    return Originality(*longest, shares=shares)


def _longer(
    text: npt.NDArray[np.integer], start: int, corpus: Ids, candidates: npt.NDArray[np.int64], longest: Match
) -> Match:
    """Return ``longest``, or a longer match of the text from ``start`` with one of the candidate places in the corpus.

    The first DEPTH characters are known to match. The first character beyond ``longest`` rules out most candidates.
    """
    length = max(DEPTH, longest.length + 1)
    if start + length > len(text):
        return longest
    candidates = candidates[candidates + length <= len(corpus)]
    candidates = candidates[corpus[candidates + length - 1] == text[start + length - 1]]
    for place in candidates.tolist():
        if (corpus[place : place + length] != text[start : start + length]).any():
            continue
        ours, theirs = text[start + length :], corpus[place + length :]
        both = min(len(ours), len(theirs))
        differ = np.flatnonzero(ours[:both] != theirs[:both])
        total = length + (int(differ[0]) if len(differ) else both)
        if total > longest.length:
            longest = Match(total, start, place)
    return longest


def random_place(characters: int, length: int, random_seed: int) -> int:
    """Return the random start of a passage of ``length`` in a text of so many characters; 0 if it is no longer."""
    generator = np.random.default_rng(np.random.SeedSequence(random_seed, spawn_key=(2**32 - 1,)))
    return int(generator.integers(max(1, characters - length)))


def _range(
    text: npt.NDArray[np.integer], starts: npt.NDArray[np.int64], length: int, corpus: Ids, places: Places
) -> tuple[Any, Any]:
    """Return for each start the range (low, high) of ``places`` where the corpus has the text's ``length`` ids."""
    wanted = text[starts[:, None] + np.arange(length)]
    ends = []
    for after in (False, True):
        low, high = np.zeros(len(starts), np.int64), np.full(len(starts), len(places))
        while (low < high).any():
            middle = (low + high) // 2
            at = places[np.minimum(middle, len(places) - 1)].astype(np.int64)[:, None] + np.arange(length)
            found = np.where(at < len(corpus), corpus[np.minimum(at, len(corpus) - 1)].astype(np.int64), -1)
            differs = found != wanted
            first = differs.argmax(-1)[:, None]
            less = np.take_along_axis(found < wanted, first, -1)[:, 0] | (after & ~differs.any(-1))
            low, high = np.where((low < high) & less, middle + 1, low), np.where((low < high) & ~less, middle, high)
        ends.append(low)
    return ends[0], ends[1]
