"""In a conversation, commands and words of the book are completed while a line is typed."""

import sys

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from chargen.commands.prompt import completer, completions, last_word, line_reader
from tests.conftest import PROMPT, Terminal

WORDS = ("The", "river", "rivers", "rivulet", "the", "their", "then", "thirty")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("", ""),
        ("the riv", "riv"),
        ("the riv ", ""),
        ("the riv.", ""),
        ("don't", "don't"),
        ("a lock-ho", "lock-ho"),
        ("/sen", "/sen"),
        ("/save riv", "riv"),
        ("//riv", "riv"),
        ("12riv", "riv"),
    ],
)
def test_the_last_word_or_a_command_at_the_beginning_is_completed(line, word):
    assert last_word(line) == word


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("riv", ["river", "rivers", "rivulet"]),
        ("th", ["the", "then", "their", "thirty"]),
        ("Riv", ["River", "Rivers", "Rivulet"]),
        ("Th", ["The", "Then", "Their", "Thirty"]),
        ("the", ["then", "their"]),
        ("t", []),
        ("x", []),
        ("", []),
    ],
)
def test_the_shortest_words_come_first_and_a_capital_is_kept(typed, found):
    assert completions(typed, WORDS) == found


def test_completions_replace_what_was_typed():
    def shown(line):
        done = completer(["words", "sentences", "save"], WORDS).get_completions(Document(line), CompleteEvent())
        return [(one.text, one.start_position) for one in done]

    assert shown("/s") == [("/save", -2), ("/sentences", -2)]
    assert shown("the riv") == [("river", -3), ("rivers", -3), ("rivulet", -3)]
    assert shown("/save ") == []


def test_without_prompt_toolkit_or_a_terminal_lines_are_read_plainly(monkeypatch):
    monkeypatch.setattr("builtins.input", lambda prompt: f"{prompt}typed")
    assert line_reader([], ())() == "> typed"
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)
    assert line_reader([], ())() == "> typed"


@pytest.mark.long
def test_the_tab_key_completes_a_command_and_the_arrow_brings_a_line_back(trained, here):
    with Terminal("sample", "--model", str(trained), "--interactive", "--length", "5", cwd=here) as terminal:
        terminal.until(PROMPT)
        terminal.type(b"/temp")
        terminal.until(b"/temperature")  # the list of completions
        terminal.type(b"\t 0.5\r")
        terminal.until(b"temperature 0.5\r\n")
        terminal.until(PROMPT)
        terminal.type(b"\x1b[A\x7f4\r")  # the line before, its last character replaced
        terminal.until(b"temperature 0.4\r\n")
        terminal.type(b"/quit\r")
        assert terminal.ended() == 0
