"""Inception v3 (Szegedy et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from metafuse import init, nn
from metafuse.errors import ArgumentError
from metafuse.ops import neural
from metafuse.ops.shape import concat

from .blocks import BasicConv2d
from .weights import with_weights

__all__ = ["Inception3", "InceptionOutputs", "inception_v3"]

Maker = Callable[..., nn.Module]


class InceptionOutputs(NamedTuple):
    """What a training network with an auxiliary head answers."""

    logits: Any
    aux_logits: Any


def _mean3x3(x: Any) -> Any:
    return neural.avg_pool2d(x, 3, 1, 1)


class InceptionA(nn.Module):
    """1 x 1, 5 x 5, two 3 x 3 in a row, and a mean, side by side."""

    def __init__(self, in_channels: int, pool_features: int, conv_block: Maker = BasicConv2d) -> None:
        self.branch1x1 = conv_block(in_channels, 64, kernel_size=1)
        self.branch5x5_1 = conv_block(in_channels, 48, kernel_size=1)
        self.branch5x5_2 = conv_block(48, 64, kernel_size=5, padding=2)
        self.branch3x3dbl_1 = conv_block(in_channels, 64, kernel_size=1)
        self.branch3x3dbl_2 = conv_block(64, 96, kernel_size=3, padding=1)
        self.branch3x3dbl_3 = conv_block(96, 96, kernel_size=3, padding=1)
        self.branch_pool = conv_block(in_channels, pool_features, kernel_size=1)

    def execute(self, x: Any) -> Any:
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return concat([self.branch1x1(x), five, double, self.branch_pool(_mean3x3(x))], 1)


class InceptionB(nn.Module):
    """Half of the size: a 3 x 3, two 3 x 3 in a row, and a maximum, side by side."""

    def __init__(self, in_channels: int, conv_block: Maker = BasicConv2d) -> None:
        self.branch3x3 = conv_block(in_channels, 384, kernel_size=3, stride=2)
        self.branch3x3dbl_1 = conv_block(in_channels, 64, kernel_size=1)
        self.branch3x3dbl_2 = conv_block(64, 96, kernel_size=3, padding=1)
        self.branch3x3dbl_3 = conv_block(96, 96, kernel_size=3, stride=2)

    def execute(self, x: Any) -> Any:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return concat([self.branch3x3(x), double, neural.max_pool2d(x, 3, 2)], 1)


class InceptionC(nn.Module):
    """7 x 7 convolutions as products of 1 x 7 and 7 x 1."""

    def __init__(self, in_channels: int, channels_7x7: int, conv_block: Maker = BasicConv2d) -> None:
        c = channels_7x7
        row: dict[str, Any] = {"kernel_size": (1, 7), "padding": (0, 3)}
        column: dict[str, Any] = {"kernel_size": (7, 1), "padding": (3, 0)}
        self.branch1x1 = conv_block(in_channels, 192, kernel_size=1)
        self.branch7x7_1 = conv_block(in_channels, c, kernel_size=1)
        self.branch7x7_2 = conv_block(c, c, **row)
        self.branch7x7_3 = conv_block(c, 192, **column)
        self.branch7x7dbl_1 = conv_block(in_channels, c, kernel_size=1)
        self.branch7x7dbl_2 = conv_block(c, c, **column)
        self.branch7x7dbl_3 = conv_block(c, c, **row)
        self.branch7x7dbl_4 = conv_block(c, c, **column)
        self.branch7x7dbl_5 = conv_block(c, 192, **row)
        self.branch_pool = conv_block(in_channels, 192, kernel_size=1)

    def execute(self, x: Any) -> Any:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return concat([self.branch1x1(x), single, double, self.branch_pool(_mean3x3(x))], 1)


class InceptionD(nn.Module):
    """Half of the size, after a 3 x 3 or a factorised 7 x 7, or by a maximum."""

    def __init__(self, in_channels: int, conv_block: Maker = BasicConv2d) -> None:
        self.branch3x3_1 = conv_block(in_channels, 192, kernel_size=1)
        self.branch3x3_2 = conv_block(192, 320, kernel_size=3, stride=2)
        self.branch7x7x3_1 = conv_block(in_channels, 192, kernel_size=1)
        self.branch7x7x3_2 = conv_block(192, 192, kernel_size=(1, 7), padding=(0, 3))
        self.branch7x7x3_3 = conv_block(192, 192, kernel_size=(7, 1), padding=(3, 0))
        self.branch7x7x3_4 = conv_block(192, 192, kernel_size=3, stride=2)

    def execute(self, x: Any) -> Any:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return concat(
            [self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(seven), neural.max_pool2d(x, 3, 2)], 1
        )


class InceptionE(nn.Module):
    """3 x 3 convolutions whose last step is 1 x 3 beside 3 x 1."""

    def __init__(self, in_channels: int, conv_block: Maker = BasicConv2d) -> None:
        row: dict[str, Any] = {"kernel_size": (1, 3), "padding": (0, 1)}
        column: dict[str, Any] = {"kernel_size": (3, 1), "padding": (1, 0)}
        self.branch1x1 = conv_block(in_channels, 320, kernel_size=1)
        self.branch3x3_1 = conv_block(in_channels, 384, kernel_size=1)
        self.branch3x3_2a = conv_block(384, 384, **row)
        self.branch3x3_2b = conv_block(384, 384, **column)
        self.branch3x3dbl_1 = conv_block(in_channels, 448, kernel_size=1)
        self.branch3x3dbl_2 = conv_block(448, 384, kernel_size=3, padding=1)
        self.branch3x3dbl_3a = conv_block(384, 384, **row)
        self.branch3x3dbl_3b = conv_block(384, 384, **column)
        self.branch_pool = conv_block(in_channels, 192, kernel_size=1)

    def execute(self, x: Any) -> Any:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return concat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(single), self.branch3x3_2b(single),
                self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double),
                self.branch_pool(_mean3x3(x)),
            ],
            1,
        )  # fmt: skip


class InceptionAux(nn.Module):
    """The auxiliary classifier, on 768 channels of at least 17 x 17."""

    def __init__(self, in_channels: int, num_classes: int, conv_block: Maker = BasicConv2d) -> None:
        self.conv0 = conv_block(in_channels, 128, kernel_size=1)
        self.conv1 = conv_block(128, 768, kernel_size=5)
        self.fc = nn.Linear(768, num_classes)

    def execute(self, x: Any) -> Any:
        x = self.conv1(self.conv0(neural.avg_pool2d(x, 5, 3)))
        return self.fc(x.mean([2, 3]))


#: class of the blocks in ``inception_blocks``, further arguments
_MIXED: dict[str, tuple[int, tuple[int, ...]]] = {
    "5b": (1, (192, 32)), "5c": (1, (256, 64)), "5d": (1, (288, 64)), "6a": (2, (288,)),
    "6b": (3, (768, 128)), "6c": (3, (768, 160)), "6d": (3, (768, 160)), "6e": (3, (768, 192)),
    "7a": (4, (768,)), "7b": (5, (1280,)), "7c": (5, (2048,)),
}  # fmt: skip


class Inception3(nn.Module):
    """``[batch, 3, height, width]`` (at least 75 by 75; made for 299) to ``[batch, num_classes]``.

    Args:
        num_classes: extent of the result's last dimension.
        aux_logits: whether there is an auxiliary head. In training the network then answers ``InceptionOutputs``, and
            images must be at least 299 by 299.
        inception_blocks: makers of the convolution, the blocks A to E and the auxiliary head; ``None`` means those of this file.
        init_weights: whether weights begin normal with deviation 0.1 (0.01 and 0.001 in the auxiliary head), else as the
            layers do.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        aux_logits: bool = True,
        inception_blocks: Sequence[Maker] | None = None,
        init_weights: bool = True,
    ) -> None:
        if inception_blocks is not None and len(inception_blocks) != 7:
            raise ArgumentError(
                f"[Inception3] inception_blocks must be None or 7 callables, got {inception_blocks!r}"
            )
        own = (BasicConv2d, InceptionA, InceptionB, InceptionC, InceptionD, InceptionE, InceptionAux)
        blocks: Sequence[Maker] = inception_blocks or own
        conv = blocks[0]
        self.aux_logits = bool(aux_logits)
        self.Conv2d_1a_3x3 = conv(3, 32, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = conv(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = conv(32, 64, kernel_size=3, padding=1)
        self.maxpool1 = nn.Pool(3, 2)
        self.Conv2d_3b_1x1 = conv(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = conv(80, 192, kernel_size=3)
        self.maxpool2 = nn.Pool(3, 2)
        for name, (kind, arguments) in _MIXED.items():
            setattr(self, f"Mixed_{name}", blocks[kind](*arguments))
            if name == "6e" and self.aux_logits:
                self.AuxLogits = blocks[6](768, num_classes)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout()
        self.fc = nn.Linear(2048, num_classes)
        if init_weights:
            self._first_values()

    def _first_values(self) -> None:
        # Published as truncated at +-2, which is 20 deviations or more: nothing is ever cut off.
        special = {"AuxLogits.conv1.conv": 0.01, "AuxLogits.fc": 0.001}
        for name, module in self.named_modules():
            if isinstance(module, (nn.Conv, nn.Linear)):
                init.gauss_(module.weight, 0.0, special.get(name, 0.1))

    def execute(self, x: Any) -> Any:
        x = self.maxpool1(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = self.maxpool2(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        aux = None
        for name in _MIXED:
            x = getattr(self, f"Mixed_{name}")(x)
            if name == "6e" and self.is_train and self.aux_logits:
                aux = self.AuxLogits(x)
        return self.eager_outputs(self.fc(self.dropout(self.avgpool(x)).flatten(1)), aux)

    def eager_outputs(self, x: Any, aux: Any) -> Any:
        """``InceptionOutputs`` in training with an auxiliary head, else ``x``."""
        return InceptionOutputs(x, aux) if self.is_train and self.aux_logits else x


def inception_v3(pretrained: Any = False, progress: bool = True, **kwargs: Any) -> Inception3:
    """Inception v3; ``kwargs`` as in ``Inception3``. ``progress`` is accepted and has no effect."""
    return with_weights("inception_v3", Inception3(**kwargs), pretrained, optional=("AuxLogits.",))
