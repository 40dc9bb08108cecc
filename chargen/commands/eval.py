"""``chargen eval``."""

from __future__ import annotations

import json
import sys
from itertools import compress, pairwise
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
LABELS = {"stream": "in order", "nanogpt": "in windows of 256", "dynamic": "dynamic"}
NAMED_FILES = 3  # at most, in a title


@click.command(
    "eval",
    cls=Command,
    short_help="Measure how well a model predicts a text.",
    groups={
        "What is read": "model split encoding",
        "Measures": "protocol dynamic baseline",
        "Output": "listed shaded html as_json",
    },
    epilog="""
    chargen eval                        the newest run on its own validation text
    chargen eval letter.txt --model runs/book
    chargen eval --dynamic --baseline xz
    chargen eval names.txt --items
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
    help="stream: in order, with the state carried; nanogpt: in windows of 256, each from a zero state.",
)
@click.option("--dynamic", is_flag=True, help="Also score dynamic evaluation: the model learns from what it reads.")
@click.option(
    "--baseline",
    type=click.Choice(("xz", "bz2")),
    help="Also score a compressor that has read the training text.",
)
@click.option("--items", "listed", is_flag=True, help="List the bits of each item, its end included.")
@click.option("--surprisal", "shaded", is_flag=True, help="Write the text, each character shaded by its surprisal.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the shaded text to this new file.")
@click.option("--encoding", type=Encoding(), help="Encoding of the files; by default UTF-8 or a guess.")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON object.")
def evaluate(files: tuple[str, ...], **values: Any) -> None:
    """Measure how well a model predicts FILES: nats and bits per character, perplexity.

    The files are read in order; without FILES, the run's validation text is read. A character that is not in the
    model's vocabulary costs some 20 to 30 bits. The first character of a text costs nothing.
    """
    refuse_together(files, values)
    if values["html"] is not None:
        refuse_output(values["html"])
    from chargen.store.run import open_model

    file = open_model(values["model"])
    training, read = "", None
    if values["baseline"] or not files:
        split = values["split"] or "validation"
        training, read = own_text(values["model"], split, with_training=values["baseline"] is not None)
    if files or read is None:
        read = given_texts(files, values["encoding"], file)
    if sys.stderr.isatty():
        say(f"reading {len(read.text):,} characters ...", err=True)
    if values["listed"]:
        refuse_unended(read, file.vocabulary)
    scores = score_all(read, file, values["protocol"], dynamic=values["dynamic"])
    figures = figures_of(read, scores)
    if values["listed"]:
        each = items_of(read, scores[values["protocol"]])
        figures |= {"bits_per_item": sum(item["bits"] for item in each) / len(each), "items": each}
    if values["baseline"] is not None:
        from chargen.training.compressor import bits_per_character

        compressed = bits_per_character(values["baseline"], training, read.text)
        figures["baseline"] = {"compressor": values["baseline"], "bpc": compressed}
    show(read, figures, scores[values["protocol"]], values)


def refuse_together(files: tuple[str, ...], values: dict[str, Any]) -> None:
    """Raise UsageError for options that can't be combined."""
    if files and values["split"]:
        raise click.UsageError("--split is a part of the run's own text: it does not go with FILES")
    if values["shaded"] and values["as_json"]:
        raise click.UsageError("--surprisal does not go with --json")
    if values["baseline"] and values["split"] == "training":
        raise click.UsageError("--baseline knows the training text: it does not go with --split training")


class Read(NamedTuple):
    """The texts to be scored."""

    name: str
    texts: tuple[str, ...]
    files: tuple[str, ...] = ()  # the file of each text, if the texts are from files
    starts: tuple[Starts, ...] = ()  # where further documents start in each text

    @property
    def text(self) -> str:
        """All texts, joined."""
        return "".join(self.texts)

    def score(self, vocabulary: Vocabulary, evaluation: Evaluation) -> list[Score]:
        """Return the score of each text."""
        from chargen.training.evaluate import score_each

        return score_each(self.texts, vocabulary, evaluation, self.starts)


def score_all(read: Read, file: ModelFile, protocol: str, *, dynamic: bool) -> dict[str, list[Score]]:
    """Return the scores of each text by the protocol and, if wanted, by dynamic evaluation."""
    with quiet():
        from chargen.config import TrainConfig
        from chargen.network.execution import choose, own_process
        from chargen.network.model import CharLM
        from chargen.training import evaluate as protocols

        # In float32 on every processor, so that figures can be compared between machines.
        execution, _ = choose(TrainConfig(precision="float32"))
        if process.owned():
            own_process(execution)
        lm = CharLM.of(file, execution)
        scores = {protocol: read.score(file.vocabulary, protocols.PROTOCOLS[protocol](lm))}
        if dynamic:
            scores["dynamic"] = read.score(file.vocabulary, protocols.dynamic(lm))
    return scores


def own_text(model: Path | None, split: str, *, with_training: bool) -> tuple[str, Read]:
    """Return a run's training text, which is empty unless it is wanted, and the part of its text to be scored."""
    run = run_of(model)
    corpus = run.corpus()
    parts = corpus.split(run.config.train)
    training, part = corpus.vocabulary.decode(parts[0].ids) if with_training else "", parts[split == "validation"]
    name = f"{corpus.name}, its part for {split}"
    return training, Read(name, (corpus.vocabulary.decode(part.ids),), starts=(part.starts,))


def given_texts(files: tuple[str, ...], encoding: str | None, model: ModelFile) -> Read:
    """Return the texts of files, without those that are not text or too short for a prediction; name these."""
    from chargen.text.documents import Reading
    from chargen.text.items import documents

    read_as = {name: model.summary[name] for name in ("normalize", "document", "column") if name in model.summary}
    found, notes = documents(files, Reading(encoding, keep_boilerplate=True, **read_as))
    unknown = "has fewer than two characters that the model knows"
    enough = [len(model.vocabulary.encode_known(text)[0]) > 1 for _, text in found]
    if not any(enough):
        raise ChargenError(f"{found[0][0]} {unknown}: give a longer text")
    short = [f"{file} {unknown}: left out" for (file, _), kept in zip(found, enough, strict=True) if not kept]
    for note in (*notes, *short):
        say(note, err=True)
    files, texts = zip(*compress(found, enough), strict=True)
    name = ", ".join(Path(file).name for file in files) if len(files) <= NAMED_FILES else f"{len(files):,} files"
    starts = tuple(map(inner_starts, texts)) if model.vocabulary.end is not None else ()
    return Read(name, texts, files, starts)


def inner_starts(text: str) -> Starts:
    """Return where documents start in a text, the first left out, by the END before each."""
    import numpy as np

    from chargen.text.vocabulary import END, code_points

    return np.asarray(np.flatnonzero(code_points(text) == ord(END))[1:-1], np.int64)


def figures_of(read: Read, scores: dict[str, list[Score]]) -> dict[str, Any]:
    """Return the figures of all texts together and, if they are files, of each, as a JSON object."""
    from chargen.training.evaluate import together

    protocol, *others = scores

    def figures(own: dict[str, Score]) -> dict[str, Any]:
        return {**own[protocol].to_json(), **{name: own[name].to_json() for name in others}}

    result = {**figures({name: together(each) for name, each in scores.items()}), "protocol": protocol}
    if read.files:
        each = ({name: own[number] for name, own in scores.items()} for number in range(len(read.files)))
        result["files"] = [{"file": name, **figures(own)} for name, own in zip(read.files, each, strict=True)]
    return result


def refuse_unended(read: Read, vocabulary: Vocabulary) -> None:
    """Raise ChargenError if the texts are not items that end where the model has learnt it."""
    from chargen.text.vocabulary import END

    vocabulary.check_end()
    if not all(text.startswith(END) for text in read.texts):
        raise ChargenError(f"{read.name} is a text of whole files, not of items: --items has nothing to list")


def items_of(read: Read, scores: list[Score]) -> list[dict[str, Any]]:
    """Return each item, its bits with those of its end, and its number of characters without it."""
    found = []
    for text, starts, score in zip(read.texts, read.starts, scores, strict=True):
        for start, end in pairwise([0, *starts.tolist(), len(text) - 1]):
            item = text[start + 1 : end]
            found.append({"item": item, "bits": bits(score.costs[start + 1 : end + 1].sum()), "characters": len(item)})
    return found


def show(read: Read, figures: dict[str, Any], scores: list[Score], values: dict[str, Any]) -> None:
    """Write the figures, and the shaded text where it is wanted."""
    from chargen.training.evaluate import together

    whole = together(scores)
    if values["as_json"]:
        click.echo(json.dumps(figures))
    else:
        write_table(read, figures, whole)
    if values["html"] is not None:
        write_page(values["html"], read.name, clusters(read.text, whole), whole)
    if values["shaded"]:
        from chargen.terminal import shown
        from chargen.writing.shading import shade

        text = (shade(shown(cluster, sys.stdout), nats) for cluster, nats in clusters(read.text, whole))
        click.echo("".join(text), color=True)


def write_table(read: Read, figures: dict[str, Any], whole: Score) -> None:
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
    if "items" in figures:
        from chargen.terminal import escaped

        say(f"{'bits of an item':20}{'':14}{figures['bits_per_item']:8.2f}\n\n    bits   characters   item")
        for row in figures["items"]:
            item = escaped(row["item"].replace("\n", " / "))
            say(f"{row['bits']:8.2f}{row['characters']:13,}   {item}", indent=24)
    if len(read.files) > 1:
        say(f"\n{heading}   characters   file")
        for row in figures["files"]:
            say(f"{line(row)}{row['characters']:13,}   {row['file']}", indent=51)
    if whole.unknown:
        price = bits(whole.unknown_nats / whole.unknown_characters)
        times = f"{whole.unknown_characters:,} x {price:.1f} bits"
        say(f"\nnot in the model's vocabulary ({times}): {named(whole.unknown)}")


def clusters(text: str, whole: Score) -> list[tuple[str, float]]:
    """Return the grapheme clusters of the text, each with its nats."""
    from chargen.terminal import Clusters
    from chargen.text.vocabulary import END

    found = Clusters()
    return found.add(text.replace(END, "\n"), list(whole.costs)) + found.release()


def write_page(path: Path, name: str, shaded: list[tuple[str, float]], whole: Score) -> None:
    """Write the text as an HTML page, shaded by surprisal."""
    from chargen.files.disk import write_beside
    from chargen.writing.shading import page

    summary = f"{whole.characters:,} characters, {bits(whole.nats_per_character):.3f} bits per character"
    write_beside(path, page(name, summary, shaded).encode("utf-8", "replace"), new=True)
    say(f"{path} written", err=True)
