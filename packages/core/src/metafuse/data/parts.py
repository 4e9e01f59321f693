"""Parts of data sets and several as one.

What it is: data sets over the items of others: ``Subset``, ``ConcatDataset``, and ``random_split``, which makes subsets.
What it is not: items of its own; a part reads the items of what it was made from, in batches of its own.
Who calls it: users, as ``metafuse.data``.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from ..errors import ArgumentError, DTypeError, brief
from ..finite import LIMIT, listed
from ..var import Var
from .dataset import Dataset
from .sampler import get_random_list, item_count

__all__ = ["ConcatDataset", "Subset", "random_split"]


class Subset(Dataset):
    """Some items of a data set, in a given order.

    Args:
        dataset: a data set, or anything with items and a length.
        indices: which of its items, each -n .. n-1; an item may come several times.

    Batches, their order and who reads them are set here, as in every ``Dataset``; how a batch is made of items
    (``collate_batch``) is the data set's matter.

    Errors:
        DTypeError: no data set, or indices that are no integers. ArgumentError: an index that is none of an item.

    Example:
        >>> import metafuse as mf
        >>> data = mf.data.TensorDataset(mf.array([10, 11, 12, 13]))
        >>> part = mf.data.Subset(data, [3, 1, 0]).set_attrs(batch_size=2)
        >>> [x.tolist() for x, in part]
        [[13, 11], [10]]
    """

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        super().__init__()
        count = item_count(dataset)
        self.dataset = dataset
        self.indices = _indices(indices, count)
        self.set_attrs(total_len=len(self.indices))

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]

    def collate_batch(self, batch: list[Any]) -> Any:
        if isinstance(self.dataset, Dataset):
            return self.dataset.collate_batch(batch)
        return super().collate_batch(batch)

    def _load(self, indices: list[Any]) -> Any:
        """All at once, where the data set can."""
        own = type(self)
        if own.__getitem__ is Subset.__getitem__ and "collate_batch" not in self.__dict__:
            if own.collate_batch is Subset.collate_batch and isinstance(self.dataset, Dataset):
                return self.dataset._load([self.indices[k] for k in indices])
        return super()._load(indices)


def _indices(indices: Any, count: int) -> list[int]:
    if isinstance(indices, Var):
        indices = indices.numpy()
    try:
        found = np.asarray(
            indices if isinstance(indices, np.ndarray) else listed("Subset", "indices", indices, 8 * LIMIT)
        )
    except (TypeError, ValueError):
        raise DTypeError(
            f"[Subset] indices must be a list of integers, got {type(indices).__name__}"
        ) from None
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise DTypeError(
            f"[Subset] indices must be a list of integers, got {found.dtype} {list(found.shape)}"
        )
    wrong = [k for k in found.tolist() if not -count <= k < count]
    if wrong:
        raise ArgumentError(
            f"[Subset] indices must be {-count}..{count - 1}, as there are {count} items; got {wrong[0]}"
        )
    return [int(k) for k in found.tolist()]


class ConcatDataset(Dataset):
    """The items of several data sets, one after another.

    Args:
        datasets: at least one data set (or anything with items and a length).

    Batches are made of items by the first data set's ``collate_batch``.

    Errors:
        ArgumentError: no data set is given. DTypeError: something without a length.

    Example:
        >>> import metafuse as mf
        >>> both = mf.data.ConcatDataset([mf.data.TensorDataset(mf.ones(3)), mf.data.TensorDataset(mf.zeros(2))])
        >>> both.item_count(), [x.tolist() for x, in both]
        (5, [[1.0, 1.0, 1.0, 0.0, 0.0]])
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        super().__init__()
        single = isinstance(datasets, (str, Dataset)) or getattr(datasets, "ndim", 1) == 0
        if single or not isinstance(datasets, Iterable):
            raise DTypeError(
                f"[ConcatDataset] datasets must be a list of data sets, got {type(datasets).__name__}"
            )
        self.datasets = listed("ConcatDataset", "datasets", datasets)
        if not self.datasets:
            raise ArgumentError("[ConcatDataset] datasets is empty; give at least one data set")
        #: how many items there are up to the end of each data set
        self.cumulative_sizes = list(accumulate(item_count(d) for d in self.datasets))
        self.set_attrs(total_len=self.cumulative_sizes[-1])

    def __getitem__(self, index: int) -> Any:
        count = self.cumulative_sizes[-1]
        if not -count <= index < count:
            raise IndexError(f"[ConcatDataset] index must be in {-count}..{count - 1}, got {index}")
        index = index % count
        which = bisect_right(self.cumulative_sizes, index)
        return self.datasets[which][index - (self.cumulative_sizes[which - 1] if which else 0)]

    def collate_batch(self, batch: list[Any]) -> Any:
        first = self.datasets[0]
        return first.collate_batch(batch) if isinstance(first, Dataset) else super().collate_batch(batch)


def random_split(dataset: Any, lengths: Sequence[float], generator: Any = None) -> list[Subset]:
    """Parts of a data set that share no item, chosen at random.

    Args:
        dataset: a data set, or anything with items and a length n.
        lengths: how many items each part gets, n together; or shares of them, 1 together, of which the first parts get
            one item more each where items are left over.
        generator: a NumPy ``Generator`` to choose with; ``None``: the one that shuffling uses (``set_shuffle_seed``), so that
            all ranks choose alike.

    Returns:
        One ``Subset`` per length.

    Errors:
        ArgumentError: lengths that are negative or do not make up the data set. DTypeError: arguments of other types.

    Example:
        >>> import metafuse as mf
        >>> data = mf.data.TensorDataset(mf.arange(10))
        >>> train, test = mf.data.random_split(data, [0.75, 0.25])
        >>> train.item_count(), test.item_count(), sorted(train.indices + test.indices) == list(range(10))
        (8, 2, True)
    """
    count = item_count(dataset)
    sizes = _sizes(lengths, count)
    if generator is not None and not isinstance(generator, np.random.Generator):
        raise DTypeError(
            f"[random_split] generator must be a numpy.random.Generator or None, got {type(generator).__name__}"
        )
    order = get_random_list(count) if generator is None else generator.permutation(count).tolist()
    ends = list(accumulate(sizes))
    return [Subset(dataset, order[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


def _sizes(lengths: Any, count: int) -> list[int]:
    """How many items each part gets."""
    numbers = (int, float, np.integer, np.floating)
    if not isinstance(lengths, (list, tuple)) or any(
        isinstance(x, bool) or not isinstance(x, numbers) for x in lengths
    ):
        raise DTypeError(f"[random_split] lengths must be a list of numbers, got {brief(lengths)}")
    if any(not 0 <= x < 2**63 for x in lengths):
        raise ArgumentError(f"[random_split] lengths must be >= 0 and below 2**63, got {list(lengths)}")
    if all(float(x).is_integer() for x in lengths) and sum(lengths) == count:
        return [int(x) for x in lengths]
    if not math.isclose(sum(lengths), 1):
        raise ArgumentError(
            f"[random_split] lengths must make up the {count} items, or 1 if they are shares; {list(lengths)} make {sum(lengths)}"
        )
    sizes = [math.floor(count * x) for x in lengths]
    for k in range(count - sum(sizes)):
        sizes[k % len(sizes)] += 1
    return sizes
