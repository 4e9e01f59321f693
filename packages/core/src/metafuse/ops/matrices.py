"""Small tools for stacks of matrices ``[..., m, n]``, real or complex.

What it is: what gradient rules of ``factorise`` and ``solve`` say over and over: adjoint, diagonal, triangles; and the
checks and dtype conversions that every operator of theirs begins and ends with.
What it is not: public operators.
Who calls it: ``factorise``, ``solve``.
"""

from __future__ import annotations

from typing import Any

from ..dtypes import DType, float32, to_floating
from ..errors import ShapeError
from ..graph.index_map import IndexMap
from ..kernel.expr import Expr, add, axis, call, const
from ..var import Var
from .complex_number import ComplexNumber
from .elementwise import cast
from .meta import check_var, gather
from .shape import concat, transpose

__all__ = [
    "adjoint", "diagonal", "embed", "joined", "lower", "one_if", "prepared", "restored", "trace",
]  # fmt: skip

Value = Any  # Var or ComplexNumber


def _each(x: Value, rule: Any) -> Value:
    """``rule`` applied to a Var, or to both parts of a ComplexNumber."""
    return ComplexNumber(rule(x.real), rule(x.imag)) if isinstance(x, ComplexNumber) else rule(x)


def prepared(op: str, name: str, x: Any, square: bool = False) -> tuple[Value, DType]:
    """``x`` as floats of at least 32 bits, which is what LAPACK knows, and the dtype that results are to have."""
    if not isinstance(x, ComplexNumber):
        x = check_var(op, name, x)
    shape = list(x.shape)
    if len(shape) < 2:
        raise ShapeError(
            f"[{op}] {name} must be a matrix or a stack of matrices [..., m, n], got shape {shape}"
        )
    if square and shape[-1] != shape[-2]:
        raise ShapeError(f"[{op}] {name} must be square [..., n, n], got shape {shape}")
    dtype = to_floating(x.dtype)
    working = float32 if dtype.itemsize < 4 else dtype
    return _each(x, lambda part: cast(part, working)), dtype


def restored(values: list[Value], dtype: DType) -> tuple[Value, ...]:
    """Results in ``dtype``."""
    return tuple(_each(v, lambda part: cast(part, dtype)) for v in values)


def adjoint(x: Value) -> Value:
    """Conjugate transpose of each matrix."""
    order = [*range(x.ndim - 2), x.ndim - 1, x.ndim - 2]
    turned = _each(x, lambda part: transpose(part, order))
    return turned.conj() if isinstance(x, ComplexNumber) else turned


def _places(ndim: int) -> list[Expr]:
    return [axis(k) for k in range(ndim)]


def diagonal(x: Value) -> Value:
    """``[..., n, n] -> [..., n]``."""
    shape = tuple(x.shape[:-1])
    where_ = IndexMap((*_places(len(shape)), axis(len(shape) - 1)))
    return _each(x, lambda part: gather(part, shape, where_, (), "diagonal"))


def embed(x: Value) -> Value:
    """``[..., n] -> [..., n, n]`` with ``x`` on the diagonal and zeros beside it."""
    ndim = x.ndim
    shape = (*x.shape, x.shape[-1])
    where_ = IndexMap(tuple(_places(ndim)), (call("ne", axis(ndim - 1), axis(ndim)),))
    return _each(x, lambda part: gather(part, shape, where_, (), "embed"))


def lower(x: Value, k: int) -> Value:
    """The lower triangle, up to the ``k``-th diagonal, with zeros above."""
    ndim = x.ndim
    above = call("gt", axis(ndim - 1), add(axis(ndim - 2), const(k)))
    where_ = IndexMap(tuple(_places(ndim)), (above,))
    return _each(x, lambda part: gather(part, tuple(part.shape), where_, (), "lower"))


def joined(a: Value, b: Value) -> Value:
    """Columns of ``a`` followed by those of ``b``."""
    if isinstance(a, ComplexNumber):
        return ComplexNumber(concat([a.real, b.real], -1), concat([a.imag, b.imag], -1))
    return concat([a, b], -1)


def one_if(condition: Var, like: Var) -> Var:
    """1 where ``condition`` holds, else 0, in the dtype of ``like``."""
    return cast(condition, like.dtype)


def trace(x: Value) -> Value:
    """``[..., n, n] -> [..., 1, 1]``: sums of diagonals, ready to be multiplied with matrices."""
    return _each(diagonal(x), lambda part: part.sum(-1, True).unsqueeze(-1))
