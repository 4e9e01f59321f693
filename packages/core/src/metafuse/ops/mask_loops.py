"""Where a mask is true, and the elements there, as loops over parts of it that threads share.

What it is: ``true_places`` and ``chosen``; how many there are is counted at once, the rest runs when it is read.
What it is not: operators with their checks and types (``host.nonzero``, ``selection.masked_select``, ``indexing``).
Who calls it: they.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import int32
from ..graph.index_map import IndexMap
from ..graph.node import Node, spec_of
from ..kernel.expr import axis
from ..var import Var, wrap
from .autograd import no_grad
from .creation import array64
from .meta import fill, gather, reshape, with_gradient
from .native_loop import native_loop

__all__ = ["chosen", "true_places"]

Array = np.ndarray[Any, Any]

#: elements of a part; where its results begin is known before they are looked for
PART = 16384

_HEADER = f"""
#include <cstring>
#define PART {PART}LL
static long long stop_of(long long part, long long size) {{ return (part + 1) * PART < size ? (part + 1) * PART : size; }}
// Calls put(k, to) at least for each k where the mask holds, `to` being its number; nothing is put at `end`.
template <class Put>
static inline void each_true(const unsigned char* mask, long long count, long long& to, long long end, Put put) {{
    long long k = 0;
    for (; k + 8 <= count && to + 8 <= end; k += 8) {{
        unsigned long long eight;
        std::memcpy(&eight, mask + k, 8);
        if (eight == 0) continue;
        for (int j = 0; j < 8; ++j) {{
            put(k + j, to);
            to += mask[k + j];
        }}
    }}
    for (; k < count && to < end; ++k) {{
        put(k, to);
        to += mask[k];
    }}
}}
"""

_COUNTS = """
#pragma omp parallel for if (in0->num > 65536) schedule(static)
for (long long part = 0; part < out->num; ++part) {
    const unsigned char* const mask = (const unsigned char*)in0_p;
    const long long stop = stop_of(part, in0->num);
    int total = 0;
    #pragma omp simd reduction(+ : total)
    for (long long k = part * PART; k < stop; ++k) total += mask[k];
    out_p[part] = total;
}
"""

_SHARED = """
#pragma omp parallel for if (in0->num > 16384) schedule(static)
for (long long part = 0; part < in1->num - 1; ++part) {
    const unsigned char* const mask = (const unsigned char*)in0_p;
    const long long stop = stop_of(part, in0->num), end = in1_p[part + 1];
    long long at = part * PART, to = in1_p[part];
    BODY
}
"""

#: AT(to, d): where the place of result `to` in dimension d is written
_PLACES = """
    int place[in0_dim];
    long long rest = at;
    for (int d = in0_dim - 1; d >= 0; --d) {
        place[d] = int(rest % in0->shape[d]);
        rest /= in0->shape[d];
    }
    const int last = in0_dim - 1;
    while (to < end) {
        const int first = place[last];
        const long long row = in0->shape[last] - first, count = row < stop - at ? row : stop - at;
        each_true(mask + at, count, to, end, [&](long long k, long long found) {
            for (int d = 0; d < last; ++d) out_p[AT(found, d)] = place[d];
            out_p[AT(found, last)] = first + int(k);
        });
        at += count;
        place[last] = 0;
        for (int d = last - 1; d >= 0 && ++place[d] == in0->shape[d]; --d) place[d] = 0;
    }
"""
_CHOSEN = """
    const in2_type* const x = in2_p + at;
    in2_type* const y = out_p;
    each_true(mask + at, stop - at, to, end, [=](long long k, long long found) { y[found] = x[k]; });
"""
_SPREAD = """
    for (; at < stop; ++at) {
        const in2_type value = in2_p[mask[at] ? to : 0];
        out_p[at] = mask[at] ? value : in2_type(0);
        to += mask[at];
    }
