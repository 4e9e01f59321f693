"""Activation functions and softmax: element-wise compositions, and row compositions of maximum, exp and sum.

What it is: functions of one Var that the compiler fuses into a kernel together with their neighbours.
What it is not: layers (``nn.activation``). ``tanh``, ``sigmoid``, ``abs`` and other plain functions are in
``ops.elementwise``.
Who calls it: users and ``nn``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...dtypes import accumulator
from ...errors import ArgumentError, DTypeError, ShapeError, brief
from ...kernel.expr import Expr, call, const
from ...var import wrap
from ..autograd import no_grad
from ..elementwise import cast, elementwise, floating, keep
from ..meta import check_dims, check_flag, check_var, fill, with_gradient
from ..precision import answer_type, in_float32
from ..recipe import recorded
from ..registry import Sample, Tensor, operator
from ..scalar import where
from . import oracles
from .checks import plain

__all__ = [
    "elu",
    "gelu",
    "hardtanh",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "silu",
    "softmax",
    "softplus",
]

_ROOT_HALF = 0.7071067811865476
#: 1 / sqrt(2 pi)
_NORMAL_DENSITY = 0.3989422804014327
_PRELU = [Sample((Tensor((2, 3, 2), distinct=True), Tensor((n,), "float", 0.1, 0.9))) for n in (1, 3)]


def real_samples(low: float, high: float) -> list[Sample]:
    """One argument of two shapes with values in this range, none of them near another (so, near a kink)."""
    return [
        Sample((Tensor((3, 4), "float", low, high, distinct=True),)),
        Sample((Tensor((), "float", low, high),)),
    ]


def row_samples() -> list[Sample]:
    """An array and a dimension."""
    return [Sample((Tensor((3, 5)), 1)), Sample((Tensor((2, 3, 4)), 1)), Sample((Tensor((4,)), -1))]


def _real(op: str, x: Any) -> Any:
    """``x`` as a floating-point Var."""
    x = check_var(op, "x", x)
    if not x.dtype.is_float:
        raise DTypeError(f"[{op}] x must be floating point, got {x.dtype}; cast it with .float32()")
    return x


# The bounds are part of the expressions, not run-time numbers: libraries apply these to what they compute.
relu = elementwise(
    "relu", "``max(x, 0)``; the gradient at 0 is 0, NaN stays NaN.",
    lambda a: call("max", a, const(0, a.dtype)), rule=keep, numpy=lambda x: np.maximum(x, 0),
    gradients=[lambda g, x, y: where(y > 0, g, 0)], domain=[Tensor((), "float", -4, 4, distinct=True)],
    source="max(x, 0)", category="nn",
)  # fmt: skip
relu6 = elementwise(
    "relu6", "``min(max(x, 0), 6)``; the gradient at 0 and 6 is 0, NaN stays NaN.",
    lambda a: call("min", call("max", a, const(0, a.dtype)), const(6, a.dtype)), rule=keep,
    numpy=lambda x: np.clip(x, 0, 6), gradients=[lambda g, x, y: where((y > 0).logical_and(y < 6), g, 0)],
    domain=[Tensor((), "float", -3, 9, distinct=True)], methods=(), source="min(max(x, 0), 6)", category="nn",
)  # fmt: skip


def not_above(x: Any) -> Any:
    """``x`` where it is not above 0, else 0. Its slope at 0 is 1, where that of ``x.minimum(0)`` is 0: what is smooth there,
    such as ``expm1`` of it beside ``x``, keeps its gradient."""
    return where(x > 0, 0.0, x)


@operator(
    category="nn", numpy=oracles.leaky_relu, samples=real_samples(-4, 4), source="x if x > 0 else scale * x"
)
def leaky_relu(x: Any, scale: float = 0.01) -> Any:
    """``x`` where it is positive, else ``scale * x``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.leaky_relu(mf.array([-2.0, 2.0]), 0.5).numpy()
        array([-1.,  2.], dtype=float32)
    """
    x = _real("leaky_relu", x)
    plain("leaky_relu", "scale", scale)
    return where(x > 0, x, x * scale)


@operator(category="nn", numpy=oracles.prelu, samples=_PRELU, source="x if x > 0 else weight * x")
def prelu(x: Any, weight: Any) -> Any:
    """``x`` where it is positive, else ``weight * x`` with one weight for everything or one per channel (dimension 1).

    Example:
        >>> import metafuse as mf
        >>> mf.nn.prelu(mf.array([[-2.0, -2.0]]), mf.array([0.5, 0.25])).numpy()
        array([[-1. , -0.5]], dtype=float32)
    """
    x = _real("prelu", x)
    weight = check_var("prelu", "weight", weight)
    count = weight.numel()
    if count != 1 and (x.ndim < 2 or x.shape[1] != count):
        raise ShapeError(
            f"[prelu] weight must have 1 element or one per channel of x {tuple(x.shape)}, got {count}"
        )
    slope = weight.reshape([1] * x.ndim if count == 1 else [count if d == 1 else 1 for d in range(x.ndim)])
    return where(x > 0, x, x * slope)


@operator(category="nn", numpy=oracles.elu, samples=real_samples(-4, 4), source="Clevert et al. 2015")
def elu(x: Any, alpha: float = 1.0) -> Any:
    """``x`` where it is positive, else ``alpha * (exp(x) - 1)``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.elu(mf.array([0.0, 2.0])).numpy()
        array([0., 2.], dtype=float32)
    """
    x = _real("elu", x)
    plain("elu", "alpha", alpha)
    return where(x > 0, x, not_above(x).expm1() * alpha)


def _normal(a: Expr) -> Expr:
    """``P(X <= a)`` for a standard normal X."""
    spread = call("erf", call("mul", a, const(_ROOT_HALF, a.dtype)))
    return call("mul", call("add", spread, const(1, a.dtype)), const(0.5, a.dtype))


gelu = elementwise(
    "gelu", "``x * P(X <= x)`` for a standard normal X: ``x * (1 + erf(x / sqrt(2))) / 2``.",
    lambda a: call("mul", a, _normal(a)), rule=floating, numpy=oracles.gelu,
    gradients=[
        lambda g, x, y: g * (((x * _ROOT_HALF).erf() + 1) * 0.5 + x * (x * x * -0.5).exp() * _NORMAL_DENSITY)
    ],
    domain=[Tensor((), "float", -5, 5)], methods=(), source="Hendrycks and Gimpel 2016, the exact form",
    category="nn",
)  # fmt: skip


@operator(category="nn", numpy=oracles.silu, samples=real_samples(-8, 8), source="Elfwing et al. 2017")
def silu(x: Any) -> Any:
    """``x * sigmoid(x)``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.silu(mf.array([0.0])).numpy()
        array([0.], dtype=float32)
    """
    x = _real("silu", x)
    return x * x.sigmoid()


@operator(category="nn", numpy=oracles.softplus, samples=real_samples(-8, 8), source="log(1 + exp(x))")
def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """``log(1 + exp(beta * x)) / beta``, and ``x`` itself where ``beta * x > threshold``.

    Example:
        >>> import metafuse as mf
        >>> round(mf.nn.softplus(mf.array([0.0])).item(), 4)
        0.6931
    """
    x = _real("softplus", x)
    plain("softplus", "beta", beta)
    plain("softplus", "threshold", threshold)
    if beta == 0:
        raise ArgumentError(f"[softplus] beta must not be 0, got {brief(beta)}")
    scaled = x * beta
    linear = scaled > threshold
    return where(linear, x, where(linear, 0.0, scaled).exp().log1p() / beta)


@operator(category="nn", numpy=oracles.mish, samples=real_samples(-8, 8), source="Misra 2019")
def mish(x: Any, inplace: bool = False) -> Any:
    """``x * tanh(softplus(x))``. ``inplace`` is accepted and has no effect: the compiler reuses memory by itself.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.mish(mf.array([0.0])).numpy()
        array([0.], dtype=float32)
    """
    x = _real("mish", x)
    return x * softplus(x).tanh()


@operator(
    category="nn",
    numpy=oracles.log_sigmoid,
    samples=real_samples(-30, 30),
    source="-softplus(-x)",
    method=True,
)
def log_sigmoid(x: Any) -> Any:
    """``log(sigmoid(x))`` without overflow or cancellation.

    Example:
        >>> import metafuse as mf
        >>> round(mf.nn.log_sigmoid(mf.array([0.0])).item(), 4)
        -0.6931
    """
    x = _real("log_sigmoid", x)
    return (
        not_above(x) - where(x > 0, -x, x).exp().log1p()
    )  # at 0 both choose one side, and their slopes add up


@operator(
    category="nn", numpy=oracles.hardtanh, samples=real_samples(-2, 2), source="min(max(x, min_val), max_val)"
)
def hardtanh(x: Any, min_val: float = -1, max_val: float = 1) -> Any:
    """``x`` limited to ``min_val`` .. ``max_val``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.hardtanh(mf.array([-3.0, 0.5, 3.0])).numpy()
        array([-1. ,  0.5,  1. ], dtype=float32)
    """
    plain("hardtanh", "min_val", min_val)
    plain("hardtanh", "max_val", max_val)
    if min_val > max_val:
        raise ArgumentError(
            f"[hardtanh] min_val must not exceed max_val, got {brief(min_val)} and {brief(max_val)}"
        )
    x = check_var("hardtanh", "x", x)
    return x.maximum(min_val).minimum(max_val)


def _top(x: Any, axes: tuple[int, ...]) -> Any:
    """The maximum of ``x`` over ``axes``, without gradient; 0 where there is nothing to pick from."""
    if 0 in [x.shape[d] for d in axes]:
        return fill(tuple(1 if d in axes else n for d, n in enumerate(x.shape)), 0, x.dtype)
    return x.max(axes, keepdims=True).stop_grad()


@operator(
    category="nn",
    numpy=oracles.softmax,
    samples=row_samples(),
    source="exp(x - max) / sum(exp(x - max))",
    method=True,
)
@recorded
def softmax(x: Any, dim: Any = None, log: bool = False) -> Any:
    """Exponentials divided by their sum over ``dim`` (``None``: over everything); with ``log``, the logarithm of that.

    The maximum is subtracted first, so that large inputs do not overflow. 16-bit floats are computed in float32.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.softmax(mf.array([[0.0, 0.0]]), dim=1).numpy()
        array([[0.5, 0.5]], dtype=float32)
    """
    x = _real("softmax", x)
    axes, log = check_dims("softmax", dim, x.ndim), check_flag("softmax", "log", log)
    with no_grad():
        wide = cast(x, accumulator(x.dtype))
        scaled = wide - _top(wide, axes)  # the shift cancels in what follows
        exponentials = scaled.exp()
        total = exponentials.sum(axes, keepdims=True)
        y = cast(scaled - total.log() if log else exponentials * (1.0 / total), answer_type(x.dtype))
    return with_gradient(y, [x], "log_softmax" if log else "softmax", (axes, log), _softmax_gradient)


def _softmax_gradient(node: Any, upstream: Any) -> list[Any]:
    """From the answer alone, so that nothing of the forward pass is computed again."""
    axes, log = node.sig.attrs
    wide, dtype = accumulator(node.spec.dtype), node.inputs[1].spec.dtype
    y, upstream = cast(wrap(node), wide), cast(upstream, wide)
    if log:
        return [None, cast(upstream - y.exp() * upstream.sum(axes, keepdims=True), dtype)]
    return [None, cast(y * (upstream - (upstream * y).sum(axes, keepdims=True)), dtype)]


@operator(
    category="nn", numpy=oracles.log_softmax, samples=row_samples(), source="log(softmax(x))", method=True
)
def log_softmax(x: Any, dim: Any = None) -> Any:
    """The logarithm of ``softmax(x, dim)``, computed without taking a logarithm of small numbers.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.log_softmax(mf.array([[0.0, 0.0]]), dim=1).numpy().round(4)
        array([[-0.6931, -0.6931]], dtype=float32)
    """
    return softmax(x, dim, True)


@operator(
    category="nn", numpy=oracles.logsumexp, samples=row_samples(), source="log(sum(exp(x)))", method=True
)
@in_float32
def logsumexp(x: Any, dim: Any, keepdims: bool = False, keepdim: bool = False) -> Any:
    """``log(sum(exp(x)))`` over ``dim`` without overflow; of nothing, and of minus infinities alone, minus infinity.

    Example:
        >>> import metafuse as mf
        >>> round(mf.nn.logsumexp(mf.array([[0.0, 0.0]]), 1).item(), 4)
        0.6931
    """
    x = _real("logsumexp", x)
    axes = check_dims("logsumexp", dim, x.ndim)
    top = _top(x, axes)
    top = where(top.isinf(), 0.0, top)  # infinity less itself is no number
    total = (x - top).exp().sum(axes, keepdims=True)
    nothing = total == 0
    # a logarithm of 0 would have a gradient that is no number
    y = where(nothing, -math.inf, where(nothing, 1.0, total).log() + top)
    if check_flag("logsumexp", "keepdims", keepdims) or check_flag("logsumexp", "keepdim", keepdim):
        return y
    return y.reshape([extent for d, extent in enumerate(x.shape) if d not in axes] or [1])
