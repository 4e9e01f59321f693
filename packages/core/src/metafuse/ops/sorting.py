"""Orders, order statistics and sets: argsort, sort, topk, kthvalue, median, mode, unique, isin.

What it is: the places that ``sorting_loops`` finds, and the values there.
What it is not: how places are found (``sorting_loops``), or counting in bins (``bins``).
Who calls it: users.

Values are read back through their places, so gradients flow to the elements that were chosen. NaN counts as largest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import int32
from ..errors import ArgumentError
from ..graph.index_map import IndexMap
from ..kernel.expr import axis, load
from ..var import Var
from . import meta, sorting_loops
from .creation import array
from .elementwise import cast
from .meta import check_dim, check_flag, check_integer, check_integer_type, check_var, reshape
from .recipe import recorded
from .registry import Sample, Tensor, operator
from .scalar import where
from .selection import index_select, take
from .shape import narrow

__all__ = ["argsort", "isin", "kthvalue", "median", "mode", "sort", "topk", "unique"]

_X = Tensor((3, 5), "float", distinct=True)
_CUBE = Tensor((2, 3, 5), "float", distinct=True)
_FEW = Tensor((4, 6), "int", 0, 4)


def _last(operator_name: str, x: Var, dim: Any) -> int:
    """``dim``, the last dimension unless it is given."""
    return check_dim(operator_name, -1 if dim is None else dim, x.ndim)


def _without(x: Var, dim: int, keep: bool) -> Var:
    """Without the dimension ``dim`` of extent 1, unless it is kept."""
    return x if keep else reshape(x, tuple(n for d, n in enumerate(x.shape) if d != dim) or (1,))


def _keep(operator_name: str, keepdim: Any, keepdims: Any) -> bool:
    """Whether the dimension is kept, under either name."""
    return check_flag(operator_name, "keepdim", keepdim) or check_flag(operator_name, "keepdims", keepdims)


def _at(x: Var, dim: int, place: Var) -> Var:
    """What stands at those places along ``dim``; they are known to be inside."""
    here = [axis(d) for d in range(x.ndim)]
    here[dim] = load(1, int32, *here)
    return meta.gather(x, tuple(place.shape), IndexMap(tuple(here)), (place,), "sorted")


# -- all in order ----------------------------------------------------------------------------------------------------
def _sorted_oracle(x: Any, dim: int = -1, descending: bool = False) -> tuple[Any, Any]:
    order = sorting_loops.ordered(x, dim, descending).astype(np.int32)
    return np.take_along_axis(x, order, dim), order


_SORTED = [Sample((_X,)), Sample((_X, 0, True)), Sample((_CUBE, 1)), Sample((Tensor((6,), "int"),))]


@operator(category="sort", numpy=lambda *a, **k: _sorted_oracle(*a, **k)[::-1], samples=_SORTED, method=True,
          rebinds=False)  # fmt: skip
def argsort(x: Any, dim: int = -1, descending: bool = False, dtype: Any = "int32") -> tuple[Var, Var]:
    """The order that sorts ``x`` along ``dim``, and ``x`` in that order; equal elements keep their order, NaN counts as largest.

    Returns:
        (order as ``dtype``, sorted values), each of the shape of ``x``. Gradients flow through the values.

    Example:
        >>> import metafuse as mf
        >>> order, value = mf.array([3.0, 1.0, 2.0]).argsort()
        >>> order.numpy(), value.numpy()
        (array([1, 2, 0], dtype=int32), array([1., 2., 3.], dtype=float32))
    """
    x = check_var("argsort", "x", x)
    number = check_dim("argsort", dim, x.ndim)
    kind = check_integer_type("argsort", dtype)
    order = sorting_loops.order(x, number, check_flag("argsort", "descending", descending))
    return cast(order, kind), _at(x, number, order)


@operator(category="sort", numpy=_sorted_oracle, samples=_SORTED, method=True, rebinds=False)
def sort(input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> tuple[Var, Var]:
    """``input`` sorted along ``dim``, and the order: (values, int32 places). See ``argsort``.

    Args:
        stable: asks for what is true anyway: equal elements keep their order.

    Example:
        >>> import metafuse as mf
        >>> mf.array([3.0, 1.0, 2.0]).sort(descending=True)[0].numpy()
        array([3., 2., 1.], dtype=float32)
    """
    order, value = argsort(input, dim, descending)
    return value, order


# -- a few of many ---------------------------------------------------------------------------------------------------
def _topk_oracle(
    input: Any, k: int, dim: int | None = None, largest: bool = True, sorted: bool = True
) -> Any:
    dim = -1 if dim is None else dim
    return tuple(np.take(v, range(k), dim) for v in _sorted_oracle(input, dim, largest))


@operator(category="sort", numpy=_topk_oracle, method=True, rebinds=False,
          samples=[Sample((_X, 2)), Sample((_X, 3, 0, False)), Sample((_CUBE, 2, 1)), Sample((_X, 0))])  # fmt: skip
@recorded
def topk(
    input: Any, k: int, dim: int | None = None, largest: bool = True, sorted: bool = True
) -> tuple[Var, Var]:
    """The ``k`` largest (or smallest) elements along ``dim`` (the last dimension unless given), and their places.

    Args:
        sorted: has no effect: the answer is always sorted, the best first.

    Returns:
        (values, int32 places). Gradients flow through the values.

    Errors:
        ArgumentError: ``k`` is negative or larger than the extent.

    Example:
        >>> import metafuse as mf
        >>> value, place = mf.topk(mf.array([1.0, 3.0, 2.0]), 2)
        >>> value.numpy(), place.numpy()
        (array([3., 2.], dtype=float32), array([1, 2], dtype=int32))
    """
    x = check_var("topk", "input", input)
    number = _last("topk", x, dim)
    count = check_integer("topk", "k", k, 0)
    if count > x.shape[number]:
        raise ArgumentError(
            f"[topk] k must be at most the extent {x.shape[number]} of dimension {number}, got {k}"
        )
    place = sorting_loops.best(x, number, count, check_flag("topk", "largest", largest))
    return _at(x, number, place), place


def _nth(x: Var, dim: int, place: int, keep: bool) -> tuple[Var, Var]:
    """Element number ``place`` of the sorted array along ``dim`` and where it comes from."""
    found = sorting_loops.nth(x, dim, place)
    return _without(_at(x, dim, found), dim, keep), _without(found, dim, keep)


def _kth_oracle(input: Any, k: int, dim: Any = None, keepdim: bool = False, keepdims: bool = False) -> Any:
    dim = -1 if dim is None else dim
    found = [np.take(v, [k - 1], dim) for v in _sorted_oracle(input, dim)]
    return tuple(v if keepdim or keepdims else np.squeeze(v, dim) for v in found)


@operator(category="sort", numpy=_kth_oracle, method=True, rebinds=False,
          samples=[Sample((_X, 2)), Sample((_X, 1, 0, True)), Sample((_CUBE, 3, 1)),
                   Sample((Tensor((4,)), 4))])  # fmt: skip
def kthvalue(
    input: Any, k: int, dim: int | None = None, keepdim: bool = False, keepdims: bool = False
) -> tuple[Var, Var]:
    """The ``k``-th smallest element along ``dim`` (the last dimension unless given), counted from 1, and its place.

    Returns:
        (values, int32 places) without ``dim``, unless it is kept.

    Example:
        >>> import metafuse as mf
        >>> mf.kthvalue(mf.array([5.0, 1.0, 3.0]), 2)[0].item()
        3.0
    """
    x = check_var("kthvalue", "input", input)
    number = _last("kthvalue", x, dim)
    place = check_integer("kthvalue", "k", k, 1)
    if place > x.shape[number]:
        raise ArgumentError(
            f"[kthvalue] k must be at most the extent {x.shape[number]} of dimension {number}, got {k}"
        )
    return _nth(x, number, place - 1, _keep("kthvalue", keepdim, keepdims))


def _median_oracle(x: Any, dim: Any = None, keepdim: bool = False, keepdims: bool = False) -> Any:
    if dim is None:
        x, dim = x.reshape(-1), 0
    found = _kth_oracle(x, (x.shape[dim] + 1) // 2, dim, keepdim, keepdims)[0]
    if x.dtype.kind != "f":
        return found
    return np.where(np.isnan(x).any(dim, keepdims=keepdim or keepdims), np.nan, found)


@operator(category="sort", numpy=_median_oracle, method=True,
          samples=[Sample((_X,)), Sample((_X, 0)), Sample((_CUBE, 2, True)), Sample((_CUBE, 1)),
                   Sample((Tensor((1,)),))])  # fmt: skip
def median(x: Any, dim: int | None = None, keepdim: bool = False, keepdims: bool = False) -> Var:
    """The element in the middle of the sorted array along ``dim`` (of all elements unless given); the lower of two. NaN
    where one of the elements is.

    Errors:
        ArgumentError: there is nothing to pick from.

    Example:
        >>> import metafuse as mf
        >>> mf.median(mf.array([5.0, 1.0, 3.0, 4.0])).item()
        3.0
    """
    x = check_var("median", "x", x)
    number = 0 if dim is None else check_dim("median", dim, x.ndim)
    source = reshape(x, (x.numel(),)) if dim is None else x
    extent = source.shape[number]
    if not extent:
        raise ArgumentError(
            f"[median] shape {list(x.shape)} has no elements along dimension {number}; nothing to pick"
        )
    keep = _keep("median", keepdim, keepdims)
    found = _nth(source, number, (extent - 1) // 2, keep)[0]
    if not x.dtype.is_float:
        return found
    top = source.max(number, keep).stop_grad()
    return where(top.isnan(), top, found)


def _mode_oracle(x: Any, dim: int = -1, keepdim: bool = False) -> Any:
    def first(row: Any) -> Any:
        _, places, count = np.unique(row, return_index=True, return_counts=True)
        return places[np.argmax(count)]

    place = np.expand_dims(np.apply_along_axis(first, dim, x).astype(np.int32), dim)
    found = (np.take_along_axis(x, place, dim), place)
    return found if keepdim else tuple(np.squeeze(v, dim) for v in found)


@operator(category="sort", numpy=_mode_oracle, method=True, rebinds=False,
          samples=[Sample((_FEW,)), Sample((_FEW, 0, True)), Sample((_X, 1))])  # fmt: skip
def mode(x: Any, dim: int = -1, keepdim: bool = False) -> tuple[Var, Var]:
    """The most common value along ``dim``, the smallest of several, and its first place.

    Returns:
        (values, int32 places) without ``dim``, unless it is kept.

    Example:
        >>> import metafuse as mf
        >>> mf.mode(mf.array([2, 1, 2, 3]))[0].item()
        2
    """
    x = check_var("mode", "x", x)
    number = check_dim("mode", dim, x.ndim)
    if not x.shape[number]:
        raise ArgumentError(
            f"[mode] shape {list(x.shape)} has no elements along dimension {number}; nothing to pick"
        )
    place = sorting_loops.common(x, number)
    keep = check_flag("mode", "keepdim", keepdim)
    return _without(_at(x, number, place), number, keep), _without(place, number, keep)


# -- sets ----------------------------------------------------------------------------------------------------------
def _unique_oracle(
    input: Any, return_inverse: bool = False, return_counts: bool = False, dim: Any = None
) -> Any:
    found = np.unique(input, return_inverse=True, return_counts=True, axis=dim)
    inverse = found[1].reshape(input.shape if dim is None else -1)
    return tuple(
        v for v, wanted in ((found[0], True), (inverse, return_inverse), (found[2], return_counts)) if wanted
    )


@operator(
    category="sort", numpy=_unique_oracle, method=True, rebinds=False, differentiable=False, source="NumPy unique",
    samples=[Sample((_FEW,)), Sample((_FEW, True, True)), Sample((Tensor((5, 2), "int", 0, 1), True, True, 0)),
             Sample((Tensor((0,), "int"),))],
)  # fmt: skip
def unique(
    input: Any, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The different values of ``input`` (slices along ``dim``) in ascending order; computes ``input`` now.

    Args:
        return_inverse: also the place of every element among the values, in the shape of ``input`` (of dimension ``dim``).
        return_counts: also how often each value occurs.

    Returns:
        Var, or a tuple (values[, int32 inverse][, int32 counts]).

    Example:
        >>> import metafuse as mf
        >>> value, count = mf.unique(mf.array([3, 1, 3]), return_counts=True)
        >>> value.numpy(), count.numpy()
        (array([1, 3], dtype=int32), array([1, 2], dtype=int32))
    """
    x = check_var("unique", "input", input)
    inverse = check_flag("unique", "return_inverse", return_inverse)
    counts = check_flag("unique", "return_counts", return_counts)
    if dim is None:
        return _unique(x, inverse, counts)
    number = check_dim("unique", dim, x.ndim)
    _, first, place, count = np.unique(x.numpy(), True, True, True, axis=number)
    answers = [index_select(x, number, array(first.astype(np.int32)))]
    extra = ((inverse, place.reshape(-1)), (counts, count))
    answers += [array(value.astype(np.int32)) for wanted, value in extra if wanted]
    return answers[0] if len(answers) == 1 else tuple(answers)


