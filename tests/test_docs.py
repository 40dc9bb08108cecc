"""README's promises, by machine: its commands parse, the ones marked for it run, its links and its tour are whole."""

import re
import shlex
from pathlib import Path

import click
import pytest

from chargen.cli import main
from chargen.export import FORMATS, Export
from tests.conftest import chargen
from tests.export.test_export import random_model

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")

# A fenced block that follows a line `<!-- run -->` is run, line by line, in a folder with book.txt in it.
BLOCKS = re.findall(r"(<!-- run -->\n)?```sh\n(.*?)```", README, re.S)


def chargen_commands():
    for _, block in BLOCKS:
        for line in block.splitlines():
            for part in re.split(r"&&|\|", line.split(" #")[0]):
                words = shlex.split(part)
                if words and Path(words[0]).name == "chargen":
                    yield words[1:]


def found(words):
    """The command that some words name, and the rest of them."""
    command, rest = main.commands[words[0]], words[1:]
    while isinstance(command, click.Group):
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def every_command(group=main):
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from every_command(command)
        else:
            yield command


def notes():
    """What chargen writes beside each artefact of a model named book, by its Python; those are run in test_export."""
    for name, form in FORMATS.items():
        export = Export(random_model(1), "book", name, form.quantizations[0])
        if form.snippet:
            yield export.note.split("```")[1].removeprefix("python\n"), export.filename


NOTES = dict(notes())


@pytest.mark.parametrize("words", list(chargen_commands()), ids=" ".join)
def test_every_command_in_the_readme_parses(words, here):
    for name in ("book.txt", "letters", "letters.txt", "runs/book", "runs/book-2", "words.txt", "one.state"):
        if name in words and Path(name).suffix:
            (here / name).touch()
        if name in words and not (here / name).exists():
            (here / name).mkdir(parents=True)
    for pattern in (word for word in words if "*" in word):
        (here / pattern.split("/")[0]).mkdir(exist_ok=True)
        (here / pattern.replace("**/", "").replace("*", "a")).touch()
    command, rest = found(words)
    command.make_context(command.name, rest)  # raises click.UsageError for what it can't parse


@pytest.mark.long
def test_the_commands_marked_for_it_run(here):
    lines = [line for marked, block in BLOCKS if marked for line in block.splitlines()]
    assert lines
    for line in lines:
        words = shlex.split(line.split(" #")[0])
        assert words[0] == "chargen"
        done = chargen(*words[1:], cwd=here)
        assert done.returncode == 0, (line, done.stderr)


def test_every_option_of_the_commands_is_in_the_readme():
    for command in every_command():
        for parameter in command.params:
            for name in parameter.opts if parameter.param_type_name == "option" else []:
                assert f"`{name}`" in README, name


def test_the_python_of_the_readme_runs(trained, here):
    (here / "runs").mkdir()
    (here / "runs" / "book").symlink_to(trained)
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    for block in (block for block in blocks if block not in NOTES):
        # The small model has seen few characters: the texts are put into those, as the command would do it.
        small = re.sub(r'feed\("[^"]*"\)', 'feed("the cat ")', block)
        exec(compile(small, "README.md", "exec"), {})


def test_the_readme_shows_how_to_use_each_artefact_as_its_note_does():
    for block, name in NOTES.items():
        assert f"```python\n{block}```" in README, name


def test_the_tour_names_every_file_and_no_other():
    tour = README.split("## The tour of the files\n")[1]
    rows = re.findall(r"^\| (`[\w/]+\.py`.*?) \|", tour, re.M)
    named = set(re.findall(r"`([\w/]+\.py)`", " ".join(rows)))
    folder = ROOT / "chargen"
    assert named == {file.relative_to(folder).as_posix() for file in folder.rglob("*.py")}


def test_links_in_the_readme_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_changelog_tells_of_this_version():
    from chargen import __version__

    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")
