"""Distances and the losses made of them: cosine, pairwise, triplets, margins, Huber.

What it is: compositions of element-wise operators and row sums.
What it is not: losses of classes (``class_loss``) or of single values (``loss``), or layers (``nn.distances``).
Who calls it: users and ``nn``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ShapeError
from ..meta import check_dim, check_flag, check_var
from ..precision import in_float32
from ..registry import Sample, Tensor, operator
from ..scalar import where
from .checks import REDUCTIONS, choice, number
from .loss import reduced

__all__ = [
    "cosine_embedding_loss", "cosine_similarity", "hinge_embedding_loss", "huber_loss", "margin_ranking_loss",
    "pairwise_distance", "triplet_margin_loss",
]  # fmt: skip

_X = Tensor((4, 3))
_Y = Tensor((4, 3), "float", 1.0, 4.0)
_SIGNS = [1, -1, -1, 1]


def _oracle_reduce(loss: Any, reduction: str) -> Any:
    return loss if reduction == "none" else loss.sum() if reduction == "sum" else loss.mean()


def _check(op: str, reduction: Any, **named: Any) -> list[Any]:
    """The reduction is one, and all ``named`` are Vars of one shape."""
    choice(op, "reduction", reduction, REDUCTIONS)
    found = [check_var(op, name, value) for name, value in named.items()]
    for name, v in zip(named, found, strict=True):
        if tuple(v.shape) != tuple(found[0].shape):
            raise ShapeError(
                f"[{op}] {name} must have the shape of {next(iter(named))} {tuple(found[0].shape)}, got {tuple(v.shape)}"
            )
    return found


def _huber(x: Any, y: Any, reduction: str = "mean", delta: float = 1.0) -> Any:
    d = np.abs(x - y)
    return _oracle_reduce(np.where(d <= delta, 0.5 * d * d, delta * (d - 0.5 * delta)), reduction)


@operator(category="nn", numpy=_huber, source="Huber 1964",
          samples=[Sample((_X, _X)), Sample((_X, _X, "sum", 0.5)), Sample((_X, _X, "none"))])  # fmt: skip
@in_float32
def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Any:
    """Half the squared difference up to ``delta`` > 0, from there on ``delta * (|difference| - delta / 2)``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.huber_loss(mf.array([0.0, 0.0]), mf.array([1.0, 3.0])).item()
        1.5
    """
    delta = number("huber_loss", "delta", delta, 0, True)
    input, target = _check("huber_loss", reduction, input=input, target=target)
    d = (input - target).abs()
    return reduced(where(d <= delta, d * d * 0.5, (d - 0.5 * delta) * delta), reduction)


def _cosine(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    lengths = [np.maximum(np.sqrt((x * x).sum(dim)), eps) for x in (x1, x2)]
    return (x1 * x2).sum(dim) / (lengths[0] * lengths[1])


@operator(category="nn", numpy=_cosine, source="x1 . x2 / (|x1| |x2|)",
          samples=[Sample((_X, _Y)), Sample((Tensor((2, 3, 4)), Tensor((2, 3, 4)), 2))])  # fmt: skip
@in_float32
def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """The cosine of the angle between vectors along ``dim``; lengths count as at least ``eps``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.cosine_similarity(mf.array([[2.0, 0.0]]), mf.array([[3.0, 0.0]])).item()
        1.0
    """
    x1, x2 = _check("cosine_similarity", "none", x1=x1, x2=x2)
    axis = check_dim("cosine_similarity", dim, x1.ndim)
    least = number("cosine_similarity", "eps", eps) ** 2
    squares = [(x * x).sum(axis).maximum(least) for x in (x1, x2)]
    return (x1 * x2).sum(axis) / (squares[0].sqrt() * squares[1].sqrt())


def _distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    return (np.abs(x1 - x2 + eps) ** p).sum(-1, keepdims=keepdim) ** (1 / p)


@operator(category="nn", numpy=_distance, source="|x1 - x2 + eps|_p",
          samples=[Sample((_X, _Y)), Sample((_X, _Y, 1.0)), Sample((_X, _Y, 3.0), {"keepdim": True})])  # fmt: skip
@in_float32
def pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    """The ``p``-norm of ``x1 - x2 + eps`` along the last dimension; ``eps`` keeps the gradient finite where both are equal.

    Example:
        >>> import metafuse as mf
        >>> round(mf.nn.pairwise_distance(mf.array([[0.0, 0.0]]), mf.array([[3.0, 4.0]])).item(), 4)
        5.0
    """
    x1, x2 = _check("pairwise_distance", "none", x1=x1, x2=x2)
    p = number("pairwise_distance", "p", p, 0, True)
    d = (x1 - x2 + number("pairwise_distance", "eps", eps)).abs()
    if p == 1:
        return d.sum(-1, keepdims=keepdim)
    if p == 2:
        return (d * d).sum(-1, keepdims=keepdim).sqrt()
    return (d**p).sum(-1, keepdims=keepdim) ** (1.0 / p)


def _cosine_embedding(x1: Any, x2: Any, target: Any, margin: float = 0.0, reduction: str = "mean") -> Any:
    cosine = _cosine(x1, x2)
    loss = np.where(np.asarray(target) == 1, 1 - cosine, np.maximum(cosine - margin, 0))
    return _oracle_reduce(loss, reduction)


@operator(category="nn", numpy=_cosine_embedding, source="cosine embedding loss",
          samples=[Sample((_X, _Y, _SIGNS)), Sample((_X, _Y, _SIGNS, -0.9, "none"))])  # fmt: skip
@in_float32
def cosine_embedding_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean"
) -> Any:
    """``1 - cosine`` of rows that belong together (``target`` 1), else how far the cosine exceeds ``margin``.

    Args:
        input1, input2: ``[batch, features]``.
        target: ``[batch]``, 1 or -1.

    Example:
        >>> import metafuse as mf
        >>> x = mf.array([[1.0, 0.0]])
        >>> mf.nn.cosine_embedding_loss(x, x, mf.array([-1])).item()
        1.0
    """
    margin = number("cosine_embedding_loss", "margin", margin)
    input1, input2 = _check("cosine_embedding_loss", reduction, input1=input1, input2=input2)
    target = check_var("cosine_embedding_loss", "target", target)
    cosine = cosine_similarity(input1, input2, -1)
    if tuple(target.shape) != tuple(cosine.shape):
        raise ShapeError(
            f"[cosine_embedding_loss] target must have shape {tuple(cosine.shape)}, got {tuple(target.shape)}"
        )
    return reduced(where(target == 1, 1.0 - cosine, (cosine - margin).maximum(0.0)), reduction)


def _triplet(a: Any, b: Any, c: Any, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False,
             reduction: str = "mean") -> Any:  # fmt: skip
    far = _distance(a, c, p, eps)
    far = np.minimum(far, _distance(b, c, p, eps)) if swap else far
    return _oracle_reduce(np.maximum(_distance(a, b, p, eps) - far + margin, 0), reduction)


@operator(category="nn", numpy=_triplet, source="Balntas et al. 2016", samples=[
    Sample((_X, _X, _X)), Sample((_X, _X, _Y), {"margin": 5.0, "swap": True, "reduction": "none"}),
])  # fmt: skip
@in_float32
def triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Any:
    """How far ``positive`` is from being nearer to ``anchor`` than ``negative`` by ``margin``; rows of the last dimension.

    ``swap``: the negative's distance is the smaller one of those to anchor and positive.

    Example:
        >>> import metafuse as mf
        >>> a = mf.zeros([1, 2])
        >>> round(mf.nn.triplet_margin_loss(a, a, a).item(), 4)
        1.0
    """
    anchor, positive, negative = _check(
        "triplet_margin_loss", reduction, anchor=anchor, positive=positive, negative=negative
    )
    far = pairwise_distance(anchor, negative, p, eps)
    if check_flag("triplet_margin_loss", "swap", swap):
        far = far.minimum(pairwise_distance(positive, negative, p, eps))
    margin = number("triplet_margin_loss", "margin", margin)
    return reduced((pairwise_distance(anchor, positive, p, eps) - far + margin).maximum(0.0), reduction)


def _ranking(x1: Any, x2: Any, target: Any, margin: float = 0.0, reduction: str = "mean") -> Any:
    return _oracle_reduce(np.maximum(-np.asarray(target) * (x1 - x2) + margin, 0), reduction)


@operator(category="nn", numpy=_ranking, source="margin ranking loss", samples=[
    Sample((Tensor((4,)), Tensor((4,)), _SIGNS)), Sample((Tensor((4,)), Tensor((4,)), _SIGNS, 0.5, "sum")),
])  # fmt: skip
@in_float32
def margin_ranking_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean"
) -> Any:
    """``max(0, -target * (input1 - input2) + margin)``: ``target`` 1 wants the first larger, -1 the second.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.margin_ranking_loss(mf.array([1.0]), mf.array([3.0]), mf.array([1])).item()
        2.0
    """
    margin = number("margin_ranking_loss", "margin", margin)
    input1, input2, target = _check(
        "margin_ranking_loss", reduction, input1=input1, input2=input2, target=target
    )
    return reduced((-(target.cast(input1.dtype) * (input1 - input2)) + margin).maximum(0.0), reduction)


def _hinge(x: Any, target: Any, margin: float = 1.0, reduction: str = "mean") -> Any:
    return _oracle_reduce(np.where(np.asarray(target) == 1, x, np.maximum(margin - x, 0)), reduction)


@operator(category="nn", numpy=_hinge, source="hinge embedding loss", samples=[
    Sample((Tensor((4,)), _SIGNS)), Sample((Tensor((4,)), _SIGNS, 2.5, "none")),
])  # fmt: skip
@in_float32
def hinge_embedding_loss(input: Any, target: Any, margin: float = 1.0, reduction: str = "mean") -> Any:
    """``input`` (a distance) where ``target`` is 1, ``max(0, margin - input)`` where it is -1.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.hinge_embedding_loss(mf.array([0.25, 0.25]), mf.array([1, -1])).item()
        0.5
    """
    margin = number("hinge_embedding_loss", "margin", margin)
    input, target = _check("hinge_embedding_loss", reduction, input=input, target=target)
    return reduced(where(target == 1, input, (margin - input).maximum(0.0)), reduction)
