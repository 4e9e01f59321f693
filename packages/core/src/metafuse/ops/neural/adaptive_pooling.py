"""Pooling to a given size, with windows of about equal extent.

What it is: windows ``floor(i*size/out) <= j < ceil((i+1)*size/out)``: their maximum by one reindex with a condition and a
reduction, their mean as resizing by areas, which is the same. Where the sizes divide, both are plain pooling.
What it is not: a layer (``nn.pooling``).
Who calls it: users and ``nn.pooling``.
"""

from __future__ import annotations

from typing import Any

from ...errors import DTypeError
from ...kernel.ir import IDENTITY
from ..meta import check_var, index
from ..registry import Sample, operator
from . import window_oracles as oracles
from .checks import integers, need_ndim
from .pooling import View, extreme, sample_image, window_pool
from .resizing import interpolate

__all__ = ["adaptive_avg_pool", "adaptive_max_pool"]

_ADAPTIVE = [Sample((sample_image(2), size)) for size in (1, (5, 3), (2, 4), (None, 5))] + [
    Sample((sample_image(1), 3)),
    Sample((sample_image(3), 3)),
]


def _longest(size: int, out: int) -> int:
    """The extent of the longest window."""
    if 0 < size <= out:
        return 1 if out % size == 0 else 2
    return max((i + 1) * size // out + ((i + 1) * size % out > 0) - i * size // out for i in range(out))


def _adaptive(op: str, x: Any, output_size: Any, kind: str, return_indices: bool = False) -> Any:
    """Windows ``floor(i*size/out) <= j < ceil((i+1)*size/out)`` along each spatial dimension."""
    x = check_var(op, "x", x)
    need_ndim(op, "x", x, [3, 4, 5], "(batch, channels, ...)")
    spatial = x.ndim - 2
    size = tuple(x.shape[2:])
    if isinstance(output_size, (tuple, list)) and len(output_size) == spatial:
        output_size = [s if o is None else o for o, s in zip(output_size, size, strict=True)]
    out = integers(op, "output_size", size if output_size is None else output_size, spatial, 1)
    axes = list(range(2 + spatial, 2 + 2 * spatial))
    if all(s % o == 0 for s, o in zip(size, out, strict=True)):  # equal windows, side by side
        windows = tuple(s // o for s, o in zip(size, out, strict=True))
        return window_pool(op, x, windows, kind, return_indices=return_indices)
    if kind == "mean":
        if not x.dtype.is_float:
            raise DTypeError(f"[{op}] the mean needs a floating-point x, got {x.dtype}; cast it first")
        return interpolate(x, out, mode="area")
    kernel = [_longest(s, o) for s, o in zip(size, out, strict=True)]
    indexes, beyond = ["i0", "i1"], []
    for d, (s, o) in enumerate(zip(size, out, strict=True)):
        place = f"i{2 + d}*{s}/{o}+i{axes[d]}"
        indexes.append(place)
        beyond.append(f"{place} >= ((i{2 + d}+1)*{s}+{o - 1})/{o}")
    windows = x.reindex([*x.shape[:2], *out, *kernel], indexes, IDENTITY(kind, x.dtype), beyond)
    views = [_along(d, size[d], out[d], kernel[d]) for d in range(spatial)]
    result, first = extreme(x, windows, kind, axes, lambda number: _places(number, size, out, kernel), views)
    return (result, _places(first, size, out, kernel)) if return_indices else result


def _along(d: int, size: int, out: int, longest: int) -> View:
    """The windows along one dimension."""
    place = 2 + d

    def view(x: Any, outside: float | int) -> Any:
        shape = [*x.shape[:place], out, longest, *x.shape[place + 1 :]]
        indexes = [f"i{k + (k > place)}" for k in range(x.ndim)]
        indexes[place] = at = f"i{place}*{size}/{out}+i{place + 1}"
        return x.reindex(shape, indexes, outside, [f"{at} >= ((i{place}+1)*{size}+{out - 1})/{out}"])

    return view


def _places(first: Any, size: tuple[int, ...], out: tuple[int, ...], kernel: list[int]) -> Any:
    """Where in a channel, row by row, element number ``first`` of each window lies."""
    flat, scale = None, 1
    for d in reversed(range(len(size))):
        step = first % kernel[d]
        first = first // kernel[d]
        place = (index(first.shape, 2 + d) * size[d] // out[d] + step) * scale
        flat = place if flat is None else flat + place
        scale *= size[d]
    return flat


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
    return _adaptive("adaptive_max_pool", x, output_size, "maximum", bool(return_indices))
