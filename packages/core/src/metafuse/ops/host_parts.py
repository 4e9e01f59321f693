"""Host functions with several, and with complex, results.

What it is: ``host_parts`` records one opaque node whose stored value is all results one after another, and answers them as
Vars (or ``ComplexNumber``s) that are pieces of it. One call of a library, one gradient rule that sees all results together.
What it is not: a way to call Python per element, or something a user needs.
Who calls it: ``factorise``, ``solve``, ``fourier``, ``incomplete_gamma``, and ``loss3d.emd`` for its matching.

A rule composes ordinary operators, so gradients of gradients follow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ..dtypes import DType
from ..errors import ArgumentError
from ..graph.node import Node, signature, spec_of
from ..var import Var, record, wrap
from .complex_number import ComplexNumber
from .host import HostFunction
from .meta import piece

__all__ = ["Part", "Rule", "host_parts"]

Array = np.ndarray[Any, Any]
Value = Any  # Var or ComplexNumber
#: called with inputs, results, upstream gradients and the options; answers one gradient or None per input
Rule = Callable[..., Sequence[Value]]


@dataclass(frozen=True)
class Part:
    """One result: its shape, and whether it is complex."""

    shape: tuple[int, ...]
    is_complex: bool = False

    @property
    def size(self) -> int:
        """Real numbers it takes."""
        return prod(self.shape) * (2 if self.is_complex else 1)


@dataclass(frozen=True)
class _Packed:
    """The function of the node: whole arrays in, one flat array out. ``complex_inputs`` says which inputs are pairs."""

    op: str
    function: Callable[..., Any]
    complex_inputs: tuple[bool, ...]
    parts: tuple[Part, ...]
    dtype: DType
    rule: Rule | None

    def __call__(self, *arrays: Array, **options: Any) -> Array:
        given = list(arrays)
        whole = [given.pop(0) + 1j * given.pop(0) if pair else given.pop(0) for pair in self.complex_inputs]
        try:
            with np.errstate(all="ignore"):
                answer = self.function(*whole, **options)
        except np.linalg.LinAlgError as error:
            raise ArgumentError(f"[{self.op}] {str(error).lower()}; check the values of its input") from None
        pieces: list[Array] = []
        for part, result in zip(self.parts, answer if isinstance(answer, tuple) else (answer,), strict=True):
            result = np.reshape(result, part.shape)
            pieces += [result.real.ravel(), result.imag.ravel()] if part.is_complex else [result.ravel()]
        return np.concatenate(pieces).astype(self.dtype.numpy, copy=False)

    def inputs(self, nodes: Sequence[Node]) -> list[Value]:
        """The inputs as handles."""
        given = [wrap(n) for n in nodes]
        return [
            ComplexNumber(given.pop(0), given.pop(0)) if pair else given.pop(0)
            for pair in self.complex_inputs
        ]

    def unpack(self, flat: Var) -> list[Value]:
        """The results, or their gradients, from the flat array."""
        found: list[Value] = []
        start = 0
        for part in self.parts:
            size = prod(part.shape)
            if part.is_complex:
                found.append(
                    ComplexNumber(piece(flat, start, part.shape), piece(flat, start + size, part.shape))
                )
            else:
                found.append(piece(flat, start, part.shape))
            start += part.size
        return found


def _gradient(node: Node, upstream: Var) -> list[Var | None]:
    host: HostFunction = node.sig.attrs
    packed: Any = host.function
    results, gradients = packed.unpack(wrap(node)), packed.unpack(upstream)
    answers = packed.rule(packed.inputs(node.inputs), results, gradients, **dict(host.options))
    flat: list[Var | None] = []
    for pair, g in zip(packed.complex_inputs, answers, strict=True):
        if pair:
            flat += [None, None] if g is None else [g.real, g.imag]
        else:
            flat.append(g)
    return flat


def host_parts(
    op: str,
    function: Callable[..., Any],
    inputs: Sequence[Value],
    parts: Sequence[Part],
    dtype: DType,
    rule: Rule | None = None,
    options: tuple[tuple[str, Any], ...] = (),
) -> list[Value]:
    """Record ``function(*arrays, **options) -> array or tuple of arrays`` as one opaque node.

    Args:
        op: the operator's name in messages.
        function: of NumPy arrays (complex ones for a ``ComplexNumber``); a module-level function, so that equal calls
            compile once. ``LinAlgError`` becomes an ``ArgumentError``.
        inputs: Vars and ComplexNumbers of a common dtype.
        parts: the results' shapes.
        dtype: element type of all results.
        rule: the gradient, a module-level function; ``None``: there is none.
        options: further keyword arguments, part of the program.

    Returns:
        One Var or ComplexNumber per part.
    """
    given: list[Node] = []
    for x in inputs:
        given += [x.real._node, x.imag._node] if isinstance(x, ComplexNumber) else [x._node]
    pairs = tuple(isinstance(x, ComplexNumber) for x in inputs)
    packed = _Packed(op, function, pairs, tuple(parts), dtype, rule)
    spec = spec_of((sum(p.size for p in parts),), dtype)
    sig = signature(
        "opaque",
        op,
        HostFunction(packed, options),
        tuple(n.spec for n in given),
        spec,
        None,
        (),
        None if rule is None else _gradient,
    )
    return packed.unpack(record(sig, tuple(given)))
