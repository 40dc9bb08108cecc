"""``chargen train``."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from math import prod
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource

from chargen import ChargenError
from chargen.config import ModelConfig, TrainConfig

if TYPE_CHECKING:
    from chargen.corpus import Corpus
    from chargen.model import CharLM
    from chargen.run import Run, RunConfig
    from chargen.streams import Streams
    from chargen.train import Validation
    from chargen.vocabulary import Ids, Vocabulary

from chargen.shell import UNROLLS, Command, Stop, configured, options, quiet

RESUMABLE = {
    "resume",
    "files",
    "minutes",
    "epochs",
    "steps",
    "patience",
    "distribute",
}  # what --resume can be given beside it
TASTE = 96  # characters written at each validation


@click.command(
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
@options(ModelConfig, planning=True)
@options(TrainConfig, planning=True)
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
    lengths = [f"--{name}" for name in ("minutes", "epochs", "steps") if name in asked]
    if len(lengths) > 1:
        raise click.UsageError(f"{' and '.join(lengths)} exclude each other: give one of them")
    refused = sorted(f"--{name.replace('_', '-')}" for name in asked - RESUMABLE)
    if resume is not None and refused:
        raise click.UsageError(f"{', '.join(refused)} can't be changed on --resume: the run keeps its own")
    from chargen.run import Run
    from chargen.streams import Streams

    began = time.monotonic()
    training, shape = configured(TrainConfig, values), configured(ModelConfig, values)
    chief, replicas = machines(training.distribute)
    # The chief decides all there is to decide; the others get it with the run.
    chosen = decide(files, resume, shape, training, asked, replicas) if chief else None
    opened, reason = None, "as the run began"
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        with quiet():
            from chargen import distribute
            from chargen.model import CharLM
            from chargen.unroll import choose, set_threads

            if chosen is None:  # the threads are a worker's own
                execution, reason = choose(shape, training, replicas)[0], "as the chief chose"
            elif chosen.run is None:
                execution, reason = choose(chosen.config.model, chosen.config.train, replicas)
            else:
                execution = chosen.config.execution
            set_threads(execution)
        if chosen is not None:
            config = replace(chosen.config, execution=execution)
            opened = chosen.run or Run.create(run, config, chosen.text)
            stack.enter_context(opened.lock())
            opened.reconfigure(config)
        with quiet():
            stack.enter_context(distribute.strategy(training.distribute).scope())
        with distribute.together():
            copy = Path(stack.enter_context(TemporaryDirectory(prefix="chargen-")))
            opened, path = distribute.same_run(opened, copy)
        stack.enter_context(distribute.together(path))
        config = opened.config
        text = chosen.text if chosen else same_text(opened, files)
        ids, validation = text.split(config.train.validation)
        streams = Streams(ids, config.train.batch_size, config.train.seq_length)
        try:
            with quiet():
                model = CharLM(len(text.vocabulary), config.model, config.train.random_seed, config.execution)
        except ChargenError:
            if resume is None:
                opened.discard()
            raise
        show_plan(path, config, text, streams, reason, chosen.why if chosen else "")
        finished = show_training(model, opened, text, streams, validation, stop, began)
    told = quote(str(path))
    if finished:
        click.echo(f'done; write with: chargen sample --model {told} --seed "The"')
    else:
        click.echo(f"stopped; go on with: chargen train --resume {told}")
    if stop.signal:
        ctx.exit(128 + stop.signal)


class Chosen(NamedTuple):
    """What the chief has decided."""

    run: Run | None  # that is to go on; a new one is still to be made
    config: RunConfig
    text: Corpus
    why: str  # it has the sizes it has


def machines(distribute: str) -> tuple[bool, int]:
    """Return whether this process is the chief, and over how many replicas each batch is divided."""
    if distribute == "none":
        return True, 1
    with quiet():
        from chargen.distribute import place, replicas

        return place(distribute).number == 0, replicas(distribute)


def decide(
    files: tuple[str, ...],
    resume: str | None,
    shape: ModelConfig,
    training: TrainConfig,
    asked: set[str],
    replicas: int,
) -> Chosen:
    """Plan a new run, or how an old one goes on."""
    from chargen import corpus, plan
    from chargen.run import Run, newest
    from chargen.streams import Streams

    if resume is not None:
        run = Run(Path(resume) if resume else newest())
        text = run.corpus(files)
        config = plan.resume(run, text, training, asked, replicas)
        if files and corpus.STANDARD_INPUT not in files:
            config = replace(config, files=text.files)
        return Chosen(run, config, text, "")
    text = corpus.read(files, training.encoding)
    speed = replicas * plan.machine(training)
    config = plan.plan(text, shape, training, asked, speed, replicas)
    ids, _ = text.split(config.train.validation)
    Streams(ids, config.train.batch_size, config.train.seq_length)  # refuses a text that is too short
    return Chosen(None, config, text, "" if "units" in asked else plan.reason(config, len(text.vocabulary), speed))


def same_text(run: Run, files: tuple[str, ...]) -> Corpus:
    """Return the text of the chief's run, as a worker finds it, in ``files`` if it is there that it has it."""
    from chargen.corpus import STANDARD_INPUT

    try:
        return run.corpus(() if STANDARD_INPUT in files else files)
    except ChargenError as error:
        raise ChargenError(f"this worker hasn't got the chief's text: {error}") from None


