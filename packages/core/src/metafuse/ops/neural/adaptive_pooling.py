"""Pooling to a given size, with windows of about equal extent.

What it is: windows ``floor(i*size/out) <= j < ceil((i+1)*size/out)``: their maximum by one reindex with a condition and a
reduction, and their mean, whose gradient is that of resizing by areas. Where the sizes divide, both are plain pooling.
What it is not: a layer (``nn.pooling``).
Who calls it: users and ``nn.pooling``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ArgumentError, DTypeError, brief
from ..autograd import no_grad
from ..creation import array
from ..meta import check_flag, check_var, with_gradient
from ..recipe import recorded
from ..registry import Sample, operator
from . import window_oracles as oracles
from .checks import integers, need_ndim
from .pooling import folded, sample_image
from .resizing import FEW, along
from .resizing_tables import Key
from .windows import EqualWindows, UnequalWindows, extreme, total

__all__ = ["adaptive_avg_pool", "adaptive_max_pool"]

_ADAPTIVE = [Sample((sample_image(2), size)) for size in (1, (5, 3), (2, 4), (None, 5))] + [
    Sample((sample_image(1), 3)),
    Sample((sample_image(3), 3)),
]


#: along one dimension; where they begin is worked out on the host
MOST_WINDOWS = 2**24


@recorded
def _adaptive(op: str, x: Any, output_size: Any, kind: str, return_indices: bool = False) -> Any:
    """Windows ``floor(i*size/out) <= j < ceil((i+1)*size/out)`` along each spatial dimension."""
    x = check_var(op, "x", x)
    need_ndim(op, "x", x, [3, 4, 5], "(batch, channels, ...)")
    spatial = x.ndim - 2
    size = tuple(x.shape[2:])
    if isinstance(output_size, (tuple, list)) and len(output_size) == spatial:
        output_size = [s if o is None else o for o, s in zip(output_size, size, strict=True)]
    out = integers(op, "output_size", size if output_size is None else output_size, spatial, 1)
    if max(out) > MOST_WINDOWS:
        raise ArgumentError(f"[{op}] output_size must be at most {MOST_WINDOWS}, got {brief(output_size)}")
    if all(s % o == 0 for s, o in zip(size, out, strict=True)):  # equal windows, side by side
        return folded(op, EqualWindows(op, x, out), kind, return_indices=return_indices)
    if kind == "mean":
        if not x.dtype.is_float:
            raise DTypeError(f"[{op}] the mean needs a floating-point x, got {x.dtype}; cast it first")
        return _mean(UnequalWindows(x, out))
    result, first = extreme(UnequalWindows(x, out), kind, return_indices)
    return (result, first) if return_indices else result


def _mean(windows: UnequalWindows) -> Any:
    with no_grad():
        summed = total(windows)
        for d, counts in enumerate(windows.counts()):
            factors = array((1 / counts).astype(np.float64), summed.dtype)
            summed = summed * factors.reshape([-1] + [1] * (windows.spatial - 1 - d))
    return with_gradient(summed, [windows.x], "adaptive_mean", None, _mean_gradient)


def _mean_gradient(node: Any, upstream: Any) -> list[Any]:
    """Resizing by areas is the same mean, and knows which windows an element belongs to."""
    old, new = node.inputs[1].spec.shape, node.spec.shape
    changed = [d for d in reversed(range(2, len(old))) if old[d] != new[d]]
    for d in changed:  # all but the last, which is the largest, as sums that are stored
        key = Key("area", "centres", old[d], new[d]).transpose()
        upstream = along(upstream, d, key, FEW if d == changed[-1] else 0)
    return [None, upstream]


@operator(
    category="nn",
    numpy=oracles.adaptive_avg_pool,
    samples=_ADAPTIVE,
    source="window mean, windows floor(i*n/o) to ceil((i+1)*n/o)",
)
def adaptive_avg_pool(x: Any, output_size: Any) -> Any:
    """Mean pooling to a given size.

    Args:
        x: ``[batch, channels, ...]`` with one to three spatial dimensions, floating point.
        output_size: an integer >= 1 or one per spatial dimension (``None``: that dimension stays as it is).

    Example:
        >>> import metafuse as mf
        >>> mf.nn.adaptive_avg_pool(mf.ones([1, 2, 5, 7]), (2, 3)).shape
        (1, 2, 2, 3)
    """
    return _adaptive("adaptive_avg_pool", x, output_size, "mean")


@operator(
    category="nn",
    numpy=oracles.adaptive_max_pool,
    samples=[*_ADAPTIVE, *(Sample((sample_image(2), size, True)) for size in ((5, 3), (2, 4)))],
    source="window maximum, windows floor(i*n/o) to ceil((i+1)*n/o)",
)
def adaptive_max_pool(x: Any, output_size: Any, return_indices: bool = False) -> Any:
    """Maximum pooling to a given size; arguments as in ``adaptive_avg_pool``. With ``return_indices`` also where in a channel,
    counted row by row, the (first) maximum is, as int32.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.adaptive_max_pool(mf.ones([1, 2, 5, 7]), 1).shape
        (1, 2, 1, 1)
    """
    places = check_flag("adaptive_max_pool", "return_indices", return_indices)
    return _adaptive("adaptive_max_pool", x, output_size, "maximum", places)
