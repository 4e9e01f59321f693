"""Level "index": reindex, reindex_reduce, indexing with brackets, shape operators, sources.

What it is: the meta-operators with the whole index language, chosen and random sentences of it, against NumPy.
What it is not: sums (``reduce``).
Who calls it: ``suite``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ...dtypes import as_dtype
from ...kernel import host
from ...kernel.ir import IDENTITY, REDUCTIONS
from ...ops.creation import arange
from ...ops.indexing import getitem, setitem
from ...ops.meta import identity, index
from ...ops.random import rand, set_global_seed
from ...ops.registry import Operator, Tensor
from ...ops.reindexing import reindex, reindex_reduce
from ..compare import Case, run
from ..draws import drawn_checks
from ..errors import ConformanceError
from ..expressions import Sentence, cdiv, cmod, gathered, scattered, sentences, tests
from ..kit import Kit, level
from ..strategies import array, dtypes_for, primary
from .samples import check_samples, sampled

__all__ = [
    "test_bracket_assignment", "test_bracket_indexing", "test_index_samples", "test_random_bits",
    "test_random_sentences", "test_reindex", "test_reindex_dtypes", "test_reindex_reduce", "test_sources",
]  # fmt: skip

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Form:
    """A reindex: extents of x and y, index texts and what they mean, and the same for the conditions of overflow."""

    name: str
    x: tuple[int, ...]
    y: tuple[int, ...]
    texts: tuple[str, ...]
    meaning: tuple[Callable[..., Any], ...]
    overflow: float = 0
    conditions: tuple[str, ...] = ()
    conditions_mean: tuple[Callable[..., Any], ...] = ()
    extras: tuple[Array, ...] = ()


_E0 = np.array([2, 0, 2, 1, 4], np.int32)
_E1 = np.array([[1, -1], [0, 2], [3, 7], [1, 1]], np.int64)
_E2 = np.array([0.5, 1.5, -2.0, 3.25], np.float32)

FORMS = (
    Form("copy", (4, 3), (4, 3), ("i0", "i1"), (lambda i: i[0], lambda i: i[1])),
    Form("transpose", (4, 3), (3, 4), ("i1", "i0"), (lambda i: i[1], lambda i: i[0])),
    Form("broadcast", (4,), (3, 4, 2), ("i1",), (lambda i: i[1],)),
    Form("to nothing", (4,), (0, 4), ("i1",), (lambda i: i[1],)),
    Form("one element", (4,), (5,), ("2",), (lambda i: 2,)),
    Form("shift", (5,), (7,), ("i0-1",), (lambda i: i[0] - 1,), -1.0),
    Form("stride and pad", (5, 6), (4, 4), ("i0*2-1", "i1*3-2"), (lambda i: i[0] * 2 - 1, lambda i: i[1] * 3 - 2), 2.5),
    Form("backwards", (67,), (67,), ("xshape0-1-i0",), (lambda i: 66 - i[0],)),
    Form("window", (9,), (4, 3), ("i0*2+i1",), (lambda i: i[0] * 2 + i[1],)),
    Form("dilated window", (2, 9), (2, 5, 3), ("i0", "i1-1+i2*2"), (lambda i: i[0], lambda i: i[1] - 1 + i[2] * 2), 7),
    Form("upsample", (3,), (7,), ("i0/2",), (lambda i: cdiv(i[0], 2),)),
    Form("negative division", (4,), (9,), ("(i0-4)/2",), (lambda i: cdiv(i[0] - 4, 2),), -3),
    Form("wrap around", (4,), (11,), ("(i0*3)%xshape0",), (lambda i: cmod(i[0] * 3, 4),)),
    Form("negative remainder", (4,), (9,), ("(i0-4)%3",), (lambda i: cmod(i[0] - 4, 3),), 9),
    Form("division by zero", (4,), (3,), ("i0/(i0-i0)+1",), (lambda i: 1 + 0 * i[0],)),
    Form("flat", (4, 3), (12,), ("i0/3", "i0%3"), (lambda i: i[0] // 3, lambda i: i[0] % 3)),
    Form("names", (4, 3), (4, 3), ("i0*ystride0/yshape1", "i1+XDIM-YDIM"), (lambda i: i[0], lambda i: i[1])),
    Form("bits", (16,), (16,), ("((i0^5)&~2)|(i0>>2)",), (lambda i: ((i[0] ^ 5) & ~2) | (i[0] >> 2),)),
    Form("shift left", (40,), (8,), ("1<<i0",), (lambda i: 1 << i[0],), -1),
    Form("functions", (9,), (9,), ("min(i0, 8-i0)+max(abs(i0-4), 2)",),
         (lambda i: np.minimum(i[0], 8 - i[0]) + np.maximum(np.abs(i[0] - 4), 2),)),
    Form("choice", (9,), (9,), ("i0 < 4 && i0 != 2 ? i0*2 : i0-1",),
         (lambda i: np.where((i[0] < 4) & (i[0] != 2), i[0] * 2, i[0] - 1),)),
    Form("comparison as number", (9,), (9,), ("i0*(i0>3)+(i0==2)",), (lambda i: i[0] * (i[0] > 3) + (i[0] == 2),)),
    Form("hexadecimal, cast", (0x1F,), (9,), ("(int)(0x1e-i0)",), (lambda i: 30 - i[0],)),
    Form("conditions", (4, 4), (4, 4), ("i0", "i1"), (lambda i: i[0], lambda i: i[1]), -1,
         ("i0 < i1", "i0+i1 == 5 || !(i0 > 0)"), (lambda i: i[0] < i[1], lambda i: (i[0] + i[1] == 5) | ~(i[0] > 0))),
    Form("not a number for overflow", (3,), (5,), ("i0",), (lambda i: i[0],), math.nan),
    Form("infinity for overflow", (3,), (5,), ("i0-2",), (lambda i: i[0] - 2,), -math.inf),
    Form("an extra", (5, 3), (5, 3), ("@e0(i0)", "i1"), (lambda i: _E0[i[0]], lambda i: i[1]), extras=(_E0,)),
    Form("two extras", (5, 4), (4, 2), ("@e0(i0+1)", "@e1(i0, i1)+1"), (lambda i: _E0[i[0] + 1], lambda i: _E1[i[0], i[1]] + 1),
         -2, extras=(_E0, _E1)),
    Form("an extra of an extra", (5,), (5,), ("@e0(@e0(i0))",), (lambda i: _E0[_E0[i[0]]],), extras=(_E0,)),
    Form("outside of an extra", (5,), (8,), ("@e0(i0-1)",),
         (lambda i: np.where((i[0] >= 1) & (i[0] <= 5), _E0[(i[0] - 1) % 5], -1),), 6, extras=(_E0,)),
    Form("an extra in a condition", (4,), (4,), ("i0",), (lambda i: i[0],), 5, ("@e0(i0) > 1.25",),
         (lambda i: _E2[i[0]] > 1.25,), (_E2,)),
)  # fmt: skip


def _form_case(form: Form, x: Array) -> Case:
    arguments = (x, list(form.y), list(form.texts), form.overflow, list(form.conditions), list(form.extras))

    def expected(values: Array, *_: Any) -> Array:
        return gathered(values, form.y, form.meaning, form.overflow, form.conditions_mean)

    return Case("reindex", reindex, arguments, {}, expected)


def _supported(form: Form, kit: Kit) -> bool:
    return all(kit.supports(e.dtype.name) for e in form.extras)


@level("index", cases=lambda: [(form.name.replace(" ", "-"), form) for form in FORMS])
def test_reindex(conformance: Kit, case: Form) -> None:
    """Each construct of the index language, on floats (and integers, where the overflow value is one)."""
    if not _supported(case, conformance):
        return
    random = conformance.random("reindex", case.name)
    whole = math.isfinite(case.overflow) and case.overflow == int(case.overflow)
    dtypes = [d for d in primary("any", conformance) if d == "float32" or (d == "int32" and whole)]
    run(conformance, [_form_case(case, array(Tensor((), low=-9, high=9), d, case.x, random)) for d in dtypes])


@level("index")
def test_reindex_dtypes(conformance: Kit) -> None:
    """Every dtype moves unchanged."""
    random = conformance.random("reindex dtypes")
    form = next(f for f in FORMS if f.name == "stride and pad")
    plain = Form("stride and pad", form.x, form.y, form.texts, form.meaning, 1)
    cases = []
    for dtype in dtypes_for("any", conformance):
        kind = as_dtype(dtype)
        x = array(Tensor((), low=0, high=1), dtype, form.x, random)
        if kind.is_integer:
            info = np.iinfo(dtype)
            x = random.integers(info.min, info.max, form.x, dtype=dtype, endpoint=True)
        cases.append(_form_case(plain, x))
    run(conformance, cases)


SCATTERS = (
    Form("into pairs", (5,), (9,), ("i0/2",), (lambda i: cdiv(i[0], 2),)),
    Form("all into one", (3,), (2, 5), ("1",), (lambda i: 1,)),
    Form("transpose, shifted", (4, 3), (3, 4), ("i1-1", "i0"), (lambda i: i[1] - 1, lambda i: i[0])),
    Form("windows", (7,), (3, 4), ("i0*2+i1-1",), (lambda i: i[0] * 2 + i[1] - 1,)),
    Form("wrap around", (3, 2), (4, 5), ("(i0+i1)%3", "i1/3"), (lambda i: cmod(i[0] + i[1], 3), lambda i: cdiv(i[1], 3))),
    Form("by data", (5,), (5,), ("@e0(i0)",), (lambda i: _E0[i[0]],), extras=(_E0,)),
    Form("conditions", (4,), (4, 4), ("i0",), (lambda i: i[0],), 0, ("i1 >= i0",), (lambda i: i[1] >= i[0],)),
    Form("from nothing", (4,), (0, 4), ("i1",), (lambda i: i[1],)),
    Form("nothing fits", (4,), (4,), ("i0+10",), (lambda i: i[0] + 10,)),
)  # fmt: skip


_NAMES = {
    "xshape0": 4,
    "xshape1": 6,
    "yshape0": 3,
    "yshape1": 5,
    "xstride0": 6,
    "ystride0": 5,
    "XDIM": 2,
    "YDIM": 2,
}


@level("index")
def test_random_sentences(conformance: Kit) -> None:
    """Sentences of the index language that nobody wrote, as indexes and as conditions, forwards and backwards."""
    x = np.arange(24, dtype=np.int32).reshape(4, 6) + 1
    y = np.arange(15, dtype=np.int32).reshape(3, 5) + 1

    def check(drawn: list[tuple[Sentence, Sentence, Sentence]]) -> None:
        cases = []
        for first, second, condition in drawn:
            texts, meanings = [first.text, second.text], (first.value, second.value)

            def forwards(v: Array, *_: Any, m: Any = meanings, c: Any = condition) -> Array:
                return gathered(v, (3, 5), m, -1, (c.value,))

            def backwards(v: Array, *_: Any, m: Any = meanings, c: Any = condition) -> Array:
                return scattered(v, "add", (4, 6), 0, m, (c.value,))

            cases.append(Case("reindex", reindex, (x, [3, 5], texts, -1, [condition.text]), {}, forwards))
            arguments = (y, "add", [4, 6], texts, [condition.text])
            cases.append(Case("reindex_reduce", reindex_reduce, arguments, {}, backwards))
        with conformance.active():
            run(conformance, cases)

    index_of = sentences(2, _NAMES)
    many = st.lists(st.tuples(index_of, index_of, tests(2, _NAMES)), min_size=4, max_size=8)
    drawn_checks(conformance, conformance.profile.graphs // 2, check, many)


def folded_kinds(op: str) -> str:
    return "bool" if op.startswith("logical") else "integral" if op.startswith("bitwise") else "number"


@level("index", cases=lambda: [(op, op) for op in REDUCTIONS])
def test_reindex_reduce(conformance: Kit, case: str) -> None:
    """Every reduction through every form; elements that meet fold in row-major order."""
    random = conformance.random("reindex_reduce", case)
    cases = []
    for form in SCATTERS:
        if not _supported(form, conformance):
            continue
        for dtype in primary(folded_kinds(case), conformance):
            y = array(Tensor((), low=1, high=3), dtype, form.y, random)
            start = IDENTITY(case, as_dtype(dtype))

            def expected(values: Array, *_: Any, form: Form = form, start: Any = start) -> Array:
                return scattered(values, case, form.x, start, form.meaning, form.conditions_mean)

            arguments = (y, case, list(form.x), list(form.texts), list(form.conditions), list(form.extras))
            cases.append(Case("reindex_reduce", reindex_reduce, arguments, {}, expected, scale=True))
    run(conformance, cases)


# -- brackets -----------------------------------------------------------------------------------------------------
_ROWS = np.array([3, 0, -1, 3], np.int32)
_COLUMNS = np.array([[1], [-2]], np.int32)
_MASK = np.array([True, False, True, True, False])

BRACKETS: tuple[Any, ...] = (
    2, -1, (1, 2), (1, 2, 3), slice(None), slice(1, 4), slice(None, None, 2), slice(None, None, -1), slice(4, 0, -2),
    slice(3, 3), slice(10, 20), (slice(None), 3), (Ellipsis, slice(1, -1)), (slice(None, None, -3), Ellipsis, slice(5, None, -2)),
    None, (None, slice(2), None, 1), (Ellipsis, None), _ROWS, (slice(None), _ROWS), (_ROWS, slice(1, 3)), (_COLUMNS, _ROWS),
    (_ROWS, 2, _ROWS), (slice(None), _ROWS, None, 1), (_COLUMNS, slice(None, None, -1), _ROWS), _MASK, (_MASK, slice(None), -1),
    (slice(1), _ROWS[:0]), _ROWS.reshape(2, 2),
)  # fmt: skip


def _at_least_one(values: Array) -> Array:
    return values.reshape(1) if values.ndim == 0 else values


@level("index")
def test_bracket_indexing(conformance: Kit) -> None:
    """Integers, slices with any step, None, ellipsis, integer arrays, masks."""
    random = conformance.random("getitem")
    cases = []
    for dtype in primary("any", conformance):
        x = array(Tensor((), low=-90, high=90), dtype, (5, 6, 7), random)
        for where in BRACKETS:
            cases.append(
                Case("getitem", lambda v, w=where: getitem(v, w), (x,), {}, lambda v, w=where: _at_least_one(v[w]),  # type: ignore[misc]
                     script=f"x0[{where!r}]")
            )  # fmt: skip
    run(conformance, cases)


@level("index")
def test_bracket_assignment(conformance: Kit) -> None:
    """The same indexes as targets; the rest stays, and of equal targets the last value stays."""
    random = conformance.random("setitem")
    cases = []
    for dtype in primary("any", conformance)[:2]:
        x = array(Tensor((), low=-90, high=90), dtype, (5, 6, 7), random)
        for where in BRACKETS:
            value = array(Tensor((), low=-90, high=90), dtype, x[where].shape[-1:] or (1,), random)

            def assigned(v: Any, w: Any, where: Any = where) -> Any:
                changed = identity(v)
                setitem(changed, where, w)
                return changed, v

            def expected(v: Array, w: Array, where: Any = where) -> Any:
                changed = v.copy()
                if v[where].ndim == 0:
                    w = w[0]
                changed[where] = w
                return changed, v

            cases.append(
                Case("setitem", assigned, (x, value), {}, expected, script=f"x0[{where!r}] = x1; x0")
            )
    run(conformance, cases)


# -- shape operators, sources ---------------------------------------------------------------------------------------
@level("index", cases=sampled("index"))
def test_index_samples(conformance: Kit, case: Operator) -> None:
    """Samples of the records that move elements."""
    check_samples(conformance, case)


@level("index")
def test_sources(conformance: Kit) -> None:
    """Positions and constants."""
    integers = dtypes_for("int", conformance)
    cases = [
        Case(
            "index",
            index,
            ([3, 4, 5], k),
            {},
            lambda s, d: np.indices(s)[d],
            script=f"mf.index([3, 4, 5], {k})",
        )
        for k in range(3)
    ]
    cases += [
        Case("arange", arange, (start, stop, step), {}, lambda *a: np.arange(*a))
        for start, stop, step in ((0, 7, 1), (5, -4, -3), (2, 2, 1))
    ]
    for dtype in integers:
        wanted = Case("index", index, ([7], 0, dtype), {}, lambda s, d, t: np.arange(7).astype(t))
        cases.append(wanted)
    run(conformance, cases)


@level("index")
def test_random_bits(conformance: Kit) -> None:
    """Random numbers have the same bits on every backend: the Philox stream of the seed."""
    drawn = []
    for _ in range(2):
        set_global_seed(1234)
        drawn.append([rand(5, 7), rand(67)])
    for first, second in zip(*drawn, strict=True):
        a, b = first.numpy(), second.numpy()
        if not np.array_equal(a, b):
            raise ConformanceError(f"[rand] on {conformance.name}: other values for the same seed")
        if not ((a >= 0) & (a < 1)).all() or np.unique(a).size < a.size // 2:
            raise ConformanceError(
                f"[rand] {a.size} numbers on {conformance.name}: not in [0, 1), or the same ones again"
            )
    positions = np.arange(35)
    stream = host.apply("uniform", np.int64(1234), np.int64(0), positions, dtype=as_dtype("float32"))
    got = drawn[0][0].numpy().reshape(-1)
    if not np.array_equal(got, stream):
        at = int(np.flatnonzero(got != stream)[0])
        raise ConformanceError(
            f"[rand] float32[5,7] on {conformance.name}: element {at} is {got[at]!r}, the stream has {stream[at]!r}"
        )
