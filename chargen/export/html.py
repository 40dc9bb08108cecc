"""A page that opens from disk in any browser: weights, vocabulary, LSTM and sampler in one HTML file.

The weights are float32, or int8 with a scale for each row of a matrix. A row holds the weights of one output of a
product, or one character of the embedding. The page computes in float32.
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

from chargen.export import Export
from chargen.export.verify import GREEDY_CHARACTERS, TOLERANCE, Reference, compare, disagreement
from chargen.files.arrays import Arrays
from chargen.store.modelfile import quantized, weight_shapes
from chargen.text.vocabulary import LOOKALIKES, Vocabulary
from chargen.text.words import JOINERS, is_letter
from chargen.writing.clone import Clone, Floats
from chargen.writing.generate import opening
from chargen.writing.shading import LEVELS, colours

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
SCRIPTS = ("model", "sampling", "reader", "draft", "view", "offers", "editor", "start")  # of the page, in this order
BROWSER_SECONDS = 60  # in which a browser must have verified the page

NOTE = """
Open $name in a browser: it needs no network and no server. It continues your text, and shows at its top whether it
computes what the model computes.

In a script of the page, `const {logits, state} = await step([ids.get("T")], zeroState)` reads one character, and
`characters[likeliest(logits.at(-1))]` is the most likely next one.
"""


def write(export: Export, path: Path) -> None:
    """Write the page."""
    path.write_text(page(export), "utf-8", newline="\n")


def page(export: Export) -> str:
    """Return the page."""
    model = export.model
    matrices, vectors = packed(model.weights, model.config.layers, int8=export.quantize == "int8")
    clone = Clone(unpacked(matrices, vectors, export.about), model.vocabulary)
    about = {
        **export.about,
        "description": description(export),
        "seed": export.seed,
        "opening": opening(model.vocabulary),
        "lookalikes": LOOKALIKES,
        "letters": "".join(c for c in model.vocabulary.characters if c.isalnum() or is_letter(c)),
        "joiners": JOINERS,
        "levels": LEVELS,
        "digest": clone.fingerprint,
        "parity": parity_text(clone, export.seed),
    }
    here = files("chargen.export").joinpath("page")
    parts = {
        "title": escape(export.name),
        "style": here.joinpath("page.css").read_text("utf-8").replace("{{colours}}", colours()),
        "script": "\n".join(here.joinpath(f"{name}.js").read_text("utf-8") for name in SCRIPTS),
        "about": json.dumps(about).replace("<", "\\u003c"),  # so that no text can end its script element
        "product": encoded(here.joinpath("product.wasm").read_bytes()),
        "vectors": encoded(vectors.astype("<f4").tobytes()),
        "matrices": encoded(matrices.astype("<f4" if matrices.dtype == np.float32 else "i1").tobytes()),
    }
    template = here.joinpath("page.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def encoded(data: bytes) -> str:
    """Return bytes in base64, which JavaScript's atob reads."""
    return base64.b64encode(data).decode("ascii")


def description(export: Export) -> str:
    """Return a line that describes the model, for people."""
    config = export.model.config
    numbers = sum(prod(shape) for shape in weight_shapes(len(export.model.vocabulary), config).values())
    size = numbers * np.dtype(export.numbers).itemsize / 1e6
    line = f"{config.layers} x {config.units} LSTM, {len(export.model.vocabulary):,} characters, "
    line += f"{size:,.1f} MB of {export.numbers} weights"
    bpc = export.model.summary.get("validation_bpc")
    if isinstance(bpc, float):
        line += f", {bpc:.3f} bits per character" + " before the conversion to int8" * (export.numbers == "int8")
    return line


def as_matrices(weights: Arrays, layers: int) -> list[tuple[Floats, Floats | None]]:
    """Return a matrix, with a row for each output, and a bias for each of embedding, LSTM layers and dense layer."""
    found: list[tuple[Floats, Floats | None]] = [(weights["embedding"], None)]
    for n in range(layers):
        kernels = np.concatenate([weights[f"lstm_{n}/kernel"], weights[f"lstm_{n}/recurrent_kernel"]])
        found.append((kernels.T, weights[f"lstm_{n}/bias"]))
    return [*found, (weights["dense/kernel"].T, weights["dense/bias"])]


