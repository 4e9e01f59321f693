"""Schedulers: which learning rate holds in which epoch, for the optimizer and for groups with one of their own."""

from __future__ import annotations

import pytest

import metafuse as mf
from metafuse.errors import ArgumentError, DTypeError, MetafuseError
from metafuse.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)


def optimizer(lr=1.0):
    return mf.optim.SGD([mf.nn.Parameter([1.0])], lr)


def run(scheduler, epochs):
    found = []
    for _ in range(epochs):
        scheduler.step()
        found.append(round(scheduler.optimizer.lr, 9))
    return found


@pytest.mark.parametrize(
    ("make", "rates"),
    [
        (lambda o, e: StepLR(o, 2, 0.1, e), [1, 1, 0.1, 0.1, 0.01]),
        (lambda o, e: MultiStepLR(o, [1, 3], 0.5, e), [1, 0.5, 0.5, 0.25, 0.25]),
        (lambda o, e: ExponentialLR(o, 0.5, e), [1, 0.5, 0.25, 0.125, 0.0625]),
        (lambda o, e: CosineAnnealingLR(o, 2, 0.5, e), [1, 0.75, 0.5, 0.75, 1]),
    ],
)
def test_epochs_are_counted_from_where_one_says(make, rates):
    assert run(make(optimizer(), -1), 5) == rates  # step() begins an epoch
    assert run(make(optimizer(), 0), 4) == rates[1:]  # step() ends one


def test_groups_with_rates_of_their_own_follow():
    a, b = mf.nn.Parameter([1.0]), mf.nn.Parameter([1.0])
    opt = mf.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.1}], 1.0)
    scheduler = StepLR(opt, 1, 0.5, 0)
    scheduler.step()
    assert opt.lr == 0.5
    assert "lr" not in opt.param_groups[0]
    assert opt.param_groups[1]["lr"] == 0.05
    opt.add_param_group({"params": [mf.nn.Parameter([1.0])], "lr": 8.0})
    scheduler.step()
    assert opt.param_groups[2]["lr"] == 2.0


def test_the_rate_is_used():
    p = mf.nn.Parameter([1.0])
    opt = mf.optim.SGD([p], 1.0)
    scheduler = ExponentialLR(opt, 0.5, 0)
    opt.step((p * 1.0).sum())
    scheduler.step()
    opt.step((p * 1.0).sum())
    assert p.item() == -0.5


def test_a_new_rate_compiles_nothing():
    from metafuse.runtime.kernels import statistics

    p = mf.nn.Parameter([1.0, 2.0])
    opt = mf.optim.SGD([p], 1.0, 0.9)
    scheduler = ExponentialLR(opt, 0.7, 0)
    for _ in range(2):
        opt.step((p * p).sum())
        scheduler.step()
    before = statistics.compilations
    for _ in range(3):
        opt.step((p * p).sum())
        scheduler.step()
    assert statistics.compilations == before


def test_factors():
    scheduler = StepLR(optimizer(), 2, 0.1)
    factors = []
    for _ in range(5):
        scheduler.step()
        factors.append(scheduler.get_gamma())
    assert factors == [1, 1, 0.1, 1, 0.1]
    scheduler = MultiStepLR(optimizer(), [1, 1], 0.5, 0)
    scheduler.step()
    assert scheduler.get_gamma() == 0.25
    assert scheduler.get_lr() == 0.25
    assert scheduler.get_lr(8.0, 8.0) == 2.0


def test_plateau_waits_reduces_and_cools_down(capsys):
    opt = optimizer()
    scheduler = ReduceLROnPlateau(opt, factor=0.5, patience=1, cooldown=1, min_lr=0.2, verbose=True)
    rates = []
    for loss in [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]:
        scheduler.step(mf.array([loss]))
        rates.append(opt.lr)
    assert rates == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2, 0.2]
    assert "learning rate from 1 to 0.5" in capsys.readouterr().out
    assert scheduler.better(0.5, 1.0)
    assert not scheduler.better(0.99999, 1.0)
    assert not scheduler.better(float("nan"), 1.0)


