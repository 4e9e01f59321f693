"""The C++ of scans: what is read and written, how neighbours are folded in a register, and the loops.

What it is: texts. A header is ``VECTORS``, then ``PLAIN`` or ``KEYS``, then ``VALUES`` or ``PLACES``; or ``LOG_SUMS`` alone. Each
defines ``scan_row`` and ``scan_columns``, which ``SOURCE`` calls.
What it is not: the choice of types and numbers that macros stand for (``scan_loops``).
Who calls it: ``scan_loops``.
"""

__all__ = ["KEYS", "LOG_SUMS", "PLACES", "PLAIN", "SOURCE", "VALUES", "VECTORS"]

#: neighbours in a register: RUN leaves in each place the fold of all up to it
VECTORS = """
#pragma GCC diagnostic ignored "-Wpsabi"  // nothing outside is given a vector
typedef in0_type T;
typedef WIDE Wide;
static const Wide START = BEGIN;
// a register's worth: 4 numbers of 8 bytes where registers have 32 bytes
#if WIDE_BYTES == 8 && !defined(__AVX512F__)
#define COUNT 4
#define LAST(v) PICK(v, v, 3, 3, 3, 3)
#define RUN(v, none, join) \\
    v = join(PICK(v, none, 4, 0, 1, 2), v); \\
    v = join(PICK(v, none, 4, 5, 0, 1), v);
#else
#define COUNT 8
#define LAST(v) PICK(v, v, 7, 7, 7, 7, 7, 7, 7, 7)
#define RUN(v, none, join) \\
    v = join(PICK(v, none, 8, 0, 1, 2, 3, 4, 5, 6), v); \\
    v = join(PICK(v, none, 8, 9, 0, 1, 2, 3, 4, 5), v); \\
    v = join(PICK(v, none, 8, 9, 10, 11, 0, 1, 2, 3), v);
#endif
typedef T Narrow __attribute__((vector_size(COUNT * sizeof(T))));
typedef Wide Vector __attribute__((vector_size(COUNT * sizeof(Wide))));
#if defined(__clang__) || __GNUC__ >= 12
#define PICK(v, none, ...) __builtin_shufflevector(v, none, __VA_ARGS__)
#else
#define PICK(v, none, ...) __builtin_shuffle(v, none, decltype((v) < (v)){__VA_ARGS__})
#endif
#define JOINED(a_, b_, how) ([](const auto& a, const auto& b) __attribute__((always_inline)) { return how; }(a_, b_))
#define JOIN(a_, b_) JOINED(a_, b_, HOW)
"""

PLAIN = """
static inline Wide widened(T x) { return Wide(x); }
static inline T narrowed(Wide x) { return T(x); }
static inline void widen(const T* from, Vector& to) {
    Narrow read;
    memcpy(&read, from, sizeof read);
    to = __builtin_convertvector(read, Vector);
}
static inline void narrow(const Vector& from, T* to) {
    const Narrow found = __builtin_convertvector(from, Narrow);
    memcpy(to, &found, sizeof found);
}
"""

#: for extremes, signed integers that are ordered as the numbers are, or the other way round for minima; NaN is the largest
KEYS = """
#define LARGEST numeric_limits<Wide>::max()
#define ORDER(bits) ((bits) ^ (((bits) >> Wide(8 * sizeof(Wide) - 1)) & LARGEST))
#if FLOATING
static inline Wide widened(T x) {
    Wide bits;
    x = SAME(x);
    memcpy(&bits, &x, sizeof bits);
    const Wide key = DOWN ? ~ORDER(bits) : ORDER(bits);
    return x != x ? LARGEST : key;
}
static inline T narrowed(Wide key) {
    const Wide bits = DOWN ? ORDER(~key) : ORDER(key);
    T x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline void widen(const T* from, Vector& to) {
    Narrow read;
    memcpy(&read, from, sizeof read);
    read = SAME(read);
    const Vector bits = (Vector)read, key = DOWN ? ~ORDER(bits) : ORDER(bits);
    to = read != read ? LARGEST - Vector() : key;
}
static inline void narrow(const Vector& key, T* to) {
    const Vector bits = DOWN ? ORDER(~key) : ORDER(key);
    memcpy(to, &bits, sizeof bits);
}
#else
// unsigned numbers of full width keep their order once half of all is taken from them
static const Wide HALF = numeric_limits<T>::is_signed || sizeof(T) < sizeof(Wide) ? 0 : numeric_limits<Wide>::min();
static inline Wide widened(T x) { return DOWN ? ~(Wide(x) ^ HALF) : Wide(x) ^ HALF; }
static inline T narrowed(Wide key) { return T((DOWN ? ~key : key) ^ HALF); }
static inline void widen(const T* from, Vector& to) {
    Narrow read;
    memcpy(&read, from, sizeof read);
    const Vector x = __builtin_convertvector(read, Vector) ^ HALF;
    to = DOWN ? ~x : x;
}
static inline void narrow(const Vector& key, T* to) {
    const Vector x = (DOWN ? ~key : key) ^ HALF;
    const Narrow found = __builtin_convertvector(x, Narrow);
    memcpy(to, &found, sizeof found);
}
#endif
"""

