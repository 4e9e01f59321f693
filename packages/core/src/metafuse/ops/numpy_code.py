"""Operators whose body is the user's Python: callbacks that read and write NumPy arrays.

What it is: ``numpy_code``.
What it is not: fast, or inline C++ (``code``); the callback runs on the host whenever the value is computed.
Who calls it: users.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..dtypes import DType, as_dtype, float64, promote
from ..errors import ArgumentError, DTypeError
from ..var import Var
from .elementwise import cast
from .host_parts import Part, host_parts
from .meta import check_shape, check_var

__all__ = ["numpy_code"]

#: called with the module ``numpy`` and a dict of lists of arrays
Callback = Callable[[Any, dict[str, Any]], Any]


def _common(dtypes: Sequence[DType]) -> DType:
    """The type in which several results are kept together."""
    common = dtypes[0]
    for d in dtypes[1:]:
        common = promote(common, d) if d.is_float == common.is_float else float64
    return common


def _run(
    callback: Callback,
    names: Sequence[tuple[str, int]],
    outputs: Sequence[tuple[tuple[int, ...], DType]],
    **more: Any,
) -> Callable[..., Any]:
    """A function of arrays: deals them out under ``names``, calls back, answers what stands in ``outputs``."""

    def function(*arrays: Any) -> Any:
        given = list(arrays)
        data: dict[str, Any] = {name: [given.pop(0) for _ in range(count)] for name, count in names}
        if "dout" in data:
            (data["dout"],) = data["dout"]
        data["outputs"] = [np.zeros(shape, dtype.numpy) for shape, dtype in outputs]
        callback(np, {**data, **more})
        for k, (value, (shape, _)) in enumerate(zip(data["outputs"], outputs, strict=True)):
            if np.shape(value) != shape:
                raise ArgumentError(
                    f"[numpy_code] output {k} must have shape {list(shape)}, the callback left {list(np.shape(value))}"
                )
        return tuple(data["outputs"])

    return function


def _specs(shapes: Any, dtypes: Any) -> tuple[list[tuple[int, ...]], list[DType], bool]:
    """Shapes and dtypes of the results, and whether there is a list of them."""
    several = isinstance(shapes, (tuple, list)) and len(shapes) > 0 and isinstance(shapes[0], (tuple, list))
    listed = list(shapes) if several else [shapes]
    kinds = list(dtypes) if isinstance(dtypes, (tuple, list)) else [dtypes] * len(listed)
    if len(kinds) != len(listed):
        raise ArgumentError(
            f"[numpy_code] needs a dtype per shape, got {len(listed)} shapes and {len(kinds)} dtypes"
        )
    return [check_shape("numpy_code", s) for s in listed], [as_dtype(d) for d in kinds], several


def numpy_code(
    shape: Any,
    dtype: Any,
    inputs: Sequence[Any],
    forward: Callback,
    backward: Sequence[Callback] | Callback = (),
) -> Any:
    """An operator that ``forward`` computes with NumPy on the host.

    Args:
        shape, dtype: of the result; or lists of them, for several results.
        inputs: arrays.
        forward: called as ``forward(numpy, data)``; reads ``data["inputs"]`` and writes into ``data["outputs"]``, which
            are lists of arrays.
        backward: a callback per input. It reads ``data["inputs"]``, ``data["f_outputs"]`` (what ``forward`` computed),
            ``data["dout"]`` (the gradient with respect to result ``data["out_index"]``) and writes the gradient of its input
            into ``data["outputs"][0]``. Without it there is no gradient. A gradient has no gradient of its own.

    Returns:
        Var, or a tuple of Vars if shapes are a list.

    Errors:
        ArgumentError: as many callbacks as inputs are needed; when it runs: an output of another shape.

    Example:
        >>> import metafuse as mf
        >>> def forward(np, data):
        ...     np.square(data["inputs"][0], out=data["outputs"][0])
        >>> def backward(np, data):
        ...     data["outputs"][0][:] = data["dout"] * data["inputs"][0] * 2
        >>> x = mf.array([2.0, 3.0])
        >>> y = mf.numpy_code(x.shape, x.dtype, [x], forward, [backward])
        >>> y.numpy(), mf.grad(y.sum(), x).numpy()
        (array([4., 9.], dtype=float32), array([4., 6.], dtype=float32))
    """
    shapes, dtypes, several = _specs(shape, dtype)
    if not isinstance(inputs, (tuple, list)):
        raise DTypeError(f"[numpy_code] inputs must be a list of arrays, got {type(inputs).__name__}")
    values = [check_var("numpy_code", f"inputs[{k}]", v) for k, v in enumerate(inputs)]
    callbacks = [backward] if callable(backward) else list(backward)
    if not all(callable(f) for f in (forward, *callbacks)) or len(callbacks) not in (0, len(values)):
        raise ArgumentError(
            f"[numpy_code] needs a callback per input for gradients, got {len(callbacks)} for {len(values)}"
        )
    outputs = list(zip(shapes, dtypes))
    kept = _common(dtypes)

    def rule(given: list[Var], results: list[Var], upstream: list[Var]) -> list[Var | None]:
        return [_pulled(f, given, results, upstream, k) for k, f in enumerate(callbacks)]

    function = _run(forward, [("inputs", len(values))], outputs)
    parts = [Part(s) for s in shapes]
    found = host_parts("numpy_code", function, values, parts, kept, rule if callbacks else None)
    answers = tuple(cast(v, d) for v, d in zip(found, dtypes))
    return answers if several else answers[0]


def _pulled(
    callback: Callback, given: list[Var], results: list[Var], upstream: list[Var], k: int
) -> Var | None:
    """The gradient of input ``k``: the sum over all results."""
    target = given[k]
    if not target.dtype.is_float:
        return None
    total: Any = None
    names = [("inputs", len(given)), ("f_outputs", len(results)), ("dout", 1)]
    for number, dout in enumerate(upstream):
        function = _run(callback, names, [(tuple(target.shape), target.dtype)], out_index=number)
        inputs = [*given, *results, dout]
        (part,) = host_parts(
            "numpy_code_gradient", function, inputs, [Part(tuple(target.shape))], target.dtype
        )
        total = part if total is None else total + part
    return total  # type: ignore[no-any-return]
