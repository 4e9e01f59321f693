"""Transforms of images: sizes, parts, colours, and images as tensors.

What it is: the functions and classes of the reference API's ``transform``, for images of Pillow's and for arrays.
What it is not: operators on Vars; these change images on the host, before they become a batch.
Who calls it: users, as ``metafuse.transform``; ``data`` reads images through ``transform.images``.

Pillow is an extra, ``pip install metafuse[data]``: parts, mirror images, borders and conversions of arrays work without.
"""

from . import function_pil
from .colour import ColorJitter, Gray, ImageNormalize, RandomGray, ToPILImage, ToTensor
from .compose import Compose, Lambda, RandomApply, RandomChoice, RandomOrder
from .functional import (
    adjust_brightness,
    adjust_contrast,
    adjust_gamma,
    adjust_hue,
    adjust_saturation,
    center_crop,
    crop,
    crop_and_resize,
    five_crop,
    gray,
    hflip,
    image_normalize,
    pad,
    pil_to_tensor,
    resize,
    ten_crop,
    to_pil_image,
    to_tensor,
    vflip,
)
from .geometry import (
    CenterCrop,
    Crop,
    FiveCrop,
    Pad,
    RandomAffine,
    RandomCrop,
    RandomCropAndResize,
    RandomHorizontalFlip,
    RandomPerspective,
    RandomResizedCrop,
    RandomRotation,
    RandomSizedCrop,
    RandomVerticalFlip,
    Resize,
    TenCrop,
)
from .images import PillowMissing
from .saving import save_image

__all__ = [
    "CenterCrop", "ColorJitter", "Compose", "Crop", "FiveCrop", "Gray", "ImageNormalize", "Lambda", "Pad", "PillowMissing",
    "RandomAffine", "RandomApply", "RandomChoice", "RandomCrop", "RandomCropAndResize", "RandomGray", "RandomHorizontalFlip",
    "RandomOrder", "RandomPerspective", "RandomResizedCrop", "RandomRotation", "RandomSizedCrop", "RandomVerticalFlip",
    "Resize",
    "TenCrop", "ToPILImage", "ToTensor", "adjust_brightness", "adjust_contrast", "adjust_gamma", "adjust_hue",
    "adjust_saturation",
    "center_crop", "crop", "crop_and_resize", "five_crop", "function_pil", "gray", "hflip", "image_normalize", "pad",
    "pil_to_tensor",
    "resize", "save_image", "ten_crop", "to_pil_image", "to_tensor", "vflip",
]  # fmt: skip
