"""Every intrinsic as a NumPy function: the meaning of one scalar operation, on the host.

What it is: ``FUNCTIONS``, one vectorised function per entry of ``kernel.expr.INTRINSICS`` with exactly the semantics that
its comment promises, and ``ufunc``, the NumPy function behind each reduction.
What it is not: an evaluator of whole expressions (``index.evaluate``) or of kernels (``reference``).
Who calls it: the index language (evaluation, constant folding), the reference backend, and tests of every other backend.

A function takes its operands, which share a dtype, and last the ``DType`` of its result; it answers an array of exactly
that dtype (``DType.numpy``; bfloat16 is computed in float32 and rounded). What NumPy leaves open is settled here:

* integers wrap around; a division by zero gives 0; an integer to a negative power is ``1 / x**n`` rounded towards zero;
* a shift by at least the width (or by a negative count) leaves no bit of the number: 0, or -1 for ``shr`` of a negative;
* a float converted to an integer type that can't hold it has no defined value; NaN converted to bool is true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..dtypes import DType
from .expr import INTRINSICS

__all__ = ["FUNCTIONS", "apply", "erf", "philox", "ufunc"]

Array = np.ndarray[Any, Any]
Function = Callable[..., Array]


def apply(name: str, *args: Any, dtype: DType) -> Array:
    """Intrinsic ``name`` of ``args`` as an array of ``dtype``, without NumPy's warnings.

    Example:
        >>> from metafuse.dtypes import int32
        >>> apply("cdiv", np.int32([-7, 7]), np.int32([2, 0]), dtype=int32)
        array([-3,  0], dtype=int32)
    """
    with np.errstate(all="ignore"):
        return FUNCTIONS[name](*args, dtype)


# -- division and powers ----------------------------------------------------------------------------------------------
def _cdiv(a: Array, b: Array) -> Array:
    """Division that rounds towards zero, as in C."""
    quotient = np.floor_divide(a, b)
    if quotient.dtype.kind != "i":
        return quotient if quotient.dtype.kind == "u" else np.trunc(np.divide(a, b))
    # Where the exact quotient is negative and not whole, the floor is one too low.
    inexact = np.not_equal(np.fmod(a, b), 0) & (np.less(a, 0) != np.less(b, 0))
    return quotient + inexact


def _pow(a: Array, b: Array) -> Array:
    if np.result_type(a, b).kind != "i":
        return np.power(a, b)
    a, b = np.asarray(a), np.asarray(b)
    positive = np.power(a, np.maximum(b, 0))
    odd = np.bitwise_and(b, 1) == 1
    reciprocal = np.where(a == 1, 1, np.where(a == -1, np.where(odd, -1, 1), 0))
    return np.where(b < 0, reciprocal, positive)


# -- the error function -----------------------------------------------------------------------------------------------
# W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969) 631-637, with the
# coefficients of his CALERF (netlib specfun). Numerators and denominators have the highest power first; a leading
# denominator coefficient 1 is written out.
_SMALL = (
    (1.85777706184603153e-1, 3.16112374387056560e00, 1.13864154151050156e02, 3.77485237685302021e02,
     3.20937758913846947e03),
    (1.0, 2.36012909523441209e01, 2.44024637934444173e02, 1.28261652607737228e03, 2.84423683343917062e03),
)  # fmt: skip
_MIDDLE = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e00, 6.61191906371416295e01,
     2.98635138197400131e02, 8.81952221241769090e02, 1.71204761263407058e03, 2.05107837782607147e03,
     1.23033935479799725e03),
    (1.0, 1.57449261107098347e01, 1.17693950891312499e02, 5.37181101862009858e02, 1.62138957456669019e03,
     3.29079923573345963e03, 4.36261909014324716e03, 3.43936767414372164e03, 1.23033935480374942e03),
)  # fmt: skip
_LARGE = (
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
     1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242e00, 1.87295284992346725e00, 5.27905102951428412e-1, 6.05183413124413191e-2,
     2.33520497626869185e-3),
)  # fmt: skip


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Array) -> Array:
    return np.asarray(np.polyval(coefficients[0], x) / np.polyval(coefficients[1], x))


def erf(x: Any) -> Array:
    """The error function in float64, to about 1e-16 absolute: three rational approximations by Cody (see above)."""
    x = np.asarray(x, np.float64)
    size = np.abs(x)
    result = np.sign(x)  # already right for |x| >= 6; NaN stays NaN
    small, middle, large = size <= 0.46875, (size > 0.46875) & (size <= 4), (size > 4) & (size < 6)
    result = np.where(small, 0.0, result)
    if small.any():
        part = x[small]
        result[small] = part * _ratio(_SMALL, part * part)
    if middle.any():
        part = size[middle]
        result[middle] *= 1 - np.exp(-part * part) * _ratio(_MIDDLE, part)
    if large.any():
        part = size[large]
        inverse = 1 / (part * part)
        tail = (1 / np.sqrt(np.pi) - inverse * _ratio(_LARGE, inverse)) / part
        result[large] *= 1 - np.exp(-part * part) * tail
    return result


# -- random numbers ---------------------------------------------------------------------------------------------------
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[Any, Any]) -> tuple[Array, Array, Array, Array]:
    """One block of Philox-4x32-10: four 32-bit words (held in uint64) from four counter and two key words.

    J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    c0, c1, c2, c3 = (np.asarray(word, np.uint64) for word in counter)
    k0, k1 = (np.asarray(word, np.uint64) for word in key)
    for _ in range(10):
        first, second = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (second >> _32) ^ c1 ^ k0, second & _LOW, (first >> _32) ^ c3 ^ k1, first & _LOW
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & _LOW, (k1 + np.uint64(0xBB67AE85)) & _LOW
    return c0, c1, c2, c3


