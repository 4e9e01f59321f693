"""einops on Vars: arrangements, reductions and sums written as patterns of named axes.

What it is: the functions of the package ``einops`` (an extra: ``pip install metafuse[einops]``), which learns from
``backend`` how to handle Vars; plain ``einops.rearrange(var, ...)`` works too once this package is imported.
What it is not: an implementation of the pattern language; that is the package's.
Who calls it: users, as ``metafuse.einops``.

Without ``einops`` everything here can be imported; calling it says what to install.

Source: Rogozhnikov, "Einops: clear and reliable tensor manipulations with Einstein-like notation", ICLR 2022;
https://einops.rocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..arguments import checked
from ..errors import ArgumentError, MetafuseError
from ..finite import listed
from .library import EinopsMissing, library

__all__ = [
    "EinopsMissing", "asnumpy", "einsum", "pack", "parse_shape", "rearrange", "reduce", "repeat", "unpack",
]  # fmt: skip


@checked
def rearrange(tensor: Any, pattern: str, **axes_lengths: int) -> Any:
    """The same elements in another order and shape.

    Args:
        tensor: a Var, or a list of Vars of one shape, which are stacked.
        pattern: axes before and after ``->``; parentheses group axes into one.
        axes_lengths: extents that the shape does not tell.

    Errors:
        EinopsError: the pattern does not fit. EinopsMissing: ``einops`` is not installed.

    Example:
        >>> import metafuse as mf
        >>> mf.einops.rearrange(mf.ones([2, 6]), "a (b c) -> (a b) c", c=3).shape
        (4, 3)
    """
    return _called("rearrange", tensor, pattern, **axes_lengths)


@checked
def reduce(tensor: Any, pattern: str, reduction: Any, **axes_lengths: int) -> Any:
    """Rearrange, and fold the axes that are missing after ``->``.

    Args:
        reduction: ``"min"``, ``"max"``, ``"sum"``, ``"mean"``, ``"prod"``, ``"any"`` or ``"all"``, or a function of (Var,
        axes).

    Example:
        >>> import metafuse as mf
        >>> mf.einops.reduce(mf.ones([2, 3]), "a b -> b", "sum").numpy()
        array([2., 2., 2.], dtype=float32)
    """
    return _called("reduce", tensor, pattern, reduction, **axes_lengths)


@checked
def repeat(tensor: Any, pattern: str, **axes_lengths: int) -> Any:
    """Rearrange, and repeat along the axes that are new after ``->``.

    Example:
        >>> import metafuse as mf
        >>> mf.einops.repeat(mf.array([1, 2]), "a -> a b", b=2).numpy()
        array([[1, 1],
               [2, 2]], dtype=int32)
    """
    return _called("repeat", tensor, pattern, **axes_lengths)


@checked
def einsum(*tensors_and_pattern: Any) -> Any:
    """``metafuse.einsum`` with axes of any name: ``einsum(a, b, "batch row k, k column -> batch row column")``.

    Example:
        >>> import metafuse as mf
        >>> mf.einops.einsum(mf.ones([2, 3]), mf.ones([3, 4]), "row k, k column -> row column").shape
        (2, 4)
    """
    return _called("einsum", *tensors_and_pattern)


@checked
def parse_shape(x: Any, pattern: str) -> dict[str, Any]:
    """The extents of ``x`` by the names in ``pattern``.

    Example:
        >>> import metafuse as mf
        >>> mf.einops.parse_shape(mf.ones([2, 3, 4]), "batch _ width")
        {'batch': 2, 'width': 4}
    """
    return _called("parse_shape", x, pattern)  # type: ignore[no-any-return]


@checked
def asnumpy(tensor: Any) -> Any:
    """The value as a NumPy array.

    Example:
        >>> import metafuse as mf
        >>> mf.einops.asnumpy(mf.array([1, 2]))
        array([1, 2], dtype=int32)
    """
    return _called("asnumpy", tensor)


@checked
def pack(tensors: Any, pattern: str) -> Any:
    """Vars with different inner axes (``*`` in ``pattern``) side by side in one.

    Returns:
        (Var, the shapes by which ``unpack`` separates them).

    Example:
        >>> import metafuse as mf
        >>> packed, shapes = mf.einops.pack([mf.ones([2, 3]), mf.ones([2, 2, 2])], "a *")
        >>> packed.shape, shapes
        ((2, 7), [(3,), (2, 2)])
    """
    return _called("pack", _listed("pack", "tensors", tensors), pattern)


@checked
def unpack(tensor: Any, packed_shapes: Any, pattern: str) -> Any:
    """What ``pack`` put together.

    Example:
        >>> import metafuse as mf
        >>> [x.shape for x in mf.einops.unpack(mf.ones([2, 7]), [(3,), (2, 2)], "a *")]
        [(2, 3), (2, 2, 2)]
    """
    return _called("unpack", tensor, _listed("unpack", "packed_shapes", packed_shapes), pattern)


def _listed(name: str, argument: str, values: Any) -> Any:
    """An iterator as a list; the package reads it to the end."""
    return listed(f"einops.{name}", argument, values) if isinstance(values, Iterator) else values


def _called(name: str, *args: Any, **axes_lengths: Any) -> Any:
    """The package's function; what it raises beside its own ``EinopsError`` becomes an error of ours."""
    package = library()
    try:
        return getattr(package, name)(*args, **axes_lengths)
    except (MetafuseError, package.EinopsError):
        raise
    except Exception as error:
        raise ArgumentError(f"[einops.{name}] {error}; see https://einops.rocks for what fits") from error


def __getattr__(name: str) -> Any:
    """``EinopsError`` is the package's own."""
    if name == "EinopsError":
        return library().EinopsError
    raise AttributeError(f"module 'metafuse.einops' has no attribute {name!r}")


try:
    library()  # so that the package's own functions know Vars from now on
except EinopsMissing:
    pass
