"""Normalisation layers: scale, shift and running statistics.

What it is: ``BatchNorm``, ``InstanceNorm``, ``LayerNorm`` and ``GroupNorm``.
What it is not: the computation (``ops.neural.normalisation``).
Who calls it: users.
"""

from __future__ import annotations

from typing import Any

from .. import init
from ..dist.process import world
from ..errors import ArgumentError, ShapeError, brief
from ..ops import neural
from ..ops.meta import check_flag
from ..ops.neural.checks import fraction, integer, integers, number
from ..var import Var
from .module import Module
from .synchronised import batch_norm_of_all

__all__ = [
    "BatchNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "GroupNorm",
    "InstanceNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LayerNorm1d",
    "LayerNorm2d",
    "LayerNorm3d",
]


class _Norm(Module):
    weight: Any  # a Var, or the number 1 where there is no scale
    bias: Any

    def _affine(self, shape: Any, affine: bool) -> None:
        self.weight = init.constant(shape, "float32", 1.0) if affine else 1.0
        self.bias = init.constant(shape, "float32", 0.0) if affine else 0.0

    def _check_channels(self, x: Any, channels: int) -> None:
        if not isinstance(x, Var) or x.ndim < 2 or x.shape[1] != channels:
            found = tuple(x.shape) if isinstance(x, Var) else type(x).__name__
            raise ShapeError(f"[{type(self).__name__}] x must be [batch, {channels}, ...], got {found}")


class BatchNorm(_Norm):
    """Normalise each channel over the batch and all spatial dimensions; any number of the latter.

    In training the batch's own mean and biased variance are used, and the running statistics move towards them:
    ``running += (batch - running) * momentum``. Else the running statistics are used.

    Args:
        num_features: number of channels (dimension 1).
        eps: added to the variance.
        momentum: share of the new batch in the running statistics.
        affine: whether each channel is scaled and shifted by learned numbers.
        is_train: the mode to begin in.
        sync: whether ranks of a distributed run share statistics, so that they are those of the whole batch.

    Example:
        >>> import metafuse as mf
        >>> bn = mf.nn.BatchNorm(3)
        >>> bn(mf.randn([4, 3, 2, 2])).shape, bn.running_mean.shape
        ((4, 3, 2, 2), (3,))

    Source: Ioffe and Szegedy 2015.
    """

    _shown = ("num_features", "eps", "momentum")
    running_mean: Var
    running_var: Var

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-05,
        momentum: float = 0.1,
        affine: bool = True,
        is_train: bool = True,
        sync: bool = True,
    ) -> None:
        kind = type(self).__name__
        self.num_features = integer(kind, "num_features", num_features, 1)
        self.eps = number(kind, "eps", eps, 0)
        self.momentum = fraction(kind, "momentum", momentum)
        self.affine = check_flag(kind, "affine", affine)
        self.is_train = check_flag(kind, "is_train", is_train)
        self.sync = check_flag(kind, "sync", sync)
        self._affine([self.num_features], self.affine)
        self.register_buffer("running_mean", init.constant([self.num_features], "float32", 0.0))
        self.register_buffer("running_var", init.constant([self.num_features], "float32", 1.0))

    def execute(self, x: Any) -> Any:
        self._check_channels(x, self.num_features)
        if self.sync and self.is_train and world().size > 1:
            running = [self.running_mean, self.running_var]
            return batch_norm_of_all(x, running, self.weight, self.bias, self.momentum, self.eps)
        return neural.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.is_train,
            self.momentum,
            self.eps,
        )


BatchNorm1d = BatchNorm2d = BatchNorm3d = BatchNorm


class InstanceNorm(_Norm):
    """Normalise each channel of each sample over its spatial dimensions, always by the sample's own statistics.

    Args:
        num_features: number of channels (dimension 1).
        eps: added to the variance.
        affine: whether each channel is scaled and shifted by learned numbers.
        momentum, is_train, sync: accepted as in ``BatchNorm``; without effect.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.InstanceNorm(3)(mf.randn([2, 3, 4, 4])).shape
        (2, 3, 4, 4)

    Source: Ulyanov et al. 2016.
    """

    _shown = ("num_features", "eps")

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-05,
        momentum: float = 0.1,
        affine: bool = True,
        is_train: bool = True,
        sync: bool = True,
    ) -> None:
        kind = type(self).__name__
        self.num_features = integer(kind, "num_features", num_features, 1)
        self.eps = number(kind, "eps", eps, 0)
        self.momentum = fraction(kind, "momentum", momentum)
        self.affine = check_flag(kind, "affine", affine)
        self.is_train = check_flag(kind, "is_train", is_train)
        self.sync = check_flag(kind, "sync", sync)
        self._affine([self.num_features], self.affine)

    def execute(self, x: Any) -> Any:
        self._check_channels(x, self.num_features)
        return neural.instance_norm(x, None, None, self.weight, self.bias, self.momentum, self.eps)


InstanceNorm1d = InstanceNorm2d = InstanceNorm3d = InstanceNorm


class LayerNorm(_Norm):
    """Normalise over the trailing dimensions ``normalized_shape`` and scale each of their elements.

    Args:
        normalized_shape: extents of the trailing dimensions, or one extent.
        eps: added to the variance.
        elementwise_affine: whether each element is scaled and shifted by learned numbers.
        bias: whether it is shifted too, where it is scaled.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.LayerNorm(8)(mf.randn([2, 5, 8])).shape
        (2, 5, 8)

    Source: Ba et al. 2016.
    """

    _shown = ("normalized_shape", "eps")

    def __init__(
        self,
        normalized_shape: Any,
        eps: float = 1e-05,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        kind = type(self).__name__
        count = len(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else 1
        if count == 0:
            raise ArgumentError(
                f"[{kind}] normalized_shape must have at least one extent, got {brief(normalized_shape)}"
            )
        self.normalized_shape = integers(kind, "normalized_shape", normalized_shape, count, 1)
        self.eps = number(kind, "eps", eps, 0)
        self.elementwise_affine = check_flag(kind, "elementwise_affine", elementwise_affine)
        self._affine(list(self.normalized_shape), self.elementwise_affine)
        if not check_flag(kind, "bias", bias):
            self.bias = 0.0

    def execute(self, x: Any) -> Any:
        return neural.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


LayerNorm1d = LayerNorm2d = LayerNorm3d = LayerNorm


class GroupNorm(_Norm):
    """Normalise groups of channels of each sample and scale each channel.

    Args:
        num_groups: divides ``num_channels``.
        num_channels: number of channels (dimension 1).
        eps: added to the variance.
        affine: whether each channel is scaled and shifted by learned numbers.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.GroupNorm(2, 4)(mf.randn([2, 4, 3, 3])).shape
        (2, 4, 3, 3)

    Source: Wu and He 2018.
    """

    _shown = ("num_groups", "num_channels", "eps")

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-05,
        affine: bool = True,
        is_train: bool = True,
    ) -> None:
        self.num_groups = integer("GroupNorm", "num_groups", num_groups, 1)
        self.num_channels = integer("GroupNorm", "num_channels", num_channels, 1)
        if self.num_channels % self.num_groups:
            raise ArgumentError(
                f"[GroupNorm] num_groups must divide num_channels, got {num_groups} and {num_channels}"
            )
        self.eps = number("GroupNorm", "eps", eps, 0)
        self.affine = check_flag(type(self).__name__, "affine", affine)
        self.is_train = check_flag(type(self).__name__, "is_train", is_train)
        self._affine([self.num_channels], self.affine)

    def execute(self, x: Any) -> Any:
        self._check_channels(x, self.num_channels)
        return neural.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
