"""Exponential, logarithm, hyperbolic tangent and error function of float32 as C++ that any compiler can vectorise.

What it is: the text of branch-free functions, each within 3 units in the last place over its whole range, with NaN, infinities
and subnormal numbers as in the C library. Coefficients are minimax fits in float64, rounded to float32.
What it is not: the usual way with g++ and glibc but for the exponential and the error function: vector functions of the C
library exist for everything there. Those two are faster here even so: within a loop they leave the registers of other values
alone, and the error function takes half the time.
Who calls it: ``dialect``, and ``codeop`` for snippets that ask for one.
"""

from __future__ import annotations

from metafuse.kernel.cstyle import guarded

__all__ = ["FUNCTIONS", "polynomial"]

#: x = n log 2 + r; 2 e^r = 2 + 2r + r^2 P(r). Adding 1.5 * 2^23 rounds to the integer n, and 253 on top of it leaves the biased
#: exponents of two factors of 2^(n - 1), since n reaches -150 and 128. The upper limit is taken on the bits, for compilers make
#: a branch that computes everything twice of a choice between floats; the lower one, a result, they mask.
_EXP = """INLINE float mf_expf(float x) {
    const int bits = __builtin_bit_cast(int, x * 1.44269504f + 12583165.0f);
    const int whole = bits < 0x4b40017d ? bits : 0x4b40017d;
    const float n = __builtin_bit_cast(float, whole) - 12583165.0f;
    const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 0.00276290788f;
    p = p * r + 0.0167374909f;
    p = p * r + 0.0833367780f;
    p = p * r + 0.333330423f;
    p = p * r + 0.999999881f;
    p = p * r + 2.0f;
    p = p * r + 2.0f;
    const unsigned int both = (unsigned int)whole, half = both >> 1;
    const float y = p * __builtin_bit_cast(float, half << 23) * __builtin_bit_cast(float, (both - half) << 23);
    return x < -104.0f ? 0.0f : y;
}
"""

#: x = 2^e m with m in [2/3, 4/3); log(1 + f) = f - f^2 / 2 + f^3 P(f)
_LOG = """INLINE float mf_logf(float x) {
    const bool tiny = x < 1.17549435e-38f;
    const float scaled = tiny ? x * 8388608.0f : x;
    const unsigned int bits = __builtin_bit_cast(unsigned int, scaled);
    const int e = (int)(bits - 0x3f2aaaabU) >> 23;
    const float f = __builtin_bit_cast(float, bits - ((unsigned int)e << 23)) - 1.0f;
    const float n = (float)(tiny ? e - 23 : e), s = f * f;
    float p = 0.120281845f;
    p = p * f - 0.12865302f;
    p = p * f + 0.107493684f;
    p = p * f - 0.121916674f;
    p = p * f + 0.143048301f;
    p = p * f - 0.166798338f;
    p = p * f + 0.199995875f;
    p = p * f - 0.249998152f;
    p = p * f + 0.333333373f;
    const float y = (p * (s * f) + n * -2.12194440e-4f) - 0.5f * s + f + n * 0.693359375f;
    const float rest = x == 0.0f ? -__builtin_inff() : x > 0.0f ? x : __builtin_nanf("");
    return (x > 0.0f) & (x < __builtin_inff()) ? y : rest;
}
"""

#: an odd polynomial near 0; elsewhere 1 - 2 / (e^2|x| + 1)
_TANH = """INLINE float mf_tanhf(float x) {
    const float a = __builtin_fabsf(x), s = x * x;
    float p = -0.00566697726f;
    p = p * s + 0.0206061769f;
    p = p * s - 0.0537300073f;
    p = p * s + 0.133313313f;
    p = p * s - 0.333332777f;
    const float low = p * (s * x) + x;
    const float high = 1.0f - 2.0f / (mf_expf(2.0f * a) + 1.0f);
    return __builtin_copysignf(a > 0.62f ? high : low, x);  // -0 too
}
"""

#: up to 1.3 the ratio (x + x P(x^2)) / Q(x^2); from there on 1 - 1 / T(|x|)^8, T fitted to the eighth root of the reciprocal
#: complementary error function. Both share a division.
_ERF = """INLINE float mf_erff(float x) {
    const float a = __builtin_fabsf(x), s = x * x, b = a < 4.0f ? a : 4.0f;
    float p = 0.03339468f;
    p = p * s + 0.11377141f;
    p = p * s + 0.12837917f;
    float q = 0.005162312f;
    q = q * s + 0.07431683f;
    q = q * s + 0.4341604f;
    q = q * s + 1.0f;
    float t = 0.0032675865f;
    t = t * b - 0.023375673f;
    t = t * b + 0.094610214f;
    t = t * b - 0.16107069f;
    t = t * b + 0.30553812f;
    t = t * b + 0.005769545f;
    t = t * b + 1.0354517f;
    t *= t;
    t *= t;
    t *= t;
    const bool high = a > 1.3f;
    const float y = (high ? t - 1.0f : a * p + a) / (high ? t : q);
    return __builtin_copysignf(y, x);
}
"""

#: intrinsic -> names of the functions it needs, in order of definition
_NEEDS = {"exp": ("exp",), "log": ("log",), "tanh": ("exp", "tanh"), "erf": ("erf",)}
_TEXTS = {"exp": _EXP, "log": _LOG, "tanh": _TANH, "erf": _ERF}
FUNCTIONS = tuple(_TEXTS)


def polynomial(name: str, inline: str) -> str:
    """The guarded text that defines ``mf_<name>f``; ``""`` if there is none."""
    return "".join(
        guarded(f"{part}f", _TEXTS[part].replace("INLINE", inline)) for part in _NEEDS.get(name, ())
    )
