"""Functions of images of Pillow's.

What it is: the definition of every geometric and colour change; the functions of ``functional`` and the classes call these.
What it is not: for arrays (``functional``) or at random (``geometry``, ``colour``).
Who calls it: users, as ``metafuse.transform.function_pil``; ``functional``.

Sizes are (height, width), as everywhere but in Pillow; points are (x, y). What lies outside of an image is black.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arguments import checked
from ..errors import ArgumentError, brief
from ..ops.telling import tells
from .images import check_image, check_interpolation, check_number, check_size, pillow

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "adjust_brightness", "adjust_contrast", "adjust_gamma", "adjust_hue", "adjust_saturation", "affine", "center_crop", "crop",
    "five_crop", "gray", "hflip", "pad", "perspective", "resize", "resized_crop", "rotate", "ten_crop", "vflip",
]  # fmt: skip


# -- parts ----------------------------------------------------------------------------------------------------------
@checked
def crop(img: Image, top: int, left: int, height: int, width: int) -> Image:
    """The part whose upper left corner is at row ``top``, column ``left``.

    Example:
        >>> import metafuse as mf
        >>> from PIL import Image
        >>> image = Image.new("RGB", (6, 4))
        >>> mf.transform.function_pil.crop(image, 0, 1, 2, 3).size
        (3, 2)
    """
    check_image("crop", img, arrays=False)
    farthest = 2**20
    top, left = (
        int(check_number("crop", n, v, -farthest, farthest)) for n, v in (("top", top), ("left", left))
    )
    height, width = check_size("crop", (height, width), "height, width")
    return img.crop((left, top, left + width, top + height))


@checked
def center_crop(img: Image, output_size: int | Sequence[int]) -> Image:
    """The part of this size in the middle; what the image is too small for is black.

    Example:
        >>> import metafuse as mf
        >>> from PIL import Image
        >>> image = Image.new("RGB", (6, 4))
        >>> mf.transform.function_pil.center_crop(image, 2).size
        (2, 2)
    """
    check_image("center_crop", img, arrays=False)
    return crop(img, *center(img.size, check_size("center_crop", output_size, "output_size")))


def center(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int, int, int]:
    """Top, left, height and width of the middle of an image of Pillow's ``size``."""
    (width, height), (h, w) = size, wanted
    return round((height - h) / 2.0), round((width - w) / 2.0), h, w


@checked
def five_crop(img: Image, size: int | Sequence[int]) -> tuple[Image, ...]:
    """The four corners (upper left, upper right, lower left, lower right) and the middle.

    Errors: ``ArgumentError`` if the image is smaller.

    Example:
        >>> import metafuse as mf
        >>> from PIL import Image
        >>> image = Image.new("RGB", (6, 4))
        >>> len(mf.transform.function_pil.five_crop(image, 2))
        5
    """
    check_image("five_crop", img, arrays=False)
    return tuple(
        crop(img, *place) for place in five_places("five_crop", img.size, check_size("five_crop", size))
    )


