"""Sequences of different lengths as one array.

What it is: compositions of concatenations.
What it is not: recurrent networks (``recurrent``).
Who calls it: users, mostly as the end of a ``collate_batch``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import ArgumentError, ShapeError
from ...var import Var
from ..meta import check_fill, check_flag, check_var, fill
from ..registry import Sample, Tensor, operator
from ..shape import concat, stack

__all__ = ["pad_sequence"]


def _padded(sequences: Any, batch_first: bool = False, padding_value: float = 0.0) -> Any:
    longest = max(len(s) for s in sequences)
    rows = [
        np.pad(s, [(0, longest - len(s)), *[(0, 0)] * (s.ndim - 1)], constant_values=padding_value)
        for s in sequences
    ]
    return np.stack(rows, 0 if batch_first else 1)


@operator(category="nn", numpy=_padded, source="rows of a table filled up", samples=[
    Sample(([Tensor((3,)), Tensor((1,)), Tensor((4,))],)),
    Sample(([Tensor((2, 3)), Tensor((0, 3))], True, -1.5)),
    Sample(([Tensor((2,), "int32", 0, 5), Tensor((3,), "int32", 0, 5)],), {"padding_value": 7}),
])  # fmt: skip
def pad_sequence(sequences: Sequence[Any], batch_first: bool = False, padding_value: float = 0.0) -> Var:
    """Sequences ``[length, ...]`` side by side, filled up to the longest with ``padding_value``.

    Args:
        sequences: list of at least one array; all extents but the first must agree.
        batch_first: answer ``[batch, longest, ...]`` instead of ``[longest, batch, ...]``.
        padding_value: what stands behind the end of shorter ones.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.pad_sequence([mf.array([1, 2, 3]), mf.array([4])], batch_first=True).tolist()
        [[1, 2, 3], [4, 0, 0]]
    """
    batch_first = check_flag("pad_sequence", "batch_first", batch_first)
    if not isinstance(sequences, (list, tuple)) or not sequences:
        shown = "an empty one" if isinstance(sequences, (list, tuple)) else type(sequences).__name__
        raise ArgumentError(f"[pad_sequence] sequences must be a list of arrays, got {shown}")
    found = [check_var("pad_sequence", f"sequences[{k}]", s) for k, s in enumerate(sequences)]
    rest = tuple(found[0].shape[1:])
    for k, s in enumerate(found):
        if not s.ndim or tuple(s.shape[1:]) != rest:
            raise ShapeError(
                f"[pad_sequence] sequences may differ in their first extent only, got sequences[0] {tuple(found[0].shape)} and "
                f"sequences[{k}] {tuple(s.shape)}"
            )
    longest = max(s.shape[0] for s in found)
    values = [check_fill("pad_sequence", "padding_value", padding_value, s.dtype) for s in found]
    full = [
        s if s.shape[0] == longest else concat([s, fill((longest - s.shape[0], *rest), value, s.dtype)], 0)
        for s, value in zip(found, values, strict=True)
    ]
    return stack(full, 0 if batch_first else 1)
