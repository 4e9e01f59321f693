"""Rows in which several checks hold in different places: each part of a row has a loop of its own."""

from __future__ import annotations

import numpy as np
import pytest

from codegen_kit import MACHINE, Nest, check
from metafuse.dtypes import as_dtype
from metafuse.kernel.expr import Expr, add, axis, call, const, load
from metafuse_backend_cpu.codegen import emit

random = np.random.default_rng(0)


def piece(nest: Nest, array: np.ndarray, start: int, dim: int) -> Expr:
    """``array`` shifted by ``start`` along dimension ``dim`` of the result, 0 where there is nothing of it."""
    at = add(axis(dim), call("sub", const(0), nest.size(start)))
    inside = call("and", call("ge", at, const(0)), call("lt", at, nest.size(array.shape[dim])))
    buffer = nest.argument(array)
    dtype = as_dtype(array.dtype)
    index = [at if d == dim else d for d in range(array.ndim)]
    return load(buffer, dtype, nest.offset(buffer, *index), inside, const(0, dtype))


def added(shape: tuple[int, ...], dim: int, spans: list[tuple[int, int]], dtype: str = "float32") -> Nest:
    """The sum of arrays that lie at ``spans`` of dimension ``dim``."""
    nest = Nest(shape)
    values = []
    for start, length in spans:
        extents = [length if d == dim else n for d, n in enumerate(shape)]
        values.append(piece(nest, (random.standard_normal(extents) * 9).astype(dtype), start, dim))
    total = values[0]
    for value in values[1:]:
        total = call("add", total, call("mul", value, value))
    nest.store(np.zeros(shape, dtype), range(len(shape)), total)
    return nest


SPANS = {
    "halves": [(0, 20), (20, 20)],
    "back to front": [(20, 20), (0, 20)],
    "thirds": [(0, 13), (13, 13), (26, 14)],
    "quarters": [(0, 10), (10, 10), (20, 10), (30, 10)],
    "fifths": [(k, 8) for k in range(0, 40, 8)],
    "overlapping": [(0, 30), (10, 30)],
    "three that overlap": [(0, 25), (10, 20), (15, 25)],
    "gaps": [(3, 5), (20, 11)],
    "the same": [(4, 30), (4, 30)],
    "beyond the ends": [(-5, 20), (30, 20)],
    "nothing of one": [(0, 40), (50, 3)],
}


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("spans", SPANS.values(), ids=SPANS)
def test_sums_of_pieces(spans, dim):
    shape = [3, 5, 7]
    shape[dim] = 40
    check(added(tuple(shape), dim, spans), chunks=3)


@pytest.mark.parametrize("dtype", ["float64", "int32", "int8"])
def test_types(dtype):
    check(added((6, 40), 1, SPANS["thirds"], dtype), chunks=2)


def test_two_to_four_checks_are_told_apart():
    for name, told_apart in (("halves", True), ("quarters", True), ("fifths", False)):
        assert ("holds ==" in emit(added((6, 40), 1, SPANS[name]).kernel(), "kernel", MACHINE)) is told_apart
