"""Images of a batch in one file, to look at.

What it is: ``save_image``.
What it is not: a format; Pillow writes the file.
Who calls it: users, in training loops of networks that make images.
"""

from __future__ import annotations

import os
from typing import Any, BinaryIO

import numpy as np

from ..ops.vision import make_grid
from .images import from_array

__all__ = ["save_image"]


def save_image(
    x: Any,
    filepath: str | os.PathLike[str] | BinaryIO,
    nrow: int = 8,
    padding: int = 2,
    normalize: bool = False,
    range: Any = None,
    scale_each: bool = False,
    pad_value: float = 0,
    format: str | None = None,
) -> None:
    """Write images side by side into a file: what ``make_grid`` answers, 0..1 as 0..255, values beyond cut.

    Args:
        x: ``[images, channels, height, width]`` or a list of ``[channels, height, width]``; 1, 3 or 4 channels.
        filepath: name of the file, or an open one.
        nrow, padding, normalize, range, scale_each, pad_value: see ``make_grid``.
        format: Pillow's name of a format; ``None``: by the file's name.

    Errors: ``ShapeError``, ``DTypeError`` for what is no batch of images; ``PillowMissing``.

    Example:
        >>> import metafuse as mf, tempfile, os
        >>> path = os.path.join(tempfile.mkdtemp(), "images.png")
        >>> mf.transform.save_image(mf.rand(4, 3, 8, 8), path, nrow=2)
        >>> os.path.getsize(path) > 0
        True
    """
    grid = make_grid(x, nrow, padding, normalize, range, scale_each, pad_value)
    values = np.nan_to_num(grid.numpy().astype(np.float32)) * 255 + 0.5
    pixels = np.clip(values, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    from_array("save_image", pixels).save(filepath, format)
