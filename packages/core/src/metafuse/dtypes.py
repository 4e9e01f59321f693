"""Element types and the one promotion table.

What it is: the closed list of element types, their names in every vocabulary (user, NumPy, C), how their values are held
on the host, and the rules that say which type an operation yields.
What it is not: a description of arrays (see ``graph.spec``) or of what a backend supports (see
``backend.contract.Capabilities``).
Who calls it: everything.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .errors import DTypeError

__all__ = [
    "DType",
    "DTYPES",
    "FLOATS",
    "INTEGERS",
    "bool_",
    "check_unmasked",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "as_dtype",
    "fits_float",
    "is_number",
    "of_python",
    "promote",
    "true_divide",
    "to_floating",
    "accumulator",
]


@dataclass(frozen=True, eq=False)
class DType:
    """One element type. Instances are unique: compare with ``is`` or ``==``; ``str`` gives the name.

    Example:
        >>> from metafuse.dtypes import float32
        >>> float32.itemsize, float32.is_float, str(float32)
        (4, True, 'float32')
        >>> float32 == "float32"
        True
    """

    name: str
    kind: str  # "b" bool, "i" signed, "u" unsigned, "f" floating: NumPy's letters
    itemsize: int  # bytes
    c_name: str  # the type in C-family source; fixed-width by the compiler's own macros, no header needed

    @property
    def is_float(self) -> bool:
        """Whether values are floating point, that is, whether gradients may flow."""
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        """Whether values are integers (bool is not)."""
        return self.kind in "iu"

    @property
    def is_half(self) -> bool:
        """Whether values are floating point of 16 bits: computed with in ``float32`` and rounded when they are stored."""
        return self.kind == "f" and self.itemsize == 2

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype that holds values on the host. NumPy has no bfloat16: there it is ``float32``."""
        return _NUMPY[self.name]

    @property
    def storage(self) -> np.dtype[Any]:
        """The NumPy dtype with the same bits in memory; ``uint16`` for bfloat16."""
        return _STORAGE[self.name]

    def encode(self, values: Any) -> np.ndarray[Any, Any]:
        """``values`` as an array of ``storage``: what is copied to a device. bfloat16 rounds to the nearest even; NaN stays NaN.

        Example:
            >>> from metafuse.dtypes import bfloat16
            >>> hex(bfloat16.encode(1.0)), hex(bfloat16.encode(float("nan")))
            ('0x3f80', '0x7fc0')
        """
        return (
            _bfloat16_bits(values)
            if self is bfloat16
            else np.asarray(values).astype(self.storage, copy=False)
        )

    def decode(self, bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """An array of ``storage`` as values of ``numpy``: what is shown of what a device holds; exact."""
        return np.asarray(bits.astype(np.uint32) << _16).view(np.float32) if self is bfloat16 else bits

    def convert(self, values: Any) -> np.ndarray[Any, Any]:
        """``values`` as an array of ``numpy``, each of them representable in this type.

        Example:
            >>> from metafuse.dtypes import bfloat16, int8
            >>> float(bfloat16.convert(0.1)), int(int8.convert(2.7))
            (0.10009765625, 2)
        """
        return self.decode(_bfloat16_bits(values)) if self is bfloat16 else self.encode(values)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"metafuse.{self.name}"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DType):
            return self is other
        if isinstance(other, str):
            return _ALIASES.get(other) is self
        if getattr(other, "dtype_name", None) == self.name:  # `metafuse.float32`, a function too
            return True
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return as_dtype, (self.name,)


bool_ = DType("bool", "b", 1, "unsigned char")
int8 = DType("int8", "i", 1, "signed char")
int16 = DType("int16", "i", 2, "short")
int32 = DType("int32", "i", 4, "int")
int64 = DType("int64", "i", 8, "long long")
uint8 = DType("uint8", "u", 1, "unsigned char")
uint16 = DType("uint16", "u", 2, "unsigned short")
uint32 = DType("uint32", "u", 4, "unsigned int")
uint64 = DType("uint64", "u", 8, "unsigned long long")
float16 = DType("float16", "f", 2, "unsigned short")  # IEEE 754 binary16, as bits
bfloat16 = DType("bfloat16", "f", 2, "unsigned short")  # the upper half of a float32
float32 = DType("float32", "f", 4, "float")
float64 = DType("float64", "f", 8, "double")

