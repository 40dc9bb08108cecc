"""The text of an EPUB 2 or 3 in the order of its spine, without cover, contents and lists of pages.

Only what the package document names inside the archive is read: no scripts, pictures or addresses.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import IO
from urllib.parse import unquote

from chargen.text.encodings import NoTextError, decoded
from chargen.text.formats import html
from chargen.text.formats.limits import BLOCK_BYTES, DAMAGE, UnreadableError
from chargen.text.formats.options import CONTENTS, Options
from chargen.text.formats.package import Package
from chargen.text.formats.xml import events, local, plain

CONTAINER, ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
PAGES = {"application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document"}
LEFT_OUT_GUIDES = {"toc", "cover", "loi", "lot", "index"}  # types of an EPUB 2's guide
BOILERPLATE_GUIDES = {"colophon", "copyright-page"}
FEWEST_LINKS, LINKED_SHARE = 5, 0.7  # of a page that is a table of contents without saying so
MOST_CONTENTS = 1 << 18  # characters of such a page, which is held until its end


@dataclass
class _Book:
    """What a package document says."""

    pages: dict[str, str] = field(default_factory=dict)  # file names, by their ids
    spine: list[str] = field(default_factory=list)  # ids
    left_out: set[str] = field(default_factory=set)  # file names


def read(file: IO[bytes], options: Options) -> Iterator[str]:
    """Yield the text. Raises UnreadableError, or what `limits.DAMAGE` lists."""
    package = Package(file)
    book = _book(package, options)
    # A spine may name a page twice, or go on without end in names of the same page: each is read once.
    names = list(dict.fromkeys(book.pages[one] for one in book.spine if one in book.pages))
    _count_left_out(package, [name for name in names if name in book.left_out], options)
    names = [name for name in names if name not in book.left_out]
    if ENCRYPTION in package:
        with package.open(ENCRYPTION) as opened:
            encrypted = {unquote(plain(a).get("URI", "")) for kind, _, a in events(opened) if kind == "start"}
        if encrypted.intersection(names):
            raise UnreadableError("protected against copying (DRM)")
    gap = ""
    for name in names:
        written = False
        for part in _unless_contents(package, name, options):
            yield part if written else gap + part
            written = True
        gap = "\n" if written else gap


def _count_left_out(package: Package, names: list[str], options: Options) -> None:
    """Count the characters of the pages that are left out, as far as they can be read."""
    for name in names:
        counts = html.Counts()
        with suppress(UnreadableError, *DAMAGE):
            for _ in _page(package, name, options, counts):
                pass
        options.left_out[CONTENTS] += counts.all


def _unless_contents(package: Package, name: str, options: Options) -> Iterator[str]:
    """Yield the text of a page, unless it is a table of contents."""
    counts, held = html.Counts(), list[str]()
    for part in _page(package, name, options, counts):
        held.append(part)
        if counts.all > MOST_CONTENTS:
            yield from held
            held.clear()
    if counts.all > MOST_CONTENTS or counts.links < FEWEST_LINKS or counts.linked < LINKED_SHARE * counts.all:
        yield from held if counts.all else ()
    else:
        options.left_out[CONTENTS] += counts.all


def _page(package: Package, name: str, options: Options, counts: html.Counts) -> Iterator[str]:
    with package.open(name) as opened:
        head = opened.read(html.HEAD_BYTES)
    with package.open(name) as opened:
        blocks = iter(partial(opened.read, BLOCK_BYTES), b"")
        try:
            yield from html.text(decoded(blocks, name, html.encoding(head, "utf-8"), None), options, counts, xml=True)
        except NoTextError as error:
            if error.what != "empty":
                raise UnreadableError(f"damaged: its page {name} is {error.what}") from None


def _book(package: Package, options: Options) -> _Book:
    """Read the package document, which the container names."""
    with package.open(CONTAINER) as opened:
        found = (plain(a).get("full-path") for _, name, a in events(opened) if local(name) == "rootfile")
        root = next((path for path in found if path), None)
        if root is None:
            raise UnreadableError("damaged: its container names no book")
    book, folder = _Book(), posixpath.dirname(root)
    left_out_guides = LEFT_OUT_GUIDES if options.keep_boilerplate else LEFT_OUT_GUIDES | BOILERPLATE_GUIDES
    with package.open(root) as opened:
        for kind, name, written in events(opened):
            found_in = plain(written)
            if kind != "start":
                continue
            path = posixpath.normpath(posixpath.join(folder, unquote(found_in.get("href", "").partition("#")[0])))
            match local(name):
                case "item" if found_in.get("media-type", "").lower() in PAGES:
                    book.pages[found_in.get("id", "")] = path
                    if {"nav", "cover-image"} & {*found_in.get("properties", "").split()}:
                        book.left_out.add(path)
                case "itemref":
                    book.spine.append(found_in.get("idref", ""))
                case "reference" if found_in.get("type", "").lower() in left_out_guides:
                    book.left_out.add(path)
    if not book.spine:
        raise UnreadableError("damaged: its spine names no pages")
    return book
