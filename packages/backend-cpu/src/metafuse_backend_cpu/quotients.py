"""Integer division and its remainder as arithmetic that compilers vectorise: no processor divides vectors of integers.

What it is: the text of ``mf_floordiv``, ``mf_mod``, ``mf_cdiv`` and ``mf_cmod`` for integers of up to 32 bits.
What it is not: those of 64 bits, or by a literal, of which compilers make a multiplication: for these it calls the text that
``metafuse.kernel.cstyle`` has.
Who calls it: ``dialect``.

The quotient is rounded down (or cut) in double arithmetic, and exact: a quotient that is no integer is at least 1/|b| away from
the next one, and the division's rounding error is at most |a/b| 2^-53 (IEEE 754 (2019), 4.3.1), which is less while |a| < 2^53.
The smallest integer divided by -1 wraps around, as it does in NumPy; what is divided by 0 is 0.
"""

from __future__ import annotations

__all__ = ["QUOTIENTS", "quotient"]

_REST = "(T)((unsigned)a - (unsigned)whole * (unsigned)b)"
#: operation -> how the quotient is rounded, what the answer is
QUOTIENTS = {
    "floordiv": ("floor", "whole"),
    "mod": ("floor", _REST),
    "cdiv": ("trunc", "whole"),
    "cmod": ("trunc", _REST),
}
_TEXT = """template <class T> INLINE T mf_NAME(T a, T b) {
    if (sizeof(T) > 4 || __builtin_constant_p(b)) return mf_NAME_in_integers(a, b);
    const double near = __builtin_ROUND((double)a / (double)(b == 0 ? (T)1 : b));
    const T whole = (T)-1 < 0 ? (T)(int)(near < 0x1p31 ? near : -0x1p31) : (T)(unsigned)near;
    return b == 0 ? (T)0 : ANSWER;
}
"""


def quotient(name: str, exact: str, inline: str) -> str:
    """The text that defines ``mf_<name>``. ``exact``: one that is right for integers of all widths."""
    rounding, answer = QUOTIENTS[name]
    text = _TEXT.replace("NAME", name).replace("ROUND", rounding).replace("ANSWER", answer)
    return exact.replace(f"mf_{name}", f"mf_{name}_in_integers") + text.replace("INLINE", inline)
