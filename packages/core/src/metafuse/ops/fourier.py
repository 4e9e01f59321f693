"""Discrete Fourier transforms.

What it is: NumPy's transforms on the host over any dimensions, with gradients that are again transforms, so of any order.
What it is not: a compiled kernel, or complex arithmetic (``complex_number``).
Who calls it: users, as ``metafuse.fft``; ``ComplexNumber.fft2``.

With ``n`` points, ``y[k] = sum_t x[t] exp(-2 pi i k t / n)``; the inverse has the opposite sign. ``norm`` says who divides:
``"backward"`` the inverse by n, ``"forward"`` the transform by n, ``"ortho"`` both by the root of n. The transpose of a
transform is the transform of the opposite sign with the same factor; that is the gradient.

Source: Cooley and Tukey, Mathematics of Computation 19, 1965; conventions as in ``numpy.fft``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import DType, float32, float64, to_floating
from ..errors import ArgumentError, DTypeError, ShapeError, brief
from ..graph.index_map import IndexMap
from ..kernel.expr import axis
from ..var import Var
from .complex_number import ComplexNumber, as_complex
from .elementwise import cast
from .host_parts import Part, Value, host_parts
from .matrices import restored
from .meta import check_dim, check_number, check_var, gather, index
from .neural.checks import integer
from .registry import operator
from .scalar import ternary
from .shape import roll

__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "ifft", "ifft2", "ifftn", "ifftshift", "irfft", "irfft2", "rfft", "rfft2",
    "rfftfreq",
]  # fmt: skip

Array = np.ndarray[Any, Any]

#: who divides when the direction is turned around
_TURNED = {"backward": "forward", "forward": "backward", "ortho": "ortho"}


# -- arguments --------------------------------------------------------------------------------------------------------
def _norm(op: str, norm: Any) -> str:
    if norm is None:
        return "backward"
    if not isinstance(norm, str) or norm not in _TURNED:
        raise ArgumentError(f"[{op}] norm must be 'backward', 'ortho' or 'forward', got {brief(norm)}")
    return str(norm)


def _work(op: str, x: Value) -> tuple[Value, DType]:
    """Floats of at least 32 bits, and the dtype of the results."""
    dtype = to_floating(x.dtype)
    working = float32 if dtype.itemsize < 4 else dtype
    if isinstance(x, ComplexNumber):
        return ComplexNumber(cast(x.real, working), cast(x.imag, working)), dtype
    return cast(x, working), dtype


def _points(op: str, n: Any) -> int:
    return integer(op, "n", n, 1)


def _fitted(x: Value, dim: int, n: int) -> Value:
    """Cut or filled up with zeros to ``n`` points."""
    if x.shape[dim] == n:
        return x
    shape = (*x.shape[:dim], n, *x.shape[dim + 1 :])
    places = IndexMap(tuple(axis(k) for k in range(x.ndim)), (), n > x.shape[dim])
    if isinstance(x, ComplexNumber):
        return ComplexNumber(gather(x.real, shape, places), gather(x.imag, shape, places))
    return gather(x, shape, places)


def _dims(op: str, dim: Any, ndim: int) -> tuple[int, ...]:
    several = dim if isinstance(dim, (tuple, list)) else (dim,)
    found = tuple(check_dim(op, d, ndim) for d in several)
    if len(set(found)) != len(found):
        raise ShapeError(f"[{op}] dims must differ, got {list(several)}")
    return found


def _sizes(op: str, x: Value, s: Any, dims: tuple[int, ...]) -> tuple[int, ...]:
    """Points per dimension; none may be empty."""
    if s is not None and (not isinstance(s, (tuple, list)) or len(s) != len(dims)):
        raise ArgumentError(f"[{op}] s must have one number per dimension {list(dims)}, got {brief(s)}")
    sizes = tuple(x.shape[d] if s is None else _points(op, s[k]) for k, d in enumerate(dims))
    if 0 in sizes:
        raise ShapeError(f"[{op}] needs at least one point along {list(dims)}, got shape {list(x.shape)}")
    return sizes


# -- complex to complex -------------------------------------------------------------------------------------------------
def _fftn(x: Array, dims: tuple[int, ...], inverse: bool, norm: Any) -> Array:
    function = np.fft.ifftn if inverse else np.fft.fftn
    return function(x, axes=dims, norm=norm)  # type: ignore[no-any-return]


def _rule(inverse: bool) -> Any:
    """The gradient of a transform that is no inverse, or is one."""

    def rule(inputs: list[Value], outputs: list[Value], upstream: list[Value], **options: Any) -> list[Value]:
        return [_transform(upstream[0], options["dims"], not inverse, _TURNED[options["norm"]])]

    return rule


_RULES = {False: _rule(False), True: _rule(True)}


def _transform(x: ComplexNumber, dims: tuple[int, ...], inverse: bool, norm: str) -> ComplexNumber:
    options = (("dims", dims), ("inverse", inverse), ("norm", norm))
    name = "fft.ifftn" if inverse else "fft.fftn"
    part = Part(tuple(x.shape), True)
    return host_parts(name, _fftn, [x], [part], x.dtype, _RULES[inverse], options)[0]  # type: ignore[no-any-return]


def _complex(op: str, x: Any, s: Any, dim: Any, inverse: bool, norm: Any) -> ComplexNumber:
    norm = _norm(op, norm)
    x, dtype = _work(op, as_complex(op, x))
    dims = _dims(op, tuple(range(x.ndim)) if dim is None else dim, x.ndim)
    for d, n in zip(dims, _sizes(op, x, s, dims), strict=True):
        x = _fitted(x, d, n)
    return restored([_transform(x, dims, inverse, norm)], dtype)[0]  # type: ignore[no-any-return]


def fft(x: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> ComplexNumber:
    """Discrete Fourier transform along ``dim``.

    Args:
        x: a Var, ComplexNumber or array, real or complex.
        n: number of points: ``x`` is cut or filled up with zeros; ``None``: as it is.
        norm: ``"backward"`` (as ``None``), ``"ortho"`` or ``"forward"``.

    Returns:
        ComplexNumber.

    Errors:
        ShapeError: no such dimension, or one without points. ArgumentError: bad ``n`` or ``norm``.

    Example:
        >>> import metafuse as mf
        >>> mf.fft.fft(mf.array([1.0, 0.0, 0.0, 0.0])).numpy()
        array([1.+0.j, 1.+0.j, 1.+0.j, 1.+0.j], dtype=complex64)
    """
    return _complex("fft.fft", x, None if n is None else [n], dim, False, norm)


def ifft(x: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> ComplexNumber:
    """Inverse of ``fft``; the same arguments.

    Example:
        >>> import metafuse as mf
        >>> mf.fft.ifft(mf.fft.fft(mf.array([1.0, 2.0]))).real.numpy()
        array([1., 2.], dtype=float32)
    """
    return _complex("fft.ifft", x, None if n is None else [n], dim, True, norm)


def fft2(x: Any, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> ComplexNumber:
    """``fft`` along two dimensions; ``s``: points along each.

    Example:
        >>> import metafuse as mf
        >>> mf.fft.fft2(mf.ones(2, 2)).real.numpy()
        array([[4., 0.],
               [0., 0.]], dtype=float32)
    """
    return _complex("fft.fft2", x, s, dim, False, norm)


def ifft2(x: Any, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> ComplexNumber:
    """Inverse of ``fft2``.

    Example:
        >>> import metafuse as mf
        >>> mf.fft.ifft2(mf.fft.fft2(mf.ones(2, 2))).real.tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    return _complex("fft.ifft2", x, s, dim, True, norm)