def packed(weights: Arrays, layers: int, *, int8: bool) -> tuple[npt.NDArray[Any], Floats]:
    """Return the numbers of all matrices, int8 or float32, joined; and their scales (with int8) and biases, joined."""
    numbers: list[npt.NDArray[Any]] = []
    vectors: list[Floats] = []
    for matrix, bias in as_matrices(weights, layers):
        if int8:
            rows, scales = quantized(matrix)
            numbers.append(rows.ravel())
            vectors.append(scales.ravel())
        else:
            numbers.append(matrix.astype(np.float32).ravel())
        if bias is not None:
            vectors.append(bias)
    return np.concatenate(numbers), np.concatenate(vectors, dtype=np.float32)


def unpacked(numbers: npt.NDArray[Any], vectors: Floats, about: dict[str, Any]) -> dict[str, Floats]:
    """Return the weights of the page in float32, by their names in a model file: the inverse of `packed`."""
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


def parity_text(clone: Clone, seed: str) -> dict[str, Any]:
    """Return the seed, the clone's greedy continuation of it by 200 characters, and the places of ties.

    At a tie the two most likely characters are closer than the tolerance, so either is right.
    """
    logits, text, ties = clone.feed(seed), "", []
    for place in range(GREEDY_CHARACTERS):
        id = int(np.argmax(logits))
        if (np.delete(logits, id) > logits[id] - TOLERANCE).any():
            ties.append(place)
        text += clone.vocabulary.characters[id]
        logits = clone.step(np.array([id]))[0]
    return {"seed": seed, "text": text, "ties": ties}


def load(path: Path) -> Clone:
    """Return a clone with the weights of a page."""
    page = path.read_text("utf-8")
    parts = dict(re.findall(r'<script type="[\w/]+" id="(\w+)">(.*?)</script>', page))
    about = json.loads(parts["about"])
    matrices, vectors = (base64.b64decode(parts[name]) for name in ("matrices", "vectors"))
    numbers = np.frombuffer(matrices, "i1" if about["numbers"] == "int8" else "<f4")
    return Clone(unpacked(numbers, np.frombuffer(vectors, "<f4"), about), Vocabulary(about["vocabulary"]))


def verify(path: Path, reference: Reference) -> list[str]:
    """Compare the page's weights with the clone's; let a browser, if there is one, verify the page."""
    clone = load(path)

    def start() -> Any:
        clone.reset_states()
        return clone.read

    _, compared = compare(start, reference, "the page's weights, read by NumPy")
    return [*verify_in_browser(path), compared]


def browser() -> str | None:
    """Return the path of an installed browser that runs without a window, or None."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def verify_in_browser(path: Path) -> list[str]:
    """Let a browser verify the page, and return the result. Raises ChargenError if the page does not agree."""
    program = browser()
    instead = "the page verifies itself when it is opened, and shows the result at its top"
    if program is None:
        return [f"not verified in a browser, because no Chromium was found: {instead}"]
    # Root and containers have no sandbox, and a page that chargen wrote, without network, needs none.
    profile = f"--user-data-dir={path.parent / 'browser'}"
    page_url = f"{path.absolute().as_uri()}#verify"
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", profile, page_url]
    try:
        done = subprocess.run(command, capture_output=True, timeout=BROWSER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return [f"not verified in a browser, because {program} did not answer: {instead}"]
    page = done.stdout.decode("utf-8", "replace")
    if 'id="parity"' not in page:
        return [f"not verified in a browser, because {program} did not show the page: {instead}"]
    result, speed = (re.search(rf'id="parity"[^>]*{name}="([^"]*)"', page) for name in ("data-result", "data-speed"))
    if result is None or result[1] != "equal":
        raise disagreement(program, "the page does not write the same text")
    return [
        f"{float(speed[1]) if speed else 0:,.0f} characters a second in {Path(program).name}, which wrote the same "
        f"{GREEDY_CHARACTERS} greedy characters"
    ]
