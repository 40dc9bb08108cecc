"""A run: the folder that one ``chargen train`` writes.

``config.json`` has the options, ``metrics.jsonl`` a line for each validation, ``model.safetensors`` the best model, and
``checkpoint.safetensors`` the last model with all that resuming needs. The folder ``corpus`` has the text if that came
from standard input.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, TypedDict

from msgspec import Meta

from chargen import ChargenError
from chargen.files import disk
from chargen.files.reading import Amount, Count, DamagedError, converted, errors_of, parsed, read_regular
from chargen.store.modelfile import Checkpoint, ModelFile, extend_vocabulary
from chargen.store.modelfile import Progress as Progress
from chargen.store.runconfig import RunConfig as RunConfig
from chargen.text.corpus import Advance, Corpus, cache_folder, opened, read
from chargen.text.sources import STANDARD_INPUT, expanded

RUNS = Path("runs")
CONFIG, MODEL, CHECKPOINT = "config.json", "model.safetensors", "checkpoint.safetensors"
METRICS, CORPUS = "metrics.jsonl", "corpus"
MEND = "correct it, or restore the file"


class Record(TypedDict):
    """A line of ``metrics.jsonl``: one validation."""

    step: Annotated[int, Meta(ge=1, le=2**53)]
    epoch: Amount
    characters: Count
    seconds: Amount
    training_bpc: Amount
    validation_bpc: Amount
    temperature: Amount
    learning_rate: Amount
    characters_per_second: Count


class Run:
    """An existing run. Raises ChargenError if the folder ``path`` is not a run, or its configuration is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with errors_of(self.config_path, MEND):
            try:
                data = read_regular(self.config_path)
            except OSError as error:
                raise ChargenError(f"{path} is not a run: {self.config_path}: {error.strerror}") from None
            self.config = RunConfig.from_json(parsed(data))

    @classmethod
    def create(cls, path: Path | None, config: RunConfig, corpus: Corpus, parent: ModelFile | None = None) -> Run:
        """Make a run in the folder ``path``, or in ``runs/<name of the text>`` with ``-2``, ``-3``, ... if that exists.

        With a ``parent``, the first checkpoint has that model's weights, extended to the corpus's vocabulary.

        The folder appears whole or not at all, even if another process makes one of the same name. An existing empty
        folder is filled, the configuration last. Raises ChargenError if ``path`` exists and is not an empty folder.
        """
        target = path or RUNS / config.name
        if path is not None:
            refuse_taken(path)
        with _creation_errors(target):
            place = target if path is not None and path.is_dir() else target.parent
            with disk.made(place), disk.temporary(place) as work:
                folder = work / "run"
                folder.mkdir()
                _fill(folder, config, corpus, parent)
                return cls(_place(folder, config.name) if path is None else _put(folder, path))

    @classmethod
    @contextmanager
    def begin(cls, path: Path | None, config: RunConfig, corpus: Corpus, parent: ModelFile | None) -> Iterator[Run]:
        """Make and lock a run as `create` does, and yield it; remove it again if an error is raised while entered."""
        target = path or RUNS / config.name
        with ExitStack() as stack:
            with _creation_errors(target):
                filled = path is not None and path.is_dir()
                stack.enter_context(disk.made(target.parent))
            run = cls.create(path, config, corpus, parent)
            stack.enter_context(run.lock())
            with ExitStack() as undoing:
                undoing.callback(run._discard, folder=not filled)
                yield run
                undoing.pop_all()

    def _discard(self, *, folder: bool) -> None:
        """Remove the run's files, and its ``folder`` too."""
        for name in (CONFIG, CHECKPOINT):
            self.path.joinpath(name).unlink(missing_ok=True)
        shutil.rmtree(self.path / CORPUS, ignore_errors=True)
        if folder:
            with suppress(OSError):  # other files in it are not the run's
                self.path.rmdir()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the run while entered. Raises ChargenError if another process has locked it."""
        with ExitStack() as stack:
            try:
                stack.enter_context(disk.locked(self.path, wait=False))
            except BlockingIOError:
                raise ChargenError(
                    f"{self.path} is being trained by another process: wait for it, or stop it"
                ) from None
            yield

    def reconfigure(self, config: RunConfig) -> None:
        """Replace the configuration, here and on disk."""
        disk.write_beside(self.config_path, _json(config.to_json()))
        self.config = config

    def corpus(self, files: tuple[str, ...] = (), advance: Advance = lambda characters: None) -> Corpus:
        """Read the run's text again, from ``files`` if it has moved; ``advance`` is that of `corpus.read`.

        Raises ChargenError if the text is missing, or is not the one that the run was started with.
        """
        config = self.config
        if STANDARD_INPUT in config.files and not files:
            advice = "restore it, or start a new run from the text"
            corpus = opened(self.path / CORPUS, config.files, config.name, advice, mapped=True)
        else:
            cache = cache_folder(config.train)
            if cache is not None and cache.exists() and not os.access(cache, os.W_OK):
                cache = None
            # Path.exists raises an error for an impossible name.
            missing = [f for f in files or config.files if f != STANDARD_INPUT and not os.path.exists(expanded(f)[0])]  # noqa: PTH110
            if missing:
                raise ChargenError(
                    f"the text of this run, {missing[0]}, is gone: give its new place, "
                    f"chargen train TEXT --resume {quote(str(self.path))}"
                )
            corpus = read(files or config.files, config.train, config.known, cache, advance)
        with errors_of(self.config_path, MEND):
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
        """The path of the configuration."""
        return self.path / CONFIG

    @property
    def model_path(self) -> Path:
        """The path of the best model so far; the file exists after the first validation."""
        return self.path / MODEL

    @property
    def checkpoint_path(self) -> Path:
        """The path of the last checkpoint."""
        return self.path / CHECKPOINT

    def checkpoint(self) -> Checkpoint | None:
        """Return the last checkpoint; None if the run has none yet, so that it starts from the beginning.

        Raises ChargenError if it is missing although the run has results, damaged, or that of another run.
        """
        if not self.checkpoint_path.exists():
            if self.model_path.exists() or self.metrics():
                raise ChargenError(
                    f"{self.checkpoint_path} is gone, and resuming needs it: restore it, or start a new run"
                )
            return None
        checkpoint = Checkpoint.read(self.checkpoint_path)
        config, step = self.config, Progress.of(checkpoint).step
        if (checkpoint.config, checkpoint.summary["sha256"]) != (config.model, config.sha256):
            raise ChargenError(f"{self.checkpoint_path} is of another run: restore this run's own, or start a new run")
        rows = config.train.batch_size if checkpoint.rows is None else checkpoint.rows
        with errors_of(self.config_path, MEND):
            if rows != config.train.batch_size:
                raise DamagedError(f"train.batch_size: the checkpoint has {rows:,} streams")
            if not config.start <= step <= (step if config.stop is None else config.stop):
                raise DamagedError(f"start, stop: the checkpoint is at step {step:,}, which is not between them")
            if config.knot is not None and step < config.knot.step:
                raise DamagedError(f"knot.step: the checkpoint is at step {step:,}, which is before it")
        return checkpoint

    def finished(self, progress: Progress) -> bool:
        """Return whether the run is complete: its schedule has ended, and no new one starts at this step."""
        return progress.finished and progress.step != self.config.start

    def metrics(self) -> list[dict[str, Any]]:
        """Return the records of the validations so far, oldest first. Raises ChargenError that names a damaged line."""
        path, records, train = self.path / METRICS, list[dict[str, Any]](), self.config.train
        with errors_of(path, "correct or remove that line"):
            data = read_regular(path) if path.exists() else b""
            for number, line in enumerate(data.splitlines(), 1):
                try:
                    record = parsed(line)
                    converted(record, Record)
                    if records and record["step"] <= records[-1]["step"]:
                        raise DamagedError("step: it is not greater than that of the line before")
                    if record["characters"] != record["step"] * train.batch_size * train.seq_length:
                        raise DamagedError("characters: they do not match the steps, by the sizes in config.json")
                except DamagedError as error:
                    raise DamagedError(f"line {number}: {error}") from None
                records.append(record)
        return records

    def write_metrics(self, records: Iterable[dict[str, Any]]) -> None:
        """Replace the records of the validations."""
        disk.write_beside(self.path / METRICS, "".join(json.dumps(r) + "\n" for r in records).encode())


def newest(folder: Path = RUNS) -> Path:
    """Return the folder of the run in ``folder`` that was written to last. Raises ChargenError if there is none."""
    configs = list(folder.glob(f"[!.]*/{CONFIG}"))
    if not configs:
        raise ChargenError("there is no run here yet: make one with `chargen train`, or `chargen train FILE`")

    def written(config: Path) -> float:
        files = (config.parent / name for name in (config.name, METRICS, MODEL, CHECKPOINT))
        return max(file.stat().st_mtime for file in files if file.exists())

    return max(configs, key=written).parent


def find_model(path: Path | None) -> Path:
    """Return the path of a model: ``path`` itself if it is a file, or the best model of a run; None is the newest run.

    For a run before its first validation, this is the checkpoint. Raises ChargenError if a folder has neither.
    """
    path = path or newest()
    if not path.is_dir():
        return path
    for file in (path / MODEL, path / CHECKPOINT):
        if file.exists():
            return file
    if any(path.glob(f"[!.]*/{CONFIG}")):
        raise ChargenError(f"{path} is a folder of runs: name one of them, such as {quote(str(newest(path)))}")
    raise ChargenError(
        f"{path} has no model yet: if it is a run, go on with `chargen train --resume {quote(str(path))}`"
    )


def open_model(path: str | Path | None = None) -> ModelFile:
    """Return the model that `find_model` finds, in its form for inference."""
    return ModelFile.read(find_model(None if path is None else Path(path))).for_inference()


def refuse_taken(path: Path) -> None:
    """Raise ChargenError if ``path`` exists and is not an empty folder, so that no run can be made there."""
    disk.sweep(path)
    with _creation_errors(path):
        taken = os.path.lexists(path) and (not path.is_dir() or any(path.iterdir()))
    if taken:
        raise ChargenError(
            f"{path} exists and is left as it is: go on with --resume {quote(str(path))}, or name another folder with "
            "--run"
        )


@contextmanager
def _creation_errors(path: Path) -> Iterator[None]:
    """While entered, an OSError that keeps the run from being made becomes a ChargenError that names the run."""
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
    """Write the files of a new run into an empty folder."""
    if STANDARD_INPUT in corpus.files:
        (folder / CORPUS).mkdir()
        corpus.write(folder / CORPUS)
    if parent is not None:
        weights = extend_vocabulary(parent, corpus.vocabulary, config.train.random_seed)
        summary = {"sha256": corpus.sha256, "progress": asdict(Progress())}
        words = parent.base_words
        Checkpoint(weights, corpus.vocabulary, config.model, summary, {}, base_words=words).write(folder / CHECKPOINT)
    disk.write_beside(folder / CONFIG, _json(config.to_json()))


def _put(folder: Path, target: Path) -> Path:
    """Move a new run to ``target``, and return that. Raises FileExistsError if it exists and is not an empty folder."""
    if not target.is_dir():
        disk.move(folder, target, new=True)
        return target
    for file in sorted(folder.iterdir(), key=lambda file: file.name == CONFIG):  # the working directory may be it
        disk.move(file, target / file.name, new=True)
    return target


def _place(folder: Path, name: str) -> Path:
    """Move a new run to the first free name in ``runs``: ``name``, ``name-2``, ...; return the path."""
    number, target = 1, RUNS / name
    while True:
        if not os.path.lexists(target):
            with suppress(FileExistsError):  # another process took the name meanwhile
                disk.move(folder, target, new=True)
                return target
        number += 1
        target = RUNS / f"{name}-{number}"


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()
