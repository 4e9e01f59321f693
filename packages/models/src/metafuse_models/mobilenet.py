"""MobileNet v2: inverted residuals with linear bottlenecks (Sandler et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from metafuse import nn
from metafuse.errors import ArgumentError

from .blocks import first_values, round_width
from .weights import with_weights

__all__ = ["ConvBNReLU", "InvertedResidual", "MobileNetV2", "mobilenet_v2"]

#: widening inside the block, channels, blocks, stride of the first block
_SETTING = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


class ConvBNReLU(nn.Sequential):
    """Convolution that keeps the size (up to ``stride``), batch norm, relu6."""

    def __init__(
        self, in_planes: int, out_planes: int, kernel_size: int = 3, stride: int = 1, groups: int = 1
    ) -> None:
        padding = (kernel_size - 1) // 2
        super().__init__(
            nn.Conv(in_planes, out_planes, kernel_size, stride, padding, groups=groups, bias=False),
            nn.BatchNorm(out_planes),
            nn.ReLU6(),
        )


class InvertedResidual(nn.Module):
    """Widen by a 1 x 1 convolution, filter each channel, narrow again; beside a shortcut where shapes allow."""

    def __init__(self, inp: int, oup: int, stride: int, expand_ratio: int) -> None:
        if stride not in (1, 2):
            raise ArgumentError(f"[InvertedResidual] stride must be 1 or 2, got {stride!r}")
        hidden = round(inp * expand_ratio)
        self.use_res_connect = stride == 1 and inp == oup
        widen = [] if expand_ratio == 1 else [ConvBNReLU(inp, hidden, kernel_size=1)]
        filters = ConvBNReLU(hidden, hidden, stride=stride, groups=hidden)
        self.conv = nn.Sequential(*widen, filters, nn.Conv(hidden, oup, 1, bias=False), nn.BatchNorm(oup))

    def execute(self, x: Any) -> Any:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNetV2(nn.Module):
    """``[batch, 3, height, width]`` to ``[batch, num_classes]``.

    Args:
        num_classes: extent of the result's last dimension.
        width_mult: factor on all numbers of channels.
        inverted_residual_setting: rows (widening, channels, blocks, stride); ``None`` means the paper's.
        round_nearest: numbers of channels are multiples of this.
        block: makes a block from (inputs, outputs, stride, widening); ``None`` means ``InvertedResidual``.

    Example:
        >>> import metafuse as mf
        >>> from metafuse_models.mobilenet import MobileNetV2
        >>> MobileNetV2(num_classes=5, width_mult=0.25)(mf.ones([1, 3, 32, 32])).shape
        (1, 5)
    """

    def __init__(
        self,
        num_classes: int = 1000,
        width_mult: float = 1.0,
        inverted_residual_setting: Sequence[Sequence[int]] | None = None,
        round_nearest: int = 8,
        block: Callable[[int, int, int, int], nn.Module] | None = None,
    ) -> None:
        setting = _SETTING if inverted_residual_setting is None else inverted_residual_setting
        if not setting or any(len(row) != 4 for row in setting):
            raise ArgumentError(
                "[MobileNetV2] inverted_residual_setting must hold rows (widening, channels, blocks, stride), got "
                f"{inverted_residual_setting!r}"
            )
        inputs = round_width(32 * width_mult, round_nearest)
        self.last_channel = round_width(1280 * max(1.0, width_mult), round_nearest)
        layers: list[nn.Module] = [ConvBNReLU(3, inputs, stride=2)]
        for widening, channels, count, stride in setting:
            outputs = round_width(channels * width_mult, round_nearest)
            for k in range(count):
                layers.append((block or InvertedResidual)(inputs, outputs, 1 if k else stride, widening))
                inputs = outputs
        layers.append(ConvBNReLU(inputs, self.last_channel, kernel_size=1))
        self.features = nn.Sequential(layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(self.last_channel, num_classes))
        first_values(self, linear=0.01)

    def execute(self, x: Any) -> Any:
        return self.classifier(self.features(x).mean([2, 3]))


def mobilenet_v2(pretrained: Any = False, **kwargs: Any) -> MobileNetV2:
    """MobileNet v2; ``kwargs`` as in ``MobileNetV2``."""
    return with_weights("mobilenet_v2", MobileNetV2(**kwargs), pretrained)
