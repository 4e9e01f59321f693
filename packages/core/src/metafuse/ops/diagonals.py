"""Triangles and diagonals of matrices.

What it is: ``tril``, ``triu``, ``diag`` and their relatives as choices and index maps; their gradients follow.
What it is not: factorisations.
Who calls it: users through ``metafuse`` and ``Var``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import bool_
from ..errors import ShapeError
from ..graph.index_map import IndexMap
from ..kernel.expr import add, axis, const
from ..var import Var
from . import meta
from .arrange import movedim
from .meta import check_dim, check_integer, check_var, gather, index
from .registry import Sample, Tensor, operator
from .scalar import ternary

__all__ = ["diag", "diag_embed", "diagonal", "tril", "triu"]

_X = Tensor((2, 3, 4))
_MATRIX = Tensor((3, 4))


def _triangle(name: str, input: Any, diagonal: Any, keep: str) -> Var:
    x = check_var(name, "input", input)
    offset = check_integer(name, "diagonal", diagonal)
    if x.ndim < 2:
        raise ShapeError(f"[{name}] input must have at least 2 dimensions, got shape {list(x.shape)}")
    shape = tuple(x.shape[-2:])
    distance = index(shape, 1) - index(shape, 0)
    return ternary(getattr(distance, keep)(offset), x, False if x.dtype is bool_ else 0)


_TRIANGLES = [
    Sample((_MATRIX,)),
    Sample((_X, 1)),
    Sample((_MATRIX, -2)),
    Sample((Tensor((0, 3)),)),
    Sample((Tensor((1, 1)), 1)),
]


@operator(category="shape", numpy=lambda input, diagonal=0: np.tril(input, diagonal), method=True, source="NumPy tril",
          samples=_TRIANGLES)  # fmt: skip
def tril(input: Any, diagonal: int = 0) -> Var:
    """The last two dimensions' elements on and below a diagonal, 0 above it.

    Example:
        >>> import metafuse as mf
        >>> mf.tril(mf.ones(2, 2)).numpy()
        array([[1., 0.],
               [1., 1.]], dtype=float32)
    """
    return _triangle("tril", input, diagonal, "less_equal")


@operator(category="shape", numpy=lambda input, diagonal=0: np.triu(input, diagonal), method=True, source="NumPy triu",
          samples=_TRIANGLES)  # fmt: skip
def triu(input: Any, diagonal: int = 0) -> Var:
    """The last two dimensions' elements on and above a diagonal, 0 below it.

    Example:
        >>> import metafuse as mf
        >>> mf.triu(mf.ones(2, 2), 1).numpy()
        array([[0., 1.],
               [0., 0.]], dtype=float32)
    """
    return _triangle("triu", input, diagonal, "greater_equal")


@operator(category="shape", numpy=lambda x, offset=0, dim1=0, dim2=1: np.diagonal(x, offset, dim1, dim2), method=True,
          source="NumPy diagonal", samples=[Sample((_MATRIX,)), Sample((_X, 1, 1, 2)), Sample((_X, -1, 2, 0)),
                                            Sample((_MATRIX, 4))])  # fmt: skip
def diagonal(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Var:
    """The diagonal of the planes of two dimensions, as the new last dimension.

    Args:
        offset: 0 is the main diagonal, positive ones lie towards larger indexes of ``dim2``.

    Example:
        >>> import metafuse as mf
        >>> mf.array([[1, 2], [3, 4]]).diagonal().numpy()
        array([1, 4], dtype=int32)
    """
    x = check_var("diagonal", "x", x)
    k = check_integer("diagonal", "offset", offset)
    a, b = check_dim("diagonal", dim1, x.ndim), check_dim("diagonal", dim2, x.ndim)
    if a == b:
        raise ShapeError(f"[diagonal] dim1 and dim2 must differ, got {dim1} and {dim2}")
    count = max(0, min(x.shape[a] + min(k, 0), x.shape[b] - max(k, 0)))
    rest = [d for d in range(x.ndim) if d not in (a, b)]
    last = axis(len(rest))
    place = {
        a: add(last, const(max(-k, 0))),
        b: add(last, const(max(k, 0))),
        **{d: axis(n) for n, d in enumerate(rest)},
    }
    shape = (*(x.shape[d] for d in rest), count)
    return gather(x, shape, IndexMap(tuple(place[d] for d in range(x.ndim))), (), "diagonal")


def _trace_oracle(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    found = np.trace(x, offset, dim1, dim2, dtype=x.dtype)
    return np.reshape(found, (1,)) if x.ndim == 2 else found


@operator(category="reduce", numpy=_trace_oracle, method=True, source="NumPy trace",
          samples=[Sample((_MATRIX,)), Sample((_X, 1, 1, 2)), Sample((_X, -1, 2, 0))])  # fmt: skip
def trace(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Var:
    """The sum of the diagonal of the planes of two dimensions; see ``diagonal``.

    Example:
        >>> import metafuse as mf
        >>> mf.trace(mf.array([[1, 2], [3, 4]])).item()
        5
    """
    return diagonal(x, offset, dim1, dim2).sum(-1)  # type: ignore[no-any-return]


def _diag_embed_oracle(x: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    n = x.shape[-1] + abs(offset)
    result = np.zeros((*x.shape[:-1], n, n), x.dtype)
    places = np.arange(x.shape[-1])
    result[..., places + max(-offset, 0), places + max(offset, 0)] = x
    return np.moveaxis(result, (-2, -1), (dim1, dim2))


@operator(category="shape", numpy=_diag_embed_oracle, method=True,
          samples=[Sample((_MATRIX,)), Sample((_MATRIX, 1)), Sample((_MATRIX, -1, 0, 2)),
                   Sample((Tensor((0,)),))])  # fmt: skip
def diag_embed(x: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Var:
    """The last dimension as a diagonal of planes of zeros in two new dimensions; undoes ``diagonal``.

    Example:
        >>> import metafuse as mf
        >>> mf.diag_embed(mf.array([1, 2])).numpy()
        array([[1, 0],
               [0, 2]], dtype=int32)
    """
    x = check_var("diag_embed", "x", x)
    k = check_integer("diag_embed", "offset", offset)
    a, b = check_dim("diag_embed", dim1, x.ndim + 1), check_dim("diag_embed", dim2, x.ndim + 1)
    if a == b:
        raise ShapeError(f"[diag_embed] dim1 and dim2 must differ, got {dim1} and {dim2}")
    n = x.shape[-1] + abs(k)
    lead = x.ndim - 1
    places = (
        *(axis(d) for d in range(lead)),
        add(axis(lead), const(max(-k, 0))),
        add(axis(lead), const(max(k, 0))),
    )
    zero = meta.fill((*x.shape[:-1], n, n), 0, x.dtype)
    planes = meta.scatter(zero, "void", x, IndexMap(places), (), "diag_embed")
    return movedim(planes, (lead, lead + 1), (a, b))


@operator(category="shape", numpy=lambda x, diagonal=0: np.diag(x, diagonal), method=True, source="NumPy diag",
          samples=[Sample((Tensor((3,)),)), Sample((Tensor((3,)), -2)), Sample((_MATRIX,)),
                   Sample((_MATRIX, 2)), Sample((Tensor((1,)),))])  # fmt: skip
def diag(x: Any, diagonal: int = 0) -> Var:
    """A matrix with the vector ``x`` on a diagonal, or that diagonal of the matrix ``x``.

    Example:
        >>> import metafuse as mf
        >>> mf.diag(mf.diag(mf.array([1, 2]))).numpy()
        array([1, 2], dtype=int32)
    """
    x = check_var("diag", "x", x)
    offset = check_integer("diag", "diagonal", diagonal)
    if x.ndim > 2:
        raise ShapeError(
            f"[diag] x must be a vector or a matrix, got shape {list(x.shape)}; use diagonal or diag_embed"
        )
    return diag_embed(x, offset) if x.ndim == 1 else _diagonal(x, offset)


_diagonal = diagonal
