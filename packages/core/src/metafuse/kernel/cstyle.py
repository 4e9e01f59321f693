"""Scalar expressions as C-family text: one C++ expression per ``Expr`` node, and the helper functions it needs.

What it is: literals, type names, the spelling of every intrinsic, and small C++ templates for the operations that the
language does not have (floor division, safe shifts, Philox). Nothing needs a header.
What it is not: statements, loops or offsets; ``kernel.scope`` makes those out of it.
Who calls it: ``kernel.scope`` and through it every backend that emits C, C++, CUDA or alike.

Example:
    >>> from metafuse.dtypes import float32
    >>> from metafuse.kernel.expr import call, const
    >>> operation(call("max", const(1, float32), const(2, float32)), ["x", "y"], Dialect(), {})
    '(x <= y) | (y != y) ? y : x'
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..dtypes import DType, bfloat16, float16, float32, float64
from ..errors import DTypeError
from .expr import EXACT, Expr, const

__all__ = [
    "Dialect", "HELPERS", "guarded", "literal", "loaded", "operation", "rounded", "stored", "type_name", "unrounded",
    "unsigned_of",
]  # fmt: skip

#: intrinsic -> C function for double; float32 appends an "f"
LIBRARY = {
    name: name
    for name in (
        "sqrt pow exp log expm1 log1p sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh erf "
        "floor ceil trunc"
    ).split()
} | {"abs": "fabs", "round": "rint", "cmod": "fmod"}
_INFIX = {"add": "+", "sub": "-", "mul": "*"}
_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_BITS = {"bitand": "&", "bitor": "|", "bitxor": "^", "and": "&", "or": "|"}
#: what arithmetic means on bool, as in NumPy
_BOOL = {"add": "|", "mul": "&", "max": "|", "min": "&", "sub": "^"}
_ROUNDING = frozenset({"floor", "ceil", "round", "trunc"})


@dataclass(frozen=True)
class Dialect:
    """What differs between the languages of the C family.

    ``inline`` qualifies helper functions, ``infinity``, ``nan`` are float32 literals.
    """

    inline: str = "static inline"
    infinity: str = "__builtin_inff()"
    nan: str = '__builtin_nanf("")'

    def function(self, name: str, dtype: DType) -> tuple[str, str]:
        """The C function for intrinsic ``name`` on ``dtype`` (float32 or float64) and the text that declares it."""
        suffix = "f" if dtype is float32 else ""
        arguments = ", ".join([dtype.c_name] * (2 if name in ("pow", "atan2", "cmod") else 1))
        callee = LIBRARY[name] + suffix
        return callee, f'extern "C" {dtype.c_name} {callee}({arguments}) noexcept;\n'

    def helper(self, name: str) -> str:
        """The text of one of ``HELPERS``."""
        return HELPERS[name].replace("INLINE", self.inline)


def type_name(dtype: DType, dialect: Dialect) -> str:
    """The C type of a local variable of ``dtype``. It differs from the type in memory, ``DType.c_name``, for bool (``unsigned
    char`` there) and floats of 16 bits: a ``float`` whose value has so few bits here, ``unsigned short`` there. Compilers
    vectorise that, which they do for no 16-bit type of their own without arithmetic for it in the processor."""
    if dtype.kind == "b":
        return "bool"
    return "float" if _short(dtype) else dtype.c_name


def _short(dtype: DType) -> bool:
    return dtype.is_float and dtype.itemsize == 2


def loaded(memory: str, dtype: DType, dialect: Dialect, needs: dict[str, str]) -> str:
    """What was read from ``memory`` as a local variable's value."""
    if _short(dtype):
        return f"{_helper(f'{dtype.name}_value', dialect, needs)}({memory})"
    return f"{memory} != 0" if dtype.kind == "b" else memory


def stored(value: str, dtype: DType, dialect: Dialect, needs: dict[str, str]) -> str:
    """A local variable's value as it is written to memory."""
    return f"{_helper(f'{dtype.name}_bits', dialect, needs)}({value})" if _short(dtype) else value


