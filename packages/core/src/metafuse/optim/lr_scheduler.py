"""Learning-rate schedulers: what the learning rate of an optimizer is in each epoch (or step).

What it is: the schedulers of the reference API, and those for warming up. They set ``optimizer.lr`` and the ``"lr"`` of
groups that have one of their own; a learning rate is a run-time number, so that a change compiles nothing.
What it is not: update rules (``optim``).
Who calls it: users, as ``metafuse.lr_scheduler`` and, those based on ``LRScheduler``, as ``metafuse.optim``.

Two ways of counting exist. ``StepLR``, ``MultiStepLR``, ``ExponentialLR`` and ``CosineAnnealingLR`` begin before the first epoch
(``last_epoch=-1``): call ``step()`` at the *start* of every epoch; the first call begins epoch 0 and leaves the learning
rate as it is. With ``last_epoch=0`` epoch 0 has begun already, and ``step()`` belongs at the *end* of every epoch, as in
PyTorch. Schedulers based on ``LRScheduler`` always count in the latter way, ``ReduceLROnPlateau`` is told a loss after each
epoch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import cos, pi
from typing import Any

from ..arguments import checked
from ..errors import ArgumentError, DTypeError, brief
from ..ops.neural.checks import choice, integer
from ..var import Var
from .optimizer import Optimizer, check_number

__all__ = ["CosineAnnealingLR", "ExponentialLR", "MultiStepLR", "ReduceLROnPlateau", "StepLR"]


def check_optimizer(kind: str, optimizer: Any) -> Optimizer:
    """``optimizer`` if it is one."""
    if not isinstance(optimizer, Optimizer):
        raise DTypeError(f"[{kind}] optimizer must be an Optimizer, got {type(optimizer).__name__}")
    return optimizer


@checked
class Schedule:
    """Factors by epoch; subclasses define ``factor``, or ``get_lr`` where it is no factor."""

    def __init__(self, optimizer: Any, last_epoch: int) -> None:
        kind = type(self).__name__
        self.optimizer = check_optimizer(kind, optimizer)
        self.last_epoch = integer(kind, "last_epoch", last_epoch, -1)
        self.base_lr = optimizer.lr
        self.base_lr_pg = [group.get("lr") for group in optimizer.param_groups]

    def get_lr(self, base_lr: float | None = None, now_lr: float | None = None) -> float:
        """The learning rate of the current epoch of a group that began with ``base_lr`` (without one: of the optimizer)."""
        base = self.base_lr if base_lr is None else base_lr
        return base if self.last_epoch <= 0 else self._value(base, self.last_epoch)

    def _value(self, base: float, epoch: int) -> float:
        raise NotImplementedError(f"[{type(self).__name__}] has no _value")

    def update_lr(self) -> None:
        """Give the optimizer and its groups the learning rate of the current epoch."""
        self.optimizer.lr = self.get_lr(self.base_lr, self.optimizer.lr)
        groups = self.optimizer.param_groups
        self.base_lr_pg.extend(group.get("lr") for group in groups[len(self.base_lr_pg) :])
        for base, group in zip(self.base_lr_pg, groups, strict=True):
            if base is not None:
                group["lr"] = self.get_lr(base, group["lr"])

    def get_last_lr(self) -> list[float]:
        """The learning rates of the parameter groups now."""
        return [group.get("lr", self.optimizer.lr) for group in self.optimizer.param_groups]

    def step(self, epoch: int | None = None) -> None:
        """Go on to the next epoch, or to ``epoch``."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self.update_lr()

    def begin_at(self, rates: Sequence[float]) -> None:
        """Have ``rates``, one per group, be those that are multiplied."""
        self.base_lr, self.base_lr_pg = rates[0], list(rates)


