"""Reindex and reindex_reduce with the index language: the meta-operators as users write them.

What it is: parses and checks index expressions and records the node.
What it is not: the language (``index``) or indexing with brackets (``indexing``).
Who calls it: users, and ``neural`` for windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ..dtypes import DType
from ..dtypes import bool_ as boolean
from ..errors import ArgumentError, DTypeError, ShapeError, brief
from ..graph.index_map import IndexMap
from ..index import parse_condition, parse_index, simplify
from ..kernel.expr import Expr
from ..kernel.ir import IDENTITY
from ..passes.affine import row_major
from ..var import Var
from .elementwise import cast
from .meta import check_fill, check_reduction, check_shape, check_var, fill, gather, scatter
from .registry import Operator, register
from .scalar import ternary

__all__ = ["reindex", "reindex_reduce"]


def _names(x: tuple[int, ...], y: tuple[int, ...]) -> dict[str, int]:
    names = {"XDIM": len(x), "YDIM": len(y)}
    for letter, shape in (("x", x), ("y", y)):
        for k, (extent, stride) in enumerate(zip(shape, row_major(shape), strict=True)):
            names[f"{letter}shape{k}"] = extent
            names[f"{letter}stride{k}"] = stride
    return names


@lru_cache(maxsize=4096)
def _index_map(
    operator: str,
    target: tuple[int, ...],
    space: tuple[int, ...],
    x: tuple[int, ...],
    y: tuple[int, ...],
    indexes: tuple[str, ...],
    conditions: tuple[str, ...],
    extras: tuple[tuple[DType, int], ...],
    overflow: float | int | bool,
) -> IndexMap:
    """Parse; ``target`` is the addressed array's shape, ``space`` that of the loop variables."""
    names = _names(x, y)

    def parsed(text: str) -> Expr:
        return simplify(parse_index(text, operator=operator, axes=len(space), names=names, extras=extras))

    places = tuple(parsed(t) for t in indexes)
    tests = tuple(
        parse_condition(t, operator=operator, axes=len(space), names=names, extras=extras) for t in conditions
    )
    guard = any(
        not (p.op == "axis" and space[p.value] == n) and not (p.op == "const" and 0 <= p.value < n)
        for p, n in zip(places, target, strict=True)
    )
    return _shared(places, tests, guard, overflow)


#: one map of one meaning, however it was written: signatures compare their parts, and what is the same is not compared
_shared = lru_cache(maxsize=4096, typed=True)(IndexMap)


def _texts(operator: str, argument: str, values: Any) -> tuple[str, ...]:
    if (
        isinstance(values, str)
        or not isinstance(values, Sequence)
        or not all(isinstance(v, str) for v in values)
    ):
        raise DTypeError(f"[{operator}] {argument} must be a list of strings, got {brief(values)}")
    return tuple(values)


def _extras(operator: str, extras: Sequence[Any]) -> list[Var]:
    if not isinstance(extras, (list, tuple)):
        raise DTypeError(f"[{operator}] extras must be a list of Vars, got {type(extras).__name__}")
    return [check_var(operator, f"extras[{k}]", e) for k, e in enumerate(extras)]


def reindex(
    x: Any,
    shape: Any,
    indexes: Any = None,
    overflow_value: float | int | bool = 0,
    overflow_conditions: Sequence[str] = (),
    extras: Sequence[Any] = (),
) -> Var:
    """One to many: ``y[i0, i1, ...] = x[indexes]``, or ``overflow_value`` where that is outside of ``x``.

    Args:
        shape: shape of the result; empty: that of ``extras[0]``. Or a list of integer Vars of one shape: then they
            are the indexes and the result has their shape.
        indexes: one integer expression per dimension of ``x`` over ``i0, i1, ...`` (the result's loop variables),
            ``xshapeK``, ``xstrideK``, ``yshapeK``, ``ystrideK``, ``XDIM``, ``YDIM`` and ``@eK(...)``.
        overflow_value: a number.
        overflow_conditions: expressions; where one is true, the element is ``overflow_value``.
        extras: Vars that ``@e0(...)``, ``@e1(...)`` ... read. Reads outside of an extra count as overflow.

    Returns:
        Var of ``shape`` and the dtype of ``x``. Its gradient is ``reindex_reduce`` with "add".

    Errors:
        IndexExpressionError with the position; ShapeError if the number of indexes is not that of ``x``'s dimensions.

    Example:
        >>> import metafuse as mf
        >>> mf.array([1.0, 2.0, 3.0]).reindex([5], ["i0-1"], -1.0).numpy()
        array([-1.,  1.,  2.,  3., -1.], dtype=float32)
    """
    x = check_var("reindex", "x", x)
    if indexes is None:
        return _reindex_by_vars(x, shape, overflow_value)
    found = _extras("reindex", extras)
    target = tuple(x.shape)
    space = check_shape("reindex", shape)
    if not space:
        if not found:
            raise ShapeError(
                "[reindex] an empty shape takes the shape of extras[0], but extras is empty; give a shape"
            )
        space = tuple(found[0].shape)
    texts = _texts("reindex", "indexes", indexes)
    _check_count("reindex", texts, target)
    overflow_value = check_fill("reindex", "overflow_value", overflow_value, x.dtype)
    tests = _texts("reindex", "overflow_conditions", overflow_conditions)
    kinds = tuple((e.dtype, e.ndim) for e in found)

    def read(source: Var, missed: float | int | bool) -> Var:
        where = _index_map("reindex", target, space, target, space, texts, tests, kinds, missed)
        return gather(source, space, where, found)

    by_number = x.dtype.is_integer or (x.dtype.is_float and math.isfinite(overflow_value))
    if overflow_value == 0 or not by_number:
        return read(x, overflow_value)
    # a number of the run and no part of the kernel: another one needs no other kernel
    return ternary(read(fill(target, True, boolean), False), read(x, 0), overflow_value)


