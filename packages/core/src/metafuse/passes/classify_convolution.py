"""Convolutions among contractions: one space, two formulas.

What it is: turns views with windows into a ``LibraryOp``: which axes are batch, groups, channels, space and kernel, with
stride, dilation and padding per spatial dimension.
What it is not: matrix products (``classify``).
Who calls it: ``classify``.

With image ``I[n, g c, h]``, weight ``W[g o, c, k]`` and result ``G[n, g o, y]`` every spatial dimension has
``h = y * stride + k * dilation - padding``. *Gathered*: the image is read, at ``h``; summed over channels and kernel this is
the convolution, summed over batch and space the weight's gradient. *Solved*: the image is what is made, and one of the
other two is read at ``(h + padding - k * dilation) / stride``. An axis of extent 1 is missing everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from ..backend.library import LibraryOp
from ..dtypes import DType
from .classify_views import Roles, Side, Window, joined, operand

__all__ = ["gathered", "looks_like_image", "solved"]

Axes = tuple[tuple[int, ...], ...]
#: as many spatial dimensions as a library operation has
MOST = 3


@dataclass(frozen=True)
class _Space:
    """One spatial dimension: (extent, stride in memory) in image, result and weight; the axes of what is outer."""

    image: tuple[int, int | None]
    result: tuple[int, int | None]
    kernel: tuple[int, int | None]
    outer: int | None
    stride: int
    dilation: int
    padding: int


def looks_like_image(roles: Roles, image: Side, other: Side) -> bool:
    """Whether a contraction without windows is meant as a convolution with a kernel of one element, by ``image``.

    It is if its places were written as windows (they are guarded) and the channels are not its last dimension, or if there
    is a batch before and a space of at least two dimensions after the channels."""
    sorts = (roles.summed, roles.first)
    if image.guarded and not other.guarded:
        last = max(image.dims, key=image.dims.__getitem__)
        return not any(len(axes) == 1 and last in axes for axes in sorts)
    for channels, rest in (sorts, sorts[::-1]):
        if len(channels) == 1 and len(roles.second) <= 1:
            at = image.dims[channels[0]]
            before = sum(image.dims[x] < at for x in rest)
            if before >= 1 and len(rest) - before >= 2:
                return True
    return False


# -- the image is read ------------------------------------------------------------------------------------------------
def gathered(
    extents: Sequence[int], roles: Roles, image: Side, other: Side, result: dict[int, int]
) -> tuple[LibraryOp, Axes] | None:
    """``convolution`` or ``convolution_weight`` with the axes of each dimension of the result."""
    taken = {x for w in image.windows for x in (w.outer, w.inner) if x is not None}
    if taken.intersection(roles.batch):
        return None
    outer = [x for x in image.plain(roles.first) if x not in taken]
    inner = [x for x in image.plain(roles.summed) if x not in taken]
    if not image.windows and len(outer) <= 1 and len(inner) <= 1:
        return None  # no space
    readings = [False, True]
    if _means_weight(extents, image, outer, inner):
        readings.reverse()
    for weight in readings:
        # where axes live besides the image: outer ones in the result, summed ones in the other operand
        batches, channels = (inner, outer) if weight else (outer, inner)
        batch_map, channel_map = (other.strides, result) if weight else (result, other.strides)
        maps = _Maps(extents, batch_map, channel_map, weight)
        for batch, channel in _heads(image, batches, channels):
            space = [x for x in (*batches, *channels) if x not in batch and x not in channel]
            found = _read(roles, image, other, result, maps, (batch, channel, space))
            if found is not None:
                return found
    return None


def _means_weight(extents: Sequence[int], image: Side, outer: list[int], inner: list[int]) -> bool:
    """Whether the batch is summed over, by the order of the image's dimensions: the batch comes first."""
    if not outer and not inner:
        made = prod(extents[w.outer] for w in image.windows if w.outer is not None)
        return prod(extents[w.inner] for w in image.windows if w.inner is not None) > made
    first = min(outer + inner, key=image.dims.__getitem__)
    # a dimension of extent 1, or the groups, before it: that was the batch
    is_batch = image.dims[first] == 0
    return (first in inner) == is_batch


@dataclass(frozen=True)
class _Maps:
    """Strides per axis besides the image's: of batch and steps, and of channels and kernel; ``weight``: the reading."""

    extents: Sequence[int]
    batch: dict[int, int]
    channel: dict[int, int]
    weight: bool


def _heads(side: Side, batches: list[int], channels: list[int]) -> Iterator[tuple[list[int], list[int]]]:
    """What may be the axes of batch and channels, the likeliest first; other plain axes are space then.

    The batch comes before the channels, or before the space; along the space of a plain axis either the kernel or the
    result has extent 1."""
    windows = [w.dim for w in side.windows]
    end = min([side.dims[channels[0]]] if channels else windows, default=side.rank)
    before = [x for x in batches if side.dims[x] < end]
    for channel in (channels[:1], [], channels):
        for batch in (before, before[:1], [], batches):
            yield batch, channel


