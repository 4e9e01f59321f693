"""The loops of ``recurrent_loops`` in C++.

What it is: text. ``HEADER`` has the product of some rows with a unit of weights; ``FORWARD`` and ``BACKWARD`` walk over the
steps, and what a step does with one element stands in ``STEPS`` and ``STEPS_BACK``.
What it is not: the order of arrays and weights, which ``recurrent_loops`` decides.
Who calls it: ``recurrent_loops``.
"""

from __future__ import annotations

__all__ = ["BACKWARD", "FORWARD", "HEADER", "STEPS", "STEPS_BACK"]

# `mf_expf` and `mf_tanhf` are the backend's. A pass takes as many columns of a unit as one vector holds, or four of them where
# there is one gate, for so many rows that all sums stay in registers and share each vector of weights.
HEADER = """#include <cmath>
#include <type_traits>
#include <vector>
typedef in0_type T;
#if defined(__AVX512F__)
#define MF_BYTES 64
#elif defined(__AVX__)
#define MF_BYTES 32
#else
#define MF_BYTES 16
#endif
typedef T V __attribute__((vector_size(MF_BYTES), aligned(sizeof(T)), may_alias));
enum { WIDE = MF_BYTES / (int)sizeof(T), EACH = GATES > 1 ? 1 : 4, PASS = EACH * WIDE, VECTORS = GATES * EACH };
enum { ROWS = (MF_BYTES == 64 ? 24 : 12) / VECTORS, PASSES = SPAN / PASS };
static inline float mf_exponential(float x) { return mf_expf(x); }
static inline double mf_exponential(double x) { return std::exp(x); }
static inline float mf_bent(float x) { return mf_tanhf(x); }
static inline double mf_bent(double x) { return std::tanh(x); }
static inline T mf_sigmoid(T x) { return 1 / (1 + mf_exponential(-x)); }
template <int R>
static void mf_sums(const T *const *rows, const T *weights, long depth, T (*total)[GATES][PASS]) {
    V sum[R][VECTORS];
    for (int r = 0; r < R; ++r) for (int n = 0; n < VECTORS; ++n) sum[r][n] = V{};
    for (long k = 0; k < depth; ++k, weights += GATES * SPAN) {
        V w[VECTORS];
        for (int n = 0; n < VECTORS; ++n) w[n] = *(const V *)(weights + n / EACH * SPAN + n % EACH * WIDE);
        for (int r = 0; r < R; ++r) {
            const T x = rows[r][k];
            for (int n = 0; n < VECTORS; ++n) sum[r][n] += x * w[n];
        }
    }
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < VECTORS; ++n) *(V *)(total[r][n / EACH] + n % EACH * WIDE) = sum[r][n];
}
template <int R>
static void mf_product(int count, const T *const *rows, const T *weights, long depth, T (*total)[GATES][PASS]) {
    if (count == R) mf_sums<R>(rows, weights, depth, total);
    else if constexpr (R > 1) mf_product<R - 1>(count, rows, weights, depth, total);
}
"""

#: what a step makes of one element; ``SUM(k)``: what gate k gets from x, from h; ``KEEP(k, value)``: saved value k
STEPS = {
    "rnn_tanh": "h[l] = mf_bent(X(0) + SUM(0));",
    "rnn_relu": "const T s = X(0) + SUM(0); h[l] = s > 0 || s != s ? s : 0;",
    "lstm": """
        const T i = mf_sigmoid(X(0) + SUM(0)), f = mf_sigmoid(X(1) + SUM(1));
        const T g = mf_bent(X(2) + SUM(2)), o = mf_sigmoid(X(3) + SUM(3));
        const T now = f * c_before[l] + i * g;
        c[l] = now;
        h[l] = o * mf_bent(now);
        KEEP(0, i) KEEP(1, f) KEEP(2, g) KEEP(3, o) KEEP(4, now)""",
    "gru": """
        const T reset = mf_sigmoid(X(0) + SUM(0)), update = mf_sigmoid(X(1) + SUM(1)), last = SUM(2);
        const T fresh = mf_bent(X(2) + reset * last);
        h[l] = fresh + update * (h_before[l] - fresh);
        KEEP(0, reset) KEEP(1, update) KEEP(2, fresh) KEEP(3, last)""",
}

