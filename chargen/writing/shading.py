"""A text as a page: each character on a background that tells how many bits it cost."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from itertools import groupby

from chargen.bits import bits

MOST = 12  # bits from which on a character is as red as it gets

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
<p>{told}</p>
<p>{legend}</p>
<pre>{text}</pre>
</html>
"""


def colours() -> str:
    """Return the styles of the classes b1 .. b12: backgrounds for a character of so many bits."""
    return "\n  ".join(f".b{n} {{ background: rgb(255 60 40 / {0.75 * n / MOST:.2f}); }}" for n in range(1, MOST + 1))


def page(title: str, told: str, characters: Iterable[tuple[str, float]]) -> str:
    """Return an HTML page, whole in itself, of characters and the nats of each; ``told`` is a line above them."""
    levels = ((text, min(MOST, int(bits(nats)))) for text, nats in characters)
    runs = ((level, "".join(text for text, _ in run)) for level, run in groupby(levels, key=lambda pair: pair[1]))
    legend = " ".join(f'<span class="b{n}">{n}{"+" if n == MOST else ""}</span>' for n in range(1, MOST + 1))
    return PAGE.format(
        title=escape(title),
        told=escape(told),
        colours=colours(),
        legend=f"bits: {legend}",
        text="".join(
            f'<span class="b{level}" title="{level} bits or more">{escape(text)}</span>' if level else escape(text)
            for level, text in runs
        ),
    )
