"""``chargen train``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource

from chargen import ChargenError, process
from chargen.config import Execution, ModelConfig, TrainConfig

if TYPE_CHECKING:
    from chargen.network.model import CharLM
    from chargen.store.modelfile import ModelFile
    from chargen.store.run import Run, RunConfig
    from chargen.text.corpus import Advance, Corpus, Part
    from chargen.text.streams import Streams
    from chargen.text.vocabulary import Vocabulary
    from chargen.training.loop import Planned, Recovery, Validation

from chargen.commands.common import UNROLLS, Command, Stop, Texts, configured, options, quiet, say, typed
from chargen.terminal import cut, fitted, width

RESUMABLE = {*("resume", "files", "minutes", "epochs", "steps", "patience", "cache", "distribute")}  # what --resume has
SHAPE = {"layers", "units", "embedding", "output_rank"}  # what --from doesn't
OLD_TEXT = 100_000  # characters of the old text, at the most, that tell what was forgotten
NOTES = 10  # on the text that are shown; a library may have very many
SEEN = 1_000_000  # characters in which a seed to advise is looked for
TASTE = 96  # characters written at each validation, or more where a terminal has room for them


@click.command(
    cls=Command,
    epilog="""
    chargen train                                the book that ships with chargen
    chargen train book.txt --epochs 20
    chargen train letters/ diary.txt --layers 2 --units 512
    chargen train 'library/**/*.txt.gz' --minutes 600
    chargen train letters/ --from runs/book      go on from another model
    cat *.txt | chargen train -
    chargen train --resume                       go on with the newest run
    chargen train --resume runs/book --epochs 5  train a finished run further
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
    if len(lengths := asked & {"minutes", "epochs", "steps"}) > 1:
        raise click.UsageError(f"{typed(lengths)} exclude each other: give one of them")
    if resume is not None and (refused := asked - RESUMABLE):
        raise click.UsageError(f"{typed(refused)} can't be changed on --resume: the run keeps its own")
    if parent is not None and (shape_asked := asked & SHAPE):
        raise click.UsageError(f"{typed(shape_asked)} can't be changed with --from: the model keeps its own")
    from chargen.files.disk import temporary
    from chargen.store.run import Run, newest, refuse_taken
    from chargen.text.streams import Streams

    began = time.monotonic()
    if values["cache"] is not None:
        values["cache"] = os.path.abspath(values["cache"])  # noqa: PTH100  # a link keeps its name
    training, shape = configured(TrainConfig, values), configured(ModelConfig, values)
    chief, replicas = machines(training.distribute)
    if chief and run is not None:
        refuse_taken(run)
    if resume is not None and not lengths and training.distribute != "workers":
        old = Run(Path(resume) if resume else newest())
        if nothing_left(old, old.path):
            return
    # The chief decides all there is to decide; the others get it with the run.
    chosen = decide(files, parent, resume, shape, training, asked, replicas) if chief else None
    reason = "as the run began"
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        with quiet():
            from chargen.network.execution import choose, own_process
            from chargen.network.model import CharLM
            from chargen.training import distribute

            if chosen is None:  # the threads are a worker's own
                execution, reason = choose(training, replicas)[0], "as the chief chose"
            elif chosen.run is None:
                execution, reason = choose(chosen.config.train, replicas)
            else:
                execution = chosen.config.execution
            if process.owned():
                own_process(execution)
        if chosen is not None and chosen.run is not None:
            stack.enter_context(chosen.run.lock())
        with quiet():
            stack.enter_context(distribute.strategy(training.distribute).scope())
        # A new run is made when all workers are there, and removed again unless they all come to training.
        known = chosen.run.path if chosen is not None and chosen.run is not None else None
        with distribute.together(known), beginning(chosen, run, execution) as own:
            opened, path = distribute.same_run(own, own.path if own else stack.enter_context(temporary()))
            config = opened.config
            text = chosen.text if chosen else same_text(opened, files, training)
            part, validation = text.split(config.train.validation, config.train.held_out)
            streams = Streams(part.ids, config.train.batch_size, config.train.seq_length, part.starts)
            with quiet():
                size, seed = len(text.vocabulary), config.train.random_seed
                model = CharLM(size, config.model, seed, config.execution, part.log_shares(size))
        if resume is not None and nothing_left(opened, path):
            return
        if own is not None and resume is None:
            stack.enter_context(own.lock())
        stack.enter_context(distribute.together(path))
        show_plan(path, config, text, streams, reason, chosen.why if chosen else "")
        finished = show_training(model, opened, text, streams, validation, stop, began)
    told = quote(str(path))
    if finished and chief and config.parent is not None:
        say(old_text(Path(config.parent), path), indent=10)
    if finished:
        from chargen.writing.generate import seed_of

        begin = seed_of(text.vocabulary.decode(part.ids[:SEEN]))
        advised = f" --seed {quote(begin)}" if begin else ""
        say(f"done; write with: chargen sample --model {told}{advised}", indent=None)
    else:
        say(f"stopped; go on with: chargen train --resume {told}", indent=None)
    if stop.signal:
        ctx.exit(128 + stop.signal)


