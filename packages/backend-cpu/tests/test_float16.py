"""Float16 in generated loops: conversions and arithmetic, bit by bit as NumPy has them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import codegen_kit
import metafuse as mf
from codegen_kit import MACHINE, Nest, run
from metafuse.dtypes import float32
from metafuse.kernel.expr import call, cast
from metafuse_backend_cpu.codegen import emit

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


# -- strips ---------------------------------------------------------------------------------------------------------
LENGTHS = [0, 1, 15, 16, 17, 63, 64, 65, 200, 1000]


def bits(random, *shape):
    return random.integers(0, 1 << 16, shape, dtype=np.uint16).view(np.float16)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("rows", [1, 3])
def test_rows_of_any_length(random, rows, length):
    a, b = bits(random, rows, length), random.standard_normal((rows, length)).astype(np.float32)
    x, y = mf.array(a), mf.array(b)
    with np.errstate(all="ignore"):
        same_bits(x.float32().numpy(), a.astype(np.float32))
        same_bits(y.float16().numpy(), b.astype(np.float16))
        same_bits((x[:, ::-1] + x).numpy(), a[:, ::-1] + a)
        same_bits((x * x + x).numpy(), a * a + a)  # rounded twice
        np.testing.assert_array_equal((x > y).numpy(), a > b)
        same_bits((x.float32() * 2).float16().numpy(), (a.astype(np.float32) * 2).astype(np.float16))


@pytest.mark.parametrize("length", LENGTHS)
def test_several_outputs(random, length):
    a = bits(random, length)
    x = mf.array(a)
    with np.errstate(all="ignore"):
        doubled, wide, root = x + x, (x + x).float32(), mf.sqrt(x + x)
        mf.sync([doubled, wide, root])
        same_bits(doubled.numpy(), a + a)
        same_bits(wide.numpy(), (a + a).astype(np.float32))
        same_bits(root.numpy(), np.sqrt(a + a))


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("length", LENGTHS[1:])
def test_folds_and_what_is_written_meanwhile(random, length, dim):
    for shape in ((5, length), (length, 70)):
        a = random.standard_normal(shape).astype(np.float16)
        x = mf.array(a)
        y = x + x
        total, most = y.float32().sum(dim), y.max(dim)
        mf.sync([y, total, most])
        same_bits(y.numpy(), a + a)
        same_bits(most.numpy(), (a + a).max(dim))
        np.testing.assert_allclose(total.numpy(), (a + a).astype(np.float64).sum(dim), rtol=1e-5, atol=1e-4)
        soft = mf.softmax(x, dim).numpy().astype(np.float64)
        wide = np.exp(a.astype(np.float64))
        np.testing.assert_allclose(soft, wide / wide.sum(dim, keepdims=True), rtol=4e-3, atol=1e-6)


def test_beyond_the_caches(random):
    a = bits(random, 4097, 1024 * 5)
    x = mf.array(a)
    with np.errstate(all="ignore"):
        same_bits((x + x).numpy(), a + a)
        same_bits(x.float32().numpy(), a.astype(np.float32))


@pytest.mark.parametrize("vector_bytes", [16, 32, 64])
@pytest.mark.parametrize("without", [[], ["__AVX512F__"], ["__AVX512F__", "__F16C__"]])
def test_any_processor(random, vector_bytes, without, monkeypatch):
    def for_another(*arguments):
        text = emit(*arguments)
        for macro in without:
            text = text.replace(f"defined({macro})", "0")
        return text

    monkeypatch.setattr(codegen_kit, "emit", for_another)
    machine = replace(MACHINE, vector_bytes=vector_bytes)
    values = random.standard_normal((3, 333)).astype(np.float16)
    nest = Nest((3,), (333,))
    x = nest.read(values, 0, 1)
    total = nest.reduce("add", cast(x, float32))
    nest.store(np.zeros(3, np.float32), (0,), total, level="outer")
    nest.store(np.zeros((3, 333), np.float16), (0, 1), call("mul", x, x))
    run(nest, machine=machine)
    np.testing.assert_allclose(nest.arrays[1], values.astype(np.float64).sum(1), atol=1e-4)
    same_bits(nest.arrays[2], values * values)
    everything, out = ALL.reshape(16, 4096), np.zeros((16, 4096), np.float32)
    nest = Nest((16, 4096))
    nest.store(out, (0, 1), cast(nest.read(everything, 0, 1), float32))
    run(nest, machine=machine)
    same_bits(out, everything.astype(np.float32))


def test_a_choice_of_float16_is_stored_as_it_is():
    x, y = (np.arange(100, dtype=np.float16) * k for k in (1, -2))
    a, b = mf.array(x), mf.array(y)
    np.testing.assert_array_equal(mf.where(a > 20, a, b).numpy(), np.where(x > 20, x, y))
    places = np.array([[-18, 3, 99], [0, 5, -100]], np.int32)
    np.testing.assert_array_equal(mf.take(a, mf.array(places)).numpy(), np.take(x, places))
