"""Rules that differ from Adam in one thing: the norm (Adamax), the momentum (NAdam), the first steps (RAdam).

Who calls it: users, as ``metafuse.optim``. In all of them ``m = b0*m + (1-b0)*g``; n is the count of steps.
"""

from __future__ import annotations

from typing import Any

from ..ops.creation import ones
from ..ops.meta import check_flag
from ..var import Var
from .adam import Adam, decayed, moments
from .optimizer import check_number, write
from .updates import steady

__all__ = ["Adamax", "NAdam", "RAdam"]


class Adamax(Adam):
    """Adam with the largest recent gradient in the place of the mean square (Kingma and Ba 2015, algorithm 2):
    ``u = max(b1*u, |g| + eps)``; ``p -= lr / (1-b0**n) * m / u``.

    Args:
        params, lr: as in ``Optimizer``.
        eps: >= 0.
        betas: two numbers, 0 <= beta < 1.
        weight_decay: added to the gradient as ``weight_decay * p``, >= 0.

    Example:
        >>> import metafuse as mf
        >>> p = mf.nn.Parameter([1.0])
        >>> mf.optim.Adamax([p], lr=0.5).step((p * p).sum())
        >>> round(p.item(), 4)
        0.5
    """

    def __init__(
        self,
        params: Any,
        lr: float = 2e-3,
        eps: float = 1e-08,
        betas: Any = (0.9, 0.999),
        weight_decay: float = 0,
    ) -> None:
        super().__init__(params, lr, eps, betas, weight_decay)

    @steady
    def update(self, p: Any, g: Any, state: dict[str, Any], options: dict[str, Any]) -> None:
        _, g = decayed(p, g, options)
        b0, b1 = options["betas"]
        m = state["m"] * b0 + g * (1 - b0)
        largest = (state["values"] * b1).maximum(g.abs() + options["eps"])
        fresh = p - m * (options["lr"] / (1 - b0**self.n_step)) / largest
        for var, value in ((state["m"], m), (state["values"], largest), (p, fresh)):
            write(var, value)


class NAdam(Adam):
    """Adam with Nesterov's momentum (Dozat 2016). With ``mu(n) = b0 * (1 - 0.96**(n*momentum_decay) / 2)`` and ``M``, the product
    of ``mu(1)`` to ``mu(n)``: ``v = b1*v + (1-b1)*g*g``;
    ``p -= lr * (mu(n+1)*m / (1 - M*mu(n+1)) + (1-mu(n))*g / (1-M)) / (sqrt(v / (1-b1**n)) + eps)``.

    Args:
        params, lr: as in ``Optimizer``.
        eps: >= 0.
        betas: two numbers, 0 <= beta < 1.
        weight_decay: added to the gradient as ``weight_decay * p``, >= 0.
        momentum_decay: how fast the momentum grows to its full size, >= 0.
        decoupled_weight_decay: shrink parameters by ``1 - lr * weight_decay`` instead, as ``AdamW`` does.

    Example:
        >>> import metafuse as mf
        >>> p = mf.nn.Parameter([1.0])
        >>> mf.optim.NAdam([p], lr=0.1).step((p * p).sum())
        >>> round(p.item(), 4)
        0.8944
    """

    options = (*Adam.options, "momentum_decay", "decoupled_weight_decay")
    slots = (*Adam.slots, "mu_product")

    def __init__(
        self,
        params: Any,
        lr: float = 2e-3,
        eps: float = 1e-08,
        betas: Any = (0.9, 0.999),
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
    ) -> None:
        super().__init__(params, lr, eps, betas, weight_decay)
        self.momentum_decay = check_number("NAdam", "momentum_decay", momentum_decay)
        self.decoupled_weight_decay = check_flag("NAdam", "decoupled_weight_decay", decoupled_weight_decay)

    def _first_state(self, name: str, p: Var) -> Var:
        found = super()._first_state(name, p)
        return ones([1], dtype=found.dtype) if name == "mu_product" else found

    @steady
    def update(self, p: Any, g: Any, state: dict[str, Any], options: dict[str, Any]) -> None:
        b0, b1 = options["betas"]
        lr = options["lr"]
        old, g = decayed(p, g, options)
        mu, mu_next = (
            b0 * (1 - 0.5 * 0.96 ** (n * options["momentum_decay"])) for n in (self.n_step, self.n_step + 1)
        )
        product = state["mu_product"] * mu
        m, v = moments(state, g, options["betas"])
        ahead = m * (lr * mu_next / (1.0 - product * mu_next)) + g * (lr * (1 - mu) / (1.0 - product))
        fresh = old - ahead / (v.sqrt() / (1 - b1**self.n_step) ** 0.5 + options["eps"])
        for var, value in ((state["m"], m), (state["values"], v), (state["mu_product"], product), (p, fresh)):
            write(var, value)


class RAdam(Adam):
    """Adam whose first steps, before mean squares are known well, are not divided by them (Liu et al. 2020).

    With ``r = 2/(1-b1) - 1`` and ``k = r - 2*n*b1**n / (1-b1**n)``: ``v = b1*v + (1-b1)*g*g`` and, where k > 5,
    ``p -= lr * sqrt((k-4)*(k-2)*r / ((r-4)*(r-2)*k)) * m / (1-b0**n) * sqrt(1-b1**n) / (sqrt(v) + eps)``, else
    ``p -= lr * m / (1-b0**n)``.

    Args:
        params, lr: as in ``Optimizer``.
        eps: >= 0.
        betas: two numbers, 0 <= beta < 1.
        weight_decay: added to the gradient as ``weight_decay * p``, >= 0.
        decoupled_weight_decay: shrink parameters by ``1 - lr * weight_decay`` instead, as ``AdamW`` does.

    Example:
        >>> import metafuse as mf
        >>> p = mf.nn.Parameter([1.0])
        >>> mf.optim.RAdam([p], lr=0.25).step((p * p).sum())
        >>> round(p.item(), 4)
        0.5
    """

    options = (*Adam.options, "decoupled_weight_decay")

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        eps: float = 1e-08,
        betas: Any = (0.9, 0.999),
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
    ) -> None:
        super().__init__(params, lr, eps, betas, weight_decay)
        self.decoupled_weight_decay = check_flag("RAdam", "decoupled_weight_decay", decoupled_weight_decay)

    @steady
    def update(self, p: Any, g: Any, state: dict[str, Any], options: dict[str, Any]) -> None:
        b0, b1 = options["betas"]
        lr, n = options["lr"], self.n_step
        old, g = decayed(p, g, options)
        m, v = moments(state, g, options["betas"])
        longest = 2 / (1 - b1) - 1
        length = longest - 2 * n * b1**n / (1 - b1**n)
        move = m * (lr / (1 - b0**n))
        if length > 5:
            trust = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            move = move * (trust * (1 - b1**n)) ** 0.5 / (v.sqrt() + options["eps"])
        fresh = old - move
        for var, value in ((state["m"], m), (state["values"], v), (p, fresh)):
            write(var, value)
