"""Prints a kernel as NumPy source, one array operation per line.

What it is: ``emit``. A loop axis becomes an array axis, so a value at level "outer" is an array whose inner axes have
length 1; a value that doesn't depend on an axis has length 1 there too.
What it is not: fast code; it is code that can be read next to the definition in ``kernel.ir`` and believed.
Who calls it: ``reference.backend``.

The text calls the functions of ``reference.helpers`` and of ``kernel.host``; nothing else is in its scope. Everything that
is the same for all points (sizes, literals) is computed once, before the loop over blocks of the iteration space.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..dtypes import DType, int64
from ..kernel.expr import LEAVES, Expr, add, const, mul, sub
from ..kernel.ir import Contraction, Kernel, Operand, Stage

__all__ = ["emit", "spelling"]

#: operations on int64 numbers that need no array
_NUMBER = {"add": "+", "sub": "-", "mul": "*"}


def emit(kernel: Kernel, symbol: str) -> str:
    """The source of a function ``symbol(b, s, c)``: typed flat buffers, sizes, typed scalars.

    Example:
        >>> from metafuse.dtypes import float32
        >>> from metafuse.kernel.expr import axis, call, load
        >>> from metafuse.kernel.ir import BufferParam, Kernel, Stage
        >>> double = call("add", load(0, float32, axis(0)), load(0, float32, axis(0)))
        >>> buffers = (BufferParam(float32), BufferParam(float32, writes=True, reads=False))
        >>> stage = Stage("store", "inner", double, 0, buffer=1, offset=axis(0))
        >>> print(emit(Kernel(1, 0, buffers, 1, (), (stage,), name="double"), "double"))
        # double
        def double(b, s, c):
            for r, o in blocks(s, 1, 1, ((0,),)):
                t0 = view(b[0], 0, (1,), r)
                t1 = add(t0, t0, float32); del t0
                store_view(b[1], 0, (1,), r, t1); del t1
        <BLANKLINE>
    """
    return _Printer(kernel).text(symbol)


def spelling(intrinsic: str) -> str:
    """The Python name of an intrinsic: ``and``, ``or`` and ``not`` are keywords."""
    return f"{intrinsic}_" if keyword.iskeyword(intrinsic) else intrinsic


def _tuple(items: Sequence[object]) -> str:
    return f"({items[0]},)" if len(items) == 1 else f"({', '.join(map(str, items))})"


def _literal(value: float | int | bool, dtype: DType) -> str:
    kind = bool if dtype.kind == "b" else float if dtype.is_float else int
    return repr(kind(value))


@dataclass
class _Line:
    """One statement of the loop's body: what it defines, its text, the names it uses."""

    target: str
    text: str
    uses: frozenset[str]


@dataclass
class _Affine:
    """``base + sum of step * axis``, where base and steps are the same for all points."""

    base: Expr
    steps: dict[int, Expr] = field(default_factory=dict)


