"""Folds: sum, mean, max and their relatives.

What it is: named reductions composed from the reduce class of meta-operators.
What it is not: the meta-operator itself (``meta.reduce_dims``).
Who calls it: users through ``metafuse`` and ``Var``.

A fold over everything answers shape ``[1]``, as the reference API does. Sums and means carry at least float32 and add long
stretches in blocks (``docs/accuracy.md``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import accumulator, bool_, to_floating
from ..errors import ArgumentError, brief
from ..var import Var
from .elementwise import cast
from .meta import check_dims, check_flag, check_reduction, check_var, index, reduce_dims, reshape
from .precision import answer_type, summand
from .recipe import recorded
from .registry import Sample, Tensor, operator
from .scalar import ternary

__all__ = ["reduce"]

_X = Tensor((3, 4, 5))
_SAMPLES = [
    Sample((_X,)), Sample((_X, 1)), Sample((_X, -1)), Sample((_X, (0, 2))),
    Sample((_X,), {"dim": 0, "keepdims": True}),
]  # fmt: skip
_DISTINCT = [Sample((Tensor((3, 4, 5), "float", distinct=True), *s.args[1:]), s.kwargs) for s in _SAMPLES]


def _oracle(function: Any) -> Any:
    """NumPy's fold with the ``[1]`` convention."""

    def run(x: Any, dim: Any = None, keepdims: bool = False) -> Any:
        result = function(x, axis=dim, keepdims=keepdims)
        return np.reshape(result, (1,)) if np.ndim(result) == 0 else result

    return run


@recorded
def reduce(x: Any, op: str, dim: Any = None, keepdims: bool = False, *, dims: Any = None) -> Var:
    """Fold ``x`` with a binary operator.

    Args:
        op: add, multiply, maximum, minimum, logical_and/or/xor, bitwise_and/or/xor, or mean.
        dim: a dimension, several, or ``None`` for all of them.
        keepdims: keep folded dimensions with extent 1.
        dims: another name of ``dim``, here and in all folds.

    Returns:
        Var; shape ``[1]`` where nothing is left.

    Example:
        >>> import metafuse as mf
        >>> mf.array([[1.0, 5.0], [3.0, 2.0]]).reduce("maximum", 1).numpy()
        array([5., 3.], dtype=float32)
    """
    x = check_var("reduce", "x", x)
    dim = _one_of("reduce", dim, dims)
    if isinstance(op, str) and op == "mean":
        return mean(x, dim, keepdims)
    name = check_reduction("reduce", op)
    return _reduced(x, name, dim, keepdims, f"reduce {name}")


def _reduced(x: Var, name: str, dim: Any, keepdims: bool, operator_name: str) -> Var:
    if name.startswith("logical") and x.dtype is not bool_:
        x = x != 0
    if name.startswith("bitwise") and x.dtype.is_float:
        raise ArgumentError(f"[reduce] {name} needs integers or bool, got {x.dtype}; cast first")
    if name in ("add", "multiply"):
        x = cast(x, "int32") if x.dtype is bool_ else summand(x)
    return _fold(x, name, dim, keepdims, operator_name)


def _one_of(operator_name: str, dim: Any, dims: Any) -> Any:
    """``dim`` or ``dims``, whichever is given."""
    if dims is None:
        return dim
    if dim is not None:
        raise ArgumentError(
            f"[{operator_name}] dim and dims mean the same, got {brief(dim)} and {brief(dims)}; give one"
        )
    return dims


def _fold(x: Var, op: str, dim: Any, keepdims: bool, operator_name: str) -> Var:
    dims = check_dims(operator_name, dim, x.ndim)
    shape = tuple(x.shape)
    if op in ("maximum", "minimum") and 0 in (shape[k] for k in dims):
        raise ArgumentError(
            f"[{operator_name}] shape {list(shape)} has no elements along {list(dims)}; nothing to pick"
        )
    folded = reduce_dims(x, op, dims)
    keep = keepdims if type(keepdims) is bool else check_flag(operator_name, "keepdims", keepdims)
    kept = tuple(1 if k in dims else n for k, n in enumerate(shape)) if keep else tuple(folded.shape)
    return reshape(folded, kept or (1,))