def _unique(x: Var, inverse: bool, counts: bool) -> Any:
    """Of all elements."""
    size = x.numel()
    found = sorting_loops.distinct(reshape(x, (size,)), inverse, counts)
    values = int(narrow(found, 0, 0, 1, "unique").numpy()[0])
    first = narrow(found, 0, 1, values, "unique")
    answers = [take(x, first)]
    if inverse:
        answers.append(reshape(narrow(found, 0, 1 + size * (1 + counts), size, "unique"), tuple(x.shape)))
    if counts:
        answers.append(narrow(found, 0, 1 + size, values, "unique"))
    return answers[0] if len(answers) == 1 else tuple(answers)


@operator(
    category="sort", numpy=lambda *a, **k: np.isin(*a, **k), method=True, differentiable=False, source="NumPy isin",
    samples=[Sample((_FEW, Tensor((3,), "int", 0, 4))), Sample((_FEW, Tensor((0,), "int"), False, True))],
)  # fmt: skip
def isin(elements: Any, test_elements: Any, assume_unique: bool = False, invert: bool = False) -> Var:
    """Whether each element is (or, inverted, is not) among ``test_elements``.

    Args:
        assume_unique: promises that neither argument holds a value twice; it has no effect.

    Example:
        >>> import metafuse as mf
        >>> mf.isin(mf.array([1, 2, 3]), mf.array([3, 1])).numpy()
        array([ True, False,  True])
    """
    x, tests = check_var("isin", "elements", elements), check_var("isin", "test_elements", test_elements)
    check_flag("isin", "assume_unique", assume_unique)
    inverted, shape = check_flag("isin", "invert", invert), tuple(x.shape)
    x, tests = sorting_loops.alike(x, tests)
    row = reshape(tests, (tests.numel(),))
    ascending = reshape(_at(row, 0, sorting_loops.order(row, 0, False)), (1, tests.numel()))
    return reshape(sorting_loops.contained(ascending, reshape(x, (1, x.numel())), inverted), shape)
