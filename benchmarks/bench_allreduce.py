"""Sums over two ranks of 1 KB to 100 MB, in place, against mpi4py's on the same array and PyTorch's gloo.

    python benchmarks/bench_allreduce.py

Starts itself on two ranks of one core each. Two ways of ours: the call that programs make, and the operator
``mpi_all_reduce``, which records, runs and copies the result into a new array. A time is that of the slower rank.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

RANKS = 2
BYTES = (1 << 10, 16 << 10, 256 << 10, 4 << 20, 32 << 20, 100 << 20)
#: least share of the raw call's bandwidth, and of gloo's
RAW, GLOO = 0.9, 1.0


def main() -> int:
    if os.environ.get("PMI_SIZE") or os.environ.get("OMPI_COMM_WORLD_SIZE"):
        return ranks()
    command = [sys.executable, "-m", "metafuse", "launch", "-n", str(RANKS), "--threads", "1", __file__]
    return subprocess.run(command, check=False).returncode


def ranks() -> int:
    """What each rank does."""
    import numpy as np

    import metafuse as mf

    try:
        import torch
        import torch.distributed as gloo
    except ImportError:
        torch = gloo = None
    from mpi4py import MPI

    rank = mf.rank
    group = mf.dist.world()
    comm = MPI.COMM_WORLD.Dup()
    if torch is not None:
        torch.set_num_threads(1)
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=comm.bcast(str(29500 + os.getpid() % 2000)))
        gloo.init_process_group("gloo", rank=rank, world_size=group.size)

    def timed(call: Callable[[], object], count: int) -> float:
        comm.Barrier()
        started = time.perf_counter()
        for _ in range(count):
            call()
        return float(comm.allreduce((time.perf_counter() - started) / count, MPI.MAX))

    missed = 0
    if rank == 0:
        print(
            "| size | mpi4py | all_reduce | of raw bandwidth | operator | gloo | against gloo |\n|---|---|---|---|---|---|---|"
        )
    for nbytes in BYTES:
        array = np.zeros(nbytes // 4, np.float32)
        var = mf.array(array)
        tensor = torch.from_numpy(array) if torch is not None else None
        with mf.flag_scope(dist_check=0):
            sides: list[Callable[[], object]] = [
                lambda a=array: comm.Allreduce(MPI.IN_PLACE, a),
                lambda a=array: group.all_reduce(a, a, "add"),
                lambda v=var: v.mpi_all_reduce().sync(),
            ]
            if torch is not None:
                sides.append(lambda t=tensor: gloo.all_reduce(t))
            count = max(2, min(200, (64 << 20) // nbytes))
            times: list[list[float]] = [[] for _ in sides]
            for turn in range(12):
                for k in range(len(sides)) if turn % 2 else reversed(range(len(sides))):
                    found = timed(sides[k], count)
                    if turn > 1:
                        times[k].append(found)
        raw, ours, operator, *other = (statistics.median(t) for t in times)
        share = statistics.median(a / b for a, b in zip(times[0], times[1], strict=True))
        peer = (
            statistics.median(a / b for a, b in zip(times[3], times[1], strict=True))
            if other
            else float("nan")
        )
        missed += share < RAW or peer < GLOO
        if rank == 0:
            cells = [f"{t * 1e6:,.0f} us" for t in (raw, ours)]
            shown = f"{nbytes >> 10:,} KB"
            print(f"| {shown} | {cells[0]} | {cells[1]} | {share:.2f} | {operator * 1e6:,.0f} us | "
                  f"{f'{other[0] * 1e6:,.0f} us' if other else '-'} | {peer:.1f} |", flush=True)  # fmt: skip
    if torch is not None:
        gloo.destroy_process_group()
    if rank == 0:
        print(f"\ntargets missed: {missed} (>= {RAW} of mpi4py's bandwidth, >= {GLOO:g} of gloo's)")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
