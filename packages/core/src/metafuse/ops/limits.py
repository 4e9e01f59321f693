"""Limits of element types: ``finfo`` and ``iinfo``.

What it is: NumPy's records of them, and one for the type that NumPy does not know.
What it is not: the types (``dtypes``).
Who calls it: users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dtypes import DTYPES, DType
from ..errors import DTypeError
from .meta import check_dtype

__all__ = ["Finfo", "finfo", "iinfo"]


@dataclass(frozen=True)
class Finfo:
    """Limits of a floating type that NumPy does not know."""

    dtype: DType
    bits: int
    eps: float
    max: float
    min: float
    tiny: float
    resolution: float


_BFLOAT16 = Finfo(
    DTYPES["bfloat16"], 16, 2.0**-7, (2 - 2.0**-7) * 2.0**127, -(2 - 2.0**-7) * 2.0**127, 2.0**-126, 0.01
)


def finfo(dtype: Any) -> Any:
    """Limits of a floating type, with the attributes of NumPy's ``finfo``: eps, max, min, tiny, bits, resolution.

    Example:
        >>> import metafuse as mf
        >>> float(mf.finfo("float16").max), mf.finfo("bfloat16").eps
        (65504.0, 0.0078125)
    """
    kind = check_dtype("finfo", dtype)
    if not kind.is_float:
        raise DTypeError(f"[finfo] dtype must be floating, got {kind}; use iinfo")
    return _BFLOAT16 if kind is _BFLOAT16.dtype else np.finfo(kind.numpy)


def iinfo(dtype: Any) -> Any:
    """Limits of an integer type, as NumPy's ``iinfo``.

    Example:
        >>> import metafuse as mf
        >>> int(mf.iinfo("int8").max)
        127
    """
    kind = check_dtype("iinfo", dtype)
    if not kind.is_integer:
        raise DTypeError(f"[iinfo] dtype must be an integer type, got {kind}; use finfo")
    return np.iinfo(kind.numpy)
