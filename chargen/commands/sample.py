"""``chargen sample``."""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import click
from click.core import ParameterSource

from chargen import ChargenError, process
from chargen.config import SampleConfig
from chargen.machine import blas_threads

if TYPE_CHECKING:
    import numpy as np

    from chargen.text.vocabulary import Vocabulary
    from chargen.writing.clone import Clone
    from chargen.writing.generate import Drawing, Piece
    from chargen.writing.originality import Book
    from chargen.writing.pattern import Pattern
    from chargen.writing.showing import JsonLines, Plain

from chargen.commands.common import (
    Command,
    Stop,
    Whole,
    configured,
    option_names,
    options,
    read_file,
    refuse_output,
    run_of,
    say,
)

INTERACTIVE_LENGTH = 200  # characters of a turn by default
BOOK_SEED = 100  # characters of a seed from the book
ESCAPES = r"\n, \t, \\, \xXX, \uXXXX and \UXXXXXXXX"
EXCLUDING = {  # an option, and those that it can't be combined with; options named by their parameters
    "seed": {"seed_file", "seed_from_book"},
    "seed_file": {"seed_from_book"},
    # A pattern is scored with all of the model's probabilities: only these two options apply to it.
    "pattern": {f.name for f in fields(SampleConfig)} - {"temperature", "random_seed"} | {"stops", "until_newline"},
    "items": {"pattern", "count", "stops", "until_newline", "seed_from_book", "best_of", "save_state", "load_state"},
    "as_json": {"color", "no_seed"},
    "interactive": {"items", "pattern", "count", "output", "stops", "until_newline", "originality", "save_state"}
    | {"as_json", "color", "no_seed"},
}


@click.command(
    cls=Command,
    short_help="Write text with a trained model.",
    groups={
        "What is continued": "model seed seed_file seed_from_book load_state escapes",
        "Length": "stops until_newline count items new",
        "Drawing": "",
        "Pattern": "pattern separator",
        "Output": "no_seed color as_json output originality save_state interactive",
    },
    epilog="""
    chargen sample --seed "The"
    chargen sample --model runs/book --length 5000 --temperature 0.5 > text.txt
    chargen sample --seed "Once" --count 8 --stop "." --json
    chargen sample --seed-from-book --words book --best-of 4 --color --originality
    chargen sample --items 20 --new --temperature 1
    chargen sample --pattern words.txt --temperature 0
    chargen sample --save-state one.state > 1.txt
    chargen sample --load-state one.state > 2.txt
    chargen sample --interactive
    """,
)
@click.option(
    "--model", type=click.Path(exists=True, path_type=Path), help="A run or a model file. [default: the newest run]"
)
@click.option("--seed", help="The text to continue.")
@click.option(
    "--seed-file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="A file with the text to continue; - is standard input.",
)
@click.option("--seed-from-book", is_flag=True, help="Continue a random passage of the book.")
@click.option("-e", "--escapes", is_flag=True, help=r"Read \n, \t, \\, \xXX, \uXXXX in --seed, --stop and --separator.")
@options(SampleConfig)
@click.option("--stop", "stops", multiple=True, help="End just before this text; can be repeated.")
@click.option("--until-newline", is_flag=True, help="End just before the next newline.")
@click.option(
    "--pattern",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="A file of slots to fill: one a line, its alternatives separated by tabs.",
)
@click.option("--separator", default=" ", show_default="default: a space", help="Text between the slots of a pattern.")
@click.option("--count", type=Whole(1), default=1, show_default=True, help="Number of samples to draw.")
@click.option(
    "--items",
    type=Whole(1),
    metavar="N",
    help="Write N whole items, such as names, by a model of --document line or paragraph, or of --column.",
)
@click.option("--new", is_flag=True, help="With --items: leave out items of the training text, and repetitions.")
@click.option("--no-seed", is_flag=True, help="Leave the seed out of the output.")
@click.option("--color", is_flag=True, help="Shade each character by its surprisal.")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON object for each sample, one a line.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this new file.")
@click.option("--originality", is_flag=True, help="Report how much of the text is copied from the book.")
@click.option("--save-state", type=click.Path(path_type=Path, dir_okay=False), help="Save the state at the end.")
@click.option(
    "--load-state", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Continue from a saved state."
)
@click.option("--interactive", is_flag=True, help="Take turns with the model.")
@click.pass_context
def sample(ctx: click.Context, /, **values: Any) -> None:
    """Write text: the seed, and the model's continuation of it."""
    explicit = {name for name in ctx.params if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE}
    refuse_together(explicit, values["count"])
    if values["escapes"]:
        values["seed"], values["separator"] = unescaped(values["seed"] or ""), unescaped(values["separator"])
        values["stops"] = tuple(map(unescaped, values["stops"]))
    if "" in values["stops"]:
        raise click.UsageError("--stop is empty: give the text before which to end")
    if process.owned():
        blas_threads(values["count"])
    job = prepare(explicit, values)
    if values["interactive"]:
        from chargen.commands.conversation import converse

        ctx.exit(converse(job))
    from chargen.writing.generate import beginning, opening
    from chargen.writing.showing import kept, show

    if job.seed or job.clone.is_fresh:
        job.clone.feed(beginning(job.clone) + job.seed or opening(job.clone.vocabulary))
    stop, output = Stop(), values["output"]
    pieces = draw(job, lambda: stop.signal)
    report = partial(report_originality, job) if values["originality"] and not values["as_json"] else None
    with stop, nullcontext(sys.stdout) if output is None else kept(output) as out:
        show(pieces, writer(out, job, values), report)
    if values["save_state"] is not None:
        job.clone.save_state(values["save_state"], job.drawing(1, 0)[0])
    if stop.signal:
        if output is not None:
            say(f"stopped: {output} holds what was drawn so far", err=True)
        ctx.exit(128 + stop.signal)


