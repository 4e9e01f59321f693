"""The value of an expression, by NumPy.

What it is: ``evaluate``: arrays for the axes in, an array out.
What it is not: fast; it computes every node for all points.
Who calls it: tests, and host-side operators that compute indexes in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..kernel.expr import Expr, walk
from ..kernel.host import FUNCTIONS

__all__ = ["evaluate"]

Array = np.ndarray[Any, Any]


def _no_loads(number: int, args: tuple[Array, ...]) -> Array:
    raise ValueError(f"[evaluate] the expression loads input {number}; pass loads")


def evaluate(
    expr: Expr,
    axes: Sequence[Array],
    loads: Callable[[int, tuple[Array, ...]], Array] = _no_loads,
    *,
    sizes: Sequence[int] = (),
    scalars: Sequence[Any] = (),
    values: Sequence[Array] = (),
) -> Array:
    """``expr`` at all points, as an array of its dtype.

    Args:
        axes: int64 values of each axis; they broadcast against each other.
        loads: answers ``load`` number k with the given index arrays.
        sizes, scalars, values: what the leaves of these names stand for.

    Example:
        >>> from metafuse.index import parse_index
        >>> expr = parse_index("i0*2 - i1", operator="reindex", axes=2, names={})
        >>> evaluate(expr, np.ogrid[0:2, 0:3])
        array([[ 0, -1, -2],
               [ 2,  1,  0]])
    """
    leaves = {"axis": axes, "size": sizes, "scalar": scalars, "value": values}
    done: dict[Expr, Array] = {}
    with np.errstate(all="ignore"):
        for node in walk(expr):
            args = tuple(done[a] for a in node.args)
            if node.op == "load":
                result = loads(node.value, args)
            elif node.op == "const":
                result = node.value
            elif node.op in leaves:
                result = leaves[node.op][node.value]
            else:
                result = FUNCTIONS[node.op](*args, node.dtype)
            done[node] = np.asarray(result).astype(node.dtype.numpy, copy=False)
    return done[expr]