def rounded(value: str, dtype: DType, dialect: Dialect, needs: dict[str, str]) -> str:
    """An arithmetic value (of a wider type, perhaps) as a local variable's value of ``dtype``."""
    if dtype is bfloat16:
        return f"{_helper('bfloat16_round', dialect, needs)}((float)({value}))"
    if dtype is float16:
        return f"{_helper('float16_round', dialect, needs)}({value})"
    return f"({type_name(dtype, dialect)}){value}"


def unsigned_of(dtype: DType) -> str:
    """The unsigned C type, at least 32 bits wide, in which integers of ``dtype`` wrap without undefined behaviour."""
    return "unsigned long long" if dtype.itemsize == 8 else "unsigned int"


def literal(value: float | int | bool, dtype: DType, dialect: Dialect) -> str:
    """``value`` rounded to ``dtype`` as a C constant.

    Example:
        >>> literal(0.1, float32, Dialect()), literal(-1, float64, Dialect())
        ('0.1f', '(-1.0)')
    """
    if dtype.kind == "b":
        return "true" if value else "false"
    if _short(dtype):
        with np.errstate(over="ignore"):
            return literal(float(dtype.convert(value)), float32, dialect)
    if dtype.is_float:
        with np.errstate(over="ignore"):
            number = dtype.numpy.type(value)
        kind = type_name(dtype, dialect)
        if not math.isfinite(number):
            text = dialect.nan if math.isnan(number) else dialect.infinity
            text = text if not number < 0 else f"-{text}"
            return f"(({kind}){text})" if dtype is not float32 else f"({text})"
        text = str(number)
        text = text if any(c in text for c in ".e") else text + ".0"
        text = text if dtype is float64 else text + "f"
        return f"({text})" if text[0] in "-(" else text
    number = int(
        np.array(int(value) & (2 ** (8 * dtype.itemsize) - 1), f"u{dtype.itemsize}").view(dtype.numpy)
    )
    suffix = ("U" if dtype.kind == "u" else "") + ("LL" if dtype.itemsize == 8 else "")
    if number == -(2 ** (8 * dtype.itemsize - 1)) and dtype.itemsize >= 4:
        return f"({number + 1}{suffix} - 1)"
    text = f"{number}{suffix}"
    text = f"({dtype.c_name}){text}" if dtype.itemsize < 4 else text
    return f"({text})" if text[0] in "-(" else text


def guarded(name: str, text: str) -> str:
    """``text`` inside an include guard, so that concatenated sources may all carry it."""
    return f"#ifndef MF_HAS_{name}\n#define MF_HAS_{name}\n{text}#endif\n"


def operation(node: Expr, args: Sequence[str], dialect: Dialect, needs: dict[str, str]) -> str:
    """The C expression of one intrinsic ``node`` on operands that are already text (names or literals).

    Declarations and helper functions that the text relies on are added to ``needs``, name -> text.
    """
    op, dtype = node.op, node.dtype
    source = node.args[0].dtype
    if op in _COMPARE:
        return f"{args[0]} {_COMPARE[op]} {args[1]}"
    if op == "isnan":
        return f"{args[0]} != {args[0]}" if source.is_float else "false"
    if op == "isinf":
        inf = literal(math.inf, source, dialect) if source.is_float else ""
        return f"({args[0]} == {inf}) | ({args[0]} == -{inf})" if inf else "false"
    if op == "select":
        return f"{args[0]} ? {args[1]} : {args[2]}"
    if op == "cast":
        return _cast(source, dtype, args[0], dialect, needs)
    if op == "uniform":
        return _helper("uniform", dialect, needs) + f"({', '.join(args)})"
    if op == "not" or (op == "bitnot" and dtype.kind == "b"):
        return f"!{args[0]}"
    if op == "cdiv" and dtype is float16:  # NumPy rounds the quotient before it is cut
        quotient = rounded(f"({args[0]} / {args[1]})", dtype, dialect, needs)
        return _library("trunc", float32, dialect, needs) + f"({quotient})"
    if _short(dtype):
        text = unrounded(node, args, dialect, needs)
        return text if op in EXACT else rounded(text, dtype, dialect, needs)
    if dtype.is_float:
        return _floating(node, args, dialect, needs)
    return _integer(node, args, dialect, needs)


