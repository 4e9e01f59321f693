"""The same elements in another arrangement: repeated, swapped, cut.

What it is: compositions of reindex and broadcast; their gradients follow.
What it is not: the basic ones, reshape and transpose (``shape``), or diagonals (``diagonals``).
Who calls it: users through ``metafuse`` and ``Var``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, prod
from typing import Any

import numpy as np

from ..errors import ArgumentError, ShapeError, brief
from ..graph.node import Node
from ..var import Var
from . import meta
from .autograd import no_grad
from .copy_loops import repeated
from .creation import array
from .meta import (
    check_dim,
    check_integer,
    check_shape,
    check_var,
    identity,
    reduce_dims,
    reshape,
    with_gradient,
)
from .registry import Sample, Tensor, operator
from .selection import check_index, index_select
from .shape import broadcast, check_pieces, concat, flip, narrow, split, transpose
from .telling import tells

__all__ = [
    "chunk", "dstack", "expand_as", "hstack", "meshgrid", "movedim", "repeat", "repeat_interleave", "rot90", "swapaxes", "t",
    "tile", "unbind", "view_as", "vstack",
]  # fmt: skip

_X = Tensor((2, 3, 4))
_MATRIX = Tensor((3, 4))


# -- order of dimensions ------------------------------------------------------------------------------------------
@operator(category="shape", numpy=np.swapaxes, method=("swapaxes", "swapdims"), source="NumPy swapaxes",
          samples=[Sample((_X, 0, 2)), Sample((_X, 1, -1))])  # fmt: skip
def swapaxes(x: Any, dim0: int, dim1: int) -> Var:
    """Two dimensions exchanged.

    Example:
        >>> import metafuse as mf
        >>> mf.zeros(2, 3, 4).swapaxes(0, 2).shape
        (4, 3, 2)
    """
    x = check_var("swapaxes", "x", x)
    a, b = check_dim("swapaxes", dim0, x.ndim), check_dim("swapaxes", dim1, x.ndim)
    order = list(range(x.ndim))
    order[a], order[b] = b, a
    return transpose(x, order)


@operator(category="shape", numpy=np.moveaxis, method=("movedim", "moveaxis"), source="NumPy moveaxis",
          samples=[Sample((_X, 0, -1)), Sample((_X, [0, 1], [2, 0]))])  # fmt: skip
def movedim(x: Any, source: Any, destination: Any) -> Var:
    """Dimensions ``source`` moved to ``destination``, the others keep their order.

    Example:
        >>> import metafuse as mf
        >>> mf.zeros(2, 3, 4).movedim(0, -1).shape
        (3, 4, 2)
    """
    x = check_var("movedim", "x", x)
    pairs = [[check_dim("movedim", d, x.ndim) for d in _several(v)] for v in (source, destination)]
    if len(pairs[0]) != len(pairs[1]) or any(len(set(p)) != len(p) for p in pairs):
        raise ShapeError(
            f"[movedim] source and destination must be as many, each different, got {brief(source)} and {brief(destination)}"
        )
    goes = dict(zip(pairs[1], pairs[0]))
    rest = iter([d for d in range(x.ndim) if d not in pairs[0]])
    return transpose(x, [goes[d] if d in goes else next(rest) for d in range(x.ndim)])


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (tuple, list)) else (value,)


@operator(category="shape", numpy=lambda x: np.swapaxes(x, -1, -2) if x.ndim > 1 else x, method=True,
          samples=[Sample((_MATRIX,)), Sample((_X,)), Sample((Tensor((3,)),))])  # fmt: skip
def t(x: Any) -> Var:
    """The last two dimensions exchanged.

    Example:
        >>> import metafuse as mf
        >>> mf.zeros(2, 3).t().shape
        (3, 2)
    """
    x = check_var("t", "x", x)
    return swapaxes(x, -1, -2) if x.ndim > 1 else x


@operator(category="shape", numpy=lambda x, k=1, dims=(0, 1): np.rot90(x, k, dims), method=True, source="NumPy rot90",
          samples=[Sample((_MATRIX,)), Sample((_MATRIX, 2)), Sample((_X, -1, [1, 2])), Sample((_X, 4, [0, 2]))])  # fmt: skip
def rot90(x: Any, k: int = 1, dims: Sequence[int] = (0, 1)) -> Var:
    """Turned by ``k`` quarters in the plane of two dimensions, from the first towards the second.

    Example:
        >>> import metafuse as mf
        >>> mf.rot90(mf.array([[1, 2], [3, 4]])).numpy()
        array([[2, 4],
               [1, 3]], dtype=int32)
    """
    x = check_var("rot90", "x", x)
    turns = check_integer("rot90", "k", k) % 4
    pair = [check_dim("rot90", d, x.ndim) for d in _several(dims)]
    if len(pair) != 2 or pair[0] == pair[1]:
        raise ShapeError(f"[rot90] dims must be two different dimensions, got {brief(dims)}")
    a, b = pair
    if turns == 2:
        return flip(x, [a, b])
    if turns == 1:
        return swapaxes(flip(x, b), a, b)
    return flip(swapaxes(x, a, b), b) if turns == 3 else identity(x)


# -- as another Var -------------------------------------------------------------------------------------------------
@operator(category="shape", numpy=lambda x, y: x.reshape(y.shape), method=True,
          samples=[Sample((_X, Tensor((4, 6))))])  # fmt: skip
@tells
def view_as(x: Any, y: Any) -> Var:
    """``x`` under the shape of ``y``.

    Example:
        >>> import metafuse as mf
        >>> mf.arange(4).view_as(mf.zeros(2, 2)).shape
        (2, 2)
    """
    from .shape import reshape as checked

    return checked(check_var("view_as", "x", x), list(check_var("view_as", "y", y).shape))


def _expand_as_oracle(x: Any, y: Any, dims: Any = ()) -> Any:
    return np.broadcast_to(np.expand_dims(x, tuple(dims)), y.shape)


@operator(category="shape", numpy=_expand_as_oracle, method=("expand_as", "broadcast_var"),
          samples=[Sample((Tensor((3, 1)), _X)), Sample((Tensor((2, 4)), _X, [1]))])  # fmt: skip
def expand_as(x: Any, y: Any, dims: Sequence[int] = ()) -> Var:
    """``x`` repeated to the shape of ``y``; ``dims`` names dimensions of ``y`` that ``x`` lacks.

    Example:
        >>> import metafuse as mf
        >>> mf.ones(3).expand_as(mf.zeros(2, 3)).shape
        (2, 3)
    """
    return broadcast(check_var("expand_as", "x", x), check_var("expand_as", "y", y), dims)


# -- pieces ---------------------------------------------------------------------------------------------------------
@operator(category="shape", numpy=lambda x, dim=0: tuple(np.moveaxis(x, dim, 0)), method=True, rebinds=False,
          samples=[Sample((_X,)), Sample((_X, -1))])  # fmt: skip
def unbind(x: Any, dim: int = 0) -> tuple[Var, ...]:
    """The slices along ``dim``, without that dimension.

    Example:
        >>> import metafuse as mf
        >>> [v.shape for v in mf.zeros(2, 3).unbind()]
        [(3,), (3,)]
    """
    x = check_var("unbind", "x", x)
    number = check_dim("unbind", dim, x.ndim)
    check_pieces("unbind", x.shape[number])
    rest = tuple(n for d, n in enumerate(x.shape) if d != number) or (1,)
    return tuple(reshape(narrow(x, number, k, 1, "unbind"), rest) for k in range(x.shape[number]))


def _chunk_oracle(x: Any, chunks: int, dim: int = 0) -> Any:
    size = max(ceil(x.shape[dim] / chunks), 1)
    return tuple(np.split(x, range(size, x.shape[dim], size), dim))


@operator(category="shape", numpy=_chunk_oracle, method=True, rebinds=False,
          samples=[Sample((_X, 2, 1)), Sample((_X, 3, 2)), Sample((_X, 5)), Sample((Tensor((0, 2)), 2))])  # fmt: skip
def chunk(x: Any, chunks: int, dim: int = 0) -> tuple[Var, ...]:
    """At most ``chunks`` pieces of one extent along ``dim``; the last may be smaller.

    Example:
        >>> import metafuse as mf
        >>> [p.shape[0] for p in mf.arange(5).chunk(3)]
        [2, 2, 1]
    """
    x = check_var("chunk", "x", x)
    count = check_integer("chunk", "chunks", chunks, 1)
    number = check_dim("chunk", dim, x.ndim)
    return split(x, max(ceil(x.shape[number] / count), 1), number)


# -- joined ----------------------------------------------------------------------------------------------------------
def _at_least(
    operator_name: str, arrays: Any, shape: Callable[[tuple[int, ...]], tuple[int, ...]]
) -> list[Var]:
    """A list of arrays, each under the shape that ``shape`` makes of its own."""
    if not isinstance(arrays, (tuple, list)) or not arrays:
        given = "an empty one" if isinstance(arrays, (tuple, list)) else type(arrays).__name__
        raise ArgumentError(f"[{operator_name}] needs a list of at least one array, got {given}")
    found = [check_var(operator_name, f"arrays[{k}]", a) for k, a in enumerate(arrays)]
    return [reshape(a, shape(tuple(a.shape))) for a in found]


def _agree(operator_name: str, arrays: list[Var], dim: int) -> Var:
    """Arrays one after the other along ``dim``, with the caller's name in the message where they do not fit."""
    first = [n for d, n in enumerate(arrays[0].shape) if d != dim]
    for k, a in enumerate(arrays):
        if a.ndim != arrays[0].ndim or [n for d, n in enumerate(a.shape) if d != dim] != first:
            raise ShapeError(
                f"[{operator_name}] arrays[{k}] counts as {list(a.shape)}, arrays[0] as {list(arrays[0].shape)}; "
                f"they may differ in dimension {dim} only"
            )
    return concat(arrays, dim)


