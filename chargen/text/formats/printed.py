"""Printed lines become paragraphs: without running heads and page numbers, and with words whole that a line divided.

A line is a `Line`, with its place on the page in points. Nothing here knows of PDF.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

HEAD_LINES = 3  # at most so many lines at the top of a page, and at the bottom, are running heads
FEWEST_HEADS = 3  # pages on which a line stands at the top, or bottom, before it is a running head
WIDE_GAP = 1.35  # times the usual distance of lines, between paragraphs
INDENT, DEEP_INDENT = 0.7, 3.5  # times the size of the letters; deeper lines are verse, or centred
OTHER_SIZE = 1.12  # times the size of the letters: a heading
FULL_SHARE = 0.8  # of the lines in a column end before its right margin
SAME_COLUMN = 60.0  # points between the beginnings of its lines
LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})
HYPHENS = ("-", "\u2010")
NUMBER = "#"  # stands for digits when heads are compared

_PAGE_NUMBER = re.compile(
    r"[\s\-–—.|\[\](]*(?:page |seite )?(?:\d+|[ivxlcdm]+)(?:\s*(?:/|of|von)\s*\d+)?[\s\-–—.|\])]*", re.I
)
_WORD = re.compile(r"[^\W\d_]+(?:[-’'][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?…:][\"'”’»)\]]*$")
_SENTENCE_START = re.compile(r"[\"'“‘«(\[¡¿—–-]*[^\W\d_a-z]")
_LAST_PART = re.compile(r"[^\W\d_]+$")
_FIRST_PART = re.compile(r"[^\W\d_]+")


class Line(NamedTuple):
    """A printed line."""

    text: str
    left: float = 0.0
    right: float = 0.0
    base: float = 0.0  # the height of its foot above the page's
    size: float = 10.0  # of its letters
    divided: bool = False  # its end divides a word; the hyphen is not in the text


def paragraphs(
    pages: Sequence[Sequence[Line]], left_out: Callable[[int], object] = lambda characters: None
) -> Iterator[str]:
    """Yield the text of pages, a page at a time; call ``left_out`` with the characters of running heads."""
    body = without_heads(pages)
    printed, read = (sum(len(line.text) for page in some for line in page) for some in (pages, body))
    left_out(printed - read)
    kept = [[_divided(line) for line in page] for page in body]
    words = _words(line for page in kept for line in page)
    before: Line | None = None
    for page in kept:
        breaks, parts = _breaks(page), []
        for number, line in enumerate(page):
            if before is None:
                gap = ""
            elif number == 0:
                gap = _across_pages(before, page, breaks.right(page[0]))
            else:
                gap = breaks.between(before, line)
            if gap or before is None:
                parts += ["-" * (before is not None and before.divided), gap, line.text]
            else:
                parts.append(_joined(before, line, words))
            before = line
        yield "".join(parts)
    if before:
        yield "-" * before.divided + "\n"


def _divided(line: Line) -> Line:
    """Return a line that ends with a hyphen as one whose end divides a word."""
    if line.text[-1:] in HYPHENS and line.text[-2:-1].isalpha():
        return line._replace(text=line.text[:-1], divided=True)
    return line


def _words(lines: Iterable[Line]) -> Counter[str]:
    """Count the words of lines, without the parts of words that are divided."""
    words, divided = Counter[str](), False
    for line in lines:
        found = _WORD.findall(line.text)
        words.update(word.casefold() for word in found[divided : len(found) - line.divided])
        divided = line.divided
    return words


def without_heads(pages: Sequence[Sequence[Line]]) -> list[list[Line]]:
    """Return the lines of pages without running heads and page numbers, which are lines that repeat at an edge."""
    counts = Counter[tuple[bool, str]]()
    edges = [(_edge(page, top=False), _edge(page, top=True)) for page in pages]
    for both in edges:
        for top, edge in enumerate(both):
            counts.update({(bool(top), _compared(line.text)) for line in edge})
    kept = []
    for page, both in zip(pages, edges, strict=True):
        heads: set[int] = set()
        for top, edge in enumerate(both):
            seen: set[str] = set()
            for line in edge:
                text = _compared(line.text)
                if counts[bool(top), text] < (2 if text == NUMBER else FEWEST_HEADS) or text in seen:
                    break
                seen.add(text)  # a book's title may stand below the same words as a head
                heads.add(id(line))
        kept.append([line for line in page if id(line) not in heads])
    return kept


def _edge(page: Sequence[Line], *, top: bool) -> list[Line]:
    """Return the first lines of a page from an edge inwards."""
    return sorted(page, key=lambda line: line.base, reverse=top)[:HEAD_LINES]


def _compared(text: str) -> str:
    """Return what the running heads of several pages have in common."""
    if _PAGE_NUMBER.fullmatch(text):
        return NUMBER
    return re.sub(r"\d+|\s+", lambda found: NUMBER if found[0].strip() else " ", text.casefold()).strip()


class _Breaks(NamedTuple):
    """What decides where a page's paragraphs end."""

    leading: float  # the usual distance of lines
    margins: list[tuple[float, float]]  # left and right ends of the lines

    def left(self, line: Line) -> float:
        """Return the left margin of a line's column, where at least two of its lines begin."""
        lefts = [round(left) for left, _ in self.margins if 0 <= line.left - left < SAME_COLUMN]
        return min((left for left in lefts if lefts.count(left) > 1), default=line.left)

    def right(self, line: Line) -> float:
        """Return the right margin of a line's column."""
        ends = sorted(right for left, right in self.margins if abs(left - line.left) < SAME_COLUMN)
        return ends[int(FULL_SHARE * len(ends))] if ends else line.right

    def between(self, before: Line, line: Line) -> str:
        """Return what stands between two lines: a blank line, a line's end, or nothing in a paragraph."""
        distance = before.base - line.base
        if distance > WIDE_GAP * self.leading or max(before.size, line.size) > OTHER_SIZE * min(before.size, line.size):
            return "\n\n"
        if distance <= 0:  # the next column
            return "" if not _ends_early(before, line, self.right(before)) else "\n\n"
        if line.left - before.left > INDENT * line.size and not before.divided:
            return "\n\n"
        early = _ends_early(before, line, self.right(before))
        indented = INDENT * line.size < line.left - self.left(line) < DEEP_INDENT * line.size
        equal = abs(line.left - before.left) < INDENT * line.size
        verse = equal and before.text[-1] in ",;" and line.text[0].isalpha()
        sentence = _SENTENCE_END.search(before.text) and _SENTENCE_START.match(line.text)
        if indented and ((early and not verse) or sentence):
            return "\n\n"
        return "\n" * early


