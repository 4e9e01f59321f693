"""Transforms of images against Pillow's and NumPy's definitions."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest

import metafuse as mf
from metafuse import transform as T
from metafuse.errors import ArgumentError, DTypeError
from metafuse.transform import function_pil as F
from metafuse.transform.images import PillowMissing
from transform_kit import ARRAY, GREY, MODES, RNG, Image, picture, same, smooth


# -- parts and mirror images: the same for images, uint8 arrays and tensors ----------------------------------------
def three_ways(function):
    """The result for an image, the same as an array, and as a tensor, all as [height, width, channels]."""
    tensor = np.ascontiguousarray(ARRAY.transpose(2, 0, 1)).astype(np.float32)
    image, array, other = function(Image.fromarray(ARRAY)), function(ARRAY), function(tensor)
    assert isinstance(image, Image.Image)
    assert (array.dtype, other.dtype) == (np.uint8, np.float32)
    np.testing.assert_array_equal(np.asarray(image), array)
    np.testing.assert_array_equal(array, other.transpose(1, 2, 0).astype(np.uint8))
    return array


def test_parts():
    np.testing.assert_array_equal(three_ways(lambda i: T.crop(i, 2, 3, 4, 5)), ARRAY[2:6, 3:8])
    np.testing.assert_array_equal(three_ways(T.Crop(2, 3, 4, 5)), ARRAY[2:6, 3:8])
    around = three_ways(lambda i: T.crop(i, -2, 10, 20, 9))
    np.testing.assert_array_equal(around[2:13, :4], ARRAY[:, 10:])
    assert around[:2].sum() == around[13:].sum() == around[:, 4:].sum() == 0
    assert three_ways(lambda i: T.crop(i, 50, 50, 2, 3)).sum() == 0
    np.testing.assert_array_equal(three_ways(T.CenterCrop((5, 4))), ARRAY[3:8, 5:9])
    np.testing.assert_array_equal(three_ways(lambda i: T.center_crop(i, 13))[1:12, :], ARRAY[:, 0:13])
    np.testing.assert_array_equal(three_ways(T.hflip), ARRAY[:, ::-1])
    np.testing.assert_array_equal(three_ways(T.vflip), ARRAY[::-1])
    np.testing.assert_array_equal(T.hflip(GREY), GREY[:, ::-1])
    padded = three_ways(T.Pad((1, 2, 3, 4), fill=7))
    np.testing.assert_array_equal(padded, np.pad(ARRAY, ((2, 4), (1, 3), (0, 0)), constant_values=7))
    np.testing.assert_array_equal(three_ways(lambda i: T.pad(i, 2)), np.pad(ARRAY, ((2, 2), (2, 2), (0, 0))))


def test_five_and_ten_parts():
    for make in (Image.fromarray, lambda a: a):
        five = [np.asarray(p) for p in T.FiveCrop((3, 4))(make(ARRAY))]
        expected = [ARRAY[:3, :4], ARRAY[:3, -4:], ARRAY[-3:, :4], ARRAY[-3:, -4:], ARRAY[4:7, 5:9]]
        for a, b in zip(five, expected, strict=True):
            np.testing.assert_array_equal(a, b)
        for vertical in (False, True):
            ten = T.TenCrop((3, 4), vertical)(make(ARRAY))
            mirrored = ARRAY[::-1] if vertical else ARRAY[:, ::-1]
            np.testing.assert_array_equal(np.asarray(ten[5]), mirrored[:3, :4])
            np.testing.assert_array_equal(np.asarray(ten[0]), ARRAY[:3, :4])
    assert len(F.ten_crop(picture(), 5)) == 10
    assert [p.size for p in F.five_crop(picture(), (3, 4))] == [(4, 3)] * 5
    with pytest.raises(ArgumentError, match=r"\(12, 12\) is larger than the image, \(11, 14\)"):
        T.FiveCrop(12)(ARRAY)


# -- size and position --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("interpolation", range(6))
def test_resize(mode, interpolation):
    image = picture(mode)
    expected = image.resize((9, 5), interpolation)
    same(T.Resize((5, 9), interpolation)(image), np.asarray(expected))
    same(F.resize(image, (5, 9), interpolation), np.asarray(expected))
    same(
        T.crop_and_resize(image, 1, 2, 6, 7, (5, 9), interpolation),
        np.asarray(image.crop((2, 1, 9, 7)).resize((9, 5), interpolation)),
    )
    same(
        F.resized_crop(image, 1, 2, 6, 7, (5, 9), interpolation),
        np.asarray(image.crop((2, 1, 9, 7)).resize((9, 5), interpolation)),
    )


def test_sizes():
    assert T.Resize(7)(picture()).size == (7, 7)
    assert T.resize(picture(), 7).size == (8, 7)  # int(7 * 14 / 11): the shorter side is 7
    assert T.resize(picture(width=5, height=20), [10]).size == (10, 40)
    assert T.resize(ARRAY, (4, 6)).shape == (4, 6, 3)
    assert T.resize(GREY, (4, 6)).shape == (4, 6)
    assert T.resize(GREY[:, :, None], (4, 6)).shape == (4, 6, 1)
    with pytest.raises(DTypeError, match="before ToTensor and ImageNormalize"):
        T.Resize(4)(ARRAY.astype(np.float32))


def test_rotate():
    image = picture()
    same(F.rotate(image, 90, expand=True), np.rot90(np.asarray(image)))  # counter-clockwise
    same(
        F.rotate(image, 37, 2, True, (3, 4), (1, 2, 3)),
        np.asarray(image.rotate(37, 2, True, (3, 4), fillcolor=(1, 2, 3))),
    )
    same(F.rotate(image, 37, fill=9), np.asarray(image.rotate(37, fillcolor=(9, 9, 9))))
    same(F.rotate(picture("L"), 37, fill=9), np.asarray(picture("L").rotate(37, fillcolor=9)))


def test_affine():
    image = smooth()
    array = np.asarray(image)
    same(F.affine(image, 0, (0, 0), 1, 0), array)
    same(F.affine(image, 180, (0, 0), 1, 0), array[::-1, ::-1])
    moved = np.asarray(F.affine(image, 0, (5, -3), 1, 0, fillcolor=(1, 2, 3)))
    np.testing.assert_array_equal(moved[:-3, 5:], array[3:, :-5])
    assert (moved[-3:] == [1, 2, 3]).all()
    turned, theirs = (
        np.asarray(i).astype(int) for i in (F.affine(image, 25, (0, 0), 1, 0, 2), image.rotate(-25, 2))
    )
    assert np.abs(turned - theirs)[15:45, 20:60].max() <= 3
    half = np.asarray(F.affine(image, 0, (0, 0), 0.5, 0, 2))
    assert half[:14].sum() == half[:, :19].sum() == 0
    np.testing.assert_allclose(half[30, 40].astype(int), array[30, 40], atol=3)
    # a shear along x moves the rows by x - tan(angle) (y - middle), along y the columns likewise
    for shear, place in (((45, 0), (30 - 10, 40 + 10)), ((0, 45), (30 - 10, 40 + 10))):
        result = np.asarray(F.affine(image, 0, (0, 0), 1, shear))
        source = array[30 - 10, 40] if shear[0] else array[30, 40 + 10]
        np.testing.assert_allclose(result[place].astype(int), source, atol=5)
    matrix = F.affine_matrix((80, 60), 30, (3, 4), 1.5, (10, 20))
    np.testing.assert_allclose(matrix @ [40, 30, 1], [43, 34, 1])
    assert np.linalg.det(matrix) == pytest.approx(1.5**2)


def test_perspective():
    image = smooth()
    corners = [(0, 0), (79, 0), (79, 59), (0, 59)]
    same(F.perspective(image, corners, corners, 0), np.asarray(image))
    end = [(10, 5), (70, 0), (75, 55), (0, 50)]
    a, b, c, d, e, f, g, h = F.perspective_coefficients(corners, end)
    for (x, y), (X, Y) in zip(corners, end, strict=True):
        below = g * X + h * Y + 1
        assert ((a * X + b * Y + c) / below, (d * X + e * Y + f) / below) == pytest.approx((x, y), abs=1e-9)
    found = np.asarray(F.perspective(image, corners, end, 2))
    np.testing.assert_allclose(found[7, 12].astype(int), np.asarray(image)[2, 2], atol=8)
    with pytest.raises(ArgumentError, match="in a line"):
        F.perspective(image, corners, [(0, 0)] * 4)


# -- colours -------------------------------------------------------------------------------------------------------
def test_enhancements():
    from PIL import ImageEnhance

    image = picture()
    for function, kind in (
        (T.adjust_brightness, "Brightness"), (T.adjust_contrast, "Contrast"), (T.adjust_saturation, "Color"),
    ):  # fmt: skip
        for factor in (0, 0.3, 1, 1.7):
            expected = np.asarray(getattr(ImageEnhance, kind)(image).enhance(factor))
            same(function(image, factor), expected)
            same(getattr(F, function.__name__)(image, factor), expected)
            np.testing.assert_array_equal(function(np.asarray(image), factor), expected)
        same(function(image, 1), np.asarray(image))
    assert np.asarray(T.adjust_brightness(image, 0)).max() == 0


def test_hue():
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    for turn, channel in ((1 / 3, 1), (-1 / 3, 2)):
        turned = T.adjust_hue(red, turn).astype(int)
        assert abs(turned[0, 0, channel] - 200) <= 3
        assert np.delete(turned[0, 0], channel).max() <= 6
    same(T.adjust_hue(picture("L"), 0.3), np.asarray(picture("L")))
    assert (
        T.adjust_hue(picture("RGBA"), 0.3).getchannel("A").tobytes()
        == picture("RGBA").getchannel("A").tobytes()
    )
    hues = np.asarray(picture().convert("HSV"))[..., 0]
    assert np.asarray(T.adjust_hue(picture(), 0).convert("HSV"))[..., 0].shape == hues.shape


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_gamma(mode):
    image = picture(mode)
    values = np.asarray(image).astype(float)
    expected = np.clip(np.rint(255 * 0.9 * (values / 255) ** 1.7), 0, 255)
    if mode == "RGBA":
        expected[..., 3] = values[..., 3]
    same(T.adjust_gamma(image, 1.7, 0.9), expected)
    same(T.adjust_gamma(image, 1), np.asarray(image))


def test_gray():
    luma = np.asarray(picture().convert("L"))
    exact = np.asarray(picture()).astype(float) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(luma, exact, atol=1)
    same(T.Gray()(picture()), luma)
    same(T.gray(picture(), 3), np.stack([luma] * 3, -1))
    assert T.Gray()(np.asarray(picture())).shape == (11, 14, 1)
    assert T.Gray(3)(GREY[:, :, None]).shape == (9, 8, 3)
    np.testing.assert_array_equal(T.Gray()(GREY), GREY)
    assert T.RandomGray(1)(picture()).mode == "RGB"
    assert T.RandomGray(1)(picture("L")).mode == "L"
    same(T.RandomGray(0)(picture()), np.asarray(picture()))
    assert T.RandomGray(1)(np.asarray(picture())).shape == (11, 14, 3)


# -- tensors ---------------------------------------------------------------------------------------------------------
def test_to_tensor():
    for value in (ARRAY, Image.fromarray(ARRAY)):
        tensor = T.to_tensor(value)
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, ARRAY.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    assert T.ToTensor()(picture("L")).shape == (1, 11, 14)
    assert T.to_tensor(GREY).shape == (1, 9, 8)
    assert set(np.unique(T.to_tensor(picture().convert("1")))) <= {0, 1}
    wide = Image.fromarray(np.array([[70000, -5]], np.int32))
    np.testing.assert_array_equal(T.to_tensor(wide), [[[70000, -5]]])
    done = T.to_tensor(ARRAY)
    assert T.to_tensor(done) is done  # a tensor stays, so that ToTensor may follow ImageNormalize
    assert [t.shape for t in T.to_tensor(T.FiveCrop(3)(picture()))] == [(3, 3, 3)] * 5
    np.testing.assert_array_equal(T.pil_to_tensor(GREY), T.to_tensor(GREY))
    palette = picture().quantize(8)
    np.testing.assert_array_equal(T.to_tensor(palette), T.to_tensor(palette.convert("RGB")))


def test_to_pil_image():
    for value in (ARRAY, T.to_tensor(ARRAY), mf.array(T.to_tensor(ARRAY)), Image.fromarray(ARRAY)):
        same(T.to_pil_image(value), ARRAY)
    same(T.ToPILImage()(GREY), GREY)
    assert T.ToPILImage("HSV")(ARRAY).mode == "HSV"
    assert [T.to_pil_image(np.zeros((2, 2, n), np.uint8)).mode for n in (1, 2, 3, 4)] == [
        "L",
        "LA",
        "RGB",
        "RGBA",
    ]
    numbers = np.array([[0.5, -3.25]], np.float32)
    same(T.to_pil_image(numbers[None], "F"), numbers)
    with pytest.raises(ArgumentError, match="3 channels can't be an image of mode L; use RGB"):
        T.to_pil_image(ARRAY, "L")
    with pytest.raises(ArgumentError, match="5 channels"):
        T.to_pil_image(np.zeros((2, 2, 5), np.uint8))
    with pytest.raises(DTypeError, match="got int64"):
        T.to_pil_image(np.zeros((1, 2, 2), np.int64))


def test_image_normalize():
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    column = lambda v: np.array(v, np.float32).reshape(-1, 1, 1)
    expected = (T.to_tensor(ARRAY) - column(mean)) / column(std)
    normalize = T.ImageNormalize(mean, std)
    for value in (ARRAY, Image.fromarray(ARRAY), T.to_tensor(ARRAY)):
        found = normalize(value)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    found = normalize(mf.array(T.to_tensor(ARRAY)))
    assert isinstance(found, mf.Var)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
    batch = np.stack([T.to_tensor(ARRAY)] * 2)
    np.testing.assert_allclose(normalize(batch)[1], expected, rtol=1e-5, atol=1e-6)
    assert T.image_normalize(GREY, 0.5, 0.5).shape == (1, 9, 8)
    assert T.ImageNormalize([0.5], [0.5])(picture("L")).shape == (1, 11, 14)
    with pytest.raises(ArgumentError, match=r"std must not be 0, got \[1, 0\]"):
        T.ImageNormalize([0, 0], [1, 0])
    with pytest.raises(ArgumentError, match="mean must be 1 or 3 numbers, got 2"):
        T.image_normalize(ARRAY, [1, 2], 1)
    with pytest.raises(DTypeError, match=r"got shape \(9, 8\)"):
        T.image_normalize(GREY.astype(np.float32), 1, 1)


# -- what is refused ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("make", "message"), [
    (lambda: T.Resize(0), r"\[Resize\] size must be an integer >= 1 or a pair"),
    (lambda: T.Resize((3, 4, 5)), r"got \(3, 4, 5\)"),
    (lambda: T.Resize(2.5), "got 2.5"),
    (lambda: T.Resize(3, 9), r"interpolation must be 0 nearest.*got 9"),
    (lambda: T.CenterCrop(-1), "got -1"),
    (lambda: T.Crop(0, 0, 0, 3), "height, width"),
    (lambda: T.RandomCrop("a"), "got 'a'"),
    (lambda: T.RandomHorizontalFlip(1.5), r"p must be a number in 0..1, got 1.5"),
    (lambda: T.RandomResizedCrop(3, scale=(1, 0)), "scale must not fall"),
    (lambda: T.RandomResizedCrop(3, ratio=0.5), "ratio must be a list"),
    (lambda: T.RandomRotation(-5), "degrees"),
    (lambda: T.RandomAffine(5, translate=(2, 0)), "translate"),
    (lambda: T.RandomAffine(5, scale=(-1, 1)), "scale"),
    (lambda: T.ColorJitter(brightness=-1), "brightness"),
    (lambda: T.ColorJitter(hue=0.7), "hue"),
    (lambda: T.RandomPerspective(2), "distortion_scale"),
    (lambda: T.Gray(2), "must be 1 or 3, got 2"),
    (lambda: T.Pad((1, 2, 3)), "padding"),
    (lambda: T.Compose(5), "transforms must be a list"),
    (lambda: T.RandomChoice([]), "must not be empty"),
    (lambda: T.Lambda(3), "must be a function"),
    (lambda: T.ToPILImage(3), "mode"),
    (lambda: F.affine(picture(), 0, (0, 0), 0, 0), "scale must be > 0"),
    (lambda: F.affine(picture(), "x", (0, 0), 1, 0), "angle"),
    (lambda: F.rotate(picture(), 5, fill=(1, 2)), "3 numbers"),
    (lambda: F.adjust_gamma(picture().convert("F"), 1), "no values 0..255"),
    (lambda: T.adjust_brightness(picture(), -1), "brightness_factor"),
    (lambda: T.adjust_hue(picture(), 0.6), "hue_factor"),
])  # fmt: skip
def test_arguments(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


@pytest.mark.parametrize(
    "function",
    [
        T.hflip,
        T.Resize(3),
        T.Gray(),
        T.ToTensor(),
        T.RandomCrop(2),
        T.ColorJitter(1),
        T.RandomAffine(3),
        F.hflip,
    ],
)
def test_things_that_are_no_images(function):
    for value in ("x", None, 3, [[1]]):
        with pytest.raises(DTypeError, match=f"got {type(value).__name__}"):
            function(value)
    with pytest.raises(DTypeError, match=r"an array of shape \(3,\)"):
        function(np.zeros(3, np.uint8))


def test_every_public_thing_is_described():
    for name in T.__all__:
        assert inspect.getdoc(getattr(T, name)), name
    assert set(F.__all__) >= {"affine", "rotate", "perspective"}


def test_without_pillow():
    code = """
