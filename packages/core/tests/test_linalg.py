"""metafuse.linalg against NumPy: values, gradients (also second ones), stacks of matrices, empty ones, errors."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse import linalg
from metafuse.errors import ArgumentError, DTypeError, ShapeError
from metafuse.nn import ComplexNumber
from metafuse.testing import check_grads

RANDOM = np.random.default_rng(3)
SHAPES = [(3, 3), (2, 4, 3), (2, 3, 4), (2, 1, 5, 2), (1, 1)]
SQUARE = [(3, 3), (2, 1, 4, 4), (1, 1)]


@pytest.fixture(autouse=True)
def reference_backend():
    with mf.flag_scope(backend="reference"):
        yield


def draw(*shape, complex_=False):
    value = RANDOM.standard_normal(shape)
    return value + 1j * RANDOM.standard_normal(shape) if complex_ else value


def var(value):
    if np.iscomplexobj(value):
        return ComplexNumber(mf.array64(value.real), mf.array64(value.imag))
    return mf.array64(value)


def swap(value):
    return np.conj(np.swapaxes(value, -1, -2))


def adjoint(x):
    order = [*range(x.ndim - 2), x.ndim - 1, x.ndim - 2]
    return x.conj().transpose(order) if isinstance(x, ComplexNumber) else x.transpose(order)


def parts(*values):
    """Real Vars of several answers."""
    found = []
    for v in values:
        found += [v.real, v.imag] if isinstance(v, ComplexNumber) else [v]
    return tuple(found)


def check_complex(function, value, order=1):
    """Gradients with respect to both parts; ``function`` answers Vars and ComplexNumbers."""

    def of_parts(real, imag):
        answer = function(ComplexNumber(real, imag))
        return parts(*answer) if isinstance(answer, tuple) else parts(answer)

    check_grads(of_parts, [value.real.copy(), value.imag.copy()], order=order)


close = np.testing.assert_allclose


# -- factorisations ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_svd(shape, complex_):
    value = draw(*shape, complex_=complex_)
    u, s, v = (x.numpy() for x in linalg.svd(var(value)))
    count = min(shape[-2:])
    assert u.shape == (*shape[:-1], count)
    assert v.shape == (*shape[:-2], count, shape[-1])
    close((u * s[..., None, :]) @ v, value, atol=1e-12)
    close(swap(u) @ u, np.broadcast_to(np.eye(count), (*shape[:-2], count, count)), atol=1e-12)
    close(v @ swap(v), np.broadcast_to(np.eye(count), (*shape[:-2], count, count)), atol=1e-12)
    close(s, np.linalg.svd(value, compute_uv=False))


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_svd(shape):
    value = draw(*shape)
    check_grads(lambda x: tuple(linalg.svd(x)), [value])
    # exp of the singular values: what does not depend on the choice of vectors, also to second order

    def function(x):
        u, s, v = linalg.svd(x)
        return u * mf.exp(s).unsqueeze(-2) @ v

    check_grads(function, [value], order=2)


@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 3), (3, 4)])
def test_gradients_of_complex_svd(shape):
    def function(x):
        u, s, v = linalg.svd(x)
        return u * mf.exp(s).unsqueeze(-2) @ v, s, u @ adjoint(u)

    check_complex(function, draw(*shape, complex_=True), order=2 if shape == (3, 3) else 1)


def test_singular_values_have_gradients_where_vectors_are_not_unique():
    for value in (np.eye(3), np.zeros((3, 2)), np.zeros((2, 3))):
        x = mf.array64(value)
        gradient = mf.grad(linalg.svd(x)[1].sum(), x).numpy()
        assert np.isfinite(gradient).all()
        close(np.linalg.svd(gradient, compute_uv=False), np.ones(min(value.shape)))
    x = mf.array64(np.eye(3))
    close(mf.grad(linalg.eigh(x)[0].sum(), x).numpy(), np.eye(3))


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("shape", SQUARE)
def test_eigh(shape, complex_):
    value = draw(*shape, complex_=complex_)
    symmetric = (value + swap(value)) / 2
    w, v = (x.numpy() for x in linalg.eigh(var(value)))  # only the symmetric part counts
    close(w, np.linalg.eigvalsh(symmetric), atol=1e-12)
    close((v * w[..., None, :]) @ swap(v), symmetric, atol=1e-12)


@pytest.mark.parametrize("shape", SQUARE)
def test_gradients_of_eigh(shape):
    check_grads(lambda x: tuple(linalg.eigh(x)), [draw(*shape)], order=2)

    def function(x):
        w, v = linalg.eigh(x)
        return w, v * w.unsqueeze(-2) @ adjoint(v), v.norm()

    check_complex(function, draw(*shape, complex_=True))


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("shape", SQUARE)
def test_eig(shape, complex_):
    value = draw(*shape, complex_=complex_)
    w, v = (x.numpy() for x in linalg.eig(var(value)))
    close(value @ v, v * w[..., None, :], atol=1e-10)
    close(np.linalg.norm(v, axis=-2), 1.0)

    def function(x):  # the phase of the vectors is free
        w, v = linalg.eig(x)
        return w, v.norm(), v * w.unsqueeze(-2) @ adjoint(v)

    if complex_:
        check_complex(function, value)
    else:
        check_grads(lambda x: parts(*function(x)), [value])


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_qr(shape, complex_):
    value = draw(*shape, complex_=complex_)
    q, r = (x.numpy() for x in linalg.qr(var(value)))
    expected = np.linalg.qr(value)
    close(q, expected[0], atol=1e-12)
    close(r, expected[1], atol=1e-12)
    if complex_:
        check_complex(lambda x: linalg.qr(x), value)
    else:
        check_grads(lambda x: tuple(linalg.qr(x)), [value], order=2)


@pytest.mark.parametrize("complex_", [False, True])
def test_cholesky(complex_):
    root = draw(2, 3, 3, complex_=complex_)
    value = root @ swap(root) + np.eye(3)
    close(linalg.cholesky(var(value)).numpy(), np.linalg.cholesky(value), atol=1e-12)
    if complex_:
        check_complex(lambda x: linalg.cholesky(x @ adjoint(x) + mf.array64(np.eye(3))), root, order=2)
    else:
        check_grads(linalg.cholesky, [value], order=2)


# -- inverses ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("complex_", [False, True])
def test_inv_and_pinv(complex_):
    value = draw(2, 3, 3, complex_=complex_)
    close(linalg.inv(var(value)).numpy(), np.linalg.inv(value), atol=1e-10)
    wide = draw(2, 4, 3, complex_=complex_)
    close(linalg.pinv(var(wide)).numpy(), np.linalg.pinv(wide), atol=1e-10)
    if complex_:
        check_complex(linalg.inv, value, order=2)
        check_complex(linalg.pinv, wide)
    else:
        check_grads(linalg.inv, [value], order=2)
        for matrix in (wide, swap(wide), value):
            check_grads(linalg.pinv, [matrix], order=2)


def test_pinv_ignores_rounding_errors_of_its_own_precision():
    value = np.outer([1.0, 2.0, 3.0], [1.0, 0.1, 0.7])
    found = linalg.pinv(mf.array(value, "float32"))
    assert found.dtype == "float32"
    close(found.numpy(), np.linalg.pinv(value, rcond=1e-6), rtol=1e-4)


def test_determinants():
    for shape in SQUARE:
        value = draw(*shape)
        sign, size = np.linalg.slogdet(value)
        close(linalg.det(var(value)).numpy(), np.reshape(np.linalg.det(value), shape[:-2] or (1,)))
        found = linalg.slogdet(var(value))
        close(found[0].numpy(), np.reshape(sign, shape[:-2] or (1,)))
        close(found[1].numpy(), np.reshape(size, shape[:-2] or (1,)))
        check_grads(linalg.det, [value], order=2)
        check_grads(lambda x: linalg.slogdet(x)[1], [value], order=2)


def test_the_gradient_of_the_determinant_exists_for_singular_matrices():
    for value in ([[1.0, 2.0], [2.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]], [[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]):
        value = np.array(value)
        count = len(value)
        cofactors = np.zeros_like(value)
        for i in range(count):
            for j in range(count):
                minor = np.delete(np.delete(value, i, 0), j, 1)
                cofactors[i, j] = (-1) ** (i + j) * np.linalg.det(minor)
        x = mf.array64(value)
        close(mf.grad(linalg.det(x), x).numpy(), cofactors, atol=1e-12)


@pytest.mark.parametrize(
    ("a", "b"),
    [((3, 3), (3,)), ((3, 3), (3, 2)), ((2, 3, 3), (2, 3)), ((2, 3, 3), (3, 1)), ((3, 3), (4, 3, 2)), ((2, 1, 3, 3), (5, 3, 2))],
)  # fmt: skip
def test_solve(a, b):
    matrix, right = draw(*a), draw(*b)
    vector = len(b) == 1 or b == a[:-1]
    found = linalg.solve(var(matrix), var(right)).numpy()
    product = (matrix @ found[..., None])[..., 0] if vector else matrix @ found
    close(product, np.broadcast_to(right, product.shape), atol=1e-10)
    check_grads(linalg.solve, [matrix, right], order=2)


def test_solve_complex_and_mixed():
    matrix, right = draw(3, 3, complex_=True), draw(3, 2)
    close(
        linalg.solve(var(matrix), var(right)).numpy(),
        np.linalg.solve(matrix, right.astype(complex)),
        atol=1e-10,
    )
    check_complex(lambda z: linalg.solve(z, var(right)), matrix)


# -- under the names of the reference API ------------------------------------------------------------------------------
def test_complex_names():
    value = draw(3, 3, complex_=True)
    z = var(value)
    close(linalg.complex_inv(z).numpy(), np.linalg.inv(value), atol=1e-10)
    close(linalg.complex_svd(z)[1].numpy(), np.linalg.svd(value, compute_uv=False))
    close(linalg.complex_qr(z)[1].numpy(), np.linalg.qr(value)[1], atol=1e-12)
    close(np.sort(linalg.complex_eig(z)[0].numpy()), np.sort(np.linalg.eigvals(value)), atol=1e-10)


def test_einsum_is_the_operator():
    assert linalg.einsum is mf.einsum
    a, b, c = draw(3, 4), draw(4, 5), draw(5, 2)
    close(linalg.einsum("ij,jk,kl->il", var(a), var(b), var(c)).numpy(), a @ b @ c)


def test_records_are_found_by_their_dotted_names():
    from metafuse.ops.registry import all_operators, find

    names = {r.name for r in all_operators()}
    assert {
        f"linalg.{n}"
        for n in ("svd", "eigh", "eig", "qr", "cholesky", "inv", "pinv", "det", "slogdet", "solve")
    } <= names
    assert find("linalg.inv").function is linalg.inv
    assert not any("." in name for name in dir(mf))


# -- dtypes, empty stacks, errors ------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_dtype_stays(dtype):
    x = mf.array(np.array([[2.0, 1.0], [1.0, 3.0]]), dtype)
    for function in (linalg.inv, linalg.pinv, linalg.det, linalg.cholesky):
        assert function(x).dtype == dtype
    answers = (
        *linalg.svd(x),
        *linalg.eigh(x),
        *linalg.qr(x),
        *linalg.slogdet(x),
        *linalg.eig(x),
        linalg.solve(x, x),
    )
    assert all(y.dtype == dtype for y in answers)
    close(linalg.inv(x).numpy(), [[0.6, -0.2], [-0.2, 0.4]], rtol=2e-3)


def test_integers_are_computed_in_float32():
    found = linalg.inv(mf.array([[2, 0], [0, 4]]))
    assert found.dtype == "float32"
    close(found.numpy(), [[0.5, 0], [0, 0.25]])


def test_empty():
    assert linalg.inv(mf.zeros(0, 3, 3)).numpy().shape == (0, 3, 3)
    assert linalg.inv(mf.zeros(2, 0, 0)).numpy().shape == (2, 0, 0)
    assert [x.numpy().shape for x in linalg.svd(mf.zeros(2, 0, 3))] == [(2, 0, 0), (2, 0), (2, 0, 3)]
    assert [x.numpy().shape for x in linalg.qr(mf.zeros(0, 3, 2))] == [(0, 3, 2), (0, 2, 2)]
    assert linalg.pinv(mf.zeros(2, 0)).numpy().shape == (0, 2)
    close(linalg.det(mf.zeros(2, 0, 0)).numpy(), [1, 1])
    x = mf.zeros(0, 2, 2).start_grad()
    assert mf.grad(linalg.inv(x).sum(), x).numpy().shape == (0, 2, 2)


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (
            lambda: linalg.inv(mf.ones(2, 3)),
            ShapeError,
            r"\[linalg.inv\] x must be square .* got shape \[2, 3\]",
        ),
        (lambda: linalg.svd(mf.ones(3)), ShapeError, r"\[linalg.svd\] x must be a matrix"),
        (lambda: linalg.det(ComplexNumber(mf.eye(2))), DTypeError, "must be real"),
        (
            lambda: linalg.solve(mf.eye(2), mf.ones(3, 1)),
            ShapeError,
            r"\[2, 2\] needs b \[\.\.\., 2, k\], got \[3, 1\]",
        ),
        (lambda: linalg.inv("matrix"), DTypeError, "linalg.inv"),
        (lambda: linalg.inv(mf.zeros(2, 2)).numpy(), ArgumentError, "singular matrix"),
        (lambda: linalg.solve(mf.zeros(2, 2), mf.ones(2)).numpy(), ArgumentError, "singular matrix"),
        (lambda: linalg.cholesky(-mf.eye(2)).numpy(), ArgumentError, "not positive definite"),
        (lambda: linalg.eig(mf.array([[np.nan, 0], [0, 1.0]]))[0].numpy(), ArgumentError, "infs or nans"),
    ],
)
def test_errors(function, error, words):
    with pytest.raises(error, match=words):
        function()


def test_an_error_of_values_names_the_line_that_asked():
    bad = linalg.inv(mf.zeros(2, 2))
    with pytest.raises(ArgumentError, match="test_linalg.py"):
        bad.numpy()


def test_equal_calls_are_one_program():
    first, second = linalg.svd(mf.eye(3))[1], linalg.svd(mf.eye(3) * 2)[1]
    assert first._node.inputs[0].sig is second._node.inputs[0].sig
    close(second.numpy(), [2, 2, 2])
