"""Arrays made from nothing: constants, random numbers, first values of parameters, against NumPy and SciPy's distributions.

Every row goes through several types and odd shapes. What is made takes part in training (a leaf) if it is floating,
which the gradient of a weighted sum shows; arguments through which gradients flow have rows in ``test_tables``.
"""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse import init
from metafuse.ops.random import uniform as uniform_numbers

stats = pytest.importorskip("scipy.stats")
FLOATS = ["float16", "float32", "float64"]
INTEGERS = ["int8", "int32", "int64", "uint8"]
SHAPES = [(2, 3), (1,), (0,), (3, 0, 2), (1, 1, 1), (5,)]


@pytest.fixture(autouse=True)
def reference_backend():
    with mf.flag_scope(backend="reference"):
        yield


def check_leaf(x, trainable):
    """Whether gradients flow to ``x`` itself."""
    assert x.requires_grad is trainable
    if trainable and x.numel():
        weights = np.arange(1, x.numel() + 1).reshape(x.shape).astype(x.dtype.numpy)
        np.testing.assert_array_equal(mf.grad((x * mf.array64(weights)).sum(), x).numpy(), weights)


def like(dtype, shape):
    """A Var that is a view of another."""
    return mf.array64(np.ones((*shape[:-1], 2 * shape[-1]), dtype))[..., ::2]


