"""Products of vectors, matrices and arrays under their usual names.

What it is: compositions of multiply, sum and ``matmul``.
What it is not: factorisations or solvers (``factorise``, ``solve``).
Who calls it: users.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ..errors import ShapeError, brief
from ..graph.index_map import IndexMap
from ..graph.node import Node
from ..kernel.expr import add, axis, call, const, select
from ..var import Var, wrap
from .autograd import no_grad
from .elementwise import broadcast_shapes, cast
from .linalg import matmul
from .meta import (
    broadcast_to,
    check_dim,
    check_integer,
    check_number,
    check_var,
    expand_dims,
    gather,
    reduce_dims,
    reshape,
    with_gradient,
)
from .recipe import recorded
from .registry import Sample, Tensor, operator
from .shape import transpose

__all__ = ["addmm", "cross", "dot", "kron", "outer", "tensordot"]

_V, _W = Tensor((3,)), Tensor((4,))


def _vector(operator_name: str, argument: str, value: Any) -> Var:
    found = check_var(operator_name, argument, value)
    if found.ndim != 1:
        raise ShapeError(
            f"[{operator_name}] {argument} must have one dimension, got shape {list(found.shape)}; flatten it first"
        )
    return found


@operator(category="linalg", numpy=np.outer, method=True, source="NumPy outer",
          samples=[Sample((_V, _W)), Sample((Tensor((1,)), Tensor((0,))))])  # fmt: skip
@recorded
def outer(x: Any, y: Any) -> Var:
    """``x[i] * y[j]`` for two vectors.

    Example:
        >>> import metafuse as mf
        >>> mf.outer(mf.array([1, 2]), mf.array([3, 4])).numpy()
        array([[3, 4],
               [6, 8]], dtype=int32)
    """
    return expand_dims(_vector("outer", "x", x), [1]) * expand_dims(_vector("outer", "y", y), [0])


@operator(
    category="linalg",
    numpy=np.dot,
    method=True,
    source="NumPy dot",
    samples=[Sample((_V, _V)), Sample((Tensor((0,)), Tensor((0,)))), Sample((Tensor((2, 3)), _V)), Sample((_V, Tensor((3, 2)))),
             Sample((Tensor((2, 3)), Tensor((3, 4)))), Sample((Tensor((2, 1, 3)), Tensor((2, 3, 2))))],
)  # fmt: skip
def dot(x: Any, y: Any) -> Var:
    """The sum of ``x[i] * y[i]`` for two vectors, the matrix product of two matrices; else the last dimension of ``x`` folds with
    the last but one of ``y``, or its only one, and all others stay.

    Errors:
        ShapeError: the two dimensions have different extents.

    Example:
        >>> import metafuse as mf
        >>> mf.dot(mf.array([1.0, 2.0]), mf.array([3.0, 4.0])).item()
        11.0
    """
    a, b = check_var("dot", "x", x), check_var("dot", "y", y)
    place = max(b.ndim - 2, 0)
    if a.shape[-1] != b.shape[place]:
        raise ShapeError(
            f"[dot] extents of {list(a.shape)} at {a.ndim - 1} and {list(b.shape)} at {place} must agree; transpose one of them?"
        )
    if b.ndim == 2 or b.ndim == 1 < a.ndim:
        return matmul(a, b)  # type: ignore[no-any-return]
    if b.ndim > 1:
        return tensordot(a, b, [[a.ndim - 1], [place]])
    return reshape(reduce_dims(a * b, "add", (0,)), (1,))


def _cross_oracle(input: Any, other: Any, dim: int = -1) -> Any:
    a, b = np.broadcast_arrays(input, other)
    x, y, z = np.moveaxis(a, dim, 0)
    u, v, w = np.moveaxis(b, dim, 0)
    return np.stack([y * w - z * v, z * u - x * w, x * v - y * u], dim)


@operator(category="linalg", numpy=_cross_oracle, method=True, source="vector product",
          samples=[Sample((_V, _V)), Sample((Tensor((2, 3, 4)), Tensor((2, 3, 1)), 1)),
                   Sample((Tensor((0, 3)), _V))])  # fmt: skip
def cross(input: Any, other: Any, dim: int = -1) -> Var:
    """The vector product along ``dim``, which must have extent 3; the other dimensions broadcast.

    Example:
        >>> import metafuse as mf
        >>> mf.cross(mf.array([1, 0, 0]), mf.array([0, 1, 0])).numpy()
        array([0, 0, 1], dtype=int32)
    """
    a, b = check_var("cross", "input", input), check_var("cross", "other", other)
    shape = broadcast_shapes("cross", [tuple(a.shape), tuple(b.shape)])
    number = check_dim("cross", dim, len(shape))
    a, b = broadcast_to(a, shape), broadcast_to(b, shape)
    if shape[number] != 3:
        raise ShapeError(f"[cross] dimension {number} must have extent 3, got {list(shape)}")
    with no_grad():
        (x, y), (u, v) = [[_turned(w, number, by) for by in (1, 2)] for w in (a, b)]
        answer = x * v - y * u
    return with_gradient(answer, [a, b], "cross", number, _cross_rule) if answer.dtype.is_float else answer


def _turned(x: Var, dim: int, by: int) -> Var:
    """Three elements along ``dim`` moved by one place or two, the first ones behind the last."""
    return gather(x, tuple(x.shape), _turn(x.ndim, dim, by), (), "cross")


@lru_cache(maxsize=64)
def _turn(rank: int, dim: int, by: int) -> IndexMap:
    here = axis(dim)
    moved = select(call("lt", here, const(3 - by)), add(here, const(by)), add(here, const(by - 3)))
    return IndexMap(tuple(moved if d == dim else axis(d) for d in range(rank)))


def _cross_rule(node: Node, upstream: Var) -> list[Var | None]:
    (a, b), dim = (wrap(n) for n in node.inputs[1:]), node.sig.attrs
    to_a, to_b = cross(b, upstream, dim), cross(upstream, a, dim)
    return [None, *(cast(g, v.dtype) if v.dtype.is_float else None for g, v in ((to_a, a), (to_b, b)))]


@operator(category="linalg", numpy=np.kron, method=True, source="NumPy kron",
          samples=[Sample((Tensor((2, 3)), Tensor((4, 2)))), Sample((_V, Tensor((2, 3)))),
                   Sample((Tensor((1,)), _W))])  # fmt: skip
def kron(a: Any, b: Any) -> Var:
    """Kronecker product: every element of ``a`` times the whole of ``b``, laid out as a grid.

    Example:
        >>> import metafuse as mf
        >>> mf.kron(mf.array([[1, 2]]), mf.array([[1], [1]])).numpy()
        array([[1, 2],
               [1, 2]], dtype=int32)
    """
    a, b = check_var("kron", "a", a), check_var("kron", "b", b)
    ndim = max(a.ndim, b.ndim)
    m, n = ((1,) * (ndim - v.ndim) + tuple(v.shape) for v in (a, b))
    left = reshape(a, tuple(e for k in m for e in (k, 1)))
    right = reshape(b, tuple(e for k in n for e in (1, k)))
    return reshape(left * right, tuple(p * q for p, q in zip(m, n)))


def _axes(a: Var, b: Var, dims: Any) -> tuple[list[int], list[int]]:
    """The dimensions to sum over: the last of ``a`` and the first of ``b``, or two lists of them."""
    if not isinstance(dims, (tuple, list)):
        count = check_integer("tensordot", "dims", dims, 0)
        if count > min(a.ndim, b.ndim):
            raise ShapeError(
                f"[tensordot] dims is {count}, the operands have {a.ndim} and {b.ndim} dimensions"
            )
        return list(range(a.ndim - count, a.ndim)), list(range(count))
    if len(dims) != 2:
        raise ShapeError(f"[tensordot] dims must be an integer or two lists of dimensions, got {brief(dims)}")
    pair = [d if isinstance(d, (tuple, list)) else (d,) for d in dims]
    left, right = ([check_dim("tensordot", d, v.ndim) for d in p] for p, v in zip(pair, (a, b)))
    if len(left) != len(right) or len(set(left)) != len(left) or len(set(right)) != len(right):
        raise ShapeError(
            f"[tensordot] dims must name as many dimensions of either operand, each once, got {brief(dims)}"
        )
    return left, right


@operator(category="linalg", numpy=lambda a, b, dims=2: np.tensordot(a, b, dims), source="NumPy tensordot",
          samples=[Sample((Tensor((2, 3, 4)), Tensor((3, 4, 5)))),
                   Sample((Tensor((2, 3)), Tensor((3, 2)), 1)), Sample((_V, _W, 0)),
                   Sample((Tensor((2, 3, 4)), Tensor((4, 5, 3)), [[1, 2], [2, 0]]))])  # fmt: skip
def tensordot(a: Any, b: Any, dims: Any = 2) -> Var:
    """Products summed over ``dims``: the last ``dims`` dimensions of ``a`` with the first of ``b``, or two lists of dimensions.

    Example:
        >>> import metafuse as mf
        >>> mf.tensordot(mf.ones(2, 3), mf.ones(3, 4), 1).shape
        (2, 4)
    """
    a, b = check_var("tensordot", "a", a), check_var("tensordot", "b", b)
    left, right = _axes(a, b, dims)
    if [a.shape[d] for d in left] != [b.shape[d] for d in right]:
        raise ShapeError(
            f"[tensordot] extents of {list(a.shape)} at {left} and {list(b.shape)} at {right} must agree"
        )
    rows = [d for d in range(a.ndim) if d not in left]
    columns = [d for d in range(b.ndim) if d not in right]
    inner = prod(a.shape[d] for d in left)
    top, side = [a.shape[d] for d in rows], [b.shape[d] for d in columns]
    x = reshape(transpose(a, rows + left), (prod(top), inner))
    y = reshape(transpose(b, right + columns), (inner, prod(side)))
    return reshape(matmul(x, y), (*top, *side) or (1,))


@operator(
    category="linalg", numpy=lambda input, mat1, mat2, beta=1, alpha=1: beta * input + alpha * (mat1 @ mat2), method=True,
    source="beta * input + alpha * mat1 @ mat2", samples=[Sample((Tensor((5,)), Tensor((3, 4)), Tensor((4, 5)), 0.5, 2.0))],
)  # fmt: skip
def addmm(input: Any, mat1: Any, mat2: Any, beta: float = 1, alpha: float = 1) -> Var:
    """``beta * input + alpha * mat1 @ mat2``.

    Example:
        >>> import metafuse as mf
        >>> mf.addmm(mf.ones(1), mf.ones(1, 2), mf.ones(2, 1)).item()
        3.0
    """
    x, a, b = (check_var("addmm", n, v) for n, v in (("input", input), ("mat1", mat1), ("mat2", mat2)))
    if a.ndim != 2 or b.ndim != 2:
        raise ShapeError(f"[addmm] mat1 and mat2 must be matrices, got {list(a.shape)} and {list(b.shape)}")
    return x * check_number("addmm", "beta", beta) + matmul(a, b) * check_number("addmm", "alpha", alpha)
