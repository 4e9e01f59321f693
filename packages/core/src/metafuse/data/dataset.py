"""Data sets: items by index, iterated as batches of Vars.

What it is: ``Dataset``, which is its own loader, ``DataLoader`` for those used to one, and data sets over arrays in memory.
What it is not: particular data (``data.mnist``) or transforms.
Who calls it: users.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from copy import copy as shallow_copy
from typing import Any

import numpy as np

from ..dist.parallel import before_batches, set_share, shared_out
from ..errors import ArgumentError, DTypeError, brief
from ..ops.random import get_seed
from ..var import Var
from . import collate
from .pool import START_METHODS, Pool, in_worker
from .sampler import RandomSampler, SequentialSampler

__all__ = ["DataLoader", "Dataset", "TensorDataset", "VarDataset"]


class Dataset:
    """Base of all data sets. Subclass it, set ``total_len``, define ``__getitem__``; iterate for batches.

    Args:
        batch_size: items in a batch, >= 1.
        shuffle: whether each iteration goes in a new random order.
        drop_last: whether a short last batch is left out.
        num_workers: processes that read items ahead; 0: this process reads them. Batches come in the same order.
        buffer_size: bytes of shared memory that each worker may use; a batch must fit.
        stop_grad: whether batches take no gradient.
        keep_numpy_array: yield ndarrays instead of Vars.
        endless: begin again instead of ending.

    ``len`` counts batches. Where several ranks compute together, ``batch_size`` counts the samples of all of them: every rank
    goes through the same batches and reads its own part of each (``docs/distributed.md``).

    Example:
        >>> import metafuse as mf
        >>> class Squares(mf.data.Dataset):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.set_attrs(batch_size=2, total_len=5)
        ...     def __getitem__(self, k):
        ...         return k, float(k * k)
        >>> [y.numpy().tolist() for x, y in Squares()]
        [[0.0, 1.0], [4.0, 9.0], [16.0]]
    """

    batch_size: int
    shuffle: bool
    drop_last: bool
    num_workers: int
    buffer_size: int
    stop_grad: bool
    keep_numpy_array: bool
    endless: bool
    #: how workers start: ``"fork"``, ``"forkserver"``, ``"spawn"``; ``None``: ``fork`` on Linux, else ``spawn``
    start_method: str | None = None

    _pool: Pool | None = None
    _pool_state = 0
    _state = 0

    def __init__(
        self,
        batch_size: int = 16,
        shuffle: bool = False,
        drop_last: bool = False,
        num_workers: int = 0,
        buffer_size: int = 512 * 1024 * 1024,
        stop_grad: bool = True,
        keep_numpy_array: bool = False,
        endless: bool = False,
    ) -> None:
        self.total_len: int | None = None
        self.epoch_id = 0
        self.sampler: Any = None
        self.set_attrs(
            batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, num_workers=num_workers,
            buffer_size=buffer_size, stop_grad=stop_grad, keep_numpy_array=keep_numpy_array, endless=endless,
        )  # fmt: skip

    def set_attrs(self, **kw: Any) -> Dataset:
        """Set options by name (those of the constructor, ``total_len``, ``sampler`` and a subclass's own); answers the data
        set.

        Errors: ``ArgumentError`` for names that do not exist and values that are not allowed.
        """
        known = {"batch_size", "shuffle", "drop_last", "num_workers", "buffer_size", "stop_grad", "keep_numpy_array",
                 "endless", "total_len", "sampler", "start_method"}  # fmt: skip
        for name, value in kw.items():
            if name not in known and not hasattr(self, name):
                raise ArgumentError(
                    f"[set_attrs] {type(self).__name__} has no attribute {name!r}; it has {sorted(known)}"
                )
            check = _CHECKS.get(name)
            if check and not check[0](value):
                raise ArgumentError(f"[set_attrs] {name} must be {check[1]}, got {brief(value)}")
            setattr(self, name, value)
        return self

    # -- what a subclass gives ------------------------------------------------------------------------------------
    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"[{type(self).__name__}] define __getitem__(index)")

    def collate_batch(self, batch: list[Any]) -> Any:
        """Make one batch of several items; override for items of another kind."""
        return collate.collate_batch(batch)

    def to_jittor(self, batch: Any) -> Any:
        """Turn the arrays of a batch into Vars, unless ``keep_numpy_array``."""
        if self.keep_numpy_array:
            return batch
        batch = collate.to_vars(batch)
        return batch if self.stop_grad else _start_grad(batch)

    # -- iteration ---------------------------------------------------------------------------------------------------
    def item_count(self) -> int:
        """Number of items. Errors: ``ArgumentError`` if ``total_len`` has not been set."""
        if self.total_len is None:
            raise ArgumentError(
                f"[{type(self).__name__}] total_len is not set; call set_attrs(total_len=...) in __init__"
            )
        return self.total_len

    def __len__(self) -> int:
        if self.sampler is not None:
            count = len(self.sampler)
        else:
            count = self.item_count()
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    @property
    def batch_len(self) -> int:
        """Number of batches."""
        return len(self)

    def _load(self, indices: list[Any]) -> Any:
        """The batch of these items, as arrays."""
        return self.collate_batch([self[k] for k in indices])

    def _order(self) -> Iterator[Any]:
        if self.sampler is not None:
            return iter(self.sampler)
        return iter(RandomSampler(self) if self.shuffle else SequentialSampler(self))

    def _batches(self) -> Iterator[list[Any]]:
        """Lists of indices; a sampler may itself give lists."""
        batch: list[Any] = []
        for entry in self._order():
            if isinstance(entry, (list, tuple)):
                yield list(entry)
                continue
            batch.append(entry)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __iter__(self) -> Iterator[Any]:
        before_batches()
        while True:
            shares = (shared_out(indices) for indices in self._batches())
            several = self.num_workers > 0 and not in_worker()
            loaded = (
                self._in_workers(shares)
                if several
                else ((self._in_here(own), share) for own, share in shares)
            )
            with closing(loaded):  # type: ignore[type-var]
                for batch, share in loaded:
                    set_share(share)
                    yield batch
            self.epoch_id += 1
            if not self.endless:
                return

    def _in_here(self, indices: list[Any]) -> Any:
        return self.to_jittor(self._load(indices))

    # -- worker processes ----------------------------------------------------------------------------------------------
    def _in_workers(self, shares: Iterator[tuple[list[Any], Any]]) -> Iterator[tuple[Any, Any]]:
        """The batches by worker processes, which are kept for the next epoch."""
        pool = self._pool
        if pool is not None and pool.active:  # another iteration has them
            pool = Pool(self, self.num_workers, self.buffer_size, self.start_method)
        elif pool is None or not pool.alive or self._pool_state != self._state:
            self.terminate()
            pool = self._pool = Pool(self, self.num_workers, self.buffer_size, self.start_method)
            self._pool_state = self._state
        # Batches that become Vars are copied to the device from shared memory; who else may look at them gets copies.
        own = type(self).to_jittor is Dataset.to_jittor and not self.keep_numpy_array

        def finish(batch: Any) -> Any:
            return self.to_jittor(batch)

        loaded = pool.load(shares, finish, not own, (get_seed(), self.epoch_id), self.epoch_id)
        try:
            yield from loaded
        finally:
            loaded.close()  # type: ignore[attr-defined]
            if pool is not self._pool:
                pool.end()

    def __setattr__(self, name: str, value: Any) -> None:
        """Workers have copies of the data set: after a change new ones are started."""
        object.__setattr__(self, name, value)
        if name not in _UNSEEN:
            object.__setattr__(self, "_state", self._state + 1)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_pool", "_pool_state")}

    def display_worker_status(self) -> None:
        """Print how many batches each worker has loaded, and how long it and this process have been waiting."""
        print(self._pool.status() if self._pool else f"{type(self).__name__}: no workers are running")

    def terminate(self) -> None:
        """End the workers, if there are any; the next iteration starts new ones. They also end with the data set and the
        program."""
        if self._pool is not None:
            self._pool.end()
            self._pool = None

    def reset(self) -> None:
        """End the workers, so that the next iteration starts with new ones: after changes *inside* of an attribute,
        of which they have copies. A new value of an attribute is noticed without."""
        self.terminate()


#: attributes of no importance to workers
_UNSEEN = {"epoch_id", "_pool", "_pool_state", "_state"}


def _start_grad(batch: Any) -> Any:
    if isinstance(batch, Var):
        return batch.start_grad() if batch.dtype.is_float else batch
    if isinstance(batch, dict):
        return {key: _start_grad(value) for key, value in batch.items()}
    return [_start_grad(value) for value in batch] if isinstance(batch, list) else batch


def _whole(least: int) -> Any:
    return lambda v: isinstance(v, (int, np.integer)) and not isinstance(v, bool) and least <= v < 2**63


_CHECKS: dict[str, tuple[Any, str]] = {
    "batch_size": (_whole(1), "an integer >= 1"),
    "num_workers": (_whole(0), "an integer >= 0"),
    "buffer_size": (_whole(1), "an integer >= 1"),
    "start_method": (lambda v: v is None or v in START_METHODS, f"None or one of {', '.join(START_METHODS)}"),
    "total_len": (lambda v: v is None or _whole(0)(v), "an integer >= 0"),
}


def DataLoader(dataset: Dataset, *args: Any, copy: bool = False, **kargs: Any) -> Dataset:
    """The data set itself with these options set: ``batch_size``, ``shuffle`` ... as in ``Dataset``.

    ``copy=True``: a data set of its own over the same items has the options, and the given one stays as it is, so that several
    loaders go over the same data.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> loader = mf.data.DataLoader(mf.data.TensorDataset(np.arange(4.0)), batch_size=4)
        >>> len(loader)
        1
    """
    if not isinstance(dataset, Dataset):
        raise DTypeError(f"[DataLoader] dataset must be a Dataset, got {type(dataset).__name__}")
    names = ("batch_size", "shuffle", "drop_last", "num_workers")
    if len(args) > len(names):
        raise ArgumentError(
            f"[DataLoader] takes at most {len(names)} positional options {names}, got {len(args)}"
        )
    if copy:
        dataset = shallow_copy(dataset)
    return dataset.set_attrs(**dict(zip(names, args)), **kargs)


class TensorDataset(Dataset):
    """Arrays or Vars of equal first extent; item k is the tuple of their k-th entries.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> data = mf.data.TensorDataset(np.zeros((3, 2), np.float32), np.arange(3))
        >>> [x.shape for x, y in data.set_attrs(batch_size=2)]
        [(2, 2), (1, 2)]
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if not args:
            raise ArgumentError(f"[{type(self).__name__}] needs at least one array")
        self.arrays = [_array(type(self).__name__, a) for a in args]
        lengths = {len(a) if a.ndim else 0 for a in self.arrays}
        if len(lengths) != 1:
            raise ArgumentError(f"[{type(self).__name__}] arrays must have one length, got {sorted(lengths)}")
        self.set_attrs(total_len=lengths.pop())

    def __getitem__(self, idx: Any) -> Any:
        return tuple(a[idx] for a in self.arrays)

    def _load(self, indices: list[Any]) -> Any:
        """All at once: a batch is one indexing of each array."""
        custom = type(self).__getitem__ is not TensorDataset.__getitem__
        return super()._load(indices) if custom else [a[indices] for a in self.arrays]


def _array(kind: str, value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, Var):
        return value.numpy()
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise DTypeError(f"[{kind}] can't make an array of a {type(value).__name__}: {error}") from None


class VarDataset(TensorDataset):
    """``TensorDataset`` by the reference API's other name.

    Example:
        >>> import metafuse as mf
        >>> len(mf.data.VarDataset(mf.ones(5, 2)).set_attrs(batch_size=2))
        3
    """
