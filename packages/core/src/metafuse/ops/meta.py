"""The meta-operators beside maps: reindex, reindex_reduce, reduce, and the sources.

What it is: the functions that record the closed set of node kinds, with their gradients, which are again in the set.
What it is not: named convenience operators (``shape``, ``reduce``, ``indexing``, ``neural`` compose those from here).
Who calls it: every other module of ``ops``, and users through ``metafuse.reindex`` and its relatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from operator import index as operator_index
from typing import Any

import numpy as np

from ..dtypes import DType, accumulator, as_dtype, fits_float, int32
from ..errors import ArgumentError, DTypeError, ShapeError, brief, told_by
from ..graph.index_map import IndexMap
from ..graph.node import BY_ITSELF, SIZE_LIMIT, Node, Signature, Spec, signature, spec_of
from ..index import as_affine
from ..kernel.expr import Expr, add, axis, const, mul
from ..kernel.expr import cast as cast_expr
from ..kernel.ir import REDUCTIONS
from ..var import Var, record, wrap
from .elementwise import KNOWN_LIMIT, cast

__all__ = [
    "IndexMap", "broadcast_to", "by_itself", "expand_dims", "fill", "gather", "identity", "index", "piece", "reduce_dims",
    "reshape", "scatter", "sum_to", "with_gradient",
]  # fmt: skip


# -- one to many, many to one ------------------------------------------------------------------------------------
def gather(
    x: Var, shape: tuple[int, ...], where: IndexMap, extras: Sequence[Var] = (), name: str = "reindex"
) -> Var:
    """``y[i] = x[where(i)]`` of ``shape``; extras are inputs 1, 2, ... of the index expressions."""
    nodes = (x._node, *[e._node for e in extras])
    return record(gather_signature(tuple([n.spec for n in nodes]), shape, where, name), nodes)


def gather_signature(
    specs: tuple[Spec, ...], shape: tuple[int, ...], where: IndexMap, name: str
) -> Signature:
    """What ``gather`` records of inputs of ``specs``."""
    spec = spec_of(shape, specs[0].dtype)
    return signature("reindex", name, where, specs, spec, None, (), _gather_gradient)


def scatter(
    base: Var, op: str, y: Var, where: IndexMap, extras: Sequence[Var] = (), name: str = "reindex_reduce"
) -> Var:
    """``out = base``, then ``out[where(i)] = op(out[where(i)], y[i])`` in row-major order of ``i``.

    Sums and products of 16-bit floats are carried in float32."""
    wide, dtype = accumulator(base.dtype), base.dtype
    if wide is not dtype and op in ("add", "multiply"):
        blank = base._node.sig.name == "zeros" and base._node.buffer is None
        start = fill(tuple(base.shape), 0, wide) if blank else cast(base, wide)
        return cast(scatter(start, op, cast(y, wide), where, extras, name), dtype)
    # inputs: y stands at 0 only in the user's expressions, so extras keep their numbers 1, 2, ...
    nodes = (base._node, *(e._node for e in extras), y._node)
    specs = tuple(n.spec for n in nodes)
    sig = signature("scatter", name, (op, where), specs, base._node.spec, None, (), _scatter_gradient)
    return record(sig, nodes)


def _gather_gradient(node: Node, upstream: Var) -> list[Var | None]:
    extras = [wrap(n) for n in node.inputs[1:]]
    source = node.inputs[0].spec
    where: IndexMap = node.sig.attrs
    reduced = _as_reduction(upstream, source, where)
    if reduced is None:
        zero = fill(source.shape, 0, source.dtype)
        reduced = scatter(zero, "add", upstream, where, extras)
    return [reduced, *([None] * len(extras))]


def _as_reduction(upstream: Var, source: Spec, where: IndexMap) -> Var | None:
    """The scatter-add through a broadcast, a transposition or a padding is a sum and a read; ``None`` if it is none of them."""
    if where.conditions:
        return None
    kept: list[tuple[int, int, int]] = []
    for extent, index in zip(source.shape, where.indexes, strict=True):
        moved = _shifted(index)
        if moved is not None and all(moved[0] != k for k, _, _ in kept):
            # element j of the source is read where the axis is by + sign * j
            by, sign = (-moved[1], 1) if moved[2] > 0 else (moved[1], -1)
            ends = (by, by + sign * (extent - 1))
            if min(ends) < 0 or max(ends) >= upstream._node.spec.shape[moved[0]]:
                return None
            kept.append((moved[0], by, sign))
        elif not (index.op == "const" and index.value == 0 and extent == 1):
            return None
    axes = [k for k, _, _ in kept]
    dropped = tuple(k for k in range(upstream.ndim) if k not in axes)
    summed = reduce_dims(upstream, "add", dropped) if dropped else upstream
    order = sorted(axes)
    shape = tuple(n for n, index in zip(source.shape, where.indexes, strict=True) if index.op != "const")
    plain = all(by == 0 and sign > 0 for _, by, sign in kept) and order == axes
    if not plain or tuple(summed.shape) != shape:
        places = []
        for k in order:
            d = axes.index(k)
            _, by, sign = kept[d]
            term = axis(d) if sign > 0 else mul(axis(d), const(-1))
            places.append(add(term, const(by)) if by else term)
        summed = gather(summed, shape, IndexMap(tuple(places)), (), "transpose")
    return reshape(summed, source.shape)


def _shifted(index: Expr) -> tuple[int, int, int] | None:
    """(axis, constant, sign) if ``index`` is plus or minus an axis plus a constant."""
    if index.op == "axis":
        return index.value, 0, 1
    affine = as_affine(index)
    if affine is None or len(affine.coefficients) != 1 or affine.coefficients[0][1] not in (1, -1):
        return None
    (number, sign) = affine.coefficients[0]
    return number, affine.constant, sign


def _scatter_gradient(node: Node, upstream: Var) -> list[Var | None]:
    op, where = node.sig.attrs
    base, *extra_nodes, y_node = node.inputs
    extras = [wrap(n) for n in extra_nodes]
    nothing: list[Var | None] = [None] * len(extras)
    y, answer = wrap(y_node), wrap(node)
    taken = IndexMap(where.indexes, where.conditions, where.guard, 0)

    def at(value: Var) -> Var:
        return gather(value, y_node.spec.shape, taken, extras)

    if op == "add":
        return [upstream, *nothing, at(upstream)]
    if op == "multiply":
        products = scatter(fill(base.spec.shape, 1, upstream.dtype), "multiply", y, where, extras)
        return [
            upstream * products,
            *nothing,
            at(upstream) * _other_factors(wrap(base), y, where, extras, at),
        ]
    if op in ("maximum", "minimum"):
        return [upstream * cast(answer == wrap(base), upstream.dtype), *nothing,
                at(upstream) * cast(at(answer) == y, upstream.dtype)]  # fmt: skip
    if op == "void":
        ones = fill(y_node.spec.shape, 1, upstream.dtype)
        covered = scatter(fill(base.spec.shape, 0, upstream.dtype), "void", ones, where, extras)
        return [upstream * (1 - covered), *nothing, at(upstream)]
    return [None, *nothing, None]


def _other_factors(base: Var, y: Var, where: IndexMap, extras: list[Var], at: Callable[[Var], Var]) -> Var:
    """For every element of ``y`` the product of what else is multiplied into its place, right also where elements are zero."""
    from .scalar import ternary

    def into(op: str, start: Var, values: Var) -> Var:
        return scatter(start, op, values, where, extras)

    shape, dtype = tuple(base.shape), y.dtype
    times = at(into("add", fill(shape, 0, dtype), fill(tuple(y.shape), 1, dtype)))
    gone, zero = base == 0, y == 0
    zeros = at(into("add", cast(gone, dtype), cast(zero, dtype)))
    factor = ternary(zero, 1.0, y)
    product = at(into("multiply", ternary(gone, 1.0, base), factor))
    several = ternary(zeros == cast(zero, dtype), product / factor, 0.0)
    return ternary(times == 1, at(base), several)


# -- reduce --------------------------------------------------------------------------------------------------------
def reduce_dims(x: Var, op: str, dims: tuple[int, ...]) -> Var:
    """Fold ``x`` over ``dims`` (checked, non-negative, ascending); those dimensions disappear."""
    spec = x._node.spec
    if not dims:
        return x
    wide = accumulator(spec.dtype) if op in ("add", "multiply") else spec.dtype
    source = cast(x, wide)
    return cast(record(_reduction(source._node.spec, op, dims), (source._node,)), spec.dtype)


@lru_cache(maxsize=KNOWN_LIMIT)
def _reduction(spec: Spec, op: str, dims: tuple[int, ...]) -> Signature:
    shape = tuple(n for k, n in enumerate(spec.shape) if k not in dims)
    gradient = _reduce_gradient if op in _REDUCE_GRADIENTS else None
    result = spec_of(shape, spec.dtype)
    return signature("reduce", f"reduce_{op}", (op, dims), (spec,), result, None, (), gradient)


_REDUCE_GRADIENTS = ("add", "multiply", "maximum", "minimum")


def _reduce_gradient(node: Node, upstream: Var) -> list[Var | None]:
    op, dims = node.sig.attrs
    source = node.inputs[0]
    full = source.spec.shape
    kept = tuple(1 if k in dims else n for k, n in enumerate(full))
    spread = broadcast_to(reshape(upstream, kept), full)
    if op == "add":
        return [spread]
    x, answer = wrap(source), reshape(wrap(node), kept)
    if op == "multiply":
        return [_product_gradient(x, spread, answer, dims)]
    return [spread * cast(x == answer, spread.dtype)]


def _product_gradient(x: Var, spread: Var, answer: Var, dims: tuple[int, ...]) -> Var:
    """Upstream times the product of the others, right also where elements are zero."""
    from .scalar import ternary

    zero = x == 0
    zeros = reduce_dims(cast(zero, x.dtype), "add", dims)
    others = reduce_dims(ternary(zero, 1.0, x), "multiply", dims)
    zeros, others = reshape(zeros, answer.shape), reshape(others, answer.shape)
    single = ternary(zero, ternary(zeros == 1, others, 0.0), 0.0)
    return spread * ternary(zeros == 0, answer / ternary(zero, 1.0, x), single)


# -- shape ---------------------------------------------------------------------------------------------------------
def identity(x: Var) -> Var:
    """The same value as a node of its own (nothing is copied)."""
    return _alias(x, x._node.spec.shape, "identity")


def detached(x: Var) -> Var:
    """The same value behind which no gradient goes, whatever is made trainable later (nothing is copied)."""
    node = x._node
    return record(_aliased(node.spec, node.spec.shape, "detach", False), (node,))


def by_itself(x: Var) -> Var:
    """The same value, computed in a kernel of its own: what reads it waits, and its own loop is as simple as can be."""
    return _alias(x, x._node.spec.shape, BY_ITSELF)


def reshape(x: Var, shape: tuple[int, ...]) -> Var:
    """The same elements, row-major, under ``shape`` (already checked)."""
    return x if x._node.spec.shape == shape else _alias(x, tuple(shape), "reshape")


def expand_dims(x: Var, dims: Sequence[int]) -> Var:
    """Dimensions of extent 1 put in at positions ``dims`` of the result."""
    rest = iter(x._node.spec.shape)
    total = x.ndim + len(dims)
    return reshape(x, tuple(1 if k in dims else next(rest) for k in range(total)))


def _alias(x: Var, shape: tuple[int, ...], name: str) -> Var:
    node = x._node
    return record(_aliased(node.spec, shape, name), (node,))


@lru_cache(maxsize=KNOWN_LIMIT)
def _aliased(spec: Spec, shape: tuple[int, ...], name: str, flows: bool = True) -> Signature:
    rule = _alias_gradient if flows else None
    return signature("alias", name, None, (spec,), spec_of(shape, spec.dtype), None, (), rule)


def _alias_gradient(node: Node, upstream: Var) -> list[Var | None]:
    return [reshape(upstream, node.inputs[0].spec.shape)]


def broadcast_to(x: Var, shape: tuple[int, ...]) -> Var:
    """``x`` repeated to ``shape`` by NumPy's rule (already known to fit)."""
    node = x._node
    return x if node.spec.shape == shape else record(_broadcast(node.spec, shape), (node,))


