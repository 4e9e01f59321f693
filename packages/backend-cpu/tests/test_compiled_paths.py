"""The compiled recording and evaluation: taken where it can be, the same results and the same programs as the Python that it
stands for, and nothing lost or broken where something is unusual."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metafuse as mf
from compiled_kit import IMAGE, Calls, X, calls, in_python, prepare_anew, trainable
from metafuse import hot
from metafuse.errors import ArgumentError, BackendError, GradientError, KernelError, OutOfMemory
from metafuse.graph.node import describe_origin, state
from metafuse.runtime import executor
from metafuse.runtime.buffer import live_bytes
from metafuse.runtime.kernels import statistics

pytestmark = pytest.mark.skipif(hot.compiled is None, reason="the compiled module was not built")

__all__ = ["calls", "in_python"]  # fixtures


def gradients_of_a_layer() -> list[mf.Var]:
    mf.set_global_seed(4)
    layer = mf.nn.Linear(8, 5)
    x = trainable(X)
    loss = mf.nn.softmax(mf.nn.relu(layer(x)), dim=1).sqr().sum()
    return [loss, *mf.grad(loss, [x, layer.weight, layer.bias])]


def second_gradients() -> list[mf.Var]:
    x = trainable(X)
    first = mf.grad((x.exp() * x).sum(), x)
    return [first, mf.grad(first.sum(), x)]


def network() -> list[mf.Var]:
    mf.set_global_seed(5)
    body = mf.nn.Sequential(
        mf.nn.Conv(4, 6, 3, padding=1), mf.nn.BatchNorm(6), mf.nn.Relu(), mf.nn.Pool(2, 2)
    )
    x = trainable(IMAGE)
    y = body(x)
    return [y, *mf.grad((y * y).mean(), [x, body[0].weight, body[1].weight, body[1].bias])]


def steps_of_an_optimizer() -> list[mf.Var]:
    mf.set_global_seed(6)
    layer = mf.nn.Linear(8, 3)
    optimizer = mf.nn.SGD(layer.parameters(), 0.1, 0.9)
    for _ in range(4):
        optimizer.step(mf.nn.cross_entropy_loss(layer(mf.array(X)), mf.array([0, 1, 2, 0, 1, 2])))
    return layer.parameters()


def held_on_the_way() -> list[mf.Var]:
    x = mf.array(X)
    inner = x * 2
    return [
        inner + 1,
        inner,
        inner.sum(0),
        x[1:3],
        mf.concat([x, inner], 1),
        mf.argmax(x, 1)[0],
    ]


def in_place() -> list[mf.Var]:
    x = mf.array(X)
    x += 1
    x[2] = 5
    y = x.clone()
    x *= y
    return [x, y]


def numbers_and_draws() -> list[mf.Var]:
    mf.set_global_seed(7)
    return [mf.rand(5) + 2, mf.array(X) * 3.5 - 1, mf.array(X) ** 2, mf.full((3,), -0.0) * 1, mf.arange(7)]


def own_code() -> list[mf.Var]:
    source = 'for (int i = 0; i < in0_shape0; ++i) @out(i) = @in0(i, 0) * 2 + data["n"];'
    x = mf.array(X) + 1
    found = mf.code((6,), "float32", [x], cpu_src=source, data={"n": 3})
    return [found, mf.linalg.inv(mf.array(X[:, :6])), x]


PROGRAMS = [
    gradients_of_a_layer, second_gradients, network, steps_of_an_optimizer, held_on_the_way, in_place, numbers_and_draws,
    own_code,
]  # fmt: skip


def values(program: Callable[[], list[mf.Var]]) -> list[np.ndarray[Any, Any]]:
    answers = program()
    mf.sync(answers)
    return [a.numpy() for a in answers]


@pytest.mark.parametrize(
    "program", [p for p in PROGRAMS if p is not steps_of_an_optimizer], ids=lambda p: p.__name__
)
def test_what_is_known_no_python_evaluates(program: Callable[[], list[mf.Var]], calls: Calls) -> None:
    for _ in range(4):  # recipes of recipes are known one after the other
        values(program)
    calls.evaluations = calls.gradients = 0
    plans = statistics.plans
    values(program)
    assert (calls.evaluations, calls.gradients, statistics.plans - plans) == (0, 0, 0)


def test_steps_of_a_loop_are_known(calls: Calls) -> None:
    layer = mf.nn.Linear(8, 3)
    optimizer = mf.nn.Adam(layer.parameters(), 0.01)

    def step() -> None:
        optimizer.step(mf.nn.cross_entropy_loss(layer(mf.array(X)), mf.array([0, 1, 2, 0, 1, 2])))

    for _ in range(5):
        step()
    calls.evaluations = calls.gradients = 0
    for _ in range(3):
        step()
    assert (calls.evaluations, calls.gradients) == (0, 0)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_python_computes_the_same_by_the_same_programs(
    program: Callable[[], list[mf.Var]], in_python: Any
) -> None:
    first, second = values(program), values(program)
    plans = statistics.plans
    in_python(True)
    other = values(program)
    in_python(False)
    assert statistics.plans == plans, "keys that differ"
    for a, b, c in zip(first, second, other, strict=True):
        assert a.dtype == c.dtype
        assert a.tobytes() == b.tobytes() == c.tobytes()


def test_programs_that_python_met_first_are_known(in_python: Any, calls: Calls) -> None:
    in_python(True)
    program = lambda: [(mf.array(X) * 17 - 3).max(1)]
    expected = values(program)
    in_python(False)
    calls.evaluations = 0
    assert values(program)[0].tobytes() == expected[0].tobytes()
    assert calls.evaluations == 0


def test_counters_count() -> None:
    x = mf.array(X)
    for _ in range(3):
        before = (statistics.programs, statistics.launches)
        (x * 2 + 7).sync()
        assert (statistics.programs - before[0], statistics.launches - before[1]) == (1, 1)


def test_memory_goes_back_and_is_counted() -> None:
    x = mf.array(X)
    (x + 1).sync()
    gc.collect()
    before = (live_bytes.now, live_bytes.count)
    for _ in range(3):
        y = (x + 1).sync()
        assert (live_bytes.now - before[0], live_bytes.count - before[1]) == (X.nbytes, 1)
        del y
    assert (live_bytes.now, live_bytes.count) == before
    assert live_bytes.peak >= live_bytes.now


def test_results_take_over_the_memory_of_what_nobody_holds() -> None:
    x = mf.array(X)
    for _ in range(4):
        handle = x._node.buffer.handle
        x = x * 1.5
        x.sync()
    assert x._node.buffer.handle == handle
    y = x
    x = x * 1.5
    x.sync()
    assert x._node.buffer.handle != y._node.buffer.handle
    assert np.allclose(x.numpy(), y.numpy() * np.float32(1.5))


def test_younger_values_stay_pending() -> None:
    x = mf.array(X)
    for _ in range(2):
        first, second = x + 1, x + 2
        first.sync()
        assert second._node.buffer is None
        third = x + 3
        mf.sync([third], weak_sync=False)
        assert second._node.buffer is None
        assert np.array_equal(second.numpy(), X + 2)


def test_a_failed_launch_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = executor.device().backend
    x = mf.array(X)
    ((x * 2.25).abs() + 3).sync()

    def broken(*arguments: Any) -> None:
        raise ValueError("out of order")

    real = backend.run
    monkeypatch.setattr(backend, "run", broken)
    prepare_anew()  # the program may have run before, for another test
    y = (x * 2.25).abs() + 3
    with pytest.raises(KernelError, match=r"\[launch\] out of order; operators: .*test_compiled_paths"):
        y.sync()
    monkeypatch.undo()
    prepare_anew()
    assert backend.run is real
    assert np.allclose(y.numpy(), np.abs(X * 2.25) + 3)


def test_no_memory_is_said_and_can_be_mended() -> None:
    backend = executor.device().backend
    x = mf.array(np.ones((512, 512), np.float32))
    (x * 3.75).sync()
    y = x * 3.75
    from metafuse_backend_cpu import _native

    limit = backend.memory_stats()["bytes_limit"]
    _native.trim(0)
    _native.set_memory_limit(backend.memory_stats()["bytes_in_use"])
    try:
        with pytest.raises(OutOfMemory, match=r"no memory for .*bytes were asked for; largest arrays"):
            y.sync()
    finally:
        _native.set_memory_limit(limit)
    assert y.numpy()[0, 0] == 3.75


def test_places_are_the_users() -> None:
    x = trainable(X)
    for _ in range(3):
        y = x + 1
        z = mf.sum(y, 1)
        g = mf.grad(z.sum(), x)
        line = sys._getframe().f_lineno
        for var, back in ((y, 3), (z, 2), (g, 1)):
            assert describe_origin(var._node) == f"{__file__}:{line - back}"


def test_hooks_and_rules_of_ones_own_are_asked_each_time() -> None:
    class Tripled(mf.Function):
        def execute(self, x: mf.Var) -> mf.Var:
            return x * 3

        def grad(self, upstream: mf.Var) -> mf.Var:
            met.append(1)
            return upstream * 7

    met: list[int] = []
    x = trainable(X)
    for number in range(3):
        assert mf.grad(Tripled()(x).sum(), x).numpy()[0, 0] == 7
        assert len(met) == number + 1
    x.register_hook(lambda g: g * 10)
    for _ in range(3):
        assert mf.grad((x * 2).sum(), x).numpy()[0, 0] == 20


def test_a_graph_that_was_given_up_is_refused() -> None:
    x = trainable(X)
    for _ in range(3):
        y = (x * 2).exp()
        z = y.sum()
        assert np.allclose(mf.grad(z, x, retain_graph=False).numpy(), 2 * np.exp(2 * X), rtol=1e-5)
        z.sync()
        with pytest.raises(GradientError, match="released"):
            mf.grad(z, x)


def test_targets_without_a_path_get_zeros_every_time() -> None:
    x, other = trainable(X), trainable(X)
    for _ in range(3):
        with pytest.warns(UserWarning, match="no gradient"):
            g = mf.grad((x * x).sum(), [other, x])
        assert not g[0].numpy().any()
        assert np.allclose(g[1].numpy(), 2 * X)


def test_many_targets_and_long_chains() -> None:
    leaves = [trainable(X[k % 6]) for k in range(40)]
    for _ in range(3):
        total = leaves[0]
        for leaf in leaves[1:]:
            total = total + leaf * leaf
        found = mf.grad(total.sum(), leaves)
        assert np.allclose(found[7].numpy(), 2 * X[1])
        deep = leaves[0]
        for _ in range(3000):
            deep = deep + 1
        assert np.allclose(deep.numpy(), X[0] + 3000, rtol=1e-4)


def test_flags_and_modes_tell_calls_apart() -> None:
    x = trainable(X)
    for _ in range(2):
        assert mf.nn.softmax(x, dim=1).requires_grad
        with mf.no_grad():
            assert not mf.nn.softmax(x, dim=1).requires_grad
        with mf.flag_scope(lazy_execution=0):
            assert mf.nn.softmax(x, dim=1)._node.buffer is not None
        assert mf.nn.softmax(x, dim=1)._node.buffer is None
        assert np.array_equal(mf.max(x, 0).numpy(), X.max(0))
        with pytest.raises(mf.errors.DTypeError):
            mf.max(x, False)  # which equals 0
        assert mf.max(x, None).numpy() == X.max()


def test_wrong_arguments_of_the_backend_raise() -> None:
    from metafuse_backend_cpu import _native

    class Odd:
        def __bool__(self) -> bool:
            raise ValueError("odd")

    program = _native.Program("")
    assert _native.run(program, [], [], False) is None
    for kind, function, arguments in (
        (ArgumentError, _native.alloc, (-1,)), (OutOfMemory, _native.alloc, (2**62,)), (TypeError, _native.alloc, ("3",)),
        (BackendError, _native.free, (None,)), (TypeError, _native.run, (3, [], [])), (TypeError, _native.run, (program, 3, [])),
        (ArgumentError, _native.run, (program, [], [1])), (ValueError, _native.run, (program, [], [], Odd())),
        (ArgumentError, _native.run, (_native.Program.__new__(_native.Program), [], [])),
    ):  # fmt: skip
        with pytest.raises(kind):
            function(*arguments)


def test_wrong_arguments_of_the_module_raise() -> None:
    compiled = hot.compiled
    assert compiled is not None
    node = mf.array(X)._node
    for function, arguments in (
        (compiled.evaluate, (5,)), (compiled.run, ([5], False)), (compiled.run, (None,)), (compiled.record, (node.sig, [node])),
        (compiled.record, (node.sig, (3,))), (compiled.record, (3, (node,))), (compiled.replay, ({}, [], [], {})),
        (compiled.backward, ({}, 0, node, [4], True)), (compiled.backward, ({}, 0, 4, [node], True)),
        (compiled.setup, ({}, {})),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            function(*arguments)


def test_the_flag_leaves_it_out() -> None:
    script = (
        "import metafuse as mf; from metafuse import hot; assert hot.compiled is None\n"
        "x = mf.array([1.0, 2.0]).start_grad()\n"
        "for _ in range(3): print(mf.grad((x * x).sum(), x).tolist(), mf.max(x).item())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "METAFUSE_COMPILED": "0"}, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert done.stdout == "[2.0, 4.0] 2.0\n" * 3


def test_nothing_stays_pending() -> None:
    values(held_on_the_way)
    mf.sync_all()
    assert not state.pending
