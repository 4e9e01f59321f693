"""Pooling layers.

What it is: modules that keep the arguments of a pooling and check them when made.
What it is not: the computation (``ops.neural.pooling``).
Who calls it: users.
"""

from __future__ import annotations

from typing import Any

from ..errors import ArgumentError, brief
from ..ops import neural
from ..ops.meta import check_flag
from ..ops.neural.checks import choice, integers, need_ndim
from ..ops.neural.pooling import POOL_OPERATORS, window_pool
from .module import Module

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool2d",
    "MaxUnpool3d",
    "Pool",
    "Pool3d",
]


class Pool(Module):
    """Reduce windows of images, ``[batch, channels, height, width]``.

    Args:
        kernel_size: one integer >= 1 or two.
        stride: ``None`` means ``kernel_size``.
        padding: at most half of the window.
        dilation: distance of the elements of a window; ``None`` means 1.
        return_indices: also answer where in ``height * width`` the (first) extreme is.
        ceil_mode: let a last window stick out at the end if it starts inside the image or its left padding.
        count_include_pad: whether padding counts in a mean.
        op: ``"maximum"``, ``"minimum"``, ``"mean"`` or ``"add"``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Pool(2, 2)(mf.ones([1, 3, 8, 8])).shape
        (1, 3, 4, 4)

    Source: window reduction.
    """

    _spatial = 2
    _shown = ("kernel_size", "stride", "padding", "op")

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = None,
        return_indices: bool | None = None,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        op: str = "maximum",
    ) -> None:
        kind, spatial = type(self).__name__, self._spatial
        self.kernel_size = integers(kind, "kernel_size", kernel_size, spatial, 1)
        self.stride = self.kernel_size if stride is None else integers(kind, "stride", stride, spatial, 1)
        self.padding = integers(kind, "padding", padding, spatial, 0)
        self.dilation = (
            (1,) * spatial if dilation is None else integers(kind, "dilation", dilation, spatial, 1)
        )
        if any(
            2 * p > d * (k - 1) + 1
            for p, k, d in zip(self.padding, self.kernel_size, self.dilation, strict=True)
        ):
            raise ArgumentError(
                f"[{kind}] padding must be at most half of the window, got padding {self.padding} with "
                f"kernel_size {self.kernel_size} and dilation {self.dilation}"
            )
        self.op = choice(kind, "op", op, POOL_OPERATORS)
        self.return_indices = check_flag(kind, "return_indices", return_indices)
        if self.return_indices and op not in ("maximum", "minimum"):
            raise ArgumentError(f"[{kind}] return_indices needs op 'maximum' or 'minimum', got {brief(op)}")
        self.ceil_mode = check_flag(kind, "ceil_mode", ceil_mode)
        self.count_include_pad = check_flag(kind, "count_include_pad", count_include_pad)

    def execute(self, x: Any) -> Any:
        kind = type(self).__name__
        need_ndim(kind, "x", x, [self._spatial + 2], "(batch, channels, ...)")
        return window_pool(
            kind, x, self.kernel_size, self.op, self.stride, self.padding, self.dilation, self.ceil_mode,
            self.count_include_pad, self.return_indices,
        )  # fmt: skip


class Pool3d(Pool):
    """Reduce windows of volumes, ``[batch, channels, depth, height, width]``; arguments as in ``Pool``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Pool3d(2)(mf.ones([1, 3, 8, 8, 8])).shape
        (1, 3, 4, 4, 4)

    Source: window reduction.
    """

    _spatial = 3


class MaxPool2d(Pool):
    """The maximum of each window; arguments as in ``Pool``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.MaxPool2d(2)(mf.ones([1, 3, 8, 8])).shape
        (1, 3, 4, 4)

    Source: window maximum.
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = None,
        return_indices: bool | None = None,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)


class MaxPool1d(MaxPool2d):
    """The maximum of each window of a sequence, ``[batch, channels, length]``; arguments as in ``Pool``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.MaxPool1d(2)(mf.ones([1, 3, 8])).shape
        (1, 3, 4)

    Source: window maximum.
    """

    _spatial = 1


class MaxPool3d(MaxPool2d):
    """The maximum of each window of a volume; arguments as in ``Pool``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.MaxPool3d(2)(mf.ones([1, 3, 8, 8, 8])).shape
        (1, 3, 4, 4, 4)

    Source: window maximum.
    """

    _spatial = 3


class AvgPool2d(Pool):
    """The mean of each window; arguments as in ``Pool``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.AvgPool2d(2)(mf.ones([1, 3, 8, 8])).shape
        (1, 3, 4, 4)

    Source: window mean.
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, None, None, ceil_mode, count_include_pad, "mean")


class AvgPool1d(AvgPool2d):
    """The mean of each window of a sequence, ``[batch, channels, length]``; arguments as in ``Pool``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.AvgPool1d(2)(mf.ones([1, 3, 8])).shape
        (1, 3, 4)

    Source: window mean.
    """

    _spatial = 1


class AvgPool3d(AvgPool2d):
    """The mean of each window of a volume; arguments as in ``Pool``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.AvgPool3d(2)(mf.ones([1, 3, 8, 8, 8])).shape
        (1, 3, 4, 4, 4)

    Source: window mean.
    """

    _spatial = 3


