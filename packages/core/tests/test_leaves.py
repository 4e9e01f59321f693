"""Vars that change where gradients are off: leaves from then on, of which no graph is kept."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf


def _made_of(source: mf.Var) -> mf.Var:
    """A value with a gradient path to ``source``, computed while ``source`` is held."""
    made = source * 0.5
    made.sync()
    return made


def _by_optimizer(w: mf.Var) -> None:
    with mf.enable_grad():
        mf.optim.SGD([w], lr=0.1).step((w * w).sum())


def _by_index(w: mf.Var) -> None:
    w[1] = 3.0


def _by_operator(w: mf.Var) -> None:
    w *= 0.9


def _by_method(w: mf.Var) -> None:
    w.add_(1.0)


CHANGES = [_by_optimizer, _by_index, _by_operator, _by_method, lambda w: w.update(w * 0.5)]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("stored", [False, True])
def test_no_gradient_goes_behind_a_change_without_gradients(change, stored):
    source = mf.array([1.0, 2.0, 3.0])
    w = _made_of(source)
    with mf.no_grad():
        change(w)
    if stored:
        w.sync()
    assert w.requires_grad
    with pytest.warns(UserWarning, match="zeros are used"):
        assert mf.grad((w * w).sum(), source).tolist() == [0.0, 0.0, 0.0]
    assert np.array_equal(mf.grad((w * w).sum(), w).numpy(), 2 * w.numpy())


@pytest.mark.parametrize("restart", [lambda x: x.detach().start_grad(), mf.nn.Parameter])
@pytest.mark.parametrize("stored", [False, True])
def test_no_gradient_goes_behind_what_is_detached_and_made_trainable(restart, stored):
    x = mf.array([1.0, 2.0, 3.0])
    squares = x * x
    y = restart(squares)
    if stored:
        mf.sync([squares, y])
        mf.grad(squares, x, retain_graph=False)  # what is behind is gone, and not needed
    for _ in range(3):  # as worked out, and as remembered
        loss = (y * y).sum()
        assert mf.grad(loss, y).tolist() == [2.0, 8.0, 18.0]
        with pytest.warns(UserWarning, match="the path was cut at detach, recorded at .*; zeros are used"):
            assert mf.grad(loss, x).tolist() == [0.0, 0.0, 0.0]
    with pytest.warns(UserWarning, match="zeros are used"):
        first, none = mf.grad((y * y).sum(), [y, x])
    assert (first.tolist(), none.tolist()) == ([2.0, 8.0, 18.0], [0.0, 0.0, 0.0])


def test_steps_of_a_parameter_with_a_history_keep_no_graph():
    source = mf.array([1.0, 2.0, 3.0])
    w = _made_of(source)
    optimizer = mf.optim.SGD([w], lr=0.01, momentum=0.9)
    counts = []
    for _ in range(20):
        optimizer.step((w * w).sum())
        counts.append(mf.number_of_lived_ops())
    assert counts[-1] == counts[4]
    assert source.tolist() == [1.0, 2.0, 3.0]