DTYPES: dict[str, DType] = {
    d.name: d
    for d in (
        bool_, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, bfloat16, float32,
        float64,
    )
}  # fmt: skip
FLOATS = (float16, bfloat16, float32, float64)
INTEGERS = (int8, int16, int32, int64, uint8, uint16, uint32, uint64)

_NUMPY = {name: np.dtype("float32" if name == "bfloat16" else name) for name in DTYPES}
_STORAGE = {**_NUMPY, "bfloat16": np.dtype("uint16")}
_16 = np.uint32(16)


def _bfloat16_bits(values: Any) -> np.ndarray[Any, Any]:
    """The upper halves of float32 numbers, rounded to the nearest, ties to even; a NaN keeps what fits of its payload."""
    with np.errstate(over="ignore"):  # beyond float32: infinity; the sum wraps for NaN only
        number = np.asarray(values).astype(np.float32, copy=False)
        bits = number.view(np.uint32)
        upper = bits >> _16
        rounded = (bits + (np.uint32(0x7FFF) + (upper & np.uint32(1)))) >> _16
    quiet = np.where(upper & np.uint32(0x7F), upper, upper | np.uint32(0x40))
    return np.where(np.isnan(number), quiet, rounded).astype(np.uint16)


_ALIASES: dict[str, DType] = {
    **DTYPES,
    "half": float16,
    "float": float32,
    "double": float64,
    "int": int32,
    "uint": uint32,
    "bool_": bool_,
}
_OF_NUMPY = {dtype: DTYPES[name] for name, dtype in _NUMPY.items() if name != "bfloat16"}
_OBJECTS: dict[object, DType] = {bool: bool_, int: int32, float: float32}


#: integers from here on are rounded to none (IEEE 754: halfway between the largest and what would follow)
_FLOAT_END = 2**1024 - 2**970


def as_dtype(value: object) -> DType:
    """Turn a user's spelling (``DType``, name, NumPy dtype or type, ``float``/``int``/``bool``) into a DType.

    Errors: ``DTypeError`` for anything that names no supported type.

    Example:
        >>> import numpy as np
        >>> from metafuse.dtypes import as_dtype
        >>> as_dtype("half"), as_dtype(np.int64), as_dtype(float)
        (metafuse.float16, metafuse.int64, metafuse.float32)
    """
    if isinstance(value, DType):
        return value
    if isinstance(value, str) and value in _ALIASES:
        return _ALIASES[value]
    if isinstance(value, type) and value in _OBJECTS:
        return _OBJECTS[value]
    if isinstance(value, np.dtype) and value.metadata is None and value in _OF_NUMPY:
        return _OF_NUMPY[value]
    # Operators with a dtype's name may serve as a dtype too: `metafuse.float32` is also a cast function.
    name = getattr(value, "dtype_name", None)
    if isinstance(name, str) and name in DTYPES:
        return DTYPES[name]
    try:
        found = np.dtype(value)  # type: ignore[call-overload]
        # float32 numbers may carry the name of the type that they stand for
        return DTYPES[
            found.metadata["metafuse"] if found.metadata and "metafuse" in found.metadata else found.name
        ]
    except (TypeError, KeyError, ValueError, RecursionError):
        given = repr(value) if isinstance(value, (str, type)) else f"an object of type {type(value).__name__}"
        raise DTypeError(f"[dtype] unknown element type: {given}; use one of {', '.join(DTYPES)}") from None


def fits_float(value: object) -> bool:
    """Whether a number is one that floats have: all but Python integers beyond the largest float64."""
    return not isinstance(value, int) or -_FLOAT_END < value < _FLOAT_END


