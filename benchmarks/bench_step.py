"""A whole training step (forward, backward, SGD with momentum) of the digits network, against PyTorch eager.

    python benchmarks/bench_step.py [--batch-size 64] [--profile]

The network of ``examples/mnist``. ``--profile`` prints the time of every kernel instead, launched one by one.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import harness

OPTIONS = harness.start(
    __doc__ or "",
    runs=15,
    seconds=20,
    batch_size={"type": int, "default": 64, "help": "images per step"},
    profile={"action": "store_true", "help": "time per kernel of metafuse"},
)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

import metafuse as mf  # noqa: E402
from metafuse.debug import record_launches  # noqa: E402


def example() -> Any:
    """The example's module, for its network."""
    path = Path(__file__).parent.parent / "examples" / "mnist" / "train.py"
    spec = importlib.util.spec_from_file_location("mnist_example", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def peer() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2, 2),
        nn.Flatten(), nn.Linear(64 * 12 * 12, 256), nn.ReLU(), nn.Linear(256, 10),
    )  # fmt: skip


def profile(step: Any, steps: int = 5) -> None:
    """Time per kernel: the best of ``steps`` steps."""
    rows: dict[int, list[Any]] = defaultdict(list)
    for _ in range(steps):
        with record_launches() as launches:
            step()
        for number, launch in enumerate(launches):
            rows[number].append(launch)
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    whole = (time.perf_counter() - begin) / steps
    total = sum(min(x.seconds for x in found) for found in rows.values())
    print("| launch | kernel | calls | ms | share | GB/s | points |\n|---|---|---|---|---|---|---|")
    for number, found in rows.items():
        best = min(found, key=lambda x: x.seconds)
        print(f"| {number} | {best.name} | {best.calls} | {best.seconds * 1e3:.3f} | {best.seconds / total:.1%} "
              f"| {best.nbytes / best.seconds / 1e9:.1f} | {best.elements} |")  # fmt: skip
    print(f"\nkernels {total * 1e3:.2f} ms; a step as it normally runs {whole * 1e3:.2f} ms")


def main() -> int:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    size = OPTIONS.extra.batch_size
    images = random.random((size, 1, 28, 28), dtype=np.float32)
    labels = random.integers(0, 10, size)
    other = peer()
    ours = example().Model()
    ours.train()
    trained = [
        p for p in ours.parameters() if p.requires_grad
    ]  # running statistics are no parameters in PyTorch
    for mine, theirs in zip(trained, other.parameters(), strict=True):
        mine.update(theirs.detach().numpy().reshape(mine.shape)).start_grad()
    optimizer = mf.nn.SGD(ours.parameters(), 0.05, 0.9, 1e-4)
    torch_optimizer = torch.optim.SGD(other.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    small = labels.astype(np.int32)
    losses: list[float] = [0.0, 0.0]

    def step() -> None:
        loss = mf.nn.cross_entropy_loss(ours(mf.array(images)), mf.array(small))
        optimizer.step(loss)
        losses[0] = float(loss.item())

    def torch_step() -> None:
        torch_optimizer.zero_grad()
        loss = nn.functional.cross_entropy(other(x), y)
        loss.backward()
        torch_optimizer.step()
        losses[1] = float(loss.detach())

    print(f"{harness.machine(OPTIONS)}; batches of {size}, float32\n")
    for _ in range(2):
        step()
        torch_step()
    problem = harness.agree(np.float32(losses[0]), np.float32(losses[1]), 1e-3)
    if OPTIONS.extra.profile:
        profile(step)
        return 0
    table = harness.Table("A training step of the digits network", "PyTorch", OPTIONS)
    names = harness.kernels(step)
    torch_step()
    table.row(f"batch {size}", step, torch_step, problem=problem, names=names)
    return int(table.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
