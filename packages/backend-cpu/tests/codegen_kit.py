"""Kernels by hand: their IR from arrays and index expressions, compiled and run without a runtime.

What it is: helpers of ``test_codegen``. ``Nest`` writes down one kernel with its run-time arguments; ``run`` compiles it and
calls its units in several chunks; ``oracle`` runs the same kernel, lifted to float64, on the reference backend.
What it is not: a test, or the way the runtime calls kernels.
Who calls it: ``test_codegen``.
"""

from __future__ import annotations

import ctypes
import mmap
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from metafuse.backend.contract import Call, Machine, Step, host_bytes
from metafuse.dtypes import DType, as_dtype, float32, float64, int64
from metafuse.kernel.expr import Expr, add, axis, cast, const, load, mul, rewrite
from metafuse.kernel.ir import BufferParam, Kernel, Stage
from metafuse.reference.backend import ReferenceBackend
from metafuse_backend_cpu import compiler
from metafuse_backend_cpu.codegen import emit

Array = np.ndarray[Any, Any]
MACHINE = Machine(cores=2, vector_bytes=64, l1_bytes=48 << 10, l2_bytes=1 << 20)


def memory(values: Any, dtype: DType) -> Array:
    """``values`` as a kernel's memory; the array carries the name of a type that NumPy has not."""
    bits = dtype.encode(np.asarray(values).astype(dtype.numpy))
    return (
        bits
        if dtype.storage == dtype.numpy
        else bits.astype(np.dtype(bits.dtype, metadata={"metafuse": dtype.name}))
    )


def numbers(array: Array) -> Array:
    """What such memory holds."""
    return as_dtype(array.dtype).decode(array)


class Scalar(ctypes.Union):
    """The kernel's ``mf_scalar``."""

    _fields_ = [("f", ctypes.c_double), ("i", ctypes.c_longlong)]


