"""What sampling at free places means, in plain NumPy.

What it is: one function per operator of ``sampling`` and ``unpooling``, element by element.
What it is not: fast, or used when a user computes something.
Who calls it: the operator records; through them the conformance kit and the tests.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def _line(n: int, align: bool) -> Array:
    if n == 1:
        return np.zeros(1)
    return np.linspace(-1, 1, n) * (1 if align else (n - 1) / n)


def affine_grid(theta: Array, size: Any, align_corners: bool = False) -> Array:
    """Homogeneous places times the matrices."""
    lines = np.meshgrid(*(_line(n, align_corners) for n in size[2:]), indexing="ij")
    places = np.stack([*lines[::-1], np.ones_like(lines[0])], -1)
    return np.stack([places @ matrix.T for matrix in theta])


def _bring_inside(x: float, n: int, padding: str, align: bool) -> float:
    if padding == "zeros":
        return x
    if padding == "reflection":
        low, high = (0.0, n - 1.0) if align else (-0.5, n - 0.5)
        if low == high:
            return 0.0
        while not low <= x <= high:
            x = 2 * low - x if x < low else 2 * high - x
    return min(max(x, 0.0), n - 1.0)


def _read(x: Array, place: tuple[int, ...]) -> Any:
    inside = all(0 <= p < n for p, n in zip(place, x.shape[1:]))
    at: Any = (slice(None), *place)
    return x[at] if inside else 0.0


def grid_sample(
    x: Array, grid: Array, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool = False
) -> Array:
    """Place by place."""
    out = np.zeros((*x.shape[:2], *grid.shape[1:-1]), x.dtype)
    for at in np.ndindex(*grid.shape[:-1]):
        place = []
        for d, n in enumerate(x.shape[2:]):
            g = grid[at][x.ndim - 3 - d]
            raw = (g + 1) * (n - 1) / 2 if align_corners else (g + 1) * n / 2 - 0.5
            place.append(_bring_inside(raw, n, padding_mode, align_corners))
        target = (at[0], slice(None), *at[1:])
        if mode == "nearest":
            out[target] = _read(x[at[0]], tuple(int(np.rint(p)) for p in place))
            continue
        for corner in itertools.product((0, 1), repeat=len(place)):
            whole = [math.floor(p) for p in place]
            share = math.prod(p - w if c else 1 - p + w for p, w, c in zip(place, whole, corner))
            out[target] += share * _read(x[at[0]], tuple(w + c for w, c in zip(whole, corner)))
    return out


def max_unpool(
    x: Array, indices: Any, kernel_size: Any, stride: Any = None, output_size: Any = None
) -> Array:
    """Every element at its place, zeros elsewhere."""
    spatial, indices = x.ndim - 2, np.asarray(indices)

    def several(v: Any) -> Any:
        return v if isinstance(v, (tuple, list)) else (v,) * spatial

    kernel = several(kernel_size)
    steps = kernel if stride is None else several(stride)
    size = [(n - 1) * s + k for n, s, k in zip(x.shape[2:], steps, kernel)]
    size = size if output_size is None else list(output_size)[-spatial:]
    out = np.zeros((*x.shape[:2], math.prod(size)), x.dtype)
    for at in np.ndindex(*x.shape):
        if 0 <= indices[at] < out.shape[2]:
            out[at[0], at[1], indices[at]] = x[at]
    return out.reshape(*x.shape[:2], *size)
