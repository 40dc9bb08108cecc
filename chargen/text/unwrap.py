"""Lines of a text that was wrapped at a fixed width become whole paragraphs again.

A line was wrapped if the first word of the next line had no room on it. Lines of verse, headings and the last lines of
paragraphs end before that; lists, tables and indented lines are recognised by their form. All of them stay as they are.
A text is looked at in windows, so that memory does not grow with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

from chargen.terminal import columns

WINDOW = 1 << 18  # characters that are looked at together
NARROWEST, WIDEST = 30, 160  # columns to which texts are wrapped
WIDTH_QUANTILE = 0.95  # of the lines; a few longer ones are tables or addresses
SLACK = 0.1  # of the width, which lines that were wrapped by hand leave free
SPACELESS_SLACK = 6  # columns: a punctuation mark may not begin a line of Chinese or Japanese
# Of the lines before a lower-case letter, in prose: the share that has no room for the next word, with that slack, and
# the share without it in the whole text. In eleven wrapped texts they were 0.96 and 0.85 or more.
FULL_SHARE, STRICT_SHARE = 0.75, 0.6
FEWEST_LINES = 3  # before a lower-case letter, from which a width is known
VERSE_LINES, VERSE_SHARE = 4, 0.8  # of so many lines or more, so many begin with capitals in verse
CAPITALS_SHARE = 0.6  # of the lines of a text begin with capitals, if it is mostly verse
DEEPEST_INDENT = 8  # columns, of the first line of a paragraph

_ITEM = re.compile(r"\s*(?:[-*+•‣◦·]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)]|[ivxIVX]{1,5}[.)])\s")
_MARKS = (">", "|", "#")  # begin quoted mail, rows of tables, headings of Markdown
_COLUMNS = ("\t", "   ", " | ", "....", ". . . .")  # between the cells of a table, or of a table of contents
_SENTENCE_END = re.compile(r"[.!?…:;][\"'”’»)\]*_]*$")
_LONGEST_END = 8  # characters of a line in which its sentence's end is looked for
_FIRST_PART, _LAST_PART = re.compile(r"[^\W\d_]+"), re.compile(r"([^\W\d_]+)-$")
_AND = re.compile(r"(?:and|or|to|und|oder|bis|et|ou|y|o|e|en|of)\b")  # after the first part of "two- and threefold"
_OPEN_DASH = re.compile(r"\S(?:--|[—–―])$")  # a dash without spaces around it
_OPENING = "\"'“‘«„‚(*_[¿¡"
_SOFT_HYPHEN = "\u00ad"


class Line(NamedTuple):
    """What a line looks like."""

    text: str
    width: int  # columns
    word: int  # columns of its first word
    indent: int  # columns
    first: str  # its first letter or digit
    apart: bool  # blank, or a line of a table, a rule or quoted mail
    item: bool  # it may begin an item of a list

    @property
    def spaceless(self) -> bool:
        """Whether it begins in a script that is written without spaces."""
        return _spaceless(self.first)

    @property
    def lower(self) -> bool:
        """Whether its first letter says that no sentence begins: it is no capital, and no digit."""
        return self.first.isalpha() and not self.first.isupper()


def unwrapped(texts: Iterable[str]) -> Iterator[str]:
    """Yield a text, given in parts, with each paragraph that was wrapped on one line.

    The result does not depend on where the parts end.
    """
    held = ""
    for part in chain(filter(None, texts), [""]):
        held += part
        while len(held) > WINDOW or (held and not part):
            text, used = _window(held[:WINDOW], last=len(held) <= WINDOW)
            yield text
            held = held[used:]


def wrapped_lines(text: str) -> tuple[int, int]:
    """Return how many lines of a text were wrapped, and how many another line follows."""
    lines = [_line(line) for line in text.split("\n")]
    return sum(_wrapped(lines)), sum(bool(a.width and b.width) for a, b in pairwise(lines))


def _window(window: str, *, last: bool) -> tuple[str, int]:
    """Return a window with its paragraphs joined, and its length without the paragraph at its end that may go on."""
    ended, _, rest = window.rpartition("\n")
    if last or not ended:
        ended, rest = window, ""
    lines = [_line(text) for text in ended.split("\n")]
    wrapped = _wrapped(lines)
    if ended != window and False in wrapped:
        whole = len(wrapped) - wrapped[::-1].index(False)
        rest = "\n".join([*(line.text for line in lines[whole:]), rest])
        lines = lines[:whole]
    words: set[str] = set()
    if any(joins and line.text.endswith("-") for line, joins in zip(lines, wrapped, strict=False)):
        words = {word for line in lines for word in _FIRST_PART.findall(line.text.casefold())[1:-1]}
    parts = [lines[0].text]
    for line, joins in zip(lines[1:], wrapped, strict=False):
        if joins:
            parts[-1], joint = _joint(parts[-1], line.text, words)
            parts.append(joint + line.text)
        else:
            parts.append("\n" + line.text)
    used = len(window) - len(rest)
    return "".join(parts) + "\n" * (ended != window), used


def _line(text: str) -> Line:
    inner = text.strip()
    indent = columns(text[: len(text) - len(text.lstrip())].expandtabs()) if text[:1].isspace() else 0
    if not inner:
        return Line(text, 0, 0, 0, "", apart=True, item=False)
    first = next((c for c in inner.lstrip(_OPENING)[:3] if c.isalnum()), "")
    word = 2 if _spaceless(first) else columns(inner.split(None, 1)[0])
    apart = not first and not any(c.isalnum() for c in inner)
    apart = apart or inner.startswith(_MARKS) or any(mark in inner for mark in _COLUMNS)
    return Line(text, indent + columns(inner), word, indent, first, apart, _ITEM.match(text) is not None)


def _spaceless(character: str) -> bool:
    """Return whether a character is of a script that is written without spaces."""
    return "\u2e80" <= character <= "\ua4cf" or "\uf900" <= character <= "\ufaff" or "\uff00" <= character <= "\uffef"


def _room(line: Line, following: Line, width: int) -> int:
    """Return how many columns would be left on a line of ``width`` if it had the next line's first word too."""
    return width - line.width - (not following.spaceless) - following.word


