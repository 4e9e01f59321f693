"""Scans, masks and rolled arrays in C++ and in NumPy: all dtypes, shapes across the limits of parts and strips, gradients."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse.config import flag_scope
from metafuse.dtypes import DTYPES
from metafuse.plugins.registry import registry
from metafuse.runtime.kernels import statistics
from metafuse.testing import check_grads

RANDOM = np.random.default_rng(11)
FLOATS = ("float16", "bfloat16", "float32", "float64")


@pytest.fixture(params=["reference", "cpu"], autouse=True)
def backend(request):
    if request.param not in {status.descriptor.name for status in registry().backends() if status.usable}:
        pytest.skip(f"no backend {request.param} here")
    with flag_scope(backend=request.param):
        yield request.param


def numbers(dtype: str, size: tuple[int, ...]) -> np.ndarray:
    """Values of a dtype whose products stay small, with equal ones among them."""
    if dtype in FLOATS:
        return RANDOM.choice([-1.0, -0.0, 0.0, 0.5, 0.75, 1.0, 1.25], size)
    return (
        RANDOM.integers(0, 2, size).astype(bool)
        if dtype == "bool"
        else RANDOM.integers(0, 120, size).astype(dtype)
    )


# -- scans ------------------------------------------------------------------------------------------------------------
SHAPES = [
    ((3, 7, 5), 1),
    ((2, 33), 1),
    ((33, 2), 0),
    ((40_000,), 0),
    ((2, 20, 600), 1),
    ((1, 1), 1),
    ((0, 4), 1),
    ((4, 0), 1),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_running_sums_and_products(dtype):
    for size, dim in SHAPES:
        x = mf.array(numbers(dtype, size), dtype=dtype)
        kind = "int32" if dtype == "bool" else dtype
        for function, ufunc in ((mf.cumsum, np.add), (mf.cumprod, np.multiply)):
            found = function(x, dim)
            assert found.dtype == kind and found.shape == size
            exact = x.numpy().astype("float64" if dtype in FLOATS else kind)
            expected = ufunc.accumulate(exact, dim, dtype=exact.dtype)
            tolerance = {"float16": 1e-3, "bfloat16": 8e-3, "float32": 1e-6, "float64": 1e-11}.get(dtype, 0)
            with np.errstate(over="ignore"):
                expected = expected.astype(found.numpy().dtype)
            np.testing.assert_allclose(found.numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["cummax", "cummin"])
def test_running_extremes_and_their_places(name, dtype):
    ufunc = np.maximum if name == "cummax" else np.minimum
    for size, dim in SHAPES:
        cases = [numbers(dtype, size)]
        if dtype in FLOATS and cases[0].size > 3:
            with_nan = RANDOM.standard_normal(size)
            with_nan.reshape(-1)[[1, with_nan.size // 2]] = np.nan
            cases += [with_nan, np.full(size, -np.inf), np.full(size, np.inf)]
        elif dtype != "bool" and dtype not in FLOATS:
            limits = np.iinfo(dtype)
            cases.append(RANDOM.integers(limits.min, limits.max, size, dtype=dtype, endpoint=True))
            cases += [np.full(size, limits.min, dtype), np.full(size, limits.max, dtype)]
        for case in cases:
            x = mf.array(case, dtype=dtype)
            values, places = getattr(mf, name)(x, dim)
            array = x.numpy()
            expected = ufunc.accumulate(array, dim)
            hit = (array == expected) | (array != array)
            np.testing.assert_array_equal(values.numpy(), expected)
            np.testing.assert_array_equal(
                places.numpy(), np.maximum.accumulate(np.where(hit, np.indices(size)[dim], -1), dim)
            )
            assert values.dtype == dtype and places.dtype == "int32"


@pytest.mark.parametrize("dtype", FLOATS)
def test_running_logarithms_of_sums(dtype):
    tolerance = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 1e-6, "float64": 1e-12}[dtype]
    special = np.array([-np.inf, -np.inf, 3.0, 80.0, -80.0, np.inf, 1.0, np.nan, 2.0])
    for array, dim in [(RANDOM.normal(0, 20, size), dim) for size, dim in SHAPES] + [
        (special, 0), (np.stack([special] * 20, 1), 0), (special[::-1].copy(), 0),
    ]:  # fmt: skip
        x = mf.array(array, dtype=dtype)
        found = mf.logcumsumexp(x, dim)
        with np.errstate(invalid="ignore"):
            expected = np.logaddexp.accumulate(x.numpy().astype("float64"), dim)
        np.testing.assert_allclose(found.numpy(), expected, rtol=tolerance, atol=tolerance)


def test_long_sums_of_float32_are_exact_to_the_last_place():
    x = RANDOM.uniform(0, 1, (2, 100_000)).astype(np.float32)
    expected = np.cumsum(x.astype(np.float64), 1)
    for rows in (x, x[:1]):
        found = mf.cumsum(mf.array(rows), 1).numpy()
        assert np.abs(found / expected[: len(rows)] - 1).max() < 1e-7


def test_a_row_is_the_same_alone_and_among_others():
    """Threads share a single row and take one each of several."""
    x = RANDOM.standard_normal((5, 70_000))
    for dtype in ("float32", "float64"):
        whole = mf.cumsum(mf.array(x, dtype=dtype), 1).numpy()
        np.testing.assert_array_equal(mf.cumsum(mf.array(x[3], dtype=dtype)).numpy(), whole[3])


def test_products_that_pass_through_nothing_stay_nothing():
    """Where the product so far is 0, no infinite product of later elements makes NaN of it."""
    for dtype, small, large in (("float32", 1e-38, 3e38), ("float64", 1e-300, 1e300)):
        x = np.concatenate([np.full(60, small), np.full(60, large)])
        assert (mf.cumprod(mf.array(x, dtype=dtype)).numpy()[50:] == 0).all()
        x = np.tile([small, 1 / small, 1 / small, small], 40)
        found = mf.cumprod(mf.array(x, dtype=dtype)).numpy()
        np.testing.assert_allclose(found, np.tile([small, 1, 1 / small, 1], 40), rtol=1e-5)


def test_gradients_of_scans():
    x = RANDOM.standard_normal((3, 12))
    check_grads(lambda v: mf.cumsum(v * v, 0), [x], order=2)
    check_grads(lambda v: mf.cummax(v, 1)[0] ** 2, [x], order=2)
    check_grads(lambda v: mf.cummin(v, 0)[0] ** 2, [x], order=2)
    check_grads(lambda v: mf.logcumsumexp(v, 0), [x], order=2)


@pytest.mark.parametrize(
    "x", [[1.5, 0, 2, 0.5, 3], [1.5, 0, 2, 0, 3], [0, 0, 2, 0.5, 1], [0, 1, 2, 3, 4], [1, 2, 3, 4, 0]]
)
def test_second_gradients_of_running_products_with_zeros(x):
    """Against the sum of all products without two of the factors."""
    x, weights, v = np.array(x, float), RANDOM.random(5), RANDOM.random(5)
    expected = np.zeros(5)
    for k, m in np.argwhere(~np.eye(5, dtype=bool)):
        left = np.delete(np.arange(5), [k, m])
        products = [x[left[left <= j]].prod() if j >= max(k, m) else 0.0 for j in range(5)]
        expected[m] += v[k] * (weights * products).sum()
    var = mf.array(x, dtype="float64")
    first = mf.grad((mf.cumprod(var) * mf.array(weights, dtype="float64")).sum(), var)
    second = mf.grad((first * mf.array(v, dtype="float64")).sum(), var)
    np.testing.assert_allclose(second.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_what_scans_run_is_compiled_once():
    mf.cumsum(mf.array(numbers("float32", (4, 9))), 1).sync()
    before = statistics.compilations + statistics.disk_hits
    for size, dim in (((70, 3), 0), ((3, 5, 40), 1), ((50_000,), 0)):
        mf.cumsum(mf.array(numbers("float32", size)).float32(), dim).sync()
    assert statistics.compilations + statistics.disk_hits == before


# -- masks ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "size",
    [(1,), (5,), (0, 3), (3, 0), (40, 50), (16_384,), (16_385,), (3, 20_000), (20_000, 3), (2, 3, 4, 5)],
)
@pytest.mark.parametrize("density", [0, 0.01, 0.5, 1])
def test_places_and_elements_of_masks(size, density):
    mask = RANDOM.random(size) < density
    m = mf.array(mask)
    expected = np.argwhere(mask)
    for condition in (m, m.float32() * 3):
        found = mf.nonzero(condition)
        assert found.dtype == "int32" and found.shape == expected.shape
        np.testing.assert_array_equal(found.numpy(), expected)
    for found, places in zip(mf.where(m, dtype="int64"), np.nonzero(mask), strict=True):
        assert found.dtype == "int64"
        np.testing.assert_array_equal(found.numpy(), places)
    for dtype in ("float32", "bool", "bfloat16", "int8", "float64"):
        x = mf.array(numbers(dtype, size), dtype=dtype)
        assert x[m].dtype == dtype
        np.testing.assert_array_equal(x[m].numpy(), x.numpy()[mask])


def test_not_a_number_is_true_and_both_zeros_are_not():
    assert mf.nonzero(mf.array([1.0, np.nan, 0.0, -0.0, -2.0])).tolist() == [[0], [1], [4]]


def test_gradients_of_elements_of_masks():
    mask = mf.array(RANDOM.random((4, 5)) < 0.5)
    check_grads(lambda v: (v * v)[mask] * 3, [RANDOM.random((4, 5))], order=2)
    x = mf.array(RANDOM.random((300, 200)), dtype="float32")
    large = mf.array(RANDOM.random((300, 200)) < 0.3)
    upstream = RANDOM.random(int(large.numpy().sum())).astype(np.float32)
    expected = np.zeros((300, 200), np.float32)
    expected[large.numpy()] = upstream
    np.testing.assert_array_equal(mf.grad((x[large] * mf.array(upstream)).sum(), x).numpy(), expected)


JOINS = {
    "void": lambda x, v: v + 0 * x, "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide,
    "maximum": np.maximum, "minimum": np.minimum,
}  # fmt: skip


@pytest.mark.parametrize("op", JOINS)
def test_one_value_assigned_through_a_mask(op):
    array = RANDOM.random((4, 5))
    for size in ((4,), (4, 5)):
        mask = RANDOM.random(size) < 0.5
        expected = np.where(mask.reshape(*size, *[1] * (2 - len(size))), JOINS[op](array, 0.4), array)
        for given in (mask, mf.array(mask)):
            x = mf.array(array, dtype="float64")
            mf.setitem(x, given, 0.4, op)
            np.testing.assert_allclose(x.numpy(), expected, rtol=1e-6)


def test_a_value_assigned_through_a_mask_has_a_gradient_and_needs_no_values():
    def changed(w, v):
        y = w * 1
        y[w > 0.5] = v
        return y * y

    check_grads(changed, [RANDOM.random((3, 4)), np.array([2.0])])
    before = statistics.programs
    x = mf.zeros(3, 4)
    x[x > 1] = 5
    assert statistics.programs == before


def test_a_part_taken_by_a_mask_can_be_assigned_to():
    x = mf.array(np.arange(6, dtype=np.float32).reshape(2, 3))
    part = x[x > 2]
    part[0] = 9
    assert part.tolist() == [9, 4, 5]
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]]  # a copy, as in NumPy


# -- rolled -----------------------------------------------------------------------------------------------------------
ROLLS = [
    ((130, 140), 3, 1), ((130, 140), -3, 0), ((130, 140), (5, 7), (0, 1)), ((130, 140), 9, None), ((130, 140), 140, 1),
    ((20_000, 3), 1, 1), ((3, 20_000), 1, 0), ((4, 32, 32, 20), (-3, 3), (1, 2)), ((5, 6, 7, 8, 11), (1, 2, 3, 4), (0, 2, 3, 4)),
    ((20_000,), 19_999, 0), ((130, 140), (3, 4), (1, 1)), ((4, 5), (1, -1), (0, 1)), ((0, 3), 1, 0),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bool", "int8", "bfloat16", "float64"])
def test_rolled_arrays(dtype):
    for size, shifts, dims in ROLLS:
        x = mf.array(numbers(dtype, size), dtype=dtype)
        np.testing.assert_array_equal(mf.roll(x, shifts, dims).numpy(), np.roll(x.numpy(), shifts, dims))


def test_another_shift_compiles_nothing():
    for size, shifts in (((200, 100), (1, 5, -1, 99)), ((20, 10), (1, 5, -3))):
        x = mf.zeros(*size)
        mf.roll(x, 3, 1).sync()
        before = statistics.compilations + statistics.disk_hits
        for shift in shifts:
            mf.roll(x, shift, 1).sync()
        assert statistics.compilations + statistics.disk_hits == before


def test_gradients_of_rolled_arrays():
    check_grads(lambda v: mf.roll(v * v, (1, 2), (0, 1)), [RANDOM.random((3, 4))], order=2)
    x, upstream = (mf.array(RANDOM.random((150, 120)), dtype="float32") for _ in range(2))
    found = mf.grad((mf.roll(x, (3, -2), (0, 1)) * upstream).sum(), x).numpy()
    np.testing.assert_array_equal(found, np.roll(upstream.numpy(), (-3, 2), (0, 1)))


# -- repeated ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float32", "bool", "bfloat16"])
def test_repeated_elements_and_rows(dtype):
    for size, dim in (((300, 100), 1), ((30, 1000, 3), 1), ((200, 60), None), ((5, 4), 0)):
        x = mf.array(numbers(dtype, size), dtype=dtype)
        for count in (0, 1, 2, 3, 4, 7):
            found = mf.repeat_interleave(x, count, dim)
            np.testing.assert_array_equal(found.numpy(), np.repeat(x.numpy(), count, dim))


def test_gradients_of_repeated_elements():
    x = mf.array(RANDOM.random((300, 100)))
    upstream = mf.array(RANDOM.random((300, 300)))
    found = mf.grad((mf.repeat_interleave(x, 3, 1) * upstream).sum(), x).numpy()
    np.testing.assert_allclose(found, upstream.numpy().reshape(300, 100, 3).sum(2), rtol=1e-6)


# -- vector products --------------------------------------------------------------------------------------------------
def test_vector_products():
    for one, other, dim in (
        ((3,), (3,), -1),
        ((5, 3), (5, 3), -1),
        ((2, 3, 4), (2, 3, 1), 1),
        ((1, 3), (4, 3), -1),
    ):
        a, b = RANDOM.random(one), RANDOM.random(other)
        full = np.broadcast_shapes(one, other)
        turned = (np.moveaxis(np.broadcast_to(v, full), dim, -1) for v in (a, b))
        expected = np.moveaxis(np.cross(*turned), -1, dim)
        found = mf.cross(mf.array(a, dtype="float64"), mf.array(b, dtype="float64"), dim)
        np.testing.assert_allclose(found.numpy(), expected)
        check_grads(lambda u, v: mf.cross(u, v, dim), [a, b], order=2)  # noqa: B023
