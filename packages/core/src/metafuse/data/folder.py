"""Images in folders, one folder a class.

What it is: ``ImageFolder``.
What it is not: for files of other kinds.
Who calls it: users.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..arguments import checked
from ..errors import ArgumentError
from .dataset import Dataset
from .files import read_image

__all__ = ["IMAGE_ENDINGS", "ImageFolder"]

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")


@checked
class ImageFolder(Dataset):
    """Pairs (image, class) of the files ``root/<class>/.../*.jpg`` (or .png ...): an RGB image of Pillow's, or what
    ``transform`` makes of it, and the number of the class. Classes are sorted by name, files by path.

    Attributes: ``classes``, ``class_to_idx``, ``imgs`` (pairs of path and class).

    Needs Pillow. Errors: ``ArgumentError`` if there are no classes or images; at reading, naming the file, if one is damaged.

    Example:
        >>> import metafuse as mf
        >>> import os
        >>> from PIL import Image
        >>> os.makedirs("photos/cat"), os.makedirs("photos/dog")
        (None, None)
        >>> Image.new("RGB", (4, 4)).save("photos/cat/1.png")
        >>> Image.new("RGB", (4, 4)).save("photos/dog/1.png")
        >>> folder = mf.data.ImageFolder("photos")
        >>> folder.classes, folder.item_count()
        (['cat', 'dog'], 2)
    """

    def __init__(self, root: str | os.PathLike[str], transform: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        self.root = os.fspath(root)
        self.transform = transform
        folder = Path(root).expanduser()
        if not folder.is_dir():
            raise ArgumentError(f"[ImageFolder] {self.root!r} is no folder")
        self.classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        self.class_to_idx = {name: k for k, name in enumerate(self.classes)}
        self.imgs = [
            (os.path.join(place, name), k)
            for k, kind in enumerate(self.classes)
            for place, _, names in sorted(os.walk(folder / kind))
            for name in sorted(names)
            if name.lower().endswith(IMAGE_ENDINGS)
        ]
        if not self.imgs:
            raise ArgumentError(
                f"[ImageFolder] no images are in folders below {self.root!r}; it must look like {self.root}/<class>/<name>.jpg"
            )
        self.set_attrs(total_len=len(self.imgs))

    def __getitem__(self, k: int) -> tuple[Any, int]:
        path, label = self.imgs[k]
        image = read_image("ImageFolder", path, "RGB")
        return image if self.transform is None else self.transform(image), label
