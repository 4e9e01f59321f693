"""Contraction kernels by hand: the IR of matmul and the three convolution products, compiled and run without a runtime.

What it is: helpers of ``test_contraction``. ``Product`` writes down one contraction with its run-time sizes; ``run``
compiles a kernel with the host's g++ and calls its units from two threads.
What it is not: a test, or the way the backend compiles.
Who calls it: ``test_contraction``.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from metafuse.backend.contract import Machine
from metafuse.dtypes import DType, as_dtype, int64
from metafuse.kernel.expr import Expr, add, axis, call, cast, const, load, mul
from metafuse.kernel.ir import BufferParam, Contraction, DimIndex, Kernel, Operand, Stage
from metafuse_backend_cpu.contraction import emit

FLAGS = "-O3 -fno-math-errno -fno-trapping-math -march=native -mprefer-vector-width=512 -fopenmp-simd -fPIC -shared".split()
Array = np.ndarray[Any, Any]


@dataclass
class Dim:
    """One dimension of an operand: ``(sum(terms[axis] * axis) + constant) / divisor``."""

    terms: dict[str, int]
    constant: int | None = None
    divisor: int | None = None
    guarded: bool = False


@dataclass
class Product:
    """A contraction with named axes. ``roles``: axis name -> one of ``b m n k``, k last; ``extents`` in the same order.

    ``result``: the axes of the output array in memory order. ``epilogue`` makes the stored expression of the sum and of
    ``extra``, a list of (array, axes it is indexed by).
    """

    roles: dict[str, str]
    extents: dict[str, int]
    a: Sequence[Dim]
    b: Sequence[Dim]
    result: Sequence[str]
    dtype: DType = field(default_factory=lambda: as_dtype("float32"))
    out_dtype: DType | None = None
    extra: Sequence[tuple[Array, Sequence[str]]] = ()
    epilogue: Callable[[Expr, list[Expr]], Expr] = lambda value, extra: value
    scalars: Sequence[float] = ()

    def __post_init__(self) -> None:
        self.sizes: list[int] = list(self.extents.values())
        self.number = {name: i for i, name in enumerate(self.extents)}

    def slot(self, value: int) -> int:
        """A new run-time size."""
        self.sizes.append(int(value))
        return len(self.sizes) - 1

    def operand(self, buffer: int, array: Array, dims: Sequence[Dim]) -> tuple[Operand, Expr]:
        """The operand's record and the same as a plain load."""
        indices, offset, tests = [], const(0), []
        for dim, extent, stride in zip(dims, array.shape, elements(array), strict=True):
            index = DimIndex(
                tuple((self.number[name], self.slot(c)) for name, c in dim.terms.items()),
                None if dim.constant is None else self.slot(dim.constant),
                None if dim.divisor is None else self.slot(dim.divisor),
                dim.guarded,
                self.slot(extent),
                self.slot(stride),
            )
            place, conditions = position(index)
            tests += conditions
            offset = add(offset, mul(place, size(index.stride)))
            indices.append(index)
        condition = None
        for test in tests:
            condition = test if condition is None else call("and", condition, test)
        dtype = as_dtype(array.dtype)
        guard = () if condition is None else (condition, const(0, dtype))
        return Operand(buffer, tuple(indices)), cast(load(buffer, dtype, offset, *guard), self.dtype)

    def offset(self, array: Array, axes: Sequence[str]) -> Expr:
        """The offset of the element of ``array`` at ``axes``."""
        total = const(0)
        for name, stride in zip(axes, elements(array), strict=True):
            total = add(total, mul(axis(self.number[name]), size(self.slot(stride))))
        return total

    def kernel(self, a: Array, b: Array, out: Array) -> Kernel:
        """The kernel; buffers are a, b, out, then the extras."""
        left, first = self.operand(0, a, self.a)
        right, second = self.operand(1, b, self.b)
        reads = [
            load(3 + i, as_dtype(array.dtype), self.offset(array, axes)) for i, (array, axes) in enumerate(self.extra)
        ]
        value = self.epilogue(Expr("value", (), self.dtype, 0), reads)
        stages = (
            Stage("reduce", "inner", mul_floating(first, second), 0, op="add", result=0),
            Stage("store", "outer", cast(value, as_dtype(out.dtype)), 0, buffer=2, offset=self.offset(out, self.result)),
        )
        roles = {role: tuple(self.number[n] for n, r in self.roles.items() if r == role) for role in "bmnk"}
        buffers = [BufferParam(as_dtype(x.dtype)) for x in (a, b)]
        buffers += [BufferParam(as_dtype(out.dtype), writes=True, reads=False)]
        buffers += [BufferParam(as_dtype(x.dtype)) for x, _ in self.extra]
        outer = sum(role != "k" for role in self.roles.values())
        return Kernel(
            outer, len(self.roles) - outer, tuple(buffers), len(self.sizes), tuple(as_dtype("float32") for _ in self.scalars),
            stages, Contraction(roles["b"], roles["m"], roles["n"], roles["k"], left, right),
        )  # fmt: skip


def mul_floating(a: Expr, b: Expr) -> Expr:
    return Expr("mul", (a, b), a.dtype)


def size(slot: int) -> Expr:
    return Expr("size", (), int64, slot)