def five_places(op: str, size: tuple[int, int], wanted: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """Top, left, height, width of the five parts."""
    (width, height), (h, w) = size, wanted
    if h > height or w > width:
        raise ArgumentError(f"[{op}] size {wanted} is larger than the image, {(height, width)}")
    corners = [(top, left, h, w) for top in (0, height - h) for left in (0, width - w)]
    return [*corners, center(size, wanted)]


@tells
@checked
def ten_crop(img: Image, size: int | Sequence[int], vertical_flip: bool = False) -> tuple[Image, ...]:
    """``five_crop`` of the image and of the image mirrored left to right (or top to bottom).

    Example:
        >>> import metafuse as mf
        >>> from PIL import Image
        >>> image = Image.new("RGB", (6, 4))
        >>> len(mf.transform.function_pil.ten_crop(image, 2))
        10
    """
    check_image("ten_crop", img, arrays=False)
    mirrored = vflip(img) if vertical_flip else hflip(img)
    return five_crop(img, size) + five_crop(mirrored, size)


@checked
def pad(img: Image, padding: int | Sequence[int], fill: Any = 0) -> Image:
    """The image with a border. ``padding``: all sides; (left and right, top and bottom); or (left, top, right, bottom).

    Example:
        >>> import metafuse as mf
        >>> from PIL import Image
        >>> image = Image.new("RGB", (6, 4))
        >>> mf.transform.function_pil.pad(image, 1).size
        (8, 6)
    """
    check_image("pad", img, arrays=False)
    left, top, right, bottom = check_padding("pad", padding)
    wanted = (img.size[0] + left + right, img.size[1] + top + bottom)
    result: Image = pillow("pad").new(img.mode, wanted, _fill(img, fill))
    if img.mode == "P":
        result.putpalette(img.getpalette() or [])
    result.paste(img, (left, top))
    return result


def check_padding(op: str, padding: Any) -> tuple[int, int, int, int]:
    """Left, top, right, bottom."""
    given = (padding,) * 2 if isinstance(padding, (int, np.integer)) else padding
    ok = isinstance(given, (tuple, list)) and len(given) in (2, 4)
    if not ok or any(
        isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 0 <= n < 2**20 for n in given
    ):
        raise ArgumentError(
            f"[{op}] padding must be an integer in 0..2**20-1, or 2 or 4 of such, got {brief(padding)}"
        )
    left, top, right, bottom = [int(n) for n in given] * (1 if len(given) == 4 else 2)
    return left, top, right, bottom


# -- size and position ---------------------------------------------------------------------------------------------
@checked
def resize(img: Image, size: int | Sequence[int], interpolation: int = 2) -> Image:
    """The image at another size: (height, width), or an integer: the shorter side gets that, and the shape stays.

    Example:
        >>> import metafuse as mf
        >>> from PIL import Image
        >>> image = Image.new("RGB", (6, 4))
        >>> mf.transform.function_pil.resize(image, (8, 12)).size
        (12, 8)
    """
    check_image("resize", img, arrays=False)
    interpolation = check_interpolation("resize", interpolation)
    if isinstance(size, (int, np.integer)) or (isinstance(size, (tuple, list)) and len(size) == 1):
        short, _ = check_size("resize", size)
        width, height = img.size
        if width <= height:
            wanted = (short, max(int(short * height / width), 1))
        else:
            wanted = (max(int(short * width / height), 1), short)
    else:
        h, w = check_size("resize", size)
        wanted = (w, h)
    return img if wanted == img.size else img.resize(wanted, interpolation)


@checked
def resized_crop(
    img: Image,
    top: int,
    left: int,
    height: int,
    width: int,
    size: int | Sequence[int],
    interpolation: int = 2,
) -> Image:
    """``crop``, then ``resize``.

    Example:
        >>> import metafuse as mf
        >>> from PIL import Image
        >>> image = Image.new("RGB", (6, 4))
        >>> mf.transform.function_pil.resized_crop(image, 0, 0, 2, 2, 3).size
        (3, 3)
    """
    return resize(crop(img, top, left, height, width), size, interpolation)


@checked
def hflip(img: Image) -> Image:
    """Mirrored left to right.

    Example:
        >>> import metafuse as mf
        >>> from PIL import Image
        >>> image = Image.new("RGB", (6, 4))
        >>> mf.transform.function_pil.hflip(image).size
        (6, 4)
    """
    check_image("hflip", img, arrays=False)
    return img.transpose(pillow("hflip").Transpose.FLIP_LEFT_RIGHT)


@checked
def vflip(img: Image) -> Image:
    """Mirrored top to bottom.

    Example:
        >>> import metafuse as mf
        >>> from PIL import Image
        >>> image = Image.new("RGB", (6, 4))
        >>> mf.transform.function_pil.vflip(image).size
        (6, 4)
    """
    check_image("vflip", img, arrays=False)
    return img.transpose(pillow("vflip").Transpose.FLIP_TOP_BOTTOM)


@checked
def rotate(
    img: Image,
    angle: float,
    resample: Any = False,
    expand: bool = False,
    center: Sequence[float] | None = None,
    fill: Any = None,
) -> Image:
    """Turned by ``angle`` degrees, counter-clockwise, about ``center`` (x, y), which is the middle by default.
    ``expand`` makes the image large enough for all of it.

    Example:
        >>> import metafuse as mf
        >>> from PIL import Image
        >>> image = Image.new("RGB", (6, 4))
        >>> mf.transform.function_pil.rotate(image, 90).size
        (6, 4)
    """
    check_image("rotate", img, arrays=False)
    angle = check_number("rotate", "angle", angle)
    about = None if center is None else _point("rotate", "center", center)
    method: Any = check_interpolation("rotate", resample)
    return img.rotate(
        angle, method, bool(expand), center=about, fillcolor=_fill(img, 0 if fill is None else fill)
    )


@checked
def affine(
    img: Image, angle: float, translate: Sequence[float], scale: float, shear: float | Sequence[float], resample: Any = 0,
    fillcolor: Any = None,
) -> Image:  # fmt: skip
    """Sheared, scaled and turned about its middle, then moved.

    Args:
        angle: degrees, clockwise.
        translate: (right, down) in pixels.
        scale: factor > 0.
        shear: degrees along x, or (along x, along y).
        resample, fillcolor: interpolation, and the colour of what lies outside.

    Example:
        >>> import metafuse as mf
        >>> from PIL import Image
        >>> image = Image.new("RGB", (6, 4))
        >>> mf.transform.function_pil.affine(image, 10, (0, 0), 1.0, 0).size
        (6, 4)
    """
    check_image("affine", img, arrays=False)
    matrix = affine_matrix(img.size, angle, translate, scale, shear)
    inverse = np.linalg.inv(matrix)[:2].ravel().tolist()
    method: Any = check_interpolation("affine", resample)
    fill = _fill(img, 0 if fillcolor is None else fillcolor)
    return img.transform(img.size, pillow("affine").Transform.AFFINE, inverse, method, fillcolor=fill)


def affine_matrix(
    size: tuple[int, int], angle: Any, translate: Any, scale: Any, shear: Any
) -> np.ndarray[Any, Any]:
    """The 3 x 3 matrix that takes a point (x, y, 1) of the image to its new place: shift . rotation . shear y . shear
    x . scale, about the middle."""
    turn = math.radians(check_number("affine", "angle", angle))
    dx, dy = _point("affine", "translate", translate)
    scale = check_number("affine", "scale", scale)
    if not 0 < scale < math.inf:
        raise ArgumentError(f"[affine] scale must be > 0, got {brief(scale)}")
    x, y = (shear, 0.0) if isinstance(shear, (int, float, np.number)) else _point("affine", "shear", shear)
    tan_x, tan_y = (math.tan(math.radians(check_number("affine", "shear", v, -89, 89))) for v in (x, y))
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    linear = rotation @ np.array([[1, 0], [-tan_y, 1]]) @ np.array([[1, -tan_x], [0, 1]]) * scale
    middle = np.array([size[0] / 2, size[1] / 2])
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = middle - linear @ middle + (dx, dy)
    return matrix


@checked
def perspective(
    img: Image,
    startpoints: Sequence[Sequence[float]],
    endpoints: Sequence[Sequence[float]],
    interpolation: int = 3,
) -> Image:
    """The image seen so that the four points (x, y) ``startpoints`` come to lie at ``endpoints``.

    Errors: ``ArgumentError`` if three points of one side lie in a line, or the point (0, 0) comes from infinitely far away.

    Example:
        >>> import metafuse as mf
        >>> from PIL import Image
        >>> image = Image.new("RGB", (6, 4))
        >>> mf.transform.function_pil.perspective(image, [(0, 0), (5, 0), (5, 3), (0, 3)], [(0, 0), (5, 0), (5, 3), (0, 3)]).size
        (6, 4)
    """
    check_image("perspective", img, arrays=False)
    coefficients = perspective_coefficients(startpoints, endpoints)
    method: Any = check_interpolation("perspective", interpolation)
    return img.transform(img.size, pillow("perspective").Transform.PERSPECTIVE, coefficients, method)


def perspective_coefficients(startpoints: Any, endpoints: Any) -> list[float]:
    """a .. h of x = (a X + b Y + c) / (g X + h Y + 1), y = (d X + e Y + f) / (g X + h Y + 1), from new places (X, Y) to old
    ones."""
    rows, values = [], []
    for name, points in (("startpoints", startpoints), ("endpoints", endpoints)):
        if not isinstance(points, (tuple, list)) or len(points) != 4:
            raise ArgumentError(f"[perspective] {name} must be four points (x, y), got {brief(points)}")
    for old, new in zip(startpoints, endpoints):
        (x, y), (X, Y) = _point("perspective", "startpoints", old), _point("perspective", "endpoints", new)
        rows += [[X, Y, 1, 0, 0, 0, -x * X, -x * Y], [0, 0, 0, X, Y, 1, -y * X, -y * Y]]
        values += [x, y]
    try:
        found = np.linalg.solve(np.array(rows, float), np.array(values, float))
    except np.linalg.LinAlgError:
        found = np.array([np.nan])
    if not np.isfinite(found).all():
        raise ArgumentError(
            f"[perspective] three points lie in a line, or (0, 0) is infinitely far away: {startpoints!r} to {endpoints!r}"
        )
    return [float(v) for v in found]


def _point(op: str, name: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, (tuple, list, np.ndarray)) or len(value) != 2:
        raise ArgumentError(f"[{op}] {name} must be two numbers (x, y), got {brief(value)}")
    first, second = (float(check_number(op, name, v)) for v in value)
    return first, second


def _fill(img: Image, fill: Any) -> Any:
    """A colour for the bands of an image; a number stands for all bands."""
    bands = len(img.getbands())
    if isinstance(fill, (tuple, list)):
        if len(fill) != bands:
            raise ArgumentError(
                f"[transform] fill must have {bands} numbers for an image of mode {img.mode}, got {brief(fill)}"
            )
        return tuple(fill) if bands > 1 else fill[0]
    if isinstance(fill, str):
        return fill
    fill = check_number("transform", "fill", fill)
    return (fill,) * bands if bands > 1 else fill


# -- colours ----------------------------------------------------------------------------------------------------------
def _enhance(op: str, img: Image, kind: str, factor: Any) -> Image:
    check_image(op, img, arrays=False)
    factor = check_number(op, f"{op.removeprefix('adjust_')}_factor", factor, 0)
    pillow(op)
    from PIL import ImageEnhance

    result: Image = getattr(ImageEnhance, kind)(img).enhance(factor)
    return result


@checked
def adjust_brightness(img: Image, brightness_factor: float) -> Image:
    """0 is black, 1 the image itself, 2 twice as bright.

    Example:
        >>> import metafuse as mf
        >>> from PIL import Image
        >>> image = Image.new("RGB", (6, 4))
        >>> mf.transform.function_pil.adjust_brightness(image, 0.5).size
        (6, 4)
    """
    return _enhance("adjust_brightness", img, "Brightness", brightness_factor)


@checked
def adjust_contrast(img: Image, contrast_factor: float) -> Image:
    """0 is grey, 1 the image itself, 2 twice the contrast.

    Example:
        >>> import metafuse as mf
        >>> from PIL import Image
        >>> image = Image.new("RGB", (6, 4))
        >>> mf.transform.function_pil.adjust_contrast(image, 0.5).size
        (6, 4)
    """
    return _enhance("adjust_contrast", img, "Contrast", contrast_factor)


@checked
def adjust_saturation(img: Image, saturation_factor: float) -> Image:
    """0 is without colour, 1 the image itself, 2 twice the saturation.

    Example:
        >>> import metafuse as mf
        >>> from PIL import Image
        >>> image = Image.new("RGB", (6, 4))
        >>> mf.transform.function_pil.adjust_saturation(image, 0.5).size
        (6, 4)
    """
    return _enhance("adjust_saturation", img, "Color", saturation_factor)


@checked
def adjust_hue(img: Image, hue_factor: float) -> Image:
    """Hues turned by a part of the colour circle in -0.5..0.5. Images without colours stay.

    Example:
        >>> import metafuse as mf
        >>> from PIL import Image
        >>> image = Image.new("RGB", (6, 4))
        >>> mf.transform.function_pil.adjust_hue(image, 0.1).size
        (6, 4)
    """
    check_image("adjust_hue", img, arrays=False)
    hue_factor = check_number("adjust_hue", "hue_factor", hue_factor, -0.5, 0.5)
    if img.mode in ("L", "1", "I", "F", "LA"):
        return img
    mode = img.mode
    h, s, v = img.convert("HSV").split()
    turned = (np.array(h).astype(np.int32) + round(hue_factor * 255)).astype(np.uint8)  # wraps, as hues do
    image: Image = (
        pillow("adjust_hue").merge("HSV", (pillow("adjust_hue").fromarray(turned), s, v)).convert(mode)
    )
    if "A" in img.getbands():
        image.putalpha(img.getchannel("A"))
    return image


@checked
def adjust_gamma(img: Image, gamma: float, gain: float = 1) -> Image:
    """``255 gain (x / 255) ^ gamma`` of every value x, within 0..255.

    Example:
        >>> import metafuse as mf
        >>> from PIL import Image
        >>> image = Image.new("RGB", (6, 4))
        >>> mf.transform.function_pil.adjust_gamma(image, 2.0).size
        (6, 4)
    """
    check_image("adjust_gamma", img, arrays=False)
    gamma = check_number("adjust_gamma", "gamma", gamma, 0)
    gain = check_number("adjust_gamma", "gain", gain, 0)
    values = np.clip(np.rint(255.0 * gain * (np.arange(256) / 255.0) ** gamma), 0, 255).astype(int).tolist()
    if img.mode in ("I", "F", "1", "P", "I;16"):
        raise ArgumentError(
            f"[adjust_gamma] an image of mode {img.mode} has no values 0..255; convert it to RGB or L"
        )
    alpha = img.getchannel("A") if "A" in img.getbands() else None
    image = img.point(values * len(img.getbands()))
    if alpha is not None:
        image.putalpha(alpha)
    return image


@checked
def gray(img: Image, num_output_channels: int) -> Image:
    """Without colours, of 1 or 3 equal channels. Luma by ITU-R 601-2, as Pillow defines it: (299 R + 587 G + 114 B) / 1000.

    Example:
        >>> import metafuse as mf
        >>> from PIL import Image
        >>> image = Image.new("RGB", (6, 4))
        >>> mf.transform.function_pil.gray(image, 1).mode
        'L'
    """
    check_image("gray", img, arrays=False)
    if num_output_channels not in (1, 3) or isinstance(num_output_channels, bool):
        raise ArgumentError(f"[gray] num_output_channels must be 1 or 3, got {brief(num_output_channels)}")
    luma = img.convert("L")
    return luma if num_output_channels == 1 else pillow("gray").merge("RGB", (luma, luma, luma))
