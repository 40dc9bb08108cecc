"""A report on texts before a training: what they hold, what was left out, and likely trouble."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from chargen.config import TrainConfig
from chargen.text.documents import LeftOut, Reading, text
from chargen.text.encodings import NoTextError
from chargen.text.items import items
from chargen.text.sources import sources
from chargen.text.spool import Advance
from chargen.text.survey import LOST, Survey

RARE = 5  # a character that occurs fewer times is rare
MANY_RARE, MANY_RARE_SHARE = 20, 0.25  # characters are rare, and this share of all distinct ones
FEWEST_DEBRIS, DEBRIS_SHARE = 3, 0.5  # times; of the characters with which debris begins
FEWEST_LOST = 3  # times
WRAPPED_SHARE = 0.5  # of the lines that another one follows are wrapped
FOREIGN_SHARE, FOREIGN_CHARACTERS = 0.05, 4500  # in another language than most
REPEATED_SHARE, HEAD_SHARE, FEWEST_REPEATED = 0.1, 0.005, 20  # of the characters in all lines, in one; times
CAPITALS_SHARE, FEWEST_LETTERS = 0.8, 200
EXAMPLE = 40  # characters of a line that is shown


class Trouble(NamedTuple):
    """Something about a text that a model would learn, and what mends it."""

    what: str
    mend: str


@dataclass
class Report:
    """What texts hold."""

    survey: Survey = field(default_factory=Survey)  # of all documents
    documents: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    not_read: list[tuple[str, str]] = field(default_factory=list)  # file, and what it is
    guessed: list[tuple[str, str]] = field(default_factory=list)  # file and encoding
    wrapped: list[str] = field(default_factory=list)  # files
    languages: dict[str, str] = field(default_factory=dict)  # a file for each language
    trouble: list[Trouble] = field(default_factory=list)

    @property
    def rare(self) -> list[tuple[str, int]]:
        """The rare characters with their counts, the rarest first."""
        return sorted(((c, n) for c, n in self.survey.counts.items() if n < RARE), key=lambda one: (one[1], one[0]))

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "characters": self.survey.characters,
            "words": self.survey.words,
            "documents": self.documents,
            "distinct": len(self.survey.counts),
            "rare": dict(self.rare),
            "left_out": [one._asdict() for one in self.left_out],
            "not_read": [{"file": file, "what": what} for file, what in self.not_read],
            "guessed": [{"file": file, "encoding": encoding} for file, encoding in self.guessed],
            "trouble": [one._asdict() for one in self.trouble],
        }


def examine(paths: Sequence[str], settings: TrainConfig, advance: Advance = lambda characters: None) -> Report:
    """Read texts as for a training, and report on them.

    Memory does not grow with the texts. Raises ChargenError as `corpus.read` does for files that were named.
    """
    report, reading = Report(), Reading.of(settings)
    with sources(paths) as found:
        for source in found:
            survey = Survey()
            try:
                documents = 0 if reading.itemized else 1
                for part in items(source, reading) if reading.itemized else text(source, reading):
                    survey.add(f"{part}\n" if reading.itemized else part)
                    advance(len(part))
                    documents += reading.itemized
            except NoTextError as reason:
                if not source.found:
                    raise
                reading.forget(source.name)
                report.not_read.append((source.name, reason.what))
                continue
            survey.end()
            _add(report, source.name, survey, documents)
    report.left_out, report.guessed = reading.left_out, reading.guessed
    report.trouble += _troubles(report, settings)
    return report


def _add(report: Report, name: str, survey: Survey, documents: int) -> None:
    """Add the survey of a file with so many documents."""
    report.documents += documents
    report.survey.merge(survey)
    if survey.wrapped_share >= WRAPPED_SHARE:
        report.wrapped.append(name)
    for language in survey.languages:
        report.languages.setdefault(language, name)


def _troubles(report: Report, settings: TrainConfig) -> Iterator[Trouble]:
    yield from _encodings(report, settings)
    survey = report.survey
    if report.wrapped and not settings.unwrap:
        which = "the text is" if report.documents == 1 else f"{_files(report.wrapped, report.documents)} are"
        yield Trouble(f"{which} hard-wrapped, and a model learns where the lines end", "--unwrap joins them")
    yield from _foreign(report)
    share, most, line, times = survey.lines.repeated()
    if times > 1 and (share >= REPEATED_SHARE or (most >= HEAD_SHARE and times >= FEWEST_REPEATED)):
        example = line if len(line) <= EXAMPLE else line[:EXAMPLE].rstrip() + "…"
        what = f'{share:.1%} of the text are lines that repeat earlier ones, as "{example}", {times:,} times'
        yield Trouble(what, "remove them, or a model writes them again and again")
    cased = sum(n for c, n in survey.counts.items() if c.isupper() or c.islower())
    if cased >= FEWEST_LETTERS and survey.capitals >= CAPITALS_SHARE:
        mend = "give a text in lower case too; a seed must be in capitals"
        yield Trouble(f"{survey.capitals:.0%} of the letters are capitals", mend)
    rare = len(report.rare)
    if rare > MANY_RARE and rare >= MANY_RARE_SHARE * len(survey.counts):
        what = f"{rare:,} of {len(survey.counts):,} distinct characters occur fewer than {RARE} times"
        yield Trouble(what, f"--min-count {RARE} makes them one unknown character")


def _encodings(report: Report, settings: TrainConfig) -> Iterator[Trouble]:
    """Yield the trouble with encodings."""
    survey, encodings = report.survey, Counter(encoding for _, encoding in report.guessed)
    debris = survey.debris.total()
    if debris >= FEWEST_DEBRIS and debris >= DEBRIS_SHARE * survey.leads:
        frequent = " ".join(part for part, _ in survey.debris.most_common(3))
        mend = "save the text again as UTF-8, or mend it with ftfy (pip install ftfy)"
        if settings.encoding not in (None, "utf-8"):
            mend = f"leave out --encoding {settings.encoding}"
        yield Trouble(f"the debris of a wrong encoding, {debris:,} times: {frequent}", mend)
    if (lost := survey.counts[LOST]) >= FEWEST_LOST:
        yield Trouble(f"{lost:,} characters were lost ({LOST}) when the text was saved", "find a better copy")
    controls = sum(n for c, n in survey.counts.items() if "\x80" <= c <= "\x9f")
    if controls >= FEWEST_DEBRIS and not debris:
        mend = "--encoding cp1252" if settings.encoding in ("iso8859-1", "latin-1") else "save the text again as UTF-8"
        yield Trouble(f"{controls:,} control characters (U+0080 to U+009F), which quotes may have been", mend)
    if encodings and len(report.guessed) < report.documents:
        counts = ", ".join(f"{n:,} as {encoding}" for encoding, n in encodings.items())
        yield Trouble(f"several encodings: not UTF-8, and read by a guess, {counts}", "if it is wrong, --encoding")


def _foreign(report: Report) -> Iterator[Trouble]:
    """Yield the languages beside that of most of the text."""
    languages = report.survey.languages
    (most, _), *others = languages.most_common() or [("", 0)]
    for other, characters in others:
        share = characters / languages.total()
        if share >= FOREIGN_SHARE and characters >= FOREIGN_CHARACTERS:
            where = f", as in {report.languages[other]}" if report.documents > 1 else ""
            yield Trouble(f"{share:.0%} is {other}, most is {most}{where}", "give texts in one language")


def _files(names: Sequence[str], documents: int) -> str:
    """Return how many of the documents these are, with an example."""
    every = "all" if len(names) == documents else f"{len(names):,} of"
    return f"{every} {documents:,} documents, as {names[0]},"
