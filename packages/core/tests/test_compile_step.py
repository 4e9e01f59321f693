"""``metafuse.compile``: a replayed step does exactly what the function would have done.

Most tests run one world plainly and its twin compiled, do the same to both between the calls, and compare everything bit by bit.
"""

from __future__ import annotations

import collections
import functools
import gc
import random
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn
from metafuse.capture import Compiled
from metafuse.config import flag_scope, flags
from metafuse.errors import ArgumentError, GradientError


@pytest.fixture(autouse=True)
def _reference_backend():
    with flag_scope(backend="reference", log_silent=1):
        yield
        mf.sync_all()


class World:
    """A model, its optimizer, and the data of a run; two of the same seed are equal."""

    def __init__(self, make: Callable[[World], Callable[..., Any]], compiled: bool, seed: int = 3) -> None:
        mf.set_global_seed(seed)
        self.offset = 0
        self.rng = np.random.default_rng(seed)
        self.vars: list[Any] = []
        function = make(self)
        self.step: Any = mf.compile(function) if compiled else function
        mf.sync_all()

    def data(self, *shape: int) -> Any:
        return self.rng.standard_normal(shape).astype(np.float32)


def values(thing: Any) -> Any:
    """Results as arrays, structure kept."""
    if isinstance(thing, mf.Var):
        return thing.numpy()
    if isinstance(thing, dict):
        return {k: values(v) for k, v in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [values(v) for v in thing]
    return thing


def same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for k in a:
            same(a[k], b[k])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


def twins(
    make: Callable[[World], Callable[..., Any]],
    calls: int = 9,
    arguments: Callable[[World, int], tuple[Any, ...]] = lambda w, k: (),
    between: Callable[[World, int], Any] = lambda w, k: None,
    replayed: int | None = None,
) -> Any:
    """Run both worlds and compare; answers the compiled function. ``replayed``: at least so many replays."""
    outcomes = []
    step: Any = None
    for compiled in (False, True):
        world = World(make, compiled)
        seen = []
        for k in range(calls):
            between(world, k)
            seen.append(values(world.step(*arguments(world, k))))
            seen.append([v.numpy() for v in world.vars])
        seen.append(mf.rand(3).numpy())
        seen.append([v.requires_grad for v in world.vars])
        outcomes.append(seen)
        step = world.step
    same(outcomes[0], outcomes[1])
    assert isinstance(step, Compiled)
    if replayed is not None:
        assert step.plain == 0
        assert step.replayed >= replayed, (step.recorded, step.replayed)
    return step


class Perceptron(nn.Module):
    def __init__(self, *, dropout: bool = False, norm: bool = False) -> None:
        self.first = nn.Linear(4, 6)
        self.norm = nn.BatchNorm(6) if norm else nn.Identity()
        self.drop = nn.Dropout(0.3) if dropout else nn.Identity()
        self.second = nn.Linear(6, 3)

    def execute(self, x: Any) -> Any:
        return self.second(self.drop(nn.relu(self.norm(self.first(x)))))


def trainer(
    optimizer: Callable[..., Any] = functools.partial(nn.SGD, lr=0.1, momentum=0.9), **options: Any
) -> Callable[[World], Callable[..., Any]]:
    def make(world: World) -> Callable[..., Any]:
        net = Perceptron(**options)
        tuned = optimizer(net.parameters())
        world.net, world.optimizer = net, tuned  # type: ignore[attr-defined]
        world.vars = net.parameters()

        def step(x: Any, y: Any) -> Any:
            loss = nn.cross_entropy_loss(net(x), y)
            tuned.step(loss)
            return loss

        return step

    return make


def batch(world: World, k: int) -> tuple[Any, ...]:
    return mf.array(world.data(5, 4)), mf.array((np.arange(5) + k) % 3)


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

    step = twins(trainer(functools.partial(nn.Adam, lr=0.3)), calls=16, arguments=batch, between=schedule, replayed=8)
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


# -- what can't be captured ----------------------------------------------------------------------------------------------
def run_uncaptured(function: Any, word: str, capsys: Any, calls: int = 32) -> Compiled:
    flags.log_silent = 0
    compiled = mf.compile(function)
    for _ in range(calls):
        compiled(mf.ones(2))
    assert compiled.plain > 0
    assert compiled.replayed == 0
    assert word in capsys.readouterr().err
    return compiled


def test_a_value_that_is_read_in_the_middle_is_named_and_nothing_is_wrong(capsys):
    flags.log_silent = 0

    @mf.compile
    def step(x: Any) -> Any:
        return x * 2 if x.sum().item() > 0 else x * 3

    for k in range(8):
        given = 1.0 if k % 2 else -1.0
        np.testing.assert_array_equal(step(mf.array([given])).numpy(), [given * (2 if given > 0 else 3)])
    message = capsys.readouterr().err
    assert "runs uncaptured: it reads a value at" in message
    assert "test_compile_step.py:" in message
    assert message.count("runs uncaptured") == 1


def test_numbers_from_nowhere_are_noticed(capsys):
    run_uncaptured(lambda x: x * random.random(), "draws random numbers", capsys)
    generator = np.random.default_rng(0)
    run_uncaptured(lambda x: x * generator.random(), "draws random numbers", capsys)
    clock = iter(range(1000))
    run_uncaptured(lambda x: x * float(next(clock)), "iterator", capsys)
    import time

    run_uncaptured(lambda x: x * time.perf_counter(), "numbers that are no arguments", capsys)
    run_uncaptured(lambda x: x + np.full(2, time.perf_counter()), "arrays made from host data", capsys)


def test_large_host_arrays_are_refused(capsys):
    table = np.zeros(1 << 19, np.float32)
    run_uncaptured(lambda x: x + table[0] + mf.array(table)[:2], "table", capsys)


def test_vars_that_can_not_be_found_are_refused(capsys):
    def hide() -> Any:
        class Box:
            def __len__(self) -> int:
                return 0

        hidden = mf.ones(2)

        class Meta(type):
            def __getattr__(cls, name: str) -> Any:
                return hidden

        return Meta("Secret", (), {}), Box

    # reached through a weak reference, which is not looked into
    import weakref

    held = mf.ones(2)
    reference = weakref.ref(held)
    run_uncaptured(lambda x: x + reference(), "neither an argument nor in visible state", capsys)
    secret, _ = hide()
    compiled = mf.compile(lambda x: x + secret.value)
    for _ in range(8):
        np.testing.assert_array_equal(compiled(mf.ones(2)).numpy(), [2, 2])


# -- arguments and results ------------------------------------------------------------------------------------------------
def test_arguments_of_all_kinds_and_results_of_the_same_structure():
    Pair = collections.namedtuple("Pair", "left right")

    @mf.compile
    def step(batch: Any, *, scale: float, mode: str, extra: Any = None) -> Any:
        x, (y, z) = batch["x"], batch["rest"]
        total = x * scale + y + z
        if mode == "pair":
            return Pair(total, [x, {"scale": scale, "mode": mode, "none": None}])
        return total, extra

    for k in range(16):
        rest = (np.full(2, k, np.float32), mf.ones(2))
        out = step({"x": mf.array([1.0, 2.0]), "rest": rest}, scale=2.0 + k, mode="pair")
        assert type(out) is Pair
        np.testing.assert_array_equal(out.left.numpy(), np.array([1, 2]) * (2.0 + k) + k + 1)
        assert out.right[1] == {"scale": 2.0 + k, "mode": "pair", "none": None}
        assert type(out.right[1]["scale"]) is float
    assert step.replayed >= 10
    before = step.recorded
    assert step({"x": mf.ones(2), "rest": [mf.ones(2), mf.ones(2)]}, scale=1.0, mode="other")[1] is None
    assert step.recorded == before + 1


def test_whole_numbers_that_shape_the_work_are_kept_apart():
    @mf.compile
    def step(x: Any, n: int, flag: bool) -> Any:
        y = x
        for _ in range(n):
            y = y + x
        return y.reshape([n, -1]) if flag else y

    x = mf.ones(6)
    for _ in range(4):
        for n in (1, 2, 3):
            for flag in (False, True):
                out = step(x, n, flag)
                assert out.shape == ((n, 6 // n) if flag else (6,))
                np.testing.assert_array_equal(out.numpy().reshape(-1), np.full(6, n + 1.0))


def test_shapes_types_and_gradients_of_arguments_are_told_apart():
    @mf.compile
    def step(x: Any) -> Any:
        return mf.grad((x * x).sum(), x) if x.requires_grad else x + 1

    for _ in range(6):
        for shape in ((2,), (3, 2)):
            for dtype in ("float32", "float64"):
                for wanted in (True, False):
                    x = mf.array(np.full(shape, 3.0), dtype)
                    x.requires_grad = wanted
                    out = step(x)
                    assert out.dtype == dtype and out.shape == shape
                    np.testing.assert_array_equal(out.numpy(), np.full(shape, 6.0 if wanted else 4.0))
    assert step.replayed >= 20


def test_the_same_var_twice_and_a_parameter_as_an_argument():
    p = mf.array([1.0, 2.0]).stop_grad()

    @mf.compile
    def step(a: Any, b: Any) -> Any:
        p.update(p + a * b)
        return a + p

    expected = np.array([1.0, 2.0])
    for k in range(24):
        a, b = mf.array([1.0, -1.0]), mf.array([0.5, 0.5])
        match k % 4:
            case 0:
                pair, given = (a, b), (a.numpy(), b.numpy())
            case 1:
                pair, given = (a, a), (a.numpy(), a.numpy())
            case 2:
                pair, given = (p, b), (expected, b.numpy())
            case _:
                pair, given = (b, p), (b.numpy(), expected)
        fresh = expected + given[0] * given[1]
        left = fresh if pair[0] is p else given[0]
        expected = fresh.astype(np.float32)
        np.testing.assert_allclose(step(*pair).numpy(), left + fresh, rtol=1e-6)
        np.testing.assert_allclose(p.numpy(), expected, rtol=1e-6)
    assert step.replayed >= 6


def test_results_that_are_arguments_state_or_views_of_them():
    p = mf.array([1.0, 2.0]).stop_grad()

    @mf.compile
    def step(x: Any) -> Any:
        old = p.detach()
        p.update(p * 2)
        return x, p, old, x.reshape([2, 1]), p.detach()

    held = []
    for k in range(10):
        x = mf.array([float(k), 1.0])
        same_x, same_p, old, view, now = step(x)
        assert same_x is x and same_p is p
        held.append((k, old, view, now))
    assert step.replayed >= 5
    for k, old, view, now in held:
        np.testing.assert_array_equal(old.numpy(), np.array([1, 2]) * 2.0**k)
        np.testing.assert_array_equal(now.numpy(), np.array([1, 2]) * 2.0 ** (k + 1))
        np.testing.assert_array_equal(view.numpy(), [[k], [1]])


def test_an_argument_that_is_assigned_to():
    @mf.compile
    def step(x: Any) -> None:
        x[0] = 5.0
        x.assign(x * 2)

    for k in range(8):
        x = mf.array([1.0, float(k)])
        copy = x.detach()
        assert step(x) is None
        np.testing.assert_array_equal(x.numpy(), [10, 2 * k])
        np.testing.assert_array_equal(copy.numpy(), [1, k])
    assert step.replayed >= 4


def test_swapped_state():
    a, b = mf.array([1.0]), mf.array([2.0])

    @mf.compile
    def step() -> Any:
        a.swap(b)
        return a + 0

    for k in range(9):
        assert step().item() == (2.0 if k % 2 == 0 else 1.0)
    assert step.replayed >= 4


# -- memory ------------------------------------------------------------------------------------------------------------------
def test_what_somebody_holds_is_never_overwritten():
    p = mf.zeros(4).stop_grad()
    velocity = mf.zeros(4).stop_grad()

    @mf.compile
    def step(x: Any) -> Any:
        velocity.update(velocity * 0.5 + x)
        p.update(p + velocity)
        return p * 1.0, velocity.detach()

    expected_v = expected_p = np.zeros(4)
    held: list[tuple[Any, Any]] = []
    for k in range(40):
        result, speed = step(mf.full([4], float(k)))
        expected_v = expected_v * 0.5 + k
        expected_p = expected_p + expected_v
        match k % 5:
            case 0:
                held.append((p.detach(), expected_p))
            case 1:
                held.append((p.data, expected_p))
            case 2:
                held.append((result, expected_p))
            case 3:
                held.append((speed, expected_v))
            case _:
                held.append((velocity.data, expected_v))
        for thing, wanted in held:
            found = thing.numpy() if isinstance(thing, mf.Var) else thing
            np.testing.assert_allclose(found, wanted, rtol=1e-5)
        if k % 7 == 6:
            del held[::2]
    assert step.replayed >= 30


def test_a_graph_recorded_on_state_before_a_call_keeps_its_values():
    p = mf.array([2.0])

    @mf.compile
    def step() -> None:
        p.update(p + 1).start_grad()

    for _ in range(6):
        step()
    kept = p * p
    kept.sync()
    pending = p * 10
    for _ in range(3):
        step()
    assert pending.item() == 80.0
    assert kept.item() == 64.0
    assert step.replayed >= 5


def test_results_carry_no_gradient_path_and_say_so():
    w = mf.array([2.0])

    @mf.compile
    def forward(x: Any) -> Any:
        return x * w

    for _ in range(6):
        y = forward(mf.ones(1))
        assert y.requires_grad
        with pytest.raises(GradientError, match="compile"):
            mf.grad(y * 2, w)
    assert forward.replayed >= 2


# -- failures ---------------------------------------------------------------------------------------------------------------
def test_an_exception_in_the_middle_leaves_everything_as_the_plain_loop_would():
    def make(world: World) -> Callable[..., Any]:
        inner = trainer(functools.partial(nn.Adam, lr=0.01))(world)

        def step(x: Any, y: Any, fail: bool) -> Any:
            loss = inner(x, y)
            if fail:
                raise ValueError("half way")
            return loss

        def guarded(x: Any, y: Any, fail: bool) -> Any:
            try:
                return world.inner(x, y, fail)  # type: ignore[attr-defined]
            except ValueError:
                return None

        world.inner = step  # type: ignore[attr-defined]
        world.guarded = guarded  # type: ignore[attr-defined]
        return step

    outcomes = []
    for compiled in (False, True):
        world = World(make, compiled)
        world.inner = world.step
        seen = []
        for k in range(14):
            seen.append(values(world.guarded(*batch(world, k), k % 5 == 4)))
            seen.append(world.optimizer.n_step)
            assert type(world.optimizer.n_step) is int and type(world.optimizer.lr) is float
        outcomes.append(seen)
    same(outcomes[0], outcomes[1])
    assert world.step.replayed >= 4


def test_a_call_inside_a_recording_and_a_recursive_one_are_part_of_it():
    @mf.compile
    def inner(x: Any) -> Any:
        return x * 2

    @mf.compile
    def outer(x: Any, depth: int) -> Any:
        return inner(x) if depth == 0 else outer(x, depth - 1) + 1

    for k in range(8):
        np.testing.assert_array_equal(inner(mf.array([float(k)])).numpy(), [2.0 * k])
        np.testing.assert_array_equal(outer(mf.array([float(k)]), 2).numpy(), [2.0 * k + 2])
    assert outer.replayed >= 4


def test_two_threads_share_a_compiled_function():
    weights = mf.array(np.arange(4, dtype=np.float32)).stop_grad()

    @mf.compile
    def step(x: Any) -> Any:
        return (x * weights).sum()

    wrong: list[Any] = []

    def work(number: int) -> None:
        try:
            for k in range(60):
                value = float(number * 100 + k)
                found = step(mf.full([4], value).stop_grad()).item()
                if found != value * 6:
                    wrong.append((value, found))
        except BaseException as error:  # shown by the main thread
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_settings_and_backends_are_part_of_the_kind_of_a_call():
    @mf.compile
    def step(x: Any) -> Any:
        return x * 2

    for _ in range(5):
        step(mf.ones(2))
    assert step.replayed >= 1
    before = step.recorded
    with flag_scope(lazy_execution=0):
        np.testing.assert_array_equal(step(mf.ones(2)).numpy(), [2, 2])
    with mf.no_grad():
        assert not step(mf.ones(2)).requires_grad
    assert step.recorded > before


# -- ways to write it ---------------------------------------------------------------------------------------------------------
def test_methods_partials_modules_and_decorators():
    class Trainer:
        def __init__(self, rate: float) -> None:
            self.rate = rate
            self.p = mf.ones(2).stop_grad()

        @mf.compile
        def step(self, x: Any) -> Any:
            self.p.update(self.p + x * self.rate)
            return self.p * 1.0

    one, two = Trainer(1.0), Trainer(10.0)
    for k in range(1, 9):
        np.testing.assert_array_equal(one.step(mf.ones(2)).numpy(), [1 + k] * 2)
        np.testing.assert_array_equal(two.step(mf.ones(2)).numpy(), [1 + 10 * k] * 2)
    assert Trainer.step.replayed >= 8

    scaled = mf.compile(functools.partial(lambda k, x: x * k, 3.0))
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    net.eval()
    fast = mf.compile(net)
    for k in range(6):
        x = mf.full([1, 2], float(k))
        np.testing.assert_array_equal(scaled(x).numpy(), [[3.0 * k] * 2])
        np.testing.assert_array_equal(fast(x).numpy(), net(x).numpy())
    assert fast.replayed >= 2

    @mf.compile()
    def named(x: Any) -> Any:
        "What it does."
        return x

    assert named.__doc__ == "What it does." and named.__name__ == "named"
    assert mf.compile(named) is named
    with pytest.raises(ArgumentError, match="needs a function"):
        mf.compile(3)


def test_host_functions_and_hooks_inside():
    w = mf.array([3.0, 1.0, 2.0])
    scale = [1.0]
    w.register_hook(lambda g: g * scale[0])

    @mf.compile
    def step(x: Any) -> Any:
        order, values = (x * w).argsort()
        return order, values, mf.grad((x * w).sum(), w)

    for k in range(14):
        if k == 7:
            scale[0] = 4.0
        x = mf.array([1.0, float(k), 2.0])
        order, found, gradient = step(x)
        np.testing.assert_array_equal(found.numpy(), np.sort(np.array([3.0, k, 4.0])))
        np.testing.assert_array_equal(order.numpy(), np.argsort([3.0, k, 4.0], kind="stable"))
        np.testing.assert_array_equal(gradient.numpy(), x.numpy() * scale[0])
    assert step.replayed >= 6


def test_nothing_is_kept_from_call_to_call():
    world = World(trainer(), True)
    for k in range(8):
        world.step(*batch(world, k))
    from metafuse.runtime.buffer import live_bytes

    gc.collect()
    before = live_bytes.count
    for k in range(20):
        world.step(*batch(world, k))
    gc.collect()
    assert live_bytes.count == before


def test_a_random_life_of_a_training_loop_is_the_same():
    def make(world: World) -> Callable[..., Any]:
        step = trainer(functools.partial(nn.SGD, lr=0.05, momentum=0.9), dropout=True, norm=True)(world)
        world.dice = np.random.default_rng(7)  # type: ignore[attr-defined]
        world.held = []  # type: ignore[attr-defined]
        return step

    def between(world: Any, k: int) -> None:
        p = world.vars[int(world.dice.integers(len(world.vars)))]
        match int(world.dice.integers(14)):
            case 0:
                world.optimizer.lr = float(world.dice.random()) * 0.1
            case 1:
                world.held.append(p.detach())
            case 2:
                world.held.append(p)
            case 3:
                p.swap(mf.array(p.numpy() * 0.5)) if not p.requires_grad else None
            case 4:
                world.net.eval()
                world.net(mf.ones(2, 4)).sync()
                world.net.train()
            case 5:
                world.optimizer.momentum = 0.8 if world.optimizer.momentum == 0.9 else 0.9
            case 6:
                mf.rand(3)
            case 7:
                world.held.append(p * 2)
            case _:
                pass
        world.vars = [*world.net.parameters(), *world.held[-6:]]

    def arguments(world: Any, k: int) -> tuple[Any, ...]:
        size = 5 if world.dice.random() < 0.8 else 3
        return mf.array(world.data(size, 4)), mf.array(np.arange(size) % 3)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        step = twins(make, calls=120, arguments=arguments, between=between)
    assert step.plain == 0
    assert step.replayed >= 60
