"""Checks of arguments that layers and neural operators share.

What it is: functions that turn what a user wrote (``3``, ``(3, 1)``, a NumPy integer) into tuples of Python integers or raise
an error that names the argument, its value and what is allowed.
What it is not: shape arithmetic of one operator; that stays with the operator.
Who calls it: ``ops.neural`` when an operator is called, ``nn`` when a layer is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...dtypes import is_number
from ...errors import ArgumentError, DTypeError, ShapeError, brief
from ...var import Var
from ..meta import check_integer, check_var, whole_number

__all__ = [
    "REDUCTIONS",
    "choice",
    "fraction",
    "integer",
    "integers",
    "need_ndim",
    "number",
    "padded_by",
    "plain",
    "slide",
    "window_count",
]

#: sizes of windows and steps are below this, so that arithmetic on them stays within 64 bits
LIMIT = 2**31


def integer(op: str, name: str, value: object, minimum: int) -> int:
    """``check_integer`` for sizes, steps and counts."""
    return check_integer(op, name, value, minimum, LIMIT)


def integers(op: str, name: str, value: object, count: int, minimum: int) -> tuple[int, ...]:
    """``value``, one integer or ``count`` of them, as a tuple of ``count`` integers of at least ``minimum``."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        if whole_number(value) is None:
            raise DTypeError(
                f"[{op}] {name} must be an integer or {count} integers, got {brief(value)}; give whole numbers >= {minimum}"
            )
        return (integer(op, name, value, minimum),) * count
    if len(value) != count:
        raise ArgumentError(
            f"[{op}] {name} must be an integer or {count} integers, got {brief(tuple(value))}"
        )
    numbers = [whole_number(v) for v in value]
    found = tuple(n for n in numbers if n is not None)
    if len(found) < count:
        raise DTypeError(
            f"[{op}] {name} must be integers, got {brief(tuple(value))}; give whole numbers >= {minimum}"
        )
    if any(not minimum <= n < LIMIT for n in found):
        wanted = f">= {minimum}" if min(found) < minimum else f"< {LIMIT}"
        raise ArgumentError(f"[{op}] {name} must be {wanted}, got {brief(tuple(value))}")
    return found


def fraction(op: str, name: str, value: Any) -> float:
    """``value`` as a float in [0, 1]."""
    if not is_number(value) or not 0 <= value <= 1:
        raise ArgumentError(f"[{op}] {name} must be a number from 0 to 1, got {brief(value)}")
    return float(value)


def plain(op: str, name: str, value: Any, least: float | None = None, above: bool = False) -> float:
    """``value`` as it is if it is a number, at least ``least``, or ``above`` it."""
    if not is_number(value) or (least is not None and not (value > least if above else value >= least)):
        more = "" if least is None else f" {'>' if above else '>='} {least:g}"
        raise ArgumentError(f"[{op}] {name} must be a number{more}, got {brief(value)}")
    return value  # type: ignore[no-any-return]


def number(op: str, name: str, value: Any, least: float | None = None, above: bool = False) -> float:
    """``plain`` as a float."""
    return float(plain(op, name, value, least, above))


#: what may become of the losses of single elements
REDUCTIONS = ("mean", "sum", "none")


def choice(op: str, name: str, value: object, allowed: Sequence[str]) -> str:
    """``value`` if it is one of ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        raise ArgumentError(f"[{op}] {name} must be one of {', '.join(allowed)}; got {brief(value)}")
    return value


def padded_by(op: str, padding: object, stride: tuple[int, ...]) -> str | tuple[int, ...]:
    """The padding of a convolution: one integer per dimension, or ``"valid"`` (none) or ``"same"`` (as much as keeps sizes)."""
    if not isinstance(padding, str):
        return integers(op, "padding", padding, len(stride), 0)
    if choice(op, "padding", padding, ("valid", "same")) == "same" and max(stride) > 1:
        raise ArgumentError(
            f"[{op}] padding 'same' needs a stride of 1, got stride={stride}; give padding as numbers"
        )
    return padding


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
