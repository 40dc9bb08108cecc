"""Markdown on a terminal and in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import ClassVar

from markdown_it.token import Token
from rich.box import Box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement, TableElement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from chargen.commands.manual import PAGE_WIDTH
from chargen.terminal import is_terminal, width

UNDERLINES = {"h1": "=", "h2": "-"}  # of headings where there are no styles
RULE = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)  # a line below a table's head
STYLES = {"h1": "bold underline", "h2": "bold", "h3": "bold", "code": "cyan", "code_block": "cyan"}


def rendered(markdown: str) -> str:
    """Return a page as standard output shows it: with styles on a terminal, plain in a pipe."""
    columns = min(width(sys.stdout) or PAGE_WIDTH, PAGE_WIDTH)
    theme = Theme({f"markdown.{name}": style for name, style in STYLES.items()})
    terminal = is_terminal(sys.stdout)
    console = Console(file=sys.stdout, width=columns, force_terminal=terminal, theme=theme, highlight=False)
    with console.capture() as captured:
        console.print(Page(markdown, hyperlinks=False))
    return "\n".join(line.rstrip() for line in captured.get().strip("\n").split("\n"))


class PlainHeading(Heading):
    """A heading at the left, underlined by characters where there are no styles."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines."""
        yield self.text
        if console.color_system is None and self.tag in UNDERLINES:
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
            yield Padding(code, (0, 0, 0, 2))


class RuledTable(TableElement):
    """A table with one rule, below its head."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table that rich makes, in another box."""
        for table in super().__rich_console__(console, options):
            assert isinstance(table, Table)
            table.box, table.show_edge = RULE, False
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
        "table_open": RuledTable,
        "html_block": Html,
    }

    def __init__(self, markup: str, *, hyperlinks: bool) -> None:
        super().__init__(markup, hyperlinks=hyperlinks)
        for token in self.parsed:
            if token.children:
                token.children = list(_linked(token.children))


def _linked(tokens: Sequence[Token]) -> Iterator[Token]:
    """Yield a paragraph's tokens without its links to pages and files, and without its pictures."""
    target = None
    for token in tokens:
        if token.type == "image":
            yield Token("text", "", 0, content=f"(picture: {token.content})")
        elif token.type == "link_open" and not str(token.attrs["href"]).startswith("http"):
            target = str(token.attrs["href"])
        elif token.type == "link_close" and target is not None:
            name, _, _ = target.partition("#")
            if name.endswith(".md") and "/" not in name:
                yield Token("text", "", 0, content=" (")
                yield Token("code_inline", "code", 0, content=f"chargen help {name.removesuffix('.md')}")
                yield Token("text", "", 0, content=")")
            target = None
        else:
            yield token
