"""Losses: how far outputs are from targets.

What it is: compositions of element-wise operators and reductions. A class is picked by reading its one element; the gradient
of that compares an index with the target, so that it is a map too (softmax minus one-hot) and never a scatter.
What it is not: loss layers (``nn.losses``).
Who calls it: users and ``nn.losses``.
"""

from __future__ import annotations

from math import prod
from typing import Any

from ...errors import ArgumentError, DTypeError, ShapeError
from ...var import wrap
from ..autograd import no_grad
from ..meta import check_flag, check_var, fill, index, with_gradient
from ..precision import in_float32
from ..recipe import recorded
from ..registry import Sample, Tensor, operator
from ..scalar import where
from . import oracles
from .activation import log_sigmoid, softmax
from .checks import choice, fraction

__all__ = [
    "bce_loss",
    "binary_cross_entropy_with_logits",
    "cross_entropy_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "nll_loss",
    "smooth_l1_loss",
]

_REDUCTIONS = ("mean", "sum", "none")
_X, _T = Tensor((4, 3)), Tensor((4,), "int32", 0, 2)
_P = Tensor((4, 3), "float", 0.1, 0.9)


def _reduction(op: str, reduction: Any) -> str:
    return "none" if reduction is None else choice(op, "reduction", reduction, _REDUCTIONS)


def _reduce(loss: Any, reduction: str) -> Any:
    return loss if reduction == "none" else loss.sum() if reduction == "sum" else loss.mean()


