"""Where arrays are true: ``nonzero``, and places per dimension.

What it is: operators whose result has a shape that only values know; how many places there are is computed when they are called.
What it is not: the loops (``mask_loops``), or selection by a mask (``selection.masked_select``).
Who calls it: users, ``scalar.where`` with one argument, ``indexing`` for bool masks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import bool_
from ..var import Var
from .elementwise import cast
from .mask_loops import true_places
from .meta import check_integer_type, check_var, piece, reshape
from .registry import Sample, Tensor, operator

__all__ = ["nonzero", "places"]


def places(x: Any, dtype: Any = "int32") -> tuple[Var, ...]:
    """Where ``x`` is true (non-zero): one Var per dimension, in row-major order. Computes ``x`` now."""
    kind = check_integer_type("where", dtype)
    found = true_places(_mask(check_var("where", "cond", x)), columns=True)
    count = found.shape[1]
    return tuple(
        cast(piece(reshape(found, (found.numel(),)), d * count, (count,)), kind)
        for d in range(found.shape[0])
    )


def _mask(x: Var) -> Var:
    """Where it is not 0."""
    return x if x.dtype is bool_ else x != 0


@operator(
    category="indexing", numpy=lambda x: np.argwhere(x).astype(np.int32), method=True, rebinds=False,
    differentiable=False, samples=[Sample((Tensor((3, 4), "int", 0, 1),)), Sample((Tensor((5,), "bool"),)),
                                   Sample((Tensor((0, 2), "float"),))],
)  # fmt: skip
def nonzero(x: Any) -> Var:
    """The places of true (non-zero) elements: int32 ``[count, dimensions]`` in row-major order. Computes ``x`` now.

    Example:
        >>> import metafuse as mf
        >>> mf.nonzero(mf.array([[0, 3], [4, 0]])).numpy()
        array([[0, 1],
               [1, 0]], dtype=int32)
    """
    return true_places(_mask(check_var("nonzero", "x", x)))
