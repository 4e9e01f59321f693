"""What an image is: of Pillow's, or an array; and the checks that all transforms share.

What it is: the one place that imports Pillow (late, and with an error that says what to install), the conversions
between its images and arrays, and checks of sizes, ranges and probabilities.
What it is not: a transform.
Who calls it: the other modules of ``transform``; ``data`` for reading files.

One rule for arrays: **uint8 arrays are images**, ``[height, width]`` or ``[height, width, channels]`` with 0..255;
**all other arrays are tensors**, ``[..., height, width]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dtypes import is_number
from ..errors import ArgumentError, DTypeError, MetafuseError, brief

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "PillowMissing", "check_image", "check_interpolation", "check_number", "check_pair", "check_probability", "check_size",
    "from_array",
    "is_image_array", "is_pil", "on_pil", "pillow", "size_of",
]  # fmt: skip


class PillowMissing(MetafuseError, ImportError):
    """Something needs Pillow, and it is not installed."""


def pillow(what: str) -> Any:
    """The module ``PIL.Image``. Errors: ``PillowMissing`` naming ``what`` needs it."""
    try:
        import PIL.Image
    except ImportError as error:
        raise PillowMissing(
            f"[{what}] needs Pillow, which is not installed: pip install metafuse[data]"
        ) from error
    return PIL.Image


def is_pil(img: Any) -> bool:
    """Whether ``img`` is an image of Pillow's."""
    import sys

    module = sys.modules.get("PIL.Image")  # not imported: then nothing can be one
    return module is not None and isinstance(img, module.Image)


def is_image_array(img: Any) -> bool:
    """Whether ``img`` is an array that is an image, by the rule above."""
    return isinstance(img, np.ndarray) and img.dtype == np.uint8 and img.ndim in (2, 3)


def check_image(op: str, img: Any, arrays: bool = True) -> Any:
    """``img`` if it is an image of Pillow's, or (``arrays``) an array with height and width."""
    if is_pil(img) or (arrays and isinstance(img, np.ndarray) and img.ndim >= 2):
        return img
    wanted = "an image of Pillow's or an array [height, width, ...]" if arrays else "an image of Pillow's"
    found = f"an array of shape {img.shape}" if isinstance(img, np.ndarray) else type(img).__name__
    raise DTypeError(f"[{op}] img must be {wanted}, got {found}")


def from_array(op: str, array: np.ndarray[Any, Any]) -> Image:
    """The image of Pillow's for an array of uint8 ``[height, width]`` or ``[height, width, 1 to 4 channels]``."""
    if not is_image_array(array) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
        raise DTypeError(
            f"[{op}] img must be an image of Pillow's or a uint8 array [height, width] or [height, width, channels], got "
            f"{array.dtype}{list(array.shape)}; change sizes and colours before ToTensor and ImageNormalize"
        )
    flat = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    found: Image = pillow(op).fromarray(np.ascontiguousarray(flat))
    return found


def on_pil(op: str, img: Any, function: Callable[[Any], Any]) -> Any:
    """``function`` of an image; for a uint8 array the result is such an array again."""
    if is_pil(img):
        return function(img)
    check_image(op, img)
    result = function(from_array(op, img))

    def back(image: Any) -> np.ndarray[Any, Any]:
        array = np.array(image)
        return array[:, :, None] if img.ndim == 3 and array.ndim == 2 else array

    return tuple(map(back, result)) if isinstance(result, tuple) else back(result)


def size_of(img: Any) -> tuple[int, int]:
    """Width and height, in Pillow's order."""
    if is_pil(img):
        width, height = img.size
        return width, height
    if is_image_array(img):
        return img.shape[1], img.shape[0]
    return img.shape[-1], img.shape[-2]


def check_number(op: str, name: str, value: Any, low: float = -np.inf, high: float = np.inf) -> float:
    """``value`` if it is a number in ``low``..``high``."""
    known = is_number(value) or isinstance(value, (np.integer, np.floating))
    if not known or not low <= value <= high:
        raise ArgumentError(f"[{op}] {name} must be a number in {low:g}..{high:g}, got {brief(value)}")
    return value  # type: ignore[return-value]


def check_probability(op: str, value: Any) -> float:
    """``value`` if it is a number in 0..1."""
    return check_number(op, "p", value, 0, 1)


#: beyond that it is a mistake, not an image
MOST_PIXELS = 2**31 - 1


def check_size(op: str, size: Any, name: str = "size") -> tuple[int, int]:
    """(height, width) of one or two integers >= 1."""
    pair = (size, size) if isinstance(size, (int, np.integer)) else size
    if isinstance(pair, (tuple, list)) and len(pair) == 1:
        pair = (pair[0], pair[0])
    ok = isinstance(pair, (tuple, list)) and len(pair) == 2
    if not ok or any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1 for n in pair):
        raise ArgumentError(
            f"[{op}] {name} must be an integer >= 1 or a pair (height, width) of such, got {brief(size)}"
        )
    if int(pair[0]) * int(pair[1]) > MOST_PIXELS:
        raise ArgumentError(f"[{op}] {name} must give at most {MOST_PIXELS} pixels, got {brief(size)}")
    return int(pair[0]), int(pair[1])


def check_pair(
    op: str, name: str, value: Any, low: float = -np.inf, high: float = np.inf
) -> tuple[float, float]:
    """A pair of numbers in ``low``..``high``, the first not above the second."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ArgumentError(f"[{op}] {name} must be a pair of numbers, got {brief(value)}")
    first, second = (check_number(op, name, v, low, high) for v in value)
    if first > second:
        raise ArgumentError(f"[{op}] {name} must not fall, got {brief(value)}")
    return first, second


def check_interpolation(op: str, value: Any) -> int:
    """A way to interpolate by its number in Pillow: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming."""
    number = 0 if value is None or value is False else value
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or not 0 <= number <= 5:
        raise ArgumentError(
            f"[{op}] interpolation must be 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box or 5 Hamming, got {brief(value)}"
        )
    return int(number)
