"""``chargen train``."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from importlib.util import find_spec
from math import prod
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from chargen import ChargenError, process
from chargen.config import BASE, SCRATCH, Execution, ModelConfig, TrainConfig, resumable

if TYPE_CHECKING:
    from chargen.network.model import CharLM
    from chargen.store.run import Run
    from chargen.text.corpus import Corpus
    from chargen.training.jobs import Decision, Job
    from chargen.training.plan import Request

from chargen.commands.common import UNROLLS, Command, Stop, Texts, configured, option_names, options, quiet, say
from chargen.commands.screen import Screen, dropout_line, reading

OLD_TEXT_CHARACTERS = 100_000  # of the parent's text, on which this run is compared with its parent
LENGTHS = {"minutes", "epochs", "steps"}  # options that say how long a run is
MOST_NOTES = 10  # about the text that are shown
SEED_CHARACTERS = 1_000_000  # of the text, in which a seed to suggest is looked for


class Origin(click.Path):
    """What a run begins from: an existing run or model file, or one of two names, which stand before files."""

    def __init__(self) -> None:
        super().__init__(exists=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name or the path; fail if nothing is there."""
        return value if value in (BASE, SCRATCH) else super().convert(value, param, ctx)


@click.command(
    cls=Command,
    short_help="Train a model on texts.",
    groups={
        "How long": "",
        "Network": "",
        "Optimisation": "",
        "Text": "",
        "Machine": "",
        "Where it is kept": "run",
        "Going on": "parent resume",
    },
    epilog="""
    chargen train                                the book that ships with chargen
    chargen train book.txt --epochs 20
    chargen train letters/ diary.txt --layers 2 --units 512
    chargen train 'library/**/*.txt.gz' --minutes 600
    chargen train letters/ --from runs/book      begin with another model
    cat *.txt | chargen train -
    chargen train --resume                       continue the newest run
    chargen train --resume runs/book --epochs 5  train a finished run further
    """,
)
@click.argument("files", nargs=-1, type=Texts())
@options(ModelConfig)
@options(TrainConfig)
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder of the run. [default: runs/<name of the text>]",
)
@click.option(
    "--from",
    "parent",
    type=Origin(),
    metavar=f"{BASE}|{SCRATCH}|PATH",
    help="What the weights begin from. [default: english where it helps]",
)
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[RUN]",
    help="Continue a run bit for bit; without RUN, the newest.",
)
@click.pass_context
def train(
    ctx: click.Context,
    /,
    files: tuple[str, ...],
    run: Path | None,
    parent: str | None,
    resume: str | None,
    **values: Any,
) -> None:
    """Train a model on FILES: texts, compressed or not, folders, patterns, or - for standard input.

    Each file is a document, unless --document or --column says otherwise, and the LSTM's state is reset where a
    document begins. Without FILES it trains on the book that ships with chargen. The result is a run: a folder with the
    best model, a checkpoint, the configuration and the metrics. Ctrl-C stops after the current step; --resume continues
    from there.

    chargen chooses the options marked [chosen] to suit the text, the time and the machine, unless you give them.
    """
    began = time.monotonic()
    explicit = {name for name in ctx.params if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE}
    refuse_together(explicit, parent)
    chief, replicas = machines(values["distribute"])
    # Only the chief's machine has the run.
    request = request_of(explicit, files, parent, resume if chief else None, values)
    if run is not None and chief:
        from chargen.store.run import refuse_taken

        refuse_taken(run)
    if request.resume is not None and not explicit & LENGTHS and request.train.distribute != "workers":
        from chargen.store.run import Run

        if nothing_left(Run(request.resume)):  # without its text, which may be gone
            return
    if find_spec("tensorflow") is None:  # said before the text is read, which may take minutes
        raise ModuleNotFoundError(name="tensorflow")
    decision = decide(request, replicas) if chief else None  # the chief decides, and other workers get its run
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        execution, reason = set_up(request, decision, replicas)
        if decision is not None and decision.run is not None:
            stack.enter_context(decision.run.lock())
        with quiet():
            from chargen.training import distribute

            stack.enter_context(distribute.strategy(request.train.distribute).scope())
        job, model, path = arrange(stack, request, decision, run, execution)
        if resume is not None and nothing_left(job.run, path):
            return
        if resume is None and chief:
            stack.enter_context(job.run.lock())
        stack.enter_context(distribute.together(path))
        show_plan(job, path, reason, decision.reasons if decision else {})
        finished = show_training(job, model, stop, began)
    conclude(job, path, finished=finished, chief=chief)
    if stop.signal:
        ctx.exit(128 + stop.signal)


