"""Shape operators: the same elements in another arrangement.

What it is: reshape, transpose, broadcast, slices of the reindex class that need no values to be known.
What it is not: indexing with brackets (``indexing``).
Who calls it: users through ``metafuse`` and ``Var``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..dtypes import promote
from ..errors import ArgumentError, ShapeError, brief
from ..graph.index_map import IndexMap
from ..graph.node import Node
from ..kernel.expr import add, axis, call, const, sub
from ..var import Var
from . import meta
from .autograd import no_grad
from .copy_loops import rolled
from .elementwise import broadcast_shapes, cast
from .meta import check_dim, check_integer, check_shape, check_var, expand_dims, fill, gather
from .recipe import recorded
from .registry import Sample, Tensor, operator

__all__ = ["reshape", "transpose"]

_X = Tensor((2, 3, 4))


def _flatten_arguments(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(values[0]) if len(values) == 1 and isinstance(values[0], (tuple, list)) else values


@operator(category="shape", numpy=lambda x, shape: np.reshape(x, shape), method=("reshape", "view", "origin_reshape"),
          samples=[Sample((_X, [4, 6])), Sample((_X, [-1])), Sample((_X, [2, -1, 2]))])  # fmt: skip
@recorded
def reshape(x: Any, *shape: Any) -> Var:
    """The same elements, row-major, under another shape; one extent may be -1. Nothing is copied.

    Errors:
        ShapeError: the number of elements would change.

    Example:
        >>> import metafuse as mf
        >>> mf.arange(6).reshape(2, -1).shape
        (2, 3)
    """
    x = check_var("reshape", "x", x)
    wanted = [check_integer("reshape", "an extent", n) for n in _flatten_arguments(shape)]
    size = x.numel()
    if wanted.count(-1) > 1 or any(n < -1 for n in wanted):
        raise ShapeError(f"[reshape] extents must be >= 0, with at most one -1, got {wanted}")
    known = 1
    for n in wanted:
        known *= n if n != -1 else 1
    if -1 in wanted:
        if known == 0 or size % known:
            raise ShapeError(
                f"[reshape] {list(x.shape)} ({size} elements) does not fit {wanted}; check the extents"
            )
        wanted[wanted.index(-1)] = size // known
        known = size
    if known != size:
        raise ShapeError(f"[reshape] {list(x.shape)} has {size} elements, {wanted} would have {known}")
    return meta.reshape(x, tuple(wanted) or (1,))


@operator(category="shape", numpy=lambda x, *dims: np.transpose(x, dims or None), method=(
    "transpose", "permute", "fuse_transpose", "origin_transpose"),
          samples=[Sample((_X,)), Sample((_X, 1, 2, 0)), Sample((_X, 0, 2, 1))])  # fmt: skip
@recorded
def transpose(x: Any, *dim: Any) -> Var:
    """Dimensions in another order; reversed if no order is given.

    Example:
        >>> import metafuse as mf
        >>> mf.zeros(2, 3, 4).transpose(1, 2, 0).shape
        (3, 4, 2)
    """
    x = check_var("transpose", "x", x)
    order = _flatten_arguments(dim) or tuple(range(x.ndim))[::-1]
    found = tuple(check_dim("transpose", d, x.ndim) for d in order)
    if len(order) == 2 and x.ndim > 2:  # two dimensions given: exchange them
        swapped = list(range(x.ndim))
        a, b = found
        swapped[a], swapped[b] = b, a
        found = tuple(swapped)
    if sorted(found) != list(range(x.ndim)):
        raise ShapeError(f"[transpose] dims must name each of {x.ndim} dimensions once, got {list(order)}")
    if found == tuple(range(x.ndim)):
        return x
    shape = tuple(x.shape[d] for d in found)
    return gather(x, shape, _order(found), (), "transpose")


@lru_cache(maxsize=1024)
def _order(dims: tuple[int, ...]) -> IndexMap:
    return IndexMap(tuple(axis(dims.index(d)) for d in range(len(dims))))


def _broadcast_oracle(x: Any, shape: Any, dims: Any = ()) -> Any:
    shape = np.shape(shape) if isinstance(shape, np.ndarray) else shape
    return np.broadcast_to(np.expand_dims(x, dims) if dims else x, shape)


@operator(category="shape", numpy=_broadcast_oracle, method=True,
          samples=[Sample((Tensor((3, 1)), [2, 3, 4])), Sample((Tensor((3, 2)), [3, 4, 2], (1,))),
                   Sample((Tensor((2,)), Tensor((3, 2), "int32")))])  # fmt: skip
def broadcast(x: Any, shape: Any, dims: Sequence[int] = ()) -> Var:
    """Repeat ``x`` to ``shape``.

    Args:
        shape: extents, or a Var whose shape is taken.
        dims: dimensions of the result that ``x`` lacks; without them dimensions are aligned from the right.

    Errors:
        ShapeError: ``x`` does not fit.

    Example:
        >>> import metafuse as mf
        >>> mf.array([1.0, 2.0]).broadcast([2, 3], [1]).numpy()
        array([[1., 1., 1.],
               [2., 2., 2.]], dtype=float32)
    """
    x = check_var("broadcast", "x", x)
    target = tuple(shape.shape) if type(shape) is Var else check_shape("broadcast", shape)
    numbers = [
        check_dim("broadcast", d, len(target)) for d in (dims if isinstance(dims, (tuple, list)) else (dims,))
    ]
    if len(set(numbers)) != len(numbers):
        raise ShapeError(f"[broadcast] dims must differ, got {brief(dims)}")
    if numbers:
        if max(numbers) >= x.ndim + len(numbers):
            raise ShapeError(
                f"[broadcast] dims {brief(dims)} of {list(target)} leave places for more dimensions than {list(x.shape)} has"
            )
        x = expand_dims(x, numbers)
    if x.ndim > len(target) or broadcast_shapes("broadcast", [tuple(x.shape), target]) != target:
        raise ShapeError(f"[broadcast] {list(x.shape)} does not broadcast to {list(target)}")
    return meta.broadcast_to(x, target)


@operator(category="shape", numpy=lambda x, shape: np.broadcast_to(x, shape), method=True,
          samples=[Sample((Tensor((3, 1)), [2, 3, 4])), Sample((Tensor((3,)), [2, 3]))])  # fmt: skip
@recorded
def expand(x: Any, *shape: Any) -> Var:
    """Repeat dimensions of extent 1 to ``shape``; -1 keeps an extent.

    Example:
        >>> import metafuse as mf
        >>> mf.ones(3, 1).expand(3, 4).shape, mf.ones(3, 1).expand(-1, 4).shape
        ((3, 4), (3, 4))
    """
    x = check_var("expand", "x", x)
    wanted = [check_integer("expand", "an extent", n) for n in _flatten_arguments(shape)]
    skip = len(wanted) - x.ndim
    return broadcast(x, [x.shape[k - skip] if n == -1 and k >= skip else n for k, n in enumerate(wanted)])


@operator(category="shape", numpy=lambda x, dim: np.expand_dims(x, dim), method=("unsqueeze", "expand_dims"),
          samples=[Sample((_X, 0)), Sample((_X, -1))])  # fmt: skip
def unsqueeze(x: Any, dim: int) -> Var:
    """A dimension of extent 1 put in at ``dim``.

    Example:
        >>> import metafuse as mf
        >>> mf.ones(2).unsqueeze(1).shape
        (2, 1)
    """
    x = check_var("unsqueeze", "x", x)
    return expand_dims(x, [check_dim("unsqueeze", dim, x.ndim + 1)])


@operator(category="shape", numpy=lambda x, dim=None: np.squeeze(x, dim), method=True,
          samples=[Sample((Tensor((2, 1, 3)), 1)), Sample((Tensor((2, 1, 3)),))])  # fmt: skip
def squeeze(x: Any, dim: int | None = None) -> Var:
    """Without dimension ``dim``, which must have extent 1; without ``dim``: without all such dimensions.

    Example:
        >>> import metafuse as mf
        >>> mf.ones(2, 1).squeeze(1).shape
        (2,)
    """
    x = check_var("squeeze", "x", x)
    if dim is None:
        return meta.reshape(x, tuple(n for n in x.shape if n != 1) or (1,))
    number = check_dim("squeeze", dim, x.ndim)
    if x.shape[number] != 1:
        raise ShapeError(
            f"[squeeze] dimension {dim} must have extent 1, got {x.shape[number]} in {list(x.shape)}"
        )
    return meta.reshape(x, tuple(n for k, n in enumerate(x.shape) if k != number) or (1,))


@operator(category="shape", numpy=lambda x, start_dim=0, end_dim=-1: x.reshape(
    *x.shape[:start_dim], -1, *x.shape[end_dim:][1:]), method=("flatten", "ravel"),
    samples=[Sample((_X,)), Sample((_X, 1)), Sample((Tensor((2, 1, 4)), 0, 1)), Sample((Tensor((1,)),))])  # fmt: skip
def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Var:
    """Dimensions ``start_dim`` to ``end_dim`` joined into one.

    Example:
        >>> import metafuse as mf
        >>> mf.zeros(2, 3, 4).flatten(1).shape
        (2, 12)
    """
    x = check_var("flatten", "input", input)
    first, last = check_dim("flatten", start_dim, x.ndim), check_dim("flatten", end_dim, x.ndim)
    if first > last:
        raise ArgumentError(f"[flatten] start_dim must not come after end_dim, got {start_dim} and {end_dim}")
    size = 1
    for n in x.shape[first : last + 1]:
        size *= n
    return meta.reshape(x, (*x.shape[:first], size, *x.shape[last + 1 :]))


def _joined(operator_name: str, arrays: Any) -> list[Var]:
    if not isinstance(arrays, (tuple, list)) or not arrays:
        raise ArgumentError(f"[{operator_name}] needs a list of at least one array, got {brief(arrays)}")
    found = [check_var(operator_name, f"arrays[{k}]", a) for k, a in enumerate(arrays)]
    common = found[0].dtype
    for a in found:
        common = promote(common, a.dtype)
    return [cast(a, common) for a in found]


@operator(category="shape", numpy=lambda arrays, dim=0: np.concatenate(arrays, dim), name="concat",
          samples=[Sample(([_X, Tensor((1, 3, 4))],)), Sample(([_X, Tensor((2, 2, 4)), _X], 1)),
                   Sample(([_X, Tensor((0, 3, 4))],)), Sample(([_X],))])  # fmt: skip
@recorded
def concat(arrays: Sequence[Any], dim: int = 0) -> Var:
    """Arrays one after the other along ``dim``; the other extents must agree.

    Example:
        >>> import metafuse as mf
        >>> mf.concat([mf.ones(1, 2), mf.zeros(2, 2)]).shape
        (3, 2)
    """
    found = _joined("concat", arrays)
    number = check_dim("concat", dim, found[0].ndim)
    for k, a in enumerate(found):
        if a.ndim != found[0].ndim or any(
            d != number and n != found[0].shape[d] for d, n in enumerate(a.shape)
        ):
            raise ShapeError(
                f"[concat] arrays[{k}] has shape {list(a.shape)}, arrays[0] {list(found[0].shape)}; "
                f"they may differ in dimension {number} only"
            )
    found = [a for a in found if a.shape[number]] or found[:1]
    if len(found) == 1:
        return meta.identity(found[0])
    total = sum(a.shape[number] for a in found)
    shape = tuple(total if d == number else n for d, n in enumerate(found[0].shape))
    result = fill(shape, 0, found[0].dtype)
    start = 0
    for a in found:
        places = tuple(add(axis(d), const(start)) if d == number else axis(d) for d in range(a.ndim))
        result = meta.scatter(result, "void", a, IndexMap(places), (), "concat")
        start += a.shape[number]
    return result


@operator(category="shape", numpy=lambda x, dim=0: np.stack(list(x), dim), method=True,
          samples=[Sample(([_X, _X],)), Sample(([_X, _X, _X], 2)), Sample(([Tensor((0,))], -1))])  # fmt: skip
@recorded
def stack(x: Any, dim: int = 0) -> Var:
    """Arrays of one shape (a list, or the rows of a Var) side by side along a new dimension ``dim``.

    Example:
        >>> import metafuse as mf
        >>> mf.stack([mf.ones(2), mf.zeros(2)], 1).numpy()
        array([[1., 0.],
               [1., 0.]], dtype=float32)
    """
    found = _joined("stack", list(x) if type(x) is Var else x)
    for k, a in enumerate(found):
        if a.shape != found[0].shape:
            raise ShapeError(
                f"[stack] arrays[{k}] has shape {list(a.shape)}, arrays[0] {list(found[0].shape)}; make them equal"
            )
    number = check_dim("stack", dim, found[0].ndim + 1)
    return concat([unsqueeze(a, number) for a in found], number)


@operator(category="shape", numpy=lambda x, dim=0: np.flip(x, dim), method=True,
          samples=[Sample((_X, 0)), Sample((_X, [0, 2]))])  # fmt: skip
@recorded
def flip(x: Any, dim: Any = 0) -> Var:
    """Elements in reverse order along ``dim``.

    Example:
        >>> import metafuse as mf
        >>> mf.array([1, 2, 3]).flip().tolist()
        [3, 2, 1]
    """
    x = check_var("flip", "x", x)
    dims = meta.check_dims("flip", dim, x.ndim)
    return gather(x, tuple(x.shape), _mirror(tuple(x.shape), dims), (), "flip")


@lru_cache(maxsize=1024)
def _mirror(shape: tuple[int, ...], dims: tuple[int, ...]) -> IndexMap:
    return IndexMap(tuple(sub(const(n - 1), axis(d)) if d in dims else axis(d) for d, n in enumerate(shape)))


@operator(category="shape", numpy=lambda x, shifts, dims=None: np.roll(x, shifts, dims), method=True,
          samples=[Sample((_X, 1, 0)), Sample((_X, -2, 2)), Sample((_X, 5)), Sample((_X, [1, -1], [0, 2])),
                   Sample((Tensor((3, 0)), 2, 1))])  # fmt: skip
@recorded
def roll(x: Any, shifts: Any, dims: Any = None) -> Var:
    """Elements moved by ``shifts`` along ``dims``, those that leave re-enter on the other side.

    Args:
        shifts: an integer, or one per dimension.
        dims: a dimension or several; ``None``: the array is rolled as if it were flat.

    Example:
        >>> import metafuse as mf
        >>> mf.roll(mf.arange(4), 1).numpy()
        array([3, 0, 1, 2], dtype=int32)
    """
    x = check_var("roll", "x", x)
    if dims is None:
        return meta.reshape(roll(meta.reshape(x, (x.numel(),)), shifts, 0), tuple(x.shape))
    numbers = [check_dim("roll", d, x.ndim) for d in (dims if isinstance(dims, (tuple, list)) else (dims,))]
    amounts = [
        check_integer("roll", "shifts", n)
        for n in (shifts if isinstance(shifts, (tuple, list)) else (shifts,))
    ]
    if len(amounts) != len(numbers):
        raise ArgumentError(f"[roll] shifts and dims must be as many, got {brief(shifts)} and {brief(dims)}")
    moves = [0] * x.ndim
    for number, amount in zip(numbers, amounts, strict=True):
        moves[number] = (moves[number] + amount) % max(x.shape[number], 1)
    if not any(moves):
        return meta.identity(x)
    with no_grad():
        answer = _rolled_index(x, moves) if x.size < _FEW else rolled(x, moves)
    return meta.with_gradient(answer, [x], "roll", tuple(moves), _roll_rule) if x.dtype.is_float else answer


#: elements up to which an index, which joins what is around it in one kernel, beats copies
_FEW = 2**14


def _rolled_index(x: Var, moves: Sequence[int]) -> Var:
    places = [
        call("cmod", add(axis(d), const(n - by)), const(n)) if by else axis(d)
        for d, (n, by) in enumerate(zip(x.shape, moves, strict=True))
    ]
    return gather(x, tuple(x.shape), IndexMap(tuple(places)), (), "roll")


def _roll_rule(node: Node, upstream: Var) -> list[Var | None]:
    return [None, roll(upstream, [-by for by in node.sig.attrs], list(range(upstream.ndim)))]


def _split_oracle(x: Any, size: Any, dim: int = 0) -> Any:
    steps = list(np.cumsum(size)[:-1]) if isinstance(size, list) else range(size, x.shape[dim], size)
    return tuple(np.split(x, steps, dim))


@operator(category="shape", numpy=_split_oracle, method=True, rebinds=False,
          samples=[Sample((_X, 2, 2)), Sample((_X, [1, 0, 2], 1)), Sample((_X, 5))])  # fmt: skip
def split(d: Any, split_size: Any, dim: int = 0) -> tuple[Var, ...]:
    """Pieces of extent ``split_size`` (or of the extents listed in it) along ``dim``; the last piece may be smaller.

    Example:
        >>> import metafuse as mf
        >>> [p.shape[0] for p in mf.split(mf.arange(5), 2)]
        [2, 2, 1]
    """
    x = check_var("split", "d", d)
    number = check_dim("split", dim, x.ndim)
    extent = x.shape[number]
    if isinstance(split_size, (tuple, list)):
        sizes = check_shape("split", split_size)
        total = sum(sizes)
        if total != extent:
            raise ShapeError(f"[split] sizes {list(sizes)} sum to {total}, the extent is {extent}")
    else:
        size = check_integer("split", "split_size", split_size, 1)
        check_pieces("split", -(-extent // size))
        sizes = tuple(min(size, extent - start) for start in range(0, extent, size)) or (0,)
    pieces, start = [], 0
    for n in sizes:
        pieces.append(narrow(x, number, start, n, "split"))
        start += n
    return tuple(pieces)


#: each piece is a value of its own, recorded when the function is called
MOST_PIECES = 2**20


def check_pieces(operator_name: str, count: int) -> None:
    """Errors: ``ArgumentError`` for more pieces than anybody can mean."""
    if count > MOST_PIECES:
        raise ArgumentError(f"[{operator_name}] gives at most {MOST_PIECES} pieces, these would be {count}")


def narrow(x: Var, dim: int, start: int, count: int, name: str) -> Var:
    """``count`` places of ``x`` from ``start`` along ``dim`` (already checked)."""
    places = tuple(add(axis(d), const(start)) if d == dim else axis(d) for d in range(x.ndim))
    shape = tuple(count if d == dim else n for d, n in enumerate(x.shape))
    return gather(x, shape, IndexMap(places), (), name)