class Nest:
    """A kernel under construction together with the arrays, sizes and scalars of one call."""

    def __init__(self, outer: Sequence[int], inner: Sequence[int] = (), serial: int = 0) -> None:
        self.outer = len(outer)
        self.serial = serial
        self.inner = len(inner)
        self.sizes: list[int] = [*outer, *inner]
        self.arrays: list[Array] = []
        self.params: list[BufferParam] = []
        self.stages: list[Stage] = []
        self.dtypes: list[DType] = []
        self.scalars: list[float | int] = []

    def size(self, value: int) -> Expr:
        """A new run-time size."""
        self.sizes.append(int(value))
        return Expr("size", (), int64, len(self.sizes) - 1)

    def scalar(self, value: float | int, dtype: DType = float32) -> Expr:
        """A new run-time scalar."""
        self.scalars.append(value)
        self.dtypes.append(dtype)
        return Expr("scalar", (), dtype, len(self.scalars) - 1)

    def argument(self, array: Array, writes: bool = False, reads: bool = True) -> int:
        """A new buffer argument; strided views are given by their first element."""
        self.arrays.append(array)
        self.params.append(BufferParam(as_dtype(array.dtype), writes, reads))
        return len(self.arrays) - 1

    def offset(self, buffer: int, *index: Expr | int | None) -> Expr:
        """The flat offset of an element: axis numbers, expressions, or ``None`` (broadcast) per dimension."""
        array, total = self.arrays[buffer], const(0)
        shaped = array if array.size else np.empty([max(1, n) for n in array.shape], array.dtype)
        steps = [stride // array.itemsize for stride in shaped.strides]
        unit = max(
            (k for k, step in enumerate(steps) if step == 1), default=-1
        )  # extents 1 and 0 have any stride
        for position, at in enumerate(index):
            if at is not None:
                expression = axis(at) if isinstance(at, int) else at
                size = None if position == unit else self.size(steps[position])
                total = add(total, expression if size is None else mul(expression, size))
        return total

    def read(self, array: Array, *index: Expr | int | None) -> Expr:
        """A load of an element of ``array`` (one buffer argument per array)."""
        known = [n for n, a in enumerate(self.arrays) if a is array]
        buffer = known[0] if known else self.argument(array)
        return load(buffer, as_dtype(array.dtype), self.offset(buffer, *index))

    def reduce(self, op: str, expr: Expr, phase: int = 0) -> Expr:
        """A reduce stage; answers its value."""
        self.stages.append(Stage("reduce", "inner", expr, phase, op=op, result=len(self.stages)))
        return Expr("value", (), expr.dtype, len(self.stages) - 1)

    def let(self, expr: Expr, phase: int = 0) -> Expr:
        """A let stage; answers its value."""
        self.stages.append(Stage("let", "outer", expr, phase, result=len(self.stages)))
        return Expr("value", (), expr.dtype, len(self.stages) - 1)

    def store(
        self,
        array: Array,
        index: Sequence[Expr | int | None],
        expr: Expr,
        phase: int = 0,
        level: str = "inner",
    ) -> None:
        """A store stage."""
        buffer = self.argument(array, writes=True, reads=False)
        self.stages.append(
            Stage("store", level, expr, phase, buffer=buffer, offset=self.offset(buffer, *index))
        )

    def scatter(
        self,
        op: str,
        array: Array,
        index: Sequence[Expr | int | None],
        expr: Expr,
        condition: Expr | None = None,
    ) -> None:
        """A scatter stage."""
        buffer = self.argument(array, writes=True)
        offset = self.offset(buffer, *index)
        self.stages.append(
            Stage("scatter", "inner", expr, 0, op, buffer=buffer, offset=offset, condition=condition)
        )

    def kernel(self) -> Kernel:
        """The record."""
        stages, params = tuple(self.stages), tuple(self.params)
        return Kernel(
            self.outer, self.inner, params, len(self.sizes), tuple(self.dtypes), stages, serial=self.serial
        )


@lru_cache(maxsize=None)
def compiled(text: str) -> ctypes.CDLL:
    """``text`` as a loaded library."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.so"
        path.write_bytes(compiler.compile([text]))
        return ctypes.CDLL(str(path))


def run(nest: Nest, chunks: int = 1, vector_math: bool = True, machine: Machine = MACHINE) -> None:
    """Run the kernel on the arrays themselves, its units cut into ``chunks``."""
    text = emit(nest.kernel(), "kernel", machine, vector_math)
    library = compiled(text)
    function, units = library.kernel, library.kernel_units
    units.restype = ctypes.c_longlong
    grain = ctypes.c_longlong.in_dll(library, "kernel_grain").value
    buffers = (ctypes.c_void_p * max(1, len(nest.arrays)))(*(a.ctypes.data for a in nest.arrays))
    sizes = (ctypes.c_longlong * max(1, len(nest.sizes)))(*nest.sizes)
    scalars = (Scalar * max(1, len(nest.scalars)))()
    for slot, value, dtype in zip(scalars, nest.scalars, nest.dtypes, strict=False):
        setattr(slot, "f" if dtype.is_float else "i", value)
    count = units(sizes)
    borders = [0, *(min(count, count * k // chunks // grain * grain) for k in range(1, chunks)), count]
    for begin, end in zip(borders, borders[1:], strict=False):
        function(buffers, sizes, scalars, ctypes.c_longlong(begin), ctypes.c_longlong(end))


def oracle(nest: Nest) -> list[Array]:
    """What the arrays should hold after ``run``, floats computed in float64; call it before ``run``."""
    kernel = nest.kernel()
    memo: dict[Expr, Expr] = {}

    def lift(node: Expr) -> Expr:
        wide = float64 if node.dtype.is_float else node.dtype
        node = node if wide is node.dtype else Expr(node.op, node.args, wide, node.value)
        return cast(node.args[0], wide) if node.op == "cast" else node

    stages = tuple(
        Stage(
            s.kind, s.level, rewrite(s.expr, lift, memo), s.phase, s.op, s.result, s.buffer,
            s.offset if s.offset is None else rewrite(s.offset, lift, memo),
            s.condition if s.condition is None else rewrite(s.condition, lift, memo),
        )
        for s in kernel.stages
    )  # fmt: skip
    params = tuple(
        BufferParam(float64 if p.dtype.is_float else p.dtype, p.writes, p.reads) for p in kernel.buffers
    )
    dtypes = tuple(float64 if d.is_float else d for d in kernel.scalars)
    lifted = Kernel(kernel.outer, kernel.inner, params, kernel.sizes, dtypes, stages, serial=kernel.serial)
    backend = ReferenceBackend()
    handles = []
    for array, param in zip(nest.arrays, params, strict=True):
        handle = backend.alloc(max(1, array.base.nbytes if array.base is not None else array.nbytes) * 8)
        flat = numbers(flat_memory(array)).astype(param.dtype.numpy)
        backend.copy_in(handle, host_bytes(flat))
        handles.append(handle)
    loaded = backend.load(backend.compile([backend.emit(lifted, "kernel")]), {"kernel": lifted})["kernel"]
    slots = tuple(range(len(handles)))
    call = Call(slots, tuple(nest.sizes), tuple(range(len(nest.scalars))), 0)
    backend.launch(Step(lifted, loaded, (call,)), handles, nest.scalars)
    results = []
    for array, param, handle in zip(nest.arrays, params, handles, strict=True):
        flat = numbers(flat_memory(array)).astype(param.dtype.numpy)
        view = backend.host_view(handle, flat.nbytes).view(flat.dtype)
        strides = tuple(s // array.itemsize * flat.itemsize for s in array.strides)
        results.append(
            np.lib.stride_tricks.as_strided(view, array.shape, strides) if array.size else array.copy()
        )
    return results


def flat_memory(array: Array) -> Array:
    """All elements from the first of a view to its last, as one contiguous array (read only)."""
    if not array.size:
        return np.empty(0, array.dtype)
    last = sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)) // array.itemsize
    return np.lib.stride_tricks.as_strided(array, (last + 1,), (array.itemsize,))


def check(
    nest: Nest,
    chunks: int = 1,
    relative: float = 2e-6,
    absolute: float = 1e-6,
    vector_math: bool = True,
    machine: Machine = MACHINE,
) -> None:
    """Run, and compare every written array with the oracle (integers exactly)."""
    expected = oracle(nest)
    run(nest, chunks, vector_math, machine)
    for array, want, param in zip(nest.arrays, expected, nest.params, strict=True):
        if not param.writes:
            continue
        dtype = as_dtype(array.dtype)
        if dtype.is_float:
            np.testing.assert_allclose(
                numbers(array).astype(np.float64), dtype.convert(want), rtol=relative, atol=absolute
            )
        else:
            np.testing.assert_array_equal(array, want)


def guarded_array(n: int) -> Array:
    """``n`` float32 that end where memory that may not be touched begins."""
    page = mmap.PAGESIZE
    used = -(-4 * n // page) * page
    memory = mmap.mmap(-1, used + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(start + used), ctypes.c_size_t(page), 0) == 0
    array = np.frombuffer(memory, np.float32, n, used - 4 * n)
    array[...] = np.random.default_rng(n).standard_normal(n)
    return array
