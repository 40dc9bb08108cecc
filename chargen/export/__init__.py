"""Exports: a trained model in other formats, at batch size 1, the state an input and an output where it can be.

A format NAME is the module ``export/NAME.py`` with

- ``write(export, path)``, which writes the artefact, a file or a folder, at a path that is free;
- ``prove(path, evidence)``, which loads it again in its own runtime, compares it with the clone, and returns what was
  found as lines for people; it raises ChargenError where the two differ;
- ``NOTE``, the Python that loads the artefact and steps through it: a `string.Template` of ``name`` and ``seed``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from chargen import ChargenError, __version__
from chargen.files import disk

if TYPE_CHECKING:  # the command's help reads this module, and is not to wait for NumPy
    from chargen.export.proof import Evidence
    from chargen.store.modelfile import ModelFile


class Format(NamedTuple):
    """What is known of a format without loading what it takes."""

    suffix: str
    runs_on: str
    quantizations: tuple[str, ...] = ("none",)  # how its weights can be written, the default first
    packages: tuple[str, ...] = ()  # what it takes beyond chargen's own needs ..
    extra: str = ""  # .. and the extra that installs it
    snippet: bool = True  # whether NOTE is Python

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed here."""
        return [package for package in self.packages if find_spec(package) is None]


FORMATS = {
    "savedmodel": Format(".savedmodel", "TensorFlow, TF Serving"),
    "keras": Format(".keras", "Keras"),
    "litert": Format(".tflite", "LiteRT, phones", ("none", "float16", "int8"), ("ai_edge_litert",), "litert"),
    "onnx": Format(".onnx", "onnxruntime, C++, browsers", ("none", "int8"), ("onnx", "onnxruntime"), "onnx"),
    "html": Format(".html", "any browser", ("int8", "none"), snippet=False),
    "numpy": Format(".numpy", "Python with NumPy"),
}
QUANTIZATIONS = tuple(dict.fromkeys(numbers for form in FORMATS.values() for numbers in form.quantizations))


class Module(Protocol):
    """What a format's module has."""

    NOTE: str

    def write(self, export: Export, path: Path) -> None:
        """Write the artefact."""

    def prove(self, path: Path, evidence: Evidence) -> list[str]:
        """Compare the artefact with the clone."""


def check(name: str) -> None:
    """Raise ChargenError that says what to install, if a format can't be written here."""
    if missing := FORMATS[name].missing:
        raise ChargenError(
            f"{name} takes {' and '.join(missing)}: install with pip install 'chargen[{FORMATS[name].extra}]'"
        )


def module(name: str) -> Module:
    """Load a format's module."""
    check(name)
    return cast(Module, import_module(f"chargen.export.{name}"))


@dataclass(frozen=True)
class Export:
    """What is to be written: a model, under a name, in a format."""

    model: ModelFile
    name: str
    format: str
    quantize: str

    @property
    def filename(self) -> str:
        """``book.onnx``, ``book.int8.onnx``: numbers that are the format's default are not named.

        It can stand as it is in a shell's line and in a Python string: other characters of the name become hyphens.
        """
        form = FORMATS[self.format]
        marked = "" if self.quantize == form.quantizations[0] else f".{self.numbers}"
        plain = re.sub(r"[^\w.-]+", "-", self.name).strip(".-") or "model"
        return f"{plain}{marked}{form.suffix}"

    @property
    def numbers(self) -> str:
        """What the weights are written as."""
        return "float32" if self.quantize == "none" else self.quantize

    @property
    def about(self) -> dict[str, Any]:
        """All that makes the artefact describe itself: vocabulary, configuration and training summary."""
        summary: Mapping[str, Any] = self.model.summary
        return {
            "chargen": __version__,
            "name": self.name,
            "format": self.format,
            "numbers": self.numbers,
            "vocabulary": self.model.vocabulary.characters,
            "model": self.model.config.to_json(),
            "summary": {key: value for key, value in summary.items() if key != "progress"},
        }

    @property
    def json(self) -> str:
        """`about` as JSON in ASCII."""
        return json.dumps(self.about, sort_keys=True)

    @property
    def seed(self) -> str:
        """A text that the model can read, for examples."""
        vocabulary = self.model.vocabulary
        return vocabulary.repair("The")[0] or vocabulary.characters[-1]

    @property
    def note(self) -> str:
        """How to load the artefact and step through it, in Markdown."""
        form, note = FORMATS[self.format], Template(module(self.format).NOTE)
        text = note.substitute(name=self.filename, seed=json.dumps(self.seed, ensure_ascii=False)).strip()
        shape = self.model.config
        heading = (
            f"# {self.filename}\n\nA character model of {self.name}: {shape.layers} x {shape.units} LSTM, "
            f"{len(self.model.vocabulary)} characters, {self.numbers} weights. Runs on: {form.runs_on}.\n\n"
        )
        return heading + (f"```python\n{text}\n```\n" if form.snippet else text + "\n")


def export(wanted: Export, folder: Path, evidence: Evidence, *, force: bool = False) -> tuple[Path, list[str]]:
    """Write an export into a folder, prove it, and return its path and what the proof found.

    The artefact and its note, ``<artefact>.md``, appear after the proof and whole; without it there is nothing. Raises
    ChargenError if the artefact exists and ``force`` is not given, or if the proof fails.
    """
    path = folder / wanted.filename
    note = folder / f"{path.name}.md"
    refuse([path, note], force=force)
    try:
        with disk.made(folder), disk.temporary(folder) as work:
            module(wanted.format).write(wanted, work / path.name)
            found = module(wanted.format).prove(work / path.name, evidence)
            (work / note.name).write_text(wanted.note, "utf-8")
            for target in (path, note):
                put(work, target, force=force)
    except FileExistsError as error:
        raise ChargenError(f"{error.filename} exists and is left as it is: name another folder") from None
    except OSError as error:
        if error.filename and not Path(error.filename).is_relative_to(folder):
            raise  # it is of what the proof reads
        raise ChargenError(f"{path} can't be written: {error.strerror or error}; name another folder") from None
    return path, found


def put(work: Path, target: Path, *, force: bool) -> None:
    """Move an artefact out of ``work`` into place. Without ``force`` it raises FileExistsError if the name is taken."""
    old = work / f"{target.name}.old"
    if force and target.is_dir():  # which a rename does not replace
        disk.move(target, old)
        shutil.copymode(old, work / target.name)
    try:
        disk.move(work / target.name, target, new=not force)
    finally:
        if os.path.lexists(old) and not os.path.lexists(target):
            disk.move(old, target)


def refuse(paths: list[Path], *, force: bool) -> None:
    """Raise ChargenError if something is there already and is not to be replaced."""
    there = [path for path in paths if path.exists()]
    if there and not force:
        raise ChargenError(f"{there[0]} exists and is left as it is: replace it with --force, or name another folder")


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
