"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from typing import Any

from ..errors import ArgumentError
from ..ops.meta import check_flag
from .optimizer import Optimizer, check_number, write
from .updates import steady

__all__ = ["SGD"]


class SGD(Optimizer):
    """Gradient descent with weight decay, momentum and Nesterov's variant.

    ``d = p * weight_decay + g``; ``v = momentum * v + d * (1 - dampening)``; ``p -= lr * v``, or with ``nesterov``
    ``p -= lr * (d + momentum * v)``.

    Args:
        params, lr: as in ``Optimizer``.
        momentum, weight_decay, dampening: numbers >= 0.
        nesterov: needs momentum and no dampening.

    Example:
        >>> import metafuse as mf
        >>> p = mf.nn.Parameter([1.0])
        >>> mf.optim.SGD([p], lr=0.5).step((p * p).sum())
        >>> p.item()
        0.0
    """

    options = ("lr", "momentum", "weight_decay", "dampening", "nesterov")
    slots = ("values",)

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0,
        weight_decay: float = 0,
        dampening: float = 0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr)
        self.momentum = check_number("SGD", "momentum", momentum)
        self.weight_decay = check_number("SGD", "weight_decay", weight_decay)
        self.dampening = check_number("SGD", "dampening", dampening)
        self.nesterov = check_flag("SGD", "nesterov", nesterov)
        if self.nesterov and (momentum <= 0 or dampening != 0):
            raise ArgumentError(
                f"[SGD] nesterov needs momentum > 0 and dampening 0, got {momentum} and {dampening}"
            )

    def _slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        return self.slots if self.option(group, "momentum") else ()

    @steady
    def update(self, p: Any, g: Any, state: dict[str, Any], options: dict[str, Any]) -> None:
        momentum, decay, keep = options["momentum"], options["weight_decay"], 1.0 - options["dampening"]
        d = p * decay + g if decay else g
        v = d * keep if keep != 1 else d
        if momentum:
            v = state["values"] * momentum + v
            fresh = p - (d + v * momentum if options["nesterov"] else v) * options["lr"]
            write(state["values"], v)
        else:
            fresh = p - v * options["lr"]
        write(p, fresh)
