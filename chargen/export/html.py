"""A page that opens from disk in any browser: weights, vocabulary, LSTM and sampler in one HTML file.

The weights are int8 with a scale for each row, a row being the weights of one number that a product gives (of one
character in the embedding), or float32. The page computes in float32.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html import escape
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chargen import ChargenError
from chargen.export import Export
from chargen.export.proof import GREEDY, LARGEST, Evidence, compare
from chargen.files.arrays import Arrays
from chargen.store.modelfile import weight_shapes
from chargen.text.vocabulary import LOOKALIKES, Vocabulary
from chargen.writing.clone import Clone, Floats
from chargen.writing.generate import opening
from chargen.writing.shading import LEVELS, colours

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
LONGEST = 60  # seconds that a browser gets to prove the page

NOTE = """
Open $name in a browser: it needs no network and no server. It writes on from a text of yours, and tells at its top
whether it computes what the model does.

From a script, in the page: `model.reset()`, then `logits = model.read(ids.get("T"))`, a character at a time;
`characters[likeliest(logits)]` is what the model expects next.
"""


def write(export: Export, path: Path) -> None:
    """Write the page."""
    model = export.model
    matrices, vectors = packed(model.weights, model.config.layers, int8=export.quantize == "int8")
    clone = Clone(unpacked(matrices, vectors, export.about), model.vocabulary)
    about = {
        **export.about,
        "told": told(export),
        "seed": export.seed,
        "opening": opening(model.vocabulary),
        "lookalikes": LOOKALIKES,
        "proof": proof_of(clone, export.seed),
    }
    here = files("chargen.export")
    page = here.joinpath("page.html").read_text("utf-8")
    parts = {
        "title": escape(export.name),
        "colours": colours(),
        "most": str(LEVELS),
        "about": json.dumps(about).replace("<", "\\u003c"),  # so that no text ends the script it stands in
        "product": encoded(here.joinpath("product.wasm").read_bytes()),
        "vectors": encoded(vectors.astype("<f4").tobytes()),
        "matrices": encoded(matrices.astype("<f4" if matrices.dtype == np.float32 else "i1").tobytes()),
    }
    path.write_text(re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], page), "utf-8", newline="\n")


def encoded(data: bytes) -> str:
    """Return bytes as text that JavaScript's atob reads."""
    return base64.b64encode(data).decode("ascii")


def told(export: Export) -> str:
    """Return a line about the model, for people."""
    config = export.model.config
    numbers = sum(prod(shape) for shape in weight_shapes(len(export.model.vocabulary), config).values())
    size = numbers * np.dtype(export.numbers).itemsize / 1e6
    line = f"{config.layers} x {config.units} LSTM, {len(export.model.vocabulary):,} characters, "
    line += f"{size:,.1f} MB of {export.numbers} weights"
    bpc = export.model.summary.get("validation_bpc")
    if isinstance(bpc, float):
        line += f", {bpc:.3f} bits per character" + (" before they were int8" if export.numbers == "int8" else "")
    return line


def as_matrices(weights: Arrays, layers: int) -> list[tuple[Floats, Floats | None]]:
    """Return embedding, LSTM layers and dense layer: a matrix with a row for each number it gives, and its bias."""
    found: list[tuple[Floats, Floats | None]] = [(weights["embedding"], None)]
    for n in range(layers):
        kernels = np.concatenate([weights[f"lstm_{n}/kernel"], weights[f"lstm_{n}/recurrent_kernel"]])
        found.append((kernels.T, weights[f"lstm_{n}/bias"]))
    return [*found, (weights["dense/kernel"].T, weights["dense/bias"])]


def packed(weights: Arrays, layers: int, *, int8: bool) -> tuple[npt.NDArray[Any], Floats]:
    """Return all matrices' numbers, int8 or float32, one after the other, and the scales (int8) and biases of each."""
    numbers, vectors = [], []
    for matrix, bias in as_matrices(weights, layers):
        if int8:
            scales = np.maximum(np.abs(matrix).max(1), np.finfo(np.float32).tiny) / np.float32(127)
            numbers.append(np.rint(matrix / scales[:, None]).clip(-127, 127).astype(np.int8).ravel())
            vectors.append(scales)
        else:
            numbers.append(matrix.astype(np.float32).ravel())
        if bias is not None:
            vectors.append(bias)
    return np.concatenate(numbers), np.concatenate(vectors, dtype=np.float32)


