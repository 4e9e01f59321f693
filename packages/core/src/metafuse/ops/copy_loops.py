"""Rolled and repeated arrays as plain copies of runs of memory.

What it is: ``rolled`` and ``repeated``, loops without gradient.
What it is not: the operators ``roll`` and ``repeat_interleave``, which read a small array through an index instead.
Who calls it: they, in ``shape`` and ``arrange``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..graph.node import spec_of
from .meta import reshape
from .native_loop import native_loop

__all__ = ["repeated", "rolled"]

Array = np.ndarray[Any, Any]

_HEADER = """
#include <cstring>
typedef in0_type T;
static void copy_run(const T* from, T* to, long long count) {
    if (count >= 32) std::memcpy((void*)to, (const void*)from, count * sizeof(T));
    else for (long long k = 0; k < count; ++k) to[k] = from[k];
}
"""

_REPEATED = """
const long long outer = in0->shape[0], inner = in0->shape[1], count = out->shape[1];
#pragma omp parallel for if (out->num > 65536) schedule(static)
for (long long begin = 0; begin < outer; begin += 1024) {
    const long long end = begin + 1024 < outer ? begin + 1024 : outer;
    const in0_type* const x = in0_p;
    in0_type* const y = out_p;
    if (inner == 1 && count == 2) {
        for (long long i = begin; i < end; ++i) y[2 * i] = y[2 * i + 1] = x[i];
    } else if (inner == 1 && count == 3) {
        for (long long i = begin; i < end; ++i) y[3 * i] = y[3 * i + 1] = y[3 * i + 2] = x[i];
    } else if (inner == 1 && count == 4) {
        for (long long i = begin; i < end; ++i) y[4 * i] = y[4 * i + 1] = y[4 * i + 2] = y[4 * i + 3] = x[i];
    } else if (inner == 1) {
        for (long long i = begin; i < end; ++i)
            for (long long k = 0; k < count; ++k) y[i * count + k] = x[i];
    } else {
        for (long long i = begin; i < end; ++i)
            for (long long k = 0; k < count; ++k) copy_run(x + i * inner, y + (i * count + k) * inner, inner);
    }
}
"""

#: threads share the elements of the result, however long its rows are; SHIFTS are those of dimensions 1, 3, ...
_SOURCE = """
const long long shifts[] = {SHIFTS};
const int rank = in0->shape.size();
const long long inner = in0->shape[rank - 1], span = in0->shape[rank - 2] * inner, turn = shifts[rank / 2 - 1] * inner;
const long long share = in0->num < 16384 ? in0->num : (in0->num + omp_get_max_threads() - 1) / omp_get_max_threads();
#pragma omp parallel for if (in0->num > share) schedule(static)
for (long long begin = 0; begin < in0->num; begin += share) {
    const long long end = begin + share < in0->num ? begin + share : in0->num;
    for (long long at = begin; at < end;) {
        const long long row = at / span, from = at - row * span;
        long long source = 0, rest = row, step = 1;
        for (int d = rank - 3; d >= 0; --d) {
            const long long n = in0->shape[d], place = rest % n;
            rest /= n;
            const long long moved = d % 2 ? place - shifts[d / 2] : place;
            source += (moved < 0 ? moved + n : moved) * step;
            step *= n;
        }
        const bool wraps = from < turn;
        const long long left = (wraps ? turn : span) - from, count = left < end - at ? left : end - at;
        copy_run(in0_p + source * span + from - turn + (wraps ? span : 0), out_p + at, count);
        at += count;
    }
}
"""


def _rolled(x: Array, **shifts: int) -> Array:
    return np.roll(x, tuple(shifts.values()), tuple(range(1, x.ndim, 2)))


@lru_cache(maxsize=16)
def _rolled_source(dims: int) -> tuple[list[str], str]:
    """The names of the shifts of so many dimensions, and the text that reads them."""
    names = [f"shift{k}" for k in range(dims)]
    return names, _SOURCE.replace("SHIFTS", ", ".join(f'(long long)data["{name}"]' for name in names))


def rolled(x: Any, shifts: Sequence[int]) -> Any:
    """``x`` with dimension d moved by ``shifts[d]`` places, from 0 up to the extent exclusively; not all are 0, and there are
    elements."""
    groups, amounts = [1], []  # extents of what stays, and in between of what is rolled
    for extent, shift in zip(x.shape, shifts, strict=True):
        if shift:
            groups += [extent, 1]
            amounts.append(shift)
        else:
            groups[-1] *= extent
    names, source = _rolled_source(len(amounts))
    flat = reshape(x, tuple(groups))
    options = dict(zip(names, amounts, strict=True))
    answer = native_loop("roll", source, _rolled, [flat], flat._node.spec, _HEADER, **options)
    return reshape(answer, tuple(x.shape))


def _repeated(x: Array, count: int) -> Array:
    return np.repeat(x[:, None], count, 1)


def repeated(x: Any, count: int) -> Any:
    """``[outer, inner]`` to ``[outer, count, inner]``."""
    spec = spec_of((x.shape[0], count, x.shape[1]), x.dtype)
    return native_loop("repeat", _REPEATED, _repeated, [x], spec, _HEADER, count=count)
