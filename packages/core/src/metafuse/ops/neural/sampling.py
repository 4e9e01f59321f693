"""Sampling images and volumes at free places, and the grids of such places.

What it is: ``grid_sample``: weighted reads at the corners around each place (``sampling_loops``) and their gradients;
``affine_grid``; and the steps they are made of, which the reference API names too.
What it is not: resizing to a regular grid (``resizing``), which needs no places.
Who calls it: users.

Places are numbers from -1 to 1 over an image: with ``align_corners`` these are the centres of the outermost elements, else the
borders of the image.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from ...errors import DTypeError, ShapeError, brief
from ...var import wrap
from ..autograd import grad, no_grad
from ..elementwise import cast
from ..meta import check_flag, check_var, fill, identity, index, with_gradient
from ..precision import in_float32
from ..recipe import recorded
from ..registry import Sample, Tensor, operator
from ..shape import concat, stack
from ..telling import tells
from . import sampling_oracles as oracles
from .checks import choice, integer, need_ndim
from .sampling_loops import image_gradient, places_gradient, sampled

__all__ = [
    "affine_grid", "affine_grid_generator_4D", "affine_grid_generator_5D", "clip_coordinates", "grid_sample",
    "grid_sample_v0", "grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "grid_sampler_compute_source_index",
    "grid_sampler_unnormalize", "linspace_from_neg_one", "make_base_grid_4D", "make_base_grid_5D",
    "reflect_coordinates",
]  # fmt: skip

MODES, PADDINGS = ("bilinear", "nearest"), ("zeros", "border", "reflection")


# -- grids --------------------------------------------------------------------------------------------------------
def linspace_from_neg_one(grid: Any, num_steps: int, align_corners: bool) -> Any:
    """``num_steps`` places from -1 to 1 in the dtype of ``grid``: with ``align_corners`` the ends themselves, else the middles of
    equal parts. One place lies at 0.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.linspace_from_neg_one(mf.ones([1]), 4, False).numpy()
        array([-0.75, -0.25,  0.25,  0.75], dtype=float32)
    """
    count = integer("linspace_from_neg_one", "num_steps", num_steps, 1)
    i = cast(index([count], 0), check_var("linspace_from_neg_one", "grid", grid).dtype)
    if count == 1:
        return i * 0.0
    corners = check_flag("linspace_from_neg_one", "align_corners", align_corners)
    return i * (2.0 / (count - 1)) - 1.0 if corners else i * (2.0 / count) - (1.0 - 1.0 / count)


def _base_grid(op: str, theta: Any, batch: Any, sizes: tuple[Any, ...], align_corners: bool) -> Any:
    """``[batch, *sizes, len(sizes) + 1]``: x, y (, z) and 1 of every element."""
    theta = check_var(op, "theta", theta)
    names = ("batch size", *("depth", "height", "width")[-len(sizes) :])
    shape = [integer(op, name, n, 1) for name, n in zip(names, (batch, *sizes), strict=True)]
    parts = []
    for d in range(len(sizes), 0, -1):
        line = linspace_from_neg_one(theta, shape[d], align_corners)
        parts.append(line.reshape([-1] + [1] * (len(sizes) - d)).broadcast(shape))
    parts.append(parts[0] * 0.0 + 1.0)
    return concat([p.reshape([*shape, 1]) for p in parts], len(shape))


def make_base_grid_4D(theta: Any, N: int, C: int, H: int, W: int, align_corners: bool) -> Any:
    """``[N, H, W, 3]``: the place (x, y, 1) of every element of an image.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.make_base_grid_4D(mf.ones([1, 2, 3]), 1, 3, 1, 2, False).numpy()
        array([[[[-0.5,  0. ,  1. ],
                 [ 0.5,  0. ,  1. ]]]], dtype=float32)
    """
    return _base_grid("make_base_grid_4D", theta, N, (H, W), align_corners)


def make_base_grid_5D(theta: Any, N: int, C: int, D: int, H: int, W: int, align_corners: bool) -> Any:
    """``[N, D, H, W, 4]``: the place (x, y, z, 1) of every element of a volume.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.make_base_grid_5D(mf.ones([1, 3, 4]), 1, 2, 1, 2, 3, False).shape
        (1, 1, 2, 3, 4)
    """
    return _base_grid("make_base_grid_5D", theta, N, (D, H, W), align_corners)


def _affine(op: str, theta: Any, batch: Any, sizes: tuple[Any, ...], align_corners: bool) -> Any:
    """Every element's place moved by its sample's matrix, element-wise: no grid is stored."""
    theta = check_var(op, "theta", theta)
    spatial = len(sizes)
    for name, n in zip(("N", *"DHW"[-spatial:]), (batch, *sizes), strict=True):
        integer(op, name, n, 1)
    wanted = (batch, spatial, spatial + 1)
    if tuple(theta.shape) != wanted or not theta.dtype.is_float:
        raise ShapeError(
            f"[{op}] theta must be floating point {wanted}, got {theta.dtype} {tuple(theta.shape)}"
        )
    ones = [1] * spatial

    def column(k: int) -> Any:
        return theta[:, :, k].reshape([batch, *ones, spatial])

    moved = column(spatial)
    for k in range(spatial):  # x belongs to the last dimension
        d = spatial - 1 - k
        line = linspace_from_neg_one(theta, sizes[d], align_corners)
        moved = moved + line.reshape([1, *(sizes[d] if j == d else 1 for j in range(spatial)), 1]) * column(k)
    return moved


def affine_grid_generator_4D(theta: Any, N: int, C: int, H: int, W: int, align_corners: bool) -> Any:
    """``affine_grid`` of images.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.affine_grid_generator_4D(mf.ones([1, 2, 3]), 1, 2, 4, 5, False).shape
        (1, 4, 5, 2)
    """
    return _affine("affine_grid_generator_4D", theta, N, (H, W), align_corners)


def affine_grid_generator_5D(theta: Any, N: int, C: int, D: int, H: int, W: int, align_corners: bool) -> Any:
    """``affine_grid`` of volumes.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.affine_grid_generator_5D(mf.ones([1, 3, 4]), 1, 2, 3, 4, 5, False).shape
        (1, 3, 4, 5, 3)
    """
    return _affine("affine_grid_generator_5D", theta, N, (D, H, W), align_corners)


@operator(category="nn", numpy=oracles.affine_grid, source="Jaderberg et al. 2015", samples=[
    Sample((Tensor((2, 2, 3)), (2, 3, 4, 5))), Sample((Tensor((2, 2, 3)), (2, 1, 1, 3), True)),
    Sample((Tensor((1, 3, 4)), (1, 2, 2, 3, 4))),
])  # fmt: skip
def affine_grid(theta: Any, size: Any, align_corners: bool = False) -> Any:
    """Places for ``grid_sample``: those of every element, moved by an affine map per sample.

    Args:
        theta: ``[batch, 2, 3]`` for images, ``[batch, 3, 4]`` for volumes.
        size: of the result of sampling: ``(batch, channels, [depth,] height, width)``.
        align_corners: as in ``grid_sample``.

    Result: ``[batch, [depth,] height, width, 2 or 3]``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.affine_grid(mf.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]), (1, 3, 4, 5)).shape
        (1, 4, 5, 2)
    """
    if not isinstance(size, (tuple, list)) or len(size) not in (4, 5):
        raise ShapeError(
            f"[affine_grid] size must be (batch, channels, [depth,] height, width), got {brief(size)}"
        )
    return _affine("affine_grid", theta, size[0], tuple(size[2:]), align_corners)


# -- places -------------------------------------------------------------------------------------------------------
def grid_sampler_unnormalize(coord: Any, size: int, align_corners: bool) -> Any:
    """Places -1 .. 1 as element numbers of an extent ``size``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.grid_sampler_unnormalize(mf.array([-1.0, 1.0]), 5, True).numpy()
        array([0., 4.], dtype=float32)
    """
    coord = check_var("grid_sampler_unnormalize", "coord", coord)
    size = integer("grid_sampler_unnormalize", "size", size, 1)
    if check_flag("grid_sampler_unnormalize", "align_corners", align_corners):
        return (coord + 1.0) * ((size - 1) / 2)
    return (coord + 1.0) * (size / 2) - 0.5


def clip_coordinates(x: Any, clip_limit: int) -> Any:
    """Element numbers limited to ``0 .. clip_limit - 1``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.clip_coordinates(mf.array([-1.0, 1.5, 9.0]), 4).tolist()
        [0.0, 1.5, 3.0]
    """
    limit = integer("clip_coordinates", "clip_limit", clip_limit, 1)
    return check_var("clip_coordinates", "x", x).maximum(0.0).minimum(float(limit - 1))


def reflect_coordinates(x: Any, twice_low: int, twice_high: int) -> Any:
    """Element numbers mirrored, as often as need be, at half of ``twice_low`` and of ``twice_high``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.reflect_coordinates(mf.array([-1.0, 3.0]), 0, 4).numpy()
        array([1., 1.], dtype=float32)
    """
    x = check_var("reflect_coordinates", "x", x)
    twice_low = integer("reflect_coordinates", "twice_low", twice_low, -(2**53))
    twice_high = integer("reflect_coordinates", "twice_high", twice_high, twice_low)
    if twice_low == twice_high:
        return x * 0.0
    low, span = twice_low / 2, (twice_high - twice_low) / 2
    there_and_back = (x - low).abs() % (2.0 * span)
    return there_and_back.minimum(2.0 * span - there_and_back) + low


def grid_sampler_compute_source_index(coord: Any, size: int, padding_mode: str, align_corners: bool) -> Any:
    """Places -1 .. 1 as element numbers, brought inside as ``padding_mode`` says.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.grid_sampler_compute_source_index(mf.array([-2.0, 1.0]), 5, "border", True).tolist()
        [0.0, 4.0]
    """
    choice("grid_sampler_compute_source_index", "padding_mode", padding_mode, PADDINGS)
    coord = grid_sampler_unnormalize(coord, size, align_corners)
    if padding_mode == "border":
        return clip_coordinates(coord, size)
    if padding_mode == "reflection":
        ends = (0, 2 * (size - 1)) if align_corners else (-1, 2 * size - 1)
        return clip_coordinates(reflect_coordinates(coord, *ends), size)
    return coord


# -- sampling -----------------------------------------------------------------------------------------------------
def _sample(op: str, x: Any, grid: Any, mode: str, padding_mode: str, align_corners: bool) -> Any:
    x, grid = check_var(op, "input", x), check_var(op, "grid", grid)
    spatial = x.ndim - 2
    choice(op, "mode", mode, MODES)
    choice(op, "padding_mode", padding_mode, PADDINGS)
    if grid.ndim != x.ndim or grid.shape[0] != x.shape[0] or grid.shape[-1] != spatial:
        raise ShapeError(
            f"[{op}] grid must be [{x.shape[0]}, ..., {spatial}] with {x.ndim} dimensions for input "
            f"{tuple(x.shape)}, got {tuple(grid.shape)}"
        )
    if not x.dtype.is_float or not grid.dtype.is_float:
        raise DTypeError(f"[{op}] input and grid must be floating point, got {x.dtype} and {grid.dtype}")
    if min(x.shape[2:]) < 1:
        raise ShapeError(f"[{op}] input must not be empty, got shape {tuple(x.shape)}")
    places = [  # by dimension of x, so the last column of grid first
        grid_sampler_compute_source_index(
            grid[..., spatial - 1 - d],
            x.shape[2 + d],
            padding_mode,
            check_flag(op, "align_corners", align_corners),
        )
        for d in range(spatial)
    ]
    return _at(x, cast(stack(places, -1), x.dtype), mode == "bilinear")


def _at(x: Any, places: Any, linear: bool) -> Any:
    """Reads at ``places`` ``[batch, *out, spatial]``, in the order of the dimensions of ``x``."""
    with no_grad():
        y = sampled(x, places, linear)
    return with_gradient(y, [x, places], "grid_sample", linear, _gradient)


def _gradient(node: Any, upstream: Any) -> list[Any]:
    x, places = (wrap(n) for n in node.inputs[1:])
    return [
        None,
        _spread(upstream, places, node.inputs[1].spec.shape, node.sig.attrs),
        _moved(upstream, x, places, node.sig.attrs),
    ]


def _spread(upstream: Any, places: Any, shape: tuple[int, ...], linear: bool) -> Any:
    """The gradient of the image. It is linear in ``upstream``, so its own gradients are reads again."""
    with no_grad():
        found = image_gradient(upstream, places, shape, linear)
    return with_gradient(found, [upstream, places], "grid_sample_image", (shape, linear), _spread_gradient)


def _spread_gradient(node: Any, upstream: Any) -> list[Any]:
    inner, places = (wrap(n) for n in node.inputs[1:])
    linear = node.sig.attrs[1]
    return [None, _at(upstream, places, linear), _moved(inner, upstream, places, linear)]


def _moved(upstream: Any, x: Any, places: Any, linear: bool) -> Any:
    """The gradient of the places; to nearest elements it is zeros, since moving one a little changes nothing."""
    if not linear:
        return fill(tuple(places.shape), 0, places.dtype)
    with no_grad():
        found = places_gradient(upstream, x, places)
    return with_gradient(found, [upstream, x, places], "grid_sample_places", None, _moved_gradient)


def _moved_gradient(node: Any, upstream: Any) -> list[Any]:
    """Which only gradients of gradients ask for: that of the reads composed of operators."""
    # nodes of their own, through which no other path leads
    inner, x, places = given = [identity(wrap(n)) for n in node.inputs[1:]]
    found = grad((_composed(x, places) * inner).sum(), [places])[0]
    return [None, *grad((found * upstream).sum(), given)]


def _composed(x: Any, places: Any) -> Any:
    """Linear reads as one element-wise expression over the corners around each place."""
    spatial = x.ndim - 2
    out = [*x.shape[:2], *places.shape[1:-1]]
    here = ",".join(["i0", *(f"i{2 + d}" for d in range(spatial))])
    columns = [places[..., d] for d in range(spatial)]
    floors = [p.detach().floor() for p in columns]
    begins = [cast(f, "int32") for f in floors]
    parts = [p - f for p, f in zip(columns, floors, strict=True)]
    y = None
    for corner in product((0, 1), repeat=spatial):
        at = ["i0", "i1", *(f"@e{d}({here})+{c}" for d, c in enumerate(corner))]
        weight = None
        for c, part in zip(corner, parts, strict=True):
            factor = part if c else 1.0 - part
            weight = factor if weight is None else weight * factor
        term = x.reindex(out, at, 0, [], begins) * weight.broadcast(out, [1])  # type: ignore[union-attr]
        y = term if y is None else y + term
    return y


_GRID = Tensor((2, 3, 5, 2), "float", -1.3, 1.3)
_PICTURE = Tensor((2, 2, 4, 3))
_SAMPLES = [
    *(Sample((_PICTURE, _GRID, mode, padding, align)) for mode in MODES for padding in PADDINGS for align in (False, True)),
    Sample((Tensor((1, 2, 3, 2, 4)), Tensor((1, 2, 2, 2, 3), "float", -1.3, 1.3))),
]  # fmt: skip


@operator(category="nn", numpy=oracles.grid_sample, samples=_SAMPLES, source="Jaderberg et al. 2015")
@recorded
@in_float32
def grid_sample(
    input: Any, grid: Any, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool = False
) -> Any:
    """Read an image or a volume at free places.

    Args:
        input: ``[batch, channels, [depth,] height, width]``, floating point.
        grid: ``[batch, [out depth,] out height, out width, 2 or 3]``: x (along width), y (, z) from -1 to 1.
        mode: ``"bilinear"`` (in volumes trilinear) or ``"nearest"``.
        padding_mode: what lies outside: ``"zeros"``, ``"border"`` (its elements continue) or ``"reflection"``.
        align_corners: -1 and 1 are the centres of the outermost elements, else the borders of the image.

    Result: ``[batch, channels, [out depth,] out height, out width]``. Gradients flow to both.

    Example:
        >>> import metafuse as mf
        >>> image = mf.array([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> mf.nn.grid_sample(image, mf.array([[[[0.0, 0.0]]]])).item()
        2.5
    """
    input = check_var("grid_sample", "input", input)
    need_ndim("grid_sample", "input", input, [4, 5], "(batch, channels, [depth,] height, width)")
    return _sample("grid_sample", input, grid, mode, padding_mode, align_corners)


def grid_sampler(X: Any, grid: Any, mode: str, padding_mode: str, align_corners: bool) -> Any:
    """``grid_sample`` with every argument given.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.grid_sampler(mf.ones([1, 2, 4, 4]), mf.zeros([1, 3, 3, 2]), "bilinear", "zeros", False).shape
        (1, 2, 3, 3)
    """
    return grid_sample(X, grid, mode, padding_mode, align_corners)


@in_float32
@in_float32
def grid_sampler_2d(X: Any, grid: Any, mode: str, padding_mode: str, align_corners: bool) -> Any:
    """``grid_sample`` of images.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.grid_sampler_2d(mf.ones([1, 2, 4, 4]), mf.zeros([1, 3, 3, 2]), "bilinear", "zeros", False).shape
        (1, 2, 3, 3)
    """
    X = check_var("grid_sampler_2d", "X", X)
    need_ndim("grid_sampler_2d", "X", X, [4], "(batch, channels, height, width)")
    return _sample("grid_sampler_2d", X, grid, mode, padding_mode, align_corners)


@in_float32
@in_float32
def grid_sampler_3d(X: Any, grid: Any, mode: str, padding_mode: str, align_corners: bool) -> Any:
    """``grid_sample`` of volumes.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.grid_sampler_3d(mf.ones([1, 2, 4, 4, 4]), mf.zeros([1, 3, 3, 3, 3]), "bilinear", "zeros", False).shape
        (1, 2, 3, 3, 3)
    """
    X = check_var("grid_sampler_3d", "X", X)
    need_ndim("grid_sampler_3d", "X", X, [5], "(batch, channels, depth, height, width)")
    return _sample("grid_sampler_3d", X, grid, mode, padding_mode, align_corners)


@tells
def grid_sample_v0(input: Any, grid: Any, mode: str = "bilinear", padding_mode: str = "zeros") -> Any:
    """``grid_sample`` of images with ``align_corners``: the reference API's first version.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.grid_sample_v0(mf.ones([1, 2, 4, 4]), mf.zeros([1, 3, 3, 2])).shape
        (1, 2, 3, 3)
    """
    return grid_sampler_2d(input, grid, mode, padding_mode, True)