def unrounded(node: Expr, args: Sequence[str], dialect: Dialect, needs: dict[str, str]) -> str:
    """The C expression of the float that a ``node`` of floats of 16 bits rounds: an operation of arithmetic, not ``cdiv``."""
    return _floating(_in_float(node), args, dialect, needs)


def _cast(source: DType, dtype: DType, x: str, dialect: Dialect, needs: dict[str, str]) -> str:
    if dtype.kind == "b":
        return f"{x} != 0"
    if _short(dtype) and source.itemsize > 1:  # eight bits are kept
        return rounded(x, dtype, dialect, needs)
    kind = type_name(dtype, dialect)
    if source.is_float and dtype.is_integer and dtype.itemsize < 8:
        # through a wider signed type: what does not fit wraps, as NumPy's casts do, instead of being undefined
        wide = "int" if dtype.itemsize < 4 else "long long"
        return f"({kind})({wide}){x}"
    return f"({kind}){x}"


def _floating(node: Expr, args: Sequence[str], dialect: Dialect, needs: dict[str, str]) -> str:
    op, dtype = node.op, node.dtype
    if op in _INFIX:
        return f"{args[0]} {_INFIX[op]} {args[1]}"
    if op == "div":
        return f"{args[0]} / {args[1]}"
    if op == "neg":
        return f"-{args[0]}"
    if op in ("min", "max"):
        # written so that compilers vectorise several in a row, which (x > y) | (x != x) ? x : y keeps g++ from
        sign = ">=" if op == "min" else "<="
        return f"({args[0]} {sign} {args[1]}) | ({args[1]} != {args[1]}) ? {args[1]} : {args[0]}"
    if op == "pow" and node.args[1].op == "const" and node.args[1].value in (1, 2, 3):
        return " * ".join([args[0]] * int(node.args[1].value))
    if op in ("floordiv", "mod"):
        fmod = _library("cmod", dtype, dialect, needs)
        floor = _library("floor", dtype, dialect, needs)
        return (
            _helper("float_" + op, dialect, needs)
            + f"({', '.join(args)}, {fmod}({', '.join(args)}), {floor})"
        )
    if op == "cdiv":
        return _library("trunc", dtype, dialect, needs) + f"({args[0]} / {args[1]})"
    return _library(op, dtype, dialect, needs) + f"({', '.join(args)})"


def _in_float(node: Expr) -> Expr:
    args = tuple(
        const(a.value, float32) if a.op == "const" else Expr("cast", (a,), float32) for a in node.args
    )
    return Expr(node.op, args, float32)


def _integer(node: Expr, args: Sequence[str], dialect: Dialect, needs: dict[str, str]) -> str:
    op, dtype = node.op, node.dtype
    kind = type_name(dtype, dialect)
    wide = unsigned_of(dtype)
    if op in _BITS or (dtype.kind == "b" and op in _BOOL):
        return f"({kind})({args[0]} {_BITS.get(op) or _BOOL[op]} {args[1]})"
    if dtype.kind == "b" and op in ("neg", "abs"):
        return args[0]
    if op in _INFIX:
        return f"({kind})(({wide}){args[0]} {_INFIX[op]} ({wide}){args[1]})"
    if op == "neg":
        return f"({kind})(0 - ({wide}){args[0]})"
    if op == "abs":
        return (
            f"{args[0]} < 0 ? ({kind})(0 - ({wide}){args[0]}) : {args[0]}" if dtype.kind == "i" else args[0]
        )
    if op == "bitnot":
        return f"({kind})~{args[0]}"
    if op in ("min", "max"):
        return f"{args[0]} {'<' if op == 'min' else '>'} {args[1]} ? {args[0]} : {args[1]}"
    if op in _ROUNDING:
        return args[0]
    name = {"div": "cdiv"}.get(op, op)
    if name not in HELPERS:
        raise DTypeError(f"[{op}] has no meaning on {dtype} elements; cast them to a floating type first")
    return f"({kind}){_helper(name, dialect, needs)}<{kind}>({', '.join(args)})"


def _helper(name: str, dialect: Dialect, needs: dict[str, str]) -> str:
    needs.setdefault(name, guarded(name, dialect.helper(name)))
    return f"mf_{name}"


