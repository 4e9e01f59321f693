"""Attention: the layer and the functions it is made of under one roof, as the reference API has them.

What it is: names for ``nn.MultiheadAttention`` and for operators.
What it is not: their definitions (``nn.multihead``, ``ops.neural.attention``).
Who calls it: users, as ``metafuse.attention``.
"""

from __future__ import annotations

from typing import Any

from .arguments import checked
from .nn.multihead import MultiheadAttention
from .ops import neural
from .ops.neural import multi_head_attention_forward, scaled_dot_product_attention
from .var import Var

__all__ = ["MultiheadAttention", "baddbmm", "multi_head_attention_forward", "scaled_dot_product_attention"]


@checked
def baddbmm(input_var: Any, batch1: Any, batch2: Any, beta: float = 1, alpha: float = 1) -> Var:
    """``beta * input_var[n] + alpha * batch1[n] @ batch2[n]`` for each n; ``metafuse.nn.baddbmm``.

    Example:
        >>> import metafuse as mf
        >>> mf.attention.baddbmm(mf.ones([1, 1, 1]), mf.ones([1, 1, 2]), mf.ones([1, 2, 1]), alpha=2).item()
        5.0
    """
    return neural.baddbmm(input_var, batch1, batch2, beta, alpha)  # type: ignore[no-any-return]