def unpacked(numbers: npt.NDArray[Any], vectors: Floats, about: dict[str, Any]) -> dict[str, Floats]:
    """Return the weights, by their names in a model file, as the page has them: what `packed` made, back in float32."""
    characters, config = len(about["vocabulary"]), about["model"]
    embedding, units, layers = config["embedding"], config["units"], config["layers"]
    at = vector = 0

    def matrix(rows: int, columns: int) -> Floats:
        nonlocal at, vector
        found = numbers[at : at + rows * columns].reshape(rows, columns).astype(np.float32)
        at += rows * columns
        if numbers.dtype == np.int8:
            found *= vectors[vector : vector + rows, None]
            vector += rows
        return found

    def bias(rows: int) -> Floats:
        nonlocal vector
        vector += rows
        return vectors[vector - rows : vector]

    weights = {"embedding": matrix(characters, embedding)}
    for n in range(layers):
        below = units if n else embedding
        kernels = matrix(4 * units, below + units).T
        weights[f"lstm_{n}/kernel"], weights[f"lstm_{n}/recurrent_kernel"] = kernels[:below], kernels[below:]
        weights[f"lstm_{n}/bias"] = bias(4 * units)
    weights["dense/kernel"] = matrix(characters, units).T
    weights["dense/bias"] = bias(characters)
    return weights


def proof_of(clone: Clone, seed: str) -> dict[str, Any]:
    """Return a text, 200 characters that the clone goes on with greedily, and the places where it could say another.

    Those are the places where the two likeliest are closer than the difference that a proof allows.
    """
    logits, text, ties = clone.feed(seed), "", []
    for place in range(GREEDY):
        id = int(np.argmax(logits))
        if (np.delete(logits, id) > logits[id] - LARGEST).any():
            ties.append(place)
        text += clone.vocabulary.characters[id]
        logits = clone.step(np.array([id]))[0]
    return {"seed": seed, "text": text, "ties": ties}


def load(path: Path) -> Clone:
    """Read the weights out of a page; return their clone."""
    page = path.read_text("utf-8")
    parts = dict(re.findall(r'<script type="[\w/]+" id="(\w+)">(.*?)</script>', page))
    about = json.loads(parts["about"])
    matrices, vectors = (base64.b64decode(parts[name]) for name in ("matrices", "vectors"))
    numbers = np.frombuffer(matrices, "i1" if about["numbers"] == "int8" else "<f4")
    return Clone(unpacked(numbers, np.frombuffer(vectors, "<f4"), about), Vocabulary(about["vocabulary"]))


def prove(path: Path, evidence: Evidence) -> list[str]:
    """Compare the weights that stand in the page with the clone's; let a browser, if there is one, prove the page."""
    clone = load(path)

    def start() -> Any:
        clone.reset_states()
        return clone.read

    _, compared = compare(start, evidence, "the page's weights, read by NumPy")
    return [*prove_in_browser(path), compared]


def browser() -> str | None:
    """Return the browser that can be run here without a window, if there is one."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def prove_in_browser(path: Path) -> list[str]:
    """Open the page without a window and return what it says of itself; raise ChargenError if it fails its proof."""
    program = browser()
    not_here = "the page proves itself when it is opened, at its top"
    if program is None:
        return [f"not proved in a browser, as no Chromium was found here: {not_here}"]
    # A page of our own making, without network: the sandbox, which root and containers lack, protects nothing here.
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--dump-dom",
        f"--user-data-dir={path.parent / 'browser'}",
    ]
    try:
        done = subprocess.run(
            [program, *options, f"{path.absolute().as_uri()}#proof"], capture_output=True, timeout=LONGEST, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return [f"not proved in a browser, as {program} did not answer: {not_here}"]
    page = done.stdout.decode("utf-8", "replace")
    if 'id="proof"' not in page:
        return [f"not proved in a browser, as {program} did not show the page: {not_here}"]
    result, speed = (re.search(rf'id="proof"[^>]*{name}="([^"]*)"', page) for name in ("data-result", "data-speed"))
    if result is None or result[1] != "equal":
        raise ChargenError(
            f"the export failed its proof in {program}, and was removed: it does not write the same text"
        )
    return [
        f"{float(speed[1]) if speed else 0:,.0f} characters a second in {Path(program).name}, which wrote the same "
        f"{GREEDY} greedy characters"
    ]
