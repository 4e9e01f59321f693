"""Convolution layers: weights, their first values, and the call of the operator.

What it is: ``Conv`` and its relatives of one to three spatial dimensions, and their transposes.
What it is not: the computation (``ops.neural.convolution``).
Who calls it: users.

Weights and biases start uniform in +-1/sqrt(inputs per output), the reference API's ``invariant_uniform``.
"""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

from .. import init
from ..errors import ArgumentError
from ..ops import neural
from ..ops.neural.checks import integer, integers, padded_by
from .module import Module

__all__ = ["Conv", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose", "ConvTranspose2d", "ConvTranspose3d"]


class _Convolution(Module):
    """What all convolution layers share: checked arguments, weight and bias."""

    _spatial = 2
    _transposed = False
    _shown = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")

    def _set(
        self,
        in_channels: Any,
        out_channels: Any,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: Any,
        bias: Any,
    ) -> None:
        kind, spatial = type(self).__name__, self._spatial
        self.in_channels = integer(kind, "in_channels", in_channels, 1)
        self.out_channels = integer(kind, "out_channels", out_channels, 1)
        self.kernel_size = integers(kind, "kernel_size", kernel_size, spatial, 1)
        self.stride = integers(kind, "stride", stride, spatial, 1)
        self.padding = (
            integers(kind, "padding", padding, spatial, 0)
            if self._transposed
            else padded_by(kind, padding, self.stride)
        )
        self.dilation = integers(kind, "dilation", dilation, spatial, 1)
        self.groups = integer(kind, "groups", groups, 1)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ArgumentError(
                f"[{kind}] groups must divide in_channels and out_channels, got groups={groups}, "
                f"in_channels={in_channels}, out_channels={out_channels}"
            )
        first, second = self.out_channels, self.in_channels // self.groups
        if self._transposed:
            first, second = self.in_channels, self.out_channels // self.groups
        self.weight = init.invariant_uniform([first, second, *self.kernel_size], "float32")
        self.bias = None
        if bias:
            bound = 1.0 / sqrt(second * prod(self.kernel_size))
            self.bias = init.uniform([self.out_channels], "float32", -bound, bound)


class Conv(_Convolution):
    """Convolution of images, ``[batch, in_channels, height, width]``.

    Args:
        in_channels, out_channels: numbers of channels.
        kernel_size, stride, dilation: one integer >= 1 or two.
        padding: one integer >= 0 or two: zeros on both sides; or ``"valid"``: none, or ``"same"``: as much as keeps sizes.
        groups: channels are cut in this many independent groups.
        bias: whether a number per output channel is added.

    Errors: ``ArgumentError`` when a layer with impossible arguments is made.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Conv(3, 8, 3, padding=1)(mf.ones([2, 3, 5, 5])).shape
        (2, 8, 5, 5)

    Source: cross-correlation, stride, zero padding.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        self._set(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)

    def execute(self, x: Any) -> Any:
        return neural.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


Conv2d = Conv


class Conv1d(Conv):
    """Convolution of sequences, ``[batch, in_channels, length]``; arguments as in ``Conv``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Conv1d(3, 4, 3, padding=1)(mf.ones([2, 3, 8])).shape
        (2, 4, 8)

    Source: cross-correlation, stride, zero padding.
    """

    _spatial = 1

    def execute(self, x: Any) -> Any:
        return neural.conv1d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Conv3d(Conv):
    """Convolution of volumes, ``[batch, in_channels, depth, height, width]``; arguments as in ``Conv``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Conv3d(3, 4, 3, padding=1)(mf.ones([1, 3, 4, 4, 4])).shape
        (1, 4, 4, 4, 4)

    Source: cross-correlation, stride, zero padding.
    """

    _spatial = 3

    def execute(self, x: Any) -> Any:
        return neural.conv3d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ConvTranspose(_Convolution):
    """Transposed convolution of images; the arguments are those of the convolution whose gradient it is.

    Args:
        output_padding: rows and columns added at the end of the result, smaller than stride or dilation.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.ConvTranspose(3, 8, 2, stride=2)(mf.ones([2, 3, 5, 5])).shape
        (2, 8, 10, 10)

    Source: gradient of conv2d to x.
    """

    _transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
    ) -> None:
        self._set(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.output_padding = integers(
            type(self).__name__, "output_padding", output_padding, self._spatial, 0
        )

    def execute(self, x: Any) -> Any:
        function = neural.conv_transpose if self._spatial == 2 else neural.conv_transpose3d
        return function(
            x,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
        )


ConvTranspose2d = ConvTranspose


class ConvTranspose3d(ConvTranspose):
    """Transposed convolution of volumes; arguments as in ``ConvTranspose``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.ConvTranspose3d(3, 4, 2, stride=2)(mf.ones([1, 3, 2, 2, 2])).shape
        (1, 4, 4, 4, 4)

    Source: gradient of conv3d to x.
    """

    _spatial = 3
