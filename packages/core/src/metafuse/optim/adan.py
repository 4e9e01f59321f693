"""Adan."""

from __future__ import annotations

from typing import Any

from ..var import Var
from .optimizer import Optimizer, check_betas, check_number, write
from .updates import steady

__all__ = ["Adan"]


class Adan(Optimizer):
    """Adaptive Nesterov momentum (Xie et al. 2022, algorithm 1).

    With ``d = g - g_before`` (0 at the first step): ``m = b0*m + (1-b0)*g``; ``v = b1*v + (1-b1)*d``;
    ``n = b2*n + (1-b2)*(g + b1*d)**2``; then, with moments corrected for their start at zero,
    ``p = (p - lr * (m + b1*v) / (sqrt(n) + eps)) / (1 + lr*weight_decay)``.

    Args:
        params, lr: as in ``Optimizer``.
        betas: three numbers, 0 <= beta < 1.
        eps, weight_decay: numbers >= 0.
        max_grad_norm: if > 0, gradients are first scaled together to this norm at most.

    Example:
        >>> import metafuse as mf
        >>> p = mf.nn.Parameter([1.0])
        >>> mf.optim.Adan([p], lr=0.1).step((p * p).sum())
        >>> round(p.item(), 4)
        0.9
    """

    options = ("lr", "betas", "eps", "weight_decay")
    slots = ("m", "v", "n", "before")

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: Any = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_grad_norm: float = 0.0,
    ) -> None:
        super().__init__(params, lr)
        self.betas = check_betas("Adan", betas, 3)
        self.eps = check_number("Adan", "eps", eps)
        self.weight_decay = check_number("Adan", "weight_decay", weight_decay)
        self.max_grad_norm = check_number("Adan", "max_grad_norm", max_grad_norm)

    def pre_step(self, loss: Var | None, retain_graph: bool = False) -> None:
        super().pre_step(loss, retain_graph)
        if self.max_grad_norm > 0:
            self.clip_grad_norm(self.max_grad_norm)

    @steady
    def update(self, p: Any, g: Any, state: dict[str, Any], options: dict[str, Any]) -> None:
        b0, b1, b2 = options["betas"]
        step, lr = self.n_step, options["lr"]
        d = g - state["before"] if step > 1 else g * 0.0
        m = state["m"] * b0 + g * (1 - b0)
        v = state["v"] * b1 + d * (1 - b1)
        look = g + d * b1
        n = state["n"] * b2 + look * look * (1 - b2)
        scale = n.sqrt() / (1 - b2**step) ** 0.5 + options["eps"]
        move = (m * (lr / (1 - b0**step)) + v * (lr * b1 / (1 - b1**step))) / scale
        fresh = (p - move) / (1 + lr * options["weight_decay"])
        for var, value in (
            (state["m"], m),
            (state["v"], v),
            (state["n"], n),
            (state["before"], g),
            (p, fresh),
        ):
            write(var, value)
