"""Floats of 16 bits strip by strip: whole vectors are converted between float16 and float32 by the processor's instructions.

What it is: ``Halves``, which finds the reads and writes of a loop that can be converted so and writes what comes before and
after the loop over one strip, and ``whole_strips``, a loop in strips.
What it is not: for elements that are not next to each other, and for what strips leave of a row. The functions of
``metafuse.kernel.cstyle`` convert those, with the same results to the bit.
Who calls it: ``loops``, ``reductions`` and ``lanes``.

Why: g++ vectorises no conversion of float16 unless the processor also calculates with it, and in integer and float32
arithmetic one takes ten operations. Here a strip's numbers are converted into a small array, the loop over the strip reads
that, and what it writes to another is converted when it is done. Compilers keep both arrays in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from metafuse.dtypes import float16
from metafuse.kernel.cstyle import HELPERS, guarded
from metafuse.kernel.expr import Expr
from metafuse.kernel.ir import Stage
from metafuse.kernel.scope import Scope, affine

from .access import cost, is_plain_store

__all__ = ["Halves", "whole_strips"]

#: lanes of a strip that costs at most so many additions per point; dearer ones have as many as a vector
_LANES, _VECTOR_LANES = ((6, 64), (18, 32)), 16
_VECTOR_BYTES = 64

_HELPERS = """\
#if defined(__AVX512F__)
typedef float mf_wide __attribute__((vector_size(64), may_alias));
typedef short mf_narrow __attribute__((vector_size(32), may_alias, aligned(1)));
#define MF_WIDEN(x) (mf_wide)__builtin_ia32_vcvtph2ps512_mask(x, mf_wide{}, -1, 4)
#define MF_NARROW(x) (mf_narrow)__builtin_ia32_vcvtps2ph512_mask(x, 0, mf_narrow{}, -1)
#elif defined(__F16C__)
typedef float mf_wide __attribute__((vector_size(32), may_alias));
typedef short mf_narrow __attribute__((vector_size(16), may_alias, aligned(1)));
#define MF_WIDEN(x) (mf_wide)__builtin_ia32_vcvtph2ps256(x)
#define MF_NARROW(x) (mf_narrow)__builtin_ia32_vcvtps2ph256(x, 0)
#endif
template <int N, class T> INLINE void mf_widen(float *to, const T *from) {
    int at = 0;
#ifdef MF_WIDEN
    for (const int step = sizeof(mf_wide) / 4; at + step <= N; at += step)
        *(mf_wide *)(to + at) = MF_WIDEN(*(const mf_narrow *)(from + at));
#endif
    #pragma omp simd
    for (int k = at; k < N; ++k) to[k] = mf_float16_value(from[k]);
}
template <int N, class T> INLINE void mf_narrowed(T *to, const float *from) {
    int at = 0;
#ifdef MF_NARROW
    for (const int step = sizeof(mf_wide) / 4; at + step <= N; at += step)
        *(mf_narrow *)(to + at) = MF_NARROW(*(const mf_wide *)(from + at));
#endif
    #pragma omp simd
    for (int k = at; k < N; ++k) to[k] = mf_float16_bits(mf_float16_round(from[k]));
}
"""


@dataclass(frozen=True)
class Halves:
    """The reads (a load and the name of the array that its strip goes to) and the writes of float16 in some stages that run
    through memory element by element along ``axis``."""

    axis: int
    reads: Mapping[Expr, str]
    writes: Sequence[Stage]

    @classmethod
    def of(cls, scope: Scope, stages: Sequence[Stage], axis: int) -> Halves:
        """Those of ``stages``: arrays that the kernel only reads, and stores to arrays that nobody here reads."""
        kernel = scope.printer.kernel
        loads = dict.fromkeys(node for s in stages for node in s.loads)
        reads = {
            node: scope.printer.fresh("h")
            for node in loads
            if node.dtype is float16
            and len(node.args) == 1
            and not kernel.buffers[node.value].writes
            and affine(node.args[0]).stride(axis) == "unit"
        }
        writes = [
            s for s in stages if is_plain_store(kernel, s, axis) and kernel.buffers[s.buffer].dtype is float16
        ]
        return cls(axis, reads, writes)

    def __bool__(self) -> bool:
        return bool(self.reads or self.writes)

    @property
    def places(self) -> dict[int, str]:
        """Where the element of lane ``l`` goes, by buffer: there it stays a float until the strip is done."""
        return {stage.buffer: f"w{stage.buffer}[l]" for stage in self.writes}

    def before(self, scope: Scope, first: str, lanes: int) -> None:
        """What comes before the loop over the lanes of the strip that begins at ``first``."""
        if not self:
            return
        needs, inline = scope.printer.needs, scope.printer.dialect.inline
        for name in ("float16_value", "float16_round", "float16_bits"):
            needs.setdefault(name, guarded(name, HELPERS[name].replace("INLINE", inline)))
        needs["HALVES"] = guarded("HALVES", _HELPERS.replace("INLINE", inline))
        names = [*self.reads.values(), *(f"w{stage.buffer}" for stage in self.writes)]
        scope.line(
            "float " + ", ".join(f"{name}[{lanes}] __attribute__((aligned(64)))" for name in names) + ";"
        )
        if not self.reads:
            return
        with scope.block("") as block:
            block.bind("axis", self.axis, first)
            for node, name in self.reads.items():
                place = f"b{node.value}[{block.index(node.args[0])}]"
                block.line(f"mf_widen<{lanes}>({name}, &{place});")

    def give(self, body: Scope) -> None:
        """Inside of that loop what was read is at hand."""
        for node, name in self.reads.items():
            body.give(node, f"{name}[l]")

    def after(self, scope: Scope, first: str, lanes: int, places: Mapping[int, str]) -> None:
        """What comes after the loop. ``places``: buffers whose elements go elsewhere."""
        if not self.writes:
            return
        with scope.block("") as block:
            block.line(f"const long long i{self.axis} = {first};")
            block.bind("axis", self.axis, f"i{self.axis}")
            for stage in self.writes:
                assert stage.offset is not None
                place = places.get(stage.buffer) or f"b{stage.buffer}[{block.index(stage.offset)}]"
                block.line(f"mf_narrowed<{lanes}>(&{place}, w{stage.buffer});")


def whole_strips(
    scope: Scope,
    stages: Sequence[Stage],
    axis: int,
    start: str,
    stop: str,
    places: Mapping[int, str],
    pragma: str,
    run: Callable[[Scope, Mapping[int, str], Collection[int]], None],
) -> str:
    """A loop along ``axis`` over the whole strips of [start, stop), if there is something to convert. Answers where what is left
    begins. ``run`` writes the body, given the places that elements of some buffers go to and those of them that take floats."""
    halves = Halves.of(scope, stages, axis)
    if not halves:
        return start
    lanes, at = _lanes(halves, stages), scope.printer.fresh("at")
    scope.line(f"long long {at} = {start};")
    with scope.block(f"for (; {at} + {lanes} <= {stop}; {at} += {lanes})") as strip:
        halves.before(strip, at, lanes)
        with strip.block(f"for (int l = 0; l < {lanes}; ++l)", pragma=pragma) as body:
            body.line(f"const long long i{axis} = {at} + l;")
            body.bind("axis", axis, f"i{axis}")
            halves.give(body)
            run(body, {**places, **halves.places}, halves.places)
        halves.after(strip, at, lanes, places)
    return at


def _lanes(halves: Halves, stages: Sequence[Stage]) -> int:
    """As many as keep the processor busy, and fill a vector of the smallest elements that the loop itself reads or writes."""
    sizes = [node.dtype.itemsize for s in stages for node in s.loads if node not in halves.reads]
    sizes += [s.expr.dtype.itemsize for s in stages if s.kind == "store" and s not in halves.writes]
    additions = cost(stages)
    lanes = next((lanes for most, lanes in _LANES if additions <= most), _VECTOR_LANES)
    return max(lanes, _VECTOR_BYTES // min(sizes, default=4))
