"""Operators by name in C++ snippets: ``@expand_op(add, float32, x, float32, y, int32)``.

What it is: the C++ expression of each element-wise operator, and the value from which a fold with it starts.
What it is not: how kernels compute (``metafuse.kernel.cstyle``); a snippet is plain C++ with its headers.
Who calls it: ``macros``.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["expand_operator"]

#: one operand ``{0}``; ``{T}`` is the type of the result, ``{L}`` its limits
_UNARY = {
    "cast": "{0}", "negative": "-({0})", "logical_not": "!({0})", "bitwise_not": "~({0})",
    "sigmoid": "1 / (1 + std::exp(-({T})({0})))",
    **{name: f"std::{name}({{0}})" for name in (
        "abs", "exp", "log", "log2", "sqrt", "floor", "ceil", "round", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
        "cosh", "tanh", "asinh", "acosh", "atanh", "erf",
    )},
    **{f"{name}_int": f"std::{name}({{0}})" for name in ("floor", "ceil", "round")},
    **{f"arc{name}": f"std::a{name}({{0}})" for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
}  # fmt: skip
#: two operands, converted to the type of the result unless they are compared
_BINARY = {
    **{name: f"({{T}})({{0}}) {sign} ({{T}})({{1}})" for name, sign in {
        "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "left_shift": "<<", "right_shift": ">>",
        "bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^",
    }.items()},
    **{name: f"({{0}}) {sign} ({{1}})" for name, sign in {
        "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=", "equal": "==", "not_equal": "!=",
        "logical_and": "&&", "logical_or": "||",
    }.items()},
    "logical_xor": "!({0}) != !({1})",
    "maximum": "std::max<{T}>({0}, {1})", "minimum": "std::min<{T}>({0}, {1})",
    "pow": "std::pow({0}, {1})",
    "floor_divide": "std::floor((double)({0}) / (double)({1}))",
    "mod": "({0}) - ({1}) * std::floor((double)({0}) / (double)({1}))",
}  # fmt: skip
_FIRST = {
    **dict.fromkeys(("add", "subtract", "bitwise_or", "bitwise_xor", "logical_or", "logical_xor"), "0"),
    **dict.fromkeys(("multiply", "divide", "logical_and"), "1"),
    "bitwise_and": "~({T})0",
    "maximum": "{L}::has_infinity ? -{L}::infinity() : {L}::lowest()",
    "minimum": "{L}::has_infinity ? {L}::infinity() : {L}::max()",
}


def expand_operator(words: Sequence[str]) -> str:
    """The expression for ``name, type of the result, operand, its type, ...``.

    Errors: ``ValueError`` in words.

    Example:
        >>> expand_operator(["add", "float", "x", "float", "y", "int"])
        '(float)((float)(x) + (float)(y))'
        >>> expand_operator(["init_add", "float"])
        '(float)(0)'
    """
    if len(words) < 2:
        raise ValueError("it takes an operator, the type of its result, and each operand with its type")
    name, kind, operands = words[0], words[1], words[2::2]
    table = {0: _FIRST, 1: _UNARY, 2: _BINARY}.get(len(operands), {})
    known = name if operands else name.removeprefix("init_")
    if known not in table or (not operands and known == name):
        raise ValueError(f"there is no operator {name!r} of {len(operands)} operands")
    value = table[known].format(*operands, T=kind, L=f"std::numeric_limits<{kind}>")
    return f"({kind})({value})"
