"""The line that a person types in a conversation: with completion and history where prompt_toolkit is installed."""

from __future__ import annotations

import re
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from chargen.text.words import JOINERS
from chargen.writing.words import LAST

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer

PROMPT = "> "
FEWEST_LETTERS = 2  # of a word that is completed
MOST_WORDS = 200  # that are looked at ..
SHOWN_WORDS = 7  # .. and shown, the shortest first


def line_reader(commands: Iterable[str], words: Sequence[str]) -> Callable[[], str]:
    """Return a function that shows a prompt and reads a line.

    In a terminal, prompt_toolkit completes ``commands`` after a slash and ``words``, which are in code-point order.
    Without it, or where input or output is no terminal, lines are read plainly. The function raises EOFError at the
    input's end and KeyboardInterrupt at Ctrl-C.
    """
    if sys.stdin.isatty() and sys.stdout.isatty():
        with suppress(ImportError):
            from prompt_toolkit import PromptSession

            session: PromptSession[str] = PromptSession(completer=completer(commands, words))
            return lambda: session.prompt(PROMPT)
    with suppress(ImportError):  # Windows has no readline; its console edits lines
        import readline  # noqa: F401  - gives input() line editing and history
    return lambda: input(PROMPT)


def completer(commands: Iterable[str], words: Sequence[str]) -> Completer:
    """Return prompt_toolkit's completer of commands and words."""
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document

    listed = sorted(f"/{command}" for command in commands)

    class Completions(Completer):
        """Complete a command at the line's beginning, or the last word."""

        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
            """Yield the completions of what stands before the cursor."""
            typed, found = last_word(document.text_before_cursor), listed
            if not typed.startswith("/"):
                found = completions(typed, words)
            yield from (Completion(one, -len(typed)) for one in found if one.startswith(typed))

    return Completions()


def last_word(line: str) -> str:
    """Return what may be completed at a line's end: the line if it is a command without arguments, or its last word."""
    if re.fullmatch(r"/[a-z-]*", line):
        return line
    found = re.search(rf"[^\W\d_]+([{re.escape(JOINERS)}][^\W\d_]+)*$", line)
    return found[0] if found else ""


def completions(typed: str, words: Sequence[str]) -> list[str]:
    """Return the shortest words that begin with ``typed``, from words in code-point order; a capital stands for both.

    There are none for fewer than two letters.
    """
    if len(typed) < FEWEST_LETTERS:
        return []
    found = set[str]()
    for start in {typed, typed[0].lower() + typed[1:]}:
        first, last = bisect_left(words, start), bisect_left(words, start + LAST)
        found.update(typed[0] + word[1:] for word in words[first : min(last, first + MOST_WORDS)])
    return sorted(found - {typed}, key=lambda word: (len(word), word))[:SHOWN_WORDS]
