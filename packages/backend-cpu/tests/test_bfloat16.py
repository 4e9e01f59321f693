"""bfloat16 in generated C++: bits, conversions, folds, products, snippets, and that loops stay vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import metafuse as mf
from codegen_kit import MACHINE, Nest, check, memory, numbers, run
from contraction_kit import launch, matmul
from metafuse.dtypes import bfloat16, float32
from metafuse.kernel.expr import axis, call, cast, const
from metafuse_backend_cpu import compiler
from metafuse_backend_cpu.codegen import emit

pytestmark = pytest.mark.compiler
random = np.random.default_rng(16)
EVERY = np.arange(65536, dtype=np.uint16)


def stored(*shape: int) -> Any:
    return memory(random.standard_normal(shape), bfloat16)


def blank(*shape: int) -> Any:
    return memory(np.full(shape, 77.0), bfloat16)


def labelled(bits: Any) -> Any:
    return bits.astype(np.dtype(np.uint16, metadata={"metafuse": "bfloat16"}))


def test_every_pattern_is_copied_and_widened_exactly():
    source, copied, wide = labelled(EVERY), blank(65536), np.zeros(65536, np.float32)
    nest = Nest((65536,))
    nest.store(copied, (0,), nest.read(source, 0))
    nest.store(wide, (0,), cast(nest.read(source, 0), float32))
    run(nest, chunks=3)
    assert np.array_equal(copied, EVERY)
    assert np.array_equal(wide.view(np.uint32), EVERY.astype(np.uint32) << 16)


def test_every_pattern_survives_rounding():
    """What is a bfloat16 already is not changed by rounding; NaN stays NaN."""
    wide, narrow = bfloat16.decode(EVERY), blank(65536)
    nest = Nest((65536,))
    nest.store(narrow, (0,), cast(nest.read(wide, 0), bfloat16))
    run(nest)
    assert np.array_equal(narrow, EVERY)


def test_rounding_is_to_nearest_even():
    wide = random.integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    ties = ((EVERY.astype(np.uint32) << 16) | 0x8000).view(np.float32)
    wide = np.concatenate([wide, ties, [np.float32(3.4e38), np.float32(-3.4e38)]])
    narrow = blank(wide.size)
    nest = Nest((wide.size,))
    nest.store(narrow, (0,), cast(nest.read(wide, 0), bfloat16))
    run(nest)
    assert np.array_equal(narrow, bfloat16.encode(wide))


def test_scalars_and_literals_are_rounded():
    nest, first, second = Nest((5,)), blank(5), blank(5)
    nest.store(first, (0,), nest.scalar(0.1, bfloat16))
    nest.store(second, (0,), const(1.00390625, bfloat16))
    run(nest)
    assert (numbers(first) == np.float32(0.10009765625)).all()
    assert (numbers(second) == 1.0).all()  # a tie: to even


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("shape", [(7, 1000), (1000, 7), (3, 1)])
def test_folds(across: bool, shape: tuple[int, int]):
    """Sums that are asked for in bfloat16 are carried wider and rounded once; maxima are exact."""
    kept, folded = (shape[1], shape[0]) if across else shape
    nest = Nest((kept,), (folded,))
    x = nest.read(stored(*shape), *((1, 0) if across else (0, 1)))
    for op in ("add", "maximum", "minimum"):
        nest.store(blank(kept), (0,), nest.reduce(op, x), level="outer")
    wide = nest.reduce("add", cast(x, float32))
    nest.store(np.zeros(kept, np.float32), (0,), wide, level="outer")
    check(nest, chunks=2, relative=4e-3, absolute=1e-5)


def test_nan_wins_in_folds():
    x = random.standard_normal((9, 70))
    x[2, 3], x[5, 69], x[7, 7] = np.nan, np.nan, np.inf
    nest, out = Nest((9,), (70,)), blank(9)
    nest.store(out, (0,), nest.reduce("maximum", nest.read(memory(x, bfloat16), 0, 1)), level="outer")
    run(nest)
    assert np.isnan(numbers(out)[[2, 5]]).all()
    assert np.isinf(numbers(out)[7])


@pytest.mark.parametrize("op", ["add", "maximum", "void"])
def test_scatters(op: str):
    nest = Nest((), (40,))
    nest.scatter(
        op, memory(np.ones(10), bfloat16), (call("mod", axis(0), nest.size(10)),), nest.read(stored(40), 0)
    )
    check(nest, relative=2e-2, absolute=2e-2)


def test_phases_keep_values_in_arrays_of_lanes():
    x, out = stored(300, 40), blank(300, 40)
    nest = Nest((40,), (300,))
    value = nest.read(x, 1, 0)
    top = nest.reduce("maximum", value)
    nest.store(out, (1, 0), call("sub", value, top), 1)
    check(nest, relative=8e-3, absolute=1e-6)


@pytest.mark.parametrize(
    "kinds", [("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float32", "bfloat16")]
)
@pytest.mark.parametrize("size", [(5, 7, 3), (70, 300, 130), (1, 33, 64), (64, 33, 1)])
def test_products(kinds: tuple[str, str], size: tuple[int, int, int]):
    m, k, n = size
    a, b = (
        stored(*s) if kind == "bfloat16" else random.standard_normal(s).astype(np.float32)
        for kind, s in zip(kinds, ((m, k), (k, n)), strict=True)
    )
    expected = numbers(a).astype(np.float64) @ numbers(b).astype(np.float64)
    scale = np.abs(expected).max()
    for out, tolerance in ((np.full((m, n), np.nan, np.float32), 2e-6), (blank(m, n), 4e-3)):
        launch(matmul(a, b, out, dtype=float32))
        np.testing.assert_allclose(numbers(out), expected, rtol=tolerance, atol=tolerance * scale)


def test_a_sum_of_products_is_carried_in_float32():
    a, b, out = (
        memory(np.full((3, 5000), 0.01), bfloat16),
        memory(np.ones((5000, 20)), bfloat16),
        blank(3, 20),
    )
    launch(matmul(a, b, out, dtype=bfloat16))
    np.testing.assert_allclose(numbers(out), 5000 * float(bfloat16.convert(0.01)), rtol=4e-3)


@pytest.mark.skipif(MACHINE.vector_bytes < 32, reason="looks for instructions on wide vectors")
def test_loops_are_vectorised():
    """The conversions are integer operations on vectors, not a call or a branch per element."""
    nest = Nest((1000,))
    x = nest.read(stored(1000), 0)
    wide = call("mul", cast(x, float32), cast(nest.read(stored(1000), 0), float32))
    nest.store(blank(1000), (0,), cast(wide, bfloat16))
    text = compiler.assembly(emit(nest.kernel(), "kernel", MACHINE))
    assert "vpslld" in text
    assert "vmulps" in text


def test_snippets_have_the_type():
    x = mf.array(np.arange(6, dtype=np.float32) / 3, dtype="bfloat16")
    source = """
        static_assert(sizeof(in0_type) == 2 && is_same<in0_type, bfloat16>::value);
        for (int i = 0; i < in0_shape0; ++i) { bfloat16 y = @in0(i); y += 1; y *= 2.0f; @out(i) = y - 0.5f; }
    """
    with mf.flag_scope(backend="cpu"):
        y = mf.code([6], "bfloat16", [x], cpu_src=source)
        got = y.numpy()
    near = bfloat16.convert
    assert np.array_equal(got, near(near(near(x.numpy() + 1) * 2) - np.float32(0.5)))
