"""The index language: parsing against C's meaning, algebra and bounds against evaluation."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metafuse.dtypes import DType, bool_, float32, int32, int64
from metafuse.errors import IndexExpressionError
from metafuse.index import Affine, as_affine, bounds, evaluate, parse_condition, parse_index, simplify
from metafuse.kernel.expr import Expr, axis, call, cast, const, load, select, walk

NAMES = {"xshape0": 5, "xstride0": 7, "yshape0": 4, "XDIM": 2}
EXTRAS: list[tuple[DType, int]] = [(int32, 2), (float32, 1), (bool_, 0)]
GRID = np.ogrid[0:4, 0:3, 0:2]
TABLES = {
    1: np.arange(12, dtype=np.int32).reshape(4, 3) - 5,
    2: np.array([0.0, 0.5, 1.0, -2.5], np.float32),
    3: np.array(True),
}


def index(text: str, axes: int = 3) -> Expr:
    return parse_index(text, operator="reindex", axes=axes, names=NAMES, extras=EXTRAS)


def condition(text: str, axes: int = 3) -> Expr:
    return parse_condition(text, operator="reindex", axes=axes, names=NAMES, extras=EXTRAS)


def lookup(number: int, args: tuple[Any, ...]) -> Any:
    return TABLES[number][args]


def values(expr: Expr) -> Any:
    return np.broadcast_to(evaluate(expr, GRID, lookup), (4, 3, 2))


# -- parsing --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("i0*2 - 1 + i1", lambda i, j, k: i * 2 - 1 + j),
        ("i0-i1-i2", lambda i, j, k: i - j - k),
        ("-i0*-2", lambda i, j, k: i * 2),
        ("- -i0 + +i1", lambda i, j, k: i + j),
        ("(i0-2)/2", lambda i, j, k: np.trunc((i - 2) / 2)),
        ("(i0-2)%2", lambda i, j, k: np.fmod(i - 2, 2)),
        ("i0/(i1-i1)", lambda i, j, k: 0 * i),
        ("1<<i0>>i1", lambda i, j, k: (1 << i) >> j),
        ("i0|4&6^i1", lambda i, j, k: i | ((4 & 6) ^ j)),
        ("~i0", lambda i, j, k: ~i),
        ("i0+1<<1", lambda i, j, k: (i + 1) << 1),
        ("i0<2==i1<1", lambda i, j, k: (i < 2) == (j < 1)),
        ("i0&3==3", lambda i, j, k: i & 1),
        ("i0||i1&&i2", lambda i, j, k: (i != 0) | ((j != 0) & (k != 0))),
        ("!i0+!i1", lambda i, j, k: (i == 0).astype(int) + (j == 0)),
        ("i0>1?i1:i2>0?-1:-2", lambda i, j, k: np.where(i > 1, j, np.where(k > 0, -1, -2))),
        ("i0?10:20", lambda i, j, k: np.where(i != 0, 10, 20)),
        ("min(i0, i1)+max(i0,2)-abs(i1-2)", lambda i, j, k: np.minimum(i, j) + np.maximum(i, 2) - abs(j - 2)),
        ("(int)(i0*0.75) + int(i1*0.5f)", lambda i, j, k: np.trunc(i * 0.75) + np.trunc(j * 0.5)),
        ("(long long)i0*3-(bool)i1", lambda i, j, k: i * 3 - (j != 0)),
        ("(int)(i0/2.0*2)", lambda i, j, k: i),
        ("xshape0*i0+XDIM", lambda i, j, k: 5 * i + 2),
        ("@e0(i0, i1)+1", lambda i, j, k: TABLES[1][i, j] + 1),
        ("@e0(i0-i0, @e0(0,2)+i1+3)", lambda i, j, k: TABLES[1][0, j]),
        ("@e1(i0) > 0.25 ? i0 : -1", lambda i, j, k: np.where(TABLES[2][i] > 0.25, i, -1)),
        ("(int)@e1(i0)", lambda i, j, k: np.trunc(TABLES[2][i])),
        ("@e2()*3", lambda i, j, k: 3),
        ("0x1F + 10u", lambda i, j, k: 41),
        ("\t i0 \n", lambda i, j, k: i),
        ("((((i0))))", lambda i, j, k: i),
    ],
)  # fmt: skip
def test_meaning(text: str, meaning: Any) -> None:
    expr = index(text)
    assert expr.dtype is int64
    np.testing.assert_array_equal(values(expr), np.broadcast_to(meaning(*GRID), (4, 3, 2)))


@pytest.mark.parametrize(
    "text", ["i0 > 1", "i0", "!i0", "@e1(i0)", "@e1(i0) == 0.5", "@e2()", "i0 && @e0(i0,i1) < 0", "1"]
)
def test_conditions_are_bool(text: str) -> None:
    expr = condition(text)
    assert expr.dtype is bool_
    reference = {
        "i0": GRID[0] != 0,
        "i0 > 1": GRID[0] > 1,
        "!i0": GRID[0] == 0,
        "@e1(i0)": TABLES[2][GRID[0]] != 0,
    }
    if text in reference:
        np.testing.assert_array_equal(values(expr), np.broadcast_to(reference[text], (4, 3, 2)))


def test_the_expression_is_data() -> None:
    assert index("i0*2 - 1 + i1 + 1 - i1") == call("mul", axis(0), const(2))
    assert index("@e0(i0,i1)") == cast(load(1, int32, axis(0), axis(1)), int64)
    assert condition("@e0(i0,0) == -1") == call(
        "eq", cast(load(1, int32, axis(0), const(0)), int64), const(-1)
    )
    assert pickle.dumps(as_affine(index("i0*2")))


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("i0+i5", 3, "unknown name 'i5'.*known: i0, i1, i2, xshape0, xstride0, yshape0, XDIM, @e0"),
        ("i01", 0, "unknown name 'i01'"),
        ("foo(1)", 0, "unknown name 'foo'.*functions: min, max, abs"),
        ("", 0, "expected a value, found 'end of text'"),
        ("i0+", 3, "expected a value"),
        ("(i0", 3, r"expected '\)'"),
        ("i0)", 2, r"unexpected '\)'"),
        ("i0 i1", 3, "unexpected 'i1'"),
        ("i0 $ 1", 3, r"unexpected '\$'"),
        ("i0=1", 2, "unexpected '='"),
        ("i0 // comment", 3, "comment"),
        ("i0 /* x */", 3, "comment"),
        ("1 ? 2", 5, "expected ':'"),
        ("@e3(0)", 0, "unknown extra '@e3'.*known: @e0, @e1, @e2"),
        ("@e0(i0)", 0, r"@e0 takes 2 argument\(s\), not 1"),
        ("@e0(0.5, 1)", 0, "indexed by a float64"),
        ("min(1)", 0, r"min takes 2 argument\(s\)"),
        ("min", 3, r"expected '\('"),
        ("@e1(i0)", 0, "an index can't be float32"),
        ("1.5", 0, "an index can't be float64"),
        ("@e1(0) % 2", 7, "'%' on a float64"),
        ("~@e1(0)", 0, "'~' on a float32"),
        ("010", 0, "leading zero"),
        ("3abc", 0, "unexpected '3'"),
        ("9223372036854775808", 0, "no 64-bit integer"),
        ("i0.x", 2, r"unexpected '\.'"),
        ("__import__('os')", 0, "unknown name '__import__'|unexpected"),
    ],
)  # fmt: skip
def test_errors_point_at_the_position(text: str, position: int, words: str) -> None:
    with pytest.raises(IndexExpressionError, match=f"^\\[reindex\\] .*{words}") as caught:
        index(text)
    message, shown, caret = str(caught.value).split("\n")
    if "__import__" not in text:
        assert f"at position {position} of {text!r}" in message
        assert caret.index("^") - 4 == position
        assert shown[4:].strip() == text.strip()


@pytest.mark.parametrize("text", ["(" * 5000, "-" * 5000, "i0?" * 3000, "min(" * 2000, "+".join(["i0"] * 2000), "1" * 9000,
                                  "(int)" * 1500, "1||1&&1|1^1&1==1<1<<1+1*(" * 300, "a" * 100_000, "(" * 100_000])  # fmt: skip
def test_huge_texts_are_errors(text: str) -> None:
    with pytest.raises(IndexExpressionError) as caught:
        index(text)
    assert len(str(caught.value)) < 500


def test_deep_but_accepted() -> None:
    assert index("(" * 90 + "i0" + ")" * 90) == axis(0)
    text = "+".join(f"@e0({k % 4},{k % 3})%{k + 2}" for k in range(100))
    expr = index(text)
    assert repr(expr).count("b1[") == 100
    assert expr == index(text)


def test_not_a_string() -> None:
    with pytest.raises(IndexExpressionError, match="must be a string, not 3"):
        parse_index(3, operator="reindex", axes=1, names={})  # type: ignore[arg-type]


@settings(max_examples=300)
@given(st.text("i012x+-*/%<>=!&|^~?:(),. @e", max_size=20))
def test_any_text_parses_or_is_an_error(text: str) -> None:
    try:
        expr = index(text)
    except IndexExpressionError:
        return
    assert expr.dtype is int64
    if "@" not in text:  # whose indexes may be anything
        assert values(expr).shape == (4, 3, 2)


# -- algebra --------------------------------------------------------------------------------------------------------
small = st.integers(-4, 6)
tests = st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"])
whole = st.recursive(
    st.builds(axis, st.integers(0, 2)) | st.builds(const, small) | st.just(cast(load(1, int32, axis(0), axis(1)), int64)),
    lambda inner: (
        st.builds(lambda n, a, b: call(n, a, b), st.sampled_from(
            ["add", "sub", "mul", "cdiv", "cmod", "floordiv", "mod", "min", "max", "bitand", "bitor", "bitxor"]), inner, inner)
        | st.builds(lambda n, a: call(n, a), st.sampled_from(["neg", "abs", "bitnot"]), inner)
        | st.builds(lambda n, a, k: call(n, a, const(k)), st.sampled_from(["shl", "shr"]), inner, st.integers(0, 3))
        | st.builds(
            lambda n, m, a, b, c, d: select(call(m, call(n, a, b), call("not", call(n, b, c))), c, d),
            tests, st.sampled_from(["and", "or"]), inner, inner, inner, inner)
        | st.builds(lambda n, a, b: cast(call(n, a, b), int64), tests, inner, inner)
    ),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=300)
@given(whole)
def test_simplify_keeps_the_value(expr: Expr) -> None:
    simple = simplify(expr)
    np.testing.assert_array_equal(values(simple), values(expr))
    assert simple.dtype is expr.dtype
    assert simplify(simple) == simple


@pytest.mark.parametrize(
    ("expr", "simple"),
    [
        (call("add", axis(0), const(0)), axis(0)),
        (call("mul", axis(0), const(1)), axis(0)),
        (call("mul", axis(0), const(0)), const(0)),
        (call("sub", axis(0), axis(0)), const(0)),
        (
            call("add", call("add", axis(1), const(2)), call("sub", axis(0), const(2))),
            call("add", axis(0), axis(1)),
        ),
        (call("sub", const(5), axis(0)), call("sub", const(5), axis(0))),
        (call("neg", call("neg", axis(0))), axis(0)),
        (call("cdiv", axis(0), const(1)), axis(0)),
        (call("cmod", axis(0), const(1)), const(0)),
        (call("min", axis(0), axis(0)), axis(0)),
        (call("not", call("lt", axis(0), const(3))), call("ge", axis(0), const(3))),
        (call("and", call("lt", axis(0), const(3)), const(True, bool_)), call("lt", axis(0), const(3))),
        (call("or", call("lt", axis(0), const(3)), const(True, bool_)), const(True, bool_)),
        (call("ne", cast(call("lt", axis(0), const(3)), int64), const(0)), call("lt", axis(0), const(3))),
        (call("eq", axis(0), axis(0)), const(True, bool_)),
        (select(const(True, bool_), axis(0), axis(1)), axis(0)),
        (select(call("lt", axis(0), const(1)), axis(1), axis(1)), axis(1)),
        (call("add", const(1.5, float32), const(2.0, float32)), const(3.5, float32)),
        (call("cdiv", const(-7), const(2)), const(-3)),
    ],
)
def test_simplify(expr: Expr, simple: Expr) -> None:
    assert simplify(expr) == simple


def test_floats_are_not_rearranged() -> None:
    x = load(1, float32, axis(0))
    for expr in (
        call("mul", x, const(0.0, float32)),
        call("sub", x, x),
        call("eq", x, x),
        call("not", call("lt", x, x)),
    ):
        assert simplify(expr) == expr


@given(
    st.lists(st.tuples(st.sampled_from(["add", "sub"]), st.integers(0, 2), st.integers(-9, 9)), max_size=6),
    st.integers(-100, 100), st.integers(-3, 3),
)  # fmt: skip
def test_as_affine(terms: list[tuple[str, int, int]], constant: int, factor: int) -> None:
    expr, coefficients = const(constant), [0, 0, 0]
    for name, number, coefficient in terms:
        expr = call(name, expr, call("mul", const(coefficient), axis(number)))
        coefficients[number] += coefficient if name == "add" else -coefficient
    expr = call("mul", call("neg", expr), const(factor))
    expected = tuple((k, -c * factor) for k, c in enumerate(coefficients) if c * factor)
    assert as_affine(expr) == Affine(expected, -constant * factor)
    assert as_affine(simplify(expr)) == as_affine(expr)


@pytest.mark.parametrize("text", ["i0*i1", "i0/2", "i0%2", "@e0(i0,i1)", "i0>1?1:2", "min(i0,i1)"])
def test_not_affine(text: str) -> None:
    assert as_affine(index(text)) is None


def test_affine_wraps_like_the_machine() -> None:
    huge = const(2**62)
    assert as_affine(call("mul", call("mul", axis(0), huge), const(4))) == Affine((), 0)
    assert values(simplify(call("add", axis(0), const(-(2**63)))))[1, 0, 0] == 1 - 2**63
    assert values(simplify(call("mul", axis(0), const(-(2**63)))))[1, 0, 0] == -(2**63)


# -- bounds ---------------------------------------------------------------------------------------------------------
def reached(expr: Expr, extents: tuple[int, ...]) -> Any:
    grid = np.ogrid[tuple(slice(0, extent) for extent in extents)]
    return np.broadcast_to(evaluate(expr, grid, lookup), extents)


@settings(max_examples=400)
@given(expr=whole, extents=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4)))
def test_bounds_are_sound(expr: Expr, extents: tuple[int, int, int]) -> None:
    for node in walk(expr):
        interval = bounds(node, extents)
        if interval is not None and not node.dtype.is_float:
            found = reached(node, extents)
            assert interval[0] <= found.min() and found.max() <= interval[1]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(-9, 9)), max_size=6), st.integers(-100, 100),
    st.tuples(*[st.integers(1, 5)] * 3),
)  # fmt: skip
def test_bounds_of_affine_are_exact(
    terms: list[tuple[int, int]], constant: int, extents: tuple[int, int, int]
) -> None:
    expr = const(constant)
    for number, coefficient in terms:
        expr = call("add", expr, call("mul", axis(number), const(coefficient)))
    found = reached(expr, extents)
    assert bounds(expr, extents) == (found.min(), found.max())


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("i0*2-1", (-1, 7)),
        ("i0-i0+3", (3, 3)),
        ("i0%3", (0, 2)),
        ("(i0-2)%3", (-2, 2)),
        ("i0/2", (0, 2)),
        ("(i0-4)/3", (-1, 0)),
        ("@e0(i0,i1)%4", (-3, 3)),
        ("@e0(i0,i1)", None),
        ("min(i0, 2)", (0, 2)),
        ("max(i0-2, 0)", (0, 2)),
        ("abs(i0-3)", (0, 3)),
        ("i0<9", (1, 1)),
        ("i0>9", (0, 0)),
        ("i0>2", (0, 1)),
        ("i0<9 ? i1 : 100", (0, 2)),
        ("@e0(i0,i1) > 0", (0, 1)),
        ("i0&1", (0, 1)),
        ("i0*4611686018427387904", None),
    ],
)
def test_bounds(text: str, interval: tuple[int, int] | None) -> None:
    assert bounds(index(text), [5, 3, 2]) == interval


def test_bounds_of_an_empty_axis() -> None:
    assert bounds(index("i0+1"), [0, 1, 1]) == (1, 1)


# -- evaluation -----------------------------------------------------------------------------------------------------
def test_evaluate_leaves() -> None:
    expr = call(
        "add",
        Expr("size", (), int64, 1),
        cast(call("add", Expr("scalar", (), float32, 0), Expr("value", (), float32, 0)), int64),
    )
    got = evaluate(expr, [], sizes=[7, 8], scalars=[2.5], values=[np.float32([0.5, 1.5])])
    assert got.tolist() == [11, 12]
    assert got.dtype == np.int64
    with pytest.raises(ValueError, match="loads input 1"):
        evaluate(load(1, int32, axis(0)), [np.arange(2)])


def test_a_long_sum_is_walked_without_recursion() -> None:
    expr = axis(0)
    for k in range(20_000):
        expr = call("cmod", call("add", expr, const(k)), const(1 << 40))
    assert evaluate(expr, [np.arange(2)]).tolist() == [sum(range(20_000)), sum(range(20_000)) + 1]
    assert bounds(expr, [2]) == (sum(range(20_000)), sum(range(20_000)) + 1)
    assert as_affine(expr) is None
