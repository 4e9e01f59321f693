"""``metafuse.compile``: a replayed step does exactly what the function would have done; training and visible state.

Most tests run one world plainly and its twin compiled, do the same to both between the calls, and compare everything bit by bit.
"""

from __future__ import annotations

import collections
import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metafuse as mf
from compile_kit import Perceptron, World, batch, trainer, twins
from metafuse import nn
from metafuse.config import flag_scope


@pytest.fixture(autouse=True)
def _reference_backend():
    with flag_scope(backend="reference", log_silent=1):
        yield
        mf.sync_all()


# -- training ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "optimizer",
    [
        functools.partial(nn.SGD, lr=0.1),
        functools.partial(nn.SGD, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
        functools.partial(nn.Adam, lr=0.01, weight_decay=0.1),
        functools.partial(nn.AdamW, lr=0.01),
        functools.partial(mf.optim.Adan, lr=0.01, max_grad_norm=1.0),
        functools.partial(mf.optim.RMSprop, lr=0.01),
    ],
    ids=["sgd", "nesterov", "adam", "adamw", "adan", "rmsprop"],
)
def test_training_is_the_same_bit_by_bit(optimizer):
    step = twins(trainer(optimizer), arguments=batch, replayed=4)
    assert step.recorded <= 5


def test_the_optimizer_counts_its_steps():
    world = World(trainer(functools.partial(nn.Adam, lr=0.01)), True)
    for k in range(9):
        world.step(*batch(world, k))
        assert world.optimizer.n_step == k + 1
        assert type(world.optimizer.n_step) is int
    assert world.step.replayed >= 4
    assert world.optimizer.state_dict()["defaults"]["n_step"] == 9


def test_a_learning_rate_that_changes_is_followed():
    def schedule(world: World, k: int) -> None:
        world.optimizer.lr = 0.1 * 0.9**k

    step = twins(trainer(), calls=12, arguments=batch, between=schedule, replayed=6)
    assert step.recorded <= 6


def test_a_learning_rate_that_changes_late_is_recorded_once_more_and_then_followed():
    def schedule(world: World, k: int) -> None:
        if k >= 8:
            world.optimizer.lr = 0.5 / k

    step = twins(
        trainer(functools.partial(nn.Adam, lr=0.3)), calls=16, arguments=batch, between=schedule, replayed=8
    )
    assert step.recorded <= 7


def test_a_rate_from_numpy_is_followed():
    def schedule(world: World, k: int) -> None:
        world.optimizer.lr = np.cos(0.1 * k) * 0.1

    step = twins(trainer(), calls=14, arguments=batch, between=schedule, replayed=6)
    assert step.recorded <= 7


def test_a_rate_of_a_group_is_followed():
    def schedule(world: World, k: int) -> None:
        world.optimizer.param_groups[0]["lr"] = 0.1 / (1 + k)

    twins(trainer(), calls=12, arguments=batch, between=schedule, replayed=5)


def test_options_that_decide_what_is_computed_are_noticed():
    def between(world: World, k: int) -> None:
        world.optimizer.weight_decay = 0.01 if 6 <= k < 12 else 0.0

    twins(trainer(), calls=18, arguments=batch, between=between, replayed=6)


def test_modes_dropout_and_running_statistics():
    def between(world: World, k: int) -> None:
        if k in (5, 11):
            world.net.eval()
        if k in (8, 14):
            world.net.train()

    def make(world: World) -> Callable[..., Any]:
        net = Perceptron(dropout=True, norm=True)
        optimizer = nn.SGD(net.parameters(), 0.1, 0.9)
        world.net, world.vars = net, net.parameters()

        def step(x: Any, y: Any) -> Any:
            loss = nn.cross_entropy_loss(net(x), y)
            if net.is_training():
                optimizer.step(loss)
            return loss

        return step

    twins(make, calls=24, arguments=batch, between=between, replayed=10)