def _pair(op: str, a_name: str, a: Any, b_name: str, b: Any) -> tuple[Any, Any]:
    """Two Vars of one shape."""
    a, b = check_var(op, a_name, a), check_var(op, b_name, b)
    if a.shape != b.shape:
        raise ShapeError(
            f"[{op}] {a_name} and {b_name} must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return a, b


def _classes(op: str, output: Any, target: Any, weight: Any) -> tuple[Any, Any]:
    """Check ``[batch, classes, ...]`` against ``[batch, ...]``; answer output and the target in that shape."""
    output, target = check_var(op, "output", output), check_var(op, "target", target)
    if output.ndim < 2 or not output.dtype.is_float:
        raise ShapeError(
            f"[{op}] output must be floating point [batch, classes, ...], got {output.dtype} {tuple(output.shape)}"
        )
    if target.dtype.is_float or target.dtype.kind == "b":
        raise DTypeError(
            f"[{op}] target must hold class numbers as integers, got {target.dtype}; cast it with .int32()"
        )
    places = [output.shape[0], *output.shape[2:]]
    if target.numel() != prod(places):
        raise ShapeError(
            f"[{op}] target must have shape {places} for output {tuple(output.shape)}, got {tuple(target.shape)}"
        )
    if weight is not None:
        shape = tuple(check_var(op, "weight", weight).shape)
        if shape != (output.shape[1],):
            raise ShapeError(f"[{op}] weight must have shape ({output.shape[1]},), got {shape}")
    return output, target.reshape(places)


def _chosen(values: Any, target: Any) -> Any:
    """``values[n, target[n, ...], ...]``, 0 where the target is no class: read forward, compared backward."""
    rest = [f"i{d}" for d in range(1, target.ndim)]
    with no_grad():
        picked = values.reindex(
            list(target.shape), ["i0", f"@e0({','.join(['i0', *rest])})", *rest], 0.0, [], [target]
        )
    return with_gradient(picked, [values, target], "pick_class", None, _chosen_gradient)


def _chosen_gradient(node: Any, upstream: Any) -> list[Any]:
    values, target = wrap(node.inputs[1]), wrap(node.inputs[2])
    chosen = index(values.shape, 1) == target.broadcast(values.shape, [1])
    return [None, where(chosen, upstream.broadcast(values.shape, [1]), 0.0), None]


def _scale(logs: Any, target: Any, weight: Any, ignore_index: int | None) -> Any:
    """How much each target counts; ``None``: all count alike."""
    if weight is None and ignore_index is None:
        return None
    if weight is None:
        return where(_counts(logs, target, ignore_index), fill(tuple(target.shape), 1, logs.dtype), 0.0)
    scale = _chosen(_spread(logs, weight), target)
    return scale if ignore_index is None else where(target == ignore_index, 0.0, scale)


def _counts(logs: Any, target: Any, ignore_index: int | None) -> Any:
    """Whether a target is a class, and one that is not to be ignored."""
    a_class = (target >= 0) & (target < logs.shape[1])
    return a_class if ignore_index is None else a_class & (target != ignore_index)


def _spread(logs: Any, weight: Any) -> Any:
    """The importance of classes under the shape of ``logs``."""
    return check_var("nll_loss", "weight", weight).broadcast(logs.shape, [0, *range(2, logs.ndim)])


def _pick(
    logs: Any,
    target: Any,
    weight: Any,
    ignore_index: int | None,
    reduction: str,
    shape: Any,
    smoothing: float = 0.0,
) -> Any:
    """Minus the log probability of each target class, weighted and reduced; a share ``smoothing`` of it is that of the mean
    over all classes."""
    loss = -_chosen(logs, target)
    scale = _scale(logs, target, weight, ignore_index)
    if scale is not None:
        loss = loss * scale
    if smoothing:
        every = (logs if weight is None else logs * _spread(logs, weight)).sum(1)
        every = where(_counts(logs, target, ignore_index), every, 0.0)
        loss = loss * (1.0 - smoothing) - every * (smoothing / logs.shape[1])
    if reduction == "mean":
        return loss.mean() if scale is None else loss.sum() / scale.sum()
    return loss.sum() if reduction == "sum" else loss.reshape(shape)


@operator(
    category="nn",
    numpy=oracles.cross_entropy_loss,
    samples=[
        Sample((_X, _T)),
        Sample((_X, _T), {"reduction": "none"}),
        Sample((_X, _T), {"reduction": "sum", "weight": Tensor((3,), "float", 0.5, 2.0)}),
        Sample((Tensor((2, 3, 2, 2)), Tensor((2, 2, 2), "int32", 0, 2)), {"ignore_index": 1}),
        Sample((_X, _T), {"label_smoothing": 0.2}),
        Sample(
            (Tensor((2, 3, 2, 1)), Tensor((2, 2, 1), "int32", 0, 2), Tensor((3,), "float", 0.5, 2.0), 1),
            {"label_smoothing": 0.3},
        ),
    ],
    source="negative log-likelihood of softmax",
)
@recorded
@in_float32
def cross_entropy_loss(
    output: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Minus the logarithm of the softmax probability of the target class.

    Args:
        output: logits ``[batch, classes]`` or ``[batch, classes, ...]``.
        target: integers, ``[batch]`` or ``[batch, ...]``; a number outside 0..classes-1 picks no class.
        weight: ``[classes]``: the importance of each class. A mean is then a weighted mean.
        ignore_index: targets of this value do not count.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_smoothing: in [0, 1]: which share of the target's probability is spread evenly over all classes (Szegedy et
            al. 2016); with ``weight`` each class has its own importance there too.

    Example:
        >>> import metafuse as mf
        >>> round(mf.nn.cross_entropy_loss(mf.zeros([2, 4]), mf.array([0, 3])).item(), 4)
        1.3863
    """
    reduction = _reduction("cross_entropy_loss", reduction)
    smoothing = fraction("cross_entropy_loss", "label_smoothing", label_smoothing)
    given = target
    output, target = _classes("cross_entropy_loss", output, target, weight)
    return _pick(softmax(output, 1, True), target, weight, ignore_index, reduction, given.shape, smoothing)


@operator(
    category="nn",
    numpy=oracles.nll_loss,
    samples=[
        Sample((_X, _T)),
        Sample((_X, _T), {"ignore_index": 0, "weight": Tensor((3,), "float", 0.5, 2.0)}),
    ],
    source="negative log-likelihood",
)
@recorded
@in_float32
def nll_loss(
    output: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
) -> Any:
    """Minus the log probability of the target class, ``output`` being log probabilities; arguments as in
    ``cross_entropy_loss``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.nll_loss(mf.array([[-1.0, -2.0]]), mf.array([1])).item()
        2.0
    """
    reduction = _reduction("nll_loss", reduction)
    given = check_var("nll_loss", "target", target)
    output, target = _classes("nll_loss", output, target, weight)
    return _pick(output, target, weight, ignore_index, reduction, given.shape)


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
    reduction = _reduction("mse_loss", reduction)
    output, target = _pair("mse_loss", "output", output, "target", target)
    return _reduce((output - target).sqr(), reduction)


@operator(
    category="nn",
    numpy=oracles.l1_loss,
    samples=[Sample((_X, Tensor((4, 3), "float", 4.0, 6.0)))],
    source="mean of |x - y|",
)
@in_float32
def l1_loss(output: Any, target: Any) -> Any:
    """Mean absolute difference.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.l1_loss(mf.array([1.0, 2.0]), mf.array([1.0, 4.0])).item()
        1.0
    """
    output, target = _pair("l1_loss", "output", output, "target", target)
    return (output - target).abs().mean()


@operator(
    category="nn",
    numpy=oracles.smooth_l1_loss,
    samples=[Sample((_X, _X)), Sample((_X, _X), {"reduction": "sum"})],
    source="Girshick 2015",
)
@in_float32
def smooth_l1_loss(y_true: Any, y_pred: Any, reduction: str = "mean") -> Any:
    """Half the squared difference where it is below 1, else the absolute difference minus one half.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.smooth_l1_loss(mf.array([0.0, 0.0]), mf.array([1.0, 3.0])).item()
        1.5
    """
    reduction = _reduction("smooth_l1_loss", reduction)
    y_true, y_pred = _pair("smooth_l1_loss", "y_true", y_true, "y_pred", y_pred)
    distance = (y_true - y_pred).abs()
    return _reduce(where(distance < 1, distance.sqr() * 0.5, distance - 0.5), reduction)


def _weighted(op: str, loss: Any, weight: Any, size_average: bool) -> Any:
    loss = loss if weight is None else loss * check_var(op, "weight", weight)
    return loss.mean() if check_flag(op, "size_average", size_average) else loss.sum()


@operator(
    category="nn",
    numpy=oracles.bce_loss,
    samples=[Sample((_P, _P)), Sample((_P, _P, _P, False))],
    source="cross entropy",
)
@in_float32
def bce_loss(output: Any, target: Any, weight: Any = None, size_average: bool = True) -> Any:
    """Binary cross entropy of probabilities ``output`` against ``target`` in [0, 1]; mean, or sum without ``size_average``.

    Logarithms are limited to those of 1e-20, so that a probability of exactly 0 or 1 gives a large finite loss.

    Example:
        >>> import metafuse as mf
        >>> round(mf.nn.bce_loss(mf.array([0.5]), mf.array([1.0])).item(), 4)
        0.6931
    """
    output, target = _pair("bce_loss", "output", output, "target", target)
    loss = target * output.maximum(1e-20).log() + (1.0 - target) * (1.0 - output).maximum(1e-20).log()
    return _weighted("bce_loss", -loss, weight, size_average)


@operator(
    category="nn",
    numpy=oracles.binary_cross_entropy_with_logits,
    samples=[Sample((_X, _P)), Sample((_X, _P, _P, Tensor((3,), "float", 0.5, 2.0), False))],
    source="cross entropy of sigmoid",
)
@in_float32
def binary_cross_entropy_with_logits(
    output: Any, target: Any, weight: Any = None, pos_weight: Any = None, size_average: bool = True
) -> Any:
    """Binary cross entropy of ``sigmoid(output)`` against ``target``, computed without overflow.

    Args:
        output: logits.
        target: of the same shape, in [0, 1].
        weight: factor of each element; broadcasts.
        pos_weight: factor of the positive part; broadcasts.
        size_average: mean, else sum.

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
    return _weighted("binary_cross_entropy_with_logits", loss, weight, size_average)


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
        reduction = _reduction("kl_div", reduction)
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
    return _reduce(loss, reduction)
