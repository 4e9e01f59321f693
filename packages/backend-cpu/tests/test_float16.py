"""Float16 in generated loops: conversions and arithmetic, bit by bit as NumPy has them."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf

COUNT = 1 << 18
ALL = np.arange(1 << 16, dtype=np.uint16).view(np.float16)


@pytest.fixture
def random():
    return np.random.default_rng(3)


def same_bits(found, expected):
    assert found.dtype == expected.dtype
    unsigned = f"u{expected.itemsize}"
    differs = (found.view(unsigned) != expected.view(unsigned)) & ~(np.isnan(found) & np.isnan(expected))
    assert not differs.any(), (found[differs][:4], expected[differs][:4])


def rounded(values):
    with np.errstate(over="ignore"):
        return values.astype(np.float16)


def test_every_float16_is_read(random):
    same_bits(mf.array(ALL).float32().numpy(), ALL.astype(np.float32))
    same_bits(mf.array(ALL).float64().numpy(), ALL.astype(np.float64))
    same_bits((mf.array(ALL) * 1).numpy(), ALL)


def test_any_float32_is_rounded(random):
    bits = random.integers(0, 2**32, COUNT, dtype=np.uint32).view(np.float32)
    near = (random.standard_normal(COUNT) * 10 ** random.uniform(-9, 6, COUNT)).astype(np.float32)
    for values in (bits, near):
        same_bits(mf.array(values).float16().numpy(), rounded(values))


@pytest.mark.parametrize("off", [0, 1e-17, -1e-17, 1e-12, -1e-12, 1e-8, -1e-8])
def test_a_float64_is_rounded_once(off):
    numbers = ALL[:0x7C00].astype(np.float64)
    middles = (numbers[1:] + numbers[:-1]) / 2 * (1 + off)
    for values in (middles, -middles):
        same_bits(mf.array64(values).float16().numpy(), rounded(values))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
def test_integers(random, dtype):
    limits = np.iinfo(dtype)
    values = random.integers(max(limits.min, -200_000), min(limits.max, 200_000), COUNT, dtype, endpoint=True)
    same_bits(mf.array(values).float16().numpy(), rounded(values))


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "maximum", "minimum"])
def test_arithmetic(random, name):
    a, b = random.integers(0, 1 << 16, (2, COUNT), dtype=np.uint16).view(np.float16)
    with np.errstate(all="ignore"):
        same_bits(getattr(mf, name)(mf.array(a), mf.array(b)).numpy(), getattr(np, name)(a, b))


def test_roots_signs_and_choices():
    x = mf.array(ALL)
    with np.errstate(all="ignore"):
        same_bits(mf.sqrt(x).numpy(), np.sqrt(ALL))
        same_bits((-x).numpy(), -ALL)
        same_bits(mf.abs(x).numpy(), np.abs(ALL))
        same_bits(mf.floor(x).numpy(), np.floor(ALL))
        np.testing.assert_array_equal((x > 1).numpy(), ALL > 1)
        same_bits(mf.where(x > 1, x, -x).numpy(), np.where(ALL > 1, ALL, -ALL))