class Chosen(NamedTuple):
    """What the chief has decided."""

    run: Run | None  # that is to go on; a new one is still to be made
    config: RunConfig
    text: Corpus
    why: str  # it has the sizes it has
    parent: ModelFile | None = None  # that a new run begins from


@contextmanager
def beginning(chosen: Chosen | None, path: Path | None, execution: Execution) -> Iterator[Run | None]:
    """Yield the chief's run, None in other workers; a new one is removed again if what is done meanwhile fails."""
    from chargen.store.run import Run

    if chosen is None:
        yield None
        return
    config = replace(chosen.config, execution=execution)
    if chosen.run is not None:
        chosen.run.reconfigure(config)
        yield chosen.run
        return
    with Run.begin(path, config, chosen.text, chosen.parent) as run:
        yield run


def nothing_left(run: Run, path: Path) -> bool:
    """Tell whether a run is finished, and if so, say what can be done with it."""
    from chargen.store.run import Progress

    checkpoint = run.checkpoint()
    if checkpoint is None or not run.finished(progress := Progress.of(checkpoint)):
        return False
    say(f"{path} is finished, at step {progress.step:,}: there is nothing left to do")
    say(f"train it further with: chargen train --resume {quote(str(path))} --epochs 5", indent=None)
    return True


def machines(distribute: str) -> tuple[bool, int]:
    """Return whether this process is the chief, and over how many replicas each batch is divided."""
    if distribute == "none":
        return True, 1
    with quiet():
        from chargen.training.distribute import place, replicas

        return place(distribute).number == 0, replicas(distribute)


def decide(
    files: tuple[str, ...],
    parent: Path | None,
    resume: str | None,
    shape: ModelConfig,
    training: TrainConfig,
    asked: set[str],
    replicas: int,
) -> Chosen:
    """Plan a new run, or how an old one goes on."""
    from chargen.store.modelfile import ModelFile
    from chargen.store.run import Run, find_model, newest
    from chargen.text import corpus
    from chargen.text.documents import STANDARD_INPUT
    from chargen.text.streams import Streams
    from chargen.training import plan

    if resume is not None:
        run = Run(Path(resume) if resume else newest())
        if "cache" in asked:
            run.config = replace(run.config, train=replace(run.config.train, cache=training.cache))
        with reading() as advance:
            text = run.corpus(files, advance)
        config = plan.resume(run, text, training, asked, replicas)
        run.metrics()  # damaged ones are told of before TensorFlow is waited for
        if files and STANDARD_INPUT not in files:
            config = replace(config, files=text.files)
        return Chosen(run, config, text, "")
    old = None if parent is None else ModelFile.read(find_model(parent), as_trained=True)
    known = None if old is None else old.vocabulary
    with reading() as advance:
        text = corpus.read(files, training, known, corpus.cache_folder(training), advance)
    speed = replicas * plan.machine(training)
    if parent is not None and old is not None:
        config = plan.plan(text, old.config, training, asked | SHAPE, speed, replicas)
        config = replace(config, parent=str(find_model(parent).resolve()), known=known)
    else:
        config = plan.plan(text, shape, training, asked, speed, replicas)
    part, _ = text.split(config.train.validation, config.train.held_out)
    try:
        Streams(part.ids, config.train.batch_size, config.train.seq_length)
    except ChargenError as error:  # of a text that is too short
        raise ChargenError(f"{text.name}: {error}") from None
    why = "" if old is not None or "units" in asked else plan.reason(config, len(text.vocabulary), speed)
    return Chosen(None, config, text, why, old)