@operator(category="reduce", numpy=_oracle(np.sum), samples=_SAMPLES, method=True)
@recorded
def sum(x: Any, dim: Any = None, keepdims: bool = False, *, dims: Any = None) -> Var:
    """Sum over ``dim`` (all dimensions if ``None``). bool gives int32; other dtypes stay.

    Example:
        >>> import metafuse as mf
        >>> mf.ones(2, 3).sum(1).numpy()
        array([3., 3.], dtype=float32)
    """
    x, dim = check_var("sum", "x", x), _one_of("sum", dim, dims)
    return _reduced(x, "add", dim, keepdims, "sum")


@operator(category="reduce", numpy=_oracle(np.prod), samples=_SAMPLES, method=("prod", "product"))
@recorded
def prod(x: Any, dim: Any = None, keepdims: bool = False, *, dims: Any = None) -> Var:
    """Product over ``dim``.

    Example:
        >>> import metafuse as mf
        >>> mf.array([[1.0, 5.0], [3.0, 2.0]]).prod(1).tolist()
        [5.0, 6.0]
    """
    x, dim = check_var("prod", "x", x), _one_of("prod", dim, dims)
    return _reduced(x, "multiply", dim, keepdims, "prod")


@operator(category="reduce", numpy=_oracle(np.max), samples=_DISTINCT, method=True)
@recorded
def max(x: Any, dim: Any = None, keepdims: bool = False, *, dims: Any = None) -> Var:
    """Largest element over ``dim``; NaN if there is one. All equal maxima receive the gradient.

    Example:
        >>> import metafuse as mf
        >>> mf.array([[1.0, 5.0], [3.0, 2.0]]).max(1).tolist()
        [5.0, 3.0]
    """
    return _fold(check_var("max", "x", x), "maximum", _one_of("max", dim, dims), keepdims, "max")


@operator(category="reduce", numpy=_oracle(np.min), samples=_DISTINCT, method=True)
@recorded
def min(x: Any, dim: Any = None, keepdims: bool = False, *, dims: Any = None) -> Var:
    """Smallest element over ``dim``; NaN if there is one. All equal minima receive the gradient.

    Example:
        >>> import metafuse as mf
        >>> mf.array([[1.0, 5.0], [3.0, 2.0]]).min(1).tolist()
        [1.0, 2.0]
    """
    return _fold(check_var("min", "x", x), "minimum", _one_of("min", dim, dims), keepdims, "min")


@operator(category="reduce", numpy=_oracle(np.mean), samples=_SAMPLES, method=True)
@recorded
def mean(x: Any, dim: Any = None, keepdims: bool = False, *, dims: Any = None) -> Var:
    """Arithmetic mean over ``dim``. Integers give floats.

    Example:
        >>> import metafuse as mf
        >>> mf.array([1.0, 2.0, 6.0]).mean().item()
        3.0
    """
    x = check_var("mean", "x", x)
    dim = _one_of("mean", dim, dims)
    kind = to_floating(x.dtype)
    wide = cast(x, accumulator(kind))  # half types: a sum may not fit where the mean does
    count = _count(wide, check_dims("mean", dim, x.ndim))
    found = _fold(wide, "add", dim, keepdims, "mean") * (1.0 / count if count else float("nan"))
    return cast(found, answer_type(kind))


def _count(x: Var, dims: tuple[int, ...]) -> int:
    count = 1
    for k in dims:
        count *= x.shape[k]
    return count


def _var_oracle(
    x: Any, dim: Any = None, dims: Any = None, unbiased: bool = False, keepdims: bool = False
) -> Any:
    fold = _oracle(lambda v, axis, keepdims: np.var(v, axis=axis, keepdims=keepdims, ddof=int(unbiased)))
    return fold(x, dim if dims is None else dims, keepdims)


def _std_oracle(x: Any, dim: Any = None, keepdim: bool = False, keepdims: bool = False) -> Any:
    return np.sqrt(_var_oracle(x, dim, None, True, keepdim or keepdims))


