"""Text to expression: the index language of ``reindex`` and its relatives.

What it is: ``parse_index`` and ``parse_condition``, a tokenizer and a precedence parser for C integer expressions.
What it is not: a C compiler: no statements, assignments, pointers or comments. Text never reaches a compiler; only the
expression built here does.
Who calls it: ``ops``, once per distinct text and shape signature.

The rules of C hold: ``/`` and ``%`` round towards zero, a truth value counts as 0 or 1, a number is true if it isn't 0.
Integers are 64 bits wide, whatever the cast says (``(int)x`` makes an integer, it doesn't cut one).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from ..dtypes import DType, bool_, float32, float64, int64, promote
from ..errors import IndexExpressionError, brief
from ..kernel.expr import Expr, axis, call, cast, const, load, select
from .simplify import simplify

__all__ = ["MAX_DEPTH", "MAX_LENGTH", "parse_condition", "parse_index"]

#: longest accepted text, and how deep its parentheses and its tree may be nested
MAX_LENGTH = 10_000
MAX_DEPTH = 100

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<float>(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?[fF]?|\d+[eE][+-]?\d+[fF]?)
    |(?P<int>0[xX][0-9a-fA-F]+|\d+)[uUlL]*(?![\w.])
    |(?P<name>[A-Za-z_]\w*)
    |(?P<extra>@\w+)
    |(?P<op><<|>>|<=|>=|==|!=|&&|\|\||[-+*/%<>!~&|^?:(),])
    )""",
    re.VERBOSE,
)

#: binary operator -> (precedence as in C, intrinsic)
_BINARY: dict[str, tuple[int, str]] = {
    "||": (1, "or"), "&&": (2, "and"), "|": (3, "bitor"), "^": (4, "bitxor"), "&": (5, "bitand"),
    "==": (6, "eq"), "!=": (6, "ne"), "<": (7, "lt"), "<=": (7, "le"), ">": (7, "gt"), ">=": (7, "ge"),
    "<<": (8, "shl"), ">>": (8, "shr"), "+": (9, "add"), "-": (9, "sub"),
    "*": (10, "mul"), "/": (10, "cdiv"), "%": (10, "cmod"),
}  # fmt: skip
_LOGIC = frozenset({"or", "and"})
_WHOLE = frozenset({"bitor", "bitxor", "bitand", "shl", "shr", "cmod"})

#: names of types -> what a cast to them gives
_TYPES: dict[str, DType] = {
    **dict.fromkeys(
        ("int", "long", "long long", "long int", "int32", "int64", "int32_t", "int64_t", "size_t", "index_t"),
        int64,
    ),
    **dict.fromkeys(("float", "float32"), float32),
    **dict.fromkeys(("double", "float64"), float64),
    "bool": bool_,
}
#: function -> number of arguments
_CALLS = {"min": 2, "max": 2, "abs": 1}


def parse_index(
    text: str, *, operator: str, axes: int, names: Mapping[str, int], extras: Sequence[tuple[DType, int]] = ()
) -> Expr:
    """The int64 expression that ``text`` stands for.

    Args:
        text: a C integer expression.
        operator: whose argument it is, for messages.
        axes: how many loop variables ``i0, i1, ...`` there are.
        names: further names and their values (``xshape0``, ``XDIM``, ...).
        extras: (dtype, number of dimensions) of each extra; ``@e0(a, b)`` becomes ``load(1, dtype, a, b)``.

    Errors: ``IndexExpressionError`` that points at the position.

    Example:
        >>> parse_index("i0*2 - 1 + i1", operator="reindex", axes=2, names={})
        sub(add(mul(i0, 2), i1), 1)
        >>> parse_index("i0+j", operator="reindex", axes=1, names={"XDIM": 4})
        Traceback (most recent call last):
            ...
        metafuse.errors.IndexExpressionError: [reindex] unknown name 'j' at position 3 of 'i0+j'; known: i0, XDIM
            i0+j
               ^
    """
    parser = _Parser(text, operator, axes, names, extras)
    root = parser.parse()
    if root.dtype.is_float:
        parser.fail(f"an index can't be {root.dtype}", 0, f"; write (int)({_shown(text)})")
    return simplify(cast(root, int64))


def parse_condition(
    text: str, *, operator: str, axes: int, names: Mapping[str, int], extras: Sequence[tuple[DType, int]] = ()
) -> Expr:
    """The bool expression that ``text`` stands for: like ``parse_index``; a number is true if it isn't 0.

    Example:
        >>> parse_condition("i0 > i1", operator="reindex", axes=2, names={})
        gt(i0, i1)
    """
    return simplify(_truth(_Parser(text, operator, axes, names, extras).parse()))


