"""The contraction engine against the plain reading of the same kernel in float64, and against NumPy where that is too slow."""

from __future__ import annotations

import ctypes
import itertools
import platform
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from codegen_kit import MACHINE, oracle
from contraction_kit import (
    Dim,
    Product,
    Window,
    conv_data,
    conv_forward,
    conv_weight,
    launch,
    matmul,
    plain,
    run,
)
from metafuse.backend.contract import Machine
from metafuse.dtypes import as_dtype, float16, float32, float64, int32
from metafuse.kernel.expr import Expr, axis, call, cast, const, load, select
from metafuse_backend_cpu import compiler
from metafuse_backend_cpu.codegen import emit as emit_any
from metafuse_backend_cpu.contraction import emit
from metafuse_backend_cpu.dialect import LIBRARY_MARKER

pytestmark = pytest.mark.compiler
random = np.random.default_rng(0)


def normal(*shape: int, dtype: str = "float32") -> Any:
    return np.asarray(random.standard_normal(shape), dtype)


def blank(*shape: int, dtype: str = "float32") -> Any:
    return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 77, dtype)


def turned(array: Any) -> Any:
    """The same values with the last two dimensions exchanged in memory."""
    return np.ascontiguousarray(array.swapaxes(-1, -2)).swapaxes(-1, -2)


def check(product: Product, **more: Any) -> int:
    """Compare with the plain reading of the kernel's stages; answers the number of units."""
    wanted = oracle(product)[[array is product.out for array in product.arrays].index(True)]
    units = launch(product, **more)
    close(product.out, wanted)
    return units


def close(got: Any, wanted: Any) -> None:
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, wanted)
        return
    scale = max(float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0)), 1e-30)
    tolerance = {2: 2e-3, 4: 2e-6, 8: 1e-13}[got.itemsize]
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance * scale)


# -- matmul -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_matmul_in_every_layout(dtype: str) -> None:
    for m, k, n in ((5, 7, 3), (70, 300, 130)):
        for first, second, third in itertools.product((np.asarray, turned), repeat=3):
            a, b, out = normal(m, k, dtype=dtype), normal(k, n, dtype=dtype), blank(m, n, dtype=dtype)
            a, b, out = first(a), second(b), third(out)
            launch(matmul(a, b, out, dtype=as_dtype(dtype)))
            close(out, a.astype("float64") @ b.astype("float64"))


@pytest.mark.parametrize("m", [1, 2, 9, 33])
@pytest.mark.parametrize("n", [1, 10, 47, 64])
@pytest.mark.parametrize("k", [1, 17, 256, 513])
def test_matmul_at_block_borders(m: int, k: int, n: int) -> None:
    a, out = normal(m, k), blank(m, n)
    for b in (normal(k, n), turned(normal(k, n))):
        launch(matmul(a, b, out))
        close(out, a.astype("float64") @ b.astype("float64"))


@pytest.mark.parametrize(("m", "k", "n"), [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)])
def test_empty_matmul(m: int, k: int, n: int) -> None:
    out = blank(m, n)
    launch(matmul(normal(m, k), normal(k, n), out))
    assert (out == 0).all()


def test_batched_matmul() -> None:
    a, b, out = normal(3, 5, 33, 17), turned(normal(3, 5, 17, 40)), blank(3, 5, 33, 40)
    assert check(matmul(a, b, out)) >= 15


def test_broadcast_operand_and_strided_views() -> None:
    a, b = normal(4, 60, 50)[::2, ::3, ::2], np.broadcast_to(normal(25, 31), (2, 25, 31))
    check(matmul(a, b, blank(2, 20, 62)[:, :, ::2]))


def test_many_units_of_a_large_product_write_everything_once() -> None:
    a, b, out = normal(600, 70), normal(70, 1000), blank(600, 1000)
    assert launch(matmul(a, b, out)) >= 4
    close(out, a.astype("float64") @ b.astype("float64"))


def test_matrix_times_vector() -> None:
    a, b, out = normal(70, 90), normal(90), blank(70)
    check(Product({"m": "m", "k": "k"}, {"m": 70, "k": 90}, (a, plain("mk")), (b, plain("k")), out, "m"))


