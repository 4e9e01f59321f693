"""Operators whose body is the user's Python: callbacks that read and write NumPy arrays.

What it is: ``numpy_code``.
What it is not: fast, or inline C++ (``code``); the callback runs on the host whenever the value is computed.
Who calls it: users.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend.contract import host_bytes
from ..dtypes import DType, as_dtype
from ..errors import ArgumentError, DTypeError
from ..graph.node import Spec, spec_of
from ..runtime.opaque import OpaqueCall
from ..var import Var
from .host import host_arrays
from .meta import check_shape, check_var
from .several import attach, places, record_several

__all__ = ["numpy_code"]

#: called with the module ``numpy`` and a dict of lists of arrays
Callback = Callable[[Any, dict[str, Any]], Any]


@dataclass(frozen=True)
class _Call:
    """The attribute of the node: a callback, how its arrays are dealt out, and its results.

    ``names``: (key of the dict, how many arrays); ``number``: which result ``dout`` belongs to, in a gradient."""

    callback: Callback
    names: tuple[tuple[str, int], ...]
    outputs: tuple[Spec, ...]
    number: int | None = None

    def run(self, call: OpaqueCall) -> None:
        """Copy in, call back, copy out; several results lie one after another."""
        arrays = host_arrays(call.backend, call.inputs)
        offsets, total = places(self.outputs)
        whole = np.zeros(total, np.uint8)
        for at, spec, value in zip(offsets, self.outputs, self._results(arrays), strict=True):
            encoded = np.ascontiguousarray(spec.dtype.encode(value))
            whole[at : at + spec.nbytes] = encoded.reshape(-1).view(np.uint8)
        if total:
            call.backend.copy_in(call.output[0].handle, host_bytes(whole))

    def _results(self, arrays: list[Any]) -> list[Any]:
        given = iter(arrays)
        data: dict[str, Any] = {name: [next(given) for _ in range(count)] for name, count in self.names}
        if self.number is not None:
            (data["dout"],) = data["dout"]
            data["out_index"] = self.number
        data["outputs"] = [np.zeros(spec.shape, spec.dtype.numpy) for spec in self.outputs]
        self.callback(np, data)
        found = list(data["outputs"])
        if len(found) != len(self.outputs):
            raise ArgumentError(
                f"[numpy_code] {len(self.outputs)} outputs are needed, the callback left {len(found)}"
            )
        for k, (value, spec) in enumerate(zip(found, self.outputs, strict=True)):
            if np.shape(value) != spec.shape:
                raise ArgumentError(
                    f"[numpy_code] output {k} must have shape {list(spec.shape)}, the callback left {list(np.shape(value))}"
                )
        return found


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
    shape: Any = None,
    dtype: Any = None,
    inputs: Any = (),
    forward: Any = None,
    backward: Sequence[Callback] | Callback = (),
    *,
    shapes: Any = None,
    dtypes: Any = None,
) -> Any:
    """An operator that ``forward`` computes with NumPy on the host.

    Args:
        shape, dtype: of the result; or lists of them, for several results, which may be called ``shapes`` and ``dtypes``.
        inputs: arrays.
        forward: called as ``forward(numpy, data)``; reads ``data["inputs"]`` and writes into ``data["outputs"]``, which
            are lists of arrays.
        backward: a callback per input. It reads ``data["inputs"]``, ``data["f_outputs"]`` (what ``forward`` computed),
            ``data["dout"]`` (the gradient with respect to result ``data["out_index"]``) and writes the gradient of its input
            into ``data["outputs"][0]``. It is called once per result that a loss depends on. Without it there is no gradient.
            A gradient has no gradient of its own.

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
    listed, kinds, several = _specs(shape if shapes is None else shapes, dtype if dtypes is None else dtypes)
    if not isinstance(inputs, (tuple, list)):
        raise DTypeError(f"[numpy_code] inputs must be a list of arrays, got {type(inputs).__name__}")
    values = [check_var("numpy_code", f"inputs[{k}]", v) for k, v in enumerate(inputs)]
    if not callable(backward) and not isinstance(backward, (list, tuple)):
        raise DTypeError(f"[numpy_code] backward must be a list of functions, got {type(backward).__name__}")
    callbacks = [backward] if callable(backward) else list(backward)
    if not all(callable(f) for f in (forward, *callbacks)) or len(callbacks) not in (0, len(values)):
        raise ArgumentError(
            f"[numpy_code] needs a callback per input for gradients, got {len(callbacks)} for {len(values)}"
        )
    specs = tuple(spec_of(s, d) for s, d in zip(listed, kinds, strict=True))
    nodes = [v._node for v in values]
    results = record_several("numpy_code", _Call(forward, (("inputs", len(values)),), specs), nodes, specs)
    if callbacks:
        results = attach("numpy_code", results, nodes, _pulled, tuple(callbacks))
    return tuple(results) if several else results[0]


def _pulled(
    callbacks: Any,
    number: int,
    inputs: list[Var],
    results: list[Var],
    upstream: Var,
    scalars: tuple[Any, ...],
) -> list[Var | None]:
    """What the callbacks make of the gradient of one result."""
    names = (("inputs", len(inputs)), ("f_outputs", len(results)), ("dout", 1))
    nodes = [x._node for x in (*inputs, *results, upstream)]
    found: list[Var | None] = []
    for callback, x in zip(callbacks, inputs, strict=True):
        if not x.dtype.is_float:
            found.append(None)
            continue
        call = _Call(callback, names, (x._node.spec,), number)
        found += record_several("numpy_code_gradient", call, nodes, call.outputs)
    return found
