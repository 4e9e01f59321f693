"""The legality table of the kernel IR.

What it is: ``verify``, which refuses a kernel that breaks a rule of ``kernel.ir`` or ``kernel.expr``, and names the stage.
What it is not: a check of the numbers of one call (sizes, buffers); those belong to the launch.
Who calls it: ``passes.pipeline`` before emission when verification is on, the passes' tests, and backend authors.

The tables below are the rules: ``SIGNATURES`` says what each intrinsic takes and yields, ``FIELDS`` what each kind of stage
has. The code under them only walks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from ..dtypes import DType, bool_, float32, int64
from ..errors import KernelError
from .expr import INTRINSICS, TESTS, Expr, walk
from .ir import REDUCTIONS, Contraction, Kernel, Operand, Stage

__all__ = ["FIELDS", "IllegalKernel", "SIGNATURES", "verify"]


class IllegalKernel(KernelError):
    """A kernel breaks a rule of the IR. ``stage`` is the number of the stage, -1 for the kernel as a whole."""

    def __init__(self, message: str, stage: int) -> None:
        super().__init__(message)
        self.stage = stage


# -- intrinsics -------------------------------------------------------------------------------------------------------
#: kinds of dtype as in ``DType.kind``
_ANY, _NUMBER, _FLOAT, _WHOLE, _INTEGER, _BOOL = "biuf", "iuf", "f", "biu", "iu", "b"


@dataclass(frozen=True)
class Signature:
    """What an intrinsic takes and yields: the allowed kinds per operand; whether all operands from ``shared`` on must
    have one dtype; the dtype of the result, ``None`` for that of the last operand."""

    kinds: tuple[str, ...]
    shared: int = 0
    result: DType | None = None


def _signatures() -> dict[str, Signature]:
    groups = {
        _ANY: "add mul min max abs floor ceil round trunc eq ne lt le gt ge isnan isinf cast",
        _NUMBER: "sub neg floordiv mod cdiv cmod pow",
        _FLOAT: "div sqrt atan2 exp log expm1 log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf",
        _WHOLE: "bitand bitor bitxor bitnot",
        _INTEGER: "shl shr",
        _BOOL: "and or not",
    }
    table = {
        name: Signature((kinds,) * INTRINSICS[name], 0, bool_ if name in TESTS else None)
        for kinds, names in groups.items()
        for name in names.split()
    }
    table["select"] = Signature((_BOOL, _ANY, _ANY), 1)
    table["uniform"] = Signature((_INTEGER,) * 3, 3, float32)
    return table


SIGNATURES: dict[str, Signature] = _signatures()

# -- stages -----------------------------------------------------------------------------------------------------------
_UNUSED = {"op": "", "result": -1, "buffer": -1, "offset": None, "condition": None}

#: kind of stage -> (levels it may stand on, fields it must have, fields it may have)
FIELDS: dict[str, tuple[frozenset[str], frozenset[str], frozenset[str]]] = {
    "reduce": (frozenset({"inner"}), frozenset({"op", "result"}), frozenset()),
    "let": (frozenset({"outer"}), frozenset({"result"}), frozenset()),
    "store": (frozenset({"inner", "outer"}), frozenset({"buffer", "offset"}), frozenset()),
    "scatter": (frozenset({"inner"}), frozenset({"op", "buffer", "offset"}), frozenset({"condition"})),
}
#: reduction -> kinds of dtype it folds; the others fold any
_FOLDS = {
    **dict.fromkeys(("logical_and", "logical_or", "logical_xor"), _BOOL),
    **dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor"), _WHOLE),
}


def verify(kernel: Kernel) -> None:
    """Raise ``IllegalKernel`` if ``kernel`` breaks a rule; answer nothing if it is legal.

    Example:
        >>> from metafuse.kernel.expr import axis, load
        >>> from metafuse.kernel.ir import BufferParam
        >>> copy = Stage("store", "inner", load(0, float32, axis(1)), 0, buffer=1, offset=axis(0))
        >>> verify(Kernel(1, 0, (BufferParam(float32), BufferParam(float32, True)), 1, (), (copy,)))
        Traceback (most recent call last):
            ...
        metafuse.kernel.spec.IllegalKernel: [kernel] stage 0 (store): axis 1 does not exist at level inner, which has 1
    """
    _Verifier(kernel).run()


class _Verifier:
    """One walk over one kernel: which values are visible so far."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.number = -1
        #: value number -> dtype, phase in which it is defined
        self.values: dict[int, tuple[DType, int]] = {}
        #: reduce results of the phase being walked: inner stages of the same phase can't see them yet
        self.pending: set[int] = set()
        #: nodes found legal; what a node may name only grows
        self.checked: dict[str, set[Expr]] = {"inner": set(), "outer": set()}

    def fail(self, what: str) -> NoReturn:
        kernel = self.kernel
        where = "" if self.number < 0 else f" stage {self.number} ({kernel.stages[self.number].kind}):"
        raise IllegalKernel(f"[{kernel.name}]{where} {what}", self.number)

    def run(self) -> None:
        kernel = self.kernel
        if min(kernel.outer, kernel.inner) < 0 or kernel.outer + kernel.inner > kernel.sizes:
            self.fail(
                f"{kernel.outer} outer and {kernel.inner} inner axes need as many sizes, there are {kernel.sizes}"
            )
        if not 0 <= kernel.serial <= kernel.outer or (kernel.serial and kernel.contraction is not None):
            self.fail(f"{kernel.serial} serial axes of {kernel.outer} outer ones; a contraction has none")
        for number, stage in enumerate(kernel.stages):
            self.number = number
            self._fields(stage)
        self.number = -1
        if not any(stage.kind in ("store", "scatter") for stage in kernel.stages):
            self.fail("no stage stores anything")
        for phase in sorted({stage.phase for stage in kernel.stages}):
            self._phase(phase)
        self.number = -1
        if kernel.contraction is not None:
            self._contraction(kernel.contraction)

    def _phase(self, phase: int) -> None:
        """The stages of a phase in the order of execution: inner before outer."""
        for level in ("inner", "outer"):
            for number, stage in enumerate(self.kernel.stages):
                self.number = number
                if stage.phase == phase and stage.level == level:
                    self._stage(stage)
                    if stage.kind in ("reduce", "let"):
                        self._define(stage)
            self.pending.clear()

    # -- stages -------------------------------------------------------------------------------------------------------
    def _fields(self, stage: Stage) -> None:
        if stage.kind not in FIELDS:
            self.fail(f"unknown kind {stage.kind!r}; kinds are {', '.join(FIELDS)}")
        levels, needed, allowed = FIELDS[stage.kind]
        if stage.level not in levels:
            self.fail(f"can't stand at level {stage.level!r}, only {' or '.join(sorted(levels))}")
        if stage.phase < 0:
            self.fail(f"phase {stage.phase} is negative")
        for name, unused in _UNUSED.items():
            present = getattr(stage, name) != unused
            if present and name not in needed | allowed:
                self.fail(f"has no {name}, but it is {getattr(stage, name)!r}")
            if not present and name in needed:
                self.fail(f"needs {name}")

    def _stage(self, stage: Stage) -> None:
        self._expression(stage.expr, stage.level)
        if stage.kind in ("reduce", "scatter"):
            self._fold(stage)
        if stage.offset is None:
            return
        if not 0 <= stage.buffer < len(self.kernel.buffers):
            self.fail(f"buffer {stage.buffer} does not exist, there are {len(self.kernel.buffers)}")
        buffer = self.kernel.buffers[stage.buffer]
        if not buffer.writes:
            self.fail(f"writes buffer {stage.buffer}, which is declared without writes")
        if stage.kind == "scatter" and stage.op != "void" and not buffer.reads:
            self.fail(f"folds into buffer {stage.buffer}, which is declared without reads")
        if stage.expr.dtype is not buffer.dtype:
            self.fail(f"writes {stage.expr.dtype} to buffer {stage.buffer} of {buffer.dtype}")
        self._typed(stage.offset, stage.level, int64, "offset")
        if stage.condition is not None:
            self._typed(stage.condition, stage.level, bool_, "condition")

    def _fold(self, stage: Stage) -> None:
        if stage.op not in REDUCTIONS or (stage.op == "void" and stage.kind == "reduce"):
            self.fail(f"unknown reduction {stage.op!r}")
        kinds = _FOLDS.get(stage.op, _ANY)
        if stage.expr.dtype.kind not in kinds:
            self.fail(f"{stage.op} can't fold {stage.expr.dtype}")

    def _define(self, stage: Stage) -> None:
        if stage.result < 0 or stage.result in self.values:
            self.fail(
                f"value {stage.result} is defined twice"
                if stage.result >= 0
                else f"value {stage.result} is negative"
            )
        self.values[stage.result] = stage.expr.dtype, stage.phase
        if stage.kind == "reduce":
            self.pending.add(stage.result)

    def _typed(self, expr: Expr, level: str, dtype: DType, name: str) -> None:
        self._expression(expr, level)
        if expr.dtype is not dtype:
            self.fail(f"the {name} is {expr.dtype}, not {dtype}")

    # -- expressions --------------------------------------------------------------------------------------------------
    def _expression(self, root: Expr, level: str) -> None:
        for node in walk(root):
            if node in self.checked[level]:
                continue
            self.checked[level].add(node)
            if node.op in SIGNATURES:
                self._intrinsic(node)
            elif node.op == "load":
                self._load(node)
            elif node.args:
                self.fail(f"{node.op} takes no arguments, has {len(node.args)}")
            else:
                self._leaf(node, level)

    def _intrinsic(self, node: Expr) -> None:
        signature = SIGNATURES[node.op]
        dtypes = [a.dtype for a in node.args]
        listing = f"{node.op}({', '.join(map(str, dtypes))})"
        if len(dtypes) != len(signature.kinds):
            self.fail(f"{listing} takes {len(signature.kinds)} arguments")
        for dtype, kinds in zip(dtypes, signature.kinds, strict=True):
            if dtype.kind not in kinds:
                self.fail(f"{listing} is not defined for {dtype}")
        if len(set(dtypes[signature.shared :])) > 1:
            self.fail(f"{listing} needs operands of one dtype")
        result = dtypes[-1] if signature.result is None else signature.result
        if node.op != "cast" and node.dtype is not result:
            self.fail(f"{listing} yields {result}, not {node.dtype}")

    def _load(self, node: Expr) -> None:
        buffers = self.kernel.buffers
        if not 0 <= node.value < len(buffers):
            self.fail(f"load from buffer {node.value}, which does not exist; there are {len(buffers)}")
        if not buffers[node.value].reads:
            self.fail(f"load from buffer {node.value}, which is declared without reads")
        expected = [int64, bool_, node.dtype][: len(node.args)]
        if [a.dtype for a in node.args] != expected or len(node.args) not in (1, 3):
            self.fail(
                f"load({', '.join(str(a.dtype) for a in node.args)}) must have an int64 offset, or an int64 offset, a bool "
                f"condition and a {node.dtype} for where it does not hold"
            )
        if node.dtype is not buffers[node.value].dtype:
            self.fail(f"load of {node.dtype} from buffer {node.value} of {buffers[node.value].dtype}")

    def _leaf(self, node: Expr, level: str) -> None:
        kernel = self.kernel
        if node.op == "const":
            self._constant(node)
        elif node.op == "axis":
            count = kernel.outer + (kernel.inner if level == "inner" else 0)
            if not 0 <= node.value < count:
                self.fail(f"axis {node.value} does not exist at level {level}, which has {count}")
            self._leaf_dtype(node, int64)
        elif node.op == "size":
            if not 0 <= node.value < kernel.sizes:
                self.fail(f"size {node.value} does not exist, there are {kernel.sizes}")
            self._leaf_dtype(node, int64)
        elif node.op == "scalar":
            if not 0 <= node.value < len(kernel.scalars):
                self.fail(f"scalar {node.value} does not exist, there are {len(kernel.scalars)}")
            self._leaf_dtype(node, kernel.scalars[node.value])
        elif node.op == "value":
            if node.value not in self.values:
                self.fail(f"value {node.value} is used before it is defined")
            dtype, phase = self.values[node.value]
            if level == "inner" and node.value in self.pending:
                self.fail(f"value {node.value} is complete only after the inner loop of phase {phase}")
            self._leaf_dtype(node, dtype)
        else:
            self.fail(f"unknown operation {node.op!r}")

    def _leaf_dtype(self, node: Expr, dtype: DType) -> None:
        if node.dtype is not dtype:
            self.fail(f"{node.op} {node.value} is {dtype}, not {node.dtype}")

    def _constant(self, node: Expr) -> None:
        dtype, value = node.dtype, node.value
        if dtype.is_float:
            return
        bits = 8 * dtype.itemsize
        low, high = {"b": (0, 1), "u": (0, 2**bits - 1)}.get(
            dtype.kind, (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        )
        if value != value or not low <= value <= high or int(value) != value:
            self.fail(f"constant {value} is no {dtype}")

    # -- contraction --------------------------------------------------------------------------------------------------
    def _contraction(self, c: Contraction) -> None:
        kernel = self.kernel
        first = kernel.stages[0]
        product = first.expr
        while product.op == "cast":
            product = product.args[0]
        if first.kind != "reduce" or first.op != "add" or first.phase != 0 or product.op != "mul":
            self.fail("contraction: stage 0 must be a reduce of phase 0 with add over a mul")
        outer, inner = list(range(kernel.outer)), list(range(kernel.outer, kernel.outer + kernel.inner))
        if sorted(c.batch + c.m + c.n) != outer or sorted(c.k) != inner:
            self.fail(
                f"contraction: batch {c.batch}, m {c.m} and n {c.n} must share out the outer axes, k {c.k} the inner ones"
            )
        self._operand("a", c.a, c.batch + c.m + c.k)
        self._operand("b", c.b, c.batch + c.n + c.k)
        loaded = [sorted({n.value for n in walk(factor) if n.op == "load"}) for factor in product.args]
        if sorted(loaded) != sorted([[c.a.buffer], [c.b.buffer]]):
            self.fail(
                f"contraction: stage 0 reads buffers {loaded}, the operands are {c.a.buffer} and {c.b.buffer}"
            )

    def _operand(self, name: str, operand: Operand, axes: Sequence[int]) -> None:
        if not 0 <= operand.buffer < len(self.kernel.buffers):
            self.fail(f"contraction: operand {name} is buffer {operand.buffer}, which does not exist")
        for number, dim in enumerate(operand.dims):
            where = f"contraction: operand {name}, dimension {number}:"
            slots = [dim.extent, dim.stride, *(slot for _, slot in dim.coefficients)]
            slots += [slot for slot in (dim.constant, dim.divisor) if slot is not None]
            for slot in slots:
                if not 0 <= slot < self.kernel.sizes:
                    self.fail(f"{where} size {slot} does not exist, there are {self.kernel.sizes}")
            for axis, _ in dim.coefficients:
                if axis not in axes:
                    self.fail(f"{where} axis {axis} has no part in this operand, only {sorted(axes)}")
