"""Losses of point clouds against brute force: values, gradients, every option, what is rejected."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import metafuse as mf
from metafuse.errors import ArgumentError, DTypeError, ShapeError
from metafuse.loss3d import ChamferLoss, EarthMoverDistance, chamfer_loss, earth_mover_distance
from metafuse.loss3d.assignment import assign
from metafuse.testing import check_grads

close = np.testing.assert_allclose
RANDOM = np.random.default_rng(8)
A, B, SMALL = (RANDOM.standard_normal((2, n, 3)) for n in (4, 4, 2))
REDUCED = {"mean": np.mean, "sum": np.sum, None: lambda x: x, "none": lambda x: x}


@pytest.fixture(autouse=True)
def reference_backend():
    with mf.flag_scope(backend="reference"):
        yield


def distances(a, b):
    return np.linalg.norm(a[:, None] - b[None], axis=-1)


def turned(x):
    return np.ascontiguousarray(np.swapaxes(x, 1, 2))


# -- assignment ----------------------------------------------------------------------------------------------------
def least(cost):
    rows = range(len(cost))
    return min(sum(cost[i, j] for i, j in zip(rows, order)) for order in itertools.permutations(rows))


@pytest.mark.parametrize("size", range(7))
@pytest.mark.parametrize("kind", ["uniform", "whole", "wide", "equal"])
def test_assignments_are_the_best_of_all(size, kind):
    for seed in range(5):
        random = np.random.default_rng(seed)
        cost = {
            "uniform": random.random((size, size)),
            "whole": random.integers(-3, 4, (size, size)).astype(float),  # many ties
            "wide": 10.0 ** random.uniform(-9, 9, (size, size)),
            "equal": np.ones((size, size)),
        }[kind]
        found = assign(cost)
        assert sorted(found) == list(range(size))
        close(cost[range(size), found].sum(), least(cost), rtol=1e-12)


def test_assignments_of_many_rows():
    scipy = pytest.importorskip("scipy.optimize")
    cost = distances(RANDOM.random((150, 3)), RANDOM.random((150, 3)))
    rows, columns = scipy.linear_sum_assignment(cost)
    close(cost[range(150), assign(cost)].sum(), cost[rows, columns].sum())


# -- Chamfer -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("reduction", REDUCED)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_chamfer(reduction, bidirectional):
    reduce = REDUCED[reduction]
    for a, b in ((A, B), (A, SMALL)):
        if bidirectional and b is SMALL and reduction in (None, "none"):
            continue
        there = reduce(np.stack([distances(p, q).min(1) for p, q in zip(a, b)]))
        back = reduce(np.stack([distances(p, q).min(0) for p, q in zip(a, b)]))
        expected = there + back if bidirectional else there
        found = chamfer_loss(mf.array64(a), mf.array64(b), reduction, bidirectional=bidirectional)
        close(found.numpy(), np.reshape(expected, found.shape))
        layer = ChamferLoss(reduction, "BCN", bidirectional)
        close(layer(mf.array64(turned(a)), mf.array64(turned(b))).numpy(), found.numpy())
        check_grads(lambda p, q: chamfer_loss(p, q, reduction, bidirectional=bidirectional), [a, b], order=2)


# -- earth mover ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("reduction", REDUCED)
@pytest.mark.parametrize("sizes", ["equal", "larger", "smaller"])
def test_earth_mover_distance(reduction, sizes):
    a, b = {"equal": (A, B), "larger": (A, SMALL), "smaller": (SMALL, A)}[sizes]
    costs = [distances(p, q) for p, q in zip(a, b)]
    if sizes != "equal":  # every point of the smaller cloud has two partners
        costs = [np.repeat(c if sizes == "larger" else c.T, 2, 1) for c in costs]
    expected = REDUCED[reduction](np.array([least(c) for c in costs]))
    found = earth_mover_distance(mf.array64(a), mf.array64(b), reduction)
    close(found.numpy(), np.reshape(expected, found.shape))
    close(
        EarthMoverDistance()(mf.array64(turned(a)), mf.array64(turned(b)), reduction, "BCN").numpy(),
        found.numpy(),
    )
    check_grads(lambda p, q: earth_mover_distance(p, q, reduction), [a, b], order=2)
    check_grads(lambda p, q: earth_mover_distance(p, q, reduction, "BCN"), [turned(a), turned(b)])


def test_only_one_cloud_needs_to_be_a_var():
    x = mf.array64(A)
    gradient = mf.grad(earth_mover_distance(x, B.astype("f")), x)
    assert gradient.dtype == "float64"
    both = mf.grad(earth_mover_distance(x, mf.array(B, "float32")), x)
    close(gradient.numpy(), both.numpy())


def test_points_that_coincide_have_no_gradient():
    x = mf.array64(A)
    for loss in (earth_mover_distance, chamfer_loss):
        value = loss(x, x.detach())
        assert value.item() == 0
        assert not mf.grad(value, x).numpy().any()


def test_an_empty_batch():
    for loss in (earth_mover_distance, chamfer_loss):
        assert loss(mf.zeros(0, 2, 3), mf.zeros(0, 4, 3), "sum").item() == 0


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (lambda: chamfer_loss(mf.ones(3, 3), mf.ones(3, 3)), ShapeError, r"clouds must be \[B, N, C\]"),
        (lambda: chamfer_loss(mf.ones(1, 0, 3), mf.ones(1, 2, 3)), ShapeError, "no points"),
        (lambda: chamfer_loss(mf.ones(1, 2, 3), mf.ones(2, 2, 3)), ShapeError, "equal batch"),
        (lambda: chamfer_loss(mf.array([[[1]]]), mf.array([[[2]]])), DTypeError, "must be floating"),
        (lambda: chamfer_loss(mf.ones(1, 2, 3), mf.ones(1, 2, 3), "max"), ArgumentError, "reduction must be"),
        (
            lambda: chamfer_loss(mf.ones(1, 2, 3), mf.ones(1, 3, 3), None, bidirectional=True),
            ShapeError,
            "equal numbers",
        ),
        (lambda: ChamferLoss(dims="NBC"), ArgumentError, "dims must be"),
        (lambda: earth_mover_distance(mf.ones(1, 2, 3), mf.ones(1, 3, 3)), ShapeError, "a multiple"),
        (
            lambda: earth_mover_distance(mf.ones(1, 2, 3) / 0, mf.ones(1, 2, 3)).numpy(),
            ArgumentError,
            "not finite",
        ),
    ],
)
def test_errors(function, error, words):
    with pytest.raises(error, match=words):
        function()
