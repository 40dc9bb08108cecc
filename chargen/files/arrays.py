"""A file of arrays that describes itself: safetensors, so no pickle, with a checksum over all of it.

The layout is safetensors': an 8-byte length, a JSON header, then the arrays' bytes. The header's metadata has one
entry, ``chargen``: JSON with ``kind``, ``format``, ``checksum`` and what else a kind of file has.

The checksum is CRC-32 of the whole file with eight zeros in its own place: 1 GB takes 0.3 s. It is against damage,
not against people.
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
    damage,
    open_regular,
    parsed,
    shown,
)

Arrays = Mapping[str, npt.NDArray[Any]]
Shapes = Mapping[str, tuple[int, ...]]

DTYPES = {"F32": np.dtype("<f4"), "U32": np.dtype("<u4")}  # that are written, by their names in a file
FLOATS = ("F32",)  # of weights, and of what else a model carries
UNSEALED = {"checksum": "0" * 8}  # the header's first entry until the checksum is known
_SEAL = re.compile(rb'"checksum\\*": ?\\*"([0-9a-f]{8})')


@dataclass(frozen=True)
class Header:
    """What a file says of itself; each kind of file has a subclass that declares the rest."""

    kind: str
    format: Annotated[int, Meta(ge=0, le=2**31)]
    checksum: str

    KIND: ClassVar[str]
    FORMAT: ClassVar[int] = 1
    DTYPES: ClassVar[tuple[str, ...]] = FLOATS

    def check(self, shapes: Shapes) -> None:
        """Raise DamagedError if the file's arrays are not those of such a header. They are not read yet."""


@dataclass(frozen=True)
class _Tensor:
    dtype: str
    shape: tuple[Count, ...]
    data_offsets: tuple[Count, Count]


H = TypeVar("H", bound=Header)


def seal(data: bytes) -> bytes:
    """Return a file's bytes with the checksum in its place, of which ``data`` has `UNSEALED`."""
    start, end = _place(data)
    return b"".join((data[:start], _checksum(data, start, end), data[end:]))


def sealed(data: Any) -> bool:
    """Tell whether bytes are those that `seal` returned; ``data`` is a buffer of bytes."""
    start, end = _place(data)
    return bytes(data[start:end]) == _checksum(data, start, end)


def _place(data: Any) -> tuple[int, int]:
    found = _SEAL.search(data)
    if found is None:
        raise DamagedError("checksum: it is missing")
    return found.span(1)


def _checksum(data: Any, start: int, end: int) -> bytes:
    view = memoryview(data)
    zeros = UNSEALED["checksum"].encode()
    return b"%08x" % zlib.crc32(view[end:], zlib.crc32(zeros, zlib.crc32(view[:start])))


def read_arrays(
    path: Path, *headers: type[H], advice: str, most: int = FILE_BYTES
) -> tuple[H, dict[str, npt.NDArray[Any]]]:
    """Read a file of one of the kinds that ``headers`` declare: its header and its arrays.

    The header is checked before any array is read, the checksum and that all numbers are finite before they are
    returned. Raises ChargenError, which ends with ``advice`` where the file is damaged.
    """
    with damage(path, advice), open_regular(path, most) as file:
        size = os.fstat(file.fileno()).st_size
        table, told = _head(file, path, size)
        start = file.tell()
        header = _declared(told, path, headers)
        tensors = _tensors(table, header, size - start)
        header.check({name: tensor.shape for name, tensor in tensors.items()})
        file.seek(0)
        data = np.fromfile(file, np.uint8, size)
        if len(data) != size or not sealed(data):
            raise DamagedError("its checksum is not that of its contents")
        return header, {name: _array(data[start:], name, tensor) for name, tensor in tensors.items()}


def write_arrays(path: Path, arrays: Arrays, header: Mapping[str, Any]) -> None:
    """Write arrays and a header as one file for `read_arrays`. The file replaces any at ``path`` in one step.

    ``header`` is a JSON object with the fields of a `Header`, except the checksum. Equal contents make equal files.
    Raises ChargenError if the file cannot be written.
    """
    from safetensors.numpy import save  # imported here, because reading does not need it

    # One entry of sorted JSON, because safetensors does not keep the order of several entries.
    metadata = {"chargen": json.dumps({**UNSEALED, **header}, sort_keys=True)}
    write_beside(path, seal(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata)))


def _head(file: BinaryIO, path: Path, size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the table of arrays and what the file says of itself, from its first bytes, and no more of them."""
    length = int.from_bytes(file.read(8), "little")
    if 8 + length <= size and length <= JSON_BYTES:
        # Any file has some first bytes.
        with suppress(DamagedError, LookupError, TypeError, AttributeError, ValueError):
            table = parsed(file.read(length))
            return table, dict(parsed(table.pop("__metadata__")["chargen"]))
    raise ChargenError(f"{path} is cut short, or not a file of chargen's: nothing was read from it")


def _declared(told: dict[str, Any], path: Path, headers: tuple[type[H], ...]) -> H:
    """Return what a file says of itself as the header of its kind."""
    base = converted(told, Header)
    header = next((one for one in headers if base.kind == one.KIND), None)
    if header is None:
        raise ChargenError(f"{path} is not a {headers[0].KIND}, but of the kind {shown(base.kind)}")
    if base.format != header.FORMAT:
        raise ChargenError(
            f"{path} has format {base.format}, and this chargen reads format {header.FORMAT}: "
            "install the chargen that wrote it, or a later one"
        )
    return converted(told, header)


def _tensors(table: dict[str, Any], header: Header, size: int) -> dict[str, _Tensor]:
    """Return the table's entries by name; their arrays' bytes follow one another, and are ``size`` together."""
    tensors = {}
    for name, entry in table.items():
        try:
            tensors[name] = tensor = converted(entry, _Tensor)
            if tensor.dtype not in header.DTYPES:
                raise DamagedError(f"dtype: {shown(tensor.dtype)} is not {' or '.join(header.DTYPES)}")
            start, end = tensor.data_offsets
            if end - start != prod(tensor.shape) * DTYPES[tensor.dtype].itemsize:
                raise DamagedError("its bytes are not as many as its shape says")
        except DamagedError as error:
            raise DamagedError(f"array {shown(name)}: {error}") from None
    places = [(0, 0), *sorted(tensor.data_offsets for tensor in tensors.values()), (size, size)]
    if any(before[1] != after[0] for before, after in pairwise(places)):
        raise DamagedError("it is cut short, or longer than its header says")
    return tensors


def _array(data: npt.NDArray[np.uint8], name: str, tensor: _Tensor) -> npt.NDArray[Any]:
    array = data[slice(*tensor.data_offsets)].view(DTYPES[tensor.dtype]).reshape(tensor.shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DamagedError(f"array {shown(name)}: it has numbers that are not finite")
    return array
