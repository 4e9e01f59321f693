"""First values: distributions, in-place forms, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

import metafuse as mf
from metafuse import init
from metafuse.errors import ArgumentError, ShapeError

SHAPE = [60, 50, 2, 2]  # fan_in 200, fan_out 240


@pytest.fixture(autouse=True)
def _seed():
    mf.set_global_seed(5)


def check_uniform(values, bound):
    assert abs(values).max() <= bound * 1.0001
    assert abs(values).max() > bound * 0.99
    assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    assert values.mean() == pytest.approx(0, abs=0.03 * bound)


def test_uniform_family():
    check_uniform(init.invariant_uniform(SHAPE).numpy(), 1 / math.sqrt(200))
    check_uniform(init.invariant_uniform(SHAPE, mode="fan_out").numpy(), 1 / math.sqrt(240))
    check_uniform(init.xavier_uniform(SHAPE, gain=2).numpy(), 2 * math.sqrt(6 / 440))
    check_uniform(
        init.kaiming_uniform_(mf.zeros(SHAPE), a=0.2).numpy(), math.sqrt(2 / 1.04) * math.sqrt(3 / 200)
    )
    values = init.uniform([1000], "float64", 2, 5)
    assert values.dtype == "float64"
    assert 2 <= values.numpy().min() < 2.1
    assert 4.9 < values.numpy().max() <= 5


def test_normal_family():
    for values, std in (
        (init.gauss(SHAPE, "float32", 3.0, 0.5), 0.5),
        (init.relu_invariant_gauss(SHAPE), math.sqrt(2 / 200)),
        (init.xavier_gauss(SHAPE), math.sqrt(2 / 440)),
        (init.kaiming_normal_(mf.zeros(SHAPE), mode="fan_out", nonlinearity="relu"), math.sqrt(2 / 240)),
    ):
        assert values.numpy().std() == pytest.approx(std, rel=0.03)
        assert values.requires_grad


def test_trunc_normal():
    values = init.trunc_normal_(mf.zeros([200, 100]), 0.0, 1.0, -0.5, 1.0).numpy()
    assert -0.5 <= values.min() < -0.499
    assert 0.999 < values.max() <= 1
    # the mean of a standard normal variable that is kept within a..b
    density = [math.exp(-b * b / 2) / math.sqrt(2 * math.pi) for b in (-0.5, 1.0)]
    mass = 0.5 * (math.erf(1 / math.sqrt(2)) + math.erf(0.5 / math.sqrt(2)))
    assert values.mean() == pytest.approx((density[0] - density[1]) / mass, abs=0.01)


def test_constants():
    np.testing.assert_array_equal(init.constant([2], "float32", 7).numpy(), [7, 7])
    np.testing.assert_array_equal(init.zero([1]).numpy(), [0])
    np.testing.assert_array_equal(init.one([1], "int32").numpy(), [1])
    np.testing.assert_array_equal(init.eye([2, 3]).numpy(), np.eye(2, 3))
    var = mf.zeros([2, 2])
    assert init.eye_(var) is var
    np.testing.assert_array_equal(var.numpy(), np.eye(2))
    np.testing.assert_array_equal(init.constant_(var, 4).numpy(), np.full((2, 2), 4))
    assert init.fill(mf.ones(2), 3.0).tolist() == [3, 3]


def test_in_place_keeps_trainability():
    var = mf.zeros([3, 3]).stop_grad()
    assert not init.gauss_(var).requires_grad
    var.start_grad()
    assert init.xavier_uniform_(var).requires_grad
    assert init.one_(init.zero_(var)).numpy().sum() == 9
    assert 0 <= init.random_(var).numpy().min() <= 1


def test_methods_on_var():
    var = mf.zeros([4, 4])
    var.kaiming_normal_().constant_(2.0)
    assert var.numpy().sum() == 32


def test_gains():
    assert init.calculate_gain("linear") == 1
    assert init.calculate_gain("tanh") == pytest.approx(5 / 3)
    assert init.calculate_gain("leaky_relu", 0.1) == pytest.approx(math.sqrt(2 / 1.01))
    with pytest.raises(ArgumentError, match="'swish'"):
        init.calculate_gain("swish")


def test_errors():
    with pytest.raises(ShapeError, match=r"\[invariant_uniform\]"):
        init.invariant_uniform([3])
    with pytest.raises(ShapeError, match=r"\[uniform\]"):
        init.uniform([-1])
    with pytest.raises(ArgumentError, match="fan_both"):
        init.invariant_uniform([3, 3], mode="fan_both")
    with pytest.raises(ArgumentError, match=r"\[trunc_normal_\]"):
        init.trunc_normal_(mf.zeros([1]), std=0)


def test_first_weights_of_layers():
    layer = mf.nn.Linear(400, 300)
    check_uniform(layer.weight.numpy(), 1 / 20)
    assert abs(layer.bias.numpy()).max() <= 1 / 20
    conv = mf.nn.Conv(50, 60, 2)
    check_uniform(conv.weight.numpy(), 1 / math.sqrt(200))
    assert conv.weight.requires_grad
    assert conv.bias.requires_grad