"""
_COLUMNS = _SHARED.replace("BODY", _PLACES.replace("AT(found, ", "AT(out_shape1, found, "))
_ROWS = _SHARED.replace("BODY", _PLACES)
_ROWS_HEADER = "#define AT(to, d) (to) * in0_dim + (d)\n" + _HEADER
_COLUMNS_HEADER = "#define AT(count, to, d) (d) * (long long)(count) + (to)\n" + _HEADER
_CHOSEN_SOURCE, _SPREAD_SOURCE = _SHARED.replace("BODY", _CHOSEN), _SHARED.replace("BODY", _SPREAD)


# -- the same in NumPy ---------------------------------------------------------------------------------------------
def _counts(mask: Array) -> Array:
    return np.add.reduceat(mask.reshape(-1), np.arange(0, mask.size, PART), dtype=np.int32)


def _rows(mask: Array, starts: Array) -> Array:
    return np.argwhere(mask).astype(np.int32)


def _columns(mask: Array, starts: Array) -> Array:
    return np.stack(np.nonzero(mask)).astype(np.int32)


def _chosen(mask: Array, starts: Array, x: Array) -> Array:
    return np.asarray(x[mask])


def _spread(mask: Array, starts: Array, x: Array) -> Array:
    found = np.zeros(mask.shape, x.dtype)
    found[mask] = x
    return found


# -- nodes ---------------------------------------------------------------------------------------------------------
def _starts(mask: Any) -> tuple[Any, int]:
    """The number of true elements before each part and before the end, and of all; computed now."""
    parts = -(-mask.size // PART)
    found = native_loop("count_true", _COUNTS, _counts, [mask], spec_of((parts,), int32), _HEADER).numpy()
    ends = np.cumsum(found, dtype=np.int64)
    return array64(np.concatenate([np.zeros(1, np.int64), ends])), int(ends[-1])


def true_places(mask: Any, columns: bool = False) -> Any:
    """Where a bool array holds, in row-major order: int32 ``[count, dimensions]``, with ``columns`` ``[dimensions, count]``."""
    shape = (0, mask.ndim)
    if mask.size:
        starts, count = _starts(mask)
        shape = (count, mask.ndim)
    if columns:
        shape = shape[::-1]
    if not shape[0] or not shape[1]:
        return fill(shape, 0, int32)
    source, header, function = (
        (_COLUMNS, _COLUMNS_HEADER, _columns) if columns else (_ROWS, _ROWS_HEADER, _rows)
    )
    return native_loop("true_places", source, function, [mask, starts], spec_of(shape, int32), header)


def chosen(x: Any, mask: Any) -> Any:
    """The elements of ``x`` where ``mask``, bool of the same shape, holds; one dimension."""
    if mask.size:
        starts, count = _starts(mask)
        if count:
            return _take(x, mask, starts, count)
    return gather(reshape(x, (x.size,)), (0,), IndexMap((axis(0),)))


def _take(x: Any, mask: Any, starts: Any, count: int) -> Any:
    with no_grad():
        spec = spec_of((count,), x.dtype)
        answer = native_loop("chosen", _CHOSEN_SOURCE, _chosen, [mask, starts, x], spec, _HEADER)
    inputs = [x, mask, starts]
    return with_gradient(answer, inputs, "chosen", None, _take_rule) if x.dtype.is_float else answer


def _put(x: Any, mask: Any, starts: Any) -> Any:
    """The elements of ``x``, of one dimension, where ``mask`` holds, else 0."""
    with no_grad():
        spec = spec_of(tuple(mask.shape), x.dtype)
        answer = native_loop("spread", _SPREAD_SOURCE, _spread, [mask, starts, x], spec, _HEADER)
    return with_gradient(answer, [x, mask, starts], "spread", None, _put_rule)


def _take_rule(node: Node, upstream: Var) -> list[Var | None]:
    return [None, _put(upstream, wrap(node.inputs[2]), wrap(node.inputs[3])), None, None]


def _put_rule(node: Node, upstream: Var) -> list[Var | None]:
    count = node.inputs[1].spec.shape[0]
    return [None, _take(upstream, wrap(node.inputs[2]), wrap(node.inputs[3]), count), None, None]
