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
from ..ops.neural.checks import integer, integers, need_ndim
from .module import Module

__all__ = ["ConstantPad2d", "Flatten", "PixelShuffle", "ReflectionPad2d", "ReplicationPad2d", "ZeroPad2d"]


class Flatten(Module):
    """Merge the dimensions ``start_dim`` to ``end_dim``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Flatten()(mf.ones([2, 3, 4])).shape
        (2, 12)
    """

    _shown = ("start_dim", "end_dim")

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = integer("Flatten", "start_dim", start_dim, -(2**31))
        self.end_dim = integer("Flatten", "end_dim", end_dim, -(2**31))

    def execute(self, x: Any) -> Any:
        first = self.start_dim + x.ndim * (self.start_dim < 0)
        last = self.end_dim + x.ndim * (self.end_dim < 0)
        if not 0 <= first <= last < x.ndim:
            raise ShapeError(
                f"[Flatten] start_dim {self.start_dim} to end_dim {self.end_dim} are no dimensions of {tuple(x.shape)}"
            )
        return x.reshape([*x.shape[:first], prod(x.shape[first : last + 1]), *x.shape[last + 1 :]])


class ConstantPad2d(Module):
    """Put ``value`` around images.

    Args:
        padding: one integer, or ``(left, right, top, bottom)``; negative numbers take away.
    """

    _mode = "constant"
    _shown = ("padding", "value")

    def __init__(self, padding: Any, value: float) -> None:
        self.padding = integers(type(self).__name__, "padding", padding, 4, -(2**31))
        self.value = value

    def execute(self, x: Any) -> Any:
        need_ndim(type(self).__name__, "x", x, [4], "(batch, channels, height, width)")
        return neural.pad(x, self.padding, self._mode, self.value)


class ZeroPad2d(ConstantPad2d):
    """Put zeros around images."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0)


class ReflectionPad2d(ZeroPad2d):
    """Put mirrored rows and columns around images."""

    _mode = "reflect"


class ReplicationPad2d(ZeroPad2d):
    """Put copies of the border around images."""

    _mode = "replicate"


class PixelShuffle(Module):
    """``[batch, channels * r * r, height, width]`` to ``[batch, channels, height * r, width * r]``."""

    _shown = ("upscale_factor",)

    def __init__(self, upscale_factor: int) -> None:
        self.upscale_factor = integer("PixelShuffle", "upscale_factor", upscale_factor, 1)

    def execute(self, x: Any) -> Any:
        return neural.pixel_shuffle(x, self.upscale_factor)
