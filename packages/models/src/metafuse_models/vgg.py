"""VGG: stacks of 3 x 3 convolutions (Simonyan and Zisserman 2015), with and without batch norm."""

from __future__ import annotations

from typing import Any

from metafuse import nn

from .blocks import first_values
from .weights import with_weights

__all__ = [
    "VGG", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn",
]  # fmt: skip

#: convolutions of each of the five stages, by the number of layers with weights
_STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """``features``, pooling to 7 x 7 and three fully connected layers.

    Args:
        features: from ``[batch, 3, height, width]`` to 512 channels; ``vgg16`` and its like make them.
        num_classes: extent of the result's last dimension.
        init_weights: whether weights begin as the paper's follow-up (He et al. 2015) says, else as the layers do.
    """

    def __init__(self, features: nn.Module, num_classes: int = 1000, init_weights: bool = True) -> None:
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096), nn.Relu(), nn.Dropout(),
            nn.Linear(4096, 4096), nn.Relu(), nn.Dropout(),
            nn.Linear(4096, num_classes),
        )  # fmt: skip
        if init_weights:
            first_values(self, linear=0.01)

    def execute(self, x: Any) -> Any:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def _features(depth: int, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = 3
    for width, count in zip(_WIDTHS, _STAGES[depth], strict=True):
        for _ in range(count):
            layers += [
                nn.Conv(inputs, width, 3, padding=1),
                *([nn.BatchNorm(width)] if norm else []),
                nn.Relu(),
            ]
            inputs = width
        layers.append(nn.Pool(2, 2))
    return nn.Sequential(layers)


def _vgg(depth: int, norm: bool, pretrained: Any, kwargs: dict[str, Any]) -> VGG:
    name = f"vgg{depth}{'_bn' * norm}"
    return with_weights(name, VGG(_features(depth, norm), **kwargs), pretrained)


def vgg11(pretrained: Any = False, **kwargs: Any) -> VGG:
    """VGG with 11 layers; ``kwargs`` as in ``VGG``, here and below."""
    return _vgg(11, False, pretrained, kwargs)


def vgg11_bn(pretrained: Any = False, **kwargs: Any) -> VGG:
    """VGG with 11 layers and batch norm."""
    return _vgg(11, True, pretrained, kwargs)


def vgg13(pretrained: Any = False, **kwargs: Any) -> VGG:
    """VGG with 13 layers."""
    return _vgg(13, False, pretrained, kwargs)


def vgg13_bn(pretrained: Any = False, **kwargs: Any) -> VGG:
    """VGG with 13 layers and batch norm."""
    return _vgg(13, True, pretrained, kwargs)


def vgg16(pretrained: Any = False, **kwargs: Any) -> VGG:
    """VGG with 16 layers."""
    return _vgg(16, False, pretrained, kwargs)


def vgg16_bn(pretrained: Any = False, **kwargs: Any) -> VGG:
    """VGG with 16 layers and batch norm."""
    return _vgg(16, True, pretrained, kwargs)


def vgg19(pretrained: Any = False, **kwargs: Any) -> VGG:
    """VGG with 19 layers."""
    return _vgg(19, False, pretrained, kwargs)


def vgg19_bn(pretrained: Any = False, **kwargs: Any) -> VGG:
    """VGG with 19 layers and batch norm."""
    return _vgg(19, True, pretrained, kwargs)
