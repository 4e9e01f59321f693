"""Orders, selections and searches as loops: in C++ a radix sort and what is cheaper where only a part of the order is asked for.

What it is: places of elements, each in C++ (``sorting_texts``) and in NumPy, which says what is meant.
What it is not: the values at those places and their gradients (``sorting``, ``bins``).
Who calls it: ``sorting``, ``bins``, ``random``.

Everywhere equal elements keep their order, -0 equals 0, and NaN counts as largest; all answers are int32.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ..dtypes import as_dtype, bool_, float32, int32
from ..graph.node import spec_of
from ..var import Var
from .elementwise import cast
from .meta import reshape
from .native_loop import native_loop
from .sorting_header import HEADER
from .sorting_texts import BEST, COMMON, DISTINCT, NTH, ORDER, PERMUTATION, SEARCH

__all__ = [
    "alike",
    "best",
    "common",
    "contained",
    "distinct",
    "insertion_places",
    "nth",
    "order",
    "permutation",
]

Array = np.ndarray[Any, Any]


# -- in NumPy ------------------------------------------------------------------------------------------------------
def ordered(x: Array, dim: int, descending: bool) -> Array:
    """The stable order along ``dim``."""
    if descending:  # of the flipped array, flipped: equal elements keep their order
        flipped = np.flip(x, dim)
        return x.shape[dim] - 1 - np.flip(np.argsort(flipped, axis=dim, kind="stable"), dim)
    return np.argsort(x, axis=dim, kind="stable")


def _order(x: Array, descending: int) -> Array:
    return ordered(x, 1, bool(descending))


def _best(x: Array, largest: int, kept: int) -> Array:
    return ordered(x, 1, bool(largest))[:, :kept]


def _nth(x: Array, place: int) -> Array:
    return ordered(x, 1, False)[:, place : place + 1]


def _common(x: Array) -> Array:
    def one(row: Array) -> Any:
        _, first, count = np.unique(row, return_index=True, return_counts=True)
        return first[np.argmax(count)]

    places = [[one(row) for row in sheet.T] for sheet in x]
    return np.array(places, np.int32).reshape(len(x), 1, x.shape[2])


def _distinct(x: Array, inverse: int, counts: int) -> Array:
    _, first, number, count = np.unique(x, True, True, True)
    found = np.zeros(1 + len(x) * (1 + inverse + counts), np.int32)
    found[0] = len(first)
    found[1 : 1 + len(first)] = first
    if counts:
        found[1 + len(x) :][: len(first)] = count
    if inverse:
        found[len(found) - len(x) :] = number
    return found


def _permutation(bits: Array, count: int) -> Array:
    whole = [int(b) for b in bits.astype(np.float64) * 2**24]
    seed = (whole[0] | whole[1] << 24 | whole[2] << 48) % 2**64
    among = np.arange(1, count + 1, dtype=np.uint64)
    z = np.uint64(seed) + among * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    low = (z & np.uint64(2**32 - 1)) * among >> np.uint64(32)
    places = [0] * count
    for k, other in enumerate(((z >> np.uint64(32)) * among + low >> np.uint64(32)).tolist()):
        places[k] = places[other]
        places[other] = k
    return np.array(places, np.int32)


def _insertion_places(x: Array, values: Array, right: int) -> Array:
    side: Any = "right" if right else "left"
    found = [np.searchsorted(x[r % len(x)], row, side) for r, row in enumerate(values)]
    return np.stack(found) if found else np.empty(values.shape, np.int32)


def _contained(x: Array, values: Array, invert: int) -> Array:
    return np.isin(values, x, invert=bool(invert))


# -- recording -----------------------------------------------------------------------------------------------------
def _along(name: str, source: str, function: Any, x: Var, dim: int, count: int, **options: int) -> Var:
    """A loop over the rows of ``x`` along ``dim``, each of which answers ``count`` places."""
    shape = tuple(x.shape)
    outer, inner = prod(shape[:dim]), prod(shape[dim + 1 :])
    rows = reshape(x, (outer, shape[dim], inner))
    found = native_loop(
        name, source, function, [rows], spec_of((outer, count, inner), int32), HEADER, **options
    )
    return reshape(found, (*shape[:dim], count, *shape[dim + 1 :]))


def order(x: Var, dim: int, descending: bool) -> Var:
    """The order along ``dim``, of the shape of ``x``."""
    return _along("argsort", ORDER, _order, x, dim, x.shape[dim], descending=int(descending))


def best(x: Var, dim: int, count: int, largest: bool) -> Var:
    """The first ``count`` places of the order along ``dim``, descending for ``largest``."""
    return _along("topk", BEST, _best, x, dim, count, largest=int(largest), kept=count)


def nth(x: Var, dim: int, place: int) -> Var:
    """Number ``place`` of the order along ``dim``, which is kept with extent 1."""
    return _along("select", NTH, _nth, x, dim, 1, place=place)


def common(x: Var, dim: int) -> Var:
    """The first place of the most common value along ``dim``, which is kept with extent 1; the smallest of several."""
    return _along("mode", COMMON, _common, x, dim, 1)


def distinct(x: Var, inverse: bool, counts: bool) -> Var:
    """Of the different values of a flat array, in ascending order: ``[1 + n]`` how many, and the first place of each; then, where
    asked for, ``[n]`` how often each occurs and ``[n]`` the number of each element's value."""
    spec = spec_of((1 + x.shape[0] * (1 + inverse + counts),), int32)
    return native_loop(
        "unique", DISTINCT, _distinct, [x], spec, HEADER, inverse=int(inverse), counts=int(counts)
    )


def permutation(bits: Var, count: int) -> Var:
    """A random order of 0..count-1.

    Args:
        bits: three float32 in [0, 1) of 24 random bits each.
    """
    return native_loop("randperm", PERMUTATION, _permutation, [bits], spec_of((count,), int32), count=count)


def alike(x: Var, y: Var) -> tuple[Var, Var]:
    """Both in one type in which they can be compared."""
    kind = as_dtype(np.promote_types(x.dtype.numpy, y.dtype.numpy))
    kind = float32 if kind.is_half else kind
    return cast(x, kind), cast(y, kind)


#: by (floating, right)
_BEHIND = {
    (False, False): "((v) < (w))",
    (False, True): "((v) <= (w))",
    (True, False): "(((v) < (w)) | (((w) != (w)) & ((v) == (v))))",
    (True, True): "(((v) <= (w)) | ((w) != (w)))",
}


@lru_cache(maxsize=16)
def _search(right: bool, is_float: bool, found: str) -> str:
    return f"#define BEHIND(v, w) {_BEHIND[is_float, right]}\n#define FOUND(at, w) {found}\n{SEARCH}"


def insertion_places(x: Var, values: Var, right: bool) -> Var:
    """Where ``values`` ``[rows, m]`` would be put into ``x`` ``[rows or 1, n]`` of the same type, behind equal elements for
    ``right``."""
    spec = spec_of(tuple(values.shape), int32)
    source = _search(right, x.dtype.is_float, "(at)")
    return native_loop("searchsorted", source, _insertion_places, [x, values], spec, right=int(right))


def contained(x: Var, values: Var, invert: bool) -> Var:
    """Whether each of ``values`` ``[1, m]`` is (or, inverted, is not) in the ascending ``x`` ``[1, n]`` of the same type."""
    source = _search(False, x.dtype.is_float, '(((at) < n && a[at] == (w)) != (data["invert"] != 0))')
    return native_loop(
        "isin", source, _contained, [x, values], spec_of(tuple(values.shape), bool_), invert=int(invert)
    )
