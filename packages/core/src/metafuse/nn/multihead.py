"""The layer of attention with several heads.

What it is: ``MultiheadAttention``: its parameters, and the call of the operator.
What it is not: the computation (``ops.neural.attention``), or layers around it (``nn.transformer``).
Who calls it: users, also as ``metafuse.attention.MultiheadAttention``.

Names and shapes of parameters are PyTorch's, so that its state loads.
"""

from __future__ import annotations

from typing import Any

from .. import init
from ..arguments import checked
from ..dtypes import as_dtype
from ..errors import ArgumentError, DTypeError
from ..ops.meta import check_var
from ..ops.neural import multi_head_attention_forward
from ..ops.neural.checks import fraction, integer
from ..ops.shape import transpose
from ..var import Var
from .dense import Linear
from .module import Module

__all__ = ["MultiheadAttention"]


@checked
class MultiheadAttention(Module):
    """Attention with several heads.

    Args:
        embed_dim: features of queries and of the answer.
        num_heads: number of heads; divides ``embed_dim``.
        dropout: with which probability a weight is zeroed in training.
        bias: whether the linear maps have biases.
        add_bias_kv: one more key and value, which are learnt.
        add_zero_attn: one more key and value, which are zero.
        kdim, vdim: features of keys and values; ``None``: ``embed_dim``.
        batch_first: inputs and answer are ``[batch, length, features]`` instead of ``[length, batch, features]``.
        dtype: element type of the parameters.

    Called with ``(query, key, value, key_padding_mask=None, need_weights=True, attn_mask=None, average_attn_weights=True,
    is_causal=False)`` it answers ``(answer, weights or None)``; see ``multi_head_attention_forward``.

    Errors:
        ArgumentError: sizes that are not whole numbers or do not divide.

    Example:
        >>> import metafuse as mf
        >>> layer = mf.nn.MultiheadAttention(8, 2, batch_first=True)
        >>> x = mf.ones([3, 5, 8])
        >>> answer, weights = layer(x, x, x)
        >>> answer.shape, weights.shape
        ((3, 5, 8), (3, 5, 5))
    """

    _shown = ("embed_dim", "num_heads")

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        dtype: Any = "float32",
    ) -> None:
        name = "MultiheadAttention"
        self.embed_dim = e = integer(name, "embed_dim", embed_dim, 1)
        self.num_heads = integer(name, "num_heads", num_heads, 1)
        if e % self.num_heads:
            raise ArgumentError(f"[{name}] embed_dim {e} must be a multiple of num_heads {num_heads}")
        self.kdim = e if kdim is None else integer(name, "kdim", kdim, 1)
        self.vdim = e if vdim is None else integer(name, "vdim", vdim, 1)
        self.dropout = fraction(name, "dropout", dropout)
        self.batch_first, self.add_zero_attn = bool(batch_first), bool(add_zero_attn)
        self.head_dim = e // self.num_heads
        kind = as_dtype(dtype)
        if not kind.is_float:
            raise DTypeError(f"[{name}] dtype must be floating, got {kind}")
        self._separate = (self.kdim, self.vdim) != (e, e)
        widths = (e, self.kdim, self.vdim)
        three = [init.xavier_uniform([e, w], kind) if self._separate else None for w in widths]
        self.q_proj_weight, self.k_proj_weight, self.v_proj_weight = three
        self.in_proj_weight = None if self._separate else init.xavier_uniform([3 * e, e], kind)
        self.in_proj_bias = init.zero([3 * e], kind) if bias else None
        self.out_proj = Linear(e, e, bias=bool(bias))
        self.bias_k = init.xavier_gauss([1, 1, e], kind) if add_bias_kv else None
        self.bias_v = init.xavier_gauss([1, 1, e], kind) if add_bias_kv else None
        if self.out_proj.bias is not None:
            init.zero_(self.out_proj.bias)
        self.out_proj._convert(kind.name)

    def execute(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Var, Var | None]:
        inputs: tuple[Any, Any, Any] = (query, key, value)
        turned = self.batch_first and check_var("MultiheadAttention", "query", query).ndim == 3
        if turned:
            own = query is key and key is value
            q = transpose(query, 1, 0, 2)
            inputs = (q, q, q) if own else (q, transpose(key, 1, 0, 2), transpose(value, 1, 0, 2))
        answer, weights = multi_head_attention_forward(
            *inputs,
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            training=self.is_train,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            use_separate_proj_weight=self._separate,
            q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight,
            v_proj_weight=self.v_proj_weight,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )
        return transpose(answer, 1, 0, 2) if turned else answer, weights
