"""What can go wrong with rank 1, by name."""

import os
import signal
import sys
import time

import numpy as np

import metafuse as mf

kind = sys.argv[1]
if kind == "before anything" and os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK")) == "1":
    raise ValueError("this rank is lost")
mf.array([1.0]).mpi_all_reduce().item()
if mf.rank == 1:
    if kind == "raises":
        raise ValueError("this rank is lost")
    if kind == "exits with 3":
        sys.exit(3)
    if kind == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hangs":
        while True:
            time.sleep(0.1)
    if kind == "ends early":
        sys.exit()
    if kind == "leaves unseen":
        os._exit(0)
    if kind == "raises in a scope":
        with mf.single_process_scope(1):
            raise ValueError("this rank is lost")
    if kind == "mismatch":
        mf.array([1.0, 2.0]).mpi_all_reduce().sync()
if kind == "late mismatch":  # when calls are no longer compared
    with mf.flag_scope(dist_check=0):
        if mf.rank == 1:
            mf.dist.world().barrier()
        else:
            ones = np.ones(1000, np.float32)
            mf.dist.world().all_reduce(ones, ones, "add")
for _ in range(3):
    mf.array([1.0]).mpi_all_reduce().sync()
if mf.rank == 1 and kind == "leaves a child, killed":
    if os.fork() == 0:
        time.sleep(100)  # has the rank's output open
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
if mf.rank == 1 and kind == "hangs at the end":
    while True:
        time.sleep(0.1)
if mf.rank == 1 and kind == "works at the end":
    until = time.monotonic() + 5
    while time.monotonic() < until:
        np.ones(1000).sum()
print(f"rank {mf.rank} is done\n", end="", flush=True)
