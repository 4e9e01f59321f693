"""What compiling costs: new kernels, the same kernels in another process, other sizes.

    python benchmarks/bench_compile.py

Every measurement is a fresh process; "cold" has an empty cache directory, "warm" the one that a cold process has filled.
Cold processes ask the compiler about itself once; that time is a row of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness

CHILD = "METAFUSE_BENCH_COMPILE"


# -- in the child process -----------------------------------------------------------------------------------------
def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def twenty(mf: Any, np: Any) -> list[Any]:
    """Twenty values that need a kernel each: other spaces, and other operators in every one."""
    values = []
    for k in range(20):
        x = mf.array(np.linspace(0.1, 0.9, 64 + k, dtype=np.float32))
        y = x
        for bit in range(5):
            y = y.exp() if k >> bit & 1 else y * x
        values.append(y)
    return values


def child() -> None:
    """Runs everything once and prints seconds and counts as JSON."""
    import numpy as np

    import metafuse as mf
    from metafuse.passes.pipeline import build_plan
    from metafuse.runtime import executor
    from metafuse.runtime.kernels import statistics

    answer: dict[str, float] = {}
    answer["start"] = timed(lambda: executor.device().backend.fingerprint())
    answer["first"] = timed((mf.ones(4) * 2).sync)  # loads the code generator, too
    x = mf.array(np.linspace(0, 1, 1 << 16, dtype=np.float32).reshape(256, 256))
    mf.sync([x])

    def kernel() -> Any:
        return mf.nn.softmax(x * 0.5 + 1, dim=1)

    pending = kernel()
    nodes, leaves, shown, retained = executor.preview([pending._node])
    plan = build_plan(nodes, leaves, shown, executor.device().backend, retained)
    table = executor.device().kernels
    answer["obtain"] = timed(lambda: table.obtain([plan.steps[0].kernel]))
    answer["run"] = timed(pending.sync)
    many = twenty(mf, np)
    before = statistics.compilations + statistics.disk_hits
    answer["twenty"] = timed(lambda: mf.sync(many))
    answer["twenty kernels"] = statistics.compilations + statistics.disk_hits - before
    model = network(mf)
    images, labels = np.zeros((16, 1, 28, 28), np.float32), np.zeros(16, np.int32)
    before = statistics.compilations + statistics.disk_hits
    answer["step"] = timed(lambda: step(mf, *model, images, labels))
    answer["step kernels"] = statistics.compilations + statistics.disk_hits - before
    answer.update(other_sizes(mf, np, statistics))
    answer["compilations"] = statistics.compilations
    print(json.dumps(answer))


def network(mf: Any) -> tuple[Any, Any]:
    """A small network for digits and its optimizer."""
    model = mf.nn.Sequential(
        mf.nn.Conv(1, 8, 3), mf.nn.BatchNorm(8), mf.nn.ReLU(), mf.nn.Pool(2, 2, op="maximum"), mf.nn.Flatten(),
        mf.nn.Linear(8 * 13 * 13, 10),
    )  # fmt: skip
    model.train()
    return model, mf.optim.SGD(model.parameters(), 0.01, 0.9)


def step(mf: Any, model: Any, optimizer: Any, images: Any, labels: Any) -> None:
    optimizer.step(mf.nn.cross_entropy_loss(model(mf.array(images)), mf.array(labels)))


def other_sizes(mf: Any, np: Any, statistics: Any) -> dict[str, float]:
    """New kernels and seconds when one number changes in convolution, pooling and their gradients."""

    def run(batch: int, stride: int, padding: int) -> None:
        x = mf.array(np.ones((batch, 3, 16, 16), np.float32))
        w = mf.array(np.ones((4, 3, 3, 3), np.float32)).start_grad()
        loss = mf.nn.conv2d(x, w, stride=stride, padding=padding).relu().mean()
        mf.grad(loss, w).sync()

    run(4, 2, 1)
    answer: dict[str, float] = {}
    for name, numbers in (("batch size", (7, 2, 1)), ("stride", (4, 3, 1)), ("padding", (4, 2, 2))):
        before = statistics.compilations + statistics.disk_hits
        answer[f"seconds for another {name}"] = timed(lambda n=numbers: run(*n))
        answer[f"new kernels for another {name}"] = statistics.compilations + statistics.disk_hits - before
    return answer


# -- in the parent ------------------------------------------------------------------------------------------------
def run_child(folder: str) -> dict[str, float]:
    environment = dict(os.environ, METAFUSE_CACHE_DIR=folder, **{CHILD: "1"})
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    answer = json.loads(done.stdout)
    answer["process"] = time.perf_counter() - begin
    return answer


def main() -> int:
    options = harness.start(__doc__ or "", runs=5)
    cold: list[dict[str, float]] = []
    warm: list[dict[str, float]] = []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(run_child(str(Path(folder) / "cache")))
            warm.append(run_child(str(Path(folder) / "cache")))
    print(f"{harness.machine(options)}; {options.runs} processes each\n")
    print("### Compilation\n\nms: median (quartiles)\n\n| what | cold | warm | target |\n|---|---|---|---|")
    failed = 0
    rows = (
        ("starting the backend (cold: asking the compiler what it can do)", "start", None, None),
        ("the first kernel of a process, with loading the code generator", "first", None, None),
        ("one new kernel: emit, compile or read, load", "obtain", 0.2, 0.005),
        ("a program of 20 new kernels, planned and run", "twenty", 1.0, None),
        ("the first step of training of a small network", "step", None, None),
        ("the whole process of this benchmark", "process", None, None),
    )
    for text, name, cold_target, warm_target in rows:
        cells, verdicts = [], []
        for label, runs, target in (("cold", cold, cold_target), ("warm", warm, warm_target)):
            sample = harness.Sample([r[name] for r in runs])
            low, high = sample.quartiles
            cells.append(f"{sample.median * 1e3:.4g} ({low * 1e3:.4g}-{high * 1e3:.4g})")
            if target is not None:
                missed = sample.median > target
                failed += missed
                verdicts.append(f"{label} {target * 1e3:g}: {'**missed**' if missed else 'met'}")
        print(f"| {text} | {cells[0]} | {cells[1]} | {'; '.join(verdicts)} |")
    first = cold[0]
    print(f"\nkernels: {first['twenty kernels']:.0f} in the program of 20, {first['step kernels']:.0f} in the step; "
          f"compiled in a warm process: {warm[0]['compilations']:.0f}\n")  # fmt: skip
    print("| another | new kernels | target | ms with planning |\n|---|---|---|---|")
    for name in ("batch size", "stride", "padding"):
        new = max(r[f"new kernels for another {name}"] for r in cold)
        failed += new > 0
        took = harness.Sample([r[f"seconds for another {name}"] for r in cold]).median
        print(f"| {name} | {new:.0f} | 0 {'**missed**' if new else 'met'} | {took * 1e3:.3g} |")
    return int(failed > 0 or first["twenty kernels"] != 20 or warm[0]["compilations"] > 0)


if __name__ == "__main__":
    if os.environ.get(CHILD):
        child()
    else:
        sys.exit(main())
