"""MNASNet: a mobile network found by search (Tan et al. 2019), model B1."""

from __future__ import annotations

from typing import Any

from metafuse import init, nn
from metafuse.errors import ArgumentError

from .blocks import conv_norm_relu, first_values, round_width
from .weights import with_weights

__all__ = ["MNASNet", "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"]

#: share of the new batch in the running statistics, as in the paper's code
_MOMENTUM = 1 - 0.9997
#: channels, kernel, stride, widening, blocks
_STACKS = (
    (24, 3, 2, 3, 3), (40, 5, 2, 3, 3), (80, 5, 2, 6, 3), (96, 3, 1, 6, 2), (192, 5, 2, 6, 4), (320, 3, 1, 6, 1),
)  # fmt: skip


def _layers(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True
) -> Any:
    return conv_norm_relu(inputs, outputs, kernel, stride, groups, relu, _MOMENTUM)


class _InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; beside a shortcut where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, widening: int) -> None:
        hidden = inputs * widening
        self.apply_residual = inputs == outputs and stride == 1
        self.layers = nn.Sequential(
            _layers(inputs, hidden, 1),
            _layers(hidden, hidden, kernel, stride, hidden),
            _layers(hidden, outputs, 1, relu=False),
        )

    def execute(self, x: Any) -> Any:
        return self.layers(x) + x if self.apply_residual else self.layers(x)


class MNASNet(nn.Module):
    """``[batch, 3, height, width]`` to ``[batch, num_classes]``.

    Args:
        alpha: factor on all numbers of channels, > 0.
        num_classes: extent of the result's last dimension.
        dropout: probability, before the last layer.

    Example:
        >>> import metafuse as mf
        >>> from metafuse_models.mnasnet import MNASNet
        >>> MNASNet(0.25, num_classes=5)(mf.ones([1, 3, 32, 32])).shape
        (1, 5)
    """

    def __init__(self, alpha: float, num_classes: int = 1000, dropout: float = 0.2) -> None:
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not alpha > 0:
            raise ArgumentError(f"[MNASNet] alpha must be a number > 0, got {alpha!r}")
        self.alpha, self.num_classes = alpha, num_classes
        first, inputs = round_width(32 * alpha), round_width(16 * alpha)
        layers = [
            *_layers(3, first, 3, 2),
            *_layers(first, first, 3, groups=first),
            *_layers(first, inputs, 1, relu=False),
        ]
        for channels, kernel, stride, widening, count in _STACKS:
            outputs = round_width(channels * alpha)
            blocks = [_InvertedResidual(inputs, outputs, kernel, stride, widening)]
            blocks += [_InvertedResidual(outputs, outputs, kernel, 1, widening) for _ in range(1, count)]
            layers.append(nn.Sequential(blocks))
            inputs = outputs
        self.layers = nn.Sequential(layers, _layers(inputs, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(1280, num_classes))
        first_values(self)
        init.kaiming_uniform_(self.classifier[1].weight, mode="fan_out", nonlinearity="sigmoid")
        init.zero_(self.classifier[1].bias)

    def execute(self, x: Any) -> Any:
        return self.classifier(self.layers(x).mean([2, 3]))


def mnasnet0_5(pretrained: Any = False, **kwargs: Any) -> MNASNet:
    """MNASNet of half width; ``kwargs`` as in ``MNASNet``, here and below."""
    return with_weights("mnasnet0_5", MNASNet(0.5, **kwargs), pretrained)


def mnasnet0_75(pretrained: Any = False, **kwargs: Any) -> MNASNet:
    """MNASNet of three quarters of the width."""
    return with_weights("mnasnet0_75", MNASNet(0.75, **kwargs), pretrained)


def mnasnet1_0(pretrained: Any = False, **kwargs: Any) -> MNASNet:
    """MNASNet."""
    return with_weights("mnasnet1_0", MNASNet(1.0, **kwargs), pretrained)


def mnasnet1_3(pretrained: Any = False, **kwargs: Any) -> MNASNet:
    """MNASNet of 1.3 times the width."""
    return with_weights("mnasnet1_3", MNASNet(1.3, **kwargs), pretrained)
