"""Contractions and random kernels on the reference backend, against NumPy and the definition of the IR."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metafuse.dtypes import DType, float16, float32, float64, int32
from metafuse.kernel.expr import Expr, add, axis, call, cast, const, load, mul, select
from metafuse.kernel.ir import Contraction, DimIndex, Kernel, Operand, Stage
from metafuse.reference import helpers
from reference_kit import check, reading, run, scalar, size, value, writing


# -- contraction --------------------------------------------------------------------------------------------------
def plain(slot: int, stride: int, axis_number: int, one: int) -> DimIndex:
    return DimIndex(((axis_number, one),), None, None, False, slot, stride)


def batched_matmul(dtype: DType) -> Kernel:
    """y[b,n,m] = relu(sum_k x[b,m,k] * w[b,k,n]): axes b, n, m outer (not in role order), k inner.

    sizes: 0 B, 1 N, 2 M, 3 K, 4 one, 5 M*K, 6 K*N, 7 N*M."""
    x = add(add(mul(axis(0), size(5)), mul(axis(2), size(3))), axis(3))
    w = add(add(mul(axis(0), size(6)), mul(axis(3), size(1))), axis(1))
    y = add(add(mul(axis(0), size(7)), mul(axis(1), size(2))), axis(2))
    stages = (
        Stage("reduce", "inner", call("mul", load(0, dtype, x), load(1, dtype, w)), 0, op="add", result=0),
        Stage("store", "outer", call("max", value(0, dtype), const(0, dtype)), 0, buffer=2, offset=y),
    )
    a = Operand(0, (plain(0, 5, 0, 4), plain(2, 3, 2, 4), plain(3, 4, 3, 4)))
    b = Operand(1, (plain(0, 6, 0, 4), plain(3, 1, 3, 4), plain(1, 4, 1, 4)))
    contraction = Contraction((0,), (2,), (1,), (3,), a, b)
    return Kernel(3, 1, (*reading(dtype, dtype), writing(dtype)), 8, (), stages, contraction, "matmul")


@pytest.mark.parametrize("dtype", [float16, float32, float64, int32])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 1, 1, 1), (2, 3, 4, 0), (0, 1, 2, 3)])
def test_contraction_matmul(dtype: DType, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    batch, n, m, k = shape
    rng = np.random.default_rng(5)
    x, w = (
        rng.integers(-3, 4, (batch, m, k)).astype(dtype.numpy),
        rng.integers(-3, 4, (batch, k, n)).astype(dtype.numpy),
    )
    arguments = ([x, w, np.zeros((batch, n, m), dtype.numpy)], (*shape, 1, m * k, k * n, n * m))
    y = check(batched_matmul(dtype), *arguments)[2]
    np.testing.assert_array_equal(y, np.maximum(x @ w, 0).transpose(0, 2, 1))
    monkeypatch.setattr(helpers, "BLOCK_POINTS", 5)
    np.testing.assert_array_equal(run(batched_matmul(dtype), *arguments)[2], y)


def convolution(divided: bool) -> Kernel:
    """y[n,o,p,q] = sum_{c,r,s} x[n,c,P,Q] * w[o,c,r,s], P = p*stride + r - pad, or (p + r - pad) / stride if ``divided``
    (a transposed convolution); what lies outside x or leaves a remainder counts as zero.

    axes: n o p q | c r s. sizes: 0-6 extents, 7 one, 8 stride, 9 -pad, 10 H, 11 W, 12.. strides of x, 16.. of w,
    20.. of y."""
    one, stride, pad = size(7), size(8), size(9)
    raw = [add(add(mul(axis(p), one if divided else stride), axis(r)), pad) for p, r in ((2, 5), (3, 6))]
    positions = [call("cdiv", p, stride) if divided else p for p in raw]
    inside = None
    for p, whole, extent in zip(positions, raw, (10, 11), strict=True):
        tests = [call("ge", p, const(0)), call("lt", p, size(extent))]
        if divided:
            tests.append(call("eq", call("cmod", whole, stride), const(0)))
        for test in tests:
            inside = test if inside is None else call("and", inside, test)
    x = add(mul(axis(0), size(12)), mul(axis(4), size(13)))
    x = add(add(x, mul(positions[0], size(14))), mul(positions[1], size(15)))
    w = row_major_of((1, 4, 5, 6), (16, 17, 18, 19))
    y = row_major_of((0, 1, 2, 3), (20, 21, 22, 23))
    product = call("mul", load(0, float32, x, inside, const(0.0, float32)), load(1, float32, w))
    stages = (
        Stage("reduce", "inner", product, 0, op="add", result=0),
        Stage("store", "outer", value(0), 0, buffer=2, offset=y),
    )
    step = 7 if divided else 8
    window = [
        DimIndex(((p, step), (r, 7)), 9, 8 if divided else None, True, extent, slot)
        for p, r, extent, slot in ((2, 5, 10, 14), (3, 6, 11, 15))
    ]
    a = Operand(0, (plain(0, 12, 0, 7), plain(4, 13, 4, 7), *window))
    b = Operand(1, tuple(plain(k, 16 + i, k, 7) for i, k in enumerate((1, 4, 5, 6))))
    contraction = Contraction((), (0, 2, 3), (1,), (4, 5, 6), a, b)
    return Kernel(
        4, 3, (*reading(float32, float32), writing(float32)), 24, (), stages, contraction, "convolution"
    )


def row_major_of(axes: tuple[int, ...], slots: tuple[int, ...]) -> Expr:
    offset = const(0)
    for number, slot in zip(axes, slots, strict=True):
        offset = add(offset, mul(axis(number), size(slot)))
    return offset


def strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[k + 1 :])) for k in range(len(shape)))


@settings(max_examples=40, deadline=None)
@given(
    divided=st.booleans(),
    stride=st.integers(1, 3),
    pad=st.integers(0, 3),
    image=st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 5), st.integers(1, 4)),
    window=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3)),
    result=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    points=st.sampled_from([7, 1 << 22]),
)
def test_contraction_convolution(
    divided: bool, stride: int, pad: int, image: tuple[int, ...], window: tuple[int, ...], result: tuple[int, ...],
    points: int,
) -> None:  # fmt: skip
    n, c, h, w = image
    o, r, s = window
    extents = (n, o, *result, c, r, s)
    x_shape, w_shape, y_shape = image, (o, c, r, s), (n, o, *result)
    sizes = (
        *extents,
        1,
        stride,
        -pad,
        h,
        w,
        *strides_of(x_shape),
        *strides_of(w_shape),
        *strides_of(y_shape),
    )
    rng = np.random.default_rng(6)
    arrays = [rng.integers(-4, 5, shape).astype(np.float32) for shape in (x_shape, w_shape, y_shape)]
    saved, helpers.BLOCK_POINTS = helpers.BLOCK_POINTS, points
    try:
        check(convolution(divided), arrays, sizes)
    finally:
        helpers.BLOCK_POINTS = saved


# -- random kernels -----------------------------------------------------------------------------------------------
@st.composite
def expressions(draw: st.DrawFn, leaves: list[Expr]) -> Expr:
    """A float32 expression over ``leaves`` whose value stays moderate."""
    expr = draw(st.sampled_from(leaves))
    for _ in range(draw(st.integers(0, 5))):
        name = draw(st.sampled_from(["add", "sub", "mul", "min", "max", "neg", "tanh", "select"]))
        other = draw(st.sampled_from(leaves))
        if name in ("neg", "tanh"):
            expr = call(name, expr)
        elif name == "select":
            expr = select(call("lt", expr, other), other, expr)
        else:
            expr = call(name, expr, other)
    return call("tanh", expr)


@st.composite
def kernels(draw: st.DrawFn) -> Kernel:
    """Two outer and one inner axis; reductions in phases 0 and 1, a let, stores on both levels."""
    at_outer = [
        load(0, float32, row_major_of((0, 1), (3, 4))), const(0.5, float32), scalar(0, float32), cast(axis(1), float32),
    ]  # fmt: skip
    at_inner = [*at_outer, load(1, float32, row_major_of((0, 2), (3, 5))), cast(axis(2), float32)]
    ops = st.sampled_from(["add", "maximum", "minimum"])
    stages = [Stage("reduce", "inner", draw(expressions(at_inner)), 0, op=draw(ops), result=0)]
    stages.append(Stage("let", "outer", draw(expressions([*at_outer, value(0)])), 0, result=1))
    inner_leaves = [*at_inner, value(0), value(1)]
    stages.append(Stage("reduce", "inner", draw(expressions(inner_leaves)), 1, op=draw(ops), result=2))
    stages.append(
        Stage(
            "store",
            "inner",
            draw(expressions([*inner_leaves, value(2)])),
            2,
            buffer=2,
            offset=row_major_of((0, 1, 2), (6, 7, 8)),
        )
    )
    outer_leaves = [*at_outer, value(0), value(1), value(2)]
    stages.append(
        Stage(
            "store",
            "outer",
            draw(expressions(outer_leaves)),
            2,
            buffer=3,
            offset=row_major_of((0, 1), (3, 4)),
        )
    )
    buffers = (*reading(float32, float32), writing(float32), writing(float32))
    return Kernel(2, 1, buffers, 9, (float32,), tuple(stages))


@settings(max_examples=40, deadline=None)
@given(kernel=kernels(), shape=st.tuples(*[st.integers(0, 3)] * 3), points=st.sampled_from([2, 1 << 22]))
def test_random_kernels(kernel: Kernel, shape: tuple[int, int, int], points: int) -> None:
    n, m, k = shape
    rng = np.random.default_rng(7)
    # Both small inputs are read with row stride m and unit stride, so the second one needs (n - 1) * m + k elements.
    arrays = [rng.normal(size=s).astype(np.float32) for s in (n * m, max(n * m, 1) + k, n * m * k, n * m)]
    sizes = (n, m, k, m, 1, 1, m * k, k, 1)
    saved, helpers.BLOCK_POINTS = helpers.BLOCK_POINTS, points
    try:
        check(kernel, arrays, sizes, (0.25,))
    finally:
        helpers.BLOCK_POINTS = saved
