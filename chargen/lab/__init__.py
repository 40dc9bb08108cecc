"""The lab: questions about stateful LSTMs, each answered by an experiment of a minute or two.

A lesson NAME is the module ``lab/NAME.py`` with ``EXPECT``, the expected result, and ``answer(setting)``, which runs
the experiment. The conclusions are computed from its numbers; each says whether it is as expected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple, Protocol, TypeVar, cast

T = TypeVar("T")

LESSONS = {
    "streams": "Do I need batch size 1 to pass the state on?",
    "stateful": "Does carrying the state help?",
    "alphabet": "Did it learn the letters, or only their positions?",
    "encoding": "Is a number per character enough?",
    "words": "Words or characters, and one-hot or an embedding of words?",
    "outputs": "One output at the end, or one per character?",
    "divisible": "Why must the samples divide by the batch size, and why do shapes (1, n) and (B, n) not broadcast?",
    "cosine": "What do a plain net, a stateless LSTM, a stateful one and a stacked stateful one make of a wave?",
    "state": "What is in the state, when does it reset, what do cells remember?",
    "memory": "How far back does it remember?",
    "author": "Whose text is it?",
    "lengths": "Texts of different lengths?",
    "temperature": "What does temperature do?",
}


class Table(NamedTuple):
    """Numbers for people; a row is a name and its measurements."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | float]]


class Picture(NamedTuple):
    """A picture; ``draw`` draws on a matplotlib Figure."""

    caption: str
    draw: Callable[[Any], None]
    height: float = 4  # inches; the width is 9


def plotted(curves: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str) -> Callable[[Any], None]:
    """Return the ``draw`` of a `Picture` with a curve for each name, through points (x, y)."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for name, points in curves.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.legend()

    return draw


class Passage(NamedTuple):
    """A text, each character of which is coloured by a number from -1 to 1."""

    caption: str
    text: str
    values: Sequence[float]


class Conclusion(NamedTuple):
    """A statement that the numbers support, and whether it is as expected."""

    text: str
    holds: bool


@dataclass(frozen=True)
class Answer:
    """The result of an experiment."""

    conclusions: Sequence[Conclusion]
    tables: Sequence[Table]
    pictures: Sequence[Picture] = ()
    passages: Sequence[Passage] = ()


@dataclass(frozen=True)
class Setting:
    """The texts and the options of an experiment."""

    text: str
    voices: Mapping[str, str] = field(default_factory=dict)  # a text of each author, by name
    random_seed: int = 0
    quick: bool = False

    def pick(self, whole: T, quick: T) -> T:
        """Return a size for the whole experiment, or for the quick one."""
        return quick if self.quick else whole


class Lesson(Protocol):
    """The members of a lesson's module."""

    EXPECT: str

    def answer(self, setting: Setting) -> Answer:
        """Run the experiment."""


def lesson(name: str) -> Lesson:
    """Load a lesson's module."""
    return cast(Lesson, import_module(f"chargen.lab.{name}"))
