"""Backends that are wrong in one way each: what the kit itself is tested with.

What it is: ``Sabotaged``, a wrapper around any backend that hands everything on, and subclasses that break one thing.
``SABOTAGES`` is the list of them.
What it is not: for use. A wrapper has none of the optional abilities, so every step goes through ``launch``.
Who calls it: the kit's own tests; authors of backends who wonder whether a check would notice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..backend.contract import AbstractBackend, Call, Capabilities, Handle, Loaded, Step, host_bytes
from ..dtypes import DType, as_dtype
from ..kernel.expr import Expr, call, cast, const, rewrite, select
from ..kernel.ir import Kernel, Stage

__all__ = ["SABOTAGES", "Sabotaged"]

Array = np.ndarray[Any, Any]


@dataclass(eq=False)
class Memory:
    """A handle: the inner backend's, and how large it is."""

    inner: Handle
    nbytes: int


class Sabotaged(AbstractBackend):
    """Hands everything to ``inner``; by itself nothing is broken."""

    def __init__(self, inner: AbstractBackend) -> None:
        self.inner = inner
        self.name = f"{type(self).__name__.lower()}-{inner.name}"

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]
        return self.inner.capabilities

    def alloc(self, nbytes: int) -> Handle:
        return Memory(self.inner.alloc(nbytes), nbytes)

    def free(self, handle: Handle) -> None:
        self.inner.free(handle.inner)

    def copy_in(self, handle: Handle, source: memoryview) -> None:
        self.inner.copy_in(handle.inner, source)

    def copy_out(self, target: memoryview, handle: Handle) -> None:
        self.inner.copy_out(target, handle.inner)

    def emit(self, kernel: Kernel, symbol: str) -> str:
        return self.inner.emit(self.changed(kernel), symbol)

    def compile(self, sources: Sequence[str]) -> bytes:
        return self.inner.compile(sources)

    def load(self, binary: bytes, kernels: Mapping[str, Kernel]) -> dict[str, Loaded]:
        return self.inner.load(binary, {symbol: self.changed(k) for symbol, k in kernels.items()})

    def launch(self, step: Step, handles: Sequence[Handle], scalars: Sequence[float | int]) -> None:
        changed = replace(step, kernel=self.changed(step.kernel))
        self.inner.launch(changed, [h.inner if h is not None else None for h in handles], scalars)

    def synchronize(self) -> None:
        self.inner.synchronize()

    def fingerprint(self) -> str:
        return f"{self.name}:{self.inner.fingerprint()}"

    # -- for subclasses -------------------------------------------------------------------------------------------
    def changed(self, kernel: Kernel) -> Kernel:
        """The kernel that is really run."""
        return kernel

    def peek(self, handle: Memory) -> Array:
        """The bytes of a buffer."""
        data = np.zeros(handle.nbytes, np.uint8)
        self.inner.synchronize()
        self.inner.copy_out(host_bytes(data), handle.inner)
        return data

    def poke(self, handle: Memory, data: Array) -> None:
        """Overwrite a buffer."""
        self.inner.copy_in(handle.inner, host_bytes(data))

    def written(self, step: Step, handles: Sequence[Handle]) -> list[tuple[DType, Memory]]:
        """The buffers that a step writes."""
        return [
            (param.dtype, handles[slot])
            for one in step.calls
            for slot, param in zip(one.slots, step.kernel.buffers, strict=True)
            if param.writes
        ]


# -- memory -----------------------------------------------------------------------------------------------------------
class StaleInput(Sabotaged):
    """The second copy into a buffer is forgotten."""

    def copy_in(self, handle: Handle, source: memoryview) -> None:
        if source.nbytes and not getattr(handle, "filled", False):
            super().copy_in(handle, source)
            handle.filled = True


