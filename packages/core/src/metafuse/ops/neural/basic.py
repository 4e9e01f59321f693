"""The other neural operators: linear, bilinear, embedding, one-hot, padding, dropout, pixel shuffle.

What it is: compositions of reindex, multiply and sum, as everywhere.
What it is not: layers (``nn``).
Who calls it: users and ``nn``.
"""

from __future__ import annotations

from math import prod
from typing import Any

from ...errors import ArgumentError, DTypeError, ShapeError, brief
from ..meta import check_fill, check_flag, check_integer, check_var, index, reduce_dims
from ..precision import like, product_operands
from ..recipe import recorded
from ..registry import Sample, Tensor, operator
from ..scalar import where
from ..shape import transpose
from . import oracles
from .checks import choice, fraction, integer, need_ndim

__all__ = [
    "bilinear",
    "dropout",
    "dropout2d",
    "droppath",
    "embedding",
    "identity",
    "linear",
    "one_hot",
    "pad",
    "pixel_shuffle",
]


@operator(
    category="nn",
    numpy=oracles.linear,
    samples=[
        Sample((Tensor((3, 4)), Tensor((5, 4)), Tensor((5,)))),
        Sample((Tensor((2, 3, 4)), Tensor((5, 4)))),
        Sample((Tensor((4,)), Tensor((5, 4)))),
    ],
    source="x @ weight.T + bias",
)
@recorded
def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """``x @ weight.T + bias``.

    Args:
        x: ``[..., in features]``.
        weight: ``[out features, in features]``.
        bias: ``[out features]`` or ``None``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.linear(mf.ones([2, 3]), mf.ones([4, 3])).shape
        (2, 4)
    """
    x, weight = check_var("linear", "x", x), check_var("linear", "weight", weight)
    need_ndim("linear", "weight", weight, [2], "(out features, in features)")
    outputs, inputs = weight.shape
    if x.ndim < 1 or x.shape[-1] != inputs:
        raise ShapeError(f"[linear] x must end in the {inputs} columns of weight, got shape {tuple(x.shape)}")
    rows = prod(x.shape[:-1])
    shape = [rows, outputs, inputs]
    left, right, answer = product_operands(x.reshape([rows, inputs]), weight)
    y = answer(reduce_dims(left.broadcast(shape, [1]) * right.broadcast(shape, [0]), "add", (2,)))
    y = y if x.ndim == 2 else y.reshape([*x.shape[:-1], outputs])
    if bias is None:
        return y
    bias = check_var("linear", "bias", bias)
    if tuple(bias.shape) != (outputs,):
        raise ShapeError(f"[linear] bias must have shape ({outputs},), got {tuple(bias.shape)}")
    return y + like(bias, y)


@operator(
    category="nn",
    numpy=oracles.bilinear,
    samples=[Sample((Tensor((4, 2)), Tensor((4, 3)), Tensor((5, 2, 3)), Tensor((5,))))],
    source="in1 @ weight[o] @ in2",
)
def bilinear(in1: Any, in2: Any, weight: Any, bias: Any = None) -> Any:
    """``sum over i, j of in1[..., i] * weight[o, i, j] * in2[..., j] + bias[o]``.

    Args:
        in1, in2: ``[..., first features]`` and ``[..., second features]``.
        weight: ``[out features, first features, second features]``.
        bias: ``[out features]`` or ``None``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.bilinear(mf.ones([2, 3]), mf.ones([2, 4]), mf.ones([5, 3, 4])).shape
        (2, 5)
    """
    in1, in2, weight = (
        check_var("bilinear", n, v) for n, v in (("in1", in1), ("in2", in2), ("weight", weight))
    )
    need_ndim("bilinear", "weight", weight, [3], "(out features, first features, second features)")
    outputs, first, second = weight.shape
    if in1.shape[-1:] != (first,) or in2.shape[-1:] != (second,) or in1.shape[:-1] != in2.shape[:-1]:
        raise ShapeError(
            f"[bilinear] in1 {tuple(in1.shape)} and in2 {tuple(in2.shape)} do not fit weight {tuple(weight.shape)}"
        )
    rows = prod(in1.shape[:-1])
    left = linear(in1, weight.transpose([0, 2, 1]).reshape([outputs * second, first])).reshape(
        [rows, outputs, second]
    )
    left, right, answer = product_operands(left, in2.reshape([rows, 1, second]))
    y = answer(reduce_dims(left * right, "add", (2,))).reshape([*in1.shape[:-1], outputs])
    return y if bias is None else y + like(bias, y)


