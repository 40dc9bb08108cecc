"""``chargen sample``."""

from __future__ import annotations

import io
import json
import re
import secrets
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from chargen import ChargenError, process
from chargen.bits import bits
from chargen.config import SampleConfig, blas_threads

if TYPE_CHECKING:
    from numpy.random import Generator

    from chargen.clone import Clone
    from chargen.generate import Piece
    from chargen.originality import Originality, Places
    from chargen.run import Run
    from chargen.vocabulary import Vocabulary

from chargen.shell import Command, Stop, configured, options, read_file, refuse_output, run_of, say

INTERACTIVE_LENGTH = 200  # characters of a turn, unless asked for otherwise
BOOK_SEED = 100  # characters of a seed from the book


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
@options(SampleConfig)
@click.option("--stop", "stops", multiple=True, help="End before this text; can be given several times.")
@click.option("--until-newline", is_flag=True, help="End before the line does.")
@click.option(
    "--pattern",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="A file with a line for each slot: alternatives, tabs between.",
)
@click.option("--separator", default=" ", show_default=True, help="Text between the slots of a pattern.")
@click.option("--count", type=click.IntRange(1), default=1, show_default=True, help="Samples to draw, as one batch.")
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
def sample(
    ctx: click.Context,
    /,
    model: Path | None,
    stops: tuple[str, ...],
    until_newline: bool,
    pattern: str | None,
    separator: str,
    count: int,
    load_state: Path | None,
    save_state: Path | None,
    interactive: bool,
    **values: Any,
) -> None:
    """Write text: the seed, and what the model makes of it.

    What may be drawn is narrowed in this order: --allow and --forbid, --temperature, --top-k, --top-p, --min-p.
    """
    asked = {name for name in ctx.params if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE}
    refuse_together(asked)
    for name in ("allow", "forbid"):
        try:
            re.compile(values[name] or "")
        except re.error as error:
            raise click.UsageError(f"--{name} is not a regular expression: {error}") from None
    if count > 1 and (save_state or load_state):
        raise click.UsageError("a saved state is that of one sample: it does not go with --count")
    if "separator" in asked and pattern is None:
        raise click.UsageError("--separator is for --pattern")
    if "" in stops:
        raise click.UsageError("--stop is empty: give the text before which to end")
    if process.owned():
        blas_threads(count)
    from chargen.clone import Clone, check_state_path
    from chargen.generate import generate, opening
    from chargen.sampler import filters, generators

    config = configured(SampleConfig, values)
    if (output := values["output"]) is not None:
        refuse_output(output)
    if save_state is not None:
        check_state_path(save_state)
    clone = Clone.open(model)
    book = Book(run_of(model)) if values["originality"] or values["seed_from_book"] else None
    random_seed = secrets.randbits(32) if config.random_seed is None else config.random_seed
    loaded = clone.load_state(load_state) if load_state is not None else None
    drawing = generators(random_seed, count) if loaded is None or "random_seed" in asked else [loaded]
    if pattern is not None and "temperature" not in asked:
        config = replace(config, temperature=1.0)  # the scores are probabilities of the model as they are
    from_seed = drawing[0] is not loaded and (config.temperature > 0 or pattern is not None)
    if config.random_seed is None and (from_seed or values["seed_from_book"]):
        say(f"random seed: {random_seed}", err=True)
    seed = read_seed(clone.vocabulary, book, random_seed, values)
    if interactive:
        if "length" not in asked:
            config = replace(config, length=INTERACTIVE_LENGTH)
        ctx.exit(converse(clone, seed, config, drawing[0]))
    if seed or clone.is_fresh:
        clone.feed(seed or opening(clone.vocabulary))
    drawn: Iterator[Piece]
    settings = {**config.to_json(), "random_seed": random_seed, "count": count}
    if pattern is not None:
        from chargen.documents import decode
        from chargen.pattern import fill, parse

        slots = parse(decode(read_file(pattern), pattern, advice=SAVE_AS), pattern)
        drawn = (
            piece
            for index, generator in enumerate(drawing)
            for piece in fill(
                clone if count == 1 else clone.repeat(1), slots, separator, config.temperature, generator, index
            )
        )
        settings |= {"pattern": slots, "separator": separator}
    else:
        clone = clone if count == 1 else clone.repeat(count)
        ends = [read_stop(clone.vocabulary, stop) for stop in (*stops, *["\n"] * until_newline)]
        drawn = generate(
            clone, config.length, filters(config, clone.vocabulary), drawing if config.temperature else None, ends
        )
        settings |= {"stop": list(stops), "until_newline": until_newline}
    with Stop() as stop:
        show_samples(drawn, seed, book, random_seed if drawing[0] is not loaded else None, settings, values, stop)
    if save_state is not None:
        clone.save_state(save_state, drawing[0])
    if stop.signal:
        ctx.exit(128 + stop.signal)


