"""Conversions by name: ``x.float32()``, ``mf.int64(x)``, ``x.type_as(y)``.

What it is: one operator per element type, which also serves as the name of that type wherever a dtype is asked for.
What it is not: the conversion (``elementwise.cast``).
Who calls it: users.
"""

from __future__ import annotations

from typing import Any

from ..dtypes import DTYPES
from ..errors import DTypeError
from ..var import Var
from .creation import array
from .elementwise import cast
from .meta import check_var
from .registry import Sample, Tensor, operator

__all__ = ["type_as"]

_FURTHER = {
    "bool": ("bool",), "float16": ("float16", "half"), "float32": ("float32", "float"), "float64": ("float64", "double"),
    "int32": ("int32", "int"), "int64": ("int64", "long"), "uint32": ("uint32", "uint"),
}  # fmt: skip
_RANGE = Tensor((3, 4), "int", 0, 9)


def _register(name: str) -> None:
    kind, told = DTYPES[name], name

    def function(x: Any) -> Var:
        if type(x) is Var:
            return cast(x, kind)
        try:
            return array(x, kind)  # directly: data lose nothing on the way, and floats take gradients
        except DTypeError as error:
            raise DTypeError(f"[{told}] x: {error}") from None

    function.__name__ = function.__qualname__ = name
    function.__doc__ = (
        f"``x`` converted to {name} as in C: floats lose their fraction in integers, anything but 0 is true; wherever a "
        f"dtype is asked for, ``metafuse.{name}`` names it.\n\nErrors:\n    DTypeError: ``x`` is no array.\n\n"
        "Source: NumPy astype.\n\nExample:\n    >>> import metafuse as mf\n"
        f"    >>> mf.{name}(mf.array([0, 1])).dtype\n    metafuse.{name}\n"
    )
    function.dtype_name = name  # type: ignore[attr-defined]
    operator(
        category="conversion", numpy=lambda x: kind.convert(x), samples=[Sample((_RANGE,))], name=name,
        method=_FURTHER.get(name, (name,)), differentiable=False, source="NumPy astype", rebinds=False,
    )(function)  # fmt: skip


for _name in DTYPES:
    _register(_name)


@operator(
    category="conversion", numpy=lambda a, b: a.astype(b.dtype), method=True, differentiable=False, source="NumPy astype",
    samples=[Sample((Tensor((2, 3), "int"), Tensor((4,), "float32")))],
)  # fmt: skip
def type_as(a: Any, b: Any) -> Var:
    """``a`` converted to the dtype of ``b``.

    Example:
        >>> import metafuse as mf
        >>> mf.array([1, 2]).type_as(mf.ones(1)).dtype
        metafuse.float32
    """
    return cast(check_var("type_as", "a", a), check_var("type_as", "b", b).dtype)
