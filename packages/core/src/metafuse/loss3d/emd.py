"""Earth mover's distance: how far the points of one cloud must move to become the other.

What it is: the least total distance over all ways to pair the points, exact: the pairs are found on the host, distances and
gradients are compiled.
What it is not: the approximation that GPU implementations use, which is larger.
Who calls it: users, as ``metafuse.loss3d``.

Source: Rubner, Tomasi and Guibas, "The earth mover's distance as a metric for image retrieval", IJCV 2000; the gradient for
a fixed pairing is that of the minimum (Danskin's theorem).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arguments import checked
from ..dtypes import int32
from ..errors import ArgumentError, ShapeError
from ..ops.function import Function
from ..ops.host_parts import Part, host_parts
from ..ops.meta import reshape
from ..ops.reduce import sum
from ..ops.reindexing import reindex, reindex_reduce
from ..ops.shape import transpose
from ..var import Var
from .assignment import assign
from .clouds import check_options, clouds, length, reduced

__all__ = ["EarthMoverDistance", "earth_mover_distance"]

_OP = "earth_mover_distance"


def _pairs(larger: Any, smaller: Any) -> Any:
    """Per point of ``larger`` the place of its partner in ``smaller``; each of those has equally many."""
    count, places = larger.shape[1], smaller.shape[1]
    found = np.empty(larger.shape[:2], np.int64)
    for k, (a, b) in enumerate(zip(larger.astype(np.float64), smaller.astype(np.float64), strict=True)):
        cost = np.sqrt(((a[:, None, :] - b[None, :, :]) ** 2).sum(-1))
        if not np.isfinite(cost).all():
            raise ArgumentError(f"[{_OP}] cloud {k} of the batch has coordinates that are not finite")
        found[k] = assign(np.tile(cost, (1, count // places))) % places
    return found


@checked
class EarthMoverDistance(Function):
    """``earth_mover_distance`` as a ``Function``: call an instance, or ``EarthMoverDistance.apply``.

    Example:
        >>> import metafuse as mf
        >>> mf.loss3d.EarthMoverDistance.apply(mf.zeros(1, 2, 3), mf.ones(1, 2, 3), "sum").shape
        (1,)
    """

    def execute(self, pc1: Any, pc2: Any, reduction: str | None = "mean", dims: str = "BNC") -> Var:
        check_options(_OP, reduction, dims)
        a, b = clouds(_OP, pc1, pc2, dims)
        sizes = sorted((a.shape[1], b.shape[1]))
        if sizes[1] % sizes[0]:
            raise ShapeError(
                f"[{_OP}] the larger cloud must have a multiple of the smaller one's points, got {a.shape[1]} and "
                f"{b.shape[1]}; sample one of them"
            )
        self.given, self.reduction, self.dims = (pc1, pc2), reduction, dims
        self.turned = a.shape[1] < b.shape[1]
        larger, smaller = (b, a) if self.turned else (a, b)
        part = Part(tuple(larger.shape[:2]))
        self.place = host_parts(_OP, _pairs, [larger, smaller], [part], int32)[0]
        distance, _ = length(self._apart(larger, smaller))
        return reduced(sum(distance, 1), reduction)

    def _apart(self, larger: Var, smaller: Var) -> Var:
        """From each point of ``smaller`` to its partners."""
        chosen = reindex(smaller, list(larger.shape), ["i0", "@e0(i0,i1)", "i2"], 0, [], [self.place])
        return larger - chosen

    def grad(self, *gradients: Any) -> Any:
        """Along the line between partners, weighted by the gradient of the answer."""
        a, b = clouds(_OP, *self.given, self.dims)
        larger, smaller = (b, a) if self.turned else (a, b)
        apart = self._apart(larger, smaller)
        weight = gradients[0] / a.shape[0] if self.reduction == "mean" else gradients[0]
        towards = apart * length(apart)[1].unsqueeze(-1) * reshape(weight, (weight.shape[0], 1, 1))
        back = reindex_reduce(
            -towards, "add", list(smaller.shape), ["i0", "@e0(i0,i1)", "i2"], [], [self.place]
        )
        found = [back, towards] if self.turned else [towards, back]
        if self.dims == "BCN":
            found = [transpose(g, 0, 2, 1) for g in found]
        return tuple(g.cast(x.dtype) for g, x in zip(found, self.given, strict=True) if type(x) is Var)


@checked
def earth_mover_distance(pc1: Any, pc2: Any, reduction: str | None = "mean", dims: str = "BNC") -> Var:
    """The least sum of distances over all pairings of the points of two clouds.

    Args:
        pc1, pc2: clouds ``[batch, points, coordinates]``. If one has k times as many points as the other, each point of the
            smaller one gets k partners.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``None``.
        dims: ``"BNC"``, or ``"BCN"`` for clouds ``[batch, coordinates, points]``.

    Returns:
        Var ``[1]``; without reduction ``[batch]``.

    Errors:
        ShapeError, DTypeError, ArgumentError: clouds or options that do not fit; when it runs: coordinates that are not finite.

    Example:
        >>> import metafuse as mf
        >>> a = mf.array([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
        >>> b = mf.array([[[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]])
        >>> mf.loss3d.earth_mover_distance(a, b).item()
        2.0
    """
    return EarthMoverDistance.apply(pc1, pc2, reduction, dims)  # type: ignore[no-any-return]
