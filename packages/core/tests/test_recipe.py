"""Recipes: recording the second time without the Python, and the same nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn
from metafuse.config import flag_scope
from metafuse.errors import DTypeError
from metafuse.graph.node import Node, state
from metafuse.ops import autograd
from metafuse.ops.recipe import exact, recorded
from metafuse.testing import check_grads


@pytest.fixture(autouse=True)
def _fresh():
    with flag_scope(backend="reference"):
        autograd._recipes.table.clear()
        yield
        mf.sync_all()


def structure(results: list[mf.Var]) -> list[Any]:
    """Everything about the nodes behind ``results`` but their identity, dead ones left out."""
    found: list[Node] = []
    stack = [r._node for r in results]
    seen = set(stack)
    while stack:
        node = stack.pop()
        found.append(node)
        for x in node.inputs:
            if x not in seen:
                seen.add(x)
                stack.append(x)
    found.sort(key=lambda n: n.order)
    place = {n: k for k, n in enumerate(found)}
    return [
        (n.sig, n.scalars, n.requires_grad, [place[x] for x in n.inputs], n.buffer is None, n.origin is None)
        for n in found
    ]


def network() -> tuple[nn.Module, mf.Var, mf.Var]:
    mf.set_global_seed(1)
    net = nn.Sequential(
        nn.Conv(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4), nn.LayerNorm(4), nn.Softmax(1)
    )
    mf.sync_all()
    return net, mf.array(np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)), mf.array([2])


def test_the_second_recording_is_the_first_one_again():
    net, x, y = network()
    parameters = net.parameters()
    seen = []
    for _ in range(3):
        out = net(x)
        loss = nn.cross_entropy_loss(out, y) + nn.mse_loss(out @ mf.ones(4, 2), mf.zeros(1, 2).stop_grad())
        gradients = mf.grad(loss, parameters)
        seen.append((structure([loss, *gradients]), [g.numpy() for g in gradients]))
    assert len(autograd._recipes.table) == 2  # the layers are ordinary nodes first, and blocks from then on
    for other in seen[1:]:
        assert other[0] == seen[0][0]
        for a, b in zip(seen[0][1], other[1], strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_recipe_runs_no_rule():
    x = mf.array([1.0, 2.0])
    mf.grad((x * x).sum(), x)
    asked = []
    real = autograd._walk_back
    autograd._walk_back = lambda *a: asked.append(1) or real(*a)  # type: ignore[assignment,func-returns-value]
    try:
        mf.grad((x * x).sum(), x)
        assert asked == []
        mf.grad((x * x * x).sum(), x)
        assert asked == [1]
    finally:
        autograd._walk_back = real


def test_what_differs_is_not_mixed_up():
    x, y = mf.array([2.0, 3.0]), mf.array([5.0, 7.0])
    for _ in range(3):
        for scale in (1.0, 2.0, -0.0, 0.0):
            (gx,) = mf.grad((x * scale).sum(), [x])
            np.testing.assert_array_equal(gx.numpy(), [scale] * 2)
            assert np.signbit(gx.numpy()[0]) == np.signbit(scale)
        np.testing.assert_array_equal(mf.grad((x * y).sum(), x).numpy(), [5, 7])
        np.testing.assert_array_equal(mf.grad((x * y).sum(), y).numpy(), [2, 3])
        np.testing.assert_array_equal(mf.grad((x * x).sum(), x).numpy(), [4, 6])
        a, b = mf.grad((x * y).sum(), [y, x])
        np.testing.assert_array_equal(a.numpy(), [2, 3])
        np.testing.assert_array_equal(b.numpy(), [5, 7])
        np.testing.assert_array_equal(mf.grad((x * y.detach()).sum(), x).numpy(), [5, 7])
        middle = x * y
        np.testing.assert_array_equal(mf.grad((middle * x).sum(), middle).numpy(), [2, 3])
        np.testing.assert_array_equal(mf.grad((x**3).sum(), x).numpy(), [12, 27])
        np.testing.assert_array_equal(mf.grad(mf.grad((x**3).sum(), x).sum(), x).numpy(), [12, 18])
        with mf.no_grad():
            constant = mf.grad(mf.enable_grad()(lambda: (x * x).sum())(), x)
        assert not constant.requires_grad
        assert mf.grad((x * x).sum(), x).requires_grad


def test_hooks_and_own_rules_are_asked_each_time():
    calls = []

    class Twice(mf.Function):
        def execute(self, x: Any) -> Any:
            return x * 2

        def grad(self, g: Any) -> Any:
            calls.append("rule")
            return g * float(len(calls))

    x = mf.array([1.0])
    assert [mf.grad(Twice.apply(x), x).item() for _ in range(3)] == [1.0, 2.0, 3.0]
    factor = 1.0
    x.register_hook(lambda g: g * factor)
    for factor in (1.0, 4.0):
        assert mf.grad(x * 3, x).item() == 3 * factor


def test_random_numbers_in_a_rule_are_drawn_anew():
    from metafuse.ops.meta import with_gradient

    def noisy(node: Any, upstream: Any) -> list[Any]:
        return [None, upstream * mf.rand(1000).stop_grad()]

    x = mf.zeros(1000)
    found = [
        mf.grad(with_gradient((x * 1).stop_grad(), [x], "noisy", None, noisy).sum(), x).numpy()
        for _ in range(3)
    ]
    assert not np.array_equal(found[0], found[1]) and not np.array_equal(found[1], found[2])


def test_a_released_graph_is_still_noticed():
    x = mf.array([2.0])
    for _ in range(3):
        loss = (x * x).exp()
        with mf.no_grad():
            mf.grad(loss, x, retain_graph=False).sync()
        with pytest.raises(mf.errors.GradientError, match="released"):
            mf.grad(loss + 1, x)


def test_missing_gradients_warn_each_time():
    x, y = mf.array([2.0]), mf.array([3.0])
    for _ in range(3):
        with pytest.warns(UserWarning, match="no gradient"):
            a, b = mf.grad(x * x, [y, x])
        assert a.item() == 0.0 and b.item() == 4.0


def test_compositions_tell_their_arguments_apart():
    rng = np.random.default_rng(0)
    x, w, b = (mf.array(rng.standard_normal(s).astype(np.float32)) for s in ((3, 4), (5, 4), (5,)))
    expected = x.numpy() @ w.numpy().T
    for _ in range(3):
        np.testing.assert_allclose(nn.linear(x, w).numpy(), expected, rtol=1e-5)
        np.testing.assert_allclose(nn.linear(x, w, b).numpy(), expected + b.numpy(), rtol=1e-5)
        np.testing.assert_allclose(nn.linear(x, weight=w).numpy(), expected, rtol=1e-5)
        np.testing.assert_allclose((w @ w.transpose()).numpy(), w.numpy() @ w.numpy().T, rtol=1e-5)
        square = mf.array(np.eye(4, dtype=np.float32) * 2)
        np.testing.assert_allclose((square @ square).numpy(), np.eye(4) * 4)
        np.testing.assert_allclose(nn.linear(square, square).numpy(), np.eye(4) * 4)
        for dim in (0, 1):
            for log in (False, True):
                total = nn.softmax(x, dim, log).numpy()
                np.testing.assert_allclose((np.exp(total) if log else total).sum(dim), 1, rtol=1e-5)
        assert not nn.linear(x.detach(), w.detach()).requires_grad
        assert nn.linear(x, w.detach()).requires_grad
        with mf.no_grad():
            assert not nn.linear(x, w).requires_grad
        assert nn.linear(x.float64(), w.float64()).dtype == "float64"
        with pytest.raises(mf.errors.ShapeError):
            nn.linear(w, b)
    check_grads(lambda a, c: nn.linear(a, c), [x.numpy(), w.numpy()])
    check_grads(lambda a, c: nn.linear(a, c), [x.numpy(), w.numpy()])


def test_a_single_operation_is_recorded_as_it_was():
    @recorded
    def less(a, b):
        return b - a

    @recorded
    def twice(a):
        return a + a

    @recorded
    def cut(a):
        with mf.no_grad():
            return a * 2

    a, b = mf.array([1.0, 2.0]).start_grad(), mf.array([5.0, 5.0])
    for function, given, expected in (
        (less, (a, b), [4.0, 3.0]),
        (twice, (a,), [2.0, 4.0]),
        (cut, (a,), [2.0, 4.0]),
    ):
        seen = []
        for _ in range(3):
            with mf.no_grad():
                assert not function(*given).requires_grad
            result = function(*given)
            seen.append((structure([result]), result.tolist()))
            assert result.requires_grad == (function is not cut)
        assert seen == [(seen[0][0], expected)] * 3
        assert result._node.origin[0].co_name == "test_a_single_operation_is_recorded_as_it_was"


def test_flags_are_part_of_what_is_remembered():
    x, w = mf.ones(2, 3), mf.ones(4, 3)
    for _ in range(3):
        assert nn.linear(x, w).dtype == "float32"
        with flag_scope(auto_mixed_precision_level=5):
            half = nn.linear(x, w)
            assert half.dtype.is_half
            assert mf.grad(half.float32().sum(), w).dtype == "float32"


def test_every_operator_at_once_records_as_always():
    x, w = mf.ones(2, 3), mf.ones(4, 3)
    with flag_scope(lazy_execution=0):
        for _ in range(3):
            y = nn.linear(x, w)
            assert y._node.buffer is not None
            np.testing.assert_array_equal(mf.grad(y.sum(), w).numpy(), np.full((4, 3), 2.0))


def test_nodes_without_handles_do_not_stay():
    x, w = mf.ones(2, 3), mf.ones(4, 3)
    for _ in range(5):
        mf.grad(nn.linear(x, w).sum(), w)
        mf.sync_all()
        assert [h for h in state.pending if h() is not None] == []


def test_numbers_as_keys():
    assert exact((1, 2.0)) == exact((1, 2.0))
    assert exact((1,)) != exact((1.0,)) != exact((True,))
    assert exact((0.0,)) != exact((-0.0,))
    assert exact((float("nan"),)) is None and exact(("x",)) is None


def test_a_decorated_function_keeps_its_name_and_takes_what_it_took():
    @recorded
    def scaled(x: Any, factor: float = 2.0, *, shift: Any = None) -> Any:
        "Documented."
        return x * factor if shift is None else x * factor + mf.array(shift)

    assert scaled.__doc__ == "Documented." and scaled.__name__ == "scaled"
    x = mf.array([1.0, 2.0])
    for k in range(3):
        np.testing.assert_array_equal(scaled(x).numpy(), [2, 4])
        np.testing.assert_array_equal(scaled(x, 3.0).numpy(), [3, 6])
        np.testing.assert_array_equal(scaled(x, shift=[float(k), 0.0]).numpy(), [2 + k, 4])
        np.testing.assert_array_equal(scaled(x, shift=np.float32(k)).numpy(), [2 + k, 4 + k])


def test_indexes_that_come_again():
    x = mf.array(np.arange(24, dtype=np.float32).reshape(4, 6))
    values = x.numpy()
    for k in (0, 3, -1):
        for picked in ([0, 3, 1], [2, 2, 2], [-1, 0, 1]):
            rows = np.array(picked, np.int32)
            np.testing.assert_array_equal(x[mf.array(rows)].numpy(), values[rows])
            np.testing.assert_array_equal(x[mf.array(rows), 1:4].numpy(), values[rows, 1:4])
            np.testing.assert_array_equal(x[k, mf.array(rows)].numpy(), values[k, rows])
        np.testing.assert_array_equal(x[k, ::-2].numpy(), values[k, ::-2])
        np.testing.assert_array_equal(x[..., k].numpy(), values[..., k])
    with pytest.raises(DTypeError, match="an index must be integers"):
        _ = x[mf.array([1.0])]
    with pytest.raises(IndexError, match="index 4 is out of bounds"):
        _ = x[4]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("value", [3, 0, -1, True, 2.75, 1e-3])
def test_numbers_that_are_assigned(dtype, value):
    x, expected = mf.zeros(3, dtype), np.zeros(3, dtype)
    for place in (1, 2):
        x[place] = value
        expected[place] = np.asarray(value).astype(dtype)
    np.testing.assert_array_equal(x.numpy(), expected)


def test_tables_of_a_resizing_are_made_once_and_stay_right():
    image = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4)
    expected = mf.nn.interpolate(mf.array(image), (6, 6), mode="bicubic").numpy()
    step = mf.compile(lambda x: mf.nn.interpolate(x, (6, 6), mode="bicubic"))
    for k in range(1, 4):
        x = mf.array(image * k).start_grad()
        y = mf.nn.interpolate(x, (6, 6), mode="bicubic")
        np.testing.assert_allclose(y.numpy(), expected * k, rtol=1e-6)
        np.testing.assert_allclose(step(mf.array(image * k)).numpy(), expected * k, rtol=1e-6)
        gradient = mf.grad(y, x)
        assert gradient.shape == x.shape and abs(float(gradient.sum().item()) - 36) < 1e-3
