"""How ``einops`` handles Vars.

What it is: the subclass of its ``AbstractBackend`` through which the package finds, reshapes, reduces and repeats Vars. The
package finds subclasses by itself.
What it is not: a backend in the sense of metafuse (a device).
Who calls it: ``einops``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from einops._backends import AbstractBackend

from ..ops import creation, shape
from ..ops.einsum import einsum
from ..ops.meta import expand_dims
from ..var import Var

__all__ = ["MetafuseBackend"]


class MetafuseBackend(AbstractBackend):  # type: ignore[misc]
    """Operations on Vars under the names that ``einops`` uses."""

    framework_name = "metafuse"

    def is_appropriate_type(self, tensor: Any) -> bool:
        return isinstance(tensor, Var)

    def from_numpy(self, x: np.ndarray[Any, Any]) -> Var:
        return creation.array(x, x.dtype)

    def to_numpy(self, x: Var) -> np.ndarray[Any, Any]:
        return x.numpy()

    def arange(self, start: int, stop: int) -> Var:
        return creation.arange(start, stop)

    def shape(self, x: Var) -> tuple[int, ...]:
        return tuple(x.shape)

    def reshape(self, x: Var, shape_: Sequence[int]) -> Var:
        return shape.reshape(x, list(shape_))

    def transpose(self, x: Var, axes: Sequence[int]) -> Var:
        return shape.transpose(x, list(axes)) if len(axes) > 1 else x

    def reduce(self, x: Var, operation: str, axes: Sequence[int]) -> Var:
        return getattr(x, operation)(tuple(axes))  # type: ignore[no-any-return]

    def stack_on_zeroth_dimension(self, tensors: list[Var]) -> Var:
        return shape.stack(tensors, 0)

    def add_axis(self, x: Var, new_position: int) -> Var:
        return expand_dims(x, [new_position])

    def add_axes(self, x: Var, n_axes: int, pos2len: Mapping[int, int]) -> Var:
        spread = expand_dims(x, sorted(pos2len))
        return shape.broadcast(spread, [pos2len.get(k, spread.shape[k]) for k in range(n_axes)])

    def tile(self, x: Var, repeats: Sequence[int]) -> Var:
        pairs = [n for r, n in zip(repeats, x.shape, strict=True) for n in (r, n)]
        wide = shape.broadcast(expand_dims(x, range(0, 2 * x.ndim, 2)), pairs)
        return shape.reshape(wide, [r * n for r, n in zip(repeats, x.shape, strict=True)])

    def concat(self, tensors: Sequence[Var], axis: int) -> Var:
        return shape.concat(list(tensors), axis)

    def is_float_type(self, x: Var) -> bool:
        return x.dtype.is_float

    def layers(self) -> Any:
        from .layers import metafuse

        return metafuse

    def einsum(self, pattern: str, *x: Var) -> Var:
        left, arrow, right = pattern.partition("->")
        terms = left.split(",")
        # An operand without axes is a number, which as a Var has one dimension: it multiplies the rest.
        numbers = [v for t, v in zip(terms, x, strict=True) if not t.strip() and v.size == 1]
        rest = [(t, v) for t, v in zip(terms, x, strict=True) if t.strip() or v.size != 1]
        answer: Var | None = None
        if rest:
            answer = einsum(",".join(t for t, _ in rest) + arrow + right, *(v for _, v in rest))
        for v in numbers:
            factor = shape.reshape(v, [1])
            answer = factor if answer is None else answer * factor
        assert answer is not None  # a pattern has at least one operand
        return answer
