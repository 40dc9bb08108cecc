"""``chargen help``."""

from __future__ import annotations

import difflib
import re
import shutil
import sys
from textwrap import fill

import click

from chargen.commands.common import Command
from chargen.commands.manual import OPTIONS, PAGE_WIDTH, TOPICS, page
from chargen.terminal import is_terminal

MARKS = str.maketrans("", "", "`*")
COMMENT = re.compile(r"<!--.*?-->\n?", re.S)
LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")


@click.command(
    "help",
    cls=Command,
    short_help="Show a page of the manual.",
    epilog="""
    chargen help               the topics
    chargen help start         the first run
    chargen help train         the options of a command
    chargen help speed > speed.txt
    """,
)
@click.argument("words", nargs=-1, metavar="[TOPIC]")
@click.pass_context
def show_help(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Show a page of the manual, on a terminal with a pager; without TOPIC, list the topics.

    If TOPIC is the name of a command and not of a page, show the command's help.
    """
    topic = " ".join(words)
    if not words:
        click.echo(topics(ctx))
    elif topic in TOPICS:
        from chargen.commands.render import rendered  # rich takes a tenth of a second to import

        show(rendered(with_options(page(topic), ctx.find_root())))
    elif command := found(ctx.find_root(), topic):
        click.echo(command.get_help())
    else:
        close = difflib.get_close_matches(topic, dict.fromkeys([*TOPICS, *command_names(ctx)]), 2)
        hint = f": did you mean {' or '.join(close)}?" if close else ""
        listed = fill(", ".join(TOPICS), 78, initial_indent="  ", subsequent_indent="  ")
        raise click.UsageError(f"there is no topic {topic}{hint}\nThe topics are\n{listed}")


def topics(ctx: click.Context) -> str:
    """Return the list of topics: the heading and the first sentence of each page."""
    formatter = ctx.make_formatter()
    formatter.write_text("The manual. Read a page with: chargen help TOPIC")
    formatter.write_paragraph()
    formatter.write_dl([(topic, summary(topic, page(topic))) for topic in TOPICS])
    return formatter.getvalue().rstrip("\n")


def summary(topic: str, markdown: str) -> str:
    """Return the heading of a page, unless it is the topic, and the first sentence after it, without marks."""
    heading, text = LINK.sub(r"\1", COMMENT.sub("", markdown)).split("\n\n", 2)[:2]
    heading = heading.removeprefix("# ")
    sentence = "" if text.startswith("#") else re.split(r"(?<=[.?!])\s", text, maxsplit=1)[0].removesuffix(":")
    parts = [f"{heading}."] * (heading.lower() != topic) + [sentence]
    return " ".join(" ".join(parts).translate(MARKS).split())


def command_names(ctx: click.Context) -> list[str]:
    """Return the names of the program's commands."""
    root = ctx.find_root().command
    return root.list_commands(ctx) if isinstance(root, click.Group) else []


def found(root: click.Context, name: str) -> click.Context | None:
    """Return a context of the command that a name leads to, such as ``bench train``; None if there is none."""
    ctx = root
    for word in name.split():
        command = ctx.command.get_command(ctx, word) if isinstance(ctx.command, click.Group) else None
        if command is None:
            return None
        ctx = click.Context(command, parent=ctx, info_name=word)
    return ctx


def with_options(markdown: str, root: click.Context) -> str:
    """Return a page whose lines ``<!-- options: NAME -->`` are replaced by the options of the command NAME."""

    def listed(match: re.Match[str]) -> str:
        ctx = found(root, match[1])
        assert ctx is not None, match[1]
        formatter = click.HelpFormatter(width=PAGE_WIDTH)
        ctx.command.format_options(ctx, formatter)
        return f"```options\n{formatter.getvalue().strip()}\n```"

    return OPTIONS.sub(listed, markdown)


def show(text: str) -> None:
    """Write a text to standard output, with a pager if it is longer than the terminal."""
    if is_terminal(sys.stdout) and text.count("\n") + 1 >= shutil.get_terminal_size().lines:
        click.echo_via_pager(text)
    else:
        click.echo(text, color=True)
