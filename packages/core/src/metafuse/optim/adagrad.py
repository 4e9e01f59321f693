"""Adagrad."""

from __future__ import annotations

from typing import Any

from ..var import Var
from .optimizer import Optimizer, check_number, write
from .updates import steady

__all__ = ["Adagrad"]


class Adagrad(Optimizer):
    """Gradients divided by the root of the sum of all their squares so far (Duchi, Hazan and Singer 2011):
    ``s += g*g``; ``p -= lr / (1 + (n-1)*lr_decay) * g / (sqrt(s) + eps)`` at step n.

    Args:
        params, lr: as in ``Optimizer``.
        lr_decay: by which the rate falls from step to step, >= 0.
        weight_decay: added to the gradient as ``weight_decay * p``, >= 0.
        initial_accumulator_value: with which the sums begin, >= 0.
        eps: >= 0.

    Example:
        >>> import metafuse as mf
        >>> p = mf.nn.Parameter([1.0])
        >>> mf.optim.Adagrad([p], lr=0.25).step((p * p).sum())
        >>> p.item()
        0.75
    """

    options = ("lr", "lr_decay", "weight_decay", "eps")
    slots = ("sum",)

    def __init__(
        self,
        params: Any,
        lr: float = 0.01,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        super().__init__(params, lr)
        self.lr_decay = check_number("Adagrad", "lr_decay", lr_decay)
        self.weight_decay = check_number("Adagrad", "weight_decay", weight_decay)
        self.initial_accumulator_value = check_number(
            "Adagrad", "initial_accumulator_value", initial_accumulator_value
        )
        self.eps = check_number("Adagrad", "eps", eps)

    def _first_state(self, name: str, p: Var) -> Var:
        return super()._first_state(name, p) + self.initial_accumulator_value

    @steady
    def update(self, p: Any, g: Any, state: dict[str, Any], options: dict[str, Any]) -> None:
        if options["weight_decay"]:
            g = p * options["weight_decay"] + g
        total = state["sum"] + g * g
        rate = options["lr"] / (1 + (self.n_step - 1) * options["lr_decay"])
        fresh = p - g * rate / (total.sqrt() + options["eps"])
        write(state["sum"], total)
        write(p, fresh)
