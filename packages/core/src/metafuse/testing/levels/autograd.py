"""Level "autograd": the gradient of every differentiable record against central differences in float64.

What it is: first derivatives of all records, second derivatives of the element-wise ones (of all, in the deep profile).
What it is not: values; the levels below have settled those.
Who calls it: ``suite``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ...ops.registry import Operator, Sample, all_operators
from ...var import Var
from ..compare import ConformanceError, literal, results
from ..gradients import GradientError, check_grads
from ..kit import Kit, level
from ..strategies import array, dtypes_for, mapped, sample_arguments, sample_tensors

__all__ = ["test_gradient_elementwise", "test_gradient_samples"]


def elementwise() -> list[tuple[str, Operator]]:
    """Differentiable records with a domain."""
    return [(r.name, r) for r in all_operators() if r.differentiable and r.arity > 0]


def sampled() -> list[tuple[str, Operator]]:
    """Differentiable records with samples."""
    return [(r.name, r) for r in all_operators() if r.differentiable and r.samples]


def check(kit: Kit, record: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], order: int) -> None:
    """Gradients with respect to every floating array among the arguments, wherever it stands."""
    arrays: list[Any] = []
    mapped((args, kwargs), lambda v: arrays.append(v) if isinstance(v, np.ndarray) else None)

    def function(*vars_: Var) -> list[Var]:
        rest = iter(vars_)
        a, k = mapped((args, kwargs), lambda v: next(rest) if isinstance(v, np.ndarray) else v)
        return list(results(record.function(*a, **k)))

    try:
        check_grads(function, arrays, order=order, name=record.name, seed=kit.profile.seed)
    except GradientError as error:
        inputs = ", ".join(literal(a) for a in arrays)
        raise ConformanceError(
            f"{error} on {kit.name}\n    import numpy as np\n    import metafuse as mf\n"
            f"    from metafuse.testing import check_grads\n    mf.flags.backend = {kit.name!r}\n"
            f"    # the arrays among the arguments of mf.{record.name}, in order; the others: {_others(args, kwargs)}\n"
            f"    inputs = [{inputs}]"
        ) from None


def _others(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    shown = mapped((args, kwargs), lambda v: "array" if isinstance(v, np.ndarray) else v)
    return f"{shown[0]!r}, {shown[1]!r}"


def _needs_float64(kit: Kit) -> None:
    if not kit.supports("float64"):
        pytest.skip("numeric derivatives need float64, which the backend does not declare")


@level("autograd", cases=elementwise)
def test_gradient_elementwise(conformance: Kit, case: Operator) -> None:
    """First and second derivatives, with and without broadcasting."""
    _needs_float64(conformance)
    random = conformance.random("gradient", case.name)
    patterns = [((3, 4),) * case.arity]
    patterns += [tuple((4,) if j == k else (2, 4) for j in range(case.arity)) for k in range(case.arity - 1)]
    for shapes in patterns:
        args = tuple(
            array(t, "float64" if "float64" in dtypes_for(t.dtype, conformance) else dtypes_for(t.dtype, conformance)[0],
                  shape, random, (k + 1) / (case.arity + 1))
            for k, (t, shape) in enumerate(zip(case.domain, shapes, strict=True))
        )  # fmt: skip
        check(conformance, case, args, {}, order=2)


@level("autograd", cases=sampled)
def test_gradient_samples(conformance: Kit, case: Operator) -> None:
    """Derivatives of every sample that has a floating array."""
    _needs_float64(conformance)
    for number, sample in enumerate(case.samples):
        if not _has_float(conformance, sample):
            continue
        random = conformance.random("gradient", case.name, number)
        args, kwargs = sample_arguments(sample, lambda kind: _float64(conformance, kind), random)
        check(conformance, case, args, kwargs, order=2 if conformance.profile.deep and number == 0 else 1)


def _has_float(kit: Kit, sample: Sample) -> bool:
    return any("float64" in dtypes_for(t.dtype, kit) for t in sample_tensors(sample))


def _float64(kit: Kit, kind: str) -> str:
    allowed = dtypes_for(kind, kit)
    return next((d for d in ("float64", "int32", "bool") if d in allowed), allowed[0])
