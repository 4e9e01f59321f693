"""What a Var answers when it is asked for its shape or size.

What it is: a tuple that equals lists, and a number that can be called.
What it is not: a ``Spec``, which the graph works with.
Who calls it: ``var``.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from .errors import DTypeError, ShapeError

__all__ = ["Shape", "Size", "spec_numel"]


class Shape(tuple[int, ...]):
    """Extents of a Var: a tuple that also equals lists."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return tuple.__eq__(self, tuple(other)) if isinstance(other, (tuple, list)) else False

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__

    def numel(self) -> int:
        """Product of the extents."""
        return spec_numel(self)


class Size(int):
    """A number of elements that can be called: ``x.size``, ``x.size()`` and ``x.size(0)`` all have a meaning that users know.

    Example:
        >>> import metafuse as mf
        >>> x = mf.zeros(2, 3)
        >>> x.size == 6, x.size(), x.size(-1)
        (True, (2, 3), 3)
    """

    shape: tuple[int, ...]

    def __new__(cls, shape: tuple[int, ...]) -> Size:
        size = super().__new__(cls, spec_numel(shape))
        size.shape = shape
        return size

    def __call__(self, dim: int | None = None) -> Any:
        """The shape, or the extent of ``dim``."""
        if dim is None:
            return Shape(self.shape)
        try:
            if isinstance(dim, bool):
                raise TypeError
            dim = operator.index(dim)
        except (TypeError, ValueError):
            raise DTypeError(f"[size] dim must be an integer, got {type(dim).__name__}") from None
        ndim = len(self.shape)
        if not -ndim <= dim < ndim:
            raise ShapeError(f"[size] dim must be in {-ndim}..{ndim - 1} for {ndim} dimensions, got {dim}")
        return self.shape[dim]

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)


def spec_numel(shape: Iterable[int]) -> int:
    """Product of extents."""
    size = 1
    for extent in shape:
        size *= extent
    return size
