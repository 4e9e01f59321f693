"""Operators that run as loops of their own: their C++ and their NumPy agree, and gradients of gradients exist."""

from __future__ import annotations

import numpy as np

import metafuse as mf
from metafuse import nn
from metafuse.ops.neural import ctc_loops, lstm_loop, sampling_loops

RANDOM = np.random.default_rng(3)


def values(*shape):
    return RANDOM.standard_normal(shape)


def variables(*arrays):
    return [mf.array(a, dtype="float64") for a in arrays]


def test_sampling():
    image, places = values(2, 3, 4, 5), RANDOM.uniform(-2, 6, (2, 7, 2, 2))
    upstream = values(2, 3, 7, 2)
    x, p, up = variables(image, places, upstream)
    for linear in (0, 1):
        found = sampling_loops.sampled(x, p, bool(linear)).numpy()
        np.testing.assert_allclose(found, sampling_loops._values(image, places, linear), atol=1e-12)
        found = sampling_loops.image_gradient(up, p, image.shape, bool(linear)).numpy()
        expected = sampling_loops._image_gradient(upstream, places, linear, size0=4, size1=5)
        np.testing.assert_allclose(found, expected, atol=1e-12)
    found = sampling_loops.places_gradient(up, x, p).numpy()
    np.testing.assert_allclose(found, sampling_loops._places_gradient(upstream, image, places, 1), atol=1e-12)


def test_ctc():
    emitted, uses = -np.abs(values(6, 3, 7)), np.array([6, 4, 1], np.int32)
    jumps = RANDOM.integers(0, 2, (3, 7)).astype(bool)
    e, up = variables(emitted, values(6, 3, 7))
    forward = ctc_loops.forward_values(e, mf.array(jumps), mf.array(uses))
    expected = ctc_loops._forward(emitted, jumps, uses)
    np.testing.assert_allclose(forward.numpy(), expected, rtol=1e-12)
    found = ctc_loops.emitted_gradient(forward, e, mf.array(jumps), mf.array(uses), up).numpy()
    np.testing.assert_allclose(
        found, ctc_loops._backward(expected, emitted, jumps, uses, up.numpy()), atol=1e-12
    )


def test_lstm():
    arrays = values(5, 7, 4 * 19), values(7, 19), values(7, 19), values(4 * 19, 19)
    for reverse in (False, True):
        found = lstm_loop.lstm_values(*variables(*arrays), reverse).numpy()
        np.testing.assert_allclose(found, lstm_loop._values(*arrays, int(reverse)), atol=1e-12)


def second_order(function, *arrays, step=1e-6):
    """The derivative of the squared gradient along a direction, by differentiation and by differences."""
    directions = [values(*a.shape) for a in arrays]

    def squares(moved):
        inputs = variables(*[a + moved * d for a, d in zip(arrays, directions)])
        gradients = mf.grad(function(*inputs), inputs)
        total = gradients[0].sqr().sum()
        for g in gradients[1:]:
            total = total + g.sqr().sum()
        return inputs, total

    inputs, total = squares(0.0)
    found = sum((g.numpy() * d).sum() for g, d in zip(mf.grad(total, inputs), directions))
    return found, (squares(step)[1].item() - squares(-step)[1].item()) / (2 * step)


def test_gradients_of_gradients():
    weights = mf.array(values(1, 2, 3, 4), dtype="float64")
    found, expected = second_order(
        lambda x, g: (nn.grid_sample(x, g).sqr() * weights).sum(),
        values(1, 2, 4, 5),
        values(1, 3, 4, 2) * 0.6,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    found, expected = second_order(
        lambda x: nn.ctc_loss(nn.log_softmax(x, 2), mf.array([[1, 2], [3, 3]]), [5, 4], [2, 1]),
        values(5, 2, 4),
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_gradient_of_a_maximum_stays_in_its_window():
    x = mf.array(np.full((1, 1, 4, 4), -np.inf, np.float32))
    gradient = mf.grad(nn.max_pool2d(x, 3, 2, 1), x).numpy()
    assert gradient[0, 0].sum() == 4 and gradient[0, 0, 0, 0] == 1
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    x[0, 0, 1, 0] = np.nan
    var = mf.array(x)
    assert mf.grad(nn.max_pool2d(var, 2), var).numpy()[0, 0, 1, 0] == 1  # where the NaN came from
