"""What users of NumPy do with an array and Python with a number: ``x.T``, ``round(x, 2)``, ``divmod(x, 3)``, ``np.sum(x)``.

What it is: those protocols of Python and NumPy that answer by operators, put on ``Var``.
What it is not: operators of its own; those of NumPy's functions (``np.sum`` of a Var is NumPy's).
Who calls it: users.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from inspect import signature
from typing import Any

import numpy as np

from ..dtypes import accumulator, float64
from ..errors import ArgumentError, DTypeError, ShapeError
from ..var import Var
from .elementwise import cast
from .meta import check_integer, identity
from .registry import function_named
from .scalar import ternary
from .shape import transpose

__all__ = ["rounded", "tobytes"]

#: functions of NumPy that change an argument in place
_WRITERS = {
    np.copyto, np.fill_diagonal, np.nan_to_num, np.place, np.put, np.put_along_axis, np.putmask,
}  # fmt: skip
#: the place of ``out`` in what has no signature
_OUT = {np.concatenate: 2, np.dot: 2}
#: those that ask for the shape alone
_SHAPES = {np.ndim, np.shape, np.size}


def _transposed(x: Var) -> Var:
    """The dimensions in reverse order."""
    return transpose(x)


def _matrices_transposed(x: Var) -> Var:
    """The last two dimensions exchanged."""
    if x.ndim < 2:
        raise ShapeError(f"[mT] needs at least two dimensions, got shape {list(x.shape)}; unsqueeze it first")
    return transpose(x, *range(x.ndim - 2), x.ndim - 1, x.ndim - 2)


def tobytes(x: Var) -> bytes:
    """The stored elements, row-major: ``nbytes`` bytes.

    Example:
        >>> import metafuse as mf
        >>> list(mf.array([1, 256], "int16").tobytes())
        [1, 0, 0, 1]
    """
    return x.dtype.encode(x.numpy()).tobytes()


def _itemsize(x: Var) -> int:
    """Bytes of one element."""
    return x.dtype.itemsize


def rounded(x: Var, decimals: int | None = None) -> Var:
    """The nearest numbers with ``decimals`` digits behind the point (whole ones without it), halves to even; a negative number
    counts places before the point.

    Errors:
        ArgumentError: ``decimals`` is not within -30..30.

    Example:
        >>> import metafuse as mf
        >>> round(mf.array([0.25, 2.5]), 1).numpy(), mf.array([1250, 1350]).round(-2).numpy()
        (array([0.2, 2.5], dtype=float32), array([1200, 1400], dtype=int32))
    """
    nearest = function_named("round")
    assert nearest is not None
    digits = 0 if decimals is None else check_integer("round", "decimals", decimals)
    if not -30 <= digits <= 30:
        raise ArgumentError(f"[round] decimals must be in -30..30, got {digits}")
    if digits == 0:
        return nearest(x)  # type: ignore[no-any-return]
    if not x.dtype.is_float:
        if digits > 0:
            return identity(x)
        factor = 10.0**-digits
        return cast(nearest(cast(x, float64) / factor) * factor, x.dtype)
    wide = cast(x, accumulator(x.dtype))
    factor = 10.0 ** abs(digits)
    if digits < 0:
        return cast(nearest(wide / factor) * factor, x.dtype)
    scaled = wide * factor
    # what is too large to be scaled has no digits behind the point
    return cast(ternary(scaled.isfinite(), nearest(scaled) / factor, wide), x.dtype)


def _divmod(x: Var, y: Any) -> tuple[Var, Var]:
    return x // y, x % y


def _rdivmod(x: Var, y: Any) -> tuple[Var, Var]:
    return y // x, y % x


def _floor(x: Var) -> int:
    return math.floor(x.item())


def _ceil(x: Var) -> int:
    return math.ceil(x.item())


def _trunc(x: Var) -> int:
    return math.trunc(x.item())


def _numpy_function(x: Var, function: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A function of NumPy with the values of the Vars: means what NumPy says, and answers what it answers."""
    place, argument = _written(function)
    target = args[place] if 0 <= place < len(args) else kwargs.get(argument)
    if type(target) is Var and (function is not np.nan_to_num or not _copies(*args, **kwargs)):
        raise DTypeError(
            f"[np.{function.__name__}] an array of NumPy can be changed in place, a Var can't; call it with x.numpy(), then "
            "x.assign"
        )
    plain = _outline if function in _SHAPES else _value
    given = _plain(args, plain)
    return function(*given, **_plain(kwargs, plain))


@lru_cache(maxsize=None)
def _written(function: Any) -> tuple[int, str]:
    """Where a function of NumPy takes what it writes to: the place, negative if there is none, and the name."""
    try:
        parameters = signature(function).parameters
    except ValueError:  # made in C, for which older NumPy tells no names
        return _OUT.get(function, -1), "out"
    if function in _WRITERS:
        return 0, next(iter(parameters))
    found = parameters.get("out")
    if found is None or found.kind is found.KEYWORD_ONLY:
        return -1, "out"
    several = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
    return -1 if several else list(parameters).index("out"), "out"


def _copies(x: Any, copy: Any = True, *rest: Any, **further: Any) -> bool:
    """What ``np.nan_to_num`` is asked for."""
    return bool(copy)


def _value(x: Var) -> Any:
    return x.numpy()


def _outline(x: Var) -> Any:
    """An array of this shape for which nothing is computed."""
    return np.broadcast_to(np.empty(()), x.shape)


def _plain(value: Any, plain: Any) -> Any:
    """``value`` with every Var in its sequences and dictionaries as an array."""
    if type(value) is Var:
        return plain(value)
    if isinstance(value, tuple):
        return tuple(_plain(v, plain) for v in value)
    if isinstance(value, Mapping):
        return {k: _plain(v, plain) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(v, plain) for v in value]
    return value


def _install() -> None:
    methods = {
        "T": property(_transposed), "mT": property(_matrices_transposed), "tobytes": tobytes, "__bytes__": tobytes,
        "__pos__": identity, "itemsize": property(_itemsize), "round": rounded, "__round__": rounded,
        "__divmod__": _divmod, "__rdivmod__": _rdivmod, "__floor__": _floor, "__ceil__": _ceil, "__trunc__": _trunc,
        "__array_function__": _numpy_function,
    }  # fmt: skip
    for name, method in methods.items():
        setattr(Var, name, method)


_install()
