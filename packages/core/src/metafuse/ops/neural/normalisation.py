"""Normalisation: batch, instance, layer and group norm as functions.

What it is: one composition, mean and variance over some axes and then one multiply-add, used by all four. The compiler makes
of it one kernel in two phases forward, and one in two phases backward.
What it is not: layers with parameters and running statistics (``nn.norm``).
Who calls it: users and ``nn.norm``.

The deviation is taken from the mean *as a constant*, and the mean's own path to the gradient runs through
``mean - constant``, which is zero in value. The result is the same to any order of differentiation, but the gradient then
needs only the two sums over large axes that it mathematically needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...dtypes import accumulator
from ...errors import ArgumentError, DTypeError, ShapeError, brief
from ...var import Var
from ..elementwise import cast
from ..meta import check_flag, check_var
from ..precision import answer_type
from ..recipe import recorded
from ..registry import Sample, Tensor, operator
from . import oracles
from .checks import integer, integers, number, plain

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm"]

_X = Tensor((3, 4, 2, 3))
_C = Tensor((4,), "float", 0.5, 2.0)


def _float_input(op: str, x: Any, least: int) -> Any:
    """``x`` as a floating-point Var of at least ``least`` dimensions."""
    x = check_var(op, "x", x)
    if not x.dtype.is_float:
        raise DTypeError(f"[{op}] x must be floating point, got {x.dtype}; cast it with .float32()")
    if x.ndim < least:
        raise ShapeError(
            f"[{op}] x must have at least {least} dimensions (batch, channels, ...), got shape {tuple(x.shape)}"
        )
    return x


def _affine(op: str, name: str, value: Any, count: int, shape: list[int]) -> Any:
    """A number as it is; a Var of ``count`` elements reshaped so that it broadcasts against ``x``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return plain(op, name, value)
    value = check_var(op, name, value)
    if value.numel() != count:
        raise ShapeError(f"[{op}] {name} must have {count} elements, got shape {tuple(value.shape)}")
    return value.reshape(shape)


def moments(x: Any, axes: list[int]) -> tuple[Any, Any, Any, Any]:
    """``(mean, variance, deviation, offset)`` over ``axes``, which stay with extent 1; the variance is the biased one.

    ``deviation`` is ``x`` minus the mean taken as a constant; ``offset`` is zero and carries the mean's gradient.
    """
    mean = x.mean(axes, keepdims=True)
    centre = mean.detach()
    deviation = x - centre
    offset = mean - centre
    variance = deviation.sqr().mean(axes, keepdims=True) - offset.sqr()
    return mean, variance, deviation, offset


def normalise(x: Any, axes: list[int], weight: Any, bias: Any, eps: float) -> Any:
    """``(x - mean) / sqrt(variance + eps) * weight + bias``; 16-bit floats are computed in float32."""
    wide = cast(x, accumulator(x.dtype))
    return cast(_scaled(wide, moments(wide, axes), weight, bias, eps), answer_type(x.dtype))


def _scaled(x: Any, found: tuple[Any, Any, Any, Any], weight: Any, bias: Any, eps: float) -> Any:
    """``x`` with its ``moments`` made 0 and 1, then scaled."""
    _, variance, deviation, offset = found
    if not x.numel():  # no mean either: what is NaN must not reach gradients
        return x * weight + bias
    scale = weight / (variance + eps).sqrt()
    if isinstance(weight, (int, float)) or tuple(weight.shape) == tuple(scale.shape):
        return deviation * scale + (bias - offset * scale)
    # the weight varies along the normalised axes (layer norm): keep what varies per row apart from it
    scale = 1.0 / (variance + eps).sqrt()
    return (deviation * scale - offset * scale) * weight + bias


