"""Samplers: in which order a data set is read.

What it is: iterables of indices, or of lists of indices (``BatchSampler``), and the generator that shuffling uses.
What it is not: reading or batching of items (``data.dataset``).
Who calls it: ``data.dataset`` and users.

Shuffling has a generator of its own with a fixed seed, so that every process of a distributed run shuffles alike, however much
randomness each has used elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..arguments import checked
from ..dist.context import register
from ..errors import ArgumentError, DTypeError, OutOfMemory, brief

__all__ = [
    "BatchSampler",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "SkipFirstBatchesSampler",
    "SubsetRandomSampler",
    "WeightedRandomSampler",
    "get_order_list",
    "get_random_list",
    "set_shuffle_seed",
]

_generator = np.random.default_rng(1)


@checked
def set_shuffle_seed(seed: int) -> None:
    """Begin the shuffling generator anew.

    Example:
        >>> import metafuse as mf
        >>> mf.data.set_shuffle_seed(7)
        >>> order = mf.data.get_random_list(9)
        >>> mf.data.set_shuffle_seed(7)
        >>> mf.data.get_random_list(9) == order
        True
    """
    global _generator
    if seed < 0:
        raise ArgumentError(f"[set_shuffle_seed] seed must be >= 0, got {seed}")
    _generator = np.random.default_rng(int(seed))


def _put_generator(generator: np.random.Generator) -> None:
    global _generator
    _generator = generator


register(lambda: _generator, lambda rank: np.random.default_rng(1), _put_generator)


@checked
def get_random_list(n: int) -> list[int]:
    """The numbers 0 .. n-1 in random order.

    Example:
        >>> import metafuse as mf
        >>> sorted(mf.data.get_random_list(3))
        [0, 1, 2]
    """
    return _numbers("get_random_list", n, lambda: _generator.permutation(int(n)).tolist())


@checked
def get_order_list(n: int) -> list[int]:
    """The numbers 0 .. n-1.

    Example:
        >>> import metafuse as mf
        >>> mf.data.get_order_list(3)
        [0, 1, 2]
    """
    return _numbers("get_order_list", n, lambda: list(range(n)))


def _numbers(op: str, n: int, make: Callable[[], list[int]]) -> list[int]:
    if not 0 <= n < 2**40:
        raise ArgumentError(f"[{op}] n must be in 0..2**40-1, got {n}")
    try:
        return make()
    except MemoryError as error:
        raise OutOfMemory(f"[{op}] a list of {n} numbers does not fit into memory") from error


@checked
class Sampler:
    """Base of all samplers: iterate for indices; ``len`` says how many there will be.

    Example:
        >>> import metafuse as mf
        >>> class Backwards(mf.data.Sampler):
        ...     def __iter__(self):
        ...         return iter(range(len(self) - 1, -1, -1))
        >>> list(Backwards("abc"))
        [2, 1, 0]
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"[{type(self).__name__}] define __iter__")

    def __len__(self) -> int:
        return item_count(self.dataset)


@checked
class SequentialSampler(Sampler):
    """First to last.

    Example:
        >>> import metafuse as mf
        >>> list(mf.data.SequentialSampler("abc"))
        [0, 1, 2]
    """

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))


