"""What several families share: a convolution with its norm, first values, rounded widths.

What it is: small functions and one block.
What it is not: a family of networks.
Who calls it: the family files beside it.
"""

from __future__ import annotations

from typing import Any

from metafuse import init, nn
from metafuse.ops import neural

__all__ = ["BasicConv2d", "conv_norm_relu", "first_values", "round_width"]


class BasicConv2d(nn.Module):
    """Convolution without bias, batch norm with ``eps`` 0.001, relu: the building block of GoogLeNet and Inception."""

    def __init__(self, in_channels: int, out_channels: int, **kwargs: Any) -> None:
        self.conv = nn.Conv(in_channels, out_channels, bias=False, **kwargs)
        self.bn = nn.BatchNorm(out_channels, eps=0.001)

    def execute(self, x: Any) -> Any:
        return neural.relu(self.bn(self.conv(x)))


def conv_norm_relu(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    relu: bool = True,
    momentum: float = 0.1,
) -> list[nn.Module]:
    """Convolution that keeps the size (up to ``stride``), batch norm and, if wanted, relu."""
    conv = nn.Conv(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm(outputs, momentum=momentum), *([nn.Relu()] if relu else [])]


def first_values(network: nn.Module, linear: float | None = None) -> None:
    """Convolutions normal with deviation ``sqrt(2 / fan_out)`` and no bias (He et al. 2015); with ``linear``, fully connected
    layers normal with that deviation and no bias. Norms begin at 1 and 0 by themselves."""
    for module in network.modules():
        if isinstance(module, nn.Conv):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear) and linear is not None:
            init.gauss_(module.weight, 0.0, linear)
        else:
            continue
        if module.bias is not None:
            init.zero_(module.bias)


def round_width(width: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` nearest to ``width``, the next larger one where that would lose more than a tenth."""
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * width else rounded + divisor
