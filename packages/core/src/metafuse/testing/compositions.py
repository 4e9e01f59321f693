"""The kit's checks for a function that is no operator record: layers, compositions, methods.

What it is: ``check_composition``, which runs what every record goes through: dtypes, views, empty arrays, extents of 1,
gradients.
What it is not: a test of a backend; any backend will do.
Who calls it: tables of functions and layers in tests, and users for functions of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np

from ..ops.creation import array64
from ..ops.registry import Operator, Sample
from ..var import Var
from .compare import results
from .errors import ConformanceError
from .kit import Kit
from .levels import autograd, odd_inputs
from .levels.samples import check_samples, pick
from .strategies import mapped, sample_arguments

__all__ = ["check_composition"]


def check_composition(
    function: Callable[..., Any],
    oracle: Callable[..., Any],
    samples: Iterable[Sample],
    *,
    gradient: bool = True,
    fixed: Collection[int] = (),
    name: str = "",
    kit: Kit | None = None,
) -> None:
    """Check a function of Vars as the conformance kit checks an operator.

    Args:
        oracle: the same function of arrays, which are given as float64 and int64.
        samples: ways to call it; the first one is tried in every dtype that its tensors allow.
        gradient: compare gradients with central differences of ``oracle``; if not, none of the answers may have any.
        fixed: extents that are not replaced by 0 and 1, since what is called holds arrays that they have to fit.
        name: what messages call the function; default: its own name.
        kit: where to compute; default: the reference backend.

    Errors:
        ConformanceError, which is an AssertionError, says which call differs and how, with a script that shows it again.

    Example:
        >>> import numpy as np
        >>> from metafuse.ops.registry import Sample, Tensor
        >>> check_composition(lambda x: x * x + 1, lambda x: x * x + 1, [Sample((Tensor((2, 3)),))], name="example")
    """
    kit = kit or Kit("reference")
    label = name or getattr(function, "__name__", "function")
    record = Operator(label, "composition", function, oracle, tuple(samples), differentiable=gradient)
    with kit.active():
        check_samples(kit, record)
        odd_inputs.test_views(kit, record)
        odd_inputs.check_resized(kit, record, fixed)
        if gradient:
            autograd.test_gradient_samples(kit, record)
            odd_inputs.check_odd_gradients(kit, record, fixed)
        else:
            _check_no_gradient(kit, record)


def _var(value: Any) -> Any:
    return array64(value) if isinstance(value, np.ndarray) else value


def _check_no_gradient(kit: Kit, record: Operator) -> None:
    for number, sample in enumerate(record.samples):
        args, kwargs = sample_arguments(
            sample, lambda kind: pick(kit, kind, "float32"), kit.random("no gradient", record.name, number)
        )
        args, kwargs = mapped((args, kwargs), _var)
        found = [a for a in results(record.function(*args, **kwargs)) if isinstance(a, Var)]
        if any(a.requires_grad for a in found):
            raise ConformanceError(
                f"[{record.name}] sample {number}: an answer has a gradient path, expected none"
            )
