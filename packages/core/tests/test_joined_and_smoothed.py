"""What samples of the conformance kit do not reach: stacks that do not fit, remainders of all signs, edges of label smoothing."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn
from metafuse.errors import ArgumentError, DTypeError, ShapeError
from metafuse.testing import check_grads


@pytest.mark.parametrize("name", ["vstack", "hstack", "dstack"])
def test_stacks_as_numpy_makes_them(name):
    rng = np.random.default_rng(0)
    ours, theirs = getattr(mf, name), getattr(np, name)
    for shapes in (
        [(3,), (3,)],
        [(2, 3), (2, 3)],
        [(2, 3, 4), (2, 3, 4)],
        [(1,), (1,), (1,)],
        [(2, 0), (2, 0)],
        [(4, 1)],
    ):
        arrays = [rng.standard_normal(shape) for shape in shapes]
        np.testing.assert_array_equal(ours([mf.array64(a) for a in arrays]).numpy(), theirs(arrays))
    assert ours((mf.array([1, 2]), mf.array([1.5, 2.5]))).dtype == "float32"
    assert ours([[1, 2], [3, 4]]).tolist() == theirs([[1, 2], [3, 4]]).tolist()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: mf.vstack([mf.ones(2, 3), mf.ones(4)]), ShapeError, r"\[vstack\] arrays\[1\] counts as \[1, 4\]"),
        (lambda: mf.hstack([mf.ones(2, 3), mf.ones(3, 3)]), ShapeError, r"\[hstack\] .* dimension 1 only"),
        (lambda: mf.hstack([mf.ones(2), mf.ones(2, 2)]), ShapeError, r"\[hstack\]"),
        (lambda: mf.dstack([mf.ones(2, 3), mf.ones(3, 2)]), ShapeError, r"\[dstack\] .* dimension 2 only"),
        (lambda: mf.dstack([]), ArgumentError, "an empty one"),
        (lambda: mf.vstack(mf.ones(2, 2)), ArgumentError, "got Var"),
        (lambda: mf.vstack([mf.ones(2), "x"]), DTypeError, r"arrays\[1\]"),
        (lambda: nn.cross_entropy_loss(mf.ones(1, 2), mf.array([0]), label_smoothing=1.5), ArgumentError, "from 0 to 1"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=-0.1), ArgumentError, r"\[CrossEntropyLoss\] label_smoothing"),
        (lambda: nn.CrossEntropyLoss(reduction="average"), ArgumentError, r"\[CrossEntropyLoss\] reduction"),
        (lambda: nn.cross_entropy_loss(mf.ones(2, 3), mf.ones(2)), DTypeError, r"shape \(2, 3\), got float32 \(2,\)"),
        (lambda: nn.CrossEntropyLoss(None, 0)(mf.ones(2, 3), mf.ones(2, 3)), ArgumentError, "for class numbers, got 0"),
        (lambda: nn.nll_loss(mf.ones(2, 3), mf.ones(2, 3)), DTypeError, r"class numbers as integers, got float32"),
        (lambda: nn.smooth_l1_loss(mf.ones(2), mf.ones(2), beta=-1), ArgumentError, r"beta must be a number >= 0, got -1"),
        (lambda: nn.SmoothL1Loss(beta="1"), ArgumentError, r"\[SmoothL1Loss\] beta"),
        (lambda: nn.huber_loss(mf.ones(2), mf.ones(2), delta=0), ArgumentError, r"delta must be a number > 0, got 0"),
        (lambda: nn.l1_loss(mf.ones(2), mf.ones(2), "avg"), ArgumentError, r"\[l1_loss\] reduction"),
        (lambda: nn.BCELoss(reduction="batchmean"), ArgumentError, r"\[BCELoss\] reduction"),
        (lambda: nn.BCEWithLogitsLoss(reduction="avg"), ArgumentError, r"\[BCEWithLogitsLoss\] reduction"),
    ],
)  # fmt: skip
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int8"])
def test_remainders_have_the_sign_of_the_dividend(dtype):
    x = np.array([7, -7, 7, -7, 0, 6, -128], dtype)
    y = np.array([3, 3, -3, -3, 5, 3, -1], dtype)
    np.testing.assert_array_equal(mf.fmod(mf.array(x, dtype), mf.array(y, dtype)).numpy(), np.fmod(x, y))
    np.testing.assert_array_equal(mf.array(x, dtype).fmod(4).numpy(), np.fmod(x, 4))
    nothing = mf.fmod(mf.array(x, dtype), 0).numpy()
    assert np.isnan(nothing).all() if dtype.startswith("float") else not nothing.any()


def test_remainders_at_the_edges():
    x, y = np.array([np.inf, 5.0, -5.0, np.nan, 5.5]), np.array([2.0, np.inf, -np.inf, 1.0, -2.0])
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(mf.fmod(mf.array64(x), mf.array64(y)).numpy(), np.fmod(x, y))
    x, y = mf.array64([5.5, -5.5]), mf.array64([2.0, 2.0])
    assert [g.tolist() for g in mf.grad(mf.fmod(x, y).sum(), [x, y])] == [[1, 1], [-2, 2]]


def test_all_smoothed_is_the_mean_over_classes():
    rng = np.random.default_rng(1)
    logits, target = mf.array64(rng.standard_normal((5, 4))), mf.array([0, 3, -100, 2, 1])
    every = -nn.log_softmax(logits, 1).numpy().mean(1)
    every[2] = 0
    options = {"ignore_index": -100, "label_smoothing": 1.0}
    np.testing.assert_allclose(
        nn.cross_entropy_loss(logits, target, reduction="none", **options).numpy(), every
    )
    np.testing.assert_allclose(nn.cross_entropy_loss(logits, target, **options).item(), every.sum() / 4)
    layer = nn.CrossEntropyLoss(mf.array64([1.0, 2.0, 0.5, 1.5]), -100, "sum", 0.3)
    check_grads(lambda x: layer(x, target), [logits])


def test_a_weight_of_classes_counts_in_both_parts():
    rng = np.random.default_rng(2)
    logits, weight = rng.standard_normal((3, 4)), np.array([0.5, 1.0, 2.0, 4.0])
    target = np.array([3, 0, 2])
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    wanted = (np.eye(4)[target] * 0.8 + 0.2 / 4) * weight
    found = nn.cross_entropy_loss(
        mf.array64(logits), mf.array(target), mf.array64(weight), label_smoothing=0.2
    )
    np.testing.assert_allclose(found.item(), -(wanted * logs).sum() / weight[target].sum())


def test_probabilities_that_are_sure_are_class_numbers():
    rng = np.random.default_rng(3)
    logits, target = mf.array64(rng.standard_normal((2, 5, 3))), np.array([[0, 4, 2], [1, 1, 3]])
    sure = mf.array64(np.moveaxis(np.eye(5)[target], -1, 1))
    for options in ({}, {"reduction": "sum"}, {"reduction": "none"}, {"label_smoothing": 0.2}):
        numbers = nn.cross_entropy_loss(logits, mf.array(target), **options).numpy()
        np.testing.assert_allclose(nn.cross_entropy_loss(logits, sure, **options).numpy(), numbers)
    check_grads(lambda x, t: nn.cross_entropy_loss(x, t), [logits, sure])


def test_probabilities_of_another_type_do_not_change_the_type_of_the_loss():
    logits = mf.ones(2, 3)
    for dtype in ("float16", "float32", "float64"):
        assert nn.cross_entropy_loss(logits, mf.full([2, 3], 0.25, dtype)).item() == pytest.approx(
            0.824, abs=1e-3
        )
    assert nn.cross_entropy_loss(logits, mf.array64(np.ones((2, 3)))).dtype == "float32"
    assert np.isnan(nn.cross_entropy_loss(mf.zeros([0, 3]), mf.zeros([0, 3])).item())
    assert nn.cross_entropy_loss(mf.zeros([0, 3]), mf.zeros([0, 3]), reduction="none").shape == (0,)


def test_one_sample_without_a_batch():
    x = mf.array([1.0, 2.0, 0.5])
    wanted = nn.cross_entropy_loss(x.unsqueeze(0), mf.array([1])).item()
    assert nn.cross_entropy_loss(x, mf.array([1])).item() == pytest.approx(wanted)
    assert nn.nll_loss(nn.log_softmax(x, 0), mf.array(1)).item() == pytest.approx(wanted)
    assert nn.cross_entropy_loss(x, mf.array([0.0, 1.0, 0.0])).item() == pytest.approx(wanted)