def _shown(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


# -- the rules of C for values --------------------------------------------------------------------------------------
def _truth(x: Expr) -> Expr:
    return x if x.dtype is bool_ else call("ne", x, const(0, x.dtype))


def _number(x: Expr) -> Expr:
    """A value in arithmetic: truth values count as integers, all integers are int64."""
    return x if x.dtype.is_float else cast(x, int64)


def _common(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """Both as numbers of one type."""
    a, b = _number(a), _number(b)
    dtype = promote(a.dtype, b.dtype)
    return cast(a, dtype), cast(b, dtype)


def _convert(x: Expr, dtype: DType) -> Expr:
    return _truth(x) if dtype is bool_ else cast(x, dtype)


@dataclass(frozen=True)
class _Token:
    kind: str  # "int", "float", "name", "extra", "op" or "end"
    text: str
    position: int


class _Parser:
    """One text being read: its tokens and the place in them."""

    def __init__(
        self,
        text: str,
        operator: str,
        axes: int,
        names: Mapping[str, int],
        extras: Sequence[tuple[DType, int]],
    ) -> None:
        if not isinstance(text, str):
            raise IndexExpressionError(
                f"[{operator}] an index expression must be a string, not {brief(text)}"
            )
        self.text, self.operator, self.axes, self.names, self.extras = text, operator, axes, names, extras
        self.depths: dict[Expr, int] = {}
        self.nesting = 0
        self.next = 0
        self.tokens = self._tokenize()

    def fail(self, what: str, position: int, hint: str = "") -> NoReturn:
        """Raise; the caret line shows at most 60 characters around the position."""
        start = 0 if len(self.text) <= 60 else max(0, position - 30)
        excerpt = re.sub(r"\s", " ", self.text[start : start + 60])
        raise IndexExpressionError(
            f"[{self.operator}] {what} at position {position} of {_shown(self.text)!r}{hint}\n"
            f"    {excerpt}\n    {' ' * (position - start)}^"
        )

    def known(self) -> str:
        """Every name that may stand in the text, for messages."""
        axes = [f"i{k}" for k in range(self.axes)]
        return ", ".join([*axes, *self.names, *(f"@e{k}(...)" for k in range(len(self.extras)))]) or "none"

    # -- tokens -----------------------------------------------------------------------------------------------------
    def _tokenize(self) -> list[_Token]:
        if len(self.text) > MAX_LENGTH:
            self.fail(f"{len(self.text)} characters are too many (at most {MAX_LENGTH})", MAX_LENGTH)
        tokens, position, end = [], 0, len(self.text.rstrip())
        while position < end:
            match = _TOKEN.match(self.text, position)
            if match is None:
                position = end - len(self.text[position:end].lstrip())
                self.fail(f"unexpected {self.text[position]!r}", position)
            kind = str(match.lastgroup)
            token = _Token(kind, match[kind], match.start(kind))
            position = match.end()
            if token.text == "/" and self.text[position : position + 1] in ("/", "*"):
                self.fail("comment", token.position, "; index expressions have none")
            tokens.append(token)
        return [*tokens, _Token("end", "end of text", end)]

    def _take(self) -> _Token:
        token = self.tokens[self.next]
        self.next += token.kind != "end"
        return token

    def _is(self, text: str, ahead: int = 0) -> bool:
        """Whether the token ``ahead`` of the next one is the operator ``text``."""
        token = self.tokens[min(self.next + ahead, len(self.tokens) - 1)]
        return token.kind == "op" and token.text == text

    def _expect(self, text: str) -> None:
        if not self._is(text):
            token = self._take()
            self.fail(f"expected {text!r}, found {_shown(token.text)!r}", token.position)
        self._take()

    # -- grammar ----------------------------------------------------------------------------------------------------
    def parse(self) -> Expr:
        """The whole text as one expression of any dtype."""
        root = self._ternary()
        rest = self._take()
        if rest.kind != "end":
            self.fail(f"unexpected {_shown(rest.text)!r}", rest.position)
        return root

    def _nested(self, rule: Callable[[], Expr]) -> Expr:
        """``rule``, one level deeper: what keeps Python's own stack bounded."""
        self.nesting += 1
        if self.nesting > MAX_DEPTH:
            self.fail(f"nested more than {MAX_DEPTH} deep", self.tokens[self.next].position)
        result = rule()
        self.nesting -= 1
        return result

    def _ternary(self) -> Expr:
        condition = self._binary(1)
        if not self._is("?"):
            return condition
        token = self._take()
        yes = self._nested(self._ternary)
        self._expect(":")
        no = self._nested(self._ternary)
        return self._made(token, select(_truth(condition), *_common(yes, no)))

    def _binary(self, lowest: int) -> Expr:
        left = self._unary()
        while True:
            token = self.tokens[self.next]
            precedence, name = _BINARY.get(token.text, (0, "")) if token.kind == "op" else (0, "")
            if precedence < lowest:
                return left
            self._take()
            right = self._nested(partial(self._binary, precedence + 1))
            left = self._made(token, self._combined(token, name, left, right))

    def _combined(self, token: _Token, name: str, left: Expr, right: Expr) -> Expr:
        if name in _LOGIC:
            return call(name, _truth(left), _truth(right))
        left, right = _common(left, right)
        if left.dtype.is_float and name in _WHOLE:
            self.fail(f"{token.text!r} on a {left.dtype}", token.position, "; cast it with (int)")
        return call("div" if left.dtype.is_float and name == "cdiv" else name, left, right)

    def _unary(self) -> Expr:
        token = self.tokens[self.next]
        dtype = self._cast()
        if dtype is not None:
            return self._made(token, _convert(self._nested(self._unary), dtype))
        if token.kind != "op" or token.text not in "+-!~":
            return self._primary()
        self._take()
        operand = self._nested(self._unary)
        if token.text == "!":
            return self._made(token, call("not", _truth(operand)))
        operand = _number(operand)
        if token.text == "~" and operand.dtype.is_float:
            self.fail(f"'~' on a {operand.dtype}", token.position, "; cast it with (int)")
        name = {"-": "neg", "~": "bitnot"}.get(token.text)
        return operand if name is None else self._made(token, call(name, operand))

    def _cast(self) -> DType | None:
        """Take ``(type)`` if it stands here."""
        if not self._is("("):
            return None
        words = []
        for token in self.tokens[self.next + 1 : self.next + 3]:
            if token.kind != "name" or token.text in self.names:
                break
            words.append(token.text)
        if " ".join(words) not in _TYPES or not self._is(")", 1 + len(words)):
            return None
        self.next += 2 + len(words)
        return _TYPES[" ".join(words)]

    def _primary(self) -> Expr:
        token = self._take()
        if token.kind == "int":
            return self._integer(token)
        if token.kind == "float":
            text = token.text.rstrip("fF")
            return const(float(text), float64 if text == token.text else float32)
        if token.kind == "name":
            return self._named(token)
        if token.kind == "extra":
            return self._extra(token)
        if token.text != "(" or token.kind != "op":
            self.fail(f"expected a value, found {_shown(token.text)!r}", token.position)
        inside = self._nested(self._ternary)
        self._expect(")")
        return inside

    def _integer(self, token: _Token) -> Expr:
        if len(token.text) > 1 and token.text[0] == "0" and token.text[1] not in "xX":
            self.fail(
                f"leading zero of {_shown(token.text)!r}", token.position, "; numbers are decimal or 0x..."
            )
        value = int(token.text, 0) if len(token.text) < 20 else 2**63
        if value >= 2**63:
            self.fail(f"{_shown(token.text)} is no 64-bit integer", token.position)
        return const(value)

    def _named(self, token: _Token) -> Expr:
        name = token.text
        number = name[1:]
        if (
            name[0] == "i"
            and number.isdecimal()
            and str(int(number[:9])) == number
            and int(number) < self.axes
        ):
            return axis(int(number))
        if name in self.names:
            return const(int(self.names[name]))
        if name not in _TYPES and name not in _CALLS:
            functions = f"; functions: {', '.join(_CALLS)}" if self._is("(") else ""
            self.fail(f"unknown name {_shown(name)!r}", token.position, f"; known: {self.known()}{functions}")
        (operand, *more) = self._arguments(token, _CALLS.get(name, 1))
        if name in _TYPES:
            return self._made(token, _convert(operand, _TYPES[name]))
        operands = _common(operand, more[0]) if more else (_number(operand),)
        return self._made(token, call(name, *operands))

    def _extra(self, token: _Token) -> Expr:
        spellings = {f"@e{k}": k for k in range(len(self.extras))}
        if token.text not in spellings:
            self.fail(
                f"unknown extra {_shown(token.text)!r}",
                token.position,
                f"; known: {', '.join(spellings) or 'none'}",
            )
        number = spellings[token.text]
        dtype, rank = self.extras[number]
        operands = self._arguments(token, rank)
        for operand in operands:
            if operand.dtype.is_float:
                self.fail(
                    f"{token.text} is indexed by a {operand.dtype}", token.position, "; cast it with (int)"
                )
        return self._made(token, load(1 + number, dtype, *(cast(a, int64) for a in operands)))

    def _arguments(self, token: _Token, count: int) -> list[Expr]:
        """``(a, b, ...)`` of exactly ``count`` expressions."""
        self._expect("(")
        found: list[Expr] = []
        while not (self._is(")") and not found):
            found.append(self._nested(self._ternary))
            if not self._is(","):
                break
            self._take()
        self._expect(")")
        if len(found) != count:
            self.fail(f"{token.text} takes {count} argument(s), not {len(found)}", token.position)
        return found

    def _made(self, token: _Token, made: Expr) -> Expr:
        """``made``, unless its tree is too deep for those who compare and print it."""
        if self._depth(made) > 2 * MAX_DEPTH:
            self.fail(
                f"more than {2 * MAX_DEPTH} operations in a row", token.position, "; split the expression"
            )
        return made

    def _depth(self, x: Expr) -> int:
        # Operands were measured when they were made; only the few nodes around them are new.
        if x not in self.depths:
            self.depths[x] = 1 + max(map(self._depth, x.args), default=0)
        return self.depths[x]
