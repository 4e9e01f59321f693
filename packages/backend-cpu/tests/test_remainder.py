"""The vectorised remainder of float32 against the C library's, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf

COUNT = 200_000
SPECIAL = [0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38, -3.4e38, 1.17e-38, 0.5, 2, 3]


def pairs(kind):
    random = np.random.default_rng(5)
    if kind == "any bits":
        a, b = random.integers(0, 2**32, (2, COUNT), dtype=np.uint32).view(np.float32)
    elif kind == "near":
        a, b = random.standard_normal((2, COUNT), dtype=np.float32) * np.float32([[100], [1]])
    elif kind == "largest quotients":
        b = random.integers(1, 2**23, COUNT, dtype=np.uint32).view(np.float32)
        a = np.full(COUNT, np.finfo(np.float32).max)
    elif kind == "multiples":
        b = random.standard_normal(COUNT, dtype=np.float32)
        a = b * random.integers(-(2**20), 2**20, COUNT).astype(np.float32)
    else:
        a, b = (x.ravel().astype(np.float32) for x in np.meshgrid(SPECIAL, SPECIAL))
    return a, b


@pytest.mark.parametrize("kind", ["any bits", "near", "largest quotients", "multiples", "special"])
def test_every_bit_is_that_of_the_c_library(kind):
    a, b = pairs(kind)
    with np.errstate(all="ignore"):
        expected = np.mod(a, b)
    found = (mf.array(a) % mf.array(b)).numpy()
    np.testing.assert_array_equal(found, expected)
    there = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found)[there], np.signbit(expected)[there])
