"""Scans: running sums, products, maxima and minima along a dimension, and differences of neighbours.

What it is: the types of results, and gradients that are scans again.
What it is not: the loops (``scan_loops``).
Who calls it: users.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from ..dtypes import accumulator, bool_, int32, to_floating, uint8
from ..errors import ArgumentError
from ..graph.node import Node
from ..var import Var, wrap
from .autograd import no_grad
from .elementwise import cast
from .meta import check_dim, check_integer, check_var, fill, reshape, with_gradient
from .recipe import recorded
from .registry import Sample, Tensor, operator
from .scalar import ternary
from .scan_loops import running, running_log_sums, running_places
from .shape import concat, flip, narrow

__all__ = ["cummax", "cummin", "cumprod", "cumsum", "diff", "logcumsumexp"]

_X = Tensor((3, 4, 5))
_SAMPLES = [Sample((_X,)), Sample((_X, 1)), Sample((_X, 0)), Sample((Tensor((70,), "float", 0.5, 1.3), 0)),
            Sample((Tensor((2, 0)), 1)), Sample((Tensor((1,)),)), Sample((Tensor((1, 33, 1)), 1))]  # fmt: skip
_DISTINCT = [Sample((Tensor(s.args[0].shape, "float", distinct=True), *s.args[1:])) for s in _SAMPLES]


def _dim(operator_name: str, x: Var, dim: Any) -> int:
    """The dimension; the last one unless it is given."""
    return check_dim(operator_name, -1 if dim is None else dim, x.ndim)


def _flat(x: Var, dim: int) -> Var:
    """``[outer, n, inner]``."""
    shape = tuple(x.shape)
    return reshape(x, (prod(shape[:dim]), shape[dim], prod(shape[dim + 1 :])))


def _along(x: Var, dim: int, scan: Callable[..., Var], *arguments: Any) -> Var:
    """``scan`` of ``x`` along ``dim``; halves are carried in float32, bool in bytes."""
    wide = cast(x, uint8 if x.dtype is bool_ else accumulator(x.dtype))
    return reshape(scan(_flat(wide, dim), *arguments), tuple(x.shape)) if x.size else x


def _plain(x: Var, op: str, dim: int) -> Var:
    """A scan with a reduction operator, without gradient."""
    x = cast(x, int32) if x.dtype is bool_ and op in ("add", "multiply") else x
    with no_grad():
        return cast(_along(x, dim, running, op), x.dtype)


def _backwards(g: Var, dim: int) -> Var:
    """For every place, the sum of ``g`` from there to the end."""
    return flip(cumsum(flip(g, dim), dim), dim)


def _cumsum_rule(node: Node, upstream: Var) -> list[Var | None]:
    return [None, _backwards(upstream, node.sig.attrs)]


@operator(
    category="scan",
    numpy=lambda x, dim=-1: np.cumsum(x, dim),
    samples=_SAMPLES,
    method=("cumsum", "numpy_cumsum"),
)
@recorded
def cumsum(x: Any, dim: int | None = None) -> Var:
    """Running sums along ``dim`` (the last dimension unless given). bool gives int32; other dtypes stay.

    Example:
        >>> import metafuse as mf
        >>> mf.cumsum(mf.array([1.0, 2.0, 3.0])).numpy()
        array([1., 3., 6.], dtype=float32)
    """
    x = check_var("cumsum", "x", x)
    number = _dim("cumsum", x, dim)
    answer = _plain(x, "add", number)
    return with_gradient(answer, [x], "cumsum", number, _cumsum_rule) if x.dtype.is_float else answer


def _cumprod_gradient(x: Var, upstream: Var, dim: int) -> Var:
    """Right also where elements are zero: up to the first zero the sums of g y from there on over x; at the first zero the same
    sums with a 1 in its place; behind it nothing. So are its gradients."""
    zero = x == 0
    zeros = cumsum(zero, dim)
    first = zero.logical_and(zeros == 1)
    filled = ternary(zero, 1.0, x)
    before = _backwards(upstream * cumprod(x, dim), dim) / filled
    at = _backwards(upstream * cumprod(ternary(first, 1.0, x), dim), dim)
    nothing = fill(tuple(x.shape), 0, upstream.dtype)
    behind = with_gradient(nothing, [x, upstream], "cumprod_behind_zero", dim, _behind_zero_rule)
    return ternary(zeros == 0, before, ternary(first, at, behind))


def _behind_zero_rule(node: Node, upstream: Var) -> list[Var | None]:
    """Behind its first zero the gradient of ``cumprod`` is that zero times the gradient of what has a 1 in its place, so that
    only the zero has a derivative there."""
    dim, x, g = node.sig.attrs, wrap(node.inputs[1]), wrap(node.inputs[2])
    zero = x == 0
    first = zero.logical_and(cumsum(zero, dim) == 1)
    rest = _cumprod_gradient(ternary(first, 1.0, x), g, dim)
    return [None, ternary(first, (rest * upstream).sum(dim, keepdims=True), 0.0), None]


def _cumprod_rule(node: Node, upstream: Var) -> list[Var | None]:
    return [None, _cumprod_gradient(wrap(node.inputs[1]), upstream, node.sig.attrs)]


@operator(
    category="scan",
    numpy=lambda x, dim=-1: np.cumprod(x, dim),
    samples=_SAMPLES,
    method=("cumprod", "numpy_cumprod"),
)
def cumprod(x: Any, dim: int | None = None) -> Var:
    """Running products along ``dim`` (the last dimension unless given). bool gives int32; other dtypes stay.

    Example:
        >>> import metafuse as mf
        >>> mf.cumprod(mf.array([1.0, 2.0, 3.0])).numpy()
        array([1., 2., 6.], dtype=float32)
    """
    x = check_var("cumprod", "x", x)
    number = _dim("cumprod", x, dim)
    answer = _plain(x, "multiply", number)
    return with_gradient(answer, [x], "cumprod", number, _cumprod_rule) if x.dtype.is_float else answer


def _extreme_rule(node: Node, upstream: Var) -> list[Var | None]:
    """Each element is given what its places got."""
    from .selection import scatter

    wide = cast(upstream, accumulator(upstream.dtype))
    zero = fill(node.spec.shape, 0, wide.dtype)
    return [
        None,
        cast(scatter(zero, node.sig.attrs, wrap(node.inputs[2]), wide, "add"), upstream.dtype),
        None,
    ]


def _extreme(name: str, op: str, x: Any, dim: int | None) -> tuple[Var, Var]:
    x = check_var(name, "x", x)
    number = _dim(name, x, dim)
    with no_grad():
        values, places = _plain(x, op, number), cast(_along(x, number, running_places, op), int32)
    return with_gradient(
        values, [x, places], name, number, _extreme_rule
    ) if x.dtype.is_float else values, places


def _extreme_oracle(ufunc: Any) -> Any:
    def run(x: Any, dim: int = -1) -> Any:
        values = ufunc.accumulate(x, dim)
        places = np.indices(x.shape)[dim]
        return values, np.maximum.accumulate(np.where(x == values, places, -1), dim)

    return run


@operator(category="scan", numpy=_extreme_oracle(np.maximum), samples=_DISTINCT, method=True, rebinds=False)
def cummax(x: Any, dim: int | None = None) -> tuple[Var, Var]:
    """Running maxima along ``dim`` (the last dimension unless given), and their places.

    Returns:
        (values, int32 places); the latest of equal elements, NaN from the first one on. Gradients go to those places.

    Example:
        >>> import metafuse as mf
        >>> value, place = mf.cummax(mf.array([1.0, 3.0, 2.0]))
        >>> value.numpy(), place.numpy()
        (array([1., 3., 3.], dtype=float32), array([0, 1, 1], dtype=int32))
    """
    return _extreme("cummax", "maximum", x, dim)


@operator(category="scan", numpy=_extreme_oracle(np.minimum), samples=_DISTINCT, method=True, rebinds=False)
def cummin(x: Any, dim: int | None = None) -> tuple[Var, Var]:
    """Running minima along ``dim`` (the last dimension unless given), and their places; see ``cummax``.

    Example:
        >>> import metafuse as mf
        >>> mf.cummin(mf.array([2.0, 3.0, 1.0]))[0].numpy()
        array([2., 2., 1.], dtype=float32)
    """
    return _extreme("cummin", "minimum", x, dim)


def _finite(m: Var) -> Var:
    """A maximum that can be subtracted: 0 in place of an infinity."""
    return ternary(m.isinf(), 0.0, m)


def _logcumsumexp_rule(node: Node, upstream: Var) -> list[Var | None]:
    """``sum over j >= i of g[j] exp(x[i] - y[j])``, positive and negative g apart, in logarithms."""
    dim, x, y = node.sig.attrs, wrap(node.inputs[1]), _finite(wrap(node))

    def part(g: Var) -> Var:
        some = g > 0
        logs = ternary(some, ternary(some, g, 1.0).log() - y, -float("inf"))
        return (flip(logcumsumexp(flip(logs, dim), dim), dim) + x).exp()

    return [None, part(upstream) - part(-upstream)]


@operator(
    category="scan", numpy=lambda x, dim=-1: np.logaddexp.accumulate(x, dim), samples=_SAMPLES, method=True
)
def logcumsumexp(x: Any, dim: int | None = None) -> Var:
    """Logarithms of running sums of exponentials along ``dim`` (the last dimension unless given); nothing overflows.

    Example:
        >>> import metafuse as mf
        >>> mf.logcumsumexp(mf.array([1000.0, 1000.0])).numpy().round(1)
        array([1000. , 1000.7], dtype=float32)
    """
    x = check_var("logcumsumexp", "x", x)
    number = _dim("logcumsumexp", x, dim)
    kind = to_floating(x.dtype)
    x = cast(x, kind)
    with no_grad():
        answer = cast(_along(x, number, running_log_sums), kind)
    return with_gradient(answer, [x], "logcumsumexp", number, _logcumsumexp_rule)


def _diff_oracle(x: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    return np.diff(
        x, n, dim, **{k: v for k, v in (("prepend", prepend), ("append", append)) if v is not None}
    )


@operator(
    category="scan", numpy=_diff_oracle, method=True, source="NumPy diff",
    samples=[Sample((_X,)), Sample((_X, 2, 1)), Sample((_X, 0)), Sample((_X, 4, 0)),
             Sample((_X, 1, 1, Tensor((3, 1, 5)), Tensor((3, 2, 5))))],
)  # fmt: skip
def diff(x: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Var:
    """Differences of neighbours along ``dim``, ``n`` times over; ``prepend`` and ``append`` are joined on first.

    Example:
        >>> import metafuse as mf
        >>> mf.diff(mf.array([1.0, 4.0, 9.0])).numpy()
        array([3., 5.], dtype=float32)
    """
    x = check_var("diff", "x", x)
    number = check_dim("diff", dim, x.ndim)
    times = check_integer("diff", "n", n, 0)
    ends = [
        v if v is None else check_var("diff", k, v) for k, v in (("prepend", prepend), ("append", append))
    ]
    x = concat([v for v in (ends[0], x, ends[1]) if v is not None], number)
    if x.dtype is bool_:
        raise ArgumentError("[diff] bool has no differences; compare with != or cast to int32 first")
    for _ in range(min(times, x.shape[number])):
        count = max(x.shape[number] - 1, 0)
        x = narrow(x, number, 1, count, "diff") - narrow(x, number, 0, count, "diff")
    return x
