"""The loops of ``sorting_loops`` in C++.

What it is: text: what is done with a row or a whole array; all but ``PERMUTATION`` and ``SEARCH`` stand on ``sorting_header``.
What it is not: which array goes where, or the same in NumPy (``sorting_loops``).
Who calls it: ``sorting_loops``.
"""

from __future__ import annotations

__all__ = ["BEST", "COMMON", "DISTINCT", "NTH", "ORDER", "PERMUTATION", "SEARCH"]

_SIZES = """
const long outer = in0_shape0, n = in0_shape1, inner = in0_shape2;
"""

ORDER = f"""{_SIZES}
const Key flip = data["descending"] != 0 ? HIGHEST : 0;
if (outer * inner < mf_most() && n > 32768) {{
    for (long r = 0; r < outer * inner; ++r) {{
        const long start = r / inner * n * inner + r % inner;
        mf_long_row(in0_p + start, n, inner, flip, [&](const Item *items, long begin, long end) {{
            for (long i = begin; i < end; ++i) out_p[start + i * inner] = (int32_t)items[i].place;
        }});
    }}
}} else {{
    mf_rows(in0_p, out_p, outer, n, inner, n, flip, true, [&](const Key *keys, int32_t *found, const Room &room) {{
        room.load(keys, n);
        const Item *const items = room.sort(n);
        for (long i = 0; i < n; ++i) found[i] = (int32_t)items[i].place;
    }});
}}
"""

# Of as many as fit into the room, only the best are kept each time it is full; from then on only what is better than the last of
# them enters. Where few are wanted, they are kept in order instead.
BEST = f"""{_SIZES}
const long count = out_shape1;
const Key flip = data["largest"] != 0 ? HIGHEST : 0;
const long fits = 4 * count < 1024 ? 1024 : 4 * count, most = n < fits ? n : fits;
mf_rows(in0_p, out_p, outer, n, inner, count, flip, true, [&](const Key *keys, int32_t *found, const Room &room) {{
    if (count == 0) return;
    const bool few = count <= 32 && n > SHORT;
    long held = count, i = few ? count : most;
    Item *list = room.items;
    Key worst = 0;
    if (n <= SHORT) room.load(keys, n);
    else if (few) room.load(keys, count), list = room.sort(count), worst = list[count - 1].key;
    else worst = room.keep<true>(keys, most, count);
    while (i < n) {{
        if (i + 16 <= n) {{
            Key any = 0;
            for (int l = 0; l < 16; ++l) any |= keys[i + l] < worst;
            if (!any) {{
                i += 16;
                continue;
            }}
        }}
        for (const long end = i + 16 < n ? i + 16 : n; i < end; ++i) {{
            const Key key = keys[i];
            if (key >= worst) continue;
            if (few) {{
                long at = count - 1;
                for (; at > 0 && list[at - 1].key > key; --at) list[at] = list[at - 1];
                list[at] = {{key, (uint32_t)i}};
                worst = list[count - 1].key;
            }} else {{
                list[held++] = {{key, (uint32_t)i}};
                if (held == most) worst = room.keep<false>(nullptr, held, count), held = count;
            }}
        }}
    }}
    if (n <= SHORT) list = room.sort(n);
    else if (!few) {{
        if (held > count) room.keep<false>(nullptr, held, count);
        list = room.sort(count);
    }}
    for (long k = 0; k < count; ++k) found[k] = (int32_t)list[k].place;
}});
"""

NTH = f"""{_SIZES}
const long place = (long)data["place"];
mf_rows(in0_p, out_p, outer, n, inner, 1, 0, n <= SHORT, [&](const Key *keys, int32_t *found, const Room &room) {{
    if (n <= SHORT) {{
        room.load(keys, n);
        *found = (int32_t)room.sort(n)[place].place;
        return;
    }}
    long smaller;
    const Key key = mf_select(keys, room.spare, n, place, &smaller);
    *found = (int32_t)mf_find(keys, n, key, place - smaller);
}});
"""

COMMON = f"""{_SIZES}
mf_rows(in0_p, out_p, outer, n, inner, 1, 0, true, [&](const Key *keys, int32_t *found, const Room &room) {{
    room.load(keys, n);
    const Item *const items = room.sort(n);
    long most = 0;
    for (long i = 0, start = 0; i < n; ++i) {{
        if (items[i].key != items[start].key) start = i;
        if (i - start >= most) most = i - start + 1, *found = (int32_t)items[start].place;
    }}
}});
"""

