"""The configuration of a run, ``config.json``, and what is impossible in one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Self, TypedDict

from msgspec import Meta

from chargen.config import Execution, ModelConfig, TrainConfig
from chargen.files.reading import Count, DamagedError, Sha256, converted, shown
from chargen.text.vocabulary import Vocabulary

FORMAT = 1  # of config.json


@dataclass(frozen=True)
class Knot:
    """Where the schedule was last planned again: the learning rate goes on from there to the new stop."""

    step: Count
    progress: Annotated[float, Meta(ge=0, lt=1)]  # of the cosine, reached at that step
    first_stop: Count  # the stop of the first plan, from which dropout followed


@dataclass(frozen=True)
class RunConfig:
    """The contents of ``config.json``: everything that decides the result of the run, its text included."""

    model: ModelConfig
    train: TrainConfig
    execution: Execution
    start: Count  # the step where the learning rate's schedule begins
    stop: Count | None  # the step where it ends, and training with it; None until the machine's speed is known
    files: tuple[str, ...]  # absolute paths of the corpus; none for the bundled book
    name: str
    characters: Count
    sha256: Sha256
    parent: str | None = None  # absolute path of the model that the run started from
    known: Vocabulary | None = None  # the vocabulary of that model, which this run's contains
    knot: Knot | None = None  # None until the schedule is planned again

    @property
    def first_stop(self) -> int | None:
        """The stop of the first plan; None until there is one."""
        return self.stop if self.knot is None else self.knot.first_stop

    @property
    def reading(self) -> dict[str, str]:
        """How other texts are to be read as this run's was, without what is the default: for a model's `Summary`."""
        train = self.train
        found = {"normalize": train.normalize, "document": train.document, "column": train.column}
        defaults = TrainConfig()
        return {name: value for name, value in found.items() if value is not None and value != getattr(defaults, name)}

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        known = None if self.known is None else self.known.identity
        return {"format": FORMAT, **asdict(replace(self, known=None)), "known": known}

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """Return the configuration that `to_json` wrote. Raises DamagedError that names the field for anything else.

        A missing field is refused, because its default may differ from the run's value, and an unknown one, because it
        was meant to have an effect.
        """
        if (found := converted(values, _Formatted)["format"]) != FORMAT:
            raise DamagedError(f"format: it is {found}, and this chargen reads {FORMAT}")
        config = converted(values, cls, _vocabulary)
        found_names, wanted = _names(values), _names(config.to_json())
        for name in sorted(found_names ^ wanted):
            raise DamagedError(f"{name}: it is missing" if name in wanted else f"{shown(name)}: there is no such field")
        for reason in config._faults():
            raise DamagedError(reason)
        return config

    def _faults(self) -> Iterator[str]:
        """Yield what is wrong in the configuration although each field by itself is valid."""
        train = self.train
        if [train.minutes, train.epochs, train.steps].count(None) != 2:
            yield "train: exactly one of minutes, epochs and steps must be given"
        if self.stop is None and train.minutes is None:
            yield "stop: it is null, but no minutes are given"
        for name in ("learning_rate", *([] if self.stop is None else ["dropout", "weight_drop"])):
            if getattr(train, name) is None:
                yield f"train.{name}: it is null"
        if self.stop is not None and self.stop < self.start:
            yield "stop: it is before the start"
        if self.knot is not None:
            yield from self._faults_of(self.knot)
        if train.encoding is not None and not _is_encoding(train.encoding):
            yield "train.encoding: it is not a text encoding"
        if any("\0" in path for path in (*self.files, train.cache or "", self.parent or "")):
            yield "a path contains a NUL character"

    def _faults_of(self, knot: Knot) -> Iterator[str]:
        if self.train.minutes is None or self.stop is None:
            yield f"knot: it is given, but no {'minutes are' if self.train.minutes is None else 'stop is'}"
        elif not self.start < knot.step < self.stop:
            yield "knot.step: it is not between the start and the stop"
        if knot.first_stop <= self.start:
            yield "knot.first_stop: it is not after the start"


class _Formatted(TypedDict):
    format: Annotated[int, Meta(ge=0, le=2**31)]


def _vocabulary(_: type, known: Any) -> Vocabulary:
    try:
        kind: Any = tuple[str, str | None]
        if isinstance(known, list) and len(known) > 2:  # with the end of a document
            kind = tuple[str, str | None, str]
        return Vocabulary(*converted(known, kind))
    except DamagedError as error:
        raise DamagedError(f"known: {error}") from None


def _names(values: dict[str, Any]) -> set[str]:
    """Return the names of an object's fields, and of its objects' fields as ``object.field``."""
    inner = (f"{part}.{name}" for part, value in values.items() if isinstance(value, dict) for name in value)
    return {*values, *inner}


def _is_encoding(name: str) -> bool:
    try:
        return bool("text".encode(name))
    except (LookupError, ValueError):
        return False
