"""Unfold and fold: the windows of an image as columns, and back.

What it is: one reindex, one reindex_reduce.
What it is not: a step of a convolution; that needs no columns.
Who calls it: users.
"""

from __future__ import annotations

from math import prod
from typing import Any

from ...errors import ShapeError
from ..meta import check_var
from ..registry import Sample, Tensor, operator
from . import window_oracles as oracles
from .checks import integers, need_ndim, slide, window_count

__all__ = ["fold", "unfold"]

_UNFOLD = [Sample((Tensor((2, 2, 4, 5)), 2)), Sample((Tensor((1, 2, 5, 5)), (3, 2), 1, 1, 2))]
_FOLD = [Sample((Tensor((2, 8, 12)), (4, 5), 2)), Sample((Tensor((1, 12, 9)), (5, 5), (3, 2), 1, 1, 2))]


@operator(category="nn", numpy=oracles.unfold, samples=_UNFOLD, source="im2col")
def unfold(X: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """Cut an image in windows, each a column.

    Args:
        X: ``[batch, channels, height, width]``.
        kernel_size, dilation, stride: one integer >= 1 or two.
        padding: zeros put on both sides, >= 0.

    Result: ``[batch, channels * kernel height * kernel width, number of windows]``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.unfold(mf.ones([1, 2, 4, 4]), 2, stride=2).shape
        (1, 8, 4)
    """
    X = check_var("unfold", "X", X)
    need_ndim("unfold", "X", X, [4], "(batch, channels, height, width)")
    kernel = integers("unfold", "kernel_size", kernel_size, 2, 1)
    dilation = integers("unfold", "dilation", dilation, 2, 1)
    padding = integers("unfold", "padding", padding, 2, 0)
    stride = integers("unfold", "stride", stride, 2, 1)
    out = tuple(map(window_count, ["unfold"] * 2, X.shape[2:], kernel, stride, padding, dilation))
    batch, channels = X.shape[:2]
    slides = [slide(4 + d, 2 + d, stride[d], padding[d], dilation[d]) for d in range(2)]
    columns = X.reindex([batch, channels, *kernel, *out], ["i0", "i1", *slides])
    return columns.reshape([batch, channels * prod(kernel), prod(out)])


@operator(category="nn", numpy=oracles.fold, samples=_FOLD, source="col2im: the gradient of unfold")
def fold(
    X: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Any:
    """Put windows back into an image and add where they overlap: the transpose of ``unfold``.

    Args:
        X: ``[batch, channels * kernel height * kernel width, number of windows]``.
        output_size: height and width of the image.
        kernel_size, dilation, padding, stride: as in ``unfold``.

    Result: ``[batch, channels, height, width]``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.fold(mf.ones([1, 8, 4]), (4, 4), 2, stride=2).shape
        (1, 2, 4, 4)
    """
    X = check_var("fold", "X", X)
    need_ndim("fold", "X", X, [3], "(batch, channels * window, windows)")
    size = integers("fold", "output_size", output_size, 2, 1)
    kernel = integers("fold", "kernel_size", kernel_size, 2, 1)
    dilation = integers("fold", "dilation", dilation, 2, 1)
    padding = integers("fold", "padding", padding, 2, 0)
    stride = integers("fold", "stride", stride, 2, 1)
    out = tuple(map(window_count, ["fold"] * 2, size, kernel, stride, padding, dilation))
    batch, columns, windows = X.shape
    if columns % prod(kernel) or windows != prod(out):
        raise ShapeError(
            f"[fold] X has shape {tuple(X.shape)}, but kernel_size {kernel} on output_size {size} gives "
            f"[batch, channels * {prod(kernel)}, {prod(out)}]"
        )
    channels = columns // prod(kernel)
    slides = [slide(4 + d, 2 + d, stride[d], padding[d], dilation[d]) for d in range(2)]
    spread = X.reshape([batch, channels, *kernel, *out])
    return spread.reindex_reduce("add", [batch, channels, *size], ["i0", "i1", *slides])
