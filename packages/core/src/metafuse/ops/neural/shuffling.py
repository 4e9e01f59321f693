"""Moves of elements between channels and space: pixel unshuffle, channel shuffle.

What it is: one reindex each.
What it is not: ``pixel_shuffle`` (``basic``), or layers (``nn.reshaping``).
Who calls it: users and ``nn``.
"""

from __future__ import annotations

from typing import Any

from ...errors import ShapeError
from ..autograd import no_grad
from ..meta import check_var, with_gradient
from ..registry import Sample, Tensor, operator
from ..shape import transpose
from .checks import integer, need_ndim

__all__ = ["channel_shuffle", "pixel_unshuffle"]


def _unshuffled(x: Any, r: int) -> Any:
    n, c, h, w = x.shape
    return (
        x.reshape(n, c, h // r, r, w // r, r)
        .transpose(0, 1, 3, 5, 2, 4)
        .reshape(n, c * r * r, h // r, w // r)
    )


@operator(category="nn", numpy=_unshuffled, source="Shi et al. 2016, inverted", samples=[
    Sample((Tensor((2, 2, 4, 6)), 2)), Sample((Tensor((1, 1, 3, 3)), 3)),
])  # fmt: skip
def pixel_unshuffle(x: Any, downscale_factor: int) -> Any:
    """Move space into channels: ``[batch, channels, height * r, width * r]`` to ``[batch, channels * r * r, height, width]``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.pixel_unshuffle(mf.ones([1, 1, 4, 4]), 2).shape
        (1, 4, 2, 2)
    """
    x = check_var("pixel_unshuffle", "x", x)
    need_ndim("pixel_unshuffle", "x", x, [4], "(batch, channels, height, width)")
    r = integer("pixel_unshuffle", "downscale_factor", downscale_factor, 1)
    batch, channels, height, width = x.shape
    if height % r or width % r:
        raise ShapeError(
            f"[pixel_unshuffle] height and width must be divisible by downscale_factor {r}, got {tuple(x.shape)}"
        )
    parts = transpose(x.reshape([batch, channels, height // r, r, width // r, r]), 0, 1, 3, 5, 2, 4)
    return parts.reshape([batch, channels * r * r, height // r, width // r])


def _mixed(x: Any, groups: int) -> Any:
    n, c = x.shape[:2]
    return x.reshape(n, groups, c // groups, -1).swapaxes(1, 2).reshape(x.shape)


@operator(category="nn", numpy=_mixed, source="Zhang et al. 2017", samples=[
    Sample((Tensor((2, 6, 2, 3)), 3)), Sample((Tensor((1, 4, 5)), 2)),
])  # fmt: skip
def channel_shuffle(x: Any, groups: int) -> Any:
    """Channels of ``groups`` groups dealt out in turn: the first of each group, then the second of each ...

    Example:
        >>> import metafuse as mf
        >>> mf.nn.channel_shuffle(mf.arange(4).reshape(1, 4, 1), 2).numpy().ravel()
        array([0, 2, 1, 3], dtype=int32)
    """
    x = check_var("channel_shuffle", "x", x)
    groups = integer("channel_shuffle", "groups", groups, 1)
    if x.ndim < 2 or x.shape[1] % groups:
        raise ShapeError(
            f"[channel_shuffle] x must be [batch, multiple of {groups}, ...], got {tuple(x.shape)}"
        )
    return _mixed_channels(x, groups)


def _mixed_channels(x: Any, groups: int) -> Any:
    """One read of whole channels, which keeps the order of dimensions in memory; so does its gradient, the way back."""
    per = x.shape[1] // groups
    rest = [f"i{d}" for d in range(2, x.ndim)]
    with no_grad():
        mixed = x.reindex(list(x.shape), ["i0", f"i1%{groups}*{per}+i1/{groups}", *rest])
    return (
        with_gradient(mixed, [x], "channel_shuffle", groups, _mixed_gradient) if x.dtype.is_float else mixed
    )


def _mixed_gradient(node: Any, upstream: Any) -> list[Any]:
    return [None, _mixed_channels(upstream, max(1, upstream.shape[1] // node.sig.attrs))]
