"""Graphs as text for Graphviz.

What it is: ``graph_dot``, the recorded operators behind some values as a ``dot`` graph, and the writer that module graphs share.
What it is not: a picture: ``dot -Tsvg`` or any viewer makes one.
Who calls it: users, as ``metafuse.debug.graph_dot``; ``tracer``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..arguments import checked
from ..errors import DTypeError
from ..graph.node import Node
from ..var import Var
from .text import origin

__all__ = ["dot_text", "graph_dot"]

#: nodes that are drawn at most
LIMIT = 2000


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def dot_text(nodes: Iterable[tuple[str, str, str]], edges: Iterable[tuple[str, str, str]]) -> str:
    """A directed graph. ``nodes``: (name, label, shape); ``edges``: (from, to, label).

    Example:
        >>> print(dot_text([("a", "A", "box"), ("b", "B", "box")], [("a", "b", "")]))
        digraph {
          node [fontname="monospace", fontsize=10];
          "a" [label="A", shape=box];
          "b" [label="B", shape=box];
          "a" -> "b";
        }
    """
    lines = ["digraph {", '  node [fontname="monospace", fontsize=10];']
    lines += [f"  {_quoted(name)} [label={_quoted(label)}, shape={shape}];" for name, label, shape in nodes]
    for begin, end, label in edges:
        lines.append(f"  {_quoted(begin)} -> {_quoted(end)}{f' [label={_quoted(label)}]' if label else ''};")
    return "\n".join([*lines, "}"])


@checked
def graph_dot(values: Var | Sequence[Var], limit: int = LIMIT) -> str:
    r"""The operators behind ``values``, down to stored arrays, in the language of Graphviz. Runs nothing.

    Args:
        values: a Var or several.
        limit: how many nodes are drawn at most; the youngest are.

    Example:
        >>> import metafuse as mf
        >>> x = mf.ones(3).name("x").sync()
        >>> text = mf.debug.graph_dot((x * 2).exp())
        >>> [line.split('"')[3] for line in text.splitlines() if "label" in line]
        ['x\\nfloat32[3]', 'multiply\\nfloat32[3]', 'exp\\nfloat32[3]']
    """
    wanted = [values] if isinstance(values, Var) else list(values)
    for k, v in enumerate(wanted):
        if not isinstance(v, Var):
            raise DTypeError(f"[graph_dot] values[{k}] must be a Var, got {type(v).__name__}")
    found: set[Node] = set()
    stack = [v._node for v in wanted]
    while stack:
        node = stack.pop()
        if node in found:
            continue
        found.add(node)
        if node.buffer is None:
            stack.extend(node.inputs)
    nodes = sorted(found, key=lambda n: n.order)[-limit:]
    name = {node: f"n{k}" for k, node in enumerate(nodes)}
    drawn = []
    for node in nodes:
        var = node.handle() if node.handle is not None else None
        own = var.name() if var is not None and var._node is node else ""
        stored = node.buffer is not None
        label = "\n".join([own or ("array" if stored else node.sig.name), repr(node.spec)])
        drawn.append((name[node], label, "box" if stored else "ellipse"))
    edges = [
        (name[x], name[node], "") for node in nodes if node.buffer is None for x in node.inputs if x in name
    ]
    return dot_text(drawn, edges) + "".join(
        f"\n// {name[n]}: {origin(n)}" for n in nodes if n.origin is not None
    )
