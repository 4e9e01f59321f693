"""Integer expressions of macros: ``@{in0_dim * 2 - 1}``, the condition of ``@if``, the bounds of ``@for``.

What it is: C's integer operators, evaluated on Python integers with C's truncating division.
What it is not: ``eval``. Who calls it: ``macros``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping

__all__ = ["evaluate"]

_TOKEN = re.compile(r"\s*(0[xX][0-9a-fA-F]+|\d+|[A-Za-z_]\w*|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%<>&|^!~?:()])")
_DEEPEST = 50


def _quotient(a: int, b: int) -> int:
    if b == 0:
        raise ValueError("division by zero")
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _shift(a: int, b: int) -> int:
    if not 0 <= b < 64:
        raise ValueError(f"shift by {b}")
    return a << b


_BINARY: dict[str, tuple[int, Callable[[int, int], int]]] = {
    "||": (1, lambda a, b: int(bool(a or b))),
    "&&": (2, lambda a, b: int(bool(a and b))),
    "|": (3, operator.or_),
    "^": (4, operator.xor),
    "&": (5, operator.and_),
    "==": (6, lambda a, b: int(a == b)),
    "!=": (6, lambda a, b: int(a != b)),
    "<": (7, lambda a, b: int(a < b)),
    "<=": (7, lambda a, b: int(a <= b)),
    ">": (7, lambda a, b: int(a > b)),
    ">=": (7, lambda a, b: int(a >= b)),
    "<<": (8, _shift),
    ">>": (8, lambda a, b: a >> b if 0 <= b < 64 else _shift(a, b)),
    "+": (9, operator.add),
    "-": (9, operator.sub),
    "*": (10, operator.mul),
    "/": (10, _quotient),
    "%": (10, lambda a, b: a - b * _quotient(a, b)),
}
_UNARY: dict[str, Callable[[int], int]] = {
    "-": operator.neg,
    "+": operator.pos,
    "~": operator.invert,
    "!": lambda a: int(not a),
}


def evaluate(text: str, names: Mapping[str, str]) -> int:
    """The value of ``text``; ``names`` maps names to further expressions. ``ValueError`` says what is wrong.

    Example:
        >>> evaluate("(n + 1) * 2 == 8 && 7 / -2 == -3", {"n": "3"})
        1
    """
    return _Parser(text, names, 0).whole()


class _Parser:
    """Precedence climbing over the tokens of one expression."""

    def __init__(self, text: str, names: Mapping[str, str], depth: int) -> None:
        self.names = names
        self.depth = depth
        self.tokens: list[str] = []
        self.here = 0
        at, end = 0, len(text.rstrip())
        while at < end:
            match = _TOKEN.match(text, at, end)
            if match is None:
                raise ValueError(f"unexpected {text[at:end].strip()[0]!r}")
            self.tokens.append(match[1])
            at = match.end()

    def whole(self) -> int:
        value = self.choice()
        if self.here < len(self.tokens):
            raise ValueError(f"unexpected {self.tokens[self.here]!r}")
        return value

    def take(self, *wanted: str) -> str | None:
        if self.here < len(self.tokens) and (not wanted or self.tokens[self.here] in wanted):
            self.here += 1
            return self.tokens[self.here - 1]
        return None

    def choice(self) -> int:
        value = self.binary(1)
        if self.take("?"):
            yes = self.choice()
            if not self.take(":"):
                raise ValueError("'?' without ':'")
            no = self.choice()
            return yes if value else no
        return value

    def binary(self, least: int) -> int:
        left = self.unary()
        while self.here < len(self.tokens):
            row = _BINARY.get(self.tokens[self.here])
            if row is None or row[0] < least:
                break
            self.here += 1
            left = row[1](left, self.binary(row[0] + 1))
        return left

    def unary(self) -> int:
        sign = self.take(*_UNARY)
        if sign:
            return _UNARY[sign](self.unary())
        if self.take("("):
            value = self.choice()
            if not self.take(")"):
                raise ValueError("'(' is not closed")
            return value
        token = self.take()
        if token is None:
            raise ValueError("it ends too early")
        if token[0].isdigit():
            return int(token, 16 if token[:2] in ("0x", "0X") else 10)
        if token in self.names and self.depth < _DEEPEST:
            return _Parser(self.names[token], self.names, self.depth + 1).whole()
        raise ValueError(f"unknown name {token!r}" if token.isidentifier() else f"unexpected {token!r}")
