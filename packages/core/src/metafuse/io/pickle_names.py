"""The names that pickles of plain data may mention: those of NumPy's arrays and of a few containers.

What it is: ``plain_names``, the table that ``PickleReader`` is given; our own functions stand for NumPy's.
What it is not: names of PyTorch (``io.pytorch_names``).
Who calls it: ``io.hashed_pickle``, ``io.pytorch_names``, ``data.cifar``.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from .files import Budget
from .pickle_reader import Function, Shell, is_key
from .tensors import MAX_DIMENSIONS

__all__ = ["ordered", "plain_names"]

_ARRAY = "numpy.ndarray"  # what the name of the class stands for: a sign without abilities


def plain_names(budget: Budget) -> dict[str, Any]:
    """``"module name"`` to what it stands for, in all spellings of Pythons and NumPys."""
    names: dict[str, Any] = {
        "numpy ndarray": _ARRAY,
        "numpy dtype": Function(_dtype),
        "collections OrderedDict": Function(ordered),
        "_codecs encode": Function(_encode),
    }
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray _reconstruct"] = Function(lambda *given: _reconstruct(budget, *given))
        names[f"{core}.multiarray scalar"] = Function(_scalar)
        names[f"{core}.numeric _frombuffer"] = Function(lambda *given: _from_buffer(budget, *given))
    for builtins in ("builtins", "__builtin__"):
        names[f"{builtins} set"] = Function(lambda items=(): {_key(k) for k in items})
        names[f"{builtins} frozenset"] = Function(lambda items=(): frozenset(_key(k) for k in items))
        names[f"{builtins} bytearray"] = Function(_bytearray)
        names[f"{builtins} complex"] = Function(_complex)
    return names


def _key(value: Any) -> Any:
    if not is_key(value):
        raise TypeError(f"a {type(value).__name__} is used as a key")
    return value


def ordered(pairs: Any = ()) -> OrderedDict[Any, Any]:
    """An ordered dictionary of pairs."""
    if type(pairs) not in (list, tuple):
        raise TypeError("the items of a dictionary are no list")
    return OrderedDict((_key(key), value) for key, value in pairs)


def _encode(text: Any, encoding: Any) -> bytes:
    """Bytes as protocol 2 writes them."""
    if type(text) is not str or encoding != "latin1":
        raise ValueError("bytes are not written as text of latin1")
    return text.encode("latin1")


def _bytearray(data: Any = b"", encoding: Any = None) -> bytearray:
    if type(data) is str and encoding is not None:
        data = _encode(data, "latin1" if encoding in ("latin-1", "latin1") else encoding)
    if type(data) is not bytes:  # a number would allocate
        raise TypeError("a bytearray is not made of bytes")
    return bytearray(data)


def _complex(real: Any = 0.0, imaginary: Any = 0.0) -> complex:
    if type(real) not in (int, float) or type(imaginary) not in (int, float):
        raise TypeError("a complex number is not made of numbers")
    return complex(real, imaginary)


# -- NumPy ---------------------------------------------------------------------------------------------------------
_KINDS = "biufcSU"  # truth values, numbers, complex ones, bytes, texts: nothing that holds objects


def _dtype(code: Any, align: Any = False, copy: Any = False) -> Shell:
    """An element type without byte order; its state brings that."""
    if type(code) is not str or code[:1] not in _KINDS or not code[1:].isdecimal() or len(code) > 10:
        raise ValueError(f"arrays with elements {str(code)[:40]!r} are not read")
    dtype = np.dtype(code)

    def fill(state: Any) -> np.dtype[Any]:
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise ValueError("an element type has no byte order")
        return dtype.newbyteorder(state[1]) if dtype.itemsize > 1 or dtype.kind == "U" else dtype

    return Shell(fill)


def _reconstruct(budget: Budget, kind: Any, shape: Any = (0,), code: Any = b"b") -> Shell:
    """An empty array; its state brings everything."""
    if kind != _ARRAY:
        raise TypeError("an array is of no known class")

    def fill(state: Any) -> np.ndarray[Any, Any]:
        if type(state) is not tuple or len(state) not in (4, 5):
            raise ValueError("the state of an array is not that of NumPy")
        extents, dtype, by_columns, data = state[-4:]
        return _array(budget, data, dtype, extents, "F" if by_columns is True or by_columns == 1 else "C")

    return Shell(fill)


def _from_buffer(budget: Budget, data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
    """An array as protocol 5 writes it."""
    return _array(budget, data, dtype, shape, "F" if order == "F" else "C")


def _array(budget: Budget, data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
    """A new array, in the machine's byte order, after all numbers have been compared with the data."""
    if type(data) is str:  # Python 2
        data = data.encode("latin1")
    if not isinstance(dtype, np.dtype) or type(shape) is not tuple or len(shape) > MAX_DIMENSIONS:
        raise ValueError("an array has no element type or shape")
    if type(data) not in (bytes, bytearray) or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError("an array has no data, or a negative extent")
    count = 1
    for extent in shape:
        count *= extent
    if count * dtype.itemsize != len(data):
        raise ValueError(f"an array of shape {shape} and {dtype} has {len(data)} bytes of data")
    budget.take(len(data), f"an array of shape {shape}")
    if not dtype.itemsize:
        return np.empty(shape, dtype)
    flat = np.frombuffer(data, dtype)
    if dtype.kind == "b":
        flat = flat.view(np.uint8) != 0
    if (
        dtype.kind == "U"
        and (flat.view(np.uint32 if dtype.isnative else dtype_of_text(dtype)) > 0x10FFFF).any()
    ):
        raise ValueError("a text holds what is no character")
    return flat.reshape(shape, order=order).astype(dtype.newbyteorder("="))


def dtype_of_text(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The numbers behind the characters of a text."""
    return np.dtype(np.uint32).newbyteorder(dtype.byteorder)  # type: ignore[arg-type]


def _scalar(dtype: Any, data: Any = b"") -> Any:
    """A number of NumPy's."""
    if not isinstance(dtype, np.dtype) or dtype.itemsize == 0:
        raise ValueError("a number has no element type")
    if type(data) is str:
        data = data.encode("latin1")
    if type(data) is not bytes or len(data) != dtype.itemsize:
        raise ValueError("a number has too few or too many bytes")
    if dtype.kind == "U":
        raise ValueError("a text is given as a number")
    found = np.frombuffer(data, np.uint8 if dtype.kind == "b" else dtype)[0]
    return np.bool_(found != 0) if dtype.kind == "b" else found
