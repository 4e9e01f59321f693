"""What stands in brackets, worked out: ``x[1:, None, rows]`` as a shape and an expression per dimension.

What it is: ``worked_out``, which answers a ``Plan``, and ``known_plan``, the same remembered by a ``subscript_key``.
What it is not: what is recorded (``indexing``), or the index language of ``reindex`` (``index``).
Who calls it: ``indexing``.

Integers, slices, ``None``, ``...``, sequences and arrays of integers (broadcast together) and bool masks, as in NumPy. What
Python knows is checked: integers, lists, arrays of NumPy, the extents of masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from ..dtypes import bool_, int64
from ..errors import ArgumentError, DTypeError, ShapeError, brief
from ..graph.index_map import IndexMap
from ..graph.node import Spec
from ..kernel.expr import Expr, add, axis, call, const, load, mul, select
from ..kernel.expr import cast as cast_expr
from ..var import Var
from .elementwise import broadcast_shapes
from .meta import check_integer, check_var

__all__ = ["Plan", "known_plan", "subscript_key", "worked_out"]

#: what stands for an array in an index: itself, or all that is known of it where the index is worked out once
_ARRAYS = (Var, Spec)


@dataclass
class Plan:
    """An index worked out: shape of the result, an expression per dimension of ``x``, extra inputs (or their specs), shape to
    show."""

    space: tuple[int, ...]
    places: tuple[Expr, ...]
    extras: list[Any]
    shape: tuple[int, ...]

    @cached_property
    def where(self) -> IndexMap:
        """As the attribute of a node."""
        return IndexMap(self.places, (), bool(self.extras))


def _expand(operator: str, index: Any, full: tuple[int, ...]) -> list[Any]:
    """The index as a list with masks turned into integer Vars and the ellipsis written out.

    An ellipsis that stands for nothing stays, as it stands between its neighbours."""
    given = [_sequence(operator, item) for item in (index if isinstance(index, tuple) else (index,))]
    counts = [_dimensions(item) for item in given]
    used = sum(counts)
    ellipses = sum(item is Ellipsis for item in given)
    if ellipses > 1:
        raise ArgumentError(f"[{operator}] an index may hold one '...', got {ellipses}")
    if used > len(full):
        raise ShapeError(f"[{operator}] too many indices: {used} for {len(full)} dimensions")
    if not ellipses:
        given.append(Ellipsis)
        counts.append(0)
    items: list[Any] = []
    d = 0
    for item, count in zip(given, counts, strict=True):
        if item is Ellipsis:
            items.extend([slice(None)] * (len(full) - used) or [Ellipsis])
            d += len(full) - used
            continue
        if isinstance(item, np.ndarray):
            item = _array(operator, item, full, d)
        if type(item) is Var and item.dtype is bool_:
            items.extend(_true_places(operator, item, full, d))
        else:
            items.append(item)
        d += count
    return items


def _sequence(operator: str, item: Any) -> Any:
    """An item of an index with scalars of NumPy as numbers and all sequences as arrays."""
    if isinstance(item, np.generic) or (isinstance(item, np.ndarray) and item.ndim == 0):
        return item.item()
    if not isinstance(item, (list, tuple, range)):
        return item
    try:
        return np.asarray(item) if len(item) else np.empty(0, np.int32)
    except ValueError:
        raise ShapeError(
            f"[{operator}] an index of nested lists must be of even length, got {brief(item)}"
        ) from None


def _dimensions(item: Any) -> int:
    """How many dimensions of the array an item of an index stands for."""
    if item is None or item is Ellipsis:
        return 0
    if type(item) in _ARRAYS:
        return len(item.shape) if item.dtype is bool_ else 1
    return item.ndim if isinstance(item, np.ndarray) and item.dtype == np.bool_ else 1


def _array(operator: str, array: np.ndarray[Any, Any], full: tuple[int, ...], d: int) -> Var:
    """An array of the host, whose integers are known and checked, as a Var."""
    if array.dtype.kind not in "biu":
        problem = "NaN" if array.dtype.kind == "f" and np.isnan(array).any() else f"{array.dtype} values"
        raise DTypeError(f"[{operator}] an index must be integers or bool, got {problem}; cast first")
    if array.dtype.kind != "b" and array.size:
        for number in (int(array.min()), int(array.max())):
            _integer(operator, number, full[d], d)
    return check_var(operator, "index", array)


def _true_places(operator: str, mask: Var, full: tuple[int, ...], d: int) -> tuple[Var, ...]:
    """A mask over dimensions from ``d`` on as integers. Errors: ``IndexError``, as in NumPy."""
    from .masks import places

    if tuple(mask.shape) != full[d : d + mask.ndim]:
        extents = list(full[d : d + mask.ndim])
        raise IndexError(
            f"[{operator}] a mask of shape {list(mask.shape)} can't choose from extents {extents}; they must be equal"
        )
    return places(mask)


def subscript_key(index: Any, arrays: list[Var]) -> tuple[Any, ...] | None:
    """An index of integers, slices, ``None``, ``...`` and arrays of integers: slices as tuples, arrays, which are added to
    ``arrays``, as their specs. ``None`` for all others."""
    key: list[Any] = []
    for item in index if type(index) is tuple else (index,):
        kind = type(item)
        if kind is int or item is None or item is Ellipsis:
            key.append(item)
        elif kind is slice:
            ends = (item.start, item.stop, item.step)
            for end in ends:
                if end is not None and type(end) is not int:
                    return None
            key.append(ends)
        elif kind is Var and item._node.spec.dtype is not bool_:
            arrays.append(item)
            key.append(item._node.spec)
        else:
            return None
    return tuple(key)


@lru_cache(maxsize=4096)
def known_plan(operator: str, shape: tuple[int, ...], key: tuple[Any, ...]) -> Plan:
    """The plan of an index that is a ``subscript_key``."""
    return worked_out(operator, shape, tuple(slice(*k) if type(k) is tuple else k for k in key))


def worked_out(operator: str, full: tuple[int, ...], index: Any) -> Plan:
    items = _expand(operator, index, full)
    arrays = [item for item in items if type(item) in _ARRAYS]
    for a in arrays:
        if not a.dtype.is_integer:
            raise DTypeError(f"[{operator}] an index must be integers or bool, got {a.dtype}; cast first")
    block = broadcast_shapes(operator, [tuple(a.shape) for a in arrays]) if arrays else ()
    positions = [
        k for k, item in enumerate(items) if type(item) in _ARRAYS or (arrays and isinstance(item, int))
    ]
    together = not positions or positions == list(range(positions[0], positions[0] + len(positions)))
    # NumPy: the block of advanced dimensions stands where they were if they are neighbours, else first
    space: list[int] = [] if together else list(block)
    block_start = 0
    block_done = not together
    places: list[Expr] = []
    pending: list[tuple[int, int]] = []  # (place, number of the extra)
    d = 0
    for item in items:
        if item is None or item is Ellipsis:
            space += [1] if item is None else []
            continue
        extent = full[d]
        if type(item) in _ARRAYS:
            if not block_done:
                block_start, block_done = len(space), True
                space.extend(block)
            pending.append((len(places), len(pending)))
            places.append(const(0))
        elif isinstance(item, slice):
            start, stop, step = _slice(operator, item, extent)
            count = max(0, -(-(stop - start) // step))
            places.append(add(mul(axis(len(space)), const(step)), const(start)))
            space.append(count)
        else:
            places.append(const(_integer(operator, item, extent, d)))
        d += 1
    for place, number in pending:
        places[place] = _data_index(arrays[number], 1 + number, block, block_start, full[place])
    shape = tuple(space) or (1,)
    return Plan(tuple(space), tuple(places), arrays, shape)


def _data_index(array: Var | Spec, number: int, block: tuple[int, ...], start: int, extent: int) -> Expr:
    """Read an index array at its place in the block; negative values count from the end."""
    skip = len(block) - len(array.shape)
    at = tuple(const(0) if n == 1 else axis(start + skip + k) for k, n in enumerate(array.shape))
    value = cast_expr(load(number, array.dtype, *at), int64)
    return select(call("lt", value, const(0)), call("add", value, const(extent)), value)


def _slice(operator: str, item: slice, extent: int) -> tuple[int, int, int]:
    try:
        return item.indices(extent)
    except (TypeError, ValueError) as error:
        raise DTypeError(f"[{operator}] bad slice {item}: {error}") from None


def _integer(operator: str, item: Any, extent: int, d: int) -> int:
    if isinstance(item, (bool, type)) or not hasattr(item, "__index__"):
        raise DTypeError(
            f"[{operator}] can't index with {type(item).__name__} {brief(item)}; use integers, slices, None, ..."
        )
    number = check_integer(operator, "an index", item)
    if not -extent <= number < extent:
        # IndexError is what iteration protocols and users expect here
        raise IndexError(f"[{operator}] index {number} is out of bounds for dimension {d} of extent {extent}")
    return number % extent if extent else number
