"""The null backend: it computes nothing and counts everything."""

from __future__ import annotations

import numpy as np
import pytest

from metafuse.backend.contract import Call, Step, host_bytes
from metafuse.dtypes import float32
from metafuse.errors import BackendError
from metafuse.kernel.expr import axis, call, const, load
from metafuse.kernel.ir import BufferParam, Kernel, Stage
from metafuse.null import plugin
from metafuse.null.backend import NullBackend


def kernel(constant: float = 1.0) -> Kernel:
    x = load(0, float32, axis(0))
    stages = (
        Stage("reduce", "inner", call("mul", x, const(constant, float32)), 0, op="add", result=0),
        Stage("store", "outer", x, 0, buffer=1, offset=axis(0)),
    )
    return Kernel(1, 1, (BufferParam(float32), BufferParam(float32, True, False)), 2, (float32,), stages)


def test_it_counts() -> None:
    backend = NullBackend()
    binary = backend.compile([backend.emit(kernel(), "a"), backend.emit(kernel(2.0), "b")])
    loaded = backend.load(binary, {"a": kernel(), "b": kernel(2.0)})
    handles = [backend.alloc(16), backend.alloc(8)]
    backend.copy_in(handles[0], host_bytes(np.ones(4, np.float32)))
    calls = (Call((0, 1), (2, 2), (0,), 4), Call((0, 1), (1, 2), (0,), 2))
    backend.launch(Step(kernel(), loaded["a"], calls), handles, [0.5])
    backend.synchronize()
    target = np.ones(2, np.float32)
    backend.copy_out(host_bytes(target), handles[1])
    backend.free(handles[1])
    assert target.tolist() == [0, 0]
    c = backend.counters
    assert (c.kernels, c.compilations, c.loads, c.launches, c.calls, c.synchronizations) == (2, 1, 1, 1, 2, 1)
    assert (c.allocations, c.live_bytes, c.peak_bytes, c.bytes_in, c.bytes_out) == (2, 16, 24, 16, 8)
    backend.reset()
    assert (backend.counters.kernels, backend.counters.live_bytes, backend.counters.peak_bytes) == (0, 16, 16)


def test_the_text_is_canonical() -> None:
    backend = NullBackend()
    assert backend.emit(kernel(), "k") == backend.emit(kernel(), "k")
    assert backend.emit(kernel(), "k") != backend.emit(kernel(2.0), "k")


def test_misuse_is_noticed() -> None:
    backend = NullBackend()
    handle = backend.alloc(4)
    with pytest.raises(BackendError, match="8 bytes do not fit the 4 bytes"):
        backend.copy_in(handle, host_bytes(np.zeros(2, np.float32)))
    backend.free(handle)
    with pytest.raises(BackendError, match="used after free"):
        backend.free(handle)
    with pytest.raises(BackendError, match="not a null module"):
        backend.load(b"\xff", {})
    with pytest.raises(BackendError, match="has no z"):
        backend.load(backend.compile([backend.emit(kernel(), "a")]), {"z": kernel()})


def test_descriptor() -> None:
    (descriptor,) = plugin.metafuse_backends()
    assert (descriptor.name, descriptor.priority, descriptor.probe()) == ("null", -100, None)
    assert isinstance(descriptor.create(), NullBackend)
