"""Schedulers that count as PyTorch's: by a function, warm-up, one cycle, warm restarts, and several in a row.

What it is: ``LRScheduler``, the base, and what is made of it. Making one begins epoch 0; ``step()`` at the end of every epoch (or
optimizer step) begins the next.
What it is not: the reference API's own schedulers (``lr_scheduler``).
Who calls it: users.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from math import cos, pi
from typing import Any

import numpy as np

from ..arguments import checked
from ..dtypes import is_number
from ..errors import ArgumentError, DTypeError, brief
from ..ops.neural.checks import choice, fraction, integer
from .lr_scheduler import Schedule, check_optimizer
from .optimizer import Optimizer, check_number

__all__ = [
    "ConstantLR", "CosineAnnealingWarmRestarts", "LRScheduler", "LambdaLR", "LinearLR", "OneCycleLR", "SequentialLR",
]  # fmt: skip


@checked
class LRScheduler:
    """Base: subclasses define ``get_lr``, which answers a learning rate per group for ``self.last_epoch``.

    Args:
        optimizer: whose groups' learning rates are set. Each group remembers its first one as ``"initial_lr"``.
        last_epoch: the epoch that was the last one, -1 if none was; else groups must have ``"initial_lr"``.

    Example:
        >>> import metafuse as mf
        >>> class Halving(mf.lr_scheduler.LRScheduler):
        ...     def get_lr(self):
        ...         return [base / 2**self.last_epoch for base in self.base_lrs]
        >>> opt = mf.optim.SGD([mf.nn.Parameter([1.0])], 1.0)
        >>> scheduler = Halving(opt)
        >>> scheduler.step()
        >>> opt.lr
        0.5
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        kind = type(self).__name__
        self.optimizer = check_optimizer(kind, optimizer)
        self.last_epoch = integer(kind, "last_epoch", last_epoch, -1)
        for k, group in enumerate(optimizer.param_groups):
            if self.last_epoch == -1:
                group.setdefault("initial_lr", group.get("lr", optimizer.lr))
            elif "initial_lr" not in group:
                raise ArgumentError(
                    f"[{kind}] group {k} has no 'initial_lr', which going on after epoch {last_epoch} needs"
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.step()

    def get_lr(self) -> Any:
        """Learning rates of the groups for the current epoch."""
        raise NotImplementedError(f"[{type(self).__name__}] has no get_lr; define get_lr(self)")

    def get_last_lr(self) -> list[float]:
        """Learning rates of the groups as they were last set."""
        return list(self._last_lr)

    def step(self, epoch: int | None = None) -> None:
        """Go on to the next epoch, or to ``epoch``."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        rates = [float(r) for r in self.get_lr()]
        groups = self.optimizer.param_groups
        if len(rates) != len(groups):
            raise ArgumentError(
                f"[{type(self).__name__}] get_lr must answer {len(groups)} rates, one per group, got {len(rates)}"
            )
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        self.optimizer.lr = rates[0]
        self._last_lr = rates


@checked
class LambdaLR(LRScheduler):
    """The first learning rate times ``lr_lambda(epoch)``; one function for all groups or a list of them.

    Example:
        >>> import metafuse as mf
        >>> opt = mf.optim.SGD([mf.nn.Parameter([1.0])], 1.0)
        >>> scheduler = mf.optim.LambdaLR(opt, lambda epoch: 0.5**epoch)
        >>> scheduler.step()
        >>> opt.lr
        0.5
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Any, last_epoch: int = -1) -> None:
        count = len(check_optimizer("LambdaLR", optimizer).param_groups)
        several = list(lr_lambda) if isinstance(lr_lambda, (tuple, list)) else [lr_lambda] * count
        if len(several) != count or not all(callable(f) for f in several):
            raise DTypeError(
                f"[LambdaLR] lr_lambda must be a function or {count} of them, got {brief(lr_lambda)}"
            )
        self.lr_lambdas: list[Callable[[int], float]] = several
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        factors = [check_factor(f(self.last_epoch)) for f in self.lr_lambdas]
        return [base * f for base, f in zip(self.base_lrs, factors, strict=True)]


def check_factor(value: Any) -> Any:
    """What a user's function answers, if it is a number."""
    if is_number(value) or isinstance(value, (np.integer, np.floating)):
        return value
    raise DTypeError(f"[LambdaLR] lr_lambda must answer a number, got {brief(value)}")


