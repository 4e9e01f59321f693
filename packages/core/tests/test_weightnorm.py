"""Weight normalisation: values, what is trained, copies, removal; and softmax under its other name."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import metafuse as mf
from metafuse.errors import ArgumentError, DTypeError, ShapeError
from metafuse.other.code_softmax import can_softmax_v1, softmax_v1
from metafuse.weightnorm import WeightNorm, remove_weight_norm, weight_norm

close = np.testing.assert_allclose


@pytest.fixture(autouse=True)
def reference_backend():
    with mf.flag_scope(backend="reference"):
        yield


@pytest.mark.parametrize("dim", [0, 1, None, -1])
def test_the_weight_stays_and_its_parts_are_lengths_and_directions(dim):
    layer = mf.nn.Conv(3, 4, 2)
    before = layer.weight.numpy()
    assert weight_norm(layer, "weight", dim) is layer
    close(layer.weight.numpy(), before, rtol=1e-5)
    others = tuple(range(4)) if dim in (None, -1) else tuple(d for d in range(4) if d != dim)
    close(layer.weight_g.numpy(), np.sqrt((before**2).sum(others, keepdims=True)), rtol=1e-5)
    close(layer.weight_v.numpy(), before)
    layer.weight_v.assign(layer.weight_v * 3)  # the length of the direction does not count
    close(layer.weight.numpy(), before, rtol=1e-5)
    layer.weight_g.assign(layer.weight_g * 2)
    close(layer.weight.numpy(), 2 * before, rtol=1e-5)


def test_training_changes_both_parts():
    layer = weight_norm(mf.nn.Linear(3, 2), "weight", 0)
    assert [name for name, _ in layer.named_parameters()] == ["bias", "weight_g", "weight_v"]
    before = {k: v.numpy() for k, v in layer.state_dict().items()}
    optimizer = mf.optim.SGD(layer.parameters(), 0.1)
    optimizer.step((layer(mf.ones(4, 3)) ** 2).sum())
    for name, var in layer.named_parameters():
        assert abs(var.numpy() - before[name]).max() > 0, name


def test_a_direction_of_zero_gives_a_weight_of_zero():
    layer = mf.nn.Linear(3, 2)
    layer.weight.assign(mf.zeros(2, 3))
    weight_norm(layer, "weight", 0)
    assert not layer.weight.numpy().any()
    assert np.isfinite(mf.grad(layer(mf.ones(1, 3)).sum(), layer.weight_v).numpy()).all()


def test_several_weights_copies_and_removal():
    layer = weight_norm(weight_norm(mf.nn.Linear(3, 2), "weight", 0), "bias", None)
    x = mf.ones(1, 3)
    expected = layer(x).numpy()
    assert type(layer).__name__ == "Linear"
    assert isinstance(layer, mf.nn.Linear)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        close(other(x).numpy(), expected)
        assert other.weight_g is not layer.weight_g
        remove_weight_norm(other)
        close(other(x).numpy(), expected, rtol=1e-5)
    assert sorted(layer.state_dict()) == ["bias_g", "bias_v", "weight_g", "weight_v"]
    remove_weight_norm(layer, "weight")
    remove_weight_norm(layer, "bias")
    assert type(layer) is mf.nn.Linear
    assert sorted(layer.state_dict()) == ["bias", "weight"]
    assert layer.weight.requires_grad
    close(layer(x).numpy(), expected, rtol=1e-5)


def test_the_rule_itself():
    layer = mf.nn.Linear(3, 2)
    before = layer.weight.numpy()
    rule = WeightNorm.apply(layer, "weight", 0)
    close(rule.compute_weight(layer).numpy(), before, rtol=1e-5)
    close(rule(layer, ()).numpy(), before, rtol=1e-5)
    rule.remove(layer)
    close(layer.weight.numpy(), before, rtol=1e-5)


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (lambda: weight_norm(3, "weight", 0), DTypeError, "must be a Module"),
        (
            lambda: weight_norm(mf.nn.Linear(2, 2), "nothing", 0),
            ArgumentError,
            "no floating Var named 'nothing'",
        ),
        (lambda: weight_norm(mf.nn.Linear(2, 2), "weight", 4), ShapeError, "dim must be in"),
        (
            lambda: weight_norm(weight_norm(mf.nn.Linear(2, 2), "weight", 0), "weight", 0),
            ArgumentError,
            "already",
        ),
        (lambda: remove_weight_norm(mf.nn.Linear(2, 2)), ArgumentError, "not normalised"),
    ],
)
def test_errors(function, error, words):
    with pytest.raises(error, match=words):
        function()


def test_softmax_under_its_other_name():
    x = np.random.default_rng(0).standard_normal((2, 3))
    e = np.exp(x)
    close(softmax_v1(mf.array64(x)).numpy(), e / e.sum(-1, keepdims=True))
    close(softmax_v1(mf.array64(x), log=True).numpy(), x - np.log(e.sum(-1, keepdims=True)))
    assert [can_softmax_v1(mf.ones(2, 3), d) for d in (-1, 1, 0, None)] == [True, True, False, False]
