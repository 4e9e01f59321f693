"""``metafuse.compile``: what is not captured, arguments and results, memory, failures, threads."""

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
from compile_kit import World, batch, same, trainer, twins, values
from metafuse import nn
from metafuse.capture import Compiled
from metafuse.config import flag_scope, flags
from metafuse.errors import ArgumentError, GradientError
from metafuse.runtime import executor


@pytest.fixture(autouse=True)
def _reference_backend():
    with flag_scope(backend="reference", log_silent=1):
        yield
        mf.sync_all()


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
    assert f"{__file__}:" in message
    assert message.count("runs uncaptured") == 1


def test_numbers_from_nowhere_are_noticed(capsys):
    run_uncaptured(lambda x: x * random.random(), "draws random numbers", capsys)
    generator = np.random.default_rng(0)
    run_uncaptured(lambda x: x * generator.random(), "draws random numbers", capsys)
    clock = iter(range(1000))
    run_uncaptured(lambda x: x * float(next(clock)), "iterator", capsys)
    import time

    run_uncaptured(lambda x: x * time.perf_counter(), "asks for the time", capsys)

    def length() -> int:
        with open(__file__) as stream:
            return len(stream.read())

    run_uncaptured(lambda x: x * length(), "opens a file", capsys)
    hidden = functools.lru_cache(lambda: [0.0])
    hidden()

    def count() -> float:
        hidden()[0] += 1.0
        return hidden()[0]

    run_uncaptured(lambda x: x * count(), "numbers that are no arguments", capsys)
    run_uncaptured(lambda x: x + np.full(2, count(), np.float32), "arrays made from host data", capsys)


def test_large_host_arrays_are_refused(capsys):
    table = np.zeros(1 << 19, np.float32)
    run_uncaptured(lambda x: x + table[0] + mf.array(table)[:2], "table", capsys)


def test_vars_that_can_not_be_found_are_refused(capsys):
    hidden = functools.lru_cache(lambda: mf.ones(2))  # what the cache holds can't be seen
    hidden().sync()
    run_uncaptured(lambda x: x + hidden(), "neither an argument nor in visible state", capsys)
    run_uncaptured(lambda x: hidden().assign(x) * 1, "neither an argument nor in visible state", capsys)


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


def test_a_recorded_program_hands_out_what_the_plain_one_does():
    world = World(trainer(), True)
    for k in range(8):
        world.step(*batch(world, k))
    assert world.step.replayed >= 3
    program = executor.last_program[0]
    trained = [p for p in world.vars if p.requires_grad]
    assert len(program.plan.outputs) == 2 * len(trained) + 1  # parameters, momenta, the loss; no gradients


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