@operator(category="shape", numpy=np.vstack, source="NumPy vstack",
          samples=[Sample(([_MATRIX, Tensor((2, 4))],)), Sample(([Tensor((3,)), Tensor((3,))],)),
                   Sample(([Tensor((3,)), Tensor((2, 3)), Tensor((0, 3))],)), Sample(([_X, _X],))])  # fmt: skip
def vstack(arrays: Sequence[Any]) -> Var:
    """Arrays one below the other: along dimension 0; a vector ``[n]`` counts as the row ``[1, n]``.

    Args:
        arrays: list of at least one array; the extents of all dimensions but 0 must agree.

    Example:
        >>> import metafuse as mf
        >>> mf.vstack([mf.array([1, 2]), mf.array([[3, 4], [5, 6]])]).tolist()
        [[1, 2], [3, 4], [5, 6]]
    """
    rows = _at_least("vstack", arrays, lambda s: s if len(s) > 1 else (1, *(s or (1,))))
    return _agree("vstack", rows, 0)


@operator(category="shape", numpy=np.hstack, source="NumPy hstack",
          samples=[Sample(([_MATRIX, Tensor((3, 2))],)), Sample(([Tensor((3,)), Tensor((2,))],)),
                   Sample(([_X, Tensor((2, 1, 4)), _X],))])  # fmt: skip