@contextmanager
def reading() -> Iterator[Advance]:
    """Show that a text is being read, if it takes long; yield what is to be called with the characters that were."""
    from tqdm import tqdm

    with tqdm(
        desc="reading", unit=" characters", unit_scale=True, miniters=1, delay=1, disable=None, leave=False
    ) as bar:
        yield bar.update


def same_text(run: Run, files: tuple[str, ...], training: TrainConfig) -> Corpus:
    """Return the text of the chief's run, as a worker finds it, in ``files`` if it is there that it has it."""
    from chargen.text.documents import STANDARD_INPUT

    run.config = replace(run.config, train=replace(run.config.train, cache=training.cache))  # a worker's own
    try:
        return run.corpus(() if STANDARD_INPUT in files else files)
    except ChargenError as error:
        raise ChargenError(f"this worker hasn't got the chief's text: {error}") from None


def show_plan(path: Path, config: RunConfig, corpus: Corpus, streams: Streams, reason: str, why: str) -> None:
    """Say what was read, what was chosen, and what will be done."""
    from chargen.store.modelfile import weight_shapes

    model, training, execution = config.model, config.train, config.execution
    held_out = len(corpus.split(training.validation, training.held_out)[1].ids)
    parameters = sum(prod(shape) for shape in weight_shapes(len(corpus.vocabulary), model).values())
    for note in corpus.notes[:NOTES]:
        say(note)
    if len(corpus.notes) > NOTES:
        say(f"... and so on, {len(corpus.notes):,} notes in all")
    rank = f", a last layer of rank {model.output_rank}" if model.output_rank else ""
    length = f"{training.minutes} minutes" if config.stop is None else f"{config.stop - config.start:,} steps"
    documents = f" in {len(corpus.starts):,} documents" if len(corpus.starts) > 1 else ""
    lines = {
        "text": f"{corpus.name}: {len(corpus.ids):,} characters{documents}, {len(corpus.vocabulary)} distinct; "
        f"the last {held_out:,} are for validation",
        "model": f"{model.layers} x {model.units} LSTM{rank}, {parameters:,} parameters",
        "sizes": why,
        "training": f"{training.batch_size} streams x {training.seq_length} characters, {streams.windows:,} steps an "
        f"epoch, {length}; the last {streams.dropped:,} characters are not read",
        "recipe": f"learning rate {training.learning_rate:g}, {blanked_line(training)}",
        "computing": f"{execution.precision} by {UNROLLS[execution.unroll]}, {execution.threads} threads ({reason})",
        "run": str(path),
    }
    for title, line in lines.items():
        if line:
            say(f"{title:9} {line}", indent=10)


def blanked_line(training: TrainConfig) -> str:
    """Return, in a line, what is blanked while a model learns, as far as it is known."""
    shares = {"dropout": training.dropout, "weight drop": training.weight_drop}
    known = [f"{name} {share:g}" for name, share in shares.items() if share is not None]
    later = " and ".join(name for name, share in shares.items() if share is None)
    return ", ".join([*known, f"{later} when the speed is known"] if later else known)


