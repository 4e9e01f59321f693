"""C++ as the CPU's compilers take it: which functions loops may call so that they still vectorise.

What it is: ``CpuDialect``, and what texts of kernels begin with.
What it is not: the spelling of operations (``metafuse.kernel.cstyle``).
Who calls it: ``codegen``, ``contraction`` and ``libraries``.
"""

from __future__ import annotations

from dataclasses import dataclass

from metafuse.dtypes import DType, float32
from metafuse.kernel.cstyle import Dialect, guarded

from .polynomials import polynomial
from .quotients import QUOTIENTS, quotient
from .remainder import remainder

__all__ = ["LIBRARY_MARKER", "SCALAR", "CpuDialect"]

#: What the first line of a source starts with that uses a library; the rest of the line is the library's name.
LIBRARY_MARKER = "// metafuse: uses "
#: the type of run-time numbers, which every kernel's text defines
SCALAR = guarded("SCALAR", "union mf_scalar { double f; long long i; };\n")
#: functions that glibc's libmvec has in vector form, for float and double
_VECTOR = frozenset(
    "exp log pow sin cos tan atan asin acos sinh cosh tanh asinh acosh atanh atan2 erf expm1 log1p".split()
)


@dataclass(frozen=True)
class CpuDialect(Dialect):
    """C++ for g++ and clang++; with ``vector_math`` glibc's vector functions are declared, without it our own are used. The
    exponential and the error function of float32 are always our own."""

    inline: str = "static inline __attribute__((always_inline))"
    vector_math: bool = True

    def function(self, name: str, dtype: DType) -> tuple[str, str]:
        if dtype is float32 and name == "cmod":
            return "mf_cmodf", remainder(self.inline)
        ours = dtype is float32 and (name in ("exp", "erf") or not self.vector_math)
        own = polynomial(name, self.inline) if ours else ""
        if own:
            return f"mf_{name}f", own
        callee, declaration = super().function(name, dtype)
        if self.vector_math and name in _VECTOR:
            vector = '__attribute__((simd("notinbranch"), const)) '
            declaration = declaration.replace('extern "C" ', 'extern "C" ' + vector)
        return callee, declaration

    def helper(self, name: str) -> str:
        text = super().helper(name)
        return quotient(name, text, self.inline) if name in QUOTIENTS else text