def test_several_axes_per_role() -> None:
    a, b, out = normal(3, 4, 5, 6), normal(6, 5, 7, 2), blank(7, 3, 2, 4)
    roles = {"c": "n", "a": "m", "d": "n", "b": "m", "e": "k", "f": "k"}
    extents = {"c": 7, "a": 3, "d": 2, "b": 4, "e": 5, "f": 6}
    check(Product(roles, extents, (a, plain("abef")), (b, plain("fecd")), out, "cadb"))


def test_long_sums_stay_accurate() -> None:
    a, b, out = np.full((2, 1_000_000), 0.1, "float32"), np.ones((1_000_000, 3), "float32"), blank(2, 3)
    launch(matmul(a, b, out))
    np.testing.assert_allclose(out, float(np.float32(0.1)) * 1e6, rtol=4e-6)


# -- element types ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
def test_integers_wrap(dtype: str) -> None:
    limits = np.iinfo(dtype)
    a, b = (
        random.integers(limits.min, limits.max, shape, dtype, endpoint=True) for shape in ((9, 40), (40, 21))
    )
    out = blank(9, 21, dtype=dtype)
    launch(matmul(a, b, out, dtype=as_dtype(dtype)))
    np.testing.assert_array_equal(out, a @ b)


def test_half_accumulates_in_float() -> None:
    a, b, out = (
        np.full((3, 5000), 0.01, "float16"),
        np.ones((5000, 20), "float16"),
        blank(3, 20, dtype="float16"),
    )
    launch(matmul(a, b, out, dtype=float16))
    np.testing.assert_allclose(out, 5000 * float(np.float16(0.01)), rtol=1e-3)


@pytest.mark.parametrize(
    ("a", "b"), [("float16", "float32"), ("int32", "float32"), ("float32", "float64"), ("bool", "float32")]
)
def test_operands_of_other_types_are_converted(a: str, b: str) -> None:
    left, right = (3 * normal(20, 50)).astype(a), (3 * normal(50, 30)).astype(b)
    check(matmul(left, right, blank(20, 30), dtype=float32))
    check(matmul(right.T.copy(), left.T.copy(), blank(30, 20), dtype=float32))