def _read(
    roles: Roles,
    image: Side,
    other: Side,
    result: dict[int, int],
    maps: _Maps,
    plain: tuple[list[int], list[int], list[int]],
) -> tuple[LibraryOp, Axes] | None:
    """One reading of plain axes as batch, channels and space; with ``maps.weight`` the gradient of a weight."""
    batch, channel, rest = plain
    extents, weight = maps.extents, maps.weight
    made = other.plain(roles.second)
    groups = sorted(roles.batch, key=lambda x: -image.strides[x])
    n = joined(batch, extents, image.strides, maps.batch)
    gc = joined([*groups, *channel], extents, image.strides)
    c = joined(channel, extents, maps.channel)
    g = joined(groups, extents)
    go = joined([*groups, *made], extents, other.strides, result)
    if n is None or gc is None or c is None or g is None or go is None:
        return None
    spaces = _spaces(image, rest, roles, maps)
    if not 1 <= len(spaces) <= MOST:
        return None
    padding, crops = zip(*(_padding(s, crop=True) for s in spaces), strict=True)
    over = operand(image.dtype, [n[0], gc[0], *(s.image[0] - k for s, k in zip(spaces, crops, strict=True))],
                   [n[1][0], gc[1][0], *(s.image[1] for s in spaces)])  # fmt: skip
    of_weight, of_result = (1, 0) if weight else (0, 1)
    kernel = operand(image.dtype, [go[0], c[0], *(s.kernel[0] for s in spaces)],
                     [go[1][of_weight], c[1][0], *(s.kernel[1] for s in spaces)])  # fmt: skip
    image_like = operand(image.dtype, [n[0], go[0], *(s.result[0] for s in spaces)],
                         [n[1][1], go[1][of_result], *(s.result[1] for s in spaces)])  # fmt: skip
    second, out = (image_like, kernel) if weight else (kernel, image_like)
    op = LibraryOp(
        "convolution_weight" if weight else "convolution", over, second, out, g[0],
        tuple(s.stride for s in spaces), tuple(s.dilation for s in spaces), padding,
    )  # fmt: skip
    tail = tuple(() if s.outer is None else (s.outer,) for s in spaces)
    two = ((*groups, *made), tuple(channel)) if weight else (tuple(batch), (*groups, *made))
    return op, (*two, *tail)


def _spaces(image: Side, rest: list[int], roles: Roles, maps: _Maps) -> list[_Space]:
    """Spatial dimensions in the order of the image's: windows, and plain axes that are neither batch nor channels."""
    none: tuple[int, int | None] = (1, None)

    def at(x: int | None, strides: dict[int, int]) -> tuple[int, int | None]:
        return none if x is None else (maps.extents[x], strides[x])

    found: list[tuple[int, _Space]] = []
    for w in image.windows:
        step, tap = (w.inner, w.outer) if maps.weight else (w.outer, w.inner)
        a, b = (w.b, w.a) if maps.weight else (w.a, w.b)
        space = _Space((w.extent, w.stride), at(step, maps.batch), at(tap, maps.channel), w.outer, a or 1, b or 1,
                       -w.constant)  # fmt: skip
        found.append((w.dim, space))
    for x in rest:
        outer = x in roles.first
        step, tap = (x, None) if outer != maps.weight else (None, x)
        space = _Space(
            at(x, image.strides), at(step, maps.batch), at(tap, maps.channel), x if outer else None, 1, 1, 0
        )
        found.append((image.dims[x], space))
    return [space for _, space in sorted(found, key=lambda item: item[0])]


def _padding(s: _Space, crop: bool) -> tuple[tuple[int, int], int]:
    """Padding before and after, and how many trailing elements of the image are cut off.

    Rows that no window reaches need no cut as long as no further window would fit."""
    after = (s.result[0] - 1) * s.stride + (s.kernel[0] - 1) * s.dilation + 1 - s.padding - s.image[0]
    if after >= 0:
        return (s.padding, after), 0
    if -after < s.stride:
        return (s.padding, 0), 0
    return ((s.padding, 0), -after) if crop else ((s.padding, after), 0)


# -- the image is made ------------------------------------------------------------------------------------------------
def solved(
    extents: Sequence[int], roles: Roles, a: Side, b: Side, result: dict[int, int]
) -> tuple[LibraryOp, bool, Axes] | None:
    """``convolution_data``, whether its first operand is ``b``, and the axes of each dimension of the result."""
    votes = _vote(roles.first, roles, a) - _vote(roles.second, roles, b)
    order = [False, True]
    if votes < 0 or (votes == 0 and _room(b) > _room(a)):
        order.reverse()
    for swapped in order:
        if swapped:
            sides, owned = (b, a), (roles.second, roles.first)
        else:
            sides, owned = (a, b), (roles.first, roles.second)
        found = _made(extents, roles, sides, owned, result)
        if found is not None:
            return found[0], swapped, found[1]
    return None


