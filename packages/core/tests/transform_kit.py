"""Pictures that the tests of transforms share; they are skipped where Pillow is missing."""

from __future__ import annotations

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")
RNG = np.random.default_rng(5)
ARRAY = RNG.integers(0, 256, (11, 14, 3), np.uint8)
GREY = RNG.integers(0, 256, (9, 8), np.uint8)
MODES = ["RGB", "L", "RGBA", "CMYK"]


def picture(mode="RGB", width=14, height=11):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8))
    return image.convert(mode)


def smooth(height=60, width=80):
    """An image without edges, so that interpolation hardly matters."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 3, y * 4, x + y], -1).astype(np.uint8))


def same(image, array):
    np.testing.assert_array_equal(np.asarray(image), array)
