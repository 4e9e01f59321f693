"""What data sets over files share: where files are looked for, and reading of images.

What it is: ``default_root``, ``missing``, ``read_image``.
What it is not: a data set.
Who calls it: ``data.mnist``, ``data.cifar``, ``data.voc``, ``data.folder``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ArgumentError
from ..transform.images import pillow
from .download import DownloadError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["default_root", "missing", "read_image", "root_of"]


def default_root(name: str) -> Path:
    """The folder in which the files of data set ``name`` are looked for."""
    given = os.environ.get("METAFUSE_DATA_DIR")
    return (Path(given) if given else Path.home() / ".cache" / "metafuse-data") / name


def root_of(given: str | os.PathLike[str] | None, name: str) -> Path:
    """The user's folder, or the default one."""
    return default_root(name) if given is None else Path(given).expanduser()


def missing(op: str, what: str, folder: Path) -> DownloadError:
    """The error that files are not there."""
    return DownloadError(f"[{op}] {what} is not in {folder}; put it there or use download=True")


def read_image(op: str, path: str | os.PathLike[str], mode: str | None) -> Image:
    """An image file, converted to ``mode``. Errors: ``ArgumentError`` naming the file if it is damaged;
    ``FileNotFoundError``."""
    module = pillow(op)
    try:
        with module.open(path) as image:
            found: Image = image.convert(mode) if mode else image.copy()
            return found
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, module.DecompressionBombError) as error:
        raise ArgumentError(f"[{op}] {os.fspath(path)!r} can't be read as an image: {error}") from error
