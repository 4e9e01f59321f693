"""Batch norm over the samples of all ranks.

What it is: ``batch_norm_of_all``, which exchanges the mean, variance and number of elements of each channel in one collective.
What it is not: used by a process alone (``ops.neural.normalisation``).
Who calls it: ``nn.norm``.

Source for joining variances: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
COMPSTAT 1982.
"""

from __future__ import annotations

from typing import Any

from ..dist.collectives import mpi_all_gather
from ..dist.parallel import current_share
from ..dtypes import accumulator
from ..ops.creation import full
from ..ops.elementwise import cast
from ..ops.neural.normalisation import moments
from ..ops.precision import answer_type
from ..ops.shape import concat

__all__ = ["batch_norm_of_all"]


def batch_norm_of_all(x: Any, running: list[Any], weight: Any, bias: Any, momentum: float, eps: float) -> Any:
    """``x`` (``[batch, channels, ...]``) normalised with the mean and variance of all ranks' elements; ``running`` statistics, a
    mean and a variance, move towards those.

    A rank whose share of the batch is empty computes along and counts for nothing."""
    channels = x.shape[1]
    axes = [0, *range(2, x.ndim)]
    shape = [channels if d == 1 else 1 for d in range(x.ndim)]
    wide = cast(x, accumulator(x.dtype))
    mean, variance, _, _ = moments(wide, axes)
    count = x.numel() // channels if current_share().samples else 0
    own = concat(
        [mean.reshape([channels]), variance.reshape([channels]), full([1], float(count), wide.dtype)], 0
    )
    of_all = mpi_all_gather(own.reshape([1, 2 * channels + 1]))
    counts = of_all[:, 2 * channels :].stop_grad()
    parts = counts / counts.sum(0, keepdims=True)
    means, variances = of_all[:, :channels], of_all[:, channels : 2 * channels]
    mean = (means * parts).sum(0)
    variance = ((variances + (means - mean).sqr()) * parts).sum(0)
    for held, fresh in zip(running, (mean, variance), strict=True):
        old = cast(held, accumulator(held.dtype))
        held.update(old + (cast(fresh.detach(), old.dtype) - old) * momentum)
    scale = weight / (variance + eps).sqrt()
    y = (wide - mean.reshape(shape)) * scale.reshape(shape)
    y = y + (bias if isinstance(bias, (int, float)) else bias.reshape(shape))
    return cast(y, answer_type(x.dtype))
