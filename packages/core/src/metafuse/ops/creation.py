"""Making Vars: from host data and from nothing.

What it is: ``array`` and its relatives.
What it is not: random numbers (``random``).
Who calls it: users; every operator that accepts plain data.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..config import flags, notice
from ..dtypes import (
    DType,
    as_dtype,
    bfloat16,
    check_unmasked,
    fits_float,
    float32,
    float64,
    int32,
    int64,
    uint32,
    uint64,
)
from ..errors import ArgumentError, DTypeError, OutOfMemory, brief
from ..var import Var, from_host
from .elementwise import cast
from .meta import check_dtype, check_fill, check_integer, check_number, check_shape, fill, identity, index
from .precision import array_type
from .registry import Sample, Tensor, operator
from .telling import tells

__all__ = [
    "arange", "array", "array64", "empty", "eye", "full", "full_like", "linspace", "ones", "ones_like", "zeros",
    "zeros_like",
]  # fmt: skip

_NARROW = {float64: float32, int64: int32, uint64: uint32}


def array(data: Any, dtype: Any = None) -> Var:
    """A Var with a copy of ``data``.

    Args:
        data: a number, nested lists, a NumPy array (any strides, read-only too; bfloat16 ones of the package ml_dtypes too)
            or a Var.
        dtype: element type of the result; ``None``: by the data. 64-bit NumPy data become 32-bit while the flag
            ``auto_convert_64_to_32`` is 1 (one notice says so); integers that do not fit stay 64-bit.

    Returns:
        Var; a bare number gives shape ``[1]``.

    Errors:
        DTypeError: object arrays, strings, ragged lists, complex numbers.

    Example:
        >>> import metafuse as mf
        >>> mf.array([[1, 2], [3, 4]]).shape
        (2, 2)
    """
    if type(data) is Var:
        same = data if dtype is None else cast(data, dtype)
        return identity(data) if same is data else same
    if isinstance(data, (list, tuple)) and any(type(x) is Var for x in data):
        data = [x.numpy() if type(x) is Var else x for x in data]
    value = _host(data)
    found = value.dtype
    if found.isbuiltin == 2 and found.name == "bfloat16":  # of the package ml_dtypes
        dtype = bfloat16 if dtype is None else dtype
        value = bfloat16.decode(value.view(np.uint16))
        found = value.dtype
    if found.kind not in "biuf" or found.char == "g" or found.itemsize > 8:
        raise DTypeError(
            f"[array] element type {found} of {_brief(data)} is not supported; use bool, integers or floats"
        )
    if value.ndim == 0:
        value = value.reshape(1)
    own = as_dtype(found if found.isnative else found.name)
    target = (
        as_dtype(dtype)
        if dtype is not None
        else _default(value, own, isinstance(data, (np.ndarray, np.generic)))
    )
    if target is not own or not value.dtype.isnative:
        with np.errstate(all="ignore"):
            try:
                value = value.astype(target.numpy)
            except MemoryError:
                raise OutOfMemory(
                    f"[array] no memory for shape {list(value.shape)} as {target}; use a smaller array"
                ) from None
    return from_host(value, target, target.is_float)


def _host(data: Any) -> np.ndarray[Any, Any]:
    """What NumPy makes of ``data``. Errors: ``DTypeError``."""
    if type(data) is not np.ndarray:
        check_unmasked("[array] data", data)
    try:
        return np.asarray(data)
    except (ValueError, TypeError) as error:
        raise DTypeError(
            f"[array] can't make an array of {_brief(data)}: {error}; give equally long rows"
        ) from None


def array64(data: Any, dtype: Any = None) -> Var:
    """Like ``array``, but 64-bit data stay 64-bit.

    Example:
        >>> import numpy as np, metafuse as mf
        >>> mf.array64(np.zeros(2)).dtype
        metafuse.float64
    """
    if type(data) is Var:
        return array(data, dtype)
    value = _host(data)
    return array(value, dtype if dtype is not None else value.dtype)


def _default(value: np.ndarray[Any, Any], own: DType, from_numpy: bool) -> DType:
    narrow = _NARROW.get(own)
    if narrow is None or (from_numpy and not flags.auto_convert_64_to_32):
        return array_type(own)
    if narrow.is_integer and value.size:
        info = np.iinfo(narrow.numpy)
        if value.min() < info.min or value.max() > info.max:
            return own
    if from_numpy and own is float64:
        notice(
            "[array] float64 data become float32 (flag auto_convert_64_to_32); use array64, a dtype, or set the flag "
            "to 0 to keep them"
        )
    return array_type(narrow)


def _brief(data: Any) -> str:
    text = brief(data)
    return f"{type(data).__name__} {text if len(text) < 60 else text[:57] + '...'}"


def _extents(operator_name: str, shape: tuple[Any, ...]) -> tuple[int, ...]:
    """Extents given as ``f(2, 3)`` or ``f([2, 3])``."""
    return check_shape(
        operator_name, shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    )


def _split_dtype(shape: tuple[Any, ...], dtype: Any) -> tuple[tuple[Any, ...], Any]:
    """``zeros([2], "int32")`` and ``zeros(2, dtype="int32")`` both work."""
    if len(shape) > 1 and not hasattr(shape[-1], "__index__"):
        return shape[:-1], shape[-1]
    return shape, dtype


def _constant(name: str, value: int, shape: tuple[Any, ...], dtype: Any) -> Var:
    shape, dtype = _split_dtype(shape, dtype)
    kind = check_dtype(name, dtype)
    result = fill(_extents(name, shape), value, kind)
    return result.start_grad() if kind.is_float else result


def zeros(*shape: Any, dtype: Any = float32) -> Var:
    """An array of zeros.

    Example:
        >>> import metafuse as mf
        >>> mf.zeros(2, 2).sum().item()
        0.0
    """
    return _constant("zeros", 0, shape, dtype)


def ones(*shape: Any, dtype: Any = float32) -> Var:
    """An array of ones.

    Example:
        >>> import metafuse as mf
        >>> mf.ones([2, 3]).sum().item()
        6.0
    """
    return _constant("ones", 1, shape, dtype)


def empty(*shape: Any, dtype: Any = float32) -> Var:
    """An array whose values do not matter (zeros here).

    Example:
        >>> import metafuse as mf
        >>> mf.empty([2]).shape
        (2,)
    """
    return _constant("empty", 0, shape, dtype)


def full(shape: Any, val: Any, dtype: Any = "float32") -> Var:
    """An array in which every element is ``val``.

    Args:
        val: a number; it is a run-time argument, changing it compiles nothing.
        dtype: element type; ``None``: by the kind of ``val``.

    Example:
        >>> import metafuse as mf
        >>> mf.full([2], 2.5).numpy()
        array([2.5, 2.5], dtype=float32)
    """
    val = check_number("full", "val", val)
    kind = check_dtype("full", dtype) if dtype is not None else as_dtype(type(val))
    result = fill(check_shape("full", shape), check_fill("full", "val", val, kind), kind)
    return result.start_grad() if kind.is_float else result


def _like(name: str, x: Any, value: Any, dtype: Any) -> Var:
    if type(x) is not Var:
        x = array(x)
    return full(tuple(x.shape), value, dtype if dtype is not None else x.dtype)


@operator(category="creation", numpy=lambda x: np.zeros_like(x), samples=[Sample((Tensor((2, 3)),)),
        Sample((Tensor((0, 3), "int"),))],
          method=True, differentiable=False, rebinds=False)  # fmt: skip
@tells
def zeros_like(x: Any, dtype: Any = None) -> Var:
    """Zeros of the shape and dtype of ``x``.

    Example:
        >>> import metafuse as mf
        >>> mf.zeros_like(mf.ones(2)).tolist()
        [0.0, 0.0]
    """
    return _like("zeros_like", x, 0, dtype)


@operator(category="creation", numpy=lambda x: np.ones_like(x), samples=[Sample((Tensor((2, 3)),))],
          method=True, differentiable=False, rebinds=False)  # fmt: skip
@tells
def ones_like(x: Any, dtype: Any = None) -> Var:
    """Ones of the shape and dtype of ``x``.

    Example:
        >>> import metafuse as mf
        >>> mf.ones_like(mf.zeros(2)).tolist()
        [1.0, 1.0]
    """
    return _like("ones_like", x, 1, dtype)


@operator(category="creation", numpy=lambda x, val: np.full_like(x, val),
          samples=[Sample((Tensor((2, 3)), 7))], method=True, differentiable=False, rebinds=False)  # fmt: skip
@tells
def full_like(x: Any, val: Any, dtype: Any = None) -> Var:
    """``val`` everywhere, in the shape and dtype of ``x``.

    Example:
        >>> import metafuse as mf
        >>> mf.full_like(mf.ones(2), 7).tolist()
        [7.0, 7.0]
    """
    return _like("full_like", x, val, dtype)


def arange(start: Any = 0, end: Any = None, step: Any = 1, dtype: Any = None) -> Var:
    """Numbers from ``start`` to below ``end`` in steps of ``step``; one argument means the end.

    Returns:
        int32 if all three are whole numbers, else float32, unless ``dtype`` says otherwise.

    Errors:
        ArgumentError: step 0 or not finite.

    Example:
        >>> import metafuse as mf
        >>> mf.arange(1, 7, 2).numpy()
        array([1, 3, 5], dtype=int32)
    """
    if end is None:
        start, end = 0, start
    for name, value in (("start", start), ("end", end), ("step", step)):
        if not isinstance(value, (int, float, np.number)) or not (fits_float(value) and math.isfinite(value)):
            raise ArgumentError(f"[arange] {name} must be a finite number, got {brief(value)}")
    if step == 0:
        raise ArgumentError("[arange] step must not be 0, got 0; the sign of step gives the direction")
    whole = all(float(v).is_integer() for v in (start, end, step))
    kind = check_dtype("arange", dtype) if dtype is not None else (int32 if whole else float32)
    count = max(0, math.ceil((end - start) / step))
    fits = not kind.is_integer or all(
        np.iinfo(kind.numpy).min <= v <= np.iinfo(kind.numpy).max for v in (start, step)
    )
    position = index((count,), 0, kind if fits else "int64")  # NumPy wraps around in the end, not on the way
    if start == 0 and step == 1:
        return position
    return cast(
        position * (int(step) if whole else float(step)) + (int(start) if whole else float(start)), kind
    )


def linspace(start: float, end: float, steps: int, dtype: Any = float32) -> Var:
    """``steps`` equally spaced numbers from ``start`` to ``end``, both included.

    Example:
        >>> import metafuse as mf
        >>> mf.linspace(0, 1, 3).numpy()
        array([0. , 0.5, 1. ], dtype=float32)
    """
    count = check_integer("linspace", "steps", steps, 1)
    check_shape("linspace", count)
    start, end = check_number("linspace", "start", start), check_number("linspace", "end", end)
    width = (end - start) / (count - 1) if count > 1 else 0.0
    return cast(cast(index((count,), 0), float64) * float(width) + float(start), dtype)


def eye(n: int, m: int | None = None, dtype: Any = float32) -> Var:
    """Ones on the diagonal of an ``n`` x ``m`` array of zeros (``m`` = ``n`` unless given).

    Example:
        >>> import metafuse as mf
        >>> mf.eye(2).numpy()
        array([[1., 0.],
               [0., 1.]], dtype=float32)
    """
    shape = check_shape("eye", (n, n if m is None else m))
    rows, columns = index(shape)
    return cast(rows == columns, dtype)