VALUES = """
// A part of a row behind `base`; the total of the part alone.
template <bool STORE>
static inline __attribute__((always_inline)) Wide scan_part(const T* x, T* y, long long n, const Wide base) {
    Wide carry = START;
    long long at = 0;
#if VECTORS
    const Vector none = START - Vector(), bases = base - Vector();
    Vector carries = none;
    for (; at + COUNT <= n; at += COUNT) {
        Vector v;
        widen(x + at, v);
        RUN(v, none, JOIN)
        if (STORE) {
            const Vector here = JOIN(carries, v), whole = JOIN(bases, here);
            narrow(whole, y + at);
        }
        const Vector total = LAST(v);
        carries = JOIN(carries, total);
    }
    carry = carries[0];
#endif
    for (; at < n; ++at) {
        carry = JOIN(carry, widened(x[at]));
        if (STORE) y[at] = narrowed(JOIN(base, carry));
    }
    return carry;
}

static inline __attribute__((always_inline)) void scan_row(const T* x, T* y, long long n) {
    const long long step = PART < n ? PART : n;
    Wide base = START;
    for (long long at = 0; at < n; at += step) {
        const Wide total = scan_part<true>(x + at, y + at, n - at < step ? n - at : step, base);
        base = JOIN(base, total);
    }
}

static void scan_columns(const T* x, T* y, long long n, long long inner, long long width) {
    Wide carry[512];
    for (long long j = 0; j < width; ++j) carry[j] = START;
    for (long long i = 0; i < n; ++i, x += inner, y += inner) {
        #pragma omp simd
        for (long long j = 0; j < width; ++j) {
            carry[j] = JOIN(carry[j], widened(x[j]));
            y[j] = narrowed(carry[j]);
        }
    }
}

// Fewer rows than threads.
static void scan_parts(const T* x, T* y, long long outer, long long n) {
    const long long parts = (n + PART - 1) / PART;
    std::vector<Wide> totals(outer * parts);
    Wide* const base = totals.data();
    #pragma omp parallel for schedule(static)
    for (long long k = 0; k < outer * parts; ++k) {
        const long long at = k % parts * PART;
        base[k] = scan_part<false>(x + k / parts * n + at, nullptr, n - at < PART ? n - at : PART, START);
    }
    for (long long row = 0; row < outer; ++row) {
        Wide sum = START;
        for (long long k = row * parts; k < (row + 1) * parts; ++k) {
            const Wide total = base[k];
            base[k] = sum;
            sum = JOIN(sum, total);
        }
    }
    #pragma omp parallel for schedule(static)
    for (long long k = 0; k < outer * parts; ++k) {
        const long long at = k % parts * PART, start = k / parts * n + at;
        scan_part<true>(x + start, y + start, n - at < PART ? n - at : PART, base[k]);
    }
}
#define PARTS(outer, n, threads) (outer < threads && n / PART >= 2)
"""

PLACES = """
typedef int Places __attribute__((vector_size(4 * COUNT)));
#define LATER(a_, b_) JOINED(a_, b_, a > b ? a : b)

// What is largest so far and where, before and after; `first` is the place of x[0].
struct Found {
    Wide top;
    int place;
};
template <bool STORE>
static inline __attribute__((always_inline)) Found scan_part(const T* x, int* y, long long n, int first, Found found) {
    const Vector none = START - Vector();
    const Places nowhere = Places() - 1;
    Vector carries = found.top - Vector();
    Places latest = found.place + Places(), here = nowhere;
    for (int k = 0; k < COUNT; ++k) here[k] = first + k;
    long long at = 0;
    for (; at + COUNT <= n; at += COUNT, here += COUNT) {
        Vector value;
        widen(x + at, value);
        Vector v = value;
        RUN(v, none, JOIN)
        const Vector top = JOIN(carries, v), total = LAST(v);
        Places p = __builtin_convertvector(value == top, Places) ? here : nowhere;
        RUN(p, nowhere, LATER)
        const Places places = LATER(latest, p), last = LAST(p);
        if (STORE) memcpy(y + at, &places, sizeof places);
        carries = JOIN(carries, total);
        latest = LATER(latest, last);
    }
    found = {carries[0], latest[0]};
    for (; at < n; ++at) {
        const Wide value = widened(x[at]);
        found.top = JOIN(found.top, value);
        found.place = value == found.top ? first + int(at) : found.place;
        if (STORE) y[at] = found.place;
    }
    return found;
}

static inline __attribute__((always_inline)) void scan_row(const T* x, int* y, long long n) {
    scan_part<true>(x, y, n, 0, {START, -1});
}

// Fewer rows than threads.
static void scan_parts(const T* x, int* y, long long outer, long long n) {
    const long long parts = (n + PART - 1) / PART;
    std::vector<Found> totals(outer * parts);
    Found* const base = totals.data();
    #pragma omp parallel for schedule(static)
    for (long long k = 0; k < outer * parts; ++k) {
        const long long at = k % parts * PART, count = n - at < PART ? n - at : PART;
        base[k] = scan_part<false>(x + k / parts * n + at, nullptr, count, int(at), {START, -1});
    }
    for (long long row = 0; row < outer; ++row) {
        Found now = {START, -1};
        for (long long k = row * parts; k < (row + 1) * parts; ++k) {
            const Found here = base[k];
            base[k] = now;
            if (here.top >= now.top) now = here;
        }
    }
    #pragma omp parallel for schedule(static)
    for (long long k = 0; k < outer * parts; ++k) {
        const long long at = k % parts * PART, start = k / parts * n + at;
        scan_part<true>(x + start, y + start, n - at < PART ? n - at : PART, int(at), base[k]);
    }
}
#define PARTS(outer, n, threads) (outer < threads && n / PART >= 2)

static void scan_columns(const T* x, int* y, long long n, long long inner, long long width) {
    Wide carry[512];
    int place[512];
    for (long long j = 0; j < width; ++j) carry[j] = START, place[j] = -1;
    for (int i = 0; i < (int)n; ++i, x += inner, y += inner) {
        #pragma omp simd
        for (long long j = 0; j < width; ++j) {
            const Wide value = widened(x[j]), top = JOIN(carry[j], value);
            place[j] = value == top ? i : place[j];
            carry[j] = top;
            y[j] = place[j];
        }
    }
}
"""

