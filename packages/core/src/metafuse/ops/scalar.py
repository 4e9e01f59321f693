"""The element-wise operators, one record each.

What it is: expression, dtype rule, gradient, NumPy meaning and domain of every element-wise operator.
What it is not: machinery (``elementwise`` has the factory).
Who calls it: importing it registers the records; users reach them as ``metafuse.<name>`` and ``Var`` methods.

Gradient rules get ``(g, *arguments, y)``: the upstream gradient, the arguments as the user gave them and the answer.
At ties ``maximum`` and ``minimum`` hand the gradient to the second argument, as the reference API does.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dtypes import DType
from ..errors import ArgumentError, MetafuseError, brief, told_by
from ..kernel.expr import Expr, call, const, select
from ..var import Var
from .elementwise import bits, comparison, division, elementwise, floating, keep, logic, same
from .registry import Tensor, function_named, in_place

REALS = Tensor((), "float")
ANY = Tensor((), "any")
POSITIVE = Tensor((), "float", 0.1, 4.0)
UNIT = Tensor((), "float", -0.9, 0.9)
INTEGERS = Tensor((), "int", -9, 9)


def _like(x: Expr, value: float) -> Expr:
    return const(value, x.dtype)


# -- arithmetic ------------------------------------------------------------------------------------------------
add = elementwise(
    "add", "Sum ``x + y``.", lambda a, b: call("add", a, b), rule=same, numpy=np.add,
    gradients=[lambda g, a, b, y: g, lambda g, a, b, y: g], domain=[ANY, ANY], methods=["add", "__add__"],
)  # fmt: skip
subtract = elementwise(
    "subtract", "Difference ``x - y``.", lambda a, b: call("sub", a, b), rule=same, numpy=np.subtract,
    gradients=[lambda g, a, b, y: g, lambda g, a, b, y: -g], domain=[Tensor((), "number"), Tensor((), "number")],
    methods=["subtract", "sub", "__sub__"],
)  # fmt: skip
multiply = elementwise(
    "multiply", "Product ``x * y``.", lambda a, b: call("mul", a, b), rule=same, numpy=np.multiply,
    gradients=[lambda g, a, b, y: g * b, lambda g, a, b, y: g * a], domain=[ANY, ANY],
    methods=["multiply", "mul", "__mul__"],
)  # fmt: skip
divide = elementwise(
    "divide", "True quotient ``x / y``; integers give floats.", lambda a, b: call("div", a, b), rule=division,
    numpy=np.true_divide,
    gradients=[lambda g, a, b, y: g / b, lambda g, a, b, y: -g * y / b],
    domain=[REALS, POSITIVE], methods=["divide", "div", "__truediv__"],
)  # fmt: skip
floor_divide = elementwise(
    "floor_divide", "Quotient rounded towards minus infinity; an integer division by zero gives 0.",
    lambda a, b: call("floordiv", a, b), rule=same, numpy=np.floor_divide, gradients=[None, None],
    domain=[Tensor((), "number"), Tensor((), "number", 1, 5)], methods=["floor_divide", "__floordiv__"],
)  # fmt: skip
mod = elementwise(
    "mod", "Remainder with the sign of ``y`` (``x - floor(x / y) * y``).",
    lambda a, b: call("mod", a, b), rule=same, numpy=np.mod,
    gradients=[lambda g, a, b, y: g, lambda g, a, b, y: -g * floor(a / b)],
    domain=[Tensor((), "number", 0.1, 0.9), Tensor((), "number", 1, 5)], methods=["mod", "__mod__"],
)  # fmt: skip
fmod = elementwise(
    "fmod", "Remainder with the sign of ``x`` (``x - trunc(x / y) * y``); of integers by zero it is 0.",
    lambda a, b: call("cmod", a, b), rule=same, numpy=np.fmod,
    gradients=[lambda g, a, b, y: g, lambda g, a, b, y: -g * trunc(a / b)],
    domain=[Tensor((), "number", -7.9, -7.2), Tensor((), "number", 2.7, 3.5)], methods=["fmod"],
)  # fmt: skip
maximum = elementwise(
    "maximum", "The larger of ``x`` and ``y``; NaN if either is.", lambda a, b: call("max", a, b), rule=keep,
    numpy=np.maximum,
    gradients=[lambda g, a, b, y: where(greater(a, b), g, 0.0), lambda g, a, b, y: where(greater(a, b), 0.0, g)],
    domain=[Tensor((), "any", distinct=True), Tensor((), "any", distinct=True)],
)  # fmt: skip
minimum = elementwise(
    "minimum", "The smaller of ``x`` and ``y``; NaN if either is.", lambda a, b: call("min", a, b), rule=keep,
    numpy=np.minimum,
    gradients=[lambda g, a, b, y: where(less(a, b), g, 0.0), lambda g, a, b, y: where(less(a, b), 0.0, g)],
    domain=[Tensor((), "any", distinct=True), Tensor((), "any", distinct=True)],
)  # fmt: skip
negative = elementwise(
    "negative", "``-x``.", lambda a: call("neg", a), rule=same, numpy=np.negative, gradients=[lambda g, x, y: -g],
    domain=[Tensor((), "number")], methods=["negative", "__neg__"],
)  # fmt: skip
abs = elementwise(
    "abs", "Absolute value.", lambda a: call("abs", a), rule=same, numpy=np.abs,
    gradients=[lambda g, x, y: g * sign(x)], domain=[Tensor((), "number", 0.2, 3.0)], methods=["abs", "__abs__"],
)  # fmt: skip
sign = elementwise(
    "sign", "-1, 0 or 1 by the sign of ``x``; NaN stays.",
    lambda a: select(call("gt", a, _like(a, 0)), _like(a, 1),
                     select(call("lt", a, _like(a, 0)), _like(a, -1), a)) if a.dtype.kind in "if"
    else select(call("gt", a, _like(a, 0)), _like(a, 1), a),
    rule=same, numpy=np.sign, gradients=[None], domain=[Tensor((), "number")],
)  # fmt: skip
sqr = elementwise(
    "sqr", "Square.", lambda a: call("mul", a, a), rule=same, numpy=np.square,
    gradients=[lambda g, x, y: g * (x * 2)], domain=[Tensor((), "number")],
)  # fmt: skip
sqrt = elementwise(
    "sqrt", "Square root; NaN below zero.", lambda a: call("sqrt", a), rule=floating, numpy=np.sqrt,
    gradients=[lambda g, x, y: g / (y * 2)], domain=[POSITIVE],
)  # fmt: skip
rsqrt = elementwise(
    "rsqrt", "``1 / sqrt(x)``.", lambda a: call("div", _like(a, 1), call("sqrt", a)), rule=floating,
    numpy=lambda x: 1 / np.sqrt(x), gradients=[lambda g, x, y: g * (y * y * y) * -0.5], domain=[POSITIVE],
)  # fmt: skip


def _power_gradient_base(g: Var, a: Any, b: Any, y: Var) -> Var:
    if type(b) is Var:
        return g * (
            power(where(equal(a, 0).logical_and(equal(b, 0)), 1.0, a), b - 1) * b
        )  # 0 ** 0 is 1 and stays 1
    return g * (power(a, b - 1) * b) if b else g * 0.0


def _power_gradient_exponent(g: Var, a: Any, b: Any, y: Var) -> Var:
    if type(a) is not Var:
        return g * y * math.log(a) if a > 0 else g * 0.0
    # where the base is 0 the limit is 0; log would make NaN of it
    return g * where(equal(a, 0), 0.0, y * log(where(equal(a, 0), 1.0, a)))


power = elementwise(
    "power", "``x`` to the power of ``y``; integers stay integers.", lambda a, b: call("pow", a, b), rule=same,
    numpy=np.power, gradients=[_power_gradient_base, _power_gradient_exponent],
    domain=[POSITIVE, Tensor((), "float", -2.0, 2.0)], methods=["power"],
)  # fmt: skip


def pow(x: Any, y: Any) -> Var:
    """``x ** y``: small whole exponents become products, everything else ``power``.

    Example:
        >>> import metafuse as mf
        >>> mf.pow(mf.array([2.0, 3.0]), 2).tolist()
        [4.0, 9.0]
    """
    if type(x) is Var and y.__class__ in (int, float):
        if y == 2:
            return sqr(x)
        if y == 1:
            return x + 0
        if y == 3:
            return x * x * x
        if y == 0.5:
            return sqrt(x)
        if y == -1:
            return divide(1.0, x)
    return power(x, y)


# -- exponentials, trigonometry ------------------------------------------------------------------------------------
exp = elementwise(
    "exp", "Exponential.", lambda a: call("exp", a), rule=floating, numpy=np.exp,
    gradients=[lambda g, x, y: g * y], domain=[REALS],
)  # fmt: skip
log = elementwise(
    "log", "Natural logarithm.", lambda a: call("log", a), rule=floating, numpy=np.log,
    gradients=[lambda g, x, y: g / x], domain=[POSITIVE],
)  # fmt: skip
log2 = elementwise(
    "log2", "Logarithm to base 2.", lambda a: call("mul", call("log", a), _like(a, 1 / math.log(2))), rule=floating,
    numpy=np.log2, gradients=[lambda g, x, y: g / (x * math.log(2))], domain=[POSITIVE],
)  # fmt: skip
log10 = elementwise(
    "log10", "Logarithm to base 10.", lambda a: call("mul", call("log", a), _like(a, 1 / math.log(10))),
    rule=floating, numpy=np.log10, gradients=[lambda g, x, y: g / (x * math.log(10))], domain=[POSITIVE],
)  # fmt: skip
expm1 = elementwise(
    "expm1", "``exp(x) - 1``, accurate near 0.", lambda a: call("expm1", a), rule=floating, numpy=np.expm1,
    gradients=[lambda g, x, y: g * (y + 1)], domain=[REALS],
)  # fmt: skip
log1p = elementwise(
    "log1p", "``log(1 + x)``, accurate near 0.", lambda a: call("log1p", a), rule=floating, numpy=np.log1p,
    gradients=[lambda g, x, y: g / (x + 1)], domain=[POSITIVE],
)  # fmt: skip
sin = elementwise(
    "sin", "Sine of radians.", lambda a: call("sin", a), rule=floating, numpy=np.sin,
    gradients=[lambda g, x, y: g * cos(x)], domain=[REALS],
)  # fmt: skip
cos = elementwise(
    "cos", "Cosine of radians.", lambda a: call("cos", a), rule=floating, numpy=np.cos,
    gradients=[lambda g, x, y: -g * sin(x)], domain=[REALS],
)  # fmt: skip
tan = elementwise(
    "tan", "Tangent of radians.", lambda a: call("tan", a), rule=floating, numpy=np.tan,
    gradients=[lambda g, x, y: g * (y * y + 1)], domain=[Tensor((), "float", -1.2, 1.2)],
)  # fmt: skip
asin = elementwise(
    "asin", "Inverse sine, radians.", lambda a: call("asin", a), rule=floating, numpy=np.arcsin,
    gradients=[lambda g, x, y: g / sqrt(1 - x * x)], domain=[UNIT], methods=["asin", "arcsin"],
)  # fmt: skip
acos = elementwise(
    "acos", "Inverse cosine, radians.", lambda a: call("acos", a), rule=floating, numpy=np.arccos,
    gradients=[lambda g, x, y: -g / sqrt(1 - x * x)], domain=[UNIT], methods=["acos", "arccos"],
)  # fmt: skip
atan = elementwise(
    "atan", "Inverse tangent, radians.", lambda a: call("atan", a), rule=floating, numpy=np.arctan,
    gradients=[lambda g, x, y: g / (x * x + 1)], domain=[REALS], methods=["atan", "arctan"],
)  # fmt: skip
sinh = elementwise(
    "sinh", "Hyperbolic sine.", lambda a: call("sinh", a), rule=floating, numpy=np.sinh,
    gradients=[lambda g, x, y: g * cosh(x)], domain=[REALS],
)  # fmt: skip
cosh = elementwise(
    "cosh", "Hyperbolic cosine.", lambda a: call("cosh", a), rule=floating, numpy=np.cosh,
    gradients=[lambda g, x, y: g * sinh(x)], domain=[REALS],
)  # fmt: skip
tanh = elementwise(
    "tanh", "Hyperbolic tangent.", lambda a: call("tanh", a), rule=floating, numpy=np.tanh,
    gradients=[lambda g, x, y: g * (1 - y * y)], domain=[REALS],
)  # fmt: skip
asinh = elementwise(
    "asinh", "Inverse hyperbolic sine.", lambda a: call("asinh", a), rule=floating, numpy=np.arcsinh,
    gradients=[lambda g, x, y: g / sqrt(x * x + 1)], domain=[REALS], methods=["asinh", "arcsinh"],
)  # fmt: skip
acosh = elementwise(
    "acosh", "Inverse hyperbolic cosine.", lambda a: call("acosh", a), rule=floating, numpy=np.arccosh,
    gradients=[lambda g, x, y: g / sqrt(x * x - 1)], domain=[Tensor((), "float", 1.2, 4.0)],
    methods=["acosh", "arccosh"],
)  # fmt: skip
atanh = elementwise(
    "atanh", "Inverse hyperbolic tangent.", lambda a: call("atanh", a), rule=floating, numpy=np.arctanh,
    gradients=[lambda g, x, y: g / (1 - x * x)], domain=[UNIT], methods=["atanh", "arctanh"],
)  # fmt: skip
atan2 = elementwise(
    "atan2", "Angle of the point (``y``, ``x``) given as (first, second) argument, radians.",
    lambda a, b: call("atan2", a, b), rule=floating, numpy=np.arctan2,
    gradients=[lambda g, a, b, y: g * b / (a * a + b * b), lambda g, a, b, y: -g * a / (a * a + b * b)],
    domain=[POSITIVE, POSITIVE], methods=["atan2", "arctan2"], parameters="y, x",
)  # fmt: skip
erf = elementwise(
    "erf", "Error function.", lambda a: call("erf", a), rule=floating,
    numpy=np.vectorize(math.erf, otypes=[np.float64]),
    gradients=[lambda g, x, y: g * exp(-(x * x)) * (2 / math.sqrt(math.pi))], domain=[REALS], source="SciPy erf",
)  # fmt: skip
sigmoid = elementwise(
    "sigmoid", "``1 / (1 + exp(-x))``.",
    lambda a: call("div", _like(a, 1), call("add", _like(a, 1), call("exp", call("neg", a)))), rule=floating,
    numpy=lambda x: 1 / (1 + np.exp(-x)), gradients=[lambda g, x, y: g * (y * (1 - y))], domain=[REALS],
    source="logistic function",
)  # fmt: skip

# -- rounding ------------------------------------------------------------------------------------------------------
_FRACTIONS = Tensor((), "number", 0.1, 0.4)
for _name, _numpy, _text in (
    ("floor", np.floor, "Largest whole number not above ``x``."),
    ("ceil", np.ceil, "Smallest whole number not below ``x``."),
    ("round", np.round, "Nearest whole number, halves to even."),
    ("trunc", np.trunc, "Whole part, towards zero."),
):
    globals()[_name] = elementwise(
        _name, _text, lambda a, _n=_name: call(_n, a) if a.dtype.is_float else a, rule=same, numpy=_numpy,
        gradients=[None], domain=[_FRACTIONS],
    )  # fmt: skip
floor, trunc = globals()["floor"], globals()["trunc"]

# -- tests ---------------------------------------------------------------------------------------------------------
for _name, _code, _numpy, _dunder, _text in (
    ("equal", "eq", np.equal, "__eq__", "``x == y``."),
    ("not_equal", "ne", np.not_equal, "__ne__", "``x != y``."),
    ("less", "lt", np.less, "__lt__", "``x < y``."),
    ("less_equal", "le", np.less_equal, "__le__", "``x <= y``."),
    ("greater", "gt", np.greater, "__gt__", "``x > y``."),
    ("greater_equal", "ge", np.greater_equal, "__ge__", "``x >= y``."),
):
    globals()[_name] = elementwise(
        _name, _text, lambda a, b, _c=_code: call(_c, a, b), rule=comparison, numpy=_numpy, gradients=[None, None],
        domain=[ANY, ANY], methods=[_name, _dunder],
    )  # fmt: skip
equal, less, greater = globals()["equal"], globals()["less"], globals()["greater"]
isnan = elementwise(
    "isnan", "Whether ``x`` is not a number.", lambda a: call("isnan", a), rule=comparison, numpy=np.isnan,
    gradients=[None], domain=[REALS],
)  # fmt: skip
isinf = elementwise(
    "isinf", "Whether ``x`` is infinite.", lambda a: call("isinf", a), rule=comparison, numpy=np.isinf,
    gradients=[None], domain=[REALS],
)  # fmt: skip
isfinite = elementwise(
    "isfinite", "Whether ``x`` is neither infinite nor NaN.",
    lambda a: call("not", call("or", call("isnan", a), call("isinf", a))), rule=comparison, numpy=np.isfinite,
    gradients=[None], domain=[REALS],
)  # fmt: skip

# -- logic and bits ------------------------------------------------------------------------------------------------
logical_and = elementwise(
    "logical_and", "Both are true (non-zero).", lambda a, b: call("and", a, b), rule=logic, numpy=np.logical_and,
    gradients=[None, None], domain=[ANY, ANY],
)  # fmt: skip
logical_or = elementwise(
    "logical_or", "At least one is true (non-zero).", lambda a, b: call("or", a, b), rule=logic,
    numpy=np.logical_or, gradients=[None, None], domain=[ANY, ANY],
)  # fmt: skip
logical_xor = elementwise(
    "logical_xor", "Exactly one is true (non-zero).", lambda a, b: call("ne", a, b), rule=logic,
    numpy=np.logical_xor, gradients=[None, None], domain=[ANY, ANY],
)  # fmt: skip
logical_not = elementwise(
    "logical_not", "``x`` is zero or false.", lambda a: call("not", a), rule=logic, numpy=np.logical_not,
    gradients=[None], domain=[ANY],
)  # fmt: skip
_BITS = Tensor((), "integral", -9, 9)
for _name, _code, _numpy, _dunder, _text in (
    ("bitwise_and", "bitand", np.bitwise_and, "__and__", "Bits set in both."),
    ("bitwise_or", "bitor", np.bitwise_or, "__or__", "Bits set in either."),
    ("bitwise_xor", "bitxor", np.bitwise_xor, "__xor__", "Bits set in exactly one."),
):
    globals()[_name] = elementwise(
        _name, _text, lambda a, b, _c=_code: call(_c, a, b), rule=bits, numpy=_numpy, gradients=[None, None],
        domain=[_BITS, _BITS], methods=[_name, _dunder],
    )  # fmt: skip
bitwise_not = elementwise(
    "bitwise_not", "Every bit inverted (bool: negated).", lambda a: call("bitnot", a), rule=bits, numpy=np.invert,
    gradients=[None], domain=[_BITS], methods=["bitwise_not", "__invert__"],
)  # fmt: skip
left_shift = elementwise(
    "left_shift", "``x << y``.", lambda a, b: call("shl", a, b), rule=lambda d: bits(same(d)[0]), numpy=np.left_shift,
    gradients=[None, None], domain=[INTEGERS, Tensor((), "int", 0, 6)], methods=["left_shift", "__lshift__"],
)  # fmt: skip
right_shift = elementwise(
    "right_shift", "``x >> y``, keeping the sign.", lambda a, b: call("shr", a, b),
    rule=lambda d: bits(same(d)[0]), numpy=np.right_shift, gradients=[None, None],
    domain=[INTEGERS, Tensor((), "int", 0, 6)], methods=["right_shift", "__rshift__"],
)  # fmt: skip


# -- choice --------------------------------------------------------------------------------------------------------
ternary = elementwise(
    "ternary", "``x`` where ``condition`` holds, else ``y``.", select, rule=keep, numpy=np.where,
    gradients=[None, lambda g, c, a, b, y: ternary(c, g, 0.0), lambda g, c, a, b, y: ternary(c, 0.0, g)],
    domain=[Tensor((), "bool"), ANY, ANY], methods=["ternary"],
    condition=True,
)  # fmt: skip


def where(cond: Any, x: Any = None, y: Any = None, *, dtype: Any = "int32") -> Any:
    """``x`` where ``cond`` holds, else ``y``; with one argument: the indices of true elements.

    Args:
        dtype: the integer type of indices.

    Returns:
        Var of the broadcast shape; or, with one argument, a tuple of Vars, one per dimension, whose length
        depends on the values (so the condition is computed now).

    Errors:
        ArgumentError: ``x`` without ``y``.

    Example:
        >>> import metafuse as mf
        >>> mf.where(mf.array([1.0, -2.0]) > 0, 1, 0).numpy()
        array([1, 0], dtype=int32)
    """
    if y is None:
        from .masks import places

        kind = dtype if x is None else x
        if not isinstance(kind, (str, DType)):
            raise ArgumentError(f"[where] x needs y too, got x {brief(kind)}; give both or none")
        return places(cond, kind)
    if type(x) is not Var and type(y) is not Var:
        from .creation import array

        x = array(x)
    try:
        return ternary(cond, x, y)
    except MetafuseError as error:
        raise told_by("where", error) from None


def _reverse(name: str, function: Any) -> None:
    def method(self: Var, other: Any) -> Any:
        return function(other, self)

    method.__name__ = name
    method.__doc__ = f"``other`` with ``self``, reversed: see ``{function.__name__}``."
    setattr(Var, name, method)


def _install() -> None:
    """Reversed and in-place operators of ``Var`` (values are immutable: in-place ones make the Var hold the answer)."""
    for name, operator in (
        ("add", "add"), ("sub", "subtract"), ("mul", "multiply"), ("truediv", "divide"), ("mod", "mod"),
        ("floordiv", "floor_divide"), ("and", "bitwise_and"), ("or", "bitwise_or"), ("xor", "bitwise_xor"),
        ("lshift", "left_shift"), ("rshift", "right_shift"),
    ):  # fmt: skip
        function = function_named(operator)
        assert function is not None
        _reverse(f"__r{name}__", function)
        setattr(Var, f"__i{name}__", in_place(f"__i{name}__", function))
    _reverse("__rpow__", pow)
    for name, function in (("__pow__", pow), ("pow", pow), ("where", where)):
        setattr(Var, name, function)
    for name, function, shown in (
        ("__ipow__", pow, ""), ("pow_", pow, "mf.ones(2).pow_(2)"), ("where_", where, "(mf.ones(2) > 0).where_(1.0, 0.0)"),
    ):  # fmt: skip
        variant = in_place(name, function)
        lines = ("Example:", "    >>> import metafuse as mf", f"    >>> {shown}.tolist()", "    [1.0, 1.0]\n")
        variant.__doc__ = f"{variant.__doc__}\n" + "\n".join(lines)
        setattr(Var, name, variant)
    Var.ne = globals()["not_equal"]  # type: ignore[attr-defined]


_install()
__all__ = ["pow", "where"]
