"""Data sets, samplers and batching.

What it is: ``Dataset``, which yields batches of Vars, and what belongs to it.
What it is not: augmentation (``metafuse.transform``).
Who calls it: users, as ``metafuse.data``.
"""

from .collate import collate_batch
from .dataset import DataLoader, Dataset, TensorDataset, VarDataset
from .download import DownloadError
from .mnist import MNIST
from .sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SkipFirstBatchesSampler,
    SubsetRandomSampler,
    get_order_list,
    get_random_list,
    set_shuffle_seed,
)

__all__ = [
    "MNIST",
    "BatchSampler",
    "DataLoader",
    "Dataset",
    "DownloadError",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "SkipFirstBatchesSampler",
    "SubsetRandomSampler",
    "TensorDataset",
    "VarDataset",
    "collate_batch",
    "get_order_list",
    "get_random_list",
    "set_shuffle_seed",
]
