"""Layers of distances and the losses made of them.

What it is: modules that keep the options of a distance or loss.
What it is not: the computation (``ops.neural.distances``).
Who calls it: users.
"""

from __future__ import annotations

from typing import Any

from ..errors import ArgumentError, brief
from ..ops import neural
from ..ops.meta import check_flag
from ..ops.neural.checks import REDUCTIONS, choice, plain
from .module import Module

__all__ = [
    "CosineEmbeddingLoss", "CosineSimilarity", "HingeEmbeddingLoss", "HuberLoss", "MarginRankingLoss",
    "PairwiseDistance", "TripletMarginLoss",
]  # fmt: skip


class CosineSimilarity(Module):
    """The cosine of the angle between vectors along ``dim``; lengths count as at least ``eps``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.CosineSimilarity()(mf.array([[1.0, 0.0]]), mf.array([[2.0, 0.0]])).tolist()
        [1.0]

    Source: x1 . x2 / (|x1| |x2|).
    """

    _shown = ("dim", "eps")

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        self.dim = dim
        self.eps = plain("CosineSimilarity", "eps", eps)

    def execute(self, x1: Any, x2: Any) -> Any:
        return neural.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """The ``p``-norm of ``x1 - x2 + eps`` along the last dimension.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.PairwiseDistance()(mf.array([[0.0, 0.0]]), mf.array([[3.0, 4.0]])).numpy().round(3)
        array([5.], dtype=float32)

    Source: |x1 - x2 + eps|_p.
    """

    _shown = ("p", "eps", "keepdim")

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        self.p = plain("PairwiseDistance", "p", p)
        if p <= 0:
            raise ArgumentError(f"[PairwiseDistance] p must be > 0, got {brief(p)}")
        self.eps = plain("PairwiseDistance", "eps", eps)
        self.keepdim = check_flag(type(self).__name__, "keepdim", keepdim)

    def execute(self, x1: Any, x2: Any) -> Any:
        return neural.pairwise_distance(x1, x2, self.p, self.eps, self.keepdim)


class HuberLoss(Module):
    """Half the squared difference up to ``delta``, from there on linear.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.HuberLoss()(mf.array([1.0, 2.0]), mf.array([1.0, 4.0])).item()
        0.75

    Source: Huber 1964.
    """

    _shown = ("reduction", "delta")

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        self.reduction = choice("HuberLoss", "reduction", reduction, REDUCTIONS)
        self.delta = plain("HuberLoss", "delta", delta)
        if delta <= 0:
            raise ArgumentError(f"[HuberLoss] delta must be > 0, got {brief(delta)}")

    def execute(self, input: Any, target: Any) -> Any:
        return neural.huber_loss(input, target, self.reduction, self.delta)


class _MarginLoss(Module):
    """What losses with a margin share."""

    _shown = ("margin", "reduction")
    _margin = 0.0

    def __init__(self, margin: float | None = None, reduction: str = "mean") -> None:
        kind = type(self).__name__
        self.margin = plain(kind, "margin", self._margin if margin is None else margin)
        self.reduction = choice(kind, "reduction", reduction, REDUCTIONS)


class CosineEmbeddingLoss(_MarginLoss):
    """``1 - cosine`` of rows that belong together (target 1), else how far the cosine exceeds ``margin`` (0).

    Example:
        >>> import metafuse as mf
        >>> mf.nn.CosineEmbeddingLoss()(mf.array([[1.0, 0.0]]), mf.array([[0.0, 1.0]]), mf.array([1])).item()
        1.0

    Source: cosine embedding loss.
    """

    def execute(self, input1: Any, input2: Any, target: Any) -> Any:
        return neural.cosine_embedding_loss(input1, input2, target, self.margin, self.reduction)


class MarginRankingLoss(_MarginLoss):
    """``max(0, -target * (input1 - input2) + margin)``, ``margin`` being 0 if left out.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.MarginRankingLoss()(mf.array([1.0]), mf.array([3.0]), mf.array([1])).item()
        2.0

    Source: margin ranking loss.
    """

    def execute(self, input1: Any, input2: Any, target: Any) -> Any:
        return neural.margin_ranking_loss(input1, input2, target, self.margin, self.reduction)


class HingeEmbeddingLoss(_MarginLoss):
    """The input where the target is 1, ``max(0, margin - input)`` where it is -1; ``margin`` is 1 if left out.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.HingeEmbeddingLoss()(mf.array([0.5, 0.25]), mf.array([1, -1])).item()
        0.625

    Source: hinge embedding loss.
    """

    _margin = 1.0

    def execute(self, input: Any, target: Any) -> Any:
        return neural.hinge_embedding_loss(input, target, self.margin, self.reduction)


class TripletMarginLoss(Module):
    """How far a positive is from being nearer to its anchor than a negative by ``margin``; arguments as in
    ``triplet_margin_loss``.

    Example:
        >>> import metafuse as mf
        >>> round(mf.nn.TripletMarginLoss()(mf.zeros(1, 2), mf.ones(1, 2), mf.ones(1, 2)).item(), 3)
        1.0

    Source: Balntas et al. 2016.
    """

    _shown = ("margin", "p", "swap", "reduction")

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        self.margin = plain("TripletMarginLoss", "margin", margin)
        self.p = plain("TripletMarginLoss", "p", p)
        if p <= 0:
            raise ArgumentError(f"[TripletMarginLoss] p must be > 0, got {brief(p)}")
        self.eps = plain("TripletMarginLoss", "eps", eps)
        self.swap = check_flag(type(self).__name__, "swap", swap)
        self.reduction = choice("TripletMarginLoss", "reduction", reduction, REDUCTIONS)

    def execute(self, anchor: Any, positive: Any, negative: Any) -> Any:
        return neural.triplet_margin_loss(
            anchor, positive, negative, self.margin, self.p, self.eps, self.swap, self.reduction
        )
