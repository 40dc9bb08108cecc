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
from typing import Any, Self

import numpy as np

from chargen import ChargenError, disk
from chargen.config import Execution, ModelConfig, TrainConfig
from chargen.corpus import Advance, Corpus, cache_folder, opened, read
from chargen.documents import STANDARD_INPUT, expanded
from chargen.modelfile import Checkpoint, ModelFile, grown, read_arrays
from chargen.vocabulary import Vocabulary

FORMAT = 1  # of config.json
RUNS = Path("runs")
CONFIG, MODEL, CHECKPOINT = "config.json", "model.safetensors", "checkpoint.safetensors"
METRICS, CORPUS = "metrics.jsonl", "corpus"


@dataclass(frozen=True)
class RunConfig:
    """What ``config.json`` holds: all that decides how the run goes, and from what text."""

    model: ModelConfig
    train: TrainConfig
    execution: Execution
    start: int  # the schedule of the learning rate goes from this step ..
    stop: int | None  # .. to this one, where training ends; None until the machine's speed is known
    files: tuple[str, ...]  # of the corpus, absolute; none is the bundled book
    name: str
    characters: int
    sha256: str
    parent: str | None = None  # the model that this one was begun from, absolute ..
    known: Vocabulary | None = None  # .. and the characters that it knew, which are this run's too

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        known = None if self.known is None else [self.known.characters, self.known.unknown]
        return {"format": FORMAT, **asdict(replace(self, known=None)), "known": known}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read what `to_json` wrote. Raises KeyError, TypeError or ChargenError for anything else."""
        if values["format"] != FORMAT:
            raise ChargenError(f"it has format {values['format']}, this chargen reads format {FORMAT}")
        return cls(
            model=ModelConfig.from_json(values["model"]),
            # Before files kept their borders, boilerplate was left out and validation had an end, that was so.
            train=TrainConfig.from_json({"join": True, "keep_boilerplate": True, "held_out": None, **values["train"]}),
            execution=Execution.from_json(values.get("execution", {})),
            start=int(values["start"]),
            stop=None if values["stop"] is None else int(values["stop"]),
            files=tuple(map(str, values["files"])),
            name=str(values["name"]),
            characters=int(values["characters"]),
            sha256=str(values["sha256"]),
            parent=values.get("parent"),
            known=Vocabulary(*values["known"]) if values.get("known") else None,
        )


@dataclass(frozen=True)
class Progress:
    """How far a run has come: what a checkpoint keeps beside its arrays. Everything but the clock is exact."""

    step: int = 0  # updates made; also the position in the streams
    nats: float = 0.0  # summed since the last validation ..
    characters: int = 0  # .. over so many characters ..
    clock: float = 0.0  # .. in so many seconds
    seconds: float = 0.0  # since the run began, without the time between a stop and its resumption
    best: float | None = None  # nats per character of the best validation
    worse: int = 0  # validations since the best
    factor: float = 1.0  # of the learning rate: halved by each recovery
    recoveries: int = 0
    finished: bool = False

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Return the progress that a checkpoint tells of. Raises ChargenError if it tells of none."""
        try:
            return cls(**checkpoint.summary["progress"])
        except (LookupError, TypeError):
            raise ChargenError("the checkpoint is damaged: it doesn't tell how far the run has come") from None


class Run:
    """A run's directory, opened. Raises ChargenError if ``path`` holds no run that can be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.config = RunConfig.from_json(json.loads(self.config_path.read_text("utf-8")))
        except OSError as error:
            raise ChargenError(f"{path} is not a run: {self.config_path}: {error.strerror}") from None
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ChargenError(f"{self.config_path} is damaged, or not a file of chargen's") from None
        except ChargenError as error:
            raise ChargenError(f"{self.config_path}: {error}") from None

    @classmethod
    def create(cls, path: Path | None, config: RunConfig, corpus: Corpus, parent: ModelFile | None = None) -> Run:
        """Make the directory, or ``runs/<name of the text>`` if ``path`` is None, then ``-2``, ``-3``, ....

        With a ``parent``, its first checkpoint has that model's weights, grown to the corpus's vocabulary.

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
            corpus = self._kept_corpus()
        else:
            cache = cache_folder(config.train)
            if cache is not None and cache.exists() and not os.access(cache, os.W_OK):
                cache = None
            missing = [f for f in files or config.files if f != STANDARD_INPUT and not expanded(f)[0].exists()]
            if missing:
                raise ChargenError(
                    f"the text of this run, {missing[0]}, is gone: name where it is now, "
                    f"chargen train TEXT --resume {quote(str(self.path))}"
                )
            corpus = read(files or config.files, config.train, config.known, cache, advance)
        if corpus.sha256 != config.sha256:
            raise ChargenError(
                f"the text has changed since this run began ({config.characters:,} characters then, "
                f"{len(corpus.ids):,} now): bring the old text back, or train on the new one without --resume"
            )
        return corpus

    def _kept_corpus(self) -> Corpus:
        config, older = self.config, self.path / "corpus.safetensors"  # before there were mapped ones
        if not older.exists():
            advice = "bring it back, or train anew from the text"
            return opened(self.path / CORPUS, config.files, config.name, advice, mapped=True)
        arrays, header = read_arrays(older)
        if "ids" not in arrays or "vocabulary" not in header:
            raise ChargenError(f"{older} is damaged: train again from the text")
        vocabulary = Vocabulary(header["vocabulary"])
        return Corpus(arrays["ids"], np.zeros(1, np.int64), vocabulary, config.files, config.name, config.sha256)

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
        if (checkpoint.config, checkpoint.summary.get("sha256")) != (self.config.model, self.config.sha256):
            raise ChargenError(f"{self.checkpoint_path} is of another run: bring this run's own back, or train anew")
        return checkpoint

    def finished(self, progress: Progress) -> bool:
        """Tell whether the run has nothing left to do: its schedule ended, and no new one starts there."""
        return progress.finished and progress.step != self.config.start

    def metrics(self) -> list[dict[str, Any]]:
        """Return the records of the validations so far, oldest first."""
        path = self.path / METRICS
        try:
            lines = path.read_text("utf-8").splitlines() if path.exists() else []
            return [{**json.loads(line), "step": int(json.loads(line)["step"])} for line in lines]
        except (ValueError, TypeError, LookupError):
            raise ChargenError(
                f"{path} is damaged: a line of it is no record of a validation; mend or remove that line"
            ) from None

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
    """Read the model that `find_model` finds."""
    return ModelFile.read(find_model(path))


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
        weights = grown(parent, corpus.vocabulary, config.train.random_seed)
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
