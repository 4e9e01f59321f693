"""Pooling: windows of an image reduced to one value each.

What it is: the functions, their arguments and the mean.
What it is not: how windows are laid out and folded (``windows``), or a layer (``nn.pooling``).
Who calls it: users and ``nn.pooling``.

Where a maximum or minimum occurs several times in a window, the first occurrence gets the gradient.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ...errors import ArgumentError, DTypeError, brief
from ..creation import array
from ..meta import check_flag, check_var
from ..recipe import recorded
from ..registry import Sample, Tensor, operator
from ..telling import renamed
from . import window_oracles as oracles
from .checks import choice, need_ndim
from .windows import Windows, extreme, total

__all__ = [
    "avg_pool2d",
    "avg_pool3d",
    "max_pool2d",
    "max_pool3d",
    "pool",
    "pool2d",
    "pool3d",
]

POOL_OPERATORS = ("maximum", "minimum", "mean", "add")


def sample_image(spatial: int) -> Tensor:
    return Tensor((2, 2, *(5, 6, 4)[:spatial]), "float", -3.0, 3.0, distinct=True)


def _pool_samples(spatial: int) -> list[Sample]:
    return [Sample((sample_image(spatial), 2, op, 1, 2)) for op in POOL_OPERATORS] + [
        Sample((sample_image(spatial), 2, "maximum"))
    ]


def _max_samples(spatial: int) -> list[Sample]:
    several = (3, 2, 2)[:spatial]
    return [
        Sample((sample_image(spatial), 2)),
        Sample((sample_image(spatial), several, 1, 1)),
        Sample((sample_image(spatial), 2), {"dilation": 2, "stride": 1}),
        Sample((sample_image(spatial), 2), {"ceil_mode": True, "return_indices": True}),
        Sample((sample_image(spatial), (5, 6, 4)[:spatial]), {"return_indices": True}),
        Sample((sample_image(spatial), (5, 4, 3)[:spatial], 2, 1), {"return_indices": True}),
    ]


def _mean_samples(spatial: int) -> list[Sample]:
    return [
        Sample((sample_image(spatial), 2)),
        Sample((sample_image(spatial), 3, 2, 1), {"ceil_mode": True}),
        Sample((sample_image(spatial), 3, 2, 1), {"ceil_mode": True, "count_include_pad": False}),
        Sample((sample_image(spatial), 3, 2, 1), {"count_include_pad": False}),
        Sample((sample_image(spatial), (5, 6, 4)[:spatial])),
        Sample((sample_image(spatial), (5, 4, 3)[:spatial], 2, 1), {"count_include_pad": False}),
    ]


def _mean(windows: Windows, count_include_pad: bool) -> Any:
    """The mean of each window; padding counts or not, what is beyond the padding never does."""
    if windows.tiles or (count_include_pad and not windows.ceil_mode):
        return total(windows) / float(prod(windows.kernel))
    counts = None
    for d in range(windows.spatial):
        border = windows.padding[d] if count_include_pad else 0
        step = windows.dilation[d]
        first = np.arange(windows.out[d]) * windows.stride[d] - windows.padding[d]
        # The number of j in 0..kernel-1 with -border <= first + j*dilation < size + border.
        low = np.maximum(-(-(-border - first) // step), 0)
        high = np.minimum(-(-(windows.size[d] + border - first) // step), windows.kernel[d])
        count = array((high - low).astype(np.int32)).reshape([-1] + [1] * (windows.spatial - 1 - d))
        counts = count if counts is None else counts * count
    return total(windows) / counts.cast(windows.x.dtype)  # type: ignore[union-attr]


@recorded
def window_pool(
    op_name: str,
    x: Any,
    kernel_size: Any,
    op: str,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = None,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    return_indices: bool | None = None,
) -> Any:
    """Pool the trailing spatial dimensions of ``x``: the common part of all pooling functions and layers."""
    choice(op_name, "op", op, POOL_OPERATORS)
    windows = Windows(op_name, x, kernel_size, stride, padding, dilation, ceil_mode)
    return folded(op_name, windows, op, count_include_pad, return_indices)


def folded(
    op_name: str,
    windows: Windows,
    op: str,
    count_include_pad: bool = True,
    return_indices: bool | None = None,
) -> Any:
    """Each window reduced by ``op``; with ``return_indices`` also where the extreme is."""
    if check_flag(op_name, "return_indices", return_indices) and op not in ("maximum", "minimum"):
        raise ArgumentError(f"[{op_name}] return_indices needs op 'maximum' or 'minimum', got {brief(op)}")
    if op == "mean":
        if not windows.x.dtype.is_float:
            raise DTypeError(
                f"[{op_name}] the mean needs a floating-point x, got {windows.x.dtype}; cast it first"
            )
        return _mean(windows, check_flag("pool", "count_include_pad", count_include_pad))
    if op == "add":
        return total(windows)
    result, first = extreme(windows, op, bool(return_indices))
    return (result, first) if return_indices else result


@operator(category="nn", numpy=oracles.pool, samples=_pool_samples(2), source="window reduction")
def pool(x: Any, kernel_size: Any, op: str, padding: Any = 0, stride: Any = None) -> Any:
    """Reduce windows of two spatial dimensions.

    Args:
        x: ``[batch, channels, height, width]``.
        kernel_size: one integer >= 1 or two.
        op: ``"maximum"``, ``"minimum"``, ``"mean"`` or ``"add"``.
        padding: at most half of the window; it counts in a mean and never wins a maximum or minimum.
        stride: ``None`` means ``kernel_size``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.pool(mf.array([[[[1.0, 2.0], [3.0, 4.0]]]]), 2, "maximum").item()
        4.0
    """
    x = check_var("pool", "x", x)
    need_ndim("pool", "x", x, [4], "(batch, channels, height, width)")
    return window_pool("pool", x, kernel_size, op, stride, padding)


@operator(category="nn", numpy=oracles.pool, samples=_pool_samples(3), source="window reduction")
def pool3d(x: Any, kernel_size: Any, op: str, padding: Any = 0, stride: Any = None) -> Any:
    """Reduce windows of three spatial dimensions; arguments as in ``pool``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.pool3d(mf.ones([1, 1, 2, 2, 2]), 2, "add").item()
        8.0
    """
    x = check_var("pool3d", "x", x)
    need_ndim("pool3d", "x", x, [5], "(batch, channels, depth, height, width)")
    return window_pool("pool3d", x, kernel_size, op, stride, padding)


pool2d = renamed("pool2d", pool)


@operator(category="nn", numpy=oracles.max_pool, samples=_max_samples(2), source="window maximum")
def max_pool2d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = None,
    return_indices: bool | None = None,
    ceil_mode: bool = False,
) -> Any:
    """The maximum of each window.

    Args:
        x: ``[batch, channels, height, width]``.
        kernel_size, stride, dilation: one integer >= 1 or two; ``stride=None`` means ``kernel_size``.
        padding: at most half of the window; it never wins.
        return_indices: also answer where in ``height * width`` the (first) maximum is, as int32.
        ceil_mode: let a last window stick out at the end if it starts inside the image or its left padding.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.max_pool2d(mf.array([[[[1.0, 2.0], [3.0, 4.0]]]]), 2).item()
        4.0
    """
    x = check_var("max_pool2d", "x", x)
    need_ndim("max_pool2d", "x", x, [4], "(batch, channels, height, width)")
    return window_pool(
        "max_pool2d",
        x,
        kernel_size,
        "maximum",
        stride,
        padding,
        dilation,
        ceil_mode,
        return_indices=return_indices,
    )


@operator(category="nn", numpy=oracles.max_pool, samples=_max_samples(3), source="window maximum")
def max_pool3d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = None,
    return_indices: bool | None = None,
    ceil_mode: bool = False,
) -> Any:
    """The maximum of each window of three spatial dimensions; arguments as in ``max_pool2d``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.max_pool3d(mf.ones([1, 1, 4, 4, 4]), 2).shape
        (1, 1, 2, 2, 2)
    """
    x = check_var("max_pool3d", "x", x)
    need_ndim("max_pool3d", "x", x, [5], "(batch, channels, depth, height, width)")
    return window_pool(
        "max_pool3d",
        x,
        kernel_size,
        "maximum",
        stride,
        padding,
        dilation,
        ceil_mode,
        return_indices=return_indices,
    )


@operator(category="nn", numpy=oracles.avg_pool, samples=_mean_samples(2), source="window mean")
def avg_pool2d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """The mean of each window.

    Args:
        x: ``[batch, channels, height, width]``, floating point.
        kernel_size, stride: one integer >= 1 or two; ``stride=None`` means ``kernel_size``.
        padding: zeros on both sides, at most half of the window.
        ceil_mode: let a last window stick out at the end; what is beyond the padding does not count.
        count_include_pad: whether the zeros of the padding count in the mean.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.avg_pool2d(mf.array([[[[1.0, 2.0], [3.0, 4.0]]]]), 2).item()
        2.5
    """
    x = check_var("avg_pool2d", "x", x)
    need_ndim("avg_pool2d", "x", x, [4], "(batch, channels, height, width)")
    return window_pool(
        "avg_pool2d", x, kernel_size, "mean", stride, padding, None, ceil_mode, count_include_pad
    )


@operator(category="nn", numpy=oracles.avg_pool, samples=_mean_samples(3), source="window mean")
def avg_pool3d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """The mean of each window of three spatial dimensions; arguments as in ``avg_pool2d``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.avg_pool3d(mf.ones([1, 1, 2, 2, 2]), 2).item()
        1.0
    """
    x = check_var("avg_pool3d", "x", x)
    need_ndim("avg_pool3d", "x", x, [5], "(batch, channels, depth, height, width)")
    return window_pool(
        "avg_pool3d", x, kernel_size, "mean", stride, padding, None, ceil_mode, count_include_pad
    )
