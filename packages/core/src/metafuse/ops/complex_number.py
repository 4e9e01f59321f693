"""ComplexNumber: complex values as a pair of real Vars.

What it is: a real and an imaginary part of one shape, and the arithmetic that combines them; every operation is made of
ordinary operators, so it fuses and has gradients of any order.
What it is not: a dtype. Kernels know real numbers only.
Who calls it: ``fourier`` and ``factorise`` for complex inputs and results; users, as ``metafuse.nn.ComplexNumber``.

The gradient of a real loss is again such a pair: the derivative with respect to the real part, and that with respect to the
imaginary part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..dtypes import DType, promote, to_floating
from ..errors import ArgumentError, DTypeError, ShapeError, brief
from ..var import Shape, Var, sync
from .creation import zeros_like
from .elementwise import broadcast_shapes, cast
from .linalg import matmul
from .meta import broadcast_to, check_var
from .scalar import cos, exp, sin, sqrt, where
from .shape import stack
from .telling import tells

__all__ = ["ComplexNumber", "as_complex", "view_as_complex"]

Number = (int, float, np.integer, np.floating)


class ComplexNumber:
    """Complex values ``real + i imag``.

    Args:
        real: a Var; with ``is_concat_value`` one whose last dimension holds real and imaginary part.
        imag: a Var of the same shape (or one that broadcasts); ``None`` means zeros.
        is_concat_value: see ``real``.

    Example:
        >>> import metafuse as mf
        >>> z = mf.nn.ComplexNumber(mf.array([1.0, 2.0]), mf.array([3.0, -1.0]))
        >>> (z * z.conj()).real.numpy()
        array([10.,  5.], dtype=float32)
    """

    __slots__ = ("_real", "_imag")
    __array_ufunc__ = None  # NumPy and Var leave mixed arithmetic to this class

    def __init__(self, real: Any, imag: Any = None, is_concat_value: bool = False) -> None:
        real = check_var("ComplexNumber", "real", real)
        if is_concat_value:
            if imag is not None:
                raise ArgumentError(
                    "[ComplexNumber] imag must be None with is_concat_value; the last dimension of real holds it"
                )
            if real.ndim < 1 or real.shape[-1] != 2:
                raise ShapeError(
                    f"[ComplexNumber] the last extent must be 2 (real, imaginary part), got shape {list(real.shape)}"
                )
            real, imag = real[..., 0], real[..., 1]
        elif imag is None:
            imag = zeros_like(real)
        imag = check_var("ComplexNumber", "imag", imag)
        common = to_floating(promote(real.dtype, imag.dtype))
        shape = broadcast_shapes("ComplexNumber", [tuple(real.shape), tuple(imag.shape)])
        self._real: Var = broadcast_to(cast(real, common), shape)
        self._imag: Var = broadcast_to(cast(imag, common), shape)

    # -- parts ------------------------------------------------------------------------------------------------------
    @property
    def real(self) -> Var:
        """The real part."""
        return self._real

    @property
    def imag(self) -> Var:
        """The imaginary part."""
        return self._imag

    @property
    def value(self) -> Var:
        """Both parts as one Var with a last dimension of extent 2."""
        return stack([self._real, self._imag], -1)  # type: ignore[no-any-return]

    @property
    def shape(self) -> Shape:
        """Extents of either part."""
        return self._real.shape

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self._real.ndim

    @property
    def dtype(self) -> DType:
        """Element type of either part."""
        return self._real.dtype

    @property
    def requires_grad(self) -> bool:
        """Whether gradients may flow to or through either part."""
        return self._real.requires_grad or self._imag.requires_grad

    def numpy(self) -> np.ndarray[Any, Any]:
        """A NumPy array of complex64 (of complex128 for float64 parts)."""
        sync([self._real, self._imag])
        kind = np.complex128 if self.dtype.itemsize == 8 else np.complex64
        answer = np.empty(tuple(self.shape), kind)
        answer.real, answer.imag = self._real.numpy(), self._imag.numpy()
        return answer

    def item(self) -> complex:
        """The only element as a Python number."""
        return complex(self._real.item(), self._imag.item())

    def __len__(self) -> int:
        return len(self._real)

    def __repr__(self) -> str:
        return f"metafuse.ComplexNumber({np.array2string(self.numpy(), separator=', ')}, dtype={self.dtype})"

    # -- gradient path ----------------------------------------------------------------------------------------------
    def detach(self) -> ComplexNumber:
        """The same value without a gradient path."""
        return ComplexNumber(self._real.detach(), self._imag.detach())

    def stop_grad(self) -> ComplexNumber:
        """Cut the gradient path of both parts; answers the number itself."""
        self._real.stop_grad()
        self._imag.stop_grad()
        return self

    def start_grad(self) -> ComplexNumber:
        """Make both parts something gradients can be asked for; answers the number itself."""
        self._real.start_grad()
        self._imag.start_grad()
        return self

    # -- shape ------------------------------------------------------------------------------------------------------
    def _both(self, method: str, *args: Any) -> ComplexNumber:
        return ComplexNumber(getattr(self._real, method)(*args), getattr(self._imag, method)(*args))

    def reshape(self, *shape: Any) -> ComplexNumber:
        """The same elements under another shape."""
        return self._both("reshape", *shape)

    def permute(self, *axes: Any) -> ComplexNumber:
        """Dimensions in another order; see ``metafuse.transpose``."""
        return self._both("transpose", *axes)

    def transpose(self, *axes: Any) -> ComplexNumber:
        """Dimensions in another order; see ``metafuse.transpose``."""
        return self._both("transpose", *axes)

    def squeeze(self, dim: int = 0) -> ComplexNumber:
        """Without dimension ``dim``, whose extent is 1."""
        return self._both("squeeze", dim)

    def unsqueeze(self, dim: int = 0) -> ComplexNumber:
        """With a dimension of extent 1 at ``dim``."""
        return self._both("unsqueeze", dim)

    def broadcast(self, shape: Any, dims: Sequence[int] = ()) -> ComplexNumber:
        """Repeated to ``shape``; see ``metafuse.broadcast``."""
        return self._both("broadcast", shape, dims)

    def __getitem__(self, index: Any) -> ComplexNumber:
        return self._both("getitem", index)

    def sum(self, dims: Any = None, keepdims: bool = False) -> ComplexNumber:
        """Sum over ``dims`` (all if ``None``)."""
        return self._both("sum", dims, keepdims)

    # -- arithmetic ---------------------------------------------------------------------------------------------------
    def conj(self) -> ComplexNumber:
        """``real - i imag``."""
        return ComplexNumber(self._real, -self._imag)

    def norm(self) -> Var:
        """The magnitude ``sqrt(real**2 + imag**2)``; its gradient at zero is zero."""
        square = self._real * self._real + self._imag * self._imag
        empty = square == 0
        return where(empty, 0.0, sqrt(where(empty, 1.0, square)))

    def exp(self) -> ComplexNumber:
        """``exp(real) * (cos(imag) + i sin(imag))``."""
        size = exp(self._real)
        return ComplexNumber(size * cos(self._imag), size * sin(self._imag))

    def fft2(self) -> ComplexNumber:
        """Discrete Fourier transform over the last two dimensions; see ``metafuse.fft.fft2``."""
        from .fourier import fft2

        return fft2(self)

    def ifft2(self) -> ComplexNumber:
        """Inverse of ``fft2``; see ``metafuse.fft.ifft2``."""
        from .fourier import ifft2

        return ifft2(self)

    def __neg__(self) -> ComplexNumber:
        return ComplexNumber(-self._real, -self._imag)

    def __add__(self, other: Any) -> ComplexNumber:
        if isinstance(other, ComplexNumber):
            return ComplexNumber(self._real + other._real, self._imag + other._imag)
        real, imag = _parts("+", other)
        return ComplexNumber(self._real + real, self._imag if imag is None else self._imag + imag)

    __radd__ = __add__

    def __sub__(self, other: Any) -> ComplexNumber:
        if isinstance(other, ComplexNumber):
            return ComplexNumber(self._real - other._real, self._imag - other._imag)
        real, imag = _parts("-", other)
        return ComplexNumber(self._real - real, self._imag if imag is None else self._imag - imag)

    def __rsub__(self, other: Any) -> ComplexNumber:
        return -self + other

    def __mul__(self, other: Any) -> ComplexNumber:
        a, b = self._real, self._imag
        c, d = (other._real, other._imag) if isinstance(other, ComplexNumber) else _parts("*", other)
        if d is None:
            return ComplexNumber(a * c, b * c)
        return ComplexNumber(a * c - b * d, a * d + b * c)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> ComplexNumber:
        a, b = self._real, self._imag
        c, d = (other._real, other._imag) if isinstance(other, ComplexNumber) else _parts("/", other)
        if d is None:
            return ComplexNumber(a / c, b / c)
        size = c * c + d * d
        return ComplexNumber((a * c + b * d) / size, (b * c - a * d) / size)

    def __rtruediv__(self, other: Any) -> ComplexNumber:
        return as_complex("/", other) / self

    def __matmul__(self, other: Any) -> ComplexNumber:
        a, b = self._real, self._imag
        if not isinstance(other, ComplexNumber):
            other = check_var("@", "other", other)
            return ComplexNumber(matmul(a, other), matmul(b, other))
        c, d = other._real, other._imag
        return ComplexNumber(matmul(a, c) - matmul(b, d), matmul(a, d) + matmul(b, c))

    def __rmatmul__(self, other: Any) -> ComplexNumber:
        other = check_var("@", "other", other)
        return ComplexNumber(matmul(other, self._real), matmul(other, self._imag))


def _parts(symbol: str, value: Any) -> tuple[Any, Any]:
    """Real and imaginary part of an operand that is no ComplexNumber; ``None`` for an imaginary part of zero."""
    if isinstance(value, complex):
        return value.real, value.imag
    if isinstance(value, (Var, *Number)):
        return value, None
    if isinstance(value, (list, tuple, np.ndarray)):
        both = as_complex(symbol, value)
        return both._real, both._imag
    raise DTypeError(
        f"[ComplexNumber {symbol}] needs a number, array, Var or ComplexNumber, got {brief(value)}"
    )


def as_complex(op: str, value: Any) -> ComplexNumber:
    """``value`` (also a complex NumPy array or number) as a ComplexNumber."""
    if isinstance(value, ComplexNumber):
        return value
    if isinstance(value, Var):
        return ComplexNumber(value)
    try:
        host = np.asarray(value)
    except (TypeError, ValueError):
        return ComplexNumber(check_var(op, "x", value))  # says what is wrong
    if host.dtype.kind == "c":
        host = host.reshape(host.shape or (1,))
        from .creation import array

        kind = "float64" if host.dtype.itemsize > 8 and not isinstance(value, complex) else "float32"
        return ComplexNumber(array(host.real, kind), array(host.imag, kind))
    return ComplexNumber(check_var(op, "x", value))


@tells
def view_as_complex(x: Any) -> ComplexNumber:
    """A Var ``[..., 2]`` of real and imaginary parts as complex values ``[...]``.

    Errors:
        ShapeError: the last extent is not 2.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.view_as_complex(mf.array([[1.0, 2.0]])).imag.numpy()
        array([2.], dtype=float32)
    """
    return ComplexNumber(x, is_concat_value=True)
