"""Transforms of colours and between images and tensors.

What it is: classes that keep their options and change one image after another.
What it is not: the changes themselves (``functional``, ``function_pil``).
Who calls it: users, mostly in ``Compose``.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from ..arguments import checked
from ..errors import ArgumentError, brief
from . import functional as F
from .images import check_image, check_number, check_pair, check_probability, is_pil

__all__ = ["ColorJitter", "Gray", "ImageNormalize", "RandomGray", "ToPILImage", "ToTensor"]


@checked
class ColorJitter:
    """Brightness, contrast, saturation and hue changed at random, in random order.

    Args:
        brightness, contrast, saturation: a number v for factors in max(0, 1 - v)..1 + v, or a range of factors.
        hue: a number v for -v..v, or a range, within -0.5..0.5.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.ColorJitter(brightness=0.2)(image).shape
        (4, 6, 3)
    """

    def __init__(self, brightness: Any = 0, contrast: Any = 0, saturation: Any = 0, hue: Any = 0) -> None:
        self.brightness = _factors("brightness", brightness)
        self.contrast = _factors("contrast", contrast)
        self.saturation = _factors("saturation", saturation)
        if isinstance(hue, (tuple, list)):
            self.hue = check_pair("ColorJitter", "hue", hue, -0.5, 0.5)
        else:
            limit = check_number("ColorJitter", "hue", hue, 0, 0.5)
            self.hue = (-limit, limit)

    def __call__(self, img: Any) -> Any:
        """The image, changed."""
        check_image("ColorJitter", img)
        changes = [
            (F.adjust_brightness, self.brightness, 1.0), (F.adjust_contrast, self.contrast, 1.0),
            (F.adjust_saturation, self.saturation, 1.0), (F.adjust_hue, self.hue, 0.0),
        ]  # fmt: skip
        for change, (low, high), neutral in random.sample(changes, len(changes)):
            if (low, high) != (neutral, neutral):
                img = change(img, random.uniform(low, high))
        return img


def _factors(name: str, value: Any) -> tuple[float, float]:
    if isinstance(value, (tuple, list)):
        return check_pair("ColorJitter", name, value, 0)
    value = check_number("ColorJitter", name, value, 0)
    return max(0.0, 1.0 - value), 1.0 + value


@checked
class Gray:
    """Without colours, of 1 or 3 equal channels.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.Gray()(image).shape
        (4, 6, 1)
    """

    def __init__(self, num_output_channels: int = 1) -> None:
        if num_output_channels not in (1, 3) or isinstance(num_output_channels, bool):
            raise ArgumentError(
                f"[Gray] num_output_channels must be 1 or 3, got {brief(num_output_channels)}"
            )
        self.num_output_channels = num_output_channels

    def __call__(self, img: Any) -> Any:
        """The image without colours."""
        return F.gray(img, self.num_output_channels)


@checked
class RandomGray:
    """Without colours with probability ``p``; the number of channels stays.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.RandomGray(0.0)(image).shape
        (4, 6, 3)
    """

    def __init__(self, p: float = 0.1) -> None:
        self.p = check_probability("RandomGray", p)

    def __call__(self, img: Any) -> Any:
        """The image, with or without colours."""
        check_image("RandomGray", img)
        if random.random() >= self.p:
            return img
        single = img.mode == "L" if is_pil(img) else img.ndim == 2 or img.shape[-1] == 1
        return F.gray(img, 1 if single else 3)


@checked
class ToTensor:
    """An image as a float32 array ``[channels, height, width]`` of 0..1; see ``to_tensor``.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.ToTensor()(image).shape
        (3, 4, 6)
    """

    def __call__(self, pic: Any) -> Any:
        """The array."""
        return F.to_tensor(pic)


@checked
class ToPILImage:
    """An array or Var as an image of Pillow's; see ``to_pil_image``.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.ToPILImage()(image).size
        (6, 4)
    """

    def __init__(self, mode: str | None = None) -> None:
        if mode is not None and not isinstance(mode, str):
            raise ArgumentError(f"[ToPILImage] mode must be a text or None, got {brief(mode)}")
        self.mode = mode

    def __call__(self, pic: Any) -> Any:
        """The image."""
        return F.to_pil_image(pic, self.mode)


@checked
class ImageNormalize:
    """``(x - mean) / std`` per channel; see ``image_normalize``.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> mf.transform.ImageNormalize(mean=[0.5], std=[0.5])(np.zeros((2, 2), np.uint8))[0, 0]
        array([-1., -1.], dtype=float32)
    """

    def __init__(self, mean: Any, std: Any) -> None:
        if np.any(np.asarray(std) == 0):
            raise ArgumentError(f"[ImageNormalize] std must not be 0, got {brief(std)}")
        self.mean, self.std = mean, std

    def __call__(self, img: Any) -> Any:
        """The image as a tensor."""
        return F.image_normalize(img, self.mean, self.std)
