"""The lower half of the contraction engine, as C++ text: vectors, copying operands into panels, the register kernel.

What it is: the text ``PACKING``, templates over the element type, included once per translation unit.
What it is not: blocking, index algebra (``contraction_engine``) or anything that depends on one kernel (``contraction``).
Who calls it: ``contraction.emit`` puts it in front of ``contraction_engine.ENGINE``.

Words used in the text: the *lanes* of a contraction are the result positions that lie in one vector register, the *rows*
those that are broadcast against them; either may be the ``m`` or the ``n`` axes. A *line table* lists positions along
lanes, rows or ``k`` in order: the element offset that each adds, and the coordinate that it adds along every guarded
dimension. A *segment* is a stretch of a vector's worth of positions that lie side by side in memory.
"""

from __future__ import annotations

__all__ = ["PACKING"]

PACKING = r"""
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

// -- line tables ------------------------------------------------------------------------------------------------------
struct Segment { i64 offset; unsigned mask; };  // lane i of the vector, where `mask` has it, is element offset + i

struct Space {  // the positions spanned by some axes in one operand, last axis fastest
    int axes, guards;
    i64 total, offset, count[AXES], step[AXES];
    i64 origin[GUARDS], extent[GUARDS], advance[GUARDS][AXES];

    bool same(const Space &other) const {  // but for where it starts in memory
        if (axes != other.axes || guards != other.guards) return false;
        for (int x = 0; x < axes; x++) {
            if (count[x] != other.count[x] || step[x] != other.step[x]) return false;
            for (int g = 0; g < guards; g++)
                if (advance[g][x] != other.advance[g][x]) return false;
        }
        for (int g = 0; g < guards; g++)
            if (origin[g] != other.origin[g]) return false;
        return true;
    }
};

template <class I> METAFUSE_RAMP static void ramp(I *out, i64 start, i64 step, i64 count) {
    for (i64 t = 0; t < count; t++) out[t] = (I)(start + t * step);
}

template <class T> struct Lines {
    typedef typename Simd<T>::Integer Integer;
    enum { WIDTH = Simd<T>::WIDTH, LIMIT = LANE_LIMIT };
    Space space;  // what the tables below were made from: units that differ in a batch axis share them
    i64 begin;
    int count, segment_count, guards;
    i64 step;      // the distance of neighbours if it is always the same
    bool uniform;  // whether it is
    i64 offset[LIMIT + WIDTH];
    Integer at[GUARDS][LIMIT + WIDTH] __attribute__((aligned(METAFUSE_VECTOR_BYTES)));
    Integer low[GUARDS][LIMIT / WIDTH + 1], high[GUARDS][LIMIT / WIDTH + 1];  // of every group of WIDTH positions
    int first[LIMIT / WIDTH + 2];                                             // segment of every group
    Segment segment[LIMIT + WIDTH];

    int groups() const { return (count + WIDTH - 1) / WIDTH; }
    int segments(int group) const { return first[group + 1] - first[group]; }

    // Positions [from, from + number) of `wanted`, number >= 1, run by run of the last axis.
    METAFUSE_PLAIN void fill(const Space &wanted, i64 from, int number) {
        if (count == number && begin == from && space.same(wanted)) return;
        space = wanted, begin = from, count = number, guards = space.guards, segment_count = 0;
        int last = space.axes - 1;
        i64 index[AXES], rest = from, stride = last < 0 ? 1 : space.step[last];
        uniform = true, step = stride;
        for (int x = last; x >= 0; rest /= space.count[x--]) index[x] = rest % space.count[x];
        for (int i = 0; i < number;) {
            i64 start = 0, run = last < 0 ? 1 : space.count[last] - index[last];
            if (run > number - i) run = number - i;
            for (int x = 0; x <= last; x++) start += index[x] * space.step[x];
            ramp(offset + i, start, stride, run);
            if (i == 1) step = start - offset[0];
            if (i > 0 && start - offset[i - 1] != step) uniform = false;
            if (i > 0 && run > 1 && stride != step) uniform = false;
            cut(i, (int)run, start, stride);
            for (int g = 0; g < guards; g++) {
                i64 place = space.origin[g];
                for (int x = 0; x <= last; x++) place += index[x] * space.advance[g][x];
                ramp(at[g] + i, place, last < 0 ? 0 : space.advance[g][last], run);
                bound(g, i, i + (int)run);
            }
            i += (int)run;
            if (last >= 0) index[last] += run;
            for (int x = last; x > 0 && index[x] == space.count[x]; x--) index[x] = 0, index[x - 1]++;
        }
        first[groups()] = segment_count;
    }

  private:
    // Adds positions [i, i + run) to the segments.
    inline void cut(int i, int run, i64 start, i64 stride) {
        for (int end = i + run; i < end;) {
            int lane = i % WIDTH, stretch = stride != 1 ? 1 : end - i < WIDTH - lane ? end - i : WIDTH - lane;
            if (lane == 0) first[i / WIDTH] = segment_count;
            if (lane == 0 || segment[segment_count - 1].offset != start - lane)
                segment[segment_count++] = Segment{start - lane, 0};
            segment[segment_count - 1].mask |= ((2u << (stretch - 1)) - 1) << lane;
            i += stretch, start += stretch * stride;
        }
    }

    // Positions [i, end) advance evenly along guarded dimension g: their ends bound them.
    inline void bound(int g, int i, int end) {
        for (int next; i < end; i = next) {
            int group = i / WIDTH;
            next = end < (group + 1) * WIDTH ? end : (group + 1) * WIDTH;
            Integer a = at[g][i], b = at[g][next - 1], least = a < b ? a : b, most = a < b ? b : a;
            bool fresh = i % WIDTH == 0;
            low[g][group] = fresh || least < low[g][group] ? least : low[g][group];
            high[g][group] = fresh || most > high[g][group] ? most : high[g][group];
        }
    }
};

struct Guards { int count, dim[GUARDS]; i64 extent[GUARDS]; };  // the dimensions that need tests in one block

// Which dimensions are left by some pair of a position of `a` in groups [begin, end) and one of `b`.
template <class T>
METAFUSE_PLAIN static Guards find_guards(const Lines<T> &a, int begin, int end, const Lines<T> &b, const i64 *extent) {
    Guards found;
    found.count = 0;
    for (int g = 0; g < a.guards; g++) {
        i64 low = a.low[g][begin], high = a.high[g][begin], least = b.low[g][0], most = b.high[g][0];
        for (int x = begin + 1; x < end; x++) {
            low = a.low[g][x] < low ? a.low[g][x] : low;
            high = a.high[g][x] > high ? a.high[g][x] : high;
        }
        for (int x = 1; x < b.groups(); x++) {
            least = b.low[g][x] < least ? b.low[g][x] : least;
            most = b.high[g][x] > most ? b.high[g][x] : most;
        }
        if (low + least < 0 || high + most >= extent[g])
            found.dim[found.count] = g, found.extent[found.count++] = extent[g];
    }
    return found;
}

// -- packing ----------------------------------------------------------------------------------------------------------
// Vectors along one group of `along`: the first two segments and the first guard's positions wait in registers.
template <class T> struct Reader {
    typedef typename Simd<T>::Vector Vector;
    typedef typename Simd<T>::Integers Integers;
    typedef typename MaskOf<T>::type Mask;
    const Lines<T> &along, &across;
    const Guards &guards;
    const Segment *segment;
    int count;
    i64 first, second;
    Mask left, right;
    Integers where;

    Reader(const Lines<T> &along, int group, const Lines<T> &across, const Guards &guards)
        : along(along), across(across), guards(guards), segment(along.segment + along.first[group]),
          count(along.segments(group)), first(segment[0].offset), second(segment[count > 1].offset),
          left(mask_of<T>(segment[0].mask)), right(mask_of<T>(count > 1 ? segment[1].mask : 0)) {
        where = guards.count ? positions(0, group) : Integers{};
    }
    Integers positions(int guard, int group) const {
        return *(const Integers *)&along.at[guards.dim[guard]][group * Simd<T>::WIDTH];
    }
    Mask test(Integers from, int guard, int q) const {
        return inside<T>(from + across.at[guards.dim[guard]][q], (typename Simd<T>::Integer)guards.extent[guard]);
    }
    Mask exists(int group, int q) const {  // any number of guards
        Mask found = test(where, 0, q);
        for (int g = 1; g < guards.count; g++) found &= test(positions(g, group), g, q);
        return found;
    }
    void ahead(const T *from) const {  // the next panel's elements: no hardware foresees jumps between planes of an image
        __builtin_prefetch(from + first + Simd<T>::PANEL);
    }
    Vector two(const T *from, Mask exists) const {
        ahead(from);
        return load<T>(from + second, right & exists, load<T>(from + first, left & exists, Vector{}));
    }
    Vector many(const T *from, Mask exists) const {
        Vector found = {};
        ahead(from);
        for (int s = 0; s < count; s++)
            found = load<T>(from + segment[s].offset, mask_of<T>(segment[s].mask) & exists, found);
        return found;
    }
};

// Vectors along `along`, stored as they are: position q of `across` and group g go to out[q * step + g * WIDTH].
template <class T>
static void copy_vectors(const T *data, const Lines<T> &along, int group, int groups, const Lines<T> &across,
                         const Guards &guards, T *out, i64 step) {
    typedef typename Simd<T>::Vector Vector;
    typename MaskOf<T>::type all = mask_of<T>(~0u);
    for (int g = group; g < group + groups; g++, out += Simd<T>::WIDTH) {
        Reader<T> reader(along, g, across, guards);
        T *to = out;
        if (reader.count > 2)
            for (int q = 0; q < across.count; q++, to += step)
                *(Vector *)to = reader.many(data + across.offset[q], guards.count ? reader.exists(g, q) : all);
        else if (guards.count > 1)
            for (int q = 0; q < across.count; q++, to += step)
                *(Vector *)to = reader.two(data + across.offset[q], reader.exists(g, q));
        else if (guards.count)
            for (int q = 0; q < across.count; q++, to += step)
                *(Vector *)to = reader.two(data + across.offset[q], reader.test(reader.where, 0, q));
        else if (reader.count == 2 || along.count < (g + 1) * Simd<T>::WIDTH)
            for (int q = 0; q < across.count; q++, to += step)
                *(Vector *)to = reader.two(data + across.offset[q], all);
        else
            for (int q = 0; q < across.count; q++, to += step) {
                reader.ahead(data + across.offset[q]);
                *(Vector *)to = *(const typename Simd<T>::Loose *)(data + across.offset[q] + reader.first);
            }
    }
}

// Turned: position i of `along` and position q of `across` go to out[i * step + q - begin]. Whole vectors are written;
// positions past `end` become zero.
template <class T>
static void copy_turned(const T *data, const Lines<T> &along, const Lines<T> &across, int begin, int end,
                        const Guards &guards, T *out, i64 step) {
    typedef typename Simd<T>::Vector Vector;
    enum { WIDTH = Simd<T>::WIDTH };
    typename MaskOf<T>::type all = mask_of<T>(~0u);
    for (int g = 0; g < along.groups(); g++) {
        Reader<T> reader(along, g, across, guards);
        for (int q = begin; q < end; q += WIDTH) {
            Vector block[WIDTH], other[WIDTH];
            int wanted = end - q < WIDTH ? end - q : WIDTH;
            if (reader.count > 2)
#pragma GCC unroll 1
                for (int i = 0; i < wanted; i++)
                    block[i] = reader.many(data + across.offset[q + i], guards.count ? reader.exists(g, q + i) : all);
            else if (guards.count)
#pragma GCC unroll 1
                for (int i = 0; i < wanted; i++) block[i] = reader.two(data + across.offset[q + i], reader.exists(g, q + i));
            else
#pragma GCC unroll 1
                for (int i = 0; i < wanted; i++) block[i] = reader.two(data + across.offset[q + i], all);
#pragma GCC unroll 1
            for (int i = wanted; i < WIDTH; i++) block[i] = Vector{};
#pragma GCC unroll 4
            for (int bits = 1; bits < WIDTH; bits *= 2) {  // rotates (row, column) left by one bit each time
#pragma GCC unroll 16
                for (int i = 0; i < WIDTH / 2; i++) {
                    other[2 * i] = merge_low<T>(block[i], block[i + WIDTH / 2]);
                    other[2 * i + 1] = merge_high<T>(block[i], block[i + WIDTH / 2]);
                }
#pragma GCC unroll 16
                for (int i = 0; i < WIDTH; i++) block[i] = other[i];
            }
            T *to = out + g * WIDTH * step + (q - begin);
#pragma GCC unroll 16
            for (int i = 0; i < WIDTH; i++) *(Vector *)(to + i * step) = block[i];
        }
    }
}

// Element by element, for scattered addresses and for element types that are converted. Position q of `across` and i of
// `along`, counted from `begin`, go to out[q * across_step + i * along_step].
template <class T, class S>
static void copy_elements(const S *data, const Lines<T> &along, int begin, int end, const Lines<T> &across,
                          const Guards &guards, T *out, i64 along_step, i64 across_step) {
    for (int q = 0; q < across.count; q++, out += across_step) {
        const S *from = data + across.offset[q];
        T *to = out;
        for (int i = begin; i < end; i++, to += along_step) {
            bool exists = true;
            for (int g = 0; g < guards.count; g++) {
                i64 place = (i64)along.at[guards.dim[g]][i] + across.at[guards.dim[g]][q];
                exists &= place >= 0 && place < guards.extent[g];
            }
            *to = exists ? (T)from[along.offset[i]] : T(0);
        }
    }
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
"""
