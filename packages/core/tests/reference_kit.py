"""Kernels by hand, run through the whole backend contract and, one point at a time, by the definition of the IR."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from metafuse.backend.contract import Call, Step, host_bytes
from metafuse.dtypes import DType, float32, int64
from metafuse.kernel import host
from metafuse.kernel.expr import Expr, add, axis, const, mul
from metafuse.kernel.ir import IDENTITY as identity
from metafuse.kernel.ir import REDUCTIONS, BufferParam, Kernel, Stage
from metafuse.reference.backend import ReferenceBackend

Array = np.ndarray[Any, Any]


def size(slot: int) -> Expr:
    return Expr("size", (), int64, slot)


def scalar(slot: int, dtype: DType) -> Expr:
    return Expr("scalar", (), dtype, slot)


def value(number: int, dtype: DType = float32) -> Expr:
    return Expr("value", (), dtype, number)


def reading(*dtypes: DType) -> tuple[BufferParam, ...]:
    return tuple(BufferParam(d) for d in dtypes)


def writing(dtype: DType) -> BufferParam:
    return BufferParam(dtype, writes=True, reads=False)


def run(
    kernel: Kernel, buffers: list[Array], sizes: tuple[int, ...], scalars: tuple[float, ...] = ()
) -> list[Array]:
    """Through the whole contract: emit, compile, load, launch; answers the buffers afterwards."""
    backend = ReferenceBackend()
    binary = backend.compile([backend.emit(kernel, "k")])
    loaded = backend.load(binary, {"k": kernel})["k"]
    handles = []
    for array in buffers:
        handles.append(backend.alloc(max(array.nbytes, 1)))
        backend.copy_in(handles[-1], host_bytes(np.ascontiguousarray(array)))
    call = Call(tuple(range(len(buffers))), sizes, tuple(range(len(scalars))), 1)
    backend.launch(Step(kernel, loaded, (call,)), handles, scalars)
    backend.synchronize()
    results = [np.empty(array.shape, array.dtype) for array in buffers]
    for result, handle in zip(results, handles, strict=True):
        backend.copy_out(host_bytes(result), handle)
    return results


# -- the definition, one point at a time --------------------------------------------------------------------------
def interpret(
    kernel: Kernel, buffers: list[Array], sizes: tuple[int, ...], scalars: tuple[float, ...] = ()
) -> list[Array]:
    """The program in the docstring of ``kernel.ir``, literally."""
    flats = [array.copy().reshape(-1) for array in buffers]
    outer, inner = sizes[: kernel.outer], sizes[kernel.outer : kernel.outer + kernel.inner]

    def evaluate(root: Expr, point: tuple[int, ...], values: dict[int, Any]) -> Any:
        done: dict[Expr, Any] = {}

        def of(node: Expr) -> Any:
            if node not in done:
                done[node] = compute(node)
            return done[node]

        def compute(node: Expr) -> Any:
            kind = node.dtype.numpy.type
            if node.op == "const":
                return kind(node.value)
            if node.op == "axis":
                return np.int64(point[node.value])
            if node.op == "size":
                return np.int64(sizes[node.value])
            if node.op == "scalar":
                return kind(scalars[node.value])
            if node.op == "value":
                return values[node.value]
            if node.op == "load":
                if len(node.args) == 3 and not of(node.args[1]):
                    return of(node.args[2])
                assert of(node.args[0]) >= 0
                return flats[node.value][of(node.args[0])]
            return host.apply(node.op, *(of(a) for a in node.args), dtype=node.dtype)[()]

        return of(root)

    def fold(op: str, a: Any, b: Any, dtype: DType) -> Any:
        intrinsic = REDUCTIONS[op]
        return b if intrinsic is None else host.apply(intrinsic, a, b, dtype=dtype)[()]

    for outer_point in itertools.product(*map(range, outer)):
        values: dict[int, Any] = {}
        for phase in sorted({s.phase for s in kernel.stages}):
            for stage in kernel.stages:
                if stage.phase == phase and stage.kind == "reduce":
                    values[stage.result] = stage.expr.dtype.numpy.type(identity(stage.op, stage.expr.dtype))
            for level, points in (("inner", itertools.product(*map(range, inner))), ("outer", [()])):
                for inner_point in points:
                    point = outer_point + tuple(inner_point)
                    writes: list[tuple[Stage, Any, Any]] = []
                    for stage in kernel.stages:
                        if stage.phase != phase or stage.level != level:
                            continue
                        if stage.condition is not None and not evaluate(stage.condition, point, values):
                            continue
                        result = evaluate(stage.expr, point, values)
                        if stage.kind == "reduce":
                            values[stage.result] = fold(
                                stage.op, values[stage.result], result, stage.expr.dtype
                            )
                        elif stage.kind == "let":
                            values[stage.result] = result
                        else:
                            assert stage.offset is not None
                            writes.append((stage, evaluate(stage.offset, point, values), result))
                    for stage, where, result in writes:
                        if stage.kind == "scatter":
                            result = fold(stage.op, flats[stage.buffer][where], result, stage.expr.dtype)
                        flats[stage.buffer][where] = result
    return [flat.reshape(array.shape) for flat, array in zip(flats, buffers, strict=True)]


def check(
    kernel: Kernel, buffers: list[Array], sizes: tuple[int, ...], scalars: tuple[float, ...] = ()
) -> list[Array]:
    """Run it and compare with the definition."""
    got, want = run(kernel, buffers, sizes, scalars), interpret(kernel, buffers, sizes, scalars)
    for a, b in zip(got, want, strict=True):
        if a.dtype.kind == "f":
            tolerance = {2: 1e-2, 4: 1e-5, 8: 1e-12}[a.dtype.itemsize]
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(a, b)
    return got


def row_major(*slots: int) -> Expr:
    """Offset ``sum of size[slot] * axis``, one slot per axis."""
    offset = const(0)
    for number, slot in enumerate(slots):
        offset = add(offset, mul(axis(number), size(slot)))
    return offset