def refuse_together(explicit: set[str], origin: str | None) -> None:
    """Refuse options that exclude each other."""
    if len(lengths := explicit & LENGTHS) > 1:
        raise click.UsageError(f"{option_names(lengths)} exclude each other: give one of them")
    if "resume" in explicit and (refused := explicit - {"resume", "files"} - resumable()):
        raise click.UsageError(f"{option_names(refused)} cannot be changed with --resume: the run keeps its own")
    if len(parts := explicit & {"document", "column"}) > 1 or (parts and "join" in explicit):
        both = parts | explicit & {"join"}
        raise click.UsageError(f"{option_names(both)} exclude each other: give one of them")
    if "parent" in explicit and origin != SCRATCH and (refused := explicit & ModelConfig.types().keys()):
        raise click.UsageError(f"{option_names(refused)} cannot be changed with --from: the model keeps its own")


def request_of(
    explicit: set[str], files: tuple[str, ...], origin: str | None, resume: str | None, values: dict[str, Any]
) -> Request:
    """Return what the command line asks for."""
    from chargen.store.run import newest
    from chargen.training.base import base_path
    from chargen.training.plan import Request

    if values["cache"] is not None:
        values["cache"] = os.path.abspath(values["cache"])  # noqa: PTH100  # resolve() would follow links
    old = None if resume is None else Path(resume) if resume else newest()
    model = {name: values[name] for name in ModelConfig.types() if values[name] is not None}
    parent = None if origin in (None, SCRATCH) else base_path() if origin == BASE else Path(origin)
    base = base_path() if origin is None and not explicit & ModelConfig.types().keys() else None
    return Request(model, configured(TrainConfig, values), explicit, files, parent, base, old)


def machines(distribute: str) -> tuple[bool, int]:
    """Return whether this process is the chief, and the number of replicas among which each batch is divided."""
    if distribute == "none":
        return True, 1
    with quiet():
        from chargen.training.distribute import replicas, this_worker

        return this_worker(distribute).rank == 0, replicas(distribute)


def decide(request: Request, replicas: int) -> Decision:
    """Decide how a run is trained, with a progress bar while its text is read."""
    from chargen.training import jobs

    with reading() as advance:
        return (jobs.new if request.resume is None else jobs.resume)(request, replicas, advance)


def set_up(request: Request, decision: Decision | None, replicas: int) -> tuple[Execution, str]:
    """Load TensorFlow and give it its threads; return the execution and the reason for its precision."""
    with quiet():
        from chargen.network.execution import choose, own_process

        if decision is None:  # the threads are the worker's own
            execution, reason = choose(request.train, replicas)[0], "as the chief chose"
        elif decision.run is None:
            execution, reason = choose(decision.config.train, replicas)
        else:
            execution, reason = decision.config.execution, "as the run began"
        if process.owned():
            own_process(execution)
    return execution, reason


def arrange(
    stack: ExitStack, request: Request, decision: Decision | None, path: Path | None, execution: Execution
) -> tuple[Job, CharLM, Path]:
    """Return the job, its model, and the chief's path of the run.

    A new run is made when all workers have joined. It is removed again unless they all come to the training.
    """
    from chargen.files.disk import temporary
    from chargen.training import distribute
    from chargen.training.jobs import Job, worker_corpus

    known = decision.run.path if decision is not None and decision.run is not None else None
    with ExitStack() as joining:
        joining.enter_context(distribute.together(known))
        own = None if decision is None else joining.enter_context(decision.begin(path, execution))
        run, path = distribute.broadcast_run(own, own.path if own else stack.enter_context(temporary()))
        job = Job.of(run, decision.corpus if decision else worker_corpus(run, request))
        with quiet():
            return job, job.model(), path


def nothing_left(run: Run, path: Path | None = None) -> bool:
    """Return whether a run is finished and gets no new schedule; if so, say what can be done with it."""
    from chargen.store.run import Progress

    path, checkpoint = path or run.path, run.checkpoint()
    if checkpoint is None or not run.finished(progress := Progress.of(checkpoint)):
        return False
    say(f"{path} is finished, at step {progress.step:,}: there is nothing left to do")
    say(f"train it further with: chargen train --resume {quote(str(path))} --epochs 5", indent=None)
    return True


