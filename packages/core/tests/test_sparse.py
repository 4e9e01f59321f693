"""Sparse arrays against their dense values; gradients of values and dense operands; what is rejected."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse.errors import ArgumentError, DTypeError, ShapeError
from metafuse.sparse import SparseVar, sparse_array, spmm
from metafuse.testing import check_grads

close = np.testing.assert_allclose
RANDOM = np.random.default_rng(2)
INDICES = np.stack([RANDOM.integers(0, 4, 9), RANDOM.integers(0, 5, 9)])  # some places twice
VALUES = RANDOM.standard_normal(9)
DENSE = np.zeros((4, 5))
np.add.at(DENSE, tuple(INDICES), VALUES)


@pytest.fixture(autouse=True)
def reference_backend():
    with mf.flag_scope(backend="reference"):
        yield


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_values(dtype):
    x = sparse_array(mf.array(INDICES, dtype), mf.array64(VALUES), [4, 5])
    close(x.to_dense().numpy(), DENSE)
    close(x.t().to_dense().numpy(), DENSE.T)
    close(x.t().t().to_dense().numpy(), DENSE)
    y = RANDOM.standard_normal((5, 3))
    close(spmm(x, mf.array64(y)).numpy(), DENSE @ y)
    close((x @ mf.array64(y[:, 0])).numpy(), DENSE @ y[:, 0])
    close(spmm(x.t(), mf.array64(y[:4])).numpy(), DENSE.T @ y[:4])
    assert (x.shape, x.ndim, x.nnz, x.dtype) == ((4, 5), 2, 9, "float64")


def test_any_number_of_dimensions():
    indices = RANDOM.integers(0, 3, (3, 6))
    dense = np.zeros((3, 4, 5))
    np.add.at(dense, tuple(indices), 1.0)
    close(SparseVar(indices, np.ones(6, "f"), (3, 4, 5)).to_dense().numpy(), dense)
    close(SparseVar([[2, 0]], [1.0, 2.0], [4]).to_dense().numpy(), [2, 0, 1, 0])


def test_gradients():
    y = RANDOM.standard_normal((5, 2))
    check_grads(lambda v, m: spmm(sparse_array(INDICES, v, [4, 5]), m), [VALUES, y], order=2)
    check_grads(lambda v: sparse_array(INDICES, v, [4, 5]).t().to_dense(), [VALUES])


def test_dtypes_promote():
    x = sparse_array(INDICES, mf.array(np.ones(9), "int32"), [4, 5])
    assert spmm(x, mf.ones(5, 2)).dtype == "float32"
    assert x.to_dense().dtype == "int32"


def test_empty():
    x = sparse_array(np.zeros((2, 0), int), np.zeros(0, "f"), [2, 3])
    assert not x.to_dense().numpy().any()
    close(spmm(x, mf.ones(3, 2)).numpy(), np.zeros((2, 2)))
    close(spmm(sparse_array([[0], [0]], [1.0], [2, 3]), mf.ones(3, 0)).numpy(), np.zeros((2, 0)))
    assert "nnz=0" in repr(x)


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (lambda: sparse_array([[0], [9]], [1.0], [2, 2]), ArgumentError, r"indices\[1\] must be in 0..1"),
        (lambda: sparse_array([[-1], [0]], [1.0], [2, 2]), ArgumentError, r"indices\[0\] .* got -1..-1"),
        (lambda: sparse_array([[0.0], [1.0]], [1.0], [2, 2]), DTypeError, "must be integers"),
        (lambda: sparse_array([[0, 1]], [1.0], [2]), ShapeError, r"indices \[1, n\]"),
        (lambda: sparse_array([[0]], [1.0], []), ShapeError, "needs values"),
        (lambda: sparse_array([[0]], [1.0], [2]).t(), ShapeError, "needs two dimensions"),
        (lambda: spmm(mf.ones(2, 2), mf.ones(2, 2)), DTypeError, "must be a SparseVar"),
        (
            lambda: spmm(sparse_array([[0], [0]], [1.0], [2, 3]), mf.ones(2, 2)),
            ShapeError,
            r"\[2, 3\] and \[2, 2\]",
        ),
    ],
)
def test_errors(function, error, words):
    with pytest.raises(error, match=words):
        function()
