"""Inputs made from the records' data: dtypes, shapes, values, memory layouts.

What it is: the reading of ``Tensor`` and ``Sample`` as arrays. Deterministic draws from a NumPy generator where every
case is to be met, hypothesis strategies where chance should find what nobody thought of.
What it is not: a list of operators, or what the right answers are (``compare``).
Who calls it: the levels and ``random_graphs``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..dtypes import DTYPES, as_dtype
from ..ops.registry import Sample, Tensor
from .kit import Kit

__all__ = [
    "SHAPES", "SHIFTS", "array", "broadcasts", "calls", "dtypes_for", "extremes", "laid_out", "mapped", "primary",
    "sample_arguments", "shapes", "specials", "whole_range",
]  # fmt: skip

Array = np.ndarray[Any, Any]

#: kind in a ``Tensor`` -> letters of NumPy kinds
_KINDS = {"float": "f", "int": "iu", "bool": "b", "any": "fiub", "number": "fiu", "integral": "iub"}

#: shapes every element-wise operator meets: empty, single, tails beside any vector width, several dimensions
SHAPES: tuple[tuple[int, ...], ...] = (
    (0,),
    (1,),
    (7,),
    (67,),
    (3, 0, 2),
    (1, 5),
    (5, 3),
    (2, 3, 4),
    (1, 1, 1, 3),
)

#: where ``distinct`` values of several arguments lie on their grids, so that no two arguments share a value
SHIFTS = (0.3719, 0.7043, 0.1511, 0.5877)


def dtypes_for(kind: str, kit: Kit) -> list[str]:
    """Names of the backend's dtypes that a ``Tensor`` of ``kind`` (a kind or a dtype's name) may have."""
    letters = _KINDS.get(kind)
    if letters is None:
        return [kind] if kit.supports(kind) else []
    return [name for name, dtype in DTYPES.items() if dtype.kind in letters and kit.supports(name)]


# -- element types that NumPy has not --------------------------------------------------------------------------------
_LABELS = {
    name: np.dtype(dtype.numpy, metadata={"metafuse": name})
    for name, dtype in DTYPES.items()
    if dtype.storage != dtype.numpy
}


def typed(values: Any, dtype: str) -> Array:
    """``values`` as an array of ``dtype``. Where NumPy has no such type it is one of ``DType.numpy`` that carries the name, which
    ``metafuse.array64`` and ``name_of`` understand."""
    with np.errstate(over="ignore"):
        return named(as_dtype(dtype).convert(values), dtype)


def named(values: Array, dtype: str) -> Array:
    """``values``, which were read from a Var of ``dtype``, with its name where NumPy has none."""
    return values.astype(_LABELS[dtype]) if dtype in _LABELS and values.dtype == _LABELS[dtype] else values


def name_of(array: Array) -> str:
    """The name of the element type that an array has or stands for."""
    return as_dtype(array.dtype).name


def primary(kind: str, kit: Kit) -> list[str]:
    """The dtypes of ``kind`` that quick tests use throughout: the usual float, integer and bool."""
    return [name for name in dtypes_for(kind, kit) if name in ("float32", "int32", "bool")] or dtypes_for(
        kind, kit
    )[:1]


# -- values -------------------------------------------------------------------------------------------------------
def array(
    tensor: Tensor, dtype: str, shape: Sequence[int], random: np.random.Generator, shift: float = 0.5
) -> Array:
    """Values of ``dtype`` from the range of ``tensor``; ``shift`` in (0, 1) keeps several ``distinct`` arrays apart."""
    kind = as_dtype(dtype).kind
    size = math.prod(shape)
    if kind == "b":
        return random.integers(0, 2, shape).astype(bool)
    if kind in "iu":
        low, high = math.ceil(tensor.low), math.floor(tensor.high)
        if kind == "u":
            low = max(low, 0)
        if low > high:  # the range is about smoothness, which integers do not have
            low, high = 0, 9
        if tensor.distinct:
            return typed(low + random.permutation(size).reshape(shape), dtype)
        return typed(random.integers(low, high, shape, endpoint=True), dtype)
    if tensor.distinct:
        steps = (random.permutation(size) + shift) / max(size, 1)
        values = tensor.low + steps * (tensor.high - tensor.low)
    else:
        values = random.uniform(tensor.low, tensor.high, size)
    values = values.reshape(shape)
    if tensor.dominant:
        values = values + (tensor.high - tensor.low) * max(shape[-2:]) * np.eye(shape[-2], shape[-1])
    return typed(values, dtype)


def specials(tensor: Tensor, dtype: str) -> Array:
    """Floats that are no ordinary numbers, and ordinary ones between them: everything NumPy defines an answer for."""
    info = np.finfo(as_dtype(dtype).numpy)
    few = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        np.nan,
        np.inf,
        -np.inf,
        float(info.tiny),
        2.5,
        -2.5,
        tensor.low,
        tensor.high,
    ]
    return typed(few, dtype)


def extremes(dtype: str) -> Array:
    """Integers at the ends and in the middle of the range of ``dtype``, and those next to 0."""
    info = np.iinfo(as_dtype(dtype).numpy)
    middle = int(info.max) // 2
    few = [int(info.min), int(info.min) + 1, middle, middle + 1, int(info.max) - 1, int(info.max), 0, 1, 2, 3]
    return np.array(few + ([-2, -1] if info.min else []), as_dtype(dtype).numpy)


def whole_range(dtype: str, shape: Sequence[int], random: np.random.Generator) -> Array:
    """Integers from all of the range of ``dtype``."""
    info = np.iinfo(as_dtype(dtype).numpy)
    return random.integers(info.min, info.max, shape, dtype=info.dtype, endpoint=True)


def laid_out(values: Array, layout: str) -> Array:
    """The same values in other host memory: ``plain``, ``fortran``, ``strided``, ``reversed``, ``read-only``."""
    if layout == "fortran":
        return np.asfortranarray(values)
    if layout == "strided":
        wide = np.zeros((*values.shape[:-1], 2 * values.shape[-1] + 1), values.dtype)
        wide[..., 1::2] = values
        return wide[..., 1::2]
    if layout == "reversed":
        return np.ascontiguousarray(values[::-1])[::-1]
    if layout == "read-only":
        values = values.copy()
        values.flags.writeable = False
    return values


LAYOUTS = ("plain", "fortran", "strided", "reversed", "read-only")


# -- shapes -------------------------------------------------------------------------------------------------------
def broadcasts(arity: int) -> list[tuple[tuple[int, ...], ...]]:
    """Tuples of ``arity`` shapes that broadcast together: equal ones, then each argument in turn smaller in some way."""
    found: list[tuple[tuple[int, ...], ...]] = [(shape,) * arity for shape in SHAPES]
    if arity == 1:
        return found
    for full in ((5, 3), (2, 3, 4), (3, 0)):
        for k in range(arity):
            for small in (full[1:], (1, *full[1:]), (*full[:-1], 1), (1,)):
                found.append(tuple(small if j == k else full for j in range(arity)))
    crossed = tuple((4, 1) if k % 2 else (1, 3) for k in range(arity))
    return [*found, crossed]


# -- samples ------------------------------------------------------------------------------------------------------
def mapped(value: Any, rule: Callable[[Any], Any]) -> Any:
    """``value`` with ``rule`` applied to its leaves; lists, tuples and dicts are kept."""
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(v, rule) for v in value)
    if isinstance(value, dict):
        return {k: mapped(v, rule) for k, v in value.items()}
    return rule(value)


def sample_arguments(
    sample: Sample, choose: Callable[[str], str], random: np.random.Generator
) -> tuple[Any, Any]:
    """Arguments and keywords of ``sample`` with arrays for its tensors; ``choose`` picks a dtype for a kind."""

    def leaf(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        # a Var has at least one dimension
        return array(value, choose(value.dtype), value.shape or (1,), random, random.uniform(0.1, 0.9))

    return mapped(tuple(sample.args), leaf), mapped(dict(sample.kwargs), leaf)


def sample_tensors(sample: Sample) -> list[Tensor]:
    """The tensors among the arguments of ``sample``."""
    found: list[Tensor] = []
    mapped(
        (tuple(sample.args), dict(sample.kwargs)),
        lambda v: found.append(v) if isinstance(v, Tensor) else None,
    )
    return found


# -- hypothesis -----------------------------------------------------------------------------------------------------
def shapes(max_dims: int = 4, max_extent: int = 9) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes of one to ``max_dims`` dimensions, extents 0 and 1 included."""
    extent = st.one_of(st.integers(1, max_extent), st.sampled_from((0, 1)))
    return st.lists(extent, min_size=1, max_size=max_dims).map(tuple)


@st.composite
def broadcastable(draw: st.DrawFn, arity: int) -> tuple[tuple[int, ...], ...]:
    """``arity`` shapes that broadcast together."""
    full = draw(shapes())
    found = []
    for _ in range(arity):
        start = draw(st.integers(0, len(full) - 1))
        found.append(tuple(1 if draw(st.integers(0, 3)) == 0 else n for n in full[start:]))
    return tuple(found)


@st.composite
def calls(draw: st.DrawFn, domain: tuple[Tensor, ...], kit: Kit) -> list[Array]:
    """Arguments for an element-wise operator of ``domain``: any dtypes, shapes, layouts and values it allows."""
    found = []
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    for tensor, shape in zip(domain, draw(broadcastable(len(domain))), strict=True):
        dtype = draw(st.sampled_from(dtypes_for(tensor.dtype, kit)))
        values = array(tensor, dtype, shape, random, random.uniform(0.1, 0.9))
        found.append(laid_out(values, draw(st.sampled_from(LAYOUTS))))
    return found
