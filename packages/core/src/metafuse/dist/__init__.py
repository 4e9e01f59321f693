"""Several processes that compute together: groups, collectives, data parallelism.

What it is: ``world`` and what goes with it; ``collectives`` (operators), ``parallel`` (what optimizers, data sets and batch
norm do when there are several ranks), ``loopback`` (ranks as threads, for tests), ``launch`` (the command).
What it is not: MPI or NCCL; distributions of their own bring those.
Who calls it: users, as ``metafuse.dist``; ``optim``, ``data`` and ``nn``.
"""

from . import collectives, contract, guard, loopback, nccl_ops, parallel
from .collectives import barrier, settle
from .contract import Communicator, CommunicatorDescriptor
from .detect import claim, started
from .parallel import Average, average, batch_scope, gather_objects, global_mean
from .process import in_mpi, local_rank, rank, set_world, single_process_scope, world, world_size

__all__ = [
    "Average",
    "Communicator",
    "CommunicatorDescriptor",
    "average",
    "barrier",
    "batch_scope",
    "collectives",
    "contract",
    "gather_objects",
    "global_mean",
    "guard",
    "in_mpi",
    "local_rank",
    "loopback",
    "parallel",
    "rank",
    "set_world",
    "settle",
    "single_process_scope",
    "world",
    "world_size",
]

_start = started()
if _start is not None:
    from . import launch

    claim()
    launch.apply(_start)
    guard.install(_start)
