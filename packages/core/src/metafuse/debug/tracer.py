"""What a network consists of and what flows through it: calls of modules with shapes, as text or as a graph.

What it is: ``trace_module``, which calls a module and notes every call of a module below it; ``fill_module_name``.
What it is not: a list of operators (``explain``, ``graph_dot``) or of times (``profile_scope``).
Who calls it: users, as ``metafuse.debug.trace_module``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..arguments import checked
from ..errors import DTypeError
from ..graph.node import Node, next_order, state
from ..nn.module import Module
from ..var import Var
from .graphs import dot_text
from .text import columns, counted

__all__ = ["ModuleCall", "ModuleTrace", "fill_module_name", "trace_module"]


@checked
@dataclass
class ModuleCall:
    """One call: ``name`` is the module's path (empty for the one that was traced), ``kind`` its class, ``inputs`` and ``outputs``
    the specs of its Vars as text, ``operators`` how many operators it recorded itself, outside of calls below it."""

    name: str
    kind: str
    depth: int
    inputs: list[str]
    outputs: list[str] = field(default_factory=list)
    parameters: int = 0
    operators: int = 0
    #: numbers of the calls without calls below them, and of inputs (negative), that the inputs were computed from
    sources: list[int] = field(default_factory=list)
    leaf: bool = True


@checked
class ModuleTrace:
    """The calls in order, and what the traced module answered. Printed, a table; ``dot()`` is a graph of data for Graphviz."""

    def __init__(self, calls: list[ModuleCall], inputs: list[str], sources: list[int], result: Any) -> None:
        self.calls = calls
        self.inputs = inputs
        self.result = result
        self._sources = sources  # of the result

    def __str__(self) -> str:
        rows = [["module", "class", "inputs", "outputs", "parameters", "operators"]]
        for call in self.calls:
            name = "  " * call.depth + (call.name.rpartition(".")[2] or "(the module)")
            row = [name, call.kind, ", ".join(call.inputs), ", ".join(call.outputs)]
            rows.append([*row, str(call.parameters), str(call.operators)])
        total = self.calls[0].parameters if self.calls else 0
        return "\n".join(
            [*columns(rows, ""), f"{counted(len(self.calls), 'call')}, {total} parameters in all"]
        )

    def dot(self) -> str:
        """Modules without modules below them, in the order of the data; what lies between them is an edge."""
        nodes = [(f"in{k}", f"input {k}\n{spec}", "oval") for k, spec in enumerate(self.inputs)]
        edges = []
        for k, call in enumerate(self.calls):
            if not call.leaf:
                continue
            nodes.append((f"m{k}", f"{call.name}\n{call.kind}\n{', '.join(call.outputs)}", "box"))
            edges += [(_place(source), f"m{k}", "") for source in call.sources]
        nodes.append(("out", "result", "oval"))
        edges += [(_place(source), "out", "") for source in self._sources]
        return dot_text(nodes, edges)


def _place(source: int) -> str:
    return f"m{source}" if source >= 0 else f"in{-1 - source}"


def _vars(value: Any) -> Iterator[Var]:
    """The Vars in nested lists, tuples and dicts, each of which is looked into once."""
    stack = [value]
    seen: set[int] = set()
    while stack:
        item = stack.pop()
        if isinstance(item, Var):
            yield item
        elif isinstance(item, (list, tuple, dict)) and id(item) not in seen:
            seen.add(id(item))
            stack.extend(reversed(list(item.values()) if isinstance(item, dict) else item))


class _Tracer:
    """The state of one trace. ``made``: node -> the call that answered it."""

    def __init__(self, module: Module, inputs: list[Var]) -> None:
        self.names = {id(m): name for name, m in module.named_modules()}
        self.calls: list[ModuleCall] = []
        self.path: list[ModuleCall] = []
        self.inner: list[int] = []  # per call of the path: numbers that calls below it have used up
        self.made: dict[Node, int] = {x._node: -1 - k for k, x in enumerate(inputs)}
        self.held: list[Var] = list(inputs)  # so that no node is freed and another takes its place

    def call(self, module: Module, args: tuple[Any, ...], kw: dict[str, Any], original: Any) -> Any:
        """One call of a module: note it, and what it answers."""
        given = list(_vars([args, kw]))
        number = len(self.calls)
        made = ModuleCall(
            self.names.get(id(module), ""), type(module).__name__, len(self.path), [repr(v._node.spec) for v in given],
            parameters=sum(int(p.numel()) for p in module.parameters()), sources=self.sources(given),
        )  # fmt: skip
        if self.path:
            self.path[-1].leaf = False
        self.calls.append(made)
        self.path.append(made)
        begin = next_order()
        self.inner.append(0)
        try:
            answer = original(module, *args, **kw)
        finally:
            self.path.pop()
            inner = self.inner.pop()
        end = next_order()
        made.operators = end - begin - 1 - inner
        if self.inner:
            self.inner[-1] += end - begin + 1
        results = list(_vars(answer))
        made.outputs = [repr(v._node.spec) for v in results]
        self.held += results
        if made.leaf:
            self.made.update((v._node, number) for v in results if v._node not in self.made)
        return answer

    def sources(self, values: list[Var]) -> list[int]:
        """The calls, or inputs, that values come from, through any operators in between."""
        found: dict[int, None] = {}
        seen: set[Node] = set()
        stack = [v._node for v in reversed(values)]
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in self.made:
                found[self.made[node]] = None
            else:
                stack.extend(node.inputs)
        return list(found)


@checked
def trace_module(module: Module, *args: Any, **kw: Any) -> ModuleTrace:
    """Call ``module(*args, **kw)`` and note every call of it and of the modules below it.

    Nothing is evaluated for it. Operators are counted where they are recorded, with flags as they are.

    Example:
        >>> import metafuse as mf
        >>> net = mf.nn.Sequential(mf.nn.Linear(4, 8), mf.nn.ReLU(), mf.nn.Linear(8, 2))
        >>> trace = mf.debug.trace_module(net, mf.ones(3, 4))
        >>> [(call.name, call.kind, call.outputs) for call in trace.calls[1:]]
        [('0', 'Linear', ['float32[3,8]']), ('1', 'ReLU', ['float32[3,8]']), ('2', 'Linear', ['float32[3,2]'])]
        >>> [line.strip() for line in trace.dot().splitlines() if "->" in line]
        ['"in0" -> "m1";', '"m1" -> "m2";', '"m2" -> "m3";', '"m3" -> "out";']
    """
    if not isinstance(module, Module):
        raise DTypeError(f"[trace_module] module must be a Module, got {type(module).__name__}")
    inputs = list(_vars([args, kw]))
    tracer = _Tracer(module, inputs)
    original = Module.__call__

    def call(own: Module, *own_args: Any, **own_kw: Any) -> Any:
        return tracer.call(own, own_args, own_kw, original)

    limit = state.limit
    Module.__call__ = call  # type: ignore[method-assign,assignment]
    state.limit = max(limit, 1 << 62)  # what is evaluated forgets where it came from
    try:
        result = module(*args, **kw)
    finally:
        Module.__call__ = original  # type: ignore[method-assign]
        state.limit = limit
    specs = [repr(v._node.spec) for v in inputs]
    return ModuleTrace(tracer.calls, specs, tracer.sources(list(_vars(result))), result)


@checked
def fill_module_name(m: Module, name: str) -> None:
    """Write its path into every module below ``m``, as the attribute ``_module_name``, beginning with ``name``.

    Example:
        >>> import metafuse as mf
        >>> net = mf.nn.Sequential(mf.nn.Linear(4, 8), mf.nn.ReLU())
        >>> mf.debug.fill_module_name(net, "net")
        >>> net[1]._module_name
        'net.1'
    """
    if not isinstance(m, Module):
        raise DTypeError(f"[fill_module_name] m must be a Module, got {type(m).__name__}")
    for path, module in m.named_modules():
        module.__dict__["_module_name"] = f"{name}.{path}" if path else name
