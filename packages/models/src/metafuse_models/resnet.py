"""ResNet (He et al. 2016), ResNeXt (Xie et al. 2017) and wide ResNet (Zagoruyko and Komodakis 2016).

Of a block with stride, the 3 x 3 convolution has it (the variant known as v1.5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from metafuse import init, nn
from metafuse.errors import ArgumentError

from .blocks import first_values
from .weights import with_weights

__all__ = [
    "BasicBlock", "Bottleneck", "ResNet",
    "Resnet18", "Resnet26", "Resnet34", "Resnet38", "Resnet50", "Resnet101", "Resnet152",
    "Resnext50_32x4d", "Resnext101_32x8d", "Wide_resnet50_2", "Wide_resnet101_2",
    "resnet18", "resnet26", "resnet34", "resnet38", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2",
]  # fmt: skip

Norm = Callable[[int], nn.Module]


def _conv3x3(inputs: int, outputs: int, stride: int = 1, groups: int = 1, dilation: int = 1) -> nn.Conv:
    return nn.Conv(inputs, outputs, 3, stride, dilation, dilation, groups, bias=False)


def _conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv:
    return nn.Conv(inputs, outputs, 1, stride, bias=False)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut; ``downsample`` makes the shortcut fit where shapes change."""

    expansion = 1

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: Norm | None = None,
    ) -> None:
        if groups != 1 or base_width != 64 or dilation != 1:
            raise ArgumentError(
                f"[BasicBlock] has groups=1, base_width=64 and dilation=1 only, got {groups}, {base_width} and "
                f"{dilation}; use Bottleneck"
            )
        norm = norm_layer or nn.BatchNorm
        self.conv1 = _conv3x3(inplanes, planes, stride)
        self.bn1 = norm(planes)
        self.relu = nn.Relu()
        self.conv2 = _conv3x3(planes, planes)
        self.bn2 = norm(planes)
        self.downsample = downsample

    def execute(self, x: Any) -> Any:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """A 1 x 1 convolution to fewer channels, a 3 x 3 one and a 1 x 1 one to ``4 * planes`` beside a shortcut."""

    expansion = 4

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: Norm | None = None,
    ) -> None:
        norm = norm_layer or nn.BatchNorm
        width = int(planes * (base_width / 64.0)) * groups
        self.conv1 = _conv1x1(inplanes, width)
        self.bn1 = norm(width)
        self.conv2 = _conv3x3(width, width, stride, groups, dilation)
        self.bn2 = norm(width)
        self.conv3 = _conv1x1(width, planes * self.expansion)
        self.bn3 = norm(planes * self.expansion)
        self.relu = nn.Relu()
        self.downsample = downsample

    def execute(self, x: Any) -> Any:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """``[batch, 3, height, width]`` to ``[batch, num_classes]``, through four stages of blocks.

    Args:
        block: ``BasicBlock`` or ``Bottleneck``.
        layers: the number of blocks of each stage.
        num_classes: extent of the result's last dimension.
        zero_init_residual: let every block begin as its shortcut alone (Goyal et al. 2017).
        groups, width_per_group: of the 3 x 3 convolutions of ``Bottleneck``.
        replace_stride_with_dilation: for the last three stages, whether they keep the size and dilate instead.
        norm_layer: makes a norm from a number of channels; ``None`` means ``nn.BatchNorm``.

    Example:
        >>> import metafuse as mf
        >>> from metafuse_models.resnet import BasicBlock, ResNet
        >>> ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5)(mf.ones([1, 3, 32, 32])).shape
        (1, 5)
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        replace_stride_with_dilation: Sequence[bool] | None = None,
        norm_layer: Norm | None = None,
    ) -> None:
        dilate = (
            (False, False, False) if replace_stride_with_dilation is None else replace_stride_with_dilation
        )
        if len(layers) != 4 or len(dilate) != 3:
            raise ArgumentError(
                f"[ResNet] needs 4 numbers of layers and None or 3 values of replace_stride_with_dilation, got {layers!r} and "
                f"{replace_stride_with_dilation!r}"
            )
        self._norm: Norm = norm_layer or nn.BatchNorm
        self.inplanes, self.dilation = 64, 1
        self.groups, self.base_width = groups, width_per_group
        self.conv1 = nn.Conv(3, 64, 7, 2, 3, bias=False)
        self.bn1 = self._norm(64)
        self.relu = nn.Relu()
        self.maxpool = nn.Pool(3, 2, 1)
        self.layer1 = self._stage(block, 64, layers[0], 1, False)
        self.layer2 = self._stage(block, 128, layers[1], 2, dilate[0])
        self.layer3 = self._stage(block, 256, layers[2], 2, dilate[1])
        self.layer4 = self._stage(block, 512, layers[3], 2, dilate[2])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        first_values(self)
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, (BasicBlock, Bottleneck)):
                    last: Any = module.bn3 if isinstance(module, Bottleneck) else module.bn2
                    init.zero_(last.weight)

    def _stage(
        self, block: type[BasicBlock] | type[Bottleneck], planes: int, blocks: int, stride: int, dilate: bool
    ) -> nn.Sequential:
        outputs, first_dilation = planes * block.expansion, self.dilation
        if dilate:
            self.dilation, stride = self.dilation * stride, 1
        shortcut = None
        if stride != 1 or self.inplanes != outputs:
            shortcut = nn.Sequential(_conv1x1(self.inplanes, outputs, stride), self._norm(outputs))
        common = (self.groups, self.base_width)
        stage = [block(self.inplanes, planes, stride, shortcut, *common, first_dilation, self._norm)]
        self.inplanes = outputs
        for _ in range(1, blocks):
            stage.append(block(outputs, planes, 1, None, *common, self.dilation, self._norm))
        return nn.Sequential(stage)

    def execute(self, x: Any) -> Any:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def resnet18(pretrained: Any = False, **kwargs: Any) -> ResNet:
    """ResNet with 18 layers; ``kwargs`` as in ``ResNet``, here and below."""
    return with_weights("resnet18", ResNet(BasicBlock, [2, 2, 2, 2], **kwargs), pretrained)


def resnet26(pretrained: Any = False, **kwargs: Any) -> ResNet:
    """ResNet with 26 layers."""
    return with_weights("resnet26", ResNet(Bottleneck, [1, 2, 4, 1], **kwargs), pretrained)


def resnet34(pretrained: Any = False, **kwargs: Any) -> ResNet:
    """ResNet with 34 layers."""
    return with_weights("resnet34", ResNet(BasicBlock, [3, 4, 6, 3], **kwargs), pretrained)


def resnet38(pretrained: Any = False, **kwargs: Any) -> ResNet:
    """ResNet with 38 layers."""
    return with_weights("resnet38", ResNet(Bottleneck, [2, 3, 5, 2], **kwargs), pretrained)


def resnet50(pretrained: Any = False, **kwargs: Any) -> ResNet:
    """ResNet with 50 layers."""
    return with_weights("resnet50", ResNet(Bottleneck, [3, 4, 6, 3], **kwargs), pretrained)


def resnet101(pretrained: Any = False, **kwargs: Any) -> ResNet:
    """ResNet with 101 layers."""
    return with_weights("resnet101", ResNet(Bottleneck, [3, 4, 23, 3], **kwargs), pretrained)


def resnet152(pretrained: Any = False, **kwargs: Any) -> ResNet:
    """ResNet with 152 layers."""
    return with_weights("resnet152", ResNet(Bottleneck, [3, 8, 36, 3], **kwargs), pretrained)


def resnext50_32x4d(pretrained: Any = False, **kwargs: Any) -> ResNet:
    """ResNeXt with 50 layers and 32 groups of 4 channels."""
    kwargs = {"groups": 32, "width_per_group": 4, **kwargs}
    return with_weights("resnext50_32x4d", ResNet(Bottleneck, [3, 4, 6, 3], **kwargs), pretrained)


def resnext101_32x8d(pretrained: Any = False, **kwargs: Any) -> ResNet:
    """ResNeXt with 101 layers and 32 groups of 8 channels."""
    kwargs = {"groups": 32, "width_per_group": 8, **kwargs}
    return with_weights("resnext101_32x8d", ResNet(Bottleneck, [3, 4, 23, 3], **kwargs), pretrained)


def wide_resnet50_2(pretrained: Any = False, **kwargs: Any) -> ResNet:
    """ResNet with 50 layers and twice the channels inside its blocks."""
    kwargs = {"width_per_group": 128, **kwargs}
    return with_weights("wide_resnet50_2", ResNet(Bottleneck, [3, 4, 6, 3], **kwargs), pretrained)


def wide_resnet101_2(pretrained: Any = False, **kwargs: Any) -> ResNet:
    """ResNet with 101 layers and twice the channels inside its blocks."""
    kwargs = {"width_per_group": 128, **kwargs}
    return with_weights("wide_resnet101_2", ResNet(Bottleneck, [3, 4, 23, 3], **kwargs), pretrained)


# The reference API has these names in capitals too.
Resnet18, Resnet26, Resnet34, Resnet38 = resnet18, resnet26, resnet34, resnet38
Resnet50, Resnet101, Resnet152 = resnet50, resnet101, resnet152
Resnext50_32x4d, Resnext101_32x8d = resnext50_32x4d, resnext101_32x8d
Wide_resnet50_2, Wide_resnet101_2 = wide_resnet50_2, wide_resnet101_2
