"""The middle part of the contraction engine, as C++ text: copying blocks of the operands into panels.

What it is: the text ``PACKING``, templates over the element types.
What it is not: arithmetic (``contraction_vectors``), blocking (``contraction_engine``) or one kernel (``contraction``).
Who calls it: ``contraction_library``, which joins the parts.

Words used in the text: a *line table* lists positions along lanes, rows or ``k`` in order: the element offset that each
adds, and the coordinate that it adds along every guarded dimension. A *segment* is a stretch of at most a vector's worth
of positions that lie side by side in memory.
"""

from __future__ import annotations

__all__ = ["PACKING"]

PACKING = r"""
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

// -- blocks of one unit ----------------------------------------------------------------------------------------------
template <class T> struct Scratch {
    enum { WIDTH = Simd<T>::WIDTH, DEPTH = Simd<T>::DEPTH };
    T tile[Simd<T>::TILE] __attribute__((aligned(METAFUSE_VECTOR_BYTES)));
    T rows[ROW_LIMIT * Simd<T>::PITCH] __attribute__((aligned(METAFUSE_VECTOR_BYTES)));
    T lanes[DEPTH * Simd<T>::PANEL] __attribute__((aligned(METAFUSE_VECTOR_BYTES)));
    Lines<T> row_lines, lane_lines, row_depth, lane_depth;
};
struct Source { const void *data; i64 offset; const i64 *extent; };            // an operand, moved to the unit's origin
template <class T> struct View { const T *data; i64 step_k, step; };  // rows or lanes of one k block, packed or in place

template <class T, class S> struct Pack {
    typedef Simd<T> V;
    enum { WIDTH = V::WIDTH, DIRECT = Same<T, S>::value };

    // Rows [0, row_lines.count) of this k block. Answers where strip 0 is: a row's elements either follow each other
    // (step_k 1), or strips of V::STRIP rows do.
    METAFUSE_PLAIN static View<T> rows(Scratch<T> &s, const Source &source, i64 lanes) {
        const S *from = (const S *)source.data + source.offset;
        const Lines<T> &lines = s.row_lines, &depth = s.row_depth;
        Guards guards = find_guards(lines, 0, lines.groups(), depth, source.extent);
        if constexpr (DIRECT) {
            bool whole = lines.count == 1 || lines.count % ROWS == 0;
            if (lanes <= V::PANEL && !guards.count && whole && lines.uniform && depth.uniform)
                return View<T>{from + lines.offset[0] + depth.offset[0], depth.step, lines.step};
            i64 flat = (i64)depth.segment_count * lines.count, tall = (i64)lines.segment_count * depth.count;
            if (tall < flat && lines.segment_count <= lines.groups() * 6) {
                for (int r = 0; r < lines.count; r += V::STRIP) {
                    int groups = (int)least(V::STRIP / WIDTH, lines.groups() - r / WIDTH);
                    copy_vectors<T>(from, lines, r / WIDTH, groups, depth, guards, s.rows + (i64)r * V::DEPTH, V::STRIP);
                }
                return View<T>{s.rows, V::STRIP, 1};
            }
            if (depth.segment_count <= depth.groups() * 6) {
                copy_vectors<T>(from, depth, 0, depth.groups(), lines, guards, s.rows, V::PITCH);
                return View<T>{s.rows, 1, V::PITCH};
            }
        }
        copy_elements<T, S>(from, depth, 0, depth.count, lines, guards, s.rows, 1, V::PITCH);
        return View<T>{s.rows, 1, V::PITCH};
    }

    // Lanes [begin, end) of this k block, `begin` a multiple of WIDTH, padded with zeros to whole vectors.
    METAFUSE_PLAIN static View<T> lanes(Scratch<T> &s, const Source &source, int begin, int end, i64 rows) {
        const S *from = (const S *)source.data + source.offset;
        const Lines<T> &lines = s.lane_lines, &depth = s.lane_depth;
        int group = begin / WIDTH, groups = (int)ceiling(end - begin, WIDTH);
        Guards guards = find_guards(lines, group, group + groups, depth, source.extent);
        int pieces = lines.first[group + groups] - lines.first[group];
        if constexpr (DIRECT) {
            bool side_by_side = lines.offset[end - 1] - lines.offset[begin] == end - 1 - begin && pieces == groups;
            if (rows <= 2 * ROWS && !guards.count && side_by_side && depth.uniform && (end - begin) % WIDTH == 0)
                return View<T>{from + lines.offset[begin] + depth.offset[0], depth.step, 1};
            i64 flat = (i64)(pieces + groups) * depth.count;                       // loads and stores along lanes
            i64 turned = (i64)depth.segment_count * (end - begin) + 5 * (i64)groups * depth.count;  // along k
            if (flat <= turned && pieces <= groups * 8) {
                copy_vectors<T>(from, lines, group, groups, depth, guards, s.lanes, V::PANEL);
                return View<T>{s.lanes, V::PANEL, 1};
            }
            if (depth.segment_count <= depth.groups() * 8) {
                copy_turned<T>(from, depth, lines, begin, end, guards, s.lanes, V::PANEL);
                return View<T>{s.lanes, V::PANEL, 1};
            }
        }
        for (int k = 0; k < depth.count; k++)
            for (int i = end - begin; i < groups * WIDTH; i++) s.lanes[k * V::PANEL + i] = T(0);
        copy_elements<T, S>(from, lines, begin, end, depth, guards, s.lanes, 1, V::PANEL);
        return View<T>{s.lanes, V::PANEL, 1};
    }

    // One row against all lanes of this k block, straight from memory: answers whether that can be done.
    METAFUSE_PLAIN static bool one_row(Scratch<T> &s, const Source &source, const View<T> &row, bool fresh) {
        const Lines<T> &lines = s.lane_lines, &depth = s.lane_depth;
        if constexpr (DIRECT) {
            const T *from = (const T *)source.data + source.offset;
            if (find_guards(lines, 0, lines.groups(), depth, source.extent).count || !depth.uniform) return false;
            if (lines.uniform && lines.step == 1 && lines.count % (8 * WIDTH) == 0) {
                from += lines.offset[0] + depth.offset[0];
                for (int at = 0; at < lines.count; at += 8 * WIDTH)
                    multiply<T, 1, 8>(depth.count, from + at, depth.step, row.data, row.step_k, 0, s.tile + at, 0, fresh);
                return true;
            }
            if (depth.step == 1 && row.step_k == 1) {
                multiply_along<T>(depth.count, from + depth.offset[0], lines.offset, lines.count, row.data, s.tile, fresh);
                return true;
            }
        }
        return false;
    }
};

template <class T, int V>
static void multiply_panel(int depth, const View<T> &lane, const View<T> &row, int rows, T *tile, i64 pitch, bool fresh) {
    enum { STRIP = Simd<T>::STRIP };
    for (int r = 0; r < rows;) {
        bool strips = row.step == 1 && row.step_k == STRIP;
        const T *from = row.data + (strips ? (i64)(r / STRIP) * STRIP * Simd<T>::DEPTH + r % STRIP : r * row.step);
        T *to = tile + r * pitch;
        if (rows - r > 4 || ROWS == 4) {
            multiply<T, ROWS, V>(depth, lane.data, lane.step_k, from, row.step_k, row.step, to, pitch, fresh);
            r += ROWS;
        } else if (rows - r > 1) {
            multiply<T, 4, V>(depth, lane.data, lane.step_k, from, row.step_k, row.step, to, pitch, fresh);
            r += 4;
        } else {
            multiply<T, 1, V>(depth, lane.data, lane.step_k, from, row.step_k, row.step, to, pitch, fresh);
            r += 1;
        }
    }
}
"""
