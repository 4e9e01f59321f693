"""More convolution layers: depthwise, pointwise on sequences, transposed on sequences.

What it is: thin forms of the general convolution under the reference API's names.
What it is not: the computation (``ops.neural.convolution``), which knows grouped convolutions by itself.
Who calls it: users.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from .. import init
from ..errors import ArgumentError, ShapeError
from ..ops import neural
from ..ops.meta import check_var
from ..ops.neural.checks import integer, integers, need_ndim
from .convolution import ConvTranspose
from .module import Module

__all__ = ["Conv1d_sp", "ConvTranspose1d", "DepthwiseConv"]


class ConvTranspose1d(ConvTranspose):
    """Transposed convolution of sequences, ``[batch, in_channels, length]``; arguments as in ``ConvTranspose``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.ConvTranspose1d(3, 4, 2, stride=2)(mf.ones([2, 3, 8])).shape
        (2, 4, 16)

    Source: gradient of conv1d to x.
    """

    _spatial = 1

    def execute(self, x: Any) -> Any:
        return neural.conv_transpose1d(
            x,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
        )


class Conv1d_sp(Module):  # noqa: N801 - the reference API's name
    """Convolution of sequences with a kernel of one element: a linear layer over the channels.

    Args:
        inchannels, outchannels: numbers of channels.
        kernel_size: 1.
        bias: whether a number per output channel is added.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Conv1d_sp(3, 8)(mf.ones([2, 3, 7])).shape
        (2, 8, 7)

    Source: cross-correlation, stride, zero padding.
    """

    _shown = ("inchannels", "outchannels")

    def __init__(self, inchannels: int, outchannels: int, kernel_size: int = 1, bias: bool = True) -> None:
        self.inchannels = integer("Conv1d_sp", "inchannels", inchannels, 1)
        self.outchannels = integer("Conv1d_sp", "outchannels", outchannels, 1)
        if integer("Conv1d_sp", "kernel_size", kernel_size, 1) != 1:
            raise ArgumentError(f"[Conv1d_sp] kernel_size must be 1, got {kernel_size}; use Conv1d")
        self.weight = init.invariant_uniform([self.outchannels, self.inchannels], "float32")
        bound = 1.0 / sqrt(self.inchannels)
        self.bias = init.uniform([self.outchannels], "float32", -bound, bound) if bias else None

    def execute(self, x: Any) -> Any:
        return neural.conv1d(x, self.weight.reshape([*self.weight.shape, 1]), self.bias)


class DepthwiseConv:
    """Convolution of every channel by itself, with weights given in the call.

    Args:
        stride, dilation: one integer >= 1 or two.
        padding: one integer >= 0 or two.

    Called with x ``[batch, channels, height, width]`` and weight ``[channels * multiplier, 1, height, width]``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.DepthwiseConv(padding=1)(mf.ones([2, 4, 5, 5]), mf.ones([4, 1, 3, 3])).shape
        (2, 4, 5, 5)
    """

    def __init__(self, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> None:
        self.stride = integers("DepthwiseConv", "stride", stride, 2, 1)
        self.padding = integers("DepthwiseConv", "padding", padding, 2, 0)
        self.dilation = integers("DepthwiseConv", "dilation", dilation, 2, 1)

    def execute(self, x: Any, weight: Any) -> Any:
        """The convolution; differentiable like everything else."""
        x, weight = check_var("DepthwiseConv", "x", x), check_var("DepthwiseConv", "weight", weight)
        need_ndim("DepthwiseConv", "x", x, [4], "(batch, channels, height, width)")
        need_ndim("DepthwiseConv", "weight", weight, [4], "(channels * multiplier, 1, height, width)")
        channels = x.shape[1]
        if weight.shape[1] != 1 or channels < 1 or weight.shape[0] % channels:
            raise ShapeError(
                f"[DepthwiseConv] weight must be [multiple of {channels}, 1, height, width], got {tuple(weight.shape)}"
            )
        return neural.conv2d(x, weight, None, self.stride, self.padding, self.dilation, channels)

    __call__ = execute

    @classmethod
    def apply(cls, x: Any, weight: Any, *options: Any) -> Any:
        """Make one with ``options`` and call it."""
        return cls(*options)(x, weight)