@lru_cache(maxsize=KNOWN_LIMIT)
def _broadcast(spec: Spec, shape: tuple[int, ...]) -> Signature:
    offset = len(shape) - len(spec.shape)
    places = tuple(axis(k + offset) if n == shape[k + offset] else const(0) for k, n in enumerate(spec.shape))
    return gather_signature((spec,), shape, IndexMap(places), "broadcast")


def sum_to(x: Var, shape: tuple[int, ...]) -> Var:
    """Undo a broadcast: sum ``x`` down to ``shape``."""
    own = x._node.spec.shape
    if own == shape:
        return x
    offset = len(own) - len(shape)
    dims = tuple(k for k, n in enumerate(own) if k < offset or (shape[k - offset] == 1 and n != 1))
    return reshape(reduce_dims(x, "add", dims), shape)


def with_gradient(
    output: Var,
    inputs: Sequence[Var],
    name: str,
    attrs: Any,
    gradient: Callable[[Node, Var], list[Var | None]],
) -> Var:
    """``output`` (computed under ``no_grad``) as a node whose gradient with respect to ``inputs`` is ``gradient``.

    ``gradient(node, upstream)`` answers one gradient for ``output`` itself (``None``) and one per input; it must be a function of
    its arguments alone, so that equal calls have equal signatures."""
    nodes = (output._node, *(x._node for x in inputs))
    sig = signature("alias", name, attrs, tuple(n.spec for n in nodes), output._node.spec, None, (), gradient)
    return record(sig, nodes)


