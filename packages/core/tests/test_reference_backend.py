"""The reference backend against NumPy and against the definition of the IR, taken literally one point at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metafuse.backend.contract import Call, Descriptor, Step, host_bytes
from metafuse.dtypes import DType, as_dtype, bool_, float16, float32, float64, int32, int64
from metafuse.errors import BackendError, CompileError, KernelError, OutOfMemory
from metafuse.kernel import host
from metafuse.kernel.expr import Expr, add, axis, call, cast, const, load, mul, select, sub, walk
from metafuse.kernel.ir import IDENTITY as identity
from metafuse.kernel.ir import REDUCTIONS, BufferParam, Contraction, DimIndex, Kernel, Operand, Stage
from metafuse.reference import helpers, plugin
from metafuse.reference.backend import ReferenceBackend

Array = np.ndarray[Any, Any]


def size(slot: int) -> Expr:
    return Expr("size", (), int64, slot)


def scalar(slot: int, dtype: DType) -> Expr:
    return Expr("scalar", (), dtype, slot)


def value(number: int, dtype: DType = float32) -> Expr:
    return Expr("value", (), dtype, number)


def reading(*dtypes: DType) -> tuple[BufferParam, ...]:
    return tuple(BufferParam(d) for d in dtypes)


def writing(dtype: DType) -> BufferParam:
    return BufferParam(dtype, writes=True, reads=False)


def run(
    kernel: Kernel, buffers: list[Array], sizes: tuple[int, ...], scalars: tuple[float, ...] = ()
) -> list[Array]:
    """Through the whole contract: emit, compile, load, launch; answers the buffers afterwards."""
    backend = ReferenceBackend()
    binary = backend.compile([backend.emit(kernel, "k")])
    loaded = backend.load(binary, {"k": kernel})["k"]
    handles = []
    for array in buffers:
        handles.append(backend.alloc(max(array.nbytes, 1)))
        backend.copy_in(handles[-1], host_bytes(np.ascontiguousarray(array)))
    call = Call(tuple(range(len(buffers))), sizes, tuple(range(len(scalars))), 1)
    backend.launch(Step(kernel, loaded, (call,)), handles, scalars)
    backend.synchronize()
    results = [np.empty(array.shape, array.dtype) for array in buffers]
    for result, handle in zip(results, handles, strict=True):
        backend.copy_out(host_bytes(result), handle)
    return results


# -- the definition, one point at a time --------------------------------------------------------------------------
def interpret(
    kernel: Kernel, buffers: list[Array], sizes: tuple[int, ...], scalars: tuple[float, ...] = ()
) -> list[Array]:
    """The program in the docstring of ``kernel.ir``, literally."""
    flats = [array.copy().reshape(-1) for array in buffers]
    outer, inner = sizes[: kernel.outer], sizes[kernel.outer : kernel.outer + kernel.inner]

    def evaluate(root: Expr, point: tuple[int, ...], values: dict[int, Any]) -> Any:
        done: dict[Expr, Any] = {}

        def of(node: Expr) -> Any:
            if node not in done:
                done[node] = compute(node)
            return done[node]

        def compute(node: Expr) -> Any:
            kind = node.dtype.numpy.type
            if node.op == "const":
                return kind(node.value)
            if node.op == "axis":
                return np.int64(point[node.value])
            if node.op == "size":
                return np.int64(sizes[node.value])
            if node.op == "scalar":
                return kind(scalars[node.value])
            if node.op == "value":
                return values[node.value]
            if node.op == "load":
                if len(node.args) == 3 and not of(node.args[1]):
                    return of(node.args[2])
                assert of(node.args[0]) >= 0
                return flats[node.value][of(node.args[0])]
            return host.apply(node.op, *(of(a) for a in node.args), dtype=node.dtype)[()]

        return of(root)

    def fold(op: str, a: Any, b: Any, dtype: DType) -> Any:
        intrinsic = REDUCTIONS[op]
        return b if intrinsic is None else host.apply(intrinsic, a, b, dtype=dtype)[()]

    for outer_point in itertools.product(*map(range, outer)):
        values: dict[int, Any] = {}
        for phase in sorted({s.phase for s in kernel.stages}):
            for stage in kernel.stages:
                if stage.phase == phase and stage.kind == "reduce":
                    values[stage.result] = stage.expr.dtype.numpy.type(identity(stage.op, stage.expr.dtype))
            for level, points in (("inner", itertools.product(*map(range, inner))), ("outer", [()])):
                for inner_point in points:
                    point = outer_point + tuple(inner_point)
                    for stage in kernel.stages:
                        if stage.phase != phase or stage.level != level:
                            continue
                        if stage.condition is not None and not evaluate(stage.condition, point, values):
                            continue
                        result = evaluate(stage.expr, point, values)
                        if stage.kind == "reduce":
                            values[stage.result] = fold(
                                stage.op, values[stage.result], result, stage.expr.dtype
                            )
                        elif stage.kind == "let":
                            values[stage.result] = result
                        else:
                            assert stage.offset is not None
                            where = evaluate(stage.offset, point, values)
                            if stage.kind == "scatter":
                                result = fold(stage.op, flats[stage.buffer][where], result, stage.expr.dtype)
                            flats[stage.buffer][where] = result
    return [flat.reshape(array.shape) for flat, array in zip(flats, buffers, strict=True)]


def check(
    kernel: Kernel, buffers: list[Array], sizes: tuple[int, ...], scalars: tuple[float, ...] = ()
) -> list[Array]:
    """Run it and compare with the definition."""
    got, want = run(kernel, buffers, sizes, scalars), interpret(kernel, buffers, sizes, scalars)
    for a, b in zip(got, want, strict=True):
        if a.dtype.kind == "f":
            tolerance = {2: 1e-2, 4: 1e-5, 8: 1e-12}[a.dtype.itemsize]
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(a, b)
    return got


# -- element-wise -------------------------------------------------------------------------------------------------
def row_major(*slots: int) -> Expr:
    """Offset ``sum of size[slot] * axis``, one slot per axis."""
    offset = const(0)
    for number, slot in enumerate(slots):
        offset = add(offset, mul(axis(number), size(slot)))
    return offset


@pytest.mark.parametrize("shape", [(3, 4), (1, 5), (0, 3), (3, 0)])
def test_elementwise_with_broadcast_and_scalar(shape: tuple[int, int]) -> None:
    """y[i,j] = x[i,j] * b[j] + s."""
    product = call("mul", load(0, float32, row_major(2, 3)), load(1, float32, axis(1)))
    stage = Stage(
        "store", "inner", call("add", product, scalar(0, float32)), 0, buffer=2, offset=row_major(2, 3)
    )
    kernel = Kernel(2, 0, (*reading(float32, float32), writing(float32)), 4, (float32,), (stage,))
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    b = np.arange(shape[1], dtype=np.float32)
    y = check(kernel, [x, b, np.zeros(shape, np.float32)], (*shape, shape[1], 1), (2.5,))[2]
    np.testing.assert_array_equal(y, x * b + np.float32(2.5))


def test_transposed_and_reversed_reads() -> None:
    """y[i,j] = x[j, n-1-i]: positive and negative steps."""
    offset = add(sub(size(4), mul(axis(0), const(1))), mul(axis(1), size(3)))
    stage = Stage("store", "inner", load(0, int32, offset), 0, buffer=1, offset=row_major(2, 5))
    kernel = Kernel(2, 0, (*reading(int32), writing(int32)), 6, (), (stage,))
    x = np.arange(12, dtype=np.int32).reshape(3, 4)
    y = check(kernel, [x, np.zeros((4, 3), np.int32)], (4, 3, 3, 4, 3, 1))[1]
    np.testing.assert_array_equal(y, x[:, ::-1].T)


def test_no_axes() -> None:
    stage = Stage("store", "outer", call("exp", load(0, float64, const(0))), 0, buffer=1, offset=const(0))
    kernel = Kernel(0, 0, (*reading(float64), writing(float64)), 0, (), (stage,))
    assert check(kernel, [np.array([1.0]), np.zeros(1)], ())[1][0] == np.exp(1.0)


def test_reading_what_an_earlier_stage_stored() -> None:
    """The second stage sees the first one's elements; a read before the store keeps the old one."""
    first = Stage("store", "inner", call("neg", load(0, float32, axis(0))), 0, buffer=0, offset=axis(0))
    second = Stage(
        "store",
        "inner",
        call("add", load(0, float32, axis(0)), const(1.0, float32)),
        0,
        buffer=1,
        offset=axis(0),
    )
    kernel = Kernel(1, 0, (BufferParam(float32, writes=True), writing(float32)), 1, (), (first, second))
    x = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(check(kernel, [x, x], (4,))[1], 1 - x)


