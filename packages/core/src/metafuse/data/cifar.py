"""CIFAR-10 and CIFAR-100: small photographs of 32 x 32 points in 10 and 100 classes.

What it is: the data set classes; they take files placed by hand, or download and verify them. The pickles in them are read as
data.
What it is not: a copy of the data.
Who calls it: users.

Source: https://www.cs.toronto.edu/~kriz/cifar.html, "python version".
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..io.files import Budget, Source
from ..io.pickle_names import plain_names
from ..io.pickle_reader import PickleReader
from ..transform.images import from_array
from . import download as downloads
from .dataset import Dataset
from .files import missing, root_of

__all__ = ["CIFAR10", "CIFAR100"]


class CIFAR10(Dataset):
    """Pairs (image, class): float32 ``[3, 32, 32]`` in 0..1, or what ``transform`` makes of the image of Pillow's;
    and an integer, or what ``target_transform`` makes of it.

    Args:
        root: folder of the archive ``cifar-10-python.tar.gz``, of the folder ``cifar-10-batches-py`` in it, or of its files;
            ``None`` means ``METAFUSE_DATA_DIR`` (if set) or ``~/.cache/metafuse-data``, with ``/cifar10`` behind it.
        train: the 50,000 training images, else the 10,000 test images.
        transform, target_transform: functions of image and class.
        download: get the archive (170 MB) if nothing is there.

    Attributes: ``data`` uint8 ``[n, 32, 32, 3]``, ``targets``, ``classes``, ``class_to_idx``.

    Errors: ``DownloadError`` with the name of the file and where to put it.
    """

    _folder = "cifar-10-batches-py"
    _archive = "cifar-10-python.tar.gz"
    _md5 = "c58f30108f718f92721af3b95e74349a"
    _train: tuple[str, ...] = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
    _test: tuple[str, ...] = ("test_batch",)
    _labels = "labels"
    _meta = ("batches.meta", "label_names")
    _default = "cifar10"

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        train: bool = True,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        download: bool = True,
    ) -> None:
        super().__init__()
        self.root = root_of(root, self._default)
        self.train = bool(train)
        self.transform, self.target_transform = transform, target_transform
        names = self._train if train else self._test
        files = self._files([*names, self._meta[0]], download)
        parts = [self._part(name, files[name]) for name in names]
        self.data = np.concatenate([data for data, _ in parts])
        self.targets = [label for _, labels in parts for label in labels]
        self.classes = [
            str(name) for name in self._table(self._meta[0], files[self._meta[0]]).get(self._meta[1], ())
        ]
        self.class_to_idx = {name: k for k, name in enumerate(self.classes)}
        self.set_attrs(total_len=len(self.targets))

    def download(self) -> None:
        """Get the archive, if it is missing."""
        downloads.fetch(
            [f"https://www.cs.toronto.edu/~kriz/{self._archive}"], self.root / self._archive, self._md5
        )

    def _files(self, names: list[str], download: bool) -> dict[str, bytes]:
        """The contents of files, from a folder or the archive."""
        for folder in (self.root / self._folder, self.root):
            if all((folder / name).is_file() for name in names):
                return {name: (folder / name).read_bytes() for name in names}
        archive = self.root / self._archive
        if not archive.is_file():
            if not download:
                raise missing(type(self).__name__, f"{self._folder} or {self._archive}", self.root)
            self.download()
        try:
            with tarfile.open(archive) as tar:
                found = {e.name.rpartition("/")[2]: e for e in tar.getmembers() if e.isreg()}
                return {name: tar.extractfile(found[name]).read() for name in names}  # type: ignore[union-attr]
        except (tarfile.TarError, EOFError, OSError, KeyError) as error:
            raise ArgumentError(
                f"[{type(self).__name__}] {archive} is damaged: {error}; remove it, so that it is loaded anew"
            ) from error

    def _table(self, name: str, content: bytes) -> dict[str, Any]:
        source = Source(io.BytesIO(content), f"{self.root}/{name}")
        table = PickleReader(source, plain_names(Budget(source))).load()
        if not isinstance(table, dict):
            raise source.problem("it holds no table; it is damaged")
        return {
            key.decode("latin1") if isinstance(key, bytes) else str(key): value
            for key, value in table.items()
        }

    def _part(self, name: str, content: bytes) -> tuple[np.ndarray[Any, Any], list[int]]:
        """Images ``[n, 32, 32, 3]`` and classes of one file."""
        table = self._table(name, content)
        data: Any = table.get("data")
        labels: Any = table.get(self._labels)
        ok = (
            isinstance(data, np.ndarray)
            and data.dtype == np.uint8
            and data.shape[1:] == (3072,)
            and isinstance(labels, list)
        )
        if not ok or len(data) != len(labels):
            raise ArgumentError(
                f"[{type(self).__name__}] {self.root}/{name} does not hold images and {self._labels}; it is damaged"
            )
        return np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), [
            int(label) for label in labels
        ]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, target = self.data[index], self.targets[index]
        if self.transform is None:
            picture: Any = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
        else:
            picture = self.transform(from_array(type(self).__name__, image))
        return picture, target if self.target_transform is None else self.target_transform(target)

    def extra_repr(self) -> str:
        """Which part of the data this is."""
        return f"Split: {'Train' if self.train else 'Test'}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()}, {self.total_len} images in {self.root})"


class CIFAR100(CIFAR10):
    """As ``CIFAR10``, of 100 classes; files ``train`` and ``test`` of ``cifar-100-python`` in ``cifar-100-python.tar.gz``."""

    _folder = "cifar-100-python"
    _archive = "cifar-100-python.tar.gz"
    _md5 = "eb9058c3a382ffc7106e4002c42a8d85"
    _train = ("train",)
    _test = ("test",)
    _labels = "fine_labels"
    _meta = ("meta", "fine_label_names")
    _default = "cifar100"
