"""Processes and arrays by the reference API's names, found as ``metafuse.mpi``.

What it is: thin functions over ``world`` and ``collectives``. ``var_*`` change the Var they are given, now.
What it is not: only for MPI; what connects the processes does not matter.
Who calls it: users.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arguments import checked
from ..errors import DTypeError
from ..var import Var
from . import collectives, parallel
from .alone import Alone
from .contract import check_rank
from .execution import compare
from .process import local_rank, set_world, world, world_size

__all__ = [
    "broadcast", "get_state", "local_rank", "mpi_barrier", "set_state", "var_all_reduce", "var_broadcast", "var_reduce",
    "world_rank", "world_size",
]  # fmt: skip

_switched_off: list[Any] = []


@checked
def world_rank() -> int:
    """The place of this process among all, from 0."""
    return world().rank


def broadcast(args: np.ndarray[Any, Any], root: int) -> None:
    """Replace the contents of a C-contiguous array by those of rank ``root``, now.

    Errors: ``DTypeError`` for what is no such array."""
    if (
        not isinstance(args, np.ndarray)
        or not args.flags.c_contiguous
        or not args.flags.writeable
        or args.dtype.hasobject
    ):
        raise DTypeError(
            f"[mpi.broadcast] args must be a writable C-contiguous array of numbers, got {type(args).__name__}"
        )
    group = world()
    check_rank("mpi.broadcast", "root", root, group.size)
    collectives.settle()
    compare(group, f"mpi.broadcast of {args.dtype}{list(args.shape)} from {root}")
    if group.size > 1:
        raw = args.reshape(-1).view(np.uint8)
        group.broadcast(raw, raw, root)


@checked
def var_broadcast(x: Var, root: int = 0) -> None:
    """Give ``x`` the value that it has on rank ``root``, on every rank, now."""
    check_rank("mpi.var_broadcast", "root", root, world().size)
    parallel.broadcast_vars([x], root)


def _replace(x: Var, value: Var) -> None:
    wanted = x.requires_grad
    x.update(value.detach())
    x.requires_grad = wanted
    x.sync()


@checked
def var_reduce(x: Var, root: int = 0) -> None:
    """Give ``x`` the sum over all ranks, on rank ``root``, now; zeros elsewhere."""
    _replace(x, collectives.mpi_reduce(x, "add", root))


@checked
def var_all_reduce(x: Var) -> None:
    """Give ``x`` the sum over all ranks, on every rank, now."""
    _replace(x, collectives.mpi_all_reduce(x, "add"))


@checked
def mpi_barrier() -> None:
    """Wait for all ranks."""
    collectives.barrier()


@checked
def get_state() -> bool:
    """Whether this process computes together with others."""
    return world().size > 1


@checked
def set_state(enable: bool) -> None:
    """Compute alone from now on (``False``), or with the others again (``True``)."""
    if not enable and world().size > 1:
        collectives.settle()
        _switched_off.append(world())
        set_world(Alone())
    elif enable and _switched_off:
        set_world(_switched_off.pop())
