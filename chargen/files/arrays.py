"""Files of arrays with a header and a checksum, in the safetensors format, which holds no code as pickle does.

The layout is safetensors': an 8-byte length, a JSON header, then the arrays' bytes. The header's metadata has one
entry, ``chargen``: JSON with ``kind``, ``format``, ``checksum`` and the further fields of the kind of file.

The checksum is the CRC-32 of the whole file with eight zeros in the checksum's place. It detects damage, but does not
protect against forgery.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from chargen import ChargenError
from chargen.files.disk import write_beside
from chargen.files.reading import (
    FILE_BYTES,
    JSON_BYTES,
    Count,
    DamagedError,
    converted,
    errors_of,
    open_regular,
    parsed,
    shown,
)

Arrays = Mapping[str, npt.NDArray[Any]]
Shapes = Mapping[str, tuple[int, ...]]

DTYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I8": np.dtype("i1"),
    "U32": np.dtype("<u4"),
}
NO_CHECKSUM = "0" * 8  # the header's first field, until the checksum is known
_CHECKSUM = re.compile(rb'"checksum\\*": ?\\*"([0-9a-f]{8})')


@dataclass(frozen=True)
class Header:
    """The header of a file; each kind of file has a subclass with its further fields."""

    kind: str
    format: Annotated[int, Meta(ge=0, le=2**31)]
    checksum: str

    KIND: ClassVar[str]
    FORMAT: ClassVar[int] = 1
    DTYPES: ClassVar[tuple[str, ...]] = ("F32",)  # that the arrays may have

    def check(self, shapes: Shapes) -> None:
        """Raise DamagedError unless the arrays, which are not read yet, have the names and shapes of such a file."""


@dataclass(frozen=True)
class _Tensor:
    dtype: str
    shape: tuple[Count, ...]
    data_offsets: tuple[Count, Count]


H = TypeVar("H", bound=Header)


def with_checksum(data: bytes) -> bytes:
    """Return a file's bytes with their checksum in place of `NO_CHECKSUM`."""
    start, end = _place(data)
    return b"".join((data[:start], _checksum(data, start, end), data[end:]))


def checksum_matches(data: Any) -> bool:
    """Return whether the checksum of a file's bytes, given as any buffer, is right. Raises DamagedError without one."""
    start, end = _place(data)
    return bytes(data[start:end]) == _checksum(data, start, end)


def _place(data: Any) -> tuple[int, int]:
    found = _CHECKSUM.search(data)
    if found is None:
        raise DamagedError("checksum: it is missing")
    return found.span(1)


def _checksum(data: Any, start: int, end: int) -> bytes:
    view = memoryview(data)
    zeros = NO_CHECKSUM.encode()
    return b"%08x" % zlib.crc32(view[end:], zlib.crc32(zeros, zlib.crc32(view[:start])))


def read_arrays(
    path: Path, *headers: type[H], advice: str, most: int = FILE_BYTES
) -> tuple[H, dict[str, npt.NDArray[Any]]]:
    """Read a file of one of the kinds of ``headers``, at most ``most`` bytes; return its header and its arrays by name.

    The header is checked before any array is read. Then the checksum is checked, and that all numbers are finite.
    Raises ChargenError, which ends with ``advice`` if the file is damaged.
    """
    with errors_of(path, advice), open_regular(path, most) as file:
        size = os.fstat(file.fileno()).st_size
        table, values = _head(file, path, size)
        start = file.tell()
        header = _header(values, path, headers)
        tensors = _tensors(table, header, size - start)
        header.check({name: tensor.shape for name, tensor in tensors.items()})
        file.seek(0)
        data = np.fromfile(file, np.uint8, size)
        if len(data) != size or not checksum_matches(data):
            raise DamagedError("its checksum is not that of its contents")
        return header, {name: _array(data[start:], name, tensor) for name, tensor in tensors.items()}


def write_arrays(path: Path, arrays: Arrays, kind: type[Header], fields: Mapping[str, Any]) -> None:
    """Write arrays as one file for `read_arrays`, in one step, in place of any at ``path``.

    ``fields`` are the JSON values that the header of such a ``kind`` has beside those of `Header`. Equal contents make
    equal files. Raises ChargenError if the file cannot be written.
    """
    from safetensors.numpy import save  # imported here, because reading does not need it

    # One entry of sorted JSON, because safetensors does not keep the order of several entries.
    header = {"checksum": NO_CHECKSUM, "kind": kind.KIND, "format": kind.FORMAT, **fields}
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_beside(path, with_checksum(save(contiguous, {"chargen": json.dumps(header, sort_keys=True)})))


def _head(file: BinaryIO, path: Path, size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the beginning of a file; return its table of arrays and the fields of its header, both not checked yet."""
    length = int.from_bytes(file.read(8), "little")
    if 8 + length <= size and length <= JSON_BYTES:
        # The bytes may be those of any other file.
        with suppress(DamagedError, LookupError, TypeError, AttributeError, ValueError):
            table = parsed(file.read(length))
            return table, dict(parsed(table.pop("__metadata__")["chargen"]))
    raise ChargenError(
        f"{path} is cut short, or not a file of chargen's, and cannot be read: give a run, or a file from one"
    )


def _header(values: dict[str, Any], path: Path, headers: tuple[type[H], ...]) -> H:
    """Return the fields of a header as an instance of its kind."""
    base = converted(values, Header)
    header = next((one for one in headers if base.kind == one.KIND), None)
    if header is None:
        raise ChargenError(f"{path} is not a {headers[0].KIND} file: its kind is {shown(base.kind)}")
    if base.format != header.FORMAT:
        raise ChargenError(
            f"{path} has format {base.format}, and this chargen reads format {header.FORMAT}: "
            "install the chargen that wrote it, or a later one"
        )
    return converted(values, header)


def _tensors(table: dict[str, Any], header: Header, size: int) -> dict[str, _Tensor]:
    """Return the checked entries of the table; their arrays follow one another, and have ``size`` bytes together."""
    tensors = {}
    for name, entry in table.items():
        try:
            tensors[name] = tensor = converted(entry, _Tensor)
            if tensor.dtype not in header.DTYPES:
                raise DamagedError(f"dtype: {shown(tensor.dtype)} is not {' or '.join(header.DTYPES)}")
            start, end = tensor.data_offsets
            if end - start != prod(tensor.shape) * DTYPES[tensor.dtype].itemsize:
                raise DamagedError("its number of bytes does not match its shape")
        except DamagedError as error:
            raise DamagedError(f"array {shown(name)}: {error}") from None
    places = [(0, 0), *sorted(tensor.data_offsets for tensor in tensors.values()), (size, size)]
    if any(before[1] != after[0] for before, after in pairwise(places)):
        raise DamagedError("it is cut short, or longer than its header says")
    return tensors


def _array(data: npt.NDArray[np.uint8], name: str, tensor: _Tensor) -> npt.NDArray[Any]:
    array = data[slice(*tensor.data_offsets)].view(DTYPES[tensor.dtype]).reshape(tensor.shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DamagedError(f"array {shown(name)}: some of its numbers are not finite")
    return array
