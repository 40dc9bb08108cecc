"""The command line: parse, call one function, show. Heavy modules are imported by the command that uses them."""

from __future__ import annotations

import codecs
import dataclasses
import errno
import io
import json
import os
import re
import secrets
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from math import isfinite, prod
from pathlib import Path
from shlex import quote
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from chargen import ChargenError, __version__
from chargen.bits import bits
from chargen.config import Config, ModelConfig, SampleConfig, TrainConfig, blas_threads

if TYPE_CHECKING:
    from numpy.random import Generator

    from chargen.clone import Clone
    from chargen.corpus import Corpus
    from chargen.generate import Piece
    from chargen.model import CharLM
    from chargen.originality import Originality, Places
    from chargen.run import Run
    from chargen.streams import Streams
    from chargen.train import Validation
    from chargen.vocabulary import Ids, Vocabulary

C = TypeVar("C", bound=Config)
RESUMABLE = {"resume", "files", "epochs", "steps", "patience"}  # what --resume can be given beside it
UNROLLS = {"keras": "Keras's layers", "loop": "compiled loops", "steps": "compiled steps"}
TASTE = 96  # characters written at each validation
INTERACTIVE_LENGTH = 200  # characters of a turn, unless asked for otherwise
BOOK_SEED = 100  # characters of a seed from the book


class Command(click.Command):
    """A command whose foreseen errors are one line on standard error, and whose examples stay as they are written."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a ChargenError ends it with exit code 1."""
        try:
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(errors="replace")  # where the terminal has no such character
            result = super().invoke(ctx)
            sys.stdout.flush()
        except ChargenError as error:
            raise click.ClickException(" ".join(str(error).split())) from None
        except KeyboardInterrupt:
            click.echo(err=True)
            ctx.exit(128 + signal.SIGINT)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # who read has read enough: click ends quietly
            raise click.ClickException(f"what was written can't be: {error.strerror}") from None
        return result

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, a line each."""
        with formatter.section("Examples"):
            for line in (self.epilog or "").strip().splitlines():
                formatter.write(f"  {line.strip()}\n")


class Finite(click.FloatRange):
    """A number within a range, which infinity and nan are not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; refuse what is none, or out of range."""
        number = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class Encoding(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.4
    """The name of a text encoding that Python knows."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the encoding's usual name; refuse what is none."""
        try:
            "text".encode(value)
            return codecs.lookup(value).name.removesuffix("-sig")  # a mark is removed in any case
        except (LookupError, UnicodeError):
            self.fail(f"{value!r} is not a text encoding: try utf-8, cp1252, latin-1 or utf-16", param, ctx)