def test_buffers_that_share_memory() -> None:
    """y1 = -x and y2 = 2x where y1 lies in x's memory: every point reads before it writes."""
    x = load(0, float32, axis(0))
    stages = (
        Stage("store", "inner", call("neg", x), 0, buffer=1, offset=axis(0)),
        Stage("store", "inner", call("add", x, x), 0, buffer=2, offset=axis(0)),
    )
    kernel = Kernel(1, 0, (*reading(float32), writing(float32), writing(float32)), 1, (), stages)
    backend = ReferenceBackend()
    loaded = backend.load(backend.compile([backend.emit(kernel, "k")]), {"k": kernel})["k"]
    shared, other = backend.alloc(16), backend.alloc(16)
    backend.host_view(shared, 16).view(np.float32)[:] = [1, 2, 3, 4]
    backend.launch(Step(kernel, loaded, (Call((0, 0, 1), (4,), (), 4),)), [shared, other], ())
    np.testing.assert_array_equal(backend.host_view(shared, 16).view(np.float32), [-1, -2, -3, -4])
    np.testing.assert_array_equal(backend.host_view(other, 16).view(np.float32), [2, 4, 6, 8])


# -- phases -------------------------------------------------------------------------------------------------------
def softmax(dtype: DType) -> Kernel:
    x = load(0, dtype, row_major(2, 3))
    shifted = call("exp", call("sub", x, value(0, dtype)))
    stages = (
        Stage("reduce", "inner", x, 0, op="maximum", result=0),
        Stage("reduce", "inner", shifted, 1, op="add", result=1),
        Stage("store", "inner", call("div", shifted, value(1, dtype)), 2, buffer=1, offset=row_major(2, 3)),
    )
    return Kernel(1, 1, (*reading(dtype), writing(dtype)), 4, (), stages, name="softmax")


