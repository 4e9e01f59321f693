"""Kullback-Leibler divergences.

What it is: one closed form per family.
What it is not: an estimate by samples, or a divergence between families.
Who calls it: users, as ``metafuse.distributions.kl_divergence``.

Source: Kullback and Leibler, "On information and sufficiency", 1951; closed forms: Gil, Alajaji and Linder, "Rényi
divergence measures for commonly used univariate continuous distributions", 2013.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..arguments import checked
from ..errors import DTypeError
from ..ops.reduce import sum
from ..ops.scalar import log, where
from ..var import Var
from .continuous import Normal, Uniform
from .discrete import Categorical, Geometric, OneHotCategorical, _Categories
from .gamma import GammaDistribution, gamma_divergence

__all__ = ["kl_divergence"]


def _normal(p: Normal, q: Normal) -> Var:
    ratio, apart = p.sigma / q.sigma, (p.mu - q.mu) / q.sigma
    return (ratio * ratio + apart * apart - 1.0) * 0.5 - log(ratio)


def _uniform(p: Uniform, q: Uniform) -> Var:
    inside = (p.low >= q.low) & (p.high <= q.high)
    return where(inside, log((q.high - q.low) / (p.high - p.low)), float("inf"))


def _categories(p: _Categories, q: _Categories) -> Var:
    never = p.probs == 0
    return sum(where(never, 0.0, p.probs * (where(never, 0.0, p.logits) - where(never, 0.0, q.logits))), -1)


def _geometric(p: Geometric, q: Geometric) -> Var:
    sure = p.p == 1
    failures = where(sure, 0.0, (1.0 - p.p) / p.p)
    ratio = where(sure, 0.0, where(sure, 0.0, p._failure()) - where(sure, 0.0, q._failure()))
    return failures * ratio + log(p.p) - log(q.p)


_FORMS: dict[type, Callable[[Any, Any], Var]] = {
    Normal: _normal,
    Uniform: _uniform,
    Categorical: _categories,
    OneHotCategorical: _categories,
    Geometric: _geometric,
    GammaDistribution: gamma_divergence,
}


@checked
def kl_divergence(cur_dist: Any, old_dist: Any) -> Var:
    """The divergence of ``cur_dist`` from ``old_dist``, in nats.

    It is the mean, under ``cur_dist``, of the difference of their ``log_prob``.

    Args:
        cur_dist, old_dist: two distributions of one family whose parameters broadcast.

    Returns:
        Var of the broadcast shape of the parameters; infinite where ``cur_dist`` allows what ``old_dist`` does not.

    Errors:
        DTypeError: unknown or different families.

    Example:
        >>> import metafuse as mf
        >>> from metafuse.distributions import Normal, kl_divergence
        >>> kl_divergence(Normal(1.0, 1.0), Normal(0.0, 1.0)).item()
        0.5
    """
    family = type(cur_dist)
    if type(old_dist) is not family or family not in _FORMS:
        names = ", ".join(sorted(k.__name__ for k in _FORMS))
        raise DTypeError(
            f"[kl_divergence] needs two distributions of one family out of {names}, got {family.__name__} and "
            f"{type(old_dist).__name__}"
        )
    return _FORMS[family](cur_dist, old_dist)
