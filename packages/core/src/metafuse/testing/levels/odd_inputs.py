"""Odd inputs of every record: empty arrays, extents of 1, Vars that are views of others.

What it is: each sample's call with one of its extents replaced by 0 and by 1 wherever it stands, where NumPy has an
answer; and each sample's call with views (every other column, reversed rows, a transposed array) in the place of fresh
arrays. Values and gradients.
What it is not: the choice of samples (the records), or layouts of host memory (``strategies.laid_out``).
Who calls it: ``suite``.

An extent may be bound to a number among the arguments, which NumPy's functions don't always mind: a record may refuse
such a call with ``ArgumentError`` or ``ShapeError``. It must not answer wrongly or fail in any other way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ...errors import ArgumentError, ShapeError
from ...ops.creation import array64
from ...ops.registry import Operator, Sample, Tensor, all_operators
from ...var import Var
from ..compare import Case, run, widened
from ..kit import Kit, level
from ..strategies import dtypes_for, mapped, sample_arguments, sample_tensors
from .autograd import Call, check_calls, first_sample, usual
from .samples import is_possible, pick

__all__ = [
    "check_odd_gradients", "check_resized", "resized", "test_gradient_odd_inputs", "test_resized_samples", "test_views",
    "through_views",
]  # fmt: skip

#: how many samples of a record the quick profile takes
FEW = 2


def records() -> list[tuple[str, Operator]]:
    """Every record with a NumPy meaning that says how to call it."""
    return [(r.name, r) for r in all_operators() if r.numpy is not None and (r.samples or r.arity)]


def differentiable() -> list[tuple[str, Operator]]:
    """Those that have gradients."""
    return [(name, r) for name, r in records() if r.differentiable]


def _samples(record: Operator, kit: Kit) -> tuple[Sample, ...]:
    """The record's samples; for an element-wise one arrays of its domain."""
    if not is_possible(kit, record):
        return ()
    if not record.samples:
        return (first_sample(record),)
    found = tuple(s for s in record.samples if all(dtypes_for(t.dtype, kit) for t in sample_tensors(s)))
    return found if kit.profile.deep else found[:FEW]


# -- other extents ------------------------------------------------------------------------------------------------
def resized(sample: Sample, fixed: Collection[int] = ()) -> Iterator[Sample]:
    """``sample`` with one of its extents, which is not ``fixed``, replaced by 0, and by 1, in all of its arrays.

    Example:
        >>> [s.args[0].shape for s in resized(Sample((Tensor((2, 3)),)))]
        [(0, 3), (1, 3), (2, 0), (2, 1)]
    """
    for old in sorted({n for t in sample_tensors(sample) for n in t.shape if n > 1} - {*fixed}):
        for new in (0, 1):

            def changed(value: Any, old: int = old, new: int = new) -> Any:
                if not isinstance(value, Tensor):
                    return value
                return replace(value, shape=tuple(new if n == old else n for n in value.shape))

            yield Sample(mapped(tuple(sample.args), changed), mapped(dict(sample.kwargs), changed))


def _resized_calls(
    kit: Kit, record: Operator, choose: Callable[[str], str], fixed: Collection[int]
) -> Iterator[Call]:
    """Calls with other extents that NumPy answers and the record takes."""
    for number, sample in enumerate(_samples(record, kit)):
        for place, other in enumerate(resized(sample, fixed)):
            random = kit.random("resized", record.name, number, place)
            try:
                call = Call(record, *sample_arguments(other, choose, random))
                _oracle(call)
            except Exception:  # NumPy's functions refuse with whatever their sources say
                continue
            try:
                call.of_vars(*map(array64, call.arrays))
            except (ArgumentError, ShapeError):
                continue
            yield call


def _oracle(call: Call) -> tuple[Any, ...]:
    """NumPy's answers, in the widest types."""
    return call.of_arrays(*map(widened, call.arrays))


def check_resized(kit: Kit, record: Operator, fixed: Collection[int] = ()) -> None:
    """Values where an extent that is not ``fixed`` is 0 or 1. Element-wise records meet such shapes at their own level."""
    if record.samples:
        calls = _resized_calls(kit, record, lambda kind: pick(kit, kind, "float32"), fixed)
        run(kit, [Case.of(record, call.args, call.kwargs) for call in calls])