@pytest.mark.parametrize("dtype", [float16, float32, float64])
@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (0, 4), (4, 0)])
def test_softmax(dtype: DType, shape: tuple[int, int]) -> None:
    x = np.random.default_rng(1).normal(size=shape).astype(dtype.numpy)
    y = check(softmax(dtype), [x, np.zeros(shape, dtype.numpy)], (*shape, shape[1], 1))[1]
    if 0 not in shape:
        e = np.exp(x.astype(float) - x.max(1, keepdims=True))
        np.testing.assert_allclose(
            y, e / e.sum(1, keepdims=True), atol={2: 1e-3, 4: 1e-7, 8: 1e-15}[dtype.itemsize]
        )


def test_blocks_give_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(2).normal(size=(37, 11)).astype(np.float32)
    arguments = ([x, np.zeros_like(x)], (37, 11, 11, 1))
    whole = run(softmax(float32), *arguments)[1]
    monkeypatch.setattr(helpers, "BLOCK_POINTS", 23)
    assert len(list(helpers.blocks((37, 11), 1, 2, ((0, 1),)))) == 19
    np.testing.assert_array_equal(run(softmax(float32), *arguments)[1], whole)


def test_layer_norm() -> None:
    """Mean, variance and a let between the phases, with weight and bias."""
    x = load(0, float32, row_major(2, 3))
    count = cast(size(1), float32)
    centred = call("sub", x, value(1))
    stages = (
        Stage("reduce", "inner", x, 0, op="add", result=0),
        Stage("let", "outer", call("div", value(0), count), 0, result=1),
        Stage("reduce", "inner", call("mul", centred, centred), 1, op="add", result=2),
        Stage("let", "outer", call("sqrt", call("add", call("div", value(2), count), scalar(0, float32))), 1, result=3),
        Stage(
            "store", "inner",
            call("add", call("mul", call("div", centred, value(3)), load(1, float32, axis(1))), load(2, float32, axis(1))),
            2, buffer=3, offset=row_major(2, 3),
        ),
        Stage("store", "outer", value(1), 2, buffer=4, offset=axis(0)),
    )  # fmt: skip
    kernel = Kernel(
        1, 1, (*reading(float32, float32, float32), writing(float32), writing(float32)), 4, (float32,), stages
    )
    rng = np.random.default_rng(3)
    x0, w, b = (rng.normal(size=s).astype(np.float32) for s in ((4, 9), 9, 9))
    y, mean = check(kernel, [x0, w, b, np.zeros_like(x0), np.zeros(4, np.float32)], (4, 9, 9, 1), (1e-5,))[3:]
    want = (x0 - x0.mean(1, keepdims=True)) / np.sqrt(x0.var(1, keepdims=True) + 1e-5) * w + b
    np.testing.assert_allclose(y, want, atol=2e-6)
    np.testing.assert_allclose(mean, x0.mean(1), atol=1e-7)


