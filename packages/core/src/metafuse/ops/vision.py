"""Boxes, neighbours and image grids.

What it is: ``candidate`` (a choice in which each pick may rule out later ones), ``nms``, ``knn``, ``make_grid``.
What it is not: image files or transforms.
Who calls it: users.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ArgumentError, DTypeError, ShapeError, brief
from ..index import parse_condition
from ..index.evaluate import evaluate
from ..var import Var
from .creation import array, array64
from .meta import (
    check_flag,
    check_integer,
    check_integer_type,
    check_number,
    check_var,
    expand_dims,
    reduce_dims,
)
from .registry import Sample, Tensor, operator
from .reindexing import reindex
from .shape import stack
from .sorting import topk
from .telling import tells

__all__ = ["argmax_pool", "candidate", "knn", "make_grid", "nms"]

_WORDS = {"and": "&&", "or": "||", "not": "!", "i": "i0", "j": "i1"}


def _chosen(count: int, fails: Callable[[int, np.ndarray[Any, Any]], Any]) -> np.ndarray[Any, Any]:
    """Candidates in order, without those that fail against one that was chosen before."""
    chosen = np.empty(count, np.int64)
    size = 0
    for i in range(count):
        if not size or not np.any(fails(i, chosen[:size])):
            chosen[size] = i
            size += 1
    return chosen[:size]


@operator(
    category="indexing", numpy=None, method=True, rebinds=False, differentiable=False, source="greedy choice"
)
@tells
def candidate(x: Any, fail_cond: str, dtype: Any = "int32") -> Var:
    """The numbers of the candidates (rows of ``x``) that are chosen, one after the other; computes ``x`` now.

    Args:
        fail_cond: an expression over ``@x(i, ...)``, elements of the candidate, and ``@x(j, ...)``, of one that was chosen
            before; a candidate for which it is true of any ``j`` is not chosen.
        dtype: the integer type of the answer.

    Errors:
        IndexExpressionError with the position; see ``reindex`` for the language.

    Example:
        >>> import metafuse as mf
        >>> x = mf.array([[3.0], [1.0], [4.0], [5.0]])
        >>> mf.candidate(x, "@x(i, 0) < @x(j, 0)").numpy()
        array([0, 2, 3], dtype=int32)
    """
    x = check_var("candidate", "x", x)
    kind = check_integer_type("candidate", dtype)
    if not isinstance(fail_cond, str):
        raise DTypeError(f"[candidate] fail_cond must be a string, got {type(fail_cond).__name__}")
    text = re.sub(r"\b(and|or|not|i|j)\b", lambda m: _WORDS[m[0]], fail_cond).replace("@x", "@e0")
    condition = parse_condition(text, operator="candidate", axes=2, names={}, extras=[(x.dtype, x.ndim)])
    value = x.numpy()

    def read(number: int, at: tuple[Any, ...]) -> Any:
        if any(np.any((k < 0) | (k >= n)) for k, n in zip(at, value.shape)):
            raise ArgumentError(
                f"[candidate] {fail_cond!r} reads outside of x, whose shape is {list(value.shape)}"
            )
        return value[at]

    found = _chosen(value.shape[0], lambda i, chosen: evaluate(condition, (np.array(i), chosen), read))
    return array64(found.astype(kind.numpy))


def argmax_pool(x: Any, size: Any, stride: Any, padding: Any = 0) -> Var:
    """The largest element of each window of ``[batch, channels, height, width]``; ``max_pool2d`` by another name.

    Example:
        >>> import metafuse as mf
        >>> mf.argmax_pool(mf.ones(1, 1, 4, 4), 2, 2).shape
        (1, 1, 2, 2)
    """
    from .neural.pooling import pool

    return pool(x, size, "maximum", padding, stride)  # type: ignore[no-any-return]


def _nms_oracle(dets: Any, thresh: float) -> Any:
    order = np.argsort(-dets[:, 4], kind="stable")
    kept: list[int] = []
    for i in order:
        x1, y1, x2, y2 = dets[i, :4]
        for j in kept:
            wide = max(0.0, min(x2, dets[j, 2]) - max(x1, dets[j, 0]) + 1)
            high = max(0.0, min(y2, dets[j, 3]) - max(y1, dets[j, 1]) + 1)
            both = wide * high
            areas = (x2 - x1 + 1) * (y2 - y1 + 1) + (dets[j, 2] - dets[j, 0] + 1) * (
                dets[j, 3] - dets[j, 1] + 1
            )
            if both / (areas - both) > thresh:
                break
        else:
            kept.append(int(i))
    return np.array(kept, np.int32)


@operator(
    category="indexing", numpy=_nms_oracle, differentiable=False, source="greedy non-maximum suppression",
    samples=[Sample((Tensor((12, 5), "float64", 0.0, 4.0, distinct=True), 0.3)),
             Sample((Tensor((0, 5), "float64"), 0.5))],
)  # fmt: skip
def nms(dets: Any, thresh: float) -> Var:
    """The numbers of the boxes that stay, best first, when those are dropped that overlap a better one; computes ``dets`` now.

    Args:
        dets: ``[boxes, 5]``: x1, y1, x2, y2 (the last pixel is inside) and score.
        thresh: intersection over union above which the box of the lower score is dropped.

    Returns:
        int32 row numbers of ``dets``.

    Example:
        >>> import metafuse as mf
        >>> boxes = [[0, 0, 9, 9, 0.5], [0, 0, 9, 8, 0.9], [20, 20, 29, 29, 0.4]]
        >>> mf.nms(mf.array(boxes), 0.5).numpy()
        array([1, 2], dtype=int32)
    """
    dets = check_var("nms", "dets", dets)
    limit = float(check_number("nms", "thresh", thresh))
    if dets.ndim != 2 or dets.shape[1] != 5:
        raise ShapeError(
            f"[nms] dets must be [boxes, 5] (x1, y1, x2, y2, score), got shape {list(dets.shape)}"
        )
    values = dets.numpy().astype(np.float64)
    order = np.argsort(-values[:, 4], kind="stable")
    x1, y1, x2, y2 = values[order, :4].T
    area = (x2 - x1 + 1) * (y2 - y1 + 1)

    def overlaps(i: int, j: np.ndarray[Any, Any]) -> Any:
        wide = np.maximum(0, np.minimum(x2[i], x2[j]) - np.maximum(x1[i], x1[j]) + 1)
        high = np.maximum(0, np.minimum(y2[i], y2[j]) - np.maximum(y1[i], y1[j]) + 1)
        return wide * high / (area[i] + area[j] - wide * high) > limit

    with np.errstate(all="ignore"):
        return array(order[_chosen(len(order), overlaps)].astype(np.int32))


def _knn_oracle(unknown: Any, known: Any, k: int) -> Any:
    distance = ((unknown[:, :, None] - known[:, None]) ** 2).sum(-1)
    order = np.argsort(distance, -1, kind="stable")[..., :k]
    return np.take_along_axis(distance, order, -1), order


@operator(
    category="linalg", numpy=_knn_oracle, source="k nearest neighbours by all distances",
    samples=[Sample((Tensor((2, 4, 3)), Tensor((2, 6, 3)), 3)), Sample((Tensor((1, 1, 2)), Tensor((1, 1, 2)), 1))],
)  # fmt: skip
def knn(unknown: Any, known: Any, k: int) -> tuple[Var, Var]:
    """For each point of ``unknown`` the ``k`` nearest points of ``known``, the nearest first.

    Args:
        unknown: ``[batch, n, dimensions]``.
        known: ``[batch, m, dimensions]``.

    Returns:
        (squared distances, int32 places in ``known``), both ``[batch, n, k]``.

    Example:
        >>> import metafuse as mf
        >>> distance, place = mf.knn(mf.array([[[0.0]]]), mf.array([[[3.0], [1.0]]]), 1)
        >>> distance.item(), place.item()
        (1.0, 1)
    """
    a, b = check_var("knn", "unknown", unknown), check_var("knn", "known", known)
    if a.ndim != 3 or b.ndim != 3 or a.shape[0] != b.shape[0] or a.shape[2] != b.shape[2]:
        raise ShapeError(
            f"[knn] unknown and known must be [batch, points, dimensions], got {list(a.shape)} and {list(b.shape)}"
        )
    count = check_integer("knn", "k", k, 1)
    if count > b.shape[1]:
        raise ArgumentError(f"[knn] k must be at most the {b.shape[1]} points of known, got {k}")
    apart = expand_dims(a, [2]) - expand_dims(b, [1])
    return topk(reduce_dims(apart * apart, "add", (3,)), count, -1, False)


def _grid_oracle(
    x: Any,
    nrow: int = 8,
    padding: int = 2,
    normalize: bool = False,
    range: Any = None,
    scale_each: bool = False,
    pad_value: float = 0,
) -> Any:
    x = np.stack(x) if isinstance(x, list) else x
    if normalize:
        folded = (1, 2, 3) if scale_each else None
        low, high = range or (x.min(folded, keepdims=True), x.max(folded, keepdims=True))
        x = (x - low) / (high - low)
    n, c, h, w = x.shape
    columns = min(nrow, n)
    rows = -(-n // columns)
    grid = np.full((c, rows * (h + padding) + padding, columns * (w + padding) + padding), pad_value, x.dtype)
    for k in np.arange(n):
        top, left = k // columns * (h + padding) + padding, k % columns * (w + padding) + padding
        grid[:, top : top + h, left : left + w] = x[k]
    return grid


_IMAGES = Tensor((5, 3, 2, 4), distinct=True)


@operator(
    category="indexing", numpy=_grid_oracle, source="images side by side",
    samples=[Sample((_IMAGES, 3)), Sample((_IMAGES, 2, 0)),
             Sample((_IMAGES,), {"normalize": True, "pad_value": 1.0}), Sample(([Tensor((1, 2, 2))],)),
             Sample((_IMAGES,), {"normalize": True, "scale_each": True}),
             Sample((_IMAGES,), {"normalize": True, "range": (-1.0, 2.0)})],
)  # fmt: skip
@tells
def make_grid(
    x: Any,
    nrow: int = 8,
    padding: int = 2,
    normalize: bool = False,
    range: Any = None,
    scale_each: bool = False,
    pad_value: float = 0,
) -> Var:
    """Images side by side in one image.

    Args:
        x: ``[images, channels, height, width]``, or a list of ``[channels, height, width]``.
        nrow: images per row.
        padding: pixels of ``pad_value`` between images and around them.
        normalize: bring values from ``range`` (low, high), or from the smallest to the largest, to 0..1.
        scale_each: take smallest and largest of each image.

    Returns:
        Var ``[channels, height, width]`` of the whole.

    Example:
        >>> import metafuse as mf
        >>> mf.make_grid(mf.zeros(3, 1, 4, 4), nrow=2, padding=1).shape
        (1, 11, 11)
    """
    x = stack(list(x)) if isinstance(x, (tuple, list)) else check_var("make_grid", "x", x)
    if x.ndim != 4 or not x.shape[0]:
        raise ShapeError(
            f"[make_grid] x must be [images, channels, height, width] with at least one image, got {list(x.shape)}"
        )
    gap = check_integer("make_grid", "padding", padding, 0)
    images, channels, height, width = x.shape
    columns = min(check_integer("make_grid", "nrow", nrow, 1), images)
    rows = -(-images // columns)
    if check_flag("make_grid", "normalize", normalize):
        x = _unit(x, range, check_flag("make_grid", "scale_each", scale_each))
    down, right = height + gap, width + gap
    shape = [channels, rows * down + gap, columns * right + gap]
    number = f"(i1-{gap})/{down}*{columns}+(i2-{gap})/{right}"
    y, z = f"(i1-{gap})%{down}", f"(i2-{gap})%{right}"
    # what lies left of or above the first image would be rounded towards zero, into it
    beside = [f"i1<{gap}", f"i2<{gap}"]
    return reindex(x, shape, [number, "i0", y, z], check_number("make_grid", "pad_value", pad_value), beside)


def _unit(x: Any, limits: Any, each: bool) -> Any:
    """Values from ``limits``, or from the smallest to the largest, brought to 0..1."""
    if limits is None:
        dims = [1, 2, 3] if each else None
        low, high = x.min(dims, keepdims=True), x.max(dims, keepdims=True)
    elif isinstance(limits, (tuple, list)) and len(limits) == 2:
        low, high = (check_number("make_grid", "range", v) for v in limits)
    else:
        raise ArgumentError(f"[make_grid] range must be (low, high), got {brief(limits)}")
    return (x - low) / (high - low)
