"""Markdown on a terminal and in a pipe."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

from markdown_it.token import Token
from rich.box import Box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, ListItem, Markdown, MarkdownElement, TableElement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from chargen.commands.manual import PAGE_WIDTH, TOPICS
from chargen.terminal import is_terminal, width

UNDERLINES = {"h1": "=", "h2": "-", "h3": "~"}  # below a heading, which has to stand out without styles too
RULE = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)  # a line below a table's head
STYLES = {
    "h1": "bold",
    "h2": "bold",
    "h3": "bold",
    "code": "magenta",
    "code_block": "magenta",
    "item.number": "none",
    "table.header": "bold",
    "table.border": "none",
}  # legible on white and on black
SHORT_CODE = 30  # characters; code of this length or less is not broken at the end of a line
UNBROKEN_SPACE = "\ue000"  # a space in such code or before %, until all lines are made


def rendered(markdown: str) -> str:
    """Return a page as standard output shows it: with styles on a terminal, plain in a pipe."""
    columns = min(width(sys.stdout) or PAGE_WIDTH, PAGE_WIDTH)
    theme = Theme({f"markdown.{name}": style for name, style in STYLES.items()})
    terminal = is_terminal(sys.stdout)
    console = Console(file=sys.stdout, width=columns, force_terminal=terminal, theme=theme, highlight=False)
    with console.capture() as captured:
        console.print(Page(markdown, hyperlinks=False))
    lines = captured.get().replace(UNBROKEN_SPACE, " ").strip("\n").split("\n")
    return "\n".join(line.rstrip() for line in lines)


class PlainHeading(Heading):
    """A heading at the left, underlined by characters."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines."""
        yield self.text
        if self.tag in UNDERLINES:
            yield Text(UNDERLINES[self.tag] * min(self.text.cell_len, options.max_width))


class IndentedCode(CodeBlock):
    """A code block, indented and not highlighted: a theme of highlighting suits a dark or a light terminal."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines."""
        code = Text(self.text.plain.rstrip("\n"), overflow="fold")
        if self.lexer_name == "options":
            code.highlight_regex(r"(?m)^\S.*", "bold")
            code.highlight_regex(r"(?m)^  -\S+(, --\S+)?", "markdown.code")
            yield code
        else:
            code.stylize("markdown.code_block")
            longest = max(map(len, code.plain.split("\n")))
            yield Padding(code, (0, 0, 0, max(0, min(2, options.max_width - longest))))  # rather than break a line


class NumberedItem(ListItem):
    """An item of a list; a number has a point."""

    def render_number(self, console: Console, options: ConsoleOptions, number: int, last_number: int) -> RenderResult:
        """Yield the lines."""
        mark = f" {number:{len(str(last_number))}}. "
        lines = console.render_lines(self.elements, options.update(width=options.max_width - len(mark)))
        for index, line in enumerate(lines):
            yield Segment(" " * len(mark) if index else mark)
            yield from line
            yield Segment.line()


class RuledTable(TableElement):
    """A table with one rule, below its head."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table that rich makes, in another box."""
        for table in super().__rich_console__(console, options):
            assert isinstance(table, Table)
            table.box, table.show_edge, table.pad_edge, table.collapse_padding = RULE, False, False, True
            yield table


class Html(MarkdownElement):
    """A comment, which is not shown."""

    new_line = False


class Page(Markdown):
    """A page of the manual. A link to another page is shown as the command that shows this page."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": PlainHeading,
        "fence": IndentedCode,
        "list_item_open": NumberedItem,
        "table_open": RuledTable,
        "html_block": Html,
    }

    def __init__(self, markup: str, *, hyperlinks: bool) -> None:
        super().__init__(markup, hyperlinks=hyperlinks)
        for token in self.parsed:
            if token.children:
                token.children = list(_linked(token.children))
                for child in token.children:
                    space = " " if child.type == "code_inline" and len(child.content) <= SHORT_CODE else " (?=%)"
                    child.content = re.sub(space, UNBROKEN_SPACE, child.content)


def _linked(tokens: Sequence[Token]) -> Iterator[Token]:
    """Yield a paragraph's tokens; links to pages become the commands that show them, pictures their descriptions."""
    target, named = None, False
    for token, following in pairwise([*tokens, Token("end", "", 0)]):
        if token.type == "link_open" and not str(token.attrs["href"]).startswith("http"):
            target = str(token.attrs["href"]).partition("#")[0].removesuffix(".md")
            named = following.content.lower() == target  # [speed](speed.md): the command says it all
        elif token.type == "link_close" and target is not None:
            if target in TOPICS:
                yield Token("text", "", 0, content="" if named else " (")
                yield Token("code_inline", "code", 0, content=f"chargen help {target}")
                yield Token("text", "", 0, content="" if named else ")")
            target, named = None, False
        elif token.type == "image":
            yield Token("text", "", 0, content=f"(picture: {token.content})")
        elif not named:
            yield token