def fftn(x: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> ComplexNumber:
    """``fft`` along several dimensions (all if ``None``); ``s``: points along each.

    Example:
        >>> import metafuse as mf
        >>> mf.fft.fftn(mf.ones(2, 2)).real.tolist()
        [[4.0, 0.0], [0.0, 0.0]]
    """
    return _complex("fft.fftn", x, s, dim, False, norm)


def ifftn(x: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> ComplexNumber:
    """Inverse of ``fftn``.

    Example:
        >>> import metafuse as mf
        >>> mf.fft.ifftn(mf.fft.fftn(mf.ones(2, 2))).real.tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    return _complex("fft.ifftn", x, s, dim, True, norm)


# -- real signals -------------------------------------------------------------------------------------------------------
def _rfft(x: Array, dim: int, n: int, norm: Any) -> Array:
    return np.fft.rfft(x, axis=dim, norm=norm)  # type: ignore[no-any-return]


def _rfft_rule(
    inputs: list[Value], outputs: list[Value], upstream: list[Value], **options: Any
) -> list[Value]:
    """The real part of the transposed transform: the frequencies that ``rfft`` leaves out have no upstream gradient."""
    dim = options["dim"]
    full = _fitted(upstream[0], dim, options["n"])
    return [_transform(full, (dim,), True, _TURNED[options["norm"]]).real]


def _real_transform(x: Var, dim: int, norm: str) -> ComplexNumber:
    n = x.shape[dim]
    part = Part((*x.shape[:dim], n // 2 + 1, *x.shape[dim + 1 :]), True)
    options = (("dim", dim), ("n", n), ("norm", norm))
    return host_parts("fft.rfft", _rfft, [x], [part], x.dtype, _rfft_rule, options)[0]  # type: ignore[no-any-return]


def _irfft(x: Array, dim: int, n: int, norm: Any) -> Array:
    return np.fft.irfft(x, n, dim, norm)  # type: ignore[no-any-return]


def _irfft_rule(
    inputs: list[Value], outputs: list[Value], upstream: list[Value], **options: Any
) -> list[Value]:
    """``rfft``, with every frequency that stands for two counted twice."""
    dim, n = options["dim"], options["n"]
    g = _real_transform(upstream[0], dim, _TURNED[options["norm"]])
    place = index(tuple(g.shape), dim)
    twice = cast((place > 0) & (place < (n + 1) // 2), g.dtype) + 1.0
    return [g * twice]


def _real_inverse(x: ComplexNumber, dim: int, n: int, norm: str) -> Var:
    part = Part((*x.shape[:dim], n, *x.shape[dim + 1 :]))
    options = (("dim", dim), ("n", n), ("norm", norm))
    return host_parts("fft.irfft", _irfft, [x], [part], x.dtype, _irfft_rule, options)[0]  # type: ignore[no-any-return]


def _need_real(op: str, x: Any) -> Var:
    if isinstance(x, ComplexNumber):
        raise DTypeError(f"[{op}] x must be real, got a ComplexNumber; use the transform without 'r'")
    return check_var(op, "x", x)


def rfft(x: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> ComplexNumber:
    """The first ``n // 2 + 1`` frequencies of the ``fft`` of a real signal; the others are their conjugates.

    Errors:
        DTypeError: ``x`` is complex. Otherwise as ``fft``.

    Example:
        >>> import metafuse as mf
        >>> mf.fft.rfft(mf.array([1.0, 0.0, 0.0, 0.0])).shape
        (3,)
    """
    return _rfftn("fft.rfft", x, None if n is None else [n], (dim,), norm)


def rfft2(x: Any, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> ComplexNumber:
    """``fft2`` of a real signal with the last of its dimensions as in ``rfft``.

    Example:
        >>> import metafuse as mf
        >>> mf.fft.rfft2(mf.ones(2, 4)).shape
        (2, 3)
    """
    return _rfftn("fft.rfft2", x, s, dim, norm)


def _rfftn(op: str, x: Any, s: Any, dim: Any, norm: Any) -> ComplexNumber:
    norm = _norm(op, norm)
    value, dtype = _work(op, _need_real(op, x))
    dims = _dims(op, dim, value.ndim)
    for d, n in zip(dims, _sizes(op, value, s, dims), strict=True):
        value = _fitted(value, d, n)
    y = _real_transform(value, dims[-1], norm)
    y = _transform(y, dims[:-1], False, norm) if len(dims) > 1 else y
    return restored([y], dtype)[0]  # type: ignore[no-any-return]


def irfft(x: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Var:
    """The real signal of ``n`` points (``None``: twice the frequencies minus 2) whose ``rfft`` is ``x``.

    The imaginary part of the first frequency, and of the last if ``n`` is even, does not count.

    Example:
        >>> import metafuse as mf
        >>> mf.fft.irfft(mf.fft.rfft(mf.array([1.0, 2.0, 3.0])), 3).numpy().round(4)
        array([1., 2., 3.], dtype=float32)
    """
    return _irfftn("fft.irfft", x, None if n is None else [n], (dim,), norm)


def irfft2(x: Any, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Var:
    """Inverse of ``rfft2``; ``s``: points of the result along each dimension.

    Example:
        >>> import metafuse as mf
        >>> mf.fft.irfft2(mf.fft.rfft2(mf.ones(2, 4))).tolist()
        [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    """
    return _irfftn("fft.irfft2", x, s, dim, norm)


def _irfftn(op: str, x: Any, s: Any, dim: Any, norm: Any) -> Var:
    norm = _norm(op, norm)
    value, dtype = _work(op, as_complex(op, x))
    dims = _dims(op, dim, value.ndim)
    if not dims:
        raise ShapeError(f"[{op}] needs at least one dimension, got none")
    last = dims[-1]
    sizes = _sizes(op, value, s, dims)
    n = sizes[-1] if s is not None else 2 * (sizes[-1] - 1)
    if n < 1:
        raise ShapeError(f"[{op}] one frequency leaves no point along dimension {last}; give n")
    for d, size in zip(dims[:-1], sizes[:-1], strict=True):
        value = _fitted(value, d, size)
    value = _fitted(value, last, n // 2 + 1)
    value = _transform(value, dims[:-1], True, norm) if len(dims) > 1 else value
    return restored([_real_inverse(value, last, n, norm)], dtype)[0]  # type: ignore[no-any-return]


# -- frequencies --------------------------------------------------------------------------------------------------------
def fftfreq(n: int, d: float = 1.0, dtype: Any = float32) -> Var:
    """The frequencies of ``fft`` over ``n`` points ``d`` apart: 0, 1 ..., -1, divided by ``n d``.

    Example:
        >>> import metafuse as mf
        >>> mf.fft.fftfreq(4).numpy()
        array([ 0.  ,  0.25, -0.5 , -0.25], dtype=float32)
    """
    n = _points("fft.fftfreq", n)
    i = index((n,), 0, float64)
    return _spread("fft.fftfreq", ternary(i > (n - 1) // 2, i - n, i), n, d, dtype)


def rfftfreq(n: int, d: float = 1.0, dtype: Any = float32) -> Var:
    """The frequencies of ``rfft``.

    Example:
        >>> import metafuse as mf
        >>> mf.fft.rfftfreq(4).numpy()
        array([0.  , 0.25, 0.5 ], dtype=float32)
    """
    n = _points("fft.rfftfreq", n)
    return _spread("fft.rfftfreq", index((n // 2 + 1,), 0, float64), n, d, dtype)


def _spread(op: str, numbers: Any, n: int, d: Any, dtype: Any) -> Var:
    """Numbers of waves over ``n`` points ``d`` apart as frequencies."""
    distance = float(check_number(op, "d", d))
    if not distance:
        raise ArgumentError(f"[{op}] d must not be 0, got {brief(d)}")
    return cast(numbers * (1.0 / (n * distance)), dtype).stop_grad()


def _shifted(op: str, x: Any, dim: Any, sign: int) -> Any:
    x = x if isinstance(x, ComplexNumber) else check_var(op, "x", x)
    for d in _dims(op, tuple(range(x.ndim)) if dim is None else dim, x.ndim):
        n = x.shape[d]
        by = n // 2 if sign > 0 else n - n // 2
        if isinstance(x, ComplexNumber):
            x = ComplexNumber(roll(x.real, by, d), roll(x.imag, by, d))
        else:
            x = roll(x, by, d)
    return x


def fftshift(x: Any, dim: Any = None) -> Any:
    """Frequency zero in the middle, along ``dim`` (one, several, or all if ``None``).

    Example:
        >>> import metafuse as mf
        >>> mf.fft.fftshift(mf.fft.fftfreq(4)).numpy()
        array([-0.5 , -0.25,  0.  ,  0.25], dtype=float32)
    """
    return _shifted("fft.fftshift", x, dim, 1)


def ifftshift(x: Any, dim: Any = None) -> Any:
    """Inverse of ``fftshift``.

    Example:
        >>> import metafuse as mf
        >>> mf.fft.ifftshift(mf.array([-2, -1, 0, 1])).tolist()
        [0, 1, -2, -1]
    """
    return _shifted("fft.ifftshift", x, dim, -1)


for _name in __all__:
    operator(category="fourier", numpy=None, name=f"fft.{_name}", source="numpy.fft")(globals()[_name])
