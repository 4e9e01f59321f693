"""How this process was started: alone, or with others by a launcher.

What it is: a look at the environment variables that launchers set for the processes they start.
What it is not: a connection to the others (``process``), or a launcher (``launch``).
Who calls it: ``metafuse.dist`` when it is imported, and ``process``.

Under ``srun --mpi=pmi2`` MPICH's variables, without those of the machine, are beside Slurm's; under ``--mpi=pmix`` there are
Slurm's alone. An ``mpirun`` within an allocation of Slurm leaves variables of something else, which is why Slurm's come last. A
batch script is not a process of a parallel step: only the variables that ``srun`` sets for a step count. A process that a
rank has started (a worker, a test) inherits the variables but is no rank; ``claim`` leaves a mark for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from .contract import Start

__all__ = ["CLAIM", "claim", "started"]

#: the process that is the rank which the other variables tell of
CLAIM = "METAFUSE_RANK_PROCESS"

_SLURM = ("Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")
#: (launcher, rank, size, local rank, local size)
_LAUNCHERS: tuple[tuple[str, str, str, str, str], ...] = (
    ("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("MVAPICH2", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"),
    ("MPICH", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    _SLURM,
)  # fmt: skip


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "").split("(")[0].split(",")[0]
    return int(text) if text.isdigit() else default


def started(environment: Mapping[str, str] = os.environ) -> Start | None:
    """Rank, size and launcher, or ``None`` for a process that was started alone.

    Example:
        >>> started({"PMI_RANK": "1", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"})
        Start(rank=1, size=4, local_rank=1, local_size=4, how='MPICH')
        >>> started({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"})  # a batch script, not a step
    """
    if environment.get(CLAIM, "") not in ("", str(os.getpid())):
        return None
    for how, rank, size, local_rank, local_size in _LAUNCHERS:
        count = _number(environment, size, 1)
        if count > 1 and environment.get(rank, "").isdigit():
            own = _number(environment, rank, 0)
            if local_rank not in environment and _number(environment, _SLURM[2], 1) == count:
                local_rank, local_size = _SLURM[3:]
            return Start(
                own,
                count,
                _number(environment, local_rank, own),
                _number(environment, local_size, count),
                how,
            )
    return None


def claim() -> None:
    """Say that this process is the rank, and its children are not."""
    os.environ[CLAIM] = str(os.getpid())
