"""RMSprop."""

from __future__ import annotations

from typing import Any

from ..ops.meta import check_flag
from .adam import decayed
from .optimizer import Optimizer, check_number, write
from .updates import steady

__all__ = ["RMSprop"]


class RMSprop(Optimizer):
    """Gradients divided by a running root mean square (Hinton 2012):
    ``v = alpha*v + (1-alpha)*g*g``; ``p -= lr * g / (sqrt(v) + eps)``.

    Args:
        params, lr: as in ``Optimizer``.
        eps, alpha: numbers >= 0.
        weight_decay: added to the gradient as ``weight_decay * p``, >= 0.
        momentum: with ``b = momentum*b + g / (sqrt(v) + eps)`` the step is ``p -= lr * b``, >= 0.
        centered: divide by the root of the variance ``v - a*a``, with ``a = alpha*a + (1-alpha)*g`` (Graves 2013).

    Example:
        >>> import metafuse as mf
        >>> p = mf.nn.Parameter([1.0])
        >>> mf.optim.RMSprop([p], lr=0.01).step((p * p).sum())
        >>> round(p.item(), 4)
        0.9
    """

    options = ("lr", "eps", "alpha", "weight_decay", "momentum", "centered")
    slots = ("values", "means", "velocities")

    def __init__(
        self,
        params: Any,
        lr: float = 0.01,
        eps: float = 1e-08,
        alpha: float = 0.99,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
    ) -> None:
        super().__init__(params, lr)
        self.eps = check_number("RMSprop", "eps", eps)
        self.alpha = check_number("RMSprop", "alpha", alpha)
        self.weight_decay = check_number("RMSprop", "weight_decay", weight_decay)
        self.momentum = check_number("RMSprop", "momentum", momentum)
        self.centered = check_flag("RMSprop", "centered", centered)

    def _slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        used = {"means": self.option(group, "centered"), "velocities": self.option(group, "momentum")}
        return tuple(name for name in self.slots if used.get(name, True))

    @steady
    def update(self, p: Any, g: Any, state: dict[str, Any], options: dict[str, Any]) -> None:
        _, g = decayed(p, g, options)
        alpha, momentum = options["alpha"], options["momentum"]
        news = {"values": state["values"] * alpha + g * g * (1 - alpha)}
        square = news["values"]
        if options["centered"]:
            news["means"] = state["means"] * alpha + g * (1 - alpha)
            square = (square - news["means"].sqr()).maximum(0.0)  # rounding may leave less than nothing
        move = g / (square.sqrt() + options["eps"])
        if momentum:
            move = news["velocities"] = state["velocities"] * momentum + move
        fresh = p - move * options["lr"]
        for name, value in news.items():
            write(state[name], value)
        write(p, fresh)
