"""ShuffleNet v2: half of the channels pass by, the halves are then interleaved (Ma et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from metafuse import nn
from metafuse.errors import ArgumentError
from metafuse.ops.shape import concat

from .blocks import conv_norm_relu
from .weights import with_weights

__all__ = [
    "InvertedResidual", "ShuffleNetV2", "channel_shuffle",
    "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0",
]  # fmt: skip


def channel_shuffle(x: Any, groups: int) -> Any:
    """Interleave ``groups`` runs of channels: channel ``g * n + k`` goes to ``k * groups + g``.

    Example:
        >>> import metafuse as mf
        >>> from metafuse_models.shufflenetv2 import channel_shuffle
        >>> channel_shuffle(mf.arange(6).reshape(1, 6, 1, 1), 2).flatten().tolist()
        [0, 3, 1, 4, 2, 5]
    """
    batch, channels, height, width = x.shape
    if channels % groups:
        raise ArgumentError(f"[channel_shuffle] groups must divide the channels, got {groups} and {channels}")
    x = x.reshape([batch, groups, channels // groups, height, width]).transpose(0, 2, 1, 3, 4)
    return x.reshape([batch, channels, height, width])


class InvertedResidual(nn.Module):
    """With stride 1, one half of the channels is worked on; with stride 2, both branches see all of them."""

    def __init__(self, inp: int, oup: int, stride: int) -> None:
        half = oup // 2
        if stride not in (1, 2, 3) or oup % 2 or (stride == 1 and inp != oup):
            raise ArgumentError(
                f"[InvertedResidual] needs stride 1 to 3, an even oup and, with stride 1, inp == oup; got inp={inp}, "
                f"oup={oup}, stride={stride}"
            )
        self.stride = stride
        self.branch1 = nn.Sequential()
        if stride > 1:
            self.branch1 = nn.Sequential(
                conv_norm_relu(inp, inp, 3, stride, inp, relu=False), conv_norm_relu(inp, half, 1)
            )
        self.branch2 = nn.Sequential(
            conv_norm_relu(inp if stride > 1 else half, half, 1),
            conv_norm_relu(half, half, 3, stride, half, relu=False),
            conv_norm_relu(half, half, 1),
        )

    def execute(self, x: Any) -> Any:
        if self.stride == 1:
            half = x.shape[1] // 2
            parts = [x[:, :half], self.branch2(x[:, half:])]
        else:
            parts = [self.branch1(x), self.branch2(x)]
        return channel_shuffle(concat(parts, 1), 2)


class ShuffleNetV2(nn.Module):
    """``[batch, 3, height, width]`` to ``[batch, num_classes]``.

    Args:
        stages_repeats: the number of blocks of the three stages.
        stages_out_channels: channels of the first convolution, the stages and the last convolution.
        num_classes: extent of the result's last dimension.
        inverted_residual: makes a block from (inputs, outputs, stride).

    Example:
        >>> import metafuse as mf
        >>> from metafuse_models.shufflenetv2 import ShuffleNetV2
        >>> ShuffleNetV2([1, 1, 1], [8, 16, 32, 64, 64], num_classes=5)(mf.ones([1, 3, 32, 32])).shape
        (1, 5)
    """

    def __init__(
        self,
        stages_repeats: Sequence[int],
        stages_out_channels: Sequence[int],
        num_classes: int = 1000,
        inverted_residual: Callable[[int, int, int], nn.Module] = InvertedResidual,
    ) -> None:
        if len(stages_repeats) != 3 or len(stages_out_channels) != 5:
            raise ArgumentError(
                "[ShuffleNetV2] needs 3 stages_repeats and 5 stages_out_channels, got "
                f"{stages_repeats!r} and {stages_out_channels!r}"
            )
        first, *widths, last = stages_out_channels
        self.conv1 = nn.Sequential(conv_norm_relu(3, first, 3, 2))
        self.maxpool = nn.Pool(3, 2, 1)
        stages, inputs = [], first
        for outputs, count in zip(widths, stages_repeats, strict=True):
            blocks = [inverted_residual(inputs, outputs, 2)]
            blocks += [inverted_residual(outputs, outputs, 1) for _ in range(count - 1)]
            stages.append(nn.Sequential(blocks))
            inputs = outputs
        self.stage2, self.stage3, self.stage4 = stages
        self.conv5 = nn.Sequential(conv_norm_relu(inputs, last, 1))
        self.fc = nn.Linear(last, num_classes)

    def execute(self, x: Any) -> Any:
        x = self.stage4(self.stage3(self.stage2(self.maxpool(self.conv1(x)))))
        return self.fc(self.conv5(x).mean([2, 3]))


def _shufflenet(name: str, widths: list[int], pretrained: Any, kwargs: dict[str, Any]) -> ShuffleNetV2:
    return with_weights(name, ShuffleNetV2([4, 8, 4], widths, **kwargs), pretrained)


def shufflenet_v2_x0_5(pretrained: Any = False, **kwargs: Any) -> ShuffleNetV2:
    """ShuffleNet v2 of half width; ``kwargs`` as in ``ShuffleNetV2``, here and below."""
    return _shufflenet("shufflenet_v2_x0_5", [24, 48, 96, 192, 1024], pretrained, kwargs)


def shufflenet_v2_x1_0(pretrained: Any = False, **kwargs: Any) -> ShuffleNetV2:
    """ShuffleNet v2."""
    return _shufflenet("shufflenet_v2_x1_0", [24, 116, 232, 464, 1024], pretrained, kwargs)


def shufflenet_v2_x1_5(pretrained: Any = False, **kwargs: Any) -> ShuffleNetV2:
    """ShuffleNet v2 of one and a half the width."""
    return _shufflenet("shufflenet_v2_x1_5", [24, 176, 352, 704, 1024], pretrained, kwargs)


def shufflenet_v2_x2_0(pretrained: Any = False, **kwargs: Any) -> ShuffleNetV2:
    """ShuffleNet v2 of twice the width."""
    return _shufflenet("shufflenet_v2_x2_0", [24, 244, 488, 976, 2048], pretrained, kwargs)
