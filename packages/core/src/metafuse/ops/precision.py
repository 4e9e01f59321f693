"""Precision: which type products are computed in, and which type sums, norms and losses answer.

What it is: what ``flags.auto_mixed_precision_level`` means, in one place: the low type, the operands of a contraction, and the
decorator for what is always computed in float32. Everything happens while operators are recorded, so that gradients follow.
What it is not: the rounding of products inside of a library (``flags.math``), or the loss scaler (``metafuse.amp``).
Who calls it: ``linalg``, ``reduce``, ``creation`` and ``neural``.

What each operator does on a level is tabled in ``docs/precision.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from ..config import flags
from ..dtypes import DType, accumulator, as_dtype, float32, promote
from ..var import Var
from .elementwise import cast
from .meta import check_var
from .registry import Sample, Tensor, operator

__all__ = [
    "answer_type", "array_type", "auto_type", "float_auto", "in_float32", "like", "low_type", "product_operands", "summand",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])

#: bits of ``flags.amp_reg``
PRODUCTS, RESULTS, ARRAYS, EVERYTHING = 1, 2, 4, 8


def low_type() -> DType:
    """The 16-bit type of mixed precision."""
    return as_dtype(flags.amp_dtype)


def auto_type() -> DType:
    """The type that activations have now."""
    return low_type() if flags.amp_reg & RESULTS else float32


def product_operands(a: Any, b: Any) -> tuple[Any, Any, Callable[[Any], Any]]:
    """The factors of a contraction as they are multiplied, and what makes the answer of the sum.

    16-bit floats are multiplied and summed as float32, and the answer is rounded once. With mixed precision, float32 factors
    are rounded to the low type first; whoever plans the program stores and multiplies them as such.
    """
    common = promote(a.dtype, b.dtype)
    rounded = common
    if common is float32 and flags.amp_reg & PRODUCTS:
        rounded = low_type()
    wide = accumulator(rounded)
    if wide is rounded:
        return cast(a, common), cast(b, common), lambda y: y
    kept = common if common is not float32 else rounded if flags.amp_reg & RESULTS else float32

    def answer(y: Any) -> Any:
        return cast(cast(y, rounded), kept)

    return cast(cast(a, rounded), wide), cast(cast(b, rounded), wide), answer


def like(value: Any, x: Any) -> Any:
    """``value`` (a bias) in the type of ``x`` where mixed precision made that a 16-bit one."""
    return cast(value, x.dtype) if x.dtype.is_half and value.dtype is float32 and flags.amp_reg else value


def answer_type(dtype: DType) -> DType:
    """What sums, norms and losses of ``dtype`` answer: float32 instead of 16 bits while mixed precision is on."""
    return float32 if dtype.is_half and flags.amp_reg and not flags.amp_reg & EVERYTHING else dtype


def summand(x: Any) -> Any:
    """``x`` in the type in which a sum of it is answered."""
    return cast(x, answer_type(x.dtype))


def array_type(dtype: DType) -> DType:
    """The type of a Var made from host data of ``dtype`` where no type is asked for."""
    return low_type() if dtype is float32 and flags.amp_reg & ARRAYS else dtype


def in_float32(function: F) -> F:
    """Have ``function`` compute with float32 where it is given 16-bit floats; its answer is rounded to their common type, or
    stays float32 while mixed precision is on."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        halves = [v.dtype for v in (*args, *kwargs.values()) if type(v) is Var and v.dtype.is_half]
        if not halves:
            return function(*args, **kwargs)
        answer = function(*map(_wide, args), **{name: _wide(v) for name, v in kwargs.items()})
        low = halves[0]
        for other in halves[1:]:
            low = promote(low, other)
        target = answer_type(low)
        return cast(answer, target) if type(answer) is Var else tuple(cast(v, target) for v in answer)

    return run  # type: ignore[return-value]


def _wide(value: Any) -> Any:
    return cast(value, float32) if type(value) is Var and value.dtype.is_half else value


@operator(
    category="conversion", numpy=lambda x: x, samples=[Sample((Tensor((3, 4), "float32"),))], method=True,
    source="identity in float32",
)  # fmt: skip
def float_auto(x: Any) -> Any:
    """``x`` in the type that activations have now: ``flags.amp_dtype`` from level 4 of mixed precision on, else float32.

    Example:
        >>> import metafuse as mf
        >>> with mf.flag_scope(auto_mixed_precision_level=4):
        ...     print(mf.float_auto(mf.ones(2)).dtype)
        bfloat16
    """
    return cast(check_var("float_auto", "x", x), auto_type())
