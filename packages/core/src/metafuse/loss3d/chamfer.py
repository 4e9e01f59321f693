"""Chamfer loss: how far each point of one cloud is from the nearest point of the other.

What it is: ``chamfer_loss`` as a composition (distances, the nearest, its distance again for the gradient) and the layer.
What it is not: a search tree; all pairs are compared, without being stored.
Who calls it: users, as ``metafuse.loss3d``.

Source: Fan, Su and Guibas, "A point set generation network for 3D object reconstruction from a single image", CVPR 2017; here
with the distance itself, not its square.
"""

from __future__ import annotations

from typing import Any

from ..arguments import checked
from ..errors import ShapeError
from ..nn.module import Module
from ..ops.meta import broadcast_to, expand_dims
from ..ops.reduce import argmin, sum
from ..ops.reindexing import reindex
from ..var import Var
from .clouds import check_options, clouds, length, reduced

__all__ = ["ChamferLoss", "chamfer_loss"]


@checked
def chamfer_loss(
    pc1: Any, pc2: Any, reduction: str | None = "mean", dims: str = "BNC", bidirectional: bool = False
) -> Var:
    """Distances from the points of ``pc1`` to the nearest ones of ``pc2``.

    Args:
        pc1, pc2: clouds ``[batch, points, coordinates]``; the numbers of points may differ.
        reduction: ``"mean"`` or ``"sum"`` over everything, or ``None``.
        dims: ``"BNC"``, or ``"BCN"`` for clouds ``[batch, coordinates, points]``.
        bidirectional: add the loss from ``pc2`` to ``pc1``.

    Returns:
        Var ``[1]``; without reduction ``[batch, points of pc1]``.

    Errors:
        ShapeError, DTypeError, ArgumentError: clouds or options that do not fit.

    Example:
        >>> import metafuse as mf
        >>> a, b = mf.array([[[0.0, 0.0, 0.0]]]), mf.array([[[3.0, 4.0, 0.0], [9.0, 9.0, 9.0]]])
        >>> mf.loss3d.chamfer_loss(a, b).item()
        5.0
    """
    check_options("chamfer_loss", reduction, dims)
    a, b = clouds("chamfer_loss", pc1, pc2, dims)
    loss = reduced(_nearest(a, b), reduction)
    if not bidirectional:
        return loss
    back = _nearest(b, a)
    if reduction not in ("mean", "sum") and back.shape != loss.shape:
        raise ShapeError(
            "[chamfer_loss] bidirectional without reduction needs equal numbers of points, got "
            f"{a.shape[1]} and {b.shape[1]}; reduce by 'mean' or 'sum'"
        )
    return loss + reduced(back, reduction)


def _nearest(a: Var, b: Var) -> Var:
    """``[batch, points of a]``: the distance to the nearest point of ``b``."""
    batch, n, coordinates = a.shape
    shape = (batch, n, b.shape[1], coordinates)
    apart = broadcast_to(expand_dims(a, [2]), shape) - broadcast_to(expand_dims(b, [1]), shape)
    place, _ = argmin(sum(apart * apart, -1).stop_grad(), -1)
    chosen = reindex(b, [batch, n, coordinates], ["i0", "@e0(i0,i1)", "i2"], 0, [], [place])
    return length(a - chosen)[0]


@checked
class ChamferLoss(Module):
    """``chamfer_loss`` with its options.

    Example:
        >>> import metafuse as mf
        >>> loss = mf.loss3d.ChamferLoss("sum", bidirectional=True)
        >>> loss(mf.zeros(1, 1, 3), mf.ones(1, 2, 3)).shape
        (1,)
    """

    _shown = ("reduction", "dims", "bidirectional")

    def __init__(
        self, reduction: str | None = "mean", dims: str = "BNC", bidirectional: bool = False
    ) -> None:
        check_options("ChamferLoss", reduction, dims)
        self.reduction, self.dims, self.bidirectional = reduction, dims, bool(bidirectional)

    def execute(self, pc1: Any, pc2: Any) -> Var:
        return chamfer_loss(pc1, pc2, self.reduction, self.dims, self.bidirectional)