@operator(category="reduce", numpy=_var_oracle, method=True,
          samples=[*_SAMPLES, Sample((_X, None, (0, 1), True)), Sample((_X, 2, None, True, True))])  # fmt: skip
@recorded
def var(x: Any, dim: Any = None, dims: Any = None, unbiased: bool = False, keepdims: bool = False) -> Var:
    """Variance over ``dim``, biased unless ``unbiased``: the mean of squared distances from the mean (two passes).

    Example:
        >>> import metafuse as mf
        >>> mf.array([1.0, 3.0]).var().item(), mf.array([1.0, 3.0]).var(unbiased=True).item()
        (1.0, 2.0)
    """
    x = check_var("var", "x", x)
    kind = to_floating(x.dtype)
    x = cast(x, accumulator(kind))
    folded = check_dims("var", _one_of("var", dim, dims), x.ndim)
    count = _count(x, folded)
    squares = (x - mean(x, folded, True)).sqr()
    divisor = count - 1 if check_flag("var", "unbiased", unbiased) else count
    found = _fold(squares, "add", folded, keepdims, "var") * (1.0 / divisor if divisor > 0 else float("nan"))
    return cast(found, answer_type(kind))


@operator(category="reduce", numpy=_std_oracle, method=True,
          samples=[*(Sample(q.args) for q in _SAMPLES[:4]), Sample((_X, 0, True)),
                   Sample((_X,), {"dim": (0, 2), "keepdims": True})])  # fmt: skip
def std(x: Any, dim: Any = None, keepdim: bool = False, *, keepdims: bool = False) -> Var:
    """Unbiased standard deviation over ``dim``, at least 1e-6.

    Example:
        >>> import metafuse as mf
        >>> round(mf.array([1.0, 3.0]).std().item(), 4)
        1.4142
    """
    spread = var(x, dim, None, True, check_flag("std", "keepdim", keepdim) or keepdims)
    return cast(cast(spread, accumulator(spread.dtype)).maximum(1e-12).sqrt(), spread.dtype)


@operator(category="reduce", numpy=_oracle(lambda x, axis, keepdims: np.all(x, axis=axis, keepdims=keepdims)),
          samples=[Sample((Tensor((3, 4), "bool"),)), Sample((Tensor((3, 4), "bool"), 1))],
          method=("all", "all_"), differentiable=False)  # fmt: skip
@recorded
def all(x: Any, dim: Any = None, keepdims: bool = False, *, dims: Any = None) -> Var:
    """Whether every element along ``dim`` is true (non-zero).

    Example:
        >>> import metafuse as mf
        >>> mf.all(mf.array([[1, 0], [2, 3]]), 1).tolist()
        [False, True]
    """
    x, dim = check_var("all", "x", x), _one_of("all", dim, dims)
    return _reduced(x, "logical_and", dim, keepdims, "all")


@operator(category="reduce", numpy=_oracle(lambda x, axis, keepdims: np.any(x, axis=axis, keepdims=keepdims)),
          samples=[Sample((Tensor((3, 4), "bool"),)), Sample((Tensor((3, 4), "bool"), 1))],
          method=("any", "any_"), differentiable=False)  # fmt: skip
@recorded
def any(x: Any, dim: Any = None, keepdims: bool = False, *, dims: Any = None) -> Var:
    """Whether some element along ``dim`` is true (non-zero).

    Example:
        >>> import metafuse as mf
        >>> mf.any(mf.array([[0, 0], [0, 3]]), 1).tolist()
        [False, True]
    """
    x, dim = check_var("any", "x", x), _one_of("any", dim, dims)
    return _reduced(x, "logical_or", dim, keepdims, "any")


