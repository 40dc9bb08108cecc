"""The start of a training: what is decided before it, and how its parts are put together.

The command, the tests, the benchmarks and the lessons all start a training here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from chargen import ChargenError
from chargen.config import Execution
from chargen.files.reading import errors_of
from chargen.store.modelfile import ADVICE, ModelFile
from chargen.store.run import Run, RunConfig, find_model
from chargen.text.corpus import Advance, Corpus, Part, cache_folder, read
from chargen.text.sources import STANDARD_INPUT
from chargen.text.streams import Streams
from chargen.text.vocabulary import Vocabulary
from chargen.training import plan
from chargen.training.base import reading
from chargen.training.plan import Machine, Request

if TYPE_CHECKING:
    from chargen.network.model import CharLM


@dataclass(frozen=True)
class Job:
    """A run and its text, arranged as the run reads it."""

    run: Run
    corpus: Corpus
    training: Part
    validation: Part
    streams: Streams

    @classmethod
    def of(cls, run: Run, corpus: Corpus) -> Job:
        """Arrange the text of a run. Raises ChargenError if the text is too short."""
        settings = run.config.train
        training, validation = corpus.split(settings)
        streams = Streams(training.ids, settings.batch_size, settings.seq_length, training.starts)
        return cls(run, corpus, training, validation, streams)

    def model(self) -> CharLM:
        """Return the run's model with its first weights, in the tf.distribute strategy in scope."""
        from chargen.network.model import CharLM

        characters, config = len(self.corpus.vocabulary), self.run.config
        shares = self.training.log_shares(characters)
        return CharLM(characters, config.model, config.train.random_seed, config.execution, shares)


@dataclass(frozen=True)
class Decision:
    """What the chief decides: everything but how the model is computed."""

    config: RunConfig
    corpus: Corpus
    run: Run | None = None  # the run that goes on; a new one is still to be made
    reasons: Mapping[str, str] = field(default_factory=dict)  # lines about what was chosen, by their titles
    parent: ModelFile | None = None  # the model that a new run begins from

    @contextmanager
    def begin(self, path: Path | None, execution: Execution) -> Iterator[Run]:
        """Yield the run with its execution. A new run is removed again if what is done meanwhile fails."""
        config = replace(self.config, execution=execution)
        if self.run is not None:
            self.run.reconfigure(config)
            yield self.run
            return
        with Run.begin(path, config, self.corpus, self.parent) as run:
            yield run


class _Parent(NamedTuple):
    """A model that a new run begins from."""

    path: Path
    model: ModelFile

    @classmethod
    def at(cls, path: Path) -> _Parent:
        """Read a run or a model file."""
        found = find_model(path)
        model = ModelFile.read(found)
        with errors_of(found, ADVICE):
            return cls(found, model.for_training())


def new(request: Request, replicas: int, advance: Advance = lambda characters: None) -> Decision:
    """Decide how a new run is trained. ``advance`` is called with the number of characters just read.

    Raises ChargenError if a text or the parent cannot be read, or if the text is too short.
    """
    machine = Machine(replicas * plan.training_speed(request.train), replicas)
    parent, begins = None if request.parent is None else _Parent.at(request.parent), ""

    def chosen(corpus: Corpus) -> Vocabulary | None:
        nonlocal parent, begins
        assert request.base is not None
        base = _Parent.at(request.base)
        helps, begins = plan.base_helps(reading(base.model, corpus), request, corpus, machine.speed)
        parent = base if helps else None
        return base.model.vocabulary if helps else None

    decides = parent is None and request.base is not None
    known = chosen if decides else None if parent is None else parent.model.vocabulary
    corpus = read(request.files, request.train, known, cache_folder(request.train), advance)
    if parent is not None:
        request = replace(request, parent=parent.path, model=parent.model.config.to_json())
    config = plan.plan(request, corpus, machine)
    if parent is not None:
        config = replace(config, known=parent.model.vocabulary)
    training, _ = corpus.split(config.train)
    try:
        Streams(training.ids, config.train.batch_size, config.train.seq_length)
    except ChargenError as error:
        raise ChargenError(f"{corpus.name}: {error}") from None
    reason = "" if "units" in request.model else plan.reason(config, corpus, machine.speed)
    return Decision(config, corpus, None, {"begins": begins, "sizes": reason}, parent.model if parent else None)


def resume(request: Request, replicas: int, advance: Advance = lambda characters: None) -> Decision:
    """Decide how the run ``request.resume`` goes on. Arguments and errors are those of `new`."""
    assert request.resume is not None
    run = Run(request.resume)
    if "cache" in request.explicit:
        run.config = replace(run.config, train=replace(run.config.train, cache=request.train.cache))
    corpus = run.corpus(request.files, advance)
    config = plan.resume(run, corpus, request, replicas)
    run.metrics()  # damage is reported before TensorFlow is loaded
    if request.files and STANDARD_INPUT not in request.files:
        config = replace(config, files=corpus.files)
    return Decision(config, corpus, run)


def worker_corpus(run: Run, request: Request) -> Corpus:
    """Return the text of the chief's run as this worker finds it, in ``request.files`` or where the chief has it."""
    run.config = replace(run.config, train=replace(run.config.train, cache=request.train.cache))  # the worker's own
    try:
        return run.corpus(() if STANDARD_INPUT in request.files else request.files)
    except ChargenError as error:
        raise ChargenError(f"this worker does not have the chief's text: {error}") from None
