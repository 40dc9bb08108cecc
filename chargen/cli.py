"""The command line's front door: the group that holds the commands of `chargen.commands`."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from chargen import __version__
from chargen.commands.bench import bench
from chargen.commands.common import Group, in_one_line, show_error
from chargen.commands.eval import evaluate
from chargen.commands.export import export
from chargen.commands.help import show_help
from chargen.commands.lab import lab
from chargen.commands.launch import launch
from chargen.commands.plot import plot
from chargen.commands.sample import sample
from chargen.commands.train import train
from chargen.process import INTERRUPTED


class Commands(Group):
    """The commands. Standing alone they end with an exit code, and with one line on standard error if they fail."""

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
      chargen train book.txt       train for 10 minutes; Ctrl-C stops earlier
      chargen sample --seed "The"  write text that begins with these words
      chargen help start           read how to go on
    """


for command in (train, sample, evaluate, plot, export, launch, lab, bench, show_help):
    main.add_command(command)