def options(config: type[Config], only: Collection[str] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command an option for each field of a configuration, with the field's name, type, range and help.

    ``only`` names the fields, if not all.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        types = config.types()
        for f in reversed(dataclasses.fields(config)):  # type: ignore[arg-type]
            if only and f.name not in only:
                continue
            low, high, exclusive = (f.metadata[key] for key in ("minimum", "maximum", "exclusive"))
            kind, _ = types[f.name]
            value_type: Any = Encoding() if f.name == "encoding" else click.STRING
            if kind is int:
                value_type = click.IntRange(low, high)
            elif f.metadata["choices"]:
                value_type = click.Choice(f.metadata["choices"])
            elif kind is float:
                value_type = Finite(low, high, min_open=exclusive, max_open=exclusive and high is not None)
            command = click.option(
                f"--{f.name.replace('_', '-')}",
                type=value_type,
                default=f.default,
                show_default=f.default is not None,
                help=f.metadata["help"],
            )(command)
        return command

    return decorate


def configured(config: type[C], values: dict[str, Any]) -> C:
    """Return the configuration whose fields are among a command's values."""
    return config(**{f.name: values[f.name] for f in dataclasses.fields(config)})  # type: ignore[arg-type]


@click.group(epilog='Begin with: chargen train book.txt, then: chargen sample --seed "The"')
@click.version_option(__version__, prog_name="chargen")
def main() -> None:
    """Train a character-level LSTM on a book, and let it write in the book's style."""


@main.command(
    cls=Command,
    epilog="""
    chargen train                                     the book that ships with chargen
    chargen train book.txt --epochs 20
    chargen train letters/ diary.txt --layers 2 --units 512
    cat *.txt | chargen train -
    chargen train --resume                            go on with the newest run
    chargen train --resume runs/book --epochs 5       train a finished run further
    """,
)
@click.argument("files", nargs=-1, type=click.Path(exists=True, allow_dash=True))
@options(ModelConfig)
@options(TrainConfig)
@click.option("--run", type=click.Path(path_type=Path), help="Folder for the run. [default: runs/<name of the text>]")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[RUN]",
    help="Go on with a run where it stopped, bit for bit; without RUN, the newest.",
)
@click.pass_context
def train(ctx: click.Context, /, files: tuple[str, ...], run: Path | None, resume: str | None, **values: Any) -> None:
    """Train a model on FILES: texts, folders of texts, or - for standard input.

    Without FILES it is the book that ships with chargen. What comes of it is a run: a folder with the best model, a
    checkpoint, the configuration and the metrics. Ctrl-C stops after the step it is at; --resume goes on from there.
    """
    asked = {name for name in ctx.params if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE}
    if {"epochs", "steps"} <= asked:
        raise click.UsageError("--epochs and --steps exclude each other: give one of them")
    refused = sorted(f"--{name.replace('_', '-')}" for name in asked - RESUMABLE)
    if resume is not None and refused:
        raise click.UsageError(f"{', '.join(refused)} can't be changed on --resume: the run keeps its own")
    from chargen import corpus, plan
    from chargen.run import Run, newest
    from chargen.streams import Streams

    training = configured(TrainConfig, values)
    if resume is None:
        text = corpus.read(files, training.encoding)
        config = plan.plan(text, configured(ModelConfig, values), training, asked)
    else:
        opened = Run(Path(resume) if resume else newest())
        text = opened.corpus(files)
        config = plan.resume(opened, text, training, asked)
        if files and corpus.STANDARD_INPUT not in files:
            config = replace(config, files=text.files)
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        ids, validation = text.split(config.train.validation)
        streams = Streams(ids, config.train.batch_size, config.train.seq_length)
        with quiet():
            from chargen.model import CharLM
            from chargen.unroll import choose, set_threads

            reason = "as the run began"
            if resume is None:
                execution, reason = choose(config.model, config.train)
                config = replace(config, execution=execution)
            set_threads(config.execution)
            model = CharLM(len(text.vocabulary), config.model, config.train.random_seed, config.execution)
        if resume is None:
            opened = Run.create(run, config, text)
        stack.enter_context(opened.lock())
        if resume is not None:
            opened.reconfigure(config)
        elif config.train != training:
            click.echo(f"the sizes suit a text of {len(text.ids):,} characters, of which larger ones would waste much")
        show_plan(opened, text, streams, reason)
        finished = show_training(model, opened, text, streams, validation, stop)
    path = quote(str(opened.path))
    if finished:
        click.echo(f'done; write with: chargen sample --model {path} --seed "The"')
    else:
        click.echo(f"stopped; go on with: chargen train --resume {path}")
    if stop.signal:
        ctx.exit(128 + stop.signal)


def show_plan(run: Run, corpus: Corpus, streams: Streams, reason: str) -> None:
    """Say what was read, what was chosen, and what will be done."""
    from chargen.modelfile import weight_shapes

    model, training, execution = run.config.model, run.config.train, run.config.execution
    held_out = len(corpus.split(training.validation)[1])
    parameters = sum(prod(shape) for shape in weight_shapes(len(corpus.vocabulary), model).values())
    for note in corpus.notes:
        click.echo(note)
    click.echo(
        f"text      {corpus.name}: {len(corpus.ids):,} characters, {len(corpus.vocabulary)} distinct; "
        f"the last {held_out:,} are for validation\n"
        f"model     {model.layers} x {model.units} LSTM, {parameters:,} parameters\n"
        f"training  {training.batch_size} streams x {training.seq_length} characters, "
        f"{streams.windows:,} steps an epoch, {run.config.stop - run.config.start:,} steps; "
        f"the last {streams.dropped:,} characters are not read\n"
        f"computing {execution.precision} by {UNROLLS[execution.unroll]}, {execution.threads} threads ({reason})\n"
        f"run       {run.path}"
    )


