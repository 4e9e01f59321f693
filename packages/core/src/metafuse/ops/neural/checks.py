"""Checks of arguments that layers and neural operators share.

What it is: functions that turn what a user wrote (``3``, ``(3, 1)``, a NumPy integer) into tuples of Python integers or raise
an error that names the argument, its value and what is allowed.
What it is not: shape arithmetic of one operator; that stays with the operator.
Who calls it: ``ops.neural`` when an operator is called, ``nn`` when a layer is made.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from ...errors import ArgumentError, ShapeError
from ...var import Var
from ..meta import check_var

__all__ = ["choice", "fraction", "integer", "integers", "need_ndim", "slide", "window_count"]

#: sizes of windows and steps are below this, so that arithmetic on them stays within 64 bits
LIMIT = 2**31
_WHOLE = "an integer"


def _missing(value: object, minimum: int) -> str:
    """What ``value`` would have to be to be an integer of at least ``minimum``; empty if it is one."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ArgumentError):  # also a Var of several elements
        number = None
    if number is None:
        return _WHOLE
    if number < minimum:
        return f">= {minimum}"
    return "< 2**31" if number >= LIMIT else ""


def integer(op: str, name: str, value: object, minimum: int) -> int:
    """``value`` as a Python integer of at least ``minimum``; bool and float are not integers."""
    missing = _missing(value, minimum)
    if missing:
        hint = f"; give a whole number >= {minimum}" if missing is _WHOLE else ""
        raise ArgumentError(f"[{op}] {name} must be {missing}, got {value!r}{hint}")
    return operator.index(value)  # type: ignore[arg-type]


def integers(op: str, name: str, value: object, count: int, minimum: int) -> tuple[int, ...]:
    """``value``, one integer or ``count`` of them, as a tuple of ``count`` integers of at least ``minimum``."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        if _missing(value, minimum) is _WHOLE:
            raise ArgumentError(
                f"[{op}] {name} must be an integer or {count} integers, got {value!r}; give whole numbers >= {minimum}"
            )
        return (integer(op, name, value, minimum),) * count
    if len(value) != count:
        raise ArgumentError(f"[{op}] {name} must be an integer or {count} integers, got {tuple(value)!r}")
    for v in value:
        missing = _missing(v, minimum)
        if missing:
            reason = "integers" if missing is _WHOLE else missing
            raise ArgumentError(f"[{op}] {name} must be {reason}, got {tuple(value)!r}")
    return tuple(map(operator.index, value))


def fraction(op: str, name: str, value: object) -> float:
    """``value`` as a float in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ArgumentError(f"[{op}] {name} must be a number from 0 to 1, got {value!r}")
    return float(value)


def choice(op: str, name: str, value: object, allowed: Sequence[str]) -> str:
    """``value`` if it is one of ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        raise ArgumentError(f"[{op}] {name} must be one of {', '.join(allowed)}; got {value!r}")
    return value


def need_ndim(op: str, name: str, x: Any, allowed: Sequence[int], meaning: str) -> None:
    """Raise ``ShapeError`` unless ``x`` has one of the ``allowed`` numbers of dimensions."""
    if type(x) is not Var:
        x = check_var(op, name, x)
    if x.ndim not in allowed:
        wanted = " or ".join(map(str, allowed))
        raise ShapeError(f"[{op}] {name} must have {wanted} dimensions {meaning}, got shape {tuple(x.shape)}")


def slide(out: int, kernel: int, stride: int, padding: int, dilation: int) -> str:
    """The index along one dimension that window ``i<out>`` reads at its element ``i<kernel>``."""
    return f"i{out}*{stride}-{padding}+i{kernel}*{dilation}"


def window_count(
    op: str, size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool = False
) -> int:
    """How many windows fit along one dimension. With ``ceil_mode`` a last window may stick out at the end, if it starts inside
    the input or its left padding. Raises ``ShapeError`` if none fits."""
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    if room < 0 or count < 1:
        raise ShapeError(
            f"[{op}] the window does not fit: size {size}, kernel_size {kernel}, stride {stride}, padding {padding}, "
            f"dilation {dilation}; use a larger input or more padding"
        )
    return count
