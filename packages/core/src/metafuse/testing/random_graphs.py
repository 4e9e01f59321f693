"""Whole random graphs: what fusion, layout and memory planning make of programs that nobody wrote.

What it is: a hypothesis strategy that draws a program as data, step by step, and the two ways to run it: with Vars on a
backend, and with NumPy arrays in float64.
What it is not: gradients.
Who calls it: the level "fusion".

Element-wise steps and folds come from the operator records. Values are kept inside the domains and away from overflow, so
that a difference between backend and oracle is an error and not rounding that grew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..ops.creation import array64
from ..ops.elementwise import cast
from ..ops.indexing import getitem
from ..ops.linalg import matmul
from ..ops.meta import broadcast_to
from ..ops.reduce import reduce
from ..ops.registry import Operator, Tensor, all_operators
from ..ops.reindexing import reindex
from ..ops.scalar import maximum, minimum  # type: ignore[attr-defined]
from ..ops.shape import concat, reshape, transpose
from .compare import widened
from .expressions import cdiv, gathered
from .kit import Kit
from .strategies import SHIFTS, array

__all__ = ["Graph", "Step", "candidates", "graphs", "run_on_device", "run_on_host"]

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]


@dataclass(frozen=True)
class Step:
    """One operation: its name for messages, the values it takes by number, and what it does to Vars and to arrays."""

    name: str
    inputs: tuple[int, ...]
    device: Function
    host: Function

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'v{k}' for k in self.inputs)})"


@dataclass
class Graph:
    """Leaves, then steps; value number k is leaf k or step k minus the number of leaves. ``outputs`` are read.

    ``constant``: no gradients are asked for, so that memory of dead leaves may be used for results."""

    leaves: list[Array]
    steps: list[Step]
    outputs: list[int]
    constant: bool = True

    def __repr__(self) -> str:
        lines = [f"v{k} = {leaf.dtype}{list(leaf.shape)}" for k, leaf in enumerate(self.leaves)]
        lines += [f"v{k} = {step!r}" for k, step in enumerate(self.steps, len(self.leaves))]
        return "\n".join([*lines, f"outputs: {', '.join(f'v{k}' for k in self.outputs)}"])


def run_on_device(graph: Graph) -> list[Any]:
    """The outputs as Vars, nothing evaluated yet. Values that no output holds are let go at once."""
    values: list[Any] = [array64(leaf) for leaf in graph.leaves]
    if graph.constant:
        for leaf in values:
            leaf.stop_grad()
    for step in graph.steps:
        values.append(step.device(*(values[k] for k in step.inputs)))
    return [values[k] for k in graph.outputs]


def run_on_host(graph: Graph) -> list[Array]:
    """The outputs by NumPy, float64."""
    values: list[Any] = [widened(leaf) for leaf in graph.leaves]
    for step in graph.steps:
        values.append(_host(step, values))
    return [values[k] for k in graph.outputs]


def _host(step: Step, values: list[Any]) -> Array:
    with np.errstate(all="ignore"):
        result = np.asarray(step.host(*(values[k] for k in step.inputs)))
    return result.reshape(1) if result.ndim == 0 else result


# -- drawing ------------------------------------------------------------------------------------------------------
def candidates() -> list[Operator]:
    """Smooth element-wise records of floats: continuous, so that rounding can't jump."""
    return [
        r for r in all_operators()
        if r.arity > 0 and r.differentiable and r.numpy is not None
        and all(t.dtype in ("float", "any", "number") for t in r.domain)
    ]  # fmt: skip