@operator(
    category="nn",
    numpy=oracles.embedding,
    samples=[
        Sample((Tensor((2, 3), "int32", 0, 3), Tensor((4, 5)))),
        Sample((Tensor((2, 3), "int32", 0, 2), Tensor((4, 5)), -1)),
    ],
    source="rows of weight",
)
def embedding(input: Any, weight: Any, padding_idx: int | None = None) -> Any:
    """The rows of ``weight`` that ``input`` names.

    Args:
        input: integers of any shape; a number outside 0..rows-1 gives zeros.
        weight: ``[rows, features]``.
        padding_idx: this row takes no gradient; negative numbers count from the end.

    Result: ``[*input.shape, features]``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.embedding(mf.array([1, 0]), mf.array([[1.0, 2.0], [3.0, 4.0]])).numpy()
        array([[3., 4.],
               [1., 2.]], dtype=float32)
    """
    input, weight = check_var("embedding", "input", input), check_var("embedding", "weight", weight)
    need_ndim("embedding", "weight", weight, [2], "(rows, features)")
    if not input.dtype.is_integer:
        raise DTypeError(
            f"[embedding] input must hold row numbers as integers, got {input.dtype}; cast it with .int32()"
        )
    place = ",".join(f"i{d}" for d in range(input.ndim))
    shape = [*input.shape, weight.shape[1]]
    rows = weight.reindex(shape, [f"@e0({place})", f"i{input.ndim}"], extras=[input])
    if padding_idx is None:
        return rows
    count = weight.shape[0]
    padding = check_integer("embedding", "padding_idx", padding_idx, -count, count) % count
    return where((input == padding).broadcast(shape, [input.ndim]), rows.detach(), rows)


@operator(
    category="nn",
    numpy=oracles.one_hot,
    samples=[Sample((Tensor((5,), "int32", 0, 3), 4)), Sample((Tensor((2, 3), "int32", 0, 3), 6))],
    source="comparison with an index",
    differentiable=False,
)
def one_hot(x: Any, num_classes: int = -1) -> Any:
    """1 where the last (new) dimension's position equals ``x``, else 0; int32.

    Args:
        x: integers of any shape.
        num_classes: extent of the new dimension; -1 takes the largest value of ``x`` plus one, which reads ``x`` now.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.one_hot(mf.array([1, 0]), 3).numpy()
        array([[0, 1, 0],
               [1, 0, 0]], dtype=int32)
    """
    x = check_var("one_hot", "x", x)
    if not x.dtype.is_integer:
        raise DTypeError(f"[one_hot] x must hold integers, got {x.dtype}; cast it with .int32()")
    count = (
        int(x.numpy().max(initial=0)) + 1
        if type(num_classes) is int and num_classes == -1
        else integer("one_hot", "num_classes", num_classes, 1)
    )
    return _one_hot(x, count)


@recorded
def _one_hot(x: Any, count: int) -> Any:
    shape = [*x.shape, count]
    return (index(shape, x.ndim) == x.broadcast(shape, [x.ndim])).cast("int32")


_PAD_INDEX = {
    # place -> the place it is a copy of; n is the extent
    "replicate": "max(0, min({n}-1, {p}))",
    "reflect": "{n}-1-abs({n}-1-abs({p}))",
    "circular": "({p}+{n})%{n}",
}


@operator(
    category="nn",
    numpy=oracles.pad,
    samples=[
        Sample((Tensor((2, 3)), (1, 2))),
        Sample((Tensor((2, 3, 4)), (1, -1, 0, 2)), {"value": 0.5}),
        *(
            Sample((Tensor((1, 2, 4, 5)), (1, 2, 3, 0), mode))
            for mode in ("reflect", "replicate", "circular")
        ),
    ],
    source="NumPy pad",
)
@recorded
def pad(x: Any, padding: Any, mode: str = "constant", value: float = 0) -> Any:
    """Add elements at the borders (or take some away, where a number is negative).

    Args:
        x: of any shape.
        padding: ``(before, after)`` of the last dimension, then of the one before it, and so on.
        mode: ``"constant"`` (``value``), ``"replicate"`` (the border), ``"reflect"`` (mirrored, without repeating the border)
            or ``"circular"`` (the other side).

    Example:
        >>> import metafuse as mf
        >>> mf.nn.pad(mf.array([1.0, 2.0]), (1, 1)).numpy()
        array([0., 1., 2., 0.], dtype=float32)
    """
    x = check_var("pad", "x", x)
    choice("pad", "mode", mode, ("constant", *_PAD_INDEX))
    value = check_fill("pad", "value", value, x.dtype)
    if not isinstance(padding, (tuple, list)) or len(padding) % 2 or len(padding) > 2 * x.ndim:
        raise ArgumentError(
            f"[pad] padding must hold pairs for up to {x.ndim} dimensions of x, got {brief(padding)}"
        )
    amounts = [integer("pad", "padding", p, -(2**31)) for p in padding]
    pairs = [(0, 0)] * (x.ndim - len(amounts) // 2) + [
        (amounts[k], amounts[k + 1]) for k in range(len(amounts) - 2, -1, -2)
    ]
    shape, indexes = [], []
    for d, (extent, (before, after)) in enumerate(zip(x.shape, pairs, strict=True)):
        limit = {"reflect": extent - 1, "circular": extent}.get(mode)
        if limit is not None and max(before, after) > limit:
            raise ArgumentError(
                f"[pad] mode {mode!r} can add at most {limit} to an extent of {extent}, got {(before, after)}"
            )
        cut = min(before, 0) + min(after, 0)
        if extent + before + after < min(extent, 1) or extent + cut < 0:
            raise ShapeError(f"[pad] nothing would be left of extent {extent} with padding {(before, after)}")
        shape.append(extent + before + after)
        place = f"(i{d}-{before})" if before >= 0 else f"(i{d}+{-before})"
        plain = mode == "constant" or before == after == 0
        indexes.append(place if plain else _PAD_INDEX[mode].format(n=extent, p=place))
    return x.reindex(shape, indexes, value)


