"""The steps of an LSTM as one loop: in C++ the product of a step and everything behind it without a launch in between.

What it is: all values of a sequence that its outputs and its gradient need.
What it is not: the product of the input with its weights, or the gradient (``recurrent_steps``).
Who calls it: ``recurrent_steps``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...graph.node import spec_of
from ..native_loop import native_loop

__all__ = ["lstm_values"]

Array = np.ndarray[Any, Any]

_HEADER = """#include <cmath>
#include <vector>
// in float without a branch, so that the compiler takes many at once: 2^n e^r, r the rest of x by log 2
static inline float mf_exp(float x) {
    float t = x > 88.0f ? 88.0f : x;
    t = t < -87.0f ? -87.0f : t;
    const float n = __builtin_rintf(t * 1.44269504f);
    const float r = (t - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 0.00138145988f;
    p = p * r + 0.00836871658f;
    p = p * r + 0.0416683890f;
    p = p * r + 0.166665211f;
    p = p * r + 0.49999994f;
    p = p * (r * r) + r + 1.0f;
    union { int bits; float value; } power;
    power.bits = ((int)(n != n ? 0.0f : n) + 127) << 23;
    return p * power.value;
}
static inline double mf_exp(double x) { return std::exp(x); }
static inline float mf_tanh(float x) {
    const float a = __builtin_fabsf(x), s = x * x;
    float p = -0.00566697726f;
    p = p * s + 0.0206061769f;
    p = p * s - 0.0537300073f;
    p = p * s + 0.133313313f;
    p = p * s - 0.333332777f;
    const float low = p * (s * x) + x, high = 1.0f - 2.0f / (mf_exp(2.0f * a) + 1.0f);
    return __builtin_copysignf(a > 0.62f ? high : low, x);
}
static inline double mf_tanh(double x) { return std::tanh(x); }
template <class T> static inline T mf_sigmoid(T x) { return 1 / (1 + mf_exp(-x)); }
"""

# Units of hidden elements, as many as fill a vector, with their four gates: the weights of a unit lie in the order in which they
# are read. ROWS samples at once share each vector of weights.
_SOURCE = """
typedef in0_type T;
const int WIDE = 64 / sizeof(T), ROWS = 6;
typedef T V __attribute__((vector_size(64)));
const long steps = in0_shape0, batch = in0_shape1, hidden = in1_shape1;
const bool reverse = data["reverse"] != 0;
const long units = (hidden + WIDE - 1) / WIDE;
std::vector<V> packed(units * hidden * 4);
#pragma omp parallel
{
    #pragma omp for
    for (long u = 0; u < units; ++u)
        for (long k = 0; k < hidden; ++k)
            for (int g = 0; g < 4; ++g) {
                V row;
                for (int l = 0; l < WIDE; ++l) {
                    const long j = u * WIDE + l;
                    row[l] = j < hidden ? in3_p[(g * hidden + j) * hidden + k] : (T)0;
                }
                packed[(u * hidden + k) * 4 + g] = row;
            }
    for (long step = 0; step < steps; ++step) {
        const long t = reverse ? steps - 1 - step : step, last = reverse ? t + 1 : t - 1;
        #pragma omp for
        for (long u = 0; u < units; ++u) {
            const V *weights = packed.data() + u * hidden * 4;
            const int used = (int)(hidden - u * WIDE < WIDE ? hidden - u * WIDE : WIDE);
            for (long first = 0; first < batch; first += ROWS) {
                const T *before[ROWS];
                for (int r = 0; r < ROWS; ++r) {  // a row that there is not is the last one again
                    const long b = first + r < batch ? first + r : batch - 1;
                    before[r] = step ? out_p + ((last * batch + b) * 6 + 5) * hidden : in1_p + b * hidden;
                }
                V sum[ROWS][4];
                for (int r = 0; r < ROWS; ++r) for (int g = 0; g < 4; ++g) sum[r][g] = V{};
                for (long k = 0; k < hidden; ++k) {
                    const V w0 = weights[4 * k], w1 = weights[4 * k + 1], w2 = weights[4 * k + 2], w3 = weights[4 * k + 3];
                    for (int r = 0; r < ROWS; ++r) {
                        const T h = before[r][k];
                        sum[r][0] += h * w0;
                        sum[r][1] += h * w1;
                        sum[r][2] += h * w2;
                        sum[r][3] += h * w3;
                    }
                }
                for (int r = 0; r < ROWS && first + r < batch; ++r) {
                    const long b = first + r, j = u * WIDE;
                    const T *x = in0_p + (t * batch + b) * 4 * hidden + j;
                    const T *c_before = step ? out_p + ((last * batch + b) * 6 + 4) * hidden + j : in2_p + b * hidden + j;
                    T *found = out_p + (t * batch + b) * 6 * hidden + j;
                    T total[4][WIDE];
                    for (int g = 0; g < 4; ++g) for (int l = 0; l < WIDE; ++l) total[g][l] = sum[r][g][l];
                    #pragma omp simd
                    for (int l = 0; l < used; ++l) {
                        const T i = mf_sigmoid(total[0][l] + x[l]), f = mf_sigmoid(total[1][l] + x[hidden + l]);
                        const T g = mf_tanh(total[2][l] + x[2 * hidden + l]), o = mf_sigmoid(total[3][l] + x[3 * hidden + l]);
                        const T c = f * c_before[l] + i * g;
                        found[l] = i;
                        found[hidden + l] = f;
                        found[2 * hidden + l] = g;
                        found[3 * hidden + l] = o;
                        found[4 * hidden + l] = c;
                        found[5 * hidden + l] = o * mf_tanh(c);
                    }
                }
            }
        }
    }
}
"""


def _values(xs: Array, h: Array, c: Array, weight: Array, reverse: int) -> Array:
    steps, (batch, hidden) = xs.shape[0], h.shape
    found = np.empty((steps, batch, 6, hidden), xs.dtype)
    for t in range(steps)[:: -1 if reverse else 1]:
        sums = (xs[t] + h @ weight.T).reshape(batch, 4, hidden)
        i, f, o = (0.5 * (np.tanh(0.5 * sums[:, k]) + 1) for k in (0, 1, 3))
        g = np.tanh(sums[:, 2])
        c = f * c + i * g
        h = o * np.tanh(c)
        found[t] = np.stack([i, f, g, o, c, h], 1)
    return found


def lstm_values(xs: Any, h: Any, c: Any, weight: Any, reverse: bool) -> Any:
    """``[steps, batch, 6, hidden]``: the gates input, forget, cell and output, c and h after every step.

    Args:
        xs: ``[steps, batch, 4 * hidden]``: the input's part of the gates.
        h, c: the first state, ``[batch, hidden]``.
        weight: ``[4 * hidden, hidden]``.
        reverse: begin with the last step.
    """
    steps, batch, _ = xs.shape
    spec = spec_of((steps, batch, 6, h.shape[1]), xs.dtype)
    return native_loop(
        "lstm_steps", _SOURCE, _values, [xs, h, c, weight], spec, _HEADER, reverse=int(reverse)
    )