# out: how many values; of each value its first place and, where asked for, its count; of each element, where asked for, its value
DISTINCT = """
const long n = in0_shape0;
const bool inverse = data["inverse"] != 0, counts = data["counts"] != 0;
int32_t *const first = out_p + 1, *const count = first + n, *const number = count + (counts ? n : 0);
long values = 0;
Key low = HIGHEST, high = 0;
for (long i = 0; i < n; ++i) {
    const Key key = mf_key(in0_p[i]);
    low = key < low ? key : low;
    high = key > high ? key : high;
}
if (n && high - low <= (Key)n && high - low < 1 << 20) {  // a table of all that may occur
    const long range = (long)(high - low) + 1;
    const int parts = n > 32768 ? mf_most() : 1;
    std::vector<int32_t> table(range * parts, -1), times(counts ? range * parts : 0);
    #pragma omp parallel for schedule(static)
    for (int p = 0; p < parts; ++p) {
        int32_t *const seen = table.data() + p * range, *const often = times.data() + p * range;
        const long begin = n * p / parts, end = n * (p + 1) / parts;
        for (long i = end - 1; i >= begin; --i) seen[mf_key(in0_p[i]) - low] = (int32_t)i;
        for (long i = counts ? begin : end; i < end; ++i) ++often[mf_key(in0_p[i]) - low];
    }
    for (long r = 0; r < range; ++r) {
        int32_t place = -1, total = 0;
        for (int p = parts - 1; p >= 0; --p) {
            if (table[p * range + r] >= 0) place = table[p * range + r];
            if (counts) total += times[p * range + r];
        }
        table[r] = (int32_t)values;
        if (place < 0) continue;
        first[values] = place;
        if (counts) count[values] = total;
        ++values;
    }
    #pragma omp parallel for schedule(static) if (n > 32768)
    for (long i = 0; i < (inverse ? n : 0); ++i) number[i] = table[mf_key(in0_p[i]) - low];
} else if (n) {
    const Item *sorted = nullptr;
    std::unique_ptr<Item[]> items(new Item[n]);
    mf_long_row(in0_p, n, 1, 0, [&](const Item *found, long begin, long end) {
        for (long i = begin; i < end; ++i) items[i] = found[i];
    });
    sorted = items.get();
    long start = 0;
    for (long i = 0; i < n; ++i) {
        if (i == 0 || sorted[i].key != sorted[i - 1].key) {
            if (counts && i) count[values - 1] = (int32_t)(i - start);
            first[values++] = (int32_t)sorted[i].place;
            start = i;
        }
        if (inverse) number[sorted[i].place] = (int32_t)(values - 1);
    }
    if (counts) count[values - 1] = (int32_t)(n - start);
}
out_p[0] = (int32_t)values;
"""

# Each number changes places with one before it or stays: in0 are 64 random bits, from which splitmix64 makes one number per step.
PERMUTATION = """
const long n = out_shape0;
const uint64_t seed = (uint64_t)(in0_p[0] * 16777216.0f) | (uint64_t)(in0_p[1] * 16777216.0f) << 24 |
                      (uint64_t)(in0_p[2] * 16777216.0f) << 48;
for (long start = 0; start < n; start += 256) {
    const int used = (int)(n - start < 256 ? n - start : 256);
    uint32_t other[256];
    for (int l = 0; l < used; ++l) {
        uint64_t z = seed + (uint64_t)(start + l + 1) * 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        const uint64_t among = (uint64_t)(start + l + 1);
        other[l] = (uint32_t)(((z >> 32) * among + ((z & 0xffffffffu) * among >> 32)) >> 32);
    }
    for (int l = 0; l < used; ++l) {
        out_p[start + l] = out_p[other[l]];
        out_p[other[l]] = (int32_t)(start + l);
    }
}
"""

# in0: ordered `[rows or 1, n]`, in1: `[rows, m]`; so many searches at once that their reads overlap. `BEHIND(v, w)`: w
# goes behind v; `FOUND(at, w)`: what is answered
SEARCH = """
const long n = in0_shape1, rows = in1_shape0, m = in1_shape1, blocks = (m + 63) / 64;
#pragma omp parallel for schedule(static) if (rows * m > 1024)
for (long b = 0; b < rows * blocks; ++b) {
    const long r = b / blocks, start = b % blocks * 64;
    const in0_type *const a = in0_p + (in0_shape0 > 1 ? r * n : 0);
    const int used = (int)(m - start < 64 ? m - start : 64);
    in0_type wanted[64];
    int at[64];
    for (int l = 0; l < 64; ++l) wanted[l] = in1_p[r * m + start + (l < used ? l : 0)], at[l] = 0;
    for (int left = (int)n; left > 0;) {
        const int half = left > 1 ? left / 2 : 1;
        for (int l = 0; l < 64; ++l) {
            const in0_type v = a[at[l] + half - 1], w = wanted[l];
            at[l] += BEHIND(v, w) ? half : 0;
        }
        left -= half;
    }
    for (int l = 0; l < used; ++l) out_p[r * m + start + l] = FOUND(at[l], wanted[l]);
}
"""
