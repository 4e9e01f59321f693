"""The host meaning of every intrinsic: against Python's own numbers, SciPy-free references and published vectors."""

from __future__ import annotations

import math
import operator
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metafuse.dtypes import (
    DTYPES,
    FLOATS,
    INTEGERS,
    DType,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int32,
    int64,
    uint8,
)
from metafuse.kernel import host
from metafuse.kernel.expr import INTRINSICS, TESTS, call, const
from metafuse.kernel.ir import IDENTITY, REDUCTIONS
from metafuse.kernel.spec import SIGNATURES

LOW, HIGH = -(2**63), 2**63 - 1
whole = st.integers(LOW, HIGH) | st.integers(-5, 5)


def wrap(value: int, dtype: DType = int64) -> int:
    """What is left of an integer in a dtype."""
    bits = 8 * dtype.itemsize
    value %= 2**bits
    return value - 2**bits if dtype.kind == "i" and value >= 2 ** (bits - 1) else value


def on_int64(name: str, *args: int) -> Any:
    dtype = bool_ if name in TESTS else int64
    return host.apply(name, *(np.asarray([a], np.int64) for a in args), dtype=dtype)[0]


# -- the table as a whole -------------------------------------------------------------------------------------------
def test_the_table_has_every_intrinsic() -> None:
    assert set(host.FUNCTIONS) == set(INTRINSICS) == set(SIGNATURES)


@pytest.mark.parametrize("name", sorted(INTRINSICS))
def test_the_result_has_exactly_the_dtype_of_the_ir(name: str) -> None:
    """On arrays and on single numbers of every dtype that the intrinsic takes, without a warning."""
    signature = SIGNATURES[name]
    for dtype in DTYPES.values():
        if dtype.kind not in signature.kinds[-1]:
            continue
        args = []
        for kinds in signature.kinds:
            own = bool_ if kinds == "b" else dtype
            args.append(np.array([0, 1, 1, 0]).astype(own.numpy))
        expected = call(
            name, *(const(1, bool_ if kinds == "b" else dtype) for kinds in signature.kinds)
        ).dtype
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for operands in (args, [a[0] for a in args], [a[:0] for a in args]):
                result = host.apply(name, *operands, dtype=expected)
                assert isinstance(result, np.ndarray)
                assert result.dtype == expected.numpy
                assert result.shape == operands[0].shape


# -- integers -------------------------------------------------------------------------------------------------------
def truncated(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


MEANING = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": lambda a, b: a // b if b else 0,
    "mod": lambda a, b: a % b if b else 0,
    "cdiv": lambda a, b: truncated(a, b) if b else 0,
    "cmod": lambda a, b: a - truncated(a, b) * b if b else 0,
    "min": min,
    "max": max,
    "bitand": operator.and_,
    "bitor": operator.or_,
    "bitxor": operator.xor,
    "shl": lambda a, b: a << b if 0 <= b < 64 else 0,
    "shr": lambda a, b: a >> b if 0 <= b < 64 else (-1 if a < 0 else 0),
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "neg": operator.neg,
    "abs": abs,
    "bitnot": operator.invert,
    "floor": int,
    "ceil": int,
    "round": int,
    "trunc": int,
}


@given(name=st.sampled_from(sorted(MEANING)), a=whole, b=whole)
def test_int64(name: str, a: int, b: int) -> None:
    args = (a, b)[: INTRINSICS[name]]
    want = MEANING[name](*args)
    assert on_int64(name, *args) == (want if isinstance(want, bool) else wrap(want))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_division_by_zero_and_the_smallest_integer(dtype: DType) -> None:
    low = np.iinfo(dtype.numpy).min
    a = np.array([7, low, 0], dtype.numpy)
    for name in ("floordiv", "mod", "cdiv", "cmod"):
        np.testing.assert_array_equal(host.apply(name, a, np.zeros(3, dtype.numpy), dtype=dtype), 0)
    if dtype.kind == "i":
        minus = np.full(3, -1, dtype.numpy)
        for name in ("floordiv", "cdiv"):
            np.testing.assert_array_equal(host.apply(name, a, minus, dtype=dtype), [-7, low, 0])
        for name in ("mod", "cmod"):
            np.testing.assert_array_equal(host.apply(name, a, minus, dtype=dtype), 0)


