"""Continuous families: normal, uniform.

What it is: samples that are differentiable functions of the parameters, log densities, cumulative distributions, entropies.
What it is not: the gamma family (``gamma``).
Who calls it: users, as ``metafuse.distributions``.

Source: Forbes et al., "Statistical Distributions", 4th edition.
"""

from __future__ import annotations

from math import log as log_of
from math import pi, sqrt
from typing import Any

from ..arguments import checked
from ..ops.scalar import erf, log, where
from ..var import Var
from .parameters import drawn, number_in, parameter, parameters, target_shape

__all__ = ["Normal", "Uniform"]

_INFINITE = float("inf")


@checked
class Normal:
    """The normal distribution with mean ``mu`` and standard deviation ``sigma`` > 0.

    Args:
        mu, sigma: numbers, arrays or Vars whose shapes broadcast.

    Example:
        >>> import metafuse as mf
        >>> d = mf.distributions.Normal(0.0, 1.0)
        >>> round(d.log_prob(mf.array([0.0])).item(), 4), d.sample([2, 3]).shape
        (-0.9189, (2, 3))
    """

    def __init__(self, mu: Any, sigma: Any) -> None:
        number_in("Normal", "sigma", sigma, not isinstance(sigma, (int, float)) or sigma > 0, "> 0")
        self.mu, self.sigma = parameters("Normal", mu=mu, sigma=sigma)

    def sample(self, sample_shape: Any = None) -> Var:
        """Random values of ``sample_shape``, to which the parameters broadcast (``None``: of their own shape)."""
        shape = target_shape("Normal.sample", sample_shape, self.mu, self.sigma)
        return drawn(shape, self.mu, "normal") * self.sigma + self.mu

    def log_prob(self, x: Any) -> Var:
        """The logarithm of the density at ``x``."""
        z = (parameter("Normal.log_prob", "x", x) - self.mu) / self.sigma
        return z * z * -0.5 - log(self.sigma) - 0.5 * log_of(2 * pi)

    def cdf(self, x: Any) -> Var:
        """The probability of values up to ``x``."""
        return erf((parameter("Normal.cdf", "x", x) - self.mu) / (self.sigma * sqrt(2.0))) * 0.5 + 0.5

    def entropy(self) -> Var:
        """The differential entropy, in nats."""
        return log(self.sigma) + (self.mu * 0.0 + (0.5 + 0.5 * log_of(2 * pi)))


@checked
class Uniform:
    """The uniform distribution on ``[low, high)``.

    Args:
        low, high: numbers, arrays or Vars whose shapes broadcast; ``low < high``.

    Example:
        >>> import metafuse as mf
        >>> d = mf.distributions.Uniform(0.0, 2.0)
        >>> d.log_prob(mf.array([1.0, 3.0])).numpy().round(4), d.sample([4]).shape
        (array([-0.6931,    -inf], dtype=float32), (4,))
    """

    def __init__(self, low: Any, high: Any) -> None:
        if isinstance(low, (int, float)) and isinstance(high, (int, float)):
            number_in("Uniform", "high", high, low < high, f"larger than low = {low}")
        self.low, self.high = parameters("Uniform", low=low, high=high)

    def sample(self, sample_shape: Any = None) -> Var:
        """Random values of ``sample_shape``, to which the parameters broadcast (``None``: of their own shape)."""
        shape = target_shape("Uniform.sample", sample_shape, self.low, self.high)
        return drawn(shape, self.low) * (self.high - self.low) + self.low

    def log_prob(self, x: Any) -> Var:
        """The logarithm of the density at ``x``."""
        x = parameter("Uniform.log_prob", "x", x)
        return where((x >= self.low) & (x < self.high), -log(self.high - self.low), -_INFINITE)

    def cdf(self, x: Any) -> Var:
        """The probability of values up to ``x``."""
        part = (parameter("Uniform.cdf", "x", x) - self.low) / (self.high - self.low)
        return where(part <= 0, 0.0, where(part >= 1, 1.0, part))

    def entropy(self) -> Var:
        """The differential entropy, in nats."""
        return log(self.high - self.low)
