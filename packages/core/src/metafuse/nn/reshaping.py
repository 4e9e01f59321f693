"""Layers that move elements: flatten, padding, pixel shuffle.

What it is: modules that keep the arguments of one operator.
What it is not: the computation (``ops.shape``, ``ops.neural.basic``).
Who calls it: users.
"""

from __future__ import annotations

from math import prod
from typing import Any

from ..errors import ShapeError
from ..ops import neural
from ..ops.meta import check_dim, check_var
from ..ops.neural.checks import integer, integers, need_ndim
from .module import Module

__all__ = [
    "ChannelShuffle", "ConstantPad1d", "ConstantPad2d", "ConstantPad3d", "Flatten", "Fold", "PixelShuffle",
    "PixelUnshuffle", "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d", "ReplicationPad2d",
    "ReplicationPad3d", "Unflatten", "Unfold", "ZeroPad1d", "ZeroPad2d", "ZeroPad3d",
]  # fmt: skip


class Flatten(Module):
    """Merge the dimensions ``start_dim`` to ``end_dim``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Flatten()(mf.ones([2, 3, 4])).shape
        (2, 12)

    Source: NumPy reshape.
    """

    _shown = ("start_dim", "end_dim")

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = integer("Flatten", "start_dim", start_dim, -(2**31))
        self.end_dim = integer("Flatten", "end_dim", end_dim, -(2**31))

    def execute(self, x: Any) -> Any:
        x = check_var("Flatten", "x", x)
        first = self.start_dim + x.ndim * (self.start_dim < 0)
        last = self.end_dim + x.ndim * (self.end_dim < 0)
        if not 0 <= first <= last < x.ndim:
            raise ShapeError(
                f"[Flatten] start_dim {self.start_dim} to end_dim {self.end_dim} are no dimensions of {tuple(x.shape)}"
            )
        return x.reshape([*x.shape[:first], prod(x.shape[first : last + 1]), *x.shape[last + 1 :]])


class Unflatten(Module):
    """Cut dimension ``dim`` in the extents ``unflattened_size``, one of which may be -1.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Unflatten(1, (3, -1))(mf.ones([2, 12])).shape
        (2, 3, 4)

    Source: NumPy reshape.
    """

    _shown = ("dim", "unflattened_size")

    def __init__(self, dim: int, unflattened_size: Any) -> None:
        self.dim = integer("Unflatten", "dim", dim, -(2**31))
        several = unflattened_size if isinstance(unflattened_size, (tuple, list)) else (unflattened_size,)
        self.unflattened_size = tuple(integer("Unflatten", "unflattened_size", n, -1) for n in several)

    def execute(self, x: Any) -> Any:
        x = check_var("Unflatten", "x", x)
        at = check_dim("Unflatten", self.dim, x.ndim)
        known = prod(n for n in self.unflattened_size if n != -1)
        if self.unflattened_size.count(-1) > 1 or known < 1 or x.shape[at] % known:
            raise ShapeError(
                f"[Unflatten] dimension {self.dim} of {tuple(x.shape)} can't be cut in {self.unflattened_size}"
            )
        sizes = [x.shape[at] // known if n == -1 else n for n in self.unflattened_size]
        return x.reshape([*x.shape[:at], *sizes, *x.shape[at + 1 :]])


class ConstantPad2d(Module):
    """Put ``value`` around images.

    Args:
        padding: one integer, or ``(left, right, top, bottom)``; negative numbers take away.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.ConstantPad2d(1, 0.5)(mf.ones([1, 2, 4, 4])).shape
        (1, 2, 6, 6)

    Source: NumPy pad.
    """

    _mode = "constant"
    _spatial = 2
    _shown = ("padding", "value")

    def __init__(self, padding: Any, value: float) -> None:
        self.padding = integers(type(self).__name__, "padding", padding, 2 * self._spatial, -(2**31))
        self.value = value

    def execute(self, x: Any) -> Any:
        need_ndim(type(self).__name__, "x", x, [self._spatial + 2], "(batch, channels, ...)")
        return neural.pad(x, self.padding, self._mode, self.value)


class ZeroPad2d(ConstantPad2d):
    """Put zeros around images.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.ZeroPad2d(1)(mf.ones([1, 2, 4, 4])).shape
        (1, 2, 6, 6)

    Source: NumPy pad.
    """

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0)


class ReflectionPad2d(ZeroPad2d):
    """Put mirrored rows and columns around images.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.ReflectionPad2d(1)(mf.ones([1, 2, 4, 4])).shape
        (1, 2, 6, 6)

    Source: NumPy pad.
    """

    _mode = "reflect"


class ReplicationPad2d(ZeroPad2d):
    """Put copies of the border around images.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.ReplicationPad2d(1)(mf.ones([1, 2, 4, 4])).shape
        (1, 2, 6, 6)

    Source: NumPy pad.
    """

    _mode = "replicate"


