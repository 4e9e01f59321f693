"""Reads of images at free places, as loops.

What it is: values and both gradients of sampling at element numbers, linear or nearest, each in C++ and in NumPy.
What it is not: how places become element numbers or what continues beyond the border (``sampling``), whose composition of the
same reads gives gradients of gradients.
Who calls it: ``sampling``.

Shapes: the image ``[batch, channels, *size]``, the places ``[batch, *out, spatial]``, columns in the order of the image's
dimensions. What lies outside counts as 0.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np

from ...graph.node import spec_of
from ..native_loop import native_loop

__all__ = ["image_gradient", "places_gradient", "sampled"]

Array = np.ndarray[Any, Any]

#: per place: the corners that are inside, as distances within a channel, their weights and the slopes of these
_HEADER = """#include <cmath>
#include <cstring>
#include <vector>
template <class T, int D> struct Corners {
    static const int most = 1 << D;
    int count;
    long at[most];
    T weight[most], slope[D][most];
    // far outside stays outside, and in the range of integers; so does what is no number
    static T kept(T place, long size) {
        const T limit = (T)(size + 2);
        return place > -3 ? (place < limit ? place : limit) : (T)-3;
    }
    // the nearest element, -1 if it is outside
    static long nearest(const T *place, const long *size) {
        long flat = 0;
        bool inside = true;
        for (int d = 0; d < D; ++d) {
            const long k = (long)std::nearbyint(kept(place[d], size[d]));
            inside = inside & (k >= 0) & (k < size[d]);
            flat = flat * size[d] + k;
        }
        return inside ? flat : -1;
    }
    template <bool SLOPES> void find(const T *place, const long *size, bool linear) {
        long whole[D];
        T part[D];
        count = 0;
        if (!linear) {
            at[0] = nearest(place, size);
            weight[0] = 1;
            count = at[0] >= 0;
            return;
        }
        for (int d = 0; d < D; ++d) {
            const T here = kept(place[d], size[d]), low = std::floor(here);
            whole[d] = (long)low;
            part[d] = here - low;
        }
        for (int corner = 0; corner < most; ++corner) {
            long flat = 0;
            T product = 1, without[D];
            bool inside = true;
            for (int d = 0; d < D; ++d) without[d] = 1;
            for (int d = 0; d < D; ++d) {
                const int up = corner >> (D - 1 - d) & 1;
                const long k = whole[d] + up;
                inside = inside && k >= 0 && k < size[d];
                flat = flat * size[d] + k;
                const T share = up ? part[d] : 1 - part[d];
                product *= share;
                for (int e = 0; SLOPES && e < D; ++e) without[e] *= e == d ? (up ? (T)1 : (T)-1) : share;
            }
            if (!inside) continue;
            at[count] = flat;
            weight[count] = product;
            for (int d = 0; SLOPES && d < D; ++d) slope[d][count] = without[d];
            ++count;
        }
    }
};
// Places are taken in pieces: their corners are found once and used for all channels.
const long PIECE = 512;
// Corners of a piece of places, for linear reads only: two corners that are neighbours are read at once, so that nothing is
// chosen per place but where. A corner that is outside has the weight NaN, which stands for leaving it out.
template <class T, int D> struct Pairs {
    static const int most = 1 << (D - 1);
    alignas(64) int at[most][PIECE];
    T low[most][PIECE], high[most][PIECE], read[most][2 * PIECE];
    static bool fit(const long *size, long area) { return size[D - 1] >= 2 && area <= 0x7fffffff; }
    void find(const T *place, long length, const long *size) {
        const T none = __builtin_nan("");
        #pragma omp simd
        for (long k = 0; k < length; ++k) {
            int whole[D];
            T part[D];
            for (int d = 0; d < D; ++d) {
                const T here = Corners<T, D>::kept(place[k * D + d], size[d]), floor = std::floor(here);
                whole[d] = (int)floor;
                part[d] = here - floor;
            }
            const int x = whole[D - 1], last = (int)size[D - 1] - 2, start = x < 0 ? 0 : x > last ? last : x;
            const T up = part[D - 1], down = 1 - up;
            const T left = x == start ? down : x + 1 == start ? up : none;
            const T right = x == start ? up : x - 1 == start ? down : none;
            for (int pair = 0; pair < most; ++pair) {
                int flat = 0;
                T product = 1;
                bool inside = true;
                for (int d = 0; d < D - 1; ++d) {
                    const int up = pair >> (D - 2 - d) & 1, row = whole[d] + up;
                    inside = inside & (row >= 0) & (row < (int)size[d]);
                    flat = (int)((unsigned)flat * (unsigned)size[d] + (unsigned)row);
                    const T rest = 1 - part[d];
                    product *= up ? part[d] : rest;
                }
                flat = (int)((unsigned)flat * (unsigned)size[D - 1] + (unsigned)start);
                at[pair][k] = inside ? flat : 0;
                const T first = product * left, second = product * right;
                low[pair][k] = inside ? first : none;
                high[pair][k] = inside ? second : none;
            }
        }
    }
    void values(const T *image, long length, T *found) {
        for (int pair = 0; pair < most; ++pair)
            for (long k = 0; k < length; ++k) std::memcpy(read[pair] + 2 * k, image + at[pair][k], 2 * sizeof(T));
        #pragma omp simd
        for (long k = 0; k < length; ++k) {
            T sum = 0;
            for (int pair = 0; pair < most; ++pair) {
                const T first = low[pair][k], one = first * read[pair][2 * k];
                const T second = high[pair][k], other = second * read[pair][2 * k + 1];
                sum += first == first ? one : 0;
                sum += second == second ? other : 0;
            }
            found[k] = sum;
        }
    }
};
"""

#: what all three loops begin with; IMAGE is the number of the input that has the image's shape, or of the output
_BEGIN = """
typedef in0_type T;
const int D = @IMAGE@_dim - 2;
const bool linear = data["linear"] != 0;
long size[3] = {1, 1, 1}, area = 1;
for (int d = 0; d < D; ++d) size[d] = @IMAGE@->shape[2 + d], area *= size[d];
const long batch = @IMAGE@_shape0, channels = @IMAGE@_shape1;
long count = 1;
for (int d = 0; d < D; ++d) count *= @PLACES@->shape[1 + d];
const long pieces = (count + PIECE - 1) / PIECE;
"""

_VALUES = """
#pragma omp parallel
{
    const bool paired = linear && Pairs<T, in0_dim - 2>::fit(size, area);
    std::vector<Pairs<T, in0_dim - 2>> pairs(paired);
    std::vector<Corners<T, in0_dim - 2>> corners(linear && !paired ? PIECE : 0);
    std::vector<long> single(linear ? 0 : PIECE);
    #pragma omp for collapse(2)
    for (long n = 0; n < batch; ++n) for (long piece = 0; piece < pieces; ++piece) {
        const long first = piece * PIECE, length = count - first < PIECE ? count - first : PIECE;
        const T *places = in1_p + (n * count + first) * D;
        if (paired) pairs[0].find(places, length, size);
        else if (linear) {
            for (long k = 0; k < length; ++k) corners[k].template find<false>(places + k * D, size, true);
        } else {
            #pragma omp simd
            for (long k = 0; k < length; ++k) single[k] = Corners<T, in0_dim - 2>::nearest(places + k * D, size);
        }
        for (long c = 0; c < channels; ++c) {
            const T *image = in0_p + (n * channels + c) * area;
            T *found = out_p + (n * channels + c) * count + first;
            if (paired) {
                pairs[0].values(image, length, found);
                continue;
            }
            if (!linear) {
                #pragma omp simd
                for (long k = 0; k < length; ++k) {
                    const T read = image[single[k] < 0 ? 0 : single[k]];
                    found[k] = single[k] < 0 ? (T)0 : read;
                }
                continue;
            }
            for (long k = 0; k < length; ++k) {
                T sum = 0;
                for (int j = 0; j < corners[k].count; ++j) sum += corners[k].weight[j] * image[corners[k].at[j]];
                found[k] = sum;
            }
        }
    }
}
"""

#: images are independent, and so are channels: few images are dealt out in blocks of channels
_IMAGE = """
const long blocks = batch >= 8 ? 1 : channels < 4 ? channels : 4;
#pragma omp parallel
{
    std::vector<Corners<T, out_dim - 2>> corners(linear ? count : 0);
    std::vector<long> single(linear ? 0 : count);
    #pragma omp for
    for (long unit = 0; unit < batch * blocks; ++unit) {
        const long n = unit / blocks, block = unit % blocks;
        for (long k = 0; k < count; ++k) {
            const T *place = in1_p + (n * count + k) * D;
            if (linear) corners[k].template find<false>(place, size, true);
            else single[k] = Corners<T, out_dim - 2>::nearest(place, size);
        }
        for (long c = channels * block / blocks; c < channels * (block + 1) / blocks; ++c) {
            T *found = out_p + (n * channels + c) * area;
            const T *upstream = in0_p + (n * channels + c) * count;
            for (long k = 0; k < area; ++k) found[k] = 0;
            if (linear) {
                for (long k = 0; k < count; ++k)
                    for (int j = 0; j < corners[k].count; ++j) found[corners[k].at[j]] += corners[k].weight[j] * upstream[k];
            } else {
                for (long k = 0; k < count; ++k)
                    if (single[k] >= 0) found[single[k]] += upstream[k];
            }
        }
    }
}
"""

_PLACES = """
#pragma omp parallel
{
    std::vector<Corners<T, in1_dim - 2>> corners(PIECE);
    #pragma omp for collapse(2)
    for (long n = 0; n < batch; ++n) for (long piece = 0; piece < pieces; ++piece) {
        const long first = piece * PIECE, length = count - first < PIECE ? count - first : PIECE;
        T *found = out_p + (n * count + first) * D;
        for (long k = 0; k < length; ++k) corners[k].template find<true>(in2_p + (n * count + first + k) * D, size, true);
        for (long k = 0; k < length * D; ++k) found[k] = 0;
        for (long c = 0; c < channels; ++c) {
            const T *image = in1_p + (n * channels + c) * area, *upstream = in0_p + (n * channels + c) * count + first;
            for (long k = 0; k < length; ++k)
                for (int j = 0; j < corners[k].count; ++j) {
                    const T share = upstream[k] * image[corners[k].at[j]];
                    for (int d = 0; d < D; ++d) found[k * D + d] += share * corners[k].slope[d][j];
                }
        }
    }
}
"""


def _source(text: str, image: str, places: str) -> str:
    return _BEGIN.replace("@IMAGE@", image).replace("@PLACES@", places) + text


# -- the same in NumPy --------------------------------------------------------------------------------------------
def _corners(places: Array, size: tuple[int, ...], linear: bool) -> Any:
    """Per corner: what is inside, the flat place, the weight, and its slopes; each over ``[batch, places]``."""
    at = places.reshape(len(places), prod(places.shape[1:-1]), len(size))
    whole = np.floor(at) if linear else np.rint(at)
    part = at - whole
    for corner in product((0, 1), repeat=len(size)) if linear else [(0,) * len(size)]:
        k = whole + corner
        inside = np.all((k >= 0) & (k < size), -1)
        safe = np.where(np.expand_dims(inside, -1), k, 0).astype(np.int64)
        flat = np.ravel_multi_index(tuple(np.moveaxis(safe, -1, 0)), size)
        shares = np.where(corner, part, 1 - part) if linear else np.ones_like(part)
        slopes = [
            (1 if up else -1) * np.delete(shares, d, -1).prod(-1) if linear else 0.0
            for d, up in enumerate(corner)
        ]
        yield inside, flat, shares.prod(-1), slopes


def _rows(image: Array) -> Array:
    """``[batch, channels, elements]``, also where there are none."""
    return image.reshape(*image.shape[:2], prod(image.shape[2:]))


def _values(image: Array, places: Array, linear: int) -> Array:
    n, channels = image.shape[:2]
    flat_image = _rows(image)
    found = np.zeros((n, channels, prod(places.shape[1:-1])), image.dtype)
    for inside, flat, weight, _ in _corners(places, image.shape[2:], bool(linear)):
        read = np.take_along_axis(flat_image, flat[:, None], 2)
        found += np.where(inside[:, None], weight[:, None] * read, 0)
    return found.reshape(n, channels, *places.shape[1:-1])


def _image_gradient(upstream: Array, places: Array, linear: int, **size: int) -> Array:
    n, channels = upstream.shape[:2]
    extents = tuple(size.values())
    found = np.zeros((n, channels, prod(extents)), upstream.dtype)
    up = _rows(upstream)
    for inside, flat, weight, _ in _corners(places, extents, bool(linear)):
        for b in range(n):
            share = np.where(inside[b], weight[b] * up[b], 0)
            for c in range(channels):
                np.add.at(found[b, c], flat[b], share[c])
    return found.reshape(n, channels, *extents)


def _places_gradient(upstream: Array, image: Array, places: Array, linear: int) -> Array:
    n = len(image)
    flat_image, up = _rows(image), _rows(upstream)
    found = np.zeros((n, up.shape[2], image.ndim - 2), image.dtype)
    for inside, flat, _, slopes in _corners(places, image.shape[2:], True):
        share = np.where(inside, (up * np.take_along_axis(flat_image, flat[:, None], 2)).sum(1), 0)
        for d, slope in enumerate(slopes):
            found[..., d] += share * slope
    return found.reshape(places.shape)


# -- recording ----------------------------------------------------------------------------------------------------
def sampled(image: Any, places: Any, linear: bool) -> Any:
    """``[batch, channels, *out]``."""
    spec = spec_of((*image.shape[:2], *places.shape[1:-1]), image.dtype)
    source = _source(_VALUES, "in0", "in1")
    return native_loop("grid_sample", source, _values, [image, places], spec, _HEADER, linear=int(linear))


def image_gradient(upstream: Any, places: Any, shape: tuple[int, ...], linear: bool) -> Any:
    """Of the image of ``shape``: what reaches each read, added up where it was read."""
    source = _source(_IMAGE, "out", "in1")
    size = {f"size{d}": n for d, n in enumerate(shape[2:])}
    return native_loop("grid_sample_image", source, _image_gradient, [upstream, places],
                       spec_of(shape, upstream.dtype), _HEADER, linear=int(linear), **size)  # fmt: skip


def places_gradient(upstream: Any, image: Any, places: Any) -> Any:
    """Of the places, for linear reads: differences of corners, summed over channels."""
    source = _source(_PLACES, "in1", "in2")
    return native_loop("grid_sample_places", source, _places_gradient, [upstream, image, places],
                       spec_of(tuple(places.shape), image.dtype), _HEADER, linear=1)  # fmt: skip