def piece(flat: Var, start: int, shape: tuple[int, ...]) -> Var:
    """``flat[start : start + size]`` under ``shape``; ``flat`` has one dimension."""
    size = prod(shape)
    if size != flat._node.spec.size:
        flat = gather(flat, (size,), IndexMap((add(axis(0), const(start)),)), (), "part")
    return reshape(flat, shape)


# -- sources -------------------------------------------------------------------------------------------------------
def fill(shape: tuple[int, ...], value: float | int | bool, dtype: DType) -> Var:
    """A constant array; ``value`` is a run-time number, except that a literal 0 is known to the compiler as 0."""
    if type(value) is int and dtype.is_float:
        check_number("full", "value", value)
    if any(n < 0 for n in shape):
        raise ShapeError(f"[full] extents must be >= 0, got {list(shape)}")
    if value == 0 and type(value) is int:
        return record(_filled(shape, dtype, True), ())
    return record(_filled(shape, dtype, False), (), (value,))


@lru_cache(maxsize=KNOWN_LIMIT)
def _filled(shape: tuple[int, ...], dtype: DType, zeros: bool) -> Signature:
    spec = spec_of(shape, dtype)
    if zeros:
        return signature("map", "zeros", None, (), spec, const(0, dtype))
    return signature("map", "full", None, (), spec, Expr("scalar", (), dtype, 0), (dtype,))


