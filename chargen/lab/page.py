"""The results of lessons as one self-contained page: tables, pictures, coloured text, conclusions."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape

from chargen.lab import LESSONS, Answer, Passage, Picture, Table, lesson
from chargen.plot import figure, saved

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Stateful LSTMs: questions, answered by running them</title>
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 1rem/1.55 Georgia, serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem; }}
  h2 {{ border-top: 1px solid #8888; line-height: 1.25; margin-top: 3rem; padding-top: 1.5rem; }}
  table {{ border-collapse: collapse; display: block; font: .9rem/1.4 system-ui, sans-serif; overflow-x: auto; }}
  th, td {{ border-bottom: 1px solid #8885; padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top; }}
  td {{ font-variant-numeric: tabular-nums; }}
  figure {{ margin: 1.5rem 0; }}
  img {{ background: white; border-radius: .3rem; height: auto; max-width: 100%; }}
  figcaption, .expect, .source {{ color: color-mix(in srgb, currentColor 70%, transparent); }}
  pre {{ font: .85rem/1.5 ui-monospace, monospace; white-space: pre-wrap; }}
  li.other::after {{ content: " (not as expected)"; color: #c62828; }}
</style>
<h1>Stateful LSTMs: questions, answered by running them</h1>
<p class="source">{source}</p>
<ol>
{contents}
</ol>
{sections}
</html>
"""


def page(answers: Mapping[str, Answer], source: str) -> str:
    """Return an HTML page of lessons' answers, by name; ``source`` is a line about the text and the options.

    Raises ChargenError if matplotlib is not installed.
    """
    return PAGE.format(
        source=escape(source),
        contents="\n".join(f'<li><a href="#{name}">{escape(LESSONS[name])}</a></li>' for name in answers),
        sections="\n".join(section(name, answer) for name, answer in answers.items()),
    )


def section(name: str, answer: Answer) -> str:
    """Return a lesson as HTML."""
    conclusions = "".join(
        f"<li{'' if one.holds else ' class=other'}>{escape(one.text)}</li>" for one in answer.conclusions
    )
    parts = [
        f'<h2 id="{name}">{escape(LESSONS[name])}</h2>',
        f'<p class="expect">What to expect: {escape(" ".join(lesson(name).EXPECT.split()))}</p>',
        *map(table, answer.tables),
        *map(picture, answer.pictures),
        *map(passage, answer.passages),
        f"<p>Conclusions:</p>\n<ul>{conclusions}</ul>",
    ]
    return "\n".join(parts)


def number(value: str | float) -> str:
    """Return a value of a table as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.01 else f"{value:.1e}"


def table(one: Table) -> str:
    """Return a table as HTML."""
    head = "".join(f"<th>{escape(column)}</th>" for column in one.columns)
    rows = ("".join(f"<td>{escape(number(value))}</td>" for value in row) for row in one.rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def picture(one: Picture) -> str:
    """Return a picture as HTML."""
    drawn = figure(9, one.height)
    one.draw(drawn)
    data = base64.b64encode(saved(drawn, "svg")).decode("ascii")
    caption = escape(one.caption)
    image = f'<img alt="{caption}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def passage(one: Passage) -> str:
    """Return a coloured text as HTML: red is 1, blue is -1."""
    spans = "".join(
        f'<span style="background:rgb({"220 60 40" if value > 0 else "40 90 220"} / {0.7 * abs(value):.2f})">'
        f"{escape(character)}</span>"
        for character, value in zip(one.text, one.values, strict=True)
    )
    return f"<figure><figcaption>{escape(one.caption)}</figcaption><pre>{spans}</pre></figure>"