# -- convolution ------------------------------------------------------------------------------------------------------
CASES = [
    # N, G, C, O, H, W, R, S, window
    (2, 1, 3, 5, 9, 8, 3, 3, Window()),
    (2, 1, 3, 5, 9, 8, 3, 3, Window(padding=1)),
    (2, 1, 4, 6, 9, 8, 3, 2, Window(stride=2, padding=1)),
    (1, 2, 3, 5, 15, 14, 3, 3, Window(stride=3, padding=2, dilation=2)),
    (1, 1, 3, 5, 15, 14, 3, 3, Window(stride=2, padding=1, dilation=3)),
    (1, 1, 2, 3, 12, 12, 2, 3, Window(stride=2, dilation=2)),
    (1, 1, 2, 3, 7, 7, 1, 1, Window(stride=4)),
    (2, 3, 1, 1, 20, 20, 3, 3, Window(padding=1)),
    (1, 1, 1, 1, 5, 5, 5, 5, Window(padding=4)),
    (1, 1, 20, 33, 17, 19, 3, 3, Window(padding=1)),
    (0, 1, 2, 3, 5, 5, 3, 3, Window()),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_convolution(case: Any, dtype: str) -> None:
    n, g, c, o, h, w, r, s, window = case
    x, weight = normal(n, g, c, h, w, dtype=dtype), normal(g, o, c, r, s, dtype=dtype)
    y = normal(n, g, o, window.count(h, r), window.count(w, s), dtype=dtype)
    check(conv_forward(x, weight, blank(*y.shape, dtype=dtype), window, dtype=as_dtype(dtype)))
    check(conv_data(y, weight, blank(*x.shape, dtype=dtype), window, dtype=as_dtype(dtype)))
    check(conv_weight(y, x, blank(*weight.shape, dtype=dtype), window, dtype=as_dtype(dtype)))


def test_convolution_on_channels_last() -> None:
    def last(array: Any) -> Any:
        return np.ascontiguousarray(array.transpose(0, 1, 3, 4, 2)).transpose(0, 1, 4, 2, 3)

    window = Window(stride=2, padding=1)
    x, weight, y = last(normal(2, 1, 20, 9, 9)), last(normal(1, 24, 20, 3, 3)), last(blank(2, 1, 24, 5, 5))
    check(conv_forward(x, weight, y, window))
    check(conv_data(y, weight, last(blank(*x.shape)), window))
    check(conv_weight(y, x, last(blank(*weight.shape)), window))


def test_one_text_serves_every_size() -> None:
    texts = set()
    for n, g, c, o, h, w, r, s, window in CASES[:6]:
        y = normal(n, g, o, window.count(h, r), window.count(w, s))
        texts.add(
            emit(conv_data(y, normal(g, o, c, r, s), blank(n, g, c, h, w), window).kernel(), "conv", MACHINE)
        )
    assert len(texts) == 1
    assert None not in texts


def test_convolution_in_three_dimensions() -> None:
    x, w, y = normal(1, 3, 6, 7, 8), normal(4, 3, 2, 3, 3), blank(1, 4, 7, 7, 8)
    roles = dict(zip("NOABCKDEF", "mnmmmkkkk", strict=True))
    extents = dict(zip("NOABC", y.shape, strict=True)) | dict(zip("KDEF", w.shape[1:], strict=True))
    slides = [Dim({p: 1, r: 1}, -1, None, True) for p, r in ("AD", "BE", "CF")]
    check(Product(roles, extents, (x, plain("NK") + slides), (w, plain("OKDEF")), y, "NOABC"))


# -- epilogues --------------------------------------------------------------------------------------------------------
def run_epilogue(epilogue: Any, result: Any = None, m: int = 37, n: int = 50) -> None:
    for out in (blank(m, n), turned(blank(m, n))):
        check(matmul(normal(m, 30), normal(30, n), out, epilogue=epilogue))


def test_bias_along_either_side_and_relu() -> None:
    rows, columns, zero = normal(37), normal(50), const(0.0, float32)
    run_epilogue(lambda p, v: call("max", call("add", v, p.read(columns, *p.at("n"))), zero))
    run_epilogue(lambda p, v: call("max", call("add", v, p.read(rows, *p.at("m"))), zero))
    run_epilogue(
        lambda p, v: call("mul", call("add", v, p.read(rows, *p.at("m"))), p.read(columns, *p.at("n")))
    )


def test_residual_of_another_layout_and_scalar() -> None:
    for residual in (normal(37, 50), turned(normal(37, 50))):
        run_epilogue(
            lambda p, v, r=residual: call("add", call("mul", v, p.scalar(0.5)), p.read(r, *p.at("mn")))
        )


def test_epilogue_that_uses_axes() -> None:
    def causal(p: Product, v: Expr) -> Expr:
        m, n = (axis(number) for number in p.at("mn"))
        return select(call("le", n, m), v, const(-np.inf, float32))

    run_epilogue(causal)
    window = Window(stride=2, padding=1)
    y, weight, x = normal(2, 1, 5, 5, 5), normal(1, 5, 3, 3, 3), blank(2, 1, 3, 9, 9)
    check(
        conv_data(
            y, weight, x, window, epilogue=lambda p, v: call("add", v, cast(axis(p.axes["W"]), float32))
        )
    )


def test_epilogue_with_a_gathered_and_a_guarded_load() -> None:
    table = normal(3)

    def gather(p: Product, v: Expr) -> Expr:
        n = axis(p.axes["n"])
        first = load(p.argument(table), float32, call("mod", n, const(3)))
        second = load(p.argument(table), float32, n, call("lt", n, const(3)), const(5.0, float32))
        return call("add", v, call("mul", first, second))

    run_epilogue(gather)


def test_library_functions_in_the_epilogue() -> None:
    run_epilogue(lambda p, v: call("tanh", call("mul", v, const(0.1, float32))))


def test_let_and_a_second_store() -> None:
    mask = blank(37, 50, dtype="bool")

    def both(p: Product, v: Expr) -> Expr:
        twice = p.let(call("add", v, v))
        p.store(mask, p.at("mn"), call("gt", twice, const(0.0, float32)), level="outer")
        return twice

    out = blank(37, 50)
    check(matmul(normal(37, 30), normal(30, 50), out, epilogue=both))
    np.testing.assert_array_equal(mask, out > 0)


def test_in_place_epilogue() -> None:
    out = normal(37, 50)
    before, a, b = out.copy(), normal(37, 30), normal(30, 50)
    launch(matmul(a, b, out, epilogue=lambda p, v: call("add", v, p.read(out, *p.at("mn")))))
    close(out, before + a.astype("float64") @ b.astype("float64"))


def test_result_of_another_type() -> None:
    check(matmul(normal(20, 30), normal(30, 25), blank(20, 25, dtype="float16")))


# -- machines and modules ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("dtype", "width", "flags"),
    [
        ("float32", 16, ("-mno-avx",)),
        ("float32", 32, ("-mno-avx512f",)),
        ("float32", 32, ()),
        ("float64", 32, ("-mno-avx512f",)),
        ("float64", 16, ()),
        ("int32", 64, ()),
    ],
)
def test_every_vector_width(dtype: str, width: int, flags: tuple[str, ...]) -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        flags = ()
    machine, kind = Machine(cores=3, vector_bytes=width, l2_bytes=256 << 10), as_dtype(dtype)
    for m in (1, 45):
        a, b = (3 * normal(m, 70)).astype(dtype), (3 * normal(70, 61)).astype(dtype)
        for left, right in itertools.product((a, turned(a)), (b, turned(b))):
            check(matmul(left, right, blank(m, 61, dtype=dtype), dtype=kind), machine=machine, flags=flags)
    x, w, window = normal(2, 1, 3, 9, 11).astype(dtype), normal(1, 9, 3, 3, 3).astype(dtype), Window(2, 1)
    y = (3 * normal(2, 1, 9, 5, 6)).astype(dtype)
    check(conv_forward(x, w, blank(*y.shape, dtype=dtype), window, dtype=kind), machine=machine, flags=flags)
    check(conv_weight(y, x, blank(*w.shape, dtype=dtype), window, dtype=kind), machine=machine, flags=flags)


