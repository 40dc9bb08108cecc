"""A conversation with a model: you write a line, the model continues it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chargen import ChargenError
from chargen.config import SampleConfig
from chargen.store.modelfile import LayerState
from chargen.text.vocabulary import name
from chargen.writing.clone import Clone
from chargen.writing.generate import Piece, Until, generate
from chargen.writing.sampler import filters

HELP = """\
Write a line, and the model continues it; after an empty line it continues its
own text. A line that begins with / is a command; // at the beginning stands
for a / of the text.
  /temperature X   draw at temperature X from now on
  /length N        write N characters in each turn
  /undo            take back your last line and the model's answer
  /save FILE       save the state        /load FILE   return to a saved state
  /restart         forget everything     /help        show this text
  /quit            end, as Ctrl-D does. Ctrl-C stops the model's answer."""


class Conversation:
    """A clone that continues lines; each turn can be taken back."""

    def __init__(self, clone: Clone, config: SampleConfig, generator: np.random.Generator) -> None:
        self._clone, self.config, self._generator = clone, config, generator
        self._turns: list[tuple[tuple[LayerState, ...], Mapping[str, Any]]] = []
        self._commands: dict[str, Callable[[str], str]] = {
            "temperature": lambda value: self._set(temperature=float(value)),
            "length": lambda value: self._set(length=int(value)),
            "undo": self._undo,
            "save": self._save,
            "load": self._load,
            "restart": self._restart,
            "help": lambda _: HELP,
        }

    def answer(self, line: str) -> Iterator[Piece | str]:
        """Take a line; yield the pieces of the model's continuation, or the message of a command.

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
            return
        chosen = filters(self.config, self._clone.vocabulary)
        read, skipped = self._clone.vocabulary.repair(line.removeprefix("/") if line.startswith("//") else line)
        if skipped:
            yield f"never seen, left out: {name(skipped)}"
        self._turns.append((self._clone.state, self._generator.bit_generator.state))
        self._clone.feed(read)
        drawing = [self._generator] if self.config.temperature else None
        yield from generate(self._clone, Until(self.config.length), chosen, drawing)

    def _set(self, **value: float) -> str:
        self.config = SampleConfig.from_json({**self.config.to_json(), **value})
        return ", ".join(f"{key} {number:g}" for key, number in value.items())

    def _undo(self, _: str) -> str:
        if not self._turns:
            raise ChargenError("there is no turn to take back")
        self._clone.state, self._generator.bit_generator.state = self._turns.pop()
        return "taken back"

    def _restart(self, _: str) -> str:
        self._clone.reset_states()
        self._turns.clear()
        return "everything is forgotten"

    def _save(self, path: str) -> str:
        self._clone.save_state(_named(path), self._generator)
        return f"saved in {path}"

    def _load(self, path: str) -> str:
        generator = self._clone.load_state(_named(path))
        self._generator = generator or self._generator
        self._turns.clear()
        return f"back at {path}"


def _named(path: str) -> Path:
    if not path:
        raise ChargenError("name a file, such as /save chapter-1")
    return Path(path)
