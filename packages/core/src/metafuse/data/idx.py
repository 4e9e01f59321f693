"""The IDX file format of the MNIST family: a header and big-endian numbers, perhaps compressed with gzip.

What it is: the reader.
What it is not: the data sets.
Who calls it: ``data.mnist``.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError

__all__ = ["parse_idx", "read_idx"]

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | os.PathLike[str]) -> np.ndarray[Any, Any]:
    """The array in an IDX file. Errors: ``ArgumentError`` if the file is damaged; ``FileNotFoundError``.

    Source: http://yann.lecun.com/exdb/mnist, "the IDX file format".
    """
    return parse_idx(Path(path).read_bytes(), os.fspath(path))


def parse_idx(raw: bytes, name: str) -> np.ndarray[Any, Any]:
    """The array in the content of an IDX file; ``name`` is for messages."""
    try:
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise ArgumentError(f"[read_idx] {name!r} is damaged: {error}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise ArgumentError(f"[read_idx] {name!r} is no IDX file: it begins with {content[:4].hex()}")
    dtype, ndim = np.dtype(_TYPES[content[2]]), content[3]
    shape = tuple(int.from_bytes(content[4 + 4 * k : 8 + 4 * k], "big") for k in range(ndim))
    wanted = math.prod(shape) * dtype.itemsize
    body = content[4 + 4 * ndim :]
    if len(body) != wanted:
        raise ArgumentError(f"[read_idx] {name!r} is damaged: {len(body)} bytes of data, {wanted} expected")
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="))
