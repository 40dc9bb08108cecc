"""How surprising is how red: one scale of levels, and its colours on a terminal and on a page."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from chargen.bits import bits

LEVELS = 12  # level n is that of a character of n bits or more; the highest has no upper end
# The background of each level among a terminal's 256 colours; none below 1 bit.
TERMINAL_COLOURS = (None, 230, 229, 222, 222, 215, 209, 209, 203, 203, 203, 197, 197)

PAGE = """\
<!DOCTYPE html>
<html lang="und">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 1rem/1.6 Georgia, serif; max-width: 42rem; margin: 2rem auto; padding: 0 1rem; }}
  h1 {{ font-size: 1.2rem; }}
  pre {{ font: inherit; white-space: pre-wrap; overflow-wrap: anywhere; }}
  {colours}
</style>
<h1>{title}</h1>
<p>{summary}</p>
<p>{legend}</p>
<pre>{text}</pre>
</html>
"""


def level(nats: float) -> int:
    """Return the level of a character that costs ``nats``: its whole bits, 0 to LEVELS."""
    return int(min(LEVELS, bits(nats)))


def shade(text: str, nats: float) -> str:
    """Return ``text`` with the escape sequences that give it the background of its level on a terminal."""
    colour = TERMINAL_COLOURS[level(nats)]
    return text if colour is None or text == "\n" else f"\x1b[38;5;16;48;5;{colour}m{text}\x1b[0m"


def colours() -> str:
    """Return the CSS rules of the classes b1 to b12, the backgrounds of the levels."""
    return "\n  ".join(
        f".b{n} {{ background: rgb(255 60 40 / {0.75 * n / LEVELS:.2f}); }}" for n in range(1, LEVELS + 1)
    )


def page(title: str, summary: str, characters: Iterable[tuple[str, float]]) -> str:
    """Return a self-contained HTML page of texts, each shaded by its nats; ``summary`` is a line above them."""
    from html import escape  # here, as a terminal does without

    runs = groupby(((level(nats), text) for text, nats in characters), key=lambda pair: pair[0])
    legend = " ".join(f'<span class="b{n}">{n}{"+" if n == LEVELS else ""}</span>' for n in range(1, LEVELS + 1))
    shaded = ((n, escape("".join(text for _, text in run))) for n, run in runs)
    spans = (f'<span class="b{n}" title="{n} bits or more">{text}</span>' if n else text for n, text in shaded)
    return PAGE.format(
        title=escape(title), summary=escape(summary), colours=colours(), legend=f"bits: {legend}", text="".join(spans)
    )
