"""Project Gutenberg's header and licence are left out of a text, block by block.

Two generations of files are known: today's, whose books stand between lines ``*** START OF`` and ``*** END OF``, and
the etexts before 2004, whose header ends with "the small print". Where in doubt, the text is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain

WORDS = ("GUTENBERG", "Gutenberg")  # a text without them has no header and no licence
TITLE_CHARACTERS = 500  # a header names Project Gutenberg within these first characters of a text
HEADER_CHARACTERS = 50_000  # the longest header
LICENCE_CHARACTERS = 60_000  # the longest licence together with the next book's header
LICENCE_GAP_LINES = 12  # at most so many consecutive lines of a licence lack its typical words
OVERLAP_CHARACTERS = 1_000  # held back, because a block may end inside one of the lines below

_BOOK_STARTS = re.compile(
    r"^(?:\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG(?:[^*\n]*\n){0,3}?[^*\n]*\*\*\*|\*END[* ]*THE SMALL PRINT!)"
    r"[^\n]*\n*",
    re.MULTILINE,
)
_BOOK_ENDS = re.compile(
    r"^(?:\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG"
    r"|End of (?:[Tt]h(?:e|is) )?Project Gutenberg(?:'s| E[Tt]ext| EBook))",
    re.MULTILINE,
)
_SMALL_PRINT = re.compile(r"^\*+ ?START\*+ ?THE SMALL PRINT", re.MULTILINE)
_HEADER_SAYS = re.compile(
    r"[Tt]his e(?:Book|text) is for the use of|^(?:Title|Author|Release [Dd]ate|Language|Character set encoding):"
    r"|information in this header|Copyright laws are changing",
    re.MULTILINE,
)
_LICENCE_BEGINS = re.compile(r"General Terms of Use|Updated editions will replace|This file should be named")
_LICENCE_SAYS = re.compile(
    r"gutenberg|foundation|electronic work|terms of use|trademark|donat|e(?:book|text)|licen[cs]e|copyright|newsletter",
    re.IGNORECASE,
)


def books(texts: Iterable[str], left_out: list[int]) -> Iterator[str]:
    """Yield a text, given in blocks, without what stands before, between and after its books.

    The number of characters that were left out, if any, is appended to ``left_out``.
    """
    held, inside, begun, named, dropped = "", True, False, False, 0
    for part in chain(texts, [""]):
        last = not part
        held += part
        if len(held) < HEADER_CHARACTERS and not last:
            continue
        possible = any(word in held for word in WORDS)  # 5 GB/s, where the expressions read 0.1 GB/s
        while possible:
            start = _book_start(held, first=not begun) if not (inside and begun) else None
            named = named or start is not None or (not begun and _names_gutenberg(held))
            begun = True
            if start is not None:
                dropped, held, inside = dropped + start, held[start:], True
            end = _BOOK_ENDS.search(held) if inside else None
            if end and (named or _LICENCE_BEGINS.search(held, end.end(), end.end() + OVERLAP_CHARACTERS)):
                book = held[: end.start()].rstrip() + "\n"
                yield book
                dropped, held, inside = dropped + end.start() - len(book), held[end.start() :], False
            elif start is None:
                break
        begun = True
        if not inside:
            if len(held) < LICENCE_CHARACTERS and not last:  # a licence or another header may still be incomplete
                continue
            licence = _licence_length(held)
            dropped, held, inside = dropped + licence, held[licence:], True
        complete = len(held) if last else len(held) - OVERLAP_CHARACTERS
        if complete > 0:
            yield held[:complete]
            held = held[complete:]
    if dropped:
        left_out.append(dropped)


def _names_gutenberg(text: str) -> bool:
    return "project gutenberg" in text[:TITLE_CHARACTERS].lower()


def _book_start(held: str, *, first: bool) -> int | None:
    """Return the index where the book after a header begins; None if there is no header.

    The ``first`` header of a text must be at its beginning. It has to name Project Gutenberg near its start, and either
    be short or contain a header's typical words, because a text may quote the header's last line. An etext's header
    ends with the small print, unless the small print follows the book.
    """
    start = _BOOK_STARTS.search(held, 0, HEADER_CHARACTERS if first else len(held))
    if start is None:
        return None
    if not first:
        return start.end()
    header = held[: start.start()]
    if "SMALL PRINT" in start[0]:
        small = _SMALL_PRINT.search(header)
        if small is None or len(held) - start.end() < small.start():
            return None
        header = header[: small.start()]
    short = len(header.strip()) < TITLE_CHARACTERS
    return start.end() if _names_gutenberg(held) and (short or _HEADER_SAYS.search(header)) else None


def _licence_length(text: str) -> int:
    """Return how many characters at the beginning of a text, which starts at a book's end, are its licence.

    The licence ends with the last line that has its typical words, before a gap of more than LICENCE_GAP_LINES.
    """
    end = place = gap = 0
    for line in text.splitlines(keepends=True):
        place += len(line)
        if _LICENCE_SAYS.search(line):
            end, gap = place, 0
        elif (gap := gap + 1) > LICENCE_GAP_LINES:
            break
    return end
