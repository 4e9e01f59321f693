"""What the neural operators mean, in plain NumPy.

What it is: one function per operator on ndarrays, computed in the dtype it is given (the conformance kit gives float64).
Convolution and pooling are in ``window_oracles``.
What it is not: fast, or used when a user computes something.
Who calls it: the operator records; through them the conformance kit and the tests.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_erf = np.vectorize(math.erf, otypes=[np.float64])


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
    output: Array,
    target: Array,
    weight: Any = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """Cross entropy of log-softmax with the distribution that has ``1 - label_smoothing`` on the target and the rest on all."""
    logs, classes = softmax(output, 1, True), output.shape[1]
    if target.dtype.kind == "f":
        wanted = target * (1 - label_smoothing) + label_smoothing / classes
        importance = np.ones(classes) if weight is None else weight
        loss = -(wanted * logs * importance.reshape(-1, *[1] * (output.ndim - 2))).sum(1)
        return _reduced(loss, reduction)
    target = target.reshape(output.shape[0], *output.shape[2:])
    valid = (target != (-100 if ignore_index is None else ignore_index)) & (target >= 0) & (target < classes)
    safe = np.where(valid, target, 0)
    importance = np.ones(classes) if weight is None else weight
    wanted = np.moveaxis(np.eye(classes)[safe], -1, 1) * (1 - label_smoothing) + label_smoothing / classes
    wanted = wanted * importance.reshape(-1, *[1] * (output.ndim - 2))
    loss = -(wanted * logs).sum(1) * valid
    scale = (importance[safe] * valid).sum()
    return np.atleast_1d(loss.sum() / scale) if reduction == "mean" else _reduced(loss, reduction)


def mse_loss(output: Array, target: Array, reduction: str = "mean") -> Array:
    """Squared difference."""
    return _reduced((output - target) ** 2, reduction)


def l1_loss(output: Array, target: Array, reduction: str = "mean") -> Array:
    """Absolute difference."""
    return _reduced(np.abs(output - target), reduction)


def smooth_l1_loss(y_true: Array, y_pred: Array, reduction: str = "mean", beta: float = 1.0) -> Array:
    """Quadratic below beta, linear above."""
    d = np.abs(y_true - y_pred)
    near = np.minimum(d, beta)
    return _reduced(d - near + 0.5 * near * near / beta if beta else d, reduction)


def bce_loss(
    output: Array, target: Array, weight: Any = None, size_average: bool = True, reduction: Any = None
) -> Array:
    """Cross entropy of probabilities."""
    loss = -(target * np.log(output) + (1 - target) * np.log(1 - output))
    loss = loss if weight is None else loss * weight
    return _reduced(loss, reduction or ("mean" if size_average else "sum"))


def binary_cross_entropy_with_logits(
    output: Array,
    target: Array,
    weight: Any = None,
    pos_weight: Any = None,
    size_average: bool = True,
    reduction: Any = None,
) -> Array:
    """Cross entropy of logits."""
    factor = 1 if pos_weight is None else pos_weight
    loss = factor * target * np.logaddexp(0, -output) + (1 - target) * np.logaddexp(0, output)
    loss = loss if weight is None else loss * weight
    return _reduced(loss, reduction or ("mean" if size_average else "sum"))


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


def embedding(input: Array, weight: Array, padding_idx: Any = None) -> Array:
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