def test_random_numbers_are_those_of_the_plain_loop_also_between_the_calls():
    def make(world: World) -> Callable[..., Any]:
        def step(x: Any) -> Any:
            return mf.rand(3) + x, mf.randn(5), mf.randint(0, 9, [4])

        return step

    def between(world: World, k: int) -> None:
        if k == 6:
            mf.set_global_seed(11)
        if k % 2:
            mf.rand(k)

    twins(make, calls=12, arguments=lambda w, k: (mf.array(w.data(3)),), between=between, replayed=5)


def test_gradients_are_accumulated():
    def make(world: World) -> Callable[..., Any]:
        net = Perceptron()
        optimizer = nn.SGD(net.parameters(), 0.1, 0.9)
        world.optimizer, world.vars = optimizer, net.parameters()

        def micro(x: Any, y: Any) -> Any:
            loss = nn.cross_entropy_loss(net(x), y)
            optimizer.backward(loss * 0.25)
            return loss

        return micro

    def between(world: World, k: int) -> None:
        if k and k % 4 == 0:
            world.optimizer.clip_grad_norm(0.5)
            world.optimizer.step()

    step = twins(make, calls=40, arguments=batch, between=between)
    assert step.plain == 0
    assert step.replayed >= 20


def test_the_update_alone_is_compiled_too():
    def make(world: World) -> Callable[..., Any]:
        net = Perceptron()
        optimizer = nn.Adam(net.parameters(), 0.01)
        world.net, world.optimizer, world.vars = net, optimizer, net.parameters()
        return lambda: optimizer.step()

    def between(world: World, k: int) -> None:
        x, y = batch(world, k)
        for _ in range(2):
            world.optimizer.backward(nn.cross_entropy_loss(world.net(x), y))

    twins(make, calls=10, between=between, replayed=4)


def test_the_update_writes_into_the_old_parameters_also_while_it_is_recorded():
    """Otherwise the calls that record need memory for two copies of all parameters."""
    x = mf.randn(4, 8)

    def kept(compiled):
        """Per call which parameters keep their memory. A new buffer is made while the old one is there: their ids differ."""
        net = nn.Linear(8, 8)
        optimizer = nn.SGD(net.parameters(), lr=0.1, momentum=0.9)

        def step(x):
            optimizer.step((net(x) ** 2).mean())

        step = mf.compile(step) if compiled else step
        found = []
        for _ in range(6):
            before = [id(p._node.buffer) for p in net.parameters()]
            step(x)
            found.append([id(p._node.buffer) == b for p, b in zip(net.parameters(), before, strict=True)])
        assert not compiled or step.replayed
        return found

    plain = kept(False)
    assert any(plain[1])
    assert kept(True) == plain


def test_flags_that_are_set_inside_only():
    def make(world: World) -> Callable[..., Any]:
        step = trainer()(world)

        def mixed(x: Any, y: Any) -> Any:
            with flag_scope(auto_mixed_precision_level=3):
                return step(x, y)

        return mixed

    twins(make, arguments=batch, replayed=4)


def test_two_optimizers_in_one_step_are_two_programs():
    def make(world: World) -> Callable[..., Any]:
        one, two = Perceptron(), Perceptron()
        first, second = nn.Adam(one.parameters(), 0.01), nn.SGD(two.parameters(), 0.05, 0.9)
        world.vars = one.parameters() + two.parameters()

        def step(x: Any, y: Any) -> Any:
            made = one(x)
            loss = ((two(x) - made) ** 2).mean()
            first.step(loss)
            other = nn.cross_entropy_loss(two(x) + one(x).detach(), y)
            second.step(other)
            return {"first": loss, "second": other}

        return step

    twins(make, arguments=batch, replayed=3)