def check_unmasked(subject: str, value: object) -> None:
    """Errors: ``DTypeError`` that begins with ``subject`` if an array of NumPy, or one in a list, has masked elements.

    Example:
        >>> import numpy as np
        >>> check_unmasked("[array] data", np.ma.masked_array([1, 2], [False, True]))
        Traceback (most recent call last):
        ...
        metafuse.errors.DTypeError: [array] data has 1 masked element of 2, Vars have none; give .filled(value) or .data
    """
    masked = sys.modules.get("numpy.ma")  # else there is none
    parts = value if isinstance(value, (list, tuple)) else (value,)
    if masked is None or not any(issubclass(kind, masked.MaskedArray) for kind in {*map(type, parts)}):
        return
    for part in parts:
        if masked.is_masked(part):
            count = int(np.count_nonzero(part.mask))
            elements = "element" if count == 1 else "elements"
            raise DTypeError(
                f"{subject} has {count} masked {elements} of {part.size}, Vars have none; give .filled(value) or .data"
            )


def is_number(value: object) -> bool:
    """Whether ``value`` is a plain number to compute with: a Python integer or float that floats have, no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and fits_float(value)


def of_python(value: object) -> DType:
    """The type a bare Python number stands for: ``bool``, ``int32`` (``int64`` if it needs it) or ``float32``."""
    if isinstance(value, bool):
        return bool_
    if isinstance(value, int):
        return int32 if -(2**31) <= value < 2**31 else int64
    return float32


@lru_cache(maxsize=None)
def promote(a: DType, b: DType) -> DType:
    """The common type of two arrays, by the promotion table of ``docs/dtypes.md``.

    Equal types stay. bool gives way to anything. Two integers of one signedness take the wider; signed with
    unsigned takes the next wider signed type that holds both (``int64`` at most). Two floats take the wider, bfloat16
    of the two halves. A float with an integer takes the float of the larger byte size of both, at least the float itself.

    Example:
        >>> from metafuse.dtypes import float16, float32, int8, int32, int64, promote, uint8
        >>> promote(uint8, int8), promote(float32, int64), promote(float16, int32)
        (metafuse.int16, metafuse.float64, metafuse.float32)
    """
    if a is b:
        return a
    if a.kind == "b":
        return b
    if b.kind == "b":
        return a
    if a.is_float and b.is_float:
        if a.itemsize == b.itemsize:
            return bfloat16
        return a if a.itemsize > b.itemsize else b
    if a.is_float or b.is_float:
        floating, integer = (a, b) if a.is_float else (b, a)
        return (
            floating if floating.itemsize >= integer.itemsize else {4: float32, 8: float64}[integer.itemsize]
        )
    if a.kind == b.kind:
        return a if a.itemsize >= b.itemsize else b
    signed, unsigned = (a, b) if a.kind == "i" else (b, a)
    size = signed.itemsize if signed.itemsize > unsigned.itemsize else min(2 * unsigned.itemsize, 8)
    return {1: int8, 2: int16, 4: int32, 8: int64}[size]


def to_floating(d: DType) -> DType:
    """The type that a floating-point function (``exp``, ``sqrt`` ...) yields: floats stay, 64-bit integers give
    ``float64``, every other type ``float32``."""
    if d.is_float:
        return d
    return float64 if d.itemsize == 8 else float32


def true_divide(d: DType) -> DType:
    """The type of ``/`` on the common type ``d``: floats stay; integers give the float of the same size."""
    if d.is_float:
        return d
    return {1: float16, 2: float16, 4: float32, 8: float64}[d.itemsize] if d.is_integer else float32


def accumulator(d: DType) -> DType:
    """The type in which a sum of ``d`` is carried: 16-bit floats in ``float32``; others in themselves (long sums are
    carried in blocks by the code generator, see ``docs/accuracy.md``)."""
    return float32 if d.is_half else d
