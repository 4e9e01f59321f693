"""The safetensors format: named tensors behind a JSON header.

What it is: a reader and a writer of our own; the format is a length, a header and the data.
What it is not: the package of that name, which is not needed.
Who calls it: ``io.api`` and users.

Source of definition: https://github.com/huggingface/safetensors, "Format": 8 bytes length N, N bytes of JSON that names dtype,
shape and offsets of every tensor, then the data without gaps or overlaps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from .. import dtypes
from ..arguments import checked
from ..dtypes import DType
from ..errors import ArgumentError, brief
from ..var import Var, sync
from .files import Budget, Source, reading, writing
from .tensors import MAX_DIMENSIONS, bits_of, check_target, finish, flat_bytes

__all__ = ["load_safetensors", "read_safetensors", "save_safetensors"]

_MAX_HEADER = 100_000_000  # bytes, by the format's definition
_DTYPES: dict[str, DType] = {
    "BOOL": dtypes.bool_, "U8": dtypes.uint8, "I8": dtypes.int8, "U16": dtypes.uint16, "I16": dtypes.int16,
    "U32": dtypes.uint32, "I32": dtypes.int32, "U64": dtypes.uint64, "I64": dtypes.int64, "F16": dtypes.float16,
    "BF16": dtypes.bfloat16, "F32": dtypes.float32, "F64": dtypes.float64,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@checked
def load_safetensors(path: str | os.PathLike[str] | BinaryIO, to: str | None = None) -> dict[str, Any]:
    """Name to Var (with ``to="numpy"``: ndarray, bfloat16 as float32), of the types that the file says.

    Errors: ``FileFormatError`` if anything in the header does not fit the data, or for types that no Var can have;
    ``FileNotFoundError``.

    Example:
        >>> import metafuse as mf
        >>> mf.io.save_safetensors({"a": mf.ones(2)}, "weights.safetensors")
        >>> mf.io.load_safetensors("weights.safetensors", to="numpy")["a"]
        array([1., 1.], dtype=float32)
    """
    check_target(to)
    with reading(path) as source:
        return read_safetensors(source, to)


def read_safetensors(source: Source, to: str | None) -> dict[str, Any]:
    """The tensors of an open file."""
    length = int.from_bytes(source.read(8), "little")
    if length > _MAX_HEADER or length > source.left:
        raise source.problem(
            f"its header would be {length} bytes long; it is no safetensors file or incomplete"
        )
    header = _header(source, source.read(length))
    begin = source.position
    pieces = {name: _piece(source, name, entry) for name, entry in header.items() if name != "__metadata__"}
    end = 0
    for name, (_, _, first, last) in sorted(pieces.items(), key=lambda item: item[1][2:]):
        if first != end:
            raise source.problem(
                f"data of tensor {name[:100]!r} begin at {first}, not at {end}; it is damaged"
            )
        end = last
    if end != source.size - begin:
        raise source.problem(
            f"its tensors have {end} bytes, the file {source.size - begin}; it is incomplete or damaged"
        )
    budget = Budget(source)
    found = {}
    for name, (dtype, shape, first, last) in pieces.items():
        budget.take(last - first, f"tensor {name[:100]!r}")
        bits = source.read_at(begin + first, last - first).view(dtype.storage.newbyteorder("<"))
        found[name] = finish(bits.astype(dtype.storage, copy=False).reshape(shape), dtype, to)
    return found


def _header(source: Source, text: bytes) -> dict[str, Any]:
    """The JSON object of the header, each name once."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise source.problem("its header has a name twice; it is refused")
        return found

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise source.problem(
            f"its header is no JSON: {type(error).__name__}; it is no safetensors file or damaged"
        ) from error
    if not isinstance(header, dict) or not text.startswith(b"{"):
        raise source.problem("its header is no table of tensors; it is no safetensors file")
    return header


def _piece(source: Source, name: str, entry: Any) -> tuple[DType, tuple[int, ...], int, int]:
    """Type, shape, first and last offset of a tensor."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise source.problem(
            f"tensor {name[:100]!r} is not described by dtype, shape and data_offsets; it is damaged"
        )
    dtype, shape, offsets = _DTYPES.get(str(entry["dtype"])), entry["shape"], entry["data_offsets"]
    if dtype is None:
        raise source.problem(
            f"tensor {name[:100]!r} has elements of type {str(entry['dtype'])[:40]}, which no Var can have; convert it first"
        )
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or any(type(n) is not int or not 0 <= n < 1 << 63 for n in numbers):
            raise source.problem(
                f"shape or offsets of tensor {name[:100]!r} are no natural numbers; it is damaged"
            )
    if len(shape) > MAX_DIMENSIONS or len(offsets) != 2:
        raise source.problem(
            f"tensor {name[:100]!r} has {len(shape)} dimensions and {len(offsets)} offsets; it is damaged"
        )
    size = dtype.itemsize
    for extent in shape:
        size *= extent
    if offsets[1] - offsets[0] != size:
        raise source.problem(
            f"tensor {name[:100]!r} of {dtype} and shape {shape} takes {size} bytes, its offsets say "
            f"{offsets[1] - offsets[0]}; it is damaged"
        )
    return dtype, tuple(shape), offsets[0], offsets[1]


@checked
def save_safetensors(
    tensors: Mapping[str, Any], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named Vars or arrays, and texts as ``metadata``. The file appears complete or not at all.

    Errors: ``ArgumentError`` if names or metadata are no texts, ``DTypeError`` for what is no array, before the file is touched.

    Example:
        >>> import metafuse as mf
        >>> mf.io.save_safetensors({"a": mf.ones(2)}, "weights.safetensors")
        >>> mf.io.load_safetensors("weights.safetensors")["a"].tolist()
        [1.0, 1.0]
    """
    if not isinstance(tensors, Mapping) or any(
        not isinstance(n, str) or n == "__metadata__" for n in tensors
    ):
        raise ArgumentError(
            "[save] a safetensors file holds a mapping from names to arrays; give such a one, not nested"
        )
    if metadata is not None and any(not isinstance(t, str) for item in metadata.items() for t in item):
        raise ArgumentError("[save] metadata of a safetensors file must be texts by names")
    sync(value for value in tensors.values() if isinstance(value, Var))
    pieces: list[tuple[str, np.ndarray[Any, Any]]] = []
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    entries = {name: bits_of(value, f"tensor {name!r}") for name, value in tensors.items()}
    begin = 0
    # the widest elements first, so that all are aligned
    for name in sorted(entries, key=lambda n: (-entries[n][1].itemsize, n)):
        bits, dtype = entries[name]
        header[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(bits.shape),
            "data_offsets": [begin, begin + bits.nbytes],
        }
        begin += bits.nbytes
        pieces.append((name, bits))
    try:
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ArgumentError(
            f"[save] names and metadata must be texts of Unicode: {brief(str(error))}"
        ) from None
    text += b" " * (-len(text) % 8)
    with writing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, bits in pieces:
            file.write(flat_bytes(bits))
