"""Contractions as descriptions and as NumPy: what the tests of library operations share.

What it is: ``Case``, which lays arrays out in a backend's memory by any order of dimensions, runs one ``LibraryOp`` on them and
compares with ``metafuse.testing.library``. What it is not: a use of oneDNN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from metafuse.backend.contract import host_bytes
from metafuse.backend.library import LibraryCall, LibraryOp, Operand, PostOp
from metafuse.dtypes import DType, float32, float64
from metafuse.testing.library import contraction, post_operation, strided

#: largest relative error of a rounding, and a little more
EPSILON = {"float32": 0.0, "bfloat16": 2.0**-8, "float16": 2.0**-10}


ONES, TWOS = ((1, 1), (1, 1)), ((2, 2), (2, 2))


def channels_last(rank: int) -> tuple[int, ...]:
    """The order of dimensions from slowest to fastest."""
    return (0, *range(2, rank), 1)


def laid_out(shape: tuple[int, ...], order: tuple[int, ...] | None = None) -> Operand:
    """A dense operand whose dimensions lie in ``order``, slowest first."""
    strides, step = [0] * len(shape), 1
    for d in reversed(order or range(len(shape))):
        strides[d] = step
        step *= shape[d]
    return Operand(float32, tuple(shape), tuple(strides))


def reach(operand: Operand) -> int:
    """Elements from the first to the last, inclusive."""
    return 1 + sum((n - 1) * s for n, s in zip(operand.shape, operand.strides, strict=True))


def convolution(
    kind: str,
    image: tuple[int, ...],
    weight: tuple[int, ...],
    *,
    groups: int = 1,
    stride: tuple[int, ...] | None = None,
    dilation: tuple[int, ...] | None = None,
    padding: tuple[tuple[int, int], ...] | None = None,
    last: bool = True,
    **more,
) -> LibraryOp:
    """A convolution of any kind from the shapes of image and weight; images are channels last or dense as they stand."""
    spatial = len(image) - 2
    stride, dilation = stride or (1,) * spatial, dilation or (1,) * spatial
    padding = padding or ((0, 0),) * spatial
    out = tuple(
        (n + b + a - (k - 1) * d - 1) // s + 1
        for n, k, s, d, (b, a) in zip(image[2:], weight[2:], stride, dilation, padding, strict=True)
    )
    order = channels_last(len(image)) if last else None
    x, w, y = laid_out(image, order), laid_out(weight), laid_out((image[0], weight[0], *out), order)
    parties = {
        "convolution": (x, w, y),
        "convolution_data": (y, w, x),
        "convolution_weight": (x, y, w),
    }[kind]
    return LibraryOp(kind, *parties, groups, stride, dilation, padding, **more)


def matmul(first: Operand, second: Operand, result: Operand | None = None, **more) -> LibraryOp:
    """A product; the result is dense unless given."""
    batch = np.broadcast_shapes(first.shape[:-2], second.shape[:-2])
    return LibraryOp(
        "matmul", first, second, result or laid_out((*batch, first.shape[-2], second.shape[-1])), **more
    )


@dataclass
class Case:
    """One operation with its buffers in the backend's memory."""

    backend: object
    op: LibraryOp
    seed: int = 0
    handles: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        op, random = self.op, np.random.default_rng(self.seed)
        views = [op.first, op.second, op.result]
        if op.scale:
            axis = 0 if op.kind != "matmul" else -1
            views.append(laid_out((op.second.shape[axis],)))
        views += op.operands
        self.views = views
        self.buffers = [view.dtype.convert(random.standard_normal(reach(view))) for view in views]
        # What the result's buffer holds before must not matter, not even NaN.
        self.buffers[2][:] = np.nan
        sizes = [reach(view) * view.dtype.itemsize for view in views]
        self.handles = [self.backend.alloc(size) for size in sizes]
        for k in range(len(self.buffers)):
            self.upload(k)
        self.plan = self.backend.library_plan(op)
        self.scratch = -1
        if self.plan is not None and self.plan.scratch_bytes:
            self.scratch = len(self.handles)
            self.handles.append(self.backend.alloc(self.plan.scratch_bytes))

    @property
    def call(self) -> LibraryCall:
        assert self.plan is not None, f"refused: {self.op}"
        return LibraryCall(self.op, self.plan, tuple(range(len(self.buffers))), self.scratch)

    def upload(self, number: int) -> None:
        bits = self.views[number].dtype.encode(self.buffers[number])
        self.backend.copy_in(self.handles[number], host_bytes(bits))

    def result(self) -> np.ndarray:
        dtype = self.op.result.dtype
        bits = np.empty(reach(self.op.result), dtype.storage)
        self.backend.copy_out(host_bytes(bits), self.handles[2])
        return strided(dtype.decode(bits), self.op.result)

    def run(self, changed: bool = True) -> np.ndarray:
        self.backend.launch_library(self.call, self.handles, changed)
        return self.result()

    def expected(self, computed: DType = float64) -> np.ndarray:
        """The result in float64; ``computed``: a type to which factors are rounded first."""
        op = self.op
        first, second, _, *rest = (strided(b, v) for b, v in zip(self.buffers, self.views, strict=True))
        if op.scale:
            scale, *rest = rest
            shape = (-1, *[1] * (second.ndim - 1)) if op.kind != "matmul" else (-1,)
            second = second * scale.astype(np.float64).reshape(shape)
        first, second = computed.convert(first), computed.convert(second)
        value = contraction(op, first, second)
        for post in op.post:
            value = post_operation(value, post, rest[post.operand] if post.operand >= 0 else None)
        return value

    def check(
        self, changed: bool = True, tolerance: float = 2e-5, computed: DType = float64, rounded: int = 1
    ) -> None:
        """Runs and compares; errors are measured against the size of the sums, beside those of ``rounded`` roundings to
        the type of the result."""
        got, wanted = self.run(changed), self.expected(computed)
        assert got.shape == wanted.shape
        sums = tolerance * max(1.0, float(np.abs(wanted).max()))
        bound = sums + rounded * EPSILON[self.op.result.dtype.name] * np.abs(wanted)
        worst = np.unravel_index(np.argmax(np.abs(got - wanted) - bound), got.shape)
        assert np.abs(got - wanted)[worst] <= bound[worst], (got[worst], wanted[worst], self.plan.about)

    def free(self) -> None:
        for handle in self.handles:
            self.backend.free(handle)