#: threads share tiles of the result: some rows of the batch by the columns of one pass
_EACH_TILE = """    #pragma omp for collapse(2) schedule(static)
    for (long u = 0; u < units; ++u) {
        for (long block = 0; block < blocks; ++block) {
            const long first = block * batch / blocks, j = u / PASSES * SPAN + u % PASSES * PASS;
            const int count = (int)((block + 1) * batch / blocks - first);
            const int used = (int)(hidden - j < PASS ? hidden - j : (long)PASS);
            if (used <= 0) continue;
            const T *rows[ROWS];
            T total[ROWS][GATES][PASS];
"""

# in0: xs, in1: weights, in2: bias, in3: first h, in4: first c of an LSTM
FORWARD = (
    """
const long steps = in0_shape0, batch = in0_shape1, hidden = in3_shape1;
const bool reverse = data["reverse"] != 0, keep = data["keep"] != 0, lstm = GATES == 4;
const long units = in1_shape0 * PASSES, blocks = (batch + ROWS - 1) / ROWS, slots = lstm ? 5 : 4;
T *const c_now = out_p + steps * batch * hidden, *const saved = c_now + (lstm ? batch * hidden : 0);
#if GATES == 4
const T *const c_first = in4_p;
#else
const T *const c_first = in3_p;
#endif
#pragma omp parallel if (batch * hidden * hidden > 10000)
for (long step = 0; step < steps; ++step) {
    const long t = reverse ? steps - 1 - step : step, former = reverse ? t + 1 : t - 1;
    const T *const state = step ? out_p + former * batch * hidden : in3_p;
"""
    + _EACH_TILE
    + """            for (int r = 0; r < ROWS; ++r) rows[r] = state + (first + (r < count ? r : 0)) * hidden;
            mf_product<ROWS>(count, rows, in1_p + u / PASSES * hidden * GATES * SPAN + u % PASSES * PASS, hidden, total);
            for (int r = 0; r < count; ++r) {
                const long b = first + r;
                const T *x = in0_p + (t * batch + b) * GATES * hidden + j, *bias = in2_p + j;
                const T *h_before = state + b * hidden + j, *c_before = (step ? c_now : c_first) + b * hidden + j;
                T *h = out_p + (t * batch + b) * hidden + j, *c = c_now + b * hidden + j;
                T *found = keep ? saved + (t * batch + b) * slots * hidden + j : nullptr;
                #define X(k) x[k * hidden + l]
                #define SUM(k) (total[r][k][l] + bias[k * hidden + l])
                if (keep) {
                    #define KEEP(k, value) found[k * hidden + l] = value;
                    #pragma omp simd
                    for (int l = 0; l < used; ++l) { STEP }
                    #undef KEEP
                } else {
                    #define KEEP(k, value)
                    #pragma omp simd
                    for (int l = 0; l < used; ++l) { STEP }
                    #undef KEEP
                }
                (void)h_before, (void)c_before, (void)c, (void)found;
            }
        }
    }
}
"""
)

#: what a step back makes of one element; ``S(k)``: saved value k; ``D(k, value)``: the gradient of what gate k gets; where it
#: differs for what it gets from h, ``E(k, value)``
STEPS_BACK = {
    "rnn_tanh": "D(0, dh * (1 - h[l] * h[l]))",
    "rnn_relu": "D(0, h[l] > 0 ? dh : 0)",
    "lstm": """
        const T i = S(0), f = S(1), g = S(2), o = S(3), bent = mf_bent(S(4));
        const T dc = carry[l] + dh * o * (1 - bent * bent);
        D(0, dc * g * i * (1 - i))
        D(1, dc * before[l] * f * (1 - f))
        D(2, dc * i * (1 - g * g))
        D(3, dh * bent * o * (1 - o))
        carry[l] = dc * f;""",
    "gru": """
        const T reset = S(0), update = S(1), fresh = S(2), all = dh + carry[l];
        const T d_fresh = all * (1 - update) * (1 - fresh * fresh);
        const T d_reset = d_fresh * S(3) * reset * (1 - reset);
        const T d_update = all * (before[l] - fresh) * update * (1 - update);
        D(0, d_reset) D(1, d_update) D(2, d_fresh)
        E(0, d_reset) E(1, d_update) E(2, d_fresh * reset)
        carry[l] = all * update;""",
}

