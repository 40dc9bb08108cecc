"""A run: the directory that one ``chargen train`` leaves.

``config.json`` what was asked and chosen, ``metrics.jsonl`` a line per validation, ``model.safetensors`` the best
model, ``checkpoint.safetensors`` the last one with all that is needed to go on, and ``corpus``, a folder, if the text
came from standard input and is nowhere else.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Self, TypedDict

from msgspec import Meta

from chargen import ChargenError
from chargen.config import Execution, ModelConfig, TrainConfig
from chargen.files import disk
from chargen.files.reading import Amount, Count, DamagedError, Sha256, converted, damage, parsed, read_regular, shown
from chargen.store.modelfile import Checkpoint, ModelFile, extend_vocabulary
from chargen.store.modelfile import Progress as Progress
from chargen.text.corpus import Advance, Corpus, cache_folder, opened, read
from chargen.text.documents import STANDARD_INPUT, expanded
from chargen.text.vocabulary import Vocabulary

FORMAT = 1  # of config.json
RUNS = Path("runs")
CONFIG, MODEL, CHECKPOINT = "config.json", "model.safetensors", "checkpoint.safetensors"
METRICS, CORPUS = "metrics.jsonl", "corpus"
MEND = "mend it, or bring the file back"


@dataclass(frozen=True)
class RunConfig:
    """What ``config.json`` holds: all that decides how the run goes, and from what text."""

    model: ModelConfig
    train: TrainConfig
    execution: Execution
    start: Count  # the schedule of the learning rate goes from this step ..
    stop: Count | None  # .. to this one, where training ends; None until the machine's speed is known
    files: tuple[str, ...]  # of the corpus, absolute; none is the bundled book
    name: str
    characters: Count
    sha256: Sha256
    parent: str | None = None  # the model that this one was begun from, absolute ..
    known: Vocabulary | None = None  # .. and the characters that it knew, which are this run's too

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        known = None if self.known is None else [self.known.characters, self.known.unknown]
        return {"format": FORMAT, **asdict(replace(self, known=None)), "known": known}

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """Read what `to_json` wrote. Raises DamagedError that names the field for anything else.

        A field that is missing is refused, as its default need not be what the run began with, and so is one too many:
        whoever wrote it meant something.
        """
        if (found := converted(values, _Formatted)["format"]) != FORMAT:
            raise DamagedError(f"format: it is {found}, and this chargen reads {FORMAT}")
        config = converted(values, cls, _vocabulary)
        told, wanted = _names(values), _names(config.to_json())
        for name in sorted(told ^ wanted):
            raise DamagedError(f"{name}: it is missing" if name in wanted else f"{shown(name)}: there is no such field")
        for reason in config._faults():
            raise DamagedError(reason)
        return config

    def _faults(self) -> Iterator[str]:
        """Yield what can't be in a run's configuration though each field by itself could."""
        train = self.train
        if [train.minutes, train.epochs, train.steps].count(None) != 2:
            yield "train: not just one of minutes, epochs and steps is given"
        if self.stop is None and train.minutes is None:
            yield "stop: it is null, where no minutes are given"
        if self.stop is not None and self.stop < self.start:
            yield "stop: it is before the start"
        if not _is_encoding(train.encoding):
            yield "train.encoding: it is not a text encoding"
        if any("\0" in path for path in (*self.files, train.cache or "", self.parent or "")):
            yield "a path has a character that paths don't"


class Record(TypedDict):
    """A line of ``metrics.jsonl``: a validation."""

    step: Annotated[int, Meta(ge=1, le=2**53)]
    epoch: Amount
    characters: Count
    seconds: Amount
    training_bpc: Amount
    validation_bpc: Amount
    temperature: Amount
    learning_rate: Amount
    characters_per_second: Count


class _Formatted(TypedDict):
    format: Annotated[int, Meta(ge=0, le=2**31)]


def _vocabulary(_: type, known: Any) -> Vocabulary:
    try:
        return Vocabulary(*converted(known, tuple[str, str | None]))
    except DamagedError as error:
        raise DamagedError(f"known: {error}") from None


def _names(values: dict[str, Any]) -> set[str]:
    """Return the names of an object's fields, and of the fields of those that are objects."""
    inner = (f"{part}.{name}" for part, value in values.items() if isinstance(value, dict) for name in value)
    return {*values, *inner}


def _is_encoding(name: str) -> bool:
    try:
        return bool("text".encode(name))
    except (LookupError, ValueError):
        return False