class _Printer:
    """State of one ``emit``: what has a name already, and the lines so far."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.rank = kernel.outer + kernel.inner
        self.prologue: list[str] = []
        self.body: list[_Line] = []
        self.temporaries = 0
        self.names: dict[Expr, str] = {}
        #: which buffers a named expression has read: a store to one of them makes the name stale
        self.reads: dict[Expr, frozenset[int]] = {}
        self.uniform: dict[Expr, bool] = {}
        self.affine: dict[Expr, _Affine | None] = {}
        # Buffers may share memory. A view taken before one store and used after it would see the new elements.
        stores = sum(stage.kind in ("store", "scatter") for stage in kernel.stages)
        self.view = "view" if stores < 2 else "copy"

    def text(self, symbol: str) -> str:
        for phase in sorted({stage.phase for stage in self.kernel.stages}):
            for level in ("inner", "outer"):
                writes: list[tuple[Stage, str]] = []
                for number, stage in enumerate(self.kernel.stages):
                    if stage.phase == phase and stage.level == level:
                        self._stage(stage, number, writes)
                for stage, value in writes:  # what a point reads, it reads before it writes
                    self._write(stage, value, "r" if level == "inner" else "o")
        head = [f"# {self.kernel.name}", f"def {symbol}(b, s, c):"]
        serial = f", {self.kernel.serial}" if self.kernel.serial else ""
        loop = f"    for r, o in blocks(s, {self.kernel.outer}, {self.rank}, {self._groups()}{serial}):"
        body = self._body_text() or ["        pass"]
        return "\n".join(head + [f"    {line}" for line in self.prologue] + [loop] + body) + "\n"

    def _body_text(self) -> list[str]:
        """The body, every name deleted after its last use so that its memory can be taken again."""
        last = {
            name: number
            for number, line in enumerate(self.body)
            for name in (line.target, *line.uses)
            if name
        }
        lines = []
        for number, line in enumerate(self.body):
            dead = sorted(name for name in (*line.uses, line.target) if name and last[name] == number)
            head = f"{line.target} = " if line.target else ""
            lines.append(f"        {head}{line.text}" + (f"; del {', '.join(dead)}" if dead else ""))
        return lines

    def _groups(self) -> str:
        """Which axes are live in one array at the same time; blocks are cut so that no such array gets too large."""
        c = self.kernel.contraction
        if c is None or any(stage.level == "inner" for stage in self.kernel.stages[1:]):
            groups: tuple[tuple[int, ...], ...] = (tuple(range(self.rank)),)
        else:
            groups = (c.batch + c.m + c.k, c.batch + c.n + c.k, c.batch + c.m + c.n)
        return _tuple([_tuple(group) for group in groups])

    # -- statements ---------------------------------------------------------------------------------------------------
    def _add(self, target: str, text: str, uses: Sequence[str]) -> None:
        self.body.append(_Line(target, text, frozenset(name for name in uses if name[0] in "tv")))

    def _stage(self, stage: Stage, number: int, writes: list[tuple[Stage, str]]) -> None:
        block = "r" if stage.level == "inner" else "o"
        if stage.kind == "reduce" and number == 0 and self.kernel.contraction is not None:
            contraction = self.kernel.contraction
            buffers = self._decoded({contraction.a.buffer, contraction.b.buffer})
            text = f"contract({buffers}, s, r, {_contraction(contraction)}, {self.kernel.outer}, {stage.expr.dtype})"
            self._add(f"v{stage.result}", text, ())
            return
        value = self._name(stage.expr, block)
        if stage.kind == "reduce":
            text = f"reduce({stage.op!r}, {value}, r, {self.kernel.outer}, {stage.expr.dtype})"
            self._add(f"v{stage.result}", text, (value,))
        elif stage.kind == "let":
            self._add(f"v{stage.result}", value, (value,))
        else:
            writes.append((stage, value))

    def _write(self, stage: Stage, value: str, block: str) -> None:
        target = f"b[{stage.buffer}]"
        dtype = self.kernel.buffers[stage.buffer].dtype
        encoded = dtype.storage != dtype.numpy
        assert stage.offset is not None
        if stage.kind == "scatter":
            offset = self._name(stage.offset, block)
            condition = "None" if stage.condition is None else self._name(stage.condition, block)
            function, last = ("scatter_encoded", f", {dtype}") if encoded else ("scatter", "")
            text = f"{function}({stage.op!r}, {target}, {offset}, {value}, {condition}, {block}{last})"
            self._add("", text, (offset, value, condition))
        else:
            stored = f"encode({value}, {dtype})" if encoded else value
            if (position := self._position(stage.offset)) is not None:
                self._add("", f"store_view({target}, {position}, {block}, {stored})", (value,))
            else:
                offset = self._name(stage.offset, block)
                self._add("", f"store({target}, {offset}, {block}, {stored})", (offset, value))
        for known in [known for known, reads in self.reads.items() if stage.buffer in reads]:
            self.names.pop(known, None)

    # -- expressions --------------------------------------------------------------------------------------------------
    def _name(self, root: Expr, block: str) -> str:
        """Give every node under ``root`` a name, operands first, and answer the root's."""
        for node in _unknown(root, self.names, self._operands):
            if self._is_uniform(node):
                self.names[node] = self._uniform(node)
                continue
            self.reads[node] = frozenset().union(
                *(self.reads.get(a, frozenset()) for a in node.args),
                (node.value,) if node.op == "load" else (),
            )
            if node.op == "value":
                self.names[node] = f"v{node.value}"
            elif node.op == "axis":
                self.names[node] = self._fresh(f"axis(r, {node.value})", ())
            elif node.op == "load":
                self.names[node] = self._load(node, block)
            else:
                args = [self.names[a] for a in node.args]
                self.names[node] = self._fresh(f"{spelling(node.op)}({', '.join(args)}, {node.dtype})", args)
        return self.names[root]

    def _operands(self, node: Expr) -> tuple[Expr, ...]:
        """What must have a name before ``node`` can have one: nothing for a load that becomes a view."""
        if node.op == "load" and len(node.args) == 1 and self._position(node.args[0]) is not None:
            return ()
        return node.args

    def _fresh(self, text: str, uses: Sequence[str]) -> str:
        name = f"t{self.temporaries}"
        self.temporaries += 1
        self._add(name, text, uses)
        return name

    def _load(self, node: Expr, block: str) -> str:
        buffer = f"b[{node.value}]"
        dtype = self.kernel.buffers[node.value].dtype
        head, tail = ("decode(", f", {dtype})") if dtype.storage != dtype.numpy else ("", "")
        if len(node.args) == 1:
            position = self._position(node.args[0])
            if position is not None:
                return self._fresh(f"{head}{self.view}({buffer}, {position}, {block}){tail}", ())
            offset = self.names[node.args[0]]
            return self._fresh(f"{head}take({buffer}, {offset}, {block}){tail}", (offset,))
        offset, condition, other = (self.names[a] for a in node.args)
        otherwise = f"encode({other}, {dtype})" if head else other
        text = f"{head}take_if({buffer}, {offset}, {condition}, {otherwise}, {block}){tail}"
        return self._fresh(text, (offset, condition, other))

    def _decoded(self, numbers: set[int]) -> str:
        """The list of buffers with those of ``numbers`` as values: ``b`` itself where they are that."""
        dtypes = [buffer.dtype for buffer in self.kernel.buffers]
        if all(dtypes[n].storage == dtypes[n].numpy for n in numbers):
            return "b"
        items = [f"decode(b[{n}], {d})" if n in numbers else f"b[{n}]" for n, d in enumerate(dtypes)]
        name = f"k{len(self.prologue)}"
        self.prologue.append(f"{name} = [{', '.join(items)}]")
        return name

    # -- what is the same for all points ------------------------------------------------------------------------------
    def _is_uniform(self, root: Expr) -> bool:
        for node in _unknown(root, self.uniform):
            leaf = node.op in LEAVES
            self.uniform[node] = (
                node.op in ("const", "size", "scalar") if leaf else all(self.uniform[a] for a in node.args)
            )
        return self.uniform[root]

    def _uniform(self, node: Expr) -> str:
        """The name of a uniform node whose operands have names: written inline or computed in the prologue."""
        if node.op in ("size", "scalar"):
            return f"s[{node.value}]" if node.op == "size" else f"c[{node.value}]"
        if node.op == "const" and node.dtype is int64:
            return _literal(node.value, int64)
        args = [self.names[a] for a in node.args]
        if node.op == "const":
            text = f"literal({_literal(node.value, node.dtype)}, {node.dtype})"
        elif node.dtype is int64 and node.op in _NUMBER and all(a[0] in "sn-0123456789" for a in args):
            text = f"{args[0]} {_NUMBER[node.op]} {args[1]}"
        else:
            text = f"{spelling(node.op)}({', '.join(args)}, {node.dtype})"
        name = f"{'n' if node.dtype is int64 else 'k'}{len(self.prologue)}"
        self.prologue.append(f"{name} = {text}")
        return name

    # -- affine offsets -----------------------------------------------------------------------------------------------
    def _position(self, offset: Expr) -> str | None:
        """``base, (steps...)`` if the offset is a sum of axes times uniform numbers, else ``None``."""
        for node in _unknown(offset, self.affine):
            self.affine[node] = self._affine_of(node)
        found = self.affine[offset]
        if found is None:
            return None
        steps = [self._name(found.steps.get(k, const(0)), "r") for k in range(self.rank)]
        return f"{self._name(found.base, 'r')}, {_tuple(steps)}"

    def _affine_of(self, node: Expr) -> _Affine | None:
        if node.op == "axis":
            return _Affine(const(0), {node.value: const(1)})
        if self._is_uniform(node):
            return _Affine(node)
        if node.op not in _NUMBER:
            return None
        a, b = self.affine[node.args[0]], self.affine[node.args[1]]
        if a is None or b is None:
            return None
        if node.op == "mul":
            if a.steps and b.steps:
                return None
            a, b = (a, b) if a.steps else (b, a)
            return _Affine(mul(a.base, b.base), {k: mul(step, b.base) for k, step in a.steps.items()})
        combine = add if node.op == "add" else sub
        steps = {
            k: combine(a.steps.get(k, const(0)), b.steps.get(k, const(0)))
            for k in sorted({*a.steps, *b.steps})
        }
        return _Affine(combine(a.base, b.base), steps)


def _unknown(
    root: Expr,
    known: Mapping[Expr, object],
    operands: Callable[[Expr], tuple[Expr, ...]] = lambda node: node.args,
) -> Iterator[Expr]:
    """Nodes under ``root`` that are not in ``known``, operands first; ``known`` may grow meanwhile."""
    stack = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if node in known:
            continue
        if ready:
            yield node
        else:
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(operands(node)))


def _contraction(c: Contraction) -> str:
    roles = ", ".join(_tuple(axes) for axes in (c.batch, c.m, c.n, c.k))
    return f"(({roles}), {_operand(c.a)}, {_operand(c.b)})"


def _operand(operand: Operand) -> str:
    dims = [
        _tuple(
            [
                _tuple([_tuple(pair) for pair in d.coefficients]),
                d.constant,
                d.divisor,
                d.guarded,
                d.extent,
                d.stride,
            ]
        )
        for d in operand.dims
    ]
    return f"({operand.buffer}, {_tuple(dims)})"
