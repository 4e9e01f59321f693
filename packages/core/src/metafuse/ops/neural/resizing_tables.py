"""Tables of resizing: which old elements a new one is a weighted sum of.

What it is: per new element the number of the first old one and the weights of it and its neighbours, in NumPy, from the
definition of each kind; and the transposed table, for gradients.
What it is not: anything that touches an image.
Who calls it: ``resizing``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

__all__ = ["Key", "table"]

Array = np.ndarray[Any, Any]
_CUBIC = -0.75  # the slope parameter of Keys' kernel that image libraries use


@dataclass(frozen=True)
class Key:
    """One resizing of one dimension.

    ``kind``: nearest, linear, cubic or area. ``where``: how places correspond: corners, centres or start. ``old``, ``new``:
    extents.
    """

    kind: str
    where: str
    old: int
    new: int
    transposed: bool = False

    def transpose(self) -> Key:
        """The table of the gradient."""
        return replace(self, transposed=not self.transposed)


@lru_cache(maxsize=256)
def table(key: Key) -> tuple[Array, Array]:
    """``first`` ``[elements]`` int32 and ``weights`` ``[elements, count]`` float64: element o is the sum over k of
    ``weights[o, k] * input[first[o] + k]``; every index is inside, unused weights are 0."""
    rows, columns, weights = _entries(key)
    if key.transposed:
        return _band(columns, rows, weights, key.old, key.new)
    return _band(rows, columns, weights, key.new, key.old)


def _entries(key: Key) -> tuple[Array, Array, Array]:
    """(new element, old element, weight), flat; a pair may occur several times, its weights add up."""
    if key.kind == "area":
        return _area(key.old, key.new)
    o = np.arange(key.new, dtype=np.int64)
    if key.kind == "nearest":
        corners = key.where == "corners" and key.new > 1
        at = o * (key.old - 1) // (key.new - 1) if corners else o * key.old // key.new
        return o, at, np.ones(key.new)
    place = _places(key, o)
    if key.kind == "linear":
        place = place.clip(0, key.old - 1)
        begin = np.floor(place).astype(np.int64)
        part = place - begin
        taps = [(begin, 1 - part), (begin + 1, part)]
    else:
        begin = np.floor(place).astype(np.int64)
        taps = [(begin + k, _cubic(place - begin - k)) for k in (-1, 0, 1, 2)]
    columns = np.concatenate([i.clip(0, key.old - 1) for i, _ in taps])
    return np.tile(o, len(taps)), columns, np.concatenate([w for _, w in taps])


def _places(key: Key, o: Array) -> Array:
    """Where new elements lie among the old ones."""
    if key.where == "corners":
        return o * ((key.old - 1) / max(1, key.new - 1))
    ratio = key.old / key.new
    # a cubic place is that of the centre also where linear ones start at the corner
    return o * ratio if key.where == "start" and key.kind == "linear" else (o + 0.5) * ratio - 0.5


def _cubic(x: Array) -> Array:
    """Keys' kernel at distance ``x``."""
    x, a = np.abs(x), _CUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _area(old: int, new: int) -> tuple[Array, Array, Array]:
    o = np.arange(new, dtype=np.int64)
    begin, end = o * old // new, -(-(o + 1) * old // new)
    count = end - begin
    rows = np.repeat(o, count)
    columns = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(begin, count)
    return rows, columns, np.repeat(1 / count, count)


def _band(rows: Array, columns: Array, weights: Array, height: int, width: int) -> tuple[Array, Array]:
    """Entries of a ``height`` x ``width`` matrix as bands of one common width."""
    used = weights != 0
    rows, columns, weights = rows[used], columns[used], weights[used]
    first = np.full(height, width, np.int64)
    last = np.full(height, -1, np.int64)
    np.minimum.at(first, rows, columns)
    np.maximum.at(last, rows, columns)
    count = max(1, int((last - first + 1).max(initial=1)))
    first = np.minimum(first, width - count)  # also rows without entries stay inside
    band = np.zeros((height, count))
    np.add.at(band, (rows, columns - first[rows]), weights)
    return first.astype(np.int32), band
