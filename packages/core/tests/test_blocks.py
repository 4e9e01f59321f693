"""Blocks: compositions that stay one unit of the recorded graph until somebody looks into them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn
from metafuse.graph.node import Node
from metafuse.graph.recipe import BlockNode, block_of
from metafuse.runtime import executor
from metafuse.runtime.kernels import statistics

RANDOM = np.random.default_rng(3)
X = RANDOM.standard_normal((5, 8)).astype(np.float32)


def softmax(x: mf.Var) -> mf.Var:
    return nn.softmax(x, 1)


@pytest.fixture(autouse=True)
def _known() -> None:
    """The compositions of these shapes are recorded for the second time from here on."""
    for x in (mf.array(X), mf.array(X).stop_grad()):
        for _ in range(2):
            softmax(x).sync()
    for _ in range(3):
        x = mf.array(X)
        mf.grad(softmax(x).sqr().sum(), x).sync()
    mf.gc()


def expected() -> Any:
    e = np.exp(X.astype(np.float64) - X.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def close(a: mf.Var, b: Any) -> None:
    np.testing.assert_allclose(a.numpy(), b, rtol=2e-6, atol=1e-6)


def test_a_composition_is_one_unit_and_runs_as_the_same_program() -> None:
    x = mf.array(X)
    y = softmax(x)
    assert type(y._node) is BlockNode
    plans = statistics.plans
    close(y, expected())
    assert statistics.plans == plans


def test_whoever_asks_for_inputs_gets_ordinary_nodes() -> None:
    y = softmax(mf.array(X))
    node = y._node
    before = node.order
    assert [type(x) for x in node.inputs] == [Node] * len(node.inputs)
    assert type(node) is Node and node is y._node and node.order == before
    found, stack = set(), [node]
    while stack:
        n = stack.pop()
        if n not in found:
            found.add(n)
            assert all(x.order < n.order for x in n.inputs)
            stack.extend(n.inputs)
    assert len(found) > 4
    close(y, expected())


def test_looking_changes_no_value_and_no_plan() -> None:
    a, b = softmax(mf.array(X)), softmax(mf.array(X))
    _ = b._node.inputs
    np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert mf.explain(softmax(mf.array(X))).operators > 4


def test_a_result_that_nobody_holds_lets_its_inputs_go() -> None:
    x = mf.array(X)
    y = softmax(x)
    node = weakref.ref(x._node)
    del x
    gc.disable()
    try:
        del y
        assert node() is None
    finally:
        gc.enable()


def test_gradients_after_the_value_was_read() -> None:
    for _ in range(3):
        x = mf.array(X)
        y = softmax(x)
        close(y, expected())
        g = mf.grad(y.sqr().sum(), x)
        p = expected()
        close(g, 2 * p * (p - (p * p).sum(1, keepdims=True)))


def test_a_second_gradient() -> None:
    def twice() -> Any:
        x = mf.array(X)
        g = mf.grad(softmax(x).sqr().sum(), x)
        return mf.grad(g.sqr().sum(), x).numpy()

    first = [twice() for _ in range(4)]
    for other in first[1:]:
        np.testing.assert_allclose(other, first[0], rtol=1e-5, atol=1e-7)
    eps, p = 1e-6, expected()

    def norm(x: Any) -> Any:
        e = np.exp(x - x.max(1, keepdims=True))
        q = e / e.sum(1, keepdims=True)
        g = 2 * q * (q - (q * q).sum(1, keepdims=True))
        return (g * g).sum()

    moved = X.astype(np.float64).copy()
    moved[1, 2] += eps
    up = norm(moved)
    moved[1, 2] -= 2 * eps
    assert first[0][1, 2] == pytest.approx((up - norm(moved)) / (2 * eps), rel=1e-4, abs=1e-7)
    assert p.shape == X.shape


def test_results_one_after_another() -> None:
    """Two gradients of one block, read one by one, in either order, with one dropped in between."""
    for order in ((0, 1), (1, 0)):
        for _ in range(3):
            x, w = mf.array(X), mf.array(X[:1])
            found = mf.grad((softmax(x) * w).sum(), [x, w])
            assert {type(g._node) for g in found} <= {Node, BlockNode}
            p = expected()
            right = [p * (X[:1] - (p * X[:1]).sum(1, keepdims=True)), p.sum(0, keepdims=True)]
            close(found[order[0]], right[order[0]])
            close(found[order[1]], right[order[1]])
            found = mf.grad((softmax(x) * w).sum(), [x, w])
            kept = found[order[0]]
            del found
            close(kept, right[order[0]])


def test_a_released_graph_is_told_so() -> None:
    for _ in range(3):
        x = mf.array(X)
        y = softmax(x)
        loss = y.sqr().sum()
        mf.grad(loss, x, retain_graph=False).sync()
        loss.sync()
        with pytest.raises(mf.errors.GradientError, match="released"):
            mf.grad(loss, x)


def test_flags_and_hooks_on_a_result() -> None:
    seen: list[Any] = []
    for k in range(3):
        x = mf.array(X)
        y = softmax(x).stop_grad()
        with pytest.warns(UserWarning, match="no gradient"):
            close(mf.grad((y * 2).sum(), x), np.zeros_like(X))
        y = softmax(x)
        y.register_hook(lambda g: seen.append(g.shape))
        mf.grad(y.sqr().sum(), x).sync()
        assert seen == [[5, 8]] * (k + 1)


def rules() -> dict[str, Callable[[list[mf.Var]], Any]]:
    return {
        "sgd": lambda p: nn.SGD(p, 0.1, 0.9, 1e-2),
        "nesterov": lambda p: nn.SGD(p, 0.1, 0.9, 1e-2, nesterov=True),
        "plain": lambda p: nn.SGD(p, 0.1),
        "rmsprop": lambda p: nn.RMSprop(p, 0.01),
        "adam": lambda p: nn.Adam(p, 0.01, weight_decay=1e-2),
        "adamw": lambda p: nn.AdamW(p, 0.01, weight_decay=1e-2),
        "adan": lambda p: nn.Adan(p, 0.01, weight_decay=1e-2),
    }


@pytest.mark.parametrize("rule", rules())
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_remembered_updates_are_those_of_the_rule(rule: str, dtype: str) -> None:
    """With a rate that changes each step, a parameter that is frozen on the way, and a group with options of its own."""

    def run(remembered: bool) -> list[Any]:
        a, b, c = (mf.array(X[k]).cast(dtype).detach().start_grad() for k in range(3))
        optimizer = rules()[rule]([{"params": [a, b]}, {"params": [c], "lr": 0.02}])
        learned = 0
        for step in range(8):
            optimizer.lr = 0.1 / (step + 1)
            if step == 5:
                b.stop_grad()
            if not remembered:
                optimizer._updates.key = None
            loss = ((a.sqr() + b.exp() * c).sum() + (c * a).sum()).float32()
            optimizer.step(loss)
            learned += optimizer._updates.recipe is not None
        assert learned == (6 if remembered else 0)  # not in the first step, and anew after b was frozen
        return [v.float32().numpy() for v in (a, b, c)]

    for ours, plain in zip(run(True), run(False), strict=True):
        np.testing.assert_array_equal(ours, plain)


def test_rules_of_users_are_asked_every_time() -> None:
    seen = []

    class Noisy(nn.SGD):
        def update(self, p: Any, g: Any, state: Any, options: Any) -> None:
            seen.append(1)
            super().update(p, g * len(seen), state, options)

    x = mf.array(X[0]).start_grad()
    optimizer = Noisy([x], 0.1)
    for _ in range(5):
        optimizer.step(x.sum())
    assert len(seen) == 5
    np.testing.assert_allclose(x.numpy(), X[0] - 0.1 * 15, rtol=1e-5)


def test_a_step_is_few_units_and_the_program_of_its_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "compiled", None)  # which makes no `Graph`
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.LayerNorm(16), nn.Linear(16, 4))
    optimizer = nn.Adam(net.parameters(), 0.01)
    x, y = mf.array(X), mf.array([0, 1, 2, 3, 0])
    losses = []
    for _ in range(8):
        loss = nn.cross_entropy_loss(net(x), y)
        optimizer.step(loss)
        losses.append(loss.item())
    plans = statistics.plans
    units = []
    real = executor.Graph

    class Seen(real):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            units.append(len(self.units))

    executor.Graph = Seen  # type: ignore[misc]
    try:
        loss = nn.cross_entropy_loss(net(x), y)
        assert type(loss._node) is BlockNode and block_of(loss._node)[0].given
        optimizer.step(loss)
    finally:
        executor.Graph = real  # type: ignore[misc]
    assert statistics.plans == plans
    assert len(units) == 1 and units[0] <= 8
    assert losses == sorted(losses, reverse=True)
