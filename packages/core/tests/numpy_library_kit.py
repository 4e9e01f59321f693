"""A backend whose library is NumPy: the ability ``SupportsLibraryOps`` spelled out, for tests of the passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from metafuse.backend.library import (
    LibraryCall,
    LibraryOp,
    LibraryPlan,
    Operand,
    PostOp,
    SupportsLibraryOps,
)
from metafuse.reference.backend import ReferenceBackend
from metafuse.testing.library import contraction, post_operation, strided

Array = np.ndarray[Any, Any]


def read(memory: Array, operand: Operand) -> Array:
    """The operand's values in float64; ``memory`` is bytes."""
    return operand.dtype.decode(strided(memory.view(operand.dtype.storage), operand)).astype(np.float64)


def interpret(op: LibraryOp, memories: Sequence[Array]) -> None:
    """Run ``op`` on the bytes of its buffers, in the order of ``LibraryOp``."""
    rest = list(memories[3:])
    second = read(memories[1], op.second)
    if op.scale:
        scale = (
            rest.pop(0)
            .view(np.float32)[: op.result.shape[1 if op.kind != "matmul" else -1]]
            .astype(np.float64)
        )
        second = second * (scale if op.kind == "matmul" else scale.reshape(-1, *[1] * (second.ndim - 1)))
    value = contraction(op, read(memories[0], op.first), second)
    operands = [read(m, o) for m, o in zip(rest, op.operands, strict=True)]
    for post in op.post:
        value = post_operation(value, post, operands[post.operand] if post.operand >= 0 else None)
    dtype = op.result.dtype
    strided(memories[2].view(dtype.storage), op.result)[...] = dtype.encode(value.astype(dtype.numpy))


class LibraryBackend(ReferenceBackend, SupportsLibraryOps):
    """Counts what it runs; ``packed`` counts runs in which a constant operand was packed anew."""

    name = "numpy-library"

    def __init__(self, refused: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.ops: list[LibraryOp] = []
        self.refused = refused
        self.packed = 0

    def takes(self, op: LibraryOp) -> bool:
        return op.kind not in self.refused

    def takes_post(self, op: LibraryOp, post: PostOp, operand: Operand | None) -> bool:
        return f"post {post.kind}" not in self.refused

    def library_plan(self, op: LibraryOp) -> LibraryPlan | None:
        if f"late {op.kind}" in self.refused:
            return None
        return LibraryPlan({}, 64, 100 if op.constant else 0, "numpy")

    def launch_library(self, call: LibraryCall, handles: Sequence[Any], changed: bool) -> None:
        op, kept = call.op, call.plan.loaded
        self.ops.append(op)
        memories = [handles[s] for s in call.slots]
        if op.constant:
            if changed:
                self.packed += 1
                kept[1] = memories[1].copy()
                kept[3] = memories[3].copy() if op.scale else None
            memories[1] = kept[1]
            if op.scale:
                memories[3] = kept[3]
        assert handles[call.scratch].size >= 64
        interpret(op, memories)
