"""What the neural operators mean, in plain NumPy.

What it is: one function per operator on ndarrays, written for clarity: windows are cut with loops over window positions and
everything is computed in the dtype it is given (the conformance kit gives float64).
What it is not: fast, or used when a user computes something.
Who calls it: the operator records; through them the conformance kit and the tests.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_erf = np.vectorize(math.erf, otypes=[np.float64])


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
    stride, padding, dilation = (_many(v, spatial) for v in (stride, padding, dilation))
    kernel = weight.shape[2:]
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
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
                "nc...,oc->no...", part[(slice(None), slice(None), *cut)], weight[(rows, slice(None), *at)]
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
            y[(slice(None), columns, *cut)] += np.einsum(
                "nc...,co->no...", x[:, part], weight[(part, slice(None), *at)]
            )
    y = y[(slice(None), slice(None), *(slice(p, n - p) for p, n in zip(padding, full, strict=True)))]
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
        window = x[(slice(None), slice(None), *np.ix_(*inside))].reshape(*x.shape[:2], -1)
        if op == "mean":
            padded = [
                sum(-p <= b + j * d < n + p for j in range(k))
                for b, k, d, n, p in zip(starts, kernel, dilation, size, padding, strict=True)
            ]
            y[(..., *at)] = window.sum(-1) / (math.prod(padded) if count_pad else window.shape[-1])
        else:
            y[(..., *at)] = _FOLDS[op](window, -1)
            first = window.argmin(-1) if op == "minimum" else window.argmax(-1)
            places[(..., *at)] = flat[np.ix_(*inside)].reshape(-1)[first]
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
        y[(..., *at)] = fold(x[(..., *cut)].reshape(*x.shape[:2], -1), -1)
    return y


def adaptive_avg_pool(x: Array, output_size: Any) -> Array:
    """Mean over windows floor(i*n/o) .. ceil((i+1)*n/o)."""
    return _adaptive(x, output_size, np.mean)


def adaptive_max_pool(x: Array, output_size: Any) -> Array:
    """Maximum over windows floor(i*n/o) .. ceil((i+1)*n/o)."""
    return _adaptive(x, output_size, np.max)


# -- activations --------------------------------------------------------------------------------------------------
def leaky_relu(x: Array, scale: float = 0.01) -> Array:
    """Slope ``scale`` below zero."""
    return np.where(x > 0, x, scale * x)


def prelu(x: Array, weight: Array) -> Array:
    """Slope ``weight`` below zero, per channel."""
    return np.where(x > 0, x, x * (weight if weight.size == 1 else weight.reshape(-1, *[1] * (x.ndim - 2))))


def elu(x: Array, alpha: float = 1.0) -> Array:
    """Exponential below zero."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def gelu(x: Array) -> Array:
    """Exact form."""
    return x * 0.5 * (1 + _erf(x / math.sqrt(2)))


def silu(x: Array) -> Array:
    """x * sigmoid(x)."""
    return x / (1 + np.exp(-x))