def test_units_suit_the_cores() -> None:
    product = matmul(normal(512, 512), normal(512, 512), blank(512, 512))
    for cores in (3, 32):
        units = launch(product, Machine(cores=cores, vector_bytes=64, l2_bytes=1 << 20))
        assert units >= 2 * cores


def test_texts_can_be_joined_with_each_other_and_with_loops(tmp_path) -> None:
    products = [matmul(normal(3, 9), normal(9, 5), blank(3, 5)) for _ in range(2)]
    arrays = (normal(3, 9, dtype="float64"), normal(9, 5, dtype="float64"), blank(3, 5, dtype="float64"))
    products.append(matmul(*arrays, dtype=float64))
    texts = [str(emit(product.kernel(), f"joined{i}", MACHINE)) for i, product in enumerate(products)]
    loops = replace(products[0].kernel(), contraction=None)
    texts.append(emit_any(loops, "joined3", MACHINE, compiler.vector_math()))
    file = tmp_path / "module.so"
    file.write_bytes(compiler.compile(texts))
    module = ctypes.CDLL(str(file))
    for number, product in enumerate(products):
        run(product, module, f"joined{number}")
        close(product.out, product.arrays[0].astype("float64") @ product.arrays[1].astype("float64"))
    assert [ctypes.c_longlong.in_dll(module, f"joined{i}_grain").value >= 1 for i in range(4)] == [True] * 4
    assert not hasattr(module, "mf_contract_float_float_float")  # the engine stays inside its module


def test_the_text_of_one_kernel_is_short() -> None:
    product = matmul(normal(3, 9), normal(9, 5), blank(3, 5))
    text = str(emit(product.kernel(), "product", MACHINE))
    assert text.startswith(LIBRARY_MARKER)
    assert len(text) < 6000
    assert "template" not in text


# -- what is declined -------------------------------------------------------------------------------------------------
def test_other_forms_are_declined() -> None:
    def declined(product: Product) -> bool:
        return emit(product.kernel(), "product", MACHINE) is None

    a, b, out = normal(4, 4), normal(4, 4), blank(4, 4)
    assert not declined(matmul(a, b, out))
    assert declined(matmul(a.astype("int32"), b, out, dtype=int32))  # float operands of an integer sum
    assert declined(matmul(a > 0, b > 0, out > 0, dtype=as_dtype("bool")))
    dot = Product({"k": "k"}, {"k": 4}, (a[0], plain("k")), (b[0], plain("k")), np.zeros((), "float32"), "")
    assert declined(dot)
    both = [Dim({"m": 1, "k": 1, "l": 1}, 0, 2, True)]
    roles, extents = {"m": "m", "n": "n", "k": "k", "l": "k"}, {"m": 4, "n": 4, "k": 4, "l": 4}
    assert declined(Product(roles, extents, (a[0], both), (normal(4, 4, 4), plain("kln")), out, "mn"))
