"""What emitted reference source calls: blocks of the iteration space, reads, writes, folds, products.

What it is: the run-time half of ``reference.codegen``; every function here works on whole blocks.
What it is not: the meaning of scalar operations (``kernel.host``).
Who calls it: only source text that ``codegen.emit`` wrote, through the scope that ``SCOPE`` gives it.

A *block* is one (start, stop) per axis. ``r`` is the block of the inner level, ``o`` that of the outer level, whose inner
axes are all (0, 1). No read and no write leaves its buffer: what would is a ``KernelError``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..dtypes import DTYPES, DType
from ..errors import KernelError
from ..kernel.host import FUNCTIONS, ufunc
from ..kernel.ir import IDENTITY
from .codegen import spelling

__all__ = ["BLOCK_POINTS", "SCOPE"]

Array = np.ndarray[Any, Any]
Block = tuple[tuple[int, int], ...]
#: dimension of a contraction operand: coefficients, constant, divisor, guarded, extent, stride (see ``ir.DimIndex``)
Dim = tuple[tuple[tuple[int, int], ...], "int | None", "int | None", bool, int, int]

#: how many points one block may have: bounds the memory of temporaries to some tens of MiB each
BLOCK_POINTS = 1 << 22


def blocks(
    sizes: Sequence[int], outer: int, rank: int, groups: Sequence[tuple[int, ...]], serial: int = 0
) -> Iterator[tuple[Block, Block]]:
    """Cut the outer axes so that no group of axes has more than ``BLOCK_POINTS`` points, the last ``serial`` of them into single
    points; yields ``r, o``."""
    steps = list(sizes[:rank])
    if 0 in steps[:outer]:
        return
    steps[outer - serial : outer] = [1] * serial
    for group in groups:
        points = 1
        for k in group:
            points *= steps[k]
        for k in group:
            if points <= BLOCK_POINTS:
                break
            if k < outer:
                step = max(1, steps[k] * BLOCK_POINTS // points)
                points = points // steps[k] * step
                steps[k] = step
    inner = tuple((0, size) for size in sizes[outer:rank])
    flat = ((0, 1),) * (rank - outer)
    ranges = [
        [(start, min(start + step, size)) for start in range(0, size, step)]
        for size, step in zip(sizes[:outer], steps, strict=False)
    ]
    for head in itertools.product(*ranges):
        yield head + inner, head + flat


def axis(block: Block, number: int) -> Array:
    """The loop variable as an array that is long only along its own axis."""
    shape = [1] * len(block)
    shape[number] = -1
    return np.arange(*block[number], dtype=np.int64).reshape(shape)


def literal(value: float | int | bool, dtype: DType) -> Array:
    """A constant of exactly ``dtype``."""
    return dtype.convert(value)


# -- 16-bit floats that NumPy has not --------------------------------------------------------------------------------
def decode(bits: Array, dtype: DType) -> Array:
    """What was read from a buffer whose elements NumPy has no type for, as values."""
    return dtype.decode(bits)


def encode(value: Any, dtype: DType) -> Array:
    """What such a buffer stores."""
    return dtype.encode(value)


def scatter_encoded(
    op: str, flat: Array, offset: Any, value: Any, condition: Any, block: Block, dtype: DType
) -> None:
    """``scatter`` into such a buffer."""
    values = dtype.decode(flat)
    scatter(op, values, offset, value, condition, block)
    flat[...] = dtype.encode(values)


# -- reads ------------------------------------------------------------------------------------------------------------
def _window(flat: Array, base: Any, steps: Sequence[Any], block: Block, stretch: bool) -> Array:
    """Elements ``base + sum of step * axis`` of ``flat`` without a copy. Where a step is 0 the axis has length 1, or its
    full length if ``stretch``."""
    start, shape, strides = int(base), [], []
    for step, (low, high) in zip(steps, block, strict=True):
        start += int(step) * low
        shape.append(high - low if step or stretch else 1)
        strides.append(int(step) * flat.itemsize)
    if 0 in shape:
        return np.zeros(shape, flat.dtype)
    try:
        return np.ndarray(shape, flat.dtype, flat, start * flat.itemsize, strides)
    except ValueError:
        if _is_empty(block):
            return np.zeros(shape, flat.dtype)
        raise KernelError(
            f"[reference] an access leaves its buffer of {flat.size} elements: start {start}, steps {steps}, shape "
            f"{shape}; the sizes passed to the kernel do not fit its buffers"
        ) from None


def _is_empty(block: Block) -> bool:
    """Whether there is no point at all. What is read then, because it doesn't depend on the empty axis, is never used,
    and it need not exist."""
    return any(low == high for low, high in block)


def view(flat: Array, base: Any, steps: Sequence[Any], block: Block) -> Array:
    """An affine read, without a copy."""
    return _window(flat, base, steps, block, False)


def copy(flat: Array, base: Any, steps: Sequence[Any], block: Block) -> Array:
    """An affine read that later stores can't change."""
    return _window(flat, base, steps, block, False).copy()


