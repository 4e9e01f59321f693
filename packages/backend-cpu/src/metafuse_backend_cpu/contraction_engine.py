"""The upper part of the contraction engine, as C++ text: run-time index algebra, blocking and the loop over units.

What it is: the text ``ENGINE``, which follows ``contraction_vectors.VECTORS`` and ``contraction_packing.PACKING``. It reads
a contraction's description (``contraction._describe``) and the run-time sizes; nothing in it depends on one kernel.
What it is not: the epilogue, which ``contraction`` writes per kernel and the engine calls through ``mf_contraction``.
Who calls it: ``contraction_library``.

One *unit* is one batch point, one residue class, and one block of rows by lanes with all of ``k``: units never share
results. Residue classes do away with divisors: where a dimension is ``(c * m + d * k + e) / s``, positions ``m`` of one
class modulo ``s`` need the same ``k`` modulo ``s``, so that within a class every index is affine again and no product
with an element that does not exist is ever computed.
"""

from __future__ import annotations

__all__ = ["ENGINE"]

ENGINE = r"""
enum { BATCH, M, N, K, ROLES };
enum { EXPRESSIONS = 24 };

struct Dimension {
    i64 coefficient[AXES], constant, divisor, extent, stride;
    bool guarded, divided;
};
struct Operand { const void *data; int dims; Dimension dim[DIMS]; };
struct Problem {
    i64 extent[AXES], split[AXES];  // split: the number of residue classes of an axis
    int count[ROLES], axis[ROLES][AXES];
    Operand operand[2];
};
// What one kernel does with finished results: `kernel.run` handles `count` of them along one line of lanes. `offsets` gives
// the coefficient of every axis in every affine offset that `run` uses; `joins` says that it uses axes in no other way.
struct Epilogue {
    const mf_contraction &kernel;
    int expressions;
    bool joins;
    i64 offsets[EXPRESSIONS][AXES];

    METAFUSE_PLAIN Epilogue(const mf_contraction &kernel, const i64 *sizes)
        : kernel(kernel), expressions(kernel.expressions), joins(kernel.joins) {
        for (int n = 0; n < expressions; n++)
            for (int x = 0; x < AXES; x++) offsets[n][x] = 0;
        kernel.place(sizes, offsets);
    }
};
struct Lattice { i64 start[AXES], step[AXES], count[AXES]; bool empty; };
struct Plan {
    bool swapped;  // whether the lanes are the m axes
    i64 classes, batches, rows, lanes, row_block, lane_block, row_blocks, lane_blocks, units;
};

// Reads what contraction._describe wrote: every number is a slot of `sizes`, an axis or a count.
METAFUSE_PLAIN static void parse(Problem &p, const short *text, const i64 *sizes, void **buffers) {
    int axes = *text++;
    for (int x = 0; x < axes; x++) p.extent[x] = sizes[x], p.split[x] = 1;
    for (int role = 0; role < ROLES; role++) {
        p.count[role] = *text++;
        for (int i = 0; i < p.count[role]; i++) p.axis[role][i] = *text++;
    }
    for (int o = 0; o < 2; o++) {
        Operand &operand = p.operand[o];
        operand.data = buffers ? buffers[*text] : 0, text++;
        operand.dims = *text++;
        for (int d = 0; d < operand.dims; d++) {
            Dimension &dim = operand.dim[d];
            for (int x = 0; x < axes; x++) dim.coefficient[x] = 0;
            for (int terms = *text++; terms > 0; terms--, text += 2) dim.coefficient[text[0]] += sizes[text[1]];
            dim.constant = text[0] < 0 ? 0 : sizes[text[0]];
            dim.divided = text[1] >= 0, dim.divisor = dim.divided ? sizes[text[1]] : 1;
            dim.guarded = text[2], dim.extent = sizes[text[3]], dim.stride = sizes[text[4]];
            text += 5;
            int role = o ? N : M;
            for (int i = 0; dim.divided && i < p.count[role]; i++)
                if (dim.coefficient[p.axis[role][i]]) p.split[p.axis[role][i]] = dim.divisor;
        }
    }
}

METAFUSE_PLAIN static i64 span(const Problem &p, int role, bool split) {
    i64 total = 1;
    for (int i = 0; i < p.count[role]; i++) {
        int x = p.axis[role][i];
        total *= split ? ceiling(p.extent[x], p.split[x]) : p.extent[x];
    }
    return total;
}

// How far apart neighbours along the fastest axis of a role are: in the first result, or in the role's own operand.
METAFUSE_PLAIN static i64 spacing(const Problem &p, int role, const Epilogue *result) {
    for (int i = p.count[role]; i-- > 0;) {
        int x = p.axis[role][i];
        if (p.extent[x] == 1) continue;
        if (result) return result->offsets[0][x] * p.split[x];
        i64 step = 0;
        const Operand &operand = p.operand[role == N];
        for (int d = 0; d < operand.dims; d++) step += operand.dim[d].coefficient[x] * operand.dim[d].stride;
        return p.extent[x] >= 6 ? step : 0;  // short stretches are hardly neighbours
    }
    return 1;
}

// What a product costs with these lanes and rows, in cycles: multiplying, packing both sides, storing.
template <class T> static double cost(i64 lanes, i64 rows, i64 depth, i64 operand_step, i64 result_step) {
    double width = Simd<T>::WIDTH, vectors = ceiling(lanes, Simd<T>::WIDTH), number = rows;
    double multiply = vectors * (rows > 4 ? ceiling(rows, ROWS) * ROWS / 2.0 : rows > 1 ? 2.5 : 1);
    double pack = rows == 1 ? vectors : vectors * (operand_step == 1 ? 6 : 14) + number / width * 6;
    return depth * (multiply + pack) + number * (result_step == 1 ? vectors * 3 : lanes * 1.5);
}

template <class T> METAFUSE_PLAIN static Plan make_plan(const Problem &p, const Epilogue &e) {
    enum { WIDTH = Simd<T>::WIDTH };
    Plan plan = {};
    i64 m = span(p, M, true), n = span(p, N, true), depth = span(p, K, false);
    // In cycles of two fused multiply-adds, from measurements: the m axes as lanes or the n axes?
    double along_m = cost<T>(m, n, depth, spacing(p, M, 0), spacing(p, M, &e));
    plan.swapped = along_m < cost<T>(n, m, depth, spacing(p, N, 0), spacing(p, N, &e));
    plan.lanes = plan.swapped ? m : n, plan.rows = plan.swapped ? n : m;
    plan.batches = span(p, BATCH, false), plan.classes = 1;
    for (int role = M; role <= N; role++)
        for (int i = 0; i < p.count[role]; i++) plan.classes *= p.split[p.axis[role][i]];
    i64 problems = plan.batches * plan.classes, cores = e.kernel.cores;
    if (problems * m * n == 0) return plan;
    plan.row_blocks = ceiling(plan.rows, ROW_LIMIT);
    plan.row_block = ceiling(ceiling(plan.rows, plan.row_blocks), ROWS) * ROWS;
    i64 tile = depth > Simd<T>::LONG ? Simd<T>::TILE / 2 : Simd<T>::TILE;
    i64 limit = least(tile / plan.row_block / WIDTH * WIDTH, LANE_LIMIT);
    plan.lane_blocks = ceiling(plan.lanes, limit);
    for (;;) {  // smaller blocks, until all cores have the same to do
        plan.row_block = ceiling(ceiling(plan.rows, plan.row_blocks), ROWS) * ROWS;
        plan.lane_block = ceiling(ceiling(plan.lanes, plan.lane_blocks), WIDTH) * WIDTH;
        plan.units = problems * plan.row_blocks * plan.lane_blocks;
        bool even = plan.units >= 2 * cores && plan.units % cores == 0;
        i64 work = plan.row_block * plan.lane_block * depth;
        if (even || plan.units >= 8 * cores || work < 1 << 18) break;
        if (plan.lane_block > WIDTH && (plan.lane_block >= 2 * plan.row_block || plan.row_block <= ROWS))
            plan.lane_blocks++;
        else if (plan.row_block > ROWS)
            plan.row_blocks++;
        else
            break;
    }
    return plan;
}

// -- from a unit's number to affine indices ---------------------------------------------------------------------------
inline void set_axis(Lattice &l, const Problem &p, int x, i64 start, i64 step) {
    l.start[x] = start, l.step[x] = step, l.count[x] = p.extent[x] > start ? ceiling(p.extent[x] - start, step) : 0;
}

// The k positions for which a divided dimension is whole: an arithmetic progression along the one k axis in it.
METAFUSE_PLAIN static void solve(Lattice &l, const Problem &p, const Dimension &dim) {
    i64 fixed = dim.constant;
    int along = -1;
    for (int role = BATCH; role < K; role++)
        for (int i = 0; i < p.count[role]; i++)
            fixed += dim.coefficient[p.axis[role][i]] * l.start[p.axis[role][i]];
    for (int i = 0; i < p.count[K]; i++)
        if (dim.coefficient[p.axis[K][i]]) along = p.axis[K][i];
    i64 first = -1, step = dim.divisor, factor = along < 0 ? 0 : dim.coefficient[along];
    for (i64 k = 0; k < 2 * dim.divisor; k++) {
        if ((fixed + factor * k) % dim.divisor) continue;
        if (first < 0) first = k;
        else { step = k - first; break; }
    }
    if (first < 0) l.empty = true;
    else if (along >= 0) set_axis(l, p, along, first, step);
}

METAFUSE_PLAIN static Lattice place_unit(const Problem &p, i64 problem) {
    Lattice l;
    l.empty = false;
    for (int role = K; role >= BATCH; role--)
        for (int i = p.count[role]; i-- > 0;) {
            int x = p.axis[role][i];
            i64 choices = role == BATCH ? p.extent[x] : role == K ? 1 : p.split[x];
            set_axis(l, p, x, problem % choices, role == BATCH ? p.extent[x] : choices);
            problem /= choices;
        }
    for (int o = 0; o < 2; o++)
        for (int d = 0; d < p.operand[o].dims; d++)
            if (p.operand[o].dim[d].divided) solve(l, p, p.operand[o].dim[d]);
    return l;
}

// The positions of one role's axes in one operand; `anchored` adds what all other axes and the constants contribute.
METAFUSE_PLAIN static Space make_space(const Problem &p, const Lattice &l, int role, const Operand &operand, bool anchored) {
    Space s;
    s.axes = p.count[role], s.guards = 0, s.total = 1, s.offset = 0;
    for (int i = 0; i < s.axes; i++) {
        s.count[i] = l.count[p.axis[role][i]], s.total *= s.count[i], s.step[i] = 0;
    }
    if (role == K && l.empty) s.total = 0;
    for (int d = 0; d < operand.dims; d++) {
        const Dimension &dim = operand.dim[d];
        i64 origin = dim.constant;
        for (int r = BATCH; r < ROLES; r++)
            for (int i = 0; i < p.count[r]; i++) origin += dim.coefficient[p.axis[r][i]] * l.start[p.axis[r][i]];
        origin = anchored ? origin / dim.divisor : 0;
        s.offset += origin * dim.stride;
        for (int i = 0; i < s.axes; i++) {
            int x = p.axis[role][i];
            i64 advance = dim.coefficient[x] * l.step[x] / dim.divisor;
            s.step[i] += advance * dim.stride;
            if (dim.guarded) s.advance[s.guards][i] = advance;
        }
        if (dim.guarded) s.origin[s.guards] = origin, s.extent[s.guards++] = dim.extent;
    }
    return s;
}

// -- one unit ---------------------------------------------------------------------------------------------------------
// All k blocks of one unit: tile[row][lane], rows `pitch` apart.
template <class T, class SR, class SL>
METAFUSE_PLAIN static void fill_tile(Scratch<T> &s, const Space &row_k, const Space &lane_k, const Source &row_source,
                                     const Source &lane_source, i64 pitch) {
    typedef Simd<T> V;
    int rows = s.row_lines.count, lanes = s.lane_lines.count;
    i64 sums = rows * pitch;
    bool two_levels = row_k.total > V::LONG;
    T *total = s.tile + V::TILE / 2;  // a plan for so many products leaves that half free
    for (i64 i = 0; two_levels && i < sums; i++) total[i] = T(0);
    for (i64 i = 0; row_k.total == 0 && i < sums; i++) s.tile[i] = T(0);
    for (i64 k = 0; k < row_k.total; k += V::DEPTH) {
        int depth = (int)least(V::DEPTH, row_k.total - k);
        s.row_depth.fill(row_k, k, depth);
        s.lane_depth.fill(lane_k, k, depth);
        View<T> row = Pack<T, SR>::rows(s, row_source, lanes);
        bool fresh = k % V::LONG == 0, done = rows == 1 && Pack<T, SL>::one_row(s, lane_source, row, fresh);
        for (int at = 0; at < lanes && !done;) {
            int left = (int)ceiling(lanes - at, V::WIDTH), vectors = left == 4 ? 2 : left < VECTORS ? left : VECTORS;
            int end = (int)least(lanes, at + vectors * V::WIDTH);
            View<T> lane = Pack<T, SL>::lanes(s, lane_source, at, end, rows);
            (vectors == 3   ? multiply_panel<T, 3>
             : vectors == 2 ? multiply_panel<T, 2>
                            : multiply_panel<T, 1>)(depth, lane, row, rows, s.tile + at, pitch, fresh);
            at = end;
        }
        bool last = k + depth == row_k.total;
        for (i64 i = 0; two_levels && (last || (k + depth) % V::LONG == 0) && i < sums; i++) {
            total[i] += s.tile[i];
            if (last) s.tile[i] = total[i];
        }
    }
}

// Hands the tile to the epilogue in runs of lanes whose offsets advance evenly.
template <class T>
METAFUSE_PLAIN static void finish(const Problem &p, const Lattice &l, const Epilogue &e, const Scratch<T> &s, int row_role,
                                  i64 row0, i64 lane0, i64 pitch, void **buffers, const i64 *sizes, const void *scalars) {
    int lane_role = row_role == M ? N : M, last = p.count[lane_role] - 1;
    i64 axis[AXES] = {}, delta[AXES] = {}, stride[EXPRESSIONS] = {}, run = 1;
    while (last > 0 && l.count[p.axis[lane_role][last]] == 1) last--;
    for (int i = 0; i < p.count[BATCH]; i++) axis[p.axis[BATCH][i]] = l.start[p.axis[BATCH][i]];
    if (last >= 0) {
        int x = p.axis[lane_role][last];
        run = l.count[x], delta[x] = l.step[x];
        for (int n = 0; n < e.expressions; n++) stride[n] = e.offsets[n][x] * l.step[x];
        for (int i = last; e.joins && i-- > 0; run *= l.count[p.axis[lane_role][i]]) {
            int y = p.axis[lane_role][i];
            bool even = true;
            for (int n = 0; n < e.expressions; n++) even &= e.offsets[n][y] * l.step[y] == stride[n] * run;
            if (!even && l.count[y] != 1) break;
        }
    }
    for (i64 at = 0; at < s.lane_lines.count;) {
        i64 rest = lane0 + at, number = least(run - rest % run, s.lane_lines.count - at);
        for (int i = p.count[lane_role]; i-- > 0;) {
            int x = p.axis[lane_role][i];
            axis[x] = l.start[x] + rest % l.count[x] * l.step[x], rest /= l.count[x];
        }
        for (int r = 0; r < s.row_lines.count; r++) {
            rest = row0 + r;
            for (int i = p.count[row_role]; i-- > 0;) {
                int x = p.axis[row_role][i];
                axis[x] = l.start[x] + (i ? rest % l.count[x] : rest) * l.step[x];
                if (i) rest /= l.count[x];
            }
            e.kernel.run(buffers, sizes, scalars, axis, delta, stride, number, s.tile + r * pitch + at);
        }
        at += number;
    }
}

template <class T> METAFUSE_PLAIN static i64 units(const mf_contraction &kernel, const i64 *sizes) {
    Problem p;
    parse(p, kernel.text, sizes, 0);
    return make_plan<T>(p, Epilogue(kernel, sizes)).units;
}

// Units [begin, end) of a contraction with operand elements A and B and sums of T.
template <class T, class A, class B>
METAFUSE_PLAIN static void contract(const mf_contraction &kernel, void **buffers, const i64 *sizes, const void *scalars,
                                    i64 begin, i64 end) {
    Problem p;
    parse(p, kernel.text, sizes, buffers);
    Epilogue e(kernel, sizes);
    Plan plan = make_plan<T>(p, e);
    Scratch<T> s;
    s.row_lines.count = s.lane_lines.count = s.row_depth.count = s.lane_depth.count = 0;  // no tables yet
    int row_role = plan.swapped ? N : M, lane_role = plan.swapped ? M : N;
    const Operand &row_operand = p.operand[plan.swapped], &lane_operand = p.operand[!plan.swapped];
    for (i64 unit = begin; unit < end; unit++) {
        i64 lane0 = unit % plan.lane_blocks * plan.lane_block, rest = unit / plan.lane_blocks;
        i64 row0 = rest % plan.row_blocks * plan.row_block;
        Lattice l = place_unit(p, rest / plan.row_blocks);
        Space rows = make_space(p, l, row_role, row_operand, true), lanes = make_space(p, l, lane_role, lane_operand, true);
        Space row_k = make_space(p, l, K, row_operand, false), lane_k = make_space(p, l, K, lane_operand, false);
        i64 row_count = least(plan.row_block, rows.total - row0), lane_count = least(plan.lane_block, lanes.total - lane0);
        if (row_count <= 0 || lane_count <= 0) continue;
        s.row_lines.fill(rows, row0, (int)row_count);
        s.lane_lines.fill(lanes, lane0, (int)lane_count);
        i64 pitch = ceiling(lane_count, Simd<T>::WIDTH) * Simd<T>::WIDTH;
        Source row_source = {row_operand.data, rows.offset, rows.extent};
        Source lane_source = {lane_operand.data, lanes.offset, lanes.extent};
        (plan.swapped ? fill_tile<T, B, A> : fill_tile<T, A, B>)(s, row_k, lane_k, row_source, lane_source, pitch);
        finish<T>(p, l, e, s, row_role, row0, lane0, pitch, buffers, sizes, scalars);
    }
}
"""