def show_training(model: CharLM, run: Run, corpus: Corpus, streams: Streams, validation: Ids, stop: Stop) -> bool:
    """Train until the run is finished or is told to stop; show a progress bar, a table and what the model writes.

    Returns whether the run is finished.
    """
    from tqdm import tqdm

    from chargen.run import Progress
    from chargen.train import Recovery, Step, Validation, train

    window = streams.batch_size * streams.seq_length
    before = corpus.vocabulary.decode(validation[:TASTE])
    titled = False
    bar = tqdm(
        total=run.config.stop * window,
        bar_format="{desc}|{bar}| {percentage:3.0f}% {rate_noinv_fmt} {remaining} left",
        unit=" characters",
        unit_scale=True,
        disable=None,  # where standard error is no terminal
        leave=False,
    )
    with bar, closing(train(model, corpus.vocabulary, streams, validation, run)) as records:
        for record in records:
            if isinstance(record, Step):
                if not bar.n:
                    bar.initial = bar.n = bar.last_print_n = (record.step - 1) * window
                bar.set_description_str(f"epoch {record.epoch:.2f}  {record.bpc:.3f} bpc", refresh=False)
                bar.update(record.step * window - bar.n)
            elif isinstance(record, Validation):
                if not titled:
                    bar.write(TITLES, file=sys.stdout)
                    titled = True
                bar.write(table_line(record), file=sys.stdout)
                bar.write(f"  {taste(model, corpus.vocabulary, before, record.record['step'])}", file=sys.stdout)
            elif isinstance(record, Recovery):
                bar.write(
                    f"step {record.failed:,} gave a loss that is not finite: back to step {record.step:,}, with "
                    f"{record.factor:g} of the learning rate",
                    file=sys.stdout,
                )
            sys.stdout.flush()
            if stop.signal:
                break
    checkpoint = run.checkpoint()
    return checkpoint is not None and run.finished(Progress.of(checkpoint))


TITLES = "    step   epoch    time   training bpc   validation bpc       rate   characters/s"


def table_line(validation: Validation) -> str:
    """Return a validation as a line of the table under TITLES."""
    r = validation.record
    minutes, seconds = divmod(round(r["seconds"]), 60)
    return (
        f"{r['step']:8,}  {r['epoch']:6.2f}  {minutes:3}:{seconds:02}  {r['training_bpc']:13.3f}  "
        f"{r['validation_bpc']:15.3f}  {r['learning_rate']:9.6f}  {r['characters_per_second']:13,}"
        f"{'  best' if validation.best else ''}"
    )


def taste(model: CharLM, vocabulary: Vocabulary, before: str, random_seed: int) -> str:
    """Return a line of what the model, having read the text ``before``, goes on with now."""
    from chargen.clone import Clone

    clone = Clone(model.arrays(), vocabulary)
    clone.feed(before)
    return " ".join("".join(clone.generate(TASTE, random_seed=random_seed)).split())


