"""Writing files that ``torch.load`` reads, without PyTorch; with ``weights_only=True`` as well.

What it is: the zip archive of PyTorch 1.6 and later, and the few operations of the pickle format that its value needs.
What it is not: the earlier format.
Who calls it: ``io.api`` and users (``save_pytorch``).
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections import OrderedDict
from typing import Any, BinaryIO

import numpy as np

from ..arguments import checked
from ..dtypes import DType
from ..errors import ArgumentError, DTypeError
from ..var import Var, sync
from .files import writing
from .tensors import bits_of, check_depth, flat_bytes

__all__ = ["save_pytorch"]

_STORAGE = {
    "float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage",
    "int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage", "uint8": "ByteStorage",
    "bool": "BoolStorage",
}  # fmt: skip
_ALIGNMENT = 64  # of data in the archive, so that it can be mapped into memory


@checked
def save_pytorch(path: str | os.PathLike[str], obj: Any) -> None:
    """Write Vars, arrays, numbers, texts and containers of them so that ``torch.load(path, weights_only=True)`` reads them.

    Vars, arrays and tensors become tensors of the same type and shape; a Var that occurs twice becomes one shared tensor. The
    file appears complete or not at all.

    Errors: ``DTypeError`` naming the place of anything else, before the file is touched.

    Example:
        >>> import metafuse as mf
        >>> mf.io.save_pytorch("weights.pth", {"a": mf.ones(2)})
        >>> mf.io.load_pytorch("weights.pth")["a"].tolist()
        [1.0, 1.0]
    """
    pickled = _Pickle()
    pickled.value(obj, "the value", 0)
    sync(value for value in pickled.storages if isinstance(value, Var))
    data = b"\x80\x02" + b"".join(pickled.parts) + b"."
    with writing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _entry(archive, file, "archive/data.pkl", data)
        _entry(archive, file, "archive/byteorder", b"little")
        for key, value in enumerate(pickled.storages):
            bits, _ = bits_of(value, "a tensor")
            _entry(
                archive,
                file,
                f"archive/data/{key}",
                flat_bytes(bits),
            )
        _entry(archive, file, "archive/version", b"3\n")


def _entry(archive: zipfile.ZipFile, file: BinaryIO, name: str, data: Any) -> None:
    """Add an entry whose data begin at a multiple of the alignment, filled up with an extra field that means nothing."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    large = len(data) >= 1 << 31
    begin = file.tell() + 30 + len(name) + 4 + (20 if large else 0)
    padding = -begin % _ALIGNMENT
    info.extra = struct.pack("<HH", 0x4246, padding) + bytes(padding)
    with archive.open(info, "w", force_zip64=large) as entry:
        entry.write(data)


class _Pickle:
    """The operations of one value, protocol 2."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.storages: list[Any] = []
        self.keys: dict[int, tuple[int, DType]] = {}

    def value(self, value: Any, where: str, depth: int) -> None:
        """Add ``value``, which stands at ``where``."""
        check_depth(depth, where)
        put = self.parts.append
        if value is None or isinstance(value, bool):
            put({None: b"N", True: b"\x88", False: b"\x89"}[value])
        elif type(value) is int:
            put(_integer(value, where))
        elif type(value) is float:
            put(b"G" + struct.pack(">d", value))
        elif type(value) is str:
            put(_text(value))
        elif isinstance(value, (bytes, bytearray)):
            put(b"c_codecs\nencode\n" + _text(bytes(value).decode("latin1")) + _text("latin1") + b"\x86R")
        elif isinstance(value, np.generic):
            self.value(value.item(), where, depth + 1)
        elif isinstance(value, (list, tuple)):
            put(b"](" if isinstance(value, list) else b"(")
            for k, entry in enumerate(value):
                self.value(entry, f"{where}[{k}]", depth + 1)
            put(b"e" if isinstance(value, list) else b"t")
        elif isinstance(value, dict):
            self._mapping(value, where, depth)
        else:
            self._tensor(value, where)

    def _mapping(self, value: dict[Any, Any], where: str, depth: int) -> None:
        self.parts.append(
            (b"ccollections\nOrderedDict\n)R" if isinstance(value, OrderedDict) else b"}") + b"("
        )
        for key, entry in value.items():
            if not isinstance(key, (str, int, float, tuple, type(None))):
                raise DTypeError(
                    f"[save] {where} has a key of type {type(key).__name__}; use texts or numbers"
                )
            self.value(key, f"a key of {where}", depth + 1)
            self.value(entry, f"{where}[{key!r}]", depth + 1)
        self.parts.append(b"u")

    def _tensor(self, value: Any, where: str) -> None:
        """A call of PyTorch's function that makes a tensor of a storage."""
        if not isinstance(value, (Var, np.ndarray)) and getattr(value, "detach", None) is None:
            raise DTypeError(
                f"[save] {where} is a {type(value).__name__}; numbers, texts, arrays, Vars and containers of them can be "
                "saved. Of a network or an optimizer save its state_dict()"
            )
        if id(value) not in self.keys:
            dtype = value.dtype if isinstance(value, Var) else bits_of(value, where)[1]
            self.keys[id(value)] = len(self.storages), dtype
            self.storages.append(value)
        key, dtype = self.keys[id(value)]
        shape = tuple(int(n) for n in value.shape)
        count = int(np.prod(shape, dtype=np.int64))
        storage = _STORAGE.get(dtype.name)
        put = self.parts.append
        put(b"ctorch._utils\n_rebuild_tensor_v2\n((" if storage else b"ctorch._utils\n_rebuild_tensor_v3\n((")
        put(
            _text("storage")
            + (f"ctorch\n{storage}\n" if storage else "ctorch.storage\nUntypedStorage\n").encode()
        )
        put(
            _text(str(key))
            + _text("cpu")
            + _integer(count if storage else count * dtype.itemsize, where)
            + b"tQK\0"
        )
        for extents in (
            shape,
            tuple(int(np.prod(shape[k + 1 :], dtype=np.int64)) for k in range(len(shape))),
        ):
            put(b"(" + b"".join(_integer(n, where) for n in extents) + b"t")
        put(b"\x89ccollections\nOrderedDict\n)R" + (b"tR" if storage else f"ctorch\n{dtype}\ntR".encode()))


def _integer(value: int, where: str) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    if len(data) > 255:
        raise ArgumentError(f"[save] {where} is a number of {len(data)} bytes; up to 255 can be saved")
    return b"\x8a" + bytes([len(data)]) + data


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data
