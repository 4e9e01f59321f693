"""``metafuse.compile``: steps that update their parameters themselves, without an optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metafuse as mf
from compile_kit import World, twins
from metafuse.config import flag_scope
from metafuse.errors import GradientError


@pytest.fixture(autouse=True)
def _reference_backend():
    with flag_scope(backend="reference", log_silent=1):
        yield
        mf.sync_all()


@pytest.mark.parametrize("way", ["assign", "update"])
def test_gradients_of_parameters_that_the_step_itself_renews(way: str):
    """What is behind the new values is of no interest to gradients with respect to them."""

    def make(world: World) -> Callable[[], Any]:
        world.vars = [mf.array(world.data(4)) for _ in range(2)]
        x = mf.array(world.data(3, 4))

        def step() -> Any:
            first, second = world.vars
            loss = (mf.sin(x * first) + second).sqr().mean()
            for var, slope in zip(world.vars, mf.grad(loss, world.vars), strict=True):
                getattr(var, way)(var - 0.1 * slope)
            return loss

        return step

    twins(make, calls=8, replayed=3)


def test_a_path_behind_what_a_compiled_step_assigned_is_asked_for_in_vain():
    old, new = mf.array([3.0]), mf.array([1.0])

    @mf.compile
    def step() -> Any:
        new.assign(old * old)

    step()  # runs as it is, path included
    for _ in range(4):
        step()
        assert mf.grad(new * 2, new).item() == 2
        with pytest.raises(GradientError, match="compile"):
            mf.grad(new * 2, [new, old])


def test_a_value_behind_which_the_graph_was_released_is_a_target_still():
    x = mf.array(np.arange(3.0), "float32")
    y = x * x
    z = y * y
    z.sync()
    mf.grad(z.sum(), x, retain_graph=False)
    mf.sync_all()
    for again in (y, z):
        np.testing.assert_array_equal(mf.grad((again * 3).sum(), again).numpy(), np.full(3, 3.0))
