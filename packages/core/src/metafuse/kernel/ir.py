"""The kernel IR: the only description of work that a backend sees.

What it is: frozen records. A ``Kernel`` is a loop nest over ``outer`` axes (independent, free to run in parallel)
and, inside, ``inner`` axes (reduced over, or simply more elements), with a list of stages that share these loops.
What it is not: a schedule. Tiles, vector axis and threads are the backend's choice, made from its machine
description; sizes, strides, paddings and user numbers are run-time arguments and never part of a kernel.
Who calls it: ``passes.lower`` builds it, ``kernel.spec`` checks it, backends emit it.

Meaning, as a program::

    for every outer point:                       # in any order, in parallel; along the last ``serial`` axes one by one
        for phase in 0, 1, ...:
            for every inner point, in row-major order:
                run the phase's stages of level "inner", in list order
            run the phase's stages of level "outer", in list order

Stages of one phase and level read everything they read at a point before any of them writes there: two buffers of a call may be
the same memory where a store writes the element that was read.

A *reduce* stage folds its expression over all inner points and defines a value that later phases (and the outer
stages of its own phase) may read. A *let* stage names a value for one outer point. A *store* writes one element.
A *scatter* folds its expression into the element that it addresses; several inner points may address the same element,
and they fold in row-major order.

Outer points that differ along the last ``serial`` outer axes only run in row-major order, so that they may add up what they
store: a point may read what those before it wrote.

Call arguments, positional: buffers; ``sizes`` (int64), of which the first ``outer + inner`` are the axes' extents in
loop order; ``scalars``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..dtypes import DType
from .expr import Expr, walk

__all__ = ["BufferParam", "Contraction", "DimIndex", "Kernel", "Operand", "Stage", "IDENTITY", "REDUCTIONS"]

#: reduction operator -> the intrinsic that combines two partial results ("void": the last one wins, scatter only)
REDUCTIONS: dict[str, str | None] = {
    "add": "add",
    "multiply": "mul",
    "maximum": "max",
    "minimum": "min",
    "logical_and": "and",
    "logical_or": "or",
    "logical_xor": "ne",
    "bitwise_and": "bitand",
    "bitwise_or": "bitor",
    "bitwise_xor": "bitxor",
    "void": None,
}


def IDENTITY(op: str, dtype: DType) -> float | int | bool:
    """The neutral element of reduction ``op`` on ``dtype`` (``inf`` and the integer limits for minimum/maximum)."""
    if op in ("add", "logical_or", "logical_xor", "bitwise_or", "bitwise_xor", "void"):
        return 0
    if op in ("multiply", "logical_and"):
        return 1
    if op == "bitwise_and":
        return 1 if dtype.kind == "b" else -1 if dtype.kind == "i" else 2 ** (8 * dtype.itemsize) - 1
    low = op == "maximum"
    if dtype.is_float:
        return float("-inf") if low else float("inf")
    if dtype.kind == "b":
        return 0 if low else 1
    bits = 8 * dtype.itemsize
    if dtype.kind == "u":
        return 0 if low else 2**bits - 1
    return -(2 ** (bits - 1)) if low else 2 ** (bits - 1) - 1


@dataclass(frozen=True)
class BufferParam:
    """One buffer argument: its element type and what the kernel does with it."""

    dtype: DType
    writes: bool = False
    reads: bool = True


@dataclass(frozen=True)
class Stage:
    """One statement; see the module's docstring for the kinds.

    ``reduce``: ``op``, ``expr``, ``result``; level inner. ``let``: ``expr``, ``result``; level outer.
    ``store``: ``buffer``, ``offset``, ``expr``. ``scatter``: ``buffer``, ``offset``, ``op``, ``expr`` and
    ``condition`` (a bool expression under which the element takes part); level inner.
    """

    kind: str
    level: str
    expr: Expr
    phase: int
    op: str = ""
    result: int = -1
    buffer: int = -1
    offset: Expr | None = None
    condition: Expr | None = None

    @property
    def roots(self) -> tuple[Expr, ...]:
        """The expressions that it has."""
        return tuple(root for root in (self.expr, self.offset, self.condition) if root is not None)

    @property
    def loads(self) -> list[Expr]:
        """What it reads, each once, operands first."""
        return list(dict.fromkeys(x for root in self.roots for x in walk(root) if x.op == "load"))


@dataclass(frozen=True)
class DimIndex:
    """The position along one dimension of a contraction operand:
    ``(sum_k size[coefficients[k]] * axis_k + size[constant]) / size[divisor]``.

    ``coefficients`` are pairs (axis number, slot of a run-time size). Where ``divisor`` is a slot, the element exists
    only if the division leaves no remainder. Where ``guarded``, it exists only if ``0 <= position < size[extent]``.
    Elements that do not exist count as zero. ``stride`` is the slot of the buffer stride of this dimension.
    """

    coefficients: tuple[tuple[int, int], ...]
    constant: int | None
    divisor: int | None
    guarded: bool
    extent: int
    stride: int


@dataclass(frozen=True)
class Operand:
    """One factor of a contraction: a buffer and how each of its dimensions is addressed."""

    buffer: int
    dims: tuple[DimIndex, ...]


@dataclass(frozen=True)
class Contraction:
    """Says that stage 0, a ``reduce`` with ``add``, is a product of two operands, so that a backend may tile and pack.

    Axis numbers by role: ``batch`` (in both operands and the result), ``m`` (operand a and result), ``n`` (operand b
    and result), ``k`` (both operands, summed). The plain reading of the stages stays valid.
    """

    batch: tuple[int, ...]
    m: tuple[int, ...]
    n: tuple[int, ...]
    k: tuple[int, ...]
    a: Operand
    b: Operand


@dataclass(frozen=True)
class Kernel:
    """A loop nest with its stages; everything in it is structure, so equal kernels share one compiled object."""

    outer: int
    inner: int
    buffers: tuple[BufferParam, ...]
    sizes: int
    scalars: tuple[DType, ...]
    stages: tuple[Stage, ...]
    contraction: Contraction | None = None
    #: a readable name made from the operators inside, for logs, traces and symbols; not part of equality
    name: str = field(default="kernel", compare=False)
    #: how many of the outer axes, counted from the last, are run through in order (only where a backend's capabilities say so)
    serial: int = 0

    def __hash__(self) -> int:
        """Computed once: kernels are keys of several tables."""
        known = self.__dict__.get("_hash")
        if known is None:
            known = hash(
                (
                    self.outer,
                    self.inner,
                    self.buffers,
                    self.sizes,
                    self.scalars,
                    self.stages,
                    self.contraction,
                    self.serial,
                )
            )
            object.__setattr__(self, "_hash", known)
        return known  # type: ignore[no-any-return]
