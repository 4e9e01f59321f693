"""Stores that go past the caches: loops that touch more memory than the caches hold write lines without reading them first.

What it is: ``streamed`` (which stores of a loop may do so), ``declare`` (the run-time question whether a call is large enough)
and ``ways`` (the loop for such calls, in tiles: results are collected in a small array and copied out by stores that bypass
the caches; and the plain loop for all others).
What it is not: for outputs that a kernel reads back, as softmax does: copying whole rows at once takes longer than it saves.
Who calls it: ``loops``, ``reductions`` and ``transposes``.

Why: a processor that stores to a line it does not have reads it from memory first, and another line leaves the caches for it. A
loop that adds two large arrays moves a quarter less without.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from metafuse.backend.contract import Machine
from metafuse.kernel.cstyle import guarded
from metafuse.kernel.expr import walk
from metafuse.kernel.ir import Kernel, Stage
from metafuse.kernel.scope import Scope, affine

from .access import cost, is_plain_store, stages_of

__all__ = ["declare", "finish", "streamed", "ways"]

#: bytes of a tile: short bursts of such stores let what comes after them go on
_TILE_BYTES = 1024
#: rows of fewer elements are not worth it; rows of other lengths than whole lines leave some in part, so they must be longer
_SHORTEST_ROW, _SHORTEST_RAGGED_ROW = 64, 512
_LINE = 64
#: a loop that costs more additions per point computes while it writes
_MOST_COST = 30

_HELPERS = guarded(
    "STREAM",
    """\
#if defined(__AVX512F__)
typedef long long mf_line __attribute__((vector_size(64), may_alias));
#define MF_STORE_PAST __builtin_ia32_movntdq512
#elif defined(__AVX__)
typedef long long mf_line __attribute__((vector_size(32), may_alias));
#define MF_STORE_PAST __builtin_ia32_movntdq256
#else
typedef long long mf_line __attribute__((vector_size(16), may_alias));
#define MF_STORE_PAST __builtin_ia32_movntdq
#endif
typedef mf_line mf_loose_line __attribute__((aligned(1)));
static inline void mf_stream(void *to, const void *from, long long size) {
    char *target = (char *)to;
    const char *source = (const char *)from;
    const long long ahead = -(unsigned long long)target & (sizeof(mf_line) - 1);
    const long long head = ahead < size ? ahead : size;
    __builtin_memcpy(target, source, head);
    long long at = head;
    for (; at + (long long)sizeof(mf_line) <= size; at += sizeof(mf_line)) {
#if defined(__clang__)
        __builtin_nontemporal_store(*(const mf_loose_line *)(source + at), (mf_line *)(target + at));
#else
        MF_STORE_PAST((mf_line *)(target + at), *(const mf_loose_line *)(source + at));
#endif
    }
    __builtin_memcpy(target + at, source + at, size - at);
}
""",
)


def streamed(kernel: Kernel, axis: int, machine: Machine) -> list[Stage]:
    """The stores to arrays that are written once, contiguously along ``axis``, and read by nobody here; none from phases in which
    something is folded, or computing takes longer than writing."""
    if not machine.stream_bytes or axis < 0:
        return []
    found: list[Stage] = []
    for _, inner, outer in stages_of(kernel):
        stages = inner if kernel.inner else [*inner, *outer]
        if cost(stages) <= _MOST_COST and all(stage.kind in ("store", "let") for stage in stages):
            found += [stage for stage in stages if is_plain_store(kernel, stage, axis)]
    return found


def declare(
    kernel: Kernel, root: Scope, outputs: Collection[int], axis: int, machine: Machine, ragged: bool = True
) -> None:
    """Define ``streams``: whether this call touches more memory than the caches hold, in long rows, and overwrites nothing that
    it reads. ``outputs``: the buffers that are to be written past the caches; ``ragged``: also in rows that end within a line."""
    if not outputs:
        return
    root.printer.needs["STREAM"] = _HELPERS
    widths = {number: kernel.buffers[number].dtype.itemsize for number in outputs}
    loads = {node for stage in kernel.stages for node in walk(stage.expr) if node.op == "load"}
    axes = range(kernel.outer + kernel.inner)
    whole = {
        node.value: node.dtype.itemsize
        for node in loads
        if all(affine(node.args[0]).stride(number) in ("unit", "strided") for number in axes)
    }
    size, most = f"sizes[{axis}]", machine.stream_bytes // sum({**whole, **widths}.values())
    points = " * ".join(f"sizes[{number}]" for number in axes)
    root.line(f"bool streams = {points} > {most}LL && {size} >= {_SHORTEST_ROW};")
    lines = _LINE // min(widths.values())
    longer = f" || {size} >= {_SHORTEST_RAGGED_ROW}" if ragged else ""
    root.line(f"streams = streams && ({size} % {lines} == 0{longer});")
    for one in sorted(widths):
        for other in sorted({node.value for node in loads}):
            root.line(f"streams = streams && buffers[{one}] != buffers[{other}];")


def finish(root: Scope, outputs: Collection[int]) -> None:
    """What comes after the last store: other threads see them all."""
    if outputs:
        root.line("if (streams) __builtin_ia32_sfence();")


def ways(
    scope: Scope, stores: Sequence[Stage], axis: int, start: str, stop: str
) -> Iterator[tuple[Scope, Mapping[int, str], str, str]]:
    """The ways to run a loop over [start, stop) along ``axis``: one, or two if there are ``stores`` that may go past the caches.
    For each: a block to put the loop in, where the elements of point ``i<axis>`` go if not to their buffers, and the bounds."""
    if not stores:
        yield scope, {}, start, stop
        return
    buffers = scope.printer.kernel.buffers
    length = _TILE_BYTES // max(buffers[stage.buffer].dtype.itemsize for stage in stores)
    with scope.either("streams") as (large, small):
        for k in (stage.buffer for stage in stores):
            large.line(f"T{k} tile{k}[{length}] __attribute__((aligned(64)));")
        with large.block(f"for (long long first = {start}; first < {stop}; first += {length})") as tile:
            tile.line(f"const long long last = {stop} - first < {length} ? {stop} : first + {length};")
            yield tile, {s.buffer: f"tile{s.buffer}[i{axis} - first]" for s in stores}, "first", "last"
            with tile.block("") as ends:
                ends.bind("axis", axis, "first")
                for stage in stores:
                    assert stage.offset is not None
                    k, place = stage.buffer, ends.index(stage.offset)
                    ends.line(f"mf_stream(&b{k}[{place}], tile{k}, (last - first) * sizeof(T{k}));")
        yield small, {}, start, stop
