"""The remainder of float32 division, exact, as arithmetic that compilers vectorise: the C library's is a loop over bits.

What it is: the text of ``mf_cmodf``.
What it is not: the remainder with the sign of the divisor, which ``metafuse.kernel.cstyle`` makes of it.
Who calls it: ``dialect``.

A quotient of two float32 is below 2^277. Every step takes the whole multiples of the divisor times 2^240, 2^192, ..., 1 off,
as the processor's double arithmetic sees them: a quotient below 2^50, wrong by one at most, which the next step repairs; and a
fused multiplication whose result needs 26 bits, so that nothing is ever rounded. IEEE 754 (2019), 9.2; C17, 7.12.10.1.
"""

from __future__ import annotations

from metafuse.kernel.cstyle import guarded

__all__ = ["remainder"]

_STEPS = (240, 192, 144, 96, 48, 0)
_STEP = """    part = divisor * 0x1p{k};
    left = __builtin_fma(-__builtin_trunc(left * (inverse * 0x1p-{k})), part, left);
"""
_TEXT = (
    """INLINE float mf_cmodf(float a, float b) {
    const double divisor = __builtin_fabs((double)b), inverse = 1.0 / divisor;
    double left = __builtin_fabs((double)a), part;
"""
    + "".join(_STEP.format(k=k) for k in _STEPS)
    + """    left = left < 0.0 ? left + divisor : left;
    left = left >= divisor ? left - divisor : left;
    const float whole = __builtin_fabsf(a);
    const float found = divisor == __builtin_inf() && whole < __builtin_inff() ? whole : (float)left;
    return __builtin_copysignf(found, a);
}
"""
)


def remainder(inline: str) -> str:
    """The guarded text that defines ``mf_cmodf``."""
    return guarded("cmodf", _TEXT.replace("INLINE", inline))