#: what is carried is a maximum and the sum of exponentials below it, float64
LOG_SUMS = """
#include <cmath>
typedef in0_type T;
#define NEVER (-numeric_limits<T>::infinity())
static inline float power(float x) { return mf_expf(x); }
static inline double power(double x) { return std::exp(x); }
#define LOG(x) (sizeof(T) == 4 ? (T)mf_logf((float)(x)) : (T)std::log(x))
#define FINITE(m) (std::fabs(m) == -NEVER ? T(0) : (m))

static void scan_row(const T* x, T* y, long long n) {
    T top[256], less[256], grown[256];
    double sums[256], sum = 0;
    T now = NEVER;
    for (long long at = 0; at < n; at += 256, x += 256, y += 256) {
        const int count = n - at < 256 ? (int)(n - at) : 256;
        for (int i = 0; i < count; ++i) {
            less[i] = now;
            now = (x[i] > now) | (x[i] != x[i]) ? x[i] : now;
            top[i] = now;
        }
        #pragma omp simd
        for (int i = 0; i < count; ++i) {
            less[i] = less[i] == top[i] ? T(1) : power(less[i] - top[i]);
            grown[i] = power(x[i] - FINITE(top[i]));
        }
        for (int i = 0; i < count; ++i) sums[i] = sum = sum * less[i] + grown[i];
        #pragma omp simd
        for (int i = 0; i < count; ++i) y[i] = FINITE(top[i]) + LOG(sums[i]);
    }
}

static void scan_columns(const T* x, T* y, long long n, long long inner, long long width) {
    T top[512];
    double sum[512];
    for (long long j = 0; j < width; ++j) top[j] = NEVER, sum[j] = 0;
    for (long long i = 0; i < n; ++i, x += inner, y += inner) {
        #pragma omp simd
        for (long long j = 0; j < width; ++j) {
            const T now = (x[j] > top[j]) | (x[j] != x[j]) ? x[j] : top[j];
            const T less = top[j] == now ? T(1) : power(top[j] - now);
            sum[j] = sum[j] * less + power(x[j] - FINITE(now));
            top[j] = now;
            y[j] = FINITE(now) + LOG(sum[j]);
        }
    }
}
"""

SOURCE = """
const long long outer = in0->shape[0], n = in0->shape[1], inner = in0->shape[2];
const bool many = in0->num > 16384;
const long long threads = many ? omp_get_max_threads() : 1;
if (inner == 1) {
#ifdef PARTS
    if (PARTS(outer, n, threads)) {
        scan_parts(in0_p, out_p, outer, n);
        return;
    }
#endif
    #pragma omp parallel for if (many) schedule(static)
    for (long long row = 0; row < outer; ++row) scan_row(in0_p + row * n, out_p + row * n, n);
} else {
    long long strips = (inner + 511) / 512;
    if (outer * strips < threads) strips = (threads + outer - 1) / outer;
    const long long width = ((inner + strips - 1) / strips + 15) / 16 * 16;
    strips = (inner + width - 1) / width;
    #pragma omp parallel for if (many) schedule(static)
    for (long long k = 0; k < outer * strips; ++k) {
        const long long from = k % strips * width, at = k / strips * n * inner + from;
        scan_columns(in0_p + at, out_p + at, n, inner, inner - from < width ? inner - from : width);
    }
}
"""
