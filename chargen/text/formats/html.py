"""The text of a web page: no navigation, scripts, styles or forms' fields, a blank line between paragraphs."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO

from chargen.text.encodings import decoded
from chargen.text.formats.limits import BLOCK_BYTES
from chargen.text.formats.lines import LINE, PARAGRAPH, Lines
from chargen.text.formats.markup import attributes, tokens
from chargen.text.formats.options import CONTENTS, HIDDEN, IMPRINTS, Options, names

HEAD_BYTES = 4096  # in which a page names its encoding
PARAGRAPHS = names(
    "p h1 h2 h3 h4 h5 h6 blockquote ul ol dl table pre section article aside figure hr main header footer hgroup "
    "address fieldset details body"
)
LINE_BREAKING = names("div li tr dt dd br figcaption caption summary legend form center thead tbody tfoot")
CELLS = frozenset({"td", "th"})
# Not text, or text about the page. The readings above Chinese characters (rt) would stand in the middle of words.
LEFT_OUT = names("nav svg template noscript object audio video canvas select button datalist dialog map rt rp")
VOID = names("area base br col embed hr img input link meta param source track wbr")
LEFT_OUT_ROLES = names("navigation search doc-toc doc-pagelist doc-pagebreak doc-noteref doc-cover doc-index menu")
LEFT_OUT_TYPES = names("toc landmarks page-list pagebreak noteref cover loi lot index")
# Production notes, and what Standard Ebooks puts around a book.
BOILERPLATE_TYPES = names("titlepage halftitlepage copyright-page imprint colophon")
BOILERPLATE_ROLES = frozenset({"doc-colophon", "doc-credits"})

_TELLING = re.compile(r"type|role|hidden|display", re.IGNORECASE)
_NOT_DISPLAYED = re.compile(r"display\s*:\s*none", re.IGNORECASE)
_CHARSET = re.compile(
    rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([A-Za-z0-9_-]+)|^\s*<\?xml[^>]{0,100}encoding\s*=\s*[\"']([A-Za-z0-9_-]+)",
    re.IGNORECASE,
)
_CHARSETS = re.compile(
    r"utf-?8|us-ascii|iso-?8859-\d+|latin-?\d|windows-125\d|cp125\d|koi8-[ru]|macintosh|shift_?jis|euc-(?:jp|kr)|"
    r"iso-2022-jp|gb2312|gbk|gb18030|big5(?:-hkscs)?",
    re.IGNORECASE,
)


@dataclass
class Counts:
    """The characters of a page."""

    all: int = 0
    linked: int = 0  # in links
    links: int = 0


def read(file: IO[bytes], options: Options) -> Iterator[str]:
    """Yield a page's text.

    Its encoding is that of its byte-order mark, that of ``options`` if it is not UTF-8, that which the page names, or
    UTF-8. Raises NoTextError as `decoded` does.
    """
    head = file.read(HEAD_BYTES)
    file.seek(0)
    blocks = iter(partial(file.read, BLOCK_BYTES), b"")
    pieces = decoded(blocks, options.name, encoding(head, options.encoding), "--encoding", options.guessed)
    yield from text(pieces, options, Counts(), xml=head.lstrip().startswith(b"<?xml"))


def encoding(head: bytes, given: str) -> str:
    """Return the encoding of a page, or of an XML file, that begins with ``head``."""
    if codecs.lookup(given).name != "utf-8" or not (named := _CHARSET.search(head)):
        return given
    name = (named[1] or named[2]).decode("ascii").lower()
    if not _CHARSETS.fullmatch(name):
        return given
    if name in ("iso-8859-1", "us-ascii", "latin1", "latin-1"):  # as browsers read them, by WHATWG's Encoding Standard
        return "cp1252"
    return {"macintosh": "mac_roman", "gb2312": "gb18030", "gbk": "gb18030"}.get(name, name)


def text(pieces: Iterable[str], options: Options, counts: Counts, *, xml: bool) -> Iterator[str]:
    """Yield the text of a page, given in pieces, and count its characters."""
    lines = Lines()
    preformatted, linked = 0, False
    skipped, depth, why = "", 0, ""  # the element that is left out, how many of its name are open, and what it is
    for kind, value, written in tokens(pieces, xml=xml):
        start = kind == "start"
        if skipped:
            if kind == "text":
                options.left_out[why] += len(value.strip())
            elif value == skipped:
                depth += 1 if start else -1
                skipped = skipped if depth else ""
        elif kind == "text":
            length = (lines.write if preformatted else lines.write_words)(value)
            counts.all += length
            counts.linked += length * linked
            if length:
                yield lines.take()
        elif start and value not in VOID and (why := _left_out(value, written, options)):
            skipped, depth = value, 1
        elif value == "a":
            linked = start and "href" in written.lower()
            counts.links += linked
        elif value == "br":
            if start:
                lines.line_break()
        elif value in CELLS:
            lines.tab()
        elif value in PARAGRAPHS or value in LINE_BREAKING:
            lines.gap(PARAGRAPH if value in PARAGRAPHS else LINE)
            if value == "pre":
                preformatted = max(0, preformatted + (1 if start else -1))
    yield lines.end()


def _left_out(name: str, written: str, options: Options) -> str:
    """Return what an element with these attributes is if it is no text of the book or page; empty if it is text."""
    if name in LEFT_OUT:
        return CONTENTS if name == "nav" else HIDDEN
    if not _TELLING.search(written):
        return ""
    found = attributes(written)
    types, roles = found.get("epub:type", "").split(), found.get("role", "").split()
    if "hidden" in found or found.get("aria-hidden") == "true" or _NOT_DISPLAYED.search(found.get("style", "")):
        return HIDDEN
    if not LEFT_OUT_TYPES.isdisjoint(types) or not LEFT_OUT_ROLES.isdisjoint(roles):
        return CONTENTS
    boilerplate = not (BOILERPLATE_TYPES.isdisjoint(types) and BOILERPLATE_ROLES.isdisjoint(roles))
    return IMPRINTS if boilerplate and not options.keep_boilerplate else ""
