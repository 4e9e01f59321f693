"""AlexNet: five convolutions and three fully connected layers (Krizhevsky 2014, "One weird trick")."""

from __future__ import annotations

from typing import Any

from metafuse import nn

from .weights import with_weights

__all__ = ["AlexNet", "alexnet"]


class AlexNet(nn.Module):
    """``[batch, 3, height, width]`` (at least 63 by 63; made for 224) to ``[batch, num_classes]``.

    Example:
        >>> import metafuse as mf
        >>> from metafuse_models.alexnet import AlexNet
        >>> AlexNet(num_classes=5)(mf.ones([1, 3, 63, 63])).shape
        (1, 5)
    """

    def __init__(self, num_classes: int = 1000) -> None:
        self.features = nn.Sequential(
            nn.Conv(3, 64, 11, 4, 2), nn.Relu(), nn.Pool(3, 2),
            nn.Conv(64, 192, 5, padding=2), nn.Relu(), nn.Pool(3, 2),
            nn.Conv(192, 384, 3, padding=1), nn.Relu(),
            nn.Conv(384, 256, 3, padding=1), nn.Relu(),
            nn.Conv(256, 256, 3, padding=1), nn.Relu(), nn.Pool(3, 2),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(256 * 6 * 6, 4096), nn.Relu(),
            nn.Dropout(), nn.Linear(4096, 4096), nn.Relu(),
            nn.Linear(4096, num_classes),
        )  # fmt: skip

    def execute(self, x: Any) -> Any:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def alexnet(pretrained: Any = False, **kwargs: Any) -> AlexNet:
    """AlexNet; ``kwargs`` as in ``AlexNet``."""
    return with_weights("alexnet", AlexNet(**kwargs), pretrained)
