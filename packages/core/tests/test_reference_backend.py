"""The reference backend against NumPy and against the definition of the IR, taken literally one point at a time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from metafuse.backend.contract import Call, Descriptor, Step, host_bytes
from metafuse.dtypes import DType, as_dtype, bool_, float16, float32, float64, int32, int64
from metafuse.errors import BackendError, CompileError, KernelError, OutOfMemory
from metafuse.kernel.expr import add, axis, call, cast, const, load, mul, sub, walk
from metafuse.kernel.ir import REDUCTIONS, BufferParam, Kernel, Stage
from metafuse.reference import helpers, plugin
from metafuse.reference.backend import ReferenceBackend
from reference_kit import check, reading, row_major, run, scalar, size, value, writing


# -- element-wise -------------------------------------------------------------------------------------------------
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


def test_stages_of_a_point_read_before_they_write() -> None:
    """The second stage sees what was there before the first one stored."""
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
    np.testing.assert_array_equal(check(kernel, [x, x], (4,))[1], x + 1)


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
