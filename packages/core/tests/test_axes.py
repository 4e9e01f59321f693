"""Neighbouring axes that every access runs through as one are one loop, whatever offsets do with other axes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import metafuse as mf
from metafuse.config import flag_scope
from metafuse.runtime import executor


def axes(call: Callable[[mf.Var], mf.Var], *shape: int) -> tuple[int, int]:
    """Outer and inner axes of the only kernel of ``call``."""
    mf.sync_all()
    with flag_scope(backend="null"):
        call(mf.array(np.zeros(shape, np.float32))).sync()
        (step,) = executor.last_program[0].plan.steps
        mf.sync_all()
    return step.kernel.outer, step.kernel.inner


@pytest.mark.parametrize(
    "call, shape, expected",
    [
        (lambda x: x * 2.0, (2, 6, 4, 5), (1, 0)),
        (lambda x: mf.nn.channel_shuffle(x, 3), (2, 6, 4, 5), (3, 0)),
        (lambda x: mf.roll(x, 1, 1), (2, 6, 4, 5), (3, 0)),
        (lambda x: x.reindex([3, 6, 4, 5], ["i0/2", "i1", "i2", "i3"]), (2, 6, 4, 5), (2, 0)),
        (lambda x: x.reindex([2, 6, 4, 5], ["i0", "i1", "i2", "4-i3"]), (2, 6, 4, 5), (2, 0)),
        (lambda x: x.reindex([2, 6, 4, 5], ["i0", "i1%2", "i2", "i3"]).sum([2, 3]), (2, 6, 4, 5), (2, 1)),
        # an axis of a pair that is in no affine term, or asked for as a number, stays
        (lambda x: x.reindex([2, 6, 8, 5], ["i0", "i1", "i2/2", "i3"]), (2, 6, 4, 5), (3, 0)),
        (lambda x: x.reindex([2, 6, 4, 5], ["i0", "i1", "i2", "i3"], 0.0, ["i1==3"]), (2, 6, 4, 5), (3, 0)),
    ],
)
def test_number_of_axes(
    call: Callable[[mf.Var], mf.Var], shape: tuple[int, ...], expected: tuple[int, int]
) -> None:
    assert axes(call, *shape) == expected


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(2, 6, 4, 5), (1, 6, 1, 7), (3, 6, 2), (2, 6, 0, 3)])
def test_values_and_gradient_of_shuffled_channels(shape: tuple[int, ...], groups: int) -> None:
    value = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    weight = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    n, c = shape[:2]

    def shuffled(a: np.ndarray, g: int) -> np.ndarray:
        return a.reshape(n, g, c // g, *shape[2:]).swapaxes(1, 2).reshape(shape)

    x = mf.array(value).start_grad()
    y = mf.nn.channel_shuffle(x, groups)
    (gradient,) = mf.grad(y * mf.array(weight), [x])
    np.testing.assert_array_equal(y.numpy(), shuffled(value, groups))
    np.testing.assert_array_equal(gradient.numpy(), shuffled(weight, c // groups))