@recorded
def _arg(op: str, x: Any, dim: Any, keepdims: bool) -> tuple[Var, Var]:
    name = "argmax" if op == "maximum" else "argmin"
    x = check_var(name, "x", x)
    keepdims = check_flag(name, "keepdims", keepdims)
    source = x if dim is not None else reshape(x, (x.numel(),))
    dims = check_dims(name, 0 if dim is None else dim, source.ndim)
    if len(dims) != 1:
        raise ArgumentError(f"[{name}] dim must be one dimension or None, got {brief(dim)}")
    value = _fold(source, op, dims, True, name)
    shape = tuple(source.shape)
    # NaN equals nothing: where the value is NaN, NaN elements are what is looked for
    hit = source == value
    if source.dtype.is_float:
        hit = hit.logical_or(source.isnan())
    places = ternary(hit, index(shape, dims[0]), shape[dims[0]])
    return reduce(places, "minimum", dims, keepdims), value if keepdims else reshape(
        value, tuple(n for k, n in enumerate(shape) if k not in dims) or (1,)
    )


def _arg_oracle(function: Any, pick: Any) -> Any:
    def run(x: Any, dim: Any = None, keepdims: bool = False) -> Any:
        if dim is None:
            return np.reshape(function(x), (1,)).astype(np.int32), np.reshape(pick(x), (1,))
        places = function(x, axis=dim, keepdims=keepdims).astype(np.int32)
        return places, pick(x, axis=dim, keepdims=keepdims)

    return run


_ARG_SAMPLES = [
    Sample((Tensor((3, 4), "float", distinct=True), 1)), Sample((Tensor((3, 4), "float", distinct=True), 0, True)),
    Sample((Tensor((7,), "any"), 0)), Sample((Tensor((3, 4), "float", distinct=True),)),
]  # fmt: skip


@operator(
    category="reduce", numpy=_arg_oracle(np.argmax, np.max), samples=_ARG_SAMPLES, method=True, rebinds=False
)
def argmax(x: Any, dim: Any = None, keepdims: bool = False) -> tuple[Var, Var]:
    """Place and value of the largest element along ``dim`` (of the flattened array if ``None``).

    Returns:
        (int32 places, values); the first of equal elements, NaN before everything.

    Example:
        >>> import metafuse as mf
        >>> place, value = mf.array([[1.0, 5.0, 2.0]]).argmax(1)
        >>> place.item(), value.item()
        (1, 5.0)
    """
    return _arg("maximum", x, dim, keepdims)


@operator(
    category="reduce", numpy=_arg_oracle(np.argmin, np.min), samples=_ARG_SAMPLES, method=True, rebinds=False
)
def argmin(x: Any, dim: Any = None, keepdims: bool = False) -> tuple[Var, Var]:
    """Place and value of the smallest element along ``dim``; see ``argmax``.

    Example:
        >>> import metafuse as mf
        >>> place, value = mf.array([[1.0, 5.0, 0.5]]).argmin(1)
        >>> place.item(), value.item()
        (2, 0.5)
    """
    return _arg("minimum", x, dim, keepdims)


def _install() -> None:
    """``reduce_add`` and its siblings, as the reference API has them."""
    for op in ("add", "multiply", "maximum", "minimum", "logical_and", "logical_or", "logical_xor", "bitwise_and",
               "bitwise_or", "bitwise_xor"):  # fmt: skip

        def function(
            x: Any, dim: Any = None, keepdims: bool = False, *, dims: Any = None, _op: str = op
        ) -> Var:
            return reduce(x, _op, dim, keepdims, dims=dims)

        function.__name__ = function.__qualname__ = f"reduce_{op}"
        value = "True" if op.startswith("logical") else "2"
        function.__doc__ = (
            f"Fold with ``{op}`` over ``dim`` (all dimensions if ``None``); ``reduce`` describes the arguments.\n\nExample:\n"
            f"    >>> import metafuse as mf\n    >>> mf.array([[{value}, {value}]]).reduce_{op}(1).shape\n    (1,)\n"
        )
        ufunc = getattr(np, op)
        kind = "bool" if op.startswith("logical") else "int" if op.startswith("bitwise") else "float"
        operator(
            category="reduce", numpy=_oracle(ufunc.reduce), method=f"reduce_{op}",
            samples=[Sample((Tensor((3, 4), kind, distinct=op.endswith("imum")), 1))],
            differentiable=kind == "float",
        )(function)  # fmt: skip
    Var.reduce = reduce  # type: ignore[attr-defined]


_install()