import sys
sys.modules["PIL"] = None
import numpy as np, metafuse as mf
from metafuse import transform as T
image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
kept = T.Compose([T.RandomHorizontalFlip(1), T.CenterCrop(2), T.Pad(1), T.ToTensor(), T.ImageNormalize(0.5, 0.5)])(image)
print(kept.shape)
try:
    T.Resize(3)(image)
except ImportError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout.splitlines() == [
        "(3, 4, 4)",
        "PillowMissing [resize] needs Pillow, which is not installed: pip install metafuse[data]",
    ]
    assert issubclass(PillowMissing, ImportError)


def test_save_image(tmp_path):
    batch = mf.array(RNG.random((3, 3, 4, 5)))
    mf.save_image(batch, tmp_path / "x.png", nrow=2, padding=1)
    expected = (
        np.clip(mf.make_grid(batch, 2, 1).numpy() * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    )
    same(Image.open(tmp_path / "x.png"), expected)
    with open(tmp_path / "y", "wb") as file:
        mf.save_image([mf.zeros(1, 4, 4), mf.ones(1, 4, 4)], file, padding=0, format="PNG")
    assert np.asarray(Image.open(tmp_path / "y")).shape[:2] == (4, 8)
    with pytest.raises(ArgumentError, match="1, 3 or 4 channels, got 5"):
        mf.save_image(mf.zeros(1, 5, 4, 4), tmp_path / "z.png")
