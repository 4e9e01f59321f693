"""Bounds and blends: clamp, nan_to_num, lerp and their relatives.

What it is: short compositions of element-wise operators with arguments that are plain numbers or missing.
What it is not: element-wise records of their own (``scalar``, ``special``).
Who calls it: users.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..graph.node import Node
from ..var import Var
from .autograd import no_grad
from .meta import check_number, check_var, identity, with_gradient
from .registry import Sample, Tensor, operator
from .scalar import ternary
from .special import isneginf, isposinf
from .telling import tells

__all__ = ["addcdiv", "addcmul", "clamp", "lerp", "nan_to_num", "safe_clip"]


def _limit(name: str, argument: str, value: Any) -> Any:
    """A number or a Var; ``None`` stays."""
    if value is None or type(value) is Var or isinstance(value, np.ndarray):
        return value
    return check_number(name, argument, value)


def _clamp_oracle(x: Any, min_v: Any = None, max_v: Any = None) -> Any:
    return x.copy() if min_v is None and max_v is None else np.clip(x, min_v, max_v)


@operator(
    category="element-wise", numpy=_clamp_oracle, method=("clamp", "clip"), source="NumPy clip",
    samples=[Sample((Tensor((3, 4)), -1.0, 1.5)), Sample((Tensor((3, 4)), None, 0.5)),
             Sample((Tensor((3, 4)), Tensor((4,), low=-3, high=-1))),
             Sample((Tensor((2, 0)), 0, 1)), Sample((Tensor((3,), "int", -9, 9), -2, 3))],
)  # fmt: skip
def clamp(x: Any, min_v: Any = None, max_v: Any = None) -> Var:
    """``x`` brought into ``min_v..max_v`` (numbers, arrays or ``None`` for no bound); NaN stays.

    Errors:
        ArgumentError: a lower bound above the upper one.

    Example:
        >>> import metafuse as mf
        >>> mf.clamp(mf.array([-2.0, 0.5, 2.0]), -1, 1).numpy()
        array([-1. ,  0.5,  1. ], dtype=float32)
    """
    x = check_var("clamp", "x", x)
    if min_v is None and max_v is None:
        return identity(x)
    low, high = _limit("clamp", "min_v", min_v), _limit("clamp", "max_v", max_v)
    if isinstance(low, (int, float)) and isinstance(high, (int, float)) and low > high:
        raise ArgumentError(f"[clamp] min_v must be at most max_v, got {low} and {high}")
    x = x if low is None else x.maximum(low)
    return x if high is None else x.minimum(high)


def _pass_through(node: Node, upstream: Var) -> list[Var | None]:
    return [None, upstream]


@operator(
    category="element-wise", numpy=lambda x, left=-1e300, right=1e300: np.clip(x, left, right), method=True,
    differentiable=False, samples=[Sample((Tensor((3, 4)), -1.0, 1.5)), Sample((Tensor((5,)),)),
                                   Sample((Tensor((3,), "int"), -1, 2))],
)  # fmt: skip
@tells
def safe_clip(x: Any, left: float = -1e300, right: float = 1e300) -> Var:
    """``x`` brought into ``left..right``; the gradient is handed through as if it had not been touched.

    Example:
        >>> import metafuse as mf
        >>> x = mf.array([-5.0, 0.5])
        >>> mf.grad(mf.safe_clip(x, -1, 1).sum(), x).numpy()
        array([1., 1.], dtype=float32)
    """
    x = check_var("safe_clip", "x", x)
    info: Any = (
        np.finfo(x.dtype.numpy)
        if x.dtype.is_float
        else np.iinfo(x.dtype.numpy if x.dtype.is_integer else np.int32)
    )
    low, high = check_number("safe_clip", "left", left), check_number("safe_clip", "right", right)
    with no_grad():  # a bound that the type can't reach is none
        result = clamp(x, low if low > float(info.min) else None, high if high < float(info.max) else None)
    return with_gradient(result, [x], "safe_clip", None, _pass_through) if x.dtype.is_float else result


@operator(
    category="element-wise", numpy=np.nan_to_num, method=True, source="NumPy nan_to_num",
    samples=[Sample((Tensor((3, 4)),)), Sample((Tensor((0,)), 1.0, 2.0, 3.0)), Sample((Tensor((3,), "int"),))],
)  # fmt: skip
def nan_to_num(x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Var:
    """``x`` with NaN replaced by ``nan`` and infinities by ``posinf`` and ``neginf`` (the largest numbers unless given).

    Example:
        >>> import metafuse as mf
        >>> mf.nan_to_num(mf.array([float("nan"), float("inf"), 1.0]), posinf=9.0).numpy()
        array([0., 9., 1.], dtype=float32)
    """
    x = check_var("nan_to_num", "x", x)
    value = check_number("nan_to_num", "nan", nan)
    limit = [
        v if v is None else check_number("nan_to_num", n, v)
        for n, v in (("posinf", posinf), ("neginf", neginf))
    ]
    if not x.dtype.is_float:
        return x
    largest = float(np.finfo(x.dtype.numpy).max) if x.dtype.name != "bfloat16" else 3.3895313892515355e38
    high, low = (b if b is not None else s * largest for b, s in zip(limit, (1.0, -1.0)))
    bounded = ternary(isposinf(x), float(high), ternary(isneginf(x), float(low), x))
    return ternary(x.isnan(), float(value), bounded)


@operator(
    category="element-wise", numpy=lambda start, end, weight: start + weight * (end - start), method=True,
    samples=[Sample((Tensor((3, 4)), Tensor((4,)), 0.25)), Sample((Tensor((3, 1)), Tensor((4,)), Tensor((3, 4))))],
)  # fmt: skip
@tells
def lerp(start: Any, end: Any, weight: Any) -> Var:
    """``start + weight * (end - start)``.

    Example:
        >>> import metafuse as mf
        >>> mf.lerp(mf.array([0.0]), mf.array([4.0]), 0.25).item()
        1.0
    """
    a, b = check_var("lerp", "start", start), check_var("lerp", "end", end)
    return a + (b - a) * _limit("lerp", "weight", 0.5 if weight is None else weight)


@operator(
    category="element-wise", numpy=lambda input, tensor1, tensor2, value=1: input + value * tensor1 * tensor2, method=True,
    samples=[Sample((Tensor((3, 4)), Tensor((4,)), Tensor((3, 1)))),
             Sample((Tensor((3,)), Tensor((3,)), Tensor((3,)), 0.5))],
)  # fmt: skip
@tells
def addcmul(input: Any, tensor1: Any, tensor2: Any, value: float = 1) -> Var:
    """``input + value * tensor1 * tensor2``.

    Example:
        >>> import metafuse as mf
        >>> mf.addcmul(mf.ones(1), mf.ones(1), mf.ones(1), 2).item()
        3.0
    """
    x, a, b = (
        check_var("addcmul", n, v) for n, v in (("input", input), ("tensor1", tensor1), ("tensor2", tensor2))
    )
    return x + a * b * check_number("addcmul", "value", value)


@operator(
    category="element-wise", numpy=lambda input, tensor1, tensor2, value=1: input + value * tensor1 / tensor2, method=True,
    samples=[Sample((Tensor((3, 4)), Tensor((4,)), Tensor((3, 1), "float", 0.5, 2.0))),
             Sample((Tensor((3,)), Tensor((3,)), Tensor((3,), "float", 1, 2), 0.5))],
)  # fmt: skip
@tells
def addcdiv(input: Any, tensor1: Any, tensor2: Any, value: float = 1) -> Var:
    """``input + value * tensor1 / tensor2``.

    Example:
        >>> import metafuse as mf
        >>> mf.addcdiv(mf.ones(1), mf.ones(1), mf.ones(1), 2).item()
        3.0
    """
    x, a, b = (
        check_var("addcdiv", n, v) for n, v in (("input", input), ("tensor1", tensor1), ("tensor2", tensor2))
    )
    return x + a / b * check_number("addcdiv", "value", value)