SAVE_AS = "save it as UTF-8"


def read_stop(vocabulary: Vocabulary, stop: str) -> str:
    """Return a stop text composed as books are (NFC); warn if it has characters that the model never writes."""
    from unicodedata import normalize

    from chargen.vocabulary import name

    stop = normalize("NFC", stop)
    if unknown := [c for c in dict.fromkeys(stop) if c not in vocabulary]:
        say(f"Warning: the model never writes {name(iter(unknown))}: {stop!r} won't stop it", err=True)
    return stop


class Book:
    """The text of a run, and its index, each opened once for all samples."""

    def __init__(self, run: Run) -> None:
        self.corpus = run.corpus()
        self._cache = run.path / "originality.safetensors"

    @cached_property
    def _places(self) -> Places:
        from chargen.originality import index

        return index(self.corpus, self._cache)

    def compare(self, text: str) -> Originality:
        """Return what of a text stands in the book."""
        from chargen.originality import compare

        return compare(self.corpus.vocabulary.encode(text), self.corpus.ids, self._places)


def refuse_together(asked: set[str]) -> None:
    """Refuse options that exclude each other."""

    def names(options: Collection[str]) -> str:
        return ", ".join(f"--{'json' if n == 'as_json' else n.rstrip('s').replace('_', '-')}" for n in sorted(options))

    for first, others in EXCLUDING.items():
        if first in asked and (both := asked & others):
            raise click.UsageError(f"{names({first})} does not go with {names(both)}")


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
    from chargen.vocabulary import name

    if values["seed_file"] is not None:
        from chargen.documents import decode

        data = read_file(values["seed_file"])
        seed = decode(data, values["seed_file"], advice=SAVE_AS) if data else ""
    elif values["seed_from_book"] and book is not None:
        from chargen.originality import random_place

        place = random_place(len(book.corpus.ids), BOOK_SEED, random_seed)
        seed = vocabulary.decode(book.corpus.ids[place : place + BOOK_SEED])
    else:
        seed = values["seed"] or ""
    read, skipped = vocabulary.repair(seed)
    if skipped:
        if not read:
            raise ChargenError(f"the model has never seen {name(skipped)}, which is all there is in the seed")
        say(f"Warning: the model has never seen {name(skipped)}: left out of the seed", err=True)
    return read


