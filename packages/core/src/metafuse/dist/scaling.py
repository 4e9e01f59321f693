"""How long a data parallel step would take on many ranks: formulas, and a simulation of buckets.

What it is: the time of an all-reduce by three algorithms from latency and bandwidth, and a step in which gradients are sent in
buckets while the backward pass goes on::

    python -m metafuse.dist.scaling --bytes 44.7e6 --seconds 0.4 --latency 20e-6 --bandwidth 1.1e9 --ranks 2 8 64

What it is not: measured; ``docs/scaling.md`` compares it with what was.
Who calls it: users who plan, and the generator of that page.

Source: Thakur, Rabenseifner and Gropp, "Optimization of collective communication operations in MPICH", IJHPCA 2005.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2

__all__ = ["NETWORKS", "WAYS", "Network", "Work", "all_reduce_seconds", "rows", "step_seconds"]

#: algorithms of all-reduce
WAYS = ("ring", "halving", "tree")


@dataclass(frozen=True)
class Network:
    """``latency``: seconds of an empty message; ``bandwidth``: bytes per second and direction; ``adding``: bytes that a rank
    adds per second."""

    title: str
    latency: float
    bandwidth: float
    adding: float = 8e9


@dataclass(frozen=True)
class Work:
    """What every rank does in a step: ``seconds`` of computing, of which ``backward`` is the part in which gradients become known
    one after another, and ``nbytes`` of gradients, sent in buckets of ``bucket`` bytes."""

    seconds: float
    nbytes: float
    bucket: float = 8 << 20
    backward: float = 2 / 3


NETWORKS = (
    Network("10 Gbit/s Ethernet, 30 us", 30e-6, 1.1e9),
    Network("100 Gbit/s InfiniBand, 2 us", 2e-6, 11e9),
)
#: ResNet-50 in float32, one image-batch per rank that takes half a second
RESNET50 = Work(0.5, 102.2e6)
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def all_reduce_seconds(ranks: int, nbytes: float, network: Network, way: str = "ring") -> float:
    """Time to sum ``nbytes`` over ``ranks``.

    ring: ``2 (p-1) a + 2 (p-1)/p n/b + (p-1)/p n/c``; halving and doubling: ``2 log2(p) a`` in place of the first term; tree (a
    reduction and a broadcast): ``log2(p) (2 a + 2 n/b + n/c)``; with latency a, bandwidth b, adding c, logarithms rounded up.

    Example:
        >>> round(all_reduce_seconds(2, 1e9, Network("", 0.0, 1e9, 1e12)), 3)
        1.0
    """
    if ranks < 2:
        return 0.0
    rounds = ceil(log2(ranks))
    if way == "tree":
        return rounds * (2 * network.latency + 2 * nbytes / network.bandwidth + nbytes / network.adding)
    if way not in WAYS:
        raise ValueError(f"[scaling] way must be one of {', '.join(WAYS)}, got {way!r}")
    moved = (ranks - 1) / ranks * nbytes
    messages = 2 * (ranks - 1) if way == "ring" else 2 * rounds
    return messages * network.latency + 2 * moved / network.bandwidth + moved / network.adding


def step_seconds(ranks: int, work: Work, network: Network, way: str = "ring") -> float:
    """Time of a step whose buckets are sent one after another, each as soon as it is full and the line is free.

    Gradients become known evenly over the backward pass, which ends with the computing.

    Example:
        >>> fast = Network("", 0.0, 1e15, 1e15)
        >>> round(step_seconds(64, Work(0.5, 1e8), fast), 6)
        0.5
    """
    count = max(1, ceil(work.nbytes / work.bucket))
    begin = work.seconds * (1 - work.backward)
    free = 0.0
    for k in range(count):
        nbytes = min(work.bucket, work.nbytes - k * work.bucket)
        known = begin + work.seconds * work.backward * min(1.0, (k + 1) * work.bucket / work.nbytes)
        free = max(free, known) + all_reduce_seconds(ranks, nbytes, network, way)
    return max(free, work.seconds)


def rows(network: Network, work: Work = RESNET50, ranks: Sequence[int] = RANKS) -> list[list[str]]:
    """A table: ranks, then per algorithm the time of sending everything and the efficiency of a step, with overlap."""
    found = []
    for p in ranks:
        cells = []
        for way in WAYS:
            sending = all_reduce_seconds(p, work.nbytes, network, way)
            efficiency = work.seconds / step_seconds(p, work, network, way)
            cells.append(f"{sending * 1e3:,.0f} ms, {efficiency:.0%}")
        found.append([f"{p:,}", *cells])
    return found


def main() -> int:
    """Print the table of a network and a work of one's own."""
    parser = argparse.ArgumentParser(prog="metafuse.dist.scaling", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--bytes", type=float, default=RESNET50.nbytes, help="of gradients")
    parser.add_argument(
        "--seconds", type=float, default=RESNET50.seconds, help="of computing in a step of one rank"
    )
    parser.add_argument("--bucket", type=float, default=RESNET50.bucket, help="bytes that are sent at once")
    parser.add_argument(
        "--latency", type=float, default=NETWORKS[0].latency, help="seconds of an empty message"
    )
    parser.add_argument(
        "--bandwidth", type=float, default=NETWORKS[0].bandwidth, help="bytes per second and direction"
    )
    parser.add_argument("--ranks", type=int, nargs="*", default=list(RANKS))
    given = parser.parse_args()
    network, work = (
        Network("", given.latency, given.bandwidth),
        Work(given.seconds, given.bytes, given.bucket),
    )
    for row in [["ranks", *WAYS], *rows(network, work, given.ranks)]:
        print("".join(cell.rjust(22) for cell in row))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
