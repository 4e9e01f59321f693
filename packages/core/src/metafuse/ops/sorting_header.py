"""What the loops of ``sorting_texts`` are made of, in C++.

What it is: text: keys whose order as whole numbers is that of the values, a stable radix sort of keys with their places, the
selection of one key, and the walk over rows.
What it is not: what is done with a row (``sorting_texts``).
Who calls it: ``sorting_loops``.
"""

from __future__ import annotations

__all__ = ["HEADER"]

# Rows are those of `[outer, n, inner]` along n. One row sorted by several threads is cut into parts: whoever knows how often each
# digit occurs in the parts before its own writes to places of its own.
HEADER = """#include <memory>
#include <type_traits>
typedef in0_type T;
typedef std::conditional<sizeof(T) == 8, uint64_t, uint32_t>::type Key;
enum { BITS = 8 * (int)sizeof(T), LANES = 16, SHORT = 4 * LANES, DIGITS = 2048 };
typedef Key Lanes __attribute__((vector_size(LANES * sizeof(Key))));
static const Key HIGHEST = ~(Key)0 >> (8 * (int)sizeof(Key) - BITS);
static inline uint32_t mf_key(bool x) { return x; }
static inline uint32_t mf_key(uint8_t x) { return x; }
static inline uint32_t mf_key(uint16_t x) { return x; }
static inline uint32_t mf_key(uint32_t x) { return x; }
static inline uint64_t mf_key(uint64_t x) { return x; }
static inline uint32_t mf_key(int8_t x) { return (uint8_t)x ^ 0x80u; }
static inline uint32_t mf_key(int16_t x) { return (uint16_t)x ^ 0x8000u; }
static inline uint32_t mf_key(int32_t x) { return (uint32_t)x ^ 0x80000000u; }
static inline uint64_t mf_key(int64_t x) { return (uint64_t)x ^ (uint64_t)1 << 63; }
static inline uint32_t mf_key(float x) {
    uint32_t bits = x == 0 ? 0 : bits_of(x);
    bits ^= (uint32_t)((int32_t)bits >> 31) | 0x80000000u;
    return x == x ? bits : ~(uint32_t)0;
}
static inline uint64_t mf_key(double x) {
    uint64_t bits;
    std::memcpy(&bits, &x, 8);
    bits = x == 0 ? 0 : bits;
    bits ^= (uint64_t)((int64_t)bits >> 63) | (uint64_t)1 << 63;
    return x == x ? bits : ~(uint64_t)0;
}
static inline uint32_t mf_half_key(uint32_t bits, uint32_t infinity) {
    const uint32_t size = bits & 0x7fff, key = size == 0 ? 0x8000 : bits & 0x8000 ? ~bits & 0xffff : bits | 0x8000;
    return size > infinity ? 0xffff : key;
}
static inline uint32_t mf_key(float16 x) { return mf_half_key(x.bits, 0x7c00); }
static inline uint32_t mf_key(bfloat16 x) { return mf_half_key(x.bits, 0x7f80); }
struct Item { Key key; uint32_t place; };
#ifdef _OPENMP
static inline int mf_most() { return omp_get_max_threads(); }
static inline int mf_members() { return omp_get_num_threads(); }
static inline int mf_number() { return omp_get_thread_num(); }
#else
static inline int mf_most() { return 1; }
static inline int mf_members() { return 1; }
static inline int mf_number() { return 0; }
#endif
static void mf_wait(int members) {
    if (members > 1) {
        #pragma omp barrier
    }
}
// A few items: how many come before each, for all of them at once.
template <int VECTORS>
static void mf_sort_short(const Item *a, Item *b, int n) {
    Lanes keys[VECTORS] = {}, before[VECTORS] = {}, lane[VECTORS];
    for (int l = 0; l < VECTORS * LANES; ++l) lane[l / LANES][l % LANES] = l;
    for (int i = 0; i < n; ++i) keys[i / LANES][i % LANES] = a[i].key;
    for (int i = 0; i < n; ++i) {
        const Lanes key = Lanes{} + a[i].key, at = Lanes{} + (Key)i;
        for (int v = 0; v < VECTORS; ++v)
            before[v] -= (Lanes)(key < keys[v]) | ((Lanes)(key == keys[v]) & (Lanes)(at < lane[v]));
    }
    for (int i = 0; i < n; ++i) b[before[i / LANES][i % LANES]] = a[i];
}
// The items in order, in `a` or `b`; ties keep theirs. `counts`: DIGITS per member; `differs`: one per member.
static Item *mf_sort(Item *a, Item *b, long n, uint32_t *counts, Key *differs, int members, int number) {
    if (n <= SHORT && members == 1) {
        if (n <= LANES) mf_sort_short<1>(a, b, (int)n);
        else if (n <= 2 * LANES) mf_sort_short<2>(a, b, (int)n);
        else mf_sort_short<4>(a, b, (int)n);
        return b;
    }
    const long begin = n * number / members, end = n * (number + 1) / members;
    const Key first = a[0].key;
    Key differ = 0;
    for (long i = begin; i < end; ++i) differ |= a[i].key ^ first;
    differs[number] = differ;
    mf_wait(members);
    for (int m = 0; m < members; ++m) differ |= differs[m];
    const int wide = n < 16384 ? 8 : 11, digits = 1 << wide;
    const Key mask = digits - 1;
    uint32_t *const mine = counts + number * DIGITS;
    for (int shift = differ ? __builtin_ctzll(differ) : BITS; shift < BITS && differ >> shift; shift += wide) {
        if (!(differ >> shift & mask)) continue;
        for (int d = 0; d < digits; ++d) mine[d] = 0;
        for (long i = begin; i < end; ++i) ++mine[a[i].key >> shift & mask];
        mf_wait(members);
        uint32_t offsets[DIGITS], sum = 0;
        for (int d = 0; d < digits; ++d)
            for (int m = 0; m < members; ++m) {
                const uint32_t count = counts[m * DIGITS + d];
                if (m == number) offsets[d] = sum;
                sum += count;
            }
        for (long i = begin; i < end; ++i) b[offsets[a[i].key >> shift & mask]++] = a[i];
        mf_wait(members);
        Item *const former = a;
        a = b;
        b = former;
    }
    return a;
}
// Key number `place` in order, and how many are smaller: halves the range of keys by counting, and forgets those outside of it.
static Key mf_select(const Key *keys, Key *spare, long n, long place, long *smaller) {
    const Key *from = keys;
    long forgotten = 0;
    for (;;) {
        Key low = from[0], high = from[0];
        for (long i = 0; i < n; ++i) {
            low = from[i] < low ? from[i] : low;
            high = from[i] > high ? from[i] : high;
        }
        long less = 0, upto = n;
        while (low < high && (n <= 64 || upto - less > n / 4)) {
            const Key middle = low + (high - low) / 2;
            uint32_t count = 0;
            for (long i = 0; i < n; ++i) count += from[i] <= middle;
            if ((long)count > place) high = middle, upto = count;
            else low = middle + 1, less = count;
        }
        if (low >= high) {
            *smaller = forgotten + less;
            return low;
        }
        long kept = 0;
        for (long i = 0; i < n; ++i) {
            const Key key = from[i];
            spare[kept] = key;
            kept += key >= low && key <= high;
        }
        from = spare;
        n = kept;
        place -= less;
        forgotten += less;
    }
}
// Where `wanted` stands for the time `before` + 1.
static long mf_find(const Key *keys, long n, Key wanted, long before) {
    long i = 0;
    for (; i + 64 <= n; i += 64) {
        int count = 0;
        for (int l = 0; l < 64; ++l) count += keys[i + l] == wanted;
        if (count > before) break;
        before -= count;
    }
    for (; i < n; ++i)
        if (keys[i] == wanted && before-- == 0) break;
    return i;
}
static inline size_t mf_whole(size_t bytes) { return (bytes + 63) / 64 * 64; }
struct Room {
    Key *keys, *spare;
    Item *items, *others;
    uint32_t *counts;
    Item *load(const Key *row, long n) const {
        for (long i = 0; i < n; ++i) items[i] = {row[i], (uint32_t)i};
        return items;
    }
    Item *sort(long n) const {
        Key differs;
        return mf_sort(items, others, n, counts, &differs, 1, 0);
    }
    // Keeps the first `count` in order of n items (FRESH: of a row) and answers the last key. Ties stand as they stood.
    template <bool FRESH>
    Key keep(const Key *row, long n, long count) const {
        for (long i = 0; i < (FRESH ? 0 : n); ++i) spare[i] = items[i].key;
        long smaller, kept = 0, equal = 0;
        const Key last = mf_select(FRESH ? row : spare, spare, n, count - 1, &smaller);
        for (long i = 0; i < n; ++i) {
            const Item item = FRESH ? Item{row[i], (uint32_t)i} : items[i];
            items[kept] = others[equal] = item;
            kept += item.key < last;
            equal += item.key == last;
        }
        for (long i = 0; kept < count; ++i) items[kept++] = others[i];
        return last;
    }
};
// Calls `row(keys, found, room)` for every row; neighbours in memory are read and written together.
template <class Row>
static void mf_rows(const T *x, int32_t *out, long outer, long n, long inner, long answers, Key flip, bool sorts, Row row) {
    const long fits = n > 4096 ? 1 : n > 1024 ? 4 : 16, across = inner < fits ? inner : fits;
    if (outer * inner == 0) return;
    const long blocks = (inner + across - 1) / across, units = outer * blocks, items = sorts ? n : 0;
    const size_t key_bytes = mf_whole(n * (across + 1) * sizeof(Key)), item_bytes = mf_whole(2 * items * sizeof(Item));
    const size_t found_bytes = mf_whole(across * answers * 4), bytes = key_bytes + item_bytes + found_bytes + DIGITS * 4 + 64;
    const std::unique_ptr<char[]> memory(new char[bytes * mf_most() + 64]);
    char *const start = memory.get() + (64 - (size_t)memory.get() % 64);
    #pragma omp parallel if (units > 1 && outer * inner * n > 8192)
    {
        char *const own = start + bytes * mf_number();
        Room room;
        room.keys = (Key *)own;
        room.spare = room.keys + n * across;
        room.items = (Item *)(own + key_bytes);
        room.others = room.items + items;
        int32_t *const found = (int32_t *)(own + key_bytes + item_bytes);
        room.counts = (uint32_t *)(own + key_bytes + item_bytes + found_bytes);
        #pragma omp for schedule(static)
        for (long unit = 0; unit < units; ++unit) {
            const long o = unit / blocks, j = unit % blocks * across, used = inner - j < across ? inner - j : across;
            const T *const from = x + o * n * inner + j;
            int32_t *const to = out + o * answers * inner + j;
            if (inner == 1) {
                for (long i = 0; i < n; ++i) room.keys[i] = mf_key(from[i]) ^ flip;
                row(room.keys, to, room);
                continue;
            }
            for (long i = 0; i < n; ++i)
                for (long c = 0; c < used; ++c) room.keys[c * n + i] = mf_key(from[i * inner + c]) ^ flip;
            for (long c = 0; c < used; ++c) row(room.keys + c * n, found + c * answers, room);
            for (long i = 0; i < answers; ++i)
                for (long c = 0; c < used; ++c) to[i * inner + c] = found[c * answers + i];
        }
    }
}
// One row, sorted by all threads; `done(items, begin, end)` is called for each part.
template <class Done>
static void mf_long_row(const T *x, long n, long step, Key flip, Done done) {
    const int most = mf_most();
    const std::unique_ptr<Item[]> items(new Item[2 * n]);
    const std::unique_ptr<uint32_t[]> counts(new uint32_t[DIGITS * most]);
    const std::unique_ptr<Key[]> differs(new Key[most]);
    #pragma omp parallel if (n > 32768)
    {
        const int members = mf_members(), number = mf_number();
        const long begin = n * number / members, end = n * (number + 1) / members;
        for (long i = begin; i < end; ++i) items[i] = {mf_key(x[i * step]) ^ flip, (uint32_t)i};
        mf_wait(members);
        const Item *const sorted = mf_sort(items.get(), items.get() + n, n, counts.get(), differs.get(), members, number);
        done(sorted, begin, end);
    }
}
"""
