"""The incomplete gamma function.

What it is: ``igamma``, summed on the host in float64 until nothing changes any more, with first derivatives.
What it is not: the gamma function (``special``).
Who calls it: users, ``distributions.gamma``.

With ``t(n) = x**(a + n) exp(-x) / gamma(a + n + 1)`` the function is the sum of all ``t(n)``, which are positive, and its
derivative with respect to ``a`` the sum of ``t(n) * (log x - digamma(a + n + 1))``.

Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", 6.5.29, 6.1.41, 6.3.18.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import float32, promote, to_floating
from ..errors import GradientError
from ..var import Var
from .elementwise import broadcast_shapes, cast
from .host_parts import Part, Value, host_parts
from .meta import broadcast_to, check_var
from .scalar import exp, log, where
from .special import lgamma

__all__ = ["igamma"]

Array = np.ndarray[Any, Any]

#: below this logarithm of the first term the sum is 0 (left of the peak) or 1 (right of it) to all digits
_FAR = -690.0
#: recurrences lift the argument by this much before asymptotic series are used
_LIFT = 10
#: of the logarithm of the gamma function, in odd powers of 1 / z; the digamma function has its derivatives
_SERIES = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)


def _log_gamma(a: Array) -> tuple[Array, Array]:
    """Logarithm of the gamma function and its derivative for ``a`` > 0."""
    product, steps = np.ones_like(a), np.zeros_like(a)
    small = a < 1e6  # elsewhere the series needs no lift, and the product would overflow
    for k in range(_LIFT):
        product = np.where(small, product * (a + k), 1.0)
        steps += np.where(small, 1 / (a + k), 0.0)
    z = np.where(small, a + _LIFT, a)
    value = (z - 0.5) * np.log(z) - z + 0.5 * np.log(2 * np.pi) - np.log(product)
    slope = np.log(z) - 0.5 / z - steps
    for k, c in enumerate(_SERIES):
        value += c / z ** (2 * k + 1)
        slope -= (2 * k + 1) * c / z ** (2 * k + 2)
    return value, slope


def _sums(a: Array, x: Array) -> tuple[Array, Array]:
    """The function and its derivative with respect to ``a``."""
    a, x = a.astype(np.float64), x.astype(np.float64)
    legal = (a > 0) & (x > 0) & np.isfinite(a) & np.isfinite(x)
    safe_a, safe_x = np.where(legal, a, 1.0), np.where(legal, x, 1.0)
    log_x = np.log(safe_x)
    size, slope = _log_gamma(safe_a)
    # of a + 1, by the recurrence
    size, slope = size + np.log(safe_a), slope + 1 / safe_a
    start = safe_a * log_x - safe_x - size
    near = start > _FAR
    term = np.where(near, np.exp(start), 0.0)
    total, derived = term.copy(), term * (log_x - slope)
    n = safe_a + 1
    while (term > 1e-17 * total).any() or (near & (n < safe_x)).any():
        term *= safe_x / n
        slope += 1 / n
        total += term
        derived += term * (log_x - slope)
        n += 1
    total = np.where(near, np.minimum(total, 1.0), (safe_x > safe_a).astype(np.float64))
    edge = np.where((a > 0) & (x >= 0), (x > 0).astype(np.float64), np.nan)  # x is 0 or infinite, or illegal
    return np.where(legal, total, edge), np.where(legal, derived, np.where(np.isnan(edge), np.nan, 0.0))


def _value(a: Array, x: Array) -> Array:
    return _sums(a, x)[0]


def _slope(a: Array, x: Array) -> Array:
    return _sums(a, x)[1]


def _rule(inputs: list[Value], outputs: list[Value], upstream: list[Value]) -> list[Value]:
    """The slope, and the density ``x**(a - 1) exp(-x) / gamma(a)``."""
    (a, x), (g,) = inputs, upstream
    inside = x > 0
    safe = where(inside, x, 1.0)
    density = where(inside, exp((a - 1.0) * log(safe) - safe - lgamma(a)), 0.0)
    (slope,) = host_parts("igamma gradient", _slope, [a, x], [Part(tuple(a.shape))], a.dtype, _no_rule)
    return [g * slope, g * density]


def _no_rule(inputs: list[Value], outputs: list[Value], upstream: list[Value]) -> list[Value]:
    raise GradientError("[igamma] second derivatives that involve alpha are not available")


def igamma(alpha: Any, x: Any) -> Var:
    """The regularised lower incomplete gamma function.

    It is the integral of ``t**(alpha - 1) exp(-t)`` from 0 to ``x``, divided by that from 0 to infinity.

    Args:
        alpha, x: Vars, arrays or numbers that broadcast; ``alpha`` > 0 and ``x`` >= 0, otherwise NaN.

    Returns:
        Var of the broadcast shape with values in 0..1. First derivatives exist for both arguments, higher ones for ``x`` alone.

    Example:
        >>> import metafuse as mf
        >>> mf.igamma(1.0, mf.array([1.0])).numpy().round(4)
        array([0.6321], dtype=float32)
    """
    a, x = check_var("igamma", "alpha", alpha), check_var("igamma", "x", x)
    dtype = to_floating(promote(a.dtype, x.dtype))
    working = float32 if dtype.itemsize < 4 else dtype
    shape = broadcast_shapes("igamma", [tuple(a.shape), tuple(x.shape)])
    given = [broadcast_to(cast(v, working), shape) for v in (a, x)]
    (value,) = host_parts("igamma", _value, given, [Part(shape)], working, _rule)
    return cast(value, dtype)