def index(shape: Any, dim: Any = None, dtype: Any = int32) -> Any:
    """The position along ``dim`` of every element of ``shape``; without ``dim``: one such Var per dimension.

    Args:
        shape: extents, or a Var whose shape is taken.
        dim: a dimension; a dtype's name in its place means all dimensions, in this dtype.

    Example:
        >>> import metafuse as mf
        >>> mf.index([2, 2], 1).numpy()
        array([[0, 1],
               [0, 1]], dtype=int32)
    """
    extents = tuple(shape.shape) if type(shape) is Var else check_shape("index", shape)
    if isinstance(dim, (str, DType)):
        dim, dtype = None, dim
    if dim is None:
        return tuple(index(extents, k, dtype) for k in range(len(extents)))
    dim = check_dim("index", dim, len(extents))
    kind = check_dtype("index", dtype)
    sig = signature("map", "index", dim, (), spec_of(extents, kind), cast_expr(axis(dim), kind))
    return record(sig, ())


def linear_index(shape: tuple[int, ...]) -> Expr:
    """The row-major position of an element of ``shape`` as an expression over the axes."""
    position: Expr = const(0)
    for k, extent in enumerate(shape):
        position = add(mul(position, const(extent)), axis(k))
    return position


# -- checks shared by operators --------------------------------------------------------------------------------------
def check_var(operator: str, argument: str, value: Any) -> Var:
    """``value`` as a Var. Errors: ``DTypeError`` naming the operator and the argument."""
    if type(value) is Var:
        return value
    from .creation import array

    try:
        return array(value)
    except DTypeError as error:
        raise DTypeError(f"[{operator}] {argument}: {error}") from None


def whole_number(value: Any) -> int | None:
    """``value`` as a Python integer if it is one, or a Var or array of one; bool and float are none."""
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        return None
    try:
        return operator_index(value)
    except (TypeError, ValueError):  # an array that is no single integer
        return None


def check_integer(
    operator: str, argument: str, value: Any, minimum: int | None = None, limit: int | None = None
) -> int:
    """``value`` as a Python integer (a Var or array of one integer will do), at least ``minimum`` and below ``limit``.

    Errors: ``DTypeError`` if it is no integer, else ``ArgumentError``."""
    number = value if type(value) is int else whole_number(value)
    if number is None:
        wanted = "" if minimum is None else f" >= {minimum}"
        raise DTypeError(
            f"[{operator}] {argument} must be an integer, got {_brief(value)}; give a whole number{wanted}"
        )
    if not -(2**63) <= number < 2**63:
        raise ArgumentError(f"[{operator}] {argument} must fit into 64 bits, got {_brief(number)}")
    if minimum is not None and number < minimum:
        raise ArgumentError(f"[{operator}] {argument} must be >= {minimum}, got {number}")
    if limit is not None and number >= limit:
        raise ArgumentError(f"[{operator}] {argument} must be < {limit}, got {number}")
    return number