def _library(name: str, dtype: DType, dialect: Dialect, needs: dict[str, str]) -> str:
    callee, declaration = dialect.function(name, dtype)
    needs.setdefault(callee, declaration)
    return callee


#: helper functions by name; ``INLINE`` stands for the dialect's qualifiers. ``(T)-1 < 0`` asks whether T is signed,
#: and dividing by -1 is spelled as a negation because the smallest integer divided by -1 traps.
HELPERS: dict[str, str] = {
    "bfloat16_value": """INLINE float mf_bfloat16_value(unsigned short bits) {
    union { unsigned int bits; float value; } number;
    number.bits = (unsigned int)bits << 16;
    return number.value;
}
""",
    # of a number that is a bfloat16 already
    "bfloat16_bits": """INLINE unsigned short mf_bfloat16_bits(float value) {
    union { float value; unsigned int bits; } number;
    number.value = value;
    return (unsigned short)(number.bits >> 16);
}
""",
    # to the nearest, ties to even; a NaN keeps what fits of its payload
    "bfloat16_round": """INLINE float mf_bfloat16_round(float value) {
    union { float value; unsigned int bits; } number;
    number.value = value;
    const unsigned int bits = number.bits, near = bits + 0x7fffU + (bits >> 16 & 1U);
    const unsigned int quiet = bits & 0x7f0000U ? bits : bits | 0x400000U;
    number.bits = (value == value ? near : quiet) & 0xffff0000U;
    return number.value;
}
""",
    # subnormal ones come right by the multiplication
    "float16_value": """INLINE float mf_float16_value(unsigned short bits) {
    union { unsigned int bits; float value; } number;
    number.bits = (bits & 0x7fffU) << 13;
    number.value *= 0x1p112f;
    number.bits |= (bits & 0x7c00U) == 0x7c00U ? 0x7f800000U : 0U;
    number.bits |= (bits & 0x8000U) << 16;
    return number.value;
}
""",
    # of a number that is a float16 already; its subnormal numbers become those of float
    "float16_bits": """INLINE unsigned short mf_float16_bits(float value) {
    union { float value; unsigned int bits; } number, scaled;
    number.value = value;
    scaled.value = __builtin_fabsf(value) * 0x1p-112f;
    return (unsigned short)((scaled.bits >> 13 & 0x7fffU) | (number.bits >> 16 & 0x8000U));
}
""",
    # to the nearest, ties to even, infinity from 65520 on. Added to a power of two that has no digits beyond those to be kept,
    # a number loses the others. A double is first cut to a float that remembers in its last bit that something was cut off, so
    # that nothing is rounded twice.
    "float16_round": """INLINE float mf_float16_round(float value) {
    union { float value; unsigned int bits; } number, power;
    const float size = __builtin_fabsf(value);
    number.value = 131072.0f < size ? 131072.0f : size;
    power.bits = number.bits & 0x7f800000U;
    power.bits = (power.bits < 0x38800000U ? 0x38800000U : power.bits) + (13U << 23);
    const float near = (number.value + power.value) - power.value;
    return __builtin_copysignf(near >= 65536.0f ? __builtin_inff() : near, value);
}
INLINE float mf_float16_round(double value) {
    union { float value; unsigned int bits; } number;
    number.value = (float)value;
    const double back = number.value;
    const unsigned int beyond = __builtin_fabs(back) > __builtin_fabs(value), cut = back != value;
    number.bits = value == value ? (number.bits - beyond) | cut : number.bits;
    return mf_float16_round(number.value);
}
template <class T> INLINE float mf_float16_round(T value) { return mf_float16_round((float)value); }
""",
    "cdiv": """template <class T> INLINE T mf_cdiv(T a, T b) {
    if (b == 0) return 0;
    return (T)-1 < 0 && b == (T)-1 ? (T)(0ULL - (unsigned long long)a) : (T)(a / b);
}
""",
    "cmod": """template <class T> INLINE T mf_cmod(T a, T b) {
    return b == 0 || ((T)-1 < 0 && b == (T)-1) ? (T)0 : (T)(a % b);
}
""",
    "floordiv": """template <class T> INLINE T mf_floordiv(T a, T b) {
    if (b == 0) return 0;
    if ((T)-1 < 0 && b == (T)-1) return (T)(0ULL - (unsigned long long)a);
    const T q = (T)(a / b);
    return (T)(q - (T)((a % b != 0) & ((a < 0) != (b < 0))));
}
""",
    "mod": """template <class T> INLINE T mf_mod(T a, T b) {
    if (b == 0 || ((T)-1 < 0 && b == (T)-1)) return 0;
    const T r = (T)(a % b);
    return (T)(r != 0 && (r < 0) != (b < 0) ? r + b : r);
}
""",
    "float_mod": """template <class T> INLINE T mf_float_mod(T a, T b, T r, T (*)(T)) {
    const T moved = (r < 0) != (b < 0) ? r + b : r;
    return r != 0 ? moved : b < 0 ? -(T)0 : b > 0 ? (T)0 : r;
}
""",
    # (a - remainder) / b is an integer but for rounding: take the nearest
    "float_floordiv": """template <class T> INLINE T mf_float_floordiv(T a, T b, T r, T (*floor)(T)) {
    const T moved = (r != 0) & ((r < 0) != (b < 0)) ? (T)1 : (T)0;
    const T whole = (a - r) / b - moved, low = floor(whole);
    return b == 0 ? a / b : whole == 0 ? (a / b < 0 ? -(T)0 : (T)0) : whole - low > (T)0.5 ? low + 1 : low;
}
""",
    # exponentiation by squaring; negative exponents leave only the units 1 and -1
    "pow": """template <class T> INLINE T mf_pow(T a, T b) {
    if ((T)-1 < 0 && b < 0) return a == 1 ? (T)1 : a == (T)-1 ? (T)(b & 1 ? -1 : 1) : (T)0;
    unsigned long long result = 1, base = (unsigned long long)a;
    for (unsigned long long n = (unsigned long long)b; n; n >>= 1) {
        result *= n & 1 ? base : 1;
        base *= base;
    }
    return (T)result;
}
""",
    "shl": """template <class T> INLINE T mf_shl(T a, T b) {
    const unsigned long long bits = 8 * sizeof(T);
    return (unsigned long long)b < bits ? (T)((unsigned long long)a << ((unsigned long long)b & (bits - 1))) : (T)0;
}
""",
    "shr": """template <class T> INLINE T mf_shr(T a, T b) {
    const T last = (T)(8 * sizeof(T) - 1);
    const bool inside = (b >= 0) & (b <= last);
    const T moved = (T)(a >> (inside ? b : last));
    return inside | (a < 0) ? moved : (T)0;
}
""",
    # Philox-4x32-10, Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). The words are kept in 64 bits, of
    # which only the lower half counts: so compilers vectorise the products without packing and unpacking in every round.
    "uniform": """#define MF_PHILOX_ROUND { \\
    const unsigned long long p = (a & 0xFFFFFFFFULL) * 0xD2511F53ULL, q = (c & 0xFFFFFFFFULL) * 0xCD9E8D57ULL; \\
    a = (q >> 32) ^ b ^ k; c = (p >> 32) ^ d ^ l; b = q; d = p; k += 0x9E3779B9U; l += 0xBB67AE85U; }
INLINE float mf_uniform(long long seed, long long offset, long long i) {
    const unsigned long long block = (unsigned long long)offset + ((unsigned long long)i >> 2);
    unsigned long long a = block, b = block >> 32, c = 0, d = 0;
    unsigned long long k = (unsigned long long)seed, l = (unsigned long long)seed >> 32;
    MF_PHILOX_ROUND MF_PHILOX_ROUND MF_PHILOX_ROUND MF_PHILOX_ROUND MF_PHILOX_ROUND
    MF_PHILOX_ROUND MF_PHILOX_ROUND MF_PHILOX_ROUND MF_PHILOX_ROUND MF_PHILOX_ROUND
    const unsigned long long low = i & 1 ? b : a, high = i & 1 ? d : c;
    return (float)(int)((unsigned int)(i & 2 ? high : low) >> 8) * 5.9604644775390625e-08f;
}
""",
}
