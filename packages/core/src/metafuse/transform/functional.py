"""Functions of images, of Pillow's and arrays alike.

What it is: the functions of ``metafuse.transform``. Parts and mirror images of arrays are made by NumPy; everything else by
``function_pil`` through Pillow, and uint8 arrays come back as such.
What it is not: at random (``geometry``, ``colour``).
Who calls it: users; the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arguments import checked
from ..dtypes import as_dtype
from ..errors import ArgumentError, DTypeError, brief
from ..ops.creation import array
from ..ops.meta import check_fill
from ..ops.telling import renamed, tells
from ..var import Var
from . import function_pil as pil
from .images import check_image, check_number, check_size, is_image_array, is_pil, on_pil, pillow, size_of

__all__ = [
    "adjust_brightness", "adjust_contrast", "adjust_gamma", "adjust_hue", "adjust_saturation", "center_crop", "crop",
    "crop_and_resize",
    "five_crop", "gray", "hflip", "image_normalize", "pad", "pil_to_tensor", "resize", "ten_crop", "to_pil_image",
    "to_tensor", "vflip",
]  # fmt: skip


def _rows(img: np.ndarray[Any, Any]) -> int:
    """The dimension of rows; columns come behind."""
    return 0 if is_image_array(img) else img.ndim - 2


# -- parts and mirror images ----------------------------------------------------------------------------------------
@checked
def crop(img: Any, top: int, left: int, height: int, width: int) -> Any:
    """The part whose upper left corner is at row ``top``, column ``left``; what lies outside of the image is black.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> mf.transform.crop(np.arange(12, dtype=np.uint8).reshape(3, 4), 1, 2, 2, 3)
        array([[ 6,  7,  0],
               [10, 11,  0]], dtype=uint8)
    """
    if is_pil(img):
        return pil.crop(img, top, left, height, width)
    check_image("crop", img)
    height, width = check_size("crop", (height, width), "height, width")
    first = [int(check_number("crop", n, v)) for n, v in (("top", top), ("left", left))]
    rows = _rows(img)
    shape = list(img.shape)
    source, target = [slice(None)] * img.ndim, [slice(None)] * img.ndim
    for k, (begin, extent) in enumerate(zip(first, (height, width))):
        has = img.shape[rows + k]
        shape[rows + k] = extent
        low, high = min(max(begin, 0), has), min(max(begin + extent, 0), has)
        source[rows + k] = slice(low, high)
        target[rows + k] = slice(low - begin, high - begin) if high > low else slice(0, 0)
    result = np.zeros(shape, img.dtype)
    result[tuple(target)] = img[tuple(source)]
    return result


@checked
def center_crop(img: Any, output_size: int | Sequence[int]) -> Any:
    """The part of this size in the middle; what the image is too small for is black.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.center_crop(image, 2).shape
        (2, 2, 3)
    """
    check_image("center_crop", img)
    return crop(img, *pil.center(size_of(img), check_size("center_crop", output_size, "output_size")))


@checked
def five_crop(img: Any, size: int | Sequence[int]) -> tuple[Any, ...]:
    """The four corners (upper left, upper right, lower left, lower right) and the middle.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> len(mf.transform.five_crop(image, 2))
        5
    """
    check_image("five_crop", img)
    return tuple(
        crop(img, *p) for p in pil.five_places("five_crop", size_of(img), check_size("five_crop", size))
    )


@tells
@checked
def ten_crop(img: Any, size: int | Sequence[int], vertical_flip: bool = False) -> tuple[Any, ...]:
    """``five_crop`` of the image and of the image mirrored left to right (or top to bottom).

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> len(mf.transform.ten_crop(image, 2))
        10
    """
    return five_crop(img, size) + five_crop(vflip(img) if vertical_flip else hflip(img), size)


@checked
def hflip(img: Any) -> Any:
    """Mirrored left to right.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.hflip(image).shape
        (4, 6, 3)
    """
    if is_pil(img):
        return pil.hflip(img)
    return np.flip(check_image("hflip", img), _rows(img) + 1).copy()


@checked
def vflip(img: Any) -> Any:
    """Mirrored top to bottom.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.vflip(image).shape
        (4, 6, 3)
    """
    if is_pil(img):
        return pil.vflip(img)
    return np.flip(check_image("vflip", img), _rows(img)).copy()


@checked
def pad(img: Any, padding: int | Sequence[int], fill: Any = 0) -> Any:
    """The image with a border. ``padding``: all sides; (left and right, top and bottom); or (left, top, right, bottom).

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> mf.transform.pad(np.ones((1, 2), np.uint8), (1, 0), fill=5)
        array([[5, 1, 1, 5]], dtype=uint8)
    """
    if is_pil(img):
        return pil.pad(img, padding, fill)
    left, top, right, bottom = pil.check_padding("pad", padding)
    rows = _rows(check_image("pad", img))
    widths = [(0, 0)] * img.ndim
    widths[rows], widths[rows + 1] = (top, bottom), (left, right)
    return np.pad(img, widths, constant_values=check_fill("pad", "fill", fill, as_dtype(img.dtype)))


# -- through Pillow ---------------------------------------------------------------------------------------------------
@checked
def resize(img: Any, size: int | Sequence[int], interpolation: int = 2) -> Any:
    """The image at another size: (height, width), or an integer: the shorter side gets that, and the shape stays.

    ``interpolation`` is Pillow's number: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.resize(image, (8, 12)).shape
        (8, 12, 3)
    """
    return on_pil("resize", img, lambda image: pil.resize(image, size, interpolation))


@checked
def crop_and_resize(
    img: Any, top: int, left: int, height: int, width: int, size: int | Sequence[int], interpolation: int = 2
) -> Any:
    """``crop``, then ``resize``.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.crop_and_resize(image, 0, 0, 2, 2, 3).shape
        (3, 3, 3)
    """
    return resize(crop(img, top, left, height, width), size, interpolation)


@checked
def adjust_brightness(img: Any, brightness_factor: float) -> Any:
    """0 is black, 1 the image itself, 2 twice as bright.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.adjust_brightness(image, 0.5).shape
        (4, 6, 3)
    """
    return on_pil("adjust_brightness", img, lambda image: pil.adjust_brightness(image, brightness_factor))


@checked
def adjust_contrast(img: Any, contrast_factor: float) -> Any:
    """0 is grey, 1 the image itself, 2 twice the contrast.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.adjust_contrast(image, 0.5).shape
        (4, 6, 3)
    """
    return on_pil("adjust_contrast", img, lambda image: pil.adjust_contrast(image, contrast_factor))


@checked
def adjust_saturation(img: Any, saturation_factor: float) -> Any:
    """0 is without colour, 1 the image itself, 2 twice the saturation.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.adjust_saturation(image, 0.5).shape
        (4, 6, 3)
    """
    return on_pil("adjust_saturation", img, lambda image: pil.adjust_saturation(image, saturation_factor))


@checked
def adjust_hue(img: Any, hue_factor: float) -> Any:
    """Hues turned by a part of the colour circle in -0.5..0.5. Images without colours stay.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.adjust_hue(image, 0.1).shape
        (4, 6, 3)
    """
    return on_pil("adjust_hue", img, lambda image: pil.adjust_hue(image, hue_factor))


@checked
def adjust_gamma(img: Any, gamma: float, gain: float = 1) -> Any:
    """``255 gain (x / 255) ^ gamma`` of every value x, within 0..255.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.adjust_gamma(image, 2.0).shape
        (4, 6, 3)
    """
    return on_pil("adjust_gamma", img, lambda image: pil.adjust_gamma(image, gamma, gain))


@checked
def gray(img: Any, num_output_channels: int) -> Any:
    """Without colours, of 1 or 3 equal channels.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> mf.transform.gray(np.zeros((4, 6, 3), np.uint8), 1).shape
        (4, 6, 1)
    """
    return on_pil("gray", img, lambda image: pil.gray(image, num_output_channels))


# -- images and tensors -----------------------------------------------------------------------------------------------
@checked
def to_tensor(pic: Any) -> Any:
    """A float32 array ``[channels, height, width]``: values of 0..255 become 0..1, others stay as they are.

    Tensors (arrays that are not uint8, and Vars) stay as they are, only that ``[height, width]`` becomes ``[1,
    height, width]``. Of a tuple (of crops) every member is converted.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> tensor = mf.transform.to_tensor(np.full((2, 3, 3), 51, np.uint8))
        >>> tensor.shape, float(tensor[0, 0, 0])
        ((3, 2, 3), 0.20000000298023224)
    """
    if isinstance(pic, tuple):
        return tuple(map(to_tensor, pic))
    if isinstance(pic, Var):
        return pic
    if is_pil(pic):
        pic = _values(pic)
    check_image("to_tensor", pic)
    if is_image_array(pic):
        planes = pic[None] if pic.ndim == 2 else pic.transpose(2, 0, 1)
        return np.ascontiguousarray(planes).astype(np.float32) / np.float32(255)
    return pic[None] if pic.ndim == 2 else pic


pil_to_tensor = renamed("pil_to_tensor", to_tensor)


def _values(pic: Any) -> np.ndarray[Any, Any]:
    """The values of an image of Pillow's: uint8 of 0..255, or a tensor for modes of more bits."""
    if pic.mode == "1":
        return np.array(pic, np.uint8) * np.uint8(255)
    if pic.mode == "P":
        pic = pic.convert("RGB")
    found = np.array(pic)
    return found if found.dtype == np.uint8 else found.astype(np.float32)