def _vote(own: Sequence[int], roles: Roles, side: Side) -> int:
    """1 if the order of dimensions is that of a result's gradient (batch, channels), -1 if that of a weight."""
    taken = {x for w in side.windows for x in (w.outer, w.inner)}
    mine, summed = ([x for x in side.plain(axes) if x not in taken] for axes in (own, roles.summed))
    if mine and summed:
        return 1 if side.dims[mine[0]] < side.dims[summed[0]] else -1
    if mine:
        return 1 if side.dims[mine[0]] == 0 else -1
    return 0 if not summed else (-1 if side.dims[summed[0]] == 0 else 1)


def _room(side: Side) -> int:
    return prod(w.extent for w in side.windows)


def _made(
    extents: Sequence[int],
    roles: Roles,
    sides: tuple[Side, Side],
    owned: tuple[Sequence[int], Sequence[int]],
    result: dict[int, int],
) -> tuple[LibraryOp, Axes] | None:
    """The reading with ``sides[0]`` as gradient of the result and ``sides[1]`` as weight."""
    upstream, weight = sides
    windows = [(w, side) for side in sides for w in side.windows]
    taken = {x for w, _ in windows for x in (w.outer, w.inner) if x is not None}
    if taken.intersection(roles.batch):
        return None
    for w, side in windows:
        if w.inner is not None and w.inner not in (weight if side is upstream else upstream).strides:
            return None
    rows, inputs, outputs = (
        [x for x in side.plain(axes) if x not in taken]
        for side, axes in ((upstream, owned[0]), (weight, owned[1]), (upstream, roles.summed))
    )
    fixed = [_unsolved(w, side is upstream, extents, sides, result) for w, side in windows]
    groups = sorted(roles.batch, key=lambda x: -upstream.strides[x])
    go = joined([*groups, *outputs], extents, upstream.strides, weight.strides)
    g = joined(groups, extents)
    if go is None or g is None:
        return None
    for batch, _ in _heads(upstream, rows, outputs):
        for channel in (inputs[:1], []):
            n = joined(batch, extents, upstream.strides, result)
            c = joined(channel, extents, weight.strides)
            gc = joined([*groups, *channel], extents, result)
            if n is None or c is None or gc is None:
                continue
            spaces = fixed + [
                _plain_space(x, True, extents, upstream, result) for x in rows if x not in batch
            ]
            spaces += [_plain_space(x, False, extents, weight, result) for x in inputs if x not in channel]
            if not 1 <= len(spaces) <= MOST:
                continue
            spaces.sort(key=lambda s: -1 if s.outer is None else s.outer)
            made = _data(upstream.dtype, (n[0], go[0], c[0], gc[0]), (n[1], go[1], c[1], gc[1]), spaces, g[0])
            axes = (
                tuple(batch),
                (*groups, *channel),
                *(() if s.outer is None else (s.outer,) for s in spaces),
            )
            return made, axes
    return None


def _data(
    dtype: DType,
    sizes: tuple[int, int, int, int],
    steps: tuple[tuple[int | None, ...], ...],
    spaces: list[_Space],
    groups: int,
) -> LibraryOp:
    """The operation from extents and strides of batch, output channels, and input channels per group and in all."""
    (n, go, c, gc), (of_n, of_go, of_c, of_gc) = sizes, steps
    first = operand(
        dtype, [n, go, *(s.result[0] for s in spaces)], [of_n[0], of_go[0], *(s.result[1] for s in spaces)]
    )
    second = operand(
        dtype, [go, c, *(s.kernel[0] for s in spaces)], [of_go[1], of_c[0], *(s.kernel[1] for s in spaces)]
    )
    out = operand(
        dtype, [n, gc, *(s.image[0] for s in spaces)], [of_n[1], of_gc[0], *(s.image[1] for s in spaces)]
    )
    return LibraryOp(
        "convolution_data", first, second, out, groups, tuple(s.stride for s in spaces),
        tuple(s.dilation for s in spaces), tuple(_padding(s, crop=False)[0] for s in spaces),
    )  # fmt: skip


def _plain_space(
    x: int, of_upstream: bool, extents: Sequence[int], side: Side, result: dict[int, int]
) -> _Space:
    """The spatial dimension of a plain axis: kernel, or what is spread, has extent 1."""
    here, none = (extents[x], side.strides[x]), (1, None)
    image = (extents[x], result[x])
    return _Space(image, here if of_upstream else none, none if of_upstream else here, x, 1, 1, 0)


def _unsolved(
    w: Window, of_upstream: bool, extents: Sequence[int], sides: tuple[Side, Side], result: dict[int, int]
) -> _Space:
    """The spatial dimension of a solved window; it is a window over what was solved for."""
    image = (1, None) if w.outer is None else (extents[w.outer], result[w.outer])
    other = sides[1 if of_upstream else 0]
    rest = (1, None) if w.inner is None else (extents[w.inner], other.strides[w.inner])
    here, step, tap = (w.extent, w.stride), w.divisor or 1, -w.b or 1
    if of_upstream:
        return _Space(image, here, rest, w.outer, step, tap, w.constant)
    return _Space(image, rest, here, w.outer, tap, step, w.constant)
