"""Indexing with brackets: ``x[...]`` and ``x[...] = value``.

What it is: NumPy's basic and advanced indexing as reindex and scatter nodes.
What it is not: the index language of ``reindex``.
Who calls it: ``Var.__getitem__`` and ``Var.__setitem__``.

Integers, slices, ``None``, ``...``, integer arrays (broadcast together) and bool masks. Assignment rebinds the Var, and
through a chain ``x[i][j] = v`` the Vars it was taken from, so that it behaves like NumPy: what integers and slices take is a
window on ``x`` for assignments, what arrays and masks take is a copy. Indexes in a Var that lie outside are not errors on a
device: such elements read as 0 and are not written; integers, lists and arrays of NumPy are checked.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple
from weakref import ReferenceType, ref

import numpy as np

from ..dtypes import DType, bool_, int32
from ..errors import ArgumentError, DTypeError, ShapeError, brief
from ..graph.node import Node, Signature, Spec
from ..var import Var, record
from . import meta
from .elementwise import broadcast_shapes, cast
from .meta import check_var, gather, gather_signature, scatter
from .registry import Operator, Sample, Tensor, register
from .subscripts import known_plan, subscript_key, worked_out

__all__ = ["getitem", "setitem"]


class Origin(NamedTuple):
    """Where a Var was taken from: a Var, by which index, and what that one was taken from; the nodes that both held then."""

    whole: ReferenceType[Var]
    slices: Any
    further: Origin | None
    seen: ReferenceType[Node]
    taken: ReferenceType[Node]


@lru_cache(maxsize=4096)
def _reading(spec: Spec, key: tuple[Any, ...]) -> tuple[Signature, tuple[int, ...]]:
    """What an index that is a ``subscript_key`` records, and the shape to show."""
    plan = known_plan("getitem", spec.shape, key)
    return gather_signature((spec, *plan.extras), plan.space, plan.where, "getitem"), plan.shape


def _mask(index: Any, x: Var) -> Var | None:
    """The index, if it is one bool array over all of the first dimensions of ``x``."""
    if isinstance(index, np.ndarray) and index.dtype == np.bool_:
        index = check_var("getitem", "index", index)
    found = type(index) is Var and index.dtype is bool_ and tuple(index.shape) == tuple(x.shape[: index.ndim])
    return index if found else None


def _fill_masked(x: Var, mask: Var, value: Var, op: str) -> Var:
    """``x`` joined with one value where a mask over its first dimensions holds."""
    from .scalar import ternary

    value = meta.reshape(value, (1,))
    joined = value if op == "void" else getattr(Var, op)(x, value)
    return ternary(meta.reshape(mask, (*mask.shape, *[1] * (x.ndim - mask.ndim))), joined, x)


def getitem(x: Any, slices: Any) -> Var:
    """Elements of ``x`` chosen as in NumPy; a single element has shape ``[1]``.

    Errors:
        IndexError: an integer out of range that Python knows; a mask of other extents. DTypeError,
            ShapeError: indices of a wrong type or number.

    Example:
        >>> import metafuse as mf
        >>> mf.arange(10)[2:8:3].numpy()
        array([2, 5], dtype=int32)
    """
    if type(x) is not Var:
        x = check_var("getitem", "x", x)
    arrays: list[Var] = []
    key = subscript_key(slices, arrays)
    if key is not None:
        node = x._node
        sig, shape = _reading(node.spec, key)
        result = meta.reshape(record(sig, (node, *[a._node for a in arrays])), shape)
        return result if arrays else _window(x, slices, result)
    mask = _mask(slices, x)
    if mask is not None and mask.ndim == x.ndim:
        from .mask_loops import chosen

        return meta.identity(chosen(x, mask))  # a node of its own, which may be assigned to
    plan = worked_out("getitem", tuple(x.shape), slices)
    result = gather(x, plan.space, plan.where, plan.extras, "getitem")
    result = meta.reshape(result, plan.shape)
    return result if plan.extras else _window(x, slices, result)


def _window(x: Var, slices: Any, result: Var) -> Var:
    """``result``, which assignments to it know as ``x[slices]``."""
    further: Origin | None = x._origin
    if further is not None and further.further is None and further.whole() is None:
        further = None
    result._origin = Origin(ref(x), slices, further, ref(x._node), ref(result._node))
    return result


def _number(value: Any, dtype: DType) -> Var | None:
    """A Python number as a run-time number of the program, if it is one of ``dtype``."""
    kind = type(value)
    if dtype.is_float:
        fits = kind is float or (kind is int and -(2**24) <= value <= 2**24)
    else:
        fits = (dtype is bool_ and kind is bool) or (
            dtype is int32 and kind is int and -(2**31) <= value < 2**31
        )
    return meta.fill((1,), float(value) if dtype.is_float else value, dtype) if fits else None


#: spellings of the operator by which an assignment joins old and new
_JOINS = ("void", "add", "subtract", "multiply", "divide", "maximum", "minimum")


def setitem(x: Any, slices: Any, y: Any, op: str = "void") -> Var:
    """``x[slices] = y``: ``x`` holds the changed array from now on. Of equal targets the last value stays.

    Args:
        op: how old and new are joined: "void" (new replaces old), "add", "subtract", "multiply", "divide", "maximum",
            "minimum"; equal targets then receive every value.

    Example:
        >>> import metafuse as mf
        >>> x = mf.zeros(3)
        >>> x[1] = 5
        >>> x.numpy()
        array([0., 5., 0.], dtype=float32)
        >>> mf.setitem(x, [1, 1], 2, "add").numpy()
        array([0., 9., 0.], dtype=float32)
    """
    if type(x) is not Var:
        raise DTypeError(f"[setitem] only a Var can be changed, got {type(x).__name__}; make one with array")
    if not isinstance(op, str) or op not in _JOINS:
        raise ArgumentError(f"[setitem] op must be one of {', '.join(_JOINS)}, got {brief(op)}")
    given = _number(y, x.dtype)
    if given is None:
        given = cast(check_var("setitem", "y", y), x.dtype)
    if op in ("subtract", "divide"):
        given, op = (-given, "add") if op == "subtract" else (cast(1 / given, x.dtype), "multiply")
    windows = _windows(x)
    before = meta.identity(x)
    mask = _mask(slices, x) if given.size == 1 and x.dtype is not bool_ else None
    if mask is not None:
        changed = _fill_masked(before, mask, given, op)
    else:
        changed = _scattered(before, slices, given, op)
    x._rebind(changed._node)
    part = x
    for whole, origin in windows:
        whole._rebind(_scattered(meta.identity(whole), origin.slices, part, "void")._node)
        part._origin = origin._replace(seen=ref(whole._node), taken=ref(part._node))
        part = whole
    return x


def _scattered(x: Var, slices: Any, given: Var, op: str) -> Var:
    """``x`` joined with as many values as an index selects."""
    arrays: list[Var] = []
    key = subscript_key(slices, arrays)
    if key is not None:
        plan = known_plan("setitem", tuple(x.shape), key)
    else:
        plan = worked_out("setitem", tuple(x.shape), slices)
        arrays = plan.extras
    shape = tuple(given.shape)
    while len(shape) > len(plan.space) and shape and shape[0] == 1:
        shape = shape[1:]
    if broadcast_shapes("setitem", [shape, plan.space]) != plan.space:
        raise ShapeError(
            f"[setitem] value of shape {list(given.shape)} does not fit the selection {list(plan.space)}"
        )
    spread = meta.broadcast_to(meta.reshape(given, shape), plan.space)
    return scatter(x, op, spread, plan.where, arrays, "setitem")


def _windows(x: Var) -> list[tuple[Var, Origin]]:
    """The Vars that ``x`` is a window on, nearest first, each with the index that leads on from it.

    Those in the middle of a chain ``x[i][j][k]`` are gone and are taken out again. A window shows what has been written to the
    whole since it was taken, unless something else than an assignment to its elements has bound it.
    """
    chain: list[Origin] = []
    origin: Origin | None = x._origin
    while origin is not None:
        chain.append(origin)
        whole = origin.whole()
        origin = origin.further if whole is None else whole._origin
    while chain and chain[-1].whole() is None:
        chain.pop()
    found: list[tuple[Var, Origin]] = []
    whole = chain[-1].whole() if chain else None
    again = moved = False
    for k, origin in reversed(list(enumerate(chain))):
        assert whole is not None
        found.append((whole, origin))
        moved = moved if again else origin.seen() is not whole._node
        part = chain[k - 1].whole() if k else x
        again = part is None
        if part is None:
            part = getitem(whole, origin.slices)
        elif moved and origin.taken() is part._node:
            part._rebind(getitem(whole, origin.slices)._node)
        whole = part
    return found[::-1]


_X = Tensor((3, 4, 5))

register(
    Operator(
        "getitem",
        "indexing",
        getitem,
        lambda x, slices: x[slices],
        (
            Sample((_X, (slice(None), 1))),
            Sample((_X, (slice(None, None, -2), None, slice(1, 3)))),
            Sample((_X, (..., -1, slice(None)))),
            Sample((_X, (Tensor((2, 2), "int32", 0, 2), slice(None), Tensor((2, 2), "int32", -5, 4)))),
            Sample((Tensor((7,), "any"), slice(-6, None, 3))),
            Sample((Tensor((7,)), Tensor((0,), "int32"))),
        ),
        "NumPy indexing",
        True,
        ("getitem", "slice_var", "__getitem__"),
    )
)
register(
    Operator(
        "setitem",
        "indexing",
        setitem,
        None,
        (),
        "NumPy indexing",
        True,
        ("setitem", "__setitem__"),
        rebinds=False,
    )
)
