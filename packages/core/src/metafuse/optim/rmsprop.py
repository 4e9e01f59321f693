"""RMSprop."""

from __future__ import annotations

from typing import Any

from .optimizer import Optimizer, check_number, write
from .updates import steady

__all__ = ["RMSprop"]


class RMSprop(Optimizer):
    """Gradients divided by a running root mean square (Hinton 2012):
    ``v = alpha*v + (1-alpha)*g*g``; ``p -= lr * g / (sqrt(v) + eps)``.

    Args:
        params, lr: as in ``Optimizer``.
        eps, alpha: numbers >= 0.

    Example:
        >>> import metafuse as mf
        >>> p = mf.nn.Parameter([1.0])
        >>> mf.optim.RMSprop([p], lr=0.01).step((p * p).sum())
        >>> round(p.item(), 4)
        0.9
    """

    options = ("lr", "eps", "alpha")
    slots = ("values",)

    def __init__(self, params: Any, lr: float = 0.01, eps: float = 1e-08, alpha: float = 0.99) -> None:
        super().__init__(params, lr)
        self.eps = check_number("RMSprop", "eps", eps)
        self.alpha = check_number("RMSprop", "alpha", alpha)

    @steady
    def update(self, p: Any, g: Any, state: dict[str, Any], options: dict[str, Any]) -> None:
        alpha = options["alpha"]
        v: Any = state["values"] * alpha + g * g * (1 - alpha)
        fresh = p - g * options["lr"] / (v.sqrt() + options["eps"])
        write(state["values"], v)
        write(p, fresh)
