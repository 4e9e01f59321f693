"""Pooling of windows that tile, leave a rest, stick out, meet or lie apart: values and gradients against loops over windows."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import metafuse as mf
from metafuse.testing import check_grads

RANDOM = np.random.default_rng(3)
#: height and width, kernel, stride, padding, dilation
CASES = [
    ((6, 8), (2, 2), (2, 2), (0, 0), (1, 1)),
    ((7, 9), (2, 2), (2, 2), (0, 0), (1, 1)),
    ((7, 40), (2, 2), (2, 2), (1, 1), (1, 1)),
    ((9, 11), (3, 3), (2, 2), (1, 1), (1, 1)),
    ((9, 75), (3, 3), (3, 3), (1, 0), (1, 1)),
    ((5, 24), (2, 5), (3, 5), (0, 2), (1, 1)),
    ((4, 23), (1, 7), (1, 9), (0, 3), (1, 1)),
    ((5, 9), (1, 2), (1, 1), (0, 1), (1, 1)),
    ((7, 9), (2, 3), (1, 1), (1, 1), (1, 1)),
    ((9, 10), (2, 2), (2, 1), (1, 1), (2, 2)),
    ((8, 9), (4, 4), (1, 1), (0, 2), (1, 1)),
    ((12, 13), (5, 5), (5, 5), (2, 0), (1, 1)),
]


def by_windows(x, upstream, case, op):
    """The result and the gradient, window by window."""
    (height, width), kernel, stride, padding, dilation = case
    out = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip((height, width), kernel, stride, padding, dilation, strict=True)
    ]
    y, gradient = np.zeros((*x.shape[:2], *out)), np.zeros(x.shape)
    up = upstream(y.shape)
    for n, c, i, j in product(*map(range, y.shape)):
        rows, columns = (
            [o * stride[a] - padding[a] + k * dilation[a] for k in range(kernel[a])]
            for a, o in ((0, i), (1, j))
        )
        places = [(h, w) for h in rows for w in columns if 0 <= h < height and 0 <= w < width]
        inside = np.array([x[n, c, h, w] for h, w in places])
        if op == "mean":
            y[n, c, i, j] = inside.sum() / (kernel[0] * kernel[1])
            for h, w in places:
                gradient[n, c, h, w] += up[n, c, i, j] / (kernel[0] * kernel[1])
        else:
            best = inside.max() if op == "maximum" else inside.min()
            first = int(np.argmax((inside == best) | np.isnan(inside)))
            y[n, c, i, j] = inside[first] if not np.isnan(inside).any() else np.nan
            gradient[(n, c, *places[first])] += up[n, c, i, j]
    return y, gradient, up


def pool(x, case, op):
    _, kernel, stride, padding, dilation = case
    return mf.nn.Pool(kernel, stride, padding, None if op == "mean" else dilation, op=op)(x)


@pytest.mark.parametrize("op", ["maximum", "minimum", "mean"])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_of_windows(case, op):
    if op == "mean" and case[4] != (1, 1):
        pytest.skip("means have no dilation")
    x = RANDOM.integers(-4, 5, (2, 6, *case[0])).astype(np.float32)  # equal elements are frequent
    x[0, 0, 2, 3], x[1, 2, 0, 0], x[1, 3, 2:5, :] = np.inf, -np.inf, np.inf
    x[1, 4] = -np.inf if op == "maximum" else np.inf if op == "minimum" else 1
    expected, gradient, up = by_windows(
        x.astype(np.float64), lambda shape: RANDOM.integers(-3, 4, shape).astype(np.float64), case, op
    )
    v = mf.array(x).start_grad()
    y = pool(v, case, op)
    (found,) = mf.grad(y * mf.array(up.astype(np.float32)), [v])
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.numpy(), gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("op", ["maximum", "mean"])
@pytest.mark.parametrize("case", CASES[::2])
def test_channels_last_windows(case, op):
    if op == "mean" and case[4] != (1, 1):
        pytest.skip("means have no dilation")
    x = RANDOM.permutation(2 * 40 * case[0][0] * case[0][1]).reshape(2, 40, *case[0]).astype(np.float32)
    expected, gradient, up = by_windows(
        x.astype(np.float64), lambda shape: RANDOM.integers(-3, 4, shape).astype(np.float64), case, op
    )
    one = mf.array(np.eye(40, dtype=np.float32)[:, :, None, None])
    v = mf.array(x).start_grad()
    y = mf.nn.conv2d(pool(mf.nn.conv2d(v, one), case, op), one)
    (found,) = mf.grad(y * mf.array(up.astype(np.float32)), [v])
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(found.numpy(), gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_what_several_windows_add_is_not_rounded_on_the_way(dtype):
    x = np.zeros((1, 1, 3, 3), np.float32)
    x[0, 0, 1, 1] = 1  # the maximum of all four windows
    v = mf.array(x).cast(dtype).start_grad()
    y = mf.nn.max_pool2d(v, 2, 1)
    up = mf.array(np.array([[[[1024.0, 0.5], [0.5, 0.5]]]], np.float32)).cast(dtype)
    found = mf.grad(y * up, v).float32().numpy()
    assert found[0, 0, 1, 1] == float(mf.array(np.float32(1025.5)).cast(dtype).float32().item())


def test_where_the_first_maximum_is():
    x = np.full((1, 1, 4, 5), -np.inf, np.float32)
    x[0, 0, 1, 2] = x[0, 0, 1, 3] = 2
    x[0, 0, 3, 0] = np.nan
    values, places = mf.nn.max_pool2d(mf.array(x), 3, 2, 1, return_indices=True)
    assert places.numpy()[0, 0].tolist() == [[0, 7, 8], [15, 7, 8]]
    np.testing.assert_array_equal(values.numpy()[0, 0], [[-np.inf, 2, 2], [np.nan, 2, 2]])


@pytest.mark.parametrize("op", ["maximum", "mean"])
@pytest.mark.parametrize("kernel, stride, padding", [(2, 2, 0), (2, 2, 1), (3, 2, 1)])
def test_gradients_of_gradients(op, kernel, stride, padding):
    x = RANDOM.permutation(2 * 5 * 7).reshape(1, 2, 5, 7) / 7.0
    check_grads(lambda v: mf.nn.pool(v, kernel, op, padding, stride) ** 2, [x], order=2)
