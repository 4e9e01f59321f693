"""Images to files.

What it is: ``save_image``.
What it is not: reading (``data.files``).
Who calls it: users, as ``metafuse.save_image``.
"""

from __future__ import annotations

import os
from typing import Any, BinaryIO

import numpy as np

from ..arguments import checked
from ..errors import ArgumentError
from ..ops.vision import make_grid
from .images import pillow

__all__ = ["save_image"]


@checked
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
    """Write images ``[n, channels, height, width]`` of 0..1, side by side as ``make_grid`` puts them, to one file.

    Args:
        x: Var, or list of Vars ``[channels, height, width]``; 1 or 3 channels.
        filepath: a path, whose ending chooses the kind of file, or a binary file.
        nrow, padding, normalize, range, scale_each, pad_value: as in ``make_grid``.
        format: Pillow's name of the kind of file, where the path does not say it.

    Errors: ``PillowMissing``; those of ``make_grid``; ``ArgumentError`` for other numbers of channels.

    Example:
        >>> import metafuse as mf
        >>> mf.save_image(mf.rand(2, 3, 4, 4), "grid.png")
        >>> import os
        >>> os.path.exists("grid.png")
        True
    """
    grid = make_grid(x, nrow, padding, normalize, range, scale_each, pad_value).numpy()
    values = np.clip(np.nan_to_num(grid.astype(np.float32)) * 255 + 0.5, 0, 255).astype(np.uint8)
    planes = values.transpose(1, 2, 0)
    if planes.shape[2] not in (1, 3, 4):
        raise ArgumentError(f"[save_image] images must have 1, 3 or 4 channels, got {planes.shape[2]}")
    flat = planes[:, :, 0] if planes.shape[2] == 1 else planes
    pillow("save_image").fromarray(np.ascontiguousarray(flat)).save(filepath, format=format)
