"""NumPy's files: ``.npy``, one array, and ``.npz``, named ones.

What it is: ``load_numpy`` and ``save_numpy``; arrays of Python objects are refused both ways.
What it is not: NumPy's own functions, whose checks come after the allocation.
Who calls it: ``io.api`` and users.

Vars of types that NumPy has not are stored in ``.npz`` as their bits, under ``name::type``.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from ..arguments import checked
from ..dtypes import DType, as_dtype, check_unmasked
from ..errors import ArgumentError, DTypeError, brief
from ..var import Var, sync
from .files import Budget, Source, reading, writing
from .tensors import MAX_DIMENSIONS, bits_of, check_target

__all__ = ["load_numpy", "read_npy", "read_npz", "save_numpy"]


@checked
def load_numpy(path: str | os.PathLike[str] | BinaryIO, to: str | None = None) -> Any:
    """The array of a ``.npy`` file, or name to array of a ``.npz`` file, as ndarrays; bfloat16 as float32.

    Errors: ``FileFormatError`` for damaged files and arrays of objects; ``FileNotFoundError``.

    Example:
        >>> import metafuse as mf
        >>> mf.io.save_numpy({"a": mf.ones(2)}, "weights.npz")
        >>> sorted(mf.io.load_numpy("weights.npz"))
        ['a']
    """
    check_target(to)
    with reading(path) as source:
        magic = source.read(min(4, source.size))
        source.seek(0)
        return read_npz(source) if magic == b"PK\x03\x04" else read_npy(source)


@checked
def read_npy(source: Source) -> np.ndarray[Any, Any]:
    """The array of an open file."""
    return _array(source, source.file, source.size, Budget(source), "it")


def _array(source: Source, file: Any, size: int, budget: Budget, what: str) -> np.ndarray[Any, Any]:
    """An array in the format of NumPy's, at the beginning of ``file`` of ``size`` bytes."""
    shape, by_columns, dtype = _header(source, file, what)
    if len(shape) > MAX_DIMENSIONS:
        raise source.problem(f"{what} has {len(shape)} dimensions; it is damaged")
    count = 1
    for extent in shape:
        count *= extent
    if count * dtype.itemsize != size - file.tell():
        raise source.problem(
            f"{what} has the shape {shape} of {dtype}, and {size - file.tell()} bytes of data; it is incomplete or damaged"
        )
    budget.take(count * dtype.itemsize, what)
    found = np.empty(count * dtype.itemsize, np.uint8)
    view, done = found.data, 0
    while done < len(found):
        block = file.read(min(1 << 20, len(found) - done))
        if not block:
            raise source.problem(f"{what} ends after {done} of {len(found)} bytes; it is incomplete")
        view[done : done + len(block)] = block
        done += len(block)
    if dtype.kind == "b":
        found = (found != 0).view(np.uint8)
    return (
        found.view(dtype).reshape(shape, order="F" if by_columns else "C")
        if count
        else np.empty(shape, dtype)
    )


_ENTRY = re.compile(
    r"""\s*['"](descr|fortran_order|shape)['"]\s*:\s*(?:['"]([^'"]{1,20})['"]|(True|False)|\(([\d\s,L]*)\))\s*,?\s*"""
)