class Job(NamedTuple):
    """What is to be drawn, checked as far as it can be before anything is drawn."""

    clone: Clone
    config: SampleConfig
    seed: str
    samples: int
    drawing: Drawing
    stops: tuple[str, ...]
    pattern: Pattern | None
    settings: dict[str, Any]  # for JSON
    book: Book | None


def prepare(explicit: set[str], values: dict[str, Any]) -> Job:
    """Open and check everything that the options name."""
    from chargen.writing.clone import Clone, check_state_path

    config = configured(SampleConfig, values)
    refuse_expressions(config)
    if values["output"] is not None:
        refuse_output(values["output"])
    if values["save_state"] is not None:
        check_state_path(values["save_state"])
    clone = Clone.open(values["model"])
    if values["items"]:
        clone.vocabulary.check_end()
    book = open_book(values)
    if values["pattern"] is not None and "temperature" not in explicit:
        config = replace(config, temperature=1.0)  # the model's own probabilities
    if values["interactive"] and "length" not in explicit:
        config = replace(config, length=INTERACTIVE_LENGTH)
    pattern = read_pattern(values, config.temperature, clone.vocabulary)
    random_seed = secrets.randbits(32) if config.random_seed is None else config.random_seed
    generator = None if values["load_state"] is None else clone.load_state(values["load_state"])
    if "random_seed" in explicit:
        generator = None  # --random-seed replaces the saved generator
    decides = (generator is None and (config.temperature > 0 or pattern is not None)) or values["seed_from_book"]
    if config.random_seed is None and decides:
        say(f"random seed: {random_seed}", err=True)
    settings = {**config.to_json(), "random_seed": None if generator else random_seed, "count": values["count"]}
    settings |= {"items": values["items"], "new": values["new"]} if values["items"] else {}
    if pattern is None:
        settings |= {"stop": list(values["stops"]), "until_newline": values["until_newline"]}
    else:
        settings |= {"pattern": pattern.slots, "separator": pattern.separator}
    seed = read_seed(clone.vocabulary, book, random_seed, values)
    stops = [read_stop(clone.vocabulary, text, escapes=values["escapes"]) for text in values["stops"]]
    stops += ["\n"] * values["until_newline"]
    drawing = drawing_of(random_seed, values["count"], generator)
    count = values["items"] or values["count"]
    return Job(clone, config, seed, count, drawing, tuple(stops), pattern, settings, book)


def drawing_of(random_seed: int, count: int, generator: np.random.Generator | None) -> Drawing:
    """Return what gives samples their generators: a single sample has ``generator``, if there is one."""
    from chargen.writing.sampler import generators

    if count > 1:
        return partial(generators, random_seed)
    single = [generator or generators(random_seed, 1)[0]]
    return lambda count, first: single


def draw(job: Job, stopping: Callable[[], int]) -> Iterator[Piece]:
    """Return the interleaved pieces of all samples; the clone has read the seed."""
    if job.pattern is not None:
        from chargen.writing.pattern import fill_all

        return fill_all(job.clone, job.samples, job.pattern, job.drawing, stopping)
    from chargen.writing.best import best_samples, choice_of
    from chargen.writing.generate import Until, samples
    from chargen.writing.sampler import filters

    until, config, clone = Until(job.config.length, job.stops, stopping), job.config, job.clone
    chosen = filters(config, clone.vocabulary, clone.words, clone.base_words)
    if "items" in job.settings:
        from chargen.writing.items import Seen, Wanted, items
        from chargen.writing.sampler import generators

        seen = Seen(job.book.corpus) if job.settings["new"] and job.book is not None else None
        drawing = partial(generators, job.settings["random_seed"]) if config.temperature else None
        return items(clone, Wanted(job.samples, job.seed, seen), until, chosen, drawing)
    if config.best_of > 1:
        return best_samples(clone, job.samples, until, chosen, (job.drawing, choice_of(clone, config)))
    return samples(clone, job.samples, until, chosen, job.drawing if config.temperature else None)


