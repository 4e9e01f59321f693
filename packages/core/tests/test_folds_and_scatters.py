"""Folds that are split into partial ones, and scatters that are read back by the inverse of their index map."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse.debug import record_launches
from metafuse.index import evaluate
from metafuse.kernel.expr import axis
from metafuse.passes import affine, partial

RANDOM = np.random.default_rng(3)


def values(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def kernels(work: object) -> list[str]:
    with record_launches() as rows:
        work()  # type: ignore[operator]
    return [row.name for row in rows]


# -- partial folds ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "shape", [(9000, 40), (8192, 64), (4099, 70), (1 << 13, 3), (20000, 16), (300, 2000)], ids=str
)
def test_columns_of_long_matrices(shape: tuple[int, ...]) -> None:
    x = values(*shape)
    got = mf.array(x).sum(0).numpy()
    np.testing.assert_allclose(got, x.astype(np.float64).sum(0), rtol=1e-5, atol=1e-3)


def test_a_long_column_sum_is_shared_and_a_short_one_is_not() -> None:
    long, short = mf.array(values(8192, 64)).sync(), mf.array(values(256, 64)).sync()
    assert len(kernels(lambda: long.sum(0).sync())) == 2
    assert len(kernels(lambda: short.sum(0).sync())) == 1
    wide = mf.array(values(256, partial.FEW_PIECES * partial.LANES)).sync()
    assert len(kernels(lambda: wide.sum(0).sync())) == 1


@pytest.mark.parametrize("operator", ["sum", "max", "min"])
def test_channels_of_images(operator: str) -> None:
    x = values(12, 24, 31, 40)
    got = getattr(mf.array(x), operator)([0, 2, 3]).numpy()
    expected = getattr(x.astype(np.float64), operator)((0, 2, 3))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-2)


def test_a_map_and_its_partial_fold_are_one_kernel() -> None:
    x, y = mf.array(values(16, 512, 64)).sync(), mf.array(values(16, 512, 64)).sync()

    def work() -> None:
        product = x * y
        mf.sync([product, product.sum([0, 1])])

    assert len(kernels(work)) == 2


# -- scatters by their inverse --------------------------------------------------------------------------------------
def gradient(function: object, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    v = mf.array(x).start_grad()
    (found,) = mf.grad((function(v) * mf.array(weight)).sum(), [v])  # type: ignore[operator]
    return found.numpy()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(2, 2, 0), (2, 2, 1), (3, 3, 0), (2, 3, 0), ((1, 2), (1, 2), 0), (3, 2, 1)],
    ids=str,
)
@pytest.mark.parametrize("size", [(6, 6), (7, 9), (2, 11)], ids=str)
def test_gradient_of_windows(kernel: object, stride: object, padding: int, size: tuple[int, int]) -> None:
    x = values(2, 3, *size)
    pooled = mf.nn.pool(mf.array(x), kernel, "add", padding, stride) if min(size) > 2 else None
    if pooled is None:
        return
    weight = values(*pooled.shape)
    got = gradient(lambda v: mf.nn.pool(v, kernel, "add", padding, stride), x, weight)
    k, s = ((n, n) if isinstance(n, int) else n for n in (kernel, stride))  # type: ignore[misc]
    expected = np.zeros((2, 3, size[0] + 2 * padding + 9, size[1] + 2 * padding + 9), np.float32)
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            expected[:, :, i * s[0] : i * s[0] + k[0], j * s[1] : j * s[1] + k[1]] += weight[
                :, :, i : i + 1, j : j + 1
            ]
    expected = expected[:, :, padding : padding + size[0], padding : padding + size[1]]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


SLICES = {
    "middle": (slice(None), slice(1, 4)),
    "backwards": (slice(None, None, -1), slice(None)),
    "every second": (slice(None, None, 2), slice(None)),
    "one of few": (slice(None), 2),
    "the first": (0,),
    "last ones": (slice(-3, None), slice(-2, None)),
    "an added dimension": (None, slice(1, None)),
}


@pytest.mark.parametrize("name", SLICES)
def test_gradient_of_slices(name: str) -> None:
    x, where = values(4, 5), SLICES[name]
    weight = values(*x[where].shape)
    expected = np.zeros_like(x)
    expected[where if None not in where else where[1:]] = weight if None not in where else weight[0]
    np.testing.assert_array_equal(gradient(lambda v: v[where], x, weight), expected)


def test_gradient_of_maximum_pooling_is_part_of_its_reader() -> None:
    x = mf.array(values(2, 4, 8, 8)).start_grad()
    pooled = mf.nn.pool(x.relu(), 2, "maximum")
    (found,) = mf.grad(pooled.sum(), [x])
    mf.sync(mf.array(0.0))
    assert len(kernels(lambda: found.sync())) <= 2
    a = np.maximum(x.numpy(), 0).reshape(2, 4, 4, 2, 4, 2).transpose(0, 1, 2, 4, 3, 5).reshape(2, 4, 4, 4, 4)
    first = np.eye(4, dtype=np.float32)[a.argmax(-1)] * (a.max(-1, keepdims=True) > 0)
    expected = first.reshape(2, 4, 4, 4, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(2, 4, 8, 8)
    np.testing.assert_array_equal(found.numpy(), expected)


# -- images in tiles --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("shape", "other"),
    [
        ((2, 3, 4, 6), (2, 3, 2, 2, 3, 2)),
        ((2, 3, 2, 2, 3, 2), (2, 3, 4, 6)),
        ((2, 1, 4, 5), (2, 1, 4, 1, 5, 1)),
        ((6, 5), (6, 5)),
    ],
    ids=str,
)
def test_an_index_into_one_shape_as_one_into_another(shape: tuple[int, ...], other: tuple[int, ...]) -> None:
    index = affine.reindexed([axis(k) for k in range(len(shape))], shape, other)
    places = np.indices(shape)
    found = [np.broadcast_to(evaluate(x, list(places)), shape) for x in index]
    expected = np.unravel_index(np.arange(np.prod(shape)).reshape(shape), other)
    for got, place in zip(found, expected, strict=True):
        np.testing.assert_array_equal(got, place)


@pytest.mark.parametrize(
    ("shape", "other"),
    [((4, 6), (3, 8)), ((2, 3), (7,)), ((2, 6, 2), (3, 8)), ((6, 1, 4), (2, 3, 4))],
    ids=str,
)
def test_shapes_that_share_no_dimensions(shape: tuple[int, ...], other: tuple[int, ...]) -> None:
    assert affine.shared_dims(shape, other) is None


def block(x: mf.Var, weight: mf.Var, scale: mf.Var, shift: mf.Var) -> mf.Var:
    y = mf.nn.conv2d(x, weight)
    y = (y - y.mean([0, 2, 3], keepdims=True)) * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)
    return mf.nn.pool(y.relu(), 2, "maximum")


def test_a_normalised_image_in_front_of_pooling_is_stored_nowhere() -> None:
    arrays = [values(4, 8, 10, 10), values(16, 8, 3, 3), values(16), values(16)]

    def run() -> tuple[mf.Var, ...]:
        given = [mf.array(a).start_grad() for a in arrays]
        loss = (block(*given) ** 2).sum()
        return (loss, *mf.grad(loss, given))

    with record_launches() as rows:
        found = run()
        mf.sync(list(found))
    names = {row.name for row in rows}
    if any(
        name.startswith("library") for name in names
    ):  # the order of an image is chosen where there is a library
        assert not names & {"relu", "ternary", "reindex_reduce"}, names
    with mf.flag_scope(library=0):
        expected = [v.numpy() for v in run()]
    for got, value in zip(found, expected, strict=True):
        np.testing.assert_allclose(got.numpy(), value, rtol=2e-4, atol=2e-4 * float(np.abs(value).max()))
