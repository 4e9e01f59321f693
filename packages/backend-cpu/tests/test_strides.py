"""Reads in steps, lanes that are far apart, and extremes with NaN: every way through a loop against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf

RANDOM = np.random.default_rng(0)


def spoiled(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Numbers with some NaN and infinite ones among them, where the type has any."""
    x = (RANDOM.standard_normal(shape) * 50).astype(dtype)
    if np.dtype(dtype).kind == "f":
        x[RANDOM.random(shape) < 0.05] = np.nan
        x[RANDOM.random(shape) < 0.05] = np.inf
        x[RANDOM.random(shape) < 0.05] = -np.inf
    return x


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int8"])
@pytest.mark.parametrize("width", [1, 7, 28, 64, 131])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [2, 3])
def test_extremes_of_windows(kernel: int, stride: int, width: int, dtype: str) -> None:
    x = spoiled((3, 2, (width - 1) * stride + kernel), dtype)
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel, 2)[:, :, ::stride]
    found = mf.nn.MaxPool1d(kernel, stride)(mf.array(x, dtype))
    np.testing.assert_array_equal(found.numpy(), windows.max(3))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("width", [1, 5, 16, 33, 100])
def test_sums_of_pairs_in_steps(width: int, stride: int) -> None:
    x = RANDOM.integers(-9, 9, (4, width * stride + 1)).astype(np.float32)
    found = mf.array(x).reindex([4, width, 2], ["i0", f"i1*{stride}+i2"]).sum(2)
    np.testing.assert_array_equal(
        found.numpy(), x[:, : width * stride : stride] + x[:, 1 : width * stride + 1 : stride]
    )


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "uint8", "bool"])
@pytest.mark.parametrize("step", [1, 2, 3, -1, -2])
@pytest.mark.parametrize("width", [1, 2, 31, 64, 700])
def test_slices_in_steps(width: int, step: int, dtype: str) -> None:
    x = RANDOM.integers(0, 9, (3, width)).astype(dtype)
    v = mf.array(x, dtype)
    np.testing.assert_array_equal(v[:, ::step].clone().numpy(), x[:, ::step])
    np.testing.assert_array_equal((v[1:, ::step] == v[:-1, ::step]).numpy(), x[1:, ::step] == x[:-1, ::step])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("rows", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("size, out", [(40, 7), (100, 9), (17, 17), (5, 8)])
def test_windows_of_rows_far_apart(size: int, out: int, rows: int, dtype: str) -> None:
    """Vectors run across rows, a tile of them after the other; where windows begin is worked out once."""
    x = spoiled((rows, 1, size), dtype)
    starts, ends = np.arange(out) * size // out, -(-np.arange(1, out + 1) * size // out)
    expected = np.stack([x[..., a:b].max(-1) for a, b in zip(starts, ends, strict=True)], -1)
    value, place = mf.nn.AdaptiveMaxPool1d(out, return_indices=True)(mf.array(x, dtype))
    np.testing.assert_array_equal(value.numpy(), expected)
    np.testing.assert_array_equal(np.take_along_axis(x, place.numpy().astype(int), 2), expected)


def test_means_of_unequal_windows_of_many_images() -> None:
    x = RANDOM.standard_normal((9, 30, 11, 13)).astype(np.float32)
    found = mf.nn.AdaptiveAvgPool2d((4, 5))(mf.array(x)).numpy()
    for i in range(4):
        for k in range(5):
            rows = slice(i * 11 // 4, -(-(i + 1) * 11 // 4))
            columns = slice(k * 13 // 5, -(-(k + 1) * 13 // 5))
            np.testing.assert_allclose(found[:, :, i, k], x[:, :, rows, columns].mean((2, 3)), 2e-5, 2e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("before, after", [(0, 0), (3, 1), (0, 40), (25, 0)])
@pytest.mark.parametrize("width", [1, 2, 9, 33, 100])
def test_scattering_into_rows_with_clamped_ends(width: int, before: int, after: int, dtype: str) -> None:
    """Away from the ends no two elements meet, and those that do are added in their order."""
    weight = RANDOM.standard_normal((3, 2, before + width + after)).astype(dtype)
    expected = np.zeros((3, 2, width), dtype)
    for k in range(before + width + after):
        expected[:, :, min(max(k - before, 0), width - 1)] += weight[:, :, k]
    x = mf.zeros((3, 2, width), dtype).start_grad()
    (gradient,) = mf.grad(mf.nn.ReplicationPad1d((before, after))(x) * mf.array(weight, dtype), [x])
    np.testing.assert_array_equal(gradient.numpy(), expected)


@pytest.mark.parametrize("width", [2, 9, 33, 100])
def test_scattering_into_rows_with_mirrored_ends(width: int) -> None:
    before, after = min(5, width - 1), width - 1
    weight = RANDOM.integers(-9, 9, (3, 2, before + width + after)).astype(np.float32)
    expected = np.zeros((3, 2, width), np.float32)
    for k, place in enumerate(np.pad(np.arange(width), (before, after), "reflect")):
        expected[:, :, place] += weight[:, :, k]
    x = mf.zeros((3, 2, width)).start_grad()
    (gradient,) = mf.grad(mf.nn.ReflectionPad1d((before, after))(x) * mf.array(weight), [x])
    np.testing.assert_array_equal(gradient.numpy(), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32"])
@pytest.mark.parametrize("width", [1, 2, 31, 64, 129])
@pytest.mark.parametrize("far", [2, 3])
def test_columns_beside_parts_of_rows(far: int, width: int, dtype: str) -> None:
    """What stands still along a row is worked out before the choice between its middle and its ends."""
    x, g = (RANDOM.integers(0, 9, shape).astype(dtype) for shape in ((width,), (width, far)))
    rows = mf.roll(mf.array(x, dtype), 6) + mf.array(g, dtype)[:, 0] + mf.array(g, dtype)[:, far - 1]
    np.testing.assert_array_equal(rows.numpy(), np.roll(x, 6) + g[:, 0] + g[:, far - 1])
    joined = mf.concat([mf.array(x, dtype), mf.array(g, dtype)[:, 1]]) * mf.concat(
        [mf.array(g, dtype)[:, 0]] * 2
    )
    np.testing.assert_array_equal(
        joined.numpy(), np.concatenate([x, g[:, 1]]) * np.concatenate([g[:, 0]] * 2)
    )