@operator(
    category="nn",
    numpy=oracles.batch_norm,
    samples=[
        Sample((_X, _C, _C, _C, _C)),
        Sample((Tensor((5, 4)), _C, _C)),
        Sample((_X, None, None, _C, _C), {"training": True}),
    ],
    source="Ioffe and Szegedy 2015",
)
def batch_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = 1,
    bias: Any = 0,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-05,
) -> Any:
    """Normalise each channel (dimension 1) and scale it.

    Args:
        x: ``[batch, channels, ...]``, floating point.
        running_mean, running_var: ``[channels]``; used as they are, or with ``training`` moved by ``momentum`` towards the mean
            and biased variance of ``x``, which are then used. May be ``None`` with ``training``.
        weight, bias: ``[channels]`` or numbers.
        eps: added to the variance.

    Example:
        >>> import metafuse as mf
        >>> y = mf.nn.batch_norm(mf.array([[1.0], [3.0]]), None, None, training=True, eps=0.0)
        >>> y.numpy()
        array([[-1.],
               [ 1.]], dtype=float32)
    """
    x = _float_input("batch_norm", x, 2)
    eps = number("batch_norm", "eps", eps, 0)
    channels = x.shape[1]
    shape = [channels if d == 1 else 1 for d in range(x.ndim)]
    weight = _affine("batch_norm", "weight", weight, channels, shape)
    bias = _affine("batch_norm", "bias", bias, channels, shape)
    if check_flag("batch_norm", "training", training):
        for name, running in (("running_mean", running_mean), ("running_var", running_var)):
            if running is not None and (type(running) is not Var or tuple(running.shape) != (channels,)):
                shown = tuple(running.shape) if type(running) is Var else type(running).__name__
                raise ShapeError(f"[batch_norm] {name} must be a Var of shape ({channels},), got {shown}")
        kept = (running_mean, running_var) if x.numel() else (None, None)
        *moved, y = _train(x, kept[0], kept[1], weight, bias, momentum, eps)
        for running, new in zip([r for r in kept if r is not None], moved, strict=True):
            running._renew(new)
        return y
    if running_mean is None or running_var is None:
        raise ArgumentError(
            "[batch_norm] running_mean and running_var are needed unless training=True, got None"
        )
    mean, variance = (
        _affine("batch_norm", name, check_var("batch_norm", name, running), channels, shape)
        for name, running in (("running_mean", running_mean), ("running_var", running_var))
    )
    mean, variance, wide = (cast(v, accumulator(v.dtype)) for v in (mean, variance, x))
    scale = weight / (variance + eps).sqrt()
    return cast(wide * scale + (bias - mean * scale), answer_type(x.dtype))


def _moved(running: Any, batch: Any, momentum: float) -> Any:
    """A running statistic after another batch."""
    old = cast(running, accumulator(running.dtype))
    fresh = cast(batch.detach().reshape(running.shape), old.dtype)
    return cast(old + (fresh - old) * momentum, running.dtype).stop_grad()


@recorded
def _train(
    x: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any, momentum: float, eps: float
) -> tuple[Any, ...]:
    """``batch_norm`` of a batch in training: the new running statistics, of those that there are, and what comes out.

    The statistics are older than ``y``, so that whoever reads ``y`` has them computed too, and they do not pile up."""
    wide = cast(x, accumulator(x.dtype))
    found = moments(wide, [0, *range(2, x.ndim)])
    pairs = ((running_mean, found[0]), (running_var, found[1]))
    moved = [_moved(running, batch, momentum) for running, batch in pairs if running is not None]
    return *moved, cast(_scaled(wide, found, weight, bias, eps), answer_type(x.dtype))