class ShortCopyOut(Sabotaged):
    """What does not fill 64 bytes at the end is not copied out."""

    def copy_out(self, target: memoryview, handle: Handle) -> None:
        super().copy_out(target[: target.nbytes // 64 * 64], handle)


class OverlappingMemory(Sabotaged):
    """Every allocation begins inside the one before."""

    def __init__(self, inner: AbstractBackend) -> None:
        super().__init__(inner)
        self.arena: Any = None
        self.next = 0

    def alloc(self, nbytes: int) -> Handle:
        if self.arena is None:
            self.arena = self.inner.alloc(1 << 26)
        if self.next + nbytes > self.arena.size:
            self.next = 0
        start = self.next
        self.next += -(-nbytes // 128) * 64  # half of what is needed
        return Memory(self.arena[start : start + nbytes], nbytes)

    def free(self, handle: Handle) -> None:
        pass


class SharedAfterFree(Sabotaged):
    """Memory that was freed is handed out twice."""

    def __init__(self, inner: AbstractBackend) -> None:
        super().__init__(inner)
        self.freed: list[Memory] = []

    def alloc(self, nbytes: int) -> Handle:
        for block in self.freed:
            if block.nbytes == nbytes:
                return Memory(block.inner, nbytes)
        return super().alloc(nbytes)

    def free(self, handle: Handle) -> None:
        self.freed.append(handle)


# -- launches ---------------------------------------------------------------------------------------------------------
class WrongTail(Sabotaged):
    """The last element of a result is not written where its length is no multiple of 8."""

    def launch(self, step: Step, handles: Sequence[Handle], scalars: Sequence[float | int]) -> None:
        before = [(m, self.peek(m)) for _, m in self.written(step, handles)]
        super().launch(step, handles, scalars)
        for (dtype, memory), (_, old) in zip(self.written(step, handles), before, strict=True):
            if memory.nbytes // dtype.itemsize % 8:
                data = self.peek(memory)
                data[-dtype.itemsize :] = old[-dtype.itemsize :]
                self.poke(memory, data)


class Counts16Bits(Sabotaged):
    """What stands beyond the first 65536 elements of a result is not written."""

    def launch(self, step: Step, handles: Sequence[Handle], scalars: Sequence[float | int]) -> None:
        before = [(m, self.peek(m)) for _, m in self.written(step, handles)]
        super().launch(step, handles, scalars)
        for (dtype, memory), (_, old) in zip(self.written(step, handles), before, strict=True):
            most = dtype.itemsize << 16
            if memory.nbytes > most:
                data = self.peek(memory)
                data[most:] = old[most:]
                self.poke(memory, data)


class RawBools(Sabotaged):
    """True is stored as 2."""

    def launch(self, step: Step, handles: Sequence[Handle], scalars: Sequence[float | int]) -> None:
        super().launch(step, handles, scalars)
        for dtype, memory in self.written(step, handles):
            if dtype.name == "bool":
                self.poke(memory, self.peek(memory) * 2)


class StaleResult(Sabotaged):
    """A kernel that is launched again leaves the results of its first launch."""

    def __init__(self, inner: AbstractBackend) -> None:
        super().__init__(inner)
        self.first: dict[Any, list[Array]] = {}

    def launch(self, step: Step, handles: Sequence[Handle], scalars: Sequence[float | int]) -> None:
        super().launch(step, handles, scalars)
        key = (step.kernel, tuple(one.sizes for one in step.calls))
        written = self.written(step, handles)
        if key not in self.first:
            self.first[key] = [self.peek(m) for _, m in written]
        for (_, memory), old in zip(written, self.first[key], strict=True):
            if old.size == memory.nbytes:
                self.poke(memory, old)


class FirstCallOnly(Sabotaged):
    """Of several calls in one step only the first is made."""

    def launch(self, step: Step, handles: Sequence[Handle], scalars: Sequence[float | int]) -> None:
        super().launch(replace(step, calls=step.calls[:1]), handles, scalars)


class IgnoredDtype(Sabotaged):
    """float64 is computed as float32."""

    def launch(self, step: Step, handles: Sequence[Handle], scalars: Sequence[float | int]) -> None:
        super().launch(step, handles, scalars)
        for dtype, memory in self.written(step, handles):
            if dtype.name == "float64":
                data = self.peek(memory).view(np.float64)
                with np.errstate(all="ignore"):
                    self.poke(memory, data.astype(np.float32).astype(np.float64))


class ClippedInfinity(Sabotaged):
    """Infinity is stored as the largest number."""

    def launch(self, step: Step, handles: Sequence[Handle], scalars: Sequence[float | int]) -> None:
        super().launch(step, handles, scalars)
        for dtype, memory in self.written(step, handles):
            if dtype.name == "float32" and memory.nbytes:
                data = self.peek(memory).view(np.float32)
                self.poke(memory, np.nan_to_num(data, nan=np.nan))


class _ChangedCalls(Sabotaged):
    """Arguments of calls are changed by ``rule``."""

    def rule(self, kernel: Kernel, one: Call) -> Call:
        raise NotImplementedError

    def launch(self, step: Step, handles: Sequence[Handle], scalars: Sequence[float | int]) -> None:
        calls = tuple(self.rule(step.kernel, one) for one in step.calls)
        super().launch(replace(step, calls=calls), handles, scalars)


class TransposedStrides(_ChangedCalls):
    """The first two sizes behind the extents, strides mostly, are exchanged."""

    def rule(self, kernel: Kernel, one: Call) -> Call:
        axes = kernel.outer + kernel.inner
        first, rest = one.sizes[:axes], list(one.sizes[axes:])
        rest[:2] = rest[1::-1]
        return replace(one, sizes=(*first, *rest))


class ShortReduction(_ChangedCalls):
    """The last element of a fold is left out."""

    def rule(self, kernel: Kernel, one: Call) -> Call:
        axes = kernel.outer + kernel.inner
        if not kernel.inner or one.sizes[axes - 1] < 2:
            return one
        return replace(one, sizes=(*one.sizes[: axes - 1], one.sizes[axes - 1] - 1, *one.sizes[axes:]))


class SwappedScalars(_ChangedCalls):
    """Run-time numbers arrive in the wrong order."""

    def rule(self, kernel: Kernel, one: Call) -> Call:
        return replace(one, scalars=one.scalars[::-1]) if len(set(kernel.scalars)) == 1 else one


class FrozenScalars(Sabotaged):
    """Run-time numbers are those of the kernel's first launch."""

    def __init__(self, inner: AbstractBackend) -> None:
        super().__init__(inner)
        self.first: dict[Any, list[float | int]] = {}

    def launch(self, step: Step, handles: Sequence[Handle], scalars: Sequence[float | int]) -> None:
        known = self.first.setdefault((step.kernel, step.calls), list(scalars))
        super().launch(step, handles, known if len(known) == len(scalars) else scalars)


# -- kernels ----------------------------------------------------------------------------------------------------------
class DroppedPhase(Sabotaged):
    """Stages of the last phase are not run."""

    def changed(self, kernel: Kernel) -> Kernel:
        last = max(s.phase for s in kernel.stages)
        if not last:
            return kernel
        return replace(kernel, stages=tuple(s for s in kernel.stages if s.phase < last))


class WritesTooEarly(Sabotaged):
    """Every stage writes before the next one reads, also where both stand at the same point."""

    def changed(self, kernel: Kernel) -> Kernel:
        if kernel.contraction is not None:
            return kernel
        order = sorted(
            range(len(kernel.stages)),
            key=lambda k: (kernel.stages[k].phase, kernel.stages[k].level != "inner"),
        )
        return replace(kernel, stages=tuple(replace(kernel.stages[k], phase=n) for n, k in enumerate(order)))


class _ChangedExpressions(Sabotaged):
    """Every expression is rewritten by ``rule``."""

    def rule(self, x: Expr) -> Expr | None:
        raise NotImplementedError

    def changed(self, kernel: Kernel) -> Kernel:
        memo: dict[Expr, Expr] = {}

        def new(stage: Stage) -> Stage:
            # addresses stay: a wrong one could reach outside of memory
            return replace(stage, expr=rewrite(stage.expr, self.rule, memo))

        return replace(kernel, stages=tuple(map(new, kernel.stages)), contraction=None)


def _rewriting(name: str, doc: str, rule: Callable[[Expr], Expr | None]) -> type[Sabotaged]:
    return type(name, (_ChangedExpressions,), {"__doc__": doc, "rule": lambda self, x: rule(x)})


def _like(x: Expr, value: float) -> Expr:
    return const(value, x.dtype)


def _rough_exp(x: Expr) -> Expr | None:
    return call("mul", x, _like(x, 1.0001)) if x.op == "exp" else None


def _cancelling(x: Expr) -> Expr | None:
    if x.op == "expm1":
        return call("sub", call("exp", *x.args), _like(x, 1))
    return call("log", call("add", x.args[0], _like(x, 1))) if x.op == "log1p" else None


def _lost_nan(x: Expr) -> Expr | None:
    if x.op not in ("max", "min") or not x.dtype.is_float:
        return None
    a, b = x.args
    return select(call("isnan", a), b, x)


def _c_division(x: Expr) -> Expr | None:
    table = {"floordiv": "cdiv", "mod": "cmod"}
    return Expr(table[x.op], x.args, x.dtype) if x.op in table and x.dtype.kind == "i" else None


def _signed_order(x: Expr) -> Expr | None:
    if x.op not in ("lt", "le", "gt", "ge") or x.args[0].dtype.kind != "u":
        return None
    signed = as_dtype(x.args[0].dtype.name.removeprefix("u"))
    return call(x.op, *(cast(y, signed) for y in x.args))


def _ignored_guard(x: Expr) -> Expr | None:
    """What stands outside of a buffer counts as zero, whatever was asked for."""
    return (
        Expr("load", (*x.args[:2], _like(x, 0)), x.dtype, x.value)
        if x.op == "load" and len(x.args) == 3
        else None
    )


def _unsigned(x: Expr) -> Expr | None:
    return call("abs", x) if x.op == "cast" and x.dtype.kind == "i" and x.args[0].dtype.is_float else None


def _swapped_operands(x: Expr) -> Expr | None:
    return Expr(x.op, x.args[::-1], x.dtype) if x.op in ("sub", "div", "pow") and x.dtype.is_float else None


class LostNan(Sabotaged):
    """Folds with maximum pass over NaN."""

    def changed(self, kernel: Kernel) -> Kernel:
        def new(stage: Stage) -> Stage:
            if stage.kind == "reduce" and stage.op == "maximum" and stage.expr.dtype.is_float:
                low = _like(stage.expr, float("-inf"))
                return replace(stage, expr=select(call("isnan", stage.expr), low, stage.expr))
            return stage

        return replace(kernel, stages=tuple(map(new, kernel.stages)))


class LastWins(Sabotaged):
    """A scatter-add overwrites instead of adding."""

    def changed(self, kernel: Kernel) -> Kernel:
        stages = [
            replace(s, op="void") if s.kind == "scatter" and s.op == "add" else s for s in kernel.stages
        ]
        return replace(kernel, stages=tuple(stages))


class WrongTransposition(Sabotaged):
    """The roles of the factors of a contraction are right, one of its strides is the other's."""

    def changed(self, kernel: Kernel) -> Kernel:
        c = kernel.contraction
        if c is None or len(c.a.dims) < 2:
            return kernel
        first, second, *rest = c.a.dims
        dims = (replace(first, stride=second.stride), replace(second, stride=first.stride), *rest)
        return replace(kernel, contraction=replace(c, a=replace(c.a, dims=dims)))


SABOTAGES: tuple[type[Sabotaged], ...] = (
    StaleInput, ShortCopyOut, OverlappingMemory, SharedAfterFree, WrongTail, Counts16Bits, RawBools, StaleResult,
    FirstCallOnly, IgnoredDtype, ClippedInfinity,
    TransposedStrides, ShortReduction, SwappedScalars, FrozenScalars, DroppedPhase, LostNan, LastWins, WritesTooEarly,
    WrongTransposition,
    _rewriting("RoughExp", "exp is off by 1e-4.", _rough_exp),
    _rewriting("CancelledDigits", "expm1 and log1p lose their digits near 0.", _cancelling),
    _rewriting("LostNanInMaximum", "max and min of two numbers pass over NaN.", _lost_nan),
    _rewriting("DivisionAsInC", "Integer division rounds towards zero.", _c_division),
    _rewriting("SignedOrder", "Unsigned integers are compared as signed ones.", _signed_order),
    _rewriting("IgnoredOverflowValue", "What stands outside counts as zero.", _ignored_guard),
    _rewriting("UnsignedCast", "Floats lose their sign when they become integers.", _unsigned),
    _rewriting("SwappedOperands", "Operands of -, / and pow are exchanged.", _swapped_operands),
)  # fmt: skip