class Run:
    """A run's directory, opened. Raises ChargenError if ``path`` holds no run that can be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with damage(self.config_path, MEND):
            try:
                data = read_regular(self.config_path)
            except OSError as error:
                raise ChargenError(f"{path} is not a run: {self.config_path}: {error.strerror}") from None
            self.config = RunConfig.from_json(parsed(data))

    @classmethod
    def create(cls, path: Path | None, config: RunConfig, corpus: Corpus, parent: ModelFile | None = None) -> Run:
        """Make the directory, or ``runs/<name of the text>`` if ``path`` is None, then ``-2``, ``-3``, ....

        With a ``parent``, its first checkpoint has that model's weights, extended to the corpus's vocabulary.

        It appears whole or not at all, whoever else takes the same name at the same time; an empty folder that is there
        is filled, the configuration last. Raises ChargenError if ``path`` exists and is not an empty folder.
        """
        target = path or RUNS / config.name
        if path is not None:
            refuse_taken(path)
        with _in_one_line(target):
            place = target if path is not None and path.is_dir() else target.parent
            with disk.made(place), disk.temporary(place) as work:
                folder = work / "run"
                folder.mkdir()
                _fill(folder, config, corpus, parent)
                return cls(_place(folder, config.name) if path is None else _put(folder, path))

    @classmethod
    @contextmanager
    def begin(cls, path: Path | None, config: RunConfig, corpus: Corpus, parent: ModelFile | None) -> Iterator[Run]:
        """Make a run as `create` does; if what is done while this is entered fails, remove it again."""
        target = path or RUNS / config.name
        with ExitStack() as stack:
            with _in_one_line(target):
                filled = path is not None and path.is_dir()
                stack.enter_context(disk.made(target.parent))
            run = cls.create(path, config, corpus, parent)
            stack.enter_context(run.lock())
            try:
                yield run
            except BaseException:
                run._discard(folder=not filled)
                raise

    def _discard(self, *, folder: bool) -> None:
        for name in (CONFIG, CHECKPOINT):
            self.path.joinpath(name).unlink(missing_ok=True)
        shutil.rmtree(self.path / CORPUS, ignore_errors=True)
        if folder:
            with suppress(OSError):  # whatever else is there is somebody's
                self.path.rmdir()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep the run to this process while it is entered. Raises ChargenError if another has it."""
        with ExitStack() as stack:
            try:
                stack.enter_context(disk.locked(self.path, wait=False))
            except BlockingIOError:
                raise ChargenError(
                    f"{self.path} is being trained by another process: wait for it, or stop it"
                ) from None
            yield

    def reconfigure(self, config: RunConfig) -> None:
        """Replace the configuration, on disk too."""
        disk.write_beside(self.config_path, _json(config.to_json()))
        self.config = config

    def corpus(self, files: tuple[str, ...] = (), advance: Advance = lambda characters: None) -> Corpus:
        """Read the run's text again, from ``files`` if it has moved; ``advance`` is as for `corpus.read`.

        Raises ChargenError if it is not there, or not the text that the run was started with.
        """
        config = self.config
        if STANDARD_INPUT in config.files and not files:
            advice = "bring it back, or train anew from the text"
            corpus = opened(self.path / CORPUS, config.files, config.name, advice, mapped=True)
        else:
            cache = cache_folder(config.train)
            if cache is not None and cache.exists() and not os.access(cache, os.W_OK):
                cache = None
            # Path's exists raises for a name that no file can have.
            missing = [f for f in files or config.files if f != STANDARD_INPUT and not os.path.exists(expanded(f)[0])]  # noqa: PTH110
            if missing:
                raise ChargenError(
                    f"the text of this run, {missing[0]}, is gone: name where it is now, "
                    f"chargen train TEXT --resume {quote(str(self.path))}"
                )
            corpus = read(files or config.files, config.train, config.known, cache, advance)
        with damage(self.config_path, MEND):
            if corpus.sha256 == config.sha256 and len(corpus.ids) != config.characters:
                raise DamagedError(f"characters: the text has {len(corpus.ids):,}")
        if corpus.sha256 != config.sha256:
            raise ChargenError(
                f"the text has changed since this run began ({config.characters:,} characters then, "
                f"{len(corpus.ids):,} now): bring the old text back, or begin a new run from this one's model with "
                f"chargen train TEXT --from {quote(str(self.path))}"
            )
        return corpus

    @property
    def config_path(self) -> Path:
        """What was asked and chosen."""
        return self.path / CONFIG

    @property
    def model_path(self) -> Path:
        """The best model so far; the file is there from the first validation on."""
        return self.path / MODEL

    @property
    def checkpoint_path(self) -> Path:
        """The last checkpoint."""
        return self.path / CHECKPOINT

    def checkpoint(self) -> Checkpoint | None:
        """Return the last checkpoint; None if the run was ended before its first, so has to begin again."""
        if not self.checkpoint_path.exists():
            if self.model_path.exists() or self.metrics():
                raise ChargenError(
                    f"{self.checkpoint_path} is gone, and with it what is needed to go on: bring it back, or train anew"
                )
            return None
        checkpoint = Checkpoint.read(self.checkpoint_path)
        config, step = self.config, Progress.of(checkpoint).step
        if (checkpoint.config, checkpoint.summary["sha256"]) != (config.model, config.sha256):
            raise ChargenError(f"{self.checkpoint_path} is of another run: bring this run's own back, or train anew")
        rows = checkpoint.rows or config.train.batch_size
        with damage(self.config_path, MEND):
            if rows != config.train.batch_size:
                raise DamagedError(f"train.batch_size: the checkpoint has {rows:,} streams")
            if not config.start <= step <= (step if config.stop is None else config.stop):
                raise DamagedError(f"start, stop: the checkpoint, at step {step:,}, is not between them")
        return checkpoint

    def finished(self, progress: Progress) -> bool:
        """Tell whether the run has nothing left to do: its schedule ended, and no new one starts there."""
        return progress.finished and progress.step != self.config.start

    def metrics(self) -> list[dict[str, Any]]:
        """Return the records of the validations so far, oldest first."""
        path, records, train = self.path / METRICS, list[dict[str, Any]](), self.config.train
        with damage(path, "mend or remove that line"):
            data = read_regular(path) if path.exists() else b""
            for number, line in enumerate(data.splitlines(), 1):
                try:
                    record = parsed(line)
                    converted(record, Record)
                    if records and record["step"] <= records[-1]["step"]:
                        raise DamagedError("step: it is not after that of the line before")
                    if record["characters"] != record["step"] * train.batch_size * train.seq_length:
                        raise DamagedError("characters: they are not those of so many steps by config.json")
                except DamagedError as error:
                    raise DamagedError(f"line {number}: {error}") from None
                records.append(record)
        return records

    def write_metrics(self, records: Iterable[dict[str, Any]]) -> None:
        """Replace the records of the validations."""
        disk.write_beside(self.path / METRICS, "".join(json.dumps(r) + "\n" for r in records).encode())


