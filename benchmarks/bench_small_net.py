"""A training step of a small perceptron, where Python costs more than the arithmetic, against PyTorch eager and compiled.

    python benchmarks/bench_small_net.py [--peers eager,compile] [--batch-size 32] [--profile]

64-128-128-10, cross-entropy, SGD with momentum: forward, backward and update. metafuse runs it as the loop is written and with
``metafuse.compile``. All sides start from the same weights, and losses and weights of the first steps must agree.
``--profile`` prints where the time of metafuse goes instead.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
from collections.abc import Callable
from typing import Any

import harness

OPTIONS = harness.start(
    __doc__ or "",
    runs=41,
    seconds=20,
    peers={"default": "eager,compile", "help": "ways to run PyTorch"},
    batch_size={"type": int, "default": 32, "help": "rows per step"},
    profile={"action": "store_true", "help": "where metafuse spends its time, in Python's profiler"},
)

import numpy as np  # noqa: E402
import torch  # noqa: E402

import metafuse as mf  # noqa: E402
from metafuse import nn  # noqa: E402

WIDTHS = (64, 128, 128, 10)
RATE, MOMENTUM = 0.01, 0.9
#: the project's own: the plain loop as fast as eager PyTorch, the compiled step three times
TARGETS = {("loop", "eager"): 1.0, ("compile", "eager"): 3.0}


class Perceptron(nn.Module):
    def __init__(self) -> None:
        self.first, self.second, self.third = (
            nn.Linear(a, b) for a, b in zip(WIDTHS, WIDTHS[1:], strict=False)
        )

    def execute(self, x: Any) -> Any:
        return self.third(nn.relu(self.second(nn.relu(self.first(x)))))


def weights() -> list[Any]:
    random = np.random.default_rng(0)
    shapes = [s for a, b in zip(WIDTHS, WIDTHS[1:], strict=False) for s in ((b, a), (b,))]
    return [(random.standard_normal(s) * 0.1).astype(np.float32) for s in shapes]


def ours(images: Any, labels: Any, compiled: bool) -> tuple[Callable[[], Any], list[Any]]:
    """(step, parameters) of metafuse."""
    net = Perceptron()
    net.load_state_dict(dict(zip((name for name, _ in net.named_parameters()), weights(), strict=True)))
    optimizer = nn.SGD(net.parameters(), RATE, MOMENTUM)
    x, y = mf.array(images), mf.array(labels.astype(np.int32))

    def step(x: Any, y: Any) -> Any:
        loss = nn.cross_entropy_loss(net(x), y)
        optimizer.step(loss)
        return loss

    call = mf.compile(step) if compiled else step
    return lambda: call(x, y), net.parameters()


def theirs(images: Any, labels: Any, compiled: bool) -> tuple[Callable[[], Any], list[Any]]:
    """(step, parameters) of PyTorch."""
    layers = [torch.nn.Linear(a, b) for a, b in zip(WIDTHS, WIDTHS[1:], strict=False)]
    net = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
    with torch.no_grad():
        for p, value in zip(net.parameters(), weights(), strict=True):
            p.copy_(torch.from_numpy(value))
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM)
    model = torch.compile(net) if compiled else net
    x, y = torch.from_numpy(images), torch.from_numpy(labels)

    def step() -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return torch.compile(step) if compiled else step, list(net.parameters())


def profile(step: Callable[[], Any], calls: int = 2000) -> None:
    for _ in range(20):
        step()
    seen = cProfile.Profile()
    seen.enable()
    for _ in range(calls):
        step()
    seen.disable()
    pstats.Stats(seen).sort_stats("tottime").print_stats(25)


def main() -> int:
    random = np.random.default_rng(1)
    images = random.standard_normal((OPTIONS.extra.batch_size, WIDTHS[0])).astype(np.float32)
    labels = random.integers(0, WIDTHS[-1], OPTIONS.extra.batch_size)
    if OPTIONS.extra.profile:
        for compiled in (False, True):
            profile(ours(images, labels, compiled)[0])
        return 0
    print(f"{harness.machine(OPTIONS)}; batches of {OPTIONS.extra.batch_size}, float32\n")
    failed = 0
    for peer in OPTIONS.extra.peers.split(","):
        title = f"A step of a small perceptron, against PyTorch {peer}"
        table = harness.Table(title, f"PyTorch {peer}", OPTIONS, unit="us")
        for kind in ("loop", "compile"):  # each comparison starts from the same weights
            step, parameters = ours(images, labels, kind == "compile")
            other, other_parameters = theirs(images, labels, peer == "compile")
            losses, other_losses = [step() for _ in range(10)], [other() for _ in range(10)]
            table.row(
                "plain loop" if kind == "loop" else "metafuse.compile",
                step,
                other,
                problem=harness.agree([*losses, *parameters], [*other_losses, *other_parameters]),
                target=TARGETS.get((kind, peer)),
                names=harness.kernels(step),
                repeat=20,
            )
        failed += table.failed
        print()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
