"""Sums over two ranks of 1 KB to 100 MB, in place, against mpi4py's on the same array and PyTorch's gloo.

    python benchmarks/bench_allreduce.py

Starts itself on two ranks of one core each. Two ways of ours: the call that programs make, and the operator
``mpi_all_reduce``, which records, runs and copies the result into a new array. A time is that of the slower rank. Before a size
is measured, every way must give the right sums.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import harness

RANKS = 2
BYTES = (1 << 10, 16 << 10, 256 << 10, 4 << 20, 32 << 20, 100 << 20)
#: least share of the raw call's bandwidth, and of gloo's
RAW, GLOO = 0.9, 1.0
TURNS, NOT_COUNTED = 12, 2

Sides = dict[str, Callable[[], Any]]


def main() -> int:
    if os.environ.get("PMI_SIZE") or os.environ.get("OMPI_COMM_WORLD_SIZE"):
        return Rank().all_sizes()
    command = [sys.executable, "-m", "metafuse", "launch", "-n", str(RANKS), "--threads", "1", __file__]
    return subprocess.run(command, check=False).returncode


class Rank:
    """What each rank does. ``gloo``: PyTorch's module of that name, if there is PyTorch."""

    def __init__(self) -> None:
        from mpi4py import MPI

        import metafuse as mf

        self.mpi, self.mf, self.group, self.told = MPI, mf, mf.dist.world(), mf.rank == 0
        self.comm = MPI.COMM_WORLD.Dup()
        self.torch: Any = None
        try:
            import torch
            import torch.distributed as gloo
        except ImportError:
            return
        self.torch, self.gloo = torch, gloo
        torch.set_num_threads(1)
        port = self.comm.bcast(str(29500 + os.getpid() % 2000))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        gloo.init_process_group("gloo", rank=mf.rank, world_size=self.group.size)

    def all_sizes(self) -> int:
        """The whole table; 1 if a target is missed or results differ."""
        self.tell(
            "| size | mpi4py | all_reduce | of raw bandwidth | operator | gloo | against gloo |\n"
            + "|---" * 7
            + "|"
        )
        with self.mf.flag_scope(dist_check=0):
            missed = sum([not self.row(nbytes) for nbytes in BYTES])
        if self.torch is not None:
            self.gloo.destroy_process_group()
        self.tell(f"\ntargets missed: {missed} (>= {RAW} of mpi4py's bandwidth, >= {GLOO:g} of gloo's)")
        return int(missed > 0)

    def tell(self, text: str) -> None:
        if self.told:
            print(text, flush=True)

    def sides(self, array: Any) -> Sides:
        """The ways to add up ``array`` over the ranks; each answers the sum, all but the operator in place."""
        group, comm, var = self.group, self.comm, self.mf.array(array)

        def by_mpi4py() -> Any:
            comm.Allreduce(self.mpi.IN_PLACE, array)
            return array

        def ours() -> Any:
            group.all_reduce(array, array, "add")
            return array

        found: Sides = {"mpi4py": by_mpi4py, "ours": ours, "operator": lambda: var.mpi_all_reduce().sync()}
        if self.torch is not None:
            tensor = self.torch.from_numpy(array)

            def by_gloo() -> Any:
                self.gloo.all_reduce(tensor)
                return array

            found["gloo"] = by_gloo
        return found

    def problem(self, count: int) -> str:
        """What differs, on any rank, from the sum of numbers that each rank has other ones of."""
        import numpy as np

        numbers = np.arange(count, dtype=np.float32) % 1000
        expected = sum(numbers * (rank + 1) for rank in range(self.group.size))
        differ: dict[str, None] = {}
        for name in self.sides(numbers):
            answer = self.sides(numbers * (self.mf.rank + 1))[name]()
            for text in self.comm.allgather(harness.agree(answer, expected, 0.0, 0.0)):
                differ |= {f"{name}: {text}": None} if text else {}
        return "; ".join(differ)

    def timed(self, call: Callable[[], Any], count: int) -> float:
        """Seconds per call of the slowest rank."""
        self.comm.Barrier()
        started = time.perf_counter()
        for _ in range(count):
            call()
        return float(self.comm.allreduce((time.perf_counter() - started) / count, self.mpi.MAX))

    def row(self, nbytes: int) -> bool:
        """Measure one size; answers whether the targets are met."""
        import numpy as np

        size = f"{nbytes >> 10:,} KB"
        problem = self.problem(nbytes // 4)
        if problem:
            self.tell(f"| {size} | **results differ: {problem}** |")
            return False
        sides = self.sides(np.zeros(nbytes // 4, np.float32))  # sums in place stay what they are
        count = max(2, min(200, (64 << 20) // nbytes))
        times: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(TURNS):
            for name in sides if turn % 2 else reversed(sides):
                seconds = self.timed(sides[name], count)
                if turn >= NOT_COUNTED:
                    times[name].append(seconds)
        shown = {name: f"{statistics.median(t) * 1e6:,.0f} us" for name, t in times.items()}
        ratio = {
            name: statistics.median(a / b for a, b in zip(t, times["ours"], strict=True))
            for name, t in times.items()
        }
        against = f"{ratio['gloo']:.1f}" if "gloo" in ratio else "-"
        self.tell(f"| {size} | {shown['mpi4py']} | {shown['ours']} | {ratio['mpi4py']:.2f} | {shown['operator']} | "
                  f"{shown.get('gloo', '-')} | {against} |")  # fmt: skip
        return ratio["mpi4py"] >= RAW and ratio.get("gloo", GLOO) >= GLOO


if __name__ == "__main__":
    sys.exit(main())