@checked
def to_pil_image(pic: Any, mode: str | None = None) -> Any:
    """The image of Pillow's for a uint8 array ``[height, width(, channels)]``, or a tensor ``[(channels,) height, width]`` of
    0..1.

    Args:
        mode: Pillow's name of what the channels mean; ``None``: L, LA, RGB or RGBA by their number.

    Errors: ``ArgumentError`` if the number of channels does not fit.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.to_pil_image(image).size
        (6, 4)
    """
    if is_pil(pic):
        return pic
    if isinstance(pic, Var):
        pic = pic.numpy()
    check_image("to_pil_image", pic)
    if pic.ndim not in (2, 3):
        raise ArgumentError(f"[to_pil_image] pic must have 2 or 3 dimensions, got shape {pic.shape}")
    if pic.dtype != np.uint8:
        if pic.ndim == 3:
            pic = pic.transpose(1, 2, 0)
        if mode in ("F", "I"):
            plane = pic.reshape(pic.shape[:2]) if pic.size == pic.shape[0] * pic.shape[1] else pic
            if plane.ndim != 2:
                raise ArgumentError(f"[to_pil_image] mode {mode} has one channel, pic {pic.shape[2]}")
            return pillow("to_pil_image").fromarray(plane.astype(np.float32 if mode == "F" else np.int32))
        if pic.dtype.kind != "f":
            raise DTypeError(f"[to_pil_image] pic must be uint8 or floating-point, got {pic.dtype}")
        pic = np.rint(np.clip(pic, 0, 1) * 255).astype(np.uint8)
    channels = 1 if pic.ndim == 2 else pic.shape[2]
    allowed = {1: ("L",), 2: ("LA",), 3: ("RGB", "YCbCr", "HSV", "LAB"), 4: ("RGBA", "CMYK", "RGBX")}.get(
        channels
    )
    if allowed is None or (mode is not None and mode not in allowed):
        raise ArgumentError(
            f"[to_pil_image] {channels} channels can't be an image of mode {mode or 'L, LA, RGB or RGBA'}"
            + (f"; use {', '.join(allowed)}" if allowed else "")
        )
    flat = np.ascontiguousarray(pic.reshape(pic.shape[:2]) if channels == 1 else pic)
    chosen = mode or allowed[0]
    return pillow("to_pil_image").frombytes(chosen, (flat.shape[1], flat.shape[0]), flat.tobytes())