@checked
class RandomSampler(Sampler):
    """In random order.

    Args:
        replacement: draw with replacement.
        num_samples: how many to draw; ``None`` means as many as there are.

    Example:
        >>> import metafuse as mf
        >>> sorted(mf.data.RandomSampler(range(4)))
        [0, 1, 2, 3]
    """

    def __init__(self, dataset: Any, replacement: bool = False, num_samples: int | None = None) -> None:
        super().__init__(dataset)
        self.replacement = bool(replacement)
        self._num_samples = num_samples
        if num_samples is not None and (isinstance(num_samples, bool) or num_samples < 1):
            raise ArgumentError(f"[RandomSampler] num_samples must be None or >= 1, got {brief(num_samples)}")

    @property
    def num_samples(self) -> int:
        """How many indices one iteration gives."""
        return item_count(self.dataset) if self._num_samples is None else self._num_samples

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        size, count = item_count(self.dataset), self.num_samples
        if self.replacement:
            return iter(int(k) for k in _generator.integers(0, size, count))
        rounds = [get_random_list(size) for _ in range(-(-count // size))] if size else []
        return iter([k for part in rounds for k in part][:count])


@checked
class SubsetRandomSampler(Sampler):
    """Some indices, in random order.

    Example:
        >>> import metafuse as mf
        >>> sorted(mf.data.SubsetRandomSampler(range(9), [5, 3]))
        [3, 5]
    """

    def __init__(self, dataset: Any, indice: Sequence[int]) -> None:
        super().__init__(dataset)
        self.indices = [int(k) for k in indice]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices[k] for k in get_random_list(len(self.indices)))


@checked
class WeightedRandomSampler(Sampler):
    """Indices drawn with probabilities in proportion to ``weights``.

    Args:
        weights: one number >= 0 for each item.
        num_samples: how many to draw.
        replacement: whether an index may come more than once.

    Example:
        >>> import metafuse as mf
        >>> list(mf.data.WeightedRandomSampler([0.0, 1.0], 3))
        [1, 1, 1]
    """

    def __init__(self, weights: Sequence[float], num_samples: int, replacement: bool = True) -> None:
        super().__init__(None)
        found = np.asarray(weights, np.float64)
        if found.ndim != 1 or not np.isfinite(found).all() or (found < 0).any() or not found.sum() > 0:
            raise ArgumentError("[WeightedRandomSampler] weights must be numbers >= 0, not all of them 0")
        if isinstance(num_samples, bool) or not isinstance(num_samples, int) or not 1 <= num_samples < 2**31:
            raise ArgumentError(
                f"[WeightedRandomSampler] num_samples must be an integer in 1..2**31-1, got {brief(num_samples)}"
            )
        if not replacement and num_samples > np.count_nonzero(found):
            raise ArgumentError(
                f"[WeightedRandomSampler] {num_samples} different indices can't be drawn from {np.count_nonzero(found)}"
            )
        self.probabilities = found / found.sum()
        self.num_samples, self.replacement = num_samples, bool(replacement)

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        count = len(self.probabilities)
        drawn = _generator.choice(count, self.num_samples, self.replacement, self.probabilities)
        return iter(int(k) for k in drawn)


@checked
class BatchSampler(Sampler):
    """Lists of ``batch_size`` indices of another sampler; with ``drop_last`` a short last one is left out.

    Example:
        >>> import metafuse as mf
        >>> list(mf.data.BatchSampler(mf.data.SequentialSampler(range(5)), 2, False))
        [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Sampler, batch_size: int, drop_last: bool) -> None:
        super().__init__(getattr(sampler, "dataset", None))
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ArgumentError(f"[BatchSampler] batch_size must be an integer >= 1, got {brief(batch_size)}")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = bool(drop_last)

    def __len__(self) -> int:
        count = len(self.sampler)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for k in self.sampler:
            batch.append(k)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch


@checked
class SkipFirstBatchesSampler(Sampler):
    """Another (batch) sampler without its first ``num_skip_batches`` entries: to go on within an epoch.

    Example:
        >>> import metafuse as mf
        >>> list(mf.data.SkipFirstBatchesSampler(mf.data.SequentialSampler("abcd"), 2))
        [2, 3]
    """

    def __init__(self, sampler: Sampler, num_skip_batches: int) -> None:
        super().__init__(getattr(sampler, "dataset", None))
        self.sampler = sampler
        self.num_skip_batches = num_skip_batches

    def __len__(self) -> int:
        return max(len(self.sampler) - self.num_skip_batches, 0)

    def __iter__(self) -> Iterator[Any]:
        for k, entry in enumerate(self.sampler):
            if k >= self.num_skip_batches:
                yield entry


def item_count(dataset: Any) -> int:
    """How many items a data set has (its ``len`` counts batches)."""
    count = getattr(dataset, "item_count", None)
    if callable(count):
        return int(count())
    if not hasattr(dataset, "__len__") or getattr(dataset, "ndim", 1) == 0:
        raise DTypeError(f"[Sampler] dataset must have a length, got {type(dataset).__name__}")
    return len(dataset)
