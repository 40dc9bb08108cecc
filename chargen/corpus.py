"""Files become one normalised text, the text becomes ids, the ids are parted into training and validation."""

from __future__ import annotations

import codecs
import hashlib
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

import numpy as np

from chargen import ChargenError
from chargen.vocabulary import Ids, Vocabulary

STANDARD_INPUT = "-"
MARKS = (  # the longer first, as one begins with the other
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
BUNDLED = "book.txt"
VOICES = ("log", "letters", "manual")  # texts of three authors, beside the book


@dataclass(frozen=True, eq=False)
class Corpus:
    """A whole text as ids, with what is needed to find and to recognise it again."""

    ids: Ids  # (N,) uint8, uint16 or uint32
    vocabulary: Vocabulary
    files: tuple[str, ...]  # as given, made absolute; none is the bundled book
    name: str  # what a run on this text is called
    notes: tuple[str, ...] = ()  # what was done to the files that their owner would want to know

    @cached_property
    def sha256(self) -> str:
        """The hash by which a changed text is recognised: of the characters, not of the files' bytes."""
        digest = hashlib.sha256(self.vocabulary.characters.encode("utf-8"))
        digest.update(np.ascontiguousarray(self.ids).data)
        return digest.hexdigest()

    def split(self, validation: float) -> tuple[Ids, Ids]:
        """Return the ids for training and, the text's last ``validation`` share, those for validation: two views.

        Each holds two characters at least: one to read and one to predict. Raises ChargenError where they can't.
        """
        kept = max(2, round(len(self.ids) * validation))
        if len(self.ids) - kept < 2:
            raise ChargenError(
                f"the text is too short, {len(self.ids):,} characters, which leaves fewer than 2 for training: "
                "give a longer text, or a smaller --validation"
            )
        return self.ids[:-kept], self.ids[-kept:]


def read(paths: Sequence[str], encoding: str = "utf-8") -> Corpus:
    """Read one or more files or folders (``-``: standard input; none: the bundled book) as one corpus.

    A file's byte-order mark is removed, CRLF and CR become LF, Unicode is composed (NFC). A folder stands for the
    files in it and below it in the order of their names, without hidden and binary ones. Texts are joined; one that
    does not end its last line gets a line's end if another follows. The vocabulary is every character that occurs.

    Raises ChargenError for a file that is missing, empty, unreadable, binary or not in ``encoding``.
    """
    texts: list[str] = []
    notes: list[str] = []
    for path in paths or [BUNDLED]:
        for part in _texts(path, encoding, bundled=not paths, notes=notes):
            if texts and not texts[-1].endswith("\n"):
                texts.append("\n")
            texts.append(part)
    text = "".join(texts)
    vocabulary = Vocabulary.of(text)
    return Corpus(
        ids=vocabulary.encode(text),
        vocabulary=vocabulary,
        files=tuple(p if p == STANDARD_INPUT else str(Path(p).resolve()) for p in paths),
        name=_name(paths),
        notes=tuple(notes),
    )


def voices() -> dict[str, str]:
    """Return the three short texts that ship beside the book, by name: a log, letters, and a manual."""
    folder = resources.files("chargen.corpora")
    return {name: decode(folder.joinpath(f"{name}.txt").read_bytes(), name) for name in VOICES}


ADVICE = "name its encoding with --encoding, such as --encoding cp1252"


def decode(data: bytes, source: str, encoding: str = "utf-8", advice: str = ADVICE) -> str:
    """Return the normalised text of a file's bytes.

    Raises ChargenError that names ``source`` where there is none; ``advice`` is what to do about another encoding.
    """
    if not data:
        raise ChargenError(f"{source} is empty: give a file with text in it")
    if not _has_wide_nul(encoding):
        for mark, wide in MARKS:
            if data.startswith(mark):
                raise ChargenError(f"{source} begins like {wide} text: read it with --encoding {wide}")
    if not _has_wide_nul(encoding) and (nul := data.find(b"\0")) >= 0:
        raise ChargenError(f"{source} is a binary file (a NUL byte at offset {nul}): give a text file")
    try:
        text = data.decode(encoding)
        text.encode("utf-8")  # which lone surrogates, that some encodings let through, can't be
    except UnicodeError as error:
        where = "it"
        if isinstance(error, UnicodeDecodeError):
            where = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        raise ChargenError(f"{source} is not {encoding}: {where} is out of place; {advice}") from None
    if "\0" in text:
        raise ChargenError(f"{source} is a binary file (NUL at character {text.index(chr(0))}): give a text file")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if not text:
        raise ChargenError(f"{source} is empty: give a file with text in it")
    return unicodedata.normalize("NFC", text)


def _has_wide_nul(encoding: str) -> bool:
    return len("\0".encode(encoding)) > 1


def _texts(path: str, encoding: str, *, bundled: bool, notes: list[str]) -> Iterator[str]:
    try:
        if bundled:
            yield decode(resources.files("chargen.corpora").joinpath(BUNDLED).read_bytes(), BUNDLED)
        elif path == STANDARD_INPUT:
            if sys.stdin is None:
                raise ChargenError("standard input is closed: name a file")
            yield decode(sys.stdin.buffer.read(), "standard input", encoding)
        elif Path(path).is_dir():
            yield from _folder(Path(path), encoding, notes)
        else:
            yield decode(Path(path).read_bytes(), path, encoding)
    except OSError as error:
        raise ChargenError(f"{error.filename or path} can't be read: {error.strerror or error}") from None


def _folder(folder: Path, encoding: str, notes: list[str]) -> Iterator[str]:
    found = False
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    # A folder of texts is often where runs are made; what they hold is no text, and changes.
    runs = {file.parent for file in files if file.name == "config.json" and b'"sha256"' in file.read_bytes()}
    for file in files:
        if any(part.startswith(".") for part in file.relative_to(folder).parts) or runs & {*file.parents}:
            continue
        data = file.read_bytes()
        if data in (b"", codecs.BOM_UTF8):
            data = b""
        if not data or (b"\0" in data and not _has_wide_nul(encoding)):
            notes.append(f"{file} is {'binary' if data else 'empty'}: left out")
            continue
        found = True
        yield decode(data, str(file), encoding)
    if not found:
        raise ChargenError(f"{folder} holds no text files: name a folder with text in it, or the files themselves")


def _name(paths: Sequence[str]) -> str:
    if not paths:
        return Path(BUNDLED).stem
    if paths[0] == STANDARD_INPUT:
        return "stdin"
    path = Path(paths[0]).resolve()
    return (path.name if path.is_dir() else path.stem).lstrip(".") or "text"
