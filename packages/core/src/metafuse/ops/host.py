"""Operators that run on the host: what no loop nest says well, and what has a shape only its values know.

What it is: ``argsort`` and ``sort`` through NumPy as opaque nodes with gradients; ``nonzero``, evaluated when called.
What it is not: a general escape hatch for users.
Who calls it: users, ``scalar.where`` with one argument, ``indexing`` for bool masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend.contract import AbstractBackend, host_bytes
from ..dtypes import int32
from ..graph.node import Spec, signature, spec_of
from ..runtime.buffer import Buffer
from ..runtime.opaque import OpaqueCall
from ..var import Var, record
from .creation import array, array64
from .elementwise import cast
from .meta import check_dim, check_flag, check_integer_type, check_var
from .registry import Sample, Tensor, operator

__all__ = ["HostFunction", "argsort", "host_arrays", "host_op", "nonzero", "places", "sort"]


def host_arrays(
    backend: AbstractBackend, inputs: Sequence[tuple[Buffer, Spec]]
) -> list[np.ndarray[Any, Any]]:
    """Copies of what an opaque node reads, of the types in which users see them."""
    backend.synchronize()
    arrays = []
    for buffer, spec in inputs:
        value = np.empty(spec.shape, spec.dtype.storage)
        if value.nbytes:
            backend.copy_out(host_bytes(value), buffer.handle)
        arrays.append(spec.dtype.decode(value))
    return arrays


@dataclass(frozen=True)
class HostFunction:
    """The attribute of an opaque node that calls ``function(*arrays, **options) -> array`` on the host."""

    function: Callable[..., np.ndarray[Any, Any]]
    options: tuple[tuple[str, Any], ...] = ()

    def run(self, call: OpaqueCall) -> None:
        """Copy in, compute, copy out."""
        arrays = host_arrays(call.backend, call.inputs)
        buffer, spec = call.output
        result = np.ascontiguousarray(spec.dtype.encode(self.function(*arrays, **dict(self.options))))
        if result.nbytes:
            call.backend.copy_in(buffer.handle, host_bytes(result))


def host_op(name: str, function: HostFunction, inputs: list[Var], spec: Spec) -> Var:
    """Record a host function without gradient."""
    nodes = tuple(x._node for x in inputs)
    return record(signature("opaque", name, function, tuple(n.spec for n in nodes), spec), nodes)


def _order(x: np.ndarray[Any, Any], dim: int, descending: bool) -> np.ndarray[Any, Any]:
    if descending:  # stable: equal elements keep their order
        flipped = np.flip(x, dim)
        return x.shape[dim] - 1 - np.flip(np.argsort(flipped, axis=dim, kind="stable"), dim)
    return np.argsort(x, axis=dim, kind="stable")


def _oracle(x: Any, dim: int = -1, descending: bool = False) -> Any:
    order = _order(x, dim, descending).astype(np.int32)
    return order, np.take_along_axis(x, order, dim)


_SAMPLES = [
    Sample((Tensor((3, 5), "float", distinct=True),)), Sample((Tensor((3, 5), "float", distinct=True), 0, True)),
    Sample((Tensor((6,), "int"),)),
]  # fmt: skip


@operator(category="sort", numpy=_oracle, samples=_SAMPLES, method=True, rebinds=False)
def argsort(x: Any, dim: int = -1, descending: bool = False, dtype: Any = "int32") -> tuple[Var, Var]:
    """The order that sorts ``x`` along ``dim``, and ``x`` in that order; equal elements keep their order, NaN counts as largest.

    Returns:
        (order as ``dtype``, sorted values), each of the shape of ``x``. Gradients flow through the values.

    Example:
        >>> import metafuse as mf
        >>> order, value = mf.array([3.0, 1.0, 2.0]).argsort()
        >>> order.numpy(), value.numpy()
        (array([1, 2, 0], dtype=int32), array([1., 2., 3.], dtype=float32))
    """
    x = check_var("argsort", "x", x)
    number = check_dim("argsort", dim, x.ndim)
    kind = check_integer_type("argsort", dtype)
    options = (("dim", number), ("descending", check_flag("argsort", "descending", descending)))
    order = host_op("argsort", HostFunction(_order, options), [x], spec_of(tuple(x.shape), int32))
    places = [order if d == number else f"i{d}" for d in range(x.ndim)]
    here = ",".join(f"i{d}" for d in range(x.ndim))
    texts = [f"@e0({here})" if type(p) is Var else p for p in places]
    return cast(order, kind), x.reindex(list(x.shape), texts, 0, [], [order])  # type: ignore[attr-defined]


@operator(
    category="sort",
    numpy=lambda *a, **k: _oracle(*a, **k)[::-1],
    samples=_SAMPLES,
    method=True,
    rebinds=False,
)
def sort(input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> tuple[Var, Var]:
    """``input`` sorted along ``dim``, and the order: (values, int32 places). See ``argsort``.

    Args:
        stable: asks for what is true anyway: equal elements keep their order.

    Example:
        >>> import metafuse as mf
        >>> mf.array([3.0, 1.0, 2.0]).sort(descending=True)[0].numpy()
        array([3., 2., 1.], dtype=float32)
    """
    order, value = argsort(input, dim, descending)
    return value, order


def places(x: Any, dtype: Any = "int32") -> tuple[Var, ...]:
    """Where ``x`` is true (non-zero): one Var per dimension, in row-major order. Computes ``x`` now."""
    kind = check_integer_type("where", dtype)
    found = np.nonzero(check_var("where", "cond", x).numpy())
    return tuple(array64(p.astype(kind.numpy)) for p in found)


@operator(
    category="indexing", numpy=lambda x: np.argwhere(x).astype(np.int32), method=True, rebinds=False,
    differentiable=False, samples=[Sample((Tensor((3, 4), "int", 0, 1),)), Sample((Tensor((5,), "bool"),)),
                                   Sample((Tensor((0, 2), "float"),))],
)  # fmt: skip
def nonzero(x: Any) -> Var:
    """The places of true (non-zero) elements: int32 ``[count, dimensions]`` in row-major order. Computes ``x`` now.

    Example:
        >>> import metafuse as mf
        >>> mf.nonzero(mf.array([[0, 3], [4, 0]])).numpy()
        array([[0, 1],
               [1, 0]], dtype=int32)
    """
    return array(np.argwhere(check_var("nonzero", "x", x).numpy()).astype(np.int32))
