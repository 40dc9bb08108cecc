"""Exports: a trained model in other formats, at batch size 1, with the state as input and output where possible.

A format NAME is the module ``export/NAME.py`` with

- ``write(export, path)``, which writes the artefact, a file or a folder, to a new path;
- ``verify(path, reference)``, which loads the artefact in its own runtime, compares it with the clone, and returns the
  results as lines for people; it raises ChargenError if the two do not agree;
- ``NOTE``, Python that loads the artefact and steps through it: a `string.Template` with ``name`` and ``seed``.
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

if TYPE_CHECKING:  # the command's help imports this module, and must not wait for NumPy
    from chargen.export.verify import Reference
    from chargen.store.modelfile import ModelFile


class Format(NamedTuple):
    """The properties of a format that are known without importing its packages."""

    suffix: str
    runs_on: str
    quantizations: tuple[str, ...] = ("none",)  # of its weights; the first is the default
    packages: tuple[str, ...] = ()  # that it needs beyond chargen's own ..
    extra: str = ""  # .. and the extra that installs them
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
    "chargen": Format(".safetensors", "chargen", ("float16", "int8", "none"), snippet=False),
}
QUANTIZATIONS = tuple(dict.fromkeys(numbers for form in FORMATS.values() for numbers in form.quantizations))


class Module(Protocol):
    """The members of a format's module."""

    NOTE: str

    def write(self, export: Export, path: Path) -> None:
        """Write the artefact."""

    def verify(self, path: Path, reference: Reference) -> list[str]:
        """Compare the artefact with the clone."""


def check(name: str) -> None:
    """Raise ChargenError, with the command that installs them, if packages of a format are missing."""
    if missing := FORMATS[name].missing:
        raise ChargenError(
            f"{name} needs {' and '.join(missing)}: install with pip install 'chargen[{FORMATS[name].extra}]'"
        )


def module(name: str) -> Module:
    """Load a format's module."""
    check(name)
    return cast(Module, import_module(f"chargen.export.{name}"))


@dataclass(frozen=True)
class Export:
    """A model to be written, under a name, in a format."""

    model: ModelFile
    name: str
    format: str
    quantize: str

    @property
    def filename(self) -> str:
        """The name of the artefact: ``book.onnx``, or ``book.int8.onnx`` if int8 is not the format's default.

        It needs no quoting in a shell or a Python string: other characters of the model's name become hyphens.
        """
        form = FORMATS[self.format]
        marked = "" if self.quantize == form.quantizations[0] else f".{self.numbers}"
        plain = re.sub(r"[^\w.-]+", "-", self.name).strip(".-") or "model"
        return f"{plain}{marked}{form.suffix}"

    @property
    def numbers(self) -> str:
        """The type of the numbers that the weights are written as."""
        return "float32" if self.quantize == "none" else self.quantize

    @property
    def about(self) -> dict[str, Any]:
        """The metadata in the artefact: vocabulary, configuration and training summary."""
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
        """The metadata as JSON in ASCII."""
        return json.dumps(self.about, sort_keys=True)

    @property
    def seed(self) -> str:
        """A text in the model's vocabulary, for examples."""
        vocabulary = self.model.vocabulary
        return vocabulary.repair("The")[0] or vocabulary.characters[-1]

    @property
    def note(self) -> str:
        """Markdown that explains how to load the artefact and step through it."""
        form, note = FORMATS[self.format], Template(module(self.format).NOTE)
        text = note.substitute(name=self.filename, seed=json.dumps(self.seed, ensure_ascii=False)).strip()
        shape = self.model.config
        heading = (
            f"# {self.filename}\n\nA character model of {self.name}: {shape.layers} x {shape.units} LSTM, "
            f"{len(self.model.vocabulary)} characters, {self.numbers} weights. Runs on: {form.runs_on}.\n\n"
        )
        return heading + (f"```python\n{text}\n```\n" if form.snippet else text + "\n")


def export(wanted: Export, folder: Path, reference: Reference, *, force: bool = False) -> tuple[Path, list[str]]:
    """Write an export into a folder and verify it; return its path and the results of the verification.

    The artefact and its note, ``<artefact>.md``, appear in the folder only when they are complete and verified. Raises
    ChargenError if the artefact exists and ``force`` is not given, or if it does not agree with the model.
    """
    path = folder / wanted.filename
    note = folder / f"{path.name}.md"
    refuse([path, note], force=force)
    try:
        with disk.made(folder), disk.temporary(folder) as work:
            module(wanted.format).write(wanted, work / path.name)
            found = module(wanted.format).verify(work / path.name, reference)
            (work / note.name).write_text(wanted.note, "utf-8")
            for target in (path, note):
                put(work, target, force=force)
    except FileExistsError as error:
        raise ChargenError(f"{error.filename} exists and is left as it is: name another folder") from None
    except OSError as error:
        if error.filename and not Path(error.filename).is_relative_to(folder):
            raise  # from a file that the verification reads
        raise ChargenError(f"{path} can't be written: {error.strerror or error}; name another folder") from None
    return path, found


def put(work: Path, target: Path, *, force: bool) -> None:
    """Move an artefact out of ``work`` into place. Raises FileExistsError if the name is taken, without ``force``."""
    old = work / f"{target.name}.old"
    if force and target.is_dir():  # a rename does not replace a folder
        disk.move(target, old)
        shutil.copymode(old, work / target.name)
    try:
        disk.move(work / target.name, target, new=not force)
    finally:
        if os.path.lexists(old) and not os.path.lexists(target):
            disk.move(old, target)


def refuse(paths: list[Path], *, force: bool) -> None:
    """Raise ChargenError if one of the paths exists, unless ``force`` allows to replace it."""
    there = [path for path in paths if path.exists()]
    if there and not force:
        raise ChargenError(f"{there[0]} exists and is left as it is: replace it with --force, or name another folder")


def size_of(path: Path) -> int:
    """Return the size of a file, or of all files in a folder, in bytes."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
