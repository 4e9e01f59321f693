"""Resizing layers.

What it is: modules that keep the arguments of ``interpolate``.
What it is not: the computation (``ops.neural.resizing``).
Who calls it: users.
"""

from __future__ import annotations

from typing import Any

from ..dtypes import is_number
from ..errors import ArgumentError, brief
from ..ops import neural
from ..ops.meta import check_flag
from ..ops.neural.checks import choice, integer
from ..ops.neural.resizing import MODES
from .module import Module

__all__ = ["Resize", "Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"]


class Upsample(Module):
    """Resize by a factor.

    Args:
        scale_factor: a number > 0 or one per spatial dimension.
        mode: as in ``interpolate``.
        align_corners: the centres of the first and last elements stay in place.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Upsample(2)(mf.ones([1, 3, 4, 5])).shape
        (1, 3, 8, 10)

    Source: Keys 1981 for bicubic, with a = -0.75.
    """

    _shown = ("scale_factor", "mode")

    def __init__(self, scale_factor: Any = None, mode: str = "nearest", align_corners: bool = False) -> None:
        kind = type(self).__name__
        several = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,)
        for f in several:
            if not is_number(f) or not f > 0:
                raise ArgumentError(
                    f"[{kind}] scale_factor must be a number > 0, or one per dimension, got {brief(scale_factor)}"
                )
        self.scale_factor = scale_factor
        self.mode = choice(kind, "mode", mode, tuple(MODES))
        self.align_corners = check_flag(kind, "align_corners", align_corners)

    def execute(self, x: Any) -> Any:
        return neural.interpolate(x, None, self.scale_factor, self.mode, self.align_corners)


class UpsamplingNearest2d(Upsample):
    """Resize images by a factor: copies of elements.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.UpsamplingNearest2d(scale_factor=2)(mf.ones([1, 2, 3, 3])).shape
        (1, 2, 6, 6)

    Source: the nearest element.
    """

    def __init__(self, scale_factor: Any = None) -> None:
        super().__init__(scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """Resize images by a factor, linearly, the corners staying in place.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.UpsamplingBilinear2d(scale_factor=2)(mf.ones([1, 2, 3, 3])).shape
        (1, 2, 6, 6)

    Source: bilinear interpolation of the four nearest elements.
    """

    def __init__(self, scale_factor: Any = None) -> None:
        super().__init__(scale_factor, "bilinear", True)


class Resize(Module):
    """Resize to given extents; arguments as in ``resize``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Resize((6, 7))(mf.ones([1, 3, 4, 5])).shape
        (1, 3, 6, 7)

    Source: Keys 1981 for bicubic, with a = -0.75.
    """

    _shown = ("size", "mode")

    def __init__(self, size: Any, mode: str = "nearest", align_corners: bool = False) -> None:
        for n in size if isinstance(size, (tuple, list)) else (size,):
            integer("Resize", "size", n, 1)
        self.size = size
        self.mode = choice("Resize", "mode", mode, tuple(MODES))
        self.align_corners = check_flag(type(self).__name__, "align_corners", align_corners)

    def execute(self, x: Any) -> Any:
        return neural.resize(x, self.size, self.mode, self.align_corners)