def check_number(operator: str, argument: str, value: Any) -> float:
    """``value`` as a Python number (a Var of one element will do). Errors: ``DTypeError``."""
    if isinstance(value, np.generic) or (type(value) is Var and value.size == 1):
        value = value.item()
    if not isinstance(value, (bool, int, float)):
        raise DTypeError(f"[{operator}] {argument} must be a number, got {_brief(value)}")
    if not fits_float(value):
        raise ArgumentError(f"[{operator}] {argument} is larger than any float: {_brief(value)}")
    return value


def check_fill(operator: str, argument: str, value: Any, dtype: DType) -> Any:
    """``value`` as a number for elements of ``dtype``. Errors: ``DTypeError``; ``ArgumentError`` for what no integer of that
    type can be."""
    value = check_number(operator, argument, value)
    if not dtype.is_integer:
        return value
    info = np.iinfo(dtype.numpy)
    if value != value or not info.min <= value <= info.max:
        raise ArgumentError(
            f"[{operator}] {argument} {_brief(value)} does not fit {dtype} ({info.min}..{info.max})"
        )
    return int(value)


def check_flag(operator: str, argument: str, value: Any) -> bool:
    """``value`` as a bool (``None`` is no). Errors: ``DTypeError`` for what is neither bool nor integer."""
    if value is not None and not isinstance(value, (bool, int, np.bool_)):
        raise DTypeError(f"[{operator}] {argument} must be True or False, got {_brief(value)}")
    return bool(value)


def _brief(value: Any) -> str:
    """A short text for messages; a Var is not computed for it."""
    if type(value) is Var:
        return f"a Var {value._node.spec!r}"
    return brief(value)


def check_dim(operator: str, dim: Any, ndim: int) -> int:
    """A dimension number made non-negative. Errors: ``ArgumentError`` with the legal range."""
    if type(dim) is int and 0 <= dim < ndim:
        return dim
    number = check_integer(operator, "dim", dim)
    if not -ndim <= number < ndim:
        raise ShapeError(
            f"[{operator}] dim must be in {-ndim}..{ndim - 1} for {ndim} dimensions, got {number}"
        )
    return number % ndim


def check_dtype(operator: str, dtype: Any) -> DType:
    """An element type. Errors: ``DTypeError``."""
    try:
        return as_dtype(dtype)
    except DTypeError as error:
        raise told_by(operator, error) from None


def check_integer_type(operator: str, dtype: Any) -> DType:
    """An integer element type. Errors: ``DTypeError``."""
    kind = check_dtype(operator, dtype)
    if not kind.is_integer:
        raise DTypeError(f"[{operator}] dtype must be an integer type, got {kind}; use int32 or int64")
    return kind


def check_dims(operator: str, dims: Any, ndim: int) -> tuple[int, ...]:
    """One dimension or several, non-negative and ascending; ``None`` means all. Errors: also for duplicates."""
    if dims is None or (isinstance(dims, (tuple, list)) and not dims):
        return tuple(range(ndim))
    several = dims if isinstance(dims, (tuple, list)) else (dims,)
    found = [check_dim(operator, d, ndim) for d in several]
    if len(set(found)) != len(found):
        raise ShapeError(f"[{operator}] dims must differ, got {list(several)}")
    return tuple(sorted(found))


def check_shape(operator: str, shape: Any) -> tuple[int, ...]:
    """Extents as a tuple of integers >= 0. Errors: ``ShapeError``, ``DTypeError``."""
    several = shape if isinstance(shape, (tuple, list)) else (shape,)
    extents = [check_integer(operator, "an extent", extent) for extent in several]
    if extents and min(extents) < 0:
        raise ShapeError(f"[{operator}] extents must be >= 0, got {extents}")
    if prod(extents) >= SIZE_LIMIT or (extents and max(extents) >= SIZE_LIMIT):
        raise ShapeError(f"[{operator}] extents must give fewer than 2**63 elements, got {extents}")
    return tuple(extents)


def check_reduction(operator: str, op: Any, void: bool = False) -> str:
    """The name of a reduction operator. Errors: ``ArgumentError`` with the list."""
    names = [name for name in REDUCTIONS if void or name != "void"]
    if not isinstance(op, str) or op not in names:
        raise ArgumentError(f"[{operator}] op must be one of {', '.join(names)}, got {brief(op)}")
    return str(op)
