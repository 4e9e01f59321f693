"""Kernel IR to C++ text for the CPU.

What it is: ``emit``, which looks at how a kernel walks through memory, chooses a schedule for it and puts
the parts of the source text together.
What it is not: a compiler driver (``compiler``), nor the loops themselves (``loops``, ``reductions``, ``lanes``, ``transposes``
and ``contraction``).
Who calls it: ``CpuBackend.emit``.

The text of one kernel exports three symbols and needs no header, no OpenMP runtime and no C++ library::

    void SYMBOL(void **buffers, const long long *sizes, const mf_scalar *scalars, long long begin, long long end)
    long long SYMBOL_units(const long long *sizes)      // how much there is to do
    const long long SYMBOL_grain                        // begin and end are multiples of it, but for the last end

A unit is whatever the schedule splits between threads: an element, a row, a tile. Any split gives the same bits.
"""

from __future__ import annotations

from metafuse.backend.contract import Machine
from metafuse.kernel.ir import Kernel
from metafuse.kernel.scope import Printer, Scope

from .access import FEWEST_LANES, Schedule, choose
from .dialect import SCALAR, CpuDialect
from .lanes import emit_lanes
from .loops import emit_elements
from .reductions import emit_rows
from .reuse import keep_in_outputs
from .transposes import emit_tiles

__all__ = ["emit"]


def emit(kernel: Kernel, symbol: str, machine: Machine, vector_math: bool = True) -> str:
    """C++ source that defines ``kernel`` under the name ``symbol`` (see the module for the interface).

    Args:
        kernel: what to compute.
        symbol: a C identifier, unique in the module.
        machine: cores, vector width and cache sizes that tiles are made for.
        vector_math: whether the compiler is g++ on x86 with glibc's libmvec; else functions of our own, which any
            compiler can vectorise, stand in for log and tanh (exp and erf are always our own), and the plain C library for
            the rest.

    Example:
        >>> from metafuse.dtypes import float32
        >>> from metafuse.kernel.expr import axis, call, load
        >>> from metafuse.kernel.ir import BufferParam, Stage
        >>> x = load(0, float32, axis(0))
        >>> double = Stage("store", "inner", call("add", x, x), 0, buffer=1, offset=axis(0))
        >>> params = (BufferParam(float32), BufferParam(float32, writes=True, reads=False))
        >>> "i0 < end" in emit(Kernel(1, 0, params, 1, (), (double,)), "twice", Machine())
        True
    """
    if kernel.contraction is not None:
        from . import contraction  # most programs have no product of their own

        text = contraction.emit(kernel, symbol, machine, vector_math)
        if text is not None:
            return text
    kernel = keep_in_outputs(kernel)
    schedules = choose(kernel)
    dialect = CpuDialect(vector_math=vector_math)
    needs: dict[str, str] = {}
    if len(schedules) == 1:
        body = _function(kernel, symbol, machine, dialect, needs, schedules[0])
    else:
        body = _either(kernel, symbol, machine, dialect, needs, schedules)
    return SCALAR + "".join(needs.values()) + body


_ARGUMENTS = (
    "void **buffers, const long long *sizes, const mf_scalar *scalars, long long begin, long long end"
)
_EMIT = {"elements": emit_elements, "rows": emit_rows, "lanes": emit_lanes}


def _function(
    kernel: Kernel,
    symbol: str,
    machine: Machine,
    dialect: CpuDialect,
    needs: dict[str, str],
    schedule: Schedule,
    exported: bool = True,
) -> str:
    """The three symbols of one schedule."""
    printer = Printer(kernel, dialect, needs, schedule.axis)
    root = Scope(printer)
    emit_loops = emit_tiles if schedule.across >= 0 else _EMIT[schedule.kind]
    units, grain = emit_loops(kernel, root, machine, schedule)
    count = "".join(f"    {line}\n" for line in units)
    linkage = 'extern "C"' if exported else "static"
    lines = [*_pointers(kernel, root.lines), *root.lines]
    text = f"{linkage} long long {symbol}_units(const long long *sizes) {{\n{count}}}\n"
    if exported:
        text += _grain(symbol, grain)
    text += f"{linkage} void {symbol}({_ARGUMENTS}) {{\n"
    text += "    if (begin >= end) return;\n"
    return text + "".join(f"    {line}\n" for line in lines) + "}\n"


def _grain(symbol: str, grain: int) -> str:
    return f'extern "C" {{\nextern const long long {symbol}_grain;\nconst long long {symbol}_grain = {grain};\n}}\n'


def _either(
    kernel: Kernel,
    symbol: str,
    machine: Machine,
    dialect: CpuDialect,
    needs: dict[str, str],
    schedules: list[Schedule],
) -> str:
    """Rows, or lanes where rows turn out to be very short at run time."""
    rows, lanes = schedules
    text = _function(kernel, f"{symbol}_rows", machine, dialect, needs, rows, exported=False)
    text += _function(kernel, f"{symbol}_lanes", machine, dialect, needs, lanes, exported=False)
    inner = " * ".join(f"sizes[{k}]" for k in range(kernel.outer, kernel.outer + kernel.inner))
    short = f"{inner} <= {lanes.short_row} && sizes[{lanes.axis}] >= {FEWEST_LANES}"
    return (
        text
        + f'extern "C" long long {symbol}_units(const long long *sizes) {{\n'
        + f"    return {short} ? {symbol}_lanes_units(sizes) : {symbol}_rows_units(sizes);\n}}\n"
        + _grain(symbol, 1)
        + f'extern "C" void {symbol}({_ARGUMENTS}) {{\n'
        + f"    ({short} ? {symbol}_lanes : {symbol}_rows)(buffers, sizes, scalars, begin, end);\n}}\n"
    )


def _pointers(kernel: Kernel, lines: list[str]) -> list[str]:
    """Typed pointers to the buffers that the text uses. ``may_alias``: two buffers of different types may be one memory."""
    text = "\n".join(lines)
    pointers = []
    for number, buffer in enumerate(kernel.buffers):
        if f"b{number}[" in text:
            qualifier = "" if buffer.writes else "const "
            pointers.append(f"typedef {qualifier}{buffer.dtype.c_name} __attribute__((may_alias)) T{number};")
            pointers.append(f"T{number} *b{number} = (T{number} *)buffers[{number}];")
    return pointers
