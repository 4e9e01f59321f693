"""``jittor.depthwise_conv``: a convolution of every channel by itself.

What it is: ``DepthwiseConv``, which is ``conv2d`` with as many groups as channels.
What it is not: a kernel of its own; the backend's library takes such convolutions.
Who calls it: users.
"""

from __future__ import annotations

from typing import Any

from metafuse import Var
from metafuse.ops.neural import conv2d

__all__ = ["DepthwiseConv"]


class DepthwiseConv:
    """Convolve channel ``c`` of ``x`` ``[N, C, H, W]`` with ``weight[c, 0]``, of a ``weight`` ``[C, 1, h, w]``.

    Example:
        >>> import jittor as jt
        >>> from jittor.depthwise_conv import DepthwiseConv
        >>> DepthwiseConv(padding=1)(jt.ones([1, 2, 4, 4]), jt.ones([2, 1, 3, 3])).shape
        (1, 2, 4, 4)
    """

    def __init__(self, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> None:
        self.stride, self.padding, self.dilation = stride, padding, dilation

    def execute(self, x: Var, weight: Var) -> Var:
        """The convolution."""
        return conv2d(x, weight, None, self.stride, self.padding, self.dilation, x.shape[1])

    def __call__(self, x: Var, weight: Var) -> Var:
        return self.execute(x, weight)

    @classmethod
    def apply(cls, x: Var, weight: Var) -> Var:
        """With stride 1 and no padding."""
        return cls()(x, weight)
