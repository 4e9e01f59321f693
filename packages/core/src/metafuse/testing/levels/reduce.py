"""Level "reduce": folds of every kind, shape and length.

What it is: all reductions against NumPy, empty and long ones, NaN and infinities, and the promised accuracy of sums.
What it is not: folds through index expressions (``index``), or fused with others (``fusion``).
Who calls it: ``suite``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...dtypes import as_dtype
from ...kernel.ir import REDUCTIONS
from ...ops.creation import array64, ones
from ...ops.reduce import max as maximum
from ...ops.reduce import mean, reduce
from ...ops.reduce import min as minimum
from ...ops.reduce import sum as total
from ...ops.registry import Operator, Tensor
from ...var import sync
from ..compare import Case, run
from ..errors import ConformanceError
from ..kit import Kit, level
from ..strategies import array, dtypes_for, primary, typed, whole_range
from .index import folded_kinds
from .samples import check_samples, sampled

__all__ = [
    "test_long_sums", "test_reduce", "test_reduce_dtypes", "test_reduce_samples", "test_reduce_specials",
    "test_sums_of_halves",
]  # fmt: skip

#: shape and folded dimensions; rows, columns, middles, several, all, sizes 0 and 1
FOLDS: tuple[tuple[tuple[int, ...], Any], ...] = (
    ((1,), None), ((7,), 0), ((67,), None), ((300,), None), ((5, 3), 0), ((5, 3), 1), ((5, 3), None), ((2, 3, 4), 1),
    ((2, 3, 4), (0, 2)), ((2, 3, 4), (0, 1)), ((3, 1, 2), 1), ((1, 1, 5), (0, 1)), ((2, 3, 2, 3), (1, 3)), ((70, 33), 0),
    ((33, 70), 1), ((0,), None), ((3, 0), 1), ((3, 0), 0), ((0, 4), 0), ((2, 0, 3), (0, 1)),
)  # fmt: skip
OPERATORS = tuple(op for op in REDUCTIONS if op != "void")


def _meaning(op: str) -> Any:
    ufunc = getattr(np, op)

    def fold(x: Any, _: str, dim: Any, keepdims: bool) -> Any:
        return np.asarray(ufunc.reduce(x, axis=dim, keepdims=keepdims))

    return fold


def _legal(op: str, shape: tuple[int, ...], dim: Any) -> bool:
    """Nothing can be picked where there is nothing."""
    dims = range(len(shape)) if dim is None else (dim,) if isinstance(dim, int) else dim
    return op not in ("maximum", "minimum") or all(shape[d] for d in dims)


@level("reduce", cases=lambda: [(op, op) for op in OPERATORS])
def test_reduce(conformance: Kit, case: str) -> None:
    """Every reduction over every choice of dimensions, with and without keeping them."""
    random = conformance.random("reduce", case)
    domain = Tensor((), low=0.5, high=1.5) if case == "multiply" else Tensor((), low=-3, high=3)
    cases = []
    for dtype in primary(folded_kinds(case), conformance):
        for number, (shape, dim) in enumerate(FOLDS):
            if _legal(case, shape, dim):
                x = array(domain, dtype, shape, random)
                cases.append(
                    Case("reduce", reduce, (x, case, dim, number % 2 == 0), {}, _meaning(case), scale=True)
                )
    run(conformance, cases)


@level("reduce")
def test_reduce_dtypes(conformance: Kit) -> None:
    """Every reduction in every dtype (in the quick profile: a third of the pairs); integers wrap around."""
    random = conformance.random("reduce dtypes")
    cases = []
    for number, op in enumerate(OPERATORS):
        dtypes = dtypes_for(folded_kinds(op), conformance)
        for dtype in dtypes if conformance.profile.deep else dtypes[number % 3 :: 3]:
            if as_dtype(dtype).is_integer:
                x = whole_range(dtype, (3, 20), random)
                # in the own type: the oracle's int64 has no room for all of uint64
                expected = getattr(np, op).reduce(x, 1, dtype=None if op.startswith("logical") else x.dtype)
                cases.append(Case("reduce", reduce, (x, op, 1, False), {}, lambda *_, e=expected: e))  # type: ignore[misc]
            else:
                x = array(Tensor((), low=0.5, high=1.5), dtype, (3, 20), random)
                cases.append(Case("reduce", reduce, (x, op, 1, False), {}, _meaning(op), scale=True))
    run(conformance, cases)


@level("reduce", cases=sampled("reduce"))
def test_reduce_samples(conformance: Kit, case: Operator) -> None:
    """Samples of the records that fold or sort."""
    check_samples(conformance, case)


@level("reduce")
def test_reduce_specials(conformance: Kit) -> None:
    """NaN wins wherever it stands; infinities stay; minus zero does no harm."""
    rows = [[1.0, 2.0, 3.0, 4.0, 5.0]] * 8
    x = np.array(rows)
    for row, (place, value) in enumerate(
        [(0, np.nan), (2, np.nan), (4, np.nan), (1, np.inf), (3, -np.inf), (0, -0.0), (4, np.inf)]
    ):
        x[row, place] = value
    x[7, 0], x[7, 4] = np.inf, -np.inf
    wide = np.tile(x, (1, 14))  # 70 columns: more than a vector register
    cases = []
    for dtype in dtypes_for("float", conformance):
        for values in (x, wide):
            for dim in (0, 1, None):
                narrow = typed(values, dtype)
                cases += [
                    Case(name, function, (narrow, dim), {}, lambda v, d, f=fold: np.asarray(f(v, axis=d)), scale=True)  # type: ignore[misc]
                    for name, function, fold in (("max", maximum, np.max), ("min", minimum, np.min), ("sum", total, np.sum))
                ]  # fmt: skip
    run(conformance, cases)


@level("reduce")
def test_long_sums(conformance: Kit) -> None:
    """Means of very many float32 numbers are right to 1e-6, along rows, along columns and over everything."""
    long = 10_000_000
    stored = long if conformance.profile.deep else 500_000
    tenth = np.full(stored, 0.1, np.float32)
    table = conformance.random("long").uniform(0, 1, (stored // 5, 5)).astype(np.float32)
    answers = {
        f"mean of {long} ones": (mean(ones(long)), np.ones(1)),
        f"mean of {stored} times 0.1": (mean(array64(tenth)), tenth[:1]),
        f"sum of {stored} times 0.1": (total(array64(tenth)), np.array([float(tenth[0]) * stored])),
        f"mean of columns of {stored // 5}": (mean(array64(table), 0), table.astype(np.float64).mean(0)),
        f"mean of a table of {stored}": (mean(array64(table)), table.astype(np.float64).mean().reshape(1)),
        f"mean of rows of {stored // 5}": (
            mean(array64(np.ascontiguousarray(table.T)), 1),
            table.astype(np.float64).mean(0),
        ),
    }
    sync([v for v, _ in answers.values()])
    for what, (var, expected) in answers.items():
        got = var.numpy().astype(np.float64)
        error = float(np.max(np.abs(got / expected - 1)))
        if not error <= 1e-6:
            raise ConformanceError(
                f"[mean] {what}, float32 on {conformance.name}: {got.tolist()}, expected {expected.tolist()}: relative error "
                f"{error:.3g} > 1e-6; sums must be carried in blocks or in a wider type"
            )


@level("reduce")
def test_sums_of_halves(conformance: Kit) -> None:
    """Sums of 16-bit floats are carried in float32: 5000 times 0.25 is far beyond what they could count."""
    cases = []
    for dtype in ("float16", "bfloat16"):
        if conformance.supports(dtype):
            x = typed(np.full((3, 5000), 0.25), dtype)
            cases.append(Case("sum", total, (x, 1), {}, lambda v, d: v.sum(d)))
            cases.append(Case("mean", mean, (x,), {}, lambda v: v.mean()))
    run(conformance, cases)
