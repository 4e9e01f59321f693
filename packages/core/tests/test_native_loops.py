"""Operators that run as loops of their own: their C++ and their NumPy agree, and gradients of gradients exist."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn
from metafuse.debug import record_launches
from metafuse.ops.neural import ctc_loops, recurrent_loops, sampling_loops
from metafuse.var import wrap

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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 2), (5, 6), (1, 1, 1), (2, 3, 2), (3, 2, 4)])
def test_sampling_of_images_of_any_size(size, dtype):
    """More places than are taken at once; on, next to and beyond every border; none of them a number."""
    image = values(2, 2, *size).astype(dtype)
    places = RANDOM.uniform(-2.5, 7.5, (2, 700, 3, 2)[: len(size) + 1] + (len(size),)).astype(dtype)
    places[:, :300] = np.round(places[:, :300])
    places[0, 0] = np.nan
    places[0, 1], places[0, 2] = 1e30, -1e30
    x, p = mf.array(image, dtype=dtype), mf.array(places, dtype=dtype)
    inside = np.where(np.isnan(places), -9, np.clip(places, -9, 99))
    for linear in (0, 1):
        found = sampling_loops.sampled(x, p, bool(linear)).numpy()
        expected = sampling_loops._values(image, inside, linear)
        np.testing.assert_allclose(found, expected, atol=1e-12 if dtype == "float64" else 1e-5)


def test_sampling_reads_nothing_but_the_corners():
    image = np.full((1, 1, 4, 4), np.inf)
    image[0, 0, 0, 0], image[0, 0, 3, 3] = 2, 3
    places = np.array([[-0.5, -0.5], [-0.25, -0.5], [3.5, 3.5], [3.25, 3.75], [-1.5, 0], [4, 3]])[
        None, :, None
    ]
    found = sampling_loops.sampled(*variables(image, places), True).numpy()
    np.testing.assert_allclose(found[0, 0, :, 0], [0.5, 0.75, 0.75, 0.5625, 0, 0])


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


def sequence(mode, length, batch, hidden, dtype):
    """What goes into the loop of a recurrent network."""
    gates = recurrent_loops.GATES[mode]
    shapes = {
        "xs": (length, batch, gates * hidden), "h": (batch, hidden), "c": (batch, hidden),
        "w_hh": (gates * hidden, hidden), "b_hh": (gates * hidden,),
    }  # fmt: skip
    found = {name: mf.array(0.5 * values(*shape), dtype=dtype) for name, shape in shapes.items()}
    return found if mode == "lstm" else found | {"c": None}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mode", recurrent_loops.GATES)
def test_recurrent_loops(mode, dtype):
    """Rows and columns that fill no vector, several units, a batch of nothing."""
    number, tolerance = list(recurrent_loops.GATES).index(mode), 1e-12 if dtype == "float64" else 2e-5
    for length, batch, hidden in ((5, 7, 19), (1, 1, 1), (2, 25, 70), (2, 0, 3)):
        v = sequence(mode, length, batch, hidden, dtype)
        for reverse in (False, True):
            whole = recurrent_loops.all_values(mode, v, reverse, True)
            expected = recurrent_loops._values(*given(whole), mode=number, reverse=reverse, keep=1)
            np.testing.assert_allclose(whole.numpy(), expected, atol=tolerance)
            short = recurrent_loops.all_values(mode, v, reverse, False).numpy()
            np.testing.assert_allclose(short, expected[: len(short)], atol=tolerance)
            upstream = mf.array(values(*short.shape), dtype=dtype)
            back = recurrent_loops.inner_gradients(mode, upstream, whole, v, reverse)
            expected = recurrent_loops._gradients(*given(back), mode=number, reverse=reverse, steps=length)
            np.testing.assert_allclose(back.numpy(), expected, atol=10 * tolerance)


def given(loop):
    """The arrays that a loop reads."""
    return [np.array(wrap(node).numpy()) for node in loop._node.inputs]


def test_not_a_number_stays_one_in_recurrent_loops():
    for mode in recurrent_loops.GATES:
        v = sequence(mode, 2, 3, 20, "float32")
        xs = v["xs"].numpy().copy()
        xs[0, 1, 7] = np.nan
        ys = (
            recurrent_loops.all_values(mode, v | {"xs": mf.array(xs)}, False, False)
            .numpy()[:6]
            .reshape(2, 3, 20)
        )
        assert np.isnan(ys[0, 1, 7]) and np.isnan(ys[1, 1]).all() and not np.isnan(ys[:, [0, 2]]).any()


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_states_of_recurrent_networks_that_depend_on_each_other(name):
    """Gradients of gradients where the input, the first state and weights come from one array."""
    gates = recurrent_loops.GATES.get(name, 1)
    function = getattr(nn, f"{name}_sequence")

    def loss(x, w):
        h = x[0, :, :2].tanh()
        states = (h, h * 2) if name == "lstm" else (h,)
        first, last = function(x, *states, w[:, :3], w[:, 1:3] * 2)[:2]
        return (first**3).sum() + last.sqr().sum()

    found, expected = second_order(loss, values(3, 2, 3), values(2 * gates, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_values_for_a_gradient_are_kept_only_where_one_may_follow():
    layer, x = nn.LSTM(3, 4), mf.array(values(5, 2, 3), dtype="float32")

    def run():
        with record_launches() as launches:
            y = layer(x)[0].numpy()
        return y, next(launch.nbytes for launch in launches if launch.name == "lstm_steps")

    y, nbytes = run()
    with mf.no_grad():
        alone, fewer = run()
    np.testing.assert_array_equal(y, alone)
    assert nbytes - fewer == 5 * (5 * 2 * 4) * 4  # four gates and c of each step, in float32


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
