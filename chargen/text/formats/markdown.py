"""The text of Markdown (CommonMark, with the tables and notes of its dialects) without its marks, line by line.

Lines stay as they are wrapped. What stands in fences or is indented by four spaces is code, and stays as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from html import unescape
from itertools import chain
from typing import IO

from chargen.text.encodings import decoded
from chargen.text.formats.limits import BLOCK_BYTES
from chargen.text.formats.options import MARKS, Options
from chargen.text.unwrap import unwrapped

LONGEST_LINE = 1 << 16  # characters of a line whose marks are left out

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^`]*)$")
_RULE = re.compile(r" {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,}|=+[ \t]*|-+[ \t]*)$")
_TABLE_RULE = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
_BEGINNING = re.compile(r"[ \t]*(?:>[ \t]?)*")
_ITEM = re.compile(r"([ \t]*)(?:[-*+]|\d{1,9}[.)])(?:[ \t]+(?:\[[ xX]\][ \t]+)?|$)")
_HEADING = re.compile(r" {0,3}#{1,6}(?:[ \t]+|$)")
_HEADING_END = re.compile(r"[ \t]+#+[ \t]*$|[ \t]*\{[#.][^{}]*\}[ \t]*$")
_DEFINITION = re.compile(r" {0,3}\[[^\]\[]+\]:[ \t]*\S+.*$")
_NOTE = re.compile(r" {0,3}\[\^[^\]\[]+\]:[ \t]*")
_CODE = re.compile(r"(?<!`)(`++)([^`]++)\1(?!`)")
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
_HIDDEN = re.compile(r"[\ue000-\uf8ff]")
# Pictures, notes, links with an address, and addresses in angle brackets. None of them may hold the next of its kind.
_INLINE = (
    (re.compile(r"<!--.*?-->"), ""),
    (re.compile(r"!\[[^\[\]]*\](?:\([^()\s]*(?:\([^()\s]*\)[^()\s]*)?(?:\s+[^()]*)?\)|\[[^\[\]]*\])"), ""),
    (re.compile(r"\[\^[^\[\]\s]+\]"), ""),
    (re.compile(r"\[([^\[\]]*)\]\(<?[^()\s<>]*(?:\([^()\s]*\)[^()\s]*)?>?(?:\s+[^()]*)?\)"), r"\1"),
    (re.compile(r"\[([^\[\]]+)\]\[[^\[\]]*\]"), r"\1"),
    (re.compile(r"<((?:https?|mailto|ftp):[^\s<>]*|[^\s<>@]+@[^\s<>@]+)>"), r"\1"),
    (re.compile(r"</?[A-Za-z][^<>]*>"), ""),
    (re.compile(r"(\*{1,3})(?=[^\s*])([^*]*[^\s*])\1"), r"\2"),
    (re.compile(r"(\*{1,2})(?=[^\s*])([^*]*[^\s*])\1"), r"\2"),
    (re.compile(r"(?<!\w)(_{1,3})(?=[^\s_])((?:[^_]|\b_\b|(?<=\w)_(?=\w))*[^\s_])\1(?!\w)"), r"\2"),
    (re.compile(r"~~(?=\S)([^~]*\S)~~"), r"\1"),
)


def read(file: IO[bytes], options: Options) -> Iterator[str]:
    """Yield the text. Raises NoTextError as `decoded` does."""
    blocks = iter(partial(file.read, BLOCK_BYTES), b"")
    pieces = decoded(blocks, options.name, options.encoding, "--encoding", options.guessed)
    yield from text(unwrapped(pieces) if options.unwrap else pieces, options.left_out)


def text(pieces: Iterable[str], left_out: Counter[str] | None = None) -> Iterator[str]:
    """Yield the text of a file, given in pieces; count the characters of its marks."""
    read = kept = 0

    def counted() -> Iterator[str]:
        nonlocal read
        for piece in pieces:
            read += len(piece)
            yield piece

    for part in _text(counted()):
        kept += len(part)
        yield part
    if left_out is not None:
        left_out[MARKS] += read - kept


def _text(pieces: Iterable[str]) -> Iterator[str]:
    fence, blank, comment, first, front = "", True, False, True, False
    for line in _lines(pieces):
        ended = line.endswith("\n")
        line = line.removesuffix("\n")
        if first and line.rstrip() == "---":
            front, first = True, False
            continue
        first = False
        if front:  # YAML before the text
            front = line.rstrip() not in ("---", "...")
            continue
        inner = line[_BEGINNING.match(line).end() :] if not fence and line.lstrip().startswith(">") else line  # type: ignore[union-attr]
        opened = _FENCE.match(inner)
        if fence:
            if opened and opened[1].startswith(fence) and not opened[2].strip():
                fence = ""
            else:
                yield line + "\n" * ended
            continue
        if opened:
            fence = opened[1]
            continue
        if comment or (inner.lstrip().startswith("<!--") and "-->" not in inner):
            comment = "-->" not in inner
            continue
        code = blank and inner.startswith(("    ", "\t")) and not _ITEM.match(inner)
        kept = inner if code else without_marks(inner)
        if kept.strip() or not inner.strip():
            yield kept + "\n" * ended
        blank = not inner.strip() or (blank and code)


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    """Yield lines with their ends, long ones in parts."""
    held = ""
    for piece in chain(pieces, [""]):
        lines = (held + piece).split("\n")
        held = lines.pop()
        yield from (line + "\n" for line in lines)
        if held and (not piece or len(held) > LONGEST_LINE):
            yield held
            held = ""


def without_marks(line: str) -> str:
    """Return a line without Markdown's marks."""
    if _RULE.match(line) or (_DEFINITION.match(line) and not _NOTE.match(line)):
        return ""
    if "|" in line:
        if _TABLE_RULE.match(line):
            return ""
        if line.lstrip().startswith("|"):
            line = "\t".join(cell.strip() for cell in line.strip().strip("|").split("|"))
    heading = _HEADING.match(line)
    if heading:
        line = _HEADING_END.sub("", line[heading.end() :])
    elif note := _NOTE.match(line):
        line = line[note.end() :]
    elif item := _ITEM.match(line):
        line = item[1] + line[item.end() :]
    if len(line) > LONGEST_LINE or not any(c in line for c in "*_`[]<>~\\&"):
        return line
    return _inline(line)


def _inline(line: str) -> str:
    """Return a line without marks inside it. Code and escaped characters are taken out, and put back at the end."""
    hidden: list[str] = []

    def hide(text: str) -> str:
        hidden.append(text)
        return chr(0xE000 + len(hidden) - 1) if len(hidden) <= 0x1900 else text

    line = _HIDDEN.sub(lambda found: hide(found[0]), line)
    line = _CODE.sub(lambda found: hide(found[2].strip() or found[2]), line)
    line = _ESCAPED.sub(lambda found: hide(found[1]), line)
    for expression, kept in _INLINE:
        line = expression.sub(kept, line)
    line = unescape(line).removesuffix("\\")
    return _HIDDEN.sub(
        lambda found: hidden[ord(found[0]) - 0xE000] if ord(found[0]) - 0xE000 < len(hidden) else "", line
    )
