"""Training a ResNet-18 on two ranks of one core each, against one rank of one core with the same batch.

    python benchmarks/bench_data_parallel.py [--batch 32] [--size 224]

Starts itself three times: alone, on two ranks that send gradients while they compute, and on two ranks that send them at
the end in one piece. The cores differ from run to run in what else they do, so runs are taken in turn. Prints images per
second, the speed-up by passed time and, for a look on a busy machine, by CPU time (in which waiting counts too), and how much
of the time of communication is hidden behind computing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

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
    if os.environ.get("BENCH_RANK"):
        return rank(given)
    kinds = {
        "one rank": (1, {}),
        "two ranks, sent early": (2, {}),
        "two ranks, sent at the end": (2, {"METAFUSE_DIST_BUCKET_BYTES": str(1 << 30)}),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    for _ in range(given.turns):
        for name, (ranks, more) in kinds.items():
            found[name].append(run(ranks, more))
    alone = statistics.median(f["step"] for f in found["one rank"])
    print(
        f"ResNet-18, batch {given.batch}, {given.size} x {given.size}, {given.turns} runs of {given.steps} steps\n"
    )
    print(
        "| | images/s | speed-up | by CPU time | sending alone | waiting | hidden |\n|---|---|---|---|---|---|---|"
    )
    best = 0.0
    for name, runs in found.items():
        step = statistics.median(f["step"] for f in runs)
        speedup = statistics.median(
            o["step"] / f["step"] for o, f in zip(found["one rank"], runs, strict=True)
        )
        by_cpu = statistics.median(o["cpu"] / f["cpu"] for o, f in zip(found["one rank"], runs, strict=True))
        cells = f"| {name} | {given.batch / step:.1f} | {speedup:.2f} | {by_cpu:.2f} |"
        if runs[0]["sending"]:
            sending, waiting = (statistics.median(f[k] for f in runs) for k in ("sending", "waiting"))
            cells += (
                f" {sending * 1e3:.0f} ms | {waiting * 1e3:.0f} ms | {max(0.0, 1 - waiting / sending):.0%} |"
            )
            best = max(best, speedup)
        else:
            cells += " - | - | - |"
        print(cells)
    print(f"\none step alone: {alone * 1e3:.0f} ms; target: speed-up {TARGET}, reached {best:.2f}")
    return int(best < TARGET)


def run(ranks: int, more: dict[str, str]) -> dict[str, float]:
    """One run; answers what rank 0 found."""
    environment = {
        **os.environ,
        **more,
        "BENCH_RANK": "1",
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
    return json.loads(done.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]


def rank(given: argparse.Namespace) -> int:
    """Train, and tell what it took."""
    import numpy as np

    import metafuse as mf
    from metafuse import nn
    from metafuse.dist import buckets
    from metafuse_models import resnet18

    if mf.world_size == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    mf.set_global_seed(1)
    net = resnet18()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm):
            part.sync = False  # its own cost is measured elsewhere; here gradients alone are sent
    optimizer = nn.SGD(net.parameters(), 0.01, momentum=0.9)
    random = np.random.default_rng(0)
    x = random.standard_normal((given.batch, 3, given.size, given.size)).astype(np.float32)
    y = random.integers(0, 1000, given.batch)
    data = mf.data.TensorDataset(x, y).set_attrs(batch_size=given.batch, endless=True)
    times, used = [], []
    for number, (images, labels) in enumerate(data):
        if number == 3:
            buckets.statistics.packing = buckets.statistics.waiting = 0.0
        started, before = time.perf_counter(), time.process_time()
        optimizer.step(nn.cross_entropy_loss(net(images), labels))
        if number >= 3:
            times.append(time.perf_counter() - started)
            used.append(time.process_time() - before)
        if len(times) == given.steps:
            break
    told = {
        "step": statistics.median(times),
        "cpu": statistics.median(used),
        "waiting": buckets.statistics.waiting / given.steps,
        "sending": 0.0,
    }
    if mf.in_mpi:
        gradients = np.zeros(sum(p.numel() for p in net.parameters() if p.requires_grad), np.float32)
        alone = []
        for _ in range(5):
            mf.dist.barrier()
            started = time.perf_counter()
            mf.dist.world().all_reduce(gradients, gradients, "add")
            alone.append(time.perf_counter() - started)
        told["sending"] = statistics.median(alone)
    if mf.rank == 0:
        print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
