"""``chargen lab``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

from chargen import ChargenError
from chargen.commands.common import Command, Encoding, Whole, quiet, refuse_output, say
from chargen.lab import LESSONS
from chargen.terminal import width

if TYPE_CHECKING:
    from chargen.lab import Answer, Setting

ALL = "all"
PAGE = "index.html"
TITLE_WIDTH = 12  # least width of a title that is wrapped, in columns


@click.command(
    cls=Command,
    short_help="Answer a question about stateful LSTMs by an experiment.",
    epilog="""
    chargen lab                                   a list of the lessons
    chargen lab stateful
    chargen lab author --texts poe.txt --texts austen.txt --output mine
    chargen lab all --output lessons              a page with all of them
    """,
)
@click.argument("name", required=False, type=click.Choice([*LESSONS, ALL]), metavar="[LESSON|all]")
@click.option("--text", type=click.Path(exists=True), help="Text to learn from. [default: the bundled book]")
@click.option(
    "--texts",
    multiple=True,
    type=click.Path(exists=True),
    help="Text of one author, for the lesson author; give one for each. [default: three bundled texts]",
)
@click.option("--encoding", type=Encoding(), help="Encoding of the texts; by default UTF-8 or a guess.")
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), help=f"Folder for a page with pictures, {PAGE}."
)
@click.option(
    "--quick",
    is_flag=True,
    help="Shrink the experiments to seconds; with other texts or random seeds, conclusions may not hold.",
)
@click.option(
    "--random-seed",
    type=Whole(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="Seed of the random generators.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the results as a JSON list.")
def lab(name: str | None, output: Path | None, as_json: bool, **values: Any) -> None:
    """Answer a question about stateful LSTMs by an experiment of a minute or two.

    Without LESSON, list the lessons and their questions. The conclusions are computed from the numbers of the
    experiment. The exit code is 1 if one of them is not as expected.
    """
    if name is None:
        longest = max(map(len, LESSONS))
        say("\n".join(f"{lesson:{longest}}  {question}" for lesson, question in LESSONS.items()), indent=longest + 2)
        return
    if output is not None:
        check_output(output / PAGE)
    setting = read_setting(**values)
    answers: dict[str, Answer] = {}
    records: list[dict[str, Any]] = []
    for lesson in LESSONS if name == ALL else [name]:
        if sys.stderr.isatty():
            say(f"running {lesson} ...", err=True)
        began = time.monotonic()
        with quiet():
            from chargen.lab import lesson as load

            answers[lesson] = load(lesson).answer(setting)
        seconds = time.monotonic() - began
        records.append(record(lesson, answers[lesson], seconds))
        if not as_json:
            show(lesson, load(lesson).EXPECT, answers[lesson], seconds)
    if as_json:
        click.echo(json.dumps(records))
    if output is not None:
        write_page(output, answers, values["text"], setting)
    other = [lesson for lesson, answer in answers.items() if not all(one.holds for one in answer.conclusions)]
    if other:
        raise ChargenError(f"not as expected: {', '.join(other)}")


def check_output(path: Path) -> None:
    """Raise ChargenError if the page can't be written, before the experiments run."""
    from chargen.files.disk import made, temporary
    from chargen.plot import figure

    figure(1, 1)
    try:
        with made(path.parent), temporary(path.parent):
            refuse_output(path)
    except OSError as error:
        raise ChargenError(f"{path.parent} can't be written: {error.strerror}; name another folder") from None


def read_setting(
    text: str | None, texts: tuple[str, ...], encoding: str | None, random_seed: int, quick: bool
) -> Setting:
    """Return the texts and the options of the experiments."""
    from chargen.config import TrainConfig
    from chargen.lab import Setting
    from chargen.text import corpus

    def characters(*paths: str) -> str:
        read = corpus.read(paths, TrainConfig(encoding=encoding))
        return read.vocabulary.decode(read.ids)

    voices = {Path(path).stem: characters(path) for path in texts} or corpus.voices()
    if texts and len(voices) < 2:
        raise ChargenError("--texts needs two or more texts with different names: give it for each")
    return Setting(characters(*([text] if text else [])), voices, random_seed, quick)


def show(name: str, expect: str, answer: Answer, seconds: float) -> None:
    """Write a lesson: question, expected result, tables, conclusions."""
    from chargen.lab.page import number

    say(f"\n{name}: {LESSONS[name]}\n")
    say(f"What to expect: {' '.join(expect.split())}", indent=0)
    for table in answer.tables:
        say()
        for line in lines_of(
            table.columns, [[number(value) for value in row] for row in table.rows], width(sys.stdout)
        ):
            say(line)
    say()
    for one in answer.conclusions:
        say(f"{'->' if one.holds else '!!'} {one.text}", indent=3)
    say(f"({seconds:.0f} seconds)")


def lines_of(titles: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> list[str]:
    """Return a table's lines. Titles are wrapped if the lines are wider than ``room`` columns; 0 means no limit."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, (title, *column))) for title, column in zip(titles, columns, strict=True)]
    heads: list[list[str]] = [[title] for title in titles]
    if room and sum(widths) + 2 * (len(widths) - 1) > room:
        heads = [
            wrap(title, max(TITLE_WIDTH, *map(len, column))) for title, column in zip(titles, columns, strict=True)
        ]
        widths = [max(map(len, (*head, *column))) for head, column in zip(heads, columns, strict=True)]
    lines = [*zip_longest(*heads, fillvalue=""), *rows]
    return ["  ".join(cell.ljust(size) for cell, size in zip(line, widths, strict=True)).rstrip() for line in lines]


def record(name: str, answer: Answer, seconds: float) -> dict[str, Any]:
    """Return a lesson as a JSON object."""
    return {
        "lesson": name,
        "question": LESSONS[name],
        "conclusions": [one._asdict() for one in answer.conclusions],
        "tables": [table._asdict() for table in answer.tables],
        "seconds": round(seconds, 1),
    }


def write_page(folder: Path, answers: dict[str, Answer], text: str | None, setting: Setting) -> None:
    """Write the page."""
    from chargen.files.disk import made, write_beside
    from chargen.lab.page import page

    source = f"From {Path(text).name if text else 'the bundled book'}, random seed {setting.random_seed}"
    data = page(answers, f"{source}{', quick' if setting.quick else ''}.").encode("utf-8", "replace")
    with made(folder):
        write_beside(folder / PAGE, data, new=True)
    say(f"{folder / PAGE} written", err=True)