@operator(
    category="nn",
    numpy=oracles.instance_norm,
    samples=[Sample((_X,)), Sample((_X,), {"weight": _C, "bias": _C, "eps": 1e-3})],
    source="Ulyanov et al. 2016",
)
def instance_norm(
    x: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = 1,
    bias: Any = 0,
    momentum: float = 0.1,
    eps: float = 1e-05,
) -> Any:
    """Normalise each channel of each sample over its spatial dimensions and scale it.

    ``running_mean``, ``running_var`` and ``momentum`` are accepted for the sake of callers and have no effect: the statistics
    are always the sample's own.

    Args:
        x: ``[batch, channels, ...]`` with at least one spatial dimension, floating point.
        weight, bias: ``[channels]`` or numbers.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.instance_norm(mf.array([[[1.0, 3.0]]]), eps=0.0).numpy()
        array([[[-1.,  1.]]], dtype=float32)
    """
    x = _float_input("instance_norm", x, 3)
    eps = number("instance_norm", "eps", eps, 0)
    shape = [x.shape[1] if d == 1 else 1 for d in range(x.ndim)]
    weight = _affine("instance_norm", "weight", weight, x.shape[1], shape)
    bias = _affine("instance_norm", "bias", bias, x.shape[1], shape)
    return normalise(x, list(range(2, x.ndim)), weight, bias, eps)


@operator(
    category="nn",
    numpy=oracles.layer_norm,
    samples=[
        Sample((Tensor((3, 5)), 5)),
        Sample((Tensor((2, 3, 4)), (3, 4), Tensor((3, 4), "float", 0.5, 2.0), Tensor((3, 4)))),
    ],
    source="Ba et al. 2016",
)
@recorded
def layer_norm(
    x: Any,
    normalized_shape: Any,
    weight: Any = 1,
    bias: Any = 0,
    eps: float = 1e-05,
    elementwise_affine: bool = True,
) -> Any:
    """Normalise over the trailing dimensions and scale each element.

    Args:
        x: ``[..., *normalized_shape]``, floating point.
        normalized_shape: an integer or a tuple of integers.
        weight, bias: of shape ``normalized_shape``, or numbers; ignored without ``elementwise_affine``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.layer_norm(mf.array([[1.0, 3.0]]), 2, eps=0.0).numpy()
        array([[-1.,  1.]], dtype=float32)
    """
    x = _float_input("layer_norm", x, 1)
    eps = number("layer_norm", "eps", eps, 0)
    count = len(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else 1
    sizes = integers("layer_norm", "normalized_shape", normalized_shape, count, 1)
    if count == 0 or tuple(x.shape[x.ndim - count :]) != sizes:
        raise ShapeError(f"[layer_norm] x must end in normalized_shape {sizes}, got shape {tuple(x.shape)}")
    size = int(np.prod(sizes))
    if not elementwise_affine:
        weight, bias = 1, 0
    weight = _affine("layer_norm", "weight", weight, size, list(sizes))
    bias = _affine("layer_norm", "bias", bias, size, list(sizes))
    return normalise(x, list(range(x.ndim - count, x.ndim)), weight, bias, eps)


@operator(
    category="nn",
    numpy=oracles.group_norm,
    samples=[Sample((_X, 2)), Sample((_X, 4, _C, _C))],
    source="Wu and He 2018",
)
@recorded
def group_norm(x: Any, num_groups: int, weight: Any = 1, bias: Any = 0, eps: float = 1e-05) -> Any:
    """Normalise groups of channels of each sample and scale each channel.

    Args:
        x: ``[batch, channels, ...]``, floating point.
        num_groups: divides ``channels``.
        weight, bias: ``[channels]`` or numbers.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.group_norm(mf.array([[1.0, 3.0]]), 1, eps=0.0).numpy()
        array([[-1.,  1.]], dtype=float32)
    """
    x = _float_input("group_norm", x, 2)
    eps = number("group_norm", "eps", eps, 0)
    groups = integer("group_norm", "num_groups", num_groups, 1)
    batch, channels = x.shape[:2]
    if channels % groups:
        raise ArgumentError(
            f"[group_norm] num_groups must divide the {channels} channels, got {brief(num_groups)}"
        )
    shape = [1, groups, channels // groups] + [1] * (x.ndim - 2)
    weight = _affine("group_norm", "weight", weight, channels, shape)
    bias = _affine("group_norm", "bias", bias, channels, shape)
    grouped = x.reshape([batch, groups, channels // groups, *x.shape[2:]])
    return normalise(grouped, list(range(2, grouped.ndim)), weight, bias, eps).reshape(x.shape)