def test_clipping_and_norms_of_gradients():
    def make(world: World) -> Callable[..., Any]:
        net = Perceptron()
        optimizer = nn.SGD(net.parameters(), 0.1)
        world.vars = net.parameters()

        def step(x: Any, y: Any) -> Any:
            optimizer.backward(nn.cross_entropy_loss(net(x), y))
            optimizer.clip_grad_norm(0.1)
            norm = sum((optimizer.find_grad(p) ** 2).sum() for p in net.parameters())
            optimizer.step()
            return norm

        return step

    twins(make, arguments=batch, replayed=4)


# -- state ---------------------------------------------------------------------------------------------------------------
def test_state_that_is_assigned_between_the_calls_is_read():
    def between(world: World, k: int) -> None:
        p = world.vars[0]
        if k == 5:
            p.assign(p * 0.5)
        if k == 6:
            wanted = p.requires_grad
            p.update(np.ones(p.shape, np.float32))
            p.requires_grad = wanted
        if k == 7:
            world.net.load_state_dict({n: v.numpy() * 0.9 for n, v in world.net.named_parameters()})
        if k == 8:
            world.optimizer.load_state_dict(world.optimizer.state_dict())

    twins(trainer(), calls=12, arguments=batch, between=between, replayed=5)


def test_a_frozen_parameter_is_noticed():
    def between(world: World, k: int) -> None:
        if k == 6:
            world.net.first.weight.stop_grad()
        if k == 12:
            world.net.first.weight.start_grad()

    twins(trainer(), calls=16, arguments=batch, between=between, replayed=8)


def test_layers_that_are_replaced_are_noticed():
    def between(world: World, k: int) -> None:
        if k == 6:
            world.net.second = nn.Linear(6, 3)
            world.optimizer.add_param_group({"params": world.net.second.parameters()})
            world.vars = world.net.parameters()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old layer gets no gradient any more
        twins(trainer(), calls=16, arguments=batch, between=between, replayed=4)


SCALE = 2.0
TABLE = np.array([1.0, 2.0, 3.0], np.float32)


def test_globals_closures_and_attributes_are_compared():
    class Setting:
        factor = 1.0

        def __init__(self) -> None:
            self.names = ["add"]
            self.deep = {"x": [1, (2, 3.0)]}

    global SCALE
    setting = Setting()
    bias = 1.0

    @mf.compile
    def step(x: Any) -> Any:
        y = x * SCALE * setting.factor + bias
        if "twice" in setting.names:
            y = y * 2
        return y + setting.deep["x"][0] + mf.array(TABLE)

    def expected() -> Any:
        twice = 2 if "twice" in setting.names else 1
        return (SCALE * setting.factor + bias) * twice + setting.deep["x"][0] + TABLE

    x = mf.ones(3)
    try:
        for k in range(60):
            if k % 6 == 5:
                match k // 6:
                    case 0:
                        SCALE = 3.0
                    case 1:
                        setting.factor = 2.5
                    case 2:
                        bias = -1.0
                    case 3:
                        setting.names.append("twice")
                    case 4:
                        setting.deep["x"][0] = 7
                    case 5:
                        TABLE[1] = 9.0
                    case 6:
                        Setting.factor = 1.5
                        del setting.factor
                    case 7:
                        setting.names[0] = "other"
                    case 8:
                        setting.deep = {"x": [1.5]}
            np.testing.assert_allclose(step(x).numpy(), expected(), rtol=1e-6)
    finally:
        SCALE = 2.0
        TABLE[1] = 2.0
    assert step.plain == 0
    assert step.replayed >= 15


def test_a_counter_of_the_users_is_followed_and_its_branches_are_kept_apart():
    def make(world: World) -> Callable[..., Any]:
        class Trainer:
            def __init__(self) -> None:
                self.count = 0
                self.p = mf.ones(3).stop_grad()

            def step(self, x: Any) -> Any:
                self.count += 1
                self.p.update(self.p * 0.9 + x / self.count)
                if self.count % 3 == 0:
                    return self.p * 2
                return self.p + self.count

        trainer = Trainer()
        world.trainer, world.vars = trainer, [trainer.p]
        return trainer.step

    step = twins(make, calls=24, arguments=lambda w, k: (mf.array(w.data(3)),))
    assert step.plain == 0
    assert step.replayed >= 12