def writer(out: TextIO, job: Job, values: dict[str, Any]) -> Plain | JsonLines:
    """Return the writer for the output format."""
    from chargen.writing.showing import JsonLines, Plain, Shaded

    if values["as_json"]:
        compare = job.book.compare if job.book is not None and values["originality"] else None
        return JsonLines(out, job.seed, job.settings, compare)
    separator = job.clone.vocabulary.separator if values["items"] else ""
    return (Shaded if values["color"] else Plain)(out, "" if values["no_seed"] else job.seed, job.samples, separator)


def report_originality(job: Job, sample: int, text: str) -> None:
    """Report on standard error how much of a sample is copied from the book."""
    assert job.book is not None
    label = f"{sample + 1} of {job.samples}: " if job.samples > 1 else ""
    say(label + job.book.report(text), err=True)


def refuse_together(explicit: set[str], count: int) -> None:
    """Raise UsageError for options that can't be combined."""
    if count > 1 and explicit & {"save_state", "load_state"}:
        raise click.UsageError("a saved state is that of one sample: it does not go with --count")
    if "separator" in explicit and "pattern" not in explicit:
        raise click.UsageError("--separator is for --pattern")
    if "new" in explicit and "items" not in explicit:
        raise click.UsageError("--new is for --items")
    for first, others in EXCLUDING.items():
        if first in explicit and (both := explicit & others):
            raise click.UsageError(f"{option_names({first})} does not go with {option_names(both)}")


def refuse_expressions(config: SampleConfig) -> None:
    """Raise UsageError if --allow or --forbid is not an expression for single characters."""
    from chargen.writing.sampler import expression

    for option, pattern in (("--allow", config.allow), ("--forbid", config.forbid)):
        try:
            if pattern is not None:
                expression(option, pattern)
        except ChargenError as error:
            raise click.UsageError(str(error)) from None


def open_book(values: dict[str, Any]) -> Book | None:
    """Return the book, with its index for --originality; None if no option needs it."""
    if not (values["originality"] or values["seed_from_book"] or values["new"]):
        return None
    from chargen.writing.originality import Book

    book = Book(run_of(values["model"]))
    if values["originality"]:
        book.index()
    return book


def read_pattern(values: dict[str, Any], temperature: float, vocabulary: Vocabulary) -> Pattern | None:
    """Read the pattern, if there is one, and check that the model knows its characters."""
    path = values["pattern"]
    if path is None:
        return None
    from chargen.text.documents import decode
    from chargen.writing.pattern import Pattern, parse

    slots = parse(decode(read_file(path), path, option=None), path)
    pattern = Pattern(slots, values["separator"], temperature)
    pattern.check(vocabulary)
    return pattern


def read_seed(vocabulary: Vocabulary, book: Book | None, random_seed: int, values: dict[str, Any]) -> str:
    """Return the seed without the characters that the model doesn't know, with a warning of those."""
    from chargen.writing.given import known_seed, named

    if values["seed_file"] is not None:
        from chargen.text.documents import decode

        data = read_file(values["seed_file"])
        seed = decode(data, values["seed_file"], option=None) if data else ""
    elif values["seed_from_book"] and book is not None:
        seed = book.passage(BOOK_SEED, random_seed)
    else:
        seed = values["seed"] or ""
    hint = advice(seed, vocabulary, escapes=values["escapes"] or values["seed"] is None)
    read, skipped = known_seed(vocabulary, seed, hint)
    if skipped:
        say(f"Warning: the model has never seen {named(skipped)}: left out of the seed{hint}", err=True)
    return read


def read_stop(vocabulary: Vocabulary, stop: str, *, escapes: bool) -> str:
    """Return a stop text in the form (as given, NFC or NFD) that the model can write; warn if it can write none."""
    from chargen.writing.given import known_stop, named

    stop, unknown = known_stop(vocabulary, stop)
    if unknown:
        hint = advice(unknown, vocabulary, escapes=escapes)
        shown = repr(stop if len(stop) < 40 else stop[:40] + "...")
        say(f"Warning: --stop {shown} has no effect: the model never writes {named(unknown)}{hint}", err=True)
    return stop


def unescaped(text: str) -> str:
    """Return a text with its escapes replaced. Raises UsageError for a backslash that begins none of ESCAPES."""

    def read(found: re.Match[str]) -> str:
        plain, *codes = found.groups()
        code = int(next(filter(None, codes), "-1"), 16)
        if plain:
            return {"n": "\n", "t": "\t", "\\": "\\"}[plain]
        if 0 <= code < 0xD800 or 0xE000 <= code < 0x110000:
            return chr(code)
        wrong = text[found.start() :][:2]
        raise click.UsageError(f"{wrong if wrong.isprintable() else repr(wrong)} is no escape that -e reads: {ESCAPES}")

    return re.sub(r"\\(?:([nt\\])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|)", read, text)


def advice(text: str, vocabulary: Vocabulary, *, escapes: bool) -> str:
    """Return a hint at -e, if a backslash that the model doesn't know may have been meant as an escape."""
    unknown = "\\" in text and "\\" not in vocabulary
    return r"; with -e, \n is a line's end" if unknown and not escapes else ""
