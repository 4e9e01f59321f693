"""Matrix products, composed from meta-operators.

What it is: ``matmul`` and its relatives as broadcast, multiply, sum; the contraction pass recognises them.
What it is not: a call of a library (a backend may put one in place of the recognised contraction).
Who calls it: users, ``Var.__matmul__``, ``neural.linear``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ShapeError
from ..var import Var
from . import meta
from .elementwise import broadcast_shapes
from .meta import check_var, expand_dims, reduce_dims
from .precision import product_operands
from .recipe import recorded
from .registry import Sample, Tensor, operator
from .shape import transpose
from .telling import tells

__all__ = ["matmul"]


@operator(
    category="linalg", numpy=np.matmul, method=("matmul", "__matmul__"), source="NumPy matmul",
    samples=[
        Sample((Tensor((3, 4)), Tensor((4, 5)))), Sample((Tensor((2, 3, 4)), Tensor((4, 5)))),
        Sample((Tensor((2, 3, 4)), Tensor((2, 4, 5)))), Sample((Tensor((3, 4)), Tensor((4,)))),
        Sample((Tensor((4,)), Tensor((4, 5)))), Sample((Tensor((2, 1, 3, 4)), Tensor((5, 4, 2)))),
        Sample((Tensor((1, 4)), Tensor((4, 1)))),
    ],
)  # fmt: skip
@recorded
def matmul(a: Any, b: Any) -> Var:
    """Matrix product ``[..., m, k] @ [..., k, n] -> [..., m, n]``; leading dimensions broadcast.

    A one-dimensional operand is a row (left) or a column (right) that disappears from the result.

    Errors:
        ShapeError: the inner extents differ.

    Example:
        >>> import metafuse as mf
        >>> (mf.ones(2, 3) @ mf.ones(3, 4))[0, 0].item()
        3.0
    """
    if getattr(type(b), "__array_ufunc__", True) is None:  # as in NumPy: b's reflected method does it
        return NotImplemented
    a, b = check_var("matmul", "a", a), check_var("matmul", "b", b)
    row, column = a.ndim == 1, b.ndim == 1
    if row:
        a = expand_dims(a, [0])
    if column:
        b = expand_dims(b, [1])
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"[matmul] inner extents must agree, got {list(a.shape)} @ {list(b.shape)}: {a.shape[-1]} against "
            f"{b.shape[-2]}; transpose one of them?"
        )
    batch = broadcast_shapes("matmul", [tuple(a.shape[:-2]), tuple(b.shape[:-2])])
    # [..., m, k, 1] and [..., 1, k, n]
    left, right, answer = product_operands(expand_dims(a, [a.ndim]), expand_dims(b, [b.ndim - 2]))
    result = answer(reduce_dims(left * right, "add", (len(batch) + 1,)))
    shape = (*batch, *(() if row else (a.shape[-2],)), *(() if column else (b.shape[-1],)))
    return meta.reshape(result, shape or (1,))


@tells
def matmul_transpose(a: Any, b: Any) -> Var:
    """``a @ b.T`` on the last two dimensions.

    Example:
        >>> import metafuse as mf
        >>> mf.matmul_transpose(mf.ones(2, 3), mf.ones(4, 3)).shape
        (2, 4)
    """
    b = check_var("matmul_transpose", "b", b)
    return matmul(a, transpose(b, *range(b.ndim - 2), b.ndim - 1, b.ndim - 2))


def _reversed_matmul(self: Var, other: Any) -> Var:
    return matmul(other, self)


Var.__rmatmul__ = _reversed_matmul  # type: ignore[method-assign]
