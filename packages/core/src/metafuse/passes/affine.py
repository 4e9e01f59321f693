"""Offsets as sums: row-major strides and the affine form of index expressions.

What it is: small helpers on offsets that several passes share.
What it is not: the index language (``index``), from which it takes the affine form.
Who calls it: every pass that looks into index expressions.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ..index import as_affine
from ..index.simplify import Affine
from ..kernel.expr import Expr, add, axis, call, const, mul, rewrite

__all__ = [
    "Affine",
    "as_affine",
    "canonical_loads",
    "expression",
    "offset",
    "ordered",
    "reshaped",
    "reindexed",
    "row_major",
    "shared_dims",
]


def ordered(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of a dense array whose dimensions lie in memory in ``order``, slowest first."""
    strides = [0] * len(shape)
    step = 1
    for d in reversed(order):
        strides[d] = step
        step *= shape[d]
    return tuple(strides)


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a contiguous array, in elements."""
    return ordered(shape, range(len(shape)))


def reshaped(shape: Sequence[int], strides: Sequence[int], target: Sequence[int]) -> tuple[int, ...] | None:
    """Strides under which an array of ``shape`` and ``strides`` is one of shape ``target``, or ``None`` if there are none."""
    old = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    new = [(d, n) for d, n in enumerate(target) if n != 1]
    result = [1] * len(target)
    i = j = 0
    while i < len(old) and j < len(new):
        first_old, first_new = i, j
        have, want = old[i][0], new[j][1]
        while have != want:
            if have < want:
                i += 1
                if i == len(old):
                    return None
                have *= old[i][0]
            else:
                j += 1
                if j == len(new):
                    return None
                want *= new[j][1]
        for k in range(first_old, i):  # dimensions that become one must follow each other in memory
            if old[k][1] != old[k + 1][1] * old[k + 1][0]:
                return None
        step = old[i][1]
        for d, n in reversed(new[first_new : j + 1]):
            result[d] = step
            step *= n
        i, j = i + 1, j + 1
    return tuple(result) if i == len(old) and j == len(new) else None


def shared_dims(shape: Sequence[int], other: Sequence[int]) -> list[tuple[range, range]] | None:
    """Dimensions of two shapes of the same elements that belong together, one of ``shape`` to several of ``other`` or the other
    way round; ``None`` where several belong to several. A dimension of extent 1 stands with what comes before it."""
    found: list[tuple[range, range]] = []
    i = j = 0
    while i < len(shape) and j < len(other):
        first_i, first_j = i, j
        have, want = shape[i], other[j]
        i, j = i + 1, j + 1
        while have != want:
            if (i == len(shape)) if have < want else (j == len(other)):
                return None
            if have < want:
                have, i = have * shape[i], i + 1
            else:
                want, j = want * other[j], j + 1
        while i < len(shape) and shape[i] == 1 and not (j < len(other) and other[j] == 1):
            i += 1
        while j < len(other) and other[j] == 1 and not (i < len(shape) and shape[i] == 1):
            j += 1
        if i - first_i > 1 and j - first_j > 1:
            return None
        found.append((range(first_i, i), range(first_j, j)))
    return found if i == len(shape) and j == len(other) else None


def reindexed(index: Sequence[Expr], shape: Sequence[int], target: Sequence[int]) -> tuple[Expr, ...]:
    """An index into ``shape`` as one into ``target``, which has the same elements in ``shared_dims``."""
    result: list[Expr] = []
    dims = shared_dims(shape, target)
    assert dims is not None
    for own, others in dims:
        total: Expr = const(0)
        for d in own:
            total = add(mul(total, const(shape[d])), index[d])
        step = prod(target[d] for d in others)
        for d in others:
            step //= target[d]
            digit = total if step == 1 else call("cdiv", total, const(step))
            result.append(digit if d == others[0] else call("cmod", digit, const(target[d])))
    return tuple(result)


def offset(index: Sequence[Expr], strides: Sequence[int]) -> Expr:
    """The flat offset of ``index`` in an array of these strides, in canonical affine form where it is affine."""
    total: Expr = const(0)
    for position, stride in zip(index, strides, strict=True):
        total = add(total, mul(position, const(stride)))
    affine = as_affine(total)
    return total if affine is None else expression(affine)


def expression(affine: Affine) -> Expr:
    """The canonical expression of an affine form: terms by axis, then the constant."""
    total: Expr = const(0)
    for k, coefficient in affine.coefficients:
        total = add(total, mul(axis(k), const(coefficient)))
    return add(total, const(affine.constant))


def canonical_loads(root: Expr) -> Expr:
    """``root`` with the offset of every load in canonical affine form, where it is affine."""

    def rule(x: Expr) -> Expr | None:
        if x.op != "load":
            return None
        affine = as_affine(x.args[0])
        return None if affine is None else Expr("load", (expression(affine), *x.args[1:]), x.dtype, x.value)

    return rewrite(root, rule)