def _mask(op: str, x: Any, p: Any, is_train: bool, shape: list[int]) -> Any:
    """``x`` with whole places of ``shape`` zeroed with probability ``p`` and the rest scaled up."""
    p = fraction(op, "p", p)
    if not check_flag(op, "is_train", is_train) or p == 0:
        return x
    if not x.dtype.is_float:
        raise DTypeError(f"[{op}] x must be floating point, got {x.dtype}; cast it with .float32()")
    if p == 1:
        return x * 0.0
    from ..random import random

    return where(random(shape) >= p, x * (1.0 / (1.0 - p)), 0.0)


@operator(category="nn", numpy=None, source="Srivastava et al. 2014", differentiable=False)
def dropout(x: Any, p: float = 0.5, is_train: bool = False) -> Any:
    """In training, zero each element with probability ``p`` and divide the others by ``1 - p``; else ``x`` itself.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.dropout(mf.ones([2]), 0.5, is_train=False).numpy()
        array([1., 1.], dtype=float32)
    """
    x = check_var("dropout", "x", x)
    return _mask("dropout", x, p, is_train, list(x.shape))


@operator(category="nn", numpy=None, source="Tompson et al. 2015", differentiable=False)
def dropout2d(x: Any, p: float = 0.5, is_train: bool = False) -> Any:
    """As ``dropout``, but whole channels (the last two dimensions together) are zeroed.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.dropout2d(mf.ones([1, 1, 2, 2]), is_train=False).sum().item()
        4.0
    """
    x = check_var("dropout2d", "x", x)
    if x.ndim < 3:
        raise ShapeError(
            f"[dropout2d] x must have at least 3 dimensions ([batch,] channels, height, width), got {tuple(x.shape)}"
        )
    return _mask("dropout2d", x, p, is_train, [*x.shape[:-2], 1, 1])


@operator(category="nn", numpy=None, source="Huang et al. 2016, stochastic depth", differentiable=False)
def droppath(x: Any, p: float = 0.5, is_train: bool = False) -> Any:
    """As ``dropout``, but whole samples (dimension 0) are zeroed.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.droppath(mf.ones([1, 2]), is_train=False).sum().item()
        2.0
    """
    x = check_var("droppath", "x", x)
    if x.ndim < 1:
        raise ShapeError("[droppath] x must have a batch dimension, got shape ()")
    return _mask("droppath", x, p, is_train, [x.shape[0], *[1] * (x.ndim - 1)])


@operator(
    category="nn",
    numpy=oracles.pixel_shuffle,
    samples=[Sample((Tensor((2, 8, 2, 3)), 2))],
    source="Shi et al. 2016",
)
def pixel_shuffle(x: Any, upscale_factor: int) -> Any:
    """Move channels into space: ``[batch, channels * r * r, height, width]`` to ``[batch, channels, height * r, width * r]``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.pixel_shuffle(mf.ones([1, 4, 2, 2]), 2).shape
        (1, 1, 4, 4)
    """
    x = check_var("pixel_shuffle", "x", x)
    need_ndim("pixel_shuffle", "x", x, [4], "(batch, channels, height, width)")
    r = integer("pixel_shuffle", "upscale_factor", upscale_factor, 1)
    batch, channels, height, width = x.shape
    if channels % (r * r):
        raise ShapeError(
            f"[pixel_shuffle] channels must be divisible by upscale_factor ** 2 = {r * r}, got {channels}"
        )
    parts = x.reshape([batch, channels // (r * r), r, r, height, width])
    return transpose(parts, 0, 1, 4, 2, 5, 3).reshape([batch, channels // (r * r), height * r, width * r])


def identity(input: Any) -> Any:
    """``input`` itself.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.identity(mf.ones(2)).tolist()
        [1.0, 1.0]
    """
    return input
