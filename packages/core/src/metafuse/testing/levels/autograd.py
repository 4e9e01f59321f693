"""Level "autograd": the gradient of every differentiable record against central differences in float64.

What it is: first derivatives of all records, also in the narrower floating types; second derivatives of the element-wise
ones (of all, in the deep profile).
What it is not: values; the levels below have settled those.
Who calls it: ``suite``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from ...ops.autograd import grad
from ...ops.creation import array64
from ...ops.registry import Operator, Sample, all_operators
from ...var import Var, sync
from ..compare import compare, literal, quiet, results
from ..errors import ConformanceError
from ..gradients import Check, GradientError, check_grads
from ..kit import Kit, level
from ..strategies import SHIFTS, array, dtypes_for, mapped, named, sample_arguments, sample_tensors
from .samples import pick

__all__ = [
    "Call", "check_calls", "first_sample", "test_gradient_elementwise", "test_gradient_samples", "test_gradient_types", "usual",
]  # fmt: skip


def elementwise() -> list[tuple[str, Operator]]:
    """Differentiable records with a domain."""
    return [(r.name, r) for r in all_operators() if r.differentiable and r.arity > 0]


#: a gradient goes through more roundings than a value
LOOSER = 8.0


def floating() -> list[tuple[str, Operator]]:
    """Differentiable records that can be called."""
    return [(r.name, r) for r in all_operators() if r.differentiable and (r.samples or r.arity)]


def first_sample(record: Operator) -> Sample:
    """The first sample; for an element-wise record arrays of its domain."""
    return (
        record.samples[0]
        if record.samples
        else Sample(tuple(replace(t, shape=(3, 4)) for t in record.domain))
    )


def sampled() -> list[tuple[str, Operator]]:
    """Differentiable records with samples."""
    return [(r.name, r) for r in all_operators() if r.differentiable and r.samples]


@dataclass
class Call:
    """A call of a record as a function of the arrays among its arguments, wherever they stand."""

    record: Operator
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def arrays(self) -> list[Any]:
        found: list[Any] = []
        mapped((self.args, self.kwargs), lambda v: found.append(v) if isinstance(v, np.ndarray) else None)
        return found

    def _with(self, function: Callable[..., Any], values: tuple[Any, ...]) -> tuple[Any, ...]:
        rest = iter(values)
        args, kwargs = mapped(
            (self.args, self.kwargs), lambda v: next(rest) if isinstance(v, np.ndarray) else v
        )
        return results(function(*args, **kwargs))

    def of_vars(self, *values: Var) -> tuple[Any, ...]:
        return self._with(self.record.function, values)

    def of_arrays(self, *values: Any) -> tuple[Any, ...]:
        assert self.record.numpy is not None
        with quiet():
            return self._with(self.record.numpy, values)

    def reproduction(self, kit: Kit) -> str:
        shown = mapped((self.args, self.kwargs), lambda v: "<array>" if isinstance(v, np.ndarray) else v)
        inputs = ", ".join(map(literal, self.arrays))
        return (
            f"    import base64, zlib\n    import numpy as np\n    import metafuse as mf\n"
            f"    from metafuse.testing import check_grads\n    mf.flags.backend = {kit.name!r}\n"
            f"    # called as mf.{self.record.name}(*{shown[0]!r}, **{shown[1]!r}); the arrays are\n"
            f"    inputs = [{inputs}]"
        )


def check_calls(kit: Kit, calls: list[Call], order: int) -> None:
    """Evaluate the gradients of all calls as one program, then compare each."""
    checks = []
    for call in calls:
        numpy = call.of_arrays if call.record.numpy is not None else None
        checks.append(Check(call.of_vars, call.arrays, numpy, seed=kit.profile.seed, name=call.record.name))
    sync([v for check in checks for v in check.analytic])
    for call, check in zip(calls, checks, strict=True):
        try:
            check.finish()
            if order > 1:
                check_grads(
                    call.of_vars, call.arrays, order=order, seed=kit.profile.seed, name=call.record.name
                )
        except GradientError as error:
            raise ConformanceError(f"{error} on {kit.name}\n{call.reproduction(kit)}") from None


def _needs_float64(kit: Kit) -> None:
    if not kit.supports("float64"):
        pytest.skip("numeric derivatives need float64, which the backend does not declare")


def usual(kit: Kit, kind: str) -> str:
    """float64 where ``kind`` allows it, else what is usual."""
    allowed = dtypes_for(kind, kit)
    return next((d for d in ("float64", "int32", "bool") if d in allowed), allowed[0])


@level("autograd", cases=elementwise)
def test_gradient_elementwise(conformance: Kit, case: Operator) -> None:
    """First and second derivatives, with and without broadcasting."""
    _needs_float64(conformance)
    random = conformance.random("gradient", case.name)
    patterns: list[tuple[tuple[int, ...], ...]] = [((3, 4),) * case.arity]
    patterns += [tuple((4,) if j == k else (2, 4) for j in range(case.arity)) for k in range(case.arity - 1)]
    calls = []
    for shapes in patterns:
        pairs = enumerate(zip(case.domain, shapes, strict=True))
        args = tuple(
            array(t, usual(conformance, t.dtype), shape, random, SHIFTS[k]) for k, (t, shape) in pairs
        )
        calls.append(Call(case, args, {}))
    check_calls(conformance, calls, order=2)


@level("autograd", cases=sampled)
def test_gradient_samples(conformance: Kit, case: Operator) -> None:
    """Derivatives of every sample that has a floating array."""
    _needs_float64(conformance)
    calls = []
    for number, sample in enumerate(case.samples):
        if any("float64" in dtypes_for(t.dtype, conformance) for t in sample_tensors(sample)):
            random = conformance.random("gradient", case.name, number)
            calls.append(Call(case, *sample_arguments(sample, lambda kind: usual(conformance, kind), random)))
    check_calls(conformance, calls, order=2 if conformance.profile.deep else 1)


@level("autograd", cases=floating)
def test_gradient_types(conformance: Kit, case: Operator) -> None:
    """Gradients in every other floating type against those in float64 of the same numbers, which the tests above have settled."""
    _needs_float64(conformance)
    sample = first_sample(case)
    found: list[tuple[str, list[Var], list[Var]]] = []
    for dtype in dtypes_for("float", conformance):
        if dtype == "float64" or not any(
            dtype in dtypes_for(t.dtype, conformance) for t in sample_tensors(sample)
        ):
            continue
        random = conformance.random("gradient types", case.name, dtype)
        args, kwargs = sample_arguments(sample, lambda kind, d=dtype: pick(conformance, kind, d), random)  # type: ignore[misc]
        wide = mapped((args, kwargs), lambda v: v.astype(np.float64) if _is_float(v) else v)
        found.append((dtype, _slopes(case, args, kwargs), _slopes(case, *wide)))
    sync([v for _, got, expected in found for v in (*got, *expected)])
    for dtype, got, expected in found:
        for number, (g, e) in enumerate(zip(got, expected, strict=True)):
            problem = compare(
                named(g.numpy(), g.dtype.name), e.numpy(), conformance, scale=True, factor=LOOSER
            )
            if problem:
                where = f"gradient of floating array {number} in {dtype} on {conformance.name}"
                raise ConformanceError(f"[{case.name}] {where}, first sample: {problem}")


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _slopes(record: Operator, args: Any, kwargs: Any) -> list[Var]:
    """Gradients of the answers' sum, weighted with numbers that every floating type has."""
    held: list[Var] = []

    def leaf(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        var = array64(value)
        if _is_float(value):
            held.append(var)
        return var

    args, kwargs = mapped((args, kwargs), leaf)
    total: Any = None
    for y in results(record.function(*args, **kwargs)):
        if y.dtype.is_float and y.requires_grad:
            weights = 0.5 + (np.arange(y.numel()) % 9).reshape(y.shape) / 8
            part = (y * array64(weights.astype(np.float32)).cast(y.dtype).stop_grad()).sum()
            total = part if total is None else total + part
    if total is None:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of what the answers don't depend on
        return list(grad(total, held))
