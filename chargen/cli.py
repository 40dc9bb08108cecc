"""The command line's front door: the group that holds the commands of `chargen.commands`."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, cast

import click

from chargen import __version__
from chargen.commands.common import Group, in_one_line, show_error
from chargen.process import INTERRUPTED

# Each command is a function of the module of its name, in the order of the work.
FUNCTIONS = {
    "text": "text",
    "train": "train",
    "sample": "sample",
    "eval": "evaluate",
    "plot": "plot",
    "export": "export",
    "serve": "serve",
    "launch": "launch",
    "lab": "lab",
    "bench": "bench",
    "help": "show_help",
}


class Commands(Group):
    """The commands. Standing alone they end with an exit code, and with one line on standard error if they fail.

    A command is imported when it is used: all of them would take 50 ms of every start.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the work."""
        return list(FUNCTIONS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command and return it; None if there is none of that name."""
        if cmd_name not in FUNCTIONS:
            return None
        return cast(click.Command, getattr(import_module(f"chargen.commands.{cmd_name}"), FUNCTIONS[cmd_name]))

    def main(self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **extra: Any) -> Any:  # type: ignore[override]
        """Run what the arguments say; exit, or return, as click's own does."""
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **extra)
        code: Any = 0
        try:
            with in_one_line():
                code = super().main(args, standalone_mode=False, **extra)
                sys.stdout.flush()
        except click.ClickException as error:
            show_error(error)
            code = error.exit_code
        except click.Abort:
            code = INTERRUPTED
        except BrokenPipeError:  # who read has read enough
            code = 1
        sys.exit(code)


@click.group(cls=Commands, epilog="The manual: chargen help. The options of a command: chargen train --help.")
@click.version_option(__version__, prog_name="chargen")
def main() -> None:
    """Train a character-level LSTM on a book, and let it write in the book's style.

    \b
    Begin with:
      chargen train                train for 10 minutes on the bundled book
      chargen train FILE           train on your own text; Ctrl-C stops it
      chargen sample --seed "The"  write text that begins with these words
      chargen help start           read the first page of the manual
    """
