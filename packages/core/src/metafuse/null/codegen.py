"""A kernel as canonical text: equal kernels have equal texts, and a person can read them.

What it is: ``emit``; every distinct node of an expression is one line, stages follow in the order they run.
What it is not: executable.
Who calls it: ``null.backend``, and whoever wants to look at a kernel.
"""

from __future__ import annotations

from ..kernel.expr import Expr, walk
from ..kernel.ir import Kernel, Stage

__all__ = ["emit"]


def emit(kernel: Kernel, symbol: str) -> str:
    """The text of ``kernel``.

    Example:
        >>> from metafuse.dtypes import float32
        >>> from metafuse.kernel.expr import axis, call, load
        >>> from metafuse.kernel.ir import BufferParam
        >>> negated = call("neg", load(0, float32, axis(0)))
        >>> buffers = (BufferParam(float32), BufferParam(float32, writes=True, reads=False))
        >>> stage = Stage("store", "inner", negated, 0, buffer=1, offset=axis(0))
        >>> print(emit(Kernel(1, 0, buffers, 1, (), (stage,)), "k"))
        kernel k: 1 outer axes, 0 inner axes, 1 sizes
          buffers: r float32, w float32
          phase 0 inner
            t0 = int64 axis 0
            t1 = float32 load 0 (t0)
            t2 = float32 neg (t1)
            store t2 buffer=1 offset=t0
        <BLANKLINE>
    """
    lines = [f"kernel {symbol}: {kernel.outer} outer axes, {kernel.inner} inner axes, {kernel.sizes} sizes"]
    modes = [f"{'r' * b.reads}{'w' * b.writes} {b.dtype}" for b in kernel.buffers]
    lines.append(f"  buffers: {', '.join(modes)}")
    if kernel.scalars:
        lines.append(f"  scalars: {', '.join(map(str, kernel.scalars))}")
    if kernel.serial:
        lines.append(f"  serial: {kernel.serial}")
    if kernel.contraction is not None:
        lines.append(f"  contraction: {kernel.contraction}")
    names: dict[Expr, str] = {}
    for phase in sorted({stage.phase for stage in kernel.stages}):
        for level in ("inner", "outer"):
            stages = [stage for stage in kernel.stages if (stage.phase, stage.level) == (phase, level)]
            if stages:
                lines.append(f"  phase {phase} {level}")
            for stage in stages:
                lines += [f"    {line}" for line in _stage(stage, names)]
    return "\n".join(lines) + "\n"


def _stage(stage: Stage, names: dict[Expr, str]) -> list[str]:
    parts = {"": stage.expr, "offset": stage.offset, "condition": stage.condition}
    lines: list[str] = []
    for root in parts.values():
        lines += _definitions(root, names) if root is not None else []
    words = [stage.kind, *([stage.op] if stage.op else []), names[stage.expr]]
    words += [
        f"{name}={number}"
        for name, number in (("result", stage.result), ("buffer", stage.buffer))
        if number >= 0
    ]
    words += [f"{name}={names[root]}" for name, root in parts.items() if name and root is not None]
    return [*lines, " ".join(words)]


def _definitions(root: Expr, names: dict[Expr, str]) -> list[str]:
    lines = []
    for node in walk(root):
        if node in names:
            continue
        payload = "" if node.value is None else f" {node.value!r}"
        args = f" ({', '.join(names[a] for a in node.args)})" if node.args else ""
        names[node] = f"t{len(names)}"
        lines.append(f"{names[node]} = {node.dtype} {node.op}{payload}{args}")
    return lines
