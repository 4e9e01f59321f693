"""Level "element-wise": every record that has an arity, on every dtype, shape and special value its domain allows.

What it is: tests generated from the records; a record registered a moment ago is among them.
What it is not: fusion; here each operator stands for itself.
Who calls it: ``suite``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ...dtypes import as_dtype
from ...ops.elementwise import cast
from ...ops.registry import Operator, Tensor, all_operators
from ...ops.scalar import add, expm1, log1p
from ..compare import Case, quiet, run
from ..draws import drawn_checks
from ..kit import Kit, level
from ..strategies import (
    SHAPES,
    SHIFTS,
    array,
    broadcasts,
    calls,
    dtypes_for,
    extremes,
    primary,
    specials,
    typed,
)

__all__ = [
    "test_cast",
    "test_elementwise",
    "test_elementwise_numbers",
    "test_elementwise_random",
    "test_elementwise_specials",
    "test_many_elements",
    "test_near_zero",
    "test_whole_range",
]


def records() -> list[tuple[str, Operator]]:
    """Every element-wise record with a NumPy meaning."""
    return [(r.name, r) for r in all_operators() if r.arity > 0 and r.numpy is not None]


def _arrays(record: Operator, dtypes: list[str], shapes: tuple[Any, ...], random: Any) -> tuple[Any, ...]:
    return tuple(
        array(tensor, dtype, shape, random, SHIFTS[k])
        for k, (tensor, dtype, shape) in enumerate(zip(record.domain, dtypes, shapes, strict=True))
    )


def _dtype_choices(record: Operator, kit: Kit) -> Iterator[tuple[list[str], bool]]:
    """Dtypes per argument, and whether they meet every shape: the usual ones do, in the deep profile all equal ones."""
    kinds = [t.dtype for t in record.domain]
    general = max(kinds, key=lambda k: len(dtypes_for(k, kit)))
    thorough = primary(general, kit)
    for dtype in dtypes_for(general, kit):
        chosen = [dtype if dtype in dtypes_for(k, kit) else _fallback(k, kit) for k in kinds]
        yield chosen, kit.profile.deep or dtype in thorough
    if record.arity > 1:  # two types meet
        few = thorough if not kit.profile.deep else dtypes_for(general, kit)
        for first in few:
            for second in dtypes_for(general, kit):
                if first != second and all(d in dtypes_for(k, kit) for k in kinds for d in (first, second)):
                    yield [first if k % 2 else second for k in range(record.arity)], False


def _fallback(kind: str, kit: Kit) -> str:
    return primary(kind, kit)[0]


@level("element-wise", cases=records)
def test_elementwise(conformance: Kit, case: Operator) -> None:
    """Values of every dtype, and of the usual ones in every shape, against NumPy in float64."""
    random = conformance.random("element-wise", case.name)
    cases = []
    for dtypes, thorough in _dtype_choices(case, conformance):
        combinations = broadcasts(case.arity) if thorough else [(SHAPES[3],) * case.arity]
        for shapes in combinations:
            cases.append(Case.of(case, _arrays(case, dtypes, shapes, random)))
    run(conformance, cases)


@level("element-wise", cases=lambda: [(name, r) for name, r in records() if r.arity > 1])
def test_elementwise_numbers(conformance: Kit, case: Operator) -> None:
    """Python numbers in place of arrays, in every position."""
    random = conformance.random("numbers", case.name)
    cases = []
    for place in range(case.arity):
        for dtype in primary(case.domain[place].dtype, conformance):
            dtypes = [
                dtype if dtype in dtypes_for(t.dtype, conformance) else _fallback(t.dtype, conformance)
                for t in case.domain
            ]
            args = list(_arrays(case, dtypes, ((5, 3),) * case.arity, random))
            args[place] = args[place].reshape(-1)[0].item()
            cases.append(Case.of(case, tuple(args)))
    run(conformance, cases)


@level("element-wise", cases=records)
def test_elementwise_specials(conformance: Kit, case: Operator) -> None:
    """NaN, infinities, signed zeros: what NumPy makes of them."""
    cases = []
    for dtype in dtypes_for("float", conformance):
        args: list[Any] = []
        for k, tensor in enumerate(case.domain):
            if dtype not in dtypes_for(tensor.dtype, conformance):
                args = []
                break
            values = specials(tensor, dtype)
            args.append(values.reshape((1,) * k + (-1,) + (1,) * (case.arity - 1 - k)))
        if args:
            cases.append(Case.of(case, tuple(args)))
    run(conformance, cases)


def whole() -> list[tuple[str, Operator]]:
    """Records that take any integers: most counts of bits to shift by mean nothing."""
    return [(n, r) for n, r in records() if all(t.dtype in ("any", "number", "integral") for t in r.domain)]


@level("element-wise", cases=whole)
def test_whole_range(conformance: Kit, case: Operator) -> None:
    """Integers from end to end of their range, each with each: NumPy in the same type, which wraps around."""
    cases = []
    for dtype in dtypes_for("int", conformance):
        few = extremes(dtype)
        args = tuple(x.reshape(-1) for x in np.meshgrid(*[few] * case.arity))
        assert case.numpy is not None
        with quiet():
            expected = np.asarray(case.numpy(*args))
        if expected.dtype.kind != "f":  # of narrow integers NumPy makes narrow floats
            cases.append(Case(case.name, case.function, args, {}, lambda *_, e=expected: e))  # type: ignore[misc]
    run(conformance, cases)


@level("element-wise")
def test_near_zero(conformance: Kit) -> None:
    """``expm1`` and ``log1p`` keep all digits near 0: compared as multiples of their argument, where they are about 1."""
    cases = []
    for dtype in dtypes_for("float", conformance):
        exponents = np.arange(1.0, 4.0 if as_dtype(dtype).itemsize == 2 else 30.0)
        x = typed(np.concatenate([10.0**-exponents, -(10.0**-exponents)]), dtype)
        cases += [
            Case(
                name,
                lambda v, f=function: f(v) / v,
                (x,),
                {},
                lambda v, f=numpy: f(v) / v,
                script=f"mf.{name}(x0) / x0",
            )
            for name, function, numpy in (("expm1", expm1, np.expm1), ("log1p", log1p, np.log1p))
        ]
    run(conformance, cases)


@level("element-wise")
def test_many_elements(conformance: Kit) -> None:
    """More elements than 16 bits count, in one dimension, in rows and in columns."""
    random, real = conformance.random("many"), Tensor(())
    few, many = (array(real, "float32", (extent,), random) for extent in (3, 70_001))
    cases = [
        Case("add", add, arguments, {}, np.add)
        for arguments in ((many, many), (many[:, None], few[None, :]), (few[:, None], many[None, :]))
    ]
    run(conformance, cases)


@level("element-wise")
def test_cast(conformance: Kit) -> None:
    """From every dtype to every dtype: integers wrap around, floats lose their fraction, anything but 0 is true."""
    random = conformance.random("cast")
    cases = []
    for source in dtypes_for("any", conformance):
        for target in dtypes_for("any", conformance):
            # a float outside of an integer type has no defined value there
            low = 0.0 if target.startswith("uint") and as_dtype(source).is_float else -90.0
            x = array(Tensor((), low=low, high=90), source, (67,), random)
            cases.append(Case("cast", cast, (x, target), {}, _converted, dtype=target))
    run(conformance, cases)


def _converted(x: Any, target: str) -> Any:
    """Via the widest type of the target's kind; comparison narrows it."""
    if as_dtype(target).is_float:
        return x.astype(np.float64)
    return (x != 0) if target == "bool" else x.astype(np.int64)


@level("element-wise")
def test_elementwise_random(conformance: Kit) -> None:
    """Calls of any operator that hypothesis draws: mixed dtypes, broadcast shapes, host arrays of any layout."""
    table = dict(records())

    def check(drawn: tuple[str, list[Any]]) -> None:
        with conformance.active():
            run(conformance, [Case.of(table[drawn[0]], tuple(drawn[1]))])

    strategy = st.sampled_from(sorted(table)).flatmap(
        lambda name: st.tuples(st.just(name), calls(table[name].domain, conformance))
    )
    drawn_checks(conformance, conformance.profile.calls, check, strategy)
