"""What of a text stands in the book: the longest stretch that was copied, and the share of short sequences.

The index is the corpus's places in the order of the 32 characters that follow each (a suffix array, Manber and Myers
1993, sorted by doubling and cut off at that depth). A binary search in it finds where any sequence of up to 32
characters stands; longer ones are then compared at the few places that are left.
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
from chargen.text.corpus import Corpus
from chargen.text.vocabulary import Ids

DEPTH = 32
LENGTHS = (8, 16, 32)  # sequences whose share in the corpus is told
BLOCK = 2**14  # places of a text that are searched for at once: 30 MB of memory
MOST = 200_000_000  # characters of a corpus that is searched: 11 GB

Places = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class IndexHeader(Header):
    """What an index says of itself."""

    sha256: Sha256  # of the corpus

    KIND: ClassVar[str] = "originality"
    DTYPES: ClassVar[tuple[str, ...]] = ("U32",)

    def check(self, shapes: Shapes) -> None:
        """Raise DamagedError if this isn't one array of places."""
        if shapes.keys() != {"places"} or len(shapes["places"]) != 1:
            raise DamagedError("arrays: they are not an index")


class Match(NamedTuple):
    """A stretch of a text that stands in the corpus."""

    length: int
    start: int  # where in the text it begins
    place: int  # where in the corpus it begins, the first such place


class Originality(NamedTuple):
    """What of a text of ids stands in the corpus."""

    longest: int  # characters of the longest stretch that stands there too
    start: int  # where in the text it begins
    place: int  # where in the corpus it begins, the first such place
    shares: dict[int, float | None]  # for each of LENGTHS: the share of the text's sequences that stand there


def build(ids: Ids) -> Places:
    """Return the corpus's places (N,) in the order of the DEPTH characters from each on; a text's end sorts first.

    Doubling: sorted by 8 characters in one sort of 64-bit numbers, then by 16, then by 32. 10 million characters
    take 5 s on one core.
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
    """Return the corpus's index, from the file ``cache`` if it was made for this corpus, else made and put there."""
    with suppress(ChargenError):  # of a cache that is not there, or damaged: it is made anew
        most = JSON_BYTES + 4 * len(corpus.ids)
        header, arrays = read_arrays(cache, IndexHeader, advice="delete it", most=most)
        places = arrays["places"]
        if header.sha256 == corpus.sha256 and len(places) == len(corpus.ids) and int(places.max()) < len(places):
            return places
    if len(corpus.ids) > MOST:
        raise ChargenError(
            f"the text is too long to be searched for copies: {len(corpus.ids):,} characters, of which each takes 53 "
            f"bytes of memory; {MOST:,} can be"
        )
    places = build(corpus.ids)
    with suppress(ChargenError):  # where nothing can be kept, it is made again the next time
        write_arrays(cache, {"places": places}, IndexHeader, {"sha256": corpus.sha256})
    return places


def compare(text: npt.NDArray[np.integer], corpus: Ids, places: Places) -> Originality:
    """Compare a text's ids (n,) with a corpus's (N,), by the corpus's index; a block of the text's places at a time."""
    found = dict.fromkeys(range(1, DEPTH + 1), 0)  # how many of the text's sequences of each length stand there
    longest = Match(0, 0, 0)
    for block in range(0, len(text), BLOCK):
        starts = np.arange(block, min(block + BLOCK, len(text)))
        for length in found:
            starts = starts[starts + length <= len(text)]
            low, high = _range(text, starts, length, corpus, places)
            stands = high > low
            if not stands.any():
                break
            starts, low, high = starts[stands], low[stands], high[stands]
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
    """Return the first of the longest matches of the text from ``start`` with the corpus's candidates, or ``longest``.

    DEPTH characters are known to match. Only a match that is longer than ``longest`` is of interest: most candidates
    are ruled out by its last character.
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
        whole = length + (int(differ[0]) if len(differ) else both)
        if whole > longest.length:
            longest = Match(whole, start, place)
    return longest


def random_place(characters: int, length: int, random_seed: int) -> int:
    """Return where a stretch of ``length`` of a text's characters begins, by chance; at 0 if there are no more."""
    generator = np.random.default_rng(np.random.SeedSequence(random_seed, spawn_key=(2**32 - 1,)))
    return int(generator.integers(max(1, characters - length)))


def _range(
    text: npt.NDArray[np.integer], starts: npt.NDArray[np.int64], length: int, corpus: Ids, places: Places
) -> tuple[Any, Any]:
    """Return for each start the range in ``places`` of the corpus's places where the text's ``length`` ids stand."""
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