class AdaptiveAvgPool2d(Module):
    """Mean pooling to a given size.

    Args:
        output_size: an integer >= 1 or one per spatial dimension (``None``: that dimension stays as it is).

    Example:
        >>> import metafuse as mf
        >>> mf.nn.AdaptiveAvgPool2d(1)(mf.ones([2, 3, 5, 7])).shape
        (2, 3, 1, 1)

    Source: window mean, windows floor(i*n/o) to ceil((i+1)*n/o).
    """

    _spatial = 2
    _shown = ("output_size",)

    def __init__(self, output_size: Any) -> None:
        several = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * self._spatial
        given = [1 if o is None else o for o in several]
        integers(type(self).__name__, "output_size", given, self._spatial, 1)
        self.output_size = tuple(several)

    def execute(self, x: Any) -> Any:
        need_ndim(type(self).__name__, "x", x, [self._spatial + 2], "(batch, channels, ...)")
        return neural.adaptive_avg_pool(x, self.output_size)


class AdaptiveAvgPool1d(AdaptiveAvgPool2d):
    """Mean pooling of sequences to a given length.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.AdaptiveAvgPool1d(2)(mf.ones([1, 3, 6])).shape
        (1, 3, 2)

    Source: window mean, windows floor(i*n/o) to ceil((i+1)*n/o).
    """

    _spatial = 1


class AdaptiveAvgPool3d(AdaptiveAvgPool2d):
    """Mean pooling of volumes to a given size.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.AdaptiveAvgPool3d(2)(mf.ones([1, 3, 6, 6, 6])).shape
        (1, 3, 2, 2, 2)

    Source: window mean, windows floor(i*n/o) to ceil((i+1)*n/o).
    """

    _spatial = 3


class AdaptiveMaxPool2d(AdaptiveAvgPool2d):
    """Maximum pooling to a given size; ``output_size`` as in ``AdaptiveAvgPool2d``. With ``return_indices`` also where in a
    channel, counted row by row, the (first) maxima are.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.AdaptiveMaxPool2d(2)(mf.ones([1, 3, 6, 6])).shape
        (1, 3, 2, 2)

    Source: window maximum, windows floor(i*n/o) to ceil((i+1)*n/o).
    """

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = check_flag(type(self).__name__, "return_indices", return_indices)

    def execute(self, x: Any) -> Any:
        need_ndim(type(self).__name__, "x", x, [self._spatial + 2], "(batch, channels, ...)")
        return neural.adaptive_max_pool(x, self.output_size, self.return_indices)


class AdaptiveMaxPool1d(AdaptiveMaxPool2d):
    """Maximum pooling of sequences to a given length.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.AdaptiveMaxPool1d(2)(mf.ones([1, 3, 6])).shape
        (1, 3, 2)

    Source: window maximum, windows floor(i*n/o) to ceil((i+1)*n/o).
    """

    _spatial = 1


class AdaptiveMaxPool3d(AdaptiveMaxPool2d):
    """Maximum pooling of volumes to a given size.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.AdaptiveMaxPool3d(2)(mf.ones([1, 3, 6, 6, 6])).shape
        (1, 3, 2, 2, 2)

    Source: window maximum, windows floor(i*n/o) to ceil((i+1)*n/o).
    """

    _spatial = 3


class MaxUnpool2d(Module):
    """Put maxima back to where a pooling took them from, zeros elsewhere.

    Args:
        kernel_size, stride: of the pooling; ``stride=None`` means ``kernel_size``.

    Called with pooled values, the indices that the pooling answered, and the extents before pooling where they can't be told.

    Example:
        >>> import metafuse as mf
        >>> y, places = mf.nn.MaxPool2d(2, return_indices=True)(mf.rand([1, 3, 4, 4]))
        >>> mf.nn.MaxUnpool2d(2)(y, places).shape
        (1, 3, 4, 4)

    Source: Zeiler and Fergus 2014.
    """

    _spatial = 2
    _shown = ("kernel_size", "stride")

    def __init__(self, kernel_size: Any, stride: Any = None) -> None:
        kind = type(self).__name__
        self.kernel_size = integers(kind, "kernel_size", kernel_size, self._spatial, 1)
        self.stride = (
            self.kernel_size if stride is None else integers(kind, "stride", stride, self._spatial, 1)
        )

    def execute(self, x: Any, id: Any, output_size: Any = None) -> Any:
        need_ndim(type(self).__name__, "x", x, [self._spatial + 2], "(batch, channels, ...)")
        return neural.max_unpool(x, id, self.kernel_size, self.stride, output_size)


class MaxUnpool3d(MaxUnpool2d):
    """As ``MaxUnpool2d``, of volumes.

    Example:
        >>> import metafuse as mf
        >>> y, places = mf.nn.MaxPool3d(2, return_indices=True)(mf.rand([1, 2, 4, 4, 4]))
        >>> mf.nn.MaxUnpool3d(2)(y, places).shape
        (1, 2, 4, 4, 4)

    Source: Zeiler and Fergus 2014.
    """

    _spatial = 3
