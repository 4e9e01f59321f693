"""Tiles over two axes, for kernels that read along one of them and write along the other: transpositions and what joins them.

What it is: ``emit_tiles``. What is contiguous along the other axis is first turned, squares of vectors at a time, into a block
that stays in the cache; then the rows of the tile are computed from it and written run by run.
What it is not: the decision that a kernel is one (``access``).
Who calls it: ``codegen``.

Why the block: an element taken from each of many rows costs an instruction or two each, and rows that lie a power of two apart
fall into the same few places of a cache, where they throw each other out before their neighbours are used. A square of n vectors
is turned in log2(n) rounds that interleave vector k with vector k + n/2 (the perfect shuffle of Stone 1971).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from metafuse.backend.contract import Machine
from metafuse.kernel.cstyle import guarded, loaded
from metafuse.kernel.expr import Expr, walk
from metafuse.kernel.ir import Kernel, Stage
from metafuse.kernel.scope import Scope, affine

from .access import Schedule, stages_of
from .loops import SIMD, decode, extent, loop, name_value, statements
from .streaming import declare, finish, streamed, ways

__all__ = ["emit_tiles"]

#: bytes of a run that is written, elements of a run that is read
_WRITTEN, _READ = 256, 128
#: how many blocks there may be; other loads go to memory
_MOST_BLOCKS = 4
#: vectors of a square: more do not fit into the registers
_MOST_VECTORS = 16
#: shorter rows are read element by element
_FEWEST_LANES = 16
_ELEMENTS = {1: "unsigned char", 2: "unsigned short", 4: "unsigned int", 8: "unsigned long long"}


def emit_tiles(kernel: Kernel, root: Scope, machine: Machine, schedule: Schedule) -> tuple[list[str], int]:
    """Loops over tiles of the axes ``schedule.axis`` (contiguous in what is written) and ``schedule.across`` (in what is read).
    Answers the body of ``units`` and the grain."""
    lane, across = schedule.axis, schedule.across
    others = [number for number in range(kernel.outer + kernel.inner) if number not in (lane, across)]
    turned = _turned(kernel, lane, across)
    lengths = {lane: _WRITTEN // max(buffer.dtype.itemsize for buffer in kernel.buffers), across: _READ}
    past = streamed(kernel, lane, machine)
    outputs = {stage.buffer for stage in past}
    declare(kernel, root, outputs, lane, machine, ragged=False)

    def tiles(number: int, size: str) -> str:
        return f"({size} + {lengths[number] - 1}) / {lengths[number]}"

    root.line(f"const long long across = {tiles(across, extent(root, across))};")
    root.line(f"const long long along = {tiles(lane, extent(root, lane))};")
    with root.block(loop("unit", "begin", "end"), holds_loads=True) as unit:
        unit.line("const long long tile = unit % (across * along), rest = unit / (across * along);")
        decode(unit, "rest", others)
        for name, position, number in (("row", "tile / along", across), ("lane", "tile % along", lane)):
            size, length = extent(unit, number), lengths[number]
            unit.line(f"const long long {name}0 = {position} * {length};")
            unit.line(f"const long long {name}1 = {name}0 + {length} < {size} ? {name}0 + {length} : {size};")
        with unit.either(f"{extent(unit, lane)} >= {_FEWEST_LANES}", holds_loads=True) as (wide, narrow):
            for k, node in enumerate(turned):
                _turn(wide, k, node, lane, across, lengths[lane], machine)
            _rows(kernel, wide, lane, across, past, {n: (k, lengths[lane]) for k, n in enumerate(turned)})
            _rows(kernel, narrow, lane, across, [], {})
    finish(root, outputs)
    counts = [
        tiles(across, f"sizes[{across}]"),
        tiles(lane, f"sizes[{lane}]"),
        *(f"sizes[{k}]" for k in others),
    ]
    return [f"return {' * '.join(f'({count})' for count in counts)};"], 1


def _rows(
    kernel: Kernel,
    tile: Scope,
    lane: int,
    across: int,
    past: Sequence[Stage],
    blocks: dict[Expr, tuple[int, int]],
) -> None:
    """The rows of a tile. ``blocks``: loads whose elements are in a block: its number and the length of its rows."""
    with tile.block(loop(f"i{across}", "row0", "row1"), holds_loads=True) as row:
        row.bind("axis", across, f"i{across}")
        for block, places, first, last in ways(row, past, lane, "lane0", "lane1"):
            with block.block(loop(f"i{lane}", first, last), pragma=SIMD) as body:
                body.bind("axis", lane, f"i{lane}")
                for node, (k, lanes) in blocks.items():
                    place = f"block{k}[(i{across} - row0) * {lanes} + i{lane} - lane0]"
                    body.give(node, loaded(place, node.dtype, body.printer.dialect, body.printer.needs))
                for _, inner, outer in stages_of(kernel):
                    statements(body, [*inner, *outer], name_value, places)


def _turned(kernel: Kernel, lane: int, across: int) -> list[Expr]:
    """The loads that are contiguous along ``across`` and not along ``lane``, of arrays that the kernel does not write."""
    found: dict[Expr, None] = {}
    for stage in kernel.stages:
        for node in walk(stage.expr):
            if node.op == "load" and len(node.args) == 1 and not kernel.buffers[node.value].writes:
                place = affine(node.args[0])
                if place.stride(lane) == "strided" and place.stride(across) == "unit":
                    found[node] = None
    return list(found)[:_MOST_BLOCKS]


def _turn(unit: Scope, k: int, node: Expr, lane: int, across: int, lanes: int, machine: Machine) -> None:
    """Fill the block of a load: a row of ``lanes`` elements for each point along ``across``."""
    buffer = unit.printer.kernel.buffers[node.value].dtype
    size = buffer.itemsize
    unit.printer.needs[f"TURN{size}"] = _turning(size, machine)
    unit.line(f"{buffer.c_name} block{k}[{lanes * _READ}] __attribute__((aligned(64)));")
    step = unit.value(affine(node.args[0]).coefficients[lane])
    with unit.block("") as start:
        start.bind("axis", lane, "lane0")
        start.bind("axis", across, "row0")
        place = f"&b{node.value}[{start.index(node.args[0])}]"
        start.line(f"mf_turn{size}({place}, {step}, block{k}, {lanes}, lane1 - lane0, row1 - row0);")


@lru_cache(maxsize=None)
def _turning(size: int, machine: Machine) -> str:
    """``mf_turn<size>``: the columns of a matrix of elements of ``size`` bytes become rows."""
    count = min(machine.vector_bytes // size, _MOST_VECTORS)
    half = count // 2
    lower = ", ".join(f"{k // 2 + k % 2 * count}" for k in range(count))
    upper = ", ".join(f"{half + k // 2 + k % 2 * count}" for k in range(count))
    lines = [f"V v0_{k} = *(const L *)(from + {k} * step);" for k in range(count)]
    rounds = count.bit_length() - 1
    for r in range(rounds):
        for k in range(half):
            pair = f"v{r}_{k}, v{r}_{k + half}"
            lines.append(f"V v{r + 1}_{2 * k} = MF_MIX({pair}, {lower});")
            lines.append(f"V v{r + 1}_{2 * k + 1} = MF_MIX({pair}, {upper});")
    lines += [f"*(L *)(to + {k} * pitch) = v{rounds}_{k};" for k in range(count)]
    square = "\n".join(f"    {line}" for line in lines)
    integer = _ELEMENTS[size].replace("unsigned", "signed")
    return guarded(
        f"TURN{size}",
        f"""\