def test_schedules_by_functions():
    opt = optimizer()
    scheduler = LambdaLR(opt, lambda epoch: 1 / (1 + epoch))
    assert opt.lr == 1
    scheduler.step()
    assert scheduler.get_last_lr() == [0.5]
    scheduler.step(3)
    assert opt.lr == 0.25
    going_on = LambdaLR(opt, lambda epoch: 1 / (1 + epoch), last_epoch=3)
    assert opt.lr == 0.2
    assert going_on.last_epoch == 4


def test_a_schedule_of_ones_own():
    class Halves(LRScheduler):
        def get_lr(self):
            return [base / 2**self.last_epoch for base in self.base_lrs]

    opt = optimizer()
    assert run(Halves(opt), 2) == [0.5, 0.25]
    with pytest.raises(NotImplementedError):
        LRScheduler(optimizer())


def test_warm_up_then_decay():
    opt = optimizer(0.8)
    scheduler = SequentialLR(opt, [LinearLR(opt, 0.25, total_iters=3), StepLRBelow(opt)], [3])
    assert opt.lr == pytest.approx(0.2)
    assert run(scheduler, 5) == pytest.approx([0.4, 0.6, 0.8, 0.4, 0.2])
    assert scheduler.get_last_lr() == [pytest.approx(0.2)]


def test_warm_up_then_a_schedule_of_epochs():
    opt = optimizer(0.8)
    warm = LinearLR(opt, 0.25, total_iters=3)
    scheduler = SequentialLR(opt, [warm, StepLR(opt, 1, 0.5, last_epoch=0)], [3])
    assert run(scheduler, 5) == pytest.approx([0.4, 0.6, 0.8, 0.4, 0.2])
    opt = optimizer(1.0)
    scheduler = SequentialLR(
        opt, [CosineAnnealingLR(opt, 2, last_epoch=0), LinearLR(opt, 0.5, total_iters=2)], [2]
    )
    assert opt.lr == 1.0
    assert run(scheduler, 3) == pytest.approx([0.5, 0.5, 0.75])


class StepLRBelow(LRScheduler):
    def get_lr(self):
        return [base * 0.5**self.last_epoch for base in self.base_lrs]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: StepLR(1.0, 2), r"\[StepLR\] optimizer must be an Optimizer, got float"),
        (lambda o: StepLR(o, 0), r"\[StepLR\] step_size must be >= 1, got 0"),
        (lambda o: StepLR(o, 2, -1.0), r"\[StepLR\] gamma must be a number >= 0"),
        (lambda o: StepLR(o, 2, last_epoch=-2), r"\[StepLR\] last_epoch must be >= -1"),
        (lambda o: MultiStepLR(o, [1.5]), r"\[MultiStepLR\] milestones\[0\] must be an integer"),
        (lambda o: CosineAnnealingLR(o, 0), r"\[CosineAnnealingLR\] T_max must be >= 1"),
        (lambda o: ReduceLROnPlateau(o, "best"), r"\[ReduceLROnPlateau\] mode must be one of"),
        (lambda o: ReduceLROnPlateau(o, factor=1.0), r"\[ReduceLROnPlateau\] factor must be < 1"),
        (lambda o: ReduceLROnPlateau(o, min_lr=[0, 0]), r"\[ReduceLROnPlateau\] min_lr must be a number or 1"),
        (lambda o: LambdaLR(o, 3), r"\[LambdaLR\] lr_lambda must be a function"),
        (lambda o: LambdaLR(o, abs, last_epoch=2), r"\[LambdaLR\] group 0 has no 'initial_lr'"),
        (lambda o: OneCycleLR(o, 1.0, 1), r"\[OneCycleLR\] total_steps must be >= 2"),
        (lambda o: [s.step() for s in [OneCycleLR(o, 1.0, 2)] for _ in range(2)], "beyond the cycle"),
        (lambda o: SequentialLR(o, [LinearLR(o)], [1]), r"\[SequentialLR\] 1 schedulers need one milestone fewer"),
        (lambda o: SequentialLR(o, [o], []), r"\[SequentialLR\] schedulers\[0\] must be"),
    ],
)  # fmt: skip
def test_what_is_rejected(make, message):
    with pytest.raises(MetafuseError, match=message) as caught:
        make(optimizer())
    assert isinstance(caught.value, (ArgumentError, DTypeError))
