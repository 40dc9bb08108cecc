"""Pictures of metrics, by matplotlib, which the extra ``plot`` installs."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from chargen import ChargenError
from chargen.terminal import escaped

KINDS = ("svg", "png")  # file name endings of a picture


def figure(width: float, height: float) -> Any:
    """Return an empty matplotlib Figure, its size in inches. Raises ChargenError if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ChargenError("pictures need matplotlib: pip install 'chargen[plot]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def saved(drawn: Any, kind: str) -> bytes:
    """Return the bytes of a figure as a file of one of KINDS."""
    data = BytesIO()
    drawn.savefig(data, format=kind, dpi=150)
    return data.getvalue()


def curves(runs: Sequence[tuple[str, list[dict[str, Any]]]], kind: str) -> bytes:
    """Return a picture of the bits per character of several runs, by characters read and by minutes.

    runs: the name and the metrics records of each. kind: one of KINDS. Raises ChargenError without matplotlib.
    """
    drawn = figure(11, 4.5)
    by_characters, by_minutes = drawn.subplots(1, 2, sharey=True)
    for number, (_, metrics) in enumerate(runs):
        colour = f"C{number % 10}"
        for axes, xs in (
            (by_characters, [record["characters"] / 1e6 for record in metrics]),
            (by_minutes, [record["seconds"] / 60 for record in metrics]),
        ):
            marker = "o" if len(metrics) == 1 else None
            axes.plot(xs, [r["training_bpc"] for r in metrics], color=colour, linestyle=":", marker=marker)
            axes.plot(
                xs,
                [r["validation_bpc"] for r in metrics],
                color=colour,
                marker=marker,
                label=str(number) if axes is by_characters else None,
            )
    for axes, unit in ((by_characters, "million characters read"), (by_minutes, "minutes")):
        axes.set_xlabel(unit)
        axes.grid(alpha=0.3)
    low, high = by_characters.get_ylim()
    last = max(metrics[-1]["training_bpc"] for _, metrics in runs)
    by_characters.set_ylim(low, min(high, max(1.6 * last, low + 0.5)))  # the first values are high and fall fast
    by_characters.set_ylabel("bits per character (dotted: training)")
    # Names are set on the texts, because matplotlib omits a label that begins with _, and parses $...$ as a formula.
    for label, (name, metrics) in zip(by_characters.legend().get_texts(), runs, strict=True):
        label.set_parse_math(False)
        label.set_text(f"{escaped(name)}: {min(r['validation_bpc'] for r in metrics):.3f} at best")
    return saved(drawn, kind)
