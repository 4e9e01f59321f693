"""Parts of data sets: which items, in which batches, made by whom; splits share nothing; errors."""

from __future__ import annotations

import os

import numpy as np
import pytest

import metafuse as mf
from metafuse import data
from metafuse.errors import ArgumentError, DTypeError


class Words(data.Dataset):
    """Texts, which only its own ``collate_batch`` can put together."""

    def __init__(self, words):
        super().__init__()
        self.words = words
        self.set_attrs(total_len=len(words))

    def __getitem__(self, k):
        return self.words[k]

    def collate_batch(self, batch):
        return np.array([len(word) for word in batch])


def pairs(count=6, start=0):
    numbers = np.arange(start, start + count)
    return data.TensorDataset(numbers.astype(np.float32) * 2, numbers)


def items(dataset):
    return [k for _, y in dataset for k in y.tolist()]


def test_a_subset_reads_its_items_in_batches_of_its_own():
    whole = pairs().set_attrs(batch_size=6)
    part = data.Subset(whole, [5, -6, 2, 2]).set_attrs(batch_size=3)
    assert len(part) == 2
    assert part.item_count() == 4
    batches = [(x.tolist(), y.tolist()) for x, y in part]
    assert batches == [([10.0, 0.0, 4.0], [5, 0, 2]), ([4.0], [2])]
    assert part[1] == (0.0, 0)
    assert len(whole) == 1
    assert items(data.Subset(part, mf.array([3, 0]))) == [2, 5]
    assert items(data.Subset(pairs(), np.array([1, 3])).set_attrs(batch_size=1)) == [1, 3]
    assert list(data.Subset(whole, [])) == []


def test_a_subset_of_a_list():
    part = data.Subset(["a", "bb", "ccc"], (2, 0))
    assert [part[k] for k in range(2)] == ["ccc", "a"]


def test_batches_are_made_as_the_data_set_makes_them():
    words = Words(["a", "bb", "ccc", "dddd"])
    assert [b.tolist() for b in data.Subset(words, [3, 1]).set_attrs(batch_size=2)] == [[4, 2]]
    both = data.ConcatDataset([words, Words(["eeeee"])]).set_attrs(batch_size=3)
    assert [b.tolist() for b in both] == [[1, 2, 3], [4, 5]]


def test_a_users_subset_may_change_items():
    class Negative(data.Subset):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return -x, -y

    assert items(Negative(pairs(), [4, 2])) == [-4, -2]


@pytest.mark.skipif(os.name != "posix", reason="worker processes need POSIX")
def test_workers_read_parts():
    both = data.ConcatDataset([pairs(3), data.Subset(pairs(9), [8, 7])]).set_attrs(
        batch_size=2, num_workers=2
    )
    assert items(both) == [0, 1, 2, 8, 7]
    both.terminate()


def test_several_data_sets_as_one():
    both = data.ConcatDataset([pairs(2), pairs(0), pairs(3, start=10)])
    assert both.cumulative_sizes == [2, 2, 5]
    assert items(both.set_attrs(batch_size=2)) == [0, 1, 10, 11, 12]
    assert both[-1] == (24.0, 12)
    for index in (5, -6):
        with pytest.raises(IndexError, match=r"\[ConcatDataset\] index must be in -5..4"):
            both[index]
    shuffled = items(both.set_attrs(shuffle=True))
    assert sorted(shuffled) == [0, 1, 10, 11, 12]


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [([7, 3], [7, 3]), ([10], [10]), ([0, 10], [0, 10]), ([0.5, 0.5], [5, 5]), ((0.25, 0.25, 0.5), [3, 2, 5]),
     ([0.33, 0.33, 0.34], [4, 3, 3]), ([1.0], [10])],
)  # fmt: skip
def test_random_split(lengths, sizes):
    parts = data.random_split(pairs(10), lengths)
    assert [p.item_count() for p in parts] == sizes
    assert sorted(k for p in parts for k in items(p)) == list(range(10))


def test_splits_are_random_and_repeatable():
    def split(**options):
        return [p.indices for p in data.random_split(range(100), [50, 50], **options)]

    data.set_shuffle_seed(3)
    first, second = split(), split()
    data.set_shuffle_seed(3)
    assert split() == first != second
    assert first[0] != sorted(first[0])
    a, b = (split(generator=np.random.default_rng(5)) for _ in range(2))
    assert a == b != first


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: data.Subset(pairs(), [6]), ArgumentError, r"\[Subset\] indices must be -6..5"),
        (lambda: data.Subset(pairs(), [0.5]), DTypeError, "list of integers"),
        (lambda: data.Subset(pairs(), [[1]]), DTypeError, r"got int64 \[1, 1\]"),
        (lambda: data.Subset(pairs(), 3), DTypeError, "got int"),
        (lambda: data.Subset(7, [0]), DTypeError, "must have a length"),
        (lambda: data.ConcatDataset([]), ArgumentError, "is empty"),
        (lambda: data.ConcatDataset(pairs()), DTypeError, "list of data sets"),
        (lambda: data.ConcatDataset([3]), DTypeError, "must have a length"),
        (lambda: data.random_split(pairs(), [2, 3]), ArgumentError, r"the 6 items, or 1 .*\[2, 3\] make 5"),
        (lambda: data.random_split(pairs(), [-1, 7]), ArgumentError, ">= 0"),
        (lambda: data.random_split(pairs(), "ab"), DTypeError, "list of numbers"),
        (lambda: data.random_split(pairs(), [6], generator=3), DTypeError, "numpy.random.Generator"),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()
