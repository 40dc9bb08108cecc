"""The pages of runs: curves, table, plan and a sample of each, as far as it is trained. They only read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from chargen import ChargenError
from chargen.serving.curves import curves
from chargen.store.run import CONFIG, RUNS, Run, find_model
from chargen.writing.clone import Clone

SAMPLE_CHARACTERS = 500
SECONDS = 3  # after which a page asks for what is new
TITLES = ("step", "epoch", "minutes", "training bpc", "validation bpc", "learning rate", "characters/s")
PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  :root {{ color-scheme: light dark; --paper: #fdfcf9; --ink: #22201c; --line: #d9d4c8; --accent: #8a3b12; }}
  @media (prefers-color-scheme: dark) {{
    :root {{ --paper: #191815; --ink: #e9e5db; --line: #3d3a33; --accent: #e39a6b; }}
    svg {{ filter: brightness(1.5); }}
  }}
  body {{ background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto;
    max-width: 46rem; padding: 1.5rem 1rem 3rem; }}
  h1 {{ font: 600 1.7rem/1.2 Georgia, serif; overflow-wrap: anywhere; }}
  h2 {{ font-size: 1.1rem; margin: 1.5rem 0 .3rem; }}
  a {{ color: var(--accent); }}
  svg {{ width: 100%; }}
  .wide {{ overflow-x: auto; }}
  table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }}
  th, td {{ border-bottom: 1px solid var(--line); padding: .2rem .8rem .2rem 0; text-align: right; }}
  th:first-child, td:first-child, dl {{ text-align: left; }}
  dl {{ display: grid; gap: 0 1rem; grid-template-columns: max-content 1fr; }}
  dd {{ margin: 0; overflow-wrap: anywhere; }}
  .text {{ font: 1.05rem/1.6 Georgia, serif; overflow-wrap: anywhere; white-space: pre-wrap; }}
</style>
<main>{main}</main>
<script>
  setInterval(async () => {{
    if (document.hidden) return;
    const answer = await fetch(location.href).catch(() => null);
    if (!answer || !answer.ok) return;
    const found = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
    const main = document.querySelector("main");
    if (found && found.innerHTML !== main.innerHTML) main.innerHTML = found.innerHTML;
  }}, {milliseconds});
</script>
</html>
"""


class Runs:
    """The runs in a folder."""

    def __init__(self, folder: Path = RUNS) -> None:
        self._folder = folder

    def page(self, name: str | None) -> str | None:
        """Return the page of all runs, or of the run of a name; None if there is no such run."""
        found = self._found()
        if name is None:
            return _page("Runs", _overview(found))
        # A name from a request is looked up among the names that were found; no path is made of it.
        return _page(name, _one(name, found[name])) if name in found else None

    def _found(self) -> dict[str, Path]:
        """Return the runs' folders by their names, the newest first."""
        configs = self._folder.glob(f"[!.]*/{CONFIG}")
        newest = sorted(configs, key=lambda config: config.stat().st_mtime, reverse=True)
        return {config.parent.name: config.parent for config in newest}


def _page(title: str, main: str) -> str:
    return PAGE.format(title=escape(title), main=main, milliseconds=1000 * SECONDS)


def _overview(runs: Mapping[str, Path]) -> str:
    """Return what the page of all runs shows."""
    rows, drawn = [], []
    for name, path in runs.items():
        link = f'<a href="/runs/{quote(name, safe="")}">{escape(name)}</a>'
        try:
            run = Run(path)
            records = run.metrics()
        except ChargenError as error:
            rows.append(f'<tr><td>{link}<td colspan="4">{escape(str(error))}')
            continue
        if records:
            drawn.append((name, records))
        best = f"{min(record['validation_bpc'] for record in records):.3f}" if records else "none yet"
        model, stop = run.config.model, run.config.stop
        step = f"{records[-1]['step'] if records else 0:,} of {'?' if stop is None else f'{stop:,}'}"
        minutes = f"{records[-1]['seconds'] / 60:.1f}" if records else "0"
        rows.append(f"<tr><td>{link}<td>{best}<td>{step}<td>{minutes}<td>{model.layers} x {model.units}")
    if not rows:
        return "<h1>Runs</h1><p>There is no run here yet: make one with <code>chargen train</code>."
    head = "<tr><th>run<th>validation bpc<th>step<th>minutes<th>LSTM"
    picture = curves(drawn) if drawn else ""
    return f'<h1>Runs</h1>{picture}<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _one(name: str, path: Path) -> str:
    """Return what the page of a run shows."""
    head = f'<p><a href="/runs">All runs</a><h1>{escape(name)}</h1>'
    try:
        run = Run(path)
        records = run.metrics()
    except ChargenError as error:
        return f"{head}<p>{escape(str(error))}"
    parts = [head]
    if records:
        parts += [curves([(name, records)]), "<h2>Validations</h2>", _table(records)]
    parts += ["<h2>Plan</h2>", _plan(run), f'<h2>A sample of the model</h2><div class="text">{_sample(path)}</div>']
    return "".join(parts)


def _table(records: Iterable[dict[str, Any]]) -> str:
    rows = (
        (
            f"{record['step']:,}",
            f"{record['epoch']:.2f}",
            f"{record['seconds'] / 60:.1f}",
            f"{record['training_bpc']:.3f}",
            f"{record['validation_bpc']:.3f}",
            f"{record['learning_rate']:.5f}",
            f"{record['characters_per_second']:,}",
        )
        for record in records
    )
    body = "".join(f"<tr><td>{'<td>'.join(row)}" for row in rows)
    return f'<div class="wide"><table><tr><th>{"<th>".join(TITLES)}{body}</table></div>'


def _plan(run: Run) -> str:
    """Return the options of a run."""
    config = run.config
    stop = "not known yet" if config.stop is None else f"{config.stop:,}"
    values = {"text": f"{config.name}, {config.characters:,} characters", "last step": stop}
    for part in (config.model, config.train):
        given = ((f.name, getattr(part, f.name)) for f in dataclasses.fields(part))
        values |= {name.replace("_", " "): f"{value}" for name, value in given if value is not None}
    listed = "".join(f"<dt>{escape(name)}<dd>{escape(value)}" for name, value in values.items())
    return f"<dl>{listed}</dl>"


def _sample(run: Path) -> str:
    """Return a text of the run's best model, as HTML."""
    try:
        model = find_model(run)
        return escape(_drawn(model, model.stat().st_mtime_ns))
    except (ChargenError, OSError) as error:
        return escape(str(error))


@lru_cache(8)
def _drawn(model: Path, changed: int) -> str:
    """Return a text of a model file that changed at a time."""
    return "".join(Clone.open(model).generate(SAMPLE_CHARACTERS, random_seed=0))
