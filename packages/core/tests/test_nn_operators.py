"""Every neural operator against its NumPy meaning, and its gradient against a directional difference, in float64."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse.ops.registry import Tensor, all_operators

CASES = [
    pytest.param(record, sample, id=f"{record.name}-{number}")
    for record in all_operators()
    if record.category == "nn" and record.numpy is not None
    for number, sample in enumerate(record.samples)
    if not any(isinstance(a, list) for a in sample.args)  # lists of arrays are left to the conformance kit
]


def draw(value, generator):
    """An array for a Tensor; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    if value.dtype in ("int", "int32"):
        return generator.integers(int(value.low), int(value.high) + 1, value.shape).astype(np.int32)
    if value.distinct:
        size = int(np.prod(value.shape))
        steps = (generator.permutation(size) + 0.5) / max(size, 1)
        return (value.low + steps * (value.high - value.low)).reshape(value.shape)
    return np.asarray(generator.uniform(value.low, value.high, value.shape))


def to_var(value):
    return mf.array64(value) if isinstance(value, (np.ndarray, np.floating)) else value


def results(value):
    return value if isinstance(value, (tuple, list)) else (value,)


def arguments(sample):
    generator = np.random.default_rng(7)
    args = [draw(a, generator) for a in sample.args]
    return args, {k: draw(v, generator) for k, v in sample.kwargs.items()}


def test_there_are_cases():
    assert len(CASES) > 80


@pytest.mark.parametrize(("record", "sample"), CASES)
def test_value(record, sample):
    args, kwargs = arguments(sample)
    expected = results(record.numpy(*args, **kwargs))
    found = results(record.function(*map(to_var, args), **{k: to_var(v) for k, v in kwargs.items()}))
    assert len(found) == len(expected)
    for y, wanted in zip(found, expected):
        assert y.shape == np.shape(wanted) or (np.shape(wanted) == () and y.shape == (1,))
        np.testing.assert_allclose(y.numpy().reshape(np.shape(wanted)), wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("record", "sample"), CASES)
def test_gradient(record, sample):
    if not record.differentiable:
        pytest.skip("the record says that it has no gradient")
    args, kwargs = arguments(sample)
    floats = [k for k, a in enumerate(args) if isinstance(a, np.ndarray) and a.dtype == np.float64]
    generator = np.random.default_rng(8)
    directions = {k: generator.standard_normal(args[k].shape) for k in floats}
    keywords = {k: to_var(v) for k, v in kwargs.items()}

    def loss(values):
        y = results(record.function(*values, **keywords))[0]
        weights = np.random.default_rng(9).uniform(0.5, 1.5, tuple(y.shape))
        return (y * mf.array64(weights)).sum()

    def moved(step):
        values = [a + step * directions[k] if k in directions else a for k, a in enumerate(args)]
        return loss([to_var(v) for v in values]).item()

    values = [to_var(a) for a in args]
    gradients = mf.grad(loss(values), [values[k] for k in floats])
    found = sum(float((g.numpy() * directions[k]).sum()) for g, k in zip(gradients, floats))
    step = 1e-5
    expected = (moved(step) - moved(-step)) / (2 * step)
    assert found == pytest.approx(expected, rel=2e-5, abs=2e-7)


def test_batch_norm_moves_running_statistics():
    x = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32) * 2 + 1
    mean, var = mf.zeros([3]).stop_grad(), mf.ones([3]).stop_grad()
    mf.nn.batch_norm(mf.array(x), mean, var, training=True, momentum=0.25)
    np.testing.assert_allclose(mean.numpy(), 0.25 * x.mean((0, 2)), rtol=1e-5)
    np.testing.assert_allclose(var.numpy(), 0.75 + 0.25 * x.var((0, 2)), rtol=1e-5)
    assert not mean.requires_grad


def test_batch_norm_second_derivative():
    x = np.random.default_rng(0).standard_normal((4, 2))
    weights = np.random.default_rng(1).standard_normal((4, 2))

    def first(values):
        v = mf.array64(values)
        y = mf.nn.batch_norm(v, None, None, training=True)
        return v, mf.grad((y * y * mf.array64(weights)).sum(), v)

    v, g = first(x)
    second = mf.grad((g * mf.array64(weights)).sum(), v).numpy()
    direction = np.random.default_rng(2).standard_normal(x.shape)

    def along(step):
        return (first(x + step * direction)[1].numpy() * weights).sum()

    assert (second * direction).sum() == pytest.approx((along(1e-5) - along(-1e-5)) / 2e-5, rel=1e-6)


