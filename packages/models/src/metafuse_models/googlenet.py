"""GoogLeNet, the first Inception network (Szegedy et al. 2015), with batch norm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from metafuse import init, nn
from metafuse.errors import ArgumentError
from metafuse.ops import neural
from metafuse.ops.shape import concat

from .blocks import BasicConv2d
from .weights import with_weights

__all__ = ["GoogLeNet", "GoogLeNetOutputs", "Inception", "InceptionAux", "googlenet"]

#: channels of each Inception block: inputs, 1x1, 3x3 (before, itself), 5x5 (before, itself), after the pooling
_BLOCKS = {
    "3a": (192, 64, 96, 128, 16, 32, 32), "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64), "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64), "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128), "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}  # fmt: skip


class GoogLeNetOutputs(NamedTuple):
    """What a training network with auxiliary heads answers."""

    logits: Any
    aux_logits2: Any
    aux_logits1: Any


class Inception(nn.Module):
    """Four branches side by side. The one called 5 x 5 in the paper is 3 x 3 in all published weights, and here."""

    def __init__(
        self,
        in_channels: int,
        ch1x1: int,
        ch3x3red: int,
        ch3x3: int,
        ch5x5red: int,
        ch5x5: int,
        pool_proj: int,
        conv_block: Callable[..., nn.Module] = BasicConv2d,
    ) -> None:
        self.branch1 = conv_block(in_channels, ch1x1, kernel_size=1)
        self.branch2 = nn.Sequential(
            conv_block(in_channels, ch3x3red, kernel_size=1),
            conv_block(ch3x3red, ch3x3, kernel_size=3, padding=1),
        )
        self.branch3 = nn.Sequential(
            conv_block(in_channels, ch5x5red, kernel_size=1),
            conv_block(ch5x5red, ch5x5, kernel_size=3, padding=1),
        )
        self.branch4 = nn.Sequential(
            nn.Pool(3, 1, 1, ceil_mode=True), conv_block(in_channels, pool_proj, kernel_size=1)
        )

    def execute(self, x: Any) -> Any:
        return concat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class InceptionAux(nn.Module):
    """An auxiliary classifier on the features of the middle."""

    def __init__(
        self, in_channels: int, num_classes: int, conv_block: Callable[..., nn.Module] = BasicConv2d
    ) -> None:
        self.conv = conv_block(in_channels, 128, kernel_size=1)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, num_classes)
        self.dropout = nn.Dropout(0.7)

    def execute(self, x: Any) -> Any:
        x = self.conv(neural.adaptive_avg_pool(x, 4)).flatten(1)
        return self.fc2(self.dropout(neural.relu(self.fc1(x))))


class GoogLeNet(nn.Module):
    """``[batch, 3, height, width]`` to ``[batch, num_classes]``.

    Args:
        num_classes: extent of the result's last dimension.
        aux_logits: whether there are two auxiliary heads. In training the network then answers ``GoogLeNetOutputs``.
        init_weights: whether weights begin normal with deviation 0.01, else as the layers do.
        blocks: makers of convolution, Inception block and auxiliary head; ``None`` means those of this file.

    Example:
        >>> import metafuse as mf
        >>> from metafuse_models.googlenet import GoogLeNet
        >>> GoogLeNet(num_classes=5, aux_logits=False)(mf.ones([1, 3, 32, 32])).shape
        (1, 5)
    """

    def __init__(
        self,
        num_classes: int = 1000,
        aux_logits: bool = True,
        init_weights: bool = True,
        blocks: Sequence[Callable[..., Any]] | None = None,
    ) -> None:
        if blocks is not None and len(blocks) != 3:
            raise ArgumentError(f"[GoogLeNet] blocks must be None or 3 callables, got {blocks!r}")
        conv, inception, aux = blocks or (BasicConv2d, Inception, InceptionAux)
        self.aux_logits = bool(aux_logits)
        self.conv1 = conv(3, 64, kernel_size=7, stride=2, padding=3)
        self.maxpool1 = nn.Pool(3, 2, ceil_mode=True)
        self.conv2 = conv(64, 64, kernel_size=1)
        self.conv3 = conv(64, 192, kernel_size=3, padding=1)
        self.maxpool2 = nn.Pool(3, 2, ceil_mode=True)
        for name, channels in _BLOCKS.items():
            setattr(self, f"inception{name}", inception(*channels))
            if name == "3b":
                self.maxpool3 = nn.Pool(3, 2, ceil_mode=True)
            elif name == "4e":
                self.maxpool4 = nn.Pool(2, 2, ceil_mode=True)
        if self.aux_logits:
            self.aux1 = aux(512, num_classes)
            self.aux2 = aux(528, num_classes)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(1024, num_classes)
        if init_weights:
            for module in self.modules():
                if isinstance(module, (nn.Conv, nn.Linear)):
                    # Published as truncated at +-2, which is 200 deviations: nothing is ever cut off.
                    init.gauss_(module.weight, 0.0, 0.01)

    def execute(self, x: Any) -> Any:
        def through(x: Any, names: str) -> Any:
            for name in names.split():
                x = getattr(self, f"inception{name}")(x)
            return x

        x = self.maxpool2(self.conv3(self.conv2(self.maxpool1(self.conv1(x)))))
        x = middle = through(self.maxpool3(through(x, "3a 3b")), "4a")
        x = late = through(x, "4b 4c 4d")
        x = through(self.maxpool4(through(x, "4e")), "5a 5b")
        x = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        if self.is_train and self.aux_logits:
            return self.eager_outputs(x, self.aux2(late), self.aux1(middle))
        return x

    def eager_outputs(self, x: Any, aux2: Any, aux1: Any) -> Any:
        """``GoogLeNetOutputs`` in training with auxiliary heads, else ``x``."""
        return GoogLeNetOutputs(x, aux2, aux1) if self.is_train and self.aux_logits else x


def googlenet(pretrained: Any = False, **kwargs: Any) -> GoogLeNet:
    """GoogLeNet; ``kwargs`` as in ``GoogLeNet``."""
    return with_weights("googlenet", GoogLeNet(**kwargs), pretrained, optional=("aux1.", "aux2."))