def show_plan(job: Job, path: Path, reason: str, reasons: Mapping[str, str]) -> None:
    """Say what was read, what was chosen and why, and what will be done."""
    corpus, streams, config = job.corpus, job.streams, job.run.config
    model, training, execution = config.model, config.train, config.execution
    for note in corpus.notes[:MOST_NOTES]:
        say(note)
    if len(corpus.notes) > MOST_NOTES:
        say(f"... {len(corpus.notes):,} notes in all")
    length = f"{training.minutes} minutes" if config.stop is None else f"{config.stop - config.start:,} steps"
    documents = f" in {len(corpus.starts):,} documents" if len(corpus.starts) > 1 else ""
    known = "" if config.known is None else " with those of the model"
    lines = {
        "text": f"{corpus.name}: {len(corpus.ids):,} characters{documents}, {len(corpus.vocabulary)} distinct{known}; "
        f"the last {len(job.validation.ids):,} are for validation",
        "model": model_line(model, corpus),
        **reasons,
        "training": f"{training.batch_size} streams x {training.seq_length} characters, {streams.windows:,} steps an "
        f"epoch, {length}; the last {streams.dropped:,} characters are not read",
        "recipe": f"learning rate {training.learning_rate:g}, {dropout_line(training)}",
        "computing": f"{execution.precision} by {UNROLLS[execution.unroll]}, {execution.threads} threads ({reason})",
        "run": str(path),
    }
    for title, line in lines.items():
        if line:
            say(f"{title:9} {line}", indent=10)


def model_line(model: ModelConfig, corpus: Corpus) -> str:
    """Return the shape and the number of parameters of a model, in a line."""
    from chargen.store.modelfile import weight_shapes

    parameters = sum(prod(shape) for shape in weight_shapes(len(corpus.vocabulary), model).values())
    rank = f", an output layer of rank {model.output_rank}" if model.output_rank else ""
    return f"{model.layers} x {model.units} LSTM{rank}, {parameters:,} parameters"


def show_training(job: Job, model: CharLM, stop: Stop, began: float) -> bool:
    """Train until the run is finished or told to stop; show a progress bar, a table and previews.

    Returns whether the run is finished.
    """
    from chargen.store.run import Progress
    from chargen.training.loop import Session, train

    training = train(Session(job, model), lambda: bool(stop.signal), began)
    with Screen(job, model) as screen, closing(training) as records:
        for record in records:
            screen.show(record)
    checkpoint = job.run.checkpoint()
    return checkpoint is not None and job.run.finished(Progress.of(checkpoint))


def conclude(job: Job, path: Path, *, finished: bool, chief: bool) -> None:
    """Say what can be done next."""
    if not finished:
        say(f"stopped; go on with: chargen train --resume {quote(str(path))}", indent=None)
        return
    from chargen.training.base import base_path
    from chargen.writing.generate import seed_of

    parent = job.run.config.parent
    if chief and parent not in (None, str(base_path())):  # the base model's texts are not at hand
        say(old_text(Path(parent), path), indent=10)

    if job.corpus.itemized:
        say(f"done; write with: chargen sample --model {quote(str(path))} --items 20", indent=None)
        return
    seed = seed_of(job.corpus.vocabulary.decode(job.training.ids[:SEED_CHARACTERS]))
    suggested = f" --seed {quote(seed)}" if seed else ""
    say(f"done; write with: chargen sample --model {quote(str(path))}{suggested}", indent=None)


def old_text(parent: Path, run: Path) -> str:
    """Return, in a line, how well the parent of a run and the run predict the validation text of the parent."""
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
        return f"old text  not compared: it cannot be read: {error}"
    ids, starts = corpus.split(owner.config.train)[1]
    ids, starts = ids[:OLD_TEXT_CHARACTERS], starts[starts < OLD_TEXT_CHARACTERS]
    nats = []
    for file in (before, after):
        execution, _ = choose(TrainConfig(precision="float32"))
        lm = CharLM.of(file, execution)
        nats.append(score(corpus.vocabulary.decode(ids), file.vocabulary, in_order(lm), starts).nats_per_character)
    return (
        f"old text  {corpus.name}, {len(ids):,} characters of its validation text: {bits(nats[0]):.3f} bpc before, "
        f"{bits(nats[1]):.3f} now"
    )
