"""DenseNet: every layer sees the results of all layers before it (Huang et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metafuse import init, nn
from metafuse.ops import neural
from metafuse.ops.shape import concat

from .weights import with_weights

__all__ = ["DenseNet", "densenet121", "densenet161", "densenet169", "densenet201"]


class _DenseLayer(nn.Module):
    """norm, relu, 1 x 1 convolution to ``bn_size * growth_rate`` channels, norm, relu, 3 x 3 to ``growth_rate``."""

    def __init__(self, inputs: int, growth_rate: int, bn_size: int, drop_rate: float) -> None:
        self.norm1 = nn.BatchNorm(inputs)
        self.relu1 = nn.Relu()
        self.conv1 = nn.Conv(inputs, bn_size * growth_rate, 1, bias=False)
        self.norm2 = nn.BatchNorm(bn_size * growth_rate)
        self.relu2 = nn.Relu()
        self.conv2 = nn.Conv(bn_size * growth_rate, growth_rate, 3, padding=1, bias=False)
        self.drop = nn.Dropout(drop_rate)

    def execute(self, x: Any) -> Any:
        x = self.conv1(self.relu1(self.norm1(x)))
        return self.drop(self.conv2(self.relu2(self.norm2(x))))


class _DenseBlock(nn.ModuleDict):
    """Layers that each add ``growth_rate`` channels to what they got."""

    def __init__(self, count: int, inputs: int, bn_size: int, growth_rate: int, drop_rate: float) -> None:
        layers = (
            _DenseLayer(inputs + k * growth_rate, growth_rate, bn_size, drop_rate) for k in range(count)
        )
        super().__init__({f"denselayer{k}": layer for k, layer in enumerate(layers, 1)})

    def execute(self, x: Any) -> Any:
        for layer in self:
            x = concat([x, layer(x)], 1)
        return x


def _transition(inputs: int) -> nn.Sequential:
    """Half of the channels, half of the size."""
    conv = nn.Conv(inputs, inputs // 2, 1, bias=False)
    return nn.Sequential(
        {"norm": nn.BatchNorm(inputs), "relu": nn.Relu(), "conv": conv, "pool": nn.AvgPool2d(2, 2)}
    )


class DenseNet(nn.Module):
    """``[batch, 3, height, width]`` to ``[batch, num_classes]``.

    Args:
        growth_rate: channels that each layer adds.
        block_config: the number of layers of each block.
        num_init_features: channels of the first convolution.
        bn_size: a layer's 1 x 1 convolution has ``bn_size * growth_rate`` channels.
        drop_rate: probability of dropout after each layer.
        num_classes: extent of the result's last dimension.

    Example:
        >>> import metafuse as mf
        >>> from metafuse_models.densenet import DenseNet
        >>> DenseNet(8, (2, 2), 16, num_classes=5)(mf.ones([1, 3, 32, 32])).shape
        (1, 5)
    """

    def __init__(
        self,
        growth_rate: int = 32,
        block_config: Sequence[int] = (6, 12, 24, 16),
        num_init_features: int = 64,
        bn_size: int = 4,
        drop_rate: float = 0,
        num_classes: int = 1000,
    ) -> None:
        parts: dict[str, nn.Module] = {
            "conv0": nn.Conv(3, num_init_features, 7, 2, 3, bias=False),
            "norm0": nn.BatchNorm(num_init_features),
            "relu0": nn.Relu(),
            "pool0": nn.Pool(3, 2, 1),
        }
        width = num_init_features
        for k, count in enumerate(block_config, 1):
            parts[f"denseblock{k}"] = _DenseBlock(count, width, bn_size, growth_rate, drop_rate)
            width += count * growth_rate
            if k < len(block_config):
                parts[f"transition{k}"] = _transition(width)
                width //= 2
        parts["norm5"] = nn.BatchNorm(width)
        self.features = nn.Sequential(parts)
        self.classifier = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv):
                init.kaiming_normal_(module.weight)
        self.classifier.bias = init.zero([num_classes])

    def execute(self, x: Any) -> Any:
        return self.classifier(neural.relu(self.features(x)).mean([2, 3]))


def densenet121(pretrained: Any = False, **kwargs: Any) -> DenseNet:
    """DenseNet with 121 layers; ``kwargs`` as in ``DenseNet``, here and below."""
    return with_weights("densenet121", DenseNet(32, (6, 12, 24, 16), 64, **kwargs), pretrained)


def densenet161(pretrained: Any = False, **kwargs: Any) -> DenseNet:
    """DenseNet with 161 layers and larger growth."""
    return with_weights("densenet161", DenseNet(48, (6, 12, 36, 24), 96, **kwargs), pretrained)


def densenet169(pretrained: Any = False, **kwargs: Any) -> DenseNet:
    """DenseNet with 169 layers."""
    return with_weights("densenet169", DenseNet(32, (6, 12, 32, 32), 64, **kwargs), pretrained)


def densenet201(pretrained: Any = False, **kwargs: Any) -> DenseNet:
    """DenseNet with 201 layers."""
    return with_weights("densenet201", DenseNet(32, (6, 12, 48, 32), 64, **kwargs), pretrained)
