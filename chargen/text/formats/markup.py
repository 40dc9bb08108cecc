"""HTML and XHTML as tags and text, in one pass, in linear time and bounded memory whatever the file holds.

The standard library's html.parser takes quadratic time for tags and comments without end, and a parser that builds a
tree needs many times the memory of the file, and quadratic time for deep ones. Text alone needs no tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import unescape
from itertools import chain
from typing import NamedTuple

LONGEST_TAG = 1 << 16  # characters of a tag whose attributes are read; an embedded picture's is longer
LONGEST_ENTITY = 40  # characters, &CounterClockwiseContourIntegral; and more
LONGEST_OPENING = len("<![CDATA[")
RAW = {"script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes"}  # hold text and no tags

_TAG = re.compile(
    r"<(/?)([A-Za-z][^\s/>]*+)"
    r"((?:[\s/]++|[^\s/>=]++(?:\s*+=\s*+(?:\"[^\"]*+\"|'[^']*+'|[^\s>\"'][^\s>]*+))?|=(?!\s*[\"']))*+)>"
)
_LITERAL = re.compile("<+(?=<)|<(?!/?[A-Za-z]|[!?])")  # characters that begin no tag
_NAME = re.compile(r"</?([A-Za-z][^\s/>]*)")
_ATTRIBUTE = re.compile(r"([^\s/>=\"']+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>\"'][^\s>]*))|([^\s/>=\"']+)")


class Token(NamedTuple):
    """A tag, or text."""

    kind: str  # "text", "start" or "end"
    value: str  # the text, or the tag's name in lower case
    attributes: str = ""  # as written; `attributes` parses them


def attributes(written: str) -> dict[str, str]:
    """Return a tag's attributes by their names in lower case."""
    found: dict[str, str] = {}
    for name, *values, alone in _ATTRIBUTE.findall(written):
        found.setdefault((name or alone).lower(), unescape("".join(values)))
    return found


class Skip(NamedTuple):
    """What is left out next."""

    to: str = ""  # up to this
    tag: bool = False  # and from there to the end of a tag, past its quotation marks
    raw: str = ""  # up to the end of the element with this name

    def past(self, held: str, place: int) -> tuple[int, Skip]:
        """Return where to go on, and what is left out from there; this again if its end is not in the text yet."""
        if self.raw:
            end = re.compile(f"</{self.raw}(?=[\\s/>])", re.IGNORECASE).search(held, place)
            return (end.start(), NOTHING) if end else (max(place, len(held) - len(self.raw) - 2), self)
        if self.to:
            at = held.find(self.to, place)
            if at < 0:
                return max(place, len(held) - len(self.to) + 1), self
            return at + len(self.to), self._replace(to="")
        mark = re.compile("[>\"']").search(held, place)
        if mark is None:
            return len(held), self
        return mark.end(), NOTHING if mark[0] == ">" else self._replace(to=mark[0])


NOTHING = Skip()


def tokens(texts: Iterable[str], *, xml: bool = False) -> Iterator[Token]:
    """Yield the tags and the text of a page, given in blocks. In ``xml``, ``<p/>`` is a start and an end.

    A text may come in several tokens. Comments, declarations, and what is in scripts, styles and titles are left out.
    """
    held, skip = "", NOTHING
    for part in chain(filter(None, texts), [""]):
        last = not part
        held, place = held + part, 0
        while place < len(held):
            if skip != NOTHING:
                before = skip
                place, skip = skip.past(held, place)
                if skip == before:
                    break
            elif held[place] != "<":
                place, text = _text(held, place, last=last)
                if not text:
                    break
                yield Token("text", text)
            elif len(held) - place < LONGEST_OPENING and not last:
                break
            elif literal := _LITERAL.match(held, place):
                place = literal.end()
                yield Token("text", literal[0])
            elif held.startswith("<![CDATA[", place) and xml:
                place += LONGEST_OPENING
            elif held.startswith(("<!", "<?"), place):
                skip = Skip("-->" if held.startswith("<!--", place) else ">")
                place += 2
            elif tag := _TAG.match(held, place):
                place = tag.end()
                closing, name, written = bool(tag[1]), tag[2].lower(), tag[3]
                yield Token("end" if closing else "start", name, written)
                if xml and written.endswith("/") and not closing:
                    yield Token("end", name)
                elif name in RAW and not closing:
                    skip = Skip(raw=name)
            elif len(held) - place >= LONGEST_TAG:
                closing = held.startswith("</", place)
                name, place, quote = _long(held, place)
                yield Token("end" if closing else "start", name)
                skip = Skip(raw=name) if name in RAW and not closing else Skip(quote, tag=True)
            else:  # the tag goes on, or the page ends inside it
                break
        held = held[place:]
        if last:
            return


def _text(held: str, place: int, *, last: bool) -> tuple[int, str]:
    """Return the end of the text at ``place``, and the text; none if it may be part of an entity that goes on."""
    end = held.find("<", place)
    if end < 0:
        end = len(held)
        entity = held.rfind("&", max(place, end - LONGEST_ENTITY))
        if entity >= 0 and not last and ";" not in held[entity:]:
            end = entity
    return end, unescape(held[place:end]).replace("\0", "")


def _long(held: str, place: int) -> tuple[str, int, str]:
    """Return the name of the long tag at ``place``, where to go on, and the quotation mark that is open there."""
    name = _NAME.match(held, place)
    assert name is not None
    quote = re.compile("=\\s*([\"'])").search(held, name.end())
    return name[1].lower()[:LONGEST_ENTITY], quote.end() if quote else name.end(), quote[1] if quote else ""
