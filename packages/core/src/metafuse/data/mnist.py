"""MNIST and EMNIST: handwritten digits and letters of 28 x 28 points.

What it is: the data set classes; they take files placed by hand, or download and verify them.
What it is not: a copy of the data.
Who calls it: users.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, brief
from . import download as downloads
from .dataset import Dataset
from .files import default_root, missing, root_of
from .idx import parse_idx, read_idx

__all__ = ["EMNIST", "MNIST", "default_root"]

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
_EMNIST = "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip"
_EMNIST_MD5 = "58c8d27c78d21e728a6bc7b3cc06412e"


class MNIST(Dataset):
    """Pairs (image, digit): float32 ``[1, 28, 28]`` in 0..1, or what ``transform`` makes of the uint8 ``[28, 28]``
    array; and an integer.

    Args:
        data_root: folder of the four IDX files, compressed or not; ``None`` means ``METAFUSE_DATA_DIR`` (if set) or
            ``~/.cache/metafuse-data``, with ``/mnist`` behind it.
        train: the 60,000 training digits, else the 10,000 test digits.
        download: get files that are missing.
        batch_size, shuffle: as in ``Dataset``.
        transform: function of a uint8 array ``[28, 28]``; the transforms of ``metafuse.transform`` take such arrays.

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
        self.data_root = root_of(data_root, "mnist")
        self.is_train = bool(train)
        self.transform = transform
        self._set(*(self._read(name, download) for name in self._names()))

    def _names(self) -> tuple[str, str]:
        prefix = "train" if self.is_train else "t10k"
        return f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"

    def _set(self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise ArgumentError(
                f"[{type(self).__name__}] images {images.shape} and labels {labels.shape} in {self.data_root} "
                "do not belong together"
            )
        self.images, self.labels = images, labels.astype(np.int32)
        self.set_attrs(total_len=len(labels))

    def _read(self, name: str, download: bool) -> np.ndarray[Any, Any]:
        """The array of a file, as placed by hand (with or without ``.gz``) or downloaded."""
        packed = self.data_root / name
        for path in (packed, packed.with_suffix("")):
            if path.is_file():
                return read_idx(path)
        if not download:
            raise missing(type(self).__name__, name, self.data_root)
        self._get(name)
        return read_idx(packed)

    def _get(self, name: str) -> None:
        downloads.fetch([mirror + name for mirror in _MIRRORS], self.data_root / name, _MD5[name])

    def download_url(self) -> None:
        """Get the files of this part of the data, where they are missing."""
        for name in self._names():
            self._get(name)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self.images[index]
        if self.transform is not None:
            return self.transform(image), int(self.labels[index])
        return image[None].astype(np.float32) / 255.0, int(self.labels[index])


class EMNIST(MNIST):
    """Pairs (image, class) of digits and letters, as in ``MNIST``. Images are as in the files, with rows and columns exchanged.

    Args:
        data_root: folder of ``gzip.zip`` or of the IDX files in it; ``None`` as in ``MNIST``, with ``/emnist``.
        split: ``byclass`` (62 classes), ``bymerge`` (47), ``balanced`` (47), ``letters`` (26, from 1), ``digits`` or
        ``mnist`` (10).
        train, download, batch_size, shuffle, transform: as in ``MNIST``.

    Source: https://www.nist.gov/itl/products-and-services/emnist-dataset
    """

    splits = ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")

    def __init__(
        self,
        data_root: str | os.PathLike[str] | None = None,
        split: str = "byclass",
        train: bool = True,
        download: bool = True,
        batch_size: int = 16,
        shuffle: bool = False,
        transform: Callable[[np.ndarray[Any, Any]], Any] | None = None,
    ) -> None:
        if split not in self.splits:
            raise ArgumentError(f"[EMNIST] split must be one of {', '.join(self.splits)}, got {brief(split)}")
        self.split = split
        super().__init__(root_of(data_root, "emnist"), train, download, batch_size, shuffle, transform)

    def _names(self) -> tuple[str, str]:
        prefix = f"emnist-{self.split}-{'train' if self.is_train else 'test'}"
        return f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"

    def _read(self, name: str, download: bool) -> np.ndarray[Any, Any]:
        for folder in (self.data_root, self.data_root / "gzip"):
            for path in (folder / name, (folder / name).with_suffix("")):
                if path.is_file():
                    return read_idx(path)
        archive = self.data_root / "gzip.zip"
        if not archive.is_file():
            if not download:
                raise missing("EMNIST", f"{name} or gzip.zip", self.data_root)
            self.download_url()
        return _entry(archive, name)

    def download_url(self) -> None:
        """Get the archive of all parts (540 MB), if it is missing."""
        downloads.fetch([_EMNIST], self.data_root / "gzip.zip", _EMNIST_MD5)


def _entry(archive: Path, name: str) -> np.ndarray[Any, Any]:
    """The array of an IDX file in a zip archive."""
    try:
        with zipfile.ZipFile(archive) as source:
            path = next((n for n in source.namelist() if n.rpartition("/")[2] == name), None)
            if path is None:
                raise ArgumentError(
                    f"[EMNIST] {name} is not in {archive}; remove it, so that it is loaded anew"
                )
            return parse_idx(source.read(path), f"{archive}/{name}")
    except (zipfile.BadZipFile, EOFError) as error:
        raise ArgumentError(
            f"[EMNIST] {archive} is damaged: {error}; remove it, so that it is loaded anew"
        ) from error
