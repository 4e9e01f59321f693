"""Linear algebra, transforms, derivatives of functions and weight normalisation against PyTorch: values and gradients."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import metafuse as mf
from metafuse import fft, gradfunctional, linalg
from metafuse.nn import ComplexNumber
from metafuse.weightnorm import weight_norm

torch = pytest.importorskip("torch")

RANDOM = np.random.default_rng(12)


def draw(*shape, complex_=False):
    value = RANDOM.standard_normal(shape)
    return value + 1j * RANDOM.standard_normal(shape) if complex_ else value


def ours(value):
    if np.iscomplexobj(value):
        return ComplexNumber(mf.array64(value.real), mf.array64(value.imag))
    return mf.array64(value)


def theirs(value):
    return torch.tensor(value, requires_grad=True)


def leaves(x):
    return [x.real, x.imag] if isinstance(x, ComplexNumber) else [x]


def flat(y):
    """Real answers of one or several Vars, ComplexNumbers or tensors."""
    found = []
    for part in y if isinstance(y, (tuple, list)) else (y,):
        is_complex = isinstance(part, ComplexNumber) or (isinstance(part, torch.Tensor) and part.is_complex())
        found += [part.real, part.imag] if is_complex else [part]
    return found


def close(found, expected):
    np.testing.assert_allclose(
        found.numpy(), np.reshape(expected.detach().numpy(), found.shape), rtol=1e-7, atol=1e-8
    )


def compare(here, there, *inputs):
    """Values of all answers, and gradients of their weighted sum."""
    given, other = [ours(x) for x in inputs], [theirs(x) for x in inputs]
    found, expected = flat(here(*given)), flat(there(*other))
    assert len(found) == len(expected)
    weights = [RANDOM.uniform(0.5, 1.5, tuple(y.shape)) for y in found]
    loss = sum((y * mf.array64(w)).sum() for y, w in zip(found, weights))
    total = sum((y * torch.tensor(w).reshape(y.shape)).sum() for y, w in zip(expected, weights))
    for y, z in zip(found, expected):
        close(y, z)
    gradients = mf.grad(loss, [part for x in given for part in leaves(x)])
    total.backward()
    wanted = [g for x in other for g in flat(x.grad)]
    for g, z in zip(gradients, wanted):
        close(g, z)


def rebuilt(exp, svd, matmul):
    def function(x):
        u, s, v = svd(x)
        return s, matmul(u * exp(s)[..., None, :], v)

    return function


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("shape", [(3, 3), (2, 5, 3), (2, 3, 5)])
def test_svd_pinv_qr(shape, complex_):
    value = draw(*shape, complex_=complex_)

    def torch_svd(x):
        return torch.linalg.svd(x, full_matrices=False)

    def function(x):
        u, s, v = linalg.svd(x)
        return s, u * mf.exp(s).unsqueeze(-2) @ v

    compare(function, rebuilt(torch.exp, torch_svd, lambda a, b: a @ b), value)
    compare(linalg.pinv, torch.linalg.pinv, value)
    if shape[-2] >= shape[-1] or not complex_:
        compare(linalg.qr, torch.linalg.qr, value)


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("shape", [(3, 3), (2, 2, 4, 4)])
def test_square(shape, complex_):
    value = draw(*shape, complex_=complex_)
    compare(linalg.inv, torch.linalg.inv, value)
    compare(
        lambda a, b: linalg.solve(a, b), torch.linalg.solve, value, draw(*shape[:-1], 2, complex_=complex_)
    )

    def definite(x):
        return x @ x.mH + torch.eye(shape[-1])

    def ours_definite(x):
        order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        other = x.conj().transpose(order) if complex_ else x.transpose(order)
        return x @ other + mf.array64(np.eye(shape[-1]))

    compare(lambda x: linalg.cholesky(ours_definite(x)), lambda x: torch.linalg.cholesky(definite(x)), value)
    compare(lambda x: linalg.eigh(ours_definite(x))[0], lambda x: torch.linalg.eigh(definite(x))[0], value)
    if not complex_:
        compare(linalg.det, torch.linalg.det, value)
        compare(lambda x: linalg.slogdet(x)[1], lambda x: torch.linalg.slogdet(x)[1], value)


def test_eig():
    value = draw(4, 4)
    compare(lambda x: linalg.eig(x)[0], lambda x: torch.linalg.eig(x)[0], value)


def test_solve_takes_vectors_as_torch_does():
    a = draw(2, 3, 3)
    compare(linalg.solve, torch.linalg.solve, a, draw(2, 3))
    compare(linalg.solve, torch.linalg.solve, a[0], draw(3))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)]), ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]), ("...i,...i->...", [(2, 3, 4), (3, 4)]),
        ("ii->i", [(3, 3)]), ("i,j,k->kji", [(2,), (3,), (4,)]), ("bhqd,bkhd->bhqk", [(2, 3, 4, 5), (2, 6, 3, 5)]),
    ],
)  # fmt: skip
def test_einsum(equation, shapes):
    values = [draw(*shape) for shape in shapes]
    compare(lambda *x: linalg.einsum(equation, *x), lambda *x: torch.einsum(equation, *x), *values)


@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
@pytest.mark.parametrize(
    "name", ["fft", "ifft", "rfft", "irfft", "fft2", "ifft2", "rfft2", "irfft2", "fftn", "ifftn"]
)
def test_transforms(name, norm):
    value = draw(3, 4, 6, complex_=not name.startswith("rfft"))
    sizes = (
        [{}, {"n": 5, "dim": 1}]
        if name in ("fft", "ifft", "rfft", "irfft")
        else [{}, {"s": (5, 4), "dim": (0, 2)}]
    )
    for options in sizes:
        compare(
            lambda x, o=options: getattr(fft, name)(x, norm=norm, **o),
            lambda x, o=options: getattr(torch.fft, name)(x, norm=norm, **o),
            value,
        )


def test_derivatives_of_functions():
    theirs_ = torch.autograd.functional
    x, y = draw(3), draw(3)
    given, other = (ours(x), ours(y)), (torch.tensor(x), torch.tensor(y))

    def pair(m):
        return lambda a, b: (m.exp(a) * b, (a * b * b).sum().reshape(1))

    def scalar(m):
        return lambda a, b: (m.exp(a) * b * b * a).sum()

    for name, v in (("vjp", (draw(3), draw(1))), ("jvp", (draw(3), draw(3)))):
        found = getattr(gradfunctional, name)(pair(mf), given, tuple(map(ours, v)))
        expected = getattr(theirs_, name)(pair(torch), other, tuple(map(torch.tensor, v)))
        for a, b in zip(found, expected):
            for c, d in zip(a, b):
                close(c, d)
    found, expected = gradfunctional.hvp(scalar(mf), given, given), theirs_.hvp(scalar(torch), other, other)
    for c, d in zip(found[1], expected[1]):
        close(c, d)
    matrices = [(gradfunctional.jacobian(pair(mf), given), theirs_.jacobian(pair(torch), other)),
                (gradfunctional.hessian(scalar(mf), given), theirs_.hessian(scalar(torch), other))]  # fmt: skip
    for found, expected in matrices:
        for a, b in zip(found, expected):
            for c, d in zip(a, b):
                close(c, d)


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm(dim):
    here, there = mf.nn.Conv(3, 4, 2).float64(), torch.nn.Conv2d(3, 4, 2).double()
    there.load_state_dict({k: torch.tensor(v) for k, v in here.state_dict("numpy").items()})
    weight_norm(here, "weight", dim)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the function has a successor with other parameter names
        torch.nn.utils.weight_norm(there, "weight", dim)
    x = draw(2, 3, 5, 5)
    found, expected = here(ours(x)), there(torch.tensor(x))
    close(found, expected)
    gradients = mf.grad((found * found).sum(), [here.weight_g, here.weight_v])
    (expected * expected).sum().backward()
    close(gradients[0], there.weight_g.grad)
    close(gradients[1], there.weight_v.grad)
