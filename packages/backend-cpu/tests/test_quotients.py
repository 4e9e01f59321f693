"""Integer division through double arithmetic against NumPy's, for every width and for what is awkward."""

from __future__ import annotations

import operator

import numpy as np
import pytest

import metafuse as mf

COUNT = 1 << 16
TYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"]
OPERATIONS = [operator.floordiv, operator.mod]


def pairs(dtype):
    """Numbers of all sizes; the smallest by -1, by 0 and by itself among them."""
    random = np.random.default_rng(3)
    limits = np.iinfo(dtype)
    a, b = (random.integers(limits.min, limits.max, COUNT, dtype=dtype, endpoint=True) for _ in range(2))
    a[COUNT // 2 :] >>= random.integers(0, limits.bits, COUNT // 2).astype(dtype)
    b >>= random.integers(0, limits.bits, COUNT).astype(dtype)
    a[:90] = limits.min
    b[:30], b[30:60], b[60:90] = (-1 if limits.min < 0 else limits.max), 0, limits.min
    a[90:120], b[90:105], b[105:120] = limits.max, limits.max, 1
    return a, b


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", TYPES)
def test_quotients_and_remainders_are_exact(dtype, operation):
    a, b = pairs(np.dtype(dtype).type)
    with np.errstate(all="ignore"):
        expected = operation(a, b)
    found = operation(mf.array(a, dtype), mf.array(b, dtype)).numpy()
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", TYPES)
def test_neighbours_of_multiples(dtype, operation):
    limits = np.iinfo(dtype)
    divisors = np.array([1, 3, 7, 10, 97], dtype)[:, None]
    largest = limits.max // divisors
    multiples = np.concatenate([largest * divisors, divisors * np.arange(1, 2, dtype=dtype)], 1)
    a = np.concatenate([multiples, multiples - np.ones_like(multiples)], 1)
    b = np.broadcast_to(divisors, a.shape).copy()
    np.testing.assert_array_equal(operation(mf.array(a, dtype), mf.array(b, dtype)).numpy(), operation(a, b))
