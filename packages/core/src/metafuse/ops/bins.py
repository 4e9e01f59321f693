"""Counting in bins: searchsorted, histc, bincount.

What it is: a search in what is in order (``sorting_loops``), and scatters that count.
What it is not: order statistics (``sorting``).
Who calls it: users.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..dtypes import bool_, float32, int32
from ..errors import ArgumentError, DTypeError, ShapeError, brief
from ..graph.index_map import IndexMap
from ..kernel.expr import axis
from ..var import Var
from . import meta
from .creation import array64
from .elementwise import cast
from .meta import check_flag, check_integer, check_number, check_var, fill, reshape
from .registry import Sample, Tensor, operator
from .scalar import ternary
from .selection import check_index, read_index
from .sorting_loops import alike, insertion_places

__all__ = ["bincount", "histc", "searchsorted"]


def _searchsorted_oracle(sorted: Any, values: Any, right: bool = False) -> Any:
    return (
        sorted[..., None, :] <= values[..., None] if right else sorted[..., None, :] < values[..., None]
    ).sum(-1)


@operator(
    category="sort", numpy=_searchsorted_oracle, method=True, differentiable=False, source="NumPy searchsorted",
    rebinds=False,
    samples=[Sample((Tensor((1,)), Tensor((2, 3)))), Sample((Tensor((0,)), Tensor((3,)))),
             Sample((Tensor((1,), "int"), Tensor((5,), "int"), True))],
)  # fmt: skip
def searchsorted(sorted: Any, values: Any, right: bool = False) -> Var:
    """Where ``values`` would have to be put in to keep ``sorted`` in order.

    Args:
        sorted: ascending along its last dimension; one-dimensional, or of the leading dimensions of ``values``.
        right: behind equal elements, else before them.

    Returns:
        int32 places of the shape of ``values``.

    Example:
        >>> import metafuse as mf
        >>> mf.searchsorted(mf.array([1, 3, 5]), mf.array([3, 4])).numpy()
        array([1, 2], dtype=int32)
    """
    ordered, wanted = check_var("searchsorted", "sorted", sorted), check_var("searchsorted", "values", values)
    if ordered.ndim != 1 and ordered.shape[:-1] != wanted.shape[:-1]:
        raise ShapeError(
            f"[searchsorted] sorted {list(ordered.shape)} must have one dimension or the leading ones of values "
            f"{list(wanted.shape)}"
        )
    behind = check_flag("searchsorted", "right", right)
    ordered, wanted = alike(ordered, wanted)
    shape = tuple(wanted.shape)
    if ordered.ndim == 1:
        rows, values = reshape(ordered, (1, ordered.shape[0])), reshape(wanted, (1, wanted.numel()))
    else:
        count = prod(shape[:-1])
        rows, values = reshape(ordered, (count, ordered.shape[-1])), reshape(wanted, (count, shape[-1]))
    return reshape(insertion_places(rows, values, behind), shape)


def _histc_oracle(input: Any, bins: int, min: float = 0.0, max: float = 0.0) -> Any:
    if min == max:
        min, max = (input.min(), input.max()) if input.size else (0.0, 1.0)
    return np.histogram(input, bins, (min, max))[0].astype(
        np.float64 if input.dtype.kind != "f" else input.dtype
    )


@operator(
    category="sort", numpy=_histc_oracle, method=True, differentiable=False, source="NumPy histogram",
    samples=[Sample((Tensor((40,), "float", distinct=True), 5)),
             Sample((Tensor((4, 9), "float", distinct=True), 3, -1.03, 2.11)),
             Sample((Tensor((0,)), 2, 0.0, 1.0))],
)  # fmt: skip
def histc(input: Any, bins: int, min: float = 0.0, max: float = 0.0) -> Var:
    """How many elements lie in each of ``bins`` equal parts of ``min`` to ``max``; others and NaN are not counted.

    Args:
        min, max: the range, upper end included; equal: from the smallest to the largest element.

    Returns:
        ``bins`` counts, in the dtype of ``input`` if that is floating, else float32.

    Example:
        >>> import metafuse as mf
        >>> mf.histc(mf.array([0.1, 0.2, 0.9]), 2, 0.0, 1.0).numpy()
        array([2., 1.], dtype=float32)
    """
    x = check_var("histc", "input", input)
    count = check_integer("histc", "bins", bins, 1)
    low, high = (float(check_number("histc", n, v)) for n, v in (("min", min), ("max", max)))
    if not (low <= high and high - low < float("inf")):
        raise ArgumentError(f"[histc] min must be <= max, both finite, got {brief(min)} and {brief(max)}")
    kind = x.dtype if x.dtype.is_float else float32
    wide = cast(reshape(x, (x.numel(),)), "float64")
    start: Any = low
    width: Any = high - low
    if low == high and x.size:
        start, top = wide.min(), wide.max()
        # all elements equal: one bin of width 1 in whose middle they lie
        start, width = ternary(top == start, start - 0.5, start), ternary(top == start, 1.0, top - start)
    elif low == high:
        width = 1.0
    scaled = (wide - start) / width * count
    place = ternary(scaled == count, count - 1, scaled.floor())
    outside = (scaled < 0).logical_or(scaled > count).logical_or(scaled.isnan())
    return cast(_counted(ternary(outside, -1.0, place), count, fill(tuple(wide.shape), 1, float32)), kind)


def _counted(place: Var, count: int, weights: Var) -> Var:
    """The sum of ``weights`` per place in 0..count-1; other places are left out."""
    index = cast(place, int32)
    where = IndexMap((read_index(index, 0, axis(0)),), (), True)
    return meta.scatter(fill((count,), 0, weights.dtype), "add", weights, where, (index,), "bincount")


def _bincount_oracle(x: Any, weights: Any = None, minlength: int = 0) -> Any:
    counts = np.bincount(x.astype(np.int64), weights, minlength)
    return (
        counts if weights is None else counts.astype(weights.dtype)
    )  # NumPy forgets it where there is nothing to count


@operator(
    category="sort", numpy=_bincount_oracle, method=True, source="NumPy bincount",
    samples=[Sample((Tensor((9,), "int", 0, 4),)), Sample((Tensor((6,), "int32", 0, 3), Tensor((6,)), 7)),
             Sample((Tensor((0,), "int"),))],
)  # fmt: skip
def bincount(x: Any, weights: Any = None, minlength: int = 0) -> Var:
    """How often each whole number >= 0 occurs, or the sum of its ``weights``; computes ``x`` now.

    Args:
        x: one-dimensional integers >= 0.
        minlength: the least length of the answer, which otherwise ends with the largest number.

    Returns:
        int32 counts, or sums in the dtype of ``weights``.

    Example:
        >>> import metafuse as mf
        >>> mf.bincount(mf.array([0, 2, 2])).numpy()
        array([1, 0, 2], dtype=int32)
    """
    x = check_index("bincount", "x", x)
    least = check_integer("bincount", "minlength", minlength, 0)
    if x.ndim != 1:
        raise ShapeError(f"[bincount] x must have one dimension, got shape {list(x.shape)}")
    values = x.numpy()
    if values.size and values.min() < 0:
        raise ArgumentError(f"[bincount] x must hold numbers >= 0, got {values.min()}")
    given = fill(tuple(x.shape), 1, int32) if weights is None else check_var("bincount", "weights", weights)
    if tuple(given.shape) != tuple(x.shape):
        raise ShapeError(
            f"[bincount] weights must have the shape {list(x.shape)} of x, got {list(given.shape)}"
        )
    if given.dtype is bool_:
        raise DTypeError("[bincount] weights must be numbers, got bool; cast them to int32")
    return _counted(array64(values), max(least, int(values.max()) + 1 if values.size else 0), given)
