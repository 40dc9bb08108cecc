"""What there is to know of a text before a training: counts, and signs of likely trouble.

A text is looked at in windows, and of a long one only some windows for signs, so that memory does not grow with it.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from dataclasses import dataclass, field

from chargen.text.languages import language
from chargen.text.unwrap import wrapped_lines

WINDOW = 1 << 16  # characters that are looked at together
ALL_WINDOWS, EVERY_WINDOW = 64, 16  # all of so many first windows are searched for signs, then one of so many
PASSAGE = 1500  # characters whose language is recognised
LONG_LINE = 20  # characters, half as many letters; speakers' names, rules and short refrains have fewer
MOST_LINES = 50_000  # that are remembered; then only every second one is, by its checksum, and so on

# UTF-8 that was read as cp1252 or latin-1, Mac Roman, or cp437: two or three characters for each one. `_LEADS` are the
# first characters of those; texts in which they are letters have most of them in other places.
_LEADS = re.compile(r"[Â-ôΓ‚√]")
_HIGH = "\u0080-¿€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_DEBRIS = re.compile(
    rf"[Â-ß][{_HIGH}](?![{_HIGH}])|[à-ï][{_HIGH}]{{2}}|[ð-ô][{_HIGH}]{{3}}|‚Ä[\w°-ÿ≠∞±≤≥¥µ∂∑∏π∫ªºΩ¨]|√[©®±≠º¶§ß∂]|ΓÇ[ÖÿªôöÜ£¥]"
)
LOST = "\ufffd"  # stands for a character that was lost


class Lines:
    """The long lines of a text, with how often each occurs, of a sample of them if there are many."""

    def __init__(self) -> None:
        self._counts = Counter[str]()
        self._share = 1  # one of so many lines is remembered

    def add(self, line: str, times: int = 1) -> None:
        """Count a line."""
        if self._remembered(line):
            self._counts[line] += times
            while len(self._counts) > MOST_LINES:
                self._share *= 2
                self._counts = Counter({k: n for k, n in self._counts.items() if self._remembered(k)})

    def _remembered(self, line: str) -> bool:
        return self._share == 1 or zlib.crc32(line.encode("utf-8", "replace")) % self._share == 0

    def merge(self, other: Lines) -> None:
        """Add the lines of another text."""
        self._share = max(self._share, other._share)
        for line, times in other._counts.items():
            self.add(line, times)

    def repeated(self) -> tuple[float, float, str, int]:
        """Return which shares of the lines' characters repeat an earlier line, and the line that does it most.

        Returns the share of all lines, that line's, the line, and how often it occurs.
        """
        characters = max(1, sum(len(line) * n for line, n in self._counts.items()))
        again = {line: len(line) * (n - 1) for line, n in self._counts.items()}
        line = max(again, key=lambda one: again[one], default="")
        return sum(again.values()) / characters, again.get(line, 0) / characters, line, self._counts[line]


@dataclass
class Survey:
    """What was counted in a document, or in several."""

    words: int = 0  # separated by white space
    counts: Counter[str] = field(default_factory=Counter)  # of characters
    debris: Counter[str] = field(default_factory=Counter)
    leads: int = 0  # characters with which debris could begin
    wrapped: int = 0  # lines
    followed: int = 0  # lines that another one follows
    languages: Counter[str] = field(default_factory=Counter)  # characters, of the passages whose language is known
    lines: Lines = field(default_factory=Lines)
    _held: str = ""
    _windows: int = 0

    @property
    def characters(self) -> int:
        """The number of characters."""
        return self.counts.total()

    @property
    def wrapped_share(self) -> float:
        """The share of the lines that another one follows that are hard-wrapped."""
        return self.wrapped / max(1, self.followed)

    @property
    def capitals(self) -> float:
        """The share of capitals among the letters that have both cases."""
        upper, lower = (sum(n for c, n in self.counts.items() if case(c)) for case in (str.isupper, str.islower))
        return upper / max(1, upper + lower)

    def add(self, part: str) -> None:
        """Add the next part of a document."""
        self.counts.update(part)
        self._held += part
        while len(self._held) > WINDOW:
            cut = max(self._held.rfind("\n", 0, WINDOW), self._held.rfind(" ", WINDOW // 2, WINDOW)) + 1 or WINDOW
            self._look_at(self._held[:cut])
            self._held = self._held[cut:]

    def end(self) -> None:
        """End the document."""
        self._look_at(self._held)
        self._held = ""

    def merge(self, other: Survey) -> None:
        """Add another survey."""
        self.words += other.words
        self.leads += other.leads
        self.wrapped += other.wrapped
        self.followed += other.followed
        for mine, theirs in zip(self._counters(), other._counters(), strict=True):
            mine.update(theirs)
        self.lines.merge(other.lines)

    def _counters(self) -> tuple[Counter[str], ...]:
        return self.counts, self.debris, self.languages

    def _look_at(self, window: str) -> None:
        self.words += len(window.split())
        self._windows += 1
        if self._windows > ALL_WINDOWS and self._windows % EVERY_WINDOW:
            return
        if not window.isascii():
            self.debris.update(_DEBRIS.findall(window))
            self.leads += len(_LEADS.findall(window))
        wrapped, followed = wrapped_lines(window)
        self.wrapped += wrapped
        self.followed += followed
        for line in window.split("\n"):
            if len(line) >= LONG_LINE and sum(map(str.isalpha, line)) >= LONG_LINE // 2:
                self.lines.add(line.strip())
        for place in range(0, len(window), PASSAGE):
            passage = window[place : place + PASSAGE]
            if found := language(passage):
                self.languages[found] += len(passage)
