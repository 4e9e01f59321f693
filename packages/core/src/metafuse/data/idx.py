"""The IDX file format of the MNIST family: a header and big-endian numbers, perhaps compressed with gzip.

What it is: the reader.
What it is not: the data sets.
Who calls it: ``data.mnist``.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError

__all__ = ["read_idx"]

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | os.PathLike[str]) -> np.ndarray[Any, Any]:
    """The array in an IDX file. Errors: ``ArgumentError`` if the file is damaged; ``FileNotFoundError``.

    Source: http://yann.lecun.com/exdb/mnist, "the IDX file format".
    """
    raw = Path(path).read_bytes()
    try:
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError) as error:
        raise ArgumentError(f"[read_idx] {os.fspath(path)!r} is damaged: {error}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise ArgumentError(
            f"[read_idx] {os.fspath(path)!r} is no IDX file: it begins with {content[:4].hex()}"
        )
    dtype, ndim = np.dtype(_TYPES[content[2]]), content[3]
    shape = tuple(int(n) for n in np.frombuffer(content[4 : 4 + 4 * ndim], ">i4"))
    wanted = int(np.prod(shape)) * dtype.itemsize
    body = content[4 + 4 * ndim :]
    if len(shape) != ndim or len(body) != wanted:
        raise ArgumentError(
            f"[read_idx] {os.fspath(path)!r} is damaged: {len(body)} bytes of data, {wanted} expected"
        )
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="))