def test_lists_that_hold_results_are_kept_up():
    def make(world: World) -> Callable[..., Any]:
        state: dict[str, Any] = {"hidden": mf.zeros(2).stop_grad(), "seen": [None, None]}
        world.state = state

        def step(x: Any) -> Any:
            state["hidden"] = (state["hidden"] * 0.5 + x).stop_grad()
            state["seen"] = [state["hidden"], state["seen"][0]]
            return state["hidden"] * 1.0

        return step

    def between(world: World, k: int) -> None:
        world.vars = [v for v in [world.state["hidden"], *world.state["seen"]] if v is not None]

    twins(make, calls=12, arguments=lambda w, k: (mf.array(w.data(2)),), between=between, replayed=4)


def test_a_hidden_state_that_grows_is_not_captured():
    history: list[Any] = []

    @mf.compile
    def step(x: Any) -> Any:
        history.append(x * 2)
        return history[-1] + len(history)

    for k in range(40):
        np.testing.assert_array_equal(step(mf.array([float(k)])).numpy(), [2.0 * k + k + 1])
    assert [h.item() for h in history] == [2.0 * k for k in range(40)]
    assert step.plain > 0


def test_state_of_other_kinds_is_compared():
    import ctypes
    import weakref
    from array import array
    from dataclasses import dataclass, field
    from enum import Enum
    from pathlib import Path
    from types import SimpleNamespace

    class Mode(Enum):
        ADD = 1
        TAKE = 2

    @dataclass
    class Config:
        scale: float = 1.0
        mode: Mode = Mode.ADD
        more: dict[str, Any] = field(default_factory=lambda: {"shift": 0.0})

    class Slotted:
        __slots__ = ("value",)

        def __init__(self) -> None:
            self.value = 1.0

    class Other:
        value = 1.0

    config, space, slotted = Config(), SimpleNamespace(extra=0.0), Slotted()
    event, queue, numbers, place = (
        threading.Event(),
        collections.deque([1.0, 2.0]),
        array("d", [3.0]),
        [Path("a")],
    )
    chosen = {1, 2}
    other, number = Other(), ctypes.c_double(0.5)
    weak = weakref.ref(other)

    @mf.compile
    def step(x: Any) -> Any:
        y = x * config.scale + config.more["shift"] + space.extra + slotted.value + queue[0] + numbers[0]
        y = y + x if config.mode is Mode.ADD else y - x
        y = y + 100 if event.is_set() else y
        y = y + 1000 if 3 in chosen else y
        y = y + weak().value + number.value
        return y + len(str(place[0]))

    def expected() -> float:
        y = config.scale + config.more["shift"] + space.extra + slotted.value + queue[0] + numbers[0]
        y += 1 if config.mode is Mode.ADD else -1
        y += other.value + number.value
        return y + 100 * event.is_set() + 1000 * (3 in chosen) + len(str(place[0]))

    def changes(k: int) -> None:
        match k:
            case 0:
                config.scale = 2.0
            case 1:
                config.mode = Mode.TAKE
            case 2:
                config.more["shift"] = 0.5
            case 3:
                space.extra = 4.0
            case 4:
                slotted.value = 7.0
            case 5:
                event.set()
            case 6:
                queue.rotate()
            case 7:
                numbers[0] = -3.0
            case 8:
                place[0] = Path("abc")
            case 9:
                other.value = 5.0
            case 10:
                number.value = -0.5
            case _:
                chosen.add(3)

    for k in range(60):
        if k % 5 == 4:
            changes(k // 5)
        assert step(mf.ones(1)).item() == pytest.approx(expected())
    assert step.plain == 0
    assert step.replayed >= 12
