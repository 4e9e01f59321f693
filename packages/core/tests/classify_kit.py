"""Library operations computed directly, and the contractions of recorded programs: what ``test_classify`` compares."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import metafuse as mf
from metafuse.backend.library import LibraryOp
from metafuse.graph.node import Node
from metafuse.passes.affine import row_major
from metafuse.passes.classify import Classified, classify
from metafuse.passes.contraction import Match, View, find_contractions, find_thin_contractions
from metafuse.passes.program_graph import ProgramGraph
from metafuse.passes.simplify import simplify
from metafuse.runtime import executor
from metafuse.testing.library import contraction, strided

Array = Any


# -- the operation, from its description alone -----------------------------------------------------------------------
def compute(op: LibraryOp, first: Array, second: Array, result: Array) -> None:
    """Run ``op`` on flat float64 buffers, after a look whether its dimensions fit together."""
    a, b, out = strided(first, op.first), strided(second, op.second), strided(result, op.result)
    if op.kind == "matmul":
        assert all(x == y or 1 in (x, y) for x, y in zip(a.shape[:-2], b.shape[:-2], strict=True))
    else:
        parties = {
            "convolution": (a, b, out),
            "convolution_data": (out, b, a),
            "convolution_weight": (a, out, b),
        }
        _check_geometry(op, *(party.shape for party in parties[op.kind]))
    value = contraction(op, a, b)
    assert value.shape == out.shape
    out[...] = value


def _check_geometry(
    op: LibraryOp, image: tuple[int, ...], weight: tuple[int, ...], spread: tuple[int, ...]
) -> None:
    spatial = len(image) - 2
    assert 1 <= spatial <= 3
    assert len(op.stride) == len(op.dilation) == len(op.padding) == spatial
    assert image[1] == weight[1] * op.groups and weight[0] == spread[1]
    assert image[0] == spread[0] and weight[0] % op.groups == 0
    for d in range(spatial):
        span = (weight[2 + d] - 1) * op.dilation[d] + 1
        room = image[2 + d] + sum(op.padding[d]) - span
        assert room // op.stride[d] + 1 == spread[2 + d], (op, d)
        assert op.padding[d][0] >= 0


# -- contractions of a program ---------------------------------------------------------------------------------------
@dataclass
class Program:
    """The simplified graph of what some Vars need, and its contractions by number."""

    graph: ProgramGraph
    nodes: list[Node]
    matches: dict[int, Match]

    def value(self, number: int) -> Array:
        """A value of the program, computed by the backend."""
        return executor.read(self.nodes[number])


def program(*values: Any) -> Program:
    """Record nothing, run nothing: the graph as the passes see it."""
    nodes, leaves, shown, _ = executor.preview([v._node for v in values])
    graph = ProgramGraph(nodes, leaves, shown)
    simplify(graph)
    matches = find_contractions(graph)
    thin = find_thin_contractions(graph, matches)
    return Program(graph, [*nodes, *leaves], {**matches, **thin})


def leaves(*shapes: Sequence[int]) -> list[Any]:
    """Arrays of small random numbers, stored."""
    random = np.random.default_rng(list(itertools.chain(*shapes)) or [0])
    return [mf.array(random.standard_normal(tuple(s)).astype("float32")).sync() for s in shapes]


def order_strides(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Strides of a dense array whose dimensions lie in memory in this order, the slowest first."""
    strides = [0] * len(shape)
    for d, step in zip(order, row_major([shape[d] for d in order]), strict=True):
        strides[d] = step
    return tuple(strides)


def in_order(shape: Sequence[int]) -> list[int]:
    """Row-major memory."""
    return list(range(len(shape)))


class Memory:
    """An order of dimensions for every source and the result of one match."""

    def __init__(self, found: Program, number: int, order: Any) -> None:
        self.found = found
        self.match = found.matches[number]
        self.order = order
        outer = self.match.extents[: self.match.outer]
        self.outer_order = order(outer)
        self.result_strides = order_strides(outer, self.outer_order)

    def strides(self, number: int) -> tuple[int, ...]:
        shape = self.found.graph.specs[number].shape
        return order_strides(shape, self.order(shape))

    def buffer(self, view: View) -> Array:
        value = self.found.value(view.source).astype("float64")
        return np.ascontiguousarray(value.transpose(self.order(value.shape))).reshape(-1)

    def classified(self) -> Classified | None:
        return classify(self.match, lambda k: self.found.graph.specs[k], self.strides, self.result_strides)


def check(found: Program, number: int, order: Any = in_order) -> Classified | None:
    """Classify one contraction; compute it by its description alone and compare with the program's value."""
    memory = Memory(found, number, order)
    known = memory.classified()
    if known is None:
        return None
    match = memory.match
    first, second = (match.b, match.a) if known.swapped else (match.a, match.b)
    outer = match.extents[: match.outer]
    result = np.full(int(np.prod(outer)), np.nan)
    compute(known.op, memory.buffer(first), memory.buffer(second), result)
    arranged = result.reshape([outer[d] for d in memory.outer_order]).transpose(
        np.argsort(memory.outer_order)
    )
    expected = found.value(number).reshape(outer)
    scale = max(float(np.abs(expected).max(initial=0)), 1.0)
    np.testing.assert_allclose(arranged, expected, rtol=1e-4, atol=1e-4 * scale)
    _check_axes(known, match, memory.result_strides)
    return known


def _check_axes(known: Classified, match: Match, strides: Sequence[int]) -> None:
    """Every outer axis belongs to one dimension of the result, with the stride that it has there."""
    assert sorted(x for axes in known.result_axes for x in axes) == list(range(match.outer))
    result = known.op.result
    for axes, extent, stride in zip(known.result_axes, result.shape, result.strides, strict=True):
        assert extent == np.prod([match.extents[x] for x in axes], dtype=int)
        if axes:
            assert stride == strides[axes[-1]]


def kinds(found: Program, order: Any = in_order) -> list[str]:
    """What every contraction of a program is, checked, in order of their numbers; ``-`` for none."""
    known = [check(found, k, order) for k in sorted(found.matches)]
    return ["-" if c is None else c.op.kind for c in known]
