"""Explain: what would run if a value were read, in words.

What it is: ``explain``: the recorded graph with the user's lines, the kernels it becomes with loops, buffers and source, the
launches, and the memory plan.
What it is not: an evaluation. Nothing runs, nothing is compiled, and what is pending stays pending.
Who calls it: users, as ``metafuse.explain``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..arguments import checked
from ..backend.contract import AbstractBackend, Call
from ..backend.library import LibraryCall
from ..errors import DTypeError
from ..graph.node import Node
from ..passes.lower import LoweredCall
from ..passes.pipeline import build_plan
from ..passes.plan import OpaqueStep, PlannedStep, ProgramPlan
from ..runtime import executor
from ..runtime.kernels import symbol_of
from ..var import Var
from .text import amount, columns, contraction_line, counted, node_rows, origin, phases_line

__all__ = ["Explanation", "explain"]


@checked
class Explanation(str):
    """The text, and what tests ask of it: ``operators`` recorded, ``kernels`` (names, one per launch) and ``launches``."""

    __slots__ = ("kernels", "launches", "operators")
    operators: int
    kernels: tuple[str, ...]
    launches: int

    def __new__(cls, text: str, operators: int = 0, kernels: tuple[str, ...] = ()) -> Explanation:
        made = super().__new__(cls, text)
        made.operators = operators
        made.kernels = kernels
        made.launches = len(kernels)
        return made

    def __repr__(self) -> str:
        return str(self)


@checked
def explain(values: Var | Sequence[Var], source: bool = True) -> Explanation:
    """What reading ``values`` would run.

    Args:
        values: a Var or a sequence of Vars.
        source: whether the kernels' emitted source is shown.

    Returns:
        A text that prints as such, with counts as attributes. Everything else that is pending and held takes part, as it
        does in an evaluation (``docs/evaluation.md``).

    Errors:
        DTypeError for anything else than Vars.

    Example:
        >>> import metafuse as mf
        >>> x = mf.ones(4).sync()
        >>> y = (x * 2 + 1).exp()
        >>> text = mf.explain(y)
        >>> text.operators, text.launches
        (3, 1)
        >>> mf.explain(x)
        float32[4]: stored; nothing to run
    """
    wanted = [values] if isinstance(values, Var) else list(values)
    for k, v in enumerate(wanted):
        if not isinstance(v, Var):
            raise DTypeError(
                f"[explain] values[{k}] must be a Var, got {type(v).__name__}; give a Var or a list of them"
            )
    specs = ", ".join(repr(v._node.spec) for v in wanted)
    if all(v._node.buffer is not None for v in wanted):
        return Explanation(f"{specs}: stored; nothing to run")
    nodes, leaves, shown, retained = executor.preview([v._node for v in wanted])
    backend = executor.device().backend
    plan = build_plan(nodes, leaves, shown, backend, retained)
    report = _Report(plan, nodes, leaves, frozenset(shown), backend)
    kernels = tuple(report.launch_name(k) for k in range(len(plan.steps)))
    head = (
        f"{specs}: pending; {counted(len(nodes), 'operator')} on {counted(len(leaves), 'stored array')} become "
        f"{counted(len(report.kernels), 'kernel')} in {counted(len(plan.steps), 'launch')} on {backend.name}"
    )
    parts = [head, report.graph(), report.describe_kernels(), report.launches(), report.memory()]
    if source:
        parts.append(report.sources())
    return Explanation("\n\n".join(p for p in parts if p), len(nodes), kernels)


class _Report:
    """The paragraphs of one explanation."""

    def __init__(
        self,
        plan: ProgramPlan,
        nodes: list[Node],
        leaves: list[Node],
        shown: frozenset[int],
        backend: AbstractBackend,
    ) -> None:
        self.plan = plan
        self.nodes = nodes
        self.leaves = leaves
        self.shown = shown
        self.backend = backend
        self.kernels: dict[Any, int] = {}
        self.lowered: list[list[LoweredCall]] = []  # per launch
        items = iter(plan.groups)
        for step in plan.steps:
            count = len(step.calls) if isinstance(step, PlannedStep) else 1
            self.lowered.append(
                [x for x in (next(items) for _ in range(count)) if isinstance(x, LoweredCall)]
            )
            if isinstance(step, PlannedStep):
                self.kernels.setdefault(step.kernel, len(self.kernels))
        self.sizes = {k: leaf.spec.nbytes for k, leaf in enumerate(leaves)}
        self.sizes.update(plan.outputs)
        self.sizes.update(plan.temporaries)
        self.sizes.update(plan.constant.slots)

    def name(self, value: int) -> str:
        """A program's value: ``n`` nodes, ``a`` stored arrays, ``p`` partial results that no node stands for."""
        count = len(self.nodes)
        if value < count:
            return f"n{value}"
        return (
            f"a{value - count}"
            if value < count + len(self.leaves)
            else f"p{value - count - len(self.leaves)}"
        )

    def launch_name(self, number: int) -> str:
        """Kernel of a launch, or the operator of an opaque step."""
        step = self.plan.steps[number]
        if isinstance(step, LibraryCall):
            return f"library {step.name}"
        return self.nodes[step.position].sig.name if isinstance(step, OpaqueStep) else step.kernel.name

    def graph(self) -> str:
        """The recorded operators in order."""
        return "\n".join(["graph", *columns(node_rows(self.nodes, self.leaves))])

    # -- kernels ----------------------------------------------------------------------------------------------------
    def describe_kernels(self) -> str:
        """Every kernel once: what is inside and how it loops, for its first call."""
        lines = ["kernels"]
        told: set[Any] = set()
        for step, calls in zip(self.plan.steps, self.lowered, strict=True):
            if isinstance(step, PlannedStep) and step.kernel not in told:
                told.add(step.kernel)
                lines += self._kernel(step, calls)
        return "\n".join(lines) if told else ""

    def _kernel(self, step: PlannedStep, calls: list[LoweredCall]) -> list[str]:
        kernel, first, item = step.kernel, step.calls[0], calls[0]
        outer, inner = first.sizes[: kernel.outer], first.sizes[kernel.outer : kernel.outer + kernel.inner]
        lines = [
            f"  k{self.kernels[kernel]} {kernel.name}",
            f"     operators  {', '.join(self.operators(item))}",
            f"     loops      outer {list(outer)}, inner {list(inner)}, {first.elements} points",
            f"     stages     {phases_line(kernel)}",
        ]
        for word, wanted in (("reads", "reads"), ("writes", "writes")):
            named = [
                f"{self.name(v)} {b.dtype} {amount(self.sizes[s])}"
                for v, b, s in zip(item.values, kernel.buffers, first.slots, strict=True)
                if getattr(b, wanted)
            ]
            lines.append(f"     {word:<9}  {', '.join(named) or 'nothing'}")
        if kernel.scalars:
            lines.append(f"     numbers    {', '.join(map(str, kernel.scalars))}")
        if kernel.contraction is not None:
            lines.append(f"     product    {contraction_line(kernel.contraction, first.sizes)}")
        return lines

    def operators(self, item: LoweredCall) -> list[str]:
        """Names of the operators that a call evaluates, with how often; recomputed ones count in every kernel."""
        count = len(self.nodes)
        number = {node: k for k, node in enumerate(self.nodes)}
        read = {
            v
            for v, b in zip(item.values, item.kernel.buffers, strict=True)
            if b.reads and v not in item.writes
        }
        partial = any(v >= count + len(self.leaves) for v in read)
        seen: set[int] = set()
        stack = [v for v in item.writes if v < count]
        if not stack:
            return [f"the first part of {', '.join(self._folded(item))}"]
        while stack:
            k = stack.pop()
            if k in seen:
                continue
            seen.add(k)
            if partial and self.nodes[k].sig.kind == "reduce":
                continue  # folds partial results: what leads to them is in the kernel that makes those
            stack.extend(
                i
                for x in self.nodes[k].inputs
                if x.buffer is None and (i := number[x]) not in read and i not in seen
            )
        names = [self.nodes[k].sig.name for k in sorted(seen)]
        return [n if names.count(n) == 1 else f"{n} x {names.count(n)}" for n in dict.fromkeys(names)]

    def _folded(self, item: LoweredCall) -> list[str]:
        """What becomes of the partial results that a call writes."""
        return [
            f"{self.name(v)} {self.nodes[v].sig.name}"
            for calls in self.lowered
            for other in calls
            if set(other.values) & set(item.writes)
            for v in other.writes
            if v < len(self.nodes) and self.nodes[v].sig.kind == "reduce"
        ] or ["a fold"]

    # -- launches and memory ------------------------------------------------------------------------------------------
    def launches(self) -> str:
        """The steps in order, with what each touches."""
        rows: list[list[str]] = []
        for k, (step, calls) in enumerate(zip(self.plan.steps, self.lowered, strict=True)):
            if isinstance(step, OpaqueStep):
                node = self.nodes[step.position]
                inputs = ", ".join(f"slot {s}" for s in step.inputs)
                rows.append([str(k), node.sig.name, f"{inputs} -> slot {step.output}", "", origin(node)])
                continue
            if isinstance(step, LibraryCall):
                rows.append(
                    [
                        str(k),
                        f"library {step.name}",
                        f"-> slot {step.slots[2]}",
                        f"{step.op.points} points",
                        step.plan.about,
                    ]
                )
                continue
            points = sum(call.elements for call in step.calls)
            nbytes = sum(self._touched(call) for call in step.calls)
            made = [self.name(v) for item in calls for v in item.writes]
            shown = ", ".join(made[:8]) + (f" and {len(made) - 8} more" if len(made) > 8 else "")
            times = f" x {len(step.calls)} calls" if len(step.calls) > 1 else ""
            kernel = f"k{self.kernels[step.kernel]}{times}"
            rows.append([str(k), kernel, f"-> {shown}", f"{points} points", f"at most {amount(nbytes)}"])
        return "\n".join(["launches", *columns(rows)])

    def _touched(self, call: Call) -> int:
        return sum(self.sizes[s] for s in set(call.slots))

    def memory(self) -> str:
        """Slots by kind, results, and which stored array a result may take over."""
        plan = self.plan
        stored = sum(leaf.spec.nbytes for leaf in self.leaves)
        rows = [
            ["stored arrays", counted(len(self.leaves), "slot"), amount(stored)],
            ["results", counted(len(plan.outputs), "slot"), amount(sum(n for _, n in plan.outputs))],
            [
                "temporaries",
                counted(len(plan.temporaries), "slot"),
                amount(sum(n for _, n in plan.temporaries)),
            ],
        ]
        lines = ["memory", *columns(rows)]
        at = {slot: position for position, slot in plan.results}
        for slot in dict.fromkeys(slot for _, slot in plan.results):
            positions = [p for p, s in plan.results if s == slot]
            named = ", ".join(f"n{p}" for p in positions)
            why = "" if self.shown.intersection(positions) else ", which a gradient may need"
            lines.append(f"  slot {slot} ({amount(self.sizes[slot])}) is kept for {named}{why}")
        for slot, nbytes in plan.temporaries:
            lines.append(f"  slot {slot} ({amount(nbytes)}) is free again after the run")
        for output, leaf in plan.donations:
            lines.append(f"  n{at[output]} is written over a{leaf} if nobody else holds that")
        return "\n".join(lines)

    def sources(self) -> str:
        """What the backend compiles."""
        parts = [
            f"k{k} source\n{self.backend.emit(kernel, symbol_of(kernel)).rstrip()}"
            for kernel, k in self.kernels.items()
        ]
        for step in self.plan.steps:
            if isinstance(step, OpaqueStep):
                text = getattr(self.nodes[step.position].sig.attrs, "source", "")
                if isinstance(text, str) and text:
                    parts.append(f"n{step.position} source\n{text.strip()}")
        return "\n\n".join(parts)