@checked
class LinearLR(LRScheduler):
    """Warm-up: the first learning rate times a factor that goes from ``start_factor`` to ``end_factor`` in ``total_iters`` steps.

    Example:
        >>> import metafuse as mf
        >>> opt = mf.optim.SGD([mf.nn.Parameter([1.0])], 1.0)
        >>> scheduler = mf.lr_scheduler.LinearLR(opt, start_factor=0.5, total_iters=2)
        >>> rates = [opt.lr]
        >>> for step in range(3):
        ...     scheduler.step()
        ...     rates.append(opt.lr)
        >>> rates
        [0.5, 0.75, 1.0, 1.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.start_factor = fraction("LinearLR", "start_factor", start_factor)
        self.end_factor = fraction("LinearLR", "end_factor", end_factor)
        self.total_iters = integer("LinearLR", "total_iters", total_iters, 1)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        part = min(self.last_epoch / self.total_iters, 1.0)
        factor = self.start_factor + (self.end_factor - self.start_factor) * part
        return [base * factor for base in self.base_lrs]


@checked
class ConstantLR(LRScheduler):
    """Warm-up: the first learning rate times ``factor`` for ``total_iters`` steps, then itself.

    Example:
        >>> import metafuse as mf
        >>> opt = mf.optim.SGD([mf.nn.Parameter([1.0])], 1.0)
        >>> scheduler = mf.lr_scheduler.ConstantLR(opt, 0.5, total_iters=2)
        >>> rates = [opt.lr]
        >>> for step in range(2):
        ...     scheduler.step()
        ...     rates.append(opt.lr)
        >>> rates
        [0.5, 0.5, 1.0]
    """

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        self.factor = fraction("ConstantLR", "factor", factor)
        self.total_iters = integer("ConstantLR", "total_iters", total_iters, 0)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        factor = self.factor if self.last_epoch < self.total_iters else 1.0
        return [base * factor for base in self.base_lrs]


@checked
class CosineAnnealingWarmRestarts(LRScheduler):
    """Half a cosine down to ``eta_min`` over ``T_0`` steps, again from the top over ``T_0 * T_mult`` steps, and so on (Loshchilov
    and Hutter 2017).

    Example:
        >>> import metafuse as mf
        >>> opt = mf.optim.SGD([mf.nn.Parameter([1.0])], 1.0)
        >>> scheduler = mf.lr_scheduler.CosineAnnealingWarmRestarts(opt, 2)
        >>> rates = []
        >>> for step in range(4):
        ...     scheduler.step()
        ...     rates.append(round(opt.lr, 4))
        >>> rates
        [0.5, 1.0, 0.5, 1.0]
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_0 = integer("CosineAnnealingWarmRestarts", "T_0", T_0, 1)
        self.T_mult = integer("CosineAnnealingWarmRestarts", "T_mult", T_mult, 1)
        self.eta_min = check_number("CosineAnnealingWarmRestarts", "eta_min", eta_min)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        at, span = self.last_epoch, self.T_0
        if self.T_mult == 1:
            at %= span
        while at >= span:
            at, span = at - span, span * self.T_mult
        share = (1 + cos(pi * at / span)) / 2
        return [self.eta_min + (base - self.eta_min) * share for base in self.base_lrs]