@given(a=st.integers(-6, 6), b=st.integers(-70, 70), dtype=st.sampled_from(INTEGERS))
def test_integer_power(a: int, b: int, dtype: DType) -> None:
    if dtype.kind == "u":
        a, b = abs(a), abs(b)
    want = wrap(a**b, dtype) if b >= 0 else {1: 1, -1: 1 if b % 2 == 0 else -1}.get(a, 0)
    got = host.apply("pow", np.array([a], dtype.numpy), np.array([b], dtype.numpy), dtype=dtype)
    assert got[0] == want


def test_shifts_of_narrow_integers() -> None:
    a, by = np.array([-8, 8, -8, 8], np.int8), np.array([1, 1, 8, 9], np.int8)
    np.testing.assert_array_equal(host.apply("shr", a, by, dtype=int8), [-4, 4, -1, 0])
    np.testing.assert_array_equal(host.apply("shl", a, by, dtype=int8), [-16, 16, 0, 0])
    np.testing.assert_array_equal(host.apply("shr", np.uint8([200]), np.uint8([8]), dtype=uint8), [0])


def test_rounding_keeps_large_integers() -> None:
    for name in ("floor", "ceil", "round", "trunc"):
        assert on_int64(name, HIGH) == HIGH


# -- floats ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nan_and_rounding(dtype: DType) -> None:
    x = np.array([math.nan, 1.0, math.inf, -0.5], dtype.numpy)
    y = np.array([1.0, math.nan, 2.0, 0.5], dtype.numpy)
    for name in ("min", "max"):
        assert np.isnan(host.apply(name, x, y, dtype=dtype)[:2]).all()
    np.testing.assert_array_equal(host.apply("isnan", x, dtype=bool_), [True, False, False, False])
    np.testing.assert_array_equal(host.apply("isinf", x, dtype=bool_), [False, False, True, False])
    halves = np.array([0.5, 1.5, 2.5, -0.5, -1.5], dtype.numpy)
    np.testing.assert_array_equal(host.apply("round", halves, dtype=dtype), [0, 2, 2, 0, -2])
    np.testing.assert_array_equal(host.apply("trunc", halves, dtype=dtype), [0, 1, 2, 0, -1])


@given(a=st.floats(-1e6, 1e6), b=st.floats(-1e3, 1e3).filter(lambda b: abs(b) > 1e-3))
def test_float_division(a: float, b: float) -> None:
    x, y = np.array([a]), np.array([b])
    assert host.apply("cdiv", x, y, dtype=float64)[0] == math.trunc(a / b)
    assert host.apply("cmod", x, y, dtype=float64)[0] == math.fmod(a, b)
    assert host.apply("mod", x, y, dtype=float64)[0] == a % b
    assert host.apply("floordiv", x, y, dtype=float64)[0] == a // b


@pytest.mark.parametrize("name", ["exp", "log", "expm1", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
                                  "cosh", "tanh", "asinh", "atanh", "erf", "sqrt"])  # fmt: skip
def test_transcendental(name: str) -> None:
    x = np.linspace(0.05, 0.95, 19)
    want = [getattr(math, name)(v) for v in x]
    np.testing.assert_allclose(host.apply(name, x, dtype=float64), want, rtol=1e-15)
    low = host.apply(name, x.astype(np.float32), dtype=float32)
    np.testing.assert_allclose(low, want, rtol=1e-6)


def test_acosh_and_atan2() -> None:
    assert host.apply("acosh", np.array([1.5]), dtype=float64)[0] == pytest.approx(math.acosh(1.5))
    assert host.apply("atan2", np.array([-1.0]), np.array([-2.0]), dtype=float64)[0] == math.atan2(-1, -2)


