"""Tensors between files and programs: bits and element types on one side, Vars and ndarrays on the other.

What it is: ``Tensor`` (what a file says of one array), ``finish`` (make a Var or ndarray of it), ``bits_of`` (the way back), and
``strided``, which checks every extent and stride against the data before anything is touched.
What it is not: a format.
Who calls it: the formats of ``io``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import DType, as_dtype, bfloat16, bool_, check_unmasked
from ..errors import ArgumentError, DTypeError, OutOfMemory, brief
from ..ops.creation import array
from ..var import Var
from .files import Budget

__all__ = [
    "DEPTH",
    "MAX_DIMENSIONS",
    "bits_of",
    "check_depth",
    "check_target",
    "finish",
    "flat_bytes",
    "host_array",
    "strided",
]

#: more dimensions than that no NumPy has
MAX_DIMENSIONS = 32
#: of nested containers that are saved
DEPTH = 200


def check_depth(depth: int, where: str) -> None:
    """Errors: ``ArgumentError`` if what stands at ``where`` is nested too deeply to be saved."""
    if depth > DEPTH:
        raise ArgumentError(
            f"[save] {where[:40]}... is nested more than {DEPTH} levels deep, or contains itself"
        )


def check_target(to: str | None) -> None:
    """Errors: ``ArgumentError`` if ``to`` is neither ``None`` nor ``"numpy"``."""
    if to is not None and (not isinstance(to, str) or to != "numpy"):
        raise ArgumentError(f"[load] to must be None or 'numpy', got {brief(to)}")


def finish(bits: np.ndarray[Any, Any], dtype: DType, to: str | None, requires_grad: bool = False) -> Any:
    """A Var with these bits (of ``dtype.storage``), or with ``to="numpy"`` an ndarray, in which bfloat16 is float32.

    A Var of no dimensions gets the shape ``[1]``. Bytes that are no truth values count as true.
    """
    if dtype is bool_:
        bits = bits.view(np.uint8) != 0
    values = dtype.decode(bits)
    if to == "numpy":
        return values
    var = array(values, dtype)
    var.requires_grad = bool(requires_grad) and dtype.is_float
    return var


def bits_of(value: Any, where: str) -> tuple[np.ndarray[Any, Any], DType]:
    """The contiguous, little-endian bits of a Var, ndarray or PyTorch tensor, and their element type.

    Errors: ``DTypeError`` naming ``where`` for other types and for elements that no Var can have.
    """
    if isinstance(value, Var):
        return _little(value.dtype.encode(value.data)), value.dtype
    if not isinstance(value, (np.ndarray, np.generic)):
        detach = getattr(value, "detach", None)  # PyTorch's, without importing it
        if detach is None or not hasattr(value, "cpu"):
            raise DTypeError(f"[save] {where} is a {type(value).__name__}; Vars and arrays can be saved")
        if str(value.dtype) == "torch.bfloat16":
            return _little(bfloat16.encode(host_array(value, where))), bfloat16
        value = host_array(value, where)
    check_unmasked(f"[save] {where}", value)
    if value.dtype.name == "bfloat16":  # of the package ml_dtypes
        return _little(np.asarray(value).view(np.uint16)), bfloat16
    try:
        dtype = as_dtype(value.dtype.newbyteorder("="))
    except DTypeError:
        raise DTypeError(
            f"[save] {where} has elements of type {value.dtype}, which no Var can have"
        ) from None
    return _little(np.asarray(value).astype(dtype.storage, copy=False)), dtype


def host_array(tensor: Any, where: str) -> np.ndarray[Any, Any]:
    """The values of a PyTorch tensor, bfloat16 as float32. Errors: ``DTypeError`` naming ``where`` for one that is sparse, has no
    data, or elements that NumPy has not."""
    try:
        tensor = tensor.detach().cpu()
        return np.asarray((tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy())
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise DTypeError(f"[save] {where} is a tensor that can't be saved: {brief(str(error))}") from error


def _little(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Contiguous, least byte first; the shape stays, also that of no dimensions."""
    try:
        swapped = bits.astype(bits.dtype.newbyteorder("<"), copy=False)
        return swapped if swapped.flags.c_contiguous else swapped.copy("C")
    except MemoryError:
        raise OutOfMemory(
            f"[save] no memory for a copy of {bits.dtype} and shape {list(bits.shape)}; give a contiguous array"
        ) from None


def flat_bytes(bits: np.ndarray[Any, Any]) -> memoryview:
    """The bytes of a contiguous array."""
    return bits.reshape(-1).view(np.uint8).data


def strided(
    data: np.ndarray[Any, Any], offset: int, shape: tuple[int, ...], stride: tuple[int, ...], budget: Budget
) -> np.ndarray[Any, Any]:
    """A new contiguous array: the elements of the flat array ``data`` that offset, extents and strides (of elements) choose.

    Errors: ``FileFormatError`` if they are no numbers, lead outside of ``data``, or stand for more than memory holds.
    """
    problem = budget.source.problem
    numbers = (offset, *shape, *stride)
    if any(type(n) is not int for n in numbers) or len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS:
        raise problem(
            f"a tensor has offset {offset!r}, shape {shape!r} and strides {stride!r}; it is damaged"
        )
    if min(numbers) < 0:
        raise problem(f"a tensor has the negative numbers {[n for n in numbers if n < 0]}; it is damaged")
    count = 1
    for extent in shape:
        count *= extent
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride)) if count else offset
    if (count and last >= data.size) or offset > data.size:
        raise problem(
            f"a tensor of shape {shape} and strides {stride} at {offset} reaches beyond its {data.size} elements of data"
        )
    budget.take(count * data.itemsize, f"a tensor of shape {shape}")
    if not count:
        return np.empty(shape, data.dtype)
    steps = tuple(s * data.itemsize if n > 1 else 0 for n, s in zip(shape, stride))
    return np.lib.stride_tricks.as_strided(data[offset:], shape, steps).copy("C")
