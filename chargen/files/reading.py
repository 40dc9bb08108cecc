"""Files of chargen's own are read: regular files of a plausible size, whose JSON has the types that are declared.

A file has our name, and may still be damaged, or be somebody else's. So nothing is waited for or reserved because of
what it claims, and each value has its declared type and range before it is used.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar

import msgspec
from msgspec import Meta

from chargen import ChargenError

FILE_BYTES = 2**34  # of a plausible file, at the most: a checkpoint of 1.4 billion weights
# Of JSON: a vocabulary of all of Unicode takes 15 million, and what Python makes of the worst JSON 30 times as many.
JSON_BYTES = 2**25
LONGEST = 100  # characters of a file's own that a message shows

# Numbers as files have them: JSON knows Infinity, and integers of any length.
Count = Annotated[int, Meta(ge=0, le=2**53)]
Amount = Annotated[float, Meta(ge=0, le=1e300)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]

T = TypeVar("T")


class DamagedError(ChargenError):
    """What is wrong in a file: ``field: reason``. `damage` tells in which file, and what to do."""


@contextmanager
def damage(path: Path, advice: str) -> Iterator[None]:
    """While entered, an error of reading ``path`` becomes a ChargenError of one line, which ends with ``advice``."""
    try:
        yield
    except DamagedError as error:
        raise ChargenError(f"{path} is damaged: {error}; {advice}") from None
    except OSError as error:
        raise ChargenError(f"{path} can't be read: {error.strerror or error}") from None


def open_regular(path: Path, most: int = FILE_BYTES) -> BinaryIO:
    """Open a regular file of at most so many bytes, buffered. It never waits, as it would for a pipe's writer.

    Raises ChargenError if it is something else, or larger; OSError if it can't be opened.
    """
    _refuse(path, path.stat(), most)  # before it is opened, which some devices take for a command
    file = open(path, "rb", opener=_opened_at_once)  # noqa: SIM115  - for its caller; Path's has no opener
    try:
        _refuse(path, os.fstat(file.fileno()), most)
    except ChargenError:
        file.close()
        raise
    return file


def read_regular(path: Path, most: int = JSON_BYTES) -> bytes:
    """Return the bytes of a regular file. Raises as `open_regular`."""
    with open_regular(path, most) as file:
        return file.read(most)


def _opened_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # which Windows has not


def _refuse(path: Path, status: os.stat_result, most: int) -> None:
    kinds = {"a folder": stat.S_ISDIR, "a pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK}
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for name, is_one in kinds.items() if is_one(status.st_mode)), "a device")
        raise ChargenError(f"{path} can't be read: it is {kind}, where chargen keeps a file; move it away")
    if status.st_size > most:
        raise ChargenError(
            f"{path} can't be read: it has {status.st_size:,} bytes, and no such file of chargen's has more than "
            f"{most:,}; move it away"
        )


def parsed(data: bytes | str) -> Any:
    """Return the value of a JSON text, whose numbers may be infinite. Raises DamagedError if it isn't one."""
    try:
        return json.loads(data if isinstance(data, str) else data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise DamagedError("it is not JSON of chargen's") from None


def converted(value: Any, kind: type[T], decode: Callable[[type, Any], Any] | None = None) -> T:
    """Return a value of JSON as an instance of a dataclass, or as a checked TypedDict.

    Nothing is converted but whole numbers to floats, lists to tuples and objects to dataclasses. Fields that ``kind``
    does not have are passed over. ``decode`` makes the types that JSON does not have.

    Raises DamagedError that names the field, if its type or range is not the one that is declared.
    """
    try:
        return msgspec.convert(value, kind, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise DamagedError(_field_first(str(error))) from None
    except (ValueError, RecursionError):  # a name that is no Unicode text
        raise DamagedError("it has a field that is none of chargen's") from None


def _field_first(message: str) -> str:
    """Return ``field: reason`` for msgspec's "Reason - at `$.field`"."""
    what, _, field = re.sub(r" - at (?:`key` in )?`\$\.?(.*)`$", r"\0\1", message).partition("\0")
    if missing := re.fullmatch("Object missing required field `(.*)`", what):
        field, what = f"{field}.{missing[1]}".lstrip("."), "it is missing"
    what = (what[:1].lower() + what[1:]).replace("`", "")[:LONGEST]
    return f"{field[:LONGEST]}: {what}" if field else what


def shown(text: object) -> str:
    """Return what a file holds as a message can show it: quoted, and not longer than a message is."""
    told = repr(text)
    return told if len(told) <= LONGEST else f"{told[:LONGEST]}..."