def _slack(following: Line, width: int) -> float:
    """Return the most columns that a wrapped line leaves free."""
    return SPACELESS_SLACK if following.spaceless else SLACK * width


def _follows(line: Line, following: Line) -> bool:
    """Return whether the form of two lines allows that the second goes on with the first."""
    return not (line.apart or following.apart or following.indent) and line.indent <= DEEPEST_INDENT


def _prose(lines: Sequence[Line], width: int, fewest: int = 1, strict: float = 0.0) -> bool:
    """Return whether the lines before a lower-case letter, at least ``fewest``, have no room for the next word.

    Of these, the share ``strict`` must have none without slack either.
    """
    pairs = [
        (_room(a, b, width), _slack(b, width), b.spaceless) for a, b in pairwise(lines) if b.lower and _follows(a, b)
    ]
    full = sum(room < slack for room, slack, _ in pairs)
    narrow = sum(room < 0 or spaceless for room, _, spaceless in pairs)
    return len(pairs) >= fewest and full >= FULL_SHARE * len(pairs) and narrow >= strict * len(pairs)


def _wrapped(lines: Sequence[Line]) -> list[bool]:
    """Return for each line but the last whether it was wrapped, so that the next belongs to it."""
    found = [False] * (len(lines) - 1)
    widths = sorted(a.width for a, b in pairwise(lines) if _follows(a, b))
    width = widths[int(WIDTH_QUANTILE * (len(widths) - 1))] if widths else 0
    if not NARROWEST <= width <= WIDEST or not _prose(lines, width, FEWEST_LINES, STRICT_SHARE):
        return found
    capitals = sum(line.first.isupper() for line in lines)
    verse = capitals > CAPITALS_SHARE * sum(bool(line.width) for line in lines)
    first = 0
    for end in [*(n for n, line in enumerate(lines) if not line.width), len(lines)]:
        if end - first > 1:
            found[first : end - 1] = _wrapped_block(lines[first:end], width, verse=verse)
        first = end + 1
    return found


def _wrapped_block(lines: Sequence[Line], width: int, *, verse: bool) -> list[bool]:
    """Return the same for lines without a blank one among them, in a text that is mostly ``verse`` or not."""
    found: list[bool] = []
    capitals = sum(line.first.isupper() for line in lines)
    if len(lines) >= VERSE_LINES and capitals >= VERSE_SHARE * len(lines):
        verse = verse or any(_room(a, b, width) >= 0 for a, b in pairwise(lines))
    prose = _prose(lines, width)
    verse = verse and (not prose or capitals >= VERSE_SHARE * len(lines))
    listed = lines[0].item or sum(line.item for line in lines) > 1
    for line, following in pairwise(lines):
        room = _room(line, following, width)
        ended = not following.lower and _SENTENCE_END.search(line.text.rstrip()[-_LONGEST_END:]) is not None
        full = room < (_slack(following, width) if prose and not ended else 0)
        allowed = _follows(line, following) and not (line.indent and found and found[-1])
        found.append(full and allowed and not (verse or (listed and following.item) or (following.lower and not prose)))
    return found


def _joint(line: str, following: str, words: set[str]) -> tuple[str, str]:
    """Return a line as it goes on in the next, and what stands between them: a space, or nothing.

    A hyphen at its end is left out if the text has the word without it elsewhere.
    """
    line = line.rstrip()
    if line.endswith(_SOFT_HYPHEN):
        return line[:-1], ""
    if line.endswith("-") and (divided := _LAST_PART.search(line)):
        if _AND.match(following):
            return line, " "
        last = _FIRST_PART.match(following)
        whole = (divided[1] + last[0]).casefold() if last and last[0][0].islower() else ""
        return line[:-1] if whole in words else line, ""
    if _OPEN_DASH.search(line) or (_spaceless(line[-1:]) and _spaceless(following[:1])):
        return line, ""
    return line, " "