def _reindex_by_vars(x: Var, places: Any, overflow_value: Any) -> Var:
    if not isinstance(places, (tuple, list)) or len(places) != x.ndim:
        raise ShapeError(f"[reindex] needs one index Var per dimension of x ({x.ndim}), got {brief(places)}")
    found = [check_var("reindex", f"indexes[{k}]", p) for k, p in enumerate(places)]
    shape = tuple(found[0].shape)
    for k, p in enumerate(found):
        if not p.dtype.is_integer or tuple(p.shape) != shape:
            raise DTypeError(
                f"[reindex] indexes[{k}] must be integers of shape {list(shape)}, got {p.dtype}{list(p.shape)}"
            )
    here = ",".join(f"i{d}" for d in range(len(shape)))
    return reindex(x, shape, [f"@e{k}({here})" for k in range(len(found))], overflow_value, [], found)


def _check_count(operator: str, texts: tuple[str, ...], target: tuple[int, ...]) -> None:
    if len(texts) != len(target):
        raise ShapeError(
            f"[{operator}] needs one index expression per dimension of the addressed array {list(target)}, "
            f"got {len(texts)}: {list(texts)}"
        )


def reindex_reduce(
    y: Any,
    op: str,
    shape: Any,
    indexes: Sequence[str],
    overflow_conditions: Sequence[str] = (),
    extras: Sequence[Any] = (),
) -> Var:
    """Many to one: ``x`` starts as the identity of ``op``, then ``x[indexes] = op(x[indexes], y[i])`` for all ``i``.

    Args:
        op: add, multiply, maximum, minimum, logical_*, bitwise_*, or void (the last one in row-major order stays).
        shape: shape of the result ``x``.
        indexes: one integer expression per dimension of ``x`` over the loop variables of ``y``; see ``reindex``.
        overflow_conditions: where one is true (or the address is outside), the element takes no part.

    Returns:
        Var of ``shape`` and the dtype of ``y``; deterministic.

    Example:
        >>> import metafuse as mf
        >>> mf.ones(4).reindex_reduce("add", [2], ["i0/2"]).numpy()
        array([2., 2.], dtype=float32)
    """
    y = check_var("reindex_reduce", "y", y)
    name = check_reduction("reindex_reduce", op, void=True)
    target = check_shape("reindex_reduce", shape)
    found = _extras("reindex_reduce", extras)
    texts = _texts("reindex_reduce", "indexes", indexes)
    _check_count("reindex_reduce", texts, target)
    if not target:
        raise ShapeError("[reindex_reduce] shape must have at least one dimension, got []")
    if name.startswith("logical"):
        y = cast(y, "bool")
    if name.startswith("bitwise") and y.dtype.is_float:
        raise ArgumentError(f"[reindex_reduce] {name} needs integers or bool, got {y.dtype}; cast first")
    space = tuple(y.shape)
    where = _index_map(
        "reindex_reduce", target, space, target, space, texts,
        _texts("reindex_reduce", "overflow_conditions", overflow_conditions),
        tuple((e.dtype, e.ndim) for e in found), 0,
    )  # fmt: skip
    start = fill(target, IDENTITY(name, y.dtype), y.dtype)
    return scatter(start, name, y, where, found)


for _function, _methods in ((reindex, ("reindex",)), (reindex_reduce, ("reindex_reduce",))):
    register(Operator(_function.__name__, "meta", _function, None, (), "meta-operator", True, _methods))
