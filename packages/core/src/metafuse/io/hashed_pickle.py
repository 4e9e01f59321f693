"""The reference API's own file format, ``.pkl``: a pickle, its SHA-1 and a signature.

What it is: ``load_pickle``, which reads such files, and plain pickles of arrays and simple values, without executing anything;
and ``save_pickle``, which writes them.
What it is not: a way to keep objects of any class.
Who calls it: ``io.api``.

The last 28 bytes are the SHA-1 sum of all before and ``HCAJSLHD``. The sum tells damage; it is no protection against people.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections import OrderedDict
from typing import Any, BinaryIO

import numpy as np

from ..dtypes import check_unmasked
from ..errors import DTypeError, OutOfMemory
from ..var import Var
from .files import Budget, Source, reading, writing
from .pickle_names import plain_names
from .pickle_reader import PickleReader, is_key
from .tensors import check_depth, host_array

__all__ = ["SIGNATURE", "load_pickle", "save_pickle", "unpickle"]

SIGNATURE = b"HCAJSLHD"


def load_pickle(path: str | os.PathLike[str] | BinaryIO) -> Any:
    """What ``save_pickle`` of metafuse or of the reference API wrote, arrays as ndarrays; also a plain pickle of such values.

    Errors: ``FileFormatError`` if the sum is wrong or the pickle mentions anything but arrays, numbers, texts and containers;
    ``FileNotFoundError``.

    Example:
        >>> import metafuse as mf
        >>> mf.safepickle([1, "text"], "list.pkl")
        >>> mf.safeunpickle("list.pkl")
        [1, 'text']
    """
    with reading(path) as source:
        return unpickle(source)


def unpickle(source: Source) -> Any:
    """The value of an open file."""
    trailer = len(SIGNATURE) + 20
    if source.size >= trailer:
        source.seek(source.size - trailer)
        expected, signature = source.read(20), source.read(len(SIGNATURE))
        if signature == SIGNATURE and _digest(source, source.size - trailer) != expected:
            raise source.problem("its SHA-1 sum is wrong; it is damaged, get it anew")
    source.seek(0)
    return PickleReader(source, plain_names(Budget(source))).load()


def _digest(source: Source, count: int) -> bytes:
    digest = hashlib.sha1(usedforsecurity=False)
    source.seek(0)
    while count:
        block = source.read(min(count, 1 << 20))
        digest.update(block)
        count -= len(block)
    return digest.digest()


class _Hashing:
    """A file that keeps the sum of what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha1(usedforsecurity=False)

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self.file.write(data)


def save_pickle(obj: Any, path: str | os.PathLike[str]) -> None:
    """Write numbers, texts, arrays, Vars (as ndarrays; bfloat16 as float32) and containers of them in the reference API's format.

    Errors: ``DTypeError`` naming the place of anything else, before the file is touched.

    Example:
        >>> import metafuse as mf
        >>> mf.safepickle({"a": mf.ones(2)}, "weights.pkl")
        >>> mf.safeunpickle("weights.pkl")["a"].tolist()
        [1.0, 1.0]
    """
    plain = _plain(obj, "the value", 0)
    with writing(path) as file:
        hashing = _Hashing(file)
        try:
            pickle.dump(plain, hashing, protocol=4)
        except MemoryError:
            raise OutOfMemory(
                "[save] no memory for a copy of an array that is not contiguous; save it in parts"
            ) from None
        file.write(hashing.digest.digest() + SIGNATURE)


def _plain(value: Any, where: str, depth: int) -> Any:
    """``value`` with every Var turned into an ndarray."""
    check_depth(depth, where)
    if isinstance(value, Var):
        return value.numpy()
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biufcSU":
            raise DTypeError(f"[save] {where} is an array of {value.dtype}; arrays of numbers can be saved")
        check_unmasked(f"[save] {where}", value)
        return np.asarray(value)
    if isinstance(value, np.generic):
        return value if value.dtype.kind in "biufc" else _plain(value.item(), where, depth + 1)
    if value is None or type(value) in (bool, int, float, complex, str, bytes, bytearray):
        return value
    if isinstance(value, dict):
        if not all(map(is_key, value)):
            raise DTypeError(f"[save] {where} has keys that are not numbers or texts")
        items = ((key, _plain(v, f"{where}[{key!r}]", depth + 1)) for key, v in value.items())
        return OrderedDict(items) if isinstance(value, OrderedDict) else dict(items)
    if type(value) in (list, tuple):
        return type(value)(_plain(v, f"{where}[{k}]", depth + 1) for k, v in enumerate(value))
    if isinstance(value, tuple):  # Shape and the like, named tuples
        return tuple(_plain(v, f"{where}[{k}]", depth + 1) for k, v in enumerate(value))
    if type(value) in (set, frozenset) and all(map(is_key, value)):
        return value
    if hasattr(value, "detach") and hasattr(value, "cpu"):  # a tensor of PyTorch's
        return host_array(value, where)
    raise DTypeError(
        f"[save] {where} is a {type(value).__name__}; numbers, texts, arrays, Vars and containers of them can be saved. "
        "Of a network or an optimizer save its state_dict()"
    )
