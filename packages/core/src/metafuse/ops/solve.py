"""Inverses, determinants and systems of linear equations.

What it is: NumPy's LAPACK on the host, batched, with gradients composed of ordinary operators.
What it is not: factorisations (``factorise``).
Who calls it: users, as ``metafuse.linalg``; the gradient rules of ``factorise``.

Sources: Giles, "Collected matrix derivative results for forward and reverse mode algorithmic differentiation", 2008; for the
pseudo-inverse Golub and Pereyra, SIAM Journal on Numerical Analysis 10, 1973.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import promote
from ..errors import DTypeError, ShapeError
from .complex_number import ComplexNumber, as_complex
from .elementwise import broadcast_shapes
from .host_parts import Part, Value, host_parts
from .matrices import adjoint, prepared, restored, trace
from .meta import check_var, sum_to
from .registry import Sample, Tensor, operator
from .telling import tells

__all__ = ["complex_inv", "det", "inv", "inverse", "pinv", "slogdet", "solve", "solved"]

_SQUARE = [
    Sample((Tensor((3, 3), low=-1, high=1, dominant=True),)),
    Sample((Tensor((2, 0, 2, 2), low=-1, high=1, dominant=True),)),
    Sample((Tensor((1, 1), low=-1, high=1, dominant=True),)),
    Sample((Tensor((2, 3, 4, 4), low=-1, high=1, dominant=True),)),
]


# -- inverse ----------------------------------------------------------------------------------------------------------
def _inv(x: Any) -> Any:
    return np.linalg.inv(x)


def _inv_rule(inputs: list[Value], outputs: list[Value], upstream: list[Value]) -> list[Value]:
    """``-Y^H g Y^H``."""
    turned = adjoint(outputs[0])
    return [-(turned @ upstream[0] @ turned)]


def inverse(x: Value) -> Value:
    """``inv`` of a value that was checked and prepared."""
    parts = [Part(tuple(x.shape), isinstance(x, ComplexNumber))]
    return host_parts("linalg.inv", _inv, [x], parts, x.dtype, _inv_rule)[0]


@operator(
    category="linalg",
    numpy=np.linalg.inv,
    name="linalg.inv",
    samples=_SQUARE,
    source="LAPACK gesv, through NumPy",
)
def inv(x: Any) -> Any:
    """Inverses of square matrices ``[..., n, n]``, real or complex.

    Errors:
        ShapeError: not square. ArgumentError, when it runs: a matrix is singular.

    Example:
        >>> import metafuse as mf
        >>> mf.linalg.inv(mf.array([[2.0, 0.0], [0.0, 4.0]])).numpy()
        array([[0.5 , 0.  ],
               [0.  , 0.25]], dtype=float32)
    """
    x, dtype = prepared("linalg.inv", "x", x, square=True)
    return restored([inverse(x)], dtype)[0]


@tells
def complex_inv(x: Any) -> ComplexNumber:
    """``inv`` of a ComplexNumber.

    Example:
        >>> import metafuse as mf
        >>> x = mf.nn.ComplexNumber(mf.zeros(1, 1), mf.ones(1, 1))
        >>> mf.linalg.complex_inv(x).imag.item()
        -1.0
    """
    return inv(as_complex("linalg.complex_inv", x))  # type: ignore[no-any-return]


# -- pseudo-inverse -----------------------------------------------------------------------------------------------------
def _pinv(x: Any) -> Any:
    if 0 in x.shape[-2:]:
        return np.zeros((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype)
    # Singular values below this are rounding errors of the input's own precision.
    return np.linalg.pinv(x, max(x.shape[-2:]) * np.finfo(x.dtype).eps)


def _pinv_rule(inputs: list[Value], outputs: list[Value], upstream: list[Value]) -> list[Value]:
    """``-Y^H g Y^H + (I - X Y) g^H Y Y^H + Y^H Y g^H (I - Y X)``."""
    (x,), (y,), (g,) = inputs, outputs, upstream
    yh, gh = adjoint(y), adjoint(g)
    answer = -(yh @ g @ yh)
    left, right = gh @ y @ yh, yh @ y @ gh
    return [answer + left - x @ y @ left + right - right @ y @ x]


@operator(
    category="linalg",
    numpy=np.linalg.pinv,
    name="linalg.pinv",
    samples=[
        Sample((Tensor((3, 3), low=-1, high=1, dominant=True),)),
        Sample((Tensor((5, 3), low=-1, high=1, dominant=True),)),
        Sample((Tensor((2, 3, 4), low=-1, high=1, dominant=True),)),
    ],
    source="Moore-Penrose inverse by singular values, NumPy",
)
def pinv(x: Any) -> Any:
    """Moore-Penrose inverses ``[..., n, m]`` of matrices ``[..., m, n]``, real or complex.

    Singular values up to ``max(m, n) * eps`` times the largest count as zero. The gradient is that at constant rank.

    Errors:
        ShapeError: fewer than two dimensions. ArgumentError, when it runs: no convergence.

    Example:
        >>> import metafuse as mf
        >>> mf.linalg.pinv(mf.array([[2.0], [0.0]])).numpy()
        array([[0.5, 0. ]], dtype=float32)
    """
    x, dtype = prepared("linalg.pinv", "x", x)
    *batch, m, n = x.shape
    parts = [Part((*batch, n, m), isinstance(x, ComplexNumber))]
    return restored(host_parts("linalg.pinv", _pinv, [x], parts, x.dtype, _pinv_rule), dtype)[0]


# -- determinant --------------------------------------------------------------------------------------------------------
def _det(x: Any) -> Any:
    return np.linalg.det(x)


def _det_rule(inputs: list[Value], outputs: list[Value], upstream: list[Value]) -> list[Value]:
    """Cofactors, which exist also where the matrix is singular."""
    (x,), (g,) = inputs, upstream
    cofactors = host_parts(
        "linalg.det gradient", _cofactors, [x], [Part(tuple(x.shape))], x.dtype, _cofactors_rule
    )[0]
    return [cofactors * g.reshape([*x.shape[:-2], 1, 1])]


def _cofactors(x: Any) -> Any:
    """``det(x) * inv(x).T`` through singular values: ``det(u) det(v) u * (products of the other values) @ v``."""
    u, s, v = np.linalg.svd(x)
    count = s.shape[-1]
    others = np.where(np.eye(count, dtype=bool), 1, s[..., None, :]).prod(-1).astype(x.dtype)
    sign = np.linalg.det(u) * np.linalg.det(v)
    return sign[..., None, None] * ((u * others[..., None, :]) @ v)


def _cofactors_rule(inputs: list[Value], outputs: list[Value], upstream: list[Value]) -> list[Value]:
    """``<g, Y^T> C - Y^T g^T C`` with ``Y = inv(x)``; only for regular matrices."""
    (x,), (c,), (g,) = inputs, outputs, upstream
    turned = adjoint(inverse(x))
    product = turned @ adjoint(g)
    return [trace(product) * c - product @ c]


def _det_oracle(x: Any) -> Any:
    return np.reshape(np.linalg.det(x), x.shape[:-2] or (1,))


@operator(
    category="linalg",
    numpy=_det_oracle,
    name="linalg.det",
    samples=_SQUARE,
    source="LAPACK getrf, through NumPy",
)
def det(x: Any) -> Any:
    """Determinants ``[...]`` of real square matrices ``[..., n, n]``; of one matrix: shape ``[1]``.

    The gradient exists for singular matrices too; the gradient of the gradient needs regular ones.

    Errors:
        ShapeError: not square.

    Example:
        >>> import metafuse as mf
        >>> round(mf.linalg.det(mf.array([[2.0, 1.0], [1.0, 2.0]])).item(), 4)
        3.0
    """
    x, dtype = _real("linalg.det", x)
    parts = [Part(tuple(x.shape[:-2]) or (1,))]
    return restored(host_parts("linalg.det", _det, [x], parts, x.dtype, _det_rule), dtype)[0]


def _real(op: str, x: Any) -> tuple[Any, Any]:
    if isinstance(x, ComplexNumber):
        raise DTypeError(
            f"[{op}] x must be real, got a ComplexNumber; use the eigenvalues of metafuse.linalg.eig"
        )
    return prepared(op, "x", x, square=True)


def _slogdet(x: Any) -> Any:
    return tuple(np.linalg.slogdet(x))


def _slogdet_rule(inputs: list[Value], outputs: list[Value], upstream: list[Value]) -> list[Value]:
    """``g * inv(x)^T`` for the logarithm; the sign does not change."""
    x = inputs[0]
    return [adjoint(inverse(x)) * upstream[1].reshape([*x.shape[:-2], 1, 1])]


def _slogdet_oracle(x: Any) -> Any:
    return tuple(np.reshape(part, x.shape[:-2] or (1,)) for part in np.linalg.slogdet(x))


@operator(
    category="linalg",
    numpy=_slogdet_oracle,
    name="linalg.slogdet",
    samples=_SQUARE,
    source="LAPACK getrf, through NumPy",
)
def slogdet(x: Any) -> tuple[Any, Any]:
    """Sign and logarithm of the magnitude of determinants of real square matrices ``[..., n, n]``.

    Returns:
        (sign, logarithm), each ``[...]`` (``[1]`` for one matrix); 0 and minus infinity for a singular matrix, which has no
        gradient.

    Errors:
        ShapeError: not square.

    Example:
        >>> import metafuse as mf
        >>> sign, size = mf.linalg.slogdet(mf.array([[0.0, 1.0], [1.0, 0.0]]))
        >>> sign.item(), size.item()
        (-1.0, 0.0)
    """
    x, dtype = _real("linalg.slogdet", x)
    parts = [Part(tuple(x.shape[:-2]) or (1,))] * 2
    sign, size = restored(host_parts("linalg.slogdet", _slogdet, [x], parts, x.dtype, _slogdet_rule), dtype)
    return sign, size


# -- equations ----------------------------------------------------------------------------------------------------------
def _solve(a: Any, b: Any) -> Any:
    # NumPy 1 takes a `b` with one dimension less for vectors; here it is always matrices.
    return np.linalg.solve(a, b.reshape((1,) * (a.ndim - b.ndim) + b.shape))


def _solve_rule(inputs: list[Value], outputs: list[Value], upstream: list[Value]) -> list[Value]:
    """``B = A^-H g`` for the right-hand side, ``-B X^H`` for the matrix."""
    (a, b), (x,), (g,) = inputs, outputs, upstream
    to_b = solved(adjoint(a), g)
    return [_summed(-(to_b @ adjoint(x)), a), _summed(to_b, b)]


def _summed(g: Value, like: Value) -> Value:
    """Undo the broadcast of leading dimensions."""
    shape = tuple(like.shape)
    if isinstance(g, ComplexNumber):
        return ComplexNumber(sum_to(g.real, shape), sum_to(g.imag, shape))
    return sum_to(g, shape)


def solved(a: Value, b: Value) -> Value:
    """``solve`` of values that were checked and prepared; ``b`` is a stack of matrices; both complex or both real."""
    batch = broadcast_shapes("linalg.solve", [tuple(a.shape[:-2]), tuple(b.shape[:-2])])
    parts = [Part((*batch, *b.shape[-2:]), isinstance(b, ComplexNumber))]
    return host_parts("linalg.solve", _solve, [a, b], parts, b.dtype, _solve_rule)[0]


def _solve_oracle(a: Any, b: Any) -> Any:
    if b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape == a.shape[:-1]):
        return _solve(a, b[..., None])[..., 0]
    return _solve(a, b)


@operator(
    category="linalg",
    numpy=_solve_oracle,
    name="linalg.solve",
    samples=[
        Sample((Tensor((3, 3), low=-1, high=1, dominant=True), Tensor((3, 2)))),
        Sample((Tensor((3, 3), low=-1, high=1, dominant=True), Tensor((3,)))),
        Sample((Tensor((2, 3, 3), low=-1, high=1, dominant=True), Tensor((2, 3)))),
        Sample((Tensor((2, 1, 3, 3), low=-1, high=1, dominant=True), Tensor((4, 3, 2)))),
        Sample((Tensor((3, 3), low=-1, high=1, dominant=True), Tensor((3, 0)))),
    ],
    source="LAPACK gesv, through NumPy",
)
def solve(a: Any, b: Any) -> Any:
    """``x`` with ``a @ x = b``; leading dimensions broadcast.

    Args:
        a: square matrices ``[..., n, n]``.
        b: ``[..., n, k]``; or vectors: ``[n]``, or one per matrix (the shape of ``a`` without its last dimension).

    Returns:
        Of the shape of ``b`` with leading dimensions broadcast.

    Errors:
        ShapeError: ``a`` is not square or does not fit ``b``. ArgumentError, when it runs: a matrix is singular.

    Example:
        >>> import metafuse as mf
        >>> mf.linalg.solve(mf.array([[2.0, 0.0], [0.0, 4.0]]), mf.array([2.0, 2.0])).numpy()
        array([1. , 0.5], dtype=float32)
    """
    a, kind_a = prepared("linalg.solve", "a", a, square=True)
    b = b if isinstance(b, ComplexNumber) else check_var("linalg.solve", "b", b)
    vector = b.ndim == 1 or (b.ndim == a.ndim - 1 and tuple(b.shape) == tuple(a.shape[:-1]))
    if vector:
        b = b.unsqueeze(-1)
    b, kind_b = prepared("linalg.solve", "b", b)
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"[linalg.solve] a of shape {list(a.shape)} needs b [..., {a.shape[-1]}, k], got {list(b.shape)}"
        )
    common = promote(kind_a, kind_b)
    a, b = restored([a, b], promote(a.dtype, b.dtype))
    if isinstance(a, ComplexNumber) or isinstance(b, ComplexNumber):
        a, b = as_complex("linalg.solve", a), as_complex("linalg.solve", b)
    (x,) = restored([solved(a, b)], common)
    return x.squeeze(-1) if vector and x.ndim > 1 else x
