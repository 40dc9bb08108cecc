"""The text of a Word file (Office Open XML, ECMA-376): its document, then its notes. Macros are never read.

Headers, footers, comments, deleted text and tables of contents are left out.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import IO

from chargen.text.formats.lines import PARAGRAPH, Lines, Table
from chargen.text.formats.options import CONTENTS, HIDDEN, Options
from chargen.text.formats.package import Package
from chargen.text.formats.xml import events, local, plain

# Deleted and moved text, what repeats the text before it (Fallback), and settings.
DELETED = {"del", "moveFrom"}
LEFT_OUT = {*DELETED, "Fallback", "rPr", "tabs", "sectPr"}
CONTENTS_STYLE = re.compile(r"(?:toc|table of figures) ?\d*(?: heading)?|toc ?heading", re.IGNORECASE)
GALLERY = "Table of Contents"  # the gallery from which Word inserts it
SEPARATORS = {"separator", "continuationSeparator", "continuationNotice"}


def read(file: IO[bytes], options: Options) -> Iterator[str]:
    """Yield the text. Raises UnreadableError, or what `limits.DAMAGE` lists."""
    package = Package(file)
    document = _document(package)
    related = dict(_relationships(package, document))
    contents = _contents_styles(package, related.get("styles", ""))
    lines = Lines()
    for part in (document, related.get("footnotes", ""), related.get("endnotes", "")):
        if part == document or part in package:
            with package.open(part) as opened:
                yield from _text(opened, lines, contents, options)
        lines.gap(PARAGRAPH)
    yield lines.end()


def _document(package: Package) -> str:
    """Return the name of the document's part."""
    found = dict(_relationships(package, ""))
    return found.get("officeDocument", "word/document.xml")


def _relationships(package: Package, part: str) -> Iterator[tuple[str, str]]:
    """Yield the type and the name of each part that a part refers to inside the file."""
    folder, name = posixpath.split(part)
    relations = posixpath.join(folder, "_rels", f"{name}.rels")
    if relations not in package:
        return
    with package.open(relations) as opened:
        for kind, _, written in events(opened):
            found = plain(written)
            if kind == "start" and "Target" in found and found.get("TargetMode") != "External":
                target = posixpath.normpath(posixpath.join("/", folder, found["Target"])).lstrip("/")
                yield found.get("Type", "").rpartition("/")[2], target


def _contents_styles(package: Package, part: str) -> set[str]:
    """Return the styles of tables of contents, whose names in the file depend on Word's language."""
    contents, style = set(), ""
    if part in package:
        with package.open(part) as opened:
            for kind, name, written in events(opened):
                if kind == "start" and local(name) == "style":
                    style = plain(written).get("styleId", "")
                elif kind == "start" and local(name) == "name" and CONTENTS_STYLE.fullmatch(_value(written)):
                    contents.add(style)
    return contents


def _value(written: dict[str, str]) -> str:
    return plain(written).get("val", "")


def _text(opened: IO[bytes], lines: Lines, contents: set[str], options: Options) -> Iterator[str]:
    """Yield the text of a part; paragraphs with one of the ``contents`` styles are left out."""
    skipped, in_text, deleted = 0, False, False
    table = Table(lines)
    outer: list[bool] = []  # for each paragraph and block that is open, whether it belongs to a table of contents
    for kind, name, written in events(opened):
        name, start = local(name) if kind != "text" else name, kind == "start"
        if skipped:
            skipped += start - (kind == "end")
            options.left_out[HIDDEN] += len(name) if kind == "text" and deleted else 0
        elif kind == "text":
            if in_text and any(outer):
                options.left_out[CONTENTS] += len(name)
            elif in_text:
                lines.write(name)
                yield lines.take()
        elif start and (name in LEFT_OUT or plain(written).get("type") in SEPARATORS):
            skipped, deleted = 1, name in DELETED
        elif name == "t":
            in_text = start
        elif name in ("p", "sdt"):
            if start:
                outer.append(False)
            elif outer:
                outer.pop()
            if name == "p":
                table.paragraph(start=start)
                yield lines.take()
        elif name in ("tbl", "tr", "tc"):
            table.part(("tbl", "tr", "tc").index(name), start=start)
        elif start and outer and name in ("docPartGallery", "pStyle"):
            outer[-1] |= _value(written) == GALLERY if name == "docPartGallery" else _value(written) in contents
        elif start:
            _mark(lines, name, written)


def _mark(lines: Lines, name: str, written: dict[str, str]) -> None:
    if name in ("br", "cr"):
        lines.line_break()
    elif name in ("tab", "ptab"):
        lines.tab()
    elif name == "noBreakHyphen":
        lines.write("-")
    elif name == "sym":
        code = plain(written).get("char", "")
        lines.write(chr(int(code, 16)) if re.fullmatch("[0-9A-Fa-f]{4}", code) and code[0] not in "DFdf" else "")
