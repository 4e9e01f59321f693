"""An SGD step with momentum and weight decay on the parameters of a ResNet-18, against PyTorch's fused-by-list one.

    python benchmarks/bench_optimizer.py

The update of all parameters is one launch. Gradients are given; only the update is measured.
"""

from __future__ import annotations

import sys

import harness

OPTIONS = harness.start(__doc__ or "", runs=25, seconds=12)

import numpy as np  # noqa: E402
import torch  # noqa: E402

import metafuse as mf  # noqa: E402
from metafuse.runtime.kernels import statistics  # noqa: E402


def shapes() -> list[tuple[int, ...]]:
    """Convolution weights and batch-norm vectors of a ResNet-18: 60 tensors with the classifier's."""
    found: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,)]
    before = 64
    for width in (64, 128, 256, 512):
        for block in range(2):
            found += [(width, before, 3, 3), (width,), (width,), (width, width, 3, 3), (width,), (width,)]
            if before != width and block == 0:
                found += [(width, before, 1, 1), (width,), (width,)]
            before = width
    return [*found, (1000, 512)]


def main() -> int:
    random = np.random.default_rng(0)
    start = [0.1 * random.standard_normal(s).astype(np.float32) for s in shapes()]
    slopes = [0.1 * random.standard_normal(s).astype(np.float32) for s in shapes()]
    parameters = [mf.array(a).start_grad() for a in start]
    gradients = [mf.array(a).stop_grad() for a in slopes]
    optimizer = mf.optim.SGD(parameters, 0.01, 0.9, 1e-4)
    others = [torch.nn.Parameter(torch.from_numpy(a.copy())) for a in start]
    for p, g in zip(others, slopes, strict=True):
        p.grad = torch.from_numpy(g)
    foreach = torch.optim.SGD(others, 0.01, momentum=0.9, weight_decay=1e-4, foreach=True)

    def ours() -> None:
        optimizer.param_groups[0]["grads"] = list(gradients)
        optimizer.step()

    def theirs() -> None:
        foreach.step()

    for _ in range(3):
        ours()
        theirs()
    problem = harness.agree(parameters, others)
    names = harness.kernels(ours)
    theirs()
    count = sum(a.size for a in start)
    print(f"{harness.machine(OPTIONS)}; {len(start)} tensors, {count / 1e6:.1f} million float32\n")
    table = harness.Table("SGD with momentum and weight decay", "PyTorch foreach", OPTIONS)
    plans = statistics.plans
    table.row("one update of all parameters", ours, theirs, target=1.5, problem=problem, names=names)
    problem = harness.agree(parameters, others)
    print(f"\nlaunches per step: {len(names)}; programs planned while measuring: {statistics.plans - plans}; "
          f"parameters {'still agree' if not problem else 'DIFFER: ' + problem}")  # fmt: skip
    return int(table.failed > 0 or bool(problem) or len(names) != 1)


if __name__ == "__main__":
    sys.exit(main())
