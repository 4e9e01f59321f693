"""Level "memory", second half: the methods for code and time, called directly with a kernel made by hand.

What it is: the promises of ``backend.contract`` that operators alone would not show: equal kernels give equal text,
compiling is safe in several threads, a binary can be loaded more than once, one step may hold several calls.
What it is not: operators.
Who calls it: ``suite``.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ...backend.contract import Call, Step, host_bytes
from ...dtypes import float32
from ...errors import CompileError
from ...kernel import spec
from ...kernel.expr import Expr, axis, call, load
from ...kernel.ir import BufferParam, Kernel, Stage
from ...runtime.buffer import Buffer
from ..errors import ConformanceError
from ..kit import Kit, level

__all__ = [
    "test_code_is_pure", "test_one_step_with_several_calls", "test_reads_come_before_writes",
    "test_rejected_code_leaves_no_trace",
]  # fmt: skip


def axpy() -> Kernel:
    """``y[i] = x[i] * c + y[i]``: one axis, two buffers, one run-time number."""
    x, y, i = load(0, float32, axis(0)), load(1, float32, axis(0)), axis(0)
    value = call("add", call("mul", x, Expr("scalar", (), float32, 0)), y)
    stage = Stage("store", "outer", value, 0, buffer=1, offset=i)
    kernel = Kernel(
        1, 0, (BufferParam(float32), BufferParam(float32, True, True)), 1, (float32,), (stage,), None, "axpy"
    )
    spec.verify(kernel)
    return kernel


def _upload(kit: Kit, values: np.ndarray) -> Buffer:
    buffer = Buffer(kit.backend, values.nbytes)
    kit.backend.copy_in(buffer.handle, host_bytes(values))
    return buffer


def _download(kit: Kit, buffer: Buffer, count: int) -> np.ndarray:
    values = np.zeros(count, np.float32)
    kit.backend.synchronize()
    kit.backend.copy_out(host_bytes(values), buffer.handle)
    return values


def _run(kit: Kit, loaded: Any, lengths: tuple[int, ...], factor: float) -> None:
    """One step with a call per length, checked."""
    random = kit.random("contract", lengths)
    xs = [random.uniform(-1, 1, n).astype(np.float32) for n in lengths]
    ys = [random.uniform(-1, 1, n).astype(np.float32) for n in lengths]
    buffers = [_upload(kit, v) for v in (*xs, *ys)]
    calls = tuple(Call((k, k + len(lengths)), (n,), (1,), n) for k, n in enumerate(lengths))
    kit.backend.launch(Step(axpy(), loaded, calls), [b.handle for b in buffers], [7.0, factor])
    for k, n in enumerate(lengths):
        got, expected = _download(kit, buffers[k + len(lengths)], n), xs[k] * factor + ys[k]
        if not np.allclose(got, expected, rtol=1e-5, atol=1e-6):
            at = int(np.argmax(np.abs(got - expected)))
            raise ConformanceError(
                f"[launch] call {k} of {len(lengths)}, float32[{n}] on {kit.name}: element {at} is {got[at]}, expected "
                f"{expected[at]}"
            )


@level("memory")
def test_code_is_pure(conformance: Kit) -> None:
    """Emit, compile in four threads at once, load one binary twice: all of them run."""
    backend = conformance.backend
    texts = {backend.emit(axpy(), "conformance_axpy") for _ in range(2)}
    if len(texts) != 1:
        raise ConformanceError(f"[emit] on {conformance.name}: equal kernels gave different texts")
    (text,) = texts
    with ThreadPoolExecutor(4) as pool:
        binaries = list(pool.map(lambda _: backend.compile([text]), range(4)))
    for binary in binaries:
        if not isinstance(binary, bytes):
            raise ConformanceError(
                f"[compile] on {conformance.name}: answers bytes, got {type(binary).__name__}"
            )
    for binary in (*binaries, binaries[0]):
        loaded = backend.load(binary, {"conformance_axpy": axpy()})
        if set(loaded) != {"conformance_axpy"}:
            raise ConformanceError(
                f"[load] on {conformance.name}: asked for conformance_axpy, got {sorted(loaded)}"
            )
        _run(conformance, loaded["conformance_axpy"], (67,), 2.5)


@level("memory")
def test_one_step_with_several_calls(conformance: Kit) -> None:
    """Calls of one step differ in buffers and sizes; several kernels share a module."""
    backend = conformance.backend
    texts = [backend.emit(axpy(), f"conformance_{k}") for k in range(3)]
    loaded = backend.load(backend.compile(texts), {f"conformance_{k}": axpy() for k in range(3)})
    for k in range(3):
        _run(conformance, loaded[f"conformance_{k}"], (1, 64, 130, 7)[: k + 2], -0.5 - k)


@level("memory")
def test_rejected_code_leaves_no_trace(conformance: Kit) -> None:
    """Text that is no code raises CompileError; afterwards everything works as before."""
    backend = conformance.backend
    text = backend.emit(axpy(), "conformance_axpy")
    try:
        backend.compile([text, "this is (no code in any language"])
    except CompileError:
        pass
    except Exception as error:
        raise ConformanceError(
            f"[compile] on {conformance.name}: {type(error).__name__} instead of CompileError"
        ) from error
    else:
        raise ConformanceError(f"[compile] on {conformance.name}: accepted a text that is no code")
    loaded = backend.load(backend.compile([text]), {"conformance_axpy": axpy()})
    _run(conformance, loaded["conformance_axpy"], (5,), 1.5)


@level("memory")
def test_reads_come_before_writes(conformance: Kit) -> None:
    """Two results of one kernel, the first of which stands where an argument of the second was."""
    backend = conformance.backend
    x, y, i = load(0, float32, axis(0)), load(1, float32, axis(0)), axis(0)
    scaled = call("mul", x, Expr("scalar", (), float32, 0))
    stages = (
        Stage("store", "outer", scaled, 0, buffer=2, offset=i),
        Stage("store", "outer", call("sub", x, y), 0, buffer=3, offset=i),
    )
    read, written = BufferParam(float32), BufferParam(float32, True, False)
    kernel = Kernel(1, 0, (read, read, written, written), 1, (float32,), stages, None, "two_results")
    spec.verify(kernel)
    source = backend.emit(kernel, "conformance_two")
    loaded = backend.load(backend.compile([source]), {"conformance_two": kernel})["conformance_two"]
    for length in (5, 64, 1003):
        a, b = (
            conformance.random("reads", length, k).uniform(-1, 1, length).astype(np.float32) for k in (0, 1)
        )
        first, second, result = (
            _upload(conformance, a),
            _upload(conformance, b),
            _upload(conformance, np.zeros_like(a)),
        )
        one = Call((0, 1, 1, 2), (length,), (0,), length)
        backend.launch(Step(kernel, loaded, (one,)), [first.handle, second.handle, result.handle], [0.5])
        for what, buffer, expected in (("x * 0.5 over y", second, a * 0.5), ("x - y", result, a - b)):
            got = _download(conformance, buffer, length)
            if not np.allclose(got, expected, rtol=1e-6, atol=1e-7):
                at = int(np.argmax(np.abs(got - expected)))
                raise ConformanceError(
                    f"[launch] {what}, float32[{length}] on {conformance.name}: element {at} is {got[at]}, expected "
                    f"{expected[at]}; stages at one point read before any of them writes (see kernel.ir)"
                )
