"""Generated loops against the reference backend in float64 and against NumPy."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from codegen_kit import MACHINE, Nest, check, compiled, guarded_array, memory, numbers, oracle, run
from metafuse.dtypes import DTYPES, DType, bool_, float16, float32, float64, int32, int64
from metafuse.kernel.expr import INTRINSICS, TESTS, Expr, add, axis, call, cast, const, load, mul, select, sub
from metafuse.kernel.host import apply
from metafuse.kernel.ir import REDUCTIONS
from metafuse_backend_cpu.codegen import emit

random = np.random.default_rng(0)
SIZES = (0, 1, 7, 1000)


def normal(*shape: int, dtype: str = "float32") -> Any:
    return np.asarray(random.standard_normal(shape), dtype)


def number(value: float, dtype: DType = float32) -> Expr:
    return const(value, dtype)


# -- intrinsics ---------------------------------------------------------------------------------------------------
FLOAT_ONLY = frozenset(
    "div exp log expm1 log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf sqrt atan2".split()
)
BOOL_OPERATIONS = frozenset("and or not bitand bitor bitxor bitnot eq ne lt le gt ge min max add mul".split())
JUMPS = frozenset({"floordiv", "mod", "cdiv", "cmod"})
SKIPPED = frozenset({"select", "cast", "uniform"})  # tested on their own below


def operations(dtype: DType) -> list[str]:
    """The intrinsics that have a meaning on ``dtype``."""
    if dtype is bool_:
        return sorted(BOOL_OPERATIONS)
    bits = {"bitand", "bitor", "bitxor", "bitnot", "shl", "shr"}
    out = {"and", "or", "not", *(bits if dtype.is_float else FLOAT_ONLY)}
    return sorted(INTRINSICS.keys() - SKIPPED - out - ({"isnan", "isinf"} if not dtype.is_float else set()))


def operands(dtype: DType) -> tuple[Any, Any]:
    """Every pair of some awkward values."""
    if dtype.is_float:
        values = [float(v) for v in "0 -0 .3 -.3 1 -1 2.5 -3.5 7 88 -90 1e-3 1e4 inf -inf nan".split()]
    elif dtype is bool_:
        values = [False, True]
    else:
        limits = np.iinfo(dtype.numpy)
        values = [v for v in (0, 1, 2, 3, 7, 31, 63, 64, 100, -1, -2, -7) if v >= limits.min]
        values += [limits.min, limits.max]
    values = dtype.convert(np.array(values, dtype.numpy))
    a, b = np.meshgrid(values, values)
    return a.ravel().copy(), b.ravel().copy()


@pytest.mark.parametrize("vector_math", [True, False])
@pytest.mark.parametrize("name", DTYPES)
def test_intrinsics(name: str, vector_math: bool) -> None:
    dtype = DTYPES[name]
    a, b = operands(dtype)
    nest, outputs = Nest((a.size,)), {}
    x, y = nest.read(memory(a, dtype), 0), nest.read(memory(b, dtype), 0)
    for operation in operations(dtype):
        expr = call(operation, *(x, y)[: INTRINSICS[operation]])
        outputs[operation] = memory(np.zeros(a.shape), expr.dtype)
        nest.store(outputs[operation], (0,), expr)
    run(nest, vector_math=vector_math)
    wide = float64 if dtype.is_float else dtype
    for operation, got in outputs.items():
        got = numbers(got)
        # smooth functions are judged by float64; what jumps must jump where the type itself says
        judge = dtype if operation in JUMPS else wide
        args = [v.astype(judge.numpy) for v in (a, b)[: INTRINSICS[operation]]]
        result = bool_ if operation in TESTS else dtype
        with np.errstate(over="ignore"):
            want = result.convert(apply(operation, *args, dtype=bool_ if operation in TESTS else judge))
        if got.dtype.kind == "f":
            relative = {"float16": 2e-3, "bfloat16": 8e-3, "float32": 2e-6, "float64": 1e-14}[name]
            np.testing.assert_allclose(
                got, want, rtol=relative, atol=1e-300, err_msg=f"[{operation}] on {name}"
            )
            continue
        defined = ~np.isin(operation, ["shl", "shr"]) | (b.astype(np.float64) >= 0)
        np.testing.assert_array_equal(got[defined], want[defined], err_msg=f"[{operation}] on {name}")


@pytest.mark.parametrize("source", DTYPES)
def test_casts(source: str) -> None:
    dtype = DTYPES[source]
    values = np.array([0, 1, 2, 100] + ([] if dtype.kind in "bu" else [-1, -100]), dtype.numpy)
    if dtype.is_float:
        values = np.append(values, np.array([0.5, -1.5, 9.75], dtype.numpy))
    nest, outputs, stored = Nest((values.size,)), {}, memory(values, dtype)
    for target in DTYPES.values():
        outputs[target] = memory(np.zeros(values.shape), target)
        nest.store(outputs[target], (0,), cast(nest.read(stored, 0), target))
    run(nest)
    for target, got in outputs.items():
        got = numbers(got)
        keep = values >= 0 if target.kind == "u" and dtype.is_float else np.ones(values.shape, bool)
        np.testing.assert_array_equal(
            got[keep], target.convert(values)[keep], err_msg=f"{source} to {target}"
        )


def test_float_out_of_integer_range_does_not_crash() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30], np.float32)
    nest = Nest((5,))
    for name in ("int8", "int32", "int64", "uint64", "bool"):
        nest.store(np.zeros(5, name), (0,), cast(nest.read(values, 0), DTYPES[name]))
    run(nest)
    assert nest.arrays[-1].all()


@pytest.mark.parametrize("vector_math", [True, False])
@pytest.mark.parametrize(
    "name, low, high", [("exp", -103, 88), ("log", 1e-30, 1e3), ("tanh", -11, 11), ("erf", -5, 5)]
)
def test_functions_are_accurate(name: str, low: float, high: float, vector_math: bool) -> None:
    x = np.linspace(low, high, 200_001).astype(np.float32)
    x[:3] = 1e-40, 1e-38, 1e-3
    nest, out = Nest((x.size,)), np.zeros(x.shape, np.float32)
    nest.store(out, (0,), call(name, nest.read(x, 0)))
    run(nest, vector_math=vector_math)
    exact = apply(name, x.astype(np.float64), dtype=float64)
    units = np.abs(out - exact) / np.spacing(np.abs(exact).astype(np.float32))
    assert units.max() <= (3 if name in ("exp", "erf") else 4)  # those are our own


def test_error_function_at_its_ends() -> None:
    x = np.array([0.0, -0.0, 1e-45, -1e-45, np.inf, -np.inf, np.nan, 3.9, -3.9, 4.1, 1e30, -1e30], np.float32)
    nest, out = Nest((x.size,)), np.zeros(x.shape, np.float32)
    nest.store(out, (0,), call("erf", nest.read(x, 0)))
    run(nest)
    expected = np.array([0, 0, 1e-45, -1e-45, 1, -1, np.nan, 1, -1, 1, 1, -1], np.float32)
    np.testing.assert_allclose(out, expected, rtol=6e-8)
    np.testing.assert_array_equal(np.signbit(out[:2]), [False, True])
    many = np.linspace(3, 5, 100_001).astype(np.float32)
    nest, out = Nest((many.size,)), np.zeros(many.shape, np.float32)
    nest.store(out, (0,), call("erf", nest.read(many, 0)))
    run(nest)
    assert out.max() == 1


@pytest.mark.parametrize("seed, offset", [(0, 0), (123456789012345, 2**32 - 3), (-1, 2**40)])
def test_uniform_is_philox(seed: int, offset: int) -> None:
    out = np.zeros(1003, np.float32)
    nest = Nest((1003,))
    nest.store(out, (0,), call("uniform", nest.scalar(seed, int64), nest.scalar(offset, int64), axis(0)))
    run(nest, chunks=3)
    np.testing.assert_array_equal(out, apply("uniform", seed, offset, np.arange(1003), dtype=float32))
    assert out.min() >= 0 and out.max() < 1 and abs(out.mean() - 0.5) < 0.05


# -- element-wise -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("chunks", [1, 3])
def test_chain(n: int, chunks: int) -> None:
    x, out = normal(n), np.zeros(n, np.float32)
    nest = Nest((n,))
    value = call("tanh", call("mul", nest.read(x, 0), nest.scalar(0.5)))
    nest.store(out, (0,), call("exp", call("sub", value, number(1))))
    check(nest, chunks)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (7, 3), (30, 1000), (300, 7)])
@pytest.mark.parametrize("chunks", [1, 4])
def test_broadcasting(shape: tuple[int, int], chunks: int) -> None:
    x, row, column = normal(*shape), normal(shape[1]), normal(shape[0])
    nest = Nest(shape)
    value = call("mul", call("add", nest.read(x, 0, 1), nest.read(row, 1)), nest.read(column, 0))
    nest.store(np.zeros(shape, np.float32), (0, 1), value)
    check(nest, chunks)


def test_four_axes_and_strides() -> None:
    x = normal(6, 10, 8, 14)[::2, :, 1::3, ::2]
    y = normal(10, 3, 7, 3).transpose(1, 0, 3, 2)
    nest = Nest(x.shape)
    flipped = sub(nest.size(9), axis(1))
    value = call("sub", nest.read(x, 0, flipped, 2, 3), nest.read(y, 0, 1, 2, 3))
    nest.store(np.zeros(x.shape, np.float32), (0, 1, 2, 3), value)
    check(nest, chunks=2)


@pytest.mark.parametrize("shape", [(1, 1), (33, 65), (100, 31), (128, 256), (0, 4)])
def test_transpose(shape: tuple[int, int]) -> None:
    x = normal(3, shape[1], shape[0])
    nest = Nest((3, *shape))
    nest.store(np.zeros((3, *shape), np.float32), (0, 1, 2), call("neg", nest.read(x, 0, 2, 1)))
    check(nest, chunks=3, absolute=1e-5)  # blocks of a sum are carried in float32


def test_zero_dimensions() -> None:
    x, out = normal(1), np.zeros(1, np.float32)
    nest = Nest(())
    nest.store(out, (const(0),), call("exp", nest.read(x, const(0))))
    check(nest)


def test_several_outputs_and_types() -> None:
    x, flags = normal(501), np.asarray(random.integers(0, 2, 501), bool)
    nest = Nest((501,))
    value, flag = nest.read(x, 0), nest.read(flags, 0)
    big = call("and", call("gt", value, number(0)), call("not", flag))
    nest.store(np.zeros(501, bool), (0,), big)
    nest.store(np.zeros(501, np.float32), (0,), select(big, value, call("neg", value)))
    nest.store(np.zeros(501, np.int32), (0,), cast(call("mul", value, number(1000)), int32))
    nest.store(np.zeros(501, np.float16), (0,), cast(value, float16))
    expected = oracle(nest)
    run(nest)
    for got, want in zip(nest.arrays[2:], expected[2:], strict=True):
        if got.dtype == np.int32:
            assert np.abs(got.astype(np.int64) - want).max() <= 1  # the product is rounded to float32 first
        else:
            np.testing.assert_allclose(got.astype(np.float64), want.astype(got.dtype))


def test_output_may_be_the_input_memory() -> None:
    x = normal(1000)
    before = x.copy()
    nest = Nest((1000,))
    value, other = nest.read(x, 0), np.zeros(1000, np.float32)
    nest.store(x, (0,), call("add", value, number(1)))
    nest.store(other, (0,), call("mul", value, number(2)))
    run(nest)
    np.testing.assert_array_equal(x, before + np.float32(1))
    np.testing.assert_array_equal(other, before * np.float32(2))


def test_gather() -> None:
    table, rows = normal(50, 33), np.asarray(random.integers(0, 50, 70), np.int64)
    nest = Nest((70, 33))
    index = nest.read(rows, 0)
    nest.store(np.zeros((70, 33), np.float32), (0, 1), nest.read(table, index, 1))
    check(nest, chunks=2)


# -- conditional loads --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stride", [1, 3])
def test_padding_reads_nothing_outside(stride: int) -> None:
    n, pad = 300, 40
    x = guarded_array(n)
    count = (n + 2 * pad) // stride + 200
    out = np.zeros(count, np.float32)
    nest = Nest((count,))
    source = add(mul(axis(0), nest.size(stride)), nest.size(-pad))
    inside = call("and", call("ge", source, const(0)), call("lt", source, nest.size(n)))
    buffer = nest.argument(x)
    nest.store(out, (0,), call("add", load(buffer, float32, source, inside, number(5)), number(1)))
    run(nest, chunks=2)
    position = np.arange(count) * stride - pad
    valid = (position >= 0) & (position < n)
    np.testing.assert_array_equal(
        out, np.where(valid, x[np.clip(position, 0, n - 1)], np.float32(5)) + np.float32(1)
    )


@pytest.mark.parametrize("window, stride, pad", [(3, 1, 1), (2, 2, 0), (7, 2, 3), (20, 1, 5)])
@pytest.mark.parametrize("op", ["maximum", "add"])
def test_pooling(window: int, stride: int, pad: int, op: str) -> None:
    x = normal(4, 37, 41)
    height, width = ((n + 2 * pad - window) // stride + 1 for n in x.shape[1:])
    nest = Nest((4, height, width), (window, window))
    position, inside = [], const(True, bool_)
    for k, n in enumerate(x.shape[1:]):
        along = add(axis(1 + k) if stride == 1 else mul(axis(1 + k), nest.size(stride)), axis(3 + k))
        along = add(along, nest.size(-pad))
        inside = call(
            "and", inside, call("and", call("ge", along, const(0)), call("lt", along, nest.size(n)))
        )
        position.append(along)
    buffer = nest.argument(x)
    missing = number(float("-inf") if op == "maximum" else 0)
    value = nest.reduce(op, load(buffer, float32, nest.offset(buffer, 0, *position), inside, missing))
    nest.store(np.zeros((4, height, width), np.float32), (0, 1, 2), value, level="outer")
    check(nest, chunks=3, absolute=5e-6)  # blocks of a sum are carried in float32


# -- reductions ---------------------------------------------------------------------------------------------------
def reduction_operand(op: str, dtype: DType, *shape: int) -> Any:
    if op == "multiply" and dtype.is_float:
        return random.uniform(0.9, 1.1, shape).astype(dtype.numpy)
    if dtype.is_float:
        return normal(*shape, dtype=dtype.name)
    high = 2 if dtype is bool_ or op.startswith("logical") else 100
    return random.integers(0, high, shape).astype(dtype.numpy)


def reductions(dtype: DType) -> list[str]:
    names = [name for name in REDUCTIONS if name != "void"]
    return [n for n in names if not dtype.is_float or not n.startswith(("bitwise", "logical"))]


@pytest.mark.parametrize("shape", [(7, 1000), (1000, 7), (3, 0), (0, 3), (5, 1)])
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("name", ["bool", "uint8", "int32", "int64", "float32", "float64"])
def test_reductions(name: str, across: bool, shape: tuple[int, int]) -> None:
    dtype = DTYPES[name]
    kept, folded = (shape[1], shape[0]) if across else shape
    nest, values = Nest((kept,), (folded,)), []
    for op in reductions(dtype):
        x = reduction_operand(op, dtype, *shape)
        expr = nest.read(x, 1, 0) if across else nest.read(x, 0, 1)
        values.append(nest.reduce(op, cast(expr, bool_) if op.startswith("logical") else expr))
    for value in values:
        nest.store(np.zeros(kept, value.dtype.numpy), (0,), value, level="outer")
    check(
        nest,
        chunks=2,
        relative=1e-6 if dtype is float32 else 1e-13,
        absolute=1e-5 if dtype is float32 else 1e-12,
    )


@pytest.mark.parametrize("op", ["maximum", "minimum"])
@pytest.mark.parametrize("across", [False, True])
def test_nan_wins(op: str, across: bool) -> None:
    x = normal(33, 47)
    x[3, 5], x[8, 46], x[20, 0], x[7, 7] = np.nan, np.nan, np.nan, np.inf
    nest = Nest((47,), (33,)) if across else Nest((33,), (47,))
    value = nest.reduce(op, nest.read(x, 1, 0) if across else nest.read(x, 0, 1))
    out = np.zeros(47 if across else 33, np.float32)
    nest.store(out, (0,), value, level="outer")
    run(nest)
    np.testing.assert_array_equal(out, getattr(np, op).reduce(x, 0 if across else 1))


def test_infinities_sum() -> None:
    x = np.ones((2, 5000))
    x[0, 77] = np.inf
    nest = Nest((2,), (5000,))
    out = np.zeros(2)
    nest.store(out, (0,), nest.reduce("add", nest.read(x, 0, 1)), level="outer")
    run(nest)
    np.testing.assert_array_equal(out, [np.inf, 5000])


@pytest.mark.parametrize("dtype", [float32, float64])
def test_mean_of_ten_million_ones_is_one(dtype: DType) -> None:
    n = 10_000_000
    x, out = np.ones(n, dtype.numpy), np.zeros(1, dtype.numpy)
    nest = Nest((), (n,))
    total = nest.reduce("add", nest.read(x, 0))
    nest.store(out, (const(0),), call("div", total, number(n, dtype)), level="outer")
    run(nest)
    assert out[0] == 1


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("dtype", [float16, float32, float64])
def test_long_sums_are_accurate(dtype: DType, across: bool) -> None:
    n, kept = 200_000, 3
    x = random.uniform(0, 1, (n, kept) if across else (kept, n)).astype(dtype.numpy)
    nest = Nest((kept,), (n,))
    value = nest.read(x, 1, 0) if across else nest.read(x, 0, 1)
    total = nest.reduce("add", cast(value, float32) if dtype is float16 else value)
    out = np.zeros(kept, total.dtype.numpy)
    nest.store(out, (0,), total, level="outer")
    run(nest)
    exact = x.astype(np.longdouble).sum(0 if across else 1)
    assert np.abs(out / exact - 1).max() < (5e-15 if dtype is float64 else 6e-8)


def test_middle_axis() -> None:
    x = normal(5, 40, 70)
    nest = Nest((5, 70), (40,))
    value = nest.reduce("add", nest.read(x, 0, 2, 1))
    nest.store(np.zeros((5, 70), np.float32), (0, 1), value, level="outer")
    check(nest, chunks=2, absolute=5e-6)  # blocks of a sum are carried in float32


@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_argmax_in_two_phases(layout: str) -> None:
    x = random.integers(0, 50, (60, 90)).astype(np.float32)
    nest = Nest((60,), (90,)) if layout == "rows" else Nest((90,), (60,))
    element = nest.read(x, 0, 1) if layout == "rows" else nest.read(x, 1, 0)
    best = nest.reduce("maximum", element)
    first = nest.reduce("minimum", select(call("eq", element, best), axis(1), const(10**9)), 1)
    out = np.zeros(nest.sizes[0], np.int32)
    nest.store(out, (0,), cast(first, int32), 1, "outer")
    run(nest, chunks=2)
    np.testing.assert_array_equal(out, x.argmax(1 if layout == "rows" else 0))


# -- several phases -----------------------------------------------------------------------------------------------
def softmax(nest: Nest, element: Expr, out: Any, index: Any) -> None:
    top = nest.reduce("maximum", element, 0)
    power = call("exp", call("sub", element, top))
    total = nest.reduce("add", power, 1)
    nest.store(out, index, call("div", power, total), 2)


@pytest.mark.parametrize("shape", [(1, 1), (7, 1000), (33, 10), (3, 0)])
@pytest.mark.parametrize("across", [False, True])
def test_softmax(shape: tuple[int, int], across: bool) -> None:
    x, out = normal(*shape), np.zeros(shape, np.float32)
    nest = Nest((shape[1],), (shape[0],)) if across else Nest((shape[0],), (shape[1],))
    index = (1, 0) if across else (0, 1)
    softmax(nest, nest.read(x, *index), out, index)
    check(nest, chunks=2)


@pytest.mark.parametrize("across", [False, True])
def test_softmax_in_place(across: bool) -> None:
    x = normal(40, 70)
    exact = np.exp(x.astype(np.float64))
    exact /= exact.sum(0 if across else 1, keepdims=True)
    nest, index = (Nest((70,), (40,)), (1, 0)) if across else (Nest((40,), (70,)), (0, 1))
    softmax(nest, nest.read(x, *index), x, index)
    text = emit(nest.kernel(), "k", MACHINE)
    # kept in the output between the phases; a fold along rows is written for whole strips and for the rest
    assert text.count("= mf_expf(") == (1 if across else 2)
    run(nest)
    np.testing.assert_allclose(x, exact, rtol=1e-5)


def test_an_output_is_no_store_for_intermediates_while_inputs_are_read() -> None:
    x, out = normal(20, 50), np.zeros((20, 50), np.float32)
    nest = Nest((20,), (50,))
    power = call("exp", nest.read(x, 0, 1))
    total = nest.reduce("add", power)
    nest.store(out, (0, 1), call("mul", call("div", power, total), nest.read(x, 0, 1)), 1)
    assert emit(nest.kernel(), "k", MACHINE).count("= mf_expf(") == 3  # whole strips, the rest, the store
    nest.arrays[nest.stages[-1].buffer] = x  # the output takes the input's memory
    exact = np.exp(x.astype(np.float64))
    exact *= x / exact.sum(1, keepdims=True)
    run(nest)
    np.testing.assert_allclose(x, exact, rtol=1e-5)


def test_matmul_as_plain_loops() -> None:
    a, b = normal(33, 50), normal(50, 70)
    nest = Nest((33, 70), (50,))
    total = nest.reduce("add", call("mul", nest.read(a, 0, 2), nest.read(b, 2, 1)))
    nest.store(np.zeros((33, 70), np.float32), (0, 1), total, level="outer")
    check(nest, chunks=3, absolute=1e-5)


@pytest.mark.parametrize("n", [1, 7, 1000])
def test_layer_norm_forward(n: int) -> None:
    x, weight, bias = normal(13, n), normal(n), normal(n)
    nest = Nest((13,), (n,))
    element, count = nest.read(x, 0, 1), nest.scalar(n)
    mean = nest.let(call("div", nest.reduce("add", element, 0), count), 0)
    centred = call("sub", element, mean)
    square = nest.reduce("add", call("mul", centred, centred), 1)
    scale = nest.let(
        call("div", number(1), call("sqrt", call("add", call("div", square, count), number(1e-5)))), 1
    )
    normed = call("mul", centred, scale)
    nest.store(
        np.zeros((13, n), np.float32),
        (0, 1),
        call("add", call("mul", normed, nest.read(weight, 1)), nest.read(bias, 1)),
        2,
    )
    nest.store(np.zeros(13, np.float32), (0,), mean, 2, "outer")
    check(nest, chunks=2, relative=1e-5, absolute=1e-5)


def batch_norm(channels_last: bool, shape: tuple[int, int, int]) -> tuple[Nest, list[Any]]:
    """Training forward over (N, C, S) or (N, S, C) in memory: normalise, and store the statistics."""
    n, c, s = shape
    memory = (n, s, c) if channels_last else shape
    x, weight, bias, out = normal(*memory), normal(c), normal(c), np.zeros(memory, np.float32)
    nest = Nest((c,), (n, s))
    index = (1, 2, 0) if channels_last else (1, 0, 2)
    element, count = nest.read(x, *index), nest.scalar(n * s)
    mean = nest.let(call("div", nest.reduce("add", element, 0), count), 0)
    centred = call("sub", element, mean)
    variance = nest.let(call("div", nest.reduce("add", call("mul", centred, centred), 1), count), 1)
    scale = call("div", nest.read(weight, 0), call("sqrt", call("add", variance, nest.scalar(1e-5))))
    nest.store(out, index, call("add", call("mul", centred, scale), nest.read(bias, 0)), 2)
    statistics = [np.zeros(c, np.float32), np.zeros(c, np.float32)]
    nest.store(statistics[0], (0,), mean, 1, "outer")
    nest.store(statistics[1], (0,), variance, 1, "outer")
    return nest, [x, weight, bias, out, *statistics]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [(4, 5, 49), (3, 100, 60), (1, 1, 1), (2, 300, 1)])
def test_batch_norm_forward(channels_last: bool, shape: tuple[int, int, int]) -> None:
    nest, _ = batch_norm(channels_last, shape)
    check(nest, chunks=3, relative=1e-4, absolute=1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
def test_batch_norm_backward(channels_last: bool) -> None:
    n, c, s = 4, 37, 50
    memory = (n, s, c) if channels_last else (n, c, s)
    x, grad, out = normal(*memory), normal(*memory), np.zeros(memory, np.float32)
    mean, scale = normal(c), random.uniform(0.5, 2, c).astype(np.float32)
    nest = Nest((c,), (n, s))
    index = (1, 2, 0) if channels_last else (1, 0, 2)
    normed = call("mul", call("sub", nest.read(x, *index), nest.read(mean, 0)), nest.read(scale, 0))
    dy = nest.read(grad, *index)
    bias = nest.reduce("add", dy, 0)
    weight = nest.reduce("add", call("mul", dy, normed), 0)
    inverse = nest.let(call("div", number(1), nest.scalar(n * s)), 0)
    moved = call("sub", dy, call("mul", call("add", bias, call("mul", normed, weight)), inverse))
    nest.store(out, index, call("mul", moved, nest.read(scale, 0)), 1)
    nest.store(np.zeros(c, np.float32), (0,), weight, 0, "outer")
    nest.store(np.zeros(c, np.float32), (0,), bias, 0, "outer")
    check(nest, chunks=2, relative=1e-4, absolute=1e-4)


def test_float16_norm_in_float32() -> None:
    x, out = normal(9, 200, dtype="float16"), np.zeros((9, 200), np.float16)
    nest = Nest((9,), (200,))
    softmax_value = cast(nest.read(x, 0, 1), float32)
    total = nest.reduce("add", call("exp", softmax_value))
    nest.store(out, (0, 1), cast(call("div", call("exp", softmax_value), total), float16), 1)
    check(nest, relative=2e-3, absolute=1e-6)


# -- scatter ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("op", ["add", "maximum", "multiply", "void"])
@pytest.mark.parametrize("lanes", [False, True])
def test_scatter(op: str, lanes: bool) -> None:
    rows, width, table = 300, 17, 11
    where = random.integers(0, table, rows).astype(np.int64)
    x, out = random.uniform(0.9, 1.1, (rows, width)).astype(np.float32), np.ones((table, width), np.float32)
    nest = Nest((width,), (rows,)) if lanes else Nest((), (rows, width))
    row, column = (1, 0) if lanes else (0, 1)
    index = nest.read(where, row)
    nest.scatter(op, out, (index, column), nest.read(x, row, column), call("ne", index, const(3)))
    check(nest, chunks=2, relative=2e-5)


def test_scatter_skips_what_its_condition_excludes() -> None:
    out = guarded_array(100)
    out[...] = 0
    nest = Nest((), (500,))
    inside = call("lt", axis(0), nest.size(100))
    nest.scatter("add", out, (axis(0),), number(1), inside)
    run(nest)
    assert (out == 1).all()


# -- text ---------------------------------------------------------------------------------------------------------
def test_text_is_a_function_of_structure() -> None:
    first, second = batch_norm(True, (4, 5, 49))[0], batch_norm(True, (2, 300, 1))[0]
    assert emit(first.kernel(), "k", MACHINE) == emit(second.kernel(), "k", MACHINE)
    assert "#include" not in emit(first.kernel(), "k", MACHINE)


def test_kernels_share_a_source() -> None:
    x = np.arange(-5, 6, dtype=np.int32)
    nests = []
    for operation in ("floordiv", "mod", "floordiv"):
        nest = Nest((11,))
        nest.store(np.zeros(11, np.int32), (0,), call(operation, nest.read(x, 0), const(3, int32)))
        nests.append(nest)
    text = "".join(emit(nest.kernel(), f"k{k}", MACHINE) for k, nest in enumerate(nests))
    library = compiled(text)
    for k, nest in enumerate(nests):
        buffers = (ctypes.c_void_p * 2)(*(a.ctypes.data for a in nest.arrays))
        getattr(library, f"k{k}")(
            buffers, (ctypes.c_longlong * 1)(11), None, ctypes.c_longlong(0), ctypes.c_longlong(11)
        )
    np.testing.assert_array_equal(nests[0].arrays[1], x // 3)
    np.testing.assert_array_equal(nests[1].arrays[1], x % 3)
    np.testing.assert_array_equal(nests[2].arrays[1], x // 3)


def test_subexpressions_are_computed_once() -> None:
    x = normal(100)
    nest = Nest((100,))
    power = call("exp", nest.read(x, 0))
    nest.store(np.zeros(100, np.float32), (0,), call("mul", power, power))
    nest.store(np.zeros(100, np.float32), (0,), call("add", power, number(1)))
    assert emit(nest.kernel(), "k", MACHINE).count("= mf_expf(") == 1


def test_invariants_leave_the_loop() -> None:
    x, scale = normal(20, 30), normal(20)
    nest = Nest((20, 30))
    factor = call("exp", nest.read(scale, 0))
    nest.store(np.zeros((20, 30), np.float32), (0, 1), call("mul", nest.read(x, 0, 1), factor))
    before, _, after = emit(nest.kernel(), "k", MACHINE).partition("#pragma omp simd")
    assert "= mf_expf(" in before and "expf" not in after
    check(nest)