class PixelShuffle(Module):
    """``[batch, channels * r * r, height, width]`` to ``[batch, channels, height * r, width * r]``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.PixelShuffle(2)(mf.ones([1, 8, 3, 3])).shape
        (1, 2, 6, 6)

    Source: Shi et al. 2016.
    """

    _shown = ("upscale_factor",)

    def __init__(self, upscale_factor: int) -> None:
        self.upscale_factor = integer("PixelShuffle", "upscale_factor", upscale_factor, 1)

    def execute(self, x: Any) -> Any:
        return neural.pixel_shuffle(x, self.upscale_factor)


class ConstantPad1d(ConstantPad2d):
    """Put ``value`` around sequences; ``padding``: one integer or ``(left, right)``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.ConstantPad1d(1, 0.5)(mf.ones([1, 2, 4])).shape
        (1, 2, 6)

    Source: NumPy pad.
    """

    _spatial = 1


class ConstantPad3d(ConstantPad2d):
    """Put ``value`` around volumes; ``padding``: one integer or ``(left, right, top, bottom, front, back)``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.ConstantPad3d(1, 0.5)(mf.ones([1, 2, 4, 4, 4])).shape
        (1, 2, 6, 6, 6)

    Source: NumPy pad.
    """

    _spatial = 3


class ZeroPad1d(ZeroPad2d):
    """Put zeros around sequences.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.ZeroPad1d(1)(mf.ones([1, 2, 4])).shape
        (1, 2, 6)

    Source: NumPy pad.
    """

    _spatial = 1


class ZeroPad3d(ZeroPad2d):
    """Put zeros around volumes.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.ZeroPad3d(1)(mf.ones([1, 2, 4, 4, 4])).shape
        (1, 2, 6, 6, 6)

    Source: NumPy pad.
    """

    _spatial = 3


class ReflectionPad1d(ReflectionPad2d):
    """Put mirrored elements around sequences.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.ReflectionPad1d(1)(mf.ones([1, 2, 4])).shape
        (1, 2, 6)

    Source: NumPy pad.
    """

    _spatial = 1


class ReflectionPad3d(ReflectionPad2d):
    """Put mirrored elements around volumes.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.ReflectionPad3d(1)(mf.ones([1, 2, 4, 4, 4])).shape
        (1, 2, 6, 6, 6)

    Source: NumPy pad.
    """

    _spatial = 3


class ReplicationPad1d(ReplicationPad2d):
    """Put copies of the border around sequences.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.ReplicationPad1d(1)(mf.ones([1, 2, 4])).shape
        (1, 2, 6)

    Source: NumPy pad.
    """

    _spatial = 1


class ReplicationPad3d(ReplicationPad2d):
    """Put copies of the border around volumes.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.ReplicationPad3d(1)(mf.ones([1, 2, 4, 4, 4])).shape
        (1, 2, 6, 6, 6)

    Source: NumPy pad.
    """

    _spatial = 3


class PixelUnshuffle(Module):
    """``[batch, channels, height * r, width * r]`` to ``[batch, channels * r * r, height, width]``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.PixelUnshuffle(2)(mf.ones([1, 2, 6, 6])).shape
        (1, 8, 3, 3)

    Source: Shi et al. 2016, inverted.
    """

    _shown = ("downscale_factor",)

    def __init__(self, downscale_factor: int) -> None:
        self.downscale_factor = integer("PixelUnshuffle", "downscale_factor", downscale_factor, 1)

    def execute(self, x: Any) -> Any:
        return neural.pixel_unshuffle(x, self.downscale_factor)


class ChannelShuffle(Module):
    """Channels of ``groups`` groups dealt out in turn.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.ChannelShuffle(2)(mf.ones([1, 4, 3, 3])).shape
        (1, 4, 3, 3)

    Source: Zhang et al. 2017.
    """

    _shown = ("groups",)

    def __init__(self, groups: int) -> None:
        self.groups = integer("ChannelShuffle", "groups", groups, 1)

    def execute(self, x: Any) -> Any:
        return neural.channel_shuffle(x, self.groups)


class Unfold(Module):
    """Cut images in windows, each a column; arguments as in ``unfold``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Unfold(2, stride=2)(mf.ones([1, 2, 4, 4])).shape
        (1, 8, 4)

    Source: im2col.
    """

    _shown: tuple[str, ...] = ("kernel_size", "dilation", "padding", "stride")

    def __init__(self, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> None:
        kind = type(self).__name__
        self.kernel_size = integers(kind, "kernel_size", kernel_size, 2, 1)
        self.dilation = integers(kind, "dilation", dilation, 2, 1)
        self.padding = integers(kind, "padding", padding, 2, 0)
        self.stride = integers(kind, "stride", stride, 2, 1)

    def execute(self, x: Any) -> Any:
        return neural.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)


class Fold(Unfold):
    """Put windows back into images and add where they overlap; arguments as in ``fold``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Fold((4, 4), 2, stride=2)(mf.ones([1, 8, 4])).shape
        (1, 2, 4, 4)

    Source: col2im: the gradient of unfold.
    """

    _shown = ("output_size", "kernel_size", "dilation", "padding", "stride")

    def __init__(
        self, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
    ) -> None:
        super().__init__(kernel_size, dilation, padding, stride)
        self.output_size = integers("Fold", "output_size", output_size, 2, 1)

    def execute(self, x: Any) -> Any:
        return neural.fold(x, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)
