"""More activation functions: self-normalising, shrinking and piecewise-linear ones, and gates.

What it is: element-wise compositions that fuse with their neighbours.
What it is not: those of the reference API (``activation``), or layers (``nn.activation_variants``).
Who calls it: users and ``nn``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ArgumentError, DTypeError, ShapeError, brief
from ...kernel.expr import Expr, call, const
from ..elementwise import elementwise, floating
from ..meta import check_dim, check_var
from ..registry import Sample, Tensor, operator
from ..scalar import where
from .activation import not_above
from .checks import plain

__all__ = [
    "celu", "gelu_tanh", "glu", "hardshrink", "hardsigmoid", "hardswish", "quick_gelu", "selu", "softshrink", "softsign",
    "tanhshrink", "threshold",
]  # fmt: skip

#: alpha and scale with which unit-variance inputs keep mean 0 and variance 1
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
_ROOT_TWO_OVER_PI = 0.7978845608028654


def _samples(low: float, high: float, *more: Any) -> list[Sample]:
    """Two shapes, no value near another (so, near a kink)."""
    return [Sample((Tensor(shape, "float", low, high, distinct=True), *more)) for shape in ((3, 4), (8,))]


def _real(op: str, x: Any, **numbers: Any) -> Any:
    """``x`` as a floating-point Var, once all ``numbers`` are numbers."""
    for name, value in numbers.items():
        plain(op, name, value)
    x = check_var(op, "x", x)
    if not x.dtype.is_float:
        raise DTypeError(f"[{op}] x must be floating point, got {x.dtype}; cast it with .float32()")
    return x


@operator(
    category="nn", source="Klambauer et al. 2017", samples=_samples(-3, 3),
    numpy=lambda x: SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0))),
)  # fmt: skip
def selu(x: Any) -> Any:
    """``scale * x`` where it is positive, else ``scale * alpha * (exp(x) - 1)``, with the self-normalising constants.

    Example:
        >>> import metafuse as mf
        >>> round(mf.nn.selu(mf.array([1.0])).item(), 4)
        1.0507
    """
    x = _real("selu", x)
    return where(x > 0, x * SELU_SCALE, not_above(x).expm1() * (SELU_ALPHA * SELU_SCALE))


@operator(
    category="nn", source="Barron 2017", samples=_samples(-3, 3, 0.7),
    numpy=lambda x, alpha=1.0: np.maximum(x, 0) + np.minimum(alpha * np.expm1(np.minimum(x, 0) / alpha), 0),
)  # fmt: skip
def celu(x: Any, alpha: float = 1.0) -> Any:
    """``x`` where it is positive, else ``alpha * (exp(x / alpha) - 1)``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.celu(mf.array([0.0, 2.0]), 0.5).numpy()
        array([0., 2.], dtype=float32)
    """
    x = _real("celu", x, alpha=alpha)
    if alpha == 0:
        raise ArgumentError(f"[celu] alpha must not be 0, got {brief(alpha)}")
    return where(x > 0, x, (not_above(x) / alpha).expm1() * alpha)


def _number(value: float, like: Expr) -> Expr:
    return const(value, like.dtype)


# Known numbers in one expression, by which a library recognises them behind a product.
def _gelu_tanh(a: Expr) -> Expr:
    cubic = call("add", call("mul", call("mul", a, a), _number(0.044715, a)), _number(1, a))
    bent = call("tanh", call("mul", call("mul", cubic, a), _number(_ROOT_TWO_OVER_PI, a)))
    return call("mul", a, call("mul", call("add", bent, _number(1, a)), _number(0.5, a)))


def _gelu_tanh_gradient(g: Any, x: Any, y: Any) -> Any:
    square = x * x
    bent = ((square * 0.044715 + 1.0) * x * _ROOT_TWO_OVER_PI).tanh()
    slope = (square * (3 * 0.044715) + 1.0) * _ROOT_TWO_OVER_PI
    return g * 0.5 * (bent + 1.0 + x * (1.0 - bent * bent) * slope)


gelu_tanh = elementwise(
    "gelu_tanh", "``gelu`` with the normal distribution approximated by a tanh.", _gelu_tanh, rule=floating,
    numpy=lambda x: x * 0.5 * (1 + np.tanh(_ROOT_TWO_OVER_PI * (x + 0.044715 * x**3))),
    gradients=[_gelu_tanh_gradient], domain=[Tensor((), "float", -4, 4)], methods=(),
    source="Hendrycks and Gimpel 2016, the form with tanh", category="nn",
)  # fmt: skip


def _quick_gelu(a: Expr) -> Expr:
    power = call("exp", call("neg", call("mul", a, _number(1.702, a))))
    return call("mul", a, call("div", _number(1, a), call("add", _number(1, a), power)))


def _quick_gelu_gradient(g: Any, x: Any, y: Any) -> Any:
    gate = (x * 1.702).sigmoid()
    return g * gate * (x * 1.702 * (1.0 - gate) + 1.0)


quick_gelu = elementwise(
    "quick_gelu", "``gelu`` with the normal distribution approximated by a sigmoid: ``x * sigmoid(1.702 * x)``.", _quick_gelu,
    rule=floating, numpy=lambda x: x / (1 + np.exp(-1.702 * x)), gradients=[_quick_gelu_gradient],
    domain=[Tensor((), "float", -4, 4)], methods=(), source="x * sigmoid(1.702 * x)", category="nn",
)  # fmt: skip


@operator(category="nn", source="min(max(x + 3, 0), 6) / 6", samples=_samples(-5, 5),
          numpy=lambda x: np.clip(x + 3, 0, 6) / 6)  # fmt: skip
def hardsigmoid(x: Any) -> Any:
    """A sigmoid of three straight lines: ``min(max(x + 3, 0), 6) / 6``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.hardsigmoid(mf.array([-4.0, 0.0, 4.0])).numpy()
        array([0. , 0.5, 1. ], dtype=float32)
    """
    return (_real("hardsigmoid", x) + 3.0).maximum(0).minimum(6) / 6.0


def _hardswish(a: Expr) -> Expr:
    ramp = call("max", call("add", a, _number(3, a)), _number(0, a))
    return call("mul", a, call("div", call("min", ramp, _number(6, a)), _number(6, a)))


hardswish = elementwise(
    "hardswish", "``x * hardsigmoid(x)``.", _hardswish, rule=floating, numpy=lambda x: x * np.clip(x + 3, 0, 6) / 6,
    gradients=[lambda g, x, y: g * where(x < -3, 0.0, where(x <= 3, x * (1 / 3) + 0.5, 1.0))],
    domain=[Tensor((), "float", -2.5, 2.5)], methods=(), source="Howard et al. 2019", category="nn",
)  # fmt: skip


@operator(category="nn", source="x / (1 + |x|)", samples=_samples(-4, 4), numpy=lambda x: x / (1 + np.abs(x)))
def softsign(x: Any) -> Any:
    """``x / (1 + |x|)``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.softsign(mf.array([-1.0, 3.0])).numpy()
        array([-0.5 ,  0.75], dtype=float32)
    """
    x = _real("softsign", x)
    return x / (x.abs() + 1.0)


@operator(category="nn", source="x - tanh(x)", samples=_samples(-4, 4), numpy=lambda x: x - np.tanh(x))
def tanhshrink(x: Any) -> Any:
    """``x - tanh(x)``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.tanhshrink(mf.array([0.0])).numpy()
        array([0.], dtype=float32)
    """
    x = _real("tanhshrink", x)
    return x - x.tanh()


@operator(category="nn", source="soft thresholding", samples=_samples(-2, 2, 0.4),
          numpy=lambda x, lambd=0.5: np.sign(x) * np.maximum(np.abs(x) - lambd, 0))  # fmt: skip
def softshrink(x: Any, lambd: float = 0.5) -> Any:
    """``x`` moved towards 0 by ``lambd`` >= 0, and 0 where it would cross it.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.softshrink(mf.array([-2.0, 0.25, 2.0])).numpy()
        array([-1.5,  0. ,  1.5], dtype=float32)
    """
    x = _real("softshrink", x, lambd=lambd)
    if lambd < 0:
        raise ArgumentError(f"[softshrink] lambd must be >= 0, got {brief(lambd)}")
    return where(x > lambd, x - lambd, where(x >= -lambd, 0.0, x + lambd))


@operator(category="nn", source="hard thresholding", samples=_samples(-2, 2, 0.4),
          numpy=lambda x, lambd=0.5: np.where(np.abs(x) <= lambd, 0, x))  # fmt: skip
def hardshrink(x: Any, lambd: float = 0.5) -> Any:
    """``x`` where ``|x| > lambd``, else 0.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.hardshrink(mf.array([-2.0, 0.25, 2.0])).numpy()
        array([-2.,  0.,  2.], dtype=float32)
    """
    x = _real("hardshrink", x, lambd=lambd)
    return where(x.abs() <= lambd, 0.0, x)


@operator(category="nn", source="x if x > threshold else value", samples=_samples(-2, 2, 0.3, 1.5),
          numpy=lambda x, threshold, value: np.where(x <= threshold, value, x))  # fmt: skip
def threshold(x: Any, threshold: float, value: float) -> Any:
    """``x`` where it is above ``threshold``, else ``value``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.threshold(mf.array([-2.0, 2.0]), 0.5, 9.0).numpy()
        array([9., 2.], dtype=float32)
    """
    x = _real("threshold", x, threshold=threshold, value=value)
    return where(x <= threshold, float(value), x)


def _glu(x: Any, dim: int = -1) -> Any:
    a, b = np.split(x, 2, dim)
    return a / (1 + np.exp(-b))


@operator(category="nn", source="Dauphin et al. 2016", numpy=_glu,
          samples=[Sample((Tensor((3, 4)),)), Sample((Tensor((2, 6, 3)), 1))])  # fmt: skip
def glu(x: Any, dim: int = -1) -> Any:
    """The first half of dimension ``dim`` times the sigmoid of the second.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.glu(mf.array([[4.0, 0.0]])).numpy()
        array([[2.]], dtype=float32)
    """
    x = _real("glu", x)
    number = check_dim("glu", dim, x.ndim)
    if x.shape[number] % 2:
        raise ShapeError(f"[glu] dimension {dim} must have an even extent, got shape {tuple(x.shape)}")
    half = x.shape[number] // 2
    first, second = x.split(half, number)
    return first * second.sigmoid()
