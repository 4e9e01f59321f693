"""Matrix products of batches under the reference API's names.

What it is: ``bmm`` and its relatives, checked and handed to ``matmul``.
What it is not: another way to multiply matrices.
Who calls it: users.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ShapeError
from ..linalg import matmul
from ..meta import check_var
from ..registry import Sample, Tensor, operator
from .checks import need_ndim

__all__ = ["baddbmm", "bmm", "bmm_transpose"]

_A, _B, _T = Tensor((2, 3, 4)), Tensor((2, 4, 5)), Tensor((2, 5, 4))


def _batched(op: str, a: Any, b: Any) -> tuple[Any, Any]:
    a, b = check_var(op, "a", a), check_var(op, "b", b)
    need_ndim(op, "a", a, [3], "(batch, rows, columns)")
    need_ndim(op, "b", b, [3], "(batch, rows, columns)")
    if a.shape[0] != b.shape[0]:
        raise ShapeError(
            f"[{op}] a and b must have one batch extent, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return a, b


@operator(category="nn", numpy=np.matmul, samples=[Sample((_A, _B))], source="NumPy matmul")
def bmm(a: Any, b: Any) -> Any:
    """``a[n] @ b[n]`` for each n; both are ``[batch, rows, columns]``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.bmm(mf.ones([2, 3, 4]), mf.ones([2, 4, 5])).shape
        (2, 3, 5)
    """
    return matmul(*_batched("bmm", a, b))


@operator(
    category="nn",
    numpy=lambda a, b: a @ b.transpose(0, 2, 1),
    samples=[Sample((_A, _T))],
    source="NumPy matmul",
)
def bmm_transpose(a: Any, b: Any) -> Any:
    """``a[n] @ b[n].T`` for each n.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.bmm_transpose(mf.ones([2, 3, 4]), mf.ones([2, 5, 4])).shape
        (2, 3, 5)
    """
    a, b = _batched("bmm_transpose", a, b)
    return matmul(a, b.transpose([0, 2, 1]))


@operator(
    category="nn",
    numpy=lambda input, batch1, batch2, beta=1, alpha=1: beta * input + alpha * (batch1 @ batch2),
    samples=[Sample((Tensor((2, 3, 5)), _A, _B), {"beta": 0.5, "alpha": 2.0})],
    source="beta * input + alpha * batch1 @ batch2",
)
def baddbmm(input: Any, batch1: Any, batch2: Any, beta: float = 1, alpha: float = 1) -> Any:
    """``beta * input[n] + alpha * batch1[n] @ batch2[n]`` for each n.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.baddbmm(mf.ones([1, 1, 1]), mf.ones([1, 1, 2]), mf.ones([1, 2, 1])).item()
        3.0
    """
    product: Any = matmul(*_batched("baddbmm", batch1, batch2))
    input = check_var("baddbmm", "input", input)
    return input * beta + product * alpha
