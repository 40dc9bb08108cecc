"""Whole documents, from their beginning to the end that the model writes; only new ones, if that is wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from chargen import ChargenError
from chargen.text.corpus import Corpus
from chargen.text.vocabulary import END
from chargen.writing.generate import WHOLE, CharacterModel, Drawing, Piece, Until, batch_rows, generate
from chargen.writing.sampler import Filter
from chargen.writing.showing import Collected

MOST_DRAWS = 50  # for each item that is wanted; and at least
FEWEST_DRAWS = 1000


class Seen:
    """The documents of a text, and those that were added: 8 bytes each, for their hashes."""

    def __init__(self, corpus: Corpus) -> None:
        decode, places = corpus.vocabulary.decode, [*corpus.starts.tolist(), len(corpus.ids)]
        texts = (decode(corpus.ids[start:end]).strip(END) for start, end in pairwise(places))
        self._hashes = np.sort(np.fromiter((hash(text.rstrip()) for text in texts), np.int64, len(corpus.starts)))
        self._added = set[int]()

    def add(self, text: str) -> bool:
        """Add a text; return whether it is new."""
        value = hash(text.rstrip())
        place = int(np.searchsorted(self._hashes, value))
        known = value in self._added or (place < len(self._hashes) and bool(self._hashes[place] == value))
        self._added.add(value)
        return not known


class Wanted(NamedTuple):
    """What items are drawn."""

    number: int
    seed: str = ""  # the beginning of each, which the model has read
    seen: Seen | None = None  # only those that are not among these, each once; None: any


def items(
    model: CharacterModel, wanted: Wanted, until: Until, filters: Sequence[Filter], drawing: Drawing | None
) -> Iterator[Piece]:
    """Draw whole documents, each of which continues what the model, of one row, has read; yield a piece for each.

    Documents that are blank, or do not end within ``until.length`` characters, are left out. The arguments are those of
    `generate.samples`. Which are written depends on the generators alone, not on how many are drawn at once.

    Raises ChargenError if most draws are left out: of 50 for each item, and at least 1,000.
    """
    found = drawn = 0
    most = max(FEWEST_DRAWS, MOST_DRAWS * wanted.number)
    while found < wanted.number:
        if drawn >= most:
            kind = "whole" if wanted.seen is None else "whole and new"
            raise ChargenError(
                f"only {found:,} of {drawn:,} items drawn are {kind}: give a higher --temperature or --length, or ask "
                "for fewer --items"
            )
        left = (wanted.number - found) * (2 if drawn else 1)
        rows = batch_rows(min(left, most - drawn), until.length, len(model.vocabulary))
        batch = [Collected() for _ in range(rows)]
        for piece in generate(model.repeat(rows), until, filters, drawing and drawing(rows, drawn)):
            batch[piece.sample].add(piece)
        drawn += rows
        for one in batch:
            text = wanted.seed + one.text
            whole = one.stopped_by == WHOLE and text.strip() and found < wanted.number
            if whole and (wanted.seen is None or wanted.seen.add(text)):
                yield Piece(found, one.text, one.nats, WHOLE)
                found += 1
        if until.stopping():
            return
