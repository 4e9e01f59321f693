"""Norms, distances and comparisons of whole arrays.

What it is: compositions of maps and folds.
What it is not: means and variances (``reduce``) or order statistics (``sorting``).
Who calls it: users.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import accumulator, to_floating
from ..errors import ArgumentError, ShapeError, brief
from ..var import Var
from .elementwise import broadcast_shapes, cast
from .meta import check_dims, check_flag, check_number, check_var, expand_dims
from .recipe import recorded
from .reduce import argmax, argmin, reduce
from .registry import Sample, Tensor, operator
from .telling import tells

__all__ = ["all_equal", "allclose", "arg_reduce", "cdist", "count_nonzero", "isclose", "norm", "normalize"]

_X = Tensor((3, 4))
_INFINITY = float("inf")


def _order(operator_name: str, p: Any) -> float:
    """The order of a norm as a number; "fro" is 2 and "inf" infinity."""
    named = {"fro": 2.0, "inf": _INFINITY, "-inf": -_INFINITY}
    if isinstance(p, str):
        if p not in named:
            raise ArgumentError(
                f"[{operator_name}] p must be a number or one of {', '.join(named)}, got {brief(p)}"
            )
        return named[p]
    order = float(check_number(operator_name, "p", p))
    if order != order:
        raise ArgumentError(f"[{operator_name}] p must be a number, got nan")
    return order


def _norm(operator_name: str, x: Var, p: float, dims: tuple[int, ...], keep: bool, eps: float) -> Var:
    kind = to_floating(x.dtype)
    x = cast(x, accumulator(kind))

    def fold(value: Var, op: str) -> Var:
        return reduce(value, op, list(dims), keep) if dims else value

    if p in (_INFINITY, -_INFINITY):
        result = fold(x.abs(), "maximum" if p > 0 else "minimum")
    elif p == 0:
        result = fold(cast(x != 0, x.dtype), "add")
    elif p == 1:
        result = fold(x.abs(), "add")
    elif p == 2:
        result = fold(x.sqr(), "add").maximum(eps).sqrt()
    else:
        result = fold(x.abs().power(p), "add").maximum(eps).power(1.0 / p)
    return cast(result, kind)


def _norm_oracle(
    x: Any, p: Any = 2, dim: Any = -1, keepdims: bool = False, eps: float = 1e-30, keepdim: bool = False
) -> Any:
    if dim is None:
        dim = tuple(range(x.ndim))
    dim = tuple(dim) if isinstance(dim, (list, tuple)) else dim
    order = {"inf": np.inf, "fro": 2}.get(p, p)
    size = np.abs(x)
    keep = keepdims or keepdim
    if np.isinf(order):
        return (np.max if order > 0 else np.min)(size, dim, keepdims=keep)
    if order == 0:
        return np.sum(size != 0, dim, keepdims=keep).astype(np.float64)
    return np.maximum(np.sum(size**order, dim, keepdims=keep), eps if order != 1 else 0) ** (1 / order)


@operator(
    category="reduce", numpy=_norm_oracle, method=True, source="p-norm of a vector",
    samples=[Sample((_X,)), Sample((_X, 1, 0)), Sample((Tensor((3, 4), distinct=True), "inf", 1, True)),
             Sample((_X, 2, None)),
             Sample((Tensor((2, 3, 4), "float", 0.2, 3.0), 3, [0, 2])),
             Sample((Tensor((3, 4), "float", 0.2, 3.0), 0.5)),
             Sample((Tensor((1,)),)), Sample((Tensor((2, 0)), 2, 0))],
)  # fmt: skip
@recorded
def norm(
    x: Any, p: Any = 2, dim: Any = -1, keepdims: bool = False, eps: float = 1e-30, keepdim: bool = False
) -> Var:
    """``(sum |x|**p) ** (1/p)`` along ``dim``; the sum is at least ``eps``, so that the gradient at 0 is 0 and not NaN.

    Args:
        p: a number, "inf" or "fro" (2); infinity takes the largest size, minus infinity the smallest, 0 counts what is not 0.
        dim: a dimension, several, or ``None`` for all.

    Example:
        >>> import metafuse as mf
        >>> mf.norm(mf.array([3.0, 4.0])).item()
        5.0
    """
    x = check_var("norm", "x", x)
    dims = check_dims("norm", dim, x.ndim)
    least = float(check_number("norm", "eps", eps))
    return _norm(
        "norm",
        x,
        _order("norm", p),
        dims,
        check_flag("norm", "keepdims", keepdims) or check_flag("norm", "keepdim", keepdim),
        least,
    )


def _normalize_oracle(input: Any, p: Any = 2, dim: Any = 1, eps: float = 1e-30) -> Any:
    return input / np.maximum(_norm_oracle(input, p, dim, True), eps)


@operator(
    category="reduce", numpy=_normalize_oracle, method=True, source="x / norm(x)",
    samples=[Sample((_X,)), Sample((_X, 1, 0)), Sample((Tensor((5,)), 2, -1)),
             Sample((Tensor((2, 3, 4)), 2, [1, 2]))],
)  # fmt: skip
@recorded
def normalize(input: Any, p: Any = 2, dim: Any = 1, eps: float = 1e-30) -> Var:
    """``input`` over its norm along ``dim``; slices of norm 0 stay 0.

    Example:
        >>> import metafuse as mf
        >>> mf.normalize(mf.array([[3.0, 4.0]])).numpy()
        array([[0.6, 0.8]], dtype=float32)
    """
    x = check_var("normalize", "input", input)
    dims = check_dims("normalize", dim, x.ndim)
    least = float(check_number("normalize", "eps", eps))
    kind = to_floating(x.dtype)
    wide = cast(x, accumulator(kind))
    return cast(
        wide / _norm("normalize", wide, _order("normalize", p), dims, True, 1e-30).maximum(least), kind
    )


@operator(
    category="linalg", numpy=lambda x1, x2, p=2: _norm_oracle(x1[..., :, None, :] - x2[..., None, :, :], p), method=True,
    source="p-norm of differences",
    samples=[Sample((Tensor((3, 4)), Tensor((5, 4)))), Sample((Tensor((2, 1, 3, 4)), Tensor((2, 2, 4)), 1)),
             Sample((Tensor((0, 4)), Tensor((5, 4))))],
)  # fmt: skip
def cdist(x1: Any, x2: Any, p: Any = 2) -> Var:
    """The distances between all rows of ``x1`` and all rows of ``x2``: ``[..., n, d], [..., m, d] -> [..., n, m]``.

    Example:
        >>> import metafuse as mf
        >>> mf.cdist(mf.array([[0.0, 0.0]]), mf.array([[3.0, 4.0], [0.0, 1.0]])).numpy()
        array([[5., 1.]], dtype=float32)
    """
    a, b = check_var("cdist", "x1", x1), check_var("cdist", "x2", x2)
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-1]:
        raise ShapeError(
            f"[cdist] x1 and x2 must be [..., rows, {a.shape[-1]}], got {list(a.shape)} and {list(b.shape)}"
        )
    apart = expand_dims(a, [a.ndim - 1]) - expand_dims(b, [b.ndim - 2])
    return _norm("cdist", apart, _order("cdist", p), (apart.ndim - 1,), False, 1e-30)


@operator(
    category="reduce", numpy=lambda x, dim=None: np.asarray(np.count_nonzero(x, dim)), method=True, differentiable=False,
    source="NumPy count_nonzero", samples=[Sample((Tensor((3, 4), "int", 0, 1),)), Sample((Tensor((3, 4), "bool"), 0))],
)  # fmt: skip
def count_nonzero(x: Any, dim: Any = None) -> Var:
    """How many elements along ``dim`` are not 0; int32.

    Example:
        >>> import metafuse as mf
        >>> mf.count_nonzero(mf.array([0, 3, 4])).item()
        2
    """
    return reduce(check_var("count_nonzero", "x", x) != 0, "add", dim)


def _arg_reduce_oracle(x: Any, op: str, dim: int, keepdims: bool) -> Any:
    pick, choose = (np.argmax, np.max) if op.startswith("max") else (np.argmin, np.min)
    return pick(x, axis=dim, keepdims=keepdims), choose(x, axis=dim, keepdims=keepdims)


@operator(
    category="reduce", numpy=_arg_reduce_oracle, method=True, rebinds=False,
    samples=[Sample((Tensor((3, 4), "float", distinct=True), "max", 1, False)),
             Sample((Tensor((3, 4), "float", distinct=True), "minimum", 0, True))],
)  # fmt: skip
def arg_reduce(x: Any, op: str, dim: int, keepdims: bool) -> tuple[Var, Var]:
    """Place and value of the largest (``op`` "max" or "maximum") or smallest ("min", "minimum") element along ``dim``.

    Example:
        >>> import metafuse as mf
        >>> mf.arg_reduce(mf.array([3.0, 5.0]), "max", 0, False)[0].item()
        1
    """
    functions = {"max": argmax, "maximum": argmax, "min": argmin, "minimum": argmin}
    if not isinstance(op, str) or op not in functions:
        raise ArgumentError(f"[arg_reduce] op must be one of {', '.join(functions)}, got {brief(op)}")
    return functions[op](x, dim, keepdims)


# -- whole arrays ---------------------------------------------------------------------------------------------------
@operator(
    category="comparison", numpy=np.isclose, method=True, differentiable=False, source="NumPy isclose",
    samples=[Sample((Tensor((3, 4), "int", 0, 2), Tensor((4,), "int", 0, 2))), Sample((_X, _X, 0.5, 0.1)),
             Sample((Tensor((0,)), Tensor((1,))))],
)  # fmt: skip
@tells
def isclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Var:
    """Whether ``|a - b| <= atol + rtol * |b|``; infinities equal themselves.

    Example:
        >>> import metafuse as mf
        >>> mf.isclose(mf.array([1.0, 2.0]), mf.array([1.0, 2.1])).numpy()
        array([ True, False])
    """
    a, b = check_var("isclose", "a", a), check_var("isclose", "b", b)
    relative, absolute = check_number("isclose", "rtol", rtol), check_number("isclose", "atol", atol)
    x, y = (cast(v, "float64") for v in (a, b))
    near = (x - y).abs() <= y.abs() * float(relative) + float(absolute)
    same = (x == y).logical_or(near.logical_and(x.isfinite()).logical_and(y.isfinite()))
    return (
        same.logical_or(x.isnan().logical_and(y.isnan()))
        if check_flag("isclose", "equal_nan", equal_nan)
        else same
    )


def _whole(answer: Var) -> bool:
    return bool(answer.all().item()) if answer.size else True


@operator(
    category="comparison",
    numpy=None,
    method=True,
    rebinds=False,
    differentiable=False,
    source="NumPy allclose",
)
@tells
def allclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether all elements are close; a Python bool, so everything is computed now. See ``isclose``.

    Example:
        >>> import metafuse as mf
        >>> mf.allclose(mf.ones(2), mf.ones(2) + 1e-9)
        True
    """
    return _whole(isclose(a, b, rtol, atol, equal_nan))


@operator(
    category="comparison",
    numpy=None,
    method=True,
    rebinds=False,
    differentiable=False,
    source="NumPy array_equal",
)
def all_equal(a: Any, b: Any) -> bool:
    """Whether two arrays have one shape (or broadcast) and equal elements; a Python bool, computed now.

    Example:
        >>> import metafuse as mf
        >>> mf.all_equal(mf.ones(2), mf.array([1, 1]))
        True
    """
    a, b = check_var("all_equal", "a", a), check_var("all_equal", "b", b)
    try:
        broadcast_shapes("all_equal", [tuple(a.shape), tuple(b.shape)])
    except ShapeError:
        return False
    return _whole(a == b)
