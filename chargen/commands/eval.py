"""``chargen eval``."""

from __future__ import annotations

import json
import sys
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from chargen import ChargenError, process
from chargen.bits import bits
from chargen.commands.common import Command, Encoding, Texts, quiet, refuse_output, run_of, say

if TYPE_CHECKING:
    from chargen.store.modelfile import ModelFile
    from chargen.text.corpus import Starts
    from chargen.text.vocabulary import Vocabulary
    from chargen.training.evaluate import Evaluation, Score

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
    from chargen.store.run import open_model

    file = open_model(model)
    training, read = "", None
    if baseline or not files:
        training, read = own_text(model, split or "validation", both=baseline is not None)
    if files or read is None:
        read = given_texts(files, encoding, file)
    if sys.stderr.isatty():
        say(f"reading {len(read.text):,} characters ...", err=True)
    with quiet():
        from chargen.config import TrainConfig
        from chargen.network.execution import choose, own_process
        from chargen.network.model import CharLM
        from chargen.training import evaluate as protocols

        # In float32, whatever the processor prefers: a figure to be compared is the same everywhere.
        execution, _ = choose(TrainConfig(precision="float32"))
        if process.owned():
            own_process(execution)
        lm = CharLM.of(file, execution)
        scores = {protocol: read.score(file.vocabulary, protocols.PROTOCOLS[protocol](lm))}
        if dynamic:
            scores["dynamic"] = read.score(file.vocabulary, protocols.dynamic(lm))
    figures = told(read, scores)
    if baseline is not None:
        from chargen.training.compressor import bits_per_character

        figures["baseline"] = {"compressor": baseline, "bpc": bits_per_character(baseline, training, read.text)}
    whole = protocols.together(scores[protocol])
    if as_json:
        click.echo(json.dumps(figures))
    else:
        tell(read, figures, whole)
    if html is not None:
        write_page(html, read.name, read.text, whole)
    if surprisal:
        show(read.text, whole)


class Read(NamedTuple):
    """What is to be scored."""

    name: str
    texts: tuple[str, ...]
    files: tuple[str, ...] = ()  # the names of the texts, if they were given as files
    starts: Starts | None = None  # where documents start in the only text, if it is a run's own

    @property
    def text(self) -> str:
        """All texts, one after the other."""
        return "".join(self.texts)

    def score(self, vocabulary: Vocabulary, evaluation: Evaluation) -> list[Score]:
        """Return what each text costs."""
        from chargen.training.evaluate import score, score_each

        if self.starts is not None:
            return [score(self.text, vocabulary, evaluation, self.starts)]
        return score_each(self.texts, vocabulary, evaluation)


def own_text(model: Path | None, split: str, *, both: bool) -> tuple[str, Read]:
    """Return the text that a model's run was trained on, empty unless ``both`` are wanted, and a part to be scored."""
    run = run_of(model)
    corpus = run.corpus()
    parts = corpus.split(run.config.train.validation, run.config.train.held_out)
    training, part = corpus.vocabulary.decode(parts[0].ids) if both else "", parts[split == "validation"]
    name = f"{corpus.name}, its part for {split}"
    return training, Read(name, (corpus.vocabulary.decode(part.ids),), starts=part.starts)


def given_texts(files: tuple[str, ...], encoding: str, model: ModelFile) -> Read:
    """Return the texts of files; say which are left out as they are no text, or have nothing to be predicted."""
    from chargen.text.corpus import documents

    found, notes = documents(files, encoding, model.summary.get("normalize", "nfc"))
    unknown = "has fewer than two characters that the model knows"
    enough = [len(model.vocabulary.encode_known(text)[0]) > 1 for _, text in found]
    if not any(enough):
        raise ChargenError(f"{found[0][0]} {unknown}: give a longer text")
    for note in (
        *notes,
        *(f"{found[n][0]} {unknown}: left out" for n, is_enough in enumerate(enough) if not is_enough),
    ):
        say(note, err=True)
    files, texts = zip(*compress(found, enough), strict=True)
    name = ", ".join(Path(file).name for file in files) if len(files) <= FEW else f"{len(files):,} files"
    return Read(name, texts, files)


def told(read: Read, scores: dict[str, list[Score]]) -> dict[str, Any]:
    """Return the figures of all texts together and, if they are files, of each, as a JSON object."""
    from chargen.training.evaluate import together

    protocol = next(iter(scores))

    def figures(own: dict[str, Score]) -> dict[str, Any]:
        adapted = {name: score.to_json() for name, score in own.items() if name != protocol}
        return {**own[protocol].to_json(), **adapted}

    result = {**figures({name: together(each) for name, each in scores.items()}), "protocol": protocol}
    if read.files:
        each = ({name: own[number] for name, own in scores.items()} for number in range(len(read.files)))
        result["files"] = [{"file": name, **figures(own)} for name, own in zip(read.files, each, strict=True)]
    return result


LABELS = {"stream": "in order", "nanogpt": "in windows of 256", "dynamic": "dynamic"}
FEW = 3  # files that are named in a title


def tell(read: Read, figures: dict[str, Any], whole: Score) -> None:
    """Write the figures as a table."""
    from chargen.text.vocabulary import name as named

    def line(row: dict[str, Any]) -> str:
        return f"{row['nats_per_character']:14.4f}{row['bpc']:8.3f}{row['perplexity']:13.3f}"

    heading = "nats/character     bpc   perplexity"
    say(f"{read.name}: {whole.characters:,} characters predicted\n\n{'':20}{heading}")
    say(f"{LABELS[figures['protocol']]:20}{line(figures)}")
    if "dynamic" in figures:
        say(f"{LABELS['dynamic']:20}{line(figures['dynamic'])}")
    if "baseline" in figures:
        say(f"{figures['baseline']['compressor']:20}{'':14}{figures['baseline']['bpc']:8.3f}")
    if len(read.files) > 1:
        say(f"\n{heading}   characters   file")
        for row in figures["files"]:
            say(f"{line(row)}{row['characters']:13,}   {row['file']}", indent=51)
    if whole.unknown:
        price = bits(whole.unknown_nats / whole.unknown_characters)
        times = f"{whole.unknown_characters:,} times at {price:.1f} bits"
        say(f"\nnot known to the model, {times}: {named(whole.unknown)}")


def clusters(text: str, result: Score) -> list[tuple[str, float]]:
    """Return the text in whole clusters, each with its nats."""
    from chargen.terminal import Clusters

    whole = Clusters()
    return whole.add(text, list(result.costs)) + whole.release()


def write_page(path: Path, name: str, text: str, result: Score) -> None:
    """Write the text as an HTML page, each character shaded by its bits."""
    from chargen.files.disk import write_beside
    from chargen.writing.shading import page

    told = f"{result.characters:,} characters, {bits(result.nats_per_character):.3f} bits per character"
    write_beside(path, page(name, told, clusters(text, result)).encode("utf-8", "replace"), new=True)
    say(f"{path} written", err=True)


def show(text: str, result: Score) -> None:
    """Write the text to the terminal, each character shaded by its bits."""
    from chargen.terminal import shade, shown

    click.echo("".join(shade(shown(c, sys.stdout), nats) for c, nats in clusters(text, result)), color=True)
