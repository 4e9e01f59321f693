"""Transforms of size and position.

What it is: classes that keep their options and change one image after another, some of them at random.
What it is not: the changes themselves (``functional``, ``function_pil``).
Who calls it: users, mostly in ``Compose``.

Sizes are (height, width); one integer stands for both.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arguments import checked
from ..errors import ArgumentError, brief
from . import function_pil as pil
from . import functional as F
from .images import (
    check_image,
    check_interpolation,
    check_number,
    check_pair,
    check_probability,
    check_size,
    on_pil,
    size_of,
)

__all__ = [
    "CenterCrop", "Crop", "FiveCrop", "Pad", "RandomAffine", "RandomCrop", "RandomCropAndResize", "RandomHorizontalFlip",
    "RandomPerspective", "RandomResizedCrop", "RandomRotation", "RandomSizedCrop", "RandomVerticalFlip", "Resize", "TenCrop",
]  # fmt: skip

Size = int | Sequence[int]


@checked
class Crop:
    """The part at row ``top``, column ``left``.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.Crop(0, 1, 2, 3)(image).shape
        (2, 3, 3)
    """

    def __init__(self, top: int, left: int, height: int, width: int) -> None:
        self.top, self.left = (int(check_number("Crop", n, v)) for n, v in (("top", top), ("left", left)))
        self.height, self.width = check_size("Crop", (height, width), "height, width")

    def __call__(self, img: Any) -> Any:
        """The part."""
        return F.crop(img, self.top, self.left, self.height, self.width)


@checked
class CenterCrop:
    """The middle.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> mf.transform.CenterCrop(2)(np.arange(16, dtype=np.uint8).reshape(4, 4))
        array([[ 5,  6],
               [ 9, 10]], dtype=uint8)
    """

    def __init__(self, size: Size) -> None:
        self.size = check_size("CenterCrop", size)

    def __call__(self, img: Any) -> Any:
        """The part in the middle."""
        return F.center_crop(img, self.size)


@checked
class FiveCrop:
    """The four corners and the middle, as a tuple.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> [part.shape for part in mf.transform.FiveCrop(2)(image)]
        [(2, 2, 3), (2, 2, 3), (2, 2, 3), (2, 2, 3), (2, 2, 3)]
    """

    def __init__(self, size: Size) -> None:
        self.size = check_size("FiveCrop", size)

    def __call__(self, img: Any) -> tuple[Any, ...]:
        """Five images."""
        return F.five_crop(img, self.size)


@checked
class TenCrop:
    """``FiveCrop`` of the image and of its mirror image, as a tuple.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> len(mf.transform.TenCrop(2)(image))
        10
    """

    def __init__(self, size: Size, vertical_flip: bool = False) -> None:
        self.size = check_size("TenCrop", size)
        self.vertical_flip = bool(vertical_flip)

    def __call__(self, img: Any) -> tuple[Any, ...]:
        """Ten images."""
        return F.ten_crop(img, self.size, self.vertical_flip)


@checked
class Pad:
    """A border; see ``pad``.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.Pad(1)(image).shape
        (6, 8, 3)
    """

    def __init__(self, padding: Size, fill: Any = 0) -> None:
        self.padding = pil.check_padding("Pad", padding)
        self.fill = fill

    def __call__(self, img: Any) -> Any:
        """The image with its border."""
        return F.pad(img, self.padding, self.fill)


@checked
class Resize:
    """To exactly this size; one integer stands for height and width. (The function ``resize`` takes an integer for the
    shorter side.)

    Args:
        mode: interpolation by Pillow's number: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.Resize((8, 12))(image).shape
        (8, 12, 3)
    """

    def __init__(self, size: Size, mode: int = 2) -> None:
        self.size = check_size("Resize", size)
        self.mode = check_interpolation("Resize", mode)

    def __call__(self, img: Any) -> Any:
        """The image at its new size."""
        return F.resize(img, self.size, self.mode)


@checked
class RandomCrop:
    """A part of this size, anywhere.

    Args:
        padding, fill: a border that is added first.

    Errors: ``ArgumentError`` if the image is smaller.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.RandomCrop(2)(image).shape
        (2, 2, 3)
    """

    def __init__(self, size: Size, padding: Size = 0, fill: Any = 0) -> None:
        self.size = check_size("RandomCrop", size)
        self.padding = pil.check_padding("RandomCrop", padding)
        self.fill = fill

    def __call__(self, img: Any) -> Any:
        """The part."""
        if any(self.padding):
            img = F.pad(img, self.padding, self.fill)
        width, height = size_of(check_image("RandomCrop", img))
        h, w = self.size
        if h > height or w > width:
            raise ArgumentError(
                f"[RandomCrop] size {self.size} is larger than the image, {(height, width)}; pad or resize it"
            )
        return F.crop(img, random.randint(0, height - h), random.randint(0, width - w), h, w)


@checked
class RandomResizedCrop:
    """A part of random area and shape, at the size asked for: the usual way to train classifiers.

    Args:
        scale: area of the part, as a range of parts of the whole.
        ratio: width / height of the part, as a range.
        interpolation: as in ``Resize``.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.RandomResizedCrop(3)(image).size
        27
    """

    def __init__(
        self,
        size: Size,
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3.0 / 4.0, 4.0 / 3.0),
        interpolation: int = 2,
    ) -> None:
        op = type(self).__name__
        self.size = check_size(op, size)
        self.scale = check_pair(op, "scale", scale, 0)
        self.ratio = check_pair(op, "ratio", ratio, 1e-6)
        self.interpolation = check_interpolation(op, interpolation)

    @staticmethod
    def get_params(img: Any, scale: Sequence[float], ratio: Sequence[float]) -> tuple[int, int, int, int]:
        """Top, left, height and width of a part; after ten tries that do not fit, the middle in a shape that does."""
        width, height = size_of(img)
        low, high = math.log(ratio[0]), math.log(ratio[1])
        for _ in range(10):
            area = random.uniform(*scale) * width * height
            shape = math.exp(random.uniform(low, high))
            w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if 0 < w <= width and 0 < h <= height:
                return random.randint(0, height - h), random.randint(0, width - w), h, w
        w, h = width, height
        if width / height < ratio[0]:
            h = max(min(round(width / ratio[0]), height), 1)
        elif width / height > ratio[1]:
            w = max(min(round(height * ratio[1]), width), 1)
        return (height - h) // 2, (width - w) // 2, h, w

    def __call__(self, img: Any) -> Any:
        """The part at its new size."""
        check_image(type(self).__name__, img)
        return F.crop_and_resize(
            img, *self.get_params(img, self.scale, self.ratio), self.size, self.interpolation
        )


@checked
class RandomCropAndResize(RandomResizedCrop):
    """``RandomResizedCrop`` by another name.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.RandomCropAndResize(3)(image).size
        27
    """


RandomSizedCrop = RandomResizedCrop


@checked
class RandomHorizontalFlip:
    """Mirrored left to right with probability ``p``.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.RandomHorizontalFlip()(image).shape
        (4, 6, 3)
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_probability("RandomHorizontalFlip", p)

    def __call__(self, img: Any) -> Any:
        """The image, mirrored or not."""
        return F.hflip(img) if random.random() < self.p else img


