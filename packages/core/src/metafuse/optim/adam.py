"""Adam and AdamW, and what the other rules of their kind (``adam_variants``) have in common with them."""

from __future__ import annotations

from typing import Any

from .optimizer import Optimizer, check_betas, check_number, write
from .updates import steady

__all__ = ["Adam", "AdamW"]


def decayed(p: Any, g: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    """The parameter and the gradient that a rule goes on with: the decay is added to the gradient, or, decoupled, taken off the
    parameter."""
    decay = options["weight_decay"]
    if not decay:
        return p, g
    if options.get("decoupled_weight_decay"):
        return p * (1 - options["lr"] * decay), g
    return p, p * decay + g


def moments(state: dict[str, Any], g: Any, betas: Any) -> tuple[Any, Any]:
    """The new running means of gradients and of their squares."""
    b0, b1 = betas
    return state["m"] * b0 + g * (1 - b0), state["values"] * b1 + g * g * (1 - b1)


class Adam(Optimizer):
    """Adaptive moments (Kingma and Ba 2015), weight decay added to the gradient.

    ``m = b0*m + (1-b0)*g``; ``v = b1*v + (1-b1)*g*g``;
    ``p -= lr * sqrt(1-b1**n) / (1-b0**n) * m / (sqrt(v) + eps)`` at step n.

    Args:
        params, lr: as in ``Optimizer``.
        eps: >= 0.
        betas: two numbers, 0 <= beta < 1.
        weight_decay: >= 0.

    Example:
        >>> import metafuse as mf
        >>> p = mf.nn.Parameter([1.0])
        >>> mf.optim.Adam([p], lr=0.5).step((p * p).sum())
        >>> round(p.item(), 4)
        0.5
    """

    options: tuple[str, ...] = ("lr", "eps", "betas", "weight_decay")
    slots: tuple[str, ...] = ("values", "m")

    def __init__(
        self, params: Any, lr: float, eps: float = 1e-08, betas: Any = (0.9, 0.999), weight_decay: float = 0
    ) -> None:
        super().__init__(params, lr)
        kind = type(self).__name__
        self.eps = check_number(kind, "eps", eps)
        self.betas = check_betas(kind, betas, 2)
        self.weight_decay = check_number(kind, "weight_decay", weight_decay)

    @steady
    def update(self, p: Any, g: Any, state: dict[str, Any], options: dict[str, Any]) -> None:
        _, g = decayed(p, g, options)
        b0, b1 = options["betas"]
        m, v = moments(state, g, options["betas"])
        rate = options["lr"] * (1 - b1**self.n_step) ** 0.5 / (1 - b0**self.n_step)
        fresh = p - m * rate / (v.sqrt() + options["eps"])
        for var, value in ((state["m"], m), (state["values"], v), (p, fresh)):
            write(var, value)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): ``p *= 1 - lr * weight_decay``, then the step
    ``p -= lr / (1-b0**n) * m / (sqrt(v / (1-b1**n)) + eps)``.

    Arguments as in ``Adam``.

    Example:
        >>> import metafuse as mf
        >>> p = mf.nn.Parameter([1.0])
        >>> optimizer = mf.nn.AdamW([p], lr=0.1, weight_decay=0.0)
        >>> optimizer.step(p * p)
        >>> round(p.item(), 4)
        0.9
    """

    @steady
    def update(self, p: Any, g: Any, state: dict[str, Any], options: dict[str, Any]) -> None:
        b0, b1 = options["betas"]
        m, v = moments(state, g, options["betas"])
        scale = v.sqrt() / (1 - b1**self.n_step) ** 0.5 + options["eps"]
        shrunk = p * (1 - options["lr"] * options["weight_decay"])
        fresh = shrunk - m * (options["lr"] / (1 - b0**self.n_step)) / scale
        for var, value in ((state["m"], m), (state["values"], v), (p, fresh)):
            write(var, value)