# -- folds --------------------------------------------------------------------------------------------------------
FOLDS = set(REDUCTIONS) - {"void"}


def foldable(ops: Iterable[str], *names: str) -> list[tuple[str, str]]:
    """(reduction, dtype): logic folds bool only, bits fold integers and bool."""
    return [
        (op, name)
        for op in sorted(ops)
        for name in names
        if not (op.startswith("logical") and name != "bool")
        and not (op.startswith("bitwise") and "float" in name)
    ]


@pytest.mark.parametrize(
    ("op", "dtype"), foldable(FOLDS, "bool", "int8", "uint32", "int64", "float16", "float32", "float64")
)
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 0, 4), (1, 1, 1)])
def test_every_fold(op: str, dtype: str, shape: tuple[int, ...]) -> None:
    """Over two inner axes; the middle one isn't in the offset of the second reduction, so each element counts often."""
    d = as_dtype(dtype)
    offset = row_major(3, 4, 5)
    partial = add(mul(axis(0), size(3)), mul(axis(2), size(5)))
    stages = (
        Stage("reduce", "inner", load(0, d, offset), 0, op=op, result=0),
        Stage("reduce", "inner", load(0, d, partial) if 0 not in shape else const(1, d), 0, op=op, result=1),
        Stage("store", "outer", value(0, d), 0, buffer=1, offset=axis(0)),
        Stage("store", "outer", value(1, d), 0, buffer=2, offset=axis(0)),
    )
    kernel = Kernel(1, 2, (*reading(d), writing(d), writing(d)), 6, (), stages)
    x = np.random.default_rng(4).integers(0, 4, shape).astype(d.numpy)
    strides = (shape[1] * shape[2], shape[2], 1)
    y = check(kernel, [x, np.zeros(shape[0], d.numpy), np.zeros(shape[0], d.numpy)], (*shape, *strides))[1]
    if op == "add" and d is not bool_:
        np.testing.assert_array_equal(y, x.sum((1, 2), dtype=d.numpy))