def newest(folder: Path = RUNS) -> Path:
    """Return the run in ``folder`` that was written to last. Raises ChargenError, naming the cure, if there is none."""
    configs = list(folder.glob(f"[!.]*/{CONFIG}"))
    if not configs:
        raise ChargenError("there is no run here yet: make one with `chargen train book.txt`")

    def written(config: Path) -> float:
        files = (config.parent / name for name in (config.name, METRICS, MODEL, CHECKPOINT))
        return max(file.stat().st_mtime for file in files if file.exists())

    return max(configs, key=written).parent


def find_model(path: Path | None) -> Path:
    """Return the model file that ``path`` means: the file itself, a run's best, or None for the newest run's best.

    A run that has not reached its first validation has only a checkpoint, which then serves.
    """
    path = path or newest()
    if not path.is_dir():
        return path
    for file in (path / MODEL, path / CHECKPOINT):
        if file.exists():
            return file
    raise ChargenError(
        f"{path} has no model yet: go on with `chargen train --resume {quote(str(path))}`, if it is a run"
    )


def open_model(path: Path | None) -> ModelFile:
    """Return the model that `find_model` finds, in its form for inference."""
    return ModelFile.read(find_model(path)).for_inference()


def refuse_taken(path: Path) -> None:
    """Raise ChargenError if a run can't be made at ``path``, as something is there that is not an empty folder."""
    disk.sweep(path)
    with _in_one_line(path):
        taken = os.path.lexists(path) and (not path.is_dir() or any(path.iterdir()))
    if taken:
        raise ChargenError(
            f"{path} exists and is left as it is: go on with --resume {quote(str(path))}, or name another folder with "
            "--run"
        )


@contextmanager
def _in_one_line(path: Path) -> Iterator[None]:
    """While entered, what keeps a run from being made is a ChargenError that names the run, wherever it is made."""
    try:
        yield
    except (OSError, ChargenError) as error:
        cause = error.__cause__ if isinstance(error, ChargenError) else error
        if not isinstance(cause, OSError):
            raise
        if isinstance(cause, FileExistsError):
            raise ChargenError(f"{path} exists and is left as it is: name another folder with --run") from None
        raise ChargenError(f"{path} can't be made: {cause.strerror}; name another folder with --run") from None


def _fill(folder: Path, config: RunConfig, corpus: Corpus, parent: ModelFile | None) -> None:
    """Write all that a new run has into an empty folder."""
    if STANDARD_INPUT in corpus.files:
        (folder / CORPUS).mkdir()
        corpus.write(folder / CORPUS)
    if parent is not None:
        weights = extend_vocabulary(parent, corpus.vocabulary, config.train.random_seed)
        summary = {"sha256": corpus.sha256, "progress": asdict(Progress())}
        Checkpoint(weights, corpus.vocabulary, config.model, summary, {}).write(folder / CHECKPOINT)
    disk.write_beside(folder / CONFIG, _json(config.to_json()))


def _put(folder: Path, target: Path) -> Path:
    """Give a new run the name that was asked for. Raises FileExistsError if it is taken."""
    if not target.is_dir():
        disk.move(folder, target, new=True)
        return target
    for file in sorted(folder.iterdir(), key=lambda file: file.name == CONFIG):  # it may be the folder we are in
        disk.move(file, target / file.name, new=True)
    return target


def _place(folder: Path, name: str) -> Path:
    """Give a new run the first name in ``runs`` that is free: ``name``, ``name-2``, ...."""
    number, target = 1, RUNS / name
    while True:
        if not os.path.lexists(target):
            with suppress(FileExistsError):  # a training that began at the same time has taken it
                disk.move(folder, target, new=True)
                return target
        number += 1
        target = RUNS / f"{name}-{number}"


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()