# -- constants ----------------------------------------------------------------------------------------------------
#: name -> (ours of shape and type, NumPy's, whether a floating one is trained)
CONSTANTS = {
    "zeros": (lambda s, d: mf.zeros(s, dtype=d), np.zeros, True),
    "ones": (lambda s, d: mf.ones(*s, dtype=d), np.ones, True),
    "empty": (lambda s, d: mf.empty(s, d) * 0, lambda s, d: np.zeros(s, d), None),
    "full": (lambda s, d: mf.full(s, 3, d), lambda s, d: np.full(s, 3, d), True),
    "new_empty": (lambda s, d: like(d, (2,)).new_empty(s) * 0, lambda s, d: np.zeros(s, d), None),
    "new_empty-function": (
        lambda s, d: mf.new_empty(like(d, (2,)), s) * 0,
        lambda s, d: np.zeros(s, d),
        None,
    ),
    "new_zeros-function": (lambda s, d: mf.new_zeros(like(d, (2,)), s), np.zeros, True),
    "new_ones-function": (lambda s, d: mf.new_ones(like(d, (2,)), s), np.ones, True),
    "new_full-function": (lambda s, d: mf.new_full(like(d, (2,)), s, 7), lambda s, d: np.full(s, 7, d), True),
    "new_zeros": (lambda s, d: like(d, (2,)).new_zeros(s), np.zeros, True),
    "new_ones": (lambda s, d: like(d, (2,)).new_ones(s), np.ones, True),
    "new_full": (lambda s, d: like(d, (2,)).new_full(s, 7), lambda s, d: np.full(s, 7, d), True),
    "new": (lambda s, d: like(d, (2,)).new(*s) * 0, lambda s, d: np.zeros(s, d), None),
    "new-of-values": (lambda s, d: like(d, (2,)).new(np.full(s, 4)), lambda s, d: np.full(s, 4, d), None),
    "zeros_like": (lambda s, d: mf.zeros_like(like(d, s)), np.zeros, True),
    "ones_like": (lambda s, d: mf.ones_like(like(d, s)), np.ones, True),
    "full_like": (lambda s, d: mf.full_like(like(d, s), 5), lambda s, d: np.full(s, 5, d), True),
    "constant": (lambda s, d: init.constant(s, d, 2.0), lambda s, d: np.full(s, 2, d), True),
    "constant_": (lambda s, d: like(d, s).constant_(2.0), lambda s, d: np.full(s, 2, d), True),
    "init.constant_": (lambda s, d: init.constant_(like(d, s), 2.0), lambda s, d: np.full(s, 2, d), True),
    "fill_": (lambda s, d: like(d, s).fill_(2.0), lambda s, d: np.full(s, 2, d), True),
    "fill": (lambda s, d: init.fill(like(d, s), 2.0), lambda s, d: np.full(s, 2, d), True),
    "zero": (init.zero, np.zeros, True),
    "zero_": (lambda s, d: like(d, s).zero_(), np.zeros, True),
    "init.zero_": (lambda s, d: init.zero_(like(d, s)), np.zeros, True),
    "one": (init.one, np.ones, True),
    "one_": (lambda s, d: like(d, s).one_(), np.ones, True),
    "init.one_": (lambda s, d: init.one_(like(d, s)), np.ones, True),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_constant(name):
    ours, theirs, trained = CONSTANTS[name]
    for dtype in [*FLOATS, *INTEGERS]:
        for shape in SHAPES:
            x, expected = ours(shape, dtype), theirs(shape, dtype)
            np.testing.assert_array_equal(x.numpy(), expected, err_msg=f"{dtype} {shape}")
            assert x.dtype == dtype
            if trained is not None:
                check_leaf(x, trained and "float" in dtype)


#: name -> (ours, NumPy's) of a type
SEQUENCES = {
    "arange": (lambda d: mf.arange(7, dtype=d), lambda d: np.arange(7, dtype=d)),
    "arange-down": (lambda d: mf.arange(9, 1, -2, d), lambda d: np.arange(9, 1, -2, d)),
    "arange-parts": (lambda d: mf.arange(0.5, 3, 0.75, d), lambda d: np.arange(0.5, 3, 0.75).astype(d)),
    "arange-empty": (lambda d: mf.arange(3, 3, 1, d), lambda d: np.arange(3, 3, 1, d)),
    "linspace": (lambda d: mf.linspace(0, 12, 5, d), lambda d: np.linspace(0, 12, 5).astype(d)),
    "linspace-down": (lambda d: mf.linspace(9, 3, 4, d), lambda d: np.linspace(9, 3, 4).astype(d)),
    "linspace-one": (lambda d: mf.linspace(2, 9, 1, d), lambda d: np.linspace(2, 9, 1).astype(d)),
    "eye": (lambda d: init.eye((3, 2), d), lambda d: np.eye(3, 2, dtype=d)),
    "eye_": (lambda d: init.eye_(like(d, (2, 3))), lambda d: np.eye(2, 3, dtype=d)),
    "eye_-method": (lambda d: like(d, (1, 1)).eye_(), lambda d: np.eye(1, dtype=d)),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequence(name):
    ours, theirs = SEQUENCES[name]
    for dtype in [*FLOATS, *INTEGERS]:
        x, expected = ours(dtype), theirs(dtype)
        np.testing.assert_allclose(
            x.numpy(), expected, rtol=1e-3 if dtype == "float16" else 1e-6, err_msg=dtype
        )
        assert x.dtype == dtype
        check_leaf(x, x.requires_grad)
        assert not x.requires_grad or "float" in dtype


# -- random numbers -----------------------------------------------------------------------------------------------
def uniform(low, high):
    return stats.uniform(low, high - low)


def bounded(bound):
    return uniform(-bound, bound)


W = (400, 10)  # fan_in 10, fan_out 400
#: name -> (ours of shape and type, SciPy's distribution at shape W, types, whether trained)
RANDOM = {
    "random": (lambda s, d: mf.random(s, d), uniform(0, 1), True),
    "random-normal": (lambda s, d: mf.random(s, d, "normal"), stats.norm(), True),
    "rand": (lambda s, d: mf.rand(s, dtype=d), uniform(0, 1), True),
    "randn": (lambda s, d: mf.randn(s, dtype=d, requires_grad=False), stats.norm(), False),
    "rand_like": (lambda s, d: mf.rand_like(like(d, s)), uniform(0, 1), True),
    "randn_like": (lambda s, d: mf.randn_like(like(d, s)), stats.norm(), True),
    "uniform": (lambda s, d: uniform_numbers(2, 5, s, d), uniform(2, 5), None),
    "normal": (lambda s, d: mf.normal(2.0, 3.0, s, d), stats.norm(2, 3), None),
    "get_init_var_rand": (lambda s, d: mf.nn.get_init_var_rand(s, d), stats.norm(), True),
    "init.uniform": (lambda s, d: init.uniform(s, d, -1, 3), uniform(-1, 3), True),
    "init.uniform_": (lambda s, d: init.uniform_(like(d, s), -1, 3), uniform(-1, 3), True),
    "uniform_": (lambda s, d: like(d, s).uniform_(-1, 3), uniform(-1, 3), True),
    "random_": (lambda s, d: like(d, s).random_(), uniform(0, 1), True),
    "init.random_": (lambda s, d: init.random_(like(d, s)), uniform(0, 1), True),
    "gauss": (lambda s, d: init.gauss(s, d, 1, 2), stats.norm(1, 2), True),
    "init.gauss_": (lambda s, d: init.gauss_(like(d, s), 1, 2), stats.norm(1, 2), True),
    "gauss_": (lambda s, d: like(d, s).gauss_(1, 2), stats.norm(1, 2), True),
    "normal_": (lambda s, d: like(d, s).normal_(1, 2), stats.norm(1, 2), True),
    "trunc_normal_": (
        lambda s, d: like(d, s).trunc_normal_(0.5, 1, -1, 2),
        stats.truncnorm(-1.5, 1.5, 0.5, 1),
        True,
    ),
    "init.trunc_normal_": (lambda s, d: init.trunc_normal_(like(d, s)), stats.truncnorm(-2, 2), True),
    "invariant_uniform": (init.invariant_uniform, bounded(10**-0.5), True),
    "init.invariant_uniform_": (lambda s, d: init.invariant_uniform_(like(d, s)), bounded(10**-0.5), True),
    "invariant_uniform_": (lambda s, d: like(d, s).invariant_uniform_("fan_out"), bounded(0.05), True),
    "relu_invariant_gauss": (init.relu_invariant_gauss, stats.norm(0, 0.2**0.5), True),
    "init.relu_invariant_gauss_": (
        lambda s, d: init.relu_invariant_gauss_(like(d, s)),
        stats.norm(0, 0.2**0.5),
        True,
    ),
    "relu_invariant_gauss_": (
        lambda s, d: like(d, s).relu_invariant_gauss_("fan_out"),
        stats.norm(0, 0.005**0.5),
        True,
    ),
    "xavier_uniform": (init.xavier_uniform, bounded((6 / 410) ** 0.5), True),
    "init.xavier_uniform_": (
        lambda s, d: init.xavier_uniform_(like(d, s), 2),
        bounded(2 * (6 / 410) ** 0.5),
        True,
    ),
    "xavier_uniform_": (lambda s, d: like(d, s).xavier_uniform_(), bounded((6 / 410) ** 0.5), True),
    "xavier_gauss": (init.xavier_gauss, stats.norm(0, (2 / 410) ** 0.5), True),
    "init.xavier_gauss_": (
        lambda s, d: init.xavier_gauss_(like(d, s), 2),
        stats.norm(0, 2 * (2 / 410) ** 0.5),
        True,
    ),
    "xavier_gauss_": (lambda s, d: like(d, s).xavier_gauss_(), stats.norm(0, (2 / 410) ** 0.5), True),
    "kaiming_uniform_": (
        lambda s, d: like(d, s).kaiming_uniform_(nonlinearity="relu"),
        bounded((6 / 10) ** 0.5),
        True,
    ),
    "init.kaiming_uniform_": (
        lambda s, d: init.kaiming_uniform_(like(d, s), 1),
        bounded((3 / 10) ** 0.5),
        True,
    ),
    "kaiming_normal_": (
        lambda s, d: like(d, s).kaiming_normal_(0, "fan_out", "relu"),
        stats.norm(0, (2 / 400) ** 0.5),
        True,
    ),
    "init.kaiming_normal_": (lambda s, d: init.kaiming_normal_(like(d, s), 1), stats.norm(0, 0.1**0.5), True),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers(name):
    ours, expected, trained = RANDOM[name]
    mf.set_global_seed(3)
    for dtype in FLOATS:
        x = ours(W, dtype)
        values = x.numpy().astype(np.float64)
        assert (x.dtype, x.shape) == (dtype, W)
        assert np.unique(values).size > (300 if dtype == "float16" else 3000)
        low, high = expected.support()
        assert values.min() >= low - 1e-3
        assert values.max() <= high + 1e-3
        assert stats.kstest(values.ravel(), expected.cdf).pvalue > 1e-4
        if trained is not None:
            check_leaf(x, trained)
        for shape in ((0, 3), (1, 1), (3, 0)):
            assert ours(shape, dtype).numpy().shape == shape


#: name -> (ours, probabilities of 0, 1, ...)
DISCRETE = {
    "randint": (lambda: mf.randint(0, 4, (4000,)), [0.25] * 4),
    "randint_like": (lambda: mf.randint_like(like("int64", (50, 80)), 1, 3), [0, 0.5, 0.5]),
    "bernoulli": (lambda: mf.bernoulli(mf.full((4000,), 0.3)), [0.7, 0.3]),
    "multinomial": (lambda: mf.multinomial(mf.array([1.0, 0.0, 3.0]), 4000, True), [0.25, 0, 0.75]),
    "first-of-a-permutation": (lambda: mf.concat([mf.randperm(3)[:1] for _ in range(200)]), [1 / 3] * 3),
}


@pytest.mark.parametrize("name", DISCRETE)
def test_whole_numbers(name):
    ours, chances = DISCRETE[name]
    mf.set_global_seed(5)
    x = ours()
    counts = np.bincount(x.numpy().astype(int).ravel(), minlength=len(chances))
    assert counts.size == len(chances)
    assert not x.requires_grad
    possible = np.array(chances) > 0
    np.testing.assert_array_equal(counts[~possible], 0)
    assert stats.chisquare(counts[possible], np.array(chances)[possible] * counts.sum()).pvalue > 1e-4


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_permutations(n):
    for dtype in ("int32", "int64"):
        x = mf.randperm(n, dtype)
        np.testing.assert_array_equal(np.sort(x.numpy()), np.arange(n))
        assert x.dtype == dtype
        assert not x.requires_grad
    assert n < 1000 or (x.numpy() != np.arange(n)).mean() > 0.9


@pytest.mark.parametrize(
    ("nonlinearity", "gain"),
    [("linear", 1), ("relu", 2**0.5), ("tanh", 5 / 3), ("leaky_relu", 1.9998**0.5), ("selu", 0.75)],
)
def test_deviations(nonlinearity, gain):
    assert init.calculate_gain(nonlinearity) == pytest.approx(gain, rel=1e-4)
    for mode, fan in (("fan_in", 5 * 6), ("fan_out", 4 * 6)):
        found = init.calculate_std(mf.zeros([4, 5, 2, 3]), mode, nonlinearity)
        assert found == pytest.approx(gain / fan**0.5, rel=1e-4)