def _breaks(page: Sequence[Line]) -> _Breaks:
    distances = sorted(a.base - b.base for a, b in pairwise(page) if a.base > b.base)
    leading = distances[len(distances) // 2] if distances else 0.0
    return _Breaks(leading or 1e9, [(line.left, line.right) for line in page])


def _ends_early(before: Line, line: Line, right: float) -> bool:
    """Return whether the first word of a line would have had room on the line before."""
    word = line.text.split(" ", 1)[0]
    width = (before.right - before.left) / max(1, len(before.text)) * (len(word) + 1)
    return not before.divided and before.right + width < right


def _across_pages(before: Line, page: Sequence[Line], right: float) -> str:
    """Return what stands between the last line of a page and the first of the next."""
    line = page[0]
    if before.divided:
        return ""
    left = min(other.left for other in page)
    begins = line.left - left > INDENT * line.size or _ends_early(before, line, right)
    other_size = max(before.size, line.size) > OTHER_SIZE * min(before.size, line.size)
    return "\n\n" if begins or other_size else ""


def _joined(before: Line, line: Line, words: Counter[str]) -> str:
    """Return a line's text as it continues the line before: with its space, or the hyphen of a divided word."""
    if not before.divided:
        return line.text if _without_spaces(before.text[-1:]) and _without_spaces(line.text[:1]) else " " + line.text
    first, last = _LAST_PART.search(before.text), _FIRST_PART.match(line.text)
    if first is None or last is None:
        return "-" + line.text
    whole, parted = (first[0] + last[0]).casefold(), f"{first[0]}-{last[0]}".casefold()
    compound = parted in words or (first[0].casefold() in words and last[0].casefold() in words)
    keep = last[0][0].isupper() or (whole not in words and compound)
    return "-" * keep + line.text


def _without_spaces(character: str) -> bool:
    """Return whether a character is of a script that is written without spaces."""
    return "\u2e80" <= character <= "\ua4cf" or "\uf900" <= character <= "\ufaff" or "\uff00" <= character <= "\uffef"


def cleaned(text: str) -> str:
    """Return a line's text without characters that are not text, with ligatures as letters."""
    text = text.translate(LIGATURES).replace("\u00a0", " ").replace("\u00ad", "")
    return " ".join("".join(c for c in text if c.isprintable() or c.isspace()).split())