@checked
def image_normalize(img: Any, mean: Any, std: Any) -> Any:
    """``(x - mean) / std`` per channel, as float32 ``[channels, height, width]``; values of 0..255 are taken as 0..1 first.

    Args:
        img: an image of Pillow's, a uint8 array ``[height, width(, channels)]``, or a tensor (array or Var) ``[..., channels,
        height, width]``.
        mean, std: a number, or one for every channel; ``std`` without zeros.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> mf.transform.image_normalize(np.full((1, 2, 3), 255, np.uint8), [0.5] * 3, [0.5] * 3).shape
        (3, 1, 2)
    """
    tensor = to_tensor(img) if is_pil(img) or is_image_array(img) else img
    if not isinstance(tensor, (np.ndarray, Var)) or tensor.ndim < 3:
        found = (
            f"shape {tuple(tensor.shape)}" if isinstance(tensor, (np.ndarray, Var)) else type(img).__name__
        )
        raise DTypeError(
            f"[image_normalize] img must be an image or a tensor [..., channels, height, width], got {found}"
        )
    channels = tensor.shape[-3]
    parts = [_per_channel(name, value, channels) for name, value in (("mean", mean), ("std", std))]
    if (parts[1] == 0).any():
        raise ArgumentError(f"[image_normalize] std must not be 0, got {brief(std)}")
    if isinstance(tensor, Var):
        return (tensor - array(parts[0])) / array(parts[1])
    return (tensor.astype(np.float32, copy=False) - parts[0]) / parts[1]


def _per_channel(name: str, value: Any, channels: int) -> np.ndarray[Any, Any]:
    """``[channels, 1, 1]`` or ``[1, 1, 1]``."""
    try:
        found = np.asarray(value.numpy() if isinstance(value, Var) else value, np.float32).reshape(-1)
    except (TypeError, ValueError):
        raise DTypeError(f"[image_normalize] {name} must be numbers, got {brief(value)}") from None
    if len(found) not in (1, channels):
        raise ArgumentError(
            f"[image_normalize] {name} must be 1 or {channels} numbers, got {len(found)}: {brief(value)}"
        )
    return found.reshape(-1, 1, 1)
