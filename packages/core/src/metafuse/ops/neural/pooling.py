"""Pooling: windows of an image reduced to one value each.

What it is: a reindex that lays the windows out as extra axes (where they tile the image: a reshape), and a reduction over
these axes.
What it is not: a layer (``nn.pooling``).
Who calls it: users and ``nn.pooling``.

Where a maximum or minimum occurs several times in a window, the first occurrence gets the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from ...dtypes import accumulator
from ...errors import ArgumentError, DTypeError
from ...kernel.ir import IDENTITY
from ...var import wrap
from ..autograd import no_grad
from ..meta import check_flag, check_var, index, with_gradient
from ..registry import Sample, Tensor, operator
from ..scalar import where
from . import window_oracles as oracles
from .checks import choice, integers, need_ndim, window_count

__all__ = [
    "avg_pool2d",
    "avg_pool3d",
    "max_pool2d",
    "max_pool3d",
    "pool",
    "pool2d",
    "pool3d",
]

#: windows of more elements are reduced along one dimension after the other
LARGE = 16
POOL_OPERATORS = ("maximum", "minimum", "mean", "add")

#: the windows of an image along one dimension, as a dimension of their own behind it, and what lies outside
View = Callable[[Any, float | int], Any]


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


class _Windows:
    """Checked arguments of one pooling call, and the windows laid out by reindex."""

    def __init__(
        self, op: str, x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
    ) -> None:
        spatial = x.ndim - 2
        self.op, self.x, self.spatial = op, x, spatial
        self.kernel = integers(op, "kernel_size", kernel, spatial, 1)
        self.stride = self.kernel if stride is None else integers(op, "stride", stride, spatial, 1)
        self.padding = integers(op, "padding", padding, spatial, 0)
        self.dilation = (1,) * spatial if dilation is None else integers(op, "dilation", dilation, spatial, 1)
        if any(
            2 * p > d * (k - 1) + 1 for p, k, d in zip(self.padding, self.kernel, self.dilation, strict=True)
        ):
            raise ArgumentError(
                f"[{op}] padding must be at most half of the window, got padding {self.padding} "
                f"with kernel_size {self.kernel} and dilation {self.dilation}"
            )
        self.size = tuple(x.shape[2:])
        self.ceil_mode = check_flag(op, "ceil_mode", ceil_mode)
        self.out = tuple(
            window_count(op, *extents, self.ceil_mode)
            for extents in zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        )
        #: whether windows lie side by side and cover the image
        self.tiles = (
            self.kernel == self.stride
            and not any(self.padding)
            and all(d == 1 or k == 1 for d, k in zip(self.dilation, self.kernel, strict=True))
            and all(n == o * k for n, o, k in zip(self.size, self.out, self.kernel, strict=True))
        )
        first, step = (3, 2) if self.tiles else (2 + spatial, 1)
        self.axes = list(range(first, first + step * spatial, step))

    def view(self, outside: float | int) -> Any:
        """``[batch, channels, *out, *kernel]`` with ``outside`` where a window sticks out; extents of windows that tile the
        image stand behind those of ``out`` one by one. ``axes`` are those of the windows."""
        if self.tiles:
            pairs = [n for pair in zip(self.out, self.kernel, strict=True) for n in pair]
            return self.x.reshape([*self.x.shape[:2], *pairs])
        indexes = [
            f"i{2 + d}*{self.stride[d]}-{self.padding[d]}+i{2 + self.spatial + d}*{self.dilation[d]}"
            for d in range(self.spatial)
        ]
        shape = [*self.x.shape[:2], *self.out, *self.kernel]
        return self.x.reindex(shape, ["i0", "i1", *indexes], outside)

    def along(self, d: int) -> View:
        """As ``view``, of the windows of one dimension of an image whose earlier dimensions are those of the result."""

        def view(x: Any, outside: float | int) -> Any:
            shape, place = list(x.shape), 2 + d
            if self.tiles:
                return x.reshape([*shape[:place], self.out[d], self.kernel[d], *shape[place + 1 :]])
            shape[place : place + 1] = [self.out[d], self.kernel[d]]
            indexes = [f"i{k + (k > place)}" for k in range(x.ndim)]
            indexes[place] = f"i{place}*{self.stride[d]}-{self.padding[d]}+i{place + 1}*{self.dilation[d]}"
            return x.reindex(shape, indexes, outside)

        return view

    def separate(self) -> list[View]:
        """Views along each dimension, if they are better reduced one by one."""
        several = self.spatial > 1 and prod(self.kernel) > LARGE
        return [self.along(d) for d in range(self.spatial)] if several else []

    def total(self) -> Any:
        """The sum of each window."""
        if not self.separate():
            return self.view(0).sum(self.axes)
        wide = accumulator(self.x.dtype)
        total = self.x.cast(wide)
        for d, view in enumerate(self.separate()):
            total = view(total, 0).sum(3 + d)
        return total.cast(self.x.dtype)

    def mean(self, count_include_pad: bool) -> Any:
        """The mean of each window; padding counts or not, what is beyond the padding never does."""
        total = self.total()
        count_include_pad = check_flag("pool", "count_include_pad", count_include_pad)
        if self.tiles or (count_include_pad and not self.ceil_mode):
            return total / float(prod(self.kernel))
        counts = None
        for d in range(self.spatial):
            border = self.padding[d] if count_include_pad else 0
            first = index([self.out[d]], 0) * self.stride[d] - self.padding[d]
            # The number of j in 0..kernel-1 with -border <= first + j*dilation < size + border.
            step = self.dilation[d]
            low = ((-border - first + (step - 1)) // step).maximum(0)
            high = ((self.size[d] + border - first + (step - 1)) // step).minimum(self.kernel[d])
            count = (high - low).reshape([self.out[d]] + [1] * (self.spatial - 1 - d))
            counts = count if counts is None else counts * count
        return total / counts.cast(self.x.dtype)  # type: ignore[union-attr]

    def positions(self, first: Any) -> Any:
        """Where in one channel of ``x``, counted row by row, element number ``first`` of each window lies."""
        flat, rest = None, first
        inside = []
        for d in reversed(range(self.spatial)):
            inside.append(rest % self.kernel[d])
            rest = rest // self.kernel[d]
        for d, step in enumerate(reversed(inside)):
            place = index(first.shape, 2 + d) * self.stride[d] - self.padding[d] + step * self.dilation[d]
            if self.padding[d] or self.ceil_mode:  # an infinite element may equal what is outside
                place = place.maximum(0).minimum(self.size[d] - 1)
            flat = place if flat is None else flat * self.size[d] + place
        return flat


def extreme(
    x: Any,
    windows: Any,
    op: str,
    axes: list[int],
    positions: Callable[[Any], Any] | None,
    views: Sequence[View] = (),
) -> tuple[Any, Any]:
    """The maximum (or minimum) over ``axes``, and the number of the first element of its window that equals it (or is NaN).

    Only that element gets the gradient, however many are equal: images have flat regions, where it would count several times.

    Args:
        x: the image; ``windows``: its windows, laid out with ``axes`` of their own.
        positions: tells from that number where in a channel of ``x`` it is; ``None``: ``windows`` is a reshape of ``x``.
        views: windows along each dimension, if these are to be reduced one by one.
    """
    with no_grad():
        result, first = _one_by_one(x, op, views) if views else _first(windows, op, axes, None)
        if not x.dtype.is_float:
            return result, first
        places = None if positions is None else positions(first)
    if places is None:
        return with_gradient(result, [windows, first], op, tuple(axes), _tiles_gradient), first
    return with_gradient(result, [x, places], op, None, _places_gradient), first


def _first(windows: Any, op: str, axes: list[int], numbers: Any) -> tuple[Any, Any]:
    """The extreme over ``axes`` and the lowest of the ``numbers`` of elements that are it."""
    result = windows.max(axes) if op == "maximum" else windows.min(axes)
    same = windows == result.broadcast(windows.shape, axes)
    if windows.dtype.is_float:
        same = same.logical_or(windows != windows)  # the result is NaN where one is
    if numbers is None:
        numbers = _numbers(windows.shape, axes)
    return result, where(same, numbers, 2**31 - 1).min(axes)


def _one_by_one(x: Any, op: str, views: Sequence[View]) -> tuple[Any, Any]:
    """The extreme and its number, dimension by dimension: of equals in a column the upper one, of these the first."""
    numbers = None
    for d, view in enumerate(views):
        windows = view(x, IDENTITY(op, x.dtype))
        inside = index(windows.shape, 3 + d)
        if numbers is not None:
            inside = view(numbers, 0) * windows.shape[3 + d] + inside
        x, numbers = _first(windows, op, [3 + d], inside)
    return x, numbers


def _numbers(shape: Any, axes: Any) -> Any:
    """The number of each element within its window."""
    flat = None
    for axis in axes:
        flat = index(shape, axis) if flat is None else flat * shape[axis] + index(shape, axis)
    return flat


def _tiles_gradient(node: Any, upstream: Any) -> list[Any]:
    axes, shape = node.sig.attrs, node.inputs[1].spec.shape
    first = wrap(node.inputs[2])
    chosen = _numbers(shape, axes) == first.broadcast(shape, axes)  # type: ignore[attr-defined]
    return [None, where(chosen, upstream.broadcast(shape, axes), 0.0), None]


def _places_gradient(node: Any, upstream: Any) -> list[Any]:
    """Added up where the elements came from: far fewer than all windows' elements."""
    shape, places = node.inputs[1].spec.shape, wrap(node.inputs[2])
    here = ",".join(f"i{k}" for k in range(upstream.ndim))
    flat = [shape[0], shape[1], prod(shape[2:])]
    found = upstream.reindex_reduce("add", flat, ["i0", "i1", f"@e0({here})"], [], [places])
    return [None, found.reshape(list(shape)), None]


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
    windows = _Windows(op_name, x, kernel_size, stride, padding, dilation, ceil_mode)
    if return_indices and op not in ("maximum", "minimum"):
        raise ArgumentError(f"[{op_name}] return_indices needs op 'maximum' or 'minimum', got {op!r}")
    if op == "mean":
        if not x.dtype.is_float:
            raise DTypeError(f"[{op_name}] the mean needs a floating-point x, got {x.dtype}; cast it first")
        return windows.mean(count_include_pad)
    if op == "add":
        return windows.total()
    positions = None if windows.tiles else windows.positions
    result, first = extreme(
        x, windows.view(IDENTITY(op, x.dtype)), op, windows.axes, positions, windows.separate()
    )
    return (result, windows.positions(first)) if return_indices else result


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


pool2d = pool


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
