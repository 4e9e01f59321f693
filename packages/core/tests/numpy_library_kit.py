"""A backend whose library is NumPy: the ability ``SupportsLibraryOps`` spelled out, for tests of the passes.

``interpret`` is the meaning of a ``LibraryOp`` in float64; the oracle of real libraries, too.
"""

from __future__ import annotations

import itertools
import math
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

Array = np.ndarray[Any, Any]


def strided(memory: Array, operand: Operand) -> Array:
    """The operand as a view of the elements in ``memory``."""
    steps = tuple(s * memory.itemsize for s in operand.strides)
    return np.lib.stride_tricks.as_strided(memory, operand.shape, steps)


def contract(op: LibraryOp, first: Array, second: Array) -> Array:
    """The contraction itself, in float64."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    if op.kind == "matmul":
        return np.matmul(first, second)
    shape = op.result.shape
    weight_shape = shape if op.kind == "convolution_weight" else second.shape
    image_shape = shape if op.kind == "convolution_data" else first.shape
    kernel, spatial = weight_shape[2:], image_shape[2:]
    outer = (
        shape if op.kind == "convolution" else (second if op.kind == "convolution_weight" else first).shape
    )
    pads = [(max(before, 0), max(after, 0)) for before, after in op.padding]
    room = [n + before + after for n, (before, after) in zip(spatial, pads, strict=True)]
    padded = np.zeros((*image_shape[:2], *room))
    inside = tuple(slice(b, b + n) for n, (b, _) in zip(spatial, pads, strict=True))
    if op.kind != "convolution_data":
        padded[(slice(None), slice(None), *inside)] = first
    result = np.zeros(shape if op.kind != "convolution_data" else padded.shape)
    outs, ins = weight_shape[0] // op.groups, weight_shape[1]
    for tap in itertools.product(*(range(k) for k in kernel)):
        window = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, n, s in zip(tap, op.dilation, outer[2:], op.stride, strict=True)
        )
        for g in range(op.groups):
            rows, cols = slice(g * outs, (g + 1) * outs), slice(g * ins, (g + 1) * ins)
            if op.kind == "convolution":
                result[:, rows] += np.einsum(
                    "nc...,oc->no...", padded[(slice(None), cols, *window)], second[(rows, slice(None), *tap)]
                )
            elif op.kind == "convolution_data":
                result[(slice(None), cols, *window)] += np.einsum(
                    "no...,oc->nc...", first[:, rows], second[(rows, slice(None), *tap)]
                )
            else:
                axes = [0, *range(2, first.ndim)]
                result[(rows, slice(None), *tap)] += np.tensordot(
                    second[:, rows], padded[(slice(None), cols, *window)], (axes, axes)
                )
    return result[(slice(None), slice(None), *inside)] if op.kind == "convolution_data" else result


def finish(op: LibraryOp, value: Array, operands: Sequence[Array]) -> Array:
    """Apply ``op.post``."""
    for post in op.post:
        value = _apply(post, value, operands[post.operand] if post.operand >= 0 else 0.0)
    return value


def _apply(post: PostOp, v: Array, other: Any) -> Array:
    a, b = post.alpha, post.beta
    erf = np.vectorize(math.erf)
    kinds = {
        "add": lambda: v + other,
        "sub": lambda: v - other,
        "mul": lambda: v * other,
        "max": lambda: np.maximum(v, other),
        "min": lambda: np.minimum(v, other),
        "linear": lambda: a * v + b,
        "relu": lambda: np.where(v > 0, v, a * v),
        "clip": lambda: np.clip(v, a, b),
        "sigmoid": lambda: 1 / (1 + np.exp(-v)),
        "tanh": lambda: np.tanh(v),
        "swish": lambda: v / (1 + np.exp(-a * v)),
        "gelu_erf": lambda: v * 0.5 * (1 + erf(v / 2**0.5)),
    }
    result: Array = kinds[post.kind]()
    return result


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
    value = contract(op, read(memories[0], op.first), second)
    value = finish(op, value, [read(m, o) for m, o in zip(rest, op.operands, strict=True)])
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
        self._second: dict[int, Array] = {}

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
