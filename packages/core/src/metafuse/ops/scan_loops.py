"""Running sums, products, maxima and minima as loops: in C++ within vector registers, in NumPy ``accumulate``.

What it is: scans of ``[outer, n, inner]`` along the middle, without gradient: ``running`` values, ``running_places`` of extremes,
and ``running_log_sums`` of exponentials.
What it is not: operators with their types and gradients (``scan``).
Who calls it: ``scan``.

Sums and products of float32 are carried in float64. A long row of sums is cut into parts of a fixed length, whose totals are
scanned first: threads share a row, and its result does not depend on how many there are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ..dtypes import DType, as_dtype, int32
from ..graph.node import spec_of
from .native_loop import native_loop
from .scan_texts import KEYS, LOG_SUMS, PLACES, PLAIN, SOURCE, VALUES, VECTORS

__all__ = ["running", "running_log_sums", "running_places"]

Array = np.ndarray[Any, Any]

#: operator -> how two neighbours are joined, and what joins without effect; of extremes those are keys, see ``scan_texts.KEYS``
_OPERATORS = {
    "add": ("a + b", "Wide(-0.0)"),
    "multiply": ("a * b", "Wide(1)"),
    "maximum": ("a > b ? a : b", "numeric_limits<Wide>::min()"),
    "minimum": ("a > b ? a : b", "numeric_limits<Wide>::min()"),
}


def _wide(op: str, kind: DType) -> str:
    """The type that values are carried in. Integers wrap, which C++ grants to unsigned ones; extremes are of keys."""
    if op in ("add", "multiply"):
        return "float64" if kind.is_float else "uint32" if kind.itemsize <= 4 else "uint64"
    return "int32" if kind.itemsize <= 4 else "int64"


@lru_cache(maxsize=64)
def _header(op: str, kind: DType, loops: str) -> str:
    """The whole header; one object, whose hash is known, for equal calls."""
    how, begin = _OPERATORS[op]
    # a product may overflow that would not together with what came before: of two float64, of nine float32
    exact = op == "multiply" and kind.is_float
    wide = _wide(op, kind)
    defined = {
        "WIDE": wide, "WIDE_BYTES": as_dtype(wide).itemsize, "BEGIN": begin, "HOW": how,
        "FLOATING": int(kind.is_float), "DOWN": int(op == "minimum"), "VECTORS": int(not exact or kind.itemsize == 4),
        "PART": 1 << 60 if exact else 1 << 14,
        "SAME(x)": "(x)" if loops is VALUES else "((x) + T(0))",  # places: the two zeros are equal
    }  # fmt: skip
    between = PLAIN if op in ("add", "multiply") else KEYS
    return "".join(f"#define {name} {value}\n" for name, value in defined.items()) + VECTORS + between + loops


@lru_cache(maxsize=64)
def _values(op: str, wide: str) -> Any:
    """The values in NumPy, carried in ``wide``."""

    def scan(x: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(getattr(np, op).accumulate(x.astype(wide or x.dtype), 1).astype(x.dtype))

    return scan


def _places(x: Array, largest: int) -> Array:
    """The places in NumPy."""
    running = (np.maximum if largest else np.minimum).accumulate(x, 1)
    hit = (x == running) | (x != x)
    return np.asarray(
        np.maximum.accumulate(np.where(hit, np.arange(x.shape[1])[:, None], -1), 1).astype(np.int32)
    )


def _log_sums(x: Array) -> Array:
    """The logarithms in NumPy."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.logaddexp.accumulate(x.astype(np.float64), 1).astype(x.dtype))


def running(x: Any, op: str) -> Any:
    """The scan of ``x`` along its second of three dimensions.

    Args:
        x: ``[outer, n, inner]``, of integers, float32 or float64.
        op: ``"add"``, ``"multiply"``, ``"maximum"`` or ``"minimum"``.
    """
    header, function = (
        _header(op, x.dtype, VALUES),
        _values(op, _wide(op, x.dtype) if op in ("add", "multiply") else ""),
    )
    return native_loop(f"running_{op}", SOURCE, function, [x], x._node.spec, header)


def running_places(x: Any, op: str) -> Any:
    """int32 places of running maxima or minima along the second of three dimensions, the latest of equal ones; with NaN above
    all: from the first one on the latest one.

    Args:
        x, op: as in ``running``; ``"maximum"`` or ``"minimum"``.
    """
    spec, header = spec_of(tuple(x.shape), int32), _header(op, x.dtype, PLACES)
    return native_loop(f"places_{op}", SOURCE, _places, [x], spec, header, largest=int(op == "maximum"))


def running_log_sums(x: Any) -> Any:
    """Logarithms of running sums of exponentials along the second of three dimensions; ``x`` is float32 or float64."""
    return native_loop("running_log_sums", SOURCE, _log_sums, [x], x._node.spec, LOG_SUMS)