def hstack(arrays: Sequence[Any]) -> Var:
    """Arrays side by side: along dimension 1; vectors one after the other.

    Args:
        arrays: list of at least one array; the extents of the other dimensions must agree.

    Example:
        >>> import metafuse as mf
        >>> mf.hstack([mf.array([1, 2]), mf.array([3])]).tolist()
        [1, 2, 3]
    """
    pieces = _at_least("hstack", arrays, lambda s: s or (1,))
    return _agree("hstack", pieces, 0 if pieces[0].ndim == 1 else 1)


@operator(category="shape", numpy=np.dstack, source="NumPy dstack",
          samples=[Sample(([_X, Tensor((2, 3, 1))],)), Sample(([_MATRIX, _MATRIX],)),
                   Sample(([Tensor((3,)), Tensor((3,))],))])  # fmt: skip
def dstack(arrays: Sequence[Any]) -> Var:
    """Arrays one behind the other: along dimension 2; ``[m, n]`` counts as ``[m, n, 1]`` and ``[n]`` as ``[1, n, 1]``.

    Args:
        arrays: list of at least one array; the extents of the other dimensions must agree.

    Example:
        >>> import metafuse as mf
        >>> mf.dstack([mf.array([1, 2]), mf.array([3, 4])]).tolist()
        [[[1, 3], [2, 4]]]
    """
    layers = _at_least(
        "dstack", arrays, lambda s: s if len(s) > 2 else (*s, 1) if len(s) == 2 else (1, *(s or (1,)), 1)
    )
    return _agree("dstack", layers, 2)


