"""Transforms at random: ranges, distributions, seeds."""

from __future__ import annotations

import random

import numpy as np
import pytest

import metafuse as mf
from metafuse import transform as T
from metafuse.errors import ArgumentError
from transform_kit import ARRAY, picture, same, smooth


# -- at random -------------------------------------------------------------------------------------------------------
def test_compose_and_choices():
    add, double = (lambda x: x + 1), (lambda x: x * 2)
    assert T.Compose([add, double, T.Lambda(add)])(3) == 9
    assert T.Compose([lambda a, b: (b, a), lambda a, b: (a + 1, b)])(1, 2) == (3, 1)
    assert T.Compose([T.FiveCrop(3), len])(picture()) == 5
    assert T.Compose([])(4) == 4
    assert "Resize" in repr(T.Compose([T.Resize(3), add]))
    random.seed(0)
    assert [T.RandomApply([add, double], p)(3) for p in (0, 1)] == [3, 8]
    assert {T.RandomApply([add])(3) for _ in range(50)} == {3, 4}
    assert {T.RandomChoice([add, double])(5) for _ in range(50)} == {6, 10}
    assert {T.RandomOrder([add, double])(3) for _ in range(50)} == {7, 8}


def test_random_parts():
    random.seed(1)
    column = np.arange(20, dtype=np.uint8)[:, None] * np.ones((1, 6), np.uint8)
    tops = {int(T.RandomCrop((15, 6))(column)[0, 0]) for _ in range(200)}
    assert tops == set(range(6))
    assert T.RandomCrop(11)(picture()).size == (11, 11)
    assert T.RandomCrop(16, padding=4, fill=3)(ARRAY).shape == (16, 16, 3)
    with pytest.raises(ArgumentError, match=r"size \(12, 12\) is larger than the image, \(11, 14\); pad"):
        T.RandomCrop(12)(picture())
    for transform in (T.RandomResizedCrop, T.RandomSizedCrop, T.RandomCropAndResize):
        assert transform((5, 7))(picture()).size == (7, 5)
    seen = []
    for _ in range(300):
        top, left, height, width = T.RandomResizedCrop.get_params(smooth(), (0.1, 0.5), (0.5, 2.0))
        assert 0 <= top <= 60 - height
        assert 0 <= left <= 80 - width
        assert 0.09 < height * width / 4800 < 0.52
        assert 0.45 < width / height < 2.2
        seen.append((height, width))
    assert len(set(seen)) > 100
    assert T.RandomResizedCrop.get_params(picture(width=100, height=5), (1, 1), (0.9, 1.1)) == (0, 47, 5, 6)
    assert T.RandomResizedCrop.get_params(picture(width=5, height=100), (1, 1), (0.9, 1.1)) == (47, 0, 6, 5)


def test_random_flips():
    random.seed(2)
    for transform, axis in ((T.RandomHorizontalFlip, 1), (T.RandomVerticalFlip, 0)):
        np.testing.assert_array_equal(transform(1)(ARRAY), np.flip(ARRAY, axis))
        np.testing.assert_array_equal(transform(0)(ARRAY), ARRAY)
        flipped = sum((transform()(ARRAY) != ARRAY).any() for _ in range(400))
        assert 150 < flipped < 250


