"""`chargen help`, and what --help lists."""

import io
import re
from contextlib import redirect_stdout

import click
import pytest

from chargen.cli import main
from chargen.commands import help as manual
from chargen.commands.bench import bench
from chargen.commands.manual import TOPICS, page, topic_of
from chargen.commands.render import rendered
from chargen.terminal import columns
from tests.commands.test_terminal_faults import in_terminal
from tests.conftest import commands_of, invoke
from tests.test_docs import leaves

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
PAGE = """# The head of a *page*

Its first `sentence` is here. See [speed](speed.md) and [the rule](choices.md#rule), or [below](#below).

<!-- run -->
```sh
chargen train
```

<!-- options: plot -->

| name | speed |
|---|---:|
| one | 1.5 |

## Below
"""
SHOWN = """The head of a page
==================

Its first sentence is here. See chargen help speed and the rule
(chargen help choices), or below.

  chargen train

Options:
  --output FILE  New picture; its name ends with .svg or .png. [required]

name  speed
-----------
one     1.5

Below
-----"""


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 80 columns as standard output."""
    for name, value in {"COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def shown(text, stream=None):
    with redirect_stdout(stream or io.StringIO()):
        return rendered(manual.with_options(text, click.Context(main)))


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_in_a_pipe_has_80_columns_and_no_escape_codes(topic):
    result = invoke("help", topic)
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert "<!--" not in result.output
    assert max(map(columns, result.output.split("\n"))) <= 80


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_on_a_terminal_is_that_of_a_pipe_with_styles(topic, terminal):
    styled = shown(page(topic), terminal)
    assert ESCAPES.search(styled)
    assert ESCAPES.sub("", styled).split() == invoke("help", topic).output.split()


def test_a_page_is_shown_without_comments_and_with_options_and_commands_for_links():
    assert shown(PAGE) == SHOWN


def test_a_terminal_is_shown_no_colors_if_it_wants_none(terminal, monkeypatch):
    assert re.search(r"\x1b\[3\d", shown(PAGE, terminal))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[(\d+;)*[34]\d", shown(PAGE, terminal))


def test_a_narrow_terminal_is_filled_and_a_wide_one_is_not(terminal, monkeypatch):
    for given, most in ((50, 50), (200, 80)):
        monkeypatch.setenv("COLUMNS", str(given))
        assert most - 10 < max(map(len, ESCAPES.sub("", shown("word " * 100, terminal)).split("\n"))) <= most


def test_only_what_is_longer_than_the_terminal_gets_a_pager(terminal, monkeypatch):
    paged: list[str] = []
    monkeypatch.setattr(click, "echo_via_pager", paged.append)
    for lines in (23, 24):
        with redirect_stdout(terminal):
            manual.show("\n".join("a" * lines))
    assert len(paged) == 1


def test_a_topic_on_a_real_terminal_fits_it(tmp_path):
    code, lines = in_terminal("help", "training", cwd=tmp_path, PAGER="cat", TERM="xterm")
    assert code == 0
    assert lines[0].endswith("Training")
    assert max(map(columns, lines)) <= 80


def test_without_a_topic_all_are_listed():
    listed = invoke("help").output
    assert re.findall(r"^(\w+)  ", listed, re.M) == list(TOPICS)
    assert manual.summary("plot", PAGE) == "The head of a page. Its first sentence is here."
    assert manual.summary("speed", "# Speed\n\nIt *is*\n[fast](x.md):\n\nso\n") == "It is fast"
    assert manual.summary("faq", "# Questions\n\n## Why?\n\nSo.\n") == "Questions."


@pytest.mark.parametrize("name", ["train", "bench train", "bench"])
def test_the_name_of_a_command_shows_its_help(name):
    def lines(output):
        return output.replace("main ", "").split("\n")[1:]

    assert lines(invoke("help", *name.split()).output) == lines(invoke(*name.split(), "--help").output)


def test_the_help_of_bench_names_the_topic_of_its_commands():
    assert f"Read on in: chargen help {topic_of('bench train')}\n" in invoke("bench", "--help").output


@pytest.mark.parametrize(("wrong", "meant"), [("samplin", "sampling or sample"), ("trian", "train or training")])
def test_an_unknown_topic_names_the_topics(wrong, meant):
    result = invoke("help", wrong)
    assert result.exit_code == 2
    assert f"there is no topic {wrong}: did you mean {meant}?\nThe topics are\n  start, " in result.stderr
    assert "did you mean" not in invoke("help", "zzz").stderr


def test_commands_are_listed_in_the_order_of_the_work_and_not_cut():
    order = ["text", "train", "sample", "eval", "plot", "export", "serve", "launch", "lab", "bench", "help"]
    assert list(commands_of(main)) == order
    for group, output in ((main, invoke("--help").output), (bench, invoke("bench", "--help").output)):
        listed = re.findall(r"^  (\w+) +(.*)$", output.split("Commands:\n")[1].split("\n\n")[0], re.M)
        assert listed == [(name, command.short_help) for name, command in commands_of(group).items()]


def test_without_arguments_a_newcomer_is_told_what_to_type():
    result = invoke()
    assert "chargen train FILE" in result.output
    assert "chargen help start" in result.output


@pytest.mark.parametrize(("name", "command"), list(leaves()))
def test_help_lists_each_option_once_in_plain_words(name, command):
    output = invoke(*name.split(), "--help").output
    assert max(map(len, output.split("\n"))) <= 80
    assert not re.search(r"RANGE|<=|>=|INTEGER|FLOAT", output)
    for option in command.params:
        if isinstance(option, click.Option):
            assert len(re.findall(rf"^  (-\w, )?{option.opts[-1]}( |$)", output, re.M)) == 1, option.opts
    assert name == "help" or f"Read on in: chargen help {topic_of(name)}\n" in output


def test_the_options_of_a_training_are_in_groups():
    output = invoke("train", "--help").output
    titles = re.findall(r"^([A-Z].*):$", output, re.M)
    assert titles == [
        *("How long", "Network", "Optimisation", "Text", "Machine", "Where it is kept", "Going on", "Examples"),
    ]