def _outside(flat: Array, offset: Array) -> bool:
    return bool(offset.size and (offset.min() < 0 or offset.max() >= flat.size))


def _checked(flat: Array, offset: Array) -> Array:
    if _outside(flat, offset):
        raise KernelError(
            f"[reference] an access leaves its buffer of {flat.size} elements: offsets {offset.min()}..{offset.max()}; "
            "an index that can be out of range needs a condition"
        )
    return offset


def take(flat: Array, offset: Any, block: Block) -> Array:
    """A gathering read."""
    offset = np.asarray(offset)
    if _is_empty(block) and _outside(flat, offset):
        return np.zeros(offset.shape, flat.dtype)
    return np.asarray(flat[_checked(flat, offset)])


def take_if(flat: Array, offset: Any, condition: Any, other: Any, block: Block) -> Array:
    """A gathering read of the elements under ``condition``; elsewhere nothing is read and ``other`` stands there."""
    offset, condition = np.broadcast_arrays(offset, condition)
    if not condition.any():
        shape = np.broadcast_shapes(offset.shape, np.shape(other))
        return np.broadcast_to(np.asarray(other, flat.dtype), shape)
    inside = np.where(condition, offset, offset[condition][0])
    return np.where(condition, take(flat, inside, block), np.asarray(other, flat.dtype))


# -- writes -----------------------------------------------------------------------------------------------------------
def _extents(block: Block) -> tuple[int, ...]:
    return tuple(high - low for low, high in block)


def _spread(value: Any, block: Block) -> Array:
    """``value`` at every point of the block, one row-major list."""
    return np.broadcast_to(value, _extents(block)).reshape(-1)


def store_view(flat: Array, base: Any, steps: Sequence[Any], block: Block, value: Any) -> None:
    """An affine store."""
    if 0 not in _extents(block):
        _window(flat, base, steps, block, True)[...] = value


def store(flat: Array, offset: Any, block: Block, value: Any) -> None:
    """A store to computed offsets."""
    if 0 not in _extents(block):
        flat[_checked(flat, _spread(offset, block))] = _spread(value, block)


def scatter(op: str, flat: Array, offset: Any, value: Any, condition: Any, block: Block) -> None:
    """Fold every point into the element it addresses, in row-major order. Sums and products of small floats are carried
    in float64."""
    where, what = _spread(offset, block), _spread(value, block)
    if condition is not None:
        mask = _spread(condition, block)
        where, what = where[mask], what[mask]
    if not where.size:
        return
    _checked(flat, where)
    if op == "void":
        flat[where] = what  # NumPy assigns in order: the last one wins
        return
    carried = _carrier(op, flat.dtype)
    if carried == flat.dtype:
        ufunc(op).at(flat, where, what)
        return
    sums = flat.astype(carried)
    ufunc(op).at(sums, where, what.astype(carried))
    flat[where] = sums[where].astype(flat.dtype)


