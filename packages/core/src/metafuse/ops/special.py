"""Further element-wise operators: special functions, whole-number rounding, angles.

What it is: records like those of ``scalar``.
What it is not: machinery (``elementwise``), or compositions of element-wise operators (``bounds``).
Who calls it: users.

Series and rational approximations are evaluated in the argument's own type, half types in float32: their error is a few
units in the last place of that type, near a zero of the function of its largest term.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..dtypes import DType, accumulator, int32, to_floating
from ..kernel.expr import Expr, call, cast, const, select
from ..var import Var
from .elementwise import Elementwise, comparison, elementwise
from .registry import Tensor
from .scalar import where

__all__ = ["deg2rad", "digamma", "erfinv", "exp2", "hypot", "lgamma", "rad2deg", "reciprocal", "safe_log"]

REALS = Tensor((), "float")
POSITIVE = Tensor((), "float", 0.1, 4.0)
_FRACTIONS = Tensor((), "number", 0.1, 0.4)


def widened(d: DType) -> tuple[DType, DType]:
    """A floating-point function computed in at least float32."""
    f = to_floating(d)
    return accumulator(f), f


def whole(d: DType) -> tuple[DType, DType]:
    """Computed in the common type, answers int32."""
    return d, int32


def _like(x: Expr, value: float) -> Expr:
    return const(value, x.dtype)


def _sum(*terms: Expr) -> Expr:
    total, *rest = terms
    for term in rest:
        total = call("add", total, term)
    return total


def _polynomial(x: Expr, *coefficients: float) -> Expr:
    """Lowest power first."""
    total = _like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        total = call("add", call("mul", total, x), _like(x, c))
    return total


# -- rounding to int32, angles, tests ---------------------------------------------------------------------------------
for _name, _code, _numpy, _text in (
    ("floor_int", "floor", np.floor, "Largest whole number not above ``x``, as int32."),
    ("ceil_int", "ceil", np.ceil, "Smallest whole number not below ``x``, as int32."),
    ("round_int", "round", np.round, "Nearest whole number, halves to even, as int32."),
):
    # floats beyond int32 and NaN have no defined answer
    elementwise(
        _name, _text, lambda a, _c=_code: cast(call(_c, a) if a.dtype.is_float else a, int32), rule=whole,
        numpy=lambda x, _f=_numpy: np.where(np.isfinite(_f(x)), _f(x), 0).astype(np.int64), gradients=[None],
        domain=[Tensor((), "integral", 0, 9)],
    )  # fmt: skip
deg2rad = elementwise(
    "deg2rad", "Degrees as radians.", lambda a: call("mul", a, _like(a, math.pi / 180)), rule=widened, numpy=np.deg2rad,
    gradients=[lambda g, x, y: g * (math.pi / 180)], domain=[REALS],
)  # fmt: skip
rad2deg = elementwise(
    "rad2deg", "Radians as degrees.", lambda a: call("mul", a, _like(a, 180 / math.pi)), rule=widened, numpy=np.rad2deg,
    gradients=[lambda g, x, y: g * (180 / math.pi)], domain=[REALS],
)  # fmt: skip
isposinf = elementwise(
    "isposinf", "Whether ``x`` is plus infinity.",
    lambda a: call("and", call("isinf", a), call("gt", a, _like(a, 0))), rule=comparison, numpy=np.isposinf,
    gradients=[None], domain=[REALS],
)  # fmt: skip
isneginf = elementwise(
    "isneginf", "Whether ``x`` is minus infinity.",
    lambda a: call("and", call("isinf", a), call("lt", a, _like(a, 0))), rule=comparison, numpy=np.isneginf,
    gradients=[None], domain=[REALS],
)  # fmt: skip


# -- functions ---------------------------------------------------------------------------------------------------
def _hypot(a: Expr, b: Expr) -> Expr:
    """Scaled by the larger one, so that squares do not overflow."""
    a, b = call("abs", a), call("abs", b)
    big, small = call("max", a, b), call("min", a, b)
    ratio = call("div", small, select(call("eq", big, _like(big, 0)), _like(big, 1), big))
    size = call("mul", big, call("sqrt", call("add", _like(big, 1), call("mul", ratio, ratio))))
    return select(call("or", call("isinf", a), call("isinf", b)), _like(big, math.inf), size)


hypot = elementwise(
    "hypot", "``sqrt(a * a + b * b)`` without overflow.", _hypot, rule=widened, numpy=np.hypot,
    gradients=[lambda g, a, b, y: where(y == 0, 0.0, g * a / y), lambda g, a, b, y: where(y == 0, 0.0, g * b / y)],
    domain=[POSITIVE, POSITIVE], parameters="a, b",
)  # fmt: skip
reciprocal = elementwise(
    "reciprocal", "``1 / x``.", lambda a: call("div", _like(a, 1), a), rule=widened, numpy=lambda x: 1 / x,
    gradients=[lambda g, x, y: -g * y * y], domain=[POSITIVE],
)  # fmt: skip
exp2 = elementwise(
    "exp2", "2 to the power of ``x``.", lambda a: call("pow", _like(a, 2), a), rule=widened, numpy=np.exp2,
    gradients=[lambda g, x, y: g * y * math.log(2)], domain=[REALS],
)  # fmt: skip


def _bounded(a: Expr, low: float, high: float) -> Expr:
    return call("min", call("max", a, _like(a, low)), _like(a, high))


safe_log = elementwise(
    "safe_log", "Logarithm of ``x`` brought into 1e-30..1e30; the gradient is that of the logarithm there.",
    lambda a: call("log", _bounded(a, 1e-30, 1e30)), rule=widened, numpy=lambda x: np.log(np.clip(x, 1e-30, 1e30)),
    gradients=[lambda g, x, y: g / x.clamp(1e-30, 1e30)], domain=[POSITIVE], source="log(clip(x))",
)  # fmt: skip

# Wichura, "Algorithm AS 241: the percentage points of the normal distribution", 1988: rational functions of
# 0.180625 - q**2 for |q| <= 0.425, and of sqrt(-log(tail)) - 1.6 or - 5 beyond
_CENTRE = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3, 2.1213794301586595867e4,
     3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)  # fmt: skip
_NEAR = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
     1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
_FAR = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2, 7.86869131145613259100e-4,
     1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip


def _ratio(x: Expr, table: tuple[tuple[float, ...], tuple[float, ...]]) -> Expr:
    return call("div", _polynomial(x, *table[0]), _polynomial(x, *table[1]))


def _erfinv(y: Expr) -> Expr:
    """The normal quantile of (y + 1) / 2 over the root of 2."""
    size = call("abs", y)
    q = call("mul", y, _like(y, 0.5))
    centre = call("mul", q, _ratio(call("sub", _like(y, 0.180625), call("mul", q, q)), _CENTRE))
    tail = call("mul", call("sub", _like(y, 1), size), _like(y, 0.5))
    r = call("sqrt", call("neg", call("log", tail)))
    near = _ratio(call("sub", r, _like(y, 1.6)), _NEAR)
    far = _ratio(call("sub", r, _like(y, 5)), _FAR)
    outer = select(call("le", r, _like(y, 5)), near, far)
    outer = select(call("eq", size, _like(y, 1)), _like(y, math.inf), outer)
    signed = select(call("lt", y, _like(y, 0)), call("neg", outer), outer)
    found = select(call("le", size, _like(y, 0.85)), centre, signed)
    return call("mul", found, _like(y, math.sqrt(0.5)))


def _erfinv_oracle(y: float) -> float:
    from statistics import NormalDist

    if abs(y) >= 1 or y != y:
        return math.copysign(math.inf, y) if abs(y) == 1 else math.nan
    return NormalDist().inv_cdf((y + 1) / 2) / math.sqrt(2) if abs(y) > 1e-6 else y * math.sqrt(math.pi) / 2


erfinv = elementwise(
    "erfinv", "The number whose error function is ``x``; NaN outside of -1..1.", _erfinv, rule=widened,
    numpy=np.vectorize(_erfinv_oracle, otypes=[np.float64]),
    gradients=[lambda g, x, y: g * (y * y).exp() * (math.sqrt(math.pi) / 2)], domain=[Tensor((), "float", -0.9, 0.9)],
    source="Wichura 1988, Algorithm AS 241",
)  # fmt: skip

# Lanczos, "A precision approximation of the gamma function", 1964, with g = 7 and nine terms
_LANCZOS = (
    0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
    12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
)  # fmt: skip


def _away(x: Expr) -> Expr:
    """``x`` minus the nearest whole number: sine and tangent of pi x need only that, and then it is exact."""
    return call("sub", x, call("round", x))


def _lgamma(x: Expr) -> Expr:
    mirrored = call("lt", x, _like(x, 0.5))
    z = select(mirrored, call("neg", x), call("sub", x, _like(x, 1)))
    terms = [call("div", _like(x, c), call("add", z, _like(x, k))) for k, c in enumerate(_LANCZOS) if k]
    series = call("add", _like(x, _LANCZOS[0]), _sum(*terms))
    t = call("add", z, _like(x, 7.5))
    power = call("mul", call("add", z, _like(x, 0.5)), call("sub", call("log", t), _like(x, 1)))
    # (z + 1/2) log t - t, in a form that does not overflow before the answer does
    upper = _sum(power, call("log", series), _like(x, 0.5 * math.log(2 * math.pi) - 7))
    sine = call("abs", call("sin", call("mul", _away(x), _like(x, math.pi))))
    lower = call("sub", call("log", call("div", _like(x, math.pi), sine)), upper)
    return select(call("isinf", x), _like(x, math.inf), select(mirrored, lower, upper))


def _lgamma_oracle(x: float) -> float:
    return math.inf if math.isinf(x) or (x <= 0 and x % 1 == 0) else math.lgamma(x)


lgamma = elementwise(
    "lgamma", "Logarithm of the size of the gamma function; infinity at 0, -1, -2 ...", _lgamma, rule=widened,
    numpy=np.vectorize(_lgamma_oracle, otypes=[np.float64]), gradients=[lambda g, x, y: g * digamma(x)],
    domain=[POSITIVE], source="Lanczos 1964",
)  # fmt: skip

#: Bernoulli numbers B2, B4, ...
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)
#: the asymptotic series is used from here on; below, terms of the recurrence are added
_STEPS = 8


def _digamma(x: Expr) -> Expr:
    mirrored = call("lt", x, _like(x, 0.5))
    z = select(mirrored, call("sub", _like(x, 1), x), x)
    steps = _sum(*(call("div", _like(x, 1), call("add", z, _like(x, k))) for k in range(_STEPS)))
    far = call("add", z, _like(x, _STEPS))
    inverse = call("div", _like(x, 1), far)
    square = call("mul", inverse, inverse)
    tail = call("mul", square, _polynomial(square, *(b / (2 * k + 2) for k, b in enumerate(_BERNOULLI))))
    upper = call(
        "sub", _sum(call("log", far), call("mul", inverse, _like(x, -0.5)), call("neg", tail)), steps
    )
    away = _away(x)
    lower = call(
        "sub", upper, call("div", _like(x, math.pi), call("tan", call("mul", away, _like(x, math.pi))))
    )
    pole = select(call("eq", x, _like(x, 0)), call("div", _like(x, -1), x), _like(x, math.nan))
    return select(mirrored, select(call("eq", away, _like(x, 0)), pole, lower), upper)


def _digamma_oracle(x: float) -> float:
    if math.isinf(x) or x != x or (x <= 0 and x % 1 == 0):
        return -math.copysign(math.inf, x) if x == 0 else math.inf if x > 0 else math.nan
    if x < 0:
        return _digamma_oracle(1 - x) - math.pi / math.tan(math.pi * (x - round(x)))
    total = 0.0
    while x < 40:
        total, x = total - 1 / x, x + 1
    return total + math.log(x) - 1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4) - 1 / (252 * x**6)


digamma: Callable[..., Var] = elementwise(
    "digamma", "Derivative of ``lgamma``; NaN at -1, -2 ...", _digamma, rule=widened,
    numpy=np.vectorize(_digamma_oracle, otypes=[np.float64]), gradients=[lambda g, x, y: g * _derivative(1).unary(x)],
    domain=[POSITIVE], source="recurrence and asymptotic series, Abramowitz and Stegun 6.3",
)  # fmt: skip


_derivatives: dict[int, Elementwise] = {}


def _derivative(n: int) -> Elementwise:
    """The n-th derivative of ``digamma``."""
    if n not in _derivatives:
        _derivatives[n] = _polygamma(n)
    return _derivatives[n]


def _polygamma(n: int) -> Elementwise:
    """Recurrence and asymptotic series; below 0 only for the first derivative, by reflection."""

    def upper(z: Expr) -> Expr:
        def term(k: Expr, size: float, power: int) -> Expr:
            return call("div", _like(z, size), call("pow", k, _like(z, power)))

        steps = [term(call("add", z, _like(z, k)), math.factorial(n), n + 1) for k in range(_STEPS + n)]
        far = call("add", z, _like(z, _STEPS + n))
        tail = [
            term(far, b * math.factorial(2 * k + 1 + n) / math.factorial(2 * k + 2), 2 * k + 2 + n)
            for k, b in enumerate(_BERNOULLI)
        ]
        lead = [term(far, math.factorial(n - 1), n), term(far, math.factorial(n) / 2, n + 1)]
        total = _sum(*steps, *lead, *tail)
        return total if n % 2 else call("neg", total)

    def body(x: Expr) -> Expr:
        if n > 1:
            return select(call("gt", x, _like(x, 0)), upper(x), _like(x, math.nan))
        mirrored = call("lt", x, _like(x, 0.5))
        sine = call("sin", call("mul", _away(x), _like(x, math.pi)))
        other = call("div", _like(x, math.pi**2), call("mul", sine, sine))
        value = upper(select(mirrored, call("sub", _like(x, 1), x), x))
        return select(mirrored, call("sub", other, value), value)

    def rule(g: Var, x: Var, y: Var) -> Var:
        return g * _derivative(n + 1).unary(x)

    return Elementwise(f"polygamma{n}", 1, widened, body, [rule], False)