def test_nan_survives_minimum_and_maximum() -> None:
    for op in ("minimum", "maximum"):
        stages = (
            Stage("reduce", "inner", load(0, float32, axis(0)), 0, op=op, result=0),
            Stage("store", "outer", value(0), 0, buffer=1, offset=const(0)),
        )
        kernel = Kernel(0, 1, (*reading(float32), writing(float32)), 1, (), stages)
        x = np.array([1, np.nan, 3], np.float32)
        assert np.isnan(run(kernel, [x, np.zeros(1, np.float32)], (3,))[1][0])


def test_a_long_sum_is_exact() -> None:
    stages = (
        Stage("reduce", "inner", const(1.0, float32), 0, op="add", result=0),
        Stage("store", "outer", value(0), 0, buffer=0, offset=const(0)),
    )
    kernel = Kernel(0, 1, (writing(float32),), 1, (), stages)
    assert run(kernel, [np.zeros(1, np.float32)], (30_000_000,))[0][0] == 3e7


# -- conditional loads and scatter ----------------------------------------------------------------------------------
@pytest.mark.parametrize("length", [0, 1, 5])
def test_padding_reads_nothing_outside(length: int) -> None:
    """y[i] = x[i - 2] where that exists, else -1."""
    position = sub(axis(0), size(1))
    inside = call("and", call("ge", position, const(0)), call("lt", position, size(2)))
    stage = Stage(
        "store",
        "inner",
        load(0, float32, position, inside, const(-1.0, float32)),
        0,
        buffer=1,
        offset=axis(0),
    )
    kernel = Kernel(1, 0, (*reading(float32), writing(float32)), 3, (), (stage,))
    x = np.arange(length, dtype=np.float32)
    y = check(kernel, [x, np.zeros(length + 4, np.float32)], (length + 4, 2, length))[1]
    np.testing.assert_array_equal(y, np.pad(x, 2, constant_values=-1))


def test_gather_by_an_index_buffer() -> None:
    index = cast(load(1, int32, axis(0)), int64)
    stage = Stage("store", "inner", load(0, float32, index), 0, buffer=2, offset=axis(0))
    kernel = Kernel(1, 0, (*reading(float32, int32), writing(float32)), 1, (), (stage,))
    x, at = np.arange(5, dtype=np.float32) * 10, np.array([4, 0, 0, 3], np.int32)
    np.testing.assert_array_equal(check(kernel, [x, at, np.zeros(4, np.float32)], (4,))[2], x[at])
    for bad in (5, -1):
        with pytest.raises(KernelError, match="leaves its buffer of 5 elements"):
            run(kernel, [x, np.array([0, bad], np.int32), np.zeros(2, np.float32)], (2,))


@pytest.mark.parametrize(
    ("op", "dtype"), foldable(REDUCTIONS, "bool", "int16", "float16", "float32", "float64")
)
def test_scatter(op: str, dtype: str) -> None:
    """x[at[i]] = op(x[at[i]], y[i]) where at[i] is not 2; several i address the same element."""
    d = as_dtype(dtype)
    at = load(1, int64, axis(0))
    stage = Stage(
        "scatter",
        "inner",
        load(2, d, axis(0)),
        0,
        op=op,
        buffer=0,
        offset=at,
        condition=call("ne", at, const(2)),
    )
    kernel = Kernel(0, 1, (BufferParam(d, writes=True), *reading(int64, d)), 1, (), (stage,))
    x = np.array([1, 0, 3, 2], d.numpy)
    y = np.array([2, 1, 0, 3, 1, 2], d.numpy)
    check(kernel, [x, np.array([3, 3, 2, 0, 3, 0]), y], (6,))
    check(kernel, [x, np.zeros(0, np.int64), np.zeros(0, d.numpy)], (0,))


def test_scatter_carries_small_floats_in_float64() -> None:
    stage = Stage("scatter", "inner", const(1.0, float16), 0, op="add", buffer=0, offset=const(0))
    kernel = Kernel(0, 1, (BufferParam(float16, writes=True),), 1, (), (stage,))
    assert run(kernel, [np.zeros(1, np.float16)], (10_000,))[0][0] == 10_000


