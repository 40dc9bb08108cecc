"""``chargen plot``."""

from __future__ import annotations

from pathlib import Path

import click

from chargen import ChargenError
from chargen.commands.common import Command, refuse_output, say


@click.command(
    cls=Command,
    short_help="Draw the curves of one or more trainings.",
    epilog="""
    chargen plot runs/book --output curves.svg
    chargen plot runs/book runs/book-2 --output curves.png
    """,
)
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="New picture; its name ends with .svg or .png.",
)
def plot(runs: tuple[Path, ...], output: Path) -> None:
    """Draw the training and validation bits per character of RUNS in one picture, by characters and by minutes."""
    from chargen.files.disk import write_beside
    from chargen.plot import KINDS, curves
    from chargen.store.run import Run

    kind = output.suffix.removeprefix(".").lower()
    if kind not in KINDS:
        raise click.UsageError(f"--output {output} is neither .svg nor .png: choose one of them")
    refuse_output(output)
    metrics = [(run.name or str(run), Run(run).metrics()) for run in runs]
    for name, records in metrics:
        if not records:
            raise ChargenError(f"{name} has no validation yet: nothing to draw")
    write_beside(output, curves(metrics, kind), new=True)
    for name, records in metrics:
        say(f"{name}: {min(record['validation_bpc'] for record in records):.3f} validation bpc at best")
