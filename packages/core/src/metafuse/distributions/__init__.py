"""Probability distributions: samples, densities, entropies, divergences.

What it is: one class per family over Vars; everything that depends on the parameters has gradients with respect to them.
What it is not: the random numbers themselves (``metafuse.random``), from which samples are made.
Who calls it: users, as ``metafuse.distributions``.

Samples follow ``metafuse.set_global_seed``. Densities are logarithms: ``log_prob``; minus infinity outside of the support.
"""

from .continuous import Normal, Uniform
from .discrete import Categorical, Geometric, OneHotCategorical, simple_presum
from .divergence import kl_divergence
from .gamma import GammaDistribution

__all__ = [
    "Categorical",
    "GammaDistribution",
    "Geometric",
    "Normal",
    "OneHotCategorical",
    "Uniform",
    "kl_divergence",
    "simple_presum",
]