def test_an_affine_access_that_leaves_its_buffer_is_refused() -> None:
    stage = Stage("store", "inner", load(0, float32, add(axis(0), size(1))), 0, buffer=1, offset=axis(0))
    kernel = Kernel(1, 0, (*reading(float32), writing(float32)), 2, (), (stage,))
    x = np.zeros(4, np.float32)
    for start in (-1, 1):
        with pytest.raises(KernelError, match="leaves its buffer of 4 elements"):
            run(kernel, [x, x], (4, start))
    with pytest.raises(KernelError, match="leaves its buffer"):
        run(kernel, [np.zeros(9, np.float32), x], (5, 0))


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


# -- code and memory ----------------------------------------------------------------------------------------------
def test_emit_is_pure_and_module_round_trips() -> None:
    backend = ReferenceBackend()
    text = backend.emit(softmax(float32), "softmax")
    assert text == ReferenceBackend().emit(softmax(float32), "softmax")
    binary = backend.compile([text, backend.emit(softmax(float64), "other")])
    assert isinstance(binary, bytes)
    assert binary.decode().count("def ") == 2
    loaded = ReferenceBackend().load(binary, {"softmax": softmax(float32), "other": softmax(float64)})
    assert set(loaded) == {"softmax", "other"}


def test_bad_modules() -> None:
    backend = ReferenceBackend()
    with pytest.raises(CompileError, match="Python rejects"):
        backend.compile(["def k(:"])
    good = backend.compile([backend.emit(softmax(float32), "k")])
    for broken in (b"", b"\xff\xfe", good[5:]):
        with pytest.raises(BackendError, match="not a reference module"):
            backend.load(broken, {"k": softmax(float32)})
    with pytest.raises(BackendError, match="has no q"):
        backend.load(good, {"q": softmax(float32)})


def test_emitted_source_sees_only_the_helpers() -> None:
    backend = ReferenceBackend()
    loaded = backend.load(backend.compile(["def k(b, s, c):\n    open('x')\n"]), {"k": softmax(float32)})
    with pytest.raises(NameError):
        loaded["k"]([], (), [])


def test_a_long_chain_emits() -> None:
    """Ten thousand operations on one value: nothing recurses."""
    x = load(0, float64, axis(0))
    for _ in range(10_000):
        x = call("add", x, const(1.0, float64))
    kernel = Kernel(
        1,
        0,
        (*reading(float64), writing(float64)),
        1,
        (),
        (Stage("store", "inner", x, 0, buffer=1, offset=axis(0)),),
    )
    assert sum(1 for _ in walk(x)) == 10_003
    np.testing.assert_array_equal(
        run(kernel, [np.arange(3.0), np.zeros(3)], (3,))[1], np.arange(3.0) + 10_000
    )


def test_memory() -> None:
    backend = ReferenceBackend()
    for nbytes in (1, 7, 4096):
        handle = backend.alloc(nbytes)
        assert backend.host_view(handle, nbytes).ctypes.data % 64 == 0
        source = np.arange(nbytes, dtype=np.uint8)
        backend.copy_in(handle, host_bytes(source))
        target = np.zeros(nbytes, np.uint8)
        backend.copy_out(host_bytes(target), handle)
        np.testing.assert_array_equal(target, source)
        backend.free(handle)
    backend.copy_in(backend.alloc(1), host_bytes(np.zeros(0)))
    backend.copy_out(host_bytes(np.zeros(0)), backend.alloc(1))
    with pytest.raises(OutOfMemory, match="bytes of host memory"):
        backend.alloc(1 << 62)


def test_descriptor() -> None:
    (descriptor,) = plugin.metafuse_backends()
    assert isinstance(descriptor, Descriptor)
    assert (descriptor.name, descriptor.priority, descriptor.probe()) == ("reference", 0, None)
    assert isinstance(descriptor.create(), ReferenceBackend)
