"""Factorisations of matrices: singular values, eigenvalues, QR, Cholesky.

What it is: NumPy's LAPACK on the host, batched, for real and complex matrices, with gradients composed of ordinary operators.
What it is not: a compiled kernel, or products of matrices (``linalg``).
Who calls it: users, as ``metafuse.linalg``.

The gradient rules are written once for real and complex values; ``^H`` below is the conjugate transpose. Where two singular
values or eigenvalues are equal, the vectors are not unique and a loss that depends on them has no gradient: it becomes
infinite or NaN there. A loss of the values alone always has one.

Sources: Giles, "Collected matrix derivative results for forward and reverse mode algorithmic differentiation", 2008;
Murray, "Differentiation of the Cholesky decomposition", arXiv:1602.07527; Walter, Lehmann and Lamour, "On evaluating
higher-order derivatives of the QR decomposition of tall matrices with full column rank", 2012; Wan and Zhang, "Automatic
differentiation for complex valued SVD", arXiv:1909.02659; Boeddeker et al., "On the computation of complex-valued gradients
with application to statistically optimum beamforming", arXiv:1701.00392, for eigenvalues.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .complex_number import ComplexNumber, as_complex
from .host_parts import Part, Value, host_parts
from .matrices import adjoint, diagonal, embed, joined, lower, one_if, prepared, restored
from .registry import Sample, Tensor, operator
from .solve import inverse, solved
from .telling import tells

__all__ = ["cholesky", "complex_eig", "complex_qr", "complex_svd", "eig", "eigh", "qr", "svd"]


# -- singular values ------------------------------------------------------------------------------------------------
def _svd(x: Any) -> Any:
    return tuple(np.linalg.svd(x, full_matrices=False))


def _skew(m: Value) -> Value:
    return m - adjoint(m)


def _divided(m: Value, gaps: Any) -> Value:
    """``m / gaps``, 0 where both are 0 (the loss does not depend on vectors that are not unique)."""
    none = gaps == 0
    for part in (m.real, m.imag) if isinstance(m, ComplexNumber) else (m,):
        none = none & (part == 0)
    return m / (gaps + one_if(none, gaps))


def _svd_rule(inputs: list[Value], outputs: list[Value], upstream: list[Value]) -> list[Value]:
    """``U [(skew(U^H gU) S + S skew(V^H gV)) / E + diag(gs)] V^H`` and what lies outside of the spaces of U and V;
    ``E[i, j] = s[j]**2 - s[i]**2``."""
    (u, s, vh), (gu, gs, gvh) = outputs, upstream
    v, gv = adjoint(vh), adjoint(gvh)
    rows, columns = s.unsqueeze(-1), s.unsqueeze(-2)
    in_u, in_v = adjoint(u) @ gu, adjoint(v) @ gv
    gaps = columns * columns - rows * rows
    inner = _divided(_skew(in_u) * columns + _skew(in_v) * rows, gaps + embed(one_if(s == s, s)))
    if isinstance(u, ComplexNumber):
        # The phase of each pair of vectors is free; what the loss says about it is divided between both.
        inner = inner - embed(diagonal(inner))
        inner = inner + embed(ComplexNumber(gs, _divided(diagonal(in_u).imag, s)))
    else:
        inner = inner + embed(gs)
    g = u @ inner @ vh
    height, width, count = u.shape[-2], vh.shape[-1], s.shape[-1]
    if height > count:
        g = g + _divided(gu - u @ in_u, columns) @ vh
    if width > count:
        g = g + u @ _divided(adjoint(gv - v @ in_v), rows)
    return [g]


@operator(category="linalg", numpy=None, name="linalg.svd", source="LAPACK gesdd, through NumPy")
def svd(x: Any) -> tuple[Any, Any, Any]:
    """Singular value decomposition ``x = u * s @ v`` of matrices ``[..., m, n]``; with k the smaller of m and n.

    Args:
        x: a Var or ComplexNumber with at least two dimensions.

    Returns:
        (u ``[..., m, k]``, s ``[..., k]`` real, descending, v ``[..., k, n]``): columns of ``u`` and rows of ``v`` are
        orthonormal.

    Errors:
        ShapeError: fewer than two dimensions. ArgumentError, when it runs: no convergence (NaN or infinity inside).

    Example:
        >>> import metafuse as mf
        >>> u, s, v = mf.linalg.svd(mf.array([[3.0, 0.0], [0.0, 4.0]]))
        >>> s.numpy()
        array([4., 3.], dtype=float32)
    """
    x, dtype = prepared("linalg.svd", "x", x)
    *batch, m, n = x.shape
    k = min(m, n)
    pair = isinstance(x, ComplexNumber)
    parts = [Part((*batch, m, k), pair), Part((*batch, k)), Part((*batch, k, n), pair)]
    return restored(host_parts("linalg.svd", _svd, [x], parts, x.dtype, _svd_rule), dtype)  # type: ignore[return-value]


# -- eigenvalues ----------------------------------------------------------------------------------------------------
def _eigh(x: Any) -> Any:
    return tuple(np.linalg.eigh(x))


def _eigh_rule(inputs: list[Value], outputs: list[Value], upstream: list[Value]) -> list[Value]:
    """``V (diag(gw) + (V^H gV) / E) V^H`` with ``E[i, j] = w[j] - w[i]``."""
    (w, v), (gw, gv) = outputs, upstream
    gaps = w.unsqueeze(-2) - w.unsqueeze(-1) + embed(one_if(w == w, w))
    inner = adjoint(v) @ gv
    inner = _divided(inner - embed(diagonal(inner)), gaps) + embed(gw)
    return [v @ inner @ adjoint(v)]


@operator(category="linalg", numpy=None, name="linalg.eigh", source="LAPACK syevd, through NumPy")
def eigh(x: Any) -> tuple[Any, Any]:
    """Eigenvalues and eigenvectors of symmetric (Hermitian) matrices ``[..., n, n]``.

    Only the symmetric part ``(x + x^H) / 2`` counts, for the value and for the gradient.

    Returns:
        (w ``[..., n]`` real, ascending; v ``[..., n, n]``, an orthonormal eigenvector per column).

    Errors:
        ShapeError: not square. ArgumentError, when it runs: no convergence.

    Example:
        >>> import metafuse as mf
        >>> w, v = mf.linalg.eigh(mf.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> w.numpy().round(4)
        array([1., 3.], dtype=float32)
    """
    x, dtype = prepared("linalg.eigh", "x", x, square=True)
    x = (x + adjoint(x)) * 0.5
    shape = tuple(x.shape)
    parts = [Part(shape[:-1]), Part(shape, isinstance(x, ComplexNumber))]
    return restored(host_parts("linalg.eigh", _eigh, [x], parts, x.dtype, _eigh_rule), dtype)  # type: ignore[return-value]


def _eig(x: Any) -> Any:
    return tuple(np.linalg.eig(x))


def _eig_rule(inputs: list[Value], outputs: list[Value], upstream: list[Value]) -> list[Value]:
    """``V^-H (diag(gw) + (V^H gV - V^H V diag(Re(V^H gV))) / conj(E)) V^H`` with ``E[i, j] = w[j] - w[i]``: vectors of
    length one whose phase is free."""
    (w, v), (gw, gv) = outputs, upstream
    vh = adjoint(v)
    inner = vh @ gv
    inner = inner - vh @ v * diagonal(inner).real.unsqueeze(-2)
    gaps = (w.unsqueeze(-2) - w.unsqueeze(-1)).conj()
    gaps = gaps + embed(one_if(w.real == w.real, w.real))
    inner = (inner - embed(diagonal(inner))) / gaps + embed(gw)
    g = solved(vh, inner @ vh)
    return [g if isinstance(inputs[0], ComplexNumber) else g.real]


@operator(category="linalg", numpy=None, name="linalg.eig", source="LAPACK geev, through NumPy")
def eig(x: Any) -> tuple[ComplexNumber, ComplexNumber]:
    """Eigenvalues and eigenvectors of square matrices ``[..., n, n]``, which are complex also where ``x`` is real.

    Returns:
        (w ``[..., n]``, v ``[..., n, n]``), ComplexNumbers; each column of ``v`` has length one. The order of the eigenvalues
        and the phase of the vectors are LAPACK's; a loss must not depend on the phase to have a gradient.

    Errors:
        ShapeError: not square. ArgumentError, when it runs: no convergence.

    Example:
        >>> import metafuse as mf
        >>> w, v = mf.linalg.eig(mf.array([[0.0, -1.0], [1.0, 0.0]]))
        >>> w.imag.numpy()
        array([ 1., -1.], dtype=float32)
    """
    x, dtype = prepared("linalg.eig", "x", x, square=True)
    shape = tuple(x.shape)
    parts = [Part(shape[:-1], True), Part(shape, True)]
    return restored(host_parts("linalg.eig", _eig, [x], parts, x.dtype, _eig_rule), dtype)  # type: ignore[return-value]


# -- QR, Cholesky -----------------------------------------------------------------------------------------------------
def _qr(x: Any) -> Any:
    return tuple(np.linalg.qr(x))


def _qr_rule(inputs: list[Value], outputs: list[Value], upstream: list[Value]) -> list[Value]:
    """``(gQ + Q copyltu(M)) R^-H`` with ``M = R gR^H - gQ^H Q``, where ``copyltu`` makes a Hermitian matrix of the lower
    triangle. For wide matrices ``R = [R1 R2]``, ``R2 = Q^H Y``: the columns ``Y`` take no part in ``Q``."""
    (x,), (q, r), (gq, gr) = inputs, outputs, upstream
    square = q.shape[-1]
    wide = r.shape[-1] > square
    if wide:
        rest, gr_rest = x[..., :, square:], gr[..., :, square:]
        gq = gq + rest @ adjoint(gr_rest)
        r, gr = r[..., :, :square], gr[..., :, :square]
    m = r @ adjoint(gr) - adjoint(gq) @ q
    strict = lower(m, -1)
    middle = diagonal(m)
    copied = strict + adjoint(strict) + embed(middle.real if isinstance(m, ComplexNumber) else middle)
    # right-hand division by R^H: (R^-1 B^H)^H
    g = adjoint(solved(r, adjoint(gq + q @ copied)))
    return [joined(g, q @ gr_rest) if wide else g]


@operator(category="linalg", numpy=None, name="linalg.qr", source="LAPACK geqrf, through NumPy")
def qr(x: Any) -> tuple[Any, Any]:
    """``x = q @ r`` with orthonormal columns and an upper triangle; k is the smaller of m and n.

    Returns:
        (q ``[..., m, k]``, r ``[..., k, n]``). The first k columns of ``x`` must be linearly independent for gradients.

    Errors:
        ShapeError: fewer than two dimensions.

    Example:
        >>> import metafuse as mf
        >>> q, r = mf.linalg.qr(mf.array([[3.0, 1.0], [4.0, 2.0]]))
        >>> (q @ r).numpy().round(4)
        array([[3., 1.],
               [4., 2.]], dtype=float32)
    """
    x, dtype = prepared("linalg.qr", "x", x)
    *batch, m, n = x.shape
    k = min(m, n)
    pair = isinstance(x, ComplexNumber)
    parts = [Part((*batch, m, k), pair), Part((*batch, k, n), pair)]
    return restored(host_parts("linalg.qr", _qr, [x], parts, x.dtype, _qr_rule), dtype)  # type: ignore[return-value]


def _cholesky(x: Any) -> Any:
    return np.linalg.cholesky(x)


def _cholesky_rule(inputs: list[Value], outputs: list[Value], upstream: list[Value]) -> list[Value]:
    """``L^-T phi(L^T gL) L^-1`` with ``phi``: the lower triangle with half the diagonal."""
    (l,), (g,) = outputs, upstream
    m = adjoint(l) @ g
    phi = lower(m, 0) - embed(diagonal(m)) * 0.5
    inverted = inverse(l)
    return [adjoint(inverted) @ phi @ inverted]


@operator(
    category="linalg",
    name="linalg.cholesky",
    numpy=lambda x: np.linalg.cholesky((x + np.swapaxes(x, -1, -2)) / 2),
    samples=[
        Sample((Tensor((3, 3), low=-1, high=1, dominant=True),)),
        Sample((Tensor((2, 0, 2, 2), low=-1, high=1, dominant=True),)),
        Sample((Tensor((2, 4, 4), low=-1, high=1, dominant=True),)),
    ],
    source="LAPACK potrf, through NumPy",
)
def cholesky(x: Any) -> Any:
    """The lower triangle ``l`` with ``l @ l^H = x`` of symmetric (Hermitian) positive definite matrices ``[..., n, n]``.

    Only the symmetric part ``(x + x^H) / 2`` counts, for the value and for the gradient.

    Errors:
        ShapeError: not square. ArgumentError, when it runs: not positive definite.

    Example:
        >>> import metafuse as mf
        >>> mf.linalg.cholesky(mf.array([[4.0, 2.0], [2.0, 5.0]])).numpy()
        array([[2., 0.],
               [1., 2.]], dtype=float32)
    """
    x, dtype = prepared("linalg.cholesky", "x", x, square=True)
    x = (x + adjoint(x)) * 0.5
    parts = [Part(tuple(x.shape), isinstance(x, ComplexNumber))]
    (answer,) = restored(host_parts("linalg.cholesky", _cholesky, [x], parts, x.dtype, _cholesky_rule), dtype)
    return answer


# -- under the names of the reference API ------------------------------------------------------------------------------
@tells
def complex_svd(x: Any) -> tuple[ComplexNumber, Any, ComplexNumber]:
    """``svd`` of a ComplexNumber.

    Example:
        >>> import metafuse as mf
        >>> x = mf.nn.ComplexNumber(mf.zeros(2, 2), mf.eye(2))
        >>> mf.linalg.complex_svd(x)[1].numpy()
        array([1., 1.], dtype=float32)
    """
    return svd(as_complex("linalg.complex_svd", x))


@tells
def complex_eig(x: Any) -> tuple[ComplexNumber, ComplexNumber]:
    """``eig`` of a ComplexNumber.

    Example:
        >>> import metafuse as mf
        >>> x = mf.nn.ComplexNumber(mf.zeros(2, 2), mf.eye(2))
        >>> mf.linalg.complex_eig(x)[0].imag.numpy()
        array([1., 1.], dtype=float32)
    """
    return eig(as_complex("linalg.complex_eig", x))


@tells
def complex_qr(x: Any) -> tuple[ComplexNumber, ComplexNumber]:
    """``qr`` of a ComplexNumber.

    Example:
        >>> import metafuse as mf
        >>> q, r = mf.linalg.complex_qr(mf.nn.ComplexNumber(mf.zeros(2, 2), mf.eye(2)))
        >>> (q @ r).imag.numpy().round(4)
        array([[1., 0.],
               [0., 1.]], dtype=float32)
    """
    return qr(as_complex("linalg.complex_qr", x))
