"""Pascal VOC 2012, segmentation: photographs and the class of each of their points.

What it is: the data set class over the files of the challenge.
What it is not: a download; the archive is 2 GB and has no lasting address.
Who calls it: users.

Source: http://host.robots.ox.ac.uk/pascal/VOC/voc2012
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..errors import ArgumentError, brief
from ..transform.images import check_size
from .dataset import Dataset
from .download import DownloadError
from .files import read_image, root_of

__all__ = ["VOC"]


class VOC(Dataset):
    """Pairs (image, classes): float32 ``[3, height, width]`` in 0..255 and int32 ``[height, width]``, 0 background to 20, 255
    for nothing.

    Args:
        data_root: the folder ``VOC2012``, or one that has it (``VOCdevkit/VOC2012``); ``None`` means ``METAFUSE_DATA_DIR``
        (if set)
            or ``~/.cache/metafuse-data``, with ``/voc`` behind it.
        split: ``train``, ``val`` or ``trainval``: a list of names in ``ImageSets/Segmentation``.
        size: to which images (bilinear) and classes (nearest) are resized, so that they can be batched; ``None``: they stay.

    Needs Pillow. Errors: ``DownloadError`` that says which folder is missing.
    """

    NUM_CLASSES = 21

    def __init__(
        self,
        data_root: str | os.PathLike[str] | None = None,
        split: str = "train",
        size: int | tuple[int, int] | None = 513,
    ) -> None:
        super().__init__()
        root = root_of(data_root, "voc")
        self.split = split
        self.size = None if size is None else check_size("VOC", size)
        folders = [root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"]
        self.data_root = next((f for f in folders if (f / "ImageSets" / "Segmentation").is_dir()), root)
        lists = self.data_root / "ImageSets" / "Segmentation"
        if not lists.is_dir():
            raise DownloadError(
                f"[VOC] {lists} is missing; get VOCtrainval_11-May-2012.tar (http://host.robots.ox.ac.uk/pascal/VOC/voc2012), "
                f"unpack it with metafuse.data.extract_archive(file, {str(root)!r})"
            )
        path = lists / f"{split}.txt"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in lists.glob("*.txt")))
            raise ArgumentError(f"[VOC] split must be one of {known}, got {brief(split)}")
        names = path.read_text().split()
        self.images = [self.data_root / "JPEGImages" / f"{name}.jpg" for name in names]
        self.masks = [self.data_root / "SegmentationClass" / f"{name}.png" for name in names]
        self.set_attrs(total_len=len(names))

    def __getitem__(self, index: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        image, mask = read_image("VOC", self.images[index], "RGB"), read_image("VOC", self.masks[index], None)
        if self.size is not None:
            height, width = self.size
            image, mask = image.resize((width, height), 2), mask.resize((width, height), 0)
        return np.asarray(image).transpose(2, 0, 1).astype(np.float32), np.asarray(mask).astype(np.int32)
