"""Data parallelism: what makes one script compute on several ranks what it computes on one.

What it is: the share of a batch that a rank has, equal parameters, gradients averaged by the number of samples, and averages over
all ranks for what is printed.
What it is not: communication (``collectives``) or the sending of gradients in pieces (``buckets``).
Who calls it: ``optim`` (weights, gradients, parameters), ``data`` (shares), ``nn`` (batch norm), users (``average``,
``batch_scope``).

The rule: a loss is a mean over samples. A rank with ``n`` of the ``N`` samples of a batch multiplies its loss by ``n / N``
before the gradient, and gradients are added over ranks: what comes out is the gradient of the mean over all ``N``, however
``N`` was cut.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import ReferenceType, ref

import numpy as np

from ..arguments import checked
from ..backend.contract import host_bytes
from ..config import flags
from ..errors import ArgumentError, DistributionError, DTypeError, brief
from ..finite import listed
from ..ops.creation import array
from ..var import Var, sync
from .collectives import mpi_all_reduce, settle
from .context import register
from .contract import Communicator, check_rank
from .execution import compare
from .process import world

__all__ = [
    "Average", "Share", "average", "batch_scope", "broadcast_vars", "current_share", "gather_objects", "global_mean", "set_share",
    "shared_out", "weighted",
]  # fmt: skip


@dataclass(frozen=True)
class Share:
    """``samples`` of a batch of ``total`` belong to this rank."""

    samples: int
    total: int

    @property
    def weight(self) -> float:
        """The part of the whole mean that this rank's mean is."""
        return self.samples / self.total if self.total else 0.0


#: the share of the batch that is being computed, if it is known: "samples" and "total". ``capture`` looks at it too.
batch: dict[str, int] = {}


@checked
def set_share(share: Share | None) -> None:
    """Say how much of the batch that comes now is this rank's; ``None``: all ranks have equally much.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.parallel.set_share(None)
    """
    if share is None:
        batch.clear()
    else:
        batch["samples"], batch["total"] = share.samples, share.total


def _put(values: dict[str, int]) -> None:
    batch.clear()
    batch.update(values)


register(lambda: dict(batch), lambda rank: {}, _put)


def current_share() -> Share:
    """The share of the batch that a data set yielded last, else an equal part.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.parallel.current_share().samples
        1
    """
    group = world()
    if group.size == 1 or not batch:
        return Share(1, group.size)
    return Share(batch["samples"], batch["total"])


@contextmanager
def batch_scope(samples: int, total: int | None = None) -> Iterator[None]:
    """Inside, a loss is a mean over ``samples`` samples (or tokens) of ``total`` on all ranks; for batches that no
    ``Dataset`` has cut.

    Args:
        samples: how many this rank has, 0 or more.
        total: how many all ranks have; ``None``: they are added up now, which communicates.

    Example:
        >>> import metafuse as mf
        >>> with mf.dist.batch_scope(samples=3):
        ...     mf.dist.parallel.current_share().weight
        1.0
    """
    if isinstance(samples, bool) or not isinstance(samples, (int, np.integer)) or not 0 <= samples < 2**63:
        raise ArgumentError(
            f"[batch_scope] samples must be an integer >= 0 and below 2**63, got {brief(samples)}"
        )
    if total is None:
        total = int(_totals([samples])[0])
    former = dict(batch)
    set_share(Share(int(samples), int(total)))
    try:
        yield
    finally:
        _put(former)


@checked
def shared_out(indices: Sequence[Any]) -> tuple[list[Any], Share]:
    """The part of a batch that this rank has: consecutive entries. Parts differ by one at most; by rank they are the batch.

    Where there are fewer entries than ranks, a rank without one gets the first, and it counts for nothing.

    Example:
        >>> import metafuse as mf
        >>> def rank_main(rank):
        ...     return mf.dist.parallel.shared_out([10, 11, 12, 13])[0]
        >>> mf.dist.loopback.run(2, rank_main)
        [[10, 11], [12, 13]]
    """
    group = world()
    count = len(indices)
    if group.size == 1 or not count:
        return list(indices), Share(count, count)
    least, more = divmod(count, group.size)
    first = group.rank * least + min(group.rank, more)
    own = list(indices[first : first + least + (group.rank < more)])
    return own or [indices[0]], Share(len(own), count)


def weighted(loss: Var) -> Var:
    """``loss`` times the part of the whole mean that it is.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.parallel.weighted(mf.array([2.0])).item()
        2.0
    """
    return loss if world().size == 1 else loss * current_share().weight


# -- equal parameters ---------------------------------------------------------------------------------------------
@checked
def broadcast_vars(values: Iterable[Var], root: int = 0) -> None:
    """Give every rank the values of rank ``root``, now. Vars stay as trainable as they are.

    Example:
        >>> import metafuse as mf
        >>> def rank_main(rank):
        ...     x = mf.array([float(rank)])
        ...     mf.dist.parallel.broadcast_vars([x], 1)
        ...     return x.item()
        >>> mf.dist.loopback.run(2, rank_main)
        [1.0, 1.0]
    """
    group = world()
    check_rank("broadcast_vars", "root", root, group.size)
    several = listed("broadcast_vars", "values", values)
    if group.size == 1 or not several:
        return
    settle()
    sync(several)
    story = ", ".join(repr(v._node.spec) for v in several)
    compare(group, f"broadcast of {len(several)} values {zlib.crc32(story.encode()):08x} ({story[:400]})")
    packed = np.concatenate(
        [np.ascontiguousarray(v.dtype.encode(v.numpy())).reshape(-1).view(np.uint8) for v in several]
    )
    group.broadcast(packed, packed, root)
    if group.rank == root:
        return
    first = 0
    for v in several:
        bits = packed[first : first + v.nbytes].view(v.dtype.storage).reshape(tuple(v.shape))
        first += v.nbytes
        wanted = v.requires_grad
        v.update(array(v.dtype.decode(bits), v.dtype))
        v.requires_grad = wanted


