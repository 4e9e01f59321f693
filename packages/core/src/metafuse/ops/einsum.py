"""Einstein summation, composed of matrix products.

What it is: ``einsum`` with NumPy's notation: the order of pairs is NumPy's ``einsum_path``, each pair is one
``matmul`` between two transpositions, which the contraction pass recognises.
What it is not: a loop over all indices at once.
Who calls it: users, ``metafuse.linalg``, ``metafuse.einops``.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ..dtypes import promote
from ..errors import ArgumentError, DTypeError, ShapeError, brief
from ..graph.index_map import IndexMap
from ..kernel.expr import axis
from ..var import Var
from . import meta
from .elementwise import cast
from .linalg import matmul
from .meta import check_var, gather, reduce_dims
from .recipe import recorded
from .registry import Sample, Tensor, operator
from .shape import transpose

__all__ = ["einsum"]

Labelled = tuple[Var, tuple[str, ...]]  # a value and a label per dimension

_A, _B = Tensor((3, 4)), Tensor((4, 5))


def _oracle(equation: str, *operands: Any) -> Any:
    result = np.einsum(equation, *operands)
    return result.reshape(result.shape or (1,))


@operator(
    category="linalg",
    numpy=_oracle,
    source="NumPy einsum",
    samples=[
        Sample(("ij,jk->ik", _A, _B)), Sample(("ij,jk", _A, _B)), Sample(("ij->ji", _A)), Sample(("ij->", _A)),
        Sample(("ii->i", Tensor((4, 4)))), Sample(("ii", Tensor((4, 4)))), Sample(("i,j->ij", Tensor((3,)), Tensor((4,)))),
        Sample(("bij,bjk->bik", Tensor((2, 3, 4)), Tensor((2, 4, 5)))),
        Sample(("...ij,...jk->...ik", Tensor((2, 3, 4)), Tensor((4, 5)))),
        Sample(("bhqd,bkhd->bhqk", Tensor((2, 3, 4, 5)), Tensor((2, 6, 3, 5)))),
        Sample(("ij,jk,kl->il", _A, _B, Tensor((5, 2)))), Sample(("ij,ij->j", _A, Tensor((1, 4)))),
        Sample(("i j, j -> i", _A, Tensor((4,)))), Sample(("aij,kj->kia", Tensor((2, 3, 0)), Tensor((4, 0)))),
    ],
)  # fmt: skip
@recorded
def einsum(equation: str, *operands: Any) -> Var:
    """Sum of products over indices: ``einsum("ij,jk->ik", a, b)`` is ``a @ b``.

    Args:
        equation: a letter per dimension of each operand, ``...`` for any leading ones; the letters of the result after ``->``.
            Without ``->`` the result has the letters that occur once, in alphabetical order. A letter twice in one operand
            takes the diagonal.
        operands: Vars or arrays; extent 1 broadcasts.

    Returns:
        Var of the common dtype; shape ``[1]`` where no letter is left.

    Errors:
        ArgumentError: the equation is malformed or has another number of operands. ShapeError: letters and dimensions, or
        extents of one letter, disagree.

    Example:
        >>> import metafuse as mf
        >>> mf.einsum("ij,j->i", mf.ones(2, 3), mf.array([1.0, 2.0, 3.0])).numpy()
        array([6., 6.], dtype=float32)
    """
    if not isinstance(equation, str):
        raise DTypeError(f"[einsum] equation must be a string, got {type(equation).__name__}")
    values = [check_var("einsum", f"operands[{k}]", x) for k, x in enumerate(operands)]
    terms, result = _parse(equation, values)
    extents = _extents(terms, values)
    if values:
        common = values[0].dtype
        for x in values[1:]:
            common = promote(common, x.dtype)
        values = [cast(x, common) for x in values]
    pool = [_reduced(x, labels, extents) for x, labels in zip(values, terms, strict=True)]
    for pair in _order(pool, result, extents):
        chosen = [pool.pop(k) for k in sorted(pair, reverse=True)]
        keep = {*result, *(label for _, labels in pool for label in labels)}
        joined = chosen.pop()
        while chosen:
            joined = _product(joined, chosen.pop(), keep, extents)
        pool.append(_summed(joined, keep))
    ((value, labels),) = pool
    value = transpose(value, [labels.index(k) for k in result if k in labels]) if labels else value
    # A label that no operand still has was of extent 1 everywhere.
    return meta.reshape(value, tuple(extents[k] for k in result) or (1,))


# -- the equation -----------------------------------------------------------------------------------------------------
def _letters(equation: str, term: str, ndim: int | None) -> tuple[str, ...]:
    """Labels of one term; ``...`` becomes labels ``.0``, ``.1`` ..., counted from the right."""
    before, dots, after = term.partition("...")
    named = before + after
    if any(not letter.isalpha() for letter in named):
        raise ArgumentError(f"[einsum] {equation!r}: {term!r} may hold letters and one '...' only")
    if not dots:
        return tuple(named)
    assert ndim is not None
    count = ndim - len(named)
    return (*before, *(f".{k}" for k in range(count - 1, -1, -1)), *after)


def _parse(equation: str, values: Sequence[Var]) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Labels of the operands and of the result."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) != len(values) or not values:
        raise ArgumentError(f"[einsum] {equation!r} needs {len(texts)} operands, got {len(values)}")
    terms = []
    for k, (text, x) in enumerate(zip(texts, values, strict=True)):
        named = len(text.replace("...", ""))
        # A Var has at least one dimension, so a term without letters stands for a number of shape [1].
        ndim = 0 if not named and tuple(x.shape) == (1,) and "..." not in text else x.ndim
        if named > ndim or (named < ndim and "..." not in text):
            raise ShapeError(
                f"[einsum] {equation!r}: operand {k} of shape {list(x.shape)} does not fit {text!r} ({named} letters)"
            )
        terms.append(_letters(equation, text, ndim))
    used = [label for term in terms for label in term]
    hidden = sorted({k for k in used if k.startswith(".")}, key=lambda k: -int(k[1:]))
    if not arrow:
        return terms, (*hidden, *sorted(k for k in set(used) if used.count(k) == 1 and k not in hidden))
    count = len(right.replace("...", "")) + len(hidden)
    result = _letters(equation, right, count)
    if len(set(result)) != len(result) or not set(result) <= set(used):
        raise ArgumentError(
            f"[einsum] {equation!r}: letters after '->' must differ and occur before it, got {brief(right)}"
        )
    return terms, result


def _extents(terms: Sequence[tuple[str, ...]], values: Sequence[Var]) -> dict[str, int]:
    """The extent of each label; extent 1 gives way."""
    extents: dict[str, int] = {}
    for labels, x in zip(terms, values, strict=True):
        for label, n in zip(labels, x.shape if labels else (), strict=True):
            known = extents.setdefault(label, n)
            if known == 1:
                extents[label] = n
            elif n not in (1, known):
                name = "..." if label.startswith(".") else label
                raise ShapeError(f"[einsum] {name!r} has extent {known} and {n}; it must be the same, or 1")
    return extents


def _order(pool: Sequence[Labelled], result: Sequence[str], extents: dict[str, int]) -> list[tuple[int, ...]]:
    """Which operands to multiply, step by step, as NumPy would (places in a list that the product is appended to)."""
    if len(pool) < 3:
        return [tuple(range(len(pool)))]
    names = {
        label: chr(ord("a") + k) if k < 26 else chr(ord("A") + k - 26) for k, label in enumerate(extents)
    }
    if len(names) > 52:
        raise ArgumentError(f"[einsum] at most 52 different indices, got {len(names)}")
    text = ",".join("".join(names[k] for k in labels) for _, labels in pool)
    shapes = [np.broadcast_to(np.float32(0), [extents[k] for k in labels]) for _, labels in pool]
    path = np.einsum_path(f"{text}->{''.join(names[k] for k in result)}", *shapes, optimize="greedy")[0]
    return [tuple(int(k) for k in step) for step in path[1:]]


# -- steps ------------------------------------------------------------------------------------------------------------
def _reduced(x: Var, labels: tuple[str, ...], extents: dict[str, int]) -> Labelled:
    """Each label once (repeated ones: the diagonal), and none whose extent 1 only stands for repetition."""
    if len(labels) != x.ndim:  # a number of shape [1]
        return meta.reshape(x, ()), ()
    own = tuple(dict.fromkeys(labels))
    if len(own) != len(labels):
        sizes = {k: max(n for other, n in zip(labels, x.shape, strict=True) if other == k) for k in own}
        if any(sizes[k] != n for k, n in zip(labels, x.shape, strict=True)):
            raise ShapeError(f"[einsum] a diagonal needs equal extents, got shape {list(x.shape)}")
        x = gather(
            x,
            tuple(sizes[k] for k in own),
            IndexMap(tuple(axis(own.index(k)) for k in labels)),
            (),
            "diagonal",
        )
    stays = tuple(k for k, n in zip(own, x.shape, strict=True) if n == extents[k])
    return meta.reshape(x, tuple(extents[k] for k in stays)), stays


def _summed(value: Labelled, keep: set[str]) -> Labelled:
    """Without the labels that nobody needs any more."""
    x, labels = value
    gone = tuple(k for k, label in enumerate(labels) if label not in keep)
    return reduce_dims(x, "add", gone), tuple(label for label in labels if label in keep)


def _product(left: Labelled, right: Labelled, keep: set[str], extents: dict[str, int]) -> Labelled:
    """One matrix product: common labels that stay are the batch, those that go are summed."""
    in_both = set(left[1]) & set(right[1])
    (a, of_a), (b, of_b) = _summed(left, keep | in_both), _summed(right, keep | in_both)
    batch = [k for k in of_a if k in in_both and k in keep]
    gone = [k for k in of_a if k in in_both and k not in keep]
    rows, columns = [k for k in of_a if k not in in_both], [k for k in of_b if k not in in_both]

    def arranged(x: Var, labels: tuple[str, ...], *groups: list[str]) -> Var:
        x = transpose(x, [labels.index(k) for group in groups for k in group]) if labels else x
        return meta.reshape(x, tuple(prod(extents[k] for k in group) for group in groups))

    if gone:
        y = matmul(arranged(a, of_a, batch, rows, gone), arranged(b, of_b, batch, gone, columns))
    else:
        y = arranged(a, of_a, batch, rows, []) * arranged(b, of_b, batch, [], columns)
    labels = (*batch, *rows, *columns)
    return meta.reshape(y, tuple(extents[k] for k in labels)), labels
