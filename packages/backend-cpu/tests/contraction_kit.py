"""Contraction kernels by hand: the IR of matmul and of the three products of a convolution, compiled and run.

What it is: helpers of ``test_contraction``. ``Product`` writes down one contraction with its run-time arguments; ``launch``
compiles it and calls its units from two threads; ``matmul`` and the ``conv_`` functions make the usual ones.
What it is not: a test, or the way the runtime calls kernels.
Who calls it: ``test_contraction``.
"""

from __future__ import annotations

import ctypes
import itertools
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from codegen_kit import MACHINE, Array, Nest, Scalar
from metafuse.backend.contract import Machine
from metafuse.dtypes import DType, as_dtype, float32, int64
from metafuse.kernel.expr import Expr, add, axis, call, cast, const, load, mul
from metafuse.kernel.ir import Contraction, DimIndex, Kernel, Operand
from metafuse_backend_cpu import compiler, contraction_library
from metafuse_backend_cpu.contraction import emit
from metafuse_backend_cpu.dialect import LIBRARY_MARKER


@dataclass(frozen=True)
class Dim:
    """One dimension of an operand: ``(sum(terms[axis] * axis) + constant) / divisor``."""

    terms: dict[str, int]
    constant: int | None = None
    divisor: int | None = None
    guarded: bool = False


def plain(names: str) -> list[Dim]:
    """Dimensions indexed by one axis each."""
    return [Dim({name: 1}) for name in names]


Epilogue = Callable[["Product", Expr], Expr]