@level("fusion", cases=records)
def test_resized_samples(conformance: Kit, case: Operator) -> None:
    """Values where an extent is 0 or 1."""
    check_resized(conformance, case)


# -- views --------------------------------------------------------------------------------------------------------
def _wide(values: Any) -> Any:
    base = np.zeros((*values.shape[:-1], 2 * values.shape[-1] + 1), values.dtype)
    base[..., 1::2] = values
    return base


#: how a view is written -> (the array that it is a view of, the view, of arrays and Vars alike)
VIEWS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "[..., 1::2]": (_wide, lambda base: base[..., 1::2]),
    "[::-1]": (lambda values: values[::-1].copy(), lambda base: base[::-1]),
    ".transpose()": (lambda values: values.T.copy(), lambda base: base.transpose()),
}


def through_views(record: Operator, first: int) -> tuple[Operator, Callable[[Any], Any]]:
    """``record`` with functions that look at their arrays through views, and what makes the arrays to give to them; the first
    array has view number ``first``, each further one the next."""
    kinds = list(VIEWS.values())

    def numbered(rule: Callable[[int, Any], Any]) -> Callable[[Any], Any]:
        def apply(values: Any) -> Any:
            count = iter(range(first, first + 1000))
            return mapped(
                values, lambda v: rule(next(count) % len(kinds), v) if isinstance(v, (np.ndarray, Var)) else v
            )

        return apply

    look = numbered(lambda kind, base: kinds[kind][1](base))

    def looking(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            seen_args, seen_kwargs = look((args, kwargs))
            return function(*seen_args, **seen_kwargs)

        return call

    assert record.numpy is not None
    changed = replace(record, function=looking(record.function), numpy=looking(record.numpy))
    return changed, numbered(lambda kind, values: kinds[kind][0](values))


def _viewed_calls(kit: Kit, record: Operator, choose: Callable[[str], str]) -> Iterator[Call]:
    """Calls of every sample through views, each sample beginning with another view."""
    for number, sample in enumerate(_samples(record, kit)):
        changed, bases = through_views(record, number)
        random = kit.random("views", record.name, number)
        args, kwargs = bases(sample_arguments(sample, choose, random))
        if any(isinstance(v, np.ndarray) for v in _leaves((args, kwargs))):
            yield Call(changed, args, kwargs)


def _leaves(value: Any) -> list[Any]:
    found: list[Any] = []
    mapped(value, found.append)
    return found


@level("fusion", cases=records)
def test_views(conformance: Kit, case: Operator) -> None:
    """Values where the arguments are views."""
    cases = []
    for call in _viewed_calls(conformance, case, lambda kind: pick(conformance, kind, "float32")):
        shown = f"# mf.{case.name} of views {', '.join(VIEWS)} of x0, x1, ... in turn"
        cases.append(replace(Case.of(call.record, call.args, call.kwargs), script=shown))
    run(conformance, cases)


# -- gradients ----------------------------------------------------------------------------------------------------
def check_odd_gradients(kit: Kit, record: Operator, fixed: Collection[int] = ()) -> None:
    """Derivatives with respect to what views look at, and where an extent that is not ``fixed`` is 0 or 1, as far as NumPy's
    answer is a number."""

    def choose(kind: str) -> str:
        return usual(kit, kind)

    calls = list(_viewed_calls(kit, record, choose))
    if record.samples:
        calls += [c for c in _resized_calls(kit, record, choose, fixed) if _finite(c)]
    check_calls(kit, [c for c in calls if any(a.dtype == np.float64 for a in c.arrays)], order=1)


@level("autograd", cases=differentiable)
def test_gradient_odd_inputs(conformance: Kit, case: Operator) -> None:
    """Derivatives where an extent is 0 or 1, and with respect to what views look at."""
    if not conformance.supports("float64"):
        pytest.skip("numeric derivatives need float64, which the backend does not declare")
    check_odd_gradients(conformance, case)


def _finite(call: Call) -> bool:
    """Whether NumPy's answers are numbers, some of them floating."""
    answers = [np.asarray(answer) for answer in _oracle(call)]
    return any(a.dtype.kind == "f" for a in answers) and all(np.isfinite(a).all() for a in answers)
