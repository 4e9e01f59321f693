"""Softmax over the last dimension under its name in the reference API.

What it is: ``softmax_v1`` and the question whether it applies. There is one softmax, ``metafuse.nn.softmax``; no special
kernel is needed, because the compiler fuses it.
What it is not: a faster variant.
Who calls it: users that come from code which chose between two kernels.
"""

from __future__ import annotations

from typing import Any

from ..ops.meta import check_dim, check_var
from ..ops.neural.activation import softmax
from ..var import Var

__all__ = ["can_softmax_v1", "softmax_v1"]


def can_softmax_v1(a: Any, dim: int | None) -> bool:
    """Whether ``dim`` is the last dimension of ``a``.

    Example:
        >>> import metafuse as mf
        >>> from metafuse.other.code_softmax import can_softmax_v1
        >>> can_softmax_v1(mf.ones(2, 3), -1), can_softmax_v1(mf.ones(2, 3), 0)
        (True, False)
    """
    a = check_var("can_softmax_v1", "a", a)
    return dim is not None and check_dim("can_softmax_v1", dim, a.ndim) == a.ndim - 1


def softmax_v1(a: Any, log: bool = False) -> Var:
    """Softmax over the last dimension; with ``log`` its logarithm.

    Example:
        >>> import metafuse as mf
        >>> from metafuse.other.code_softmax import softmax_v1
        >>> softmax_v1(mf.zeros(1, 2)).numpy()
        array([[0.5, 0.5]], dtype=float32)
    """
    return softmax(a, -1, bool(log))  # type: ignore[no-any-return]