@checked
class RandomVerticalFlip:
    """Mirrored top to bottom with probability ``p``.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.RandomVerticalFlip()(image).shape
        (4, 6, 3)
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_probability("RandomVerticalFlip", p)

    def __call__(self, img: Any) -> Any:
        """The image, mirrored or not."""
        return F.vflip(img) if random.random() < self.p else img


def _range(op: str, name: str, value: Any) -> tuple[float, float]:
    """A range of angles; one number stands for that many degrees to both sides."""
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        limit = check_number(op, name, value, 0)
        return -limit, limit
    return check_pair(op, name, value)


@checked
class RandomRotation:
    """Turned by a random angle.

    Args:
        degrees: a range of degrees (counter-clockwise), or a number for that many to both sides.
        resample, expand, center, fill: as in ``function_pil.rotate``.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.RandomRotation(10)(image).shape
        (4, 6, 3)
    """

    def __init__(
        self,
        degrees: Any,
        resample: Any = False,
        expand: bool = False,
        center: Sequence[float] | None = None,
        fill: Any = None,
    ) -> None:
        self.degrees = _range("RandomRotation", "degrees", degrees)
        self.resample = check_interpolation("RandomRotation", resample)
        self.expand, self.center, self.fill = bool(expand), center, fill

    @staticmethod
    def get_params(degrees: Sequence[float]) -> float:
        """An angle."""
        return random.uniform(degrees[0], degrees[1])

    def __call__(self, img: Any) -> Any:
        """The image, turned."""
        angle = self.get_params(self.degrees)
        return on_pil(
            "RandomRotation",
            img,
            lambda image: pil.rotate(image, angle, self.resample, self.expand, self.center, self.fill),
        )


@checked
class RandomAffine:
    """Turned, moved, scaled and sheared at random, about the middle.

    Args:
        degrees: a range of degrees (clockwise), or a number for that many to both sides.
        translate: how far to move at most, as parts (of width, of height).
        scale: a range of factors.
        shear: a number or range of degrees along x; or four numbers, ranges along x and y.
        resample, fillcolor: as in ``function_pil.affine``.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.RandomAffine(10)(image).shape
        (4, 6, 3)
    """

    def __init__(
        self, degrees: Any, translate: Sequence[float] | None = None, scale: Sequence[float] | None = None, shear: Any = None,
        resample: Any = False, fillcolor: Any = 0,
    ) -> None:  # fmt: skip
        op = "RandomAffine"
        self.degrees = _range(op, "degrees", degrees)
        self.translate = None
        if translate is not None:
            if not isinstance(translate, (tuple, list)) or len(translate) != 2:
                raise ArgumentError(f"[{op}] translate must be two numbers in 0..1, got {brief(translate)}")
            self.translate = tuple(check_number(op, "translate", v, 0, 1) for v in translate)
        self.scale = None if scale is None else check_pair(op, "scale", scale, 1e-6)
        self.shear: tuple[float, ...] | None = None
        if isinstance(shear, (tuple, list)) and len(shear) == 4:
            self.shear = check_pair(op, "shear", shear[:2]) + check_pair(op, "shear", shear[2:])
        elif shear is not None:
            self.shear = _range(op, "shear", shear)
        self.resample = check_interpolation(op, resample)
        self.fillcolor = fillcolor

    @staticmethod
    def get_params(
        degrees: Sequence[float], translate: Sequence[float] | None, scale_ranges: Sequence[float] | None,
        shears: Sequence[float] | None, img_size: Sequence[int],
    ) -> tuple[float, tuple[int, int], float, tuple[float, float]]:  # fmt: skip
        """Angle, movement (x, y), factor and shears (x, y) for an image of Pillow's size ``img_size``."""
        angle = random.uniform(degrees[0], degrees[1])
        move = (0, 0)
        if translate is not None:
            x, y = translate[0] * img_size[0], translate[1] * img_size[1]
            move = round(random.uniform(-x, x)), round(random.uniform(-y, y))
        factor = 1.0 if scale_ranges is None else random.uniform(scale_ranges[0], scale_ranges[1])
        along_x = 0.0 if shears is None else random.uniform(shears[0], shears[1])
        along_y = random.uniform(shears[2], shears[3]) if shears is not None and len(shears) == 4 else 0.0
        return angle, move, factor, (along_x, along_y)

    def __call__(self, img: Any) -> Any:
        """The image, changed."""
        size = size_of(check_image("RandomAffine", img))
        chosen = self.get_params(self.degrees, self.translate, self.scale, self.shear, size)
        return on_pil(
            "RandomAffine", img, lambda image: pil.affine(image, *chosen, self.resample, self.fillcolor)
        )


