"""Orders, selections, sets and searches: every type, ties, NaN, both directions, all dimensions, short and long rows."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse.dtypes import DTYPES
from metafuse.errors import ArgumentError
from metafuse.testing import check_grads

#: lengths on both sides of where another way to sort or to select begins
LENGTHS = (1, 2, 15, 16, 17, 33, 64, 65, 300, 1025)


def draw(dtype, shape, seed=0):
    """Values of a dtype with ties; floats with both zeros, infinities and NaN. A Var and what it shows."""
    random = np.random.default_rng([seed, *shape])
    kind = DTYPES[dtype]
    if kind.is_float:
        x = random.standard_normal(shape) * 10.0 ** random.integers(-3, 3, shape)
        special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1.0])
        x = np.where(random.random(shape) < 0.3, special[random.integers(0, 7, shape)], x)
    elif dtype == "bool":
        x = random.integers(0, 2, shape)
    else:
        info = np.iinfo(kind.numpy)
        wide = random.integers(info.min, info.max, shape, kind.numpy, endpoint=True)
        narrow = random.integers(0, 9, shape).astype(kind.numpy)
        x = np.where(random.random(shape) < 0.5, wide, narrow)
    made = mf.array(np.asarray(x), dtype=dtype)
    return made, made.numpy()


def ranks(x):
    """Whole numbers in the order of the values: NaN is the largest, both zeros are one."""
    return np.unique(x, return_inverse=True)[1].reshape(x.shape)


def order_of(x, dim, descending=False):
    return np.argsort(-ranks(x) if descending else ranks(x), axis=dim, kind="stable")


def same(found, expected):
    np.testing.assert_array_equal(found.numpy(), expected)


#: (shape, dim)
ROWS = [*(((3, n), 1) for n in LENGTHS), ((19, 7, 18), 0), ((2, 70, 5), 1)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_orders(dtype):
    for shape, dim in ROWS:
        x, values = draw(dtype, shape)
        for descending in (False, True):
            expected = order_of(values, dim, descending)
            order, value = mf.argsort(x, dim, descending)
            same(order, expected)
            same(value, np.take_along_axis(values, expected, dim))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int8", "uint64"])
def test_a_part_of_an_order(dtype):
    for shape, dim in ROWS:
        x, values = draw(dtype, shape)
        n = shape[dim]
        for largest in (False, True):
            order = order_of(values, dim, largest)
            for k in {0, 1, min(n, 7), n // 2, n}:
                value, place = mf.topk(x, k, dim, largest)
                expected = np.take(order, range(k), dim)
                same(place, expected)
                same(value, np.take_along_axis(values, expected, dim))
        order = order_of(values, dim)
        for k in {1, (n + 1) // 2, n}:
            value, place = mf.kthvalue(x, k, dim, keepdim=True)
            expected = np.take(order, [k - 1], dim)
            same(place, expected)
            same(value, np.take_along_axis(values, expected, dim))


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_the_most_common(dtype):
    for shape, dim in (((4, 9), 1), ((70, 3), 0), ((2, 300), 1)):
        x, values = draw(dtype, shape, 1)
        value, place = mf.mode(x, dim)
        found = np.moveaxis(ranks(values), dim, -1)
        best = [np.argmax(np.bincount(row)) for row in found]
        expected = np.array([np.argmax(row == b) for row, b in zip(found, best)])
        same(place, expected)
        same(value, np.take_along_axis(values, np.expand_dims(expected, dim), dim).squeeze(dim))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int32", "uint64", "int8", "bool"])
@pytest.mark.parametrize("count", [1, 40, 3000])
def test_the_different_values(dtype, count):
    x, values = draw(dtype, (count,), 2)
    _, first, inverse, counts = np.unique(values, True, True, True)
    same(mf.unique(x), values[first])
    for found, expected in zip(mf.unique(x, True, True), (values[first], inverse, counts), strict=True):
        same(found, expected)
    same(mf.unique(x, return_counts=True)[1], counts)
    same(mf.unique(x.reshape(-1, 1), return_inverse=True)[1], inverse.reshape(-1, 1))


def test_different_values_close_together():
    """Of whole numbers in a small range a table is made; -5 to 90 of them are not all there."""
    x = np.random.default_rng(0).integers(-5, 90, (50, 20)).astype(np.int32)
    x[x == 7] = 8
    value, inverse, count = mf.unique(mf.array(x), True, True)
    expected = np.unique(x, return_inverse=True, return_counts=True)
    for found, wanted in zip((value, inverse, count), expected, strict=True):
        same(found, wanted.reshape(found.shape))


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8"])
def test_places_in_what_is_in_order(dtype, right):
    side = "right" if right else "left"
    for n in (0, 1, 2, 7, 64, 1000):
        _, values = draw(dtype, (n,), 3)
        ascending = mf.sort(mf.array(values, dtype=dtype))[0] if n else mf.array(values, dtype=dtype)
        wanted, shown = draw(dtype, (3, 70), 4)
        same(mf.searchsorted(ascending, wanted, right), np.searchsorted(ascending.numpy(), shown, side))


def test_places_of_other_types():
    """Compared as NumPy compares: no value of either is rounded to the other's type."""
    ascending, wanted = (
        np.array([1, 2, 2, 2**24 + 1], np.int32),
        np.array([1.5, 2, 2**24, np.nan], np.float32),
    )
    same(mf.searchsorted(mf.array(ascending), mf.array(wanted)), np.searchsorted(ascending, wanted))
    same(mf.isin(mf.array(ascending), mf.array(wanted)), np.isin(ascending, wanted))


