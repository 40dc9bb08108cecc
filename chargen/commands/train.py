"""``chargen train``."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from math import prod
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from chargen import ChargenError
from chargen.config import ModelConfig, TrainConfig

if TYPE_CHECKING:
    from chargen.corpus import Corpus, Part
    from chargen.model import CharLM
    from chargen.run import Run
    from chargen.streams import Streams
    from chargen.train import Validation
    from chargen.vocabulary import Vocabulary

from chargen.shell import UNROLLS, Command, Stop, Texts, configured, options, quiet

RESUMABLE = {*("resume", "files", "minutes", "epochs", "steps", "patience", "cache")}  # what --resume goes with
SHAPE = {"layers", "units", "embedding"}  # what --from doesn't
OLD_TEXT = 100_000  # characters of the old text, at the most, that tell what was forgotten
TASTE = 96  # characters written at each validation


@click.command(
    cls=Command,
    epilog="""
    chargen train                                     the book that ships with chargen
    chargen train book.txt --epochs 20
    chargen train letters/ diary.txt --layers 2 --units 512
    chargen train 'library/**/*.txt.gz' --minutes 600
    chargen train letters/ --from runs/book           go on from another model
    cat *.txt | chargen train -
    chargen train --resume                            go on with the newest run
    chargen train --resume runs/book --epochs 5       train a finished run further
    """,
)
@click.argument("files", nargs=-1, type=Texts())
@options(ModelConfig, planning=True)
@options(TrainConfig, planning=True)
@click.option("--run", type=click.Path(path_type=Path), help="Folder for the run. [default: runs/<name of the text>]")
@click.option(
    "--from",
    "parent",
    type=click.Path(exists=True, path_type=Path),
    help="A run or a model file to begin from; characters that are new to it are added.",
)
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[RUN]",
    help="Go on with a run where it stopped, bit for bit; without RUN, the newest.",
)
@click.pass_context
def train(
    ctx: click.Context,
    /,
    files: tuple[str, ...],
    run: Path | None,
    parent: Path | None,
    resume: str | None,
    **values: Any,
) -> None:
    """Train a model on FILES: texts, compressed or not, folders, patterns, or - for standard input.

    Each file is a document, where the LSTM's state restarts. Without FILES it is the book that ships with chargen. What
    comes of it is a run: a folder with the best model, a checkpoint, the configuration and the metrics. Ctrl-C stops
    after the step it is at; --resume goes on from there.
    """
    asked = {name for name in ctx.params if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE}
    lengths = [f"--{name}" for name in ("minutes", "epochs", "steps") if name in asked]
    if len(lengths) > 1:
        raise click.UsageError(f"{' and '.join(lengths)} exclude each other: give one of them")
    refused = sorted(f"--{'from' if name == 'parent' else name.replace('_', '-')}" for name in asked - RESUMABLE)
    if resume is not None and refused:
        raise click.UsageError(f"{', '.join(refused)} can't be changed on --resume: the run keeps its own")
    if parent is not None and (shape := sorted(f"--{name}" for name in asked & SHAPE)):
        raise click.UsageError(f"{', '.join(shape)} can't be changed with --from: the model keeps its own")
    from chargen import corpus, plan
    from chargen.documents import STANDARD_INPUT
    from chargen.modelfile import grown
    from chargen.run import Run, find_model, newest, open_model
    from chargen.streams import Streams

    began = time.monotonic()
    if values["cache"] is not None:
        values["cache"] = os.path.abspath(values["cache"])  # noqa: PTH100  # a link keeps its name
    training = configured(TrainConfig, values)
    old = None if parent is None else open_model(parent)
    if resume is None:
        known = None if old is None else old.vocabulary
        text = corpus.read(files, training, known, corpus.cache_folder(training))
        speed = plan.machine(training)
        if parent is None or old is None:
            config = plan.plan(text, configured(ModelConfig, values), training, asked, speed)
        else:
            config = plan.plan(text, old.config, training, asked | SHAPE, speed)
            config = replace(config, parent=str(find_model(parent).resolve()), known=known)
    else:
        opened = Run(Path(resume) if resume else newest())
        if "cache" in asked:
            opened.config = replace(opened.config, train=replace(opened.config.train, cache=training.cache))
        text = opened.corpus(files)
        config = plan.resume(opened, text, training, asked)
        if files and STANDARD_INPUT not in files:
            config = replace(config, files=text.files)
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        part, validation = text.split(config.train.validation)
        streams = Streams(part.ids, config.train.batch_size, config.train.seq_length, part.starts)
        with quiet():
            from chargen.model import CharLM
            from chargen.unroll import choose, set_threads

            reason = "as the run began"
            if resume is None:
                execution, reason = choose(config.model, config.train)
                config = replace(config, execution=execution)
            set_threads(config.execution)
            model = CharLM(len(text.vocabulary), config.model, config.train.random_seed, config.execution)
            if old is not None:
                model.assign(grown(old, text.vocabulary, model.arrays()))
        if resume is None:
            opened = Run.create(run, config, text)
        stack.enter_context(opened.lock())
        if resume is not None:
            opened.reconfigure(config)
        why = (
            ""
            if resume is not None or old is not None or "units" in asked
            else plan.reason(config, len(text.vocabulary), speed)
        )
        show_plan(opened, text, streams, reason, why)
        finished = show_training(model, opened, text, streams, validation, stop, began)
    path = quote(str(opened.path))
    if finished and opened.config.parent is not None:
        click.echo(old_text(Path(opened.config.parent), opened))
    if finished:
        click.echo(f'done; write with: chargen sample --model {path} --seed "The"')
    else:
        click.echo(f"stopped; go on with: chargen train --resume {path}")
    if stop.signal:
        ctx.exit(128 + stop.signal)


def show_plan(run: Run, corpus: Corpus, streams: Streams, reason: str, why: str) -> None:
    """Say what was read, what was chosen, and what will be done."""
    from chargen.modelfile import weight_shapes

    model, training, execution = run.config.model, run.config.train, run.config.execution
    held_out = len(corpus.split(training.validation)[1].ids)
    parameters = sum(prod(shape) for shape in weight_shapes(len(corpus.vocabulary), model).values())
    for note in corpus.notes:
        click.echo(note)
    stop = run.config.stop
    length = f"{training.minutes} minutes" if stop is None else f"{stop - run.config.start:,} steps"
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
        "run": str(run.path),
    }
    for title, line in lines.items():
        if line:
            click.echo(f"{title:9} {line}")


def show_training(
    model: CharLM, run: Run, corpus: Corpus, streams: Streams, validation: Part, stop: Stop, began: float
) -> bool:
    """Train until the run is finished or is told to stop; show a progress bar, a table and what the model writes.

    Returns whether the run is finished.
    """
    from tqdm import tqdm

    from chargen.run import Progress
    from chargen.train import Planned, Recovery, Step, Validation, train

    window = streams.batch_size * streams.seq_length
    before = corpus.vocabulary.decode(validation.ids[:TASTE])
    titled = False
    bar = tqdm(
        total=None if run.config.stop is None else run.config.stop * window,
        bar_format="{desc}|{bar}| {percentage:3.0f}% {rate_noinv_fmt} {remaining} left",
        unit=" characters",
        unit_scale=True,
        disable=None,  # where standard error is no terminal
        leave=False,
    )
    with bar, closing(train(model, corpus.vocabulary, streams, validation, run, began)) as records:
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
            if stop.signal:
                break
    checkpoint = run.checkpoint()
    return checkpoint is not None and run.finished(Progress.of(checkpoint))


def old_text(parent: Path, run: Run) -> str:
    """Return, in a line, how well the model that a run began from predicts its own text, and how well this one does."""
    from chargen.bits import bits
    from chargen.config import TrainConfig
    from chargen.evaluate import in_order, score
    from chargen.model import CharLM
    from chargen.run import Run, open_model
    from chargen.unroll import choose

    try:
        before, after = open_model(parent), open_model(run.path)
        owner = Run(parent.parent)
        corpus = owner.corpus()
    except ChargenError as error:
        return f"old text  not compared, as it can't be read: {error}"
    ids, starts = corpus.split(owner.config.train.validation)[1]
    ids, starts = ids[:OLD_TEXT], starts[starts < OLD_TEXT]
    nats = []
    for file in (before, after):
        execution, _ = choose(file.config, TrainConfig(precision="float32"))
        lm = CharLM.of(file, execution)
        nats.append(score(corpus.vocabulary.decode(ids), file.vocabulary, in_order(lm), starts).nats_per_character)
    return (
        f"old text  {corpus.name}, {len(ids):,} characters of its validation: {bits(nats[0]):.3f} bpc before, "
        f"{bits(nats[1]):.3f} now"
    )


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
    from chargen.modelfile import never_drawn

    clone = Clone(never_drawn(model.arrays(), vocabulary), vocabulary)
    clone.feed(before)
    return " ".join("".join(clone.generate(TASTE, random_seed=random_seed)).split())
