"""Level "library": contractions, which a backend may hand to a library, in every layout and with every neighbour.

What it is: matrix products and convolutions, ready-made and written by hand in meta-operators, with their gradients,
against direct NumPy code.
What it is not: a requirement that there be a library.
Who calls it: ``suite``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ops.autograd import grad
from ...ops.linalg import matmul
from ...ops.meta import reduce_dims
from ...ops.neural.convolution import conv2d, conv_transpose
from ...ops.registry import Tensor
from ...ops.reindexing import reindex
from ...ops.scalar import maximum  # type: ignore[attr-defined]
from ...ops.shape import broadcast, transpose
from ..compare import Case, run
from ..kit import Kit, level
from ..strategies import array, dtypes_for

__all__ = [
    "test_convolution",
    "test_convolution_by_hand",
    "test_matmul",
    "test_matmul_dtypes",
    "test_matmul_with_neighbours",
]

Array = np.ndarray[Any, Any]

#: m, k, n: single, empty, odd, around powers of two, long and thin
SIZES = (
    (1, 1, 1),
    (2, 3, 4),
    (5, 1, 7),
    (1, 9, 1),
    (3, 0, 2),
    (0, 3, 2),
    (17, 16, 15),
    (33, 65, 31),
    (4, 130, 3),
    (64, 8, 70),
)


def _matrix(random: np.random.Generator, dtype: str, *shape: int) -> Array:
    return array(Tensor((), low=-2, high=2), dtype, shape, random)


def _last_two(a: Any) -> Any:
    return transpose(a, [*range(a.ndim - 2), a.ndim - 1, a.ndim - 2])


@level("library", cases=lambda: [("x".join(map(str, size)), size) for size in SIZES])
def test_matmul(conformance: Kit, case: tuple[int, int, int]) -> None:
    """Both operands plain and transposed, the result plain and transposed, one matrix and batches of them."""
    random = conformance.random("matmul", case)
    m, k, n = case
    cases = []
    for left, right, out in itertools.product((False, True), repeat=3):
        a = _matrix(random, "float32", *((k, m) if left else (m, k)))
        b = _matrix(random, "float32", *((n, k) if right else (k, n)))

        def device(x: Any, y: Any, flips: tuple[bool, bool, bool] = (left, right, out)) -> Any:
            z = matmul(transpose(x) if flips[0] else x, transpose(y) if flips[1] else y)
            return transpose(z) if flips[2] else z

        def host(x: Array, y: Array, flips: tuple[bool, bool, bool] = (left, right, out)) -> Array:
            z = (x.T if flips[0] else x) @ (y.T if flips[1] else y)
            return z.T if flips[2] else z

        cases.append(
            Case(
                "matmul", device, (a, b), {}, host, scale=True, script=f"# transposed: {left}, {right}, {out}"
            )
        )
    for head, tail in (((2,), (2,)), ((2,), (1,)), ((3, 1), (2,)), ((2,), ())):
        a, b = _matrix(random, "float32", *head, m, k), _matrix(random, "float32", *tail, k, n)
        cases.append(Case("matmul", matmul, (a, b), {}, np.matmul, scale=True))
        flipped = _matrix(random, "float32", *tail, n, k)
        cases.append(
            Case("matmul", lambda x, y: matmul(x, _last_two(y)), (a, flipped), {},
                 lambda x, y: np.matmul(x, np.swapaxes(y, -1, -2)), scale=True, script="# x0 @ transposed x1")
        )  # fmt: skip
    run(conformance, cases)


@level("library")
def test_matmul_dtypes(conformance: Kit) -> None:
    """Every number type; integers are exact and wrap around."""
    random = conformance.random("matmul dtypes")
    cases = []
    for dtype in dtypes_for("number", conformance):
        a, b = _matrix(random, dtype, 9, 20), _matrix(random, dtype, 20, 11)
        cases.append(Case("matmul", matmul, (a, b), {}, np.matmul, scale=True))
    run(conformance, cases)


@level("library")
def test_matmul_with_neighbours(conformance: Kit) -> None:
    """Operands that are computed, results that are computed with, numbers that are scaled with, chains."""
    random = conformance.random("matmul neighbours")
    x, w, v = (_matrix(random, "float32", *s) for s in ((19, 33), (33, 18), (18, 5)))
    bias = _matrix(random, "float32", 18)
    forms: tuple[tuple[str, Callable[..., Any], Callable[..., Any]], ...] = (
        (
            "bias, relu",
            lambda x, w, v, b: maximum(matmul(x, w) + b, 0.0),
            lambda x, w, v, b: np.maximum(x @ w + b, 0),
        ),
        (
            "scaled",
            lambda x, w, v, b: matmul(x * 2.0, w) * 0.5 - 1.0,
            lambda x, w, v, b: (x * 2) @ w * 0.5 - 1,
        ),
        ("chain", lambda x, w, v, b: matmul(matmul(x, w), v), lambda x, w, v, b: x @ w @ v),
        ("rows", lambda x, w, v, b: matmul(x, w).sum(1), lambda x, w, v, b: (x @ w).sum(1)),
        ("twice", lambda x, w, v, b: (matmul(x, w), matmul(x, w) + 1), lambda x, w, v, b: (x @ w, x @ w + 1)),
        ("gram", lambda x, w, v, b: matmul(x, transpose(x)), lambda x, w, v, b: x @ x.T),
        ("part", lambda x, w, v, b: matmul(x[2:9, ::3], w[::3]), lambda x, w, v, b: x[2:9, ::3] @ w[::3]),
    )
    run(
        conformance,
        [
            Case(f"matmul, {name}", f, (x, w, v, bias), {}, g, scale=True, script=f"# {name}")
            for name, f, g in forms
        ],
    )


# -- convolutions -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Window:
    """A two-dimensional convolution."""

    x: tuple[int, int, int, int]
    w: tuple[int, int, int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def out(self) -> tuple[int, int]:
        spans = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.w[2:], strict=True)]
        pairs = zip(self.x[2:], self.padding, spans, self.stride, strict=True)
        rows, columns = ((n + 2 * p - s) // t + 1 for n, p, s, t in pairs)
        return rows, columns


WINDOWS = {
    "1x1": Window((2, 3, 4, 5), (4, 3, 1, 1)),
    "3x3": Window((2, 3, 6, 7), (5, 3, 3, 3), padding=(1, 1)),
    "valid": Window((1, 2, 5, 5), (3, 2, 3, 3)),
    "stride": Window((2, 2, 9, 8), (3, 2, 3, 3), stride=(2, 2), padding=(1, 1)),
    "uneven": Window((1, 2, 8, 6), (3, 2, 2, 3), stride=(3, 1), padding=(1, 2)),
    "dilated": Window((1, 2, 9, 9), (2, 2, 3, 3), dilation=(2, 3), padding=(2, 1)),
    "everything": Window((2, 4, 10, 11), (6, 2, 3, 2), (2, 3), (2, 1), (2, 1), 2),
    "depthwise": Window((2, 4, 6, 6), (4, 1, 3, 3), padding=(1, 1), groups=4),
    "whole image": Window((2, 3, 4, 4), (5, 3, 4, 4)),
    "one channel": Window((1, 1, 12, 12), (8, 1, 5, 5), padding=(2, 2)),
}


def _taps(c: Window) -> Any:
    """Kernel positions, each with the slices of the padded image that it meets."""
    for r in range(c.w[2]):
        for s in range(c.w[3]):
            top, left = r * c.dilation[0], s * c.dilation[1]
            yield (
                (r, s),
                (
                    slice(top, top + (c.out[0] - 1) * c.stride[0] + 1, c.stride[0]),
                    slice(left, left + (c.out[1] - 1) * c.stride[1] + 1, c.stride[1]),
                ),
            )


def _padded(c: Window, x: Array) -> Array:
    return np.pad(x, ((0, 0), (0, 0), (c.padding[0],) * 2, (c.padding[1],) * 2))


def convolution(c: Window, x: Array, w: Array) -> Array:
    """The sum over taps, group by group."""
    padded, parts = _padded(c, x), []
    for xs, ws in zip(np.split(padded, c.groups, 1), np.split(w, c.groups, 0), strict=True):
        parts.append(sum(np.einsum("bchw,oc->bohw", xs[:, :, rows, columns], ws[:, :, r, s])
                         for (r, s), (rows, columns) in _taps(c)))  # fmt: skip
    return np.concatenate(parts, 1)


def adjoints(c: Window, x: Array, w: Array, g: Array) -> tuple[Array, Array]:
    """Gradients with respect to image and kernel for the upstream gradient ``g``."""
    padded = _padded(c, x)
    dx, dw = np.zeros_like(padded), np.zeros_like(w)
    inputs, outputs = x.shape[1] // c.groups, w.shape[0] // c.groups
    for k in range(c.groups):
        cs, os = slice(k * inputs, (k + 1) * inputs), slice(k * outputs, (k + 1) * outputs)
        for (r, s), (rows, columns) in _taps(c):
            dx[:, cs, rows, columns] += np.einsum("bohw,oc->bchw", g[:, os], w[os, :, r, s])
            dw[os, :, r, s] += np.einsum("bohw,bchw->oc", g[:, os], padded[:, cs, rows, columns])
    p, q = c.padding
    return dx[:, :, p : p + x.shape[2], q : q + x.shape[3]], dw


def by_hand(c: Window, x: Any, w: Any) -> Any:
    """What a user writes: windows by reindex, weights by broadcast, multiply, sum."""
    n, o, i, (h, v), (r, s) = c.x[0], c.w[0], c.w[1], c.out, c.w[2:]
    places = [f"i{2 + k}*{c.stride[k]}+i{5 + k}*{c.dilation[k]}-{c.padding[k]}" for k in (0, 1)]
    channel = "i4" if c.groups == 1 else f"i1/{o // c.groups}*{i}+i4"
    windows = reindex(x, [n, o, h, v, i, r, s], ["i0", channel, *places])
    weights = broadcast(transpose(w, [0, 1, 2, 3]), [n, o, h, v, i, r, s], [0, 2, 3])
    return reduce_dims(windows * weights, "add", (4, 5, 6))


def _with_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
    def run_all(x: Any, w: Any, g: Any) -> Any:
        y = function(x, w)
        return (y, *grad((y * g).sum(), [x, w]))

    return run_all


def _case(c: Window, kit: Kit, name: str, function: Callable[..., Any], script: str) -> Case:
    random = kit.random(name, c)
    x, w = _matrix(random, "float32", *c.x), _matrix(random, "float32", *c.w)
    g = _matrix(random, "float32", c.x[0], c.w[0], *c.out)
    return Case(name, _with_gradients(function), (x, w, g), {},
                lambda x, w, g: (convolution(c, x, w), *adjoints(c, x, w, g)), scale=True, script=script)  # fmt: skip


@level("library", cases=lambda: list(WINDOWS.items()))
def test_convolution(conformance: Kit, case: Window) -> None:
    """``conv2d`` and both its gradients, and the transposed convolution, which is one of them."""
    options = (case.stride, case.padding, case.dilation, case.groups)
    script = f"mf.nn.conv2d(x0, x1, None, *{options})"
    forward = _case(case, conformance, "conv2d", lambda x, w: conv2d(x, w, None, *options), script)
    random = conformance.random("conv_transpose", case)
    g = _matrix(random, "float32", case.x[0], case.w[0], *case.out)
    w = _matrix(random, "float32", *case.w)
    spans = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in zip(
        case.out, case.stride, case.padding, case.dilation, case.w[2:], strict=True)]  # fmt: skip
    extra = [n - span for n, span in zip(case.x[2:], spans, strict=True)]

    def backwards(g: Any, w: Any) -> Any:
        return conv_transpose(g, w, None, case.stride, case.padding, extra, case.groups, case.dilation)

    def expected(g: Array, w: Array) -> Array:
        return adjoints(case, np.zeros(case.x), w, g)[0]

    run(
        conformance,
        [
            forward,
            Case("conv_transpose", backwards, (g, w), {}, expected, scale=True, script="# conv_transpose"),
        ],
    )


@level("library", cases=lambda: list(WINDOWS.items()))
def test_convolution_by_hand(conformance: Kit, case: Window) -> None:
    """The same as meta-operators that a user puts together, with the gradients that follow from them."""
    script = "# reindex, broadcast, multiply, sum"
    run(conformance, [_case(case, conformance, "by hand", lambda x, w: by_hand(case, x, w), script)])
