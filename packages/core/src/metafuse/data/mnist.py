"""MNIST: 60,000 and 10,000 handwritten digits.

What it is: the data set class; it takes files placed by hand, or downloads and verifies them.
What it is not: a copy of the data.
Who calls it: users.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError
from . import download as downloads
from .dataset import Dataset
from .idx import read_idx

__all__ = ["MNIST"]

_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}


class MNIST(Dataset):
    """Pairs (image, digit): float32 ``[1, 28, 28]`` in 0..1, or what ``transform`` makes of the uint8 ``[28, 28]`` array; and an
    integer.

    Args:
        data_root: folder of the four IDX files, compressed or not; ``None`` means ``METAFUSE_DATA_DIR`` (if set) or
            ``~/.cache/metafuse-data``, with ``/mnist`` behind it.
        train: the 60,000 training digits, else the 10,000 test digits.
        download: get files that are missing.
        batch_size, shuffle: as in ``Dataset``.
        transform: function of a uint8 array ``[28, 28]``.

    Errors: ``DownloadError`` with the names of the files and where to put them.
    """

    def __init__(
        self,
        data_root: str | os.PathLike[str] | None = None,
        train: bool = True,
        download: bool = True,
        batch_size: int = 16,
        shuffle: bool = False,
        transform: Callable[[np.ndarray[Any, Any]], Any] | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, shuffle=shuffle)
        self.data_root = default_root("mnist") if data_root is None else Path(data_root)
        self.is_train = bool(train)
        self.transform = transform
        prefix = "train" if train else "t10k"
        self.images = read_idx(self._find(f"{prefix}-images-idx3-ubyte.gz", download))
        self.labels = read_idx(self._find(f"{prefix}-labels-idx1-ubyte.gz", download)).astype(np.int32)
        if self.images.ndim != 3 or len(self.images) != len(self.labels):
            raise ArgumentError(
                f"[MNIST] images {self.images.shape} and labels {self.labels.shape} in {self.data_root} do not belong together"
            )
        self.set_attrs(total_len=len(self.labels))

    def _find(self, name: str, download: bool) -> Path:
        """The file, as placed by hand (with or without ``.gz``) or downloaded."""
        packed = self.data_root / name
        for path in (packed, packed.with_suffix("")):
            if path.is_file():
                return path
        if not download:
            raise downloads.DownloadError(
                f"[MNIST] {name} is not in {self.data_root}; put it there or use download=True"
            )
        return downloads.fetch([mirror + name for mirror in _MIRRORS], packed, _MD5[name])

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self.images[index]
        if self.transform is not None:
            return self.transform(image), int(self.labels[index])
        return image[None].astype(np.float32) / 255.0, int(self.labels[index])


def default_root(name: str) -> Path:
    """The folder in which the files of data set ``name`` are looked for."""
    given = os.environ.get("METAFUSE_DATA_DIR")
    return (Path(given) if given else Path.home() / ".cache" / "metafuse-data") / name
