"""``chargen text``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chargen.commands.common import Command, Texts, options, refuse_output, say
from chargen.config import TrainConfig

if TYPE_CHECKING:
    from chargen.text.corpus import Corpus
    from chargen.text.report import Report, Trouble

# What decides which text a training reads.
READING = (
    "encoding",
    "keep_boilerplate",
    "keep_markup",
    "min_count",
    "unwrap",
    "normalize",
    "document",
    "column",
    "cache",
)
BLOCK = 1 << 16  # characters that are written at a time
MOST_PASSES = 100  # over a text in the time of a training; more are wasted on it
LESS_TIME = 0.8  # of the time that is too much is tried next
MOST_ROWS = 8  # of what was left out, or not read
MOST_RARE = 24  # characters that are listed
INDENT = 11  # columns of the titles in the report


@click.command(
    cls=Command,
    short_help="Show what a training would read, or report on it.",
    groups={"Text": "", "Output": "output report minutes as_json", "Where it is kept": ""},
    epilog="""
    chargen text book.epub | less
    chargen text letters/ --output letters.txt
    chargen text 'library/**/*.epub' --report
    chargen text book.txt --unwrap --report --minutes 60
    """,
)
@click.argument("files", nargs=-1, type=Texts())
@options(TrainConfig, only=READING)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the text to this new file.")
@click.option("--report", "reported", is_flag=True, help="Report on the text instead of showing it.")
@options(TrainConfig, only=("minutes",))
@click.option("--json", "as_json", is_flag=True, help="Write the report as a JSON object.")
def text(files: tuple[str, ...], **values: Any) -> None:
    """Show the text that chargen train would read of FILES, which it names in the same way.

    With --report, count its characters, words and documents instead, and tell what was left out and what is likely to
    be trouble, each with the option that mends it.
    """
    output, reported = values["output"], values["reported"] or values["as_json"]
    if values["column"] is not None and values["document"] != "file":
        raise click.UsageError("--column makes each row a text of its own: it does not go with --document")
    if output is not None and reported:
        raise click.UsageError("--output is for the text: it does not go with --report or --json")
    if output is not None:
        refuse_output(output)
    given = {name: values[name] for name in ("minutes", *READING) if values[name] is not None}
    settings = TrainConfig(**given)
    if reported:
        show_report(files, settings, as_json=values["as_json"])
    else:
        show_text(files, settings, output)


def show_text(files: tuple[str, ...], settings: TrainConfig, output: Path | None) -> None:
    """Write the text to standard output or to a new file, and the notes on it to standard error."""
    from chargen.commands.screen import reading
    from chargen.files.disk import temporary, write_beside
    from chargen.terminal import shown
    from chargen.text.corpus import cache_folder, read

    with ExitStack() as stack:
        cache = cache_folder(settings) or stack.enter_context(temporary())
        with reading() as advance:
            corpus = read(files, settings, cache=cache, advance=advance)
        for note in corpus.notes:
            say(note, err=True)
        if output is None:
            for part in parts(corpus):
                click.echo(shown(part, sys.stdout), nl=False, color=True)
        else:
            write_beside(output, (part.encode() for part in parts(corpus)), new=True)
            say(f"{output} written: {len(corpus.ids):,} characters", err=True)


def parts(corpus: Corpus) -> Iterator[str]:
    """Yield the text of a corpus, a block at a time, with line feeds or blank lines between short documents."""
    from chargen.text.vocabulary import END

    ids = corpus.ids[1:-1] if corpus.itemized else corpus.ids
    for place in range(0, len(ids), BLOCK):
        part = corpus.vocabulary.decode(ids[place : place + BLOCK])
        yield part.replace(END, corpus.vocabulary.separator) if corpus.itemized else part
    if corpus.itemized:
        yield "\n"


def show_report(files: tuple[str, ...], settings: TrainConfig, *, as_json: bool) -> None:
    """Read the text and report on it."""
    from chargen.commands.screen import reading
    from chargen.text.report import examine

    with reading() as advance:
        report = examine(files, settings, advance)
    report.trouble += too_little(report, settings)
    if as_json:
        click.echo(json.dumps(report.to_json()))
        return
    for title, line in rows(report):
        say(f"{title:{INDENT}}{line}", indent=INDENT)


def too_little(report: Report, settings: TrainConfig) -> Iterator[Trouble]:
    """Yield the trouble of a text that is read too often in the time of a training, estimated on this machine."""
    from chargen.text.report import Trouble
    from chargen.training.plan import DEFAULT_MINUTES, passes, training_speed

    def times(minutes: float) -> float:
        return passes(report.survey.characters, len(report.survey.counts), replace(settings, minutes=minutes), speed)

    speed, given = training_speed(settings), settings.minutes or DEFAULT_MINUTES
    enough = given
    while times(enough) > MOST_PASSES:
        enough = float(f"{enough * LESS_TIME:.2g}")
    if enough < given:
        yield Trouble(
            f"too little text for {given:g} minutes, in which a training reads it about {times(given):,.0f} times",
            f"--minutes {enough:g} is enough, or give more text",
        )


def rows(report: Report) -> Iterator[tuple[str, str]]:
    """Yield the lines of the report, each with its title."""
    from chargen.text.documents import GUTENBERG, guesses
    from chargen.text.formats.options import IMPRINTS, MARKS

    survey, rare = report.survey, report.rare
    yield "characters", f"{survey.characters:,}, {len(survey.counts):,} distinct"
    yield "words", f"{survey.words:,}"
    yield "documents", f"{report.documents:,}"
    listed = ", ".join(f"{visible(c)} {n}" for c, n in rare[:MOST_RARE])
    if rare:
        more = f" and {len(rare) - MOST_RARE:,} more" if len(rare) > MOST_RARE else ""
        yield "rare", f"{listed}{more} (fewer than 5 times; see --min-count)"
    if report.guessed:
        yield "encoding", guesses(report.guessed)
    kept_by = {GUTENBERG: "--keep-boilerplate", IMPRINTS: "--keep-boilerplate", MARKS: "--keep-markup"}
    yield from limited(
        "left out",
        [
            f"{one.what}, {one.characters:,} characters of {one.file}"
            + (f" ({kept_by[one.what]} keeps them)" if one.what in kept_by else "")
            for one in sorted(report.left_out, key=lambda one: -one.characters)
        ],
    )
    yield from limited("not read", [f"{file}: {what}" for file, what in report.not_read])
    yield from (("trouble", f"{one.what}: {one.mend}") for one in report.trouble)
    if not report.trouble:
        yield "trouble", "none found"


def limited(title: str, lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the first lines under a title, and how many there are more."""
    yield from ((title if n == 0 else "", line) for n, line in enumerate(lines[:MOST_ROWS]))
    if len(lines) > MOST_ROWS:
        yield "", f"and {len(lines) - MOST_ROWS:,} more (--json lists all)"


def visible(character: str) -> str:
    """Return a character, with its code point if it cannot be seen."""
    return character if character.isprintable() and not character.isspace() else f"U+{ord(character):04X}"
