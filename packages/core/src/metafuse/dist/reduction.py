"""Types on their way through a reduction.

What it is: the array that a communicator is given for values of any element type, and the way back.
What it is not: communication.
Who calls it: ``execution``.

Values of 16 bits are combined in float32 and rounded once at the end, whatever the number of ranks; bool is combined as 0 and 1,
where a sum means "or", as in NumPy.
"""

from __future__ import annotations

import numpy as np

from ..dtypes import DType, bool_
from .contract import Array

__all__ = ["narrowed", "operation", "widened"]


def widened(stored: Array, dtype: DType) -> Array:
    """``stored`` (elements of ``dtype`` as in memory) as what a communicator combines: itself, or a float32 copy."""
    return np.ascontiguousarray(dtype.decode(stored), np.float32) if dtype.is_half else stored


def narrowed(wide: Array, dtype: DType) -> Array:
    """The way back."""
    with np.errstate(over="ignore"):  # a sum beyond float16 is infinite, as it is on one process
        return dtype.encode(wide)


def operation(op: str, dtype: DType) -> str:
    """What combines stored elements of ``dtype`` as ``op`` combines their values; "mean" is a sum at first."""
    if dtype is bool_:
        return {"add": "maximum", "multiply": "minimum"}.get(op, op)
    return "add" if op == "mean" else op