# -- repetition -----------------------------------------------------------------------------------------------------
def _repeats(operator_name: str, x: Var, counts: Sequence[int]) -> Var:
    """Each dimension ``counts[d]`` times over; a broadcast, so that the gradient is a sum."""
    lead = len(counts) - x.ndim
    shape = (1,) * lead + tuple(x.shape)
    apart = tuple(n for m in shape for n in (1, m))
    spread = tuple(n for c, m in zip(counts, shape) for n in (c, m))
    result = check_shape(operator_name, [c * m for c, m in zip(counts, shape)])
    return reshape(meta.broadcast_to(reshape(x, apart), spread), result)


@operator(category="shape", numpy=lambda x, *shape: np.tile(x, shape[0] if isinstance(shape[0], list) else shape), method=True,
          source="NumPy tile", samples=[Sample((_MATRIX, 2, 3)), Sample((_MATRIX, [2, 1, 3])), Sample((Tensor((3,)), 0)),
                                        Sample((Tensor((1,)), 2, 2))])  # fmt: skip
def repeat(x: Any, *shape: Any) -> Var:
    """The whole array ``shape[d]`` times over in each dimension; there must be a count for every dimension, more make new ones.

    Example:
        >>> import metafuse as mf
        >>> mf.array([1, 2]).repeat(2, 2).numpy()
        array([[1, 2, 1, 2],
               [1, 2, 1, 2]], dtype=int32)
    """
    x = check_var("repeat", "x", x)
    counts = check_shape(
        "repeat", shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    )
    if len(counts) < x.ndim:
        raise ShapeError(
            f"[repeat] needs a count for each of {x.ndim} dimensions of {list(x.shape)}, got {list(counts)}"
        )
    return _repeats("repeat", x, counts)


@operator(category="shape", numpy=lambda x, reps: np.tile(x, reps), method=True, source="NumPy tile",
          samples=[Sample((_MATRIX, 2)), Sample((_MATRIX, [2, 1])), Sample((Tensor((3,)), [2, 2]))])  # fmt: skip
def tile(x: Any, reps: Any) -> Var:
    """As ``repeat``; missing counts are 1.

    Example:
        >>> import metafuse as mf
        >>> mf.array([[1, 2]]).tile(2).numpy()
        array([[1, 2, 1, 2]], dtype=int32)
    """
    x = check_var("tile", "x", x)
    counts = check_shape("tile", reps)
    return _repeats("tile", x, (1,) * (x.ndim - len(counts)) + counts)


def _repeat_interleave_oracle(x: Any, repeats: Any, dim: Any = None) -> Any:
    return np.repeat(x, repeats, dim)


@operator(category="shape", numpy=_repeat_interleave_oracle, method=True, source="NumPy repeat",
          samples=[Sample((_MATRIX, 2)), Sample((_MATRIX, 3, 1)), Sample((_MATRIX, Tensor((3,), "int32", 0, 3), 0)),
                   Sample((_MATRIX, 0, 0))])  # fmt: skip
