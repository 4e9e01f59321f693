"""Data sets, samplers and batching.

What it is: ``Dataset``, which yields batches of Vars, and what belongs to it.
What it is not: augmentation (``metafuse.transform``).
Who calls it: users, as ``metafuse.data``.
"""

from . import utils
from .archive import download_and_extract_archive, extract_archive
from .cifar import CIFAR10, CIFAR100
from .collate import collate_batch
from .dataset import DataLoader, Dataset, TensorDataset, VarDataset
from .download import (
    DownloadError,
    calculate_md5,
    check_file_exist,
    check_integrity,
    check_md5,
    download_url_to_local,
    ensure_dir,
)
from .folder import ImageFolder
from .mnist import EMNIST, MNIST
from .parts import ConcatDataset, Subset, random_split
from .pool import WorkerError
from .sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SkipFirstBatchesSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    get_order_list,
    get_random_list,
    set_shuffle_seed,
)
from .utils import HookTimer
from .voc import VOC

__all__ = [
    "CIFAR10", "CIFAR100", "EMNIST", "MNIST", "VOC", "BatchSampler", "ConcatDataset", "DataLoader", "Dataset", "DownloadError",
    "HookTimer",
    "ImageFolder",
    "RandomSampler", "Sampler", "SequentialSampler", "SkipFirstBatchesSampler", "Subset",
    "SubsetRandomSampler", "TensorDataset",
    "VarDataset",
    "WeightedRandomSampler", "WorkerError", "calculate_md5", "check_file_exist", "check_integrity", "check_md5",
    "collate_batch",
    "download_and_extract_archive", "download_url_to_local", "ensure_dir", "extract_archive", "get_order_list",
    "get_random_list", "random_split",
    "set_shuffle_seed", "utils",
]  # fmt: skip
