"""The exceptions metafuse raises.

What it is: one small tree of exception types. Every message has the form
``[operator] what was wrong: the actual values; what to do``.
What it is not: error handling; each module raises at the place that knows the values.
Who calls it: everything.

Each type also derives from the built-in exception that Python programmers expect, so ``except ValueError`` works.
"""

from __future__ import annotations

__all__ = [
    "MetafuseError",
    "ArgumentError",
    "ShapeError",
    "DTypeError",
    "IndexExpressionError",
    "GradientError",
    "BackendError",
    "BackendUnavailable",
    "CompileError",
    "KernelError",
    "OutOfMemory",
    "PluginError",
    "DistributionError",
    "CollectiveMismatch",
    "brief",
    "told_by",
]


def brief(value: object) -> str:
    """A short text of what was given, for a message."""
    if (
        isinstance(value, int) and value.bit_length() > 1024
    ):  # of which Python may refuse to write out all digits
        return f"an integer of {value.bit_length()} bits"
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} nested too deeply to be shown"
    return text if len(text) < 80 else f"{text[:77]}..."


class MetafuseError(Exception):
    """Base of all errors that metafuse raises on purpose."""


def told_by(operator: str, error: MetafuseError) -> MetafuseError:
    """``error`` as the operator tells it that was called, where another one found it.

    Example:
        >>> told_by("where", ArgumentError("[ternary] x is missing"))
        ArgumentError('[where] x is missing')
    """
    text = str(error)
    rest = text.partition("]")[2] if text.startswith("[") else f" {text}"
    return type(error)(f"[{operator}]{rest}")


class ArgumentError(MetafuseError, ValueError):
    """An argument has the wrong value: out of range, unknown option, wrong count."""


class ShapeError(ArgumentError):
    """Shapes do not fit together or an axis does not exist."""


class DTypeError(MetafuseError, TypeError):
    """An argument has the wrong type or element type."""


class IndexExpressionError(ArgumentError):
    """An index expression can't be parsed or names something unknown; the message points at the position."""


class GradientError(MetafuseError, RuntimeError):
    """A gradient was asked for that does not exist."""


class BackendError(MetafuseError, RuntimeError):
    """A backend failed at something it should be able to do."""


class BackendUnavailable(BackendError):
    """A backend is not installed, or installed but unusable here; the message says which and why."""


class CompileError(BackendError):
    """A compiler rejected source code; the message carries the compiler's words."""


class KernelError(BackendError):
    """A kernel failed when it ran; the message names its operators, shapes, dtypes and the user's lines."""


class OutOfMemory(BackendError, MemoryError):
    """An allocation failed; the message names the size asked for and what holds memory."""


class PluginError(MetafuseError):
    """A plugin is broken or was written for another contract version."""


class DistributionError(MetafuseError, RuntimeError):
    """Processes that should work together can't, or one of them failed; the message names the rank."""


class CollectiveMismatch(DistributionError):
    """Ranks called different collectives, or one with different shapes or types; the message names both."""
