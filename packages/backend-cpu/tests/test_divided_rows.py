"""Rows whose places are divided: every way to walk along them against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf


@pytest.mark.parametrize("width", [1, 2, 5, 31, 64, 203])
@pytest.mark.parametrize("shift", [-3, 0, 1, 4])
@pytest.mark.parametrize("divisor", [1, 2, 3, 4, 5, 9, 300])
def test_places_that_are_quotients(divisor: int, shift: int, width: int) -> None:
    rows = 7
    x = np.arange(rows * 30, dtype=np.float32).reshape(rows, 30)
    places = np.trunc((np.arange(width) + shift) / divisor).astype(int)
    expected = np.where((places >= 0) & (places < 30), x[:, places.clip(0, 29)], -1)
    y = mf.array(x).reindex([rows, width], ["i0", f"(i1+{shift})/{divisor}"], -1.0)
    np.testing.assert_array_equal(y.numpy(), expected)


@pytest.mark.parametrize("divisor", [2, 3, 7])
@pytest.mark.parametrize("width", [1, 6, 50, 129])
def test_quotients_and_remainders(divisor: int, width: int) -> None:
    x = np.random.default_rng(0).standard_normal((5, 80, divisor)).astype(np.float32)
    places = np.arange(width) + 1
    y = mf.array(x).reindex([5, width], ["i0", f"(i1+1)/{divisor}", f"(i1+1)%{divisor}"]) * 2.0
    inside = places // divisor < 80
    expected = np.where(inside, x[:, (places // divisor).clip(0, 79), places % divisor] * 2, 0)
    np.testing.assert_array_equal(y.numpy(), expected)
