"""Level "autograd": the gradient of every differentiable record against central differences in float64.

What it is: first derivatives of all records, second derivatives of the element-wise ones (of all, in the deep profile).
What it is not: values; the levels below have settled those.
Who calls it: ``suite``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ...ops.registry import Operator, all_operators
from ...var import Var, sync
from ..compare import literal, quiet, results
from ..errors import ConformanceError
from ..gradients import Check, GradientError, check_grads
from ..kit import Kit, level
from ..strategies import SHIFTS, array, dtypes_for, mapped, sample_arguments, sample_tensors

__all__ = ["Call", "check_calls", "test_gradient_elementwise", "test_gradient_samples", "usual"]


def elementwise() -> list[tuple[str, Operator]]:
    """Differentiable records with a domain."""
    return [(r.name, r) for r in all_operators() if r.differentiable and r.arity > 0]


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
