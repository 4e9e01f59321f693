"""Numbers that are followed: Python arithmetic on them is written down as code that computes it again.

What it is: ``Number``, which stands for a Python number of the caller's state while a step is recorded, and ``Tape``, the
straight-line code of everything that was computed from such numbers, with the comparisons that decided something.
What it is not: array arithmetic; a number reaches a program as one of its run-time scalars.
Who calls it: ``recorder``.

Whatever needs the bare value (``float(x)``, ``range(n)``, ``math.sqrt(x)``, ``str(x)``) gets it, and the tape notes that the
code holds for exactly this value only.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["Follow", "Number", "Tape"]

#: ``follow(containers, arguments)`` answers everything that was asked for, or ``None`` where the code does not hold
Follow = Callable[[Sequence[Any], Sequence[Any]], "tuple[Any, ...] | None"]


class Tape:
    """Straight-line code over followed numbers."""

    def __init__(self) -> None:
        self.open = True
        self.lines: list[str] = []
        self.constants: list[Any] = []
        self._known: dict[tuple[str, ...], Number] = {}
        self._guards: set[str] = set()

    def source(self, place: str, value: int | float) -> Number:
        """A number that is read at ``place`` (code) when the tape begins; it must be of the same type then.

        One of NumPy's counts as Python's."""
        number = self._named(place, value)
        self.lines.append(f"if {number.code}.__class__ is not {self.constant(type(value))}: return None")
        if type(value) in (int, float):
            return number
        return self._named(f"{number.code}.item()", value.item())  # type: ignore[union-attr]

    def constant(self, value: Any) -> str:
        """Code for a Python object."""
        self.constants.append(value)
        return f"K[{len(self.constants) - 1}]"

    def code(self, value: Any) -> str:
        """Code for an operand: a number of this tape or a plain one."""
        if type(value) is Number and value.tape is self:
            return value.code
        if type(value) is Number:
            value = value.exact()
        return repr(value) if type(value) in (int, bool) else self.constant(value)

    def operation(self, template: str, value: Any, *operands: Any) -> Any:
        """The number that ``template`` makes of the operands, whose value now is ``value``."""
        if type(value) not in (int, float):  # complex, NotImplemented: nothing to follow
            for x in operands:
                if type(x) is Number:
                    x.exact()
            return value
        key = (
            template,
            *(f"{type(x).__name__} {x.code if type(x) is Number else repr(x)}" for x in operands),
        )
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._named(template.format(*map(self.code, operands)), value)
        return found

    def _named(self, code: str, value: int | float) -> Number:
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {code}")
        return Number(self, name, value)

    def decision(self, template: str, outcome: bool, *operands: Any) -> None:
        """The code holds only where the comparison ``template`` of the operands comes out the same."""
        if self.open:
            text = template.format(*map(self.code, operands))
            line = f"if ({text}) is not {outcome}: return None"
            if line not in self._guards:
                self._guards.add(line)
                self.lines.append(line)

    def compile(self, results: Sequence[str]) -> Follow:
        """The function that runs the tape and answers ``results`` (code), and ``None`` where it does not hold."""
        lines = [*self.lines, f"return ({''.join(r + ', ' for r in results)})"]
        text = "\n".join(
            ["def follow(D, A):", "    try:", *(f"        {line}" for line in lines),
             "    except (ArithmeticError, LookupError, TypeError, ValueError):", "        return None"]
        )  # fmt: skip
        names: dict[str, Any] = {"K": self.constants}
        exec(compile(text, "<numbers of a compiled step>", "exec"), names)
        return names["follow"]  # type: ignore[no-any-return]

    def same(self, other: Tape) -> bool:
        """Whether both tapes say the same."""
        return self.lines == other.lines and [_typed(k) for k in self.constants] == [
            _typed(k) for k in other.constants
        ]


def _typed(value: Any) -> tuple[type, Any]:
    return type(value), repr(value) if isinstance(value, float) else value


class Number:
    """A Python number whose arithmetic is written down. To everybody else it is an ``int`` or ``float``."""

    __slots__ = ("code", "tape", "value")

    def __init__(self, tape: Tape, code: str, value: int | float) -> None:
        self.tape = tape
        self.code = code
        self.value = value

    def exact(self) -> int | float:
        """The bare value; what is written down holds for this value only."""
        if self.value == 0:  # zeros of either sign
            self.tape.decision("repr({}) == {}", True, self, repr(self.value))
        else:
            self.tape.decision("{} == {}", True, self, self.value)
        return self.value

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # isinstance(x, float) and the dtype rules of operators see the plain type
        return type(self.value)

    def __bool__(self) -> bool:
        self.tape.decision("bool({})", bool(self.value), self)
        return bool(self.value)

    def __float__(self) -> float:
        return float(self.exact())

    def __int__(self) -> int:
        return int(self.exact())

    def __complex__(self) -> complex:
        return complex(self.exact())

    def __index__(self) -> int:
        return operator.index(self.exact())  # type: ignore[arg-type]

    def __hash__(self) -> int:
        return hash(self.exact())

    def __repr__(self) -> str:
        return repr(self.exact())

    def __str__(self) -> str:
        return str(self.exact())

    def __format__(self, form: str) -> str:
        return format(self.exact(), form)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.asarray(self.exact(), dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        value = self.exact()
        return type(value), (value,)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return self.__reduce__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.exact(), name)

    def __round__(self, digits: int | None = None) -> Any:
        return round(self.exact(), digits)

    def __trunc__(self) -> int:
        return int(self.exact())

    def __floor__(self) -> int:
        return self.exact().__floor__()

    def __ceil__(self) -> int:
        return self.exact().__ceil__()


_NUMBERS = (bool, int, float, np.float64)


def _bare(value: Any) -> Any:
    """The value of a number of either kind, ``None`` for anything else."""
    if type(value) is Number:
        return value.value
    return value if type(value) in _NUMBERS else None


def _binary(template: str, apply: Callable[[Any, Any], Any], reflected: bool) -> Callable[[Number, Any], Any]:
    def method(self: Number, other: Any) -> Any:
        bare = _bare(other)
        if bare is None:
            return NotImplemented
        a, b = (other, self) if reflected else (self, other)
        value = apply(bare, self.value) if reflected else apply(self.value, bare)
        return self.tape.operation(template, value, a, b) if self.tape.open else value

    return method


def _comparison(template: str, apply: Callable[[Any, Any], Any]) -> Callable[[Number, Any], Any]:
    def method(self: Number, other: Any) -> Any:
        bare = _bare(other)
        if bare is None:
            return NotImplemented
        outcome = bool(apply(self.value, bare))
        self.tape.decision(template, outcome, self, other)
        return outcome

    return method


def _unary(template: str, apply: Callable[[Any], Any]) -> Callable[[Number], Any]:
    def method(self: Number) -> Any:
        value = apply(self.value)
        return self.tape.operation(template, value, self) if self.tape.open else value

    return method


for _name, _template, _apply in (
    ("add", "{} + {}", operator.add), ("sub", "{} - {}", operator.sub), ("mul", "{} * {}", operator.mul),
    ("truediv", "{} / {}", operator.truediv), ("floordiv", "{} // {}", operator.floordiv),
    ("mod", "{} % {}", operator.mod), ("pow", "{} ** {}", operator.pow),
):  # fmt: skip
    setattr(Number, f"__{_name}__", _binary(_template, _apply, False))
    setattr(Number, f"__r{_name}__", _binary(_template, _apply, True))
for _name, _template, _apply in (
    ("lt", "{} < {}", operator.lt), ("le", "{} <= {}", operator.le), ("gt", "{} > {}", operator.gt),
    ("ge", "{} >= {}", operator.ge), ("eq", "{} == {}", operator.eq), ("ne", "{} != {}", operator.ne),
):  # fmt: skip
    setattr(Number, f"__{_name}__", _comparison(_template, _apply))
for _name, _template, _one in (
    ("neg", "-{}", operator.neg), ("pos", "+{}", operator.pos), ("abs", "abs({})", abs),
):  # fmt: skip
    setattr(Number, f"__{_name}__", _unary(_template, _one))
