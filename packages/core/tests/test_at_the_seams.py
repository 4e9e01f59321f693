"""Operators where their formulas change sides, and on nothing: gradients of what is smooth there, answers of empty arrays."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import metafuse as mf
from metafuse.config import flag_scope
from metafuse.plugins.registry import registry
from metafuse.testing import check_grads

RANDOM = np.random.default_rng(8)
ZEROS = np.array([-1.5, -0.0, 0.0, 2.0])


@pytest.mark.parametrize(
    ("function", "slope"),
    [
        (mf.nn.elu, 1.0),
        (lambda x: mf.nn.celu(x, 2.0), 1.0),
        (mf.log_sigmoid, 0.5),
        (mf.nn.softplus, 0.5),
        (mf.nn.mish, 0.6),
        (lambda x: mf.binary_cross_entropy_with_logits(x, x * 0 + 0.3, size_average=False), 0.5 - 0.3),
        (
            lambda x: mf.binary_cross_entropy_with_logits(
                x, x * 0 + 0.3, pos_weight=mf.array([4.0]), size_average=False
            ),
            0.7 * 0.5 - 4 * 0.3 * 0.5,
        ),
    ],
    ids=["elu", "celu", "log_sigmoid", "softplus", "mish", "logits", "weighted logits"],
)
def test_slopes_at_zero(function, slope):
    x = mf.array([0.0, -0.0], dtype="float64")
    np.testing.assert_allclose(mf.grad(function(x).sum(), x).numpy(), [slope, slope], rtol=1e-7)
    check_grads(function, [ZEROS])


def test_second_slopes_of_the_logistic_at_zero():
    check_grads(mf.log_sigmoid, [ZEROS], order=2)
    check_grads(lambda x: mf.binary_cross_entropy_with_logits(x, x * 0 + 0.25), [ZEROS], order=2)


def test_softplus_at_its_threshold():
    x = mf.array([1.0, 1.0 + 1e-9, -800.0, 800.0], dtype="float64")
    found = mf.grad(mf.nn.softplus(x, 1.0, 1.0).sum(), x).numpy()
    np.testing.assert_allclose(found, [1 / (1 + np.exp(-1)), 1, 0, 1])


def test_powers_of_zero_by_zero():
    x, y = mf.array([0.0, 0.0, 2.0]), mf.array([0.0, 2.0, 0.0])
    assert mf.grad((x**y).sum(), x).tolist() == [0, 0, 0]
    z = mf.array([0.0, 3.0])
    assert mf.grad((z**0).sum(), z).tolist() == [0, 0]
    # the slope along the exponent of what the first gradient multiplies with it
    check_grads(lambda a, b: a**b, [np.array([0.5, 2.0]), np.array([0.0, 1.0])], order=2)


@pytest.mark.parametrize("dim", [0, 1, None])
def test_exponentials_over_nothing(dim):
    x = mf.zeros(0, 3)
    for function in (mf.nn.softmax, mf.nn.log_softmax):
        answer = function(x, dim)
        assert answer.shape == (0, 3)
        assert mf.grad(answer.sum(), x).shape == (0, 3)
    expected = {0: [-np.inf] * 3, 1: [], None: [-np.inf]}[dim]
    assert mf.nn.logsumexp(x, dim).tolist() == expected
    y = mf.logcumsumexp(x, 0)
    assert mf.grad(y.sum(), x).shape == (0, 3)


def test_logarithms_of_infinite_sums():
    inf = np.inf
    x = mf.array([[-inf, -inf], [inf, 1.0], [inf, -inf], [-inf, 2.0], [np.nan, inf]])
    y = mf.nn.logsumexp(x, 1)
    np.testing.assert_array_equal(y.numpy(), np.array([-inf, inf, inf, 2, np.nan], np.float32))
    # what is nothing in all has no part in it
    assert mf.grad(y, x).numpy()[[0, 3]].tolist() == [[0, 0], [0, 1]]


def test_nothing_hides_a_nan():
    x = mf.array([np.nan, 3.0, 0.25, 1.0])
    for answer in (
        mf.nn.softshrink(x), mf.nn.hardshrink(x), mf.nn.threshold(x, 0.5, 0.0), mf.median(x), mf.median(x.reshape(2, 2), 1),
    ):  # fmt: skip
        assert np.isnan(answer.numpy()[0])
        assert np.isfinite(answer.numpy()[1:]).all()


def test_attention_over_nothing():
    x = mf.zeros(0, 2, 4)
    assert mf.nn.MultiheadAttention(4, 2)(x, x, x)[0].shape == (0, 2, 4)


def test_padding_an_array_without_elements():
    assert mf.nn.pad(mf.zeros(0, 2), (0, 1)).shape == (0, 3)
    assert mf.nn.pad(mf.zeros(0), (1, 2), "constant", 5).tolist() == [5, 5, 5]
    with pytest.raises(mf.errors.ShapeError, match="nothing would be left"):
        mf.nn.pad(mf.zeros(2), (-1, -1))


@pytest.mark.parametrize("base", [(5, 4, 5), (2, 192), (2, 3, 64), (6, 8, 8)], ids=str)
def test_two_convolutions_of_a_stored_array_under_another_shape(base):
    """What is stored is not laid out anew; its image is."""
    if "cpu" not in {status.descriptor.name for status in registry().backends() if status.usable}:
        pytest.skip("no backend cpu here")
    image, kernel = ((5, 4, 5, 1), (4, 4, 1, 1)) if base == (5, 4, 5) else ((2, 3, 8, 8), (4, 3, 3, 3))
    data, weight = RANDOM.random(base).astype(np.float32), RANDOM.random(kernel).astype(np.float32)
    found = []
    for backend in ("reference", "cpu"):
        with flag_scope(backend=backend):
            x, w = mf.array(data), mf.array(weight)
            y = mf.sin(x.reshape(image))
            one, other = mf.nn.conv2d(y, w, None, 1, 1), mf.nn.conv2d(y * 2, w, None, 1, 1)
            found.append([v.numpy() for v in (one, other, mf.grad((one * one).sum() + other.sum(), x))])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_a_padded_vector_and_its_product():
    """Its gradient holds what looks like a convolution without batch and channels, which has no layout to choose."""
    x = np.array([0.4, 0.9])
    check_grads(lambda v: mf.sin(mf.prod(mf.nn.pad(v, [1, 0], "constant", 1), [0])), [x], order=2)


def test_threads_find_operators_that_are_entered_on_demand():
    """The first use of such a name by several threads at once, in a fresh process."""
    program = (
        "import sys, threading\n"
        "import metafuse as mf\n"
        "sys.setswitchinterval(1e-5)\n"
        "found, start = [], threading.Barrier(8)\n"
        "def work(x):\n"
        "    start.wait()\n"
        "    found.append((x.cumsum, x.unique, mf.topk))\n"
        "threads = [threading.Thread(target=work, args=(mf.zeros(3),)) for _ in range(8)]\n"
        "for t in threads: t.start()\n"
        "for t in threads: t.join()\n"
        "print(len(found))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "8", done.stderr


@pytest.mark.parametrize("place", [[0, 1, 3], [0, 1, 1], [2, 2, 2], slice(1, 4)])
@pytest.mark.parametrize("value", [[2.0, 0.0, 3.0], [0.0, 0.0, 5.0], [4.0, 2.0, 3.0]])
def test_gradients_of_an_assignment_that_multiplies(place, value):
    start = np.array([3.0, 0.0, 7.0, 0.0])

    def weighed(x, v):  # linear in each element
        x = x.copy()
        np.multiply.at(x, place, v)
        return (x * [1, 10, 100, 1000]).sum()

    x, v = mf.array(start), mf.array(value)
    y = x.clone()
    y.setitem((place,), v, "multiply")
    first = mf.grad((y * mf.array([1.0, 10.0, 100.0, 1000.0])).sum(), [x, v])
    for found, given, call in ((first[0], start, lambda k: weighed(start + k, value)),
                               (first[1], np.array(value), lambda k: weighed(start, value + k))):  # fmt: skip
        wanted = [call(step) - call(0 * step) for step in np.eye(len(given))]
        np.testing.assert_allclose(found.numpy(), wanted)


def test_gradients_of_an_assignment_that_multiplies_are_exact_and_have_gradients():
    x, v = mf.array([1e30, 0.0, 3.0]), mf.array([1e30, 2.0])
    y = x.clone()
    y.setitem(slice(0, 2), v, "multiply")
    first = mf.grad(y, [x, v])
    assert [g.tolist() for g in first] == [
        [np.float32(1e30), 2, 1],
        [np.float32(1e30), 0],
    ]
    assert mf.grad(first[1], x).tolist() == mf.grad(first[0], v).tolist() + [0] == [1, 1, 0]
