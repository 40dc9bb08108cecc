"""A conversation with a model: you write a line, the model continues it, or offers alternatives to choose from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from chargen import ChargenError
from chargen.config import SampleConfig
from chargen.files.disk import write_beside
from chargen.text.vocabulary import name
from chargen.writing.alternatives import SENTENCE, WORD, Alternative, alternatives
from chargen.writing.clone import Clone, State
from chargen.writing.generate import Piece, Until, beginning
from chargen.writing.sampler import filters

OFFERED = 5  # alternatives, if no number is given
MOST_OFFERED = 50
HELP = """\
Write a line, and the model continues it; after an empty line it continues its
own text. A line that begins with / is a command; // at the beginning stands
for a / of the text.
  /words [N]       offer N next words, 5 by default, after each step: a number
                   takes one, an empty line lets the model go on, and another
                   line goes into the text as it is
  /sentences [N]   offer N ends of the sentence instead
  /turns           offer none: the model continues each line again
  /temperature X   draw at temperature X from now on
  /length N        write N characters in each turn
  /undo            take back the last step; again: the one before
  /save FILE       save the text in a new file
  /save-state FILE save the state        /load-state FILE  return to it
  /restart         forget everything     /help             show this text
  /quit            end, as Ctrl-D does. Ctrl-C stops the model's answer."""


class Step(NamedTuple):
    """What was before a step, to which /undo returns."""

    state: State
    generator: Mapping[str, Any]
    written: int  # parts of the text


class Conversation:
    """A clone that continues lines, or offers alternatives; each step can be taken back."""

    def __init__(self, clone: Clone, config: SampleConfig, generator: np.random.Generator, text: str = "") -> None:
        """Take a clone that has read the text so far."""
        self._clone, self.config, self._generator = clone, config, generator
        self._parts, self._steps = [text], list[Step]()
        self._until, self._count = "", OFFERED  # WORD or SENTENCE, if alternatives are offered
        self._offered = list[Alternative]()
        self._commands: dict[str, Callable[[str], str]] = {
            "words": lambda count: self._offer(WORD, count),
            "sentences": lambda count: self._offer(SENTENCE, count),
            "turns": lambda _: self._turns(),
            "temperature": lambda value: self._set(temperature=float(value)),
            "length": lambda value: self._set(length=int(value)),
            "undo": self._undo,
            "save": self._save,
            "save-state": self._save_state,
            "load-state": self._load_state,
            "restart": self._restart,
            "help": lambda _: HELP,
        }

    @property
    def commands(self) -> Iterable[str]:
        """The names of the commands, without the slash."""
        return self._commands

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._parts)

    def answer(self, line: str) -> Iterator[Piece | str]:
        """Take a line; yield the pieces of the model's text, and the messages and alternatives, each as lines.

        Raises ChargenError for a command that fails; the conversation is then unchanged.
        """
        if line.startswith("/") and not line.startswith("//"):
            command, _, argument = line[1:].partition(" ")
            if command not in self._commands:
                raise ChargenError(f"there is no command /{command}: /help lists them")
            try:
                yield self._commands[command](argument.strip())
            except ValueError:
                raise ChargenError(f"/{command} needs a number, such as /{command} 1") from None
            if command not in ("words", "sentences", "undo", "temperature"):
                return
        elif self._until and line.isdecimal():
            yield self._take(int(line))
        else:
            yield from self._go_on(line.removeprefix("/") if line.startswith("//") else line)
        if self._until:
            yield from self._alternatives()

    def _go_on(self, line: str) -> Iterator[Piece | str]:
        """Read a line, and let the model continue it; where alternatives are offered, only an empty line."""
        read, skipped = self._clone.vocabulary.repair(line)
        until = Until(0 if self._until and line else self.config.length)
        pieces = self._clone.write(self.config, until, [self._generator])
        if skipped:
            yield f"never seen, left out: {name(skipped)}"
        self._begin_step()
        self._clone.feed(beginning(self._clone) + read)
        self._parts.append(read)
        for piece in pieces:
            self._parts.append(piece.text)
            yield piece

    def _alternatives(self) -> Iterator[str]:
        """Draw the next alternatives, and yield their list."""
        clone = self._clone
        chosen = filters(self.config, clone.vocabulary, clone.words, clone.base_words)
        generator = self._generator if self.config.temperature else None
        self._offered = alternatives(self._clone, self._count, self._until, chosen, generator)
        for number, (text, probability) in enumerate(self._offered, 1):
            shown = text.replace("\n", r"\n")
            yield f"{number:3}  {shown}" + (f"  ({probability:.0%})" if self._until == WORD else "")

    def _take(self, number: int) -> str:
        if not 1 <= number <= len(self._offered):
            raise ChargenError(f"there are {len(self._offered)} alternatives: give one of their numbers")
        text = self._offered[number - 1].text
        self._begin_step()
        self._clone.feed(text)
        self._parts.append(text)
        return self.text.split("\n")[-1]

    def _begin_step(self) -> None:
        self._steps.append(Step(self._clone.state, self._generator.bit_generator.state, len(self._parts)))
        self._offered = []

    def _offer(self, until: str, count: str) -> str:
        self._count = int(count or OFFERED)
        if not 1 <= self._count <= MOST_OFFERED:
            raise ChargenError(f"give a number from 1 to {MOST_OFFERED}")
        self._until = until
        return "a number takes one, an empty line goes on, /undo takes back"

    def _turns(self) -> str:
        self._until = ""
        return "the model continues each line"

    def _set(self, **value: float) -> str:
        self.config = SampleConfig.from_json({**self.config.to_json(), **value})
        return ", ".join(f"{key} {number:g}" for key, number in value.items())

    def _undo(self, _: str) -> str:
        if not self._steps:
            raise ChargenError("there is no step to take back")
        self._clone.state, self._generator.bit_generator.state, written = self._steps.pop()
        del self._parts[written:]
        return "taken back"

    def _restart(self, _: str) -> str:
        self._clone.reset_states()
        self._steps.clear()
        self._parts, self._offered = [], []
        return "everything is forgotten"

    def _save(self, path: str) -> str:
        write_beside(_named(path), self.text.encode("utf-8", "replace"), new=True)
        return f"saved in {path}"

    def _save_state(self, path: str) -> str:
        self._clone.save_state(_named(path), self._generator)
        return f"saved in {path}"

    def _load_state(self, path: str) -> str:
        generator = self._clone.load_state(_named(path))
        self._generator = generator or self._generator
        self._steps.clear()
        self._parts, self._offered = [], []
        return f"back at {path}"


def _named(path: str) -> Path:
    if not path:
        raise ChargenError("name a file, such as /save chapter-1")
    return Path(path)
