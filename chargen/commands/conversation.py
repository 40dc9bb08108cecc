"""``chargen sample --interactive``."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import click

from chargen import ChargenError
from chargen.commands.common import Stop, say
from chargen.commands.prompt import line_reader
from chargen.terminal import Clusters, shown
from chargen.text.words import unpacked
from chargen.writing.generate import beginning
from chargen.writing.interactive import Conversation

if TYPE_CHECKING:
    from chargen.commands.sample import Job


def converse(job: Job) -> int:
    """Read lines from standard input and write the model's answers until the input ends; return the exit code."""
    if job.seed:
        job.clone.feed(beginning(job.clone) + job.seed)
    conversation = Conversation(job.clone, job.config, job.drawing(1, 0)[0], job.seed)
    read_line = line_reader([*conversation.commands, "quit"], unpacked(job.clone.words) if job.clone.words else ())
    say("Write a line, and the model continues; /words offers words to choose from, /help lists the commands.")
    while True:
        try:
            line = read_line()
        except EOFError:
            say()
            return 0
        except OSError as error:
            raise ChargenError(f"cannot read standard input: {error.strerror}") from None
        except UnicodeDecodeError:
            say("the line is not UTF-8: it was ignored", err=True)
            continue
        except KeyboardInterrupt:
            say()
            continue
        if line.strip() == "/quit":
            return 0
        clusters = Clusters()
        try:
            with Stop() as stop:
                for said in conversation.answer(line):
                    if isinstance(said, str):
                        say(said, indent=5)
                        continue
                    stopped = bool(stop.signal)  # read once: a signal may come while this is written
                    ended = stopped or said.stopped_by is not None
                    whole = clusters.add(said.text, said.nats) + (clusters.release() if ended else [])
                    click.echo(shown("".join(c for c, _ in whole), sys.stdout), nl=ended, color=True)
                    if stopped:
                        break
        except ChargenError as error:
            say(str(error), err=True)
        if stop.signal not in (0, signal.SIGINT):
            return 128 + stop.signal