@checked
class OneCycleLR(LRScheduler):
    """Up from ``max_lr / div_factor`` to ``max_lr`` and down to ``max_lr / div_factor / final_div_factor`` (Smith and Topin
    2018).

    Args:
        max_lr: a number, or one per group.
        total_steps: how many steps the cycle has; the first is the making of the scheduler.
        pct_start: share of them that go up.
        anneal_strategy: ``"cos"`` or ``"linear"``.

    Momentum is left alone.

    Example:
        >>> import metafuse as mf
        >>> opt = mf.optim.SGD([mf.nn.Parameter([1.0])], 0.1)
        >>> scheduler = mf.lr_scheduler.OneCycleLR(opt, 1.0, total_steps=5)
        >>> rates = [round(opt.lr, 4)]
        >>> for step in range(4):
        ...     scheduler.step()
        ...     rates.append(round(opt.lr, 4))
        >>> max(rates), rates[-1] < rates[0]
        (0.9505, True)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: Any,
        total_steps: int,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        last_epoch: int = -1,
    ) -> None:
        kind = "OneCycleLR"
        count = len(check_optimizer(kind, optimizer).param_groups)
        several = list(max_lr) if isinstance(max_lr, (tuple, list)) else [max_lr] * count
        self.max_lrs = [check_number(kind, "max_lr", m) for m in several]
        if len(self.max_lrs) != count:
            raise ArgumentError(f"[{kind}] max_lr must be a number or {count} of them, got {brief(max_lr)}")
        self.total_steps = integer(kind, "total_steps", total_steps, 2)
        self.pct_start = fraction(kind, "pct_start", pct_start)
        self.anneal_strategy = choice(kind, "anneal_strategy", anneal_strategy, ("cos", "linear"))
        self.div_factor = check_number(kind, "div_factor", div_factor)
        self.final_div_factor = check_number(kind, "final_div_factor", final_div_factor)
        if not div_factor or not final_div_factor:
            raise ArgumentError(f"[{kind}] div_factor and final_div_factor must be > 0")
        super().__init__(optimizer, last_epoch)

    def _between(self, start: float, end: float, part: float) -> float:
        return end + (start - end) * ((1 + cos(pi * part)) / 2 if self.anneal_strategy == "cos" else 1 - part)

    def get_lr(self) -> list[float]:
        at, last = self.last_epoch, self.total_steps - 1
        if at > last:
            raise ArgumentError(
                f"[OneCycleLR] step {at} is beyond the cycle of total_steps {self.total_steps}"
            )
        top = self.pct_start * self.total_steps - 1
        rates = []
        for most in self.max_lrs:
            first = most / self.div_factor
            if at <= top:
                rates.append(self._between(first, most, at / top if top else 1.0))
            else:
                rates.append(self._between(most, first / self.final_div_factor, (at - top) / (last - top)))
        return rates


@checked
class SequentialLR:
    """Schedulers one after the other: number k takes over at step ``milestones[k - 1]``, counting from 0 again. All multiply the
    learning rates that the optimizer had before the first of them.

    Example:
        >>> import metafuse as mf
        >>> opt = mf.optim.SGD([mf.nn.Parameter([1.0])], 1.0)
        >>> warm = mf.lr_scheduler.LinearLR(opt, 0.5, total_iters=2)
        >>> down = mf.optim.LambdaLR(opt, lambda step: 0.1**step)
        >>> scheduler = mf.lr_scheduler.SequentialLR(opt, [warm, down], [2])
        >>> rates = [opt.lr]
        >>> for step in range(3):
        ...     scheduler.step()
        ...     rates.append(opt.lr)
        >>> rates
        [0.5, 0.75, 1.0, 0.1]
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler | Schedule], milestones: Sequence[int]
    ) -> None:
        self.optimizer = check_optimizer("SequentialLR", optimizer)
        self.schedulers = list(schedulers)
        self.milestones = [integer("SequentialLR", "milestones", m, 1) for m in milestones]
        if not self.schedulers or len(self.milestones) != len(self.schedulers) - 1:
            raise ArgumentError(
                f"[SequentialLR] {len(self.schedulers)} schedulers need one milestone fewer, got {brief(list(milestones))}"
            )
        if not all(s.optimizer is optimizer for s in self.schedulers):
            raise DTypeError("[SequentialLR] schedulers must be schedulers of this optimizer")
        if sorted(self.milestones) != self.milestones:
            raise ArgumentError(f"[SequentialLR] milestones must ascend, got {brief(list(milestones))}")
        first = [group.get("initial_lr", group.get("lr", optimizer.lr)) for group in optimizer.param_groups]
        for scheduler in self.schedulers:
            if isinstance(scheduler, Schedule):
                scheduler.begin_at(first)
        self.last_epoch = 0
        self.schedulers[0].step(0)  # the makings of the others have set their own rates

    def get_last_lr(self) -> list[float]:
        """Learning rates of the groups as they were last set."""
        return self.schedulers[bisect_right(self.milestones, self.last_epoch)].get_last_lr()

    def step(self) -> None:
        """Go on to the next step."""
        self.last_epoch += 1
        current = bisect_right(self.milestones, self.last_epoch)
        begun = self.milestones[current - 1] if current else 0
        self.schedulers[current].step(self.last_epoch - begun)
