"""Convolutions of one, two and three spatial dimensions, and their transposes.

What it is: compositions of reindex, multiply and sum. The compiler recognises the product that is summed as a contraction,
here as in anybody's own composition, and gives it to a library or a tiled kernel.
What it is not: an algorithm. No layout, blocking or library is chosen here.
Who calls it: users and ``nn.convolution``.

The index strings hold strides, paddings and dilations as numbers; they become run-time arguments of the kernel, so that
another stride compiles nothing.
"""

from __future__ import annotations

from typing import Any

from ...errors import ArgumentError, ShapeError
from ..meta import check_var, reduce_dims
from ..precision import like, product_operands
from ..recipe import recorded
from ..registry import Sample, Tensor, operator
from ..telling import renamed
from . import window_oracles as oracles
from .checks import integer, integers, need_ndim, padded_by, slide, window_count

__all__ = [
    "conv",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
]


def conv_samples(spatial: int, transposed: bool = False) -> list[Sample]:
    """Plain; with bias, stride, padding and dilation; grouped."""
    small, large = (4, 5, 4)[:spatial], (7, 6, 6)[:spatial]
    two, three = (2,) * spatial, (3, 2, 2)[:spatial]

    def weight(inputs: int, outputs: int, kernel: tuple[int, ...]) -> Tensor:
        return Tensor((inputs, outputs, *kernel) if transposed else (outputs, inputs, *kernel))

    options = {"bias": Tensor((3,)), "stride": 2, "padding": 1, "dilation": 2}
    grouped = Tensor((4, 3, *two) if transposed else (6, 2, *two))
    return [
        Sample((Tensor((2, 2, *small)), weight(2, 3, two))),
        Sample((Tensor((1, 2, *large)), weight(2, 3, three)), options),
        Sample((Tensor((2, 4, *small)), grouped), {"groups": 2, "bias": Tensor((6,))}),
        *([] if transposed else [Sample((Tensor((1, 2, *small)), weight(2, 3, three)), {"padding": "same"})]),
    ]


def _check_channels(op: str, x: Any, weight: Any, bias: Any, groups: int, transposed: bool) -> None:
    """Check that channels, groups and bias fit together; the weight is (out, in / groups, ...) or, transposed,
    (in, out / groups, ...)."""
    channels, first, second = x.shape[1], weight.shape[0], weight.shape[1]
    inputs, outputs = (first, second * groups) if transposed else (second * groups, first)
    if channels != inputs:
        raise ShapeError(
            f"[{op}] x has {channels} channels, but weight {tuple(weight.shape)} with groups={groups} takes {inputs}"
        )
    if first % groups:
        raise ArgumentError(
            f"[{op}] groups must divide the channels of weight {tuple(weight.shape)} along dimension 0, got groups={groups}"
        )
    if bias is not None and tuple(bias.shape) != (outputs,):
        raise ShapeError(f"[{op}] bias must have shape ({outputs},), got {tuple(bias.shape)}")


def _add_bias(y: Any, bias: Any) -> Any:
    return y if bias is None else y + like(bias, y).broadcast(y.shape, [0, *range(2, y.ndim)])


