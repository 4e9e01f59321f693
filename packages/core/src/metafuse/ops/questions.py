"""Asking about Vars without computing them, under the reference API's names.

What it is: ``peek``, ``attrs`` and a few questions as methods; ``binary_dtype_infer`` and ``hash``.
What it is not: reading of values (``Var.numpy``) or of what the compiler makes of them (``explain``).
Who calls it: users.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ..dtypes import DType, as_dtype
from ..errors import ArgumentError, DTypeError, brief
from ..finite import nested
from ..graph.node import describe_origin
from ..var import Var
from .creation import array
from .meta import check_flag
from .registry import function_named

__all__ = ["attrs", "binary_dtype_infer", "hash", "peek", "peek_s"]


def peek_s(x: Any) -> str:
    """Types and shapes of Vars in tuples, lists and dictionaries, as text; nothing is computed.

    Example:
        >>> import metafuse as mf
        >>> mf.peek_s({"x": [mf.ones(2, 3), "text", 5]})
        "{'x': [float32[2, 3], text, int]}"
    """
    with nested("peek_s", "x"):
        return _peeked(x)


def _peeked(x: Any) -> str:
    if type(x) is Var:
        return f"{x.dtype}{list(x.shape)}"
    if isinstance(x, str):
        return x
    if isinstance(x, Mapping):
        return "{" + ", ".join(f"{key!r}: {_peeked(value)}" for key, value in x.items()) + "}"
    if isinstance(x, (list, tuple)):
        return "[" + ", ".join(map(_peeked, x)) + "]"
    return type(x).__name__


def peek(x: Any) -> None:
    """Print what ``peek_s`` answers.

    Example:
        >>> import metafuse as mf
        >>> mf.peek([mf.ones(2)])
        [float32[2]]
    """
    print(peek_s(x))


def attrs(var: Any) -> dict[str, Any]:
    """Dtype, shape, and whether gradients are stopped at a Var.

    Example:
        >>> import metafuse as mf
        >>> mf.attrs(mf.ones(2))
        {'is_stop_fuse': False, 'is_stop_grad': False, 'shape': (2,), 'dtype': metafuse.float32}
    """
    if type(var) is not Var:
        raise DTypeError(f"[attrs] var must be a Var, got {type(var).__name__}")
    return {"is_stop_fuse": False, "is_stop_grad": var.is_stop_grad(), "shape": var.shape, "dtype": var.dtype}


def binary_dtype_infer(op: str, x: Any, y: Any, xscalar: bool = False, yscalar: bool = False) -> DType:
    """The dtype of ``op`` (``"add"``, ``"divide"``, ``"less"`` ...) of an ``x`` and a ``y`` of these dtypes.

    Args:
        xscalar, yscalar: that side is a bare number, whose dtype counts only as far as whether it is whole.

    Example:
        >>> import metafuse as mf
        >>> mf.binary_dtype_infer("divide", "int32", "int8"), mf.binary_dtype_infer("add", "float16", "float32", yscalar=True)
        (metafuse.float32, metafuse.float16)
    """
    function = function_named(str(op))
    if function is None:
        raise ArgumentError(f"[binary_dtype_infer] there is no operator {brief(op)}")
    sides = [_stand_in(as_dtype(x), xscalar), _stand_in(as_dtype(y), yscalar)]
    if xscalar and yscalar:
        sides[1] = array(sides[1])
    try:
        result = function(*sides)
    except TypeError as error:
        raise ArgumentError(
            f"[binary_dtype_infer] {brief(op)} is no operator of two values: {error}"
        ) from error
    return result.dtype  # type: ignore[no-any-return]


def _stand_in(dtype: DType, scalar: bool) -> Any:
    """A value of this dtype: nothing is computed of it."""
    if check_flag("binary_dtype_infer", "xscalar and yscalar", scalar):
        return 1.0 if dtype.is_float else True if dtype.kind == "b" else 1
    return array(1, dtype)


def hash(input: str) -> int:
    """A number of 64 bits that texts differ in; the same in every process.

    Example:
        >>> import metafuse as mf
        >>> mf.hash("a") == mf.hash("a"), mf.hash("a") == mf.hash("b")
        (True, False)
    """
    with nested("hash", "input"):
        text = str(input).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


# -- methods ---------------------------------------------------------------------------------------------------------
def _location(var: Var) -> str:
    """Name of the backend on which values are computed.

    Example:
        >>> import metafuse as mf
        >>> isinstance(mf.ones(2).location(), str)
        True
    """
    from ..plugins.registry import registry

    return registry().default_backend().name


def _debug_msg(var: Var) -> str:
    """What a Var is and where it was recorded, in a line.

    Example:
        >>> import metafuse as mf
        >>> isinstance(mf.ones(2).debug_msg(), str)
        True
    """
    node = var._node
    held = "pending" if node.buffer is None else "stored"
    return f"{node.sig.name} {peek_s(var)} {held}, recorded at {describe_origin(node)}"


def _is_stop_fuse(var: Var) -> bool:
    """Accepted without effect: always ``False``; what is fused is the compiler's choice.

    Example:
        >>> import metafuse as mf
        >>> mf.ones(2).is_stop_fuse()
        False
    """
    return False


def _stop_fuse(var: Var) -> Var:
    """Accepted without effect: what is fused is the compiler's choice; ``sync`` computes a value for itself.

    Example:
        >>> import metafuse as mf
        >>> mf.ones(2).stop_fuse().tolist()
        [1.0, 1.0]
    """
    return var


def _identity(var: Var) -> int:
    """A number that no other value has: that of the recorded operation."""
    return int(var._node.order * (1 << 20))  # orders within one composition differ by fractions


def _attach() -> None:
    methods = {
        "attrs": attrs, "debug_msg": _debug_msg, "id": property(_identity), "is_stop_fuse": _is_stop_fuse, "location": _location,
        "peek": peek_s, "stop_fuse": _stop_fuse,
    }  # fmt: skip
    for name, method in methods.items():
        setattr(Var, name, method)


_attach()
