"""The lowest part of the contraction engine, as C++ text: vectors, masks, and the loops that multiply.

What it is: the text ``VECTORS``, templates over the element type.
What it is not: packing (``contraction_packing``), blocking (``contraction_engine``) or one kernel (``contraction``).
Who calls it: ``contraction_library``, which joins the parts.

Words used in all parts: the *lanes* of a contraction are the result positions that lie in one vector register, the *rows*
those that are broadcast against them; either may be the ``m`` or the ``n`` axes.
"""

from __future__ import annotations

__all__ = ["VECTORS"]

VECTORS = r"""
typedef long long i64;
enum { AXES = 16, DIMS = 12, GUARDS = 4 };
enum { ROWS = METAFUSE_VECTOR_REGISTERS == 32 ? 8 : 4, VECTORS = 3 };  // the register tile: ROWS x VECTORS vectors
enum { ROW_LIMIT = 128, LANE_LIMIT = 512 };                            // of one unit: all its scratch is on the stack

#if defined(__clang__)
#define METAFUSE_PLAIN __attribute__((noinline))
#define METAFUSE_RAMP
#else
#define METAFUSE_RAMP __attribute__((noinline, optimize("O3")))
#define METAFUSE_PLAIN __attribute__((noinline, optimize("O1")))  // bookkeeping: not worth the compiler's time
#endif

template <class T> struct IntegerOf { typedef int type; };
template <> struct IntegerOf<double> { typedef long long type; };
template <> struct IntegerOf<unsigned long long> { typedef long long type; };
template <class A, class B> struct Same { enum { value = 0 }; };
template <class A> struct Same<A, A> { enum { value = 1 }; };

template <class T> struct Simd {
    typedef typename IntegerOf<T>::type Integer;
    typedef T Vector __attribute__((vector_size(METAFUSE_VECTOR_BYTES)));
    typedef T Loose __attribute__((vector_size(METAFUSE_VECTOR_BYTES), aligned(1), may_alias));
    typedef Integer Integers __attribute__((vector_size(METAFUSE_VECTOR_BYTES)));
    enum {
        WIDTH = METAFUSE_VECTOR_BYTES / sizeof(T),
        PANEL = WIDTH * VECTORS,                  // lanes of one packed panel
        STRIP = WIDTH > ROWS ? WIDTH : ROWS,      // rows of one packed strip
        DEPTH = 1024 / sizeof(T),                 // k positions of one block; its sum is one partial result
        PITCH = DEPTH + WIDTH,                    // distance of rows packed along k: off the powers of two
        TILE = (128 << 10) / sizeof(T),           // sums of one unit
        LONG = 64 * DEPTH                         // sums of more products are carried in two levels
    };
};

inline i64 ceiling(i64 a, i64 b) { return (a + b - 1) / b; }
inline i64 least(i64 a, i64 b) { return a < b ? a : b; }

// -- masks: which elements of a vector exist -------------------------------------------------------------------------
#if defined(__AVX512F__) && METAFUSE_VECTOR_BYTES == 64
typedef Simd<float>::Vector Floats;
typedef Simd<double>::Vector Doubles;
template <class T> struct MaskOf { typedef unsigned type; };
template <class T> inline unsigned mask_of(unsigned bits) { return bits; }
template <class T> inline unsigned inside(typename Simd<T>::Integers at, typename Simd<T>::Integer extent) {
    if constexpr (sizeof(T) == 4)
        return __builtin_ia32_ucmpd512_mask(at, Simd<int>::Integers{} + (int)extent, 1, (unsigned short)-1);
    else
        return __builtin_ia32_ucmpq512_mask(at, typename Simd<T>::Integers{} + extent, 1, (unsigned char)-1);
}
template <class T> inline typename Simd<T>::Vector load(const T *from, unsigned mask, typename Simd<T>::Vector other) {
    typedef typename Simd<T>::Vector Vector;
    if constexpr (sizeof(T) == 4)
        return (Vector)__builtin_ia32_loadups512_mask((const float *)from, (Floats)other, (unsigned short)mask);
    else
        return (Vector)__builtin_ia32_loadupd512_mask((const double *)from, (Doubles)other, (unsigned char)mask);
}
#else
template <class T> struct MaskOf { typedef typename Simd<T>::Integers type; };
template <class T> inline typename Simd<T>::Integers mask_of(unsigned bits) {
    typename Simd<T>::Integers bit;
    for (int i = 0; i < Simd<T>::WIDTH; i++) bit[i] = 1 << i;
    return (bit & (typename Simd<T>::Integer)bits) != 0;
}
template <class T> inline typename Simd<T>::Integers inside(typename Simd<T>::Integers at, i64 extent) {
    return (at >= 0) & (at < (typename Simd<T>::Integer)extent);
}
template <class T>
inline typename Simd<T>::Vector load(const T *from, typename Simd<T>::Integers mask, typename Simd<T>::Vector other) {
    typedef typename Simd<T>::Integers Integers;
    typename Simd<T>::Vector found;
#if defined(__AVX__) && METAFUSE_VECTOR_BYTES == 32
    typedef Simd<float>::Vector Floats;
    typedef Simd<double>::Vector Doubles;
    if constexpr (sizeof(T) == 4)
        found = (typename Simd<T>::Vector)__builtin_ia32_maskloadps256((const Floats *)from, mask);
    else
        found = (typename Simd<T>::Vector)__builtin_ia32_maskloadpd256((const Doubles *)from, mask);
#else
    for (int i = 0; i < Simd<T>::WIDTH; i++) found[i] = mask[i] ? from[i] : T(0);
#endif
    return (typename Simd<T>::Vector)((Integers)found | (Integers)other);  // `other` is zero where `found` is not
}
#endif

// -- the alternating merge of the lower, of the upper halves of two vectors ------------------------------------------
#if defined(__clang__)
#define METAFUSE_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define METAFUSE_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (typename Simd<T>::Integers){__VA_ARGS__})
#endif
template <class T> inline typename Simd<T>::Vector merge_low(typename Simd<T>::Vector a, typename Simd<T>::Vector b) {
    if constexpr (Simd<T>::WIDTH == 16)
        return METAFUSE_SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    else if constexpr (Simd<T>::WIDTH == 8)
        return METAFUSE_SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    else if constexpr (Simd<T>::WIDTH == 4)
        return METAFUSE_SHUFFLE(a, b, 0, 4, 1, 5);
    else
        return METAFUSE_SHUFFLE(a, b, 0, 2);
}
template <class T> inline typename Simd<T>::Vector merge_high(typename Simd<T>::Vector a, typename Simd<T>::Vector b) {
    if constexpr (Simd<T>::WIDTH == 16)
        return METAFUSE_SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    else if constexpr (Simd<T>::WIDTH == 8)
        return METAFUSE_SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
    else if constexpr (Simd<T>::WIDTH == 4)
        return METAFUSE_SHUFFLE(a, b, 2, 6, 3, 7);
    else
        return METAFUSE_SHUFFLE(a, b, 1, 3);
}

// -- the register kernel ----------------------------------------------------------------------------------------------
// tile[r][0..V vectors) (+)= sum over k < depth of row[k * row_k + r * row_step] * lane[k * lane_k ..].
template <class T, int R, int V>
static void multiply(int depth, const T *lane, i64 lane_k, const T *row, i64 row_k, i64 row_step, T *tile, i64 pitch,
                     bool fresh) {
    typedef typename Simd<T>::Vector Vector;
    typedef typename Simd<T>::Loose Loose;
    enum { WIDTH = Simd<T>::WIDTH };
    Vector sum[R][V] = {};
    const T *more = row + 4 * row_step;
    for (int k = 0; k < depth; k++, lane += lane_k, row += row_k, more += row_k) {
        Vector here[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) here[v] = *(const Loose *)(lane + v * WIDTH);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            T factor = r < 4 ? row[r * row_step] : more[(r - 4) * row_step];
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) sum[r][v] += here[v] * factor;
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            Vector *to = (Vector *)(tile + r * pitch + v * WIDTH);
            *to = fresh ? sum[r][v] : *to + sum[r][v];
        }
}

// tile[lane] (+)= the sum over k < depth of row[k] * lane[from_lane + k], for `count` lanes whose k positions lie side by
// side. Whole vectors are written.
template <class T>
static void multiply_along(int depth, const T *from, const i64 *offset, int count, const T *row, T *tile, bool fresh) {
    typedef typename Simd<T>::Vector Vector;
    typedef typename Simd<T>::Loose Loose;
    enum { WIDTH = Simd<T>::WIDTH, SIDE = WIDTH < 4 ? WIDTH : 4 };
    int whole = depth / WIDTH * WIDTH;
    typename MaskOf<T>::type tail = mask_of<T>((1u << (depth - whole)) - 1);
    for (int at = 0; at < count; at += WIDTH) {
        Vector sum[WIDTH], half[WIDTH];
#pragma GCC unroll 1
        for (int i = 0; i < WIDTH; i += SIDE) {
            const T *lane[SIDE];
            Vector part[SIDE] = {};
            for (int j = 0; j < SIDE; j++) lane[j] = from + offset[at + i + j < count ? at + i + j : count - 1];
            for (int k = 0; k < whole; k += WIDTH)
#pragma GCC unroll 4
                for (int j = 0; j < SIDE; j++) part[j] += *(const Loose *)(row + k) * *(const Loose *)(lane[j] + k);
#pragma GCC unroll 4
            for (int j = 0; j < SIDE && whole < depth; j++)
                part[j] += load<T>(row + whole, tail, Vector{}) * load<T>(lane[j] + whole, tail, Vector{});
#pragma GCC unroll 4
            for (int j = 0; j < SIDE; j++) sum[i + j] = part[j];
        }
#pragma GCC unroll 4
        for (int left = WIDTH / 2; left > 0; left /= 2)  // turns and adds at once: halves the number of vectors
#pragma GCC unroll 8
            for (int i = 0; i < left; i++)
                half[i] = merge_low<T>(sum[i], sum[i + left]) + merge_high<T>(sum[i], sum[i + left]), sum[i] = half[i];
        Vector *to = (Vector *)(tile + at);
        *to = fresh ? sum[0] : *to + sum[0];
    }
}
"""
