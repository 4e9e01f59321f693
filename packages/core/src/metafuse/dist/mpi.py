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
    """The place of this process among all, from 0.

    Example:
        >>> import metafuse as mf
        >>> mf.mpi.world_rank()
        0
    """
    return world().rank


def broadcast(args: np.ndarray[Any, Any], root: int) -> None:
    """Replace the contents of a C-contiguous array by those of rank ``root``, now.

    Errors: ``DTypeError`` for what is no such array.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> values = np.array([1.0, 2.0])
        >>> mf.mpi.broadcast(values, 0)
        >>> values
        array([1., 2.])
    """
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
    """Give ``x`` the value that it has on rank ``root``, on every rank, now.

    Example:
        >>> import metafuse as mf
        >>> def rank_main(rank):
        ...     x = mf.array([float(rank)])
        ...     mf.mpi.var_broadcast(x, 2)
        ...     return x.item()
        >>> mf.dist.loopback.run(3, rank_main)
        [2.0, 2.0, 2.0]
    """
    check_rank("mpi.var_broadcast", "root", root, world().size)
    parallel.broadcast_vars([x], root)


def _replace(x: Var, value: Var) -> None:
    wanted = x.requires_grad
    x.update(value.detach())
    x.requires_grad = wanted
    x.sync()


@checked
def var_reduce(x: Var, root: int = 0) -> None:
    """Give ``x`` the sum over all ranks, on rank ``root``, now; zeros elsewhere.

    Example:
        >>> import metafuse as mf
        >>> def rank_main(rank):
        ...     x = mf.array([1.0])
        ...     mf.mpi.var_reduce(x)
        ...     return x.item()
        >>> mf.dist.loopback.run(3, rank_main)
        [3.0, 0.0, 0.0]
    """
    _replace(x, collectives.mpi_reduce(x, "add", root))


@checked
def var_all_reduce(x: Var) -> None:
    """Give ``x`` the sum over all ranks, on every rank, now.

    Example:
        >>> import metafuse as mf
        >>> def rank_main(rank):
        ...     x = mf.array([1.0])
        ...     mf.mpi.var_all_reduce(x)
        ...     return x.item()
        >>> mf.dist.loopback.run(3, rank_main)
        [3.0, 3.0, 3.0]
    """
    _replace(x, collectives.mpi_all_reduce(x, "add"))


@checked
def mpi_barrier() -> None:
    """Wait for all ranks.

    Example:
        >>> import metafuse as mf
        >>> mf.mpi.mpi_barrier()
    """
    collectives.barrier()


@checked
def get_state() -> bool:
    """Whether this process computes together with others.

    Example:
        >>> import metafuse as mf
        >>> mf.mpi.get_state()
        False
    """
    return world().size > 1


@checked
def set_state(enable: bool) -> None:
    """Compute alone from now on (``False``), or with the others again (``True``).

    Example:
        >>> import metafuse as mf
        >>> mf.mpi.set_state(False)
        >>> mf.mpi.set_state(True)
    """
    if not enable and world().size > 1:
        collectives.settle()
        _switched_off.append(world())
        set_world(Alone())
    elif enable and _switched_off:
        set_world(_switched_off.pop())
