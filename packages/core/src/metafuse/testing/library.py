"""What a library operation means: ``LibraryOp`` computed by NumPy in float64.

What it is: the oracle for backends that hand contractions to a library: loops over window positions and einsum, then the
post-operations one by one.
What it is not: a backend, or fast.
Who calls it: tests of backends with ``SupportsLibraryOps``, and of the passes that describe operations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from ..backend.library import LibraryOp, Operand, PostOp

__all__ = ["contraction", "post_operation", "strided"]

Array = np.ndarray[Any, Any]
_EVERY: tuple[Any, ...] = (slice(None),) * 2  # batch and channels
_GROUPED: tuple[Any, ...] = (slice(None),) * 3  # batch, groups and channels of a group


def strided(buffer: Array, operand: Operand) -> Array:
    """The view of a flat array that an operand describes; it must lie within the array.

    Example:
        >>> import numpy as np
        >>> from metafuse.dtypes import float32
        >>> strided(np.arange(6.0), Operand(float32, (2, 3), (1, 2)))
        array([[0., 2., 4.],
               [1., 3., 5.]])
    """
    reach = sum((n - 1) * s for n, s in zip(operand.shape, operand.strides, strict=True))
    assert all(s >= 0 for s in operand.strides) and reach < buffer.size, (operand, buffer.size)
    steps = [s * buffer.itemsize for s in operand.strides]
    return np.lib.stride_tricks.as_strided(buffer, operand.shape, steps)


def contraction(op: LibraryOp, first: Array, second: Array) -> Array:
    """``op`` without scale and post-operations, in float64, from arrays of its operands' shapes."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    if op.kind == "matmul":
        return np.broadcast_to(first @ second, op.result.shape)
    return {"convolution": _forward, "convolution_data": _data, "convolution_weight": _weight}[op.kind](
        op, first, second
    )


def _forward(op: LibraryOp, first: Array, second: Array) -> Array:
    image, weight = _split(_padded(first, op.padding), 1, op.groups), _split(second, 0, op.groups)
    out = np.zeros(op.result.shape)
    for tap, window in _windows(op, second.shape[2:], op.result.shape[2:]):
        x, w = image[_GROUPED + window], weight[_GROUPED + tap]
        out += np.einsum("ngc...,goc->ngo...", x, w).reshape(out.shape)
    return out


def _data(op: LibraryOp, first: Array, second: Array) -> Array:
    gradient, weight = _split(first, 1, op.groups), _split(second, 0, op.groups)
    spatial = [n + b + a for n, (b, a) in zip(op.result.shape[2:], op.padding, strict=True)]
    image = np.zeros((*op.result.shape[:2], *spatial))
    for tap, window in _windows(op, second.shape[2:], first.shape[2:]):
        made = np.einsum("ngo...,goc->ngc...", gradient, weight[_GROUPED + tap])
        image[_EVERY + window] += made.reshape(*op.result.shape[:2], *first.shape[2:])
    return _padded(image, tuple((-b, -a) for b, a in op.padding))


def _weight(op: LibraryOp, first: Array, second: Array) -> Array:
    image, gradient = _split(_padded(first, op.padding), 1, op.groups), _split(second, 1, op.groups)
    out = np.zeros(op.result.shape)
    letters = "xyz"[: len(op.stride)]
    for tap, window in _windows(op, op.result.shape[2:], second.shape[2:]):
        x = image[_GROUPED + window]
        made = np.einsum(f"ngc{letters},ngo{letters}->goc", x, gradient)
        out[_EVERY + tap] = made.reshape(op.result.shape[:2])
    return out


def _split(array: Array, axis: int, groups: int) -> Array:
    shape = array.shape
    return array.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])


def _padded(image: Array, padding: tuple[tuple[int, int], ...]) -> Array:
    """Zeros around the spatial dimensions; a negative padding crops."""
    image = np.pad(image, [(0, 0), (0, 0), *[(max(b, 0), max(a, 0)) for b, a in padding]])
    crop = [slice(max(-b, 0), n - max(-a, 0)) for (b, a), n in zip(padding, image.shape[2:], strict=True)]
    return image[_EVERY + tuple(crop)]


def _windows(
    op: LibraryOp, kernel: tuple[int, ...], spatial: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """(position in the kernel, slices of the padded image that meet it at every output point)."""
    for tap in product(*map(range, kernel)):
        yield (
            tap,
            tuple(
                slice(p * d, p * d + (n - 1) * s + 1, s)
                for p, d, s, n in zip(tap, op.dilation, op.stride, spatial, strict=True)
            ),
        )


def post_operation(v: Array, post: PostOp, operand: Array | None) -> Array:
    """One post-operation on the value ``v``; ``operand`` where it has one."""
    a, b, w = post.alpha, post.beta, operand
    meaning: dict[str, Any] = {
        "add": lambda: v + w,
        "sub": lambda: v - w,
        "mul": lambda: v * w,
        "max": lambda: np.maximum(v, w),  # type: ignore[arg-type]
        "min": lambda: np.minimum(v, w),  # type: ignore[arg-type]
        "relu": lambda: np.where(v > 0, v, a * v),
        "clip": lambda: np.clip(v, a, b),
        "sigmoid": lambda: 1 / (1 + np.exp(-v)),
        "tanh": lambda: np.tanh(v),
        "swish": lambda: v / (1 + np.exp(-a * v)),
        "hardswish": lambda: v * np.clip(a * v + b, 0, 1),
        "gelu_erf": lambda: 0.5 * v * (1 + np.vectorize(math.erf)(v / math.sqrt(2))),
        "gelu_tanh": lambda: 0.5 * v * (1 + np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))),
    }
    result: Array = meaning[post.kind]()
    return result
