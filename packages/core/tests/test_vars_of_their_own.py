"""Every Var that is handed out is one of its own: changing it in place changes nothing else; and what a cut path cuts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metafuse as mf


class Triple(mf.Function):
    def execute(self, x: mf.Var) -> mf.Var:
        return x * 3

    def grad(self, g: mf.Var) -> mf.Var:
        g *= 3
        return g


class Product(mf.Function):
    def execute(self, x: mf.Var, y: mf.Var) -> mf.Var:
        self.x, self.y = x, y
        return x * y

    def grad(self, g: mf.Var) -> tuple[mf.Var, mf.Var]:
        return g * self.y, g * self.x


@pytest.mark.parametrize(
    "same",
    [
        lambda x: mf.array(x),
        lambda x: mf.array(x, "float32"),
        lambda x: mf.concat([x]),
        lambda x: mf.concat([x, mf.zeros(0, 3)]),
        lambda x: mf.roll(x, 3, 1),
        lambda x: mf.clamp(x),
        lambda x: mf.rot90(x, 4),
    ],
)
def test_an_operator_with_nothing_to_do_answers_another_var(same: Callable[[Any], Any]) -> None:
    x = mf.ones(2, 3)
    y = same(x)
    y += 1
    assert np.array_equal(x.numpy(), np.ones((2, 3)))
    y = same(x)
    x[0] = 5
    assert np.array_equal(y.numpy(), np.ones((2, 3)))


def test_equal_gradients_are_vars_of_their_own() -> None:
    for _ in range(2):  # worked out, then by the recipe
        x, y = mf.ones(2), mf.ones(2)
        a, b, c = mf.grad((x + y) * 2, [x, y, x])
        a *= 10
        c[0] = 7
        assert (a.tolist(), b.tolist(), c.tolist()) == ([20, 20], [2, 2], [7, 2])
    x = mf.ones(2)
    a, b = mf.grad(x * x * x, [x, x])
    assert [g.tolist() for g in mf.grad(a + b * 2, [a, b])] == [[1, 1], [2, 2]]


def test_a_rule_may_change_its_gradient_in_place() -> None:
    x, y = mf.ones(2), mf.ones(2)
    z = Triple.apply(x) + y
    assert [g.tolist() for g in mf.grad(z * 2, [x, y, z])] == [[6, 6], [2, 2], [2, 2]]


def test_a_hook_may_change_its_gradient_in_place() -> None:
    x = mf.ones(2)
    y = (x * 2).register_hook(lambda g: g.multiply_(5))
    z = y + x
    assert [g.tolist() for g in mf.grad(z, [x, y, z])] == [[11, 11], [5, 5], [1, 1]]


def test_what_a_function_keeps_stays_when_the_caller_changes_the_argument() -> None:
    x, y = mf.array([2.0]), mf.array([5.0])
    z = Product.apply(x, y)
    before = x.clone()
    x += 100
    assert before.item() == 2
    assert mf.grad(z, y).item() == 2


def test_a_change_in_place_without_gradients_cuts_the_path() -> None:
    x = mf.array([1.0, 2.0])
    y = x * 2
    with mf.no_grad():
        y *= 3
    with pytest.warns(UserWarning, match="grad"):
        gx, gy = mf.grad(y, [x, y])
    assert (gx.tolist(), gy.tolist()) == ([0, 0], [1, 1])


@pytest.mark.parametrize("shape", [(0, 2), (3,)])
def test_a_mask_that_chooses_nothing_stays_on_the_gradient_path(shape: tuple[int, ...]) -> None:
    x = mf.ones(*shape)
    y = x[mf.zeros(*shape).bool()]
    assert y.shape == (0,) and y.requires_grad
    assert np.array_equal(mf.grad(y, x).numpy(), np.zeros(shape))


def test_a_window_stays_trainable_without_gradients() -> None:
    x = mf.ones(3)
    w = x[:2]
    x[0] = 2
    with mf.no_grad():
        w[1] = 3
    assert w.requires_grad and (w.tolist(), x.tolist()) == ([2, 3], [2, 3, 1])