def show_plan(path: Path, config: RunConfig, corpus: Corpus, streams: Streams, reason: str, why: str) -> None:
    """Say what was read, what was chosen, and what will be done."""
    from chargen.modelfile import weight_shapes

    model, training, execution = config.model, config.train, config.execution
    held_out = len(corpus.split(training.validation)[1])
    parameters = sum(prod(shape) for shape in weight_shapes(len(corpus.vocabulary), model).values())
    for note in corpus.notes:
        click.echo(note)
    length = f"{training.minutes} minutes" if config.stop is None else f"{config.stop - config.start:,} steps"
    lines = {
        "text": f"{corpus.name}: {len(corpus.ids):,} characters, {len(corpus.vocabulary)} distinct; "
        f"the last {held_out:,} are for validation",
        "model": f"{model.layers} x {model.units} LSTM, {parameters:,} parameters",
        "sizes": why,
        "training": f"{training.batch_size} streams x {training.seq_length} characters, {streams.windows:,} steps an "
        f"epoch, {length}; the last {streams.dropped:,} characters are not read",
        "recipe": f"learning rate {training.learning_rate:g}, dropout {training.dropout:g}, "
        f"weight drop {training.weight_drop:g}",
        "computing": f"{execution.precision} by {UNROLLS[execution.unroll]}, {execution.threads} threads ({reason})",
        "run": str(path),
    }
    for title, line in lines.items():
        if line:
            click.echo(f"{title:9} {line}")


def show_training(
    model: CharLM, run: Run, corpus: Corpus, streams: Streams, validation: Ids, stop: Stop, began: float
) -> bool:
    """Train until the run is finished or is told to stop; show a progress bar, a table and what the model writes.

    Returns whether the run is finished.
    """
    from tqdm import tqdm

    from chargen.run import Progress
    from chargen.train import Planned, Recovery, Step, Validation, train

    window = streams.batch_size * streams.seq_length
    before = corpus.vocabulary.decode(validation[:TASTE])
    titled = False
    bar = tqdm(
        total=None if run.config.stop is None else run.config.stop * window,
        bar_format="{desc}|{bar}| {percentage:3.0f}% {rate_noinv_fmt} {remaining} left",
        unit=" characters",
        unit_scale=True,
        disable=None,  # where standard error is no terminal
        leave=False,
    )
    training = train(model, corpus.vocabulary, streams, validation, run, began, lambda: bool(stop.signal))
    with bar, closing(training) as records:
        for record in records:
            if isinstance(record, Step):
                if not bar.n:
                    bar.initial = bar.n = bar.last_print_n = (record.step - 1) * window
                bar.set_description_str(f"epoch {record.epoch:.2f}  {record.bpc:.3f} bpc", refresh=False)
                bar.update(record.step * window - bar.n)
            elif isinstance(record, Planned):
                bar.total = record.stop * window
                bar.write(
                    f"time      {record.characters_per_second:,.0f} characters a second: {record.stop:,} steps, "
                    f"{record.epochs:.1f} epochs",
                    file=sys.stdout,
                )
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
