"""What both losses share: checked clouds, distances, reductions.

What it is: small functions over ``[batch, points, coordinates]``.
What it is not: public.
Who calls it: ``chamfer``, ``emd``.
"""

from __future__ import annotations

from typing import Any

from ..dtypes import promote
from ..errors import ArgumentError, DTypeError, ShapeError, brief
from ..ops.elementwise import cast
from ..ops.meta import check_var
from ..ops.reduce import mean, sum
from ..ops.scalar import sqrt, where
from ..ops.shape import transpose
from ..var import Var

__all__ = ["check_options", "clouds", "length", "reduced"]


def check_options(op: str, reduction: Any, dims: Any) -> None:
    """``reduction``: "mean", "sum", "none" or None; ``dims``: "BNC" or "BCN"."""
    if reduction not in ("mean", "sum", "none", None):
        raise ArgumentError(f"[{op}] reduction must be 'mean', 'sum' or None, got {brief(reduction)}")
    if dims not in ("BNC", "BCN"):
        raise ArgumentError(f"[{op}] dims must be 'BNC' or 'BCN', got {brief(dims)}")


def clouds(op: str, pc1: Any, pc2: Any, dims: str) -> tuple[Var, Var]:
    """Both clouds as ``[batch, points, coordinates]`` of one dtype."""
    a, b = check_var(op, "pc1", pc1), check_var(op, "pc2", pc2)
    if a.ndim != 3 or b.ndim != 3:
        raise ShapeError(
            f"[{op}] clouds must be [{', '.join(dims)}], got {list(a.shape)} and {list(b.shape)}"
        )
    if dims == "BCN":
        a, b = transpose(a, 0, 2, 1), transpose(b, 0, 2, 1)
    if a.shape[0] != b.shape[0] or a.shape[2] != b.shape[2]:
        raise ShapeError(
            f"[{op}] clouds must have equal batch and coordinates, got {list(a.shape)} and {list(b.shape)} as BNC"
        )
    if not a.shape[1] or not b.shape[1]:
        raise ShapeError(f"[{op}] a cloud has no points: {list(a.shape)} and {list(b.shape)} as BNC")
    common = promote(a.dtype, b.dtype)
    if not common.is_float:
        raise DTypeError(f"[{op}] coordinates must be floating, got {a.dtype} and {b.dtype}; cast them")
    return cast(a, common), cast(b, common)


def length(difference: Var) -> tuple[Var, Var]:
    """Lengths along the last dimension, and their inverses, which are 0 where the length is 0."""
    square = sum(difference * difference, -1)
    empty = square == 0
    safe = sqrt(where(empty, 1.0, square))
    return where(empty, 0.0, safe), where(empty, 0.0, 1.0 / safe)


def reduced(values: Var, reduction: str | None) -> Var:
    """``values``, their mean or their sum."""
    return mean(values) if reduction == "mean" else sum(values) if reduction == "sum" else values