@checked
class StepLR(Schedule):
    """The learning rate times ``gamma`` every ``step_size`` epochs.

    Example:
        >>> import metafuse as mf
        >>> opt = mf.optim.SGD([mf.nn.Parameter([1.0])], 1.0)
        >>> scheduler = mf.lr_scheduler.StepLR(opt, 2)
        >>> rates = []
        >>> for epoch in range(5):
        ...     scheduler.step()
        ...     rates.append(opt.lr)
        >>> rates
        [1.0, 1.0, 0.1, 0.1, 0.010000000000000002]
    """

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        super().__init__(optimizer, last_epoch)
        self.step_size = integer("StepLR", "step_size", step_size, 1)
        self.gamma = check_number("StepLR", "gamma", gamma)

    def get_gamma(self) -> float:
        """The factor that the current epoch brings: ``gamma`` or 1."""
        return self.gamma if self.last_epoch > 0 and self.last_epoch % self.step_size == 0 else 1.0

    def _value(self, base: float, epoch: int) -> float:
        return float(base * self.gamma ** (epoch // self.step_size))


@checked
class MultiStepLR(Schedule):
    """The learning rate times ``gamma`` at each epoch of ``milestones``.

    Example:
        >>> import metafuse as mf
        >>> opt = mf.optim.SGD([mf.nn.Parameter([1.0])], 1.0)
        >>> scheduler = mf.lr_scheduler.MultiStepLR(opt, [1, 3], gamma=0.5)
        >>> rates = []
        >>> for epoch in range(4):
        ...     scheduler.step()
        ...     rates.append(opt.lr)
        >>> rates
        [1.0, 0.5, 0.5, 0.25]
    """

    def __init__(
        self, optimizer: Optimizer, milestones: Sequence[int] = (), gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        super().__init__(optimizer, last_epoch)
        self.milestones = sorted(integer("MultiStepLR", "milestones", m, 0) for m in milestones)
        self.gamma = check_number("MultiStepLR", "gamma", gamma)

    def get_gamma(self) -> float:
        """The factor that the current epoch brings: a power of ``gamma``."""
        return float(self.gamma ** self.milestones.count(self.last_epoch))

    def _value(self, base: float, epoch: int) -> float:
        return float(base * self.gamma ** bisect_right(self.milestones, epoch))


@checked
class ExponentialLR(Schedule):
    """The learning rate times ``gamma`` every epoch.

    Example:
        >>> import metafuse as mf
        >>> opt = mf.optim.SGD([mf.nn.Parameter([1.0])], 1.0)
        >>> scheduler = mf.lr_scheduler.ExponentialLR(opt, 0.5)
        >>> scheduler.step()
        >>> opt.lr
        1.0
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch)
        self.gamma = check_number("ExponentialLR", "gamma", gamma)

    def _value(self, base: float, epoch: int) -> float:
        return float(base * self.gamma**epoch)


@checked
class CosineAnnealingLR(Schedule):
    """Half a cosine from the first learning rate down to ``eta_min`` over ``T_max`` epochs, and up and down again after that
    (Loshchilov and Hutter 2017).

    Example:
        >>> import metafuse as mf
        >>> opt = mf.optim.SGD([mf.nn.Parameter([1.0])], 1.0)
        >>> scheduler = mf.lr_scheduler.CosineAnnealingLR(opt, 2, last_epoch=0)
        >>> rates = []
        >>> for epoch in range(4):
        ...     scheduler.step()
        ...     rates.append(round(opt.lr, 6))
        >>> rates
        [0.5, 0.0, 0.5, 1.0]
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0, last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch)
        self.T_max = integer("CosineAnnealingLR", "T_max", T_max, 1)
        self.eta_min = check_number("CosineAnnealingLR", "eta_min", eta_min)

    def _value(self, base: float, epoch: int) -> float:
        return float(self.eta_min + (base - self.eta_min) * (1 + cos(pi * epoch / self.T_max)) / 2)


@checked
class ReduceLROnPlateau:
    """The learning rate times ``factor`` once the loss has not become better for more than ``patience`` epochs.

    Args:
        optimizer: whose learning rates are set.
        mode: ``"min"`` (smaller losses are better) or ``"max"``.
        factor: below 1.
        patience: so many epochs without progress are waited for.
        verbose: print each change.
        threshold: progress is more than this, by ``threshold_mode`` ``"rel"`` (a share of the best loss) or ``"abs"``.
        cooldown: epochs after a change that do not count.
        min_lr: bound from below; or a list, one per group with a learning rate of its own.
        eps: smaller changes are not made.

    Example:
        >>> import metafuse as mf
        >>> opt = mf.optim.SGD([mf.nn.Parameter([1.0])], 1.0)
        >>> scheduler = mf.lr_scheduler.ReduceLROnPlateau(opt, patience=1)
        >>> for loss in (3.0, 2.0, 2.0, 2.0):
        ...     scheduler.step(loss)
        >>> opt.lr
        0.1
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        verbose: bool = False,
        threshold: float = 0.0001,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: Any = 0,
        eps: float = 1e-08,
    ) -> None:
        kind = "ReduceLROnPlateau"
        self.optimizer = check_optimizer(kind, optimizer)
        self.mode = choice(kind, "mode", mode, ("min", "max"))
        self.factor = check_number(kind, "factor", factor)
        if factor >= 1:
            raise ArgumentError(f"[{kind}] factor must be < 1, got {brief(factor)}")
        self.patience = integer(kind, "patience", patience, 0)
        self.verbose = bool(verbose)
        self.threshold = check_number(kind, "threshold", threshold)
        self.threshold_mode = choice(kind, "threshold_mode", threshold_mode, ("rel", "abs"))
        self.cooldown = integer(kind, "cooldown", cooldown, 0)
        several = min_lr if isinstance(min_lr, (tuple, list)) else [min_lr] * len(optimizer.param_groups)
        self.min_lrs = [check_number(kind, "min_lr", m) for m in several]
        if len(self.min_lrs) != len(optimizer.param_groups):
            raise ArgumentError(
                f"[{kind}] min_lr must be a number or {len(optimizer.param_groups)} of them, got {brief(min_lr)}"
            )
        self.eps = check_number(kind, "eps", eps)
        self.loss_best = float("inf") if mode == "min" else -float("inf")
        self.n_bad = 0
        self.n_cooldown = 0
        self.last_epoch = 0

    def better(self, a: float, b: float) -> bool:
        """Whether loss ``a`` is progress beyond ``b``."""
        sign = 1.0 if self.mode == "max" else -1.0
        if b in (float("inf"), -float("inf")):
            return sign * a > sign * b
        margin = self.threshold * abs(b) if self.threshold_mode == "rel" else self.threshold
        return sign * (a - b) > margin

    def update_lr(self, epoch: int) -> None:
        """Reduce all learning rates now."""
        optimizer = self.optimizer
        changed = self._smaller(optimizer.lr, min(self.min_lrs, default=0.0))
        for group, least in zip(optimizer.param_groups, self.min_lrs, strict=False):
            if "lr" in group:
                group["lr"] = self._smaller(group["lr"], least)
        if self.verbose:
            print(f"epoch {epoch}: learning rate from {optimizer.lr:.4g} to {changed:.4g}")
        optimizer.lr = changed

    def _smaller(self, lr: float, least: float) -> float:
        new = max(lr * self.factor, least)
        return new if lr - new > self.eps else lr

    def step(self, loss: float | Var, epoch: int | None = None) -> None:
        """Take the loss of an epoch into account."""
        value = loss.item() if isinstance(loss, Var) else float(loss)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self.better(value, self.loss_best):
            self.loss_best, self.n_bad = value, 0
        else:
            self.n_bad += 1
        if self.n_cooldown > 0:
            self.n_cooldown -= 1
            self.n_bad = 0
        if self.n_bad > self.patience:
            self.update_lr(self.last_epoch)
            self.n_cooldown, self.n_bad = self.cooldown, 0