class Product(Nest):
    """A contraction with one-letter axes.

    Args:
        roles: the role of every axis, one of ``b m n k``, those of ``k`` last.
        extents: the extent of every axis, in the same order.
        a, b: the operands, with their dimensions.
        out: the result, indexed by ``result`` (axis names in the order of its dimensions).
        dtype: the type of the sum.
        epilogue: makes the stored expression from the sum's value.
    """

    def __init__(
        self, roles: dict[str, str], extents: dict[str, int], a: tuple[Array, Sequence[Dim]], b: tuple[Array, Sequence[Dim]],
        out: Array, result: str, dtype: DType = float32, epilogue: Epilogue | None = None,
    ) -> None:  # fmt: skip
        inner = sum(role == "k" for role in roles.values())
        lengths = [extents[name] for name in roles]
        super().__init__(lengths[: len(roles) - inner], lengths[len(roles) - inner :])
        self.axes = {name: number for number, name in enumerate(roles)}
        left, first = self.operand(*a, dtype)
        right, second = self.operand(*b, dtype)
        self.out = out
        value = self.reduce("add", call("mul", first, second))
        value = epilogue(self, value) if epilogue else value
        self.store(out, self.at(result), cast(value, as_dtype(out.dtype)), level="outer")
        groups = [tuple(self.axes[name] for name in roles if roles[name] == role) for role in "bmnk"]
        self.contraction = Contraction(*groups, left, right)

    def at(self, names: str) -> list[int]:
        """Axis numbers by name."""
        return [self.axes[name] for name in names]

    def operand(self, array: Array, dims: Sequence[Dim], dtype: DType) -> tuple[Operand, Expr]:
        """The operand's record, and the same as a plain load."""
        buffer, indices, offset, condition = self.argument(array), [], const(0), None
        for dim, extent, stride in zip(dims, array.shape, array.strides, strict=True):
            index = DimIndex(
                tuple((self.axes[name], self.slot(value)) for name, value in dim.terms.items()),
                None if dim.constant is None else self.slot(dim.constant),
                None if dim.divisor is None else self.slot(dim.divisor),
                dim.guarded, self.slot(extent), self.slot(stride // array.itemsize),
            )  # fmt: skip
            place, tests = position(index)
            for test in tests:
                condition = test if condition is None else call("and", condition, test)
            offset = add(offset, mul(place, slot(index.stride)))
            indices.append(index)
        kind = as_dtype(array.dtype)
        guard = () if condition is None else (condition, const(0, kind))
        return Operand(buffer, tuple(indices)), cast(load(buffer, kind, offset, *guard), dtype)

    def offset(self, buffer: int, *index: Expr | int | None) -> Expr:
        """The flat offset of an element; every stride is a run-time size, so that one text serves all layouts."""
        array, total = self.arrays[buffer], const(0)
        for at, stride in zip(index, array.strides, strict=True):
            if at is not None:
                place = axis(at) if isinstance(at, int) else at
                total = add(total, mul(place, self.size(stride // array.itemsize)))
        return total

    def slot(self, value: int) -> int:
        """The number of a new run-time size."""
        return int(self.size(value).value)

    def kernel(self) -> Kernel:
        return replace(super().kernel(), contraction=self.contraction)


def slot(number: int) -> Expr:
    return Expr("size", (), int64, number)


def position(index: DimIndex) -> tuple[Expr, list[Expr]]:
    """The position along one dimension and the conditions under which it exists, as the record's docstring says."""
    place, tests = const(0), []
    for number, coefficient in index.coefficients:
        place = add(place, mul(axis(number), slot(coefficient)))
    if index.constant is not None:
        place = add(place, slot(index.constant))
    if index.divisor is not None:
        tests.append(call("eq", call("mod", place, slot(index.divisor)), const(0)))
        place = call("floordiv", place, slot(index.divisor))
    if index.guarded:
        tests += [call("ge", place, const(0)), call("lt", place, slot(index.extent))]
    return place, tests


@lru_cache(maxsize=None)
def library(text: str, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """``text`` and the library that it uses, compiled with additional ``flags`` and loaded."""
    known = compiler.toolchain()
    if text.startswith(LIBRARY_MARKER):
        text = contraction_library.source(text.partition("\n")[0].removeprefix(LIBRARY_MARKER)) + text
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder) / "product.cpp", Path(folder) / "product.so"
        source.write_text(text)
        command = [*known.command, str(source), "-o", str(binary), *known.kernel_arguments(), *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return ctypes.CDLL(str(binary))


def launch(
    product: Product, machine: Machine = MACHINE, flags: tuple[str, ...] = (), threads: int = 2
) -> int:
    """Run all units on ``threads`` threads; answers their number."""
    text = emit(product.kernel(), "product", machine, compiler.vector_math())
    assert text is not None, "declined"
    return run(product, library(text, flags), "product", threads)


def run(product: Product, module: ctypes.CDLL, symbol: str, threads: int = 2) -> int:
    """Run all units of a kernel of ``module``; answers their number."""
    kernel, count = getattr(module, symbol), getattr(module, f"{symbol}_units")
    pointers = (ctypes.c_void_p * len(product.arrays))(*(array.ctypes.data for array in product.arrays))
    numbers = (ctypes.c_longlong * len(product.sizes))(*product.sizes)
    scalars = (Scalar * max(len(product.scalars), 1))(*(Scalar(f=value) for value in product.scalars))
    count.restype = ctypes.c_longlong
    units = int(count(numbers))

    def part(begin: int, end: int) -> None:
        kernel(pointers, numbers, scalars, ctypes.c_longlong(begin), ctypes.c_longlong(end))

    cuts = [units * i // threads for i in range(threads + 1)]
    workers = [threading.Thread(target=part, args=pair) for pair in itertools.pairwise(cuts)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return units


# -- the usual products -----------------------------------------------------------------------------------------------
def matmul(a: Array, b: Array, out: Array, **more: Any) -> Product:
    """``out[..., m, n] = a[..., m, k] @ b[..., k, n]`` with any strides; leading axes are in all three."""
    batch = "uvw"[: out.ndim - 2]
    roles = dict.fromkeys(batch, "b") | {"m": "m", "n": "n", "k": "k"}
    extents = dict(zip(batch + "mn", out.shape, strict=True)) | {"k": a.shape[-1]}
    return Product(
        roles, extents, (a, plain(batch + "mk")), (b, plain(batch + "kn")), out, batch + "mn", **more
    )


@dataclass(frozen=True)
class Window:
    """How a convolution slides over both spatial dimensions."""

    stride: int = 1
    padding: int = 0
    dilation: int = 1

    def count(self, size: int, kernel: int) -> int:
        """The number of windows along a dimension."""
        return max((size + 2 * self.padding - self.dilation * (kernel - 1) - 1) // self.stride + 1, 0)

    def slides(self) -> list[Dim]:
        return [Dim({p: self.stride, r: self.dilation}, -self.padding, None, True) for p, r in ("PR", "QS")]


def conv_forward(x: Array, w: Array, y: Array, window: Window, **more: Any) -> Product:
    """``y`` (N, G, O, P, Q) from ``x`` (N, G, C, H, W) and ``w`` (G, O, C, R, S)."""
    extents = dict(zip("NGOPQ", y.shape, strict=True)) | dict(zip("CRS", w.shape[2:], strict=True))
    roles = dict(zip("NGOPQCRS", "mbnmmkkk", strict=True))
    return Product(
        roles, extents, (x, plain("NGC") + window.slides()), (w, plain("GOCRS")), y, "NGOPQ", **more
    )


def conv_data(dy: Array, w: Array, dx: Array, window: Window, **more: Any) -> Product:
    """The gradient of ``x``: every element gathers from the windows that read it."""
    extents = dict(zip("NGCHW", dx.shape, strict=True)) | dict(
        zip("ORS", (w.shape[1], *w.shape[3:]), strict=True)
    )
    roles = dict(zip("NGCHWORS", "mbnmmkkk", strict=True))
    back = [Dim({h: 1, r: -window.dilation}, window.padding, window.stride, True) for h, r in ("HR", "WS")]
    return Product(roles, extents, (dy, plain("NGO") + back), (w, plain("GOCRS")), dx, "NGCHW", **more)


def conv_weight(dy: Array, x: Array, dw: Array, window: Window, **more: Any) -> Product:
    """The gradient of ``w``: a sum over all windows."""
    extents = dict(zip("GOCRS", dw.shape, strict=True)) | dict(
        zip("NPQ", (dy.shape[0], *dy.shape[3:]), strict=True)
    )
    roles = dict(zip("GOCRSNPQ", "bmnnnkkk", strict=True))
    return Product(
        roles, extents, (dy, plain("NGOPQ")), (x, plain("NGC") + window.slides()), dw, "GOCRS", **more
    )
