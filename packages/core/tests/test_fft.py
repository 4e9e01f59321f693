"""metafuse.fft against numpy.fft: every transform, normalisation, number of points and dimension; gradients; errors."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse import fft
from metafuse.errors import ArgumentError, DTypeError, ShapeError
from metafuse.nn import ComplexNumber
from metafuse.testing import check_grads

RANDOM = np.random.default_rng(6)
REAL, IMAG = RANDOM.standard_normal((2, 3, 5, 4))
ONE = [{}, {"n": 6, "dim": 1}, {"n": 3, "dim": -3}, {"n": 1}]
TWO = [{}, {"s": [6, 3], "dim": [0, 1]}, {"s": [3, 5], "dim": [1, -1]}]
NAMES = {n: ONE if n in ("fft", "ifft", "rfft", "irfft") else TWO
         for n in ("fft", "ifft", "rfft", "irfft", "fft2", "ifft2", "rfft2", "irfft2", "fftn", "ifftn")}  # fmt: skip


@pytest.fixture(autouse=True)
def reference_backend():
    with mf.flag_scope(backend="reference"):
        yield


def parts(y):
    return (y.real, y.imag) if isinstance(y, ComplexNumber) else (y,)


@pytest.mark.parametrize("norm", [None, "backward", "ortho", "forward"])
@pytest.mark.parametrize("name", NAMES)
def test_values(name, norm):
    axis = "axis" if NAMES[name] is ONE else "axes"
    for options in NAMES[name]:
        theirs = {axis if k == "dim" else k: v for k, v in options.items()}
        if name.startswith("rfft"):
            given, host = mf.array64(REAL), REAL
        else:
            given, host = ComplexNumber(mf.array64(REAL), mf.array64(IMAG)), REAL + 1j * IMAG
        found = getattr(fft, name)(given, norm=norm, **options)
        expected = getattr(np.fft, name)(host, norm=norm, **theirs)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("norm", [None, "ortho", "forward"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients(name, norm):
    function = getattr(fft, name)
    for options in NAMES[name][:2]:
        if name.startswith("rfft"):
            check_grads(lambda x, o=options: parts(function(x, norm=norm, **o)), [REAL], order=2)
        else:
            inputs = [REAL, IMAG]
            check_grads(
                lambda x, y, o=options: parts(function(ComplexNumber(x, y), norm=norm, **o)), inputs, order=2
            )


def test_real_and_host_inputs_are_complex_without_imaginary_part():
    np.testing.assert_allclose(fft.fft(mf.array64(REAL)).numpy(), np.fft.fft(REAL))
    np.testing.assert_allclose(fft.fft(REAL[0, 0] + 1j).numpy(), np.fft.fft(REAL[0, 0] + 1j), rtol=1e-5)


def test_dtypes_and_empty_batches():
    assert fft.fft(mf.ones(4).cast("float16")).dtype == "float16"
    assert fft.rfft(mf.array([1, 2, 3])).dtype == "float32"
    assert fft.fft(mf.zeros(0, 3)).numpy().shape == (0, 3)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_frequencies(n):
    np.testing.assert_allclose(fft.fftfreq(n, 0.5).numpy(), np.fft.fftfreq(n, 0.5).astype("f"))
    np.testing.assert_allclose(fft.rfftfreq(n, 0.5, "float64").numpy(), np.fft.rfftfreq(n, 0.5))
    values = np.arange(n * 3).reshape(n, 3)
    for dim in (None, 0, (0, 1)):
        for name in ("fftshift", "ifftshift"):
            found = getattr(fft, name)(mf.array(values), dim).numpy()
            np.testing.assert_array_equal(found, getattr(np.fft, name)(values, dim))
    z = fft.fftshift(ComplexNumber(mf.array(values), mf.array(values)))
    np.testing.assert_array_equal(z.numpy(), np.fft.fftshift(values * (1 + 1j)))


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (lambda: fft.fft(mf.ones(3), 0), ArgumentError, "n must be >= 1, got 0"),
        (lambda: fft.fft(mf.ones(3), 2.5), DTypeError, "got 2.5"),
        (lambda: fft.fft(mf.zeros(2, 0)), ShapeError, "at least one point"),
        (lambda: fft.fft(mf.ones(3), norm="half"), ArgumentError, "norm must be .* got 'half'"),
        (lambda: fft.rfft(ComplexNumber(mf.ones(3))), DTypeError, "must be real"),
        (lambda: fft.irfft(mf.ones(1)), ShapeError, "give n"),
        (lambda: fft.fft2(mf.ones(3)), ShapeError, "dim must be in"),
        (lambda: fft.fft2(mf.ones(3, 3), dim=[1, 1]), ShapeError, "must differ"),
        (lambda: fft.fft2(mf.ones(3, 3), s=3), ArgumentError, "one number per dimension"),
    ],
)
def test_errors(function, error, words):
    with pytest.raises(error, match=words):
        function()
