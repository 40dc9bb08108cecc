"""``chargen export``."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chargen import ChargenError
from chargen.commands.common import Command, quiet, say
from chargen.export import FORMATS, QUANTIZATIONS, Format

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from chargen.store.modelfile import ModelFile
    from chargen.writing.clone import Clone


class ExportCommand(Command):
    """A command whose help lists the formats: what each runs on, and what to install for it."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the formats, then the examples."""
        longest = max(map(len, FORMATS))
        with formatter.section("Formats, with their values of --quantize, the default first"):
            formatter.write_dl(
                [
                    (
                        f"{name:{longest}}  {', '.join(form.quantizations)}",
                        f"runs on {form.runs_on}" + needed(form),
                    )
                    for name, form in FORMATS.items()
                ],
                col_max=32,
            )
        super().format_epilog(ctx, formatter)


def needed(form: Format) -> str:
    """Return what to install for a format whose packages are missing."""
    return f"; needs pip install 'chargen[{form.extra}]'" if form.missing else ""


@click.command(
    cls=ExportCommand,
    short_help="Write a model for other runtimes, or as a web page.",
    epilog="""
    chargen export                a SavedModel of the newest run's model
    chargen export --format html  a page that writes in any browser
    chargen export --format onnx --format litert --quantize int8
    chargen export --model runs/book --output site --format html --force
    """,
)
@click.option(
    "--model", type=click.Path(exists=True, path_type=Path), help="A run or a model file. [default: the newest run]"
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(list(FORMATS)),
    metavar="FORMAT",
    help="Format to write; can be given several times. [default: savedmodel]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write to. [default: exports in the run]",
)
@click.option(
    "--quantize",
    type=click.Choice(QUANTIZATIONS),
    help="Type of the weights; none is float32. [default: int8 for html, none for the others]",
)
@click.option("--force", is_flag=True, help="Replace an artefact of the same name.")
def export(
    model: Path | None, formats: tuple[str, ...], output: Path | None, quantize: str | None, force: bool
) -> None:
    """Write the trained model for other runtimes, with batch size 1 and, where possible, the state as input and output.

    Each artefact contains its own metadata. It is loaded in its own runtime and compared with the model, and removed if
    the two do not agree. <artefact>.md beside it explains how to use it.
    """
    chosen = {name: quantize or FORMATS[name].quantizations[0] for name in formats or ("savedmodel",)}
    for name, numbers in chosen.items():
        if numbers not in FORMATS[name].quantizations:
            pairs = "; ".join(f"{name}: {', '.join(form.quantizations)}" for name, form in FORMATS.items())
            raise click.UsageError(f"{name} has no --quantize {numbers}; choose from {pairs}")
    from chargen import export as exports
    from chargen.export.verify import Reference
    from chargen.store.modelfile import ModelFile
    from chargen.store.run import CHECKPOINT, CONFIG, MODEL, find_model
    from chargen.terminal import escaped
    from chargen.text.vocabulary import Vocabulary
    from chargen.writing.clone import Clone

    path = Path(os.path.abspath(find_model(model)))  # noqa: PTH100  # a link keeps the name that people gave it
    file = ModelFile.read(path).for_inference()
    title = path.parent.name if (path.parent / CONFIG).exists() and path.name in (MODEL, CHECKPOINT) else path.stem
    folder = output or (path.parent / "exports")
    try:
        str(folder).encode("utf-8")
    except UnicodeEncodeError:
        raise ChargenError(
            f"{folder} is not UTF-8, and other runtimes can't open a file by such a name: name another folder "
            "with --output"
        ) from None
    # Only chargen's own files can tell what the character is for that ends a document.
    plain = replace(file, vocabulary=Vocabulary(file.vocabulary.characters, file.vocabulary.unknown))
    models = {name: file if name == "chargen" else plain for name in chosen}
    wanted = [exports.Export(models[name], escaped(title), name, numbers) for name, numbers in chosen.items()]
    for one in wanted:  # all errors that can be foreseen come before anything is written
        exports.check(one.format)
        exports.refuse([folder / one.filename, folder / f"{one.filename}.md"], force=force)
    if file.vocabulary.end is not None and {*chosen} - {"chargen"}:
        say("the end of a document is the character U+FFFF in the export; begin from a zero state after it", err=True)
    ids, source = reference_text(path.parent, file, Clone(plain.weights, plain.vocabulary))
    for one in wanted:
        if sys.stderr.isatty():
            say(f"writing {one.filename} ...", err=True)
        clone = Clone(one.model.weights, one.model.vocabulary)
        with quiet():
            made, found = exports.export(one, folder, Reference(clone, ids, source, one.quantize), force=force)
        shown = made.relative_to(Path.cwd()) if made.is_relative_to(Path.cwd()) else made
        say("\n  ".join([f"{shown}, {megabytes(exports.size_of(made))}", *found]), indent=4)


def reference_text(folder: Path, model: ModelFile, clone: Clone) -> tuple[npt.NDArray[np.integer], str]:
    """Return the ids of the text on which model and export are compared, and a description of that text."""
    from chargen.export.verify import TEXT_CHARACTERS, drawn
    from chargen.store.run import Run

    try:
        run = Run(folder)
        if run.config.sha256 == model.summary.get("sha256"):
            train = run.config.train
            ids = run.corpus().split(train)[1].ids[: TEXT_CHARACTERS + 1]
            if len(ids) >= 2:
                return ids, "the validation text"
    except (ChargenError, OSError):
        pass
    return drawn(clone), "a text that the model drew, because its validation text is not available"


def megabytes(count: int) -> str:
    """Return a number of bytes as text, in MB or kB."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.0f} kB"
