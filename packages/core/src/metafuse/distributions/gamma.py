"""The gamma family.

What it is: ``GammaDistribution``: samples drawn on the host, everything else compiled.
What it is not: the gamma function (``metafuse.lgamma``).
Who calls it: users, as ``metafuse.distributions``.

Sources: Forbes et al., "Statistical Distributions", 4th edition; samples by Marsaglia and Tsang, "A simple
method for generating gamma variables", 2000, as NumPy implements it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arguments import checked
from ..dtypes import float32
from ..errors import ArgumentError
from ..ops.elementwise import cast
from ..ops.host_parts import Part, host_parts
from ..ops.incomplete_gamma import igamma
from ..ops.meta import broadcast_to
from ..ops.random import random
from ..ops.scalar import log, maximum, where
from ..ops.special import digamma, lgamma
from ..var import Var
from .parameters import number_in, parameter, parameters, target_shape

__all__ = ["GammaDistribution", "gamma_divergence"]


def _standard(concentration: Any, key: Any) -> Any:
    """Gamma numbers of rate 1; ``key`` holds random numbers in [0, 1) of 24 bits that choose the stream."""
    if not (concentration > 0).all():
        raise ArgumentError(
            f"[GammaDistribution] concentration must be > 0, got {concentration[~(concentration > 0)][0]}"
        )
    stream = np.random.Generator(np.random.Philox([int(k * 2**24) for k in key]))
    return stream.standard_gamma(concentration)


@checked
class GammaDistribution:
    """The gamma distribution of shape ``concentration`` > 0 and ``rate`` > 0; its mean is their quotient.

    Args:
        concentration, rate: numbers, arrays or Vars whose shapes broadcast.

    Example:
        >>> import metafuse as mf
        >>> d = mf.distributions.GammaDistribution(2.0, 4.0)
        >>> d.mean().item(), d.mode().item(), d.variance().item(), d.sample([3]).shape
        (0.5, 0.25, 0.125, (3,))
    """

    def __init__(self, concentration: Any, rate: Any) -> None:
        op = "GammaDistribution"
        for name, value in (("concentration", concentration), ("rate", rate)):
            number_in(op, name, value, not isinstance(value, (int, float)) or value > 0, "> 0")
        self.concentration, self.rate = parameters(op, concentration=concentration, rate=rate)

    def sample(self, shape: Any = None) -> Var:
        """Random values of ``shape``, to which the parameters broadcast (``None``: of their own shape). No gradient.

        Errors:
            ArgumentError, when it runs: a concentration that is not positive.
        """
        op = "GammaDistribution.sample"
        target = target_shape(op, shape, self.concentration, self.rate)
        spread = broadcast_to(self.concentration, target).detach()
        working = float32 if spread.dtype.itemsize < 4 else spread.dtype
        key = random([4]).stop_grad()
        drawn = host_parts(op, _standard, [cast(spread, working), key], [Part(target)], working)[0]
        return (cast(drawn, spread.dtype) / self.rate.detach()).stop_grad()

    def log_prob(self, value: Any) -> Var:
        """The logarithm of the density at ``value``."""
        x = parameter("GammaDistribution.log_prob", "value", value)
        a, b = self.concentration, self.rate
        inside = x > 0
        safe = where(inside, x, 1.0)
        inner = a * log(b) + (a - 1.0) * log(safe) - b * safe - lgamma(a)
        # at 0 the density is 0, the rate, or infinite
        edge = where(a > 1, -np.inf, where(a == 1, log(b), np.inf))
        return where(inside, inner, where(x == 0, edge, -np.inf))

    def cdf(self, value: Any) -> Var:
        """The probability of values up to ``value``."""
        x = parameter("GammaDistribution.cdf", "value", value)
        inside = x > 0
        return where(inside, igamma(self.concentration, where(inside, x, 1.0) * self.rate), 0.0)

    def mean(self) -> Var:
        """``concentration / rate``."""
        return self.concentration / self.rate

    def mode(self) -> Var:
        """Where the density is largest: ``(concentration - 1) / rate``, 0 for a concentration below 1."""
        return maximum(self.concentration - 1.0, 0.0) / self.rate

    def variance(self) -> Var:
        """``concentration / rate**2``."""
        return self.concentration / (self.rate * self.rate)

    def entropy(self) -> Var:
        """The differential entropy, in nats."""
        a = self.concentration
        return a - log(self.rate) + lgamma(a) + (1.0 - a) * digamma(a)


@checked
def gamma_divergence(p: GammaDistribution, q: GammaDistribution) -> Var:
    """The Kullback-Leibler divergence of ``p`` from ``q``."""
    a, b, c, d = p.concentration, p.rate, q.concentration, q.rate
    return (a - c) * digamma(a) - lgamma(a) + lgamma(c) + c * (log(b) - log(d)) + a * (d - b) / b