def show_training(
    model: CharLM, run: Run, corpus: Corpus, streams: Streams, validation: Part, stop: Stop, began: float
) -> bool:
    """Train until the run is finished or is told to stop; show a progress bar, a table and what the model writes.

    Returns whether the run is finished.
    """
    from tqdm import tqdm

    from chargen.store.run import Progress
    from chargen.training.loop import Planned, Recovery, Step, Validation, train

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
                bar.write(fitted(planned_line(record, run.config.train), sys.stdout, indent=10), file=sys.stdout)
            elif isinstance(record, Validation):
                if not titled:
                    bar.write(TITLES, file=sys.stdout)
                    titled = True
                bar.write(table_line(record), file=sys.stdout)
                told = taste(model, corpus.vocabulary, before, record, max(TASTE, width(sys.stdout)))
                bar.write(cut(f"  {told}", sys.stdout), file=sys.stdout)
            elif isinstance(record, Recovery):
                bar.write(fitted(recovery_line(record), sys.stdout), file=sys.stdout)
            sys.stdout.flush()
    checkpoint = run.checkpoint()
    return checkpoint is not None and run.finished(Progress.of(checkpoint))


def old_text(parent: Path, run: Path) -> str:
    """Return, in a line, how well the model that a run began from predicts its own text, and how well this one does."""
    from chargen.bits import bits
    from chargen.config import TrainConfig
    from chargen.network.execution import choose
    from chargen.network.model import CharLM
    from chargen.store.run import Run, open_model
    from chargen.training.evaluate import in_order, score

    try:
        before, after = open_model(parent), open_model(run)
        owner = Run(parent.parent)
        corpus = owner.corpus()
    except ChargenError as error:
        return f"old text  not compared, as it can't be read: {error}"
    ids, starts = corpus.split(owner.config.train.validation, owner.config.train.held_out)[1]
    ids, starts = ids[:OLD_TEXT], starts[starts < OLD_TEXT]
    nats = []
    for file in (before, after):
        execution, _ = choose(TrainConfig(precision="float32"))
        lm = CharLM.of(file, execution)
        nats.append(score(corpus.vocabulary.decode(ids), file.vocabulary, in_order(lm), starts).nats_per_character)
    return (
        f"old text  {corpus.name}, {len(ids):,} characters of its validation: {bits(nats[0]):.3f} bpc before, "
        f"{bits(nats[1]):.3f} now"
    )


TITLES = """\
                          bits per character
    step   epoch    time  training  validation      rate  characters/s"""


def planned_line(planned: Planned, training: TrainConfig) -> str:
    """Return, in a line, how long the training will be, now that the speed is known."""
    return (
        f"time      {planned.characters_per_second:,.0f} characters a second: {planned.stop:,} steps, "
        f"{planned.epochs:.1f} epochs; {blanked_line(training)}"
    )


def recovery_line(recovery: Recovery) -> str:
    """Return, in a line, from where training goes on after a step that failed."""
    return (
        f"step {recovery.failed:,} gave a loss that is not finite: back to step {recovery.step:,}, with "
        f"{recovery.factor:g} of the learning rate"
    )


def table_line(validation: Validation) -> str:
    """Return a validation as a line of the table under TITLES."""
    r = validation.record
    minutes, seconds = divmod(round(r["seconds"]), 60)
    return (
        f"{r['step']:8,}  {r['epoch']:6.2f}  {minutes:3}:{seconds:02}  {r['training_bpc']:8.3f}  "
        f"{r['validation_bpc']:10.3f}  {r['learning_rate']:8.6f}  {r['characters_per_second']:12,}"
        f"{'  best' if validation.best else ''}"
    )


def taste(model: CharLM, vocabulary: Vocabulary, before: str, validation: Validation, length: int) -> str:
    """Return a line of what the model, just validated, goes on with after the text ``before``."""
    from chargen.store.modelfile import ready, with_temperature
    from chargen.writing.clone import Clone

    weights = with_temperature(model.arrays(), validation.record["temperature"])
    clone = Clone(ready(weights, vocabulary), vocabulary)
    clone.feed(before)
    return " ".join("".join(clone.generate(length, random_seed=validation.record["step"])).split())
