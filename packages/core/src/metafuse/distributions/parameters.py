"""What all families share: parameters as floating Vars, shapes of samples.

What it is: checks.
What it is not: public.
Who calls it: the families.
"""

from __future__ import annotations

from typing import Any

from ..dtypes import float32, promote, to_floating
from ..errors import ArgumentError, DTypeError, ShapeError, brief
from ..ops.elementwise import broadcast_shapes, cast
from ..ops.meta import check_shape, check_var
from ..ops.random import random
from ..ops.scalar import log, where
from ..var import Var

__all__ = ["drawn", "parameter", "parameters", "log_or_infinite", "target_shape"]


def parameter(op: str, name: str, value: Any) -> Var:
    """One parameter as a floating Var."""
    if value is None or isinstance(value, (str, bytes)):
        raise DTypeError(f"[{op}] {name} must be a number, array or Var, got {brief(value)}")
    x = check_var(op, name, value)
    return cast(x, to_floating(x.dtype))


def parameters(op: str, **values: Any) -> tuple[Var, ...]:
    """Several parameters of one dtype, whose shapes must broadcast. Plain numbers take the dtype of the others."""
    found = [parameter(op, name, value) for name, value in values.items()]
    plain = [isinstance(value, (int, float)) for value in values.values()]
    kinds = [x.dtype for x, number in zip(found, plain, strict=True) if not number] or [float32]
    common = kinds[0]
    for kind in kinds[1:]:
        common = promote(common, kind)
    broadcast_shapes(op, [tuple(x.shape) for x in found])
    return tuple(cast(x, common) for x in found)


def target_shape(op: str, wanted: Any, *given: Var) -> tuple[int, ...]:
    """The shape of samples: ``wanted``, to which the parameters must broadcast, or theirs if it is ``None``."""
    own = broadcast_shapes(op, [tuple(x.shape) for x in given])
    if wanted is None:
        return own
    shape = check_shape(op, wanted) or (1,)
    if broadcast_shapes(op, [own, shape]) != shape:
        raise ShapeError(
            f"[{op}] samples of shape {list(shape)} don't fit parameters of shape {list(own)}; end the shape in theirs"
        )
    return shape


def drawn(shape: tuple[int, ...], like: Var, type: str = "uniform") -> Var:
    """Random numbers in the dtype of ``like``, without a gradient path."""
    return cast(random(shape, float32, type), like.dtype).stop_grad()


def log_or_infinite(x: Var) -> Var:
    """``log(x)``, minus infinity at 0 with a gradient of zero there."""
    none = x == 0
    return where(none, float("-inf"), log(where(none, 1.0, x)))


def one_of(op: str, first: str, a: Any, second: str, b: Any) -> None:
    """Exactly one of two arguments is to be given."""
    if (a is None) == (b is None):
        raise ArgumentError(
            f"[{op}] give either {first} or {second}, got {'both' if a is not None else 'neither'}"
        )


def number_in(op: str, name: str, value: Any, legal: bool, meaning: str) -> None:
    """A plain number is checked at once; arrays are taken as they are."""
    if isinstance(value, (int, float)) and not legal:
        raise ArgumentError(f"[{op}] {name} must be {meaning}, got {brief(value)}")
