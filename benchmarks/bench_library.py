"""Contractions through oneDNN alone: ResNet-50's convolutions one after another, on our threads and on OpenMP's.

    python benchmarks/bench_library.py [--batches 1 16] [--kernels]

Not a comparison with another framework: it says what the library needs for the sums alone, so that whatever a network needs
beyond that is known to be ours. With ``--kernels`` a generated kernel follows each convolution and reads its result, as in a
network: that is where two sets of threads get into each other's way. Every line is a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import harness

OPTIONS = harness.start(
    __doc__ or "",
    runs=40,
    seconds=8,
    batches={"type": int, "nargs": "+", "default": [1, 16], "help": "images at once"},
    kernels={"action": "store_true", "help": "a generated kernel after each convolution"},
    inside={"action": "store_true", "help": "measure in this process (used by the script itself)"},
)

#: (channels in, channels out, kernel, extent, stride, how often) of ResNet-50
CONVOLUTIONS = [
    (3, 64, 7, 224, 2, 1), (64, 64, 1, 56, 1, 1), (64, 64, 3, 56, 1, 3), (64, 256, 1, 56, 1, 4), (256, 64, 1, 56, 1, 2),
    (256, 128, 1, 56, 1, 1), (128, 128, 3, 56, 2, 1), (128, 512, 1, 28, 1, 4), (256, 512, 1, 56, 2, 1),
    (512, 128, 1, 28, 1, 3), (128, 128, 3, 28, 1, 3), (512, 256, 1, 28, 1, 1), (256, 256, 3, 28, 2, 1),
    (256, 1024, 1, 14, 1, 6), (512, 1024, 1, 28, 2, 1), (1024, 256, 1, 14, 1, 5), (256, 256, 3, 14, 1, 5),
    (1024, 512, 1, 14, 1, 1), (512, 512, 3, 14, 2, 1), (512, 2048, 1, 7, 1, 3), (1024, 2048, 1, 14, 2, 1),
    (2048, 512, 1, 7, 1, 2), (512, 512, 3, 7, 1, 2),
]  # fmt: skip
KERNEL = """
extern "C" {
union Scalar { double f; long long i; };
void after(void** buffers, const long long*, const Scalar*, long long begin, long long end) {
    const float* x = (const float*)buffers[0];
    float* y = (float*)buffers[1];
    for (long long k = begin; k < end; ++k) y[k] = x[k] * 2.0f + 1.0f;
}
long long after_units(const long long* sizes) { return sizes[0]; }
extern const long long after_grain;
const long long after_grain = 1024;
}
"""


def image(batch: int, channels: int, extent: int) -> object:
    """A channels last operand."""
    from metafuse.backend.library import Operand
    from metafuse.dtypes import float32

    strides = (extent * extent * channels, 1, extent * channels, channels)
    return Operand(float32, (batch, channels, extent, extent), strides)


class Chain:
    """All convolutions as one program, with bias and relu, and perhaps a kernel after each."""

    def __init__(self, backend, batch: int, kernels: bool) -> None:
        self.backend, self.handles, self.steps, self.flops = backend, [], [], 0
        loaded = self.kernel() if kernels else None
        for taken, made, window, extent, stride, often in CONVOLUTIONS:
            steps = self.convolution(batch, taken, made, window, extent, stride, loaded)
            self.steps += steps * often
            out = (extent + stride - 1) // stride
            self.flops += 2 * often * batch * taken * made * window**2 * out**2
        self.program = backend.prepare(self.steps, "")
        backend.run(self.program, self.handles, (), True)

    def kernel(self) -> tuple[object, object]:
        from metafuse.dtypes import float32
        from metafuse.kernel.ir import BufferParam, Kernel

        kernel = Kernel(1, 0, (BufferParam(float32), BufferParam(float32, True, False)), 1, (), ())
        return kernel, self.backend.load(self.backend.compile([KERNEL]), {"after": kernel})["after"]

    def memory(self, count: int) -> int:
        handle = self.backend.alloc(count)
        self.backend.host_view(handle, count)[:] = 0
        self.handles.append(handle)
        return len(self.handles) - 1

    def convolution(self, batch, taken, made, window, extent, stride, loaded) -> list[object]:
        from metafuse.backend.contract import Call, Step
        from metafuse.backend.library import LibraryCall, LibraryOp, Operand, PostOp
        from metafuse.dtypes import float32

        pad, out = window // 2, (extent + stride - 1) // stride
        area = window * window
        weight = Operand(float32, (made, taken, window, window), (taken * area, area, window, 1))
        bias = Operand(float32, (1, made, 1, 1), (0, 1, 0, 0))
        sides = ((pad, pad), (pad, pad))
        op = LibraryOp(
            "convolution", image(batch, taken, extent), weight, image(batch, made, out), 1, (stride,) * 2, (1, 1),
            sides, operands=(bias,), post=(PostOp("add", 0), PostOp("relu")), constant=True,
        )  # fmt: skip
        plan = self.backend.library_plan(op)
        count = batch * made * out * out
        sizes = (batch * taken * extent**2, made * taken * area, count, made)
        slots = tuple(self.memory(4 * size) for size in sizes)
        scratch = self.memory(plan.scratch_bytes) if plan.scratch_bytes else -1
        steps: list[object] = [LibraryCall(op, plan, slots, scratch)]
        if loaded is not None:
            target = self.memory(4 * count)
            steps.append(Step(*loaded, (Call((slots[2], target), (count,), (), count),)))
        return steps

    def run(self) -> None:
        self.backend.run(self.program, self.handles, (), False)


def best(run, runs: int, seconds: float) -> float:
    """The shortest of so many runs."""
    times, end = [], time.perf_counter() + seconds
    while len(times) < runs and time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)


def inside(batch: int) -> None:
    """One line of the table."""
    from metafuse_backend_cpu.backend import CpuBackend

    backend = CpuBackend()
    chain = Chain(backend, batch, OPTIONS.extra.kernels)
    seconds = best(chain.run, OPTIONS.runs, OPTIONS.seconds)
    rate = chain.flops / seconds / 1e9
    print(f"| {batch} | {backend.about_library()} | {seconds * 1e3:.1f} ms | {rate:.0f} GFLOP/s |")


def main() -> int:
    if OPTIONS.extra.inside:
        inside(OPTIONS.extra.batches[0])
        return 0
    what = "53 convolutions" + (", a kernel after each" if OPTIONS.extra.kernels else "")
    print(
        f"{harness.machine(OPTIONS)}; float32; {what}\n\n| batch | library | best | rate |\n|---|---|---|---|"
    )
    for batch in OPTIONS.extra.batches:
        for setting in ("", "openmp"):
            command = [sys.executable, str(Path(__file__)), "--inside", "--batches", str(batch)]
            command += ["--threads", str(OPTIONS.threads), "--runs", str(OPTIONS.runs)]
            command += ["--seconds", str(OPTIONS.seconds), *["--kernels"] * OPTIONS.extra.kernels]
            done = subprocess.run(
                command,
                env={**os.environ, "METAFUSE_ONEDNN": setting},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                print(done.stderr, file=sys.stderr)
                return done.returncode
            print(done.stdout.splitlines()[0], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
