"""Functions with gradients that the user writes: several outputs, arguments that are no Vars, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import metafuse as mf
from metafuse.errors import GradientError


class Both(mf.Function):
    """Product and quotient; keeps what its ``grad`` is given."""

    def execute(self, x: Any, y: Any) -> Any:
        self.x, self.y = x, y
        self.given: list[Any] = []
        return x * y, x / y

    def grad(self, product: Any, quotient: Any) -> Any:
        self.given.append((product, quotient))
        zero = mf.zeros(self.x.shape)
        product = zero if product is None else product
        quotient = zero if quotient is None else quotient
        return product * self.y + quotient / self.y, product * self.x - quotient * self.x / self.y.sqr()


def values(*found: Any) -> list[Any]:
    return [np.round(v.numpy(), 5).tolist() for v in found]


def test_gradients_of_all_outputs_come_together():
    x, y = mf.array([3.0, 1.0]), mf.array([4.0, 2.0])
    both = Both()
    product, quotient = both(x, y)
    loss = (product * mf.array([1.0, 2.0]) + quotient * 8).sum()
    assert values(*mf.grad(loss, [x, y])) == [[4 + 2, 4 + 4], [3 - 1.5, 2 - 2]]
    assert len(both.given) == 1


def test_outputs_without_a_gradient_give_none():
    x, y = mf.array([3.0]), mf.array([4.0])
    both = Both()
    product, quotient = both(x, y)
    assert values(*mf.grad(quotient, [x, y])) == [[0.25], [-0.1875]]
    assert both.given[0][0] is None
    assert values(*mf.grad(product, [x, y])) == [[4], [3]]
    assert both.given[1][1] is None


def test_second_derivatives_and_use_within_a_network():
    x, y = mf.array([3.0]), mf.array([4.0])
    product, quotient = Both()(x.sqr(), y)
    first = mf.grad(product * quotient, x)  # x^4
    assert values(first, mf.grad(first, x)) == [[108], [108]]


def test_a_failed_gradient_leaves_nothing_behind():
    x, y = mf.array([3.0]), mf.array([4.0])

    class Picky(Both):
        ready = False

        def grad(self, product: Any, quotient: Any) -> Any:
            if not self.ready:
                raise ValueError("not yet")
            return super().grad(product, quotient)

    picky = Picky()
    product, quotient = picky(x, y)
    with pytest.raises(ValueError, match="not yet"):
        mf.grad(product + quotient, x)
    picky.ready = True
    assert values(mf.grad(quotient, x)) == [[0.25]]


def test_outputs_that_are_whole_numbers_have_no_gradient():
    class Split(mf.Function):
        def execute(self, x: Any) -> Any:
            return {"no": 1}["no"], x.int32(), x * 1

        def grad(self, number: Any, whole: Any, same: Any) -> Any:
            assert number is whole is None
            return same * 2

    x = mf.array([1.5])
    number, whole, same = Split()(x)
    assert (number, whole.item(), whole.requires_grad) == (1, 1, False)
    assert mf.grad(same, x).item() == 2


@pytest.mark.parametrize("shown", [2, 3])
def test_arguments_that_are_no_vars(shown):
    class Scaled(mf.Function):
        def execute(self, x: Any, factor: float, y: Any) -> Any:
            self.factor = factor
            return (x + y) * factor

        def grad(self, g: Any) -> Any:
            g = g * self.factor
            return (g, g) if shown == 2 else (g, None, g)

    x, y = mf.array([1.0]), mf.array([2.0])
    assert values(*mf.grad(Scaled.apply(x, 3.0, y), [x, y])) == [[3], [3]]


@pytest.mark.parametrize("further", [(), (2.0,)])
@pytest.mark.parametrize("nones", [1, 2])
def test_gradients_of_optional_arguments_that_were_not_given(further, nones):
    class Optional(mf.Function):
        def execute(self, x: Any, factor: float = 2.0, bias: Any = None) -> Any:
            return x * factor if bias is None else x * factor + bias

        def grad(self, g: Any) -> Any:
            return (g * 2, *[None] * nones)

    x = mf.array([1.0])
    assert mf.grad(Optional.apply(x, *further), x).item() == 2


def test_none_follows_gradients_per_var_too():
    class Optional(mf.Function):
        def execute(self, x: Any, factor: float, y: Any, bias: Any = None) -> Any:
            return (x + y) * factor

        def grad(self, g: Any) -> Any:
            return g * 2, g * 3, None

    x, y = mf.array([1.0]), mf.array([2.0])
    assert values(*mf.grad(Optional.apply(x, 2.0, y), [x, y])) == [[2], [3]]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda g: (g, g), r"grad must answer 1 gradients, one per Var input, got 2"),
        (lambda g: (), r"grad must answer 1 gradients, one per Var input, got 0"),
        (lambda g: mf.ones(3), r"gradient 0 must be a Var of its input's shape \[2\], got \[3\]"),
        (lambda g: 1.0, r"gradient 0 must be a Var of its input's shape \[2\], got float"),
    ],
)
def test_wrong_answers_are_refused(answer, message):
    class Wrong(mf.Function):
        def execute(self, x: Any) -> Any:
            return x * 2

        def grad(self, g: Any) -> Any:
            return answer(g)

    x = mf.ones(2)
    with pytest.raises(GradientError, match=rf"\[Wrong\] {message}"):
        mf.grad(Wrong()(x), x)


def test_nothing_is_recorded_for_inputs_that_take_no_gradient():
    product, quotient = Both()(mf.ones(1).stop_grad(), mf.ones(1).stop_grad())
    assert not product.requires_grad
    assert not quotient.requires_grad


def test_backward_hooks_of_modules_see_all_gradients_at_once():
    class Add(mf.nn.Module):
        def execute(self, x: Any, y: Any) -> Any:
            return x * 2 + y * 3

    seen = []
    module = Add()
    module.register_backward_hook(lambda m, inputs, outputs: seen.append((len(inputs), len(outputs))))
    x, y = mf.ones(1), mf.ones(1)
    assert values(*mf.grad(module(x, y), [x, y])) == [[2], [3]]
    assert seen == [(2, 1)]
