"""Hand-written kernels and arrays in a backend's memory, for the tests of the runtime.

What it is: helpers of ``conftest`` and of the tests. What it is not: a code generator; the kernels here are written by hand.
"""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from metafuse.backend.contract import Call, Step, host_bytes
from metafuse.dtypes import float32, int64
from metafuse.kernel.ir import BufferParam, Kernel

#: out[i] = x[i] * scalars[0].f + scalars[1].i, one unit per element, two units per grain
AXPY = """
extern "C" {
#ifndef RUNTIME_KIT_SCALAR
#define RUNTIME_KIT_SCALAR
union Scalar { double f; long long i; };
#endif
void SYMBOL(void** buffers, const long long* sizes, const Scalar* scalars, long long begin, long long end) {
    const float* x = (const float*)buffers[0];
    float* out = (float*)buffers[1];
    for (long long k = begin; k < end; ++k) out[k] = x[k] * (float)scalars[0].f + (float)scalars[1].i;
}
long long SYMBOL_units(const long long* sizes) { return sizes[0]; }
extern const long long SYMBOL_grain;
const long long SYMBOL_grain = 2;
}
"""


def axpy_kernel() -> Kernel:
    """The IR's outside of ``AXPY``; its stages are not needed to launch it."""
    return Kernel(1, 0, (BufferParam(float32), BufferParam(float32, True, False)), 1, (float32, int64), ())


class Table:
    """Arrays in a backend's memory; freed at the end of the test."""

    def __init__(self, backend) -> None:
        self.backend = backend
        self.handles: list[int] = []
        self.arrays: list[np.ndarray] = []

    def add(self, array: np.ndarray) -> int:
        """Copy ``array`` to a new buffer; answers its slot."""
        handle = self.backend.alloc(max(array.nbytes, 1))
        self.backend.copy_in(handle, host_bytes(np.ascontiguousarray(array)))
        self.handles.append(handle)
        self.arrays.append(array)
        return len(self.handles) - 1

    def get(self, slot: int) -> np.ndarray:
        """What is in a buffer now."""
        result = np.empty_like(self.arrays[slot])
        self.backend.copy_out(host_bytes(result), self.handles[slot])
        return result

    def free(self) -> None:
        for handle in self.handles:
            self.backend.free(handle)


def step(axpy, *calls: tuple[int, int, int]) -> Step:
    """A step of ``AXPY`` calls, each (slot of x, slot of out, elements), with scalars 0 and 1 of the table."""
    kernel, loaded = axpy
    return Step(kernel, loaded, tuple(Call((x, out), (n,), (0, 1), n) for x, out, n in calls))


def wait(child: int, seconds: float) -> int:
    """The exit code of a child; it is killed if it hangs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1
