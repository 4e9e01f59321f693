"""Nested blocks of C-family statements that name every value once, as far out as it can be computed.

What it is: ``Scope``, one block of text under construction. Asked for an expression, it defines constants for the parts
that nobody defined yet, each in the outermost enclosing block where its operands are known. So common subexpressions
are shared by all stages of a loop and whatever does not depend on a loop variable moves out of the loop.
What it is not: a choice of loops; backends open blocks and bind loop variables to them.
Who calls it: the code generators of the C-family backends.

Rules about memory: a load never leaves the innermost enclosing block opened with ``holds_loads`` (outside it may not run
at all), and a load of a buffer that the kernel also writes stays in the block that asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..errors import BackendError
from .cstyle import Dialect, literal, loaded, operation, rounded, type_name, unrounded
from .expr import Expr, add, const, mul, walk
from .ir import Kernel

__all__ = ["Affine", "Printer", "Scope", "affine"]


@dataclass(frozen=True)
class Affine:
    """An offset as ``sum(coefficient * axis) + sum(rest)``.

    ``coefficients``: axis number -> expression free of axes and loads. ``rest``: everything else.
    """

    coefficients: dict[int, Expr]
    rest: tuple[Expr, ...]

    def stride(self, number: int) -> str:
        """How the offset moves with axis ``number``: ``none``, ``unit``, ``strided``, or ``gather`` (not affine)."""
        for term in self.rest:
            if any(node.op == "axis" and node.value == number for node in walk(term)):
                return "gather"
        coefficient = self.coefficients.get(number)
        if coefficient is None:
            return "none"
        return "unit" if coefficient.op == "const" and coefficient.value == 1 else "strided"


def affine(offset: Expr) -> Affine:
    """Split an int64 expression into its affine part and the rest.

    Example:
        >>> from metafuse.kernel.expr import Expr, axis, add, mul
        >>> affine(add(mul(axis(0), Expr("size", (), const(0).dtype, 3)), axis(1))).stride(0)
        'strided'
    """
    coefficients: dict[int, Expr] = {}
    rest: list[Expr] = []
    stack: list[tuple[Expr, Expr]] = [(offset, const(1))]
    while stack:
        node, factor = stack.pop()
        if node.op == "add":
            stack += [(node.args[1], factor), (node.args[0], factor)]
        elif node.op == "sub":
            stack += [(node.args[1], mul(factor, const(-1))), (node.args[0], factor)]
        elif node.op == "neg":
            stack.append((node.args[0], mul(factor, const(-1))))
        elif node.op == "mul" and _uniform(node.args[1]):
            stack.append((node.args[0], mul(factor, node.args[1])))
        elif node.op == "mul" and _uniform(node.args[0]):
            stack.append((node.args[1], mul(factor, node.args[0])))
        elif node.op == "axis":
            before = coefficients.get(node.value)
            coefficients[node.value] = factor if before is None else add(before, factor)
        elif not (node.op == "const" and node.value == 0):
            rest.append(mul(node, factor))
    return Affine(coefficients, tuple(rest))


def _uniform(node: Expr) -> bool:
    return all(part.op in ("const", "size", "add", "sub", "mul") for part in walk(node))


@dataclass
class Printer:
    """What all blocks of one kernel share.

    ``needs``: helper texts that the kernel relies on, in order of first use. ``vector_axis``: the axis along which the
    compiler is to vectorise, if any. A conditional load that is not contiguous along it is spelled as an unconditional one
    of element 0 where the condition fails, since compilers turn only contiguous loads into masked ones.
    """

    kernel: Kernel
    dialect: Dialect
    needs: dict[str, str] = field(default_factory=dict)
    vector_axis: int = -1
    count: int = 0

    def fresh(self, letter: str) -> str:
        """A name not used yet."""
        self.count += 1
        return f"{letter}{self.count}"


class Scope:
    """One block; ``lines`` is its text so far. See the module for what it does."""

    def __init__(self, printer: Printer, parent: Scope | None = None, holds_loads: bool = True) -> None:
        self.printer = printer
        self.parent = parent
        self.holds_loads = holds_loads
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.lines: list[str] = []
        self._bound: dict[tuple[str, int], tuple[str, bool]] = {}
        self._known: dict[Expr, str] = {}
        self._texts: dict[str, str] = {}
        #: whether something in a ``guard`` block needs its condition
        self.under_condition = False

    # -- statements -----------------------------------------------------------------------------------------------
    def line(self, text: str) -> None:
        """Append a statement."""
        self.lines.append(text)

    @contextmanager
    def block(self, header: str, *, pragma: str = "", holds_loads: bool = False) -> Iterator[Scope]:
        """A nested block ``header { ... }``, appended to this one when the ``with`` statement ends."""
        inner = Scope(self.printer, self, holds_loads)
        yield inner
        self._close(inner, header, pragma)

    @contextmanager
    def either(self, condition: str, *, holds_loads: bool = False) -> Iterator[tuple[Scope, Scope]]:
        """Two nested blocks: one for where ``condition`` holds, one for where it does not. Both end with the ``with`` statement,
        so that what the second one defines further out does not come between ``if`` and ``else``."""
        yes, no = Scope(self.printer, self, holds_loads), Scope(self.printer, self, holds_loads)
        yield yes, no
        self._close(yes, f"if ({condition})", "")
        self._close(no, "else", "")

    @contextmanager
    def guard(self, condition: str) -> Iterator[Scope]:
        """A nested block that holds loads. If there are any they run only under ``condition``, which should say that the
        loops inside run at all."""
        inner = Scope(self.printer, self, True)
        yield inner
        self._close(inner, f"if ({condition})" if condition and inner.under_condition else "", "")

    def _close(self, inner: Scope, header: str, pragma: str) -> None:
        if pragma:
            self.lines.append(pragma)
        self.lines.append(f"{header} {{".strip())
        self.lines += ["    " + text for text in inner.lines]
        self.lines.append("}")

    def bind(self, kind: str, number: int, text: str, lazy: bool = False) -> None:
        """Leaf ``kind`` ``number`` is ``text`` from here inwards; a ``lazy`` one gets a local variable on first use."""
        self._bound[kind, number] = (text, lazy)

    def give(self, node: Expr, text: str) -> None:
        """``node`` has been computed elsewhere: here it is a local variable that ``text`` initialises."""
        self._local(node, text)

    # -- expressions ----------------------------------------------------------------------------------------------
    def value(self, root: Expr) -> str:
        """A name or literal that stands for ``root`` in this block."""
        stack: list[tuple[Expr, bool]] = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if self._find(node) is not None:
                continue
            operands = node.args[1:] if node.op == "load" else node.args
            if ready or not operands:
                self._define(node)
            else:
                stack.append((node, True))
                stack.extend((a, False) for a in reversed(operands))
        found = self._find(root)
        assert found is not None
        return found[0]

    def unrounded(self, root: Expr) -> str:
        """The text of a float that rounds to ``root``, a float of 16 bits, for those who round better than C does."""
        operands = [self.value(operand) for operand in root.args] if root.op != "load" else []
        if root.op == "cast" and not (root.args[0].dtype.is_float and root.args[0].dtype.itemsize > 4):
            return f"(float){operands[0]}"
        if not operands or root.op in (
            "cast",
            "cdiv",
            "select",
            "uniform",
        ):  # what does not round, or not in one step
            return self.value(root)
        return unrounded(root, operands, self.printer.dialect, self.printer.needs)

    def index(self, offset: Expr) -> str:
        """The text of an offset, its parts computed as far out as possible."""
        return self._index(offset)[0]

    def forget(self, buffer: int) -> None:
        """A store went to ``buffer``: loads of it in this block are stale."""
        for known in [e for e in self._known if any(n.op == "load" and n.value == buffer for n in walk(e))]:
            del self._known[known]
        self._texts = {text: name for text, name in self._texts.items() if f"b{buffer}[" not in text}

    def _find(self, node: Expr) -> tuple[str, Scope] | None:
        scope: Scope | None = self
        while scope is not None:
            if node in scope._known:
                return scope._known[node], scope
            scope = scope.parent
        return None

    def _define(self, node: Expr) -> None:
        if node.op == "const":
            self._root()._known[node] = literal(node.value, node.dtype, self.printer.dialect)
        elif node.op == "load":
            self._define_load(node)
        elif not node.args:
            self._define_leaf(node)
        else:
            found = [self._operand(a) for a in node.args]
            home = max((scope for _, scope in found), key=lambda scope: scope.depth)
            text = operation(node, [name for name, _ in found], self.printer.dialect, self.printer.needs)
            home._local(node, text)

    def _operand(self, node: Expr) -> tuple[str, Scope]:
        found = self._find(node)
        assert found is not None, f"operand {node!r} is not defined"
        return found

    def _define_leaf(self, node: Expr) -> None:
        scope: Scope | None = self
        while scope is not None:
            if (node.op, node.value) in scope._bound:
                text, lazy = scope._bound[node.op, node.value]
                if lazy:
                    scope._local(node, text)
                else:
                    scope._known[node] = text
                return
            scope = scope.parent
        if node.op == "size":
            self._root()._local(node, f"sizes[{node.value}]", f"s{node.value}")
        elif node.op == "scalar":
            printer, dtype = self.printer, node.dtype
            place = f"scalars[{node.value}].{'f' if dtype.is_float else 'i'}"
            number = (
                f"!!{place}" if dtype.kind == "b" else rounded(place, dtype, printer.dialect, printer.needs)
            )
            self._root()._local(node, number, f"c{node.value}")
        else:
            name = self.printer.kernel.name
            raise BackendError(
                f"[{name}] a kernel uses what no earlier phase defines: {node!r}; check how it was lowered"
            )

    def _define_load(self, node: Expr) -> None:
        index, home = self._index(node.args[0])
        condition, otherwise, picked = "", "", False
        if len(node.args) == 3:
            (condition, where), (otherwise, there) = self._operand(node.args[1]), self._operand(node.args[2])
            home = max(home, where, there, key=lambda scope: scope.depth)
            picked = affine(node.args[0]).stride(self.printer.vector_axis) in ("strided", "gather")
        fence: Scope = self
        if not self.printer.kernel.buffers[node.value].writes:
            while not fence.holds_loads and fence.parent is not None:
                fence = fence.parent
        home = max(home, fence, key=lambda scope: scope.depth)
        home.under_condition = True
        if picked:
            # not a choice: compilers would turn it, with the load, back into a branch
            index = home._share(f"({index}) & -(long long){condition}", "const long long")
        memory = loaded(f"b{node.value}[{index}]", node.dtype, self.printer.dialect, self.printer.needs)
        if picked:
            memory = home._share(memory, f"const {type_name(node.dtype, self.printer.dialect)}")
        home._local(node, f"{condition} ? {memory} : {otherwise}" if condition else memory)

    def _index(self, offset: Expr) -> tuple[str, Scope]:
        split = affine(offset)
        terms: list[tuple[str, Scope]] = []
        for number, coefficient in split.coefficients.items():
            self.value(axis := Expr("axis", (), offset.dtype, number))
            name, home = self._operand(axis)
            factor = self._plain(coefficient)
            terms.append((name if factor == "1" else f"{name} * {factor}", home))
        for term in split.rest:
            if _uniform(term):
                terms.append((self._plain(term), self._root()))
            else:
                self.value(term)
                terms.append(self._operand(term))
        terms.sort(key=lambda term: term[1].depth)
        running, home = "", self._root()
        for text, scope in terms:
            if scope is not home and " " in running:
                running = home._share(running, "const long long")
            running, home = f"{running} + {text}" if running else text, scope
        if home is not self and " " in running:
            running = home._share(running, "const long long")
        return running or "0", home

    def _plain(self, node: Expr) -> str:
        """Sizes and literals combined with ``+ - *``, which can't overflow in an offset and so stay legible."""
        if node.op == "const":
            return str(node.value) if node.value >= 0 else f"({node.value})"
        if node.op == "size":
            return self.value(node)
        left, right = (self._plain(a) for a in node.args)
        sign = {"add": "+", "sub": "-", "mul": "*"}[node.op]
        return self._root()._share(f"{left} {sign} {right}", "const long long")

    def _root(self) -> Scope:
        scope = self
        while scope.parent is not None:
            scope = scope.parent
        return scope

    def _share(self, text: str, kind: str, name: str = "") -> str:
        scope: Scope | None = self
        while scope is not None:
            if text in scope._texts:
                return scope._texts[text]
            scope = scope.parent
        name = name or self.printer.fresh("t")
        self.lines.append(f"{kind} {name} = {text};")
        self._texts[text] = name
        return name

    def _local(self, node: Expr, text: str, name: str = "") -> None:
        self._known[node] = self._share(text, f"const {type_name(node.dtype, self.printer.dialect)}", name)
