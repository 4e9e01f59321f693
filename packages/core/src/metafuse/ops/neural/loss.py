"""Losses of values: how far outputs are from what they should be.

What it is: compositions of element-wise operators and reductions.
What it is not: losses of classes (``class_loss``), of distances (``distances``), or layers (``nn.losses``).
Who calls it: users and ``nn.losses``; its ways to reduce serve all losses.
"""

from __future__ import annotations

from typing import Any

from ...errors import ArgumentError, ShapeError
from ..meta import check_flag, check_var
from ..precision import in_float32
from ..recipe import recorded
from ..registry import Sample, Tensor, operator
from ..scalar import where
from ..telling import tells
from . import oracles
from .activation import log_sigmoid
from .checks import REDUCTIONS, choice, number

__all__ = [
    "bce_loss",
    "binary_cross_entropy_with_logits",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "smooth_l1_loss",
]

_X = Tensor((4, 3))
_P = Tensor((4, 3), "float", 0.1, 0.9)


def reduction_name(op: str, reduction: Any) -> str:
    """``"mean"``, ``"sum"`` or ``"none"``, which ``None`` means too."""
    return "none" if reduction is None else choice(op, "reduction", reduction, REDUCTIONS)


def reduced(loss: Any, reduction: str) -> Any:
    """The mean or sum of a loss, or the loss as it is."""
    return loss if reduction == "none" else loss.sum() if reduction == "sum" else loss.mean()


