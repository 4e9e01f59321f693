"""ComplexNumber against NumPy's complex arrays: arithmetic from both sides, shapes, gradients, errors."""

from __future__ import annotations

import operator

import numpy as np
import pytest

import metafuse as mf
from metafuse.errors import ArgumentError, DTypeError, ShapeError
from metafuse.nn import ComplexNumber, view_as_complex
from metafuse.testing import check_grads

RANDOM = np.random.default_rng(4)
close = np.testing.assert_allclose


@pytest.fixture(autouse=True)
def reference_backend():
    with mf.flag_scope(backend="reference"):
        yield


def draw(*shape):
    return RANDOM.standard_normal(shape) + 1j * RANDOM.standard_normal(shape)


def number(value):
    return ComplexNumber(mf.array64(value.real), mf.array64(value.imag))


OTHERS = [
    (number(draw(1)), None),
    (2.5, 2.5),
    (3, 3),
    (1 - 2j, 1 - 2j),
    (np.float64(1.5), 1.5),
    (np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0])),
    (np.array([1 + 1j, 2.0, 3.0]), np.array([1 + 1j, 2.0, 3.0])),
    (mf.array64([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0])),
]


@pytest.mark.parametrize("apply", [operator.add, operator.sub, operator.mul, operator.truediv])
@pytest.mark.parametrize("other", range(len(OTHERS)))
def test_arithmetic_from_both_sides(apply, other):
    theirs, host = OTHERS[other]
    host = theirs.numpy() if host is None else host
    value = draw(2, 3)
    close(apply(number(value), theirs).numpy(), apply(value, host), rtol=1e-6)
    close(apply(theirs, number(value)).numpy(), apply(host, value), rtol=1e-6)


def test_products_of_matrices():
    a, b, real = draw(2, 3), draw(3, 2), RANDOM.standard_normal((3, 2))
    close((number(a) @ number(b)).numpy(), a @ b)
    close((number(a) @ mf.array64(real)).numpy(), a @ real)
    close((mf.array64(real) @ number(a)).numpy(), real @ a)


def test_methods():
    value = draw(2, 1, 3)
    z = number(value)
    close((-z).numpy(), -value)
    close(z.conj().numpy(), value.conj())
    close(z.exp().numpy(), np.exp(value))
    close(z.norm().numpy(), np.abs(value))
    close(z.sum(2).numpy(), value.sum(2))
    close(z.sum((0, 2), keepdims=True).numpy(), value.sum((0, 2), keepdims=True))
    close(z.reshape([3, 2]).numpy(), value.reshape(3, 2))
    close(z.reshape(6).numpy(), value.reshape(6))
    close(z.permute(2, 0, 1).numpy(), value.transpose(2, 0, 1))
    close(z.transpose(2, 0, 1).numpy(), value.transpose(2, 0, 1))
    close(z.squeeze(1).numpy(), value.squeeze(1))
    close(z.unsqueeze(0).numpy(), value[None])
    close(z[1, :, 1:].numpy(), value[1, :, 1:])
    close(z.squeeze(1).broadcast([2, 4, 3], [1]).numpy(), np.broadcast_to(value, (2, 4, 3)))
    close(z.fft2().numpy(), np.fft.fft2(value))
    close(z.fft2().ifft2().numpy(), value, atol=1e-12)
    assert (z.shape, z.ndim, len(z), z.dtype) == ((2, 1, 3), 3, 2, "float64")
    assert "ComplexNumber" in repr(z)
    close(number(np.array([2 + 3j])).item(), 2 + 3j)


def test_made_from_parts_or_pairs():
    pairs = mf.array([[1.0, 2.0], [3.0, 4.0]])
    z = view_as_complex(pairs)
    close(z.numpy(), [1 + 2j, 3 + 4j])
    close(ComplexNumber(pairs, is_concat_value=True).value.numpy(), pairs.numpy())
    assert z.numpy().dtype == np.complex64
    assert ComplexNumber(mf.array([1, 2])).dtype == "float32"
    close(ComplexNumber(mf.array([1, 2])).numpy(), [1, 2])


def test_gradients():
    value = draw(3)

    def function(real, imag):
        z = ComplexNumber(real, imag)
        y = (z * z.conj() + z.exp() / (z + 2.0) - 1j * z).sum()
        return y.real, y.imag, z.norm()

    check_grads(function, [value.real.copy(), value.imag.copy()], order=2)
    zero = mf.zeros(2).start_grad()
    assert not mf.grad(ComplexNumber(zero, zero * 1).norm().sum(), zero).numpy().any()


def test_the_gradient_path_can_be_cut():
    z = number(draw(2))
    assert z.requires_grad
    assert not z.detach().requires_grad
    assert not number(draw(2)).stop_grad().requires_grad
    assert number(draw(2)).stop_grad().start_grad().requires_grad


def test_errors():
    with pytest.raises(ShapeError, match="last extent must be 2"):
        view_as_complex(mf.ones(2, 3))
    with pytest.raises(ArgumentError, match="imag must be None"):
        ComplexNumber(mf.ones(2), mf.ones(2), is_concat_value=True)
    with pytest.raises(ShapeError):
        ComplexNumber(mf.ones(2), mf.ones(3))
    with pytest.raises(DTypeError, match="needs a number"):
        number(draw(2)) + "text"