def test_erf_to_double_precision() -> None:
    x = np.concatenate([np.linspace(-7, 7, 5001), [0.46875, 4.0, 6.0, 1e-300, 5e-324]])
    want = np.array([math.erf(v) for v in x])
    np.testing.assert_allclose(host.erf(x), want, rtol=1e-15, atol=0)
    np.testing.assert_array_equal(host.erf([math.inf, -math.inf, 0.0]), [1, -1, 0])
    assert np.isnan(host.erf(math.nan))
    assert math.copysign(1, host.erf(-0.0)) == -1


# -- conversion and choice ------------------------------------------------------------------------------------------
def test_cast() -> None:
    assert host.apply("cast", np.array([0.0, -0.0, 0.5, math.nan]), dtype=bool_).tolist() == [
        False,
        False,
        True,
        True,
    ]
    assert host.apply("cast", np.array([-1.9, 1.9]), dtype=int32).tolist() == [-1, 1]
    assert host.apply("cast", np.array([300, -1]), dtype=uint8).tolist() == [44, 255]
    assert host.apply("cast", np.array([1e6]), dtype=float16).tolist() == [math.inf]
    assert host.apply("cast", np.array([True, False]), dtype=float32).tolist() == [1.0, 0.0]


def test_select_takes_nothing_from_the_other_side() -> None:
    got = host.apply(
        "select", np.array([True, False]), np.array([1.0, math.nan]), np.array([math.nan, 2.0]), dtype=float64
    )
    assert got.tolist() == [1.0, 2.0]


# -- folds ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("op", sorted(set(REDUCTIONS) - {"void"}))
def test_identity_and_ufunc_agree(op: str) -> None:
    """The neutral element changes nothing, and folding pairwise is what the intrinsic does."""
    combine = REDUCTIONS[op]
    assert combine is not None
    for dtype in DTYPES.values():
        if dtype.kind not in SIGNATURES[combine].kinds[0] or (
            op.startswith("logical") and dtype is not bool_
        ):
            continue
        x = np.array([0, 1, 1, 0]).astype(dtype.numpy)
        y = np.array([1, 1, 0, 0]).astype(dtype.numpy)
        neutral = np.asarray(IDENTITY(op, dtype)).astype(dtype.numpy)
        np.testing.assert_array_equal(host.ufunc(op)(x, neutral), x)
        np.testing.assert_array_equal(host.apply(combine, x, y, dtype=dtype), host.ufunc(op)(x, y))


# -- random ---------------------------------------------------------------------------------------------------------
#: the known-answer vectors for philox4x32-10 published with Random123: counter, key, output
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "output"), VECTORS)
def test_philox_known_answers(counter: Any, key: Any, output: Any) -> None:
    assert tuple(int(word) for word in host.philox(counter, key)) == output


@given(seed=st.integers(0, 2**64 - 1), offset=st.integers(0, 2**63), first=st.integers(0, 2**40))
def test_uniform_is_the_stream_word_by_word(seed: int, offset: int, first: int) -> None:
    i = np.arange(first, first + 9, dtype=np.int64)
    got = host.apply("uniform", np.uint64(seed), np.uint64(offset), i, dtype=float32)
    for element, value in zip(i.tolist(), got.tolist(), strict=True):
        counter = (offset + element // 4) % 2**64
        words = host.philox((counter % 2**32, counter >> 32, 0, 0), (seed % 2**32, seed >> 32))
        assert value == (int(words[element % 4]) >> 8) * 2.0**-24


def test_uniform_is_uniform() -> None:
    x = host.apply("uniform", np.int64(1), np.int64(0), np.arange(200_000), dtype=float32).astype(float)
    assert 0 <= x.min() and x.max() < 1
    assert abs(x.mean() - 0.5) < 0.003 and abs(x.var() - 1 / 12) < 0.001
    assert np.abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.01
