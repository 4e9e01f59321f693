"""Values that are computed once and kept, instead of once per phase or once per inner point.

What it is: ``keep_in_outputs``, a rewriting of kernels, and ``invariants``, what the lane schedule may compute ahead.
What it is not: common subexpressions of one loop; ``kernel.scope`` finds those by itself.
Who calls it: ``codegen`` and ``ahead``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from metafuse.kernel.expr import Expr, load, rewrite, walk
from metafuse.kernel.ir import Kernel, Stage

__all__ = ["invariants", "keep_in_outputs"]

#: intrinsics that cost more than a load and a store of their result
_COSTLY = frozenset(
    "div floordiv mod cdiv cmod pow sqrt exp log expm1 log1p sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh "
    "atanh erf uniform".split()
)


def _costly(root: Expr) -> set[Expr]:
    """The nodes under ``root`` that contain a costly intrinsic."""
    found: set[Expr] = set()
    for node in walk(root):
        if node.op in _COSTLY or any(a in found for a in node.args):
            found.add(node)
    return found


def keep_in_outputs(kernel: Kernel) -> Kernel:
    """Where one phase reduces a costly expression and a later one stores something made from it, as softmax does with
    ``exp``, let the earlier phase store the expression in the output and the later one read it back from cache.

    An output may be the memory of an input. So this is done only if nothing else is read after the first store. What else is
    made from the expression reads it before the output gets its own value.
    """
    for number, stage in enumerate(kernel.stages):
        if stage.kind == "store" and stage.level == "inner" and kernel.inner:
            kept = _kept(kernel, number, stage)
            if kept is not None:
                return kept
    return kernel


def _kept(kernel: Kernel, number: int, store: Stage) -> Kernel | None:
    touched = sum(s.buffer == store.buffer for s in kernel.stages)
    loaded = {node.value for s in kernel.stages for node in s.loads}
    if touched != 1 or store.buffer in loaded or store.offset is None or _loads(store.offset):
        return None
    dtype = kernel.buffers[store.buffer].dtype
    earlier: dict[Expr, int] = {}
    for stage in kernel.stages:
        if stage.kind == "reduce" and stage.phase < store.phase:
            for node in walk(stage.expr):
                earlier[node] = min(stage.phase, earlier.get(node, stage.phase))
    costly = _costly(store.expr)
    for expression in reversed(list(walk(store.expr))):  # the largest first
        if expression in costly and expression.dtype is dtype and expression in earlier:
            return _with_store(kernel, number, expression, earlier[expression])
    return None


def _loads(root: Expr) -> bool:
    return any(node.op == "load" for node in walk(root))


def _with_store(kernel: Kernel, number: int, expression: Expr, phase: int) -> Kernel | None:
    store = kernel.stages[number]
    assert store.offset is not None
    back = load(store.buffer, expression.dtype, store.offset)
    stages: list[Stage] = []
    late = number  # the last stage of the output's phase that reads what is kept
    for k, stage in enumerate(kernel.stages):
        if stage.phase > phase:
            again = rewrite(stage.expr, lambda node: back if node == expression else None)
            others = [root for root in (stage.offset, stage.condition) if root is not None]
            left = any(
                n.op == "load" and n.value != store.buffer for root in (again, *others) for n in walk(root)
            )
            reads = back in set(walk(again))
            if left or (reads and (stage.level == "outer" or stage.phase > store.phase)):
                return None
            late = k if reads and k > late else late
            stage = replace(stage, expr=again)
        stages.append(stage)
    stages.insert(late, stages.pop(number))
    stages.append(Stage("store", "inner", expression, phase, buffer=store.buffer, offset=store.offset))
    buffers = list(kernel.buffers)
    buffers[store.buffer] = replace(buffers[store.buffer], reads=True)
    return replace(kernel, stages=tuple(stages), buffers=tuple(buffers))


def invariants(kernel: Kernel, roots: Iterable[Expr], inner: Collection[int]) -> list[Expr]:
    """The largest costly parts of ``roots`` that are the same for all points of the ``inner`` axes but not for all lanes."""
    found: dict[Expr, None] = {}
    for root in roots:
        fixed: dict[Expr, bool] = {}
        for node in walk(root):
            own = not (node.op == "axis" and node.value in inner)
            own = own and not (node.op == "load" and kernel.buffers[node.value].writes)
            fixed[node] = own and all(fixed[a] for a in node.args)
        costly = _costly(root)
        stack = [root]
        while stack:
            node = stack.pop()
            if not fixed[node]:
                stack.extend(node.args)
            elif node in costly and any(part.op in ("axis", "value") for part in walk(node)):
                found[node] = None
    return list(found)