def fingerprint(values: Sequence[Var]) -> int:
    """A number that differs where values differ."""
    sync(values)
    mark = 0
    for v in values:
        mark = zlib.crc32(host_bytes(np.ascontiguousarray(v.numpy())), mark)
    return mark


_optimizers: list[ReferenceType[Any]] = []


def _put_optimizers(values: list[ReferenceType[Any]]) -> None:
    global _optimizers
    _optimizers = values


register(lambda: _optimizers, lambda rank: [], _put_optimizers)


def join(optimizer: Any) -> None:
    """Have ``before_batches`` see to the parameters of ``optimizer``."""
    if world().size > 1:
        _optimizers.append(ref(optimizer))


def before_batches() -> None:
    """Called before a data set yields anything: parameters that were changed since their optimizer was made become equal."""
    waiting, _optimizers[:] = list(_optimizers), []
    for handle in waiting:
        optimizer = handle()
        if optimizer is not None:
            optimizer.compare_parameters()


def make_equal(values: Sequence[Var], loss: Var | None) -> None:
    """Give every rank rank 0's parameters before the first gradient, also where they were changed after the optimizer was made.

    What was recorded with the old values, ``loss``, is computed with the new ones. Errors: ``DistributionError`` if it was
    computed already and the values differ."""
    group = world()
    if group.size == 1 or not flags.dist_check:
        return
    settle()
    marks = np.empty(group.size, np.int64)
    group.all_gather(np.array([fingerprint(values)], np.int64), marks)
    other = [r for r in range(group.size) if marks[r] != marks[0]]
    if not other:
        return
    computed = np.array([loss is not None and loss._node.buffer is not None], np.uint8)
    group.all_reduce(computed, computed, "maximum")
    if computed[0]:
        raise DistributionError(
            f"[dist] parameters differ between rank 0 and ranks {other}, and the loss was computed with them already; load "
            "or change them on every rank alike, or call module.mpi_param_broadcast() before the first forward pass"
        )
    nodes = [v._node for v in values]
    broadcast_vars(values)
    for node, v in zip(nodes, values, strict=True):
        if v._node is not node:
            sync([v])
            node.buffer = v._node.buffer


# -- what is printed ----------------------------------------------------------------------------------------------
def _totals(numbers: Sequence[float]) -> np.ndarray[Any, Any]:
    """Sums over all ranks, now."""
    group: Communicator = world()
    total = np.array(numbers, np.float64)
    if group.size > 1:
        settle()
        compare(group, f"sum of {len(numbers)} numbers")
        group.all_reduce(total, total, "add")
    return total


@checked
def average(value: float | Var, count: float | None = None) -> float:
    """The mean over all ranks of a number or scalar Var that is this rank's mean over ``count`` samples; communicates now.

    ``count``: ``None`` means this rank's share of the batch that a data set has just yielded.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.average(0.5, count=4)
        0.5
    """
    number = float(value.item() if isinstance(value, Var) else value)
    weight = float(current_share().samples if count is None else count)
    total, samples = _totals([number * weight if weight else 0.0, weight])
    return float(total / samples) if samples else float("nan")


@checked
def global_mean(loss: Var) -> Var:
    """The mean over the whole batch of a ``loss`` that is this rank's mean, as a recorded Var without gradient.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.global_mean(mf.array([2.0])).item()
        2.0
    """
    return mpi_all_reduce(weighted(loss.detach()))


@checked
class Average:
    """Running averages over all samples of all ranks: ``add`` as often as you like, ``value`` communicates once.

    Example:
        >>> import metafuse as mf
        >>> accuracy = mf.dist.Average()
        >>> accuracy.add(0.5, count=10)
        >>> accuracy.add(1.0, count=30)
        >>> accuracy.value()
        0.875
    """

    def __init__(self) -> None:
        self.total = self.count = 0.0

    def add(self, value: float | Var, count: float = 1) -> None:
        """Take in a mean over ``count`` samples of this rank."""
        samples = float(count)
        if samples:
            self.total += float(value) * samples
            self.count += samples

    def value(self) -> float:
        """The mean over everything that all ranks have added; NaN if that is nothing."""
        total, count = _totals([self.total, self.count])
        return float(total / count) if count else float("nan")

    def reset(self) -> None:
        """Begin anew."""
        self.total = self.count = 0.0


@checked
def gather_objects(value: Any) -> list[Any]:
    """What every rank gave, by rank: anything that can be pickled; communicates now.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.loopback.run(2, lambda rank: mf.dist.gather_objects(rank * 10))
        [[0, 10], [0, 10]]
    """
    group = world()
    if group.size == 1:
        return [value]
    settle()
    compare(group, "gather_objects()")
    try:
        own = pickle.dumps(value)
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise DTypeError(f"[gather_objects] a {type(value).__name__} can't be pickled: {error}") from error
    return [pickle.loads(data) for data in group.exchange(own)]
