"""The command line's front door: the group that holds the commands of `chargen.commands`."""

import click

from chargen import __version__
from chargen.commands.bench import bench
from chargen.commands.eval import evaluate
from chargen.commands.export import export
from chargen.commands.lab import lab
from chargen.commands.launch import launch
from chargen.commands.plot import plot
from chargen.commands.sample import sample
from chargen.commands.train import train


@click.group(epilog='Begin with: chargen train book.txt, then: chargen sample --seed "The"')
@click.version_option(__version__, prog_name="chargen")
def main() -> None:
    """Train a character-level LSTM on a book, and let it write in the book's style."""


for command in (train, launch, sample, evaluate, plot, export, lab, bench):
    main.add_command(command)
