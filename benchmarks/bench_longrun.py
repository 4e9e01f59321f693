"""Memory over a long run: ten thousand steps of training, and a graph of a hundred thousand operators.

    python benchmarks/bench_longrun.py [--steps 10000]

Nothing is compared with anything: live nodes, buffers and pooled bytes must not change after the first steps, and the
process must not grow by more than a few MiB.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import harness

OPTIONS = harness.start(__doc__ or "", steps={"type": int, "default": 10_000, "help": "steps of training"})

import numpy as np  # noqa: E402

import metafuse as mf  # noqa: E402
from metafuse.graph.node import Node, state  # noqa: E402
from metafuse.runtime import executor  # noqa: E402
from metafuse.runtime.buffer import live_bytes  # noqa: E402
from metafuse.runtime.kernels import statistics  # noqa: E402

#: growth of the process that may be the allocator's or the interpreter's
SLACK = 8 << 20


def resident() -> int:
    """Bytes of this process in memory."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure() -> dict[str, int]:
    """What must stay constant, and the process's size."""
    gc.collect()
    stats = getattr(executor.device().backend, "memory_stats", dict)()
    return {
        "live nodes": sum(type(x) is Node for x in gc.get_objects()),
        "pending handles": len(state.pending),
        "live buffers": live_bytes.count,
        "live bytes": live_bytes.now,
        "pooled bytes": stats.get("bytes_in_use", 0) + stats.get("bytes_cached", 0),
        "programs planned": statistics.plans,
        "resident bytes": resident(),
    }


class Net(mf.nn.Module):
    """Convolution, batch norm with its running statistics, dropout, two dense layers."""

    def __init__(self) -> None:
        self.conv = mf.nn.Conv(1, 4, 3)
        self.norm = mf.nn.BatchNorm(4)
        self.drop = mf.nn.Dropout(0.1)
        self.hidden = mf.nn.Linear(4 * 6 * 6, 32)
        self.out = mf.nn.Linear(32, 10)

    def execute(self, x: mf.Var) -> mf.Var:
        x = mf.nn.relu(self.norm(self.conv(x))).reshape(x.shape[0], -1)
        return self.out(self.drop(mf.nn.relu(self.hidden(x))))


def trainer() -> Callable[[], float]:
    net = Net()
    net.train()
    optimizer = mf.optim.SGD(net.parameters(), 0.01, 0.9, 1e-4)
    random = np.random.default_rng(0)
    images = random.standard_normal((64, 8, 1, 8, 8)).astype(np.float32)
    labels = random.integers(0, 10, (64, 8)).astype(np.int32)
    number = 0

    def step() -> float:
        nonlocal number
        number += 1
        loss = mf.nn.cross_entropy_loss(net(mf.array(images[number % 64])), mf.array(labels[number % 64]))
        optimizer.step(loss)
        return float(loss.item()) if number % 100 == 0 else 0.0

    return step


def long_training(steps: int) -> int:
    step = trainer()
    warm = min(300, steps // 10)
    for _ in range(warm):
        step()
    marks = [(warm, measure())]
    begin = time.perf_counter()
    for part in range(4):
        for _ in range((steps - warm) // 4):
            step()
        marks.append((warm + (part + 1) * ((steps - warm) // 4), measure()))
    took = time.perf_counter() - begin
    print(f"### Training for {steps} steps ({took / (steps - warm) * 1e6:.0f} µs per step)\n")
    print("| after step | " + " | ".join(marks[0][1]) + " |\n|" + "---|" * (1 + len(marks[0][1])))
    for count, values in marks:
        print(f"| {count} | " + " | ".join(str(v) for v in values.values()) + " |")
    first, last = marks[0][1], marks[-1][1]
    problems = [k for k in first if k != "resident bytes" and first[k] != last[k]]
    if last["resident bytes"] - first["resident bytes"] > SLACK:
        problems.append("resident bytes")
    print("\n" + ("**grows: " + ", ".join(problems) + "**" if problems else "constant") + "\n")
    return len(problems)


def long_graph(count: int = 100_000) -> int:
    """Build, run, and release a chain of ``count`` dependent operators; then one with a gradient."""
    print(f"### A chain of {count} operators\n\n| what | seconds |\n|---|---|")
    x = mf.array([0.0, 1.0])
    failed = 0
    for round_name in ("first time", "second time"):
        begin = time.perf_counter()
        y = x
        for _ in range(count):
            y = y + 1.0
        recorded = time.perf_counter()
        right = y.numpy().tolist() == [float(count), float(count + 1)]
        print(f"| record, {round_name} | {recorded - begin:.2f} |")
        print(
            f"| run, {round_name} | {time.perf_counter() - recorded:.2f} {'' if right else '**wrong**'} |",
            flush=True,
        )
        failed += not right
    z = mf.array([1.0]).start_grad()
    y = z
    begin = time.perf_counter()
    for _ in range(count // 4):
        y = y * 1.0
    right = mf.grad(y, z).numpy().tolist() == [1.0]
    print(
        f"| gradient through {count // 4} | {time.perf_counter() - begin:.2f} {'' if right else '**wrong**'} |"
    )
    return failed + (not right)


def main() -> int:
    print(f"{harness.machine(OPTIONS)}\n")
    return int(long_training(OPTIONS.extra.steps) + long_graph() > 0)


if __name__ == "__main__":
    sys.exit(main())
