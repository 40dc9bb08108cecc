"""Text as readers of marked-up documents write it: words in lines, lines in paragraphs, a blank line between them."""

from __future__ import annotations

import re

LINE, PARAGRAPH = 1, 2  # line feeds before what follows
SOFT_HYPHEN = "\u00ad"  # where a word may be divided; a mark for printers

_SPACES = re.compile(r"[ \t\n\r\f]+")


class Lines:
    """A text that is being written. Gaps at its beginning are dropped, and two gaps are the larger of them."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._gap, self._space, self._tab, self._started = 0, False, False, False

    def gap(self, newlines: int) -> None:
        """Begin a new line (LINE) or paragraph (PARAGRAPH), unless nothing has been written since the last."""
        self._gap, self._space, self._tab = max(self._gap, newlines), False, False

    def line_break(self) -> None:
        """End the line; a second time, leave one blank."""
        self.gap(min(PARAGRAPH, self._gap + 1))

    def tab(self) -> None:
        """Write a tab, unless the line begins or ends here."""
        self._tab, self._space = not self._gap, False

    def write(self, text: str) -> int:
        """Append a text as it is, without soft hyphens; return its length."""
        text = text.replace(SOFT_HYPHEN, "")
        if text:
            self._parts += ["\n" * self._gap * self._started, "\t" * self._tab, " " * (self._space and not self._gap)]
            self._parts.append(text)
            self._gap, self._space, self._tab, self._started = 0, False, False, True
        return len(text)

    def write_words(self, text: str) -> int:
        """Append a text with single spaces between its words, and none where a line begins or ends."""
        text = _SPACES.sub(" ", text)
        words = text.strip(" ")
        self._space |= text.startswith(" ") and self._started and not self._gap and not self._tab
        length = self.write(words) if words else 0
        self._space |= text.endswith(" ") and self._started and not self._gap and not self._tab
        return length

    def take(self) -> str:
        """Return what was written since the last time."""
        text = "".join(self._parts)
        self._parts.clear()
        return text

    def end(self) -> str:
        """Return the rest, with the last line's end."""
        return self.take() + "\n" * self._started


class Table:
    """The lines of tables: a row is a line, a tab stands between its cells, and paragraphs are those of a cell."""

    def __init__(self, lines: Lines) -> None:
        self._lines, self._cells, self._first = lines, 0, False

    def part(self, level: int, *, start: bool) -> None:
        """Begin or end a table (level 0), a row (1) or a cell (2)."""
        if level < 2:
            self._lines.gap(LINE if level else PARAGRAPH)
        else:
            self._cells, self._first = max(0, self._cells + (1 if start else -1)), start
            self._lines.tab()

    def paragraph(self, *, start: bool) -> None:
        """Begin or end a paragraph, perhaps in a cell."""
        if not self._cells:
            self._lines.gap(PARAGRAPH)
        elif start:
            if not self._first:
                self._lines.gap(LINE)
            self._first = False
