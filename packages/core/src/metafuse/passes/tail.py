"""Tail: an element-wise expression over a contraction's result, as the steps that a library applies.

What it is: ``translate``, which reads an expression as a chain from the accumulator outwards and recognises bias,
scale, residual and the common activations.
What it is not: the decision what a library takes (``passes.library`` asks the backend).
Who calls it: ``passes.library``.

What is linear in the accumulator with one factor and summand per channel is collected symbolically, so that a folded batch
norm, however it was written, becomes one scale and one bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

from ..dtypes import float32
from ..kernel.expr import Expr, call, cast, const, walk

__all__ = ["Step", "Vector", "translate", "unrounded"]


@dataclass(frozen=True)
class Vector:
    """An expression that depends on the channel alone."""

    expr: Expr


@dataclass(frozen=True)
class Step:
    """One step: ``kind`` and numbers as in ``backend.library.PostOp``; ``operand``: a vector, or a stored value that is read at
    the very place where the result is stored."""

    kind: str
    operand: Vector | int | None = None
    alpha: float = 0.0
    beta: float = 0.0


def unrounded(root: Expr) -> Expr:
    """``root`` in float32, without roundings to 16 bits on the way: what the library applies stays in its accumulator."""
    wide: dict[Expr, Expr] = {}
    for x in walk(root):
        args = tuple([wide[a] for a in x.args])
        if x.op == "load":
            wide[x] = cast(x, float32) if x.dtype.is_half else x
        elif x.op == "cast" and x.args[0].dtype.is_half | x.dtype.is_half and args[0].dtype is float32:
            wide[x] = args[0] if x.dtype.is_half or x.dtype is float32 else cast(args[0], x.dtype)
        elif x.dtype.is_half:
            wide[x] = Expr(x.op, args, float32, x.value)
        else:
            wide[x] = x if args == x.args else Expr(x.op, args, x.dtype, x.value)
    return wide[root]


def translate(expr: Expr, accumulator: Expr, channel: int | None, place: Expr) -> list[Step] | None:
    """The steps from ``accumulator`` to ``expr``, or ``None``. ``channel``: the axis of channels."""
    order = list(walk(expr))
    inside = {accumulator}
    for x in order:
        if x is not accumulator and x != accumulator and any(a in inside for a in x.args):
            if x.op == "load":
                return None
            inside.add(x)
    if expr not in inside:
        return None
    chain: list[tuple[Expr, Expr] | Step] = []
    x = expr
    while x != accumulator:
        found = _activation(x, inside)
        if found is not None:
            step, x = found
            chain.append(step)
            continue
        below = [a for a in x.args if a in inside]
        if len(below) != 1:
            return None
        chain.append((x, below[0]))
        x = below[0]
    builder = _Builder(channel, place, expr)
    for link in reversed(chain):
        if isinstance(link, Step):
            builder.emit(link)
        elif not builder.apply(*link):
            return None
    builder.flush()
    return builder.steps


class _Builder:
    """Collects steps; ``factor`` and ``summand`` are what is linear and not yet emitted."""

    def __init__(self, channel: int | None, place: Expr, like: Expr) -> None:
        self.channel = channel
        self.place = place
        self.dtype = like.dtype
        self.steps: list[Step] = []
        self.factor: Expr | None = None
        self.summand: Expr | None = None

    def emit(self, step: Step) -> None:
        """Add a step that is not linear."""
        self.flush()
        self.steps.append(step)

    def flush(self) -> None:
        """Emit what is linear."""
        factor, summand = self.factor, self.summand
        self.factor = self.summand = None
        if factor is not None:
            self.steps.append(Step("mul", Vector(factor)))
        if summand is not None:
            self.steps.append(Step("add", Vector(summand)))

    def apply(self, x: Expr, below: Expr) -> bool:
        """One intrinsic with the accumulator in ``below``; whether it could be translated."""
        if x.op == "neg":
            return self._scale(const(-1.0, self.dtype), "mul")
        if x.op == "tanh":
            self.emit(Step("tanh"))
            return True
        if x.op not in ("add", "sub", "mul", "div", "max", "min"):
            return False
        first = x.args[0] is below or x.args[0] == below
        other = x.args[1] if first else x.args[0]
        if self._per_channel(other):
            return self._with_vector(x.op, other, first)
        if other.op == "cast" and other.args[0].op == "load" and other.args[0].dtype.is_half:
            other = other.args[0]
        full = other.op == "load" and other.args == (self.place,)
        if not full or (x.op in ("sub", "div") and not first) or x.op == "div":
            return False
        self.emit(Step(x.op, other.value))
        return True

    def _with_vector(self, op: str, other: Expr, first: bool) -> bool:
        if op in ("max", "min"):
            self.flush()
            return self._bound(op, other)
        if op in ("mul", "div"):
            return first and self._scale(other, op) if op == "div" else self._scale(other, op)
        if op == "sub" and not first:  # other - v
            self._scale(const(-1.0, self.dtype), "mul")
            op = "add"
        if self.summand is None:
            self.summand = other if op == "add" else call("neg", other)
        else:
            self.summand = call(op, self.summand, other)
        return True

    def _scale(self, other: Expr, op: str) -> bool:
        if self.factor is not None or op == "div":
            self.factor = call(op, self.factor if self.factor is not None else const(1.0, self.dtype), other)
        else:
            self.factor = other
        if self.summand is not None:
            self.summand = call(op, self.summand, other)
        return True

    def _bound(self, op: str, other: Expr) -> bool:
        if other.op != "const":
            self.steps.append(Step(op, Vector(other)))
            return True
        value = float(other.value)
        last = self.steps[-1] if self.steps else None
        if op == "max" and value == 0.0:
            self.steps.append(Step("relu"))
        elif op == "max":
            self.steps.append(Step("clip", None, value, float("inf")))
        elif last is not None and last.kind == "relu" and last.alpha == 0.0:
            self.steps[-1] = Step("clip", None, 0.0, value)
        else:
            self.steps.append(Step("clip", None, float("-inf"), value))
        return True

    def _per_channel(self, x: Expr) -> bool:
        return all(n.value == self.channel for n in walk(x) if n.op == "axis")


def _activation(x: Expr, inside: set[Expr]) -> tuple[Step, Expr] | None:
    """An activation whose argument occurs several times, with that argument."""
    if x.op == "div":
        inner = _sigmoid_of(x)
        return (Step("sigmoid"), inner) if inner is not None and inner in inside else None
    if x.op != "mul":
        return None
    for v, gate in (x.args, x.args[::-1]):
        if v in inside and gate in inside:
            step = _gate(gate, v)
            if step is not None:
                return step, v
    return None


def _gate(gate: Expr, v: Expr) -> Step | None:
    """What the product of ``v`` and ``gate``, which depends on it, is."""
    inner = _sigmoid_of(gate)
    if inner == v:
        return Step("swish", None, 1.0)
    if inner is not None and inner.op == "mul" and inner.args[0] == v and inner.args[1].op == "const":
        return Step("swish", None, float(inner.args[1].value))
    if _is_normal(gate, v):
        return Step("gelu_erf")
    if _is_bent_normal(gate, v):
        return Step("gelu_tanh")
    return Step("hardswish", None, 1 / 6, 0.5) if _is_ramp(gate, v) else None


def _sigmoid_of(x: Expr) -> Expr | None:
    """``v`` if ``x`` is ``1 / (1 + exp(-v))``."""
    if x.op != "div" or not _is_number(x.args[0], 1.0) or x.args[1].op != "add":
        return None
    one, power = x.args[1].args
    if not _is_number(one, 1.0) or power.op != "exp" or power.args[0].op != "neg":
        return None
    return power.args[0].args[0]


def _is_normal(x: Expr, v: Expr) -> bool:
    """Whether ``x`` is ``(erf(v * sqrt(1/2)) + 1) * 0.5``."""
    spread = _is_by(_is_by(x, "mul", 0.5), "add", 1.0)
    return spread is not None and spread.op == "erf" and _is_by(spread.args[0], "mul", 0.5**0.5) == v


def _is_bent_normal(x: Expr, v: Expr) -> bool:
    """Whether ``x`` is ``(tanh((v * v * 0.044715 + 1) * v * sqrt(2 / pi)) + 1) * 0.5``."""
    bent = _is_by(_is_by(x, "mul", 0.5), "add", 1.0)
    product = _is_by(bent.args[0], "mul", (2 / pi) ** 0.5) if bent is not None and bent.op == "tanh" else None
    if product is None or product.op != "mul" or product.args[1] != v:
        return False
    square = _is_by(_is_by(product.args[0], "add", 1.0), "mul", 0.044715)
    return square is not None and square.op == "mul" and square.args == (v, v)


def _is_ramp(x: Expr, v: Expr) -> bool:
    """Whether ``x`` is ``min(max(v + 3, 0), 6) / 6``."""
    return _is_by(_is_by(_is_by(_is_by(x, "div", 6.0), "min", 6.0), "max", 0.0), "add", 3.0) == v


def _is_by(x: Expr | None, op: str, value: float) -> Expr | None:
    """What ``op`` joins with this number in ``x``, if that is what ``x`` is."""
    return x.args[0] if x is not None and x.op == op and _is_number(x.args[1], value) else None


def _is_number(x: Expr, value: float) -> bool:
    return x.op == "const" and abs(float(x.value) - value) < 1e-9