@main.command(
    cls=Command,
    epilog="""
    chargen sample --seed "The"
    chargen sample --model runs/book --length 5000 --temperature 0.5 > text.txt
    chargen sample --seed "Once" --count 8 --stop "." --json
    chargen sample --seed-from-book --color --originality
    chargen sample --pattern words.txt --temperature 0
    chargen sample --save-state one.state > 1.txt && chargen sample --load-state one.state > 2.txt
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
        click.echo(f"random seed: {random_seed}", err=True)
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
        from chargen.corpus import decode
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


def refuse_output(path: Path) -> None:
    """Raise ChargenError if a new file can't be made at ``path``, before anything is drawn for it."""
    if path.exists():
        raise ChargenError(f"{path} exists and is left as it is: name a new file")
    if not path.absolute().parent.is_dir():
        raise ChargenError(f"{path} can't be written: there is no folder {path.parent}")


def read_stop(vocabulary: Vocabulary, stop: str) -> str:
    """Return a stop text composed as books are (NFC); warn if it has characters that the model never writes."""
    from unicodedata import normalize

    from chargen.vocabulary import name

    stop = normalize("NFC", stop)
    if unknown := [c for c in dict.fromkeys(stop) if c not in vocabulary]:
        click.echo(f"Warning: the model never writes {name(iter(unknown))}: {stop!r} won't stop it", err=True)
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
        from chargen.corpus import decode

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
        click.echo(f"Warning: the model has never seen {name(skipped)}: left out of the seed", err=True)
    return read


def read_file(path: str) -> bytes:
    """Return the bytes of a file, or of standard input for ``-``."""
    if path == "-" and sys.stdin is None:
        raise ChargenError("standard input is closed: name a file")
    with click.open_file(path, "rb") as file:
        return bytes(file.read())


def run_of(model: Path | None) -> Run:
    """Return the run that a model is of. Raises ChargenError for a model file by itself."""
    from chargen.run import Run, newest

    path = model or newest()
    return Run(path if path.is_dir() else path.parent)


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
    from chargen.terminal import Clusters, shade

    count, out = settings["count"], io.StringIO() if values["output"] else sys.stdout
    utf8 = isinstance(out, io.StringIO) or (out.encoding or "").lower().replace("-", "") == "utf8"
    shown_seed = "" if values["no_seed"] else seed
    parts: list[list[Piece]] = [[] for _ in range(count)]
    clusters, current = Clusters(), 0

    def put(text: str, nats: Sequence[float]) -> None:
        for cluster, cost in clusters.add(text, nats) if text else clusters.release():
            out.write(shade(cluster, cost) if values["color"] else cluster)
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
                out.write(json.dumps(record, ensure_ascii=not utf8) + "\n")
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
            click.echo(label + tell_originality("".join(p.text for p in pieces), book), err=True)


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
    from chargen.terminal import Clusters

    if seed:
        clone.feed(seed)
    conversation = Conversation(clone, config, generator)
    click.echo("Write a line, and the model goes on; /help tells more.")
    while True:
        try:
            line = input("> ")
        except EOFError:
            click.echo()
            return 0
        except UnicodeDecodeError:
            click.echo("that line is not UTF-8: nothing was read", err=True)
            continue
        except KeyboardInterrupt:
            click.echo()
            continue
        if line.strip() == "/quit":
            return 0
        clusters = Clusters()
        try:
            with Stop() as stop:
                for said in conversation.answer(line):
                    if isinstance(said, str):
                        click.echo(said)
                        continue
                    click.echo("".join(c for c, _ in clusters.add(said.text, said.nats)), nl=False)
                    if said.stopped_by is not None or stop.signal:
                        click.echo("".join(c for c, _ in clusters.release()))
                    if stop.signal:
                        break
        except ChargenError as error:
            click.echo(str(error), err=True)
        if stop.signal == signal.SIGTERM:
            return 128 + signal.SIGTERM


@main.group()
def bench() -> None:
    """Measure chargen beside what would be used instead, in one interleaved run."""


@bench.command(
    "train",
    cls=Command,
    epilog="""
    chargen bench train
    chargen bench train --layers 2 --units 512 --batch-size 64 --torch
    chargen bench train book.txt --precision float32 --json
    """,
)
@click.argument("files", nargs=-1, type=click.Path(exists=True))
@options(ModelConfig)
@options(TrainConfig, only=("batch_size", "seq_length", "precision", "threads"))
@click.option("--torch", is_flag=True, help="Measure PyTorch too, in both precisions; it has to be installed.")
@click.option("--rounds", type=click.IntRange(1), default=4, show_default=True, help="Rounds; the best one counts.")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON object.")
def bench_train(files: tuple[str, ...], torch: bool, rounds: int, as_json: bool, **values: Any) -> None:
    """Measure characters per second of training steps on FILES, beside stock Keras's fit of the same model."""
    from chargen.bench import interleaved, operations_per_character, train_sides
    from chargen.corpus import read

    model = configured(ModelConfig, values)
    sides = train_sides({**values, "files": list(files)}, torch=torch)
    operations = operations_per_character(len(read(files).vocabulary), model)
    with quiet():
        figures = interleaved(sides, rounds)
    for name in [name for name, figure in figures.items() if "failed" in figure]:
        click.echo(f"left out: {figures.pop(name)['failed']}", err=True)
    ours = figures["chargen"]
    ceiling = figures[f"large product, {ours['precision']}"]["per_second"]
    if as_json:
        result = {
            "characters_per_second": ours["per_second"],
            "others": {n: f["per_second"] for n, f in figures.items() if "product" not in n},
            **{key: ours[key] for key in ("precision", "unroll", "chains", "threads")},
            "gflops": operations * ours["per_second"] / 1e9,
            "share_of_ceiling": operations * ours["per_second"] / ceiling,
            "first_step_seconds": ours["first_step_seconds"],
            "peak_memory": ours["peak_memory"],
        }
        click.echo(json.dumps(result))
        return
    click.echo(
        f"{model.layers} x {model.units}, {values['batch_size']} streams x {values['seq_length']}; chargen computes "
        f"{ours['precision']} by {UNROLLS[ours['unroll']]}\n\n"
        f"{'':22}characters/s  chargen is   GFLOP/s  of ceiling  first step    memory"
    )
    for name, figure in figures.items():
        if "product" in name:
            continue
        flops = operations * figure["per_second"]
        precision = ours["precision"] if name == "chargen" else name.split(", ")[1]
        most = figures[f"large product, {precision}"]
        click.echo(
            f"{name:22}{figure['per_second']:12,.0f}{ours['per_second'] / figure['per_second']:10.2f} x"
            f"{flops / 1e9:10,.0f}{flops / most['per_second']:12.0%}{figure['first_step_seconds']:10.1f} s"
            f"{figure['peak_memory'] / 2**20:7,.0f} MB"
        )


@bench.command(
    "sample",
    cls=Command,
    epilog="""
    chargen bench sample
    chargen bench sample --model runs/book --json
    """,
)
@click.option(
    "--model",
    type=click.Path(exists=True, path_type=Path),
    help="A run or a model file. [default: an untrained model of 2 x 512]",
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Rounds; the best one counts.")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON object.")
def bench_sample(model: Path | None, rounds: int, as_json: bool) -> None:
    """Measure characters per second at several counts, the first character's latency, and stock Keras's loops."""
    from chargen.bench import first_character_seconds, interleaved, sample_sides, untrained
    from chargen.run import find_model

    with tempfile.TemporaryDirectory() as folder:
        path = str(find_model(model) if model else untrained(Path(folder) / "model.safetensors"))
        figures = interleaved(sample_sides(path), rounds)
        latency = first_character_seconds(path)
    one = figures["chargen, count 1"]["per_second"]
    if as_json:
        click.echo(
            json.dumps(
                {
                    "characters_per_second": {name: figure["per_second"] for name, figure in figures.items()},
                    "first_character_seconds": latency,
                    "bytes_per_character": figures["reading the weights"]["bytes"],
                }
            )
        )
        return
    click.echo(f"first character after {latency:.2f} s\n\n{'':24}characters/s   chargen is")
    for name, figure in figures.items():
        click.echo(f"{name:24}{figure['per_second']:12,.0f}   {one / figure['per_second']:9.2f} x")


class Stop:
    """While entered, Ctrl-C and SIGTERM are only noted, in ``signal``; a second one ends the program at once."""

    def __init__(self) -> None:
        self.signal: int = 0

    def __enter__(self) -> Stop:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            sys.exit(128 + number)
        self.signal = number


@contextmanager
def quiet() -> Iterator[None]:
    """Keep TensorFlow's start-up log from the terminal: it writes to the file descriptor, whatever it is told.

    What it wrote is shown after all if starting fails.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    sys.stderr.flush()
    with tempfile.TemporaryFile() as log:
        terminal = os.dup(2)
        os.dup2(log.fileno(), 2)
        started = False
        try:
            yield
            started = True
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            if not started:
                log.seek(0)
                os.write(2, log.read())