@recorded
def _convolve(
    op: str,
    spatial: int,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
) -> Any:
    """Convolution (cross-correlation) over ``spatial`` dimensions."""
    x, weight = check_var(op, "x", x), check_var(op, "weight", weight)
    bias = bias if bias is None else check_var(op, "bias", bias)
    need_ndim(op, "x", x, [spatial + 2], "(batch, channels, ...)")
    need_ndim(op, "weight", weight, [spatial + 2], "(out channels, in channels / groups, ...)")
    stride = integers(op, "stride", stride, spatial, 1)
    wanted = padded_by(op, padding, stride)
    dilation = integers(op, "dilation", dilation, spatial, 1)
    groups = integer(op, "groups", groups, 1)
    _check_channels(op, x, weight, bias, groups, transposed=False)
    batch, size = x.shape[0], x.shape[2:]
    outputs, inputs, kernel = weight.shape[0], weight.shape[1], tuple(weight.shape[2:])
    integers(op, "kernel size", kernel, spatial, 1)
    if wanted == "same":  # an odd rest is put behind the end
        before, out = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)), tuple(size)
    else:
        before = (0,) * spatial if isinstance(wanted, str) else wanted
        out = tuple(map(window_count, [op] * spatial, size, kernel, stride, before, dilation))
    head = [batch, outputs, inputs] if groups == 1 else [batch, groups, outputs // groups, inputs]
    first = len(head)  # number of the first output axis; the window's axes follow the output's
    shape = [*head, *out, *kernel]
    slides = [
        slide(first + d, first + spatial + d, stride[d], before[d], dilation[d]) for d in range(spatial)
    ]
    if groups > 1:
        x = x.reshape([batch, groups, inputs, *size])
        weight = weight.reshape([groups, outputs // groups, inputs, *kernel])
    x, weight, answer = product_operands(x, weight)
    windows = x.reindex(shape, ["i0", "i2", *slides] if groups == 1 else ["i0", "i1", "i3", *slides])
    spread = weight.broadcast(shape, [0, *range(first, first + spatial)])
    folded = (first - 1, *range(first + spatial, first + 2 * spatial))
    y = answer(reduce_dims(windows * spread, "add", folded))
    return _add_bias(y if groups == 1 else y.reshape([batch, outputs, *out]), bias)


@operator(
    category="nn",
    numpy=oracles.convolution,
    samples=conv_samples(1),
    source="cross-correlation, stride, zero padding",
)
def conv1d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Convolution over one spatial dimension.

    Args:
        x: ``[batch, channels, length]``.
        weight: ``[out channels, channels / groups, kernel]``.
        bias: ``[out channels]`` or ``None``.
        stride, dilation: integers >= 1.
        padding: zeros put on both sides, >= 0; or ``"valid"``: none, or ``"same"``: as many as keep the length (``stride`` 1).
        groups: channels are cut in this many independent groups.

    Errors: ``ArgumentError`` and ``ShapeError`` for anything that does not fit.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.conv1d(mf.ones([1, 2, 5]), mf.ones([3, 2, 3])).shape
        (1, 3, 3)
    """
    return _convolve("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


@operator(
    category="nn",
    numpy=oracles.convolution,
    samples=conv_samples(2),
    source="cross-correlation, stride, zero padding",
)
def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Convolution over two spatial dimensions.

    ``y[n,o,h,w] = bias[o] + sum over c,p,q of x[n,c,h*stride-padding+p*dilation,w*stride-padding+q*dilation] *
    weight[o,c,p,q]``, with zeros outside of ``x``.

    Args:
        x: ``[batch, channels, height, width]``.
        weight: ``[out channels, channels / groups, kernel height, kernel width]``.
        bias: ``[out channels]`` or ``None``.
        stride, dilation: one integer >= 1 or two.
        padding: one integer >= 0 or two; or ``"valid"``: none, or ``"same"``: as much as keeps sizes (``stride`` 1).
        groups: channels are cut in this many independent groups.

    Errors: ``ArgumentError`` and ``ShapeError`` for anything that does not fit.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.conv2d(mf.ones([1, 2, 5, 5]), mf.ones([3, 2, 3, 3]), stride=2, padding=1).shape
        (1, 3, 3, 3)
    """
    return _convolve("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


@operator(
    category="nn",
    numpy=oracles.convolution,
    samples=conv_samples(3),
    source="cross-correlation, stride, zero padding",
)
def conv3d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Convolution over three spatial dimensions; arguments as in ``conv2d`` with one more dimension (depth first).

    Example:
        >>> import metafuse as mf
        >>> mf.nn.conv3d(mf.ones([1, 1, 4, 4, 4]), mf.ones([2, 1, 3, 3, 3])).shape
        (1, 2, 2, 2, 2)
    """
    return _convolve("conv3d", 3, x, weight, bias, stride, padding, dilation, groups)


def _spread(
    op: str,
    spatial: int,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
) -> Any:
    """Transposed convolution: what the gradient of ``_convolve`` does to its output's gradient."""
    x, weight = check_var(op, "input", x), check_var(op, "weight", weight)
    bias = bias if bias is None else check_var(op, "bias", bias)
    need_ndim(op, "input", x, [spatial + 2], "(batch, channels, ...)")
    need_ndim(op, "weight", weight, [spatial + 2], "(in channels, out channels / groups, ...)")
    stride = integers(op, "stride", stride, spatial, 1)
    padding = integers(op, "padding", padding, spatial, 0)
    extra = integers(op, "output_padding", output_padding, spatial, 0)
    dilation = integers(op, "dilation", dilation, spatial, 1)
    groups = integer(op, "groups", groups, 1)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ArgumentError(
            f"[{op}] output_padding must be smaller than stride or dilation, got output_padding={extra}, "
            f"stride={stride}, dilation={dilation}"
        )
    _check_channels(op, x, weight, bias, groups, transposed=True)
    batch, size = x.shape[0], tuple(x.shape[2:])
    inputs, outputs, kernel = weight.shape[0] // groups, weight.shape[1], tuple(weight.shape[2:])
    integers(op, "kernel size", kernel, spatial, 1)
    out = [
        (size[d] - 1) * stride[d] - 2 * padding[d] + dilation[d] * (kernel[d] - 1) + extra[d] + 1
        for d in range(spatial)
    ]
    if min(out) < 1:
        raise ShapeError(
            f"[{op}] the result would be empty: size {size}, kernel {kernel}, padding {padding}; use less padding"
        )
    grouped = groups > 1
    head = [batch, groups, inputs, outputs] if grouped else [batch, inputs, outputs]
    first = len(head)
    shape = [*head, *size, *kernel]
    if grouped:
        x = x.reshape([batch, groups, inputs, *size])
        weight = weight.reshape([groups, inputs, outputs, *kernel])
    here = list(range(first, first + spatial))
    x, weight, answer = product_operands(x, weight)
    product = x.broadcast(
        shape, [first - 1, *range(first + spatial, first + 2 * spatial)]
    ) * weight.broadcast(shape, [0, *here])
    slides = [
        slide(first + d, first + spatial + d, stride[d], padding[d], dilation[d]) for d in range(spatial)
    ]
    leading = ["i0", "i1", "i3"] if grouped else ["i0", "i2"]
    target = [batch, groups, outputs, *out] if grouped else [batch, outputs, *out]
    y = answer(product.reindex_reduce("add", target, [*leading, *slides]))
    return _add_bias(y.reshape([batch, groups * outputs, *out]) if grouped else y, bias)


@operator(
    category="nn",
    numpy=oracles.transposed_convolution,
    samples=conv_samples(2, True),
    source="gradient of conv2d to x",
)
def conv_transpose(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """Transposed convolution over two spatial dimensions.

    Args:
        input: ``[batch, channels, height, width]``.
        weight: ``[channels, out channels / groups, kernel height, kernel width]``.
        bias: ``[out channels]`` or ``None``.
        stride, dilation: one integer >= 1 or two.
        padding: what a convolution with these arguments would have added; it is cut off here.
        output_padding: rows and columns added at the end, smaller than stride or dilation.
        groups: channels are cut in this many independent groups.

    Result: ``[batch, out channels, (height-1)*stride - 2*padding + dilation*(kernel-1) + output_padding + 1, ...]``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.conv_transpose(mf.ones([1, 2, 3, 3]), mf.ones([2, 4, 2, 2]), stride=2).shape
        (1, 4, 6, 6)
    """
    return _spread(
        "conv_transpose", 2, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


@operator(
    category="nn",
    numpy=oracles.transposed_convolution,
    samples=conv_samples(1, True),
    source="gradient of conv1d to x",
)
def conv_transpose1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """Transposed convolution over one spatial dimension; arguments as in ``conv_transpose``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.conv_transpose1d(mf.ones([1, 2, 3]), mf.ones([2, 4, 2]), stride=2).shape
        (1, 4, 6)
    """
    return _spread(
        "conv_transpose1d", 1, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


@operator(
    category="nn",
    numpy=oracles.transposed_convolution,
    samples=conv_samples(3, True),
    source="gradient of conv3d to x",
)
def conv_transpose3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """Transposed convolution over three spatial dimensions; arguments as in ``conv_transpose``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.conv_transpose3d(mf.ones([1, 1, 2, 2, 2]), mf.ones([1, 1, 2, 2, 2])).shape
        (1, 1, 3, 3, 3)
    """
    return _spread(
        "conv_transpose3d", 3, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


conv = renamed("conv", conv2d)
conv_transpose2d = renamed("conv_transpose2d", conv_transpose)