class _Builder:
    """A graph under construction, with the values NumPy gives, by which shapes and ranges are known."""

    def __init__(self, draw: st.DrawFn, dtype: str) -> None:
        self.draw = draw
        self.dtype = dtype
        self.graph = Graph([], [], [])
        self.values: list[Array] = []

    def leaf(self, value: Array) -> None:
        assert not self.graph.steps
        self.graph.leaves.append(value)
        self.values.append(widened(value))

    def step(self, name: str, inputs: tuple[int, ...], device: Function, host: Function) -> int:
        step = Step(name, inputs, device, host)
        value = _host(step, self.values)
        self.graph.steps.append(step)
        self.values.append(value)
        return len(self.values) - 1

    def pick(self, where: Callable[[Array], bool] = lambda v: True) -> int | None:
        """The number of a value, rather a late one than an early one."""
        legal = [k for k, v in enumerate(self.values) if where(v)]
        return self.draw(st.sampled_from(legal[-6:])) if legal else None

    def clamped(self, number: int, low: float, high: float) -> int:
        """``number`` if its values lie in the range, else itself clipped to it."""
        value = self.values[number]
        if value.size == 0 or (value.min() >= low and value.max() <= high):
            return number
        number = self.step(
            f"maximum({low}, .)", (number,), lambda v: maximum(v, low), lambda v: np.maximum(v, low)
        )
        return self.step(
            f"minimum({high}, .)", (number,), lambda v: minimum(v, high), lambda v: np.minimum(v, high)
        )

    # each of the following adds steps or, where nothing fits, none
    def elementwise(self) -> None:
        record = self.draw(st.sampled_from(candidates()))
        first = self.pick()
        assert first is not None
        chosen = [first]
        for _ in range(1, record.arity):
            shape = np.broadcast_shapes(*(self.values[k].shape for k in chosen))
            other = self.pick(lambda v, s=shape: _broadcasts(v.shape, s))  # type: ignore[misc]
            chosen.append(first if other is None else other)
        inputs = tuple(
            self.clamped(k, max(t.low, -8.0), min(t.high, 8.0))
            for k, t in zip(chosen, record.domain, strict=True)
        )
        assert record.numpy is not None
        self.step(record.name, inputs, record.function, record.numpy)

    def number(self) -> None:
        k = self.pick()
        assert k is not None
        a, b = self.draw(st.integers(-4, 4)) / 2, self.draw(st.integers(-4, 4)) / 2
        self.step(f"(. * {a} + {b})", (k,), lambda v: v * a + b, lambda v: v * a + b)

    def fold(self) -> None:
        k = self.pick(lambda v: 0 not in v.shape)
        if k is None:
            return
        op = self.draw(st.sampled_from(("add", "maximum", "minimum", "mean")))
        dims = tuple(sorted(self.draw(st.sets(st.integers(0, self.values[k].ndim - 1), min_size=1))))
        keep = self.draw(st.booleans())
        table: dict[str, Any] = {"add": np.sum, "maximum": np.max, "minimum": np.min, "mean": np.mean}
        fold = table[op]
        self.step(f"reduce_{op}[{dims}, {keep}]", (k,), lambda v: reduce(v, op, dims, keep),
                  lambda v: np.asarray(fold(v, axis=dims, keepdims=keep)))  # fmt: skip

    def rearranged(self) -> None:
        k = self.pick(lambda v: v.ndim > 1)
        if k is None:
            return
        order = tuple(self.draw(st.permutations(range(self.values[k].ndim))))
        self.step(
            f"transpose{order}", (k,), lambda v: transpose(v, list(order)), lambda v: np.transpose(v, order)
        )

    def reshaped(self) -> None:
        k = self.pick()
        assert k is not None
        size = self.values[k].size
        divisors = [n for n in range(1, size + 1) if size % n == 0] or [1]
        first = self.draw(st.sampled_from(divisors))
        shape = (first, size // first) if size else (0, 3)
        self.step(f"reshape{shape}", (k,), lambda v: reshape(v, list(shape)), lambda v: v.reshape(shape))

    def spread(self) -> None:
        k = self.pick(lambda v: v.size < 60 and v.ndim < 4)
        if k is None:
            return
        shape = (self.draw(st.integers(1, 4)), *self.values[k].shape)
        self.step(
            f"broadcast{shape}", (k,), lambda v: broadcast_to(v, shape), lambda v: np.broadcast_to(v, shape)
        )

    def part(self) -> None:
        k = self.pick(lambda v: v.size > 0)
        if k is None:
            return
        where = tuple(
            self.draw(
                st.sampled_from(
                    (slice(None), slice(None, None, -1), slice(1, None), slice(0, None, 2), n - 1)
                )
            )
            for n in self.values[k].shape
        )
        self.step(f"getitem{where}", (k,), lambda v: getitem(v, where), lambda v: v[where])

    def indexed(self) -> None:
        k = self.pick(lambda v: v.ndim == 2)
        if k is None:
            return
        shape = (self.draw(st.integers(1, 5)), self.draw(st.integers(1, 7)), 2)
        shift, stride = self.draw(st.integers(-2, 2)), self.draw(st.integers(1, 3))
        texts = [f"i0*{stride}+i2-({shift})", f"i1/{stride}"]
        rules: list[Any] = [lambda i: i[0] * stride + i[2] - shift, lambda i: cdiv(i[1], stride)]
        self.step(f"reindex[{shape}, {texts}]", (k,), lambda v: reindex(v, list(shape), texts, 0.5),
                  lambda v: gathered(v, shape, rules, 0.5))  # fmt: skip

    def product(self) -> None:
        a = self.pick(lambda v: v.ndim == 2 and v.size > 0)
        if a is None:
            return
        rows = self.values[a].shape[1]
        b = self.pick(lambda v: v.ndim == 2 and v.shape[0] == rows)
        if b is None:
            b = self.step("transpose", (a,), transpose, np.transpose)
        a, b = self.clamped(a, -8, 8), self.clamped(b, -8, 8)
        self.step("matmul", (a, b), matmul, np.matmul)

    def joined(self) -> None:
        a = self.pick()
        assert a is not None
        b = self.pick(lambda v: v.shape[1:] == self.values[a].shape[1:] and v.ndim == self.values[a].ndim)
        assert b is not None
        self.step("concat", (a, b), lambda v, w: concat([v, w], 0), lambda v, w: np.concatenate([v, w], 0))

    def converted(self) -> None:
        """Through integers and back, from values far from where truncation jumps."""
        k = self.pick(lambda v: v.size == 0 or bool((np.abs(v * 4 - np.round(v * 4)) > 1e-3).all()))
        if k is None:
            return
        self.step(
            "int32(4 * .)",
            (k,),
            lambda v: cast(cast(v * 4.0, "int32"), self.dtype),
            lambda v: np.trunc(v * 4.0),
        )


def _broadcasts(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    try:
        np.broadcast_shapes(shape, other)
    except ValueError:
        return False
    return True


_LEAF = Tensor((), "float", -2.0, 2.0, distinct=True)
_STEPS = (
    "elementwise", "elementwise", "elementwise", "elementwise", "number", "fold", "fold", "rearranged", "reshaped", "spread",
    "part", "indexed", "product", "joined", "converted",
)  # fmt: skip


@st.composite
def graphs(draw: st.DrawFn, kit: Kit, max_steps: int = 24) -> Graph:
    """Programs over two to four leaves, float64 where the backend has it."""
    dtype = "float64" if kit.supports("float64") else "float32"
    builder = _Builder(draw, dtype)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    for k in range(draw(st.integers(2, 4))):
        shape = draw(st.sampled_from(((3, 4), (4, 3), (4, 4), (1, 4), (5,), (2, 3, 4), (17,), (1, 1))))
        builder.leaf(array(_LEAF, dtype, shape, random, SHIFTS[k]))
    for name in draw(st.lists(st.sampled_from(_STEPS), min_size=min(6, max_steps), max_size=max_steps)):
        before = len(builder.values)
        getattr(builder, name)()
        added = builder.values[before:]
        if any(v.size > 4000 or not np.isfinite(v).all() or np.abs(v).max(initial=0) > 1e6 for v in added):
            del builder.values[before:]
            del builder.graph.steps[before - len(builder.graph.leaves) :]
    graph = builder.graph
    graph.constant = draw(st.booleans())
    used = {k for step in graph.steps for k in step.inputs}
    last = len(builder.values)
    ends = [k for k in range(len(graph.leaves), last) if k not in used]
    also = draw(st.sets(st.integers(0, last - 1), max_size=3))
    graph.outputs = sorted({*ends, *also}) or [0]
    return graph
