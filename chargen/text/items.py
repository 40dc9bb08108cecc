"""What of a file is a document: the file, or its lines, paragraphs or rows, which end with a character of their own."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain

from chargen import ChargenError
from chargen.text.documents import Reading, guesses, text
from chargen.text.encodings import NoTextError
from chargen.text.sources import Source, sources
from chargen.text.vocabulary import END

BLOCK = 1 << 14  # characters of short documents that are passed on together
DELIMITERS = ",;\t"
LONGEST_CELL = 2**27  # characters; the csv module's own limit is 131,072
NAMED_COLUMNS = 8  # that a message lists, at most


def items(source: Source, reading: Reading) -> Iterator[str]:
    """Yield the documents in a file: its lines, paragraphs, or the cells of a column, as ``reading`` says.

    Blank ones, blank lines around paragraphs, and spaces at the end of a document are left out. Raises the errors of
    `documents.text`; and NoTextError for a file that has no such column, is not what its first line says, has nothing
    but blank documents, or contains END.
    """
    lines = _lines(text(source, reading))
    if reading.column is not None:
        found = _cells(lines, source.name, reading)
    else:
        found = lines if reading.document == "line" else _paragraphs(lines)
    empty = True
    for item in filter(None, map(str.rstrip, found)):
        if END in item:
            what = "a text with the character U+FFFF, which stands for the end of a document"
            raise NoTextError(what, f"{source.name} is {what}: remove it")
        empty = False
        yield item
    if empty:
        raise NoTextError("without documents", f"{source.name} has nothing but blank documents")


def documents(paths: Sequence[str], reading: Reading) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the name and the text of each file that ``paths`` name, and notes on files that are not texts.

    A text of several documents has END before and after each. Raises ChargenError as `corpus.read` does.
    """
    found, notes = list[tuple[str, str]](), list[str]()
    with sources(paths) as files:
        for source in files:
            try:
                if reading.itemized:
                    found.append((source.name, "".join(block for block, _ in blocks(source, reading)) + END))
                else:
                    found.append((source.name, "".join(text(source, reading))))
            except NoTextError as reason:
                if not source.found:
                    raise
                notes.append(f"{source.name} is {reason.what}: left out")
    notes += [guesses(reading.guessed)] if reading.guessed else []
    if not found:
        raise ChargenError(f"{paths[0]} holds no text files: name a folder with text in it, or the files themselves")
    return found, notes


def blocks(source: Source, reading: Reading) -> Iterator[tuple[str, list[int]]]:
    """Yield the `items` of a file in blocks, END before each, and the places of these in each block."""
    block, places, size = list[str](), list[int](), 0
    for item in items(source, reading):
        places.append(size)
        block += (END, item)
        size += 1 + len(item)
        if size >= BLOCK:
            yield "".join(block), places
            block, places, size = [], [], 0
    if block:
        yield "".join(block), places


def _lines(parts: Iterator[str]) -> Iterator[str]:
    """Yield the lines of a text that is given in parts, without their line feeds."""
    held = list[str]()
    for part in parts:
        first, *more = part.split("\n")
        held.append(first)
        if more:
            yield "".join(held)
            yield from more[:-1]
            held = more[-1:]
    yield "".join(held)


def _paragraphs(lines: Iterator[str]) -> Iterator[str]:
    """Yield the paragraphs: what is between blank lines."""
    held = list[str]()
    for line in chain(lines, [""]):
        if line.strip():
            held.append(line)
        elif held:
            yield "\n".join(held)
            held = []


def _cells(lines: Iterator[str], file: str, reading: Reading) -> Iterator[str]:
    """Yield the cells of a column. A first line that begins with ``{`` is of JSON lines, any other heads a table."""
    first = next((line for line in lines if line.strip()), "")
    rows = _objects if first.lstrip()[:1] in ("{", "[") else _table
    for cell in rows(chain([first], lines), file, reading.column or ""):
        plain = cell.replace("\r\n", "\n").replace("\r", "\n").strip("\n")
        yield plain if reading.normalize == "none" else unicodedata.normalize("NFC", plain)


def _table(lines: Iterator[str], file: str, column: str) -> Iterator[str]:
    """Yield the cells of a column of CSV or TSV, whose first row has the names of the columns."""
    first = next(lines)
    delimiter = max(DELIMITERS, key=first.count)
    csv.field_size_limit(LONGEST_CELL)
    rows = csv.reader((line + "\n" for line in chain([first], lines)), delimiter=delimiter)
    try:
        names = next(rows)
        if column not in names:
            raise _no_column(file, column, names)
        place = names.index(column)
        yield from (row[place] for row in rows if len(row) > place)
    except csv.Error as error:
        what = "no table of comma- or tab-separated values"
        raise NoTextError(what, f"{file} is {what}: line {rows.line_num:,}: {error}") from None


def _objects(lines: Iterator[str], file: str, column: str) -> Iterator[str]:
    """Yield a field of each object in JSON lines. A field that is missing or null is left out."""
    found, names = False, list[str]()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            what = "no JSON lines"
            raise NoTextError(what, f"{file} is {what}: line {number:,} is not a JSON object")
        names = names or list(row)
        found |= column in row
        value = row.get(column)
        if value is not None:
            cell = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield cell.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # "\ud800" is valid JSON
    if not found:
        raise _no_column(file, column, names)


def _no_column(file: str, column: str, names: list[str]) -> NoTextError:
    listed = ", ".join(names[:NAMED_COLUMNS]) + ", ..." * (len(names) > NAMED_COLUMNS)
    return NoTextError(f"without a column {column}", f"{file} has no column {column}: it has {listed}")
