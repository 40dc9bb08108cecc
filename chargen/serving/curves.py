"""The curves of runs as SVG, for a page: bits per character by the characters read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Any, NamedTuple

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 340, 46, 40, 12, 12  # of the picture and its margins, in units of SVG
COLOURS = ("#8a3b12", "#1f6f8b", "#5b7a1d", "#7a4fa3", "#b8860b", "#3d3a33")


class Scale(NamedTuple):
    """A range of values along an axis, and the values at which it is labelled."""

    low: float
    high: float
    ticks: Sequence[float]


def scale(low: float, high: float) -> Scale:
    """Return a scale that has some five labels, at multiples of 1, 2 or 5 times a power of ten."""
    rough = max(high - low, 1e-9) / 5
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = ceil(low / step - 1e-9)
    ticks = [round(number * step, 12) for number in range(first, floor(high / step + 1e-9) + 1)]
    return Scale(low, high, ticks)


def curves(runs: Sequence[tuple[str, list[dict[str, Any]]]]) -> str:
    """Return a picture of the runs, each a name and the records of at least one validation."""
    every = [record for _, records in runs for record in records]
    xs = scale(0, max(record["characters"] for record in every) / 1e6)
    values = [record[key] for record in every for key in ("training_bpc", "validation_bpc")]
    last = max(records[-1]["training_bpc"] for _, records in runs)
    low = min(values)
    ys = scale(low - 0.05, min(max(values), max(1.6 * last, low + 0.5)) + 0.05)  # the first values are high
    parts = [*_axes(xs, ys), '<g clip-path="url(#inside)">']
    for number, (name, records) in enumerate(runs):
        colour = COLOURS[number % len(COLOURS)]
        for key, dash in (("training_bpc", ' stroke-dasharray="2 3"'), ("validation_bpc", "")):
            places = [(_x(record["characters"] / 1e6, xs), _y(record[key], ys)) for record in records]
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
            parts.append(f'<circle cx="{places[-1][0]:.1f}" cy="{places[-1][1]:.1f}" r="2.5" fill="{colour}"/>')
        label = f'<text x="{WIDTH - RIGHT - 6}" y="{TOP + 16 + 17 * number}" text-anchor="end" fill="{colour}">'
        parts.append(f"{label}{escape(name)}</text>")
    title = '<svg role="img" aria-label="Bits per character of each run"'
    return f'{title} viewBox="0 0 {WIDTH} {HEIGHT}" font-size="12">{"".join(parts)}</g></svg>'


def _x(value: float, xs: Scale) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (value - xs.low) / max(xs.high - xs.low, 1e-9)


def _y(value: float, ys: Scale) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - ys.low) / max(ys.high - ys.low, 1e-9)


def _axes(xs: Scale, ys: Scale) -> Iterator[str]:
    """Yield the labelled lines behind the curves, and the area outside of which nothing is drawn."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    size = f'width="{right - LEFT}" height="{bottom - TOP}"'
    yield f'<clipPath id="inside"><rect x="{LEFT}" y="{TOP}" {size}/></clipPath><g fill="currentColor">'
    for value in ys.ticks:
        y = f"{_y(value, ys):.1f}"
        yield f'<path d="M{LEFT} {y}H{right}" stroke="currentColor" opacity=".15"/>'
        yield f'<text x="{LEFT - 6}" y="{y}" dy=".35em" text-anchor="end">{value:g}</text>'
    for value in xs.ticks:
        x = f"{_x(value, xs):.1f}"
        yield f'<path d="M{x} {TOP}V{bottom}" stroke="currentColor" opacity=".15"/>'
        yield f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>'
    yield f'<text x="{right}" y="{HEIGHT - 6}" text-anchor="end">million characters read</text>'
    yield f'<text x="{LEFT}" y="{HEIGHT - 6}">bits per character (dotted: training)</text></g>'