# in0: upstream, in1: values, in2: weights, in3: first h, in4: first c of an LSTM. One round more than there are steps: the last
# is the gradient of the first state.
BACKWARD = (
    """
const bool reverse = data["reverse"] != 0, lstm = ALL == 4, gru = ALL == 3;
const long steps = out_shape0 - 1, batch = in3_shape0, hidden = in3_shape1, depth = ALL * hidden, slots = lstm ? 5 : 4;
const long units = in2_shape0 * PASSES, blocks = (batch + ROWS - 1) / ROWS, sheet = batch * hidden;
const T *const saved = in1_p + steps * sheet + (lstm ? sheet : 0);
T *const last_place = out_p + steps * batch * depth;
std::vector<T> carried(sheet), inner(gru ? 2 * batch * depth : 0);
if (lstm) std::copy(in0_p + steps * sheet, in0_p + (steps + 1) * sheet, carried.begin());
#if ALL == 4
const T *const c_first = in4_p;
#else
const T *const c_first = in3_p;
#endif
#pragma omp parallel if (batch * hidden * hidden > 10000)
for (long step = 0; step <= steps; ++step) {
    const long t = reverse ? step : steps - 1 - step, later = reverse ? t - 1 : t + 1, former = reverse ? t + 1 : t - 1;
    const T *const given = gru ? inner.data() + (step & 1) * batch * depth : out_p + later * batch * depth;
    T *const made = gru ? inner.data() + (~step & 1) * batch * depth : nullptr;
    const T *const state = step + 1 < steps ? (lstm ? saved + former * sheet * slots + 4 * hidden : in1_p + former * sheet)
                                            : c_first;
    const long pitch = lstm && step + 1 < steps ? slots * hidden : hidden;
"""
    + _EACH_TILE
    + """            if (step) {
                for (int r = 0; r < ROWS; ++r) rows[r] = given + (first + (r < count ? r : 0)) * depth;
                mf_product<ROWS>(count, rows, in2_p + u / PASSES * depth * SPAN + u % PASSES * PASS, depth, total);
            } else {
                std::fill(&total[0][0][0], &total[0][0][0] + ROWS * GATES * PASS, (T)0);
            }
            for (int r = 0; r < count; ++r) {
                const long b = first + r;
                T *const carry = carried.data() + b * hidden + j;
                if (step == steps) {
                    T *const found = last_place + b * depth + j;
                    for (int l = 0; l < used; ++l) found[l] = total[r][0][l] + (gru ? carry[l] : 0);
                    for (int k = 1; k < ALL; ++k)
                        for (int l = 0; l < used; ++l) found[k * hidden + l] = lstm && k == 1 ? carry[l] : 0;
                    continue;
                }
                const T *up = in0_p + (t * batch + b) * hidden + j, *h = in1_p + (t * batch + b) * hidden + j;
                const T *s = saved + (t * batch + b) * slots * hidden + j, *before = state + b * pitch + j;
                T *d = out_p + (t * batch + b) * depth + j, *e = made + b * depth + j;
                #define S(k) s[k * hidden + l]
                #define D(k, value) d[k * hidden + l] = value;
                #define E(k, value) e[k * hidden + l] = value;
                #pragma omp simd
                for (int l = 0; l < used; ++l) {
                    const T dh = total[r][0][l] + up[l];
                    STEP
                }
                (void)h, (void)s, (void)before, (void)e;
            }
        }
    }
}
"""
)
