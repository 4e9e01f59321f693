"""Order statistics and sets: topk, kthvalue, median, mode, unique, isin.

What it is: selections from a sorted array (``host.argsort``), and host functions where the answer is integers.
What it is not: sorting itself (``host``), or counting in bins (``bins``).
Who calls it: users.

Values are read back through their places, so gradients flow to the elements that were chosen. NaN counts as largest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import bool_, int32
from ..errors import ArgumentError
from ..graph.node import spec_of
from ..var import Var
from .creation import array
from .host import HostFunction, argsort, host_op
from .meta import check_dim, check_flag, check_integer, check_var, reshape
from .registry import Sample, Tensor, operator
from .selection import gather, index_select, take
from .shape import narrow

__all__ = ["isin", "kthvalue", "median", "mode", "topk", "unique"]

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


def _sorted_oracle(x: Any, dim: int, descending: bool = False) -> tuple[Any, Any]:
    order = np.argsort(-x if descending else x, dim, kind="stable")
    return np.take_along_axis(x, order, dim), order


# -- a few of many ---------------------------------------------------------------------------------------------------
def _topk_oracle(
    input: Any, k: int, dim: int | None = None, largest: bool = True, sorted: bool = True
) -> Any:
    dim = -1 if dim is None else dim
    return tuple(np.take(v, range(k), dim) for v in _sorted_oracle(input, dim, largest))


@operator(category="sort", numpy=_topk_oracle, method=True, rebinds=False,
          samples=[Sample((_X, 2)), Sample((_X, 3, 0, False)), Sample((_CUBE, 2, 1)), Sample((_X, 0))])  # fmt: skip
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
    order, value = argsort(x, number, check_flag("topk", "largest", largest))
    return narrow(value, number, 0, count, "topk"), narrow(order, number, 0, count, "topk")


def _nth(operator_name: str, x: Var, dim: int, place: int, keep: bool) -> tuple[Var, Var]:
    """Element number ``place`` of the sorted array along ``dim`` and where it comes from."""
    order, value = argsort(x, dim)
    return tuple(_without(narrow(v, dim, place, 1, operator_name), dim, keep) for v in (value, order))  # type: ignore[return-value]


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
    return _nth("kthvalue", x, number, place - 1, _keep("kthvalue", keepdim, keepdims))


def _median_oracle(x: Any, dim: Any = None, keepdim: bool = False, keepdims: bool = False) -> Any:
    if dim is None:
        x, dim = x.reshape(-1), 0
    return _kth_oracle(x, (x.shape[dim] + 1) // 2, dim, keepdim, keepdims)[0]


@operator(category="sort", numpy=_median_oracle, method=True,
          samples=[Sample((_X,)), Sample((_X, 0)), Sample((_CUBE, 2, True)), Sample((_CUBE, 1)),
                   Sample((Tensor((1,)),))])  # fmt: skip
def median(x: Any, dim: int | None = None, keepdim: bool = False, keepdims: bool = False) -> Var:
    """The element in the middle of the sorted array along ``dim`` (of all elements unless given); the lower of two.

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
    return _nth("median", source, number, (extent - 1) // 2, _keep("median", keepdim, keepdims))[0]


def _most_common(x: np.ndarray[Any, Any], dim: int) -> np.ndarray[Any, Any]:
    """The first place of the most common value; the smallest of several."""

    def one(row: Any) -> Any:
        _, first, count = np.unique(row, return_index=True, return_counts=True)
        return first[np.argmax(count)]

    return np.apply_along_axis(one, dim, x).astype(np.int32)


def _mode_oracle(x: Any, dim: int = -1, keepdim: bool = False) -> Any:
    place = np.expand_dims(_most_common(x, dim), dim)
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
    shape = tuple(1 if d == number else n for d, n in enumerate(x.shape))
    place = reshape(
        host_op("mode", HostFunction(_most_common, (("dim", number),)), [x],
                spec_of(tuple(n for d, n in enumerate(x.shape) if d != number), int32)), shape,
    )  # fmt: skip
    keep = check_flag("mode", "keepdim", keepdim)
    return _without(gather(x, number, place), number, keep), _without(place, number, keep)


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
    number = None if dim is None else check_dim("unique", dim, x.ndim)
    _, first, inverse, count = np.unique(x.numpy(), True, True, True, axis=number)
    places = array(first.astype(np.int32))
    value = take(x, places) if number is None else index_select(x, number, places)
    inverse = inverse.reshape(tuple(x.shape) if number is None else -1)
    answers = [value]
    for name, wanted, extra in (
        ("return_inverse", return_inverse, inverse),
        ("return_counts", return_counts, count),
    ):
        if check_flag("unique", name, wanted):
            answers.append(array(extra.astype(np.int32)))
    return answers[0] if len(answers) == 1 else tuple(answers)


def _isin(
    x: np.ndarray[Any, Any], tests: np.ndarray[Any, Any], unique: bool, invert: bool
) -> np.ndarray[Any, Any]:
    return np.isin(x, tests, assume_unique=unique, invert=invert)


@operator(
    category="sort", numpy=lambda *a, **k: np.isin(*a, **k), method=True, differentiable=False, source="NumPy isin",
    samples=[Sample((_FEW, Tensor((3,), "int", 0, 4))), Sample((_FEW, Tensor((0,), "int"), False, True))],
)  # fmt: skip
def isin(elements: Any, test_elements: Any, assume_unique: bool = False, invert: bool = False) -> Var:
    """Whether each element is (or, inverted, is not) among ``test_elements``.

    Args:
        assume_unique: promises that neither argument holds a value twice, which may be faster.

    Example:
        >>> import metafuse as mf
        >>> mf.isin(mf.array([1, 2, 3]), mf.array([3, 1])).numpy()
        array([ True, False,  True])
    """
    x, tests = check_var("isin", "elements", elements), check_var("isin", "test_elements", test_elements)
    flags = (("unique", assume_unique), ("invert", invert))
    options = tuple((name, check_flag("isin", name, flag)) for name, flag in flags)
    return host_op("isin", HostFunction(_isin, options), [x, tests], spec_of(tuple(x.shape), bool_))
