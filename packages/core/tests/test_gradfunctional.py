"""Products with Jacobians and Hessians, and these themselves, against matrices written out by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import metafuse as mf
from metafuse import gradfunctional as gf
from metafuse.errors import ArgumentError, DTypeError, GradientError, ShapeError

close = np.testing.assert_allclose
X, Y = np.array([0.1, 0.2, 0.3]), np.array([1.0, 2.0, 3.0])
#: of ``pair``, per answer and input
JACOBIANS = [[np.diag(Y * np.exp(X)), np.diag(np.exp(X))], [(Y * Y)[None], (2 * X * Y)[None]]]


@pytest.fixture(autouse=True)
def reference_backend():
    with mf.flag_scope(backend="reference"):
        yield


def pair(x, y):
    return mf.exp(x) * y, (x * y * y).sum()


def inputs():
    return mf.array64(X), mf.array64(Y)


@pytest.mark.parametrize("create_graph", [False, True])
def test_vjp(create_graph):
    v = np.array([1.0, 2.0, 3.0]), np.array([4.0])
    outputs, found = gf.vjp(pair, inputs(), tuple(map(mf.array64, v)), create_graph)
    close(outputs[0].numpy(), np.exp(X) * Y)
    close(outputs[1].numpy(), [(X * Y * Y).sum()])
    for k in range(2):
        close(found[k].numpy(), v[0] @ JACOBIANS[0][k] + v[1] @ JACOBIANS[1][k])
    assert found[0].requires_grad is create_graph


@pytest.mark.parametrize("create_graph", [False, True])
def test_jvp(create_graph):
    v = X + 1, Y - 1
    outputs, found = gf.jvp(pair, inputs(), tuple(map(mf.array64, v)), create_graph)
    close(outputs[0].numpy(), np.exp(X) * Y)
    for k in range(2):
        close(found[k].numpy(), JACOBIANS[k][0] @ v[0] + JACOBIANS[k][1] @ v[1])
    assert found[0].requires_grad is create_graph


@pytest.mark.parametrize("create_graph", [False, True])
def test_jacobian(create_graph):
    found = gf.jacobian(pair, inputs(), create_graph)
    for i in range(2):
        for j in range(2):
            close(found[i][j].numpy(), JACOBIANS[i][j])
            assert found[i][j].requires_grad is create_graph
    single = gf.jacobian(lambda x: x.reshape([1, 3]) * x.reshape([3, 1]), mf.array64(X))
    expected = np.einsum("ik,j->jik", np.eye(3), X) + np.einsum("jk,i->jik", np.eye(3), X)
    close(single.numpy(), expected)
    assert single.shape == (3, 3, 3)


def test_hessian_and_hvp():
    def function(x, y):
        return (mf.exp(x) * y * y).sum()

    e = np.exp(X)
    blocks = [[np.diag(e * Y * Y), np.diag(2 * e * Y)], [np.diag(2 * e * Y), np.diag(2 * e)]]
    found = gf.hessian(function, inputs())
    v = X + 1, Y - 1
    _, product = gf.hvp(function, inputs(), tuple(map(mf.array64, v)))
    for i in range(2):
        close(product[i].numpy(), blocks[i][0] @ v[0] + blocks[i][1] @ v[1])
        for j in range(2):
            close(found[i][j].numpy(), blocks[i][j])
    close(gf.hessian(lambda x: (x**3).sum(), mf.array64(X)).numpy(), np.diag(6 * X))


def test_answers_can_be_differentiated_again():
    x = mf.array64(X)
    _, product = gf.hvp(lambda z: (z**4).sum(), x, mf.ones_like(x), create_graph=True)
    close(mf.grad(product.sum(), x).numpy(), 24 * X)
    third = gf.jacobian(lambda z: gf.hessian(lambda w: (w**3).sum(), z, create_graph=True), x)
    expected = np.zeros((3, 3, 3))
    expected[range(3), range(3), range(3)] = 6
    close(third.numpy(), expected)


def test_v_may_be_left_out_where_it_is_one_number():
    close(gf.vjp(lambda x: x.sum(), mf.array64(X))[1].numpy(), np.ones(3))
    close(gf.jvp(lambda x: x * x, mf.array64([3.0]))[1].numpy(), [6.0])


def test_no_path_gives_zeros_without_a_warning_or_an_error_if_strict():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        close(gf.vjp(lambda x, y: x.sum(), inputs())[1][1].numpy(), np.zeros(3))
        close(gf.jacobian(lambda x, y: x * 2, inputs())[1].numpy(), np.zeros((3, 3)))
        close(gf.hessian(lambda x: x.sum(), mf.array64(X)).numpy(), np.zeros((3, 3)))
    with pytest.raises(GradientError, match=r"\[vjp\] .* does not depend on input 1"):
        gf.vjp(lambda x, y: x.sum(), inputs(), strict=True)
    with pytest.raises(GradientError, match="input 1"):
        gf.jacobian(lambda x, y: x * 2, inputs(), strict=True)


def test_empty():
    assert gf.jacobian(lambda x: x * 2, mf.zeros(0)).shape == (0, 0)
    assert gf.vjp(lambda x: x * 2, mf.zeros(0), mf.zeros(0))[1].shape == (0,)


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (lambda: gf.vjp(lambda x: x, mf.array64(X)), ArgumentError, r"v may only be None .* got \[3\]"),
        (lambda: gf.vjp(lambda x: 3, mf.array64(X)), DTypeError, "answer of func must be a Var"),
        (lambda: gf.vjp(lambda x: x, [1.0]), DTypeError, "inputs must be a Var"),
        (lambda: gf.vjp(lambda x: x, mf.array([1, 2])), DTypeError, "inputs must be floating"),
        (lambda: gf.vjp(lambda x: x, mf.array64(X), mf.ones(2)), ShapeError, r"\[3\], got \[2\]"),
        (lambda: gf.jvp(lambda x, y: x, inputs(), mf.ones(3)), ArgumentError, "one part per input: 2, got 1"),
        (lambda: gf.hessian(lambda x: x, mf.array64(X)), ArgumentError, "one Var of one element"),
        (lambda: gf.jacobian(lambda x: x > 0, mf.array64(X)), DTypeError, "floating"),
    ],
)
def test_errors(function, error, words):
    with pytest.raises(error, match=words):
        function()
