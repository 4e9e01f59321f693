"""Attention: weighted means of values, by how well keys fit a query.

What it is: ``scaled_dot_product_attention`` and ``multi_head_attention_forward`` as compositions of matrix products and
softmax, and the reading of masks.
What it is not: the layer with parameters (``nn.multihead``).
Who calls it: users and that layer.

A mask of bools says different things in the two functions, as in the API they come from: what may take part
(``scaled_dot_product_attention``), or what must not (``multi_head_attention_forward``). Floats are added to the scores in both.
A query that may look at nothing gets zeros.

Source: Vaswani et al., "Attention is all you need", NIPS 2017.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from ...dtypes import DType, bool_
from ...errors import ArgumentError, DTypeError, ShapeError
from ...var import Var
from ..creation import zeros
from ..elementwise import cast
from ..linalg import matmul
from ..meta import check_number, check_var, index
from ..registry import Sample, Tensor, operator
from ..scalar import where
from ..shape import concat, transpose
from .activation import softmax
from .basic import dropout, linear, pad

__all__ = ["multi_head_attention_forward", "scaled_dot_product_attention"]

_SDPA = "scaled_dot_product_attention"
_MHA = "multi_head_attention_forward"


# -- scores to weights --------------------------------------------------------------------------------------------------
def _causal(rows: int, columns: int) -> Var:
    """bool ``[rows, columns]``: a query may look at keys up to its own place."""
    return index([rows, columns], 1) <= index([rows, columns], 0)  # type: ignore[no-any-return]


def _weights(scores: Var, allowed: Var | None, bias: Var | None) -> Var:
    """Softmax over the last dimension of what is allowed."""
    if bias is not None:
        scores = scores + bias
    if allowed is None and bias is None:
        return softmax(scores, -1)  # type: ignore[no-any-return]
    if allowed is not None:
        scores = where(allowed, scores, -np.inf)
    blind = scores.max(-1, keepdims=True) == -np.inf
    return where(blind, 0.0, softmax(where(blind, 0.0, scores), -1))


def _swapped(x: Var) -> Var:
    return transpose(x, [*range(x.ndim - 2), x.ndim - 1, x.ndim - 2])


def _oracle(query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: Any = 0.0, is_causal: Any = False,
            scale: Any = None) -> Any:  # fmt: skip
    scores = query @ np.swapaxes(key, -1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        scores = np.where(np.tri(*scores.shape[-2:]) > 0, scores, -np.inf)
    if attn_mask is not None:
        scores = scores + attn_mask
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) @ value


@operator(
    category="nn",
    numpy=_oracle,
    source="softmax(query @ key^T * scale) @ value",
    samples=[
        Sample((Tensor((3, 4)), Tensor((5, 4)), Tensor((5, 2)))),
        Sample((Tensor((2, 3, 4)), Tensor((2, 5, 4)), Tensor((2, 5, 4)), Tensor((3, 5)))),
        Sample((Tensor((2, 1, 3, 4)), Tensor((2, 1, 3, 4)), Tensor((2, 1, 3, 4))), {"is_causal": True}),
        Sample((Tensor((2, 1, 4)), Tensor((2, 3, 4)), Tensor((2, 3, 1))), {"scale": 0.25}),
        Sample((Tensor((0, 2, 4)), Tensor((0, 3, 4)), Tensor((0, 3, 4)))),
    ],
)
def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Var:
    """``softmax(query @ key^T * scale + mask) @ value``.

    Args:
        query: ``[..., queries, e]``.
        key: ``[..., keys, e]``.
        value: ``[..., keys, v]``.
        attn_mask: broadcasts to ``[..., queries, keys]``: bool, true where a key takes part, or floats that are added.
        dropout_p: with which probability a weight is zeroed (always, also outside of training).
        is_causal: query i sees keys up to i; together with ``attn_mask`` both count.
        scale: ``None``: ``1 / sqrt(e)``.

    Returns:
        Var ``[..., queries, v]``.

    Errors:
        ShapeError: extents that do not fit. ArgumentError: a bad ``dropout_p``.

    Example:
        >>> import metafuse as mf
        >>> q = mf.ones([2, 3, 4])
        >>> mf.nn.scaled_dot_product_attention(q, q, q, is_causal=True).shape
        (2, 3, 4)
    """
    q, k, v = (check_var(_SDPA, n, x) for n, x in (("query", query), ("key", key), ("value", value)))
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ShapeError(
            f"[{_SDPA}] needs query [..., q, e], key [..., k, e], value [..., k, v], got {list(q.shape)}, "
            f"{list(k.shape)}, {list(v.shape)}"
        )
    scores = matmul(
        q * (1.0 / sqrt(max(q.shape[-1], 1)) if scale is None else check_number(_SDPA, "scale", scale)),
        _swapped(k),
    )
    allowed, bias = None, None
    if attn_mask is not None:
        mask = check_var(_SDPA, "attn_mask", attn_mask)
        pairs = zip(reversed(mask.shape), reversed(scores.shape), strict=False)
        if mask.ndim > scores.ndim or any(own not in (1, n) for own, n in pairs):
            raise ShapeError(
                f"[{_SDPA}] attn_mask {list(mask.shape)} does not broadcast to the scores {list(scores.shape)}"
            )
        allowed, bias = (mask, None) if mask.dtype is bool_ else (None, cast(mask, scores.dtype))
    if is_causal:
        causal = _causal(scores.shape[-2], scores.shape[-1])
        allowed = causal if allowed is None else allowed & causal
    return matmul(dropout(_weights(scores, allowed, bias), dropout_p, is_train=True), v)


# -- several heads ------------------------------------------------------------------------------------------------------
def _allowed_or_bias(name: str, mask: Any, dtype: DType) -> tuple[Any, Any]:
    """A mask as (bool Var: what may take part, float Var that is added), one of them ``None``."""
    mask = check_var(_MHA, name, mask)
    if mask.dtype is bool_:
        return ~mask, None
    if not mask.dtype.is_float:
        raise DTypeError(f"[{_MHA}] {name} must be bool (true: left out) or floating, got {mask.dtype}")
    return None, cast(mask, dtype)


def _both(a: Any, b: Any, rule: Any) -> Any:
    return b if a is None else a if b is None else rule(a, b)


def _masks(
    attn_mask: Any, padding: Any, is_causal: bool, sizes: tuple[int, int, int, int], extra: int, dtype: DType
) -> tuple[Any, Any]:
    """All masks together, for scores ``[batch, heads, queries, keys]``; the last ``extra`` keys are always allowed."""
    batch, heads, rows, columns = sizes
    own = columns - extra
    allowed: Any = None
    bias: Any = None
    if attn_mask is not None:
        shape = tuple(check_var(_MHA, "attn_mask", attn_mask).shape)
        if shape not in ((rows, own), (batch * heads, rows, own)):
            raise ShapeError(
                f"[{_MHA}] attn_mask must be [{rows}, {own}] or [{batch * heads}, {rows}, {own}], got {list(shape)}"
            )
        allowed, bias = _allowed_or_bias("attn_mask", attn_mask, dtype)
        if len(shape) == 3:
            full = [batch, heads, rows, own]
            allowed, bias = (m if m is None else m.reshape(full) for m in (allowed, bias))
    elif is_causal:
        allowed = _causal(rows, own)
    if padding is not None:
        if tuple(padding.shape) != (batch, own):
            raise ShapeError(
                f"[{_MHA}] key_padding_mask must be [batch, keys] = [{batch}, {own}], got {list(padding.shape)}"
            )
        more_allowed, more_bias = _allowed_or_bias("key_padding_mask", padding, dtype)
        wide = [batch, 1, 1, own]
        more_allowed, more_bias = (m if m is None else m.reshape(wide) for m in (more_allowed, more_bias))
        allowed = _both(allowed, more_allowed, lambda a, b: a & b)
        bias = _both(bias, more_bias, lambda a, b: a + b)
    if extra:
        allowed = None if allowed is None else pad(allowed, (0, extra), "constant", True)
        bias = None if bias is None else pad(bias, (0, extra))
    return allowed, bias


def _projected(
    inputs: tuple[Var, Var, Var], packed: Any, separate: tuple[Any, Any, Any], bias: Any, use_separate: bool
) -> list[Var]:
    """Query, key and value after their linear maps."""
    width = inputs[0].shape[-1]
    if use_separate:
        if any(w is None for w in separate):
            raise ArgumentError(f"[{_MHA}] use_separate_proj_weight needs q_, k_ and v_proj_weight")
        weights = [check_var(_MHA, f"{n}_proj_weight", w) for n, w in zip("qkv", separate, strict=True)]
    else:
        if packed is None:
            raise ArgumentError(f"[{_MHA}] in_proj_weight is None; give it, or use_separate_proj_weight")
        packed = check_var(_MHA, "in_proj_weight", packed)
        if tuple(packed.shape) != (3 * width, width):
            raise ShapeError(
                f"[{_MHA}] in_proj_weight must be [{3 * width}, {width}], got {list(packed.shape)}"
            )
        if inputs[0] is inputs[1] is inputs[2]:  # one product instead of three
            whole = linear(inputs[0], packed, bias)
            return [whole[..., k * width : (k + 1) * width] for k in range(3)]
        weights = [packed[k * width : (k + 1) * width] for k in range(3)]
    biases = [None if bias is None else bias[k * width : (k + 1) * width] for k in range(3)]
    return [linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True)]


def _check_inputs(query: Any, key: Any, value: Any, embed_dim: int, num_heads: int) -> tuple[Var, Var, Var]:
    """The three inputs as ``[length, batch, features]``."""
    own = isinstance(query, Var) and query is key is value
    q, k, v = (check_var(_MHA, n, x) for n, x in (("query", query), ("key", key), ("value", value)))
    if q.ndim not in (2, 3) or k.ndim != q.ndim or v.ndim != q.ndim:
        raise ShapeError(
            f"[{_MHA}] query, key and value must all be [length, batch, features] or [length, features], got "
            f"{list(q.shape)}, {list(k.shape)}, {list(v.shape)}"
        )
    if q.ndim == 2:
        q = q.unsqueeze(1)
        k, v = (q, q) if own else (k.unsqueeze(1), v.unsqueeze(1))
    if q.shape[-1] != embed_dim:
        raise ShapeError(f"[{_MHA}] query must have embed_dim = {embed_dim} features, got {q.shape[-1]}")
    if num_heads < 1 or embed_dim % num_heads:
        raise ArgumentError(f"[{_MHA}] embed_dim {embed_dim} must be a multiple of num_heads {num_heads}")
    if k.shape[:2] != v.shape[:2] or k.shape[1] != q.shape[1]:
        raise ShapeError(
            f"[{_MHA}] lengths of key and value, and all batches, must agree, got {list(q.shape)}, {list(k.shape)}, "
            f"{list(v.shape)}"
        )
    return q, k, v


def _static(name: str, given: Any, batch: int, heads: int, width: int) -> Var:
    """Keys or values that come ready-made, ``[batch * heads, length, width]``, as ``[batch, heads, length, width]``."""
    given = check_var(_MHA, name, given)
    if given.ndim != 3 or given.shape[0] != batch * heads or given.shape[2] != width:
        raise ShapeError(
            f"[{_MHA}] {name} must be [{batch * heads}, length, {width}], got {list(given.shape)}"
        )
    return given.reshape([batch, heads, given.shape[1], width])  # type: ignore[no-any-return]


def multi_head_attention_forward(
    query: Any,
    key: Any,
    value: Any,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Any,
    in_proj_bias: Any,
    bias_k: Any,
    bias_v: Any,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Any,
    out_proj_bias: Any,
    training: bool = True,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None,
    k_proj_weight: Any = None,
    v_proj_weight: Any = None,
    static_k: Any = None,
    static_v: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Var, Var | None]:
    """Attention with several heads, each on its share of the features, between two linear maps.

    Args:
        query, key, value: ``[length, batch, features]``, or ``[length, features]`` of a single sequence.
        embed_dim_to_check: the features of ``query``.
        num_heads: number of heads, divides the features.
        in_proj_weight, in_proj_bias: ``[3 e, e]`` and ``[3 e]``, for query, key and value one below the other.
        bias_k, bias_v: a further key and value ``[1, 1, e]`` for every sequence.
        add_zero_attn: add a key and a value of zeros.
        dropout_p: with which probability a weight is zeroed in training.
        out_proj_weight, out_proj_bias: ``[e, e]`` and ``[e]``.
        key_padding_mask: ``[batch, keys]``: bool, true where a key is left out, or floats that are added.
        attn_mask: ``[queries, keys]`` or ``[batch * heads, queries, keys]``, likewise.
        use_separate_proj_weight, q_proj_weight, k_proj_weight, v_proj_weight: three weights instead of ``in_proj_weight``,
            for keys and values with other numbers of features.
        static_k, static_v: keys and values ``[batch * heads, length, e / heads]`` instead of projected ones.
        need_weights: also answer the weights.
        average_attn_weights: their mean over the heads.
        is_causal: query i sees keys up to i (where ``attn_mask`` does not say it already).

    Returns:
        (``[length, batch, e]``, weights ``[batch, queries, keys]`` or ``[batch, heads, queries, keys]`` or ``None``); without the
        batch dimension for a single sequence.

    Errors:
        ShapeError, DTypeError, ArgumentError: arguments that do not fit, by name.

    Example:
        >>> import metafuse as mf
        >>> layer = mf.nn.MultiheadAttention(4, 2)
        >>> x = mf.ones([3, 1, 4])
        >>> layer(x, x, x)[0].shape
        (3, 1, 4)
    """
    single = check_var(_MHA, "query", query).ndim == 2
    q, k, v = _check_inputs(query, key, value, embed_dim_to_check, num_heads)
    length, batch, width = q.shape
    each = width // num_heads
    separate = (q_proj_weight, k_proj_weight, v_proj_weight)
    q, k, v = _projected((q, k, v), in_proj_weight, separate, in_proj_bias, use_separate_proj_weight)
    extra = 0
    if bias_k is not None and bias_v is not None:
        if static_k is not None or static_v is not None:
            raise ArgumentError(f"[{_MHA}] bias_k and bias_v can't be added to static keys or values")
        k = concat([k, bias_k.broadcast([1, batch, width])])
        v = concat([v, bias_v.broadcast([1, batch, width])])
        extra += 1
    elif bias_k is not None or bias_v is not None:
        raise ArgumentError(f"[{_MHA}] bias_k and bias_v must both be given, or neither")

    def heads(x: Var) -> Var:
        return transpose(x.reshape([x.shape[0], batch, num_heads, each]), 1, 2, 0, 3)

    q = heads(q)
    k = heads(k) if static_k is None else _static("static_k", static_k, batch, num_heads, each)
    v = heads(v) if static_v is None else _static("static_v", static_v, batch, num_heads, each)
    if add_zero_attn:
        nothing = zeros([batch, num_heads, 1, each], dtype=k.dtype)
        k, v, extra = concat([k, nothing], 2), concat([v, nothing], 2), extra + 1
    if key_padding_mask is not None:
        key_padding_mask = check_var(_MHA, "key_padding_mask", key_padding_mask)
        key_padding_mask = key_padding_mask.unsqueeze(0) if single else key_padding_mask
    sizes = (batch, num_heads, length, k.shape[2])
    scores = matmul(q * (1.0 / sqrt(each)), _swapped(k))
    weights = _weights(scores, *_masks(attn_mask, key_padding_mask, is_causal, sizes, extra, scores.dtype))
    weights = dropout(weights, dropout_p, is_train=bool(training))
    answer = transpose(matmul(weights, v), 2, 0, 1, 3).reshape([length, batch, width])
    answer = linear(answer, out_proj_weight, out_proj_bias)
    shown: Any = None
    if need_weights:
        shown = weights.mean(1) if average_attn_weights else weights
    if single:
        answer, shown = answer.squeeze(1), None if shown is None else shown.squeeze(0)
    return answer, shown
