"""The promises of README and the manual: commands parse, blocks marked for it run, links lead somewhere."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from chargen import __version__
from chargen.cli import main
from chargen.commands.manual import OPTIONS, TOPICS
from chargen.export import FORMATS, Export
from tests.conftest import HANG, commands_of
from tests.export.test_export import random_model

ROOT = Path(__file__).parents[1]
MANUAL = ROOT / "chargen" / "manual"
DOCUMENTS = {file.name: file for file in [ROOT / "README.md", *(MANUAL / f"{topic}.md" for topic in TOPICS)]}
TEXTS = {name: file.read_text("utf-8") for name, file in DOCUMENTS.items()}
OPERATORS = {"|", "&&", "||", ";", "&"}


def blocks(text, language):
    """The blocks of a language, and whether a line `<!-- run -->` stands before each."""
    return [
        (bool(marked), block) for marked, block in re.findall(rf"(<!-- run -->\n)?```{language}\n(.*?)```", text, re.S)
    ]


def commands(line):
    """The words of each chargen command in a line of a shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[list[str]] = [[]]
    for token in lexer:
        if token in OPERATORS:
            words.append([])
        else:
            words[-1].append(token)
    for part in words:
        while part and re.match(r"[A-Z_]+=", part[0]):  # an environment variable
            part = part[1:]
        if part and Path(part[0]).name == "chargen":
            redirected = next((place for place, word in enumerate(part) if word[0] in "<>"), len(part))
            yield part[1:redirected]


def every_command_line():
    for name, text in TEXTS.items():
        for _, block in blocks(text, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                for words in commands(line):
                    yield pytest.param(words, id=f"{name}: {' '.join(words)}")


def parse(group, words):
    """Parse the words of a command, or of a command in a group of commands."""
    name = words[0] if words else ""
    if isinstance(group, click.Group) and name in commands_of(group):
        parse(commands_of(group)[name], words[1:])
    else:
        group.make_context(group.name, list(words))


def leaves(group=main, before=""):
    """Every command that is no group, by its name."""
    for name, command in commands_of(group).items():
        if isinstance(command, click.Group):
            yield from leaves(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


@pytest.mark.parametrize("words", list(every_command_line()))
def test_every_command_parses(words, here):
    for pattern in (word for word in words if "*" in word):
        (here / pattern.split("/")[0]).mkdir(exist_ok=True)
        (here / pattern.replace("**/", "").replace("*", "a")).touch()
    if words[:1] == ["help"]:
        words = ["help", "--help"] if " ".join(words[1:]) in {"", *TOPICS} else [*words[1:], "--help"]
    for _ in ["", *words]:  # once for each file that it may name
        try:
            return parse(main, words)
        except (click.exceptions.Exit, click.exceptions.NoArgsIsHelpError):  # it shows help
            return None
        except click.BadParameter as error:
            missing = re.search(r"(File|Directory|Path) '(.+)' does not exist", error.message)
            if missing is None:
                raise
            path = here / missing[2]
            (path.parent if path.suffix else path).mkdir(parents=True, exist_ok=True)
            if path.suffix:
                path.touch()
    return parse(main, words)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if any(run for run, _ in blocks(text, "sh"))])
def test_the_blocks_marked_for_it_run(name, here, trained):
    lines = [line for run, block in blocks(TEXTS[name], "sh") if run for line in block.splitlines()]
    if not any("chargen train" in line for line in lines):
        shutil.copytree(trained, here / "runs" / "book")
    program = here / ".bin" / "chargen"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m chargen "$@"\n')
    program.chmod(0o755)
    env = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    for line in lines:
        if any(commands(line)):
            done = subprocess.run(
                ["sh", "-ec", line], cwd=here, env=env, capture_output=True, timeout=HANG, check=False
            )
            assert done.returncode == 0, (line, done.stderr.decode())


def notes():
    """What chargen writes beside each artefact of a model named book, by its Python; those are run in test_export."""
    for name, form in FORMATS.items():
        export = Export(random_model(1), "book", name, form.quantizations[0])
        if form.snippet:
            yield export.note.split("```")[1].removeprefix("python\n"), export.filename


NOTES = dict(notes())


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if blocks(text, "python")])
def test_the_python_runs(name, trained, here):
    (here / "runs").mkdir()
    (here / "runs" / "book").symlink_to(trained)
    variables: dict[str, object] = {}
    for block in (block for _, block in blocks(TEXTS[name], "python") if block not in NOTES):
        # The small model has seen few characters: the texts are put into those, as the command would do it.
        small = re.sub(r'feed\("[^"]*"\)', 'feed("the cat ")', block)
        exec(compile(small, name, "exec"), variables)


@pytest.mark.parametrize("snippet", NOTES, ids=NOTES.get)
def test_the_manual_shows_how_to_use_each_artefact_as_its_note_does(snippet):
    assert any(f"```python\n{snippet}```" in text for text in TEXTS.values())


def anchors(text):
    """The anchors of a document's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    prose = re.sub(r"^```.*?^```", "", TEXTS[name], flags=re.S | re.M)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", prose):
        file = DOCUMENTS[name].parent / target if target else DOCUMENTS[name]
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text("utf-8")), f"{target}#{anchor}"


def test_the_options_of_every_command_are_in_one_topic():
    listed = [command for text in TEXTS.values() for command in OPTIONS.findall(text)]
    with_options = [name for name, command in leaves() if any(isinstance(p, click.Option) for p in command.params)]
    assert sorted(listed) == sorted(with_options)


def test_every_page_is_a_topic():
    assert {file.stem for file in MANUAL.glob("[!_]*.md")} == set(TOPICS)


def test_the_tour_names_every_folder():
    places = TEXTS["README.md"] + TEXTS["contributing.md"]
    for folder in (ROOT / "chargen").iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert f"{folder.name}/" in places, folder.name


def test_the_changelog_tells_of_this_version():
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")
