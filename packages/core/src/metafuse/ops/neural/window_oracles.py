"""What convolution, pooling, unfold and fold mean, in plain NumPy.

What it is: one function per operator on ndarrays, written for clarity: windows are cut in loops over their positions.
What it is not: fast, or used when a user computes something.
Who calls it: the operator records; through them the conformance kit and the tests.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def _at(*place: Any) -> Any:
    """An index made of parts."""
    return place


def _many(value: Any, count: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * count


# -- convolution ---------------------------------------------------------------------------------------------------
def convolution(
    x: Array,
    weight: Array,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Array:
    """Cross-correlation with any number of spatial dimensions."""
    spatial = x.ndim - 2
    stride, dilation = (_many(v, spatial) for v in (stride, dilation))
    kernel = weight.shape[2:]
    if padding == "same":
        rims = [
            (d * (k - 1) // 2, d * (k - 1) - d * (k - 1) // 2) for k, d in zip(kernel, dilation, strict=True)
        ]
    else:
        rims = [(p, p) for p in _many(padding, spatial)]
    x = np.pad(x, [(0, 0), (0, 0), *rims])
    out = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    ]
    per_group, inputs = weight.shape[0] // groups, weight.shape[1]
    y = np.zeros((x.shape[0], weight.shape[0], *out), np.result_type(x, weight))
    for g in range(groups):
        rows, part = slice(g * per_group, (g + 1) * per_group), x[:, g * inputs : (g + 1) * inputs]
        for at in itertools.product(*map(range, kernel)):
            cut = tuple(
                slice(a * d, a * d + (o - 1) * s + 1, s)
                for a, d, o, s in zip(at, dilation, out, stride, strict=True)
            )
            y[:, rows] += np.einsum(
                "nc...,oc->no...",
                part[_at(slice(None), slice(None), *cut)],
                weight[_at(rows, slice(None), *at)],
            )
    return y if bias is None else y + bias.reshape(-1, *[1] * spatial)


def transposed_convolution(
    x: Array,
    weight: Array,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Array:
    """Every input element adds its scaled kernel to the output; the padding is then cut off."""
    spatial = x.ndim - 2
    stride, padding, extra, dilation = (
        _many(v, spatial) for v in (stride, padding, output_padding, dilation)
    )
    kernel = weight.shape[2:]
    full = [
        (n - 1) * s + d * (k - 1) + 1 + e
        for n, s, k, d, e in zip(x.shape[2:], stride, kernel, dilation, extra, strict=True)
    ]
    inputs, outputs = weight.shape[0] // groups, weight.shape[1]
    y = np.zeros((x.shape[0], outputs * groups, *full), np.result_type(x, weight))
    for g in range(groups):
        columns, part = slice(g * outputs, (g + 1) * outputs), slice(g * inputs, (g + 1) * inputs)
        for at in itertools.product(*map(range, kernel)):
            cut = tuple(
                slice(a * d, a * d + (n - 1) * s + 1, s)
                for a, d, n, s in zip(at, dilation, x.shape[2:], stride, strict=True)
            )
            y[_at(slice(None), columns, *cut)] += np.einsum(
                "nc...,co->no...", x[:, part], weight[_at(part, slice(None), *at)]
            )
    y = y[_at(slice(None), slice(None), *(slice(p, n - p) for p, n in zip(padding, full, strict=True)))]
    return y if bias is None else y + bias.reshape(-1, *[1] * spatial)


def unfold(x: Array, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Array:
    """Windows as columns."""
    kernel, dilation, padding, stride = (_many(v, 2) for v in (kernel_size, dilation, padding, stride))
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    out = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    ]
    rows = [
        x[:, :, a * dilation[0] :: stride[0], b * dilation[1] :: stride[1]][:, :, : out[0], : out[1]]
        for a, b in itertools.product(*map(range, kernel))
    ]
    return np.stack(rows, 2).reshape(x.shape[0], -1, out[0] * out[1])


def fold(
    x: Array, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Array:
    """Columns added back into an image."""
    size, kernel, dilation, padding, stride = (
        _many(v, 2) for v in (output_size, kernel_size, dilation, padding, stride)
    )
    full = [s + 2 * p for s, p in zip(size, padding, strict=True)]
    out = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(full, kernel, stride, dilation, strict=True)]
    columns = x.reshape(x.shape[0], -1, *kernel, *out)
    y = np.zeros((x.shape[0], columns.shape[1], *full), x.dtype)
    for a, b in itertools.product(*map(range, kernel)):
        rows = slice(a * dilation[0], a * dilation[0] + (out[0] - 1) * stride[0] + 1, stride[0])
        y[:, :, rows, b * dilation[1] : b * dilation[1] + (out[1] - 1) * stride[1] + 1 : stride[1]] += (
            columns[:, :, a, b]
        )
    return y[:, :, padding[0] : full[0] - padding[0], padding[1] : full[1] - padding[1]]


# -- pooling ------------------------------------------------------------------------------------------------------
_FOLDS: dict[str, Any] = {"maximum": np.max, "minimum": np.min, "add": np.sum}


def _pooled(
    x: Array, kernel: Any, op: str, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, count_pad: bool
) -> tuple[Array, Array]:
    """Values, and flat positions of the first extreme, window by window."""
    spatial = x.ndim - 2
    kernel = _many(kernel, spatial)
    stride = kernel if stride is None else _many(stride, spatial)
    padding, dilation = _many(padding, spatial), _many(dilation or 1, spatial)
    size, out = x.shape[2:], []
    for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        span = n + 2 * p - d * (k - 1) - 1
        count = (math.ceil if ceil_mode else math.floor)(span / s) + 1
        out.append(count - (ceil_mode and (count - 1) * s >= n + p))
    y = np.zeros((*x.shape[:2], *out), x.dtype)
    places = np.zeros(y.shape, np.int32)
    flat = np.arange(math.prod(size)).reshape(size)
    for at in itertools.product(*map(range, out)):
        starts = [a * s - p for a, s, p in zip(at, stride, padding, strict=True)]
        inside = [
            [b + j * d for j in range(k) if 0 <= b + j * d < n]
            for b, k, d, n in zip(starts, kernel, dilation, size, strict=True)
        ]
        window = x[_at(slice(None), slice(None), *np.ix_(*inside))].reshape(*x.shape[:2], -1)
        if op == "mean":
            padded = [
                sum(-p <= b + j * d < n + p for j in range(k))
                for b, k, d, n, p in zip(starts, kernel, dilation, size, padding, strict=True)
            ]
            y[_at(..., *at)] = window.sum(-1) / (math.prod(padded) if count_pad else window.shape[-1])
        else:
            y[_at(..., *at)] = _FOLDS[op](window, -1)
            first = window.argmin(-1) if op == "minimum" else window.argmax(-1)
            places[_at(..., *at)] = flat[np.ix_(*inside)].reshape(-1)[first]
    return y, places


def pool(x: Array, kernel_size: Any, op: str, padding: Any = 0, stride: Any = None) -> Array:
    """Window reduction."""
    return _pooled(x, kernel_size, op, stride, padding, 1, False, True)[0]


def max_pool(
    x: Array,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = None,
    return_indices: bool | None = None,
    ceil_mode: bool = False,
) -> Any:
    """Window maximum, and where it is."""
    y, places = _pooled(x, kernel_size, "maximum", stride, padding, dilation, ceil_mode, True)
    return (y, places) if return_indices else y


def avg_pool(
    x: Array,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """Window mean."""
    return _pooled(x, kernel_size, "mean", stride, padding, 1, ceil_mode, count_include_pad)[0]


def _adaptive(x: Array, output_size: Any, fold: Any) -> Array:
    size = x.shape[2:]
    out = tuple(s if o is None else o for o, s in zip(_many(output_size, len(size)), size, strict=True))
    y = np.zeros((*x.shape[:2], *out), x.dtype)
    for at in itertools.product(*map(range, out)):
        cut = tuple(slice(a * n // o, -(-(a + 1) * n // o)) for a, n, o in zip(at, size, out, strict=True))
        y[_at(..., *at)] = fold(x[_at(..., *cut)].reshape(*x.shape[:2], -1), -1)
    return y


def adaptive_avg_pool(x: Array, output_size: Any) -> Array:
    """Mean over windows floor(i*n/o) .. ceil((i+1)*n/o)."""
    return _adaptive(x, output_size, np.mean)


def adaptive_max_pool(x: Array, output_size: Any, return_indices: bool = False) -> Any:
    """Maximum over windows floor(i*n/o) .. ceil((i+1)*n/o)."""
    result = _adaptive(x, output_size, np.max)
    if not return_indices:
        return result
    flat, places = x.reshape(*x.shape[:2], -1), np.zeros(result.shape, np.int32)
    for at in np.ndindex(*result.shape):  # elements of samples differ
        places[at] = np.flatnonzero(flat[at[:2]] == result[at])[0]
    return result, places