def _pair(op: str, a_name: str, a: Any, b_name: str, b: Any) -> tuple[Any, Any]:
    """Two Vars of one shape."""
    a, b = check_var(op, a_name, a), check_var(op, b_name, b)
    if a.shape != b.shape:
        raise ShapeError(
            f"[{op}] {a_name} and {b_name} must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return a, b


@operator(
    category="nn",
    numpy=oracles.mse_loss,
    samples=[Sample((_X, _X)), Sample((_X, _X), {"reduction": "none"})],
    source="mean of squared differences",
)
@recorded
@in_float32
def mse_loss(output: Any, target: Any, reduction: str = "mean") -> Any:
    """Squared difference, reduced by ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.mse_loss(mf.array([1.0, 2.0]), mf.array([1.0, 4.0])).item()
        2.0
    """
    reduction = reduction_name("mse_loss", reduction)
    output, target = _pair("mse_loss", "output", output, "target", target)
    return reduced((output - target).sqr(), reduction)


@operator(
    category="nn",
    numpy=oracles.l1_loss,
    samples=[
        Sample((_X, Tensor((4, 3), "float", 4.0, 6.0))),
        Sample((_X, Tensor((4, 3), "float", 4.0, 6.0), "sum")),
        Sample((_X, Tensor((4, 3), "float", -6.0, -4.0)), {"reduction": "none"}),
    ],
    source="mean of |x - y|",
)
@in_float32
def l1_loss(output: Any, target: Any, reduction: str = "mean") -> Any:
    """Absolute difference, reduced by ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.l1_loss(mf.array([1.0, 2.0]), mf.array([1.0, 4.0])).item()
        1.0
    """
    reduction = reduction_name("l1_loss", reduction)
    output, target = _pair("l1_loss", "output", output, "target", target)
    return reduced((output - target).abs(), reduction)


@operator(
    category="nn",
    numpy=oracles.smooth_l1_loss,
    samples=[
        Sample((_X, _X)),
        Sample((_X, _X), {"reduction": "sum"}),
        Sample((_X, _X, "none", 0.25)),
        Sample((_X, Tensor((4, 3), "float", 4.0, 6.0)), {"beta": 0.0}),
    ],
    source="Girshick 2015",
)
@in_float32
def smooth_l1_loss(y_true: Any, y_pred: Any, reduction: str = "mean", beta: float = 1.0) -> Any:
    """Half the squared difference over ``beta`` where the difference is below ``beta``, else the difference minus ``beta / 2``.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        beta: >= 0; with 0 it is the absolute difference everywhere.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.smooth_l1_loss(mf.array([0.0, 0.0]), mf.array([1.0, 3.0])).item()
        1.5
    """
    reduction = reduction_name("smooth_l1_loss", reduction)
    y_true, y_pred = _pair("smooth_l1_loss", "y_true", y_true, "y_pred", y_pred)
    beta = number("smooth_l1_loss", "beta", beta, 0)
    distance = (y_true - y_pred).abs()
    if beta:
        distance = where(distance < beta, distance.sqr() * (0.5 / beta), distance - 0.5 * beta)
    return reduced(distance, reduction)


def _weighted(op: str, loss: Any, weight: Any, size_average: bool, reduction: Any) -> Any:
    """A loss times ``weight``, reduced as ``reduction`` says, or ``size_average`` where there is none."""
    loss = loss if weight is None else loss * check_var(op, "weight", weight)
    averaged = check_flag(op, "size_average", size_average)
    usual = "mean" if averaged else "sum"
    return reduced(loss, usual if reduction is None else choice(op, "reduction", reduction, REDUCTIONS))


@operator(
    category="nn",
    numpy=oracles.bce_loss,
    samples=[Sample((_P, _P)), Sample((_P, _P, _P, False)), Sample((_P, _P), {"reduction": "none"})],
    source="cross entropy",
)
@tells
@in_float32
def bce_loss(
    output: Any, target: Any, weight: Any = None, size_average: bool = True, reduction: str | None = None
) -> Any:
    """Binary cross entropy of probabilities ``output`` against ``target`` in [0, 1]; mean, or sum without ``size_average``.

    Logarithms are limited to those of 1e-20, so that a probability of exactly 0 or 1 gives a large finite loss.

    Args:
        weight: factor of each element; broadcasts.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``; goes before ``size_average``.

    Example:
        >>> import metafuse as mf
        >>> round(mf.nn.bce_loss(mf.array([0.5]), mf.array([1.0])).item(), 4)
        0.6931
    """
    output, target = _pair("bce_loss", "output", output, "target", target)
    loss = target * output.maximum(1e-20).log() + (1.0 - target) * (1.0 - output).maximum(1e-20).log()
    return _weighted("bce_loss", -loss, weight, size_average, reduction)


@operator(
    category="nn",
    numpy=oracles.binary_cross_entropy_with_logits,
    samples=[
        Sample((_X, _P)),
        Sample((_X, _P, _P, Tensor((3,), "float", 0.5, 2.0), False)),
        Sample((_X, _P, _P), {"reduction": "none"}),
    ],
    source="cross entropy of sigmoid",
)
@tells
@in_float32
def binary_cross_entropy_with_logits(
    output: Any,
    target: Any,
    weight: Any = None,
    pos_weight: Any = None,
    size_average: bool = True,
    reduction: str | None = None,
) -> Any:
    """Binary cross entropy of ``sigmoid(output)`` against ``target``, computed without overflow.

    Args:
        output: logits.
        target: of the same shape, in [0, 1].
        weight: factor of each element; broadcasts.
        pos_weight: factor of the positive part; broadcasts.
        size_average: mean, else sum.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``; goes before ``size_average``.

    Example:
        >>> import metafuse as mf
        >>> round(mf.nn.binary_cross_entropy_with_logits(mf.array([0.0]), mf.array([1.0])).item(), 4)
        0.6931
    """
    output, target = _pair("binary_cross_entropy_with_logits", "output", output, "target", target)
    tail = -log_sigmoid(output)
    if pos_weight is None:
        loss = (1.0 - target) * output + tail
    else:
        pos_weight = check_var("binary_cross_entropy_with_logits", "pos_weight", pos_weight)
        loss = (1.0 - target) * output + ((pos_weight - 1.0) * target + 1.0) * tail
    return _weighted("binary_cross_entropy_with_logits", loss, weight, size_average, reduction)


@operator(
    category="nn",
    numpy=oracles.kl_div,
    samples=[Sample((_X, _P)), Sample((_X, _X, "batchmean", True)), Sample((_X, _P, "sum"))],
    source="Kullback-Leibler divergence",
)
@in_float32
def kl_div(input: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Any:
    """``target * (log(target) - input)``, ``input`` being log probabilities.

    Args:
        target: probabilities, or their logarithms with ``log_target``.
        reduction: ``"mean"``, ``"batchmean"`` (sum over dimension 0's extent), ``"sum"`` or ``"none"``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.kl_div(mf.array([-1.0]), mf.array([-1.0]), log_target=True).item()
        0.0
    """
    if not isinstance(reduction, str) or reduction != "batchmean":
        reduction = reduction_name("kl_div", reduction)
    input, target = _pair("kl_div", "input", input, "target", target)
    if check_flag("kl_div", "log_target", log_target):
        loss = target.exp() * (target - input)
    else:  # the limit of t*log(t) at 0 is 0
        positive = target > 0
        loss = where(positive, target * where(positive, target, 1.0).log(), 0.0) - target * input
    if reduction == "batchmean":
        if not input.ndim:
            raise ArgumentError("[kl_div] reduction 'batchmean' needs a batch dimension, got shape ()")
        return loss.sum() / input.shape[0]
    return reduced(loss, reduction)