def cases(backend) -> Iterator[Callable[..., Case]]:
    """For a fixture: makes cases that are freed at the end."""
    made: list[Case] = []

    def make(op: LibraryOp, seed: int = 0) -> Case:
        made.append(Case(backend, op, seed))
        return made[-1]

    yield make
    for one in made:
        one.free()


def in_dtypes(
    op: LibraryOp, first: DType, second: DType, result: DType, operand: DType = float32
) -> LibraryOp:
    """``op`` with other element types."""
    parties = zip(("first", "second", "result"), (first, second, result), strict=True)
    changed = {name: replace(getattr(op, name), dtype=dtype) for name, dtype in parties}
    return replace(op, **changed, operands=tuple(replace(one, dtype=operand) for one in op.operands))


def with_posts(op: LibraryOp, *posts: tuple[PostOp, Operand | None]) -> LibraryOp:
    """``op`` with post-operations and their operands."""
    for post, operand in posts:
        if operand is not None:
            post = replace(post, operand=len(op.operands))
            op = replace(op, operands=(*op.operands, operand))
        op = replace(op, post=(*op.post, post))
    return op


BASES = {
    "3x3": convolution("convolution", (2, 16, 9, 9), (32, 16, 3, 3), padding=ONES),
    "1x1": convolution("convolution", (2, 16, 9, 9), (24, 16, 1, 1)),
    "channels first": convolution("convolution", (2, 16, 9, 9), (32, 16, 3, 3), last=False),
    "depthwise": convolution("convolution", (2, 16, 9, 9), (16, 1, 3, 3), groups=16, padding=ONES),
    "grouped": convolution("convolution", (2, 16, 9, 9), (32, 8, 3, 3), groups=2),
    "matrix": matmul(laid_out((33, 40)), laid_out((40, 29))),
    "packed matrix": matmul(laid_out((33, 40)), laid_out((40, 29)), constant=True),
    "batches": matmul(laid_out((2, 3, 17, 20)), laid_out((2, 3, 20, 9))),
}


def operands(op: LibraryOp) -> dict[str, Operand]:
    """Operands that are fused: along the channels or columns, a number, everything."""
    rank, extents = len(op.result.shape), op.result.shape
    axis = 1 if op.kind != "matmul" else rank - 1
    ones = [1] * rank
    ones[axis] = extents[axis]
    zeros = [0] * rank
    zeros[axis] = 1
    return {
        "vector": laid_out(tuple(ones)),
        "vector by strides": Operand(float32, extents, tuple(zeros)),
        "number": laid_out((1,) * rank),
        "full": op.result,
    }
