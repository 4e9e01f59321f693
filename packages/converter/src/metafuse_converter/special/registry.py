"""The functions by name, and what they share.

Who calls it: the other files of this folder, to enter their functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import libcst as cst

from ..arguments import Refused, bind
from ..lookup import Answer

if TYPE_CHECKING:
    from ..rewrite import Rewriter

__all__ = ["SPECIAL", "bound", "is_method", "receiver", "special"]

Special = Callable[["Rewriter", Any, Any, Answer], cst.BaseExpression]
SPECIAL: dict[str, Special] = {}


def special(function: Special) -> Special:
    """Make a function known by its name."""
    SPECIAL[function.__name__] = function
    return function


def bound(updated: cst.Call, answer: Answer) -> dict[str, cst.BaseExpression]:
    found = bind(updated.args, answer.parameters or ())
    if found is None:
        raise Refused("arguments with stars can't be told apart")
    return {name: arg.value for name, arg in found.items()}


def receiver(updated: cst.Call) -> cst.BaseExpression:
    return cst.ensure_type(updated.func, cst.Attribute).value


def is_method(r: Rewriter, original: cst.Call) -> bool:
    return r.names.torch(original.func) is None