@checked
class RandomPerspective:
    """With probability ``p``, seen from another side.

    Args:
        distortion_scale: how far corners move inwards at most, as a part of half of the image, 0..1.
        interpolation: as in ``Resize``.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.RandomPerspective()(image).shape
        (4, 6, 3)
    """

    def __init__(self, distortion_scale: float = 0.5, p: float = 0.5, interpolation: int = 3) -> None:
        self.distortion_scale = check_number("RandomPerspective", "distortion_scale", distortion_scale, 0, 1)
        self.p = check_probability("RandomPerspective", p)
        self.interpolation = check_interpolation("RandomPerspective", interpolation)

    @staticmethod
    def get_params(
        width: int, height: int, distortion_scale: float
    ) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """The corners, clockwise from the upper left, and where they go: to the corners of a convex quadrangle."""
        x, y = (max(min(int(distortion_scale * (n // 2)), (n - 2) // 2), 0) for n in (width, height))
        right, bottom = width - 1, height - 1
        start = [(0, 0), (right, 0), (right, bottom), (0, bottom)]
        for _ in range(100):
            end = [(abs(a - random.randint(0, x)), abs(b - random.randint(0, y))) for a, b in start]
            if _is_convex(end) and _is_possible(start, end):
                return start, end
        return start, start

    def __call__(self, img: Any) -> Any:
        """The image, changed or not."""
        width, height = size_of(check_image("RandomPerspective", img))
        if random.random() >= self.p or min(width, height) < 2:
            return img
        start, end = self.get_params(width, height, self.distortion_scale)
        return on_pil(
            "RandomPerspective", img, lambda image: pil.perspective(image, start, end, self.interpolation)
        )


def _is_convex(points: Sequence[tuple[int, int]]) -> bool:
    """Whether one turns right at each of the points, clockwise: no three of them in a line."""
    sides = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(points, (*points[1:], points[0]))]
    return all(a[0] * b[1] - a[1] * b[0] > 0 for a, b in zip(sides, [*sides[1:], sides[0]]))


def _is_possible(start: Sequence[tuple[int, int]], end: Sequence[tuple[int, int]]) -> bool:
    """Whether Pillow can show it: not where its point (0, 0) would be infinitely far away."""
    try:
        pil.perspective_coefficients(start, end)
    except ArgumentError:
        return False
    return True
