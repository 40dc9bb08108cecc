"""The text of an OpenDocument text (ODF, ISO/IEC 26300): its content, with its notes at the end.

Tables of contents and other indexes, comments, and deleted text are left out. Headers and footers are in other parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from chargen.text.formats.limits import UnreadableError
from chargen.text.formats.lines import PARAGRAPH, Lines, Table
from chargen.text.formats.options import CONTENTS, HIDDEN, Options, names
from chargen.text.formats.package import Package
from chargen.text.formats.xml import events, plain

CONTENT = "content.xml"
MOST_SPACES = 1000  # that a file may ask for with one tag
LEFT_OUT = names(
    "text:table-of-content text:illustration-index text:table-index text:object-index text:user-index "
    "text:alphabetical-index text:note-citation text:tracked-changes office:annotation office:forms office:scripts "
    "office:styles office:automatic-styles office:master-styles office:font-face-decls office:meta office:settings "
    "office:binary-data text:variable-decls text:sequence-decls svg-compatible:title svg-compatible:desc "
    "text:ruby-text"
)
COMMENTS = {"office:annotation", "text:tracked-changes"}
TABLES = ("table:table", "table:table-row", "table:table-cell")


def read(file: IO[bytes], options: Options) -> Iterator[str]:
    """Yield the text. Raises UnreadableError, or what `limits.DAMAGE` lists."""
    package = Package(file)
    if "META-INF/manifest.xml" in package:
        with package.open("META-INF/manifest.xml") as opened:
            if any(name.endswith(" encryption-data") for _, name, _ in events(opened)):
                raise UnreadableError("protected by a password")
    with package.open(CONTENT) as opened:
        yield from text(opened, options)


def read_flat(file: IO[bytes], options: Options) -> Iterator[str]:
    """Yield the text of a document that is one XML file (.fodt)."""
    return text(file, options)


def text(opened: IO[bytes], options: Options) -> Iterator[str]:
    """Yield the text of a document's XML."""
    body, notes = Lines(), Lines()
    lines, tables = body, {id(body): Table(body), id(notes): Table(notes)}
    skipped, paragraphs, why = 0, 0, ""
    for kind, name, written in events(opened):
        name, start = _short(name) if kind != "text" else name, kind == "start"
        if skipped:
            skipped += start - (kind == "end")
            if kind == "text" and why:
                options.left_out[why] += len(name.strip())
        elif kind == "text":
            if paragraphs:
                lines.write_words(name)
                yield body.take()
        elif start and name in LEFT_OUT:
            skipped, why = 1, CONTENTS if name.endswith(("index", "content")) else HIDDEN if name in COMMENTS else ""
        elif name == "text:note":
            lines = notes if start else body
            lines.gap(PARAGRAPH * start)
        elif name in ("text:p", "text:h"):
            paragraphs += 1 if start else -1
            tables[id(lines)].paragraph(start=start)
            yield body.take()
        elif name in TABLES:
            tables[id(lines)].part(TABLES.index(name), start=start)
        elif start and name == "text:line-break":
            lines.line_break()
        elif start and name == "text:tab":
            lines.tab()
        elif start and name == "text:s":
            count = plain(written).get("c", "1")
            lines.write(" " * min(MOST_SPACES, int(count) if count.isdecimal() else 1))
    body.gap(PARAGRAPH)
    body.write(notes.take())
    yield body.end()


def _short(name: str) -> str:
    """Return "text:p" for a name in a namespace such as urn:oasis:names:tc:opendocument:xmlns:text:1.0."""
    namespace, _, last = name.rpartition(" ")
    return f"{namespace.split(':')[-2]}:{last}" if ":" in namespace else last
