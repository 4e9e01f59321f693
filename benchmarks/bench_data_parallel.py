"""Training a ResNet-18 on two ranks of one core each, against one rank of one core with the same batch.

    python benchmarks/bench_data_parallel.py [--batch 32] [--size 224]

Starts itself in turn, since what else the cores do differs from time to time:

* alone on one core;
* on two cores with half the batch each and no communication at all, which shows what cores that share memory leave to be had;
* on two ranks whose sums are made in memory that both see, and by MPI as between machines; there also with all gradients
  sent at the end in one piece.

Prints images per second, the speed-up by passed time and, for a look on a busy machine, by CPU time (in which waiting counts
too), the time that the communication of a step takes without computing and within a step, and the share that is hidden
behind computing. On one machine communication is work of the ranks' own cores, so that only waiting for one another can be
hidden.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

TARGET = 1.8


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--batch", type=int, default=32, help="images per step, of all ranks together")
    parser.add_argument("--size", type=int, default=224, help="height and width of images")
    parser.add_argument("--steps", type=int, default=5, help="steps of each run that are timed")
    parser.add_argument("--turns", type=int, default=3, help="runs of each kind")
    return parser.parse_args()


def main() -> int:
    given = options()
    if os.environ.get("BENCH_RANKS"):
        return rank(given)
    by_mpi = {"METAFUSE_DIST_SHARED_MEMORY": "0"}
    kinds: dict[str, tuple[int, dict[str, str]]] = {
        "one rank": (1, {}),
        "two that do not communicate": (2, {"METAFUSE_DISTRIBUTION": "none"}),
        "two ranks, shared memory": (2, {}),
        "two ranks, MPI": (2, by_mpi),
        "two ranks, MPI, at the end": (2, {**by_mpi, "METAFUSE_DIST_BUCKET_BYTES": str(1 << 30)}),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    for _ in range(given.turns):
        for name, (ranks, more) in kinds.items():
            found[name].append(run(ranks, more))
    alone = statistics.median(f["step"] for f in found["one rank"])
    print(
        f"ResNet-18, batch {given.batch}, {given.size} x {given.size}, {given.turns} runs of {given.steps} steps\n"
    )
    print("| | images/s | speed-up | by CPU time | communicating alone | within a step | hidden |")
    print("|---|---|---|---|---|---|---|")
    best = 0.0
    for name, runs in found.items():
        step = statistics.median(f["step"] for f in runs)
        speedup = statistics.median(
            o["step"] / f["step"] for o, f in zip(found["one rank"], runs, strict=True)
        )
        by_cpu = statistics.median(o["cpu"] / f["cpu"] for o, f in zip(found["one rank"], runs, strict=True))
        cells = f"| {name} | {given.batch / step:.1f} | {speedup:.2f} | {by_cpu:.2f} |"
        if runs[0]["sending"]:
            sending, within = (statistics.median(f[k] for f in runs) for k in ("sending", "within"))
            cells += (
                f" {sending * 1e3:.1f} ms | {within * 1e3:.1f} ms | {max(0.0, 1 - within / sending):.0%} |"
            )
            best = max(best, speedup)
        else:
            cells += " - | - | - |"
        print(cells)
    print(f"\none step alone: {alone * 1e3:.0f} ms; target: speed-up {TARGET}, reached {best:.2f}")
    return int(best < TARGET)


def run(ranks: int, more: dict[str, str]) -> dict[str, float]:
    """One run; answers what the slowest rank found, and the communication of the one that waited least."""
    environment = {
        **os.environ,
        **more,
        "BENCH_RANKS": str(ranks),
        "METAFUSE_DIST_CHECK": "0",  # as it is after a hundred calls
        "OMP_NUM_THREADS": "1",
        "METAFUSE_NUM_THREADS": "1",
    }
    start = (
        [sys.executable, "-m", "metafuse", "launch", "-n", str(ranks), "--threads", "1"]
        if ranks > 1
        else [sys.executable]
    )
    done = subprocess.run(
        [*start, __file__, *sys.argv[1:]], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {**max(told, key=lambda f: f["step"]), "within": min(f["within"] for f in told)}


def rank(given: argparse.Namespace) -> int:
    """Train, and tell what it took."""
    import numpy as np

    import metafuse as mf
    from metafuse import nn
    from metafuse.dist import buckets
    from metafuse_models import resnet18

    if int(os.environ["BENCH_RANKS"]) == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    mf.set_global_seed(1)
    net = resnet18()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm):
            part.sync = False  # its own cost is measured elsewhere; here gradients alone are sent
    optimizer = nn.SGD(net.parameters(), 0.01, momentum=0.9)
    random = np.random.default_rng(0)
    alone = mf.world_size == 1 and int(os.environ["BENCH_RANKS"]) > 1
    batch = given.batch // int(os.environ["BENCH_RANKS"]) if alone else given.batch
    x = random.standard_normal((batch, 3, given.size, given.size)).astype(np.float32)
    y = random.integers(0, 1000, batch)
    data = mf.data.TensorDataset(x, y).set_attrs(batch_size=batch, endless=True)
    times, used, within = [], [], []
    for number, (images, labels) in enumerate(data):
        before = buckets.statistics.seconds
        started, cpu = time.perf_counter(), time.process_time()
        optimizer.step(nn.cross_entropy_loss(net(images), labels))
        if number >= 3:
            times.append(time.perf_counter() - started)
            used.append(time.process_time() - cpu)
            within.append(buckets.statistics.seconds - before)
        if len(times) == given.steps:
            break
    told = {
        "step": statistics.median(times),
        "cpu": statistics.median(used),
        "within": statistics.median(within),
    }
    told["sending"] = communicating([p for p in net.parameters() if p.requires_grad]) if mf.in_mpi else 0.0
    print(json.dumps(told) + "\n", end="", flush=True)
    return 0


def communicating(gradients: list[Any]) -> float:
    """Seconds that the communication of a step takes when nothing is computed beside it."""
    import metafuse as mf
    from metafuse.dist import buckets

    mf.sync(gradients)
    times = []
    for _ in range(5):
        mf.dist.barrier()
        started = time.perf_counter()
        with mf.no_grad():
            mf.sync(buckets.summed(gradients))
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
