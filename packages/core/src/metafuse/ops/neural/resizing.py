"""Resizing: images, sequences and volumes at another resolution.

What it is: along each dimension in turn, every new element is a weighted sum of a few neighbouring old ones
(``resizing_tables``): an element-wise kernel of reads. The gradient is the same with the transposed table, so it is a sum of
reads as well, never a scatter.
What it is not: sampling at free places (``sampling``), or a layer (``nn.resizing``).
Who calls it: users and ``nn.resizing``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ...dtypes import DType, int32, int64, is_number
from ...errors import ArgumentError, DTypeError, brief
from ...graph.index_map import IndexMap
from ...kernel.expr import Expr, add, axis, cast, const, load
from ...runtime import executor
from ..autograd import no_grad
from ..creation import array
from ..meta import check_flag, check_shape, check_var, gather, with_gradient
from ..precision import in_float32
from ..recipe import recorded
from ..registry import Sample, Tensor, operator
from ..telling import renamed, tells
from . import resizing_oracles as oracles
from .checks import choice, integers, need_ndim
from .resizing_tables import Key, table

__all__ = ["interpolate", "resize", "upsample"]  # and, for adaptive pooling, along

#: mode -> kind of table
MODES = {
    "nearest": "nearest", "linear": "linear", "bilinear": "linear", "trilinear": "linear", "bicubic": "cubic",
    "area": "area",
}  # fmt: skip
#: up to so many old elements per new one are written out; more are summed in a loop
FEW = 6

_IMAGE, _LINE, _VOLUME = Tensor((2, 2, 4, 5)), Tensor((2, 3, 7)), Tensor((1, 2, 3, 4, 2))
_SAMPLES = [
    *(Sample((_IMAGE, (7, 3)), {"mode": mode}) for mode in ("nearest", "bilinear", "bicubic", "area")),
    *(Sample((_IMAGE, (9, 1), None, mode, True)) for mode in ("bilinear", "bicubic")),
    Sample((_IMAGE, 8), {"tf_mode": True}),
    Sample((_IMAGE,), {"scale_factor": 2, "mode": "nearest"}),
    Sample((_IMAGE,), {"scale_factor": (0.5, 3.5)}),
    *(Sample((_LINE, 30), {"mode": mode}) for mode in ("nearest", "linear", "area")),
    *(Sample((_VOLUME, (4, 3, 5)), {"mode": mode}) for mode in ("nearest", "trilinear")),
]


@operator(category="nn", numpy=oracles.interpolate, samples=_SAMPLES,
          source="Keys 1981 for bicubic, with a = -0.75")  # fmt: skip
@in_float32
def interpolate(
    X: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "bilinear",
    align_corners: bool = False,
    tf_mode: bool = False,
) -> Any:
    """Resize the spatial dimensions.

    Args:
        X: ``[batch, channels, ...]`` with one to three spatial dimensions; floating point, but for ``"nearest"``.
        size: new extents, one integer >= 1 or one per dimension.
        scale_factor: instead of ``size``, factors of the extents (rounded down), one or one per dimension.
        mode: ``"nearest"``; ``"linear"``, ``"bilinear"`` or ``"trilinear"``, which are the same; ``"bicubic"`` (two dimensions);
            ``"area"``: the mean of the old elements that a new one covers.
        align_corners: the centres of the first and last elements stay in place; else the borders of the image do.
        tf_mode: neither: new element i lies at ``i * old / new`` (linear modes).

    Beyond the border its element continues. Nothing is smoothed when an image is made smaller, but with ``"area"``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.interpolate(mf.array([[[[0.0, 1.0]]]]), (1, 4)).numpy()
        array([[[[0.  , 0.25, 0.75, 1.  ]]]], dtype=float32)
    """
    X = check_var("interpolate", "X", X)
    need_ndim("interpolate", "X", X, [3, 4, 5], "(batch, channels, ...)")
    kind = MODES[choice("interpolate", "mode", mode, tuple(MODES))]
    old = tuple(X.shape[2:])
    if kind == "cubic" and len(old) != 2:
        raise ArgumentError(f"[interpolate] mode 'bicubic' needs images, got X of shape {tuple(X.shape)}")
    if kind != "nearest" and not X.dtype.is_float:
        raise DTypeError(
            f"[interpolate] mode {mode!r} needs floating point, got {X.dtype}; cast it with .float32()"
        )
    new = _sizes(old, size, scale_factor)
    check_shape("interpolate", [*X.shape[:2], *new])
    if min(old) < 1:
        raise ArgumentError(f"[interpolate] X must not be empty, got shape {tuple(X.shape)}")
    corners, start = (
        check_flag("interpolate", n, v) for n, v in (("align_corners", align_corners), ("tf_mode", tf_mode))
    )
    where = "corners" if corners else "start" if start else "centres"
    for d, (n, m) in enumerate(zip(old, new, strict=True)):
        if n != m:  # else every new element is an old one
            X = along(X, 2 + d, Key(kind, where, n, m))
    return X


def _sizes(old: tuple[int, ...], size: Any, scale_factor: Any) -> tuple[int, ...]:
    """The new extents."""
    if (size is None) == (scale_factor is None):
        raise ArgumentError(
            f"[interpolate] give either size or scale_factor, got size={brief(size)} and scale_factor={brief(scale_factor)}"
        )
    if size is not None:
        return integers("interpolate", "size", size, len(old), 1)
    several = scale_factor if isinstance(scale_factor, (tuple, list)) else [scale_factor] * len(old)
    numbers = all(is_number(f) and f > 0 for f in several)
    if not numbers or len(several) != len(old):
        raise ArgumentError(
            f"[interpolate] scale_factor must be a number > 0 or {len(old)} of them, got {brief(scale_factor)}"
        )
    new = tuple(int(n * f) for n, f in zip(old, several, strict=True))
    if min(new) < 1:
        raise ArgumentError(
            f"[interpolate] nothing would be left of {old} with scale_factor {scale_factor!r}"
        )
    return new


def along(x: Any, dim: int, key: Key, few: int = FEW) -> Any:
    """``x`` with dimension ``dim`` made anew by the table of ``key``; sums of more than ``few`` elements are loops."""
    with no_grad():
        y = _summed(x, dim, key, few)
    return with_gradient(y, [x], "resize", (dim, key), _gradient) if x.dtype.is_float else y


def _gradient(node: Any, upstream: Any) -> list[Any]:
    dim, key = node.sig.attrs
    return [None, along(upstream, dim, key.transpose())]


def _summed(x: Any, dim: int, key: Key, few: int) -> Any:
    # a recording of `compile` asks where arrays come from: there they are made anew
    made = _table.__wrapped__ if executor.watchers else _table
    begin, weights = made(key, x.dtype, few)
    return _read(x, dim, begin, weights)


@lru_cache(maxsize=256)
def _table(key: Key, dtype: DType, few: int) -> tuple[Any, list[Any]]:
    """The first elements to read, and weights: none, one array per element to read, or a single one of two dimensions."""
    first, weights = table(key)
    with no_grad():
        begin = array(first)
        if key.kind == "nearest" and not key.transposed:
            return begin, []
        if weights.shape[1] > few:
            return begin, [array(weights, dtype)]
        columns = np.ascontiguousarray(weights.T)
        return begin, [array(column, dtype) for column in columns]


@recorded
def _read(x: Any, dim: int, begin: Any, weights: list[Any]) -> Any:
    """The sums of what stands at ``begin`` and behind, times ``weights``."""
    count = begin.shape[0]
    shape = tuple(count if d == dim else n for d, n in enumerate(x.shape))
    ones = [1] * (x.ndim - dim - 1)
    start = cast(load(1, int32, axis(dim)), int64)

    def read(more: Expr, shape: tuple[int, ...] = shape) -> Any:
        """``x`` at ``first + more``, which the table says is inside."""
        places = (add(start, more) if d == dim else axis(d) for d in range(x.ndim))
        return gather(x, shape, IndexMap(tuple(places)), [begin], "resize")

    if not weights:
        return read(const(0))
    if weights[0].ndim == 2:
        several = weights[0].shape[1]
        rows = weights[0].reshape([1] * dim + [count, *ones, several])
        return (read(axis(x.ndim), (*shape, several)) * rows).sum(x.ndim)
    y = None
    for k, column in enumerate(weights):
        term = read(const(k)) * column.reshape([1] * dim + [count, *ones])
        y = term if y is None else y + term
    return y


@tells
def resize(
    img: Any, size: Any, mode: str = "nearest", align_corners: bool = False, tf_mode: bool = False
) -> Any:
    """``interpolate`` to ``size``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.resize(mf.ones([1, 1, 2, 2]), (4, 6)).shape
        (1, 1, 4, 6)
    """
    return interpolate(img, size, None, mode, align_corners, tf_mode)


upsample = renamed("upsample", resize)
