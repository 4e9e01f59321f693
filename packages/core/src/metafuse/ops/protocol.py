"""What a Var answers beside arithmetic: copies, conversions to Python, arrays like it, questions about it.

What it is: small functions and methods under the names of the reference API, and the rest of Python's protocols.
What it is not: ``Var`` itself (``var``), or element-wise conversions (``casting``).
Who calls it: users.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..dtypes import DTYPES, as_dtype
from ..errors import ArgumentError, DTypeError, brief
from ..finite import nested
from ..var import Var
from .creation import array, full
from .elementwise import cast
from .linalg import matmul
from .meta import check_shape, check_var, identity, index
from .registry import Sample, Tensor, find, in_place, operator
from .reindexing import reindex
from .shape import concat
from .telling import renamed, tells

__all__ = [
    "cat", "concatenate", "detach", "dfs_to_numpy", "format", "from_torch", "get_len", "index_var", "is_var",
    "new", "new_empty", "new_full", "new_ones", "new_zeros", "register_hook", "reindex_var", "size", "to_bool", "to_float",
    "to_int", "tolist",
]  # fmt: skip

_COPY = [Sample((Tensor((2, 3)),)), Sample((Tensor((0,), "any"),))]


# -- the same value -----------------------------------------------------------------------------------------------
@operator(category="conversion", numpy=np.copy, samples=_COPY, method=("clone", "copy"), rebinds=False)
def clone(x: Any) -> Var:
    """The same value as a new Var on the gradient path; changing either in place leaves the other as it is.

    Example:
        >>> import metafuse as mf
        >>> x = mf.ones(1)
        >>> y = x.clone()
        >>> x.add_(1).item(), y.item()
        (2.0, 1.0)
    """
    return identity(check_var("clone", "x", x))


@operator(category="conversion", numpy=lambda x: x, samples=_COPY, method=True)
def contiguous(x: Any) -> Var:
    """``x`` itself: every Var is stored row by row.

    Example:
        >>> import metafuse as mf
        >>> mf.ones(2, 3).t().contiguous().shape
        (3, 2)
    """
    return check_var("contiguous", "x", x)


@operator(category="conversion", numpy=lambda x: x, samples=_COPY, method=True)
def cpu(x: Any) -> Var:
    """``x`` itself: where values are kept is the backend's matter, and reading one brings it to the host.

    Example:
        >>> import metafuse as mf
        >>> mf.ones(2).cpu().tolist()
        [1.0, 1.0]
    """
    return check_var("cpu", "x", x)


@operator(category="conversion", numpy=lambda x, *others: x, method=True,
          samples=[Sample((Tensor((3, 2), "any"),)), Sample((Tensor((3, 2)), "cpu", True)),
                   Sample((Tensor((3,), "int32"), "int64")), Sample((Tensor((3,)), None, Tensor((2,))))])  # fmt: skip
@tells
def to(x: Any, *args: Any, **kargs: Any) -> Var:
    """``x`` converted to the dtypes (or the dtype of Vars) among the arguments.

    Args:
        args: dtypes, Vars, ``None``, bool (ignored), or a device: "cpu" or the backend in use.

    Errors:
        ArgumentError: another device; ``flags.backend`` says where everything is computed.

    Example:
        >>> import metafuse as mf
        >>> mf.ones(2).to("float64").dtype
        metafuse.float64
    """
    x = check_var("to", "x", x)
    for a in (*args, *kargs.values()):
        if type(a) is Var:
            x = cast(x, a.dtype)
        elif isinstance(a, str) and not _names_type(a):
            _check_device(a)
        elif a is not None and not isinstance(a, bool):
            x = cast(x, a)
    return x


def _names_type(text: str) -> bool:
    try:
        as_dtype(text)
    except DTypeError:
        return False
    return True


def _check_device(text: str) -> None:
    from ..plugins.registry import registry

    name = text.partition(":")[0]
    current = registry().default_backend().name
    if name not in ("cpu", current):
        raise ArgumentError(
            f"[to] {text!r} is no dtype and not where values are computed, {current!r}; set flags.backend"
        )


def detach(x: Any) -> Var:
    """The same value without a gradient path, as a new Var.

    Example:
        >>> import metafuse as mf
        >>> mf.detach(mf.ones(1)).requires_grad
        False
    """
    return check_var("detach", "x", x).detach()


def detach_inplace(x: Var) -> Var:
    """Cut the gradient path at this value; answers the Var itself.

    Example:
        >>> import metafuse as mf
        >>> mf.ones(2).detach_inplace().requires_grad
        False
    """
    return x.stop_grad()


def register_hook(v: Any, hook: Callable[[Var], Var | None]) -> None:
    """Call ``hook(gradient)`` when a gradient with respect to ``v`` is computed; it may answer a replacement.

    Example:
        >>> import metafuse as mf
        >>> x = mf.ones(1)
        >>> mf.register_hook(x, lambda g: g * 2)
        >>> mf.grad(x * 3, x).item()
        6.0
    """
    if type(v) is not Var or not callable(hook):
        raise DTypeError(
            f"[register_hook] needs a Var and a function, got {type(v).__name__} and {type(hook).__name__}"
        )
    v.register_hook(hook)


# -- arrays like it -----------------------------------------------------------------------------------------------
def _filled(name: str, x: Any, size: Any, value: Any) -> Var:
    x = check_var(name, "x", x)
    return full(check_shape(name, size), value, x.dtype)


def new_empty(x: Any, size: Any) -> Var:
    """An array of shape ``size`` and the dtype of ``x`` whose values do not matter (zeros here).

    Example:
        >>> import metafuse as mf
        >>> mf.ones(1).new_empty([2, 3]).shape
        (2, 3)
    """
    return _filled("new_empty", x, size, 0)


def new_zeros(x: Any, size: Any) -> Var:
    """Zeros of shape ``size`` and the dtype of ``x``.

    Example:
        >>> import metafuse as mf
        >>> mf.arange(3).new_zeros([2]).numpy()
        array([0, 0], dtype=int32)
    """
    return _filled("new_zeros", x, size, 0)


def new_ones(x: Any, size: Any) -> Var:
    """Ones of shape ``size`` and the dtype of ``x``.

    Example:
        >>> import metafuse as mf
        >>> mf.arange(3).new_ones([2]).tolist()
        [1, 1]
    """
    return _filled("new_ones", x, size, 1)


@tells
def new_full(x: Any, size: Any, val: Any) -> Var:
    """``val`` everywhere, in shape ``size`` and the dtype of ``x``.

    Example:
        >>> import metafuse as mf
        >>> mf.arange(3).new_full([2], 7).tolist()
        [7, 7]
    """
    return _filled("new_full", x, size, val)


@tells
def new(x: Any, *args: Any) -> Var:
    """An array of the dtype of ``x``: of a shape given as integers, or holding the one array or list that is given.

    Example:
        >>> import metafuse as mf
        >>> mf.ones(1).new(2, 3).shape, mf.ones(1).new([2, 3]).numpy()
        ((2, 3), array([2., 3.], dtype=float32))
    """
    x = check_var("new", "x", x)
    if len(args) == 1 and not isinstance(args[0], (int, np.integer)):
        return cast(array(args[0]), x.dtype)
    return new_empty(x, args)


# -- as Python sees it ------------------------------------------------------------------------------------------
def is_var(v: Any) -> bool:
    """Whether ``v`` is a Var.

    Example:
        >>> import metafuse as mf
        >>> mf.is_var(mf.ones(1)), mf.is_var(1.0)
        (True, False)
    """
    return isinstance(v, Var)


def size(v: Any, dim: int | None = None) -> Any:
    """The shape, or the extent of ``dim``.

    Example:
        >>> import metafuse as mf
        >>> mf.size(mf.zeros(2, 3)), mf.size(mf.zeros(2, 3), 1)
        ((2, 3), 3)
    """
    return check_var("size", "v", v).size(dim)


def get_len(var: Any) -> int:
    """The extent of the first dimension.

    Example:
        >>> import metafuse as mf
        >>> mf.get_len(mf.zeros(4, 2))
        4
    """
    return len(check_var("get_len", "var", var))


def dim(x: Var) -> int:
    """Number of dimensions.

    Example:
        >>> import metafuse as mf
        >>> mf.zeros(2, 3).dim()
        2
    """
    return x.ndim


@tells
def to_bool(v: Any) -> bool:
    """The only element as a Python bool.

    Example:
        >>> import metafuse as mf
        >>> mf.to_bool(mf.array([2]))
        True
    """
    return bool(check_var("to_bool", "v", v).item())


@tells
def to_int(v: Any) -> int:
    """The only element as a Python int.

    Example:
        >>> import metafuse as mf
        >>> mf.to_int(mf.array([2.7]))
        2
    """
    value = check_var("to_int", "v", v).item()
    if value != value or value in (float("inf"), -float("inf")):
        raise ArgumentError(f"[to_int] {value} is no whole number")
    return int(value)


@tells
def to_float(v: Any) -> float:
    """The only element as a Python float.

    Example:
        >>> import metafuse as mf
        >>> mf.to_float(mf.array([2]))
        2.0
    """
    return float(check_var("to_float", "v", v).item())


def tolist(x: Any) -> Any:
    """The value as nested Python lists.

    Example:
        >>> import metafuse as mf
        >>> mf.tolist(mf.array([[1, 2]]))
        [[1, 2]]
    """
    return check_var("tolist", "x", x).tolist()


def format(v: Any, spec: str = "") -> str:
    """The only element formatted as a number; without ``spec``, or of several elements, as ``str`` shows it.

    Example:
        >>> import metafuse as mf
        >>> f"{mf.array(0.125):.2f}"
        '0.12'
    """
    value = check_var("format", "v", v)
    if not isinstance(spec, str):
        raise DTypeError(f"[format] spec must be a string, got {type(spec).__name__}")
    if not spec:
        return str(value)
    if value.numel() != 1:
        raise ArgumentError(f"[format] {spec!r} formats one number, got shape {list(value.shape)}")
    try:
        return value.item().__format__(spec)
    except ValueError as error:
        raise ArgumentError(f"[format] {spec!r}: {error}") from None


def dfs_to_numpy(x: Any) -> Any:
    """``x`` with every Var in its lists, tuples and dicts as a NumPy array.

    Example:
        >>> import metafuse as mf
        >>> mf.dfs_to_numpy({"a": [mf.ones(1), 2]})
        {'a': [array([1.], dtype=float32), 2]}
    """
    with nested("dfs_to_numpy", "x"):
        return _read(x)


def _read(x: Any) -> Any:
    if isinstance(x, Var):
        return x.numpy()
    if isinstance(x, (list, tuple)):
        return type(x)(_read(v) for v in x)
    return {k: _read(v) for k, v in x.items()} if isinstance(x, dict) else x


def from_torch(x: Any) -> Var:
    """A Var with a copy of a PyTorch tensor of any device, in its own element type.

    Errors:
        DTypeError: ``x`` is no tensor.

    Example:
        >>> import metafuse as mf
        >>> try:
        ...     mf.from_torch([1.0])
        ... except TypeError as error:
        ...     print(error)
        [from_torch] x must be a PyTorch tensor, got list; use array for other data
    """
    if not all(hasattr(x, name) for name in ("detach", "cpu", "numpy")):
        raise DTypeError(
            f"[from_torch] x must be a PyTorch tensor, got {type(x).__name__}; use array for other data"
        )
    plain = x.detach().cpu()
    name = str(plain.dtype).rpartition(".")[2]
    if name == "bfloat16":  # NumPy has no such type; float32 holds every value of it
        plain = plain.float()
    return array(plain.numpy(), name if name in DTYPES else None)


def _contains(x: Var, key: Any) -> bool:
    return bool((x == key).any().item()) if x.numel() else False


# -- operators by other names --------------------------------------------------------------------------------------
cat, concatenate = renamed("cat", concat), renamed("concatenate", concat)


def index_var(a: Any, dim: Any = None, dtype: Any = "int32") -> Any:
    """The position along ``dim`` of every element of ``a``; without ``dim`` a Var per dimension. See ``index``.

    Example:
        >>> import metafuse as mf
        >>> mf.zeros(3).index_var(0).numpy()
        array([0, 1, 2], dtype=int32)
    """
    return index(check_var("index_var", "a", a), dim, dtype)


@tells
def reindex_var(x: Any, indexes: Any, overflow_value: Any = 0, overflow_conditions: Any = ()) -> Var:
    """``y[i] = x[indexes[0][i], indexes[1][i], ...]`` for integer Vars of one shape. See ``reindex``.

    Example:
        >>> import metafuse as mf
        >>> mf.reindex_var(mf.array([5, 6]), [mf.array([1, 1, 0])]).numpy()
        array([6, 6, 5], dtype=int32)
    """
    found = [
        check_var("reindex_var", f"indexes[{k}]", v)
        for k, v in enumerate(indexes if isinstance(indexes, (tuple, list)) else [indexes])
    ]
    if not overflow_conditions:
        return reindex(x, found, None, overflow_value)
    here = ",".join(f"i{d}" for d in range(found[0].ndim if found else 0))
    texts = [f"@e{k}({here})" for k in range(len(found))]
    return reindex(
        x, list(found[0].shape) if found else [], texts, overflow_value, overflow_conditions, found
    )


def _by_name(name: str, op: Any, arity: int) -> Callable[..., Any]:
    record = find(op) if isinstance(op, str) else None
    if record is None or record.arity != arity:
        raise ArgumentError(
            f"[{name}] op must name an element-wise operator of {arity} argument(s), got {brief(op)}"
        )
    return record.function


@operator(category="element-wise", numpy=lambda x, op: np.sin(x) if op == "sin" else x, method=True,
          samples=[Sample((Tensor((3, 4)), "sin")), Sample((Tensor((3,), "int32"), "int64"))])  # fmt: skip
@tells
def unary(x: Any, op: Any) -> Var:
    """The element-wise operator or the conversion that ``op`` names.

    Example:
        >>> import metafuse as mf
        >>> mf.unary(mf.array([4.0]), "sqrt").item()
        2.0
    """
    x = check_var("unary", "x", x)
    if not isinstance(op, str) or _names_type(op):
        return cast(x, op)
    return _by_name("unary", op, 1)(x)  # type: ignore[no-any-return]


@operator(category="element-wise", numpy=lambda x, y, p: getattr(np, p)(x, y), method=True,
          samples=[Sample((Tensor((3, 4)), Tensor((4,)), "multiply")),
                   Sample((Tensor((2, 3), "int"), 2, "subtract"))])  # fmt: skip
def binary(x: Any, y: Any, p: str) -> Var:
    """The element-wise operator of two arguments that ``p`` names.

    Example:
        >>> import metafuse as mf
        >>> mf.binary(mf.array([4.0]), 2, "add").item()
        6.0
    """
    return _by_name("binary", p, 2)(check_var("binary", "x", x), y)  # type: ignore[no-any-return]


def _install() -> None:
    """Methods that are no records of their own, and Python's protocols."""
    for function in (
        dim,
        detach_inplace,
        index_var,
        reindex_var,
        new,
        new_empty,
        new_full,
        new_ones,
        new_zeros,
    ):
        setattr(Var, function.__name__, function)
    table: dict[str, Callable[..., Any]] = {
        "index": index_var,
        "__contains__": _contains,
        "__format__": format,
    }
    for name, method in table.items():
        setattr(Var, name, method)
    Var.__imatmul__ = in_place("__imatmul__", matmul)  # type: ignore[attr-defined]


_install()
