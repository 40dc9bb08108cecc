"""``chargen eval``."""

from __future__ import annotations

import json
import sys
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chargen import process
from chargen.bits import bits
from chargen.shell import Command, Encoding, Texts, quiet, refuse_output, run_of, say

if TYPE_CHECKING:
    from chargen.corpus import Starts
    from chargen.evaluate import Score

SPLITS = ("validation", "training")


@click.command(
    "eval",
    cls=Command,
    epilog="""
    chargen eval                        the newest run on its own validation text
    chargen eval letter.txt --model runs/book
    chargen eval --dynamic --baseline xz
    chargen eval letter.txt --surprisal
    chargen eval letter.txt --html letter.html
    """,
)
@click.argument("files", nargs=-1, type=Texts())
@click.option(
    "--model", type=click.Path(exists=True, path_type=Path), help="A run or a model file. [default: the newest run]"
)
@click.option("--split", type=click.Choice(SPLITS), help="A part of the run's own text. [default: validation]")
@click.option(
    "--protocol",
    type=click.Choice(("stream", "nanogpt")),
    default="stream",
    show_default=True,
    help="stream: in order, the state carried; nanogpt: in windows of 256, each from a zero state.",
)
@click.option("--dynamic", is_flag=True, help="Tell also what a model that goes on learning from what it reads gets.")
@click.option(
    "--baseline",
    type=click.Choice(("xz", "bz2")),
    help="Tell also what a compressor gets, after the training text.",
)
@click.option("--surprisal", is_flag=True, help="Write the text, each character shaded by its bits.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write that into this new HTML file.")
@click.option("--encoding", type=Encoding(), default="utf-8", show_default=True, help="Encoding of the files.")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON object.")
def evaluate(
    files: tuple[str, ...],
    model: Path | None,
    split: str | None,
    protocol: str,
    dynamic: bool,
    baseline: str | None,
    surprisal: bool,
    html: Path | None,
    encoding: str,
    as_json: bool,
) -> None:
    """Tell how well a model predicts FILES, read in order: nats and bits per character, perplexity.

    Without FILES it is the validation text of the run. A character that the model never saw costs what it takes to
    name it among all of Unicode. The text's first character is free.
    """
    if files and split:
        raise click.UsageError("--split is a part of the run's own text: it does not go with FILES")
    if surprisal and as_json:
        raise click.UsageError("--surprisal does not go with --json")
    if baseline and split == "training":
        raise click.UsageError("--baseline knows the training text: it does not go with --split training")
    if html is not None:
        refuse_output(html)
    from chargen.run import open_model

    file = open_model(model)
    name, text, starts, training = read_texts(files, model, split or "validation", encoding, both=baseline is not None)
    if sys.stderr.isatty():
        say(f"reading {len(text):,} characters ...", err=True)
    with quiet():
        from chargen import evaluate as protocols
        from chargen.config import TrainConfig
        from chargen.model import CharLM
        from chargen.unroll import choose, own_process

        # In float32, whatever the processor prefers: a figure to be compared is the same everywhere.
        execution, _ = choose(TrainConfig(precision="float32"))
        if process.owned():
            own_process(execution)
        lm = CharLM.of(file, execution)
        result = protocols.score(text, file.vocabulary, protocols.PROTOCOLS[protocol](lm), starts)
        adapted = protocols.score(text, file.vocabulary, protocols.dynamic(lm), starts) if dynamic else None
    figures: dict[str, Any] = {**result.to_json(), "protocol": protocol}
    if adapted is not None:
        figures["dynamic"] = adapted.to_json()
    if baseline is not None:
        from chargen.baseline import bits_per_character

        figures["baseline"] = {"compressor": baseline, "bpc": bits_per_character(baseline, training, text)}
    if as_json:
        click.echo(json.dumps(figures))
    else:
        tell(name, figures, result, adapted)
    if html is not None:
        write_page(html, name, text, result)
    if surprisal:
        show(text, result)


def read_texts(
    files: tuple[str, ...], model: Path | None, split: str, encoding: str, *, both: bool
) -> tuple[str, str, Starts, str]:
    """Return the text to score, its name, its characters and where its documents start, and the training text.

    The last is empty unless ``both`` are wanted.
    """
    from chargen import corpus
    from chargen.config import TrainConfig

    training = ""
    if both or not files:
        run = run_of(model)
        own = run.corpus()
        split_in = own.split(run.config.train.validation, run.config.train.held_out)
        parts = dict(zip(("training", "validation"), split_in, strict=True))
        training = own.vocabulary.decode(parts["training"].ids) if both else ""
        if not files:
            part = parts[split]
            return f"{own.name}, its part for {split}", own.vocabulary.decode(part.ids), part.starts, training
    # Nothing is left out of a text that is to be scored.
    read = corpus.read(files, TrainConfig(encoding=encoding, keep_boilerplate=True))
    for note in read.notes:
        say(note, err=True)
    return ", ".join(Path(file).name for file in files), read.vocabulary.decode(read.ids), read.starts[1:], training


def tell(name: str, figures: dict[str, Any], result: Score, adapted: Score | None) -> None:
    """Write the figures as a table."""
    from chargen.vocabulary import name as named

    label = {"stream": "in order", "nanogpt": "in windows of 256"}[figures["protocol"]]
    rows = [(label, result.nats_per_character)]
    if adapted is not None:
        rows.append(("dynamic", adapted.nats_per_character))
    say(f"{name}: {result.characters:,} characters predicted\n\n{'':20}nats/character     bpc   perplexity")
    for row, nats in rows:
        say(f"{row:20}{nats:14.4f}{bits(nats):8.3f}{exp(nats):13.3f}")
    if "baseline" in figures:
        say(f"{figures['baseline']['compressor']:20}{'':14}{figures['baseline']['bpc']:8.3f}")
    if result.unknown:
        price = bits(result.unknown_nats / result.unknown_characters)
        times = f"{result.unknown_characters:,} times at {price:.1f} bits"
        say(f"\nnot known to the model, {times}: {named(result.unknown)}")


def clusters(text: str, result: Score) -> list[tuple[str, float]]:
    """Return the text in whole clusters, each with its nats."""
    from chargen.terminal import Clusters

    whole = Clusters()
    return whole.add(text, list(result.costs)) + whole.release()


def write_page(path: Path, name: str, text: str, result: Score) -> None:
    """Write the text as an HTML page, each character shaded by its bits."""
    from chargen.disk import write_beside
    from chargen.surprisal import page

    told = f"{result.characters:,} characters, {bits(result.nats_per_character):.3f} bits per character"
    write_beside(path, page(name, told, clusters(text, result)).encode("utf-8", "replace"), new=True)
    say(f"{path} written", err=True)


def show(text: str, result: Score) -> None:
    """Write the text to the terminal, each character shaded by its bits."""
    from chargen.terminal import shade, shown

    click.echo("".join(shade(shown(c, sys.stdout), nats) for c, nats in clusters(text, result)), color=True)
