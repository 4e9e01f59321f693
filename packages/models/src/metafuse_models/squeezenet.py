"""SqueezeNet: AlexNet's accuracy with a fiftieth of its parameters (Iandola et al. 2016)."""

from __future__ import annotations

from typing import Any

from metafuse import init, nn
from metafuse.errors import ArgumentError
from metafuse.ops.shape import concat

from .weights import with_weights

__all__ = ["Fire", "SqueezeNet", "squeezenet1_0", "squeezenet1_1"]

#: first convolution (outputs, kernel) and then fire modules (inputs, squeezed, expanded by each kernel); "pool" between them
_VERSIONS: dict[str, tuple[Any, ...]] = {
    "1_0": ((96, 7), "pool", (96, 16, 64), (128, 16, 64), (128, 32, 128), "pool", (256, 32, 128), (256, 48, 192),
            (384, 48, 192), (384, 64, 256), "pool", (512, 64, 256)),
    "1_1": ((64, 3), "pool", (64, 16, 64), (128, 16, 64), "pool", (128, 32, 128), (256, 32, 128), "pool",
            (256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256)),
}  # fmt: skip


class Fire(nn.Module):
    """A 1 x 1 convolution to few channels, and a 1 x 1 and a 3 x 3 convolution of these, side by side."""

    def __init__(
        self, inplanes: int, squeeze_planes: int, expand1x1_planes: int, expand3x3_planes: int
    ) -> None:
        self.squeeze = nn.Conv(inplanes, squeeze_planes, 1)
        self.squeeze_activation = nn.Relu()
        self.expand1x1 = nn.Conv(squeeze_planes, expand1x1_planes, 1)
        self.expand1x1_activation = nn.Relu()
        self.expand3x3 = nn.Conv(squeeze_planes, expand3x3_planes, 3, padding=1)
        self.expand3x3_activation = nn.Relu()

    def execute(self, x: Any) -> Any:
        x = self.squeeze_activation(self.squeeze(x))
        return concat(
            [self.expand1x1_activation(self.expand1x1(x)), self.expand3x3_activation(self.expand3x3(x))], 1
        )


class SqueezeNet(nn.Module):
    """``[batch, 3, height, width]`` to ``[batch, num_classes]``.

    Args:
        version: ``"1_0"`` or ``"1_1"``, which needs less than half of the work.
        num_classes: extent of the result's last dimension.

    Example:
        >>> import metafuse as mf
        >>> from metafuse_models.squeezenet import SqueezeNet
        >>> SqueezeNet("1_1", num_classes=5)(mf.ones([1, 3, 32, 32])).shape
        (1, 5)
    """

    def __init__(self, version: str = "1_0", num_classes: int = 1000) -> None:
        if version not in _VERSIONS:
            raise ArgumentError(f"[SqueezeNet] version must be '1_0' or '1_1', got {version!r}")
        (outputs, kernel), *rest = _VERSIONS[version]
        layers: list[nn.Module] = [nn.Conv(3, outputs, kernel, 2), nn.Relu()]
        for part in rest:
            if part == "pool":
                layers.append(nn.Pool(3, 2, ceil_mode=True))
            else:
                inputs, squeezed, expanded = part
                layers.append(Fire(inputs, squeezed, expanded, expanded))
        self.features = nn.Sequential(layers)
        final = nn.Conv(512, num_classes, 1)
        self.classifier = nn.Sequential(nn.Dropout(), final, nn.Relu(), nn.AdaptiveAvgPool2d(1))
        for module in self.modules():
            if isinstance(module, nn.Conv):
                if module is final:
                    init.gauss_(module.weight, 0.0, 0.01)
                else:
                    init.kaiming_uniform_(module.weight)
                module.bias = init.zero([module.out_channels])

    def execute(self, x: Any) -> Any:
        return self.classifier(self.features(x)).flatten(1)


def squeezenet1_0(pretrained: Any = False, **kwargs: Any) -> SqueezeNet:
    """SqueezeNet 1.0; ``kwargs`` as in ``SqueezeNet``."""
    return with_weights("squeezenet1_0", SqueezeNet("1_0", **kwargs), pretrained)


def squeezenet1_1(pretrained: Any = False, **kwargs: Any) -> SqueezeNet:
    """SqueezeNet 1.1; ``kwargs`` as in ``SqueezeNet``."""
    return with_weights("squeezenet1_1", SqueezeNet("1_1", **kwargs), pretrained)
