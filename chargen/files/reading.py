"""Files that chargen wrote are read back: regular files of a plausible size, whose JSON has the declared types.

A file with the right name may still be damaged, or belong to another program. So reading never waits for it, its claims
never decide how much memory is reserved, and each value is checked for its type and range before it is used.
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

FILE_BYTES = 2**34  # the largest plausible file: a checkpoint of 1.4 billion weights
# The largest plausible JSON: a vocabulary of all of Unicode takes 15 MB. Parsed, it takes up to 30 times the memory.
JSON_BYTES = 2**25
SHOWN_CHARACTERS = 100  # of a file's contents, in a message

# Ranges of numbers in files, because JSON may have Infinity, and integers of any length.
Count = Annotated[int, Meta(ge=0, le=2**53)]
Amount = Annotated[float, Meta(ge=0, le=1e300)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]

T = TypeVar("T")


class DamagedError(ChargenError):
    """What is wrong in a file: ``field: reason``. `errors_of` adds the file's name, and what to do."""


@contextmanager
def errors_of(path: Path, advice: str) -> Iterator[None]:
    """While entered, errors of reading ``path`` become a ChargenError of one line.

    A DamagedError ends with ``advice``; an OSError tells its reason.
    """
    try:
        yield
    except DamagedError as error:
        raise ChargenError(f"{path} is damaged: {error}; {advice}") from None
    except OSError as error:
        raise ChargenError(f"{path} can't be read: {error.strerror or error}") from None


def open_regular(path: Path, most: int = FILE_BYTES) -> BinaryIO:
    """Open a regular file of at most ``most`` bytes, without waiting, as opening a pipe would.

    Raises ChargenError if it is not a regular file, or larger, and OSError if it cannot be opened.
    """
    _check_regular(path, path.stat(), most)  # before opening, which has effects on some devices
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115  - the caller closes it; Path.open has no opener
    try:
        _check_regular(path, os.fstat(file.fileno()), most)
    except ChargenError:
        file.close()
        raise
    return file


def read_regular(path: Path, most: int = JSON_BYTES) -> bytes:
    """Return the bytes of a regular file. Raises ChargenError and OSError as `open_regular` does."""
    with open_regular(path, most) as file:
        return file.read(most)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has no such flag


def _check_regular(path: Path, status: os.stat_result, most: int) -> None:
    """Raise ChargenError unless the status is that of a regular file of at most ``most`` bytes."""
    kinds = {"a folder": stat.S_ISDIR, "a pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK}
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for name, is_one in kinds.items() if is_one(status.st_mode)), "a device")
        raise ChargenError(f"{path} can't be read: it is {kind}, but should be a file; move it away")
    if status.st_size > most:
        raise ChargenError(
            f"{path} can't be read: it has {status.st_size:,} bytes, but no such file of chargen's has more than "
            f"{most:,}; move it away"
        )


def parsed(data: bytes | str) -> Any:
    """Return the value of a JSON text; its numbers may be infinite or NaN. Raises DamagedError if it is not JSON."""
    try:
        return json.loads(data if isinstance(data, str) else data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise DamagedError("it is not valid JSON") from None


def converted(value: Any, kind: type[T], decode: Callable[[type, Any], Any] | None = None) -> T:
    """Return a JSON value as an instance of a dataclass, or as a checked TypedDict.

    Whole numbers become floats, lists become tuples and objects become dataclasses where ``kind`` says so; nothing else
    is converted. Fields that ``kind`` does not have are ignored. ``decode`` makes the types that JSON does not have.

    Raises DamagedError that names the field, if its type or range is not the declared one.
    """
    try:
        return msgspec.convert(value, kind, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise DamagedError(_field_first(str(error))) from None
    except (ValueError, RecursionError):  # a name with lone surrogates, or too many levels
        raise DamagedError("it has a field that chargen does not know") from None


def _field_first(message: str) -> str:
    """Return ``field: reason`` for msgspec's message "Reason - at `$.field`"."""
    what, _, field = re.sub(r" - at (?:`key` in )?`\$\.?(.*)`$", r"\0\1", message).partition("\0")
    if missing := re.fullmatch("Object missing required field `(.*)`", what):
        field, what = f"{field}.{missing[1]}".lstrip("."), "it is missing"
    what = (what[:1].lower() + what[1:]).replace("`", "")[:SHOWN_CHARACTERS]
    return f"{field[:SHOWN_CHARACTERS]}: {what}" if field else what


def shown(text: object) -> str:
    """Return a part of a file's contents for a message: quoted, and cut to SHOWN_CHARACTERS."""
    quoted = repr(text)
    return quoted if len(quoted) <= SHOWN_CHARACTERS else f"{quoted[:SHOWN_CHARACTERS]}..."