def repeat_interleave(x: Any, repeats: Any, dim: int | None = None) -> Var:
    """Each element (slice along ``dim``) ``repeats`` times in a row; without ``dim`` the array is taken as flat.

    Args:
        repeats: an integer, or one per slice: a list or a Var, which is then computed now.

    Example:
        >>> import metafuse as mf
        >>> mf.array([1, 2]).repeat_interleave(2).numpy()
        array([1, 1, 2, 2], dtype=int32)
    """
    x = check_var("repeat_interleave", "x", x)
    if dim is None:
        x = reshape(x, (x.numel(),))
    number = check_dim("repeat_interleave", 0 if dim is None else dim, x.ndim)
    extent = x.shape[number]
    if isinstance(repeats, (Var, list, tuple, np.ndarray)):
        counts = check_index("repeat_interleave", "repeats", repeats).numpy()
        if counts.shape not in ((1,), (extent,)) or (counts < 0).any():
            raise ArgumentError(
                f"[repeat_interleave] repeats must be {extent} integers >= 0, got shape {list(counts.shape)}"
                + (f" with {counts.min()}" if counts.size else "")
            )
        if counts.shape != (1,) or extent == 1:
            return index_select(x, number, array(np.repeat(np.arange(extent, dtype=np.int32), counts)))
        repeats = int(counts[0])
    count = check_integer("repeat_interleave", "repeats", repeats, 0)
    shape = tuple(x.shape)
    joined = check_shape("repeat_interleave", [*shape[:number], extent * count, *shape[number + 1 :]])
    outer, inner = prod(shape[: number + 1]), prod(shape[number + 1 :])
    if prod(joined) < _FEW or (count if inner == 1 else inner) >= _LONG:
        return reshape(meta.broadcast_to(reshape(x, (outer, 1, inner)), (outer, count, inner)), joined)
    with no_grad():
        answer = reshape(repeated(reshape(x, (outer, inner)), count), joined)
    return (
        with_gradient(answer, [x], "repeat", (outer, count, inner), _repeat_rule)
        if x.dtype.is_float
        else answer
    )


#: elements up to which what is around joins in one kernel, and from which on runs of equal elements or of rows are long enough
_FEW, _LONG = 2**16, 32


def _repeat_rule(node: Node, upstream: Var) -> list[Var | None]:
    return [
        None,
        reshape(reduce_dims(reshape(upstream, node.sig.attrs), "add", (1,)), node.inputs[1].spec.shape),
    ]


# -- grids ---------------------------------------------------------------------------------------------------------
@operator(category="shape", numpy=lambda *tensors: tuple(np.meshgrid(*tensors, indexing="ij")), differentiable=True,
          source="NumPy meshgrid", samples=[Sample((Tensor((3,)), Tensor((2,)))), Sample((Tensor((1,)),))])  # fmt: skip
def meshgrid(*tensors: Any) -> tuple[Var, ...]:
    """The grid that vectors span: one array per vector, of the shape of all extents, in their order.

    Example:
        >>> import metafuse as mf
        >>> [g.tolist() for g in mf.meshgrid(mf.array([1, 2]), mf.array([3, 4]))]
        [[[1, 1], [2, 2]], [[3, 4], [3, 4]]]
    """
    if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
        tensors = tuple(tensors[0])
    found = [check_var("meshgrid", f"tensors[{k}]", v) for k, v in enumerate(tensors)]
    if not found or any(v.ndim != 1 for v in found):
        raise ShapeError(f"[meshgrid] tensors must be vectors, got shapes {[list(v.shape) for v in found]}")
    shape = tuple(v.shape[0] for v in found)
    lone = [tuple(n if d == k else 1 for d in range(len(shape))) for k, n in enumerate(shape)]
    return tuple(meta.broadcast_to(reshape(v, s), shape) for v, s in zip(found, lone))
