"""Losses of classes: how improbable outputs make the right one.

What it is: compositions of element-wise operators and reductions. A class is picked by reading its one element; the gradient
of that compares an index with the target, so that it is a map too (softmax minus one-hot) and never a scatter.
What it is not: losses of values (``loss``) or layers (``nn.losses``).
Who calls it: users and ``nn.losses``.
"""

from __future__ import annotations

from math import prod
from typing import Any

from ...errors import ArgumentError, DTypeError, ShapeError
from ...var import wrap
from ..autograd import no_grad
from ..meta import check_var, fill, index, with_gradient
from ..precision import in_float32
from ..recipe import recorded
from ..registry import Sample, Tensor, operator
from ..scalar import where
from . import oracles
from .activation import softmax
from .checks import LIMIT, fraction, integer
from .loss import reduced, reduction_name

__all__ = ["cross_entropy_loss", "nll_loss"]

_X, _T = Tensor((4, 3)), Tensor((4,), "int32", 0, 2)
_P = Tensor((4, 3), "float", 0.1, 0.9)


def _logits(op: str, output: Any, weight: Any) -> Any:
    """``[batch, classes, ...]``, which a single sample's ``[classes]`` becomes; also checks the importance of classes."""
    output = check_var(op, "output", output)
    if output.ndim < 1 or not output.dtype.is_float:
        raise ShapeError(
            f"[{op}] output must be floating point [batch, classes, ...], got {output.dtype} {tuple(output.shape)}"
        )
    output = output.unsqueeze(0) if output.ndim == 1 else output
    if weight is not None:
        shape = tuple(check_var(op, "weight", weight).shape)
        if shape != (output.shape[1],):
            raise ShapeError(f"[{op}] weight must have shape ({output.shape[1]},), got {shape}")
    return output


def _numbers(op: str, output: Any, target: Any, more: str = "") -> Any:
    """Class numbers in the shape ``[batch, ...]`` that belongs to ``output``. ``more``: what the target may be besides."""
    if target.dtype.is_float or target.dtype.kind == "b":
        raise DTypeError(
            f"[{op}] target must hold class numbers as integers{more}, got {target.dtype} {tuple(target.shape)}; "
            "cast class numbers with .int32()"
        )
    places = [output.shape[0], *output.shape[2:]]
    if target.numel() != prod(places):
        raise ShapeError(
            f"[{op}] target must have shape {places} for output {tuple(output.shape)}, got {tuple(target.shape)}"
        )
    return target.reshape(places)


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


def _expected(logs: Any, wanted: Any, weight: Any, reduction: str, smoothing: float) -> Any:
    """Minus the log probabilities that are expected under the distributions ``wanted`` along dimension 1. A mean counts all
    places alike, whatever the importance of their classes."""
    wanted = wanted.cast(logs.dtype)
    if smoothing:
        wanted = wanted * (1.0 - smoothing) + smoothing / logs.shape[1]
    return reduced(-((wanted if weight is None else wanted * _spread(logs, weight)) * logs).sum(1), reduction)


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
        Sample((_X, _P)),
        Sample((_X, _P, Tensor((3,), "float", 0.5, 2.0)), {"label_smoothing": 0.2, "reduction": "none"}),
        Sample((Tensor((2, 3, 2, 1)), Tensor((2, 3, 2, 1), "float", 0.1, 0.9)), {"reduction": "sum"}),
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
        output: logits ``[batch, classes]`` or ``[batch, classes, ...]``; ``[classes]`` of a single sample.
        target: integers, ``[batch]`` or ``[batch, ...]``; a number outside 0..classes-1 picks no class. Or floating point
            numbers in the shape of ``output``: the probability of each class, as mixed or soft labels have it.
        weight: ``[classes]``: the importance of each class. A mean is then a weighted mean, but for probabilities the mean
            over places.
        ignore_index: targets of this value do not count; for class numbers only.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_smoothing: in [0, 1]: which share of the target's probability is spread evenly over all classes (Szegedy et
            al. 2016); with ``weight`` each class has its own importance there too.

    Example:
        >>> import metafuse as mf
        >>> round(mf.nn.cross_entropy_loss(mf.zeros([2, 4]), mf.array([0, 3])).item(), 4)
        1.3863
        >>> round(mf.nn.cross_entropy_loss(mf.zeros([1, 4]), mf.array([[0.5, 0.5, 0.0, 0.0]])).item(), 4)
        1.3863
    """
    reduction = reduction_name("cross_entropy_loss", reduction)
    smoothing = fraction("cross_entropy_loss", "label_smoothing", label_smoothing)
    target = check_var("cross_entropy_loss", "target", target)
    given = check_var("cross_entropy_loss", "output", output).shape
    output = _logits("cross_entropy_loss", output, weight)
    logs = softmax(output, 1, True)
    if target.dtype.is_float and target.shape == given:
        if (
            ignore_index is not None
            and integer("cross_entropy_loss", "ignore_index", ignore_index, -LIMIT) >= 0
        ):
            raise ArgumentError(
                f"[cross_entropy_loss] ignore_index is for class numbers, got {ignore_index} with a target of "
                f"probabilities {tuple(target.shape)}; leave it out, and mask the loss of reduction='none'"
            )
        return _expected(logs, target.reshape(output.shape), weight, reduction, smoothing)
    more = f", or probabilities in the output's shape {tuple(given)}"
    numbers = _numbers("cross_entropy_loss", output, target, more)
    return _pick(logs, numbers, weight, ignore_index, reduction, target.shape, smoothing)


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
    reduction = reduction_name("nll_loss", reduction)
    target = check_var("nll_loss", "target", target)
    output = _logits("nll_loss", output, weight)
    numbers = _numbers("nll_loss", output, target)
    return _pick(output, numbers, weight, ignore_index, reduction, target.shape)
