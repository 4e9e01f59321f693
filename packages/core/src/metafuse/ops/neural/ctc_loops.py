"""The recursions of the CTC loss over time steps, as loops.

What it is: forward values, and the gradient by what was emitted, each in C++ and in NumPy.
What it is not: the loss (``ctc``), whose composition of the same recursion gives gradients of gradients.
Who calls it: ``ctc``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...graph.node import spec_of
from ..native_loop import native_loop

__all__ = ["NEVER", "emitted_gradient", "forward_values"]

Array = np.ndarray[Any, Any]
#: logarithm of "impossible": finite, so that differences of two of them are numbers
NEVER = -1e30

_HEADER = "#include <cmath>\n#include <vector>\n"

_FORWARD = """
typedef in0_type T;
const long steps = in0_shape0, batch = in0_shape1, states = in0_shape2;
const T never = (T)-1e30;
#pragma omp parallel for
for (long b = 0; b < batch; ++b) {
    for (long s = 0; s < states; ++s) @out(0, b, s) = s < 2 ? @in0(0, b, s) : never;
    for (long t = 1; t < steps; ++t) {
        const T *before = &@out(t - 1, b, 0), *emitted = &@in0(t, b, 0);
        T *now = &@out(t, b, 0);
        const bool runs = @in2(b) > t;
        for (long s = 0; s < states; ++s) {
            const T stay = before[s], step = s > 0 ? before[s - 1] : never;
            const T jump = s > 1 && @in1(b, s) ? before[s - 2] : never;
            const T large = stay > step ? stay : step, small = stay > step ? step : stay;
            const T top = large > jump ? large : jump, third = large > jump ? jump : large;
            // one of the three is the top itself; far below it is nothing
            T sum = 1;
            if (small - top > -40) sum += std::exp(small - top);
            if (third - top > -40) sum += std::exp(third - top);
            now[s] = runs ? top + std::log(sum) + emitted[s] : stay;
        }
    }
}
"""

_BACKWARD = """
typedef in0_type T;
const long steps = in0_shape0, batch = in0_shape1, states = in0_shape2;
#pragma omp parallel for
for (long b = 0; b < batch; ++b) {
    std::vector<T> row(states + 2), gain(states + 2);  // two states beyond the end, which nothing reaches
    T *reached = row.data();
    for (long s = 0; s < states; ++s) reached[s] = @in4(steps - 1, b, s);
    for (long t = steps - 1; t > 0; --t) {
        const T *before = &@in0(t - 1, b, 0), *more = &@in4(t - 1, b, 0);
        T *found = &@out(t, b, 0);
        if (@in3(b) <= t) {
            for (long s = 0; s < states; ++s) found[s] = 0, reached[s] += more[s];
            continue;
        }
        for (long s = 0; s < states; ++s) found[s] = reached[s], gain[s] = @in1(t, b, s) - @in0(t, b, s);
        for (long s = 0; s < states; ++s) {
            T sum = more[s];
            if (reached[s] != 0) sum += reached[s] * std::exp(before[s] + gain[s]);
            if (reached[s + 1] != 0) sum += reached[s + 1] * std::exp(before[s] + gain[s + 1]);
            if (reached[s + 2] != 0 && @in2(b, s + 2)) sum += reached[s + 2] * std::exp(before[s] + gain[s + 2]);
            reached[s] = sum;
        }
    }
    for (long s = 0; s < states; ++s) @out(0, b, s) = s < 2 ? reached[s] : 0;
}
"""


def _moved(x: Array, by: int, outside: float) -> Array:
    """``x[:, s + by]``, ``outside`` where there is no such state."""
    moved = np.full_like(x, outside)
    if by < 0:
        moved[:, -by:] = x[:, :by]
    else:
        moved[:, :-by] = x[:, by:]
    return moved


def _forward(emitted: Array, jumps: Array, uses: Array) -> Array:
    rows = np.empty_like(emitted)
    rows[0] = np.where(np.arange(emitted.shape[2]) < 2, emitted[0], NEVER)
    for t in range(1, len(rows)):
        stay = rows[t - 1]
        ways = np.stack([stay, _moved(stay, -1, NEVER), np.where(jumps, _moved(stay, -2, NEVER), NEVER)])
        top = ways.max(0)
        total = top + np.log(np.exp(ways - top).sum(0)) + emitted[t]
        rows[t] = np.where((uses > t)[:, None], total, stay)
    return rows


def _backward(forward: Array, emitted: Array, jumps: Array, uses: Array, upstream: Array) -> Array:
    found = np.zeros_like(emitted)
    reached = upstream[-1].copy()
    for t in range(len(found) - 1, 0, -1):
        runs, before = (uses > t)[:, None], forward[t - 1]
        gain = np.where(runs, emitted[t] - forward[t], NEVER)
        sums = reached * np.exp(before + gain)
        for by in (1, 2):
            target = np.where(jumps, gain, NEVER) if by == 2 else gain
            sums += _moved(reached, by, 0) * np.exp(before + _moved(target, by, NEVER))
        found[t] = np.where(runs, reached, 0)
        reached = np.where(runs, sums, reached) + upstream[t - 1]
    found[0] = np.where(np.arange(found.shape[2]) < 2, reached, 0)
    return found


def forward_values(emitted: Any, jumps: Any, uses: Any) -> Any:
    """``[steps, batch, states]``: log probability of having emitted so many steps and being in a state; a sample that has ended
    stays as it is.

    Args:
        emitted: floating ``[steps, batch, states]``: log probability of what each state emits.
        jumps: bool ``[batch, states]``: whether the state two before leads here.
        uses: int32 ``[batch]``: how many steps count.
    """
    return native_loop("ctc_forward", _FORWARD, _forward, [emitted, jumps, uses], emitted._node.spec, _HEADER)


def emitted_gradient(forward: Any, emitted: Any, jumps: Any, uses: Any, upstream: Any) -> Any:
    """The gradient with respect to ``emitted``: what reaches a state is shared out among the states it came from."""
    inputs = [forward, emitted, jumps, uses, upstream]
    spec = spec_of(tuple(emitted.shape), emitted.dtype)
    return native_loop("ctc_backward", _BACKWARD, _backward, inputs, spec, _HEADER)
