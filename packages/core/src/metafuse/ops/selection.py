"""Choosing and writing elements by index arrays and masks.

What it is: gather, scatter and their relatives as reindex and scatter nodes that read an index array.
What it is not: indexing with brackets (``indexing``).
Who calls it: users, ``sorting`` and ``scan``.

Integers in index arrays count from the end if they are negative. Values outside of the dimension are data, which no device
checks: such elements read as 0 and are not written.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import bool_, int64
from ..errors import ArgumentError, DTypeError, MetafuseError, ShapeError, brief, told_by
from ..graph.index_map import IndexMap
from ..kernel.expr import Expr, axis, call, const, load, select
from ..kernel.expr import add as plus
from ..kernel.expr import cast as cast_expr
from ..var import Var
from . import meta
from .creation import array
from .elementwise import broadcast_shapes, cast
from .mask_loops import chosen
from .meta import check_dim, check_var
from .recipe import recorded
from .registry import Sample, Tensor, operator
from .scalar import ternary

__all__ = [
    "gather", "index_add", "index_fill", "index_select", "masked_fill", "masked_select", "scatter", "take",
    "take_along_dim",
]  # fmt: skip

#: spellings of the operator by which a scatter joins old and new
REDUCES = ("void", "add", "multiply", "maximum", "minimum", "subtract", "divide")

_X = Tensor((3, 4, 5))


def check_index(operator_name: str, argument: str, value: Any) -> Var:
    """An integer Var. Errors: ``DTypeError``."""
    found = check_var(operator_name, argument, value)
    if not found.size and not found.dtype.is_integer:  # an empty list has no type of its own
        found = cast(found, "int32")
    if not found.dtype.is_integer:
        raise DTypeError(
            f"[{operator_name}] {argument} must hold integers, got {found.dtype}; cast it to int32"
        )
    return found


def read_index(index: Var, extent: int, *at: Expr) -> Expr:
    """The value of extra input 1 at ``at``; negative ones count from the end of ``extent``."""
    value = cast_expr(load(1, index.dtype, *at), int64)
    return select(call("lt", value, const(0)), plus(value, const(extent)), value)


def _along(x: Var, dim: int, index: Var) -> IndexMap:
    """Addresses ``x`` at the place of an element of ``index``, except along ``dim``, where the element says it."""
    here = tuple(axis(d) for d in range(x.ndim))
    place = read_index(index, x.shape[dim], *here)
    return IndexMap(tuple(place if d == dim else axis(d) for d in range(x.ndim)), (), True, 0)


def _fits(operator_name: str, x: Var, dim: int, index: Var) -> None:
    if index.ndim != x.ndim or any(n > m for d, (n, m) in enumerate(zip(index.shape, x.shape)) if d != dim):
        raise ShapeError(
            f"[{operator_name}] index of shape {list(index.shape)} must have the {x.ndim} dimensions of x, {list(x.shape)}, and "
            f"be no larger except in dimension {dim}"
        )


def _gather_oracle(x: Any, dim: int, index: Any) -> Any:
    part = x[tuple(slice(None) if d == dim % x.ndim else slice(n) for d, n in enumerate(index.shape))]
    return np.take_along_axis(part, index, dim)


@operator(
    category="indexing", numpy=_gather_oracle, method=True,
    samples=[Sample((_X, 1, Tensor((3, 7, 5), "int32", 0, 3))), Sample((_X, -1, Tensor((2, 3, 2), "int32", -5, 4))),
             Sample((Tensor((6,)), 0, Tensor((4,), "int32", 0, 5))),
             Sample((Tensor((3, 2)), 0, Tensor((0, 2), "int32")))],
)  # fmt: skip
@recorded
def gather(x: Any, dim: int, index: Any) -> Var:
    """``y[i, j, k] = x[i, index[i, j, k], k]`` (for ``dim`` 1): an element per element of ``index``.

    Args:
        index: integers; as many dimensions as ``x``, no larger than it except along ``dim``.

    Returns:
        Var of the shape of ``index`` and the dtype of ``x``.

    Errors:
        ShapeError, DTypeError: an index of another shape or type.

    Example:
        >>> import metafuse as mf
        >>> mf.gather(mf.array([[1, 2], [3, 4]]), 1, mf.array([[0, 0], [1, 0]])).numpy()
        array([[1, 1],
               [4, 3]], dtype=int32)
    """
    x, index = check_var("gather", "x", x), check_index("gather", "index", index)
    number = check_dim("gather", dim, x.ndim)
    _fits("gather", x, number, index)
    return meta.gather(x, tuple(index.shape), _along(x, number, index), (index,), "gather")


def _take_along_oracle(x: Any, indices: Any, dim: Any = None) -> Any:
    return (
        np.take_along_axis(x.reshape(-1), indices.reshape(-1), 0)
        if dim is None
        else np.take_along_axis(x, indices, dim)
    )


@operator(
    category="indexing", numpy=_take_along_oracle, method=("take_along_dim", "take_along_axis"), source="NumPy take_along_axis",
    samples=[Sample((_X, Tensor((1, 2, 5), "int32", 0, 3), 1)),
             Sample((Tensor((2, 3)), Tensor((4,), "int32", 0, 5)))],
)  # fmt: skip
@recorded
def take_along_dim(x: Any, indices: Any, dim: int | None = None) -> Var:
    """As ``gather``, but the other dimensions broadcast; without ``dim`` both are taken as flat.

    Example:
        >>> import metafuse as mf
        >>> mf.take_along_dim(mf.array([[1, 2], [3, 4]]), mf.array([[1]]), 1).numpy()
        array([[2],
               [4]], dtype=int32)
    """
    x, indices = check_var("take_along_dim", "x", x), check_index("take_along_dim", "indices", indices)
    if dim is None:
        return gather(meta.reshape(x, (x.numel(),)), 0, meta.reshape(indices, (indices.numel(),)))
    number = check_dim("take_along_dim", dim, x.ndim)
    if indices.ndim != x.ndim:
        raise ShapeError(
            f"[take_along_dim] indices {list(indices.shape)} must have the {x.ndim} dimensions of x {list(x.shape)}"
        )
    without = [tuple(1 if d == number else n for d, n in enumerate(v.shape)) for v in (x, indices)]
    common = broadcast_shapes("take_along_dim", without)
    x, indices = (
        meta.broadcast_to(v, tuple(v.shape[d] if d == number else n for d, n in enumerate(common)))
        for v in (x, indices)
    )
    return gather(x, number, indices)


@operator(
    category="indexing", numpy=lambda x, index, dim=None: np.take(x, index, dim), method=True, source="NumPy take",
    samples=[Sample((_X, Tensor((2, 3), "int32", -60, 59))), Sample((Tensor((1,)), Tensor((4,), "int32", 0, 0))),
             Sample((_X, Tensor((2, 3), "int32", -4, 3), 1))],
)  # fmt: skip
def take(x: Any, index: Any, dim: int | None = None) -> Var:
    """Elements of ``x`` taken as flat, in the shape of ``index``; with ``dim``, slices along it, whose place that shape takes.

    Example:
        >>> import metafuse as mf
        >>> mf.take(mf.array([[1, 2], [3, 4]]), mf.array([3, 0])).numpy()
        array([4, 1], dtype=int32)
    """
    x, index = check_var("take", "x", x), check_index("take", "index", index)
    if dim is None:
        x, dim = meta.reshape(x, (x.numel(),)), 0
    d = check_dim("take", dim, x.ndim)
    shape = tuple(x.shape)
    place = read_index(index, shape[d], *(axis(d + k) for k in range(index.ndim)))
    places = tuple(place if k == d else axis(k if k < d else k - 1 + index.ndim) for k in range(x.ndim))
    result = (*shape[:d], *index.shape, *shape[d + 1 :])
    return meta.gather(x, result, IndexMap(places, (), True, 0), (index,), "take")


@operator(
    category="indexing", numpy=lambda input, dim, indices: np.take(input, indices, dim), method=True, source="NumPy take",
    samples=[Sample((_X, 1, Tensor((3,), "int32", -4, 3))), Sample((_X, -1, Tensor((6,), "int32", 0, 4))),
             Sample((Tensor((4,)), 0, Tensor((0,), "int32")))],
)  # fmt: skip
def index_select(input: Any, dim: int, indices: Any) -> Var:
    """The slices of ``input`` along ``dim`` that ``indices``, one-dimensional, names.

    Example:
        >>> import metafuse as mf
        >>> mf.index_select(mf.array([[1, 2], [3, 4]]), 1, mf.array([1, 1])).numpy()
        array([[2, 2],
               [4, 4]], dtype=int32)
    """
    x = check_var("index_select", "input", input)
    number, index = _slices("index_select", x, dim, "indices", indices)
    shape = tuple(index.shape[0] if d == number else n for d, n in enumerate(x.shape))
    return meta.gather(x, shape, _by_slice(x, number, index), (index,), "index_select")


def _slices(operator_name: str, x: Var, dim: Any, argument: str, value: Any) -> tuple[int, Var]:
    """The dimension, and the numbers of slices along it."""
    number = check_dim(operator_name, dim, x.ndim)
    index = check_index(operator_name, argument, value)
    if index.ndim != 1:
        raise ShapeError(
            f"[{operator_name}] {argument} must have one dimension, got shape {list(index.shape)}"
        )
    return number, index


def _by_slice(x: Var, dim: int, index: Var) -> IndexMap:
    place = read_index(index, x.shape[dim], axis(dim))
    return IndexMap(tuple(place if d == dim else axis(d) for d in range(x.ndim)), (), True, 0)


def _index_add_oracle(x: Any, dim: int, index: Any, tensor: Any) -> Any:
    result = np.moveaxis(x.copy(), dim, 0)
    np.add.at(result, index, np.moveaxis(np.broadcast_to(tensor, _slab(x.shape, dim, len(index))), dim, 0))
    return np.moveaxis(result, 0, dim)


def _slab(shape: Any, dim: int, count: int) -> tuple[int, ...]:
    """``shape`` with ``count`` slices along ``dim``."""
    return tuple(count if d == dim % len(shape) else n for d, n in enumerate(shape))


@operator(
    category="indexing", numpy=_index_add_oracle, method=True,
    samples=[Sample((_X, 1, Tensor((3,), "int32", 0, 3), Tensor((3, 3, 5)))),
             Sample((Tensor((4,)), 0, Tensor((6,), "int32", -4, 3), Tensor((6,))))],
)  # fmt: skip
def index_add(x: Any, dim: int, index: Any, tensor: Any) -> Var:
    """``x`` with slice k of ``tensor`` added to its slice ``index[k]`` along ``dim``; slices named twice receive both.

    Example:
        >>> import metafuse as mf
        >>> mf.zeros(3).index_add_(0, mf.array([0, 2, 2]), mf.ones(3)).numpy()
        array([1., 0., 2.], dtype=float32)
    """
    x = check_var("index_add", "x", x)
    number, index = _slices("index_add", x, dim, "index", index)
    given = cast(check_var("index_add", "tensor", tensor), x.dtype)
    slab = _slab(x.shape, number, index.shape[0])
    if broadcast_shapes("index_add", [tuple(given.shape), slab]) != slab:
        raise ShapeError(f"[index_add] tensor {list(given.shape)} does not fit the slices, {list(slab)}")
    return meta.scatter(
        x, "add", meta.broadcast_to(given, slab), _by_slice(x, number, index), (index,), "index_add"
    )


def _index_fill_oracle(x: Any, dim: int, indexs: Any, val: Any) -> Any:
    result = x.copy()
    np.moveaxis(result, dim, 0)[indexs] = val
    return result


@operator(
    category="indexing", numpy=_index_fill_oracle, method=True,
    samples=[Sample((_X, 1, Tensor((2,), "int32", 0, 3), 2.0)), Sample((Tensor((4,)), 0, Tensor((0,), "int32"), 1))],
)  # fmt: skip
def index_fill(x: Any, dim: int, indexs: Any, val: Any) -> Var:
    """``x`` with ``val`` in the slices along ``dim`` that ``indexs`` names.

    Example:
        >>> import metafuse as mf
        >>> mf.index_fill(mf.zeros(3), 0, [1], 5).numpy()
        array([0., 5., 0.], dtype=float32)
    """
    x = check_var("index_fill", "x", x)
    number, index = _slices("index_fill", x, dim, "indexs", indexs)
    given = cast(array(meta.check_number("index_fill", "val", val)), x.dtype)
    spread = meta.broadcast_to(given, _slab(x.shape, number, index.shape[0]))
    return meta.scatter(x, "void", spread, _by_slice(x, number, index), (index,), "index_fill")


def _scatter_oracle(x: Any, dim: int, index: Any, src: Any, reduce: str = "void") -> Any:
    result = x.copy()
    places = list(np.indices(index.shape))
    places[dim] = index
    values = np.broadcast_to(src, index.shape) if np.size(src) == 1 else src[tuple(map(slice, index.shape))]
    if reduce == "void":
        for at in np.ndindex(index.shape):
            result[tuple(p[at] for p in places)] = values[at]
    else:
        getattr(np, reduce).at(result, tuple(places), values)
    return result


_INDEX = Tensor((3, 2, 5), "int32", 0, 3)


@operator(
    category="indexing", numpy=_scatter_oracle, method=True,
    samples=[Sample((_X, 1, _INDEX, Tensor((3, 2, 5)), "add")),
             Sample((_X, 1, _INDEX, Tensor((3, 4, 6)), "multiply")),
             Sample((_X, 0, Tensor((1, 4, 5), "int32", 0, 2), Tensor((2, 4, 5)))),
             Sample((_X, 1, _INDEX, 2.0, "add")),
             Sample((Tensor((5,)), 0, Tensor((0,), "int32"), Tensor((0,))))],
)  # fmt: skip
def scatter(x: Any, dim: int, index: Any, src: Any, reduce: str = "void") -> Var:
    """``x`` with ``x[i, index[i, j, k], k]`` joined with ``src[i, j, k]`` (for ``dim`` 1).

    Args:
        index: integers; as many dimensions as ``x``, no larger than it except along ``dim``.
        src: a number, or values at least as large as ``index`` in every dimension.
        reduce: "void" (the last one in row-major order stays), "add", "multiply", "maximum", "minimum", "subtract", "divide".

    Example:
        >>> import metafuse as mf
        >>> mf.scatter(mf.zeros(2, 2), 1, mf.array([[0], [1]]), 3.0).numpy()
        array([[3., 0.],
               [0., 3.]], dtype=float32)
    """
    x, index = check_var("scatter", "x", x), check_index("scatter", "index", index)
    if not isinstance(reduce, str) or reduce not in REDUCES:
        raise ArgumentError(f"[scatter] reduce must be one of {', '.join(REDUCES)}, got {brief(reduce)}")
    number = check_dim("scatter", dim, x.ndim)
    _fits("scatter", x, number, index)
    given = cast(check_var("scatter", "src", src), x.dtype)
    shape = tuple(index.shape)
    if given.size == 1:
        given = meta.broadcast_to(meta.reshape(given, (1,) * x.ndim), shape)
    elif given.ndim != x.ndim or any(n < m for n, m in zip(given.shape, shape)):
        raise ShapeError(
            f"[scatter] src {list(given.shape)} must be at least as large as index {list(shape)}"
        )
    elif tuple(given.shape) != shape:
        given = meta.gather(
            given, shape, IndexMap(tuple(axis(d) for d in range(x.ndim))), (), "scatter_source"
        )
    if reduce in ("subtract", "divide"):
        given, reduce = (-given, "add") if reduce == "subtract" else (cast(1 / given, x.dtype), "multiply")
    return meta.scatter(x, reduce, given, _along(x, number, index), (index,), "scatter")


@operator(
    category="indexing", numpy=lambda x, mask, value: np.where(mask, value, x), method=True,
    samples=[Sample((_X, Tensor((3, 4, 5), "bool"), -1.5)), Sample((_X, Tensor((4, 1), "bool"), 0))],
)  # fmt: skip
def masked_fill(x: Any, mask: Any, value: Any) -> Var:
    """``x`` with ``value`` where ``mask`` holds; shapes broadcast.

    Example:
        >>> import metafuse as mf
        >>> mf.masked_fill(mf.array([1.0, -2.0]), mf.array([False, True]), 0).numpy()
        array([1., 0.], dtype=float32)
    """
    x, mask = check_var("masked_fill", "x", x), check_var("masked_fill", "mask", mask)
    try:
        return ternary(mask, value, x)
    except MetafuseError as error:
        raise told_by("masked_fill", error) from None


@operator(
    category="indexing", numpy=lambda x, mask: x[np.broadcast_to(mask, x.shape).astype(bool)], method=True,
    source="NumPy indexing",
    samples=[Sample((_X, Tensor((3, 4, 5), "bool"))), Sample((_X, Tensor((4, 1), "bool")))],
)  # fmt: skip
def masked_select(x: Any, mask: Any) -> Var:
    """The elements of ``x`` where ``mask`` holds, in row-major order; computes ``mask`` now.

    Example:
        >>> import metafuse as mf
        >>> mf.masked_select(mf.array([1, 2, 3]), mf.array([True, False, True])).numpy()
        array([1, 3], dtype=int32)
    """
    x, mask = check_var("masked_select", "x", x), check_var("masked_select", "mask", mask)
    if mask.dtype is not bool_:
        raise DTypeError(f"[masked_select] mask must hold bool, got {mask.dtype}; compare it with something")
    shape = broadcast_shapes("masked_select", [tuple(x.shape), tuple(mask.shape)])
    return chosen(meta.broadcast_to(x, shape), meta.broadcast_to(mask, shape))