def show_samples(
    drawn: Iterator[Piece],
    seed: str,
    book: Book | None,
    random_seed: int | None,
    settings: dict[str, Any],
    values: dict[str, Any],
    stop: Stop,
) -> None:
    """Write the samples, the first as it is drawn, in the form that was asked for; then what is to be told of them.

    If it is told to stop, it writes what was drawn until then.
    """
    from chargen.terminal import Clusters, shade, shown

    count, out = settings["count"], io.StringIO() if values["output"] else sys.stdout
    utf8 = isinstance(out, io.StringIO) or (out.encoding or "").lower().replace("-", "") == "utf8"
    shown_seed = "" if values["no_seed"] else seed
    parts: list[list[Piece]] = [[] for _ in range(count)]
    clusters, current = Clusters(), 0

    def put(text: str, nats: Sequence[float]) -> None:
        for cluster, cost in clusters.add(text, nats) if text else clusters.release():
            visible = shown(cluster, out)
            out.write(shade(visible, cost) if values["color"] else visible)
        out.flush()

    def begin(index: int) -> None:
        if count > 1:
            out.write(f"--- {index + 1} of {count} ---\n")
        put(shown_seed, [0.0] * len(shown_seed))

    if not values["as_json"]:
        begin(0)
    for piece in drawn:
        parts[piece.sample].append(piece)
        if not values["as_json"] and piece.sample == current:
            put(piece.text, piece.nats)
        while current < count and parts[current] and parts[current][-1].stopped_by is not None:
            if values["as_json"]:
                record = told(parts[current], seed, random_seed, settings)
                if values["originality"] and book is not None:
                    record["originality"] = book.compare(record["text"])._asdict()
                out.write(shown(json.dumps(record, ensure_ascii=not utf8), out) + "\n")
            else:
                put("", ())
            current += 1
            if not values["as_json"] and current < count:
                out.write("\n")
                begin(current)
                for earlier in parts[current]:
                    put(earlier.text, earlier.nats)
        if stop.signal:
            break
    if not values["as_json"]:
        put("", ())
        if out.isatty() or count > 1:
            out.write("\n")
    if isinstance(out, io.StringIO):
        from chargen.modelfile import write_beside

        write_beside(values["output"], out.getvalue().encode("utf-8", "replace"))
    if values["originality"] and book is not None and not values["as_json"]:
        for index, pieces in enumerate(parts):
            label = f"{index + 1} of {count}: " if count > 1 else ""
            say(label + tell_originality("".join(p.text for p in pieces), book), err=True)


def told(pieces: list[Piece], seed: str, random_seed: int | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Return a sample as a JSON object; the logarithms are natural, the probabilities the model's own, unfiltered."""
    nats = [cost for piece in pieces for cost in piece.nats]
    return {
        "seed": seed,
        "text": "".join(piece.text for piece in pieces),
        "log_probabilities": [round(-cost, 6) for cost in nats],
        "bits_per_character": bits(sum(nats) / len(nats)) if nats else None,
        "random_seed": random_seed,
        "index": pieces[0].sample,
        "stopped_by": pieces[-1].stopped_by,
        "settings": settings,
    }


def tell_originality(text: str, book: Book) -> str:
    """Say in two lines what of a text stands in the book."""
    found = book.compare(text)
    copied = text[found.start : found.start + found.longest]
    shares = ", ".join(f"{n}: {'-' if share is None else f'{share:.1%}'}" for n, share in found.shares.items())
    return (
        f"longest stretch that stands in the book: {found.longest} characters, at character {found.place:,} of "
        f"{len(book.corpus.ids):,}: {copied[:60]!r}{'...' if len(copied) > 60 else ''}\n"
        f"sequences that stand in the book, by their length: {shares}"
    )


def converse(clone: Clone, seed: str, config: SampleConfig, generator: Generator) -> int:
    """Read lines and show what the model writes, until the input ends; return the exit code."""
    with suppress(ImportError):  # not on Windows; there the console itself edits lines
        import readline  # noqa: F401  - gives input() line editing and history
    from chargen.interactive import Conversation
    from chargen.terminal import Clusters, shown

    if seed:
        clone.feed(seed)
    conversation = Conversation(clone, config, generator)
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
                    ended = said.stopped_by is not None or stop.signal
                    whole = clusters.add(said.text, said.nats) + (clusters.release() if ended else [])
                    click.echo(shown("".join(c for c, _ in whole), sys.stdout), nl=bool(ended), color=True)
                    if stop.signal:
                        break
        except ChargenError as error:
            say(str(error), err=True)
        if stop.signal == signal.SIGTERM:
            return 128 + signal.SIGTERM