#ifdef __clang__
#define MF_MIX(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MF_MIX(a, b, ...) __builtin_shuffle(a, b, (M){{__VA_ARGS__}})
#endif
static inline void mf_turn{size}_square(const {_ELEMENTS[size]} *from, long long step, {_ELEMENTS[size]} *to, long long pitch) {{
    typedef {_ELEMENTS[size]} V __attribute__((vector_size({count * size})));
    typedef {integer} M __attribute__((vector_size({count * size})));
    typedef V L __attribute__((aligned({size}), may_alias));
{square}
}}
static void mf_turn{size}(const void *source, long long step, void *target, long long pitch, long long lanes, long long rows) {{
    typedef {_ELEMENTS[size]} E __attribute__((may_alias));
    const E *from = (const E *)source;
    E *to = (E *)target;
    for (long long lane = 0; lane < lanes; lane += {count}) {{
        for (long long row = 0; row < rows; row += {count}) {{
            if (lane + {count} <= lanes && row + {count} <= rows) {{
                mf_turn{size}_square(from + lane * step + row, step, to + row * pitch + lane, pitch);
                continue;
            }}
            for (long long r = row; r < rows && r < row + {count}; ++r)
                for (long long l = lane; l < lanes && l < lane + {count}; ++l) to[r * pitch + l] = from[l * step + r];
        }}
    }}
}}
#undef MF_MIX
""",
    )
