"""The graph before the first pass and what each pass made of it: level 3 of ``flags.debug``.

What it is: a printer of every kind of result that a pass answers.
What it is not: a list of passes; it goes by the type of what it is given, so a new pass is shown without a change here.
Who calls it: ``passes.pipeline``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..backend.library import LibraryCall
from ..null.codegen import emit
from ..passes.contraction import Match
from ..passes.fuse import Group
from ..passes.lower import LoweredCall
from ..passes.plan import OpaqueStep, ProgramPlan
from ..passes.program_graph import ProgramGraph
from .log import tell
from .text import amount, columns, counted, node_rows

__all__ = ["show_graph", "show_pass"]


def show_graph(graph: ProgramGraph) -> None:
    """The graph of a new program, as recorded."""
    leaves = [_Leaf(spec) for spec in graph.specs[graph.count : graph.count + graph.leaves]]
    rows = [
        ["v" + str(graph.count + k), "array", repr(leaf.spec), "stored", ""] for k, leaf in enumerate(leaves)
    ]
    for k, row in enumerate(node_rows(graph.nodes, [])):
        inputs = ", ".join(f"v{i}" for i in graph.inputs[k])
        rows.append([f"v{k}", row[1], row[2], inputs, row[4]])
    tell("graph", f"new program of {counted(graph.count, 'node')}\n" + "\n".join(columns(rows, "")))


class _Leaf:
    def __init__(self, spec: Any) -> None:
        self.spec = spec


def show_pass(name: str, arguments: Sequence[Any], result: Any, seconds: float) -> None:
    """What pass ``name`` answered, or what it did to the graph among its arguments."""
    lines = _lines(result)
    if not lines:
        graph = next((x for x in arguments if isinstance(x, ProgramGraph)), None)
        if graph is not None:
            lines = ["stored: " + (", ".join(f"v{k}" for k in sorted(graph.stored)) or "nothing")]
    tell("pass " + name, f"{seconds * 1e6:.0f} us\n" + "\n".join(lines))


def _lines(result: Any) -> list[str]:
    if isinstance(result, dict):
        return [
            line for key, value in result.items() if isinstance(value, Match) for line in [_match(key, value)]
        ]
    if isinstance(result, ProgramPlan):
        return _plan(result)
    if isinstance(result, (list, tuple)):
        return [line for k, item in enumerate(result) for line in _item(k, item)]
    return []


def _item(number: int, item: Any) -> list[str]:
    if isinstance(item, Group):
        inner = sorted(item.inner) if item.inner else []
        atoms = ", ".join(f"v{a.number} {a.kind}{' ' + a.op if a.op else ''}" for a, _ in item.atoms)
        return [f"group {number}: {item.kind} over {list(item.extents)}, inner axes {inner}: {atoms}"]
    if isinstance(item, LoweredCall):
        values = ", ".join(f"v{v}" for v in item.values)
        text = emit(item.kernel, item.kernel.name).rstrip("\n").split("\n")
        return [f"call {number}: buffers {values}, sizes {list(item.sizes)}", *("  " + line for line in text)]
    if isinstance(item, list):
        names = [
            f"opaque v{x}" if isinstance(x, int) else x.kernel.name if isinstance(x, LoweredCall) else x.name
            for x in item
        ]
        return [f"launch {number}: {names[0] if names else ''}{f' x {len(names)}' if len(names) > 1 else ''}"]
    return [f"opaque v{item}"] if isinstance(item, int) else []


def _match(number: int, match: Match) -> str:
    roles = match.roles() or ()
    words = ", ".join(
        f"{name} {list(axes)}" for name, axes in zip(("batch", "m", "n", "k"), roles, strict=False)
    )
    return f"v{number} = contraction of v{match.a.source} and v{match.b.source} over {list(match.extents)}: axes {words}"


def _plan(plan: ProgramPlan) -> list[str]:
    lines = [
        f"outputs {amount(sum(n for _, n in plan.outputs))}, temporaries {amount(sum(n for _, n in plan.temporaries))}"
    ]
    for step in plan.steps:
        if isinstance(step, OpaqueStep):
            lines.append(f"opaque v{step.position}: slots {list(step.inputs)} -> {step.output}")
        elif isinstance(step, LibraryCall):
            lines.append(f"library {step.name}: slots {list(step.slots)}, {step.plan.about}")
        else:
            lines.append(
                f"{step.kernel.name}: slots {'; '.join(str(list(call.slots)) for call in step.calls)}"
            )
    lines += [f"slot {output} may take over slot {leaf}" for output, leaf in plan.donations]
    return lines
