"""Unpooling: elements put back to where a maximum pooling took them from.

What it is: one scatter.
What it is not: a layer (``nn.pooling``).
Who calls it: users and ``nn.pooling``.
"""

from __future__ import annotations

from math import prod
from typing import Any

from ...errors import DTypeError, ShapeError
from ..meta import check_var
from ..registry import Sample, Tensor, operator
from . import sampling_oracles as oracles
from .checks import integers, need_ndim

__all__ = ["max_unpool"]


_PLACES = [[[[0, 5, 7], [13, 21, 16]], [[3, 8, 10], [1, 23, 18]]]]
_SAMPLES = [
    Sample((Tensor((1, 2, 2, 3)), _PLACES, 2)),
    Sample((Tensor((1, 2, 2, 3)), _PLACES, 2), {"stride": 3, "output_size": (1, 2, 5, 6)}),
    Sample((Tensor((1, 2, 1, 2, 3)), [[[part] for part in _PLACES[0]]], 2)),
]


@operator(category="nn", numpy=oracles.max_unpool, source="Zeiler and Fergus 2014", samples=_SAMPLES)
def max_unpool(x: Any, indices: Any, kernel_size: Any, stride: Any = None, output_size: Any = None) -> Any:
    """Zeros, with the elements of ``x`` at the places that maximum pooling answered.

    Args:
        x: ``[batch, channels, ...]`` with two or three spatial dimensions.
        indices: integers of the same shape: numbers of elements of a channel, row by row; one outside is left out.
        kernel_size, stride: of the pooling; ``stride=None`` means ``kernel_size``.
        output_size: the spatial extents before pooling (more extents before them are accepted), where they can't be told:
            ``None`` means ``(extent - 1) * stride + kernel_size``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.max_unpool(mf.array([[[[5.0]]]]), mf.array([[[[3]]]]), 2).numpy()
        array([[[[0., 0.],
                 [0., 5.]]]], dtype=float32)
    """
    x, indices = check_var("max_unpool", "x", x), check_var("max_unpool", "indices", indices)
    need_ndim("max_unpool", "x", x, [4, 5], "(batch, channels, [depth,] height, width)")
    if not indices.dtype.is_integer:
        raise DTypeError(f"[max_unpool] indices must be integers, got {indices.dtype}; cast it with .int32()")
    if tuple(indices.shape) != tuple(x.shape):
        raise ShapeError(
            f"[max_unpool] indices must have the shape of x {tuple(x.shape)}, got {tuple(indices.shape)}"
        )
    spatial = x.ndim - 2
    kernel = integers("max_unpool", "kernel_size", kernel_size, spatial, 1)
    step = kernel if stride is None else integers("max_unpool", "stride", stride, spatial, 1)
    size = tuple((n - 1) * s + k for n, s, k in zip(x.shape[2:], step, kernel, strict=True))
    if output_size is not None:
        given = list(output_size)[-spatial:] if isinstance(output_size, (tuple, list)) else output_size
        size = integers("max_unpool", "output_size", given, spatial, 1)
    here = ",".join(f"i{d}" for d in range(x.ndim))
    flat = x.reindex_reduce(
        "void", [x.shape[0], x.shape[1], prod(size)], ["i0", "i1", f"@e0({here})"], [], [indices]
    )
    return flat.reshape([*x.shape[:2], *size])
