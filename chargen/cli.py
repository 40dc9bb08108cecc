"""The command line's front door: the group that holds the commands of `chargen.commands`."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from chargen import __version__
from chargen.commands.bench import bench
from chargen.commands.common import in_one_line, show_error
from chargen.commands.eval import evaluate
from chargen.commands.export import export
from chargen.commands.lab import lab
from chargen.commands.launch import launch
from chargen.commands.plot import plot
from chargen.commands.sample import sample
from chargen.commands.train import train
from chargen.process import INTERRUPTED


class Commands(click.Group):
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


@click.group(cls=Commands, epilog='Begin with: chargen train book.txt, then: chargen sample --seed "The"')
@click.version_option(__version__, prog_name="chargen")
def main() -> None:
    """Train a character-level LSTM on a book, and let it write in the book's style."""


for command in (train, launch, sample, evaluate, plot, export, lab, bench):
    main.add_command(command)