def elements(array: Array) -> list[int]:
    return [stride // array.itemsize for stride in array.strides]


def position(index: DimIndex) -> tuple[Expr, list[Expr]]:
    """The position along one dimension and the conditions under which it exists."""
    place = const(0)
    for number, slot in index.coefficients:
        place = add(place, mul(axis(number), size(slot)))
    if index.constant is not None:
        place = add(place, size(index.constant))
    tests = []
    if index.divisor is not None:
        tests.append(call("eq", call("mod", place, size(index.divisor)), const(0)))
        place = call("floordiv", place, size(index.divisor))
    if index.guarded:
        tests += [call("ge", place, const(0)), call("lt", place, size(index.extent))]
    return place, tests


class _Scalar(ctypes.Union):
    _fields_ = (("f", ctypes.c_double), ("i", ctypes.c_longlong))


@lru_cache(maxsize=None)
def build(kernel: Kernel, machine: Machine, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """Compile and load a kernel under the symbol ``product``."""
    text = emit(kernel, "product", machine)
    assert text is not None, "declined"
    folder = Path(tempfile.mkdtemp(prefix="metafuse-test-"))
    (folder / "product.cpp").write_text(text)
    command = ["g++", *FLAGS, *flags, str(folder / "product.cpp"), "-o", str(folder / "product.so"), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(folder / "product.so"))


def run(kernel: Kernel, sizes: Sequence[int], buffers: Sequence[Array], machine: Machine, scalars: Sequence[float] = (),
        flags: tuple[str, ...] = (), threads: int = 2) -> int:  # fmt: skip
    """Run all units of a kernel on ``threads`` threads; answers their number."""
    library = build(kernel, machine, flags)
    pointers = (ctypes.c_void_p * len(buffers))(*(x.ctypes.data for x in buffers))
    numbers = (ctypes.c_longlong * len(sizes))(*sizes)
    table = (_Scalar * max(len(scalars), 1))(*(_Scalar(f=x) for x in scalars))
    library.product_units.restype = ctypes.c_longlong
    units = int(library.product_units(numbers))

    def part(begin: int, end: int) -> None:
        library.product(pointers, numbers, table, ctypes.c_longlong(begin), ctypes.c_longlong(end))

    cuts = [units * i // threads for i in range(threads + 1)]
    workers = [threading.Thread(target=part, args=pair) for pair in zip(cuts[1:], cuts[2:], strict=False)]
    for worker in workers:
        worker.start()
    part(0, cuts[1])
    for worker in workers:
        worker.join()
    return units


# -- the usual products -----------------------------------------------------------------------------------------------
def matmul(a: Array, b: Array, out: Array, **more: Any) -> Product:
    """``out[..., m, n] = a[..., m, k] @ b[..., k, n]``, any strides; the batch axes of ``out`` are in both."""
    batch = {f"b{i}": extent for i, extent in enumerate(out.shape[:-2])}
    roles = {**{name: "b" for name in batch}, "m": "m", "n": "n", "k": "k"}
    extents = {**batch, "m": out.shape[-2], "n": out.shape[-1], "k": a.shape[-1]}
    lead = [Dim({name: 1}) for name in batch]
    return Product(
        roles, extents, [*lead, Dim({"m": 1}), Dim({"k": 1})], [*lead, Dim({"k": 1}), Dim({"n": 1})], [*batch, "m", "n"], **more
    )


def conv_forward(x: Array, w: Array, y: Array, stride: int, padding: int, dilation: int, groups: int = 1, **more: Any) -> Product:
    """``y`` from ``x`` (N, G, C, H, W), ``w`` (G, O, C, R, S), with ``y`` (N, G, O, P, Q)."""
    extents = dict(zip("NGOPQ", y.shape, strict=True)) | dict(zip("CRS", w.shape[2:], strict=True))
    roles = dict(zip("NGOPQCRS", "mbnmmkkk", strict=True))
    return Product(
        roles, extents,
        [Dim({"N": 1}), Dim({"G": 1}), Dim({"C": 1}), *(slide(p, r, stride, padding, dilation) for p, r in ("PR", "QS"))],
        [Dim({name: 1}) for name in "GOCRS"], list("NGOPQ"), **more,
    )  # fmt: skip


def slide(p: str, r: str, stride: int, padding: int, dilation: int) -> Dim:
    return Dim({p: stride, r: dilation}, -padding, None, True)


def conv_data(dy: Array, w: Array, dx: Array, stride: int, padding: int, dilation: int, **more: Any) -> Product:
    """The gradient of ``x``: every element gathers the windows that read it."""
    extents = dict(zip("NGCHW", dx.shape, strict=True)) | {"O": w.shape[1], "R": w.shape[3], "S": w.shape[4]}
    roles = dict(zip("NGCHWORS", "mbnmmkkk", strict=True))
    back = [Dim({h: 1, r: -dilation}, padding, stride, True) for h, r in ("HR", "WS")]
    return Product(
        roles, extents, [Dim({"N": 1}), Dim({"G": 1}), Dim({"O": 1}), *back], [Dim({name: 1}) for name in "GOCRS"],
        list("NGCHW"), **more,
    )  # fmt: skip


def conv_weight(dy: Array, x: Array, dw: Array, stride: int, padding: int, dilation: int, **more: Any) -> Product:
    """The gradient of ``w``: a sum over all windows."""
    extents = dict(zip("GOCRS", dw.shape, strict=True)) | {"N": dy.shape[0], "P": dy.shape[3], "Q": dy.shape[4]}
    roles = dict(zip("GOCRSNPQ", "bmnnnkkk", strict=True))
    return Product(
        roles, extents, [Dim({name: 1}) for name in "NGOPQ"],
        [Dim({"N": 1}), Dim({"G": 1}), Dim({"C": 1}), *(slide(p, r, stride, padding, dilation) for p, r in ("PR", "QS"))],
        list("GOCRS"), **more,
    )  # fmt: skip
