"""Collectives by the reference API's names for one vendor's library.

What it is: ``nccl_all_reduce``, ``nccl_reduce``, ``nccl_broadcast`` and ``nccl_all_gather``: the collectives of the same names.
What it is not: a choice of library. What runs on a GPU goes by NCCL where ``metafuse-dist-nccl`` is installed, whatever name it
was called by.
Who calls it: users.
"""

from __future__ import annotations

from typing import Any

from ..ops.registry import Sample, Tensor, operator
from ..var import Var
from .collectives import mpi_all_gather, mpi_all_reduce, mpi_broadcast, mpi_reduce

__all__ = ["nccl_all_gather", "nccl_all_reduce", "nccl_broadcast", "nccl_reduce"]

_SAMPLES = [Sample((Tensor((3, 5)),))]


@operator(category="distributed", numpy=lambda x: x, samples=_SAMPLES, method=True, rebinds=False)
def nccl_all_reduce(x: Any) -> Var:
    """The sum of all ranks' ``x``, on every rank: ``mpi_all_reduce``.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.loopback.run(2, lambda rank: mf.ones(1).nccl_all_reduce().tolist())
        [[2.0], [2.0]]
    """
    return mpi_all_reduce(x)


@operator(category="distributed", numpy=lambda x, root=0: x, samples=_SAMPLES, method=True, rebinds=False)
def nccl_reduce(x: Any, root: int = 0) -> Var:
    """The sum of all ranks' ``x`` on rank ``root``, zeros elsewhere: ``mpi_reduce``.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.loopback.run(2, lambda rank: mf.ones(1).nccl_reduce(0).tolist())
        [[2.0], [0.0]]
    """
    return mpi_reduce(x, "add", root)


@operator(category="distributed", numpy=lambda x, root=0: x, samples=_SAMPLES, method=True, rebinds=False)
def nccl_broadcast(x: Any, root: int = 0) -> Var:
    """The ``x`` of rank ``root``, on every rank: ``mpi_broadcast``.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.loopback.run(2, lambda rank: mf.ones(1).nccl_broadcast(1).tolist())
        [[1.0], [1.0]]
    """
    return mpi_broadcast(x, root)


@operator(category="distributed", numpy=lambda x: x, samples=_SAMPLES, method=True, rebinds=False)
def nccl_all_gather(x: Any) -> Var:
    """All ranks' ``x`` one after another along dimension 0: ``mpi_all_gather``.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.loopback.run(2, lambda rank: mf.ones(1).nccl_all_gather().tolist())
        [[1.0, 1.0], [1.0, 1.0]]
    """
    return mpi_all_gather(x)