def softplus(x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """log(1 + exp(beta * x)) / beta."""
    return np.where(beta * x > threshold, x, np.log1p(np.exp(np.minimum(beta * x, threshold))) / beta)


def mish(x: Array, inplace: bool = False) -> Array:
    """x * tanh(log(1 + exp(x)))."""
    return x * np.tanh(np.logaddexp(0, x))


def log_sigmoid(x: Array) -> Array:
    """-log(1 + exp(-x))."""
    return -np.logaddexp(0, -x)


def hardtanh(x: Array, min_val: float = -1, max_val: float = 1) -> Array:
    """Clipped."""
    return np.clip(x, min_val, max_val)


def softmax(x: Array, dim: Any = None, log: bool = False) -> Array:
    """Exponentials over their sum."""
    e = np.exp(x - x.max(axis=dim, keepdims=True))
    y = e / e.sum(axis=dim, keepdims=True)
    return np.log(y) if log else y


def log_softmax(x: Array, dim: Any = None) -> Array:
    """Logarithm of softmax."""
    return softmax(x, dim, True)


def logsumexp(x: Array, dim: Any, keepdims: bool = False, keepdim: bool = False) -> Array:
    """Logarithm of the sum of exponentials."""
    y = np.log(np.exp(x).sum(axis=dim, keepdims=keepdims or keepdim))
    return y.reshape(y.shape or (1,))


# -- normalisation --------------------------------------------------------------------------------------------------
def _standard(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def _per_channel(value: Any, x: Array) -> Any:
    return value if np.ndim(value) == 0 else value.reshape(1, -1, *[1] * (x.ndim - 2))


def batch_norm(
    x: Array,
    running_mean: Array,
    running_var: Array,
    weight: Any = 1,
    bias: Any = 0,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    """Per channel over batch and space."""
    if training:
        y = _standard(x, (0, *range(2, x.ndim)), eps)
    else:
        y = (x - _per_channel(running_mean, x)) / np.sqrt(_per_channel(running_var, x) + eps)
    return y * _per_channel(weight, x) + _per_channel(bias, x)


def instance_norm(
    x: Array,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = 1,
    bias: Any = 0,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    """Per sample and channel over space."""
    return _standard(x, tuple(range(2, x.ndim)), eps) * _per_channel(weight, x) + _per_channel(bias, x)


def layer_norm(x: Array, normalized_shape: Any, weight: Any = 1, bias: Any = 0, eps: float = 1e-5) -> Array:
    """Over the trailing dimensions."""
    count = len(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else 1
    return _standard(x, tuple(range(x.ndim - count, x.ndim)), eps) * weight + bias


def group_norm(x: Array, num_groups: int, weight: Any = 1, bias: Any = 0, eps: float = 1e-5) -> Array:
    """Per sample and group of channels."""
    grouped = x.reshape(x.shape[0], num_groups, -1)
    return _standard(grouped, (2,), eps).reshape(x.shape) * _per_channel(weight, x) + _per_channel(bias, x)


# -- losses ---------------------------------------------------------------------------------------------------------
def _reduced(loss: Array, reduction: str) -> Array:
    return (
        loss
        if reduction in ("none", None)
        else np.atleast_1d(loss.sum() if reduction == "sum" else loss.mean())
    )


def nll_loss(
    output: Array, target: Array, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
) -> Array:
    """Minus the log probability of the target class."""
    classes = output.shape[1]
    target = target.reshape(output.shape[0], *output.shape[2:])
    valid = (target != ignore_index) & (target >= 0) & (target < classes)
    safe = np.where(valid, target, 0)
    scale = (np.ones(classes) if weight is None else weight)[safe] * valid
    loss = -np.take_along_axis(output, np.expand_dims(safe, 1), 1)[:, 0] * scale
    return np.atleast_1d(loss.sum() / scale.sum()) if reduction == "mean" else _reduced(loss, reduction)


def cross_entropy_loss(
    output: Array, target: Array, weight: Any = None, ignore_index: int | None = None, reduction: str = "mean"
) -> Array:
    """Log-softmax, then the loss above."""
    return nll_loss(
        softmax(output, 1, True), target, weight, -100 if ignore_index is None else ignore_index, reduction
    )


def mse_loss(output: Array, target: Array, reduction: str = "mean") -> Array:
    """Squared difference."""
    return _reduced((output - target) ** 2, reduction)


def l1_loss(output: Array, target: Array) -> Array:
    """Absolute difference."""
    return _reduced(np.abs(output - target), "mean")


def smooth_l1_loss(y_true: Array, y_pred: Array, reduction: str = "mean") -> Array:
    """Quadratic below 1, linear above."""
    d = np.abs(y_true - y_pred)
    return _reduced(np.where(d < 1, 0.5 * d * d, d - 0.5), reduction)


def bce_loss(output: Array, target: Array, weight: Any = None, size_average: bool = True) -> Array:
    """Cross entropy of probabilities."""
    loss = -(target * np.log(output) + (1 - target) * np.log(1 - output))
    return _reduced(loss if weight is None else loss * weight, "mean" if size_average else "sum")


def binary_cross_entropy_with_logits(
    output: Array, target: Array, weight: Any = None, pos_weight: Any = None, size_average: bool = True
) -> Array:
    """Cross entropy of logits."""
    factor = 1 if pos_weight is None else pos_weight
    loss = factor * target * np.logaddexp(0, -output) + (1 - target) * np.logaddexp(0, output)
    return _reduced(loss if weight is None else loss * weight, "mean" if size_average else "sum")


def kl_div(input: Array, target: Array, reduction: str = "mean", log_target: bool = False) -> Array:
    """Kullback-Leibler divergence of log probabilities ``input`` from ``target``."""
    loss = np.exp(target) * (target - input) if log_target else target * (np.log(target) - input)
    if reduction == "batchmean":
        return np.atleast_1d(loss.sum() / input.shape[0])
    return _reduced(loss, reduction)


# -- others --------------------------------------------------------------------------------------------------------
def linear(x: Array, weight: Array, bias: Any = None) -> Array:
    """x @ weight.T + bias."""
    return x @ weight.T if bias is None else x @ weight.T + bias


def bilinear(in1: Array, in2: Array, weight: Array, bias: Any = None) -> Array:
    """in1 @ weight[o] @ in2 for each o."""
    y = np.einsum("...i,oij,...j->...o", in1, weight, in2)
    return y if bias is None else y + bias


def embedding(input: Array, weight: Array) -> Array:
    """Rows of weight."""
    return weight[input]


def one_hot(x: Array, num_classes: int = -1) -> Array:
    """1 at the given class."""
    count = int(x.max()) + 1 if num_classes == -1 else num_classes
    return np.eye(count, dtype=np.int32)[x]


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(x: Array, padding: Any, mode: str = "constant", value: float = 0) -> Array:
    """Pairs of (before, after), last dimension first."""
    pairs = [(padding[2 * d], padding[2 * d + 1]) for d in range(len(padding) // 2)][::-1]
    keep = x[
        tuple(
            slice(max(-b, 0), n - max(-a, 0))
            for (b, a), n in zip([(0, 0)] * (x.ndim - len(pairs)) + pairs, x.shape, strict=True)
        )
    ]
    widths = [(0, 0)] * (x.ndim - len(pairs)) + [(max(b, 0), max(a, 0)) for b, a in pairs]
    options = {"constant_values": value} if mode == "constant" else {}
    return np.pad(keep, widths, mode=_PAD_MODES[mode], **options)  # type: ignore[call-overload]


def pixel_shuffle(x: Array, upscale_factor: int) -> Array:
    """Channels to space."""
    n, c, h, w = x.shape
    r = upscale_factor
    return x.reshape(n, c // r**2, r, r, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // r**2, h * r, w * r)
