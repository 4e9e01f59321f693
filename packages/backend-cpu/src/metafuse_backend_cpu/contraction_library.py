"""The contraction engine as a library: compiled once per machine and element types, linked into every module that uses it.

What it is: ``reference``, what the text of a kernel says to use the engine, and ``source``, the engine as a translation unit
of its own. Both share one C interface: a kernel hands over a ``mf_contraction`` and gets its units done.
What it is not: the engine's parts (``contraction_vectors``, ``contraction_packing``, ``contraction_engine``), or the building
and keeping of the object (``libraries``).
Who calls it: ``contraction`` (``reference``) and ``libraries`` (``source``).

The name of a library says what it was made from: the vector width, the element types, and a digest of the engine's text, so
that kernels of another version of this package never count as the same text.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from metafuse.backend.contract import Machine
from metafuse.kernel.cstyle import guarded

from .contraction_engine import ENGINE
from .contraction_packing import PACKING
from .contraction_vectors import VECTORS
from .dialect import LIBRARY_MARKER

__all__ = ["BFLOAT16", "Types", "entry", "reference", "source"]

#: C types: of the sums, and of the elements of operands a and b as the engine reads them.
Types = tuple[str, str, str]
#: the C type as which the engine reads bfloat16, which is ``unsigned short`` in memory and for kernels
BFLOAT16 = "mf_bfloat16"

_INTERFACE = """struct mf_contraction {  // what is specific to one kernel
    const short *text;  // which size plays which part: contraction._describe
    void (*run)(void **buffers, const long long *sizes, const void *scalars, const long long *axis,
                const long long *delta, const long long *stride, long long count, const void *values);
    void (*place)(const long long *sizes, long long (*offsets)[16]);  // coefficients of every axis in `run`'s offsets
    int expressions, joins, cores;
};
#define MF_INTERNAL __attribute__((visibility("hidden")))
"""

_BFLOAT16_TEXT = """struct mf_bfloat16 {
    unsigned short bits;
    operator float() const {
        union { unsigned int bits; float value; } number;
        number.bits = (unsigned int)bits << 16;
        return number.value;
    }
};
"""

_SETTINGS = """#define METAFUSE_VECTOR_BYTES {width}
#if defined(__AVX512F__) || defined(__aarch64__)
#define METAFUSE_VECTOR_REGISTERS 32
#else
#define METAFUSE_VECTOR_REGISTERS 16
#endif
#if !defined(__clang__)
#pragma GCC optimize("O2")  // the loops that matter are vectors by hand
#endif
"""

_ENTRY = """extern "C" MF_INTERNAL void {entry}(const mf_contraction *kernel, void **buffers, const long long *sizes,
        const void *scalars, long long begin, long long end) {{
    if (begin < end) metafuse_contraction::contract<{types}>(*kernel, buffers, sizes, scalars, begin, end);
}}
extern "C" MF_INTERNAL long long {entry}_units(const mf_contraction *kernel, const long long *sizes) {{
    return metafuse_contraction::units<{sum}>(*kernel, sizes);
}}
"""


def entry(types: Types) -> str:
    """The C name of the engine for these types; the number of units is asked under the same name with ``_units``."""
    return "mf_contract_" + "_".join(types).replace(" ", "_")


def reference(types: Types, machine: Machine) -> str:
    """The first lines of a kernel that uses the engine: its marker, and the declarations of the interface.

    Example:
        >>> text = reference(("float", "float", "float"), Machine(vector_bytes=32))
        >>> text.startswith("// metafuse: uses contraction,32,float,float,float,")
        True
        >>> "void mf_contract_float_float_float(" in source(text.splitlines()[0].removeprefix(LIBRARY_MARKER))
        True
    """
    width = max(size for size in (16, 32, 64) if size <= max(machine.vector_bytes, 16))
    name = ",".join(("contraction", str(width), *types, _digest()))
    function = entry(types)
    declarations = guarded(
        function.upper(),
        f'extern "C" MF_INTERNAL void {function}(const mf_contraction *, void **, const long long *, const void *,\n'
        "        long long, long long);\n"
        f'extern "C" MF_INTERNAL long long {function}_units(const mf_contraction *, const long long *);\n',
    )
    return f"{LIBRARY_MARKER}{name}\n{guarded('CONTRACTION', _INTERFACE)}{declarations}"


def source(name: str) -> str:
    """The translation unit of the library ``name``, which defines its functions for the module that it is linked into."""
    _, width, total, first, second, _ = name.split(",")
    types = (total, first, second)
    return "".join(
        [
            guarded("CONTRACTION", _INTERFACE),
            _SETTINGS.format(width=width),
            _BFLOAT16_TEXT if BFLOAT16 in types else "",
            f"namespace {{ namespace metafuse_contraction {{{VECTORS}{PACKING}{ENGINE}}} }}\n",
            _ENTRY.format(entry=entry(types), types=", ".join(types), sum=total),
        ]
    )


@lru_cache(maxsize=1)
def _digest() -> str:
    parts = (_INTERFACE, _SETTINGS, _BFLOAT16_TEXT, VECTORS, PACKING, ENGINE, _ENTRY)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