def test_random_positions():
    random.seed(3)
    angles = [T.RandomRotation.get_params((10, 20)) for _ in range(200)]
    assert 10 <= min(angles) < 11 < 19 < max(angles) <= 20
    assert T.RandomRotation(30).degrees == (-30, 30)
    same(T.RandomRotation((90, 90), expand=True)(picture()), np.rot90(np.asarray(picture())))
    assert T.RandomRotation(30)(ARRAY).shape == ARRAY.shape
    for _ in range(200):
        angle, (x, y), factor, shears = T.RandomAffine.get_params(
            (-5, 5), (0.1, 0.2), (0.5, 2), (1, 2, 3, 4), (100, 50)
        )
        assert abs(angle) <= 5
        assert abs(x) <= 10 >= abs(y)
        assert 0.5 <= factor <= 2
        assert 1 <= shears[0] <= 2 < 3 <= shears[1] <= 4
    assert T.RandomAffine.get_params((3, 3), None, None, None, (9, 9)) == (3, (0, 0), 1.0, (0.0, 0.0))
    same(T.RandomAffine((180, 180))(picture()), np.asarray(picture())[::-1, ::-1])
    for options in (
        {"translate": (0.1, 0.1)},
        {"scale": (0.8, 1.2)},
        {"shear": 10},
        {"shear": (1, 5, 1, 5)},
        {"resample": 2, "fillcolor": 3},
    ):
        assert T.RandomAffine(15, **options)(ARRAY).shape == ARRAY.shape
    start, _ = T.RandomPerspective.get_params(80, 60, 0.5)
    assert start == [(0, 0), (79, 0), (79, 59), (0, 59)]
    for _ in range(100):
        for scale in (0, 0.5, 1):
            for (x, y), (X, Y) in zip(*T.RandomPerspective.get_params(80, 60, scale), strict=True):
                assert abs(X - x) <= 40 * scale
                assert abs(Y - y) <= 30 * scale
                assert 0 <= X < 80
                assert 0 <= Y < 60
            T.RandomPerspective(scale, 1)(smooth(6, 5))
            T.RandomPerspective(scale, 1)(smooth(1, 3))
    same(T.RandomPerspective(p=0)(picture()), np.asarray(picture()))
    assert (np.asarray(T.RandomPerspective(p=1)(smooth())) != np.asarray(smooth())).any()


def test_color_jitter():
    random.seed(4)
    image = picture()
    same(T.ColorJitter()(image), np.asarray(image))
    assert len({T.ColorJitter(0.4, 0.4, 0.4, 0.1)(image).tobytes() for _ in range(10)}) == 10
    same(T.ColorJitter(brightness=(0, 0))(image), np.zeros((11, 14, 3)))
    assert T.ColorJitter(brightness=3).brightness == (0.0, 4.0)
    assert T.ColorJitter(hue=(-0.1, 0.2)).hue == (-0.1, 0.2)
    assert T.ColorJitter(0.5)(ARRAY).dtype == np.uint8


def test_chance_is_seeded():
    transform = T.Compose(
        [T.RandomResizedCrop(6), T.RandomHorizontalFlip(), T.ColorJitter(0.3), T.ToTensor()]
    )
    results = []
    for _ in range(2):
        mf.set_global_seed(11)
        results.append(np.stack([transform(picture()) for _ in range(5)]))
    np.testing.assert_array_equal(*results)
    assert (results[0][0] != results[0][1]).any()


def add(x):
    return x + 1


def double(x):
    return x * 2


#: name -> (what may be done, NumPy's answers for every way in which chance may decide)
CHANCES = {
    "Lambda": (lambda: T.Lambda(double), lambda x: [x * 2]),
    "RandomApply": (lambda: T.RandomApply([add, double], 0.4), lambda x: [x, (x + 1) * 2]),
    "RandomChoice": (lambda: T.RandomChoice([add, double]), lambda x: [x + 1, x * 2]),
    "RandomOrder": (lambda: T.RandomOrder([add, double]), lambda x: [x * 2 + 1, (x + 1) * 2]),
}


@pytest.mark.parametrize("name", CHANCES)
@pytest.mark.parametrize("shape", [(5, 4), (1, 1), (0, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_what_chance_decides(name, shape, dtype):
    make, expected = CHANCES[name]
    x = (np.arange(40, dtype=dtype) + 3)[: shape[0] * shape[1]].reshape(shape[::-1]).T
    random.seed(1)
    found = [make()(x) for _ in range(40)]
    ways = [next(k for k, y in enumerate(expected(x)) if np.array_equal(y, z)) for z in found]
    if x.size:
        counts = np.bincount(ways, minlength=len(expected(x)))
        np.testing.assert_array_less(5, counts)


@pytest.mark.parametrize("kind", [T.RandomResizedCrop, T.RandomSizedCrop, T.RandomCropAndResize])
@pytest.mark.parametrize("size", [(6, 5), 1, 20])
def test_a_random_part_is_that_part_resized(kind, size):
    for seed in range(5):
        random.seed(seed)
        found = kind(size)(picture())
        random.seed(seed)
        top, left, height, width = kind.get_params(picture(), (0.08, 1.0), (3 / 4, 4 / 3))
        part = picture().crop((left, top, left + width, top + height))
        height, width = (size, size) if isinstance(size, int) else size
        np.testing.assert_array_equal(np.asarray(found), np.asarray(part.resize((width, height), 2)))
