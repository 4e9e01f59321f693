"""Res2Net: ResNet whose 3 x 3 convolution works on groups of channels one after the other (Gao et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metafuse import nn
from metafuse.errors import ArgumentError
from metafuse.ops.shape import concat

from .blocks import first_values
from .weights import with_weights

__all__ = [
    "Bottle2neck", "Res2Net", "res2net50", "res2net50_14w_8s", "res2net50_26w_4s", "res2net50_26w_6s",
    "res2net50_26w_8s", "res2net50_48w_2s", "res2net101", "res2net101_26w_4s",
]  # fmt: skip


class Bottle2neck(nn.Module):
    """A bottleneck whose middle has ``scale`` groups; each is convolved together with the result of the one before.

    Args:
        inplanes, planes: channels of the input, and a quarter of the output's.
        stride, downsample: as in ResNet's blocks.
        baseWidth: channels of a group where ``planes`` is 64.
        scale: number of groups.
        stype: ``"normal"``, or ``"stage"`` for the first block of a stage, whose groups do not see each other.
    """

    expansion = 4

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        baseWidth: int = 26,
        scale: int = 4,
        stype: str = "normal",
    ) -> None:
        if scale < 1 or stype not in ("normal", "stage"):
            raise ArgumentError(
                f"[Bottle2neck] needs scale >= 1 and stype 'normal' or 'stage', got {scale!r} and {stype!r}"
            )
        width = planes * baseWidth // 64
        self.conv1 = nn.Conv(inplanes, width * scale, 1, bias=False)
        self.bn1 = nn.BatchNorm(width * scale)
        self.nums = max(scale - 1, 1)
        if stype == "stage":
            self.pool = nn.AvgPool2d(3, stride, 1)
        self.convs = nn.ModuleList(
            [nn.Conv(width, width, 3, stride, 1, bias=False) for _ in range(self.nums)]
        )
        self.bns = nn.ModuleList([nn.BatchNorm(width) for _ in range(self.nums)])
        self.conv3 = nn.Conv(width * scale, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm(planes * self.expansion)
        self.relu = nn.Relu()
        self.downsample = downsample
        self.stype, self.scale, self.width = stype, scale, width

    def execute(self, x: Any) -> Any:
        groups = self.relu(self.bn1(self.conv1(x))).split(self.width, 1)
        parts: list[Any] = []
        for group, conv, norm in zip(groups, self.convs, self.bns, strict=False):
            if parts and self.stype == "normal":
                group = parts[-1] + group
            parts.append(self.relu(norm(conv(group))))
        if self.scale > 1:  # the last group passes by
            parts.append(groups[-1] if self.stype == "normal" else self.pool(groups[-1]))
        y = self.bn3(self.conv3(concat(parts, 1)))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Res2Net(nn.Module):
    """``[batch, 3, height, width]`` to ``[batch, num_classes]``, through four stages of blocks.

    Args:
        block: ``Bottle2neck`` or a class like it.
        layers: the number of blocks of each stage.
        baseWidth, scale: as in ``Bottle2neck``.
        num_classes: extent of the result's last dimension.

    Example:
        >>> import metafuse as mf
        >>> from metafuse_models.res2net import Bottle2neck, Res2Net
        >>> Res2Net(Bottle2neck, [1, 1, 1, 1], num_classes=5)(mf.ones([1, 3, 32, 32])).shape
        (1, 5)
    """

    def __init__(
        self,
        block: type[Bottle2neck],
        layers: Sequence[int],
        baseWidth: int = 26,
        scale: int = 4,
        num_classes: int = 1000,
    ) -> None:
        if len(layers) != 4:
            raise ArgumentError(f"[Res2Net] needs 4 numbers of layers, got {layers!r}")
        self.inplanes, self.baseWidth, self.scale = 64, baseWidth, scale
        self.conv1 = nn.Conv(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm(64)
        self.relu = nn.Relu()
        self.maxpool = nn.Pool(3, 2, 1)
        self.layer1 = self._stage(block, 64, layers[0], 1)
        self.layer2 = self._stage(block, 128, layers[1], 2)
        self.layer3 = self._stage(block, 256, layers[2], 2)
        self.layer4 = self._stage(block, 512, layers[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        first_values(self)

    def _stage(self, block: type[Bottle2neck], planes: int, blocks: int, stride: int) -> nn.Sequential:
        outputs = planes * block.expansion
        shortcut = None
        if stride != 1 or self.inplanes != outputs:
            shortcut = nn.Sequential(
                nn.Conv(self.inplanes, outputs, 1, stride, bias=False), nn.BatchNorm(outputs)
            )
        stage = [block(self.inplanes, planes, stride, shortcut, self.baseWidth, self.scale, "stage")]
        self.inplanes = outputs
        for _ in range(1, blocks):
            stage.append(block(outputs, planes, baseWidth=self.baseWidth, scale=self.scale))
        return nn.Sequential(stage)

    def execute(self, x: Any) -> Any:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def _res2net(
    name: str, layers: list[int], width: int, scale: int, pretrained: Any, kwargs: dict[str, Any]
) -> Res2Net:
    return with_weights(name, Res2Net(Bottle2neck, layers, width, scale, **kwargs), pretrained)


def res2net50_26w_4s(pretrained: Any = False, **kwargs: Any) -> Res2Net:
    """Res2Net with 50 layers and 4 groups of 26 channels; ``kwargs`` as in ``Res2Net``, here and below."""
    return _res2net("res2net50_26w_4s", [3, 4, 6, 3], 26, 4, pretrained, kwargs)


def res2net50(pretrained: Any = False, **kwargs: Any) -> Res2Net:
    """The same network as ``res2net50_26w_4s``."""
    return _res2net("res2net50", [3, 4, 6, 3], 26, 4, pretrained, kwargs)


def res2net50_26w_6s(pretrained: Any = False, **kwargs: Any) -> Res2Net:
    """Res2Net with 50 layers and 6 groups of 26 channels."""
    return _res2net("res2net50_26w_6s", [3, 4, 6, 3], 26, 6, pretrained, kwargs)


def res2net50_26w_8s(pretrained: Any = False, **kwargs: Any) -> Res2Net:
    """Res2Net with 50 layers and 8 groups of 26 channels."""
    return _res2net("res2net50_26w_8s", [3, 4, 6, 3], 26, 8, pretrained, kwargs)


def res2net50_48w_2s(pretrained: Any = False, **kwargs: Any) -> Res2Net:
    """Res2Net with 50 layers and 2 groups of 48 channels."""
    return _res2net("res2net50_48w_2s", [3, 4, 6, 3], 48, 2, pretrained, kwargs)


def res2net50_14w_8s(pretrained: Any = False, **kwargs: Any) -> Res2Net:
    """Res2Net with 50 layers and 8 groups of 14 channels."""
    return _res2net("res2net50_14w_8s", [3, 4, 6, 3], 14, 8, pretrained, kwargs)


def res2net101_26w_4s(pretrained: Any = False, **kwargs: Any) -> Res2Net:
    """Res2Net with 101 layers and 4 groups of 26 channels."""
    return _res2net("res2net101_26w_4s", [3, 4, 23, 3], 26, 4, pretrained, kwargs)


res2net101 = res2net101_26w_4s