def _header(source: Source, file: Any, what: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and element type of an array. The header is a dictionary in Python's notation; ours is no Python parser, so
    that it only ever finds these three entries.

    Source: NumPy's documentation, "NPY format"."""
    start = file.read(8)
    wide = {b"\x93NUMPY\x01\0": 2, b"\x93NUMPY\x02\0": 4}.get(start)
    if wide is None:
        raise source.problem(
            f"{what} begins with {start.hex(' ')}; arrays in NumPy's format 1.0 or 2.0 are read"
        )
    length = int.from_bytes(file.read(wide), "little")
    text = file.read(min(length, 10_000)).decode("latin1").strip()
    found, at = {}, 1
    while match := _ENTRY.match(text, at):
        found[match[1]] = match[2] or match[3] or match[4]
        at = match.end()
    if length > 10_000 or text[:1] != "{" or text[at:] != "}" or len(found) != 3:
        raise source.problem(f"{what} is no array of numbers: its header is {text[:60]!r}")
    if found["descr"][1:2] not in "biufcSUmM" or found["fortran_order"] not in ("True", "False"):
        raise source.problem(
            f"{what} is an array of {found['descr']}; arrays of numbers and texts are read, objects are not"
        )
    try:
        shape = tuple(int(n) for n in found["shape"].replace("L", "").split(",") if n.strip())
        return shape, found["fortran_order"] == "True", np.dtype(found["descr"])
    except (ValueError, TypeError) as error:
        raise source.problem(f"{what} is no array: {error}") from error


@checked
def read_npz(source: Source) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an open archive."""
    budget = Budget(source)
    found: dict[str, np.ndarray[Any, Any]] = {}
    try:
        with zipfile.ZipFile(source.file) as archive:
            for entry in archive.infolist():
                name, suffix = os.path.splitext(entry.filename)
                if suffix != ".npy" or name in found:
                    raise source.problem(
                        f"its entry {entry.filename[:100]!r} is no array, or there twice; it is no .npz file"
                    )
                with archive.open(entry) as file:
                    found[name] = _array(source, file, entry.file_size, budget, f"array {name[:100]!r}")
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise source.problem(
            f"its list of contents can't be read: {error}; it is incomplete or damaged"
        ) from error
    return dict(_decoded(source, name, stored) for name, stored in found.items())


def _parts(name: str) -> tuple[str, DType | None]:
    """A name and the type behind ``::``, where there is one."""
    plain, separator, kind = name.rpartition("::")
    try:
        return (plain, as_dtype(kind)) if separator else (name, None)
    except DTypeError:
        return name, None


def _decoded(source: Source, name: str, stored: np.ndarray[Any, Any]) -> tuple[str, np.ndarray[Any, Any]]:
    """The name and values of what ``save_numpy`` stored, perhaps as bits."""
    plain, dtype = _parts(name)
    if dtype is None:
        return name, stored
    if stored.dtype != dtype.storage:
        raise source.problem(f"array {name[:100]!r} has elements of {stored.dtype}; it is damaged")
    return plain, dtype.decode(stored)


@checked
def save_numpy(value: Any, path: str | os.PathLike[str]) -> None:
    """Write one Var or array as ``.npy``, or a mapping from names to such as ``.npz``, to exactly this name.

    The file appears complete or not at all. Errors: ``DTypeError``, ``ArgumentError`` before the file is touched.

    Example:
        >>> import metafuse as mf
        >>> mf.io.save_numpy({"a": mf.ones(2)}, "weights.npz")
        >>> mf.io.load_numpy("weights.npz")["a"].tolist()
        [1.0, 1.0]
    """
    form = np.lib.format
    if not isinstance(value, Mapping):
        array = _plain(value, "the value")[1]
        with writing(path) as file:
            form.write_array(file, array, allow_pickle=False)
        return
    if any(not isinstance(name, str) for name in value):
        raise ArgumentError("[save] names of arrays must be texts; another name than .npz keeps other keys")
    sync(v for v in value.values() if isinstance(v, Var))
    entries = [(name, *_plain(v, f"array {name!r}")) for name, v in value.items()]
    for name in value:
        _check_name(name)
    with writing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, kind, array in entries:
            info = zipfile.ZipInfo(f"{name}{kind}.npy", (1980, 1, 1, 0, 0, 0))
            with archive.open(info, "w", force_zip64=array.nbytes >= 1 << 31) as entry:
                form.write_array(entry, array, allow_pickle=False)


def _check_name(name: str) -> None:
    """Errors: ``ArgumentError`` for a name under which an archive keeps no array, or gives back another."""
    size = len(name.encode("utf-8", "surrogatepass"))
    whole = name.isprintable() or not any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in name)
    if not 0 < size < 1 << 15 or not whole or _parts(name)[1] is not None:
        raise ArgumentError(
            f"[save] {brief(name)} can't be the name of an array in a .npz file; give another, or save as .pkl"
        )


def _plain(value: Any, where: str) -> tuple[str, np.ndarray[Any, Any]]:
    """What is put behind the name, and an array that NumPy can write."""
    check_unmasked(f"[save] {where}", value)
    if isinstance(value, (bool, int, float, list, tuple, np.generic)):
        try:
            value = np.asarray(value)
        except ValueError:
            raise DTypeError(
                f"[save] {where} is a list whose parts differ in length; save it as .pkl"
            ) from None
    if isinstance(value, np.ndarray) and value.dtype.kind in "cSUmM":
        return "", value
    bits, dtype = bits_of(value, where)
    return ("", bits) if dtype.storage == dtype.numpy else (f"::{dtype}", bits)
