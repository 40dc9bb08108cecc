"""``chargen sample``."""

from __future__ import annotations

import re
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import click
from click.core import ParameterSource

from chargen import ChargenError, process
from chargen.config import SampleConfig
from chargen.machine import blas_threads

if TYPE_CHECKING:
    from chargen.store.run import Run
    from chargen.text.vocabulary import Vocabulary
    from chargen.writing.clone import Clone
    from chargen.writing.generate import Drawing, Piece
    from chargen.writing.originality import Originality
    from chargen.writing.pattern import Slots
    from chargen.writing.showing import JsonLines, Plain, Reported

from chargen.commands.common import Command, Stop, configured, options, read_file, refuse_output, run_of, say, typed

INTERACTIVE_LENGTH = 200  # characters of a turn, unless asked for otherwise
BOOK_SEED = 100  # characters of a seed from the book
NAMED = 8  # characters, at the most, that a message names
ESCAPES = r"\n, \t, \\, \xXX, \uXXXX and \UXXXXXXXX"


@click.command(
    cls=Command,
    epilog="""
    chargen sample --seed "The"
    chargen sample --model runs/book --length 5000 --temperature 0.5 > text.txt
    chargen sample --seed "Once" --count 8 --stop "." --json
    chargen sample --seed-from-book --color --originality
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
@click.option("--seed-from-book", is_flag=True, help="Continue the book from a random place in it.")
@click.option("-e", "--escapes", is_flag=True, help=r"Read \n, \t, \\, \xXX, \uXXXX in --seed, --stop and --separator.")
@options(SampleConfig)
@click.option("--stop", "stops", multiple=True, help="End before this text; can be given several times.")
@click.option("--until-newline", is_flag=True, help="End before the line does.")
@click.option(
    "--pattern",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="A file with a line for each slot: alternatives, tabs between.",
)
@click.option("--separator", default=" ", show_default=True, help="Text between the slots of a pattern.")
@click.option("--count", type=click.IntRange(1), default=1, show_default=True, help="Samples to draw, side by side.")
@click.option("--no-seed", is_flag=True, help="Leave the seed out of what is written.")
@click.option("--color", is_flag=True, help="Shade each character by its surprisal.")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON object for each sample, a line each.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write into this new file.")
@click.option("--originality", is_flag=True, help="Tell what of the text stands in the book.")
@click.option("--save-state", type=click.Path(path_type=Path, dir_okay=False), help="Save the state when it ends.")
@click.option(
    "--load-state", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Go on from a saved state."
)
@click.option("--interactive", is_flag=True, help="Write in turns with the model.")
@click.pass_context
def sample(ctx: click.Context, /, stops: tuple[str, ...], separator: str, **values: Any) -> None:
    """Write text: the seed, and what the model makes of it.

    What may be drawn is narrowed in this order: --allow and --forbid, --temperature, --top-k, --top-p, --min-p.
    """
    asked = {name for name in ctx.params if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE}
    refuse_together(asked, values["count"])
    if values["escapes"]:
        values["seed"], separator, *rest = (unescaped(text) for text in (values["seed"] or "", separator, *stops))
        stops = tuple(rest)
    if "" in stops:
        raise click.UsageError("--stop is empty: give the text before which to end")
    if process.owned():
        blas_threads(values["count"])
    job = prepare(asked, stops, separator, values)
    if values["interactive"]:
        ctx.exit(converse(job))
    from chargen.writing.generate import opening
    from chargen.writing.showing import kept, show

    if job.seed or job.clone.is_fresh:
        job.clone.feed(job.seed or opening(job.clone.vocabulary))
    stop, output = Stop(), values["output"]
    pieces = draw(job, lambda: stop.signal)
    with stop, nullcontext(sys.stdout) if output is None else kept(output) as out:
        show(pieces, writer(out, job, values))
    if values["save_state"] is not None:
        job.clone.save_state(values["save_state"], job.drawing(1, 0)[0])
    if stop.signal:
        if output is not None:
            say(f"stopped: {output} holds what was drawn until then", err=True)
        ctx.exit(128 + stop.signal)


class Job(NamedTuple):
    """What is to be drawn. It was checked: what can't be done is said before anything is drawn."""

    clone: Clone
    config: SampleConfig
    seed: str
    samples: int
    drawing: Drawing
    ends: tuple[str, ...]  # before which a text ends
    slots: Slots | None  # of a pattern
    separator: str
    settings: dict[str, Any]  # as JSON tells them
    book: Book | None


def prepare(asked: set[str], stops: tuple[str, ...], separator: str, values: dict[str, Any]) -> Job:
    """Open and check all that was asked for."""
    from chargen.writing.clone import Clone, check_state_path
    from chargen.writing.sampler import generators

    config, count = configured(SampleConfig, values), values["count"]
    refuse_expressions(config)
    if values["output"] is not None:
        refuse_output(values["output"])
    if values["save_state"] is not None:
        check_state_path(values["save_state"])
    clone = Clone.open(values["model"])
    book = Book(run_of(values["model"])) if values["originality"] or values["seed_from_book"] else None
    if values["originality"] and book is not None:
        book.index()
    slots = None if values["pattern"] is None else read_slots(values["pattern"], separator, clone.vocabulary)
    if slots is not None and "temperature" not in asked:
        config = replace(config, temperature=1.0)  # the scores are probabilities of the model as they are
    if values["interactive"] and "length" not in asked:
        config = replace(config, length=INTERACTIVE_LENGTH)
    random_seed = secrets.randbits(32) if config.random_seed is None else config.random_seed
    loaded = None if values["load_state"] is None else clone.load_state(values["load_state"])
    if "random_seed" in asked:
        loaded = None  # of what was saved, the model's state remains
    from_seed = loaded is None and (config.temperature > 0 or slots is not None)
    if config.random_seed is None and (from_seed or values["seed_from_book"]):
        say(f"random seed: {random_seed}", err=True)
    seed = read_seed(clone.vocabulary, book, random_seed, values)
    settings = {**config.to_json(), "random_seed": None if loaded else random_seed, "count": count}
    if slots is None:
        settings |= {"stop": list(stops), "until_newline": values["until_newline"]}
    else:
        settings |= {"pattern": slots, "separator": separator}
    ends = [read_stop(clone.vocabulary, text, escapes=values["escapes"]) for text in stops]
    ends += ["\n"] * values["until_newline"]
    one = [loaded or generators(random_seed, 1)[0]]
    drawing = partial(generators, random_seed) if count > 1 else lambda count, first: one
    return Job(clone, config, seed, count, drawing, tuple(ends), slots, separator, settings, book)


def draw(job: Job, stopping: Callable[[], int]) -> Iterator[Piece]:
    """Return what the clone, which has read the seed, draws: the pieces of all samples, mixed."""
    if job.slots is not None:
        from chargen.writing.pattern import fill, fill_all

        one = partial(fill, slots=job.slots, separator=job.separator, temperature=job.config.temperature)
        return fill_all(job.clone, job.samples, one, job.drawing, stopping)
    from chargen.writing.generate import Until, samples
    from chargen.writing.sampler import filters

    until = Until(job.config.length, job.ends, stopping)
    chosen = filters(job.config, job.clone.vocabulary)
    return samples(job.clone, job.samples, until, chosen, job.drawing if job.config.temperature else None)


def writer(out: TextIO, job: Job, values: dict[str, Any]) -> Plain | JsonLines | Reported:
    """Return what shows samples in the form that was asked for."""
    from chargen.writing.showing import JsonLines, Plain, Reported, Shaded

    compared = job.book if values["originality"] else None
    if values["as_json"]:
        return JsonLines(out, job.seed, job.settings, None if compared is None else compared.compare)
    plain = (Shaded if values["color"] else Plain)(out, "" if values["no_seed"] else job.seed, job.samples)
    if compared is None:
        return plain
    return Reported(plain, lambda label, text: say(label + compared.report(text), err=True), job.samples)


def refuse_expressions(config: SampleConfig) -> None:
    """Refuse what can't be an expression of characters."""
    from chargen.writing.sampler import expression

    for option, pattern in (("--allow", config.allow), ("--forbid", config.forbid)):
        try:
            if pattern is not None:
                expression(option, pattern)
        except ChargenError as error:
            raise click.UsageError(str(error)) from None


def read_slots(path: str, separator: str, vocabulary: Vocabulary) -> Slots:
    """Read a pattern of characters that the model knows."""
    from chargen.text.documents import decode
    from chargen.writing.pattern import parse, refuse_unknown

    slots = parse(decode(read_file(path), path, option=None), path)
    refuse_unknown(vocabulary, slots, separator)
    return slots


def unescaped(text: str) -> str:
    """Return a text with its escapes read; refuse what is none."""

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


def named(characters: str) -> str:
    """Name characters that the model does not know, the first of them if they are many."""
    from chargen.text.vocabulary import name

    more = f" and {len(characters) - NAMED} more" if len(characters) > NAMED else ""
    return name(characters[:NAMED]) + more


def advice(unknown: str, *, escapes: bool) -> str:
    """Say how to give what an unknown backslash may have been meant for."""
    return r"; with -e, \n is a line's end" if "\\" in unknown and not escapes else ""


def read_stop(vocabulary: Vocabulary, stop: str, *, escapes: bool) -> str:
    """Return a stop text as books have it, composed (NFC) or not; warn if the model never writes its characters."""
    from unicodedata import normalize

    forms = stop, normalize("NFC", stop), normalize("NFD", stop)
    stop = next((form for form in forms if all(c in vocabulary for c in form)), forms[1])
    if unknown := "".join(c for c in dict.fromkeys(stop) if c not in vocabulary):
        hint = advice(unknown, escapes=escapes)
        shown = repr(stop if len(stop) < 40 else stop[:40] + "...")
        say(f"Warning: {shown} won't stop it: the model never writes {named(unknown)}{hint}", err=True)
    return stop


class Book:
    """The text of a run, and its index, each opened once for all samples."""

    def __init__(self, run: Run) -> None:
        self.corpus = run.corpus()
        self._cache = run.path / "originality.safetensors"

    def index(self) -> None:
        """Make ready to compare. Raises ChargenError for a book that is too long."""
        from chargen.writing.originality import index

        self._places = index(self.corpus, self._cache)

    def compare(self, text: str) -> Originality:
        """Return what of a text stands in the book."""
        import numpy as np

        from chargen.writing.originality import BLOCK, compare

        encode = self.corpus.vocabulary.encode
        ids = [encode(text[start : start + BLOCK]) for start in range(0, max(1, len(text)), BLOCK)]
        return compare(np.concatenate(ids), self.corpus.ids, self._places)

    def report(self, text: str) -> str:
        """Say in two lines what of a text stands in the book."""
        found = self.compare(text)
        copied = text[found.start : found.start + found.longest]
        shares = ", ".join(f"{n}: {'-' if share is None else f'{share:.1%}'}" for n, share in found.shares.items())
        return (
            f"longest stretch that stands in the book: {found.longest} characters, at character {found.place:,} of "
            f"{len(self.corpus.ids):,}: {copied[:60]!r}{'...' if len(copied) > 60 else ''}\n"
            f"sequences that stand in the book, by their length: {shares}"
        )


def refuse_together(asked: set[str], count: int) -> None:
    """Refuse options that exclude each other."""
    if count > 1 and asked & {"save_state", "load_state"}:
        raise click.UsageError("a saved state is that of one sample: it does not go with --count")
    if "separator" in asked and "pattern" not in asked:
        raise click.UsageError("--separator is for --pattern")
    for first, others in EXCLUDING.items():
        if first in asked and (both := asked & others):
            raise click.UsageError(f"{typed({first})} does not go with {typed(both)}")


EXCLUDING = {
    "seed": {"seed_file", "seed_from_book"},
    "seed_file": {"seed_from_book"},
    "pattern": {"length", "allow", "forbid", "top_k", "top_p", "min_p", "stops", "until_newline"},
    "as_json": {"color", "no_seed"},
    "interactive": {
        *("pattern", "count", "as_json", "output", "stops", "until_newline", "originality", "save_state"),
        *("color", "no_seed"),
    },
}


def read_seed(vocabulary: Vocabulary, book: Book | None, random_seed: int, values: dict[str, Any]) -> str:
    """Return the seed that was asked for, in the vocabulary's characters; warn of those that are left out."""
    if values["seed_file"] is not None:
        from chargen.text.documents import decode

        data = read_file(values["seed_file"])
        seed = decode(data, values["seed_file"], option=None) if data else ""
    elif values["seed_from_book"] and book is not None:
        from chargen.writing.originality import random_place

        place = random_place(len(book.corpus.ids), BOOK_SEED, random_seed)
        seed = vocabulary.decode(book.corpus.ids[place : place + BOOK_SEED])
    else:
        seed = values["seed"] or ""
    read, skipped = vocabulary.repair(seed)
    if skipped:
        hint = advice(skipped, escapes=values["escapes"] or values["seed"] is None)
        if not read:
            known = "".join(c for c in vocabulary.characters if c.isprintable() and not c.isspace())
            raise ChargenError(
                f"the model has never seen {named(skipped)}, which is all there is in the seed: "
                f"give characters that it knows, such as {known[-NAMED:]}{hint}"
            )
        say(f"Warning: the model has never seen {named(skipped)}: left out of the seed{hint}", err=True)
    return read


def converse(job: Job) -> int:
    """Read lines and show what the model writes, until the input ends; return the exit code."""
    with suppress(ImportError):  # not on Windows; there the console itself edits lines
        import readline  # noqa: F401  - gives input() line editing and history
    from chargen.terminal import Clusters, shown
    from chargen.writing.interactive import Conversation

    if job.seed:
        job.clone.feed(job.seed)
    conversation = Conversation(job.clone, job.config, job.drawing(1, 0)[0])
    say("Write a line, and the model goes on; /help tells more.")
    while True:
        try:
            line = input("> ")
        except EOFError:
            say()
            return 0
        except OSError as error:
            raise ChargenError(f"cannot read standard input: {error.strerror}") from None
        except UnicodeDecodeError:
            say("that line is not UTF-8: nothing was read", err=True)
            continue
        except KeyboardInterrupt:
            say()
            continue
        if line.strip() == "/quit":
            return 0
        clusters = Clusters()
        try:
            with Stop() as stop:
                for said in conversation.answer(line):
                    if isinstance(said, str):
                        say(said)
                        continue
                    stopped = bool(stop.signal)  # asked once: a signal may come while this is written
                    ended = stopped or said.stopped_by is not None
                    whole = clusters.add(said.text, said.nats) + (clusters.release() if ended else [])
                    click.echo(shown("".join(c for c, _ in whole), sys.stdout), nl=ended, color=True)
                    if stopped:
                        break
        except ChargenError as error:
            say(str(error), err=True)
        if stop.signal not in (0, signal.SIGINT):
            return 128 + stop.signal