def test_softmax_and_cross_entropy_do_not_overflow():
    x = mf.array([[1000.0, -1000.0, 999.0]])
    np.testing.assert_allclose(mf.nn.softmax(x, 1).numpy(), [[0.7310586, 0, 0.26894143]], rtol=1e-6)
    assert mf.nn.cross_entropy_loss(x, mf.array([1])).item() == pytest.approx(2000.3133)


def test_masked_logits_give_no_nan():
    x = mf.array([[0.0, -float("inf")]])
    loss = mf.nn.cross_entropy_loss(x, mf.array([0]))
    assert loss.item() == 0


@pytest.mark.parametrize("op", ["maximum", "minimum"])
def test_pooling_gives_the_gradient_to_the_first_of_equals(op):
    x = mf.array(np.ones((1, 1, 4, 4), np.float32))
    g = mf.grad(mf.nn.pool(x, 2, op).sum(), x).numpy()[0, 0]
    np.testing.assert_array_equal(g, [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    g = mf.grad(mf.nn.adaptive_max_pool(x, 3).sum(), x).numpy()
    assert g.sum() == 9
    _, places = mf.nn.max_pool2d(x, 3, 2, 1, return_indices=True)
    np.testing.assert_array_equal(places.numpy()[0, 0], [[0, 1], [4, 5]])


def test_pooling_twice_differentiable():
    x = mf.array64(np.random.default_rng(0).permutation(16).reshape(1, 1, 4, 4) + 0.5)
    y = mf.nn.pool(x, 2, "maximum")
    g = mf.grad((y * y * y).sum(), x)
    second = mf.grad(g.sum(), x).numpy()
    values = x.numpy()
    tops = values.reshape(2, 2, 2, 2).max((1, 3))
    expected = np.where(np.isin(values[0, 0], tops), 6 * values[0, 0], 0)
    np.testing.assert_allclose(second[0, 0], expected)


def test_dropout_statistics_and_gradient():
    mf.set_global_seed(3)
    x = mf.ones([100, 100])
    y = mf.nn.dropout(x, 0.25, is_train=True)
    g = mf.grad(y.sum(), x).numpy()
    y = y.numpy()
    assert set(np.unique(y).round(5)) == {0.0, np.float32(1 / 0.75).round(5)}
    assert abs((y == 0).mean() - 0.25) < 0.02
    np.testing.assert_array_equal(y, g)
    assert mf.nn.dropout(x, 0.25, is_train=False) is x
    assert mf.nn.dropout(x, 1.0, is_train=True).sum().item() == 0


def test_dropout2d_drops_whole_channels():
    mf.set_global_seed(3)
    y = mf.nn.dropout2d(mf.ones([8, 16, 3, 3]), 0.5, is_train=True).numpy()
    per_channel = y.reshape(8, 16, 9)
    assert (per_channel == per_channel[..., :1]).all()
    assert 0.3 < (per_channel[..., 0] == 0).mean() < 0.7


def test_relu_keeps_nan_and_int():
    y = mf.nn.relu(mf.array([float("nan"), -1.0])).numpy()
    assert np.isnan(y[0])
    assert y[1] == 0
    assert mf.nn.relu(mf.array([-2, 3])).dtype == "int32"


def test_half_precision_is_computed_wider():
    x = np.full((1, 1, 64, 64), 100.0, np.float16)
    x[0, 0, 0, 0] = 101
    y = mf.nn.instance_norm(mf.array(x))
    assert y.dtype == "float16"
    wide = x.astype(np.float64)
    expected = (wide - wide.mean()) / np.sqrt(wide.var() + 1e-5)
    np.testing.assert_allclose(y.numpy().astype(np.float64), expected, rtol=5e-3, atol=5e-3)


def test_another_stride_compiles_nothing():
    from metafuse.runtime.kernels import statistics

    x, w = mf.randn([1, 2, 12, 12]), mf.randn([3, 2, 3, 3])

    def run(stride, padding, dilation):
        return mf.nn.max_pool2d(mf.nn.conv2d(x, w, None, stride, padding, dilation), 2, stride, 1).sync()

    run(2, 1, 2)
    before = statistics.compilations
    run(3, 2, 3)
    after = statistics.compilations
    assert after == before