def test_membership():
    for dtype in ("float32", "int32"):
        x, values = draw(dtype, (4, 30), 5)
        for n in (0, 1, 90):
            tests, tested = draw(dtype, (n,), 6)
            for invert in (False, True):
                same(mf.isin(x, tests, invert=invert), np.isin(values, tested, invert=invert))


def test_nothing_to_sort():
    for shape, dim in (((0,), 0), ((3, 0), 1), ((0, 3), 1), ((2, 0, 3), 2)):
        x = mf.zeros(shape)
        order, value = mf.argsort(x, dim)
        assert tuple(order.shape) == tuple(value.shape) == shape
        assert order.numpy().size == value.numpy().size == 0
    same(mf.topk(mf.zeros((3, 0)), 0)[0], np.zeros((3, 0)))
    same(mf.mode(mf.zeros((0, 3)))[1], np.zeros((0,)))
    same(mf.unique(mf.zeros((0,)), True, True)[2], np.zeros((0,)))
    assert mf.randperm(0).numpy().shape == (0,)
    with pytest.raises(ArgumentError, match="k must be at most the extent 0"):
        mf.kthvalue(mf.zeros((3, 0)), 1)


def test_gradients_reach_what_was_chosen():
    x = np.random.default_rng(7).permutation(48).reshape(4, 12) / 7
    for function in (
        lambda a: mf.sort(a, 0, True)[0],
        lambda a: mf.topk(a, 5)[0],
        lambda a: mf.topk(a, 2, 0, False)[0],
        lambda a: mf.kthvalue(a, 3, 1)[0],
        lambda a: mf.median(a, 0),
        lambda a: mf.median(a),
    ):
        check_grads(function, [x], order=2)


def test_permutations_are_reproducible_and_even():
    mf.set_global_seed(11)
    first, second = mf.randperm(1000), mf.randperm(1000)
    mf.set_global_seed(11)
    same(mf.randperm(1000), first.numpy())
    assert (first.numpy() != second.numpy()).any()
    same(mf.sort(first)[0], np.arange(1000))
    # how often each of the 24 orders of four numbers occurs: a chi-square of 23 degrees, above 50 once in a thousand times
    draws = mf.stack([mf.randperm(4) for _ in range(2400)]).numpy()
    counts = np.unique(draws @ [64, 16, 4, 1], return_counts=True)[1]
    assert len(counts) == 24
    assert ((counts - 100.0) ** 2 / 100).sum() < 50
    # and where each number of a long order ends up, in 16 parts
    place = np.argsort(mf.randperm(1 << 16).numpy()).reshape(16, -1) >> 12
    cells = np.stack([np.bincount(row, minlength=16) for row in place])
    assert ((cells - 256.0) ** 2 / 256).sum() < 300  # of 225 degrees
    with pytest.raises(ArgumentError, match="n must be"):
        mf.randperm(-1)