# -- folds ------------------------------------------------------------------------------------------------------------
def _carrier(op: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type in which a fold is carried."""
    if op.startswith("logical"):
        return np.dtype(bool)
    if dtype.kind == "f" and op in ("add", "multiply"):
        return np.dtype(np.float64)
    return dtype


def reduce(op: str, value: Any, block: Block, outer: int, dtype: DType) -> Array:
    """Fold over all inner axes, which keep length 1. Of no elements: the neutral element."""
    value = np.asarray(value)
    if value.ndim < len(block):
        value = value.reshape((1,) * len(block))
    value = np.broadcast_to(value, value.shape[:outer] + _extents(block)[outer:])
    carried = _carrier(op, dtype.numpy)
    if carried.kind == "b":
        value = value.astype(bool, copy=False)
    neutral = np.asarray(IDENTITY(op, dtype)).astype(carried)[()]
    axes = tuple(range(outer, len(block)))
    folded = ufunc(op).reduce(value, axis=axes, dtype=carried, initial=neutral, keepdims=True)
    return dtype.convert(folded)


# -- products ---------------------------------------------------------------------------------------------------------
def contract(
    buffers: Sequence[Array], sizes: Sequence[int], block: Block, contraction: Any, outer: int, dtype: DType
) -> Array:
    """The sum of products that an ``ir.Contraction`` describes, as matrix products; floats are carried in float64."""
    (batch, m, n, k), a, b = contraction
    extents = _extents(block)
    carried = np.dtype(np.float64) if dtype.is_float else dtype.numpy
    left = _matrices(buffers, sizes, block, a, (batch, m, k), carried)
    right = _matrices(buffers, sizes, block, b, (batch, k, n), carried)
    order = batch + m + n
    product = np.matmul(left, right).reshape([extents[axis] for axis in order])
    product = product.transpose([order.index(axis) for axis in range(outer)])
    return dtype.convert(product.reshape(product.shape + (1,) * (len(block) - outer)))


def _matrices(
    buffers: Sequence[Array],
    sizes: Sequence[int],
    block: Block,
    operand: tuple[int, Sequence[Dim]],
    roles: Sequence[tuple[int, ...]],
    carried: np.dtype[Any],
) -> Array:
    """The operand's elements as [batch, rows, columns]; ``roles`` are the axes of each."""
    order = tuple(itertools.chain(*roles))
    extents = _extents(block)
    shape = [extents[axis] for axis in order]
    if 0 in shape:
        elements = np.zeros(shape, carried)
    else:
        own = tuple(block[axis] for axis in order)
        number, dims = operand
        flat, base, steps = _plane(buffers[number], sizes, block, dims)
        elements = _window(flat, base, [steps.get(axis, 0) for axis in order], own, True)
    counts = [int(np.prod([extents[axis] for axis in role], dtype=np.int64)) for role in roles]
    return elements.astype(carried).reshape(counts)


def _plane(
    flat: Array, sizes: Sequence[int], block: Block, dims: Sequence[Dim]
) -> tuple[Array, int, dict[int, int]]:
    """A buffer in which every position of every dimension exists, and the operand's base and step per axis in it.

    That is the buffer itself, unless a dimension is divided or goes over an edge in this block. Then it is a copy of
    the part that the block can reach, with zeros for the elements that do not exist.
    """
    spans = [_span(dim, sizes, block) for dim in dims]
    if all(
        dim[2] is None and (not dim[3] or (low >= 0 and high < sizes[dim[4]]))
        for dim, (low, high) in zip(dims, spans, strict=True)
    ):
        return flat, *_steps(dims, sizes, [0] * len(dims), [sizes[dim[5]] for dim in dims])
    dense = np.zeros([high - low + 1 for low, high in spans], flat.dtype)
    start, shape, strides, places = 0, [], [], []
    for dim, (low, high) in zip(dims, spans, strict=True):
        divisor = 1 if dim[2] is None else sizes[dim[2]]
        first, last = -(-low // divisor), high // divisor  # positions after the division
        if dim[3]:
            first, last = max(first, 0), min(last, sizes[dim[4]] - 1)
        if first > last:
            return dense.reshape(-1), *_dense_steps(dense, dims, sizes, spans)
        start += first * sizes[dim[5]]
        shape.append(last - first + 1)
        strides.append(sizes[dim[5]])
        places.append(slice(first * divisor - low, last * divisor - low + 1, divisor))
    dense[tuple(places)] = _window(flat, start, strides, tuple((0, size) for size in shape), True)
    return dense.reshape(-1), *_dense_steps(dense, dims, sizes, spans)


def _span(dim: Dim, sizes: Sequence[int], block: Block) -> tuple[int, int]:
    """The lowest and highest position before the division."""
    low = high = 0 if dim[1] is None else sizes[dim[1]]
    for number, slot in dim[0]:
        ends = [sizes[slot] * block[number][0], sizes[slot] * (block[number][1] - 1)]
        low, high = low + min(ends), high + max(ends)
    return low, high


def _dense_steps(
    dense: Array, dims: Sequence[Dim], sizes: Sequence[int], spans: Sequence[tuple[int, int]]
) -> tuple[int, dict[int, int]]:
    strides = [stride // dense.itemsize for stride in dense.strides]
    return _steps(dims, sizes, [low for low, _ in spans], strides)


def _steps(
    dims: Sequence[Dim], sizes: Sequence[int], origins: Sequence[int], strides: Sequence[int]
) -> tuple[int, dict[int, int]]:
    """Base and step per axis of an operand laid out with ``strides``, whose position ``origins`` is at element 0."""
    base, steps = 0, dict[int, int]()
    for dim, origin, stride in zip(dims, origins, strides, strict=True):
        base += ((0 if dim[1] is None else sizes[dim[1]]) - origin) * stride
        for number, slot in dim[0]:
            steps[number] = steps.get(number, 0) + sizes[slot] * stride
    return base, steps


#: everything that emitted source may name
SCOPE: dict[str, Any] = {
    "__builtins__": {},
    "inf": float("inf"),
    "nan": float("nan"),
    **DTYPES,
    **{spelling(name): function for name, function in FUNCTIONS.items()},
    **{
        f.__name__: f
        for f in (
            axis,
            blocks,
            contract,
            copy,
            decode,
            encode,
            literal,
            reduce,
            scatter,
            scatter_encoded,
            store,
            store_view,
            take,
            take_if,
        )
    },
    "view": view,
}
