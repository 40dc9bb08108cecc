"""The command line: parse, call one function, show. Heavy modules are imported by the command that uses them."""

from __future__ import annotations

import codecs
import dataclasses
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from chargen import ChargenError, __version__
from chargen.config import Config, ModelConfig, SampleConfig, TrainConfig

if TYPE_CHECKING:
    from chargen.corpus import Corpus
    from chargen.model import CharLM
    from chargen.run import Run
    from chargen.streams import Streams
    from chargen.train import Validation
    from chargen.vocabulary import Ids, Vocabulary

C = TypeVar("C", bound=Config)
RESUMABLE = {"resume", "files", "epochs", "steps", "patience"}  # what --resume can be given beside it
TASTE = 96  # characters written at each validation


class Command(click.Command):
    """A command whose foreseen errors are one line on standard error, and whose examples stay as they are written."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a ChargenError ends it with exit code 1."""
        try:
            return super().invoke(ctx)
        except ChargenError as error:
            raise click.ClickException(" ".join(str(error).split())) from None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, a line each."""
        with formatter.section("Examples"):
            for line in (self.epilog or "").strip().splitlines():
                formatter.write(f"  {line.strip()}\n")


class Encoding(click.ParamType[str]):
    """The name of a text encoding that Python knows."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the encoding's usual name; refuse what is none."""
        try:
            "text".encode(value)
            return codecs.lookup(value).name
        except LookupError:
            self.fail(f"{value!r} is not a text encoding: try utf-8, cp1252, latin-1 or utf-16", param, ctx)


def options(config: type[Config]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command an option for each field of a configuration, with the field's name, type, range and help."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        types = config.types()
        for f in reversed(dataclasses.fields(config)):  # type: ignore[arg-type]
            low, high, exclusive = (f.metadata[key] for key in ("minimum", "maximum", "exclusive"))
            kind, _ = types[f.name]
            value_type: Any = Encoding() if f.name == "encoding" else click.STRING
            if kind is int:
                value_type = click.IntRange(low, high)
            elif kind is float:
                value_type = click.FloatRange(low, high, min_open=exclusive, max_open=exclusive and high is not None)
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

    with Stop() as stop:
        training = configured(TrainConfig, values)
        if resume is None:
            text = corpus.read(files, training.encoding)
            config = plan.plan(text, configured(ModelConfig, values), training, asked)
        else:
            opened = Run(Path(resume) if resume else newest())
            text = opened.corpus(files)
            config = replace(plan.resume(opened, text, training, asked), files=text.files)
        ids, validation = text.split(config.train.validation)
        streams = Streams(ids, config.train.batch_size, config.train.seq_length)
        if resume is None:
            opened = Run.create(run, config, text)
        else:
            opened.reconfigure(config)
        if resume is None and config.train != training:
            click.echo(f"the sizes suit a text of {len(text.ids):,} characters, of which larger ones would waste much")
        show_plan(opened, text, streams)
        show_training(opened, text, streams, validation, stop)
    if stop.signal:
        click.echo(f"stopped; go on with: chargen train --resume {opened.path}")
        ctx.exit(128 + stop.signal)
    click.echo(f'done; write with: chargen sample --model {opened.path} --seed "The"')


def show_plan(run: Run, corpus: Corpus, streams: Streams) -> None:
    """Say what was read, what was chosen, and what will be done."""
    from chargen.modelfile import weight_shapes

    model, training = run.config.model, run.config.train
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
        f"run       {run.path}"
    )


def show_training(run: Run, corpus: Corpus, streams: Streams, validation: Ids, stop: Stop) -> None:
    """Train until the run is finished or is told to stop; show a progress bar, a table and what the model writes."""
    from tqdm import tqdm

    with quiet():
        from chargen.model import CharLM
        from chargen.train import Recovery, Step, Validation, train

        model = CharLM(len(corpus.vocabulary), run.config.model, run.config.train.random_seed)
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
    from chargen.generate import generate

    clone = Clone(model.arrays(), vocabulary)
    return " ".join("".join(generate(clone, before, TASTE, SampleConfig().temperature, random_seed)).split())


@main.command(
    cls=Command,
    epilog="""
    chargen sample --seed "The"
    chargen sample --model runs/book --length 5000 --temperature 0.5 > text.txt
    chargen sample --seed "Once" --temperature 0
    """,
)
@click.option(
    "--model", type=click.Path(exists=True, path_type=Path), help="A run or a model file. [default: the newest run]"
)
@click.option("--seed", default="", help="The text to continue.")
@options(SampleConfig)
def sample(model: Path | None, seed: str, **values: Any) -> None:
    """Write text: the seed, and what the model makes of it."""
    from chargen.clone import Clone
    from chargen.generate import generate
    from chargen.vocabulary import name

    config = configured(SampleConfig, values)
    clone = Clone.open(model)
    read, skipped = clone.vocabulary.repair(seed)
    if skipped:
        warning = f"the model has never seen {name(skipped)}: left out of the seed"
        if not read:
            raise ChargenError(
                f"the model has never seen {name(skipped)}, and nothing else is in the seed: try another"
            )
        click.echo(f"Warning: {warning}", err=True)
    random_seed = config.random_seed
    if random_seed is None:
        random_seed = secrets.randbelow(2**32)
        if config.temperature:
            click.echo(f"random seed: {random_seed}", err=True)
    sys.stdout.write(read)
    for character in generate(clone, read, config.length, config.temperature, random_seed):
        sys.stdout.write(character)
        sys.stdout.flush()
    if sys.stdout.isatty():
        sys.stdout.write("\n")


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
        try:
            yield
        except BaseException:
            log.seek(0)
            os.write(terminal, log.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