def _uniform(seed: Any, offset: Any, i: Any, dtype: DType) -> Array:
    """Element ``i`` of a stream: counter ``offset + i // 4``, output word ``i % 4``, its upper 24 bits as a fraction."""
    seed, offset, i = (np.asarray(x).astype(np.uint64) for x in (seed, offset, i))
    counter = offset + (i >> np.uint64(2))
    zero = np.uint64(0)
    words = philox((counter & _LOW, counter >> _32, zero, zero), (seed & _LOW, seed >> _32))
    lane = np.broadcast_to(i & np.uint64(3), np.broadcast_shapes(i.shape, words[0].shape))
    word = np.choose(lane.astype(np.intp), words)
    return _exact((word >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24), dtype)


# -- the table --------------------------------------------------------------------------------------------------------
def _exact(result: Any, dtype: DType) -> Array:
    return dtype.convert(result)


def _plain(function: Callable[..., Any]) -> Function:
    """A table entry from a function that knows nothing of the result's dtype."""

    def entry(*args: Any) -> Array:
        return _exact(function(*args[:-1]), args[-1])

    return entry


def _rounding(function: Callable[..., Any]) -> Function:
    """Rounding leaves integers alone, without a way through float64 that would lose digits."""
    return _plain(lambda x: function(x) if np.asarray(x).dtype.kind == "f" else x)


#: intrinsic -> function of (operands ..., DType of the result); call it under ``np.errstate``, or through ``apply``
FUNCTIONS: dict[str, Function] = {
    # arithmetic
    "add": _plain(np.add), "sub": _plain(np.subtract), "mul": _plain(np.multiply), "div": _plain(np.divide),
    "floordiv": _plain(np.floor_divide), "mod": _plain(np.mod), "cdiv": _plain(_cdiv), "cmod": _plain(np.fmod),
    "pow": _plain(_pow), "min": _plain(np.minimum), "max": _plain(np.maximum), "neg": _plain(np.negative),
    "abs": _plain(np.absolute), "sqrt": _plain(np.sqrt), "atan2": _plain(np.arctan2),
    # transcendental
    "exp": _plain(np.exp), "log": _plain(np.log), "expm1": _plain(np.expm1), "log1p": _plain(np.log1p),
    "sin": _plain(np.sin), "cos": _plain(np.cos), "tan": _plain(np.tan),
    "asin": _plain(np.arcsin), "acos": _plain(np.arccos), "atan": _plain(np.arctan),
    "sinh": _plain(np.sinh), "cosh": _plain(np.cosh), "tanh": _plain(np.tanh),
    "asinh": _plain(np.arcsinh), "acosh": _plain(np.arccosh), "atanh": _plain(np.arctanh), "erf": _plain(erf),
    # rounding
    "floor": _rounding(np.floor), "ceil": _rounding(np.ceil), "round": _rounding(np.rint), "trunc": _rounding(np.trunc),
    # tests
    "eq": _plain(np.equal), "ne": _plain(np.not_equal), "lt": _plain(np.less), "le": _plain(np.less_equal),
    "gt": _plain(np.greater), "ge": _plain(np.greater_equal), "isnan": _plain(np.isnan), "isinf": _plain(np.isinf),
    # logic
    "and": _plain(np.logical_and), "or": _plain(np.logical_or), "not": _plain(np.logical_not),
    # bits
    "bitand": _plain(np.bitwise_and), "bitor": _plain(np.bitwise_or), "bitxor": _plain(np.bitwise_xor),
    "bitnot": _plain(np.invert), "shl": _plain(np.left_shift), "shr": _plain(np.right_shift),
    # choice and conversion
    "select": _plain(np.where), "cast": _plain(lambda x: x),
    # sources
    "uniform": _uniform,
}  # fmt: skip
if FUNCTIONS.keys() != INTRINSICS.keys():  # an intrinsic without a meaning must not get as far as a kernel
    raise AssertionError(
        f"[host] differs from the intrinsics: {sorted(FUNCTIONS.keys() ^ INTRINSICS.keys())}"
    )


def ufunc(reduction: str) -> np.ufunc:
    """The NumPy ufunc that combines two partial results of ``reduction``, a name of ``kernel.ir.REDUCTIONS``."""
    found: np.ufunc = getattr(np, reduction)  # the reductions carry NumPy's names
    return found
