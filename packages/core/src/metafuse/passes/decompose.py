"""Decompose: scalar functions that a backend lacks, in terms of those that it has.

What it is: a table of identities, applied to the stages of lowered kernels.
What it is not: a way around arithmetic: a backend needs ``add sub mul div``, comparisons, ``select`` and ``cast``, and of
the transcendental functions at least ``exp log sin cos atan sqrt floor`` for everything here.
Who calls it: ``passes.pipeline``, for backends whose ``Capabilities.intrinsics`` is not the whole table.

Source: elementary identities; ``expm1`` and ``log1p`` after Kahan (Higham, "Accuracy and Stability of Numerical Algorithms",
section 1.14.1), so that nothing is lost near zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from ..errors import BackendError
from ..kernel.expr import LEAVES, Expr, call, const, rewrite, select
from ..kernel.ir import Kernel, Stage

__all__ = ["decompose"]


#: beyond this a square may overflow, and asinh and acosh equal log(2 x) to the last bit
_LARGE = 1e9


def _log_twice(x: Expr) -> Expr:
    return call("add", call("log", x), _like(x, math.log(2)))


def _like(x: Expr, value: float) -> Expr:
    return const(value, x.dtype)


def _expm1(x: Expr) -> Expr:
    u = call("exp", x)
    less = call("sub", u, _like(x, 1))
    kahan = call("mul", less, call("div", x, call("log", u)))
    edge = call("or", call("isinf", u), call("eq", less, _like(x, -1)))
    return select(call("eq", u, _like(x, 1)), x, select(edge, less, kahan))


def _log1p(x: Expr) -> Expr:
    u = call("add", _like(x, 1), x)
    kahan = call("div", call("mul", call("log", u), x), call("sub", u, _like(x, 1)))
    return select(call("eq", u, _like(x, 1)), x, select(call("isinf", u), call("log", u), kahan))


def _half_sum(x: Expr, combine: str) -> Expr:
    return call("mul", call(combine, call("exp", x), call("exp", call("neg", x))), _like(x, 0.5))


def _tanh(x: Expr) -> Expr:
    # with |x|, so that the exponential never overflows into infinity over infinity
    t = call("expm1", call("mul", call("abs", x), _like(x, -2)))
    size = call("div", call("neg", t), call("add", t, _like(x, 2)))
    return select(call("lt", x, _like(x, 0)), call("neg", size), size)


def _asinh(x: Expr) -> Expr:
    a = call("abs", x)
    root = call("sqrt", call("add", call("mul", a, a), _like(x, 1)))
    small = call("div", call("mul", a, a), call("add", root, _like(x, 1)))
    size = select(call("gt", a, _like(x, _LARGE)), _log_twice(a), call("log1p", call("add", a, small)))
    return select(call("lt", x, _like(x, 0)), call("neg", size), size)


def _acosh(x: Expr) -> Expr:
    t = call("sub", x, _like(x, 1))
    near = call("log1p", call("add", t, call("sqrt", call("mul", t, call("add", x, _like(x, 1))))))
    return select(call("gt", x, _like(x, _LARGE)), _log_twice(x), near)


def _atanh(x: Expr) -> Expr:
    ratio = call("div", call("mul", x, _like(x, 2)), call("sub", _like(x, 1), x))
    return call("mul", call("log1p", ratio), _like(x, 0.5))


def _asin(x: Expr) -> Expr:
    return call(
        "atan2", x, call("sqrt", call("mul", call("sub", _like(x, 1), x), call("add", _like(x, 1), x)))
    )


def _atan2(y: Expr, x: Expr) -> Expr:
    zero = _like(x, 0)
    up = call("ge", y, zero)
    angle = call("atan", call("div", y, x))
    left = select(up, call("add", angle, _like(x, math.pi)), call("sub", angle, _like(x, math.pi)))
    upright = select(call("eq", y, zero), zero, select(up, _like(x, math.pi / 2), _like(x, -math.pi / 2)))
    return select(call("eq", x, zero), upright, select(call("lt", x, zero), left, angle))


def _pick(better: str) -> Callable[[Expr, Expr], Expr]:
    def body(a: Expr, b: Expr) -> Expr:
        return select(call("or", call(better, a, b), call("ne", a, a)), a, b)

    return body


_RULES: dict[str, Callable[..., Expr]] = {
    "expm1": _expm1,
    "log1p": _log1p,
    "sinh": lambda x: _half_sum(x, "sub"),
    "cosh": lambda x: _half_sum(x, "add"),
    "tanh": _tanh,
    "tan": lambda x: call("div", call("sin", x), call("cos", x)),
    "asinh": _asinh,
    "acosh": _acosh,
    "atanh": _atanh,
    "asin": _asin,
    "acos": lambda x: call("sub", _like(x, math.pi / 2), call("asin", x)),
    "atan2": _atan2,
    "ceil": lambda x: call("neg", call("floor", call("neg", x))),
    "trunc": lambda x: select(call("lt", x, _like(x, 0)), call("ceil", x), call("floor", x)),
    "floordiv": lambda a, b: call("floor", call("div", a, b)),
    "mod": lambda a, b: call("sub", a, call("mul", call("floordiv", a, b), b)),
    "min": _pick("lt"),
    "max": _pick("gt"),
    "neg": lambda x: call("mul", x, _like(x, -1)),
    "abs": lambda x: select(call("lt", x, _like(x, 0)), call("neg", x), x),
    "isnan": lambda x: call("ne", x, x),
    "isinf": lambda x: call("eq", call("abs", x), _like(x, math.inf)),
    "and": lambda a, b: call("bitand", a, b),
    "or": lambda a, b: call("bitor", a, b),
    "not": lambda x: call("eq", x, const(False, x.dtype)),
}
#: rules that also hold for integers
_ON_INTEGERS = frozenset({"min", "max", "neg", "abs", "and", "or", "not"})


def decompose(kernel: Kernel, intrinsics: frozenset[str], backend: str) -> Kernel:
    """``kernel`` with intrinsics from ``intrinsics`` only.

    Errors: ``BackendError`` naming an intrinsic that the backend lacks and that has no decomposition.
    """
    memo: dict[Expr, Expr] = {}

    def rule(x: Expr) -> Expr | None:
        if x.op in LEAVES or x.op in intrinsics:
            return None
        body = _RULES.get(x.op)
        if body is None or not (x.args[0].dtype.is_float or x.op in _ON_INTEGERS):
            raise BackendError(
                f"[{x.op}] backend '{backend}' does not offer this intrinsic for {x.args[0].dtype}, and it can't be "
                "composed from others; compute on another backend"
            )
        return rewrite(body(*x.args), rule)

    def changed(root: Expr | None) -> Expr | None:
        return None if root is None else rewrite(root, rule, memo)

    def stage(s: Stage) -> Stage:
        expr = changed(s.expr)
        assert expr is not None
        return replace(s, expr=expr, offset=changed(s.offset), condition=changed(s.condition))

    return replace(kernel, stages=tuple(stage(s) for s in kernel.stages))
