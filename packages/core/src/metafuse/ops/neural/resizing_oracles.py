"""What resizing and sampling mean, in plain NumPy.

What it is: one function per operator of ``resizing`` and ``sampling``, from the definitions, element by element.
What it is not: fast, or used when a user computes something.
Who calls it: the operator records; through them the conformance kit and the tests.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


# -- resize -------------------------------------------------------------------------------------------------------
def _keys(x: float, a: float = -0.75) -> float:
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def _element(line: Array, o: int, m: int, mode: str, align: bool, tf_mode: bool) -> Any:
    """New element ``o`` of ``m`` of ``line`` (its dimension 0)."""
    n = len(line)
    if mode == "area":
        return line[math.floor(o * n / m) : math.ceil((o + 1) * n / m)].mean(0)
    place = o * (n - 1) / max(1, m - 1) if align else (o + 0.5) * n / m - 0.5
    if mode == "nearest":
        return line[(o * (n - 1)) // (m - 1) if align and m > 1 else (o * n) // m]
    if mode == "bicubic":
        begin = math.floor(place)
        return sum(line[min(max(begin + k, 0), n - 1)] * _keys(place - begin - k) for k in (-1, 0, 1, 2))
    if tf_mode and not align:
        place = o * n / m
    place = min(max(place, 0), n - 1)
    begin = math.floor(place)
    return line[begin] * (1 - place + begin) + line[min(begin + 1, n - 1)] * (place - begin)


def interpolate(
    x: Array, size: Any = None, scale_factor: Any = None, mode: str = "bilinear", align_corners: bool = False,
    tf_mode: bool = False,
) -> Array:  # fmt: skip
    """Dimension by dimension, element by element."""
    for d in range(2, x.ndim):
        given = size if size is not None else scale_factor
        given = given[d - 2] if isinstance(given, (tuple, list)) else given
        m = given if size is not None else int(x.shape[d] * given)
        if m == x.shape[d]:
            continue
        line = np.moveaxis(x, d, 0)
        x = np.moveaxis(
            np.stack([_element(line, o, m, mode, align_corners, tf_mode) for o in range(m)]), 0, d
        )
    return x
